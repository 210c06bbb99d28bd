"""Prediction: every row once and in order, and a table that says what the model thinks."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

from classwise.data.batch import Batch, Rows
from classwise.data.dataset import ImageDataset
from classwise.data.fit import fit_image
from classwise.data.images import read_image
from classwise.data.loader import Loader
from classwise.data.sampling import batches_of
from classwise.errors import NonFiniteError
from classwise.infer import predict
from classwise.infer.engines import Engine, torch_engine
from classwise.infer.predict import predict_outputs, predictions_table
from classwise.model.backbone import HALF, Backbone
from classwise.model.classifier import Classifier, ModelMetadata
from classwise.model.heads import (
    ClassHead,
    Head,
    MultilabelHead,
    OrdinalHead,
    RankingHead,
    RegressionHead,
)

CPU = torch.device("cpu")
LABELS = {"마스크": ("wear", "incorrect", "normal"), "type": ("m", 'f "quoted", with comma')}
HEADS: dict[str, Head] = {"마스크": ClassHead(3), "type": ClassHead(2)}


def model(dropout: float = 0.5) -> Classifier:
    """One dense layer with batch norm, and two heads."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        body = nn.Sequential(nn.Flatten(), nn.Linear(108, 5), nn.BatchNorm1d(5))
        metadata = ModelMetadata("none", (6, 6), "squash", HALF, HALF, dropout, {"마스크": 3, "type": 2})
        return Classifier(Backbone(body, 5, HALF, HALF), metadata)


def eager(predicted: Classifier, dtype: torch.dtype = torch.float32) -> Engine:
    """The model itself."""
    return torch_engine(predicted, CPU, dtype)


@pytest.fixture
def loader(tmp_path: Path) -> Loader:
    """Seven PNG files in batches of three."""
    rng, paths = np.random.default_rng(0), []
    for row in range(7):
        paths.append(tmp_path / f"사진 {row}.png")
        paths[-1].write_bytes(
            cv2.imencode(".png", rng.integers(0, 256, (8, 9, 3), dtype=np.uint8))[1].tobytes()
        )
    return Loader(ImageDataset(paths, (6, 6), "squash", 1000), {}, 3, workers=0)


def test_every_row_once_and_in_order(loader: Loader) -> None:
    """Row i of the outputs is the model's answer to image i alone, the short last batch included."""
    predicted = model()
    outputs = predict_outputs(eager(predicted.train()), loader)
    assert not predicted.training
    assert {name: tuple(x.shape) for name, x in outputs.items()} == {"마스크": (7, 3), "type": (7, 2)}
    for row, path in enumerate(loader.dataset.paths):
        image_HWC = np.ascontiguousarray(fit_image(read_image(path, 1000), (6, 6), "squash"))
        with torch.no_grad():
            alone = predicted(torch.from_numpy(image_HWC).permute(2, 0, 1)[None])
        for name, x in outputs.items():
            torch.testing.assert_close(x[row], alone[name][0])
    assert all(not x.requires_grad and x.dtype == torch.float32 for x in outputs.values())


def test_the_same_again(loader: Loader) -> None:
    """Dropout is off, the statistics stand still and torch's generator is not asked."""
    predicted, before = model(), torch.get_rng_state()
    first = predict_outputs(eager(predicted), loader)
    second = predict_outputs(eager(predicted), loader)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(torch.get_rng_state(), before)


def test_one_autocast_serves_all_batches(loader: Loader) -> None:
    """In bf16 each batch is computed in bf16, and float32 comes out."""
    predicted, kinds = model(), []
    predicted.backbone.register_forward_hook(lambda module, inputs, output: kinds.append(output.dtype))
    outputs = predict_outputs(eager(predicted, torch.bfloat16), loader)
    assert kinds == [torch.bfloat16] * 3
    assert {x.dtype for x in outputs.values()} == {torch.float32}


@pytest.mark.parametrize("kept", [[0, 1, 2, 3, 4, 5], [0, 2, 1, 3, 4, 5, 6]])
def test_a_row_missing_or_out_of_order_is_noticed(loader: Loader, kept: list[int]) -> None:
    """A loader that loses a row or swaps two must not give a file that looks right."""

    class Wrong(Loader):
        def __init__(self) -> None:
            self.dataset, self.batch_size = loader.dataset, 3

        def batches(self, parts: Sequence[Rows], epoch: int = 0) -> Iterator[Batch]:
            return loader.batches(batches_of(np.array(kept), 3), epoch)

    with pytest.raises(AssertionError, match="a row is missing"):
        predict_outputs(eager(model()), Wrong())


