"""The two baselines: what scikit-learn says on the known rows, decoded by the same heads as a model's outputs."""

import math
import statistics
import warnings

import numpy as np
import numpy.typing as npt
import pytest
import torch
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import f1_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from classwise.compose import linear_probe as probe_module
from classwise.compose.baselines import Baselines, most_frequent
from classwise.compose.linear_probe import PIXELS, linear_probe, pixel_features, probe_rows
from classwise.demo.fashion import read_bundle
from classwise.errors import NonFiniteError
from classwise.metrics.collection import MetricCollection
from classwise.model.heads import (
    ClassHead,
    Head,
    MultilabelHead,
    OrdinalHead,
    RankingHead,
    RegressionHead,
)

HEADS: dict[str, Head] = {
    "class": ClassHead(4),
    "ordinal": OrdinalHead(4),
    "multilabel": MultilabelHead(3),
    "regression": RegressionHead(mean=40.0, std=12.0),
    "ranking": RankingHead(),
}


def scene(rows: int = 300, seed: int = 0) -> tuple[npt.NDArray[np.float32], dict[str, torch.Tensor]]:
    """Features (rows, 8) and a target of every type that is nearly linear in them; every class is there."""
    rng = np.random.default_rng(seed)
    x = rng.normal(2.0, [0.2, 1, 1, 1, 1, 1, 1, 5], (rows, 8))
    level = np.digitize(x[:, 1] + 0.3 * rng.normal(size=rows), [2.2, 3.0, 3.4])
    group = np.argmax(x[:, 2:6] + [0.8, 0.4, 0, -0.4] + 0.2 * rng.normal(size=(rows, 4)), axis=1)
    cells = (x[:, 1:4] + 0.3 * rng.normal(size=(rows, 3)) > [2.0, 2.5, 3.2]).astype(np.float64)
    value = 40 + 12 * (x[:, 4] - 2 + 0.1 * rng.normal(size=rows))
    ranking = np.stack([level, np.arange(rows) // 10], axis=1)
    targets = {"class": group, "ordinal": level, "multilabel": cells, "regression": value, "ranking": ranking}
    return x.astype(np.float32), {name: torch.from_numpy(target) for name, target in targets.items()}


def masked(targets: dict[str, torch.Tensor], rows: npt.NDArray[np.int64]) -> dict[str, torch.Tensor]:
    """The same with unknown targets in these rows."""
    found = {name: target.clone() for name, target in targets.items()}
    for name in ("class", "ordinal"):
        found[name][rows] = -1
    found["ranking"][rows, 0] = -1
    found["multilabel"][rows] = math.nan
    found["regression"][rows] = math.nan
    return found


def probe(
    name: str, features: npt.NDArray[np.float32], targets: dict[str, torch.Tensor], standardize: bool = True
) -> torch.Tensor:
    """The decoded answers for one target on other rows."""
    found = linear_probe({name: HEADS[name]}, features, targets, scene(100, 1)[0], standardize)
    assert found.notes == ()
    return HEADS[name].decode(found.outputs[name])


def softmax(logits: torch.Tensor) -> npt.NDArray[np.float64]:
    """Probabilities (N, K)."""
    p: npt.NDArray[np.float64] = torch.softmax(logits, dim=1).numpy()
    return p


# The most frequent answer.


def test_the_most_frequent_class_is_the_dummys() -> None:
    """Macro F1 on other rows is DummyClassifier's: 200 drawn cases, unknown rows, absent classes and ties."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        k = int(rng.integers(2, 9))
        train_N, valid_M = rng.integers(-1, k, 30), rng.integers(0, k, 20)
        train_N[0] = 0
        head = ClassHead(k)
        outputs = most_frequent({"c": head}, {"c": torch.from_numpy(train_N)}, 20)["c"]
        found_M = head.predicted(head.decode(outputs)).numpy()
        known_N = train_N[train_N >= 0]
        dummy = DummyClassifier(strategy="most_frequent").fit(np.zeros((len(known_N), 1)), known_N)
        options = {"labels": range(k), "average": "macro", "zero_division": 0}
        wanted = f1_score(valid_M, dummy.predict(np.zeros((20, 1))), **options)
        assert f1_score(valid_M, found_M, **options) == pytest.approx(wanted, abs=1e-12)


def test_the_class_frequencies_are_its_probabilities() -> None:
    """Also through a head that takes the prior off; an absent class is next to nothing, and finite."""
    labels_N = torch.tensor([0, 1, 1, 1, 3, -1, -1])
    share_K = np.array([0.2, 0.6, 0, 0.2])
    for head in (ClassHead(4), ClassHead(4, adjustment=(0.5, 3.0, -9.0, 0.0))):
        outputs = most_frequent({"c": head}, {"c": labels_N}, 2)["c"]
        assert outputs.shape == (2, 4)
        assert outputs.isfinite().all()
        np.testing.assert_allclose(softmax(head.decode(outputs)), np.stack([share_K] * 2), atol=1e-12)


def test_the_levels_have_their_frequencies_and_the_answer_is_a_median() -> None:
    """200 drawn distributions, with empty levels at either end and between."""
    rng = np.random.default_rng(1)
    for _ in range(200):
        k = int(rng.integers(2, 8))
        counts_K = rng.integers(0, 5, k) * rng.integers(0, 2, k)
        counts_K[rng.integers(0, k)] += 1
        levels_N = np.repeat(np.arange(k), counts_K)
        head = OrdinalHead(k)
        targets = {"o": torch.from_numpy(np.append(levels_N, [-1, -1]))}
        decoded = head.decode(most_frequent({"o": head}, targets, 1)["o"])
        assert decoded.isfinite().all()
        np.testing.assert_allclose(decoded.exp().numpy()[0], counts_K / counts_K.sum(), atol=1e-12)
        levels = levels_N.tolist()
        assert statistics.median_low(levels) <= int(head.predicted(decoded)) <= statistics.median_high(levels)


def test_each_label_has_its_frequency_among_the_known_cells() -> None:
    """Counted column by column; a column of unknown cells is even; always, never: finite."""
    nan = math.nan
    cells = [[1, 1, 0, nan], [1, nan, 0, nan], [0, 0, 0, nan], [1, nan, nan, nan], [nan, nan, 0, nan]]
    head = MultilabelHead(4)
    outputs = most_frequent({"m": head}, {"m": torch.tensor(cells, dtype=torch.float64)}, 3)["m"]
    assert outputs.isfinite().all()
    shares = torch.sigmoid(head.decode(outputs)).numpy()
    np.testing.assert_allclose(shares, np.stack([[0.75, 0.5, 0.0, 0.5]] * 3), atol=1e-12)


def test_numbers_are_the_training_mean_and_scores_are_level() -> None:
    """DummyRegressor's answer where the head holds the known rows' mean; every image of a query scores alike."""
    values_N = np.array([1.0, 4.0, math.nan, 10.0])
    known_N = values_N[~np.isnan(values_N)]
    heads: dict[str, Head] = {
        "v": RegressionHead(float(known_N.mean()), float(known_N.std())),
        "r": RankingHead(),
    }
    targets = {"v": torch.from_numpy(values_N), "r": torch.tensor([[1, 0], [0, 0], [-1, 1], [2, 1]])}
    outputs = most_frequent(heads, targets, 6)
    dummy = DummyRegressor().fit(np.zeros((3, 1)), known_N)
    assert heads["v"].decode(outputs["v"]).tolist() == pytest.approx(dummy.predict(np.zeros((6, 1))).tolist())
    assert heads["r"].decode(outputs["r"]).tolist() == [0.0] * 6


# The linear probe.


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("name", ["class", "ordinal"])
def test_classes_and_levels_are_scikit_learns(name: str, standardize: bool) -> None:
    """The head decodes the very probabilities of balanced logistic regression, and so its answers."""
    train_ND, targets = scene()
    decoded = probe(name, train_ND, targets, standardize)
    logistic = LogisticRegression(class_weight="balanced", max_iter=2000)
    reference = make_pipeline(StandardScaler(), logistic) if standardize else logistic
    p_MK = reference.fit(train_ND, targets[name].numpy()).predict_proba(scene(100, 1)[0])
    np.testing.assert_allclose(softmax(decoded), p_MK, atol=1e-6)
    assert min(np.bincount(targets[name].numpy())) < 40 < 80 < max(np.bincount(targets[name].numpy()))
    predicted_M = HEADS[name].predicted(decoded).numpy()
    if name == "class":
        np.testing.assert_array_equal(predicted_M, p_MK.argmax(axis=1))
    else:
        np.testing.assert_array_equal(predicted_M, (np.cumsum(p_MK, axis=1) < 0.5).sum(axis=1))
    truth_M = scene(100, 1)[1][name].numpy()
    assert (predicted_M == truth_M).mean() > 0.7


def test_two_classes() -> None:
    """scikit-learn gives one number for two classes; the head gets two."""
    train_ND, targets = scene()
    labels_N = (targets["class"] > 0).long()
    valid_MD, head = scene(100, 1)[0], ClassHead(2)
    found = linear_probe({"c": head}, train_ND, {"c": labels_N}, valid_MD, standardize=False)
    reference = LogisticRegression(class_weight="balanced", max_iter=2000).fit(train_ND, labels_N.numpy())
    np.testing.assert_allclose(
        softmax(head.decode(found.outputs["c"])), reference.predict_proba(valid_MD), atol=1e-6
    )


def test_an_adjusted_head_does_not_adjust_the_probe() -> None:
    """The probe weights its classes already: what the head adds for its model is taken off before."""
    train_ND, targets = scene()
    head = ClassHead(4, adjustment=(5.0, -5.0, 0.0, 1.0))
    found = linear_probe({"class": head}, train_ND, targets, scene(100, 1)[0], True)
    plain = probe("class", train_ND, targets)
    np.testing.assert_allclose(head.decode(found.outputs["class"]).numpy(), plain.numpy(), atol=1e-12)


def test_labels_are_scikit_learns() -> None:
    """One against the rest, balanced, label by label."""
    train_ND, targets = scene()
    p_ML = torch.sigmoid(probe("multilabel", train_ND, targets)).numpy()
    logistic = LogisticRegression(class_weight="balanced", max_iter=2000)
    reference = make_pipeline(StandardScaler(), OneVsRestClassifier(logistic))
    wanted_ML = reference.fit(train_ND, targets["multilabel"].numpy()).predict_proba(scene(100, 1)[0])
    np.testing.assert_allclose(p_ML, wanted_ML, atol=1e-6)


@pytest.mark.parametrize("name", ["regression", "ranking"])
def test_numbers_and_scores_are_ridge_regressions(name: str) -> None:
    """In the user's unit; a ranking's scores are predicted relevances. They explain most of what there is."""
    train_ND, targets = scene()
    valid_MD, valid = scene(100, 1)
    column = targets[name] if name == "regression" else targets[name][:, 0]
    reference = make_pipeline(StandardScaler(), Ridge(alpha=1.0)).fit(train_ND, column.numpy())
    found_M = probe(name, train_ND, targets).numpy()
    # scikit-learn computes in the features' float32 here, the probe in float64.
    np.testing.assert_allclose(found_M, reference.predict(valid_MD), rtol=1e-4, atol=1e-4)
    truth_M = (valid[name] if name == "regression" else valid[name][:, 0]).numpy()
    assert np.corrcoef(found_M, truth_M)[0, 1] > 0.8


@pytest.mark.parametrize("name", list(HEADS))
def test_unknown_rows_are_left_out(name: str) -> None:
    """The answers are those of the known rows alone; without the mask they are others."""
    train_ND, targets = scene()
    hidden = np.random.default_rng(2).choice(300, 120, replace=False)
    seen = np.setdiff1d(np.arange(300), hidden)
    found = probe(name, train_ND, masked(targets, hidden), standardize=False)
    alone = {key: target[torch.from_numpy(seen)] for key, target in targets.items()}
    wanted = probe(name, train_ND[seen], alone, standardize=False)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    assert not torch.allclose(found, probe(name, train_ND, targets, standardize=False))


def test_unknown_cells_are_left_out_label_by_label() -> None:
    """Each label is learned from the rows that it is known of."""
    train_ND, targets = scene()
    cells = targets["multilabel"].clone()
    cells[:100, 0] = math.nan
    cells[50:200, 2] = math.nan
    valid_MD = scene(100, 1)[0]
    found = linear_probe({"m": MultilabelHead(3)}, train_ND, {"m": cells}, valid_MD, standardize=False)
    for label in range(3):
        known = ~cells[:, label].isnan().numpy()
        reference = LogisticRegression(class_weight="balanced", max_iter=2000)
        reference.fit(train_ND[known], cells[:, label].numpy()[known])
        wanted_M = reference.decision_function(valid_MD)
        np.testing.assert_allclose(found.outputs["m"][:, label].numpy(), wanted_M, rtol=1e-5, atol=1e-5)


def test_a_class_without_a_row_is_never_the_answer() -> None:
    """Its logit is finite and low; with one class left that is the answer; with none there is some answer."""
    train_ND, targets = scene()
    valid_MD = scene(100, 1)[0]
    for present in ([0, 2, 3], [1, 2], [2], []):
        labels_N = torch.where(torch.isin(targets["class"], torch.tensor(present)), targets["class"], -1)
        heads: dict[str, Head] = {"class": ClassHead(4), "ordinal": OrdinalHead(4)}
        found = linear_probe(heads, train_ND, {"class": labels_N, "ordinal": labels_N}, valid_MD, True)
        for name, head in heads.items():
            decoded = head.decode(found.outputs[name])
            assert decoded.isfinite().all()
            predicted = set(head.predicted(decoded).tolist())
            assert -1 not in predicted
            if name == "class" and present:
                assert predicted <= set(present)
                assert len(predicted) == len(present)


def test_a_label_that_is_always_or_never_there() -> None:
    """Its log-odds are finite and say so; a column of unknown cells is even."""
    train_ND, targets = scene()
    cells = targets["multilabel"].clone()
    cells[:, 0], cells[:, 1], cells[:, 2] = 1, 0, math.nan
    cells[0, :2] = math.nan
    found = linear_probe({"m": MultilabelHead(3)}, train_ND, {"m": cells}, train_ND[:5], True).outputs["m"]
    np.testing.assert_allclose(torch.sigmoid(found).numpy(), [[1.0, 0.0, 0.5]] * 5, atol=1e-12)


def test_no_known_number_gives_the_mean() -> None:
    """An all-unknown regression or ranking is the constant of `most_frequent`."""
    train_ND, targets = scene()
    hidden = masked(targets, np.arange(300))
    heads = {name: HEADS[name] for name in ("regression", "ranking")}
    found = linear_probe(heads, train_ND, hidden, train_ND[:5], True).outputs
    constant = most_frequent(heads, hidden, 5)
    assert all(torch.equal(found[name], constant[name]) for name in heads)


def test_all_targets_at_once_and_the_same_again() -> None:
    """Every target's answers are those it gets alone; twice the same; no generator is asked, no input changed."""
    train_ND, targets = scene()
    copies = train_ND.copy(), {name: target.clone() for name, target in targets.items()}
    before, numbers = torch.get_rng_state(), np.random.get_state()[1].copy()
    found = linear_probe(HEADS, train_ND, targets, scene(100, 1)[0], True)
    again = linear_probe(HEADS, train_ND, targets, scene(100, 1)[0], True)
    for name, head in HEADS.items():
        assert found.outputs[name].shape == (100, head.outputs)
        assert torch.equal(found.outputs[name], again.outputs[name])
        assert torch.equal(head.decode(found.outputs[name]), probe(name, train_ND, targets))
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == numbers).all()
    assert (train_ND == copies[0]).all()
    assert all(torch.equal(targets[name], copies[1][name]) for name in targets)


def test_features_that_are_not_finite_are_refused() -> None:
    """The message says on which side, and how many rows."""
    train_ND, targets = scene()
    broken_ND = train_ND.copy()
    broken_ND[[3, 7], 0] = math.nan
    with pytest.raises(NonFiniteError, match="the features of 2 of 300 training rows are not finite"):
        linear_probe(HEADS, broken_ND, targets, train_ND, True)
    with pytest.raises(NonFiniteError, match="2 of 300 validation rows"):
        linear_probe(HEADS, train_ND, targets, broken_ND, True)


def test_the_scores_of_a_run_count_them() -> None:
    """The MetricCollection takes both as it takes a model's outputs, the joint class included; the probe is better."""
    train_ND, targets = scene()
    valid_MD, valid = scene(100, 1)
    labels = {"class": "abcd", "ordinal": "wxyz", "multilabel": "lmn"}
    found = []
    for outputs in (
        most_frequent(HEADS, targets, 100),
        linear_probe(HEADS, train_ND, targets, valid_MD, True).outputs,
    ):
        board = MetricCollection(HEADS, labels, ("class", "ordinal"))
        board.update(outputs, valid)
        assert board.invalid == 0
        found.append(board.compute())
    frequent, linear = found
    for name, metric in (
        ("class", "macro_f1"), ("ordinal", "macro_f1"), ("multilabel", "macro_f1"), ("regression", "r2"),
        ("ranking", "ndcg"),
    ):  # fmt: skip
        assert linear["targets"][name][metric] > frequent["targets"][name][metric] + 0.05
    assert linear["joint"]["macro_f1"] > frequent["joint"]["macro_f1"] + 0.05


# The budget.


def long_tail(rows: int = 2000) -> tuple[npt.NDArray[np.float32], dict[str, torch.Tensor]]:
    """A class target of four classes, the rarest with 7 rows, which come in any order; and one of every type."""
    train_ND, targets = scene(rows)
    labels_N = np.repeat(np.arange(4), [rows - 157, 100, 50, 7])
    return train_ND, {**targets, "class": torch.from_numpy(np.random.default_rng(3).permutation(labels_N))}


def test_more_rows_than_the_budget_allows_are_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rare classes stay whole, the frequent ones share the rest evenly, and the note gives both numbers."""
    train_ND, targets = long_tail()
    monkeypatch.setattr(probe_module, "WORK", 2 * 8 * 4 * probe_module._EXPECTED_STEPS * 200)
    heads: dict[str, Head] = {"class": ClassHead(4)}
    rows = probe_rows(heads, targets, 8)
    assert np.bincount(targets["class"].numpy()[rows]).tolist() == [71, 71, 50, 7]
    assert (np.diff(rows) > 0).all()
    # Evenly: of 1,843 rows every 26th, so the first half of the table gives half of them.
    frequent = np.flatnonzero(targets["class"].numpy()[rows] == 0)
    assert 30 < (rows[frequent] < 1000).sum() < 41
    found = linear_probe(heads, train_ND, targets, train_ND[:50], False)
    assert found.notes[0] == "linear probe: 'class' is fitted on 199 of 2,000 rows, to save time"
    # With as many steps as this budget leaves: on some processors the fit takes more.
    reference = LogisticRegression(class_weight="balanced", max_iter=100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        reference.fit(train_ND[rows], targets["class"].numpy()[rows])
    wanted = reference.predict_proba(train_ND[:50])
    np.testing.assert_allclose(softmax(found.outputs["class"]), wanted, atol=1e-6)


def test_the_features_of_the_chosen_rows_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the features of `probe_rows` alone each target is learned from the same rows, to the same answers."""
    train_ND, targets = long_tail()
    targets = masked(targets, np.arange(0, 2000, 3))
    monkeypatch.setattr(probe_module, "WORK", 1.0)
    rows = probe_rows(HEADS, targets, 8)
    assert len(rows) < 500
    whole = linear_probe(HEADS, train_ND, targets, train_ND[:50], False)
    part = linear_probe(HEADS, train_ND[rows], targets, train_ND[:50], False, rows)
    assert whole.notes == part.notes
    assert sum("of 1,333 rows" in note for note in whole.notes) == len(HEADS)
    assert all(torch.equal(whole.outputs[name], part.outputs[name]) for name in HEADS)


def test_ridge_regression_is_thinned_over_the_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """100 rows at least, ten of each tenth of the values."""
    targets = scene(2000)[1]
    monkeypatch.setattr(probe_module, "WORK", 1.0)
    rows = probe_rows({"regression": HEADS["regression"]}, targets, 8)
    cuts = np.quantile(targets["regression"].numpy(), np.arange(1, 10) / 10)
    assert np.bincount(np.digitize(targets["regression"].numpy()[rows], cuts)).tolist() == [10] * 10


def test_a_rare_label_keeps_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several labels the rarest decides which rows are rare."""
    targets = scene(2000)[1]
    cells = targets["multilabel"].clone()
    cells[:, 2] = 0
    cells[[5, 500, 1999], 2] = 1
    monkeypatch.setattr(probe_module, "WORK", 1.0)
    rows = probe_rows({"m": MultilabelHead(3)}, {"m": cells}, 8)
    assert len(rows) <= 60
    assert {5, 500, 1999} <= set(rows.tolist())


def test_all_rows_are_used_where_they_fit() -> None:
    """The known ones of any target, in order, without repeats."""
    _, targets = scene()
    hidden = masked(targets, np.arange(10))
    assert probe_rows(HEADS, hidden, 8).tolist() == list(range(10, 300))
    assert probe_rows(HEADS, {**hidden, "class": targets["class"]}, 8).tolist() == list(range(300))


def test_a_fit_that_runs_out_of_steps_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted fit by fit, without scikit-learn's warning; the answers are still there."""
    train_ND, targets = scene()
    monkeypatch.setattr(probe_module, "MAX_STEPS", 2)
    monkeypatch.setattr(probe_module, "_MIN_STEPS", 1)
    found = linear_probe(HEADS, train_ND, targets, train_ND[:5], True)
    assert found.notes == (
        "linear probe: 'class': stopped after 2 steps, 1 of its fits not converged",
        "linear probe: 'ordinal': stopped after 2 steps, 1 of its fits not converged",
        "linear probe: 'multilabel': stopped after 2 steps, 3 of its fits not converged",
    )
    assert all(outputs.isfinite().all() for outputs in found.outputs.values())


# Images as features.


def test_small_gray_images_stay_as_they_are() -> None:
    """28 x 28 with equal channels: 784 numbers, pixel / 255, batch after batch."""
    images_NHW = read_bundle("train")[0][:10]
    images_NHWC = np.repeat(images_NHW[..., None], 3, axis=3)
    train_ND, valid_MD = pixel_features([images_NHWC[:4], images_NHWC[4:7]], iter([images_NHWC[7:]]))
    wanted = images_NHW.reshape(10, 784).astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(np.concatenate([train_ND, valid_MD]), wanted)
    assert (train_ND.shape, valid_MD.shape, train_ND.dtype) == ((7, 784), (3, 784), np.float32)


def test_large_images_are_averaged_over_areas() -> None:
    """Where the sides divide, each number is the mean of its block; in colour, channel by channel."""
    draw = np.random.default_rng(0)
    gray = np.repeat(draw.integers(0, 256, (2, 128, 64, 1), dtype=np.uint8), 3, axis=3)
    train_ND, _ = pixel_features([gray], [gray])
    # 1,024 numbers in the proportions 2 : 1 are 45 x 22; the mean is kept whatever the blocks are.
    assert train_ND.shape == (2, 45 * 22)
    np.testing.assert_allclose(train_ND.mean(axis=1), gray.mean(axis=(1, 2, 3)) / 255, atol=2e-3)
    square = np.repeat(draw.integers(0, 256, (2, 96, 96, 1), dtype=np.uint8), 3, axis=3)
    blocks = square[..., 0].reshape(2, 32, 3, 32, 3).mean(axis=(2, 4)) / 255
    np.testing.assert_allclose(pixel_features([square], [square])[0], blocks.reshape(2, -1), atol=1e-6)
    colour = draw.integers(0, 256, (2, 36, 36, 3), dtype=np.uint8)
    blocks = colour.reshape(2, 18, 2, 18, 2, 3).mean(axis=(2, 4)) / 255
    np.testing.assert_allclose(pixel_features([colour], [colour])[0], blocks.reshape(2, -1), atol=1e-6)


def test_one_coloured_image_makes_all_coloured() -> None:
    """On either side; both sides have the same numbers an image, the gray ones' three channels alike."""
    draw = np.random.default_rng(0)
    gray = np.repeat(draw.integers(0, 256, (3, 28, 28, 1), dtype=np.uint8), 3, axis=3)
    colour = gray.copy()
    colour[2, 5, 5, 1] ^= 1
    pair: list[tuple[list[npt.NDArray[np.uint8]], list[npt.NDArray[np.uint8]]]] = [
        ([gray, colour], [gray]),
        ([gray], [gray, colour]),
    ]
    for train, valid in pair:
        train_ND, valid_MD = pixel_features(train, valid)
        assert train_ND.shape == (3 * len(train), 18 * 18 * 3)
        assert valid_MD.shape == (3 * len(valid), 18 * 18 * 3)
        channels = train_ND[:3].reshape(3, -1, 3)
        assert (channels == channels[..., :1]).all()
        np.testing.assert_array_equal(train_ND[:3], valid_MD[:3])


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (7, 900), (32, 32), (33, 32), (224, 224)])
@pytest.mark.parametrize("gray", [True, False])
def test_no_image_has_more_numbers_than_allowed(size: tuple[int, int], gray: bool) -> None:
    """Of any proportions; white stays white."""
    images = np.full((2, *size, 3), 255, dtype=np.uint8)
    if not gray:
        images[1, 0, 0, 0] = 0
    train_ND, _ = pixel_features([images], [images])
    assert 1 <= train_ND.shape[1] <= PIXELS
    np.testing.assert_allclose(train_ND[0], 1.0, rtol=1e-6)
    if size == (32, 32) and gray:
        assert train_ND.shape[1] == PIXELS


