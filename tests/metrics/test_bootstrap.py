"""Intervals against plain loops over resampled rows, and whether they cover what they should."""

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, log_loss

from classwise.metrics.bootstrap import bootstrap_intervals, resampled_weights, sampling_units, summed_by
from classwise.metrics.classification import ClassMetric, LabelMetric
from classwise.metrics.regression import RegressionMetric
from classwise.metrics.scores import LABEL_SCORES
from classwise.model.heads import ClassHead, OrdinalHead

NAN = float("nan")


def weights_of(units: int, seed: int, resamples: int) -> np.ndarray:
    """How often each unit is drawn: (units, resamples)."""
    return np.concatenate(list(resampled_weights(units, seed, resamples)), axis=1).astype(int)


def drawn_rows(rows: int, classes: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and labels, some rows masked and one without an answer."""
    draw = torch.Generator().manual_seed(seed)
    logits_BK = torch.randn(rows, classes, generator=draw, dtype=torch.float64)
    labels_B = torch.randint(-1, classes, (rows,), generator=draw)
    logits_BK += torch.nn.functional.one_hot(labels_B.clamp(min=0), classes)
    logits_BK[3], labels_B[3] = NAN, 0
    return logits_BK, labels_B


@pytest.mark.parametrize("grouped", [False, True], ids=["rows", "groups"])
@pytest.mark.parametrize("ordinal", [False, True], ids=["class", "ordinal"])
def test_intervals_by_a_plain_loop(grouped: bool, ordinal: bool) -> None:
    """Every score's interval: for each resample the rows are written out as often as they are drawn and counted
    anew by another metric, which has been compared with scikit-learn; masked rows and groups are never drawn. A metric
    of classes alone, as the joint's, says the same."""
    logits_BK, labels_B = drawn_rows(60, 6, 0)
    groups_B = np.array([f"person {i % 17}" for i in range(60)])
    labels_B[groups_B == "person 5"] = -1
    predicted = OrdinalHead(6).predicted if ordinal else None
    decoded_BK = logits_BK.log_softmax(dim=1)
    metric = ClassMetric(6, keep_rows=True, predicted=predicted, ordinal=ordinal)
    for part in range(0, 60, 13):
        metric.update(decoded_BK[part : part + 13], labels_B[part : part + 13])
    found = metric.intervals(groups_B if grouped else None, seed=3, resamples=40)

    known = [row for row in range(60) if labels_B[row] >= 0 and row != 3]
    names = sorted({groups_B[row] for row in known})
    units = (
        [[row for row in known if groups_B[row] == name] for name in names]
        if grouped
        else [[row] for row in known]
    )
    scores: dict[str, list[float]] = {name: [] for name in found}
    for weights in weights_of(len(units), 3, 40).T:
        rows = [row for unit, count in zip(units, weights, strict=True) for row in unit * count]
        again = ClassMetric(6, predicted=predicted, ordinal=ordinal)
        again.update(decoded_BK[rows], labels_B[rows])
        for name, values in scores.items():
            values.append(again.compute()[name])
    labels_only = LabelMetric(6, keep_rows=True)
    labels_only.update((predicted or ClassHead(6).predicted)(decoded_BK), labels_B)
    joint = labels_only.intervals(groups_B if grouped else None, seed=3, resamples=40)
    assert tuple(joint) == LABEL_SCORES
    for name, interval in joint.items():
        assert interval == pytest.approx(found[name], abs=1e-12), name
    assert len(found) == (17 if ordinal else 15)
    for name, values in scores.items():
        assert found[name] == pytest.approx(np.percentile(values, [2.5, 97.5]), abs=1e-12), name


def test_macro_f1_and_log_loss_by_scikit_learn() -> None:
    """The same by scikit-learn alone on rows that are written out."""
    logits_BK, labels_B = drawn_rows(50, 4, 1)
    metric = ClassMetric(4, keep_rows=True)
    metric.update(logits_BK, labels_B)
    rows_N = np.flatnonzero((labels_B.numpy() >= 0) & (np.arange(50) != 3))
    truth, p = labels_B.numpy()[rows_N], logits_BK.softmax(dim=1).numpy()[rows_N]
    f1, loss = [], []
    for weights in weights_of(len(rows_N), 0, 30).T:
        rows = np.repeat(np.arange(len(rows_N)), weights)
        options = {"labels": range(4), "average": "macro", "zero_division": 0}
        f1.append(f1_score(truth[rows], p[rows].argmax(axis=1), **options))
        loss.append(log_loss(truth[rows], p[rows], labels=np.arange(4)))
    found = metric.intervals(resamples=30)
    assert found["macro_f1"] == pytest.approx(np.percentile(f1, [2.5, 97.5]), abs=1e-12)
    assert found["log_loss"] == pytest.approx(np.percentile(loss, [2.5, 97.5]), abs=1e-12)


def test_a_95_percent_interval_covers_the_truth() -> None:
    """200 simulated sets of 300 rows, the true accuracy 0.8: it lies in about 95 of 100 intervals."""
    rng = np.random.default_rng(5)
    covered = 0
    for seed in range(200):
        truth = rng.integers(0, 3, 300)
        found = np.where(rng.random(300) < 0.8, truth, (truth + 1) % 3)
        metric = LabelMetric(3, keep_rows=True)
        metric.update(torch.from_numpy(found), torch.from_numpy(truth))
        low, high = metric.intervals(seed=seed, resamples=400)["accuracy"]
        covered += low <= 0.8 <= high
    assert 0.90 <= covered / 200 <= 0.99


def test_rows_that_are_alike_are_not_independent() -> None:
    """Each row ten times, in one group: the interval over groups is that of the rows without copies, about sqrt(10)
    times as wide as the one that takes copies for rows."""
    rng = np.random.default_rng(0)
    truth, found = rng.integers(0, 2, 80).repeat(10), rng.integers(0, 2, 80).repeat(10)
    copied, once = LabelMetric(2, keep_rows=True), LabelMetric(2, keep_rows=True)
    copied.update(torch.from_numpy(found), torch.from_numpy(truth))
    once.update(torch.from_numpy(found[::10]), torch.from_numpy(truth[::10]))
    by_group = copied.intervals(np.arange(80).repeat(10))["accuracy"]
    by_row = copied.intervals()["accuracy"]
    assert by_group == pytest.approx(once.intervals()["accuracy"], abs=1e-12)
    assert np.diff(by_group) / np.diff(by_row) == pytest.approx(10**0.5, rel=0.15)


def test_an_interval_over_groups_covers_the_truth() -> None:
    """200 simulated sets of 40 people with 8 alike numbers each, the true mean error 1: it lies in about 95 of 100
    intervals over people, and in far fewer over rows, which would be narrower."""
    rng = np.random.default_rng(9)
    person_N = np.arange(40).repeat(8)
    covered = {"groups": 0, "rows": 0}
    for seed in range(200):
        error_N = 1 + 0.3 * rng.normal(size=40)[person_N] + 0.1 * rng.normal(size=320)
        metric = RegressionMetric(keep_rows=True)
        metric.update(torch.from_numpy(error_N), torch.zeros(320, dtype=torch.float64))
        found = {"groups": metric.intervals(person_N, seed, 400), "rows": metric.intervals(None, seed, 400)}
        (low, high), (inner_low, inner_high) = found["groups"]["mae"], found["rows"]["mae"]
        assert high - low > inner_high - inner_low
        for name, interval in found.items():
            covered[name] += interval["mae"][0] <= 1 <= interval["mae"][1]
    assert 0.90 <= covered["groups"] / 200 <= 0.99
    assert covered["rows"] / 200 < 0.75


def test_the_seed_decides() -> None:
    """The same seed gives the same interval, another seed another one, near it."""
    logits_BK, labels_B = drawn_rows(200, 5, 2)
    metric = ClassMetric(5, keep_rows=True)
    metric.update(logits_BK, labels_B)
    first, again, other = (metric.intervals(seed=seed)["log_loss"] for seed in (1, 1, 2))
    assert first == again != other
    assert first == pytest.approx(other, rel=0.03)


def test_weights_are_draws_with_replacement() -> None:
    """Each resample draws as many units as there are, in any number of chunks; a unit's count has mean 1 and, nearly,
    variance 1."""
    weights = weights_of(2000, 0, 600)
    assert weights.shape == (2000, 600)
    assert (weights.sum(axis=0) == 2000).all()
    assert weights.std() == pytest.approx(1, abs=0.01)
    assert weights.mean(axis=1).std() == pytest.approx(600**-0.5, rel=0.1)


def test_few_groups_of_many_rows_are_weighed_in_small_parts() -> None:
    """The weights of 20 groups over 100,000 rows stay within 4 MiB at a time, and the draws are the same ones."""
    group_N = np.arange(100_000) % 20
    sizes = []

    def scorer(weights_NR: np.ndarray) -> dict[str, np.ndarray]:
        sizes.append(weights_NR.nbytes)
        return {"first": weights_NR[0]}

    found = bootstrap_intervals(scorer, 20, group_N, seed=5, resamples=60)
    assert max(sizes) <= 4 * 2**20
    assert found["first"] == np.percentile(weights_of(20, 5, 60)[0], [2.5, 97.5]).tolist()
    chunks = list(resampled_weights(20, 5, 60, rows=100_000))
    assert len(chunks) > 1
    assert (np.concatenate(chunks, axis=1) == weights_of(20, 5, 60)).all()


def test_batches_do_not_matter() -> None:
    """The rows are the same however they came."""
    logits_BK, labels_B = drawn_rows(90, 4, 7)
    whole, parts = ClassMetric(4, keep_rows=True), ClassMetric(4, keep_rows=True)
    whole.update(logits_BK, labels_B)
    for start in range(0, 90, 7):
        parts.update(logits_BK[start : start + 7], labels_B[start : start + 7])
    assert whole.intervals(resamples=50) == parts.intervals(resamples=50)
    other = ClassMetric(4, keep_rows=True)
    other.update(logits_BK[:40], labels_B[:40])
    rest = ClassMetric(4, keep_rows=True)
    rest.update(logits_BK[40:], labels_B[40:])
    other.merge(rest)
    assert whole.intervals(resamples=50) == other.intervals(resamples=50)


def test_sums_by_category() -> None:
    """Against a loop over rows; categories without a row are 0, and there may be none at all."""
    rng = np.random.default_rng(0)
    category, values = rng.integers(0, 9, 40), rng.random((40, 3))
    category[category == 4] = 5
    expected = np.zeros((9, 3))
    for row in range(40):
        expected[category[row]] += values[row]
    np.testing.assert_allclose(summed_by(category, 9)(values), expected, rtol=1e-12)
    assert summed_by(np.zeros(0, dtype=int), 2)(np.zeros((0, 3))).tolist() == [[0] * 3] * 2


def test_where_nothing_can_vary_there_is_no_interval() -> None:
    """One row, one group, or nothing known: no interval rather than one of width 0."""
    metric = ClassMetric(2, keep_rows=True)
    assert metric.intervals() == {}
    metric.update(torch.eye(2), torch.tensor([0, 1]))
    assert metric.intervals(["a", "a"]) == {}
    assert len(metric.intervals(["a", "b"], resamples=5)) == 13
    assert bootstrap_intervals(lambda w: {"sum": w.sum(axis=0)}, 1, None, 0) == {}


def test_what_cannot_be_resampled_is_refused() -> None:
    """Rows that were not kept; groups of another number of rows."""
    for metric in (ClassMetric(2), LabelMetric(2), RegressionMetric()):
        with pytest.raises(ValueError, match="keep_rows=True"):
            metric.intervals()
    with pytest.raises(ValueError, match="found 1 groups for 2 rows; allowed: one for each row"):
        sampling_units(["a"], np.array([True, False]))