def test_rows_without_a_finite_prediction_are_refused(loader: Loader) -> None:
    """The message names the target and how many rows."""
    broken = model()
    with torch.no_grad():
        broken.heads[1].bias[0] = math.nan
    with pytest.raises(NonFiniteError, match="target 'type': 7 of 7 rows"):
        predict_outputs(eager(broken), loader)


# The table.


def ids_of(count: int) -> list[str]:
    """Names of rows."""
    return [f"그림 '{row}'" for row in range(count)]


def drawn(count: int = 20) -> dict[str, torch.Tensor]:
    """Logits of both targets."""
    draw = torch.Generator().manual_seed(1)
    return {name: 3 * torch.randn(count, len(list_), generator=draw) for name, list_ in LABELS.items()}


def test_the_tables_columns() -> None:
    """id; per target label, truth and probabilities; joint number, truth and probability, in this order."""
    truth = {name: np.zeros(20, dtype=np.int64) for name in LABELS}
    frame = predictions_table(ids_of(20), drawn(), HEADS, LABELS, ("마스크", "type"), truth)
    assert frame.columns == [
        "id",
        *("마스크", "마스크_true", "마스크_p_wear", "마스크_p_incorrect", "마스크_p_normal"),
        *("type", "type_true", "type_p_m", 'type_p_f "quoted", with comma'),
        *("joint", "joint_true", "joint_p"),
    ]
    assert frame["id"].to_list() == ids_of(20)
    bare = predictions_table(ids_of(20), drawn(), HEADS, LABELS)
    assert not any(name.endswith("_true") or name.startswith("joint") for name in bare.columns)


def test_labels_and_probabilities_are_the_models() -> None:
    """Probabilities are the softmax and sum to 1; the label is the one with the largest."""
    logits = drawn()
    frame = predictions_table(ids_of(20), logits, HEADS, LABELS)
    for name, list_ in LABELS.items():
        found = frame.select([f"{name}_p_{label}" for label in list_]).to_numpy()
        wanted = np.exp(logits[name].numpy().astype(np.float64))
        wanted /= wanted.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(found, wanted, atol=1e-7)
        np.testing.assert_allclose(found.astype(np.float64).sum(axis=1), 1, atol=1e-6)
        assert frame[name].to_list() == [list_[k] for k in wanted.argmax(axis=1)]


def test_an_adjusted_head_answers_adjusted() -> None:
    """Label and probabilities are those of logit - tau * log prior; without it the label is another one."""
    prior = np.array([0.9, 0.06, 0.04])
    head = ClassHead(3, adjustment=tuple(-np.log(prior)))
    frame = predictions_table(["a"], {"마스크": torch.tensor([[1.0, 0.0, -2.0]])}, {"마스크": head}, LABELS)
    wanted = np.exp([1.0, 0.0, -2.0]) / prior
    found = frame.select([f"마스크_p_{label}" for label in LABELS["마스크"]]).to_numpy()[0]
    np.testing.assert_allclose(found, wanted / wanted.sum(), rtol=1e-6)
    assert frame["마스크"].to_list() == ["incorrect"]


def test_the_joint_class_row_by_row() -> None:
    """Number = first * size of the second + second; its probability is the product of the chosen parts'."""
    draw = np.random.default_rng(0)
    truth = {name: draw.integers(-1, len(list_), 20) for name, list_ in LABELS.items()}
    frame = predictions_table(ids_of(20), drawn(), HEADS, LABELS, ("type", "마스크"), truth)
    masks, kinds = LABELS["마스크"], LABELS["type"]
    unknown = 0
    for i, row in enumerate(frame.iter_rows(named=True)):
        assert row["joint"] == kinds.index(row["type"]) * 3 + masks.index(row["마스크"])
        p = row[f"type_p_{row['type']}"] * row[f"마스크_p_{row['마스크']}"]
        assert row["joint_p"] == pytest.approx(p, rel=1e-6)
        true = {name: int(truth[name][i]) for name in LABELS}
        assert row["마스크_true"] == (masks[true["마스크"]] if true["마스크"] >= 0 else None)
        known = min(true.values()) >= 0
        assert row["joint_true"] == (true["type"] * 3 + true["마스크"] if known else None)
        unknown += not known
    assert 0 < unknown < 20