def test_the_bundled_images_probe() -> None:
    """Long-tailed clothes: macro F1 on the test set is that of scikit-learn on the raw pixels, and settles within
    the steps; the most frequent class is far below."""
    (train, labels_N), (test, truth_M) = read_bundle("train"), read_bundle("test")
    pair = [[np.repeat(images[..., None], 3, axis=3)] for images in (train, test)]
    head, targets = ClassHead(10), {"c": torch.from_numpy(labels_N.astype(np.int64))}
    train_ND, test_MD = pixel_features(*pair)
    found = linear_probe({"c": head}, train_ND, targets, test_MD, standardize=False)
    reference = LogisticRegression(class_weight="balanced", max_iter=2000)
    with threadpool_limits(1):  # as the probe: another number of threads gives other last digits
        reference.fit(train.reshape(-1, 784) / np.float32(255), labels_N)
    wanted = f1_score(truth_M, reference.predict(test.reshape(-1, 784) / np.float32(255)), average="macro")
    predicted_M = head.predicted(head.decode(found.outputs["c"])).numpy()
    assert f1_score(truth_M, predicted_M, average="macro") == pytest.approx(wanted, abs=1e-12)
    assert found.notes == ()
    frequent = most_frequent({"c": head}, targets, len(truth_M))["c"]
    assert (
        f1_score(truth_M, head.predicted(frequent).numpy(), average="macro", zero_division=0)
        < 0.02
        < 0.7
        < wanted
    )


