"""`data.weight` through the commands: what it changes, what it does not, and what is refused."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from classwise.compose.dataset import prepare
from classwise.compose.splits import data_digest
from classwise.config.load import load_config
from classwise.console import Console
from tests.helpers.pretrained import probed_config
from tests.helpers.refusals import refused
from tests.helpers.scenes import MANY, PLAIN, command, draw, many_table, plain_table, write_config, write_csv

MODEL = "checkpoints/last/model.safetensors"


def weighted_table(
    folder: Path, weights: list[str], flipped: bool = False, name: str = "samples.csv"
) -> None:
    """path, label, weight of 16 rows, and valid.csv beside it; `flipped`: rows of weight 0 have the other label."""
    rows = plain_table(folder, 16)
    cells = []
    for (path, label), weight in zip(rows, weights, strict=True):
        other = "ba"["ab".index(label)]
        cells.append([path, other if flipped and weight == "0" else label, weight])
    write_csv(folder / name, ("path", "label", "weight"), cells)
    held_out = []
    for number in range(100, 108):
        path = f"images/{number}.png"
        draw(folder / path, number % 2, number)
        held_out.append([path, "ab"[number % 2]])
    write_csv(folder / "valid.csv", ("path", "label"), held_out)


def trained(folder: Path, run: str, values: dict[str, Any] = PLAIN, **changes: Any) -> bytes:
    """The bytes of the weights that come of it."""
    config = write_config(folder, values, data__valid="valid.csv", **changes)
    return (command("train", config, "--run", folder / run).ok().path / MODEL).read_bytes()


@pytest.mark.parametrize("loss", ["cross_entropy", "balanced_softmax", "focal"])
def test_rows_of_weight_0_teach_nothing(loss: str, tmp_path: Path) -> None:
    """Whatever their labels are, the model is the same to the byte: also the class counts leave them out."""
    weights = ["0", "2", "1", "0.5", *["1"] * 10, "0", "3"]
    found = []
    for flipped in (False, True):
        weighted_table(tmp_path, weights, flipped)
        run = f"run {loss} {flipped}"
        found.append(trained(tmp_path, run, data__weight="weight", loss={"name": loss}))
    assert found[0] == found[1]


def test_only_the_ratios_count(tmp_path: Path) -> None:
    """Ten times the weights give the same model; other ratios give another one, and so does no column."""
    weighted_table(tmp_path, ["1", "2"] * 8)
    first = trained(tmp_path, "one", data__weight="weight")
    weighted_table(tmp_path, ["8", "16"] * 8)
    assert trained(tmp_path, "two", data__weight="weight") == first
    weighted_table(tmp_path, ["2", "1"] * 8)
    assert trained(tmp_path, "three", data__weight="weight") != first
    assert trained(tmp_path, "four") != first


def test_the_first_answer_is_weighted(tmp_path: Path) -> None:
    """Heads that are fitted to features see the weights too: rows of weight 0 may say what they like."""
    weights = ["0", "0", *["1", "2"] * 7]
    found = []
    for flipped in (False, True):
        folder = tmp_path / str(flipped)
        weighted_table(folder, weights, flipped)
        config = probed_config(folder, data__weight="weight", data__valid="valid.csv", training__plan="probe")
        run = command("train", config, "--run", folder / "run").ok().path
        found.append((run / "checkpoints/first/model.safetensors").read_bytes())
    assert found[0] == found[1]


def test_targets_of_every_type(tmp_path: Path) -> None:
    """All but a ranking, which is refused by name."""
    rows = many_table(tmp_path, 40)
    header = ("path", "label", "level", "tags", "size", "relevance", "query")
    write_csv(
        tmp_path / "samples.csv", (*header, "weight"), [[*row, str(i % 3)] for i, row in enumerate(rows)]
    )
    targets = {name: target for name, target in MANY["targets"].items() if target.get("type") != "ranking"}
    values = {**MANY, "targets": targets}
    config = write_config(tmp_path, values, data__weight="weight", training__epochs=2)
    command("train", config, "--run", tmp_path / "run").ok()
    assert {t.get("type", "class") for t in targets.values()} >= {
        "class",
        "ordinal",
        "multilabel",
        "regression",
    }

    ranked = {"order": {"type": "ranking", "column": "relevance", "query": "query"}}
    config = write_config(
        tmp_path, {**PLAIN, "targets": ranked}, data__weight="weight", selection__metric="order.ndcg"
    )
    result = command("train", config, "--run", tmp_path / "no")
    assert result.code == 1
    assert "data.weight: found 'weight', but targets.order" in result.err
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("weights", "column", "message"),
    [
        (["1"] * 16, "wait", "data.weight: "),
        (["1"] * 15 + ["-1"], "weight", "found '-1' for images/15.png; allowed: numbers of 0 or more"),
        (["1"] * 14 + ["nan", "x"], "weight", "and others, 2 in all; allowed"),
        (["1"] * 15 + [""], "weight", "found an empty cell for images/15.png"),
        (["0"] * 16, "weight", "all training rows have a weight of 0"),
    ],
)
def test_what_is_no_weight(weights: list[str], column: str, message: str, tmp_path: Path) -> None:
    """By column and row, before anything is written."""
    weighted_table(tmp_path, weights)
    config = write_config(tmp_path, PLAIN, data__valid="valid.csv", data__weight=column)
    result = command("train", config, "--run", tmp_path / "run")
    assert result.code == 1
    assert message in result.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("loss", ["ldam", "soft_f1"])
def test_a_loss_that_takes_no_weights(loss: str, tmp_path: Path) -> None:
    """It is named, with the key that asks for weights."""
    weighted_table(tmp_path, ["1", "2"] * 8)
    config = write_config(
        tmp_path, PLAIN, data__valid="valid.csv", data__weight="weight", loss={"name": loss}
    )
    result = command("train", config, "--run", tmp_path / "run")
    assert result.code == 1
    assert f"data.weight: found 'weight', but loss of 'label' is '{loss}'" in result.err


def test_other_weights_are_other_data(tmp_path: Path) -> None:
    """The digest by which `resume` tells whether the data is what it was."""
    digests = []
    for weights in (["1", "2"] * 8, ["1", "2"] * 8, ["1", "3"] * 8):
        weighted_table(tmp_path, weights)
        path = write_config(tmp_path, PLAIN, data__valid="valid.csv", data__weight="weight")
        with contextlib.closing(prepare(load_config(path), Console(quiet=True), use_cache=False)) as splits:
            digests.append(data_digest(splits))
    assert digests[0] == digests[1] != digests[2]


def test_scores_with_row_weights(tmp_path: Path) -> None:
    """`report.row_weights`: scores with weights beside those without, in metrics.json, evaluate and the report."""
    weighted_table(tmp_path, ["1", "2"] * 8)
    config = write_config(
        tmp_path, data__weight="weight", data__valid=0.5, report={"row_weights": True, "resamples": 0}
    )
    run = command("train", config, "--run", tmp_path / "run").ok().path
    scores = json.loads((run / "metrics.json").read_text())["targets"]["label"]
    # b has twice the weight of a, in the rows as in the weighted confusion matrix.
    (aa, ab), (ba, bb) = scores["confusion"]
    assert scores["row_weighted"]["accuracy"] == pytest.approx(
        (aa + 2 * bb) / (aa + ab + 2 * (ba + bb)), abs=1e-12
    )
    assert f"accuracy with row weights {scores['row_weighted']['accuracy']:.4f}" in command(
        "evaluate", run
    ).ok().out.replace("\n ", "")
    assert "accuracy with row weights" in (run / "report.html").read_text()


def test_rows_to_score_need_weights_too(tmp_path: Path) -> None:
    """A validation table without the column is refused before the training; so is the key without data.weight."""
    weighted_table(tmp_path, ["1", "2"] * 8)
    config = write_config(
        tmp_path, data__weight="weight", data__valid="valid.csv", report={"row_weights": True}
    )
    message = refused(tmp_path, "train", config, "--run", tmp_path / "run")
    assert "valid.csv has no column 'weight'" in message
    config = write_config(tmp_path, data__valid=0.5, report={"row_weights": True})
    message = refused(tmp_path, "train", config, "--run", tmp_path / "run")
    assert "report.row_weights: found true, but no column has weights" in message


def test_decimal_commas(tmp_path: Path) -> None:
    """As spreadsheets of many countries write numbers: the same model."""
    weighted_table(tmp_path, ["0.5", "2"] * 8)
    first = trained(tmp_path, "points", data__weight="weight")
    weighted_table(tmp_path, ["0,5", "2"] * 8)
    assert trained(tmp_path, "commas", data__weight="weight") == first