def test_truth_stands_only_where_it_is_known() -> None:
    """One target's truth alone gives its column, and no true joint class."""
    truth = {"type": np.array([0, 1, -1])}
    frame = predictions_table(["a", "b", "c"], drawn(3), HEADS, LABELS, ("마스크", "type"), truth)
    assert frame["type_true"].to_list() == ["m", 'f "quoted", with comma', None]
    assert "마스크_true" not in frame.columns
    assert "joint_true" not in frame.columns
    assert isinstance(frame, pl.DataFrame)


# The other types of targets.


def test_levels_have_labels_truth_and_probabilities() -> None:
    """P(level k) is the product of the conditional tasks, written out in loops; the label is the median level."""
    draw, levels = torch.Generator().manual_seed(2), ("low", "mid", "high", "top")
    raw = 2 * torch.randn(50, 3, generator=draw)
    truth = {"rank": np.array([-1, *range(4)] * 10, dtype=np.int64)}
    frame = predictions_table(
        ids_of(50), {"rank": raw}, {"rank": OrdinalHead(4)}, {"rank": levels}, (), truth
    )
    differs = 0
    for i, row in enumerate(frame.iter_rows(named=True)):
        reached, p, median = 1.0, [], 0
        for k in range(3):
            go = 1 / (1 + math.exp(-float(raw[i, k])))
            p.append(reached * (1 - go))
            reached *= go
            median += reached > 0.5
        p.append(reached)
        found = [row[f"rank_p_{level}"] for level in levels]
        assert found == pytest.approx(p, abs=1e-6)
        assert row["rank"] == levels[median]
        k = int(truth["rank"][i])
        assert row["rank_true"] == (levels[k] if k >= 0 else None)
        differs += median != int(np.argmax(p))
    assert differs > 0


def test_several_labels_are_joined() -> None:
    """Those with a probability of 0.5 or more; the separator alone for none; unknown truth, in part or whole, is
    null."""
    raw = torch.tensor([[2.0, -1.0, 0.0], [-1.0, -2.0, -3.0], [1.0, 1.0, 1.0], [-1.0, 5.0, -1.0]])
    truth = np.array([[1, 0, 1], [0, 0, 0], [math.nan] * 3, [1, math.nan, 0]])
    frame = predictions_table(
        ids_of(4), {"tags": raw}, {"tags": MultilabelHead(3)}, {"tags": ["a", "b c", "d"]}, (), {"tags": truth},
        {"tags": ";"},
    )  # fmt: skip
    assert frame.columns == ["id", "tags", "tags_true", "tags_p_a", "tags_p_b c", "tags_p_d"]
    assert frame["tags"].to_list() == ["a;d", ";", "a;b c;d", "b c"]
    assert frame["tags_true"].to_list() == ["a;d", ";", None, None]
    found = frame.select("tags_p_a", "tags_p_b c", "tags_p_d").to_numpy()
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-raw.numpy())), rtol=1e-6)


def test_numbers_are_in_the_users_unit() -> None:
    """value = output * std + mean, in float64; an unknown truth is null; there are no probabilities."""
    raw = torch.tensor([[0.1], [-2.0], [3.0]])
    frame = predictions_table(
        ids_of(3), {"age": raw}, {"age": RegressionHead(mean=40.0, std=12.5)}, {}, (),
        {"age": np.array([41.5, math.nan, -3.0])},
    )  # fmt: skip
    assert frame.columns == ["id", "age", "age_true"]
    wanted = [float(np.float32(x)) * 12.5 + 40 for x in (0.1, -2.0, 3.0)]
    assert frame["age"].to_list() == pytest.approx(wanted, rel=1e-15)
    assert frame["age_true"].to_list() == [41.5, None, -3.0]