# What is told of them.


def test_which_baselines_a_run_does_not_beat() -> None:
    """As good is not better; a smaller error is; a baseline that was not fitted or has no score is not there."""
    both = Baselines("macro_f1", 0.1, 0.6, "features", ("a note",))
    assert both.as_dict() == {
        "metric": "macro_f1", "most_frequent": 0.1, "linear_probe": 0.6, "probe_on": "features",
        "kind": "class",
    }  # fmt: skip
    frequent, linear = "the most frequent class", "a balanced linear probe on features"
    assert both.not_beaten_by(0.7, higher_is_better=True) == {}
    assert both.not_beaten_by(0.6, higher_is_better=True) == {linear: 0.6}
    assert both.not_beaten_by(0.05, higher_is_better=True) == {frequent: 0.1, linear: 0.6}
    assert both.not_beaten_by(math.nan, higher_is_better=True) == {frequent: 0.1, linear: 0.6}
    errors = Baselines("mae", 9.0, None, "pixels", kind="regression")
    assert errors.not_beaten_by(8.9, higher_is_better=False) == {}
    assert errors.not_beaten_by(9.1, higher_is_better=False) == {"the training mean": 9.0}
    assert str(errors) == "mae: the training mean 9.0000"
    assert Baselines("r2", math.nan, None, "pixels").not_beaten_by(0.0, higher_is_better=True) == {}