def test_scores_stand_beside_the_relevance() -> None:
    """A ranking's truth is the relevance, without the query; an unknown one is null."""
    frame = predictions_table(
        ids_of(3), {"rel": torch.tensor([[0.1], [-2.0], [3.0]])}, {"rel": RankingHead()}, {}, (),
        {"rel": np.array([[2, 0], [-1, 0], [0, 1]])},
    )  # fmt: skip
    assert frame.columns == ["id", "rel", "rel_true"]
    np.testing.assert_array_equal(frame["rel"].to_numpy(), np.float32([0.1, -2.0, 3.0]))
    assert frame["rel_true"].to_list() == [2, None, 0]


def test_a_number_in_the_joint_class_is_cut_at_its_edges() -> None:
    """The predicted and the true value alike; it has no probability, so neither has the joint class."""
    heads: dict[str, Head] = {
        "type": ClassHead(2),
        "age": RegressionHead(mean=40.0, std=10.0, edges=(30.0, 60.0)),
    }
    raw = {
        "type": torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]),
        "age": torch.tensor([[-1.0], [-1.1], [2.0]]),
    }
    truth = {"type": np.array([1, 1, 0]), "age": np.array([29.9, math.nan, 60.0])}
    frame = predictions_table(ids_of(3), raw, heads, LABELS, ("type", "age"), truth)
    # 30 is the middle class, 29 the first, 60 the last.
    assert frame["joint"].to_list() == [0 * 3 + 1, 1 * 3 + 0, 1 * 3 + 2]
    assert frame["joint_true"].to_list() == [1 * 3 + 0, None, 0 * 3 + 2]
    assert "joint_p" not in frame.columns


def test_a_row_without_a_finite_answer_has_none() -> None:
    """Not the last label, which the number -1 would be."""
    raw = {"마스크": torch.tensor([[math.nan, 0.0, 0.0], [0.0, 1.0, 0.0]])}
    frame = predictions_table(["a", "b"], raw, HEADS, LABELS, ("마스크",))
    assert frame["마스크"].to_list() == [None, "incorrect"]
    assert frame["joint"].to_list() == [None, 1]


def test_a_column_of_unknown_truths_is_written(tmp_path: Path) -> None:
    """Nulls alone still have a type, in the CSV file as in Parquet."""
    truth = {"type": np.full(3, -1), "마스크": np.full(3, -1)}
    frame = predictions_table(ids_of(3), drawn(3), HEADS, LABELS, ("type", "마스크"), truth)
    assert [frame[name].dtype for name in ("type_true", "joint_true")] == [pl.String, pl.Int64]
    frame.write_parquet(tmp_path / "p.parquet")
    assert pl.read_parquet(tmp_path / "p.parquet")["type_true"].to_list() == [None] * 3


def test_many_classes_have_the_most_probable_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """The probability of the predicted and of the true label, and the five most probable labels, ties in order."""
    monkeypatch.setattr(predict, "MOST_WRITTEN_OUT", 6)
    monkeypatch.setattr(predict, "CELLS_AT_ONCE", 14)  # two rows at a time
    logits = torch.tensor([[0.0, 3, 1, 2, -1, -2, 3], [5, 0, 0, 0, 0, 0, 0], [0, 1, 2, 3, 4, 5, 6]])
    labels = {"it": [f"k{k}" for k in range(7)]}
    truth = {"it": np.array([3, -1, 6])}
    table = predictions_table(["a", "b", "c"], {"it": logits}, {"it": ClassHead(7)}, labels, truth=truth)
    top = [name for rank in range(1, 6) for name in (f"it_top{rank}", f"it_top{rank}_p")]
    assert table.columns == ["id", "it", "it_true", "it_p", "it_true_p", *top]
    assert table["it"].to_list() == table["it_top1"].to_list() == ["k1", "k0", "k6"]
    assert table.row(0)[5::2] == ("k1", "k6", "k3", "k2", "k0")
    assert table.row(1)[5::2] == ("k0", "k1", "k2", "k3", "k4")
    p = logits.double().softmax(dim=1).numpy()
    assert table["it_p"].to_list() == pytest.approx([p[0, 1], p[1, 0], p[2, 6]])
    assert table["it_true_p"].to_list() == [pytest.approx(p[0, 3]), None, pytest.approx(p[2, 6])]
    in_full = predictions_table(["a", "b", "c"], {"it": logits}, {"it": ClassHead(7)}, labels, in_full=True)
    assert in_full.columns == ["id", "it", *(f"it_p_k{k}" for k in range(7))]
