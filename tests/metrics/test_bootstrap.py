"""Intervals against plain loops over resampled rows, and their coverage."""

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
    """Logits and labels, some rows unlabeled and one without a prediction."""
    draw = torch.Generator().manual_seed(seed)
    logits_BK = torch.randn(rows, classes, generator=draw, dtype=torch.float64)
    labels_B = torch.randint(-1, classes, (rows,), generator=draw)
    logits_BK += torch.nn.functional.one_hot(labels_B.clamp(min=0), classes)
    logits_BK[3], labels_B[3] = NAN, 0
    return logits_BK, labels_B


@pytest.mark.parametrize("grouped", [False, True], ids=["rows", "groups"])
@pytest.mark.parametrize("ordinal", [False, True], ids=["class", "ordinal"])
def test_intervals_by_a_plain_loop(grouped: bool, ordinal: bool) -> None:
    """Every score's interval: in each resample the rows are repeated as often as they are drawn and counted by
    another metric, which is tested against scikit-learn; unlabeled rows and groups are never drawn. A metric of classes
    only, as for the joint class, agrees."""
    logits_BK, labels_B = drawn_rows(60, 6, 0)
    groups_B = np.array([f"person {i % 17}" for i in range(60)])
    labels_B[groups_B == "person 5"] = -1
    predicted = OrdinalHead(6).predicted if ordinal else None
    decoded_BK = logits_BK.log_softmax(dim=1)
    metric = ClassMetric(6, keep_rows=True, predicted=predicted, ordinal=ordinal)
    for part in range(0, 60, 13):
        metric.update(decoded_BK[part : part + 13], labels_B[part : part + 13])
    actual = metric.intervals(groups_B if grouped else None, seed=3, resamples=40)

    known = [row for row in range(60) if labels_B[row] >= 0 and row != 3]
    names = sorted({groups_B[row] for row in known})
    units = (
        [[row for row in known if groups_B[row] == name] for name in names]
        if grouped
        else [[row] for row in known]
    )
    scores: dict[str, list[float]] = {name: [] for name in actual}
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
        assert interval == pytest.approx(actual[name], abs=1e-12), name
    assert len(actual) == (17 if ordinal else 15)
    for name, values in scores.items():
        assert actual[name] == pytest.approx(np.percentile(values, [2.5, 97.5]), abs=1e-12), name


def test_macro_f1_and_log_loss_by_scikit_learn() -> None:
    """The same by scikit-learn on repeated rows."""
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
    actual = metric.intervals(resamples=30)
    assert actual["macro_f1"] == pytest.approx(np.percentile(f1, [2.5, 97.5]), abs=1e-12)
    assert actual["log_loss"] == pytest.approx(np.percentile(loss, [2.5, 97.5]), abs=1e-12)


def test_a_95_percent_interval_covers_the_truth() -> None:
    """200 simulated sets of 300 rows, the true accuracy 0.8: it lies in about 95 of 100 intervals."""
    rng = np.random.default_rng(5)
    covered = 0
    for seed in range(200):
        truth = rng.integers(0, 3, 300)
        actual = np.where(rng.random(300) < 0.8, truth, (truth + 1) % 3)
        metric = LabelMetric(3, keep_rows=True)
        metric.update(torch.from_numpy(actual), torch.from_numpy(truth))
        low, high = metric.intervals(seed=seed, resamples=400)["accuracy"]
        covered += low <= 0.8 <= high
    assert 0.90 <= covered / 200 <= 0.99


def test_copies_of_a_row_are_not_independent() -> None:
    """Each row ten times, in one group: the interval over groups is that of the rows without copies, about sqrt(10)
    times as wide as the one over rows."""
    rng = np.random.default_rng(0)
    truth, actual = rng.integers(0, 2, 80).repeat(10), rng.integers(0, 2, 80).repeat(10)
    copied, once = LabelMetric(2, keep_rows=True), LabelMetric(2, keep_rows=True)
    copied.update(torch.from_numpy(actual), torch.from_numpy(truth))
    once.update(torch.from_numpy(actual[::10]), torch.from_numpy(truth[::10]))
    by_group = copied.intervals(np.arange(80).repeat(10))["accuracy"]
    by_row = copied.intervals()["accuracy"]
    assert by_group == pytest.approx(once.intervals()["accuracy"], abs=1e-12)
    assert np.diff(by_group) / np.diff(by_row) == pytest.approx(10**0.5, rel=0.15)


def test_an_interval_over_groups_covers_the_truth() -> None:
    """200 simulated sets of 40 people with 8 similar numbers each, the true mean error 1: it lies in about 95 of 100
    intervals over people, and in far fewer over rows, which would be narrower."""
    rng = np.random.default_rng(9)
    person_N = np.arange(40).repeat(8)
    covered = {"groups": 0, "rows": 0}
    for seed in range(200):
        error_N = 1 + 0.3 * rng.normal(size=40)[person_N] + 0.1 * rng.normal(size=320)
        metric = RegressionMetric(keep_rows=True)
        metric.update(torch.from_numpy(error_N), torch.zeros(320, dtype=torch.float64))
        actual = {"groups": metric.intervals(person_N, seed, 400), "rows": metric.intervals(None, seed, 400)}
        (low, high), (inner_low, inner_high) = actual["groups"]["mae"], actual["rows"]["mae"]
        assert high - low > inner_high - inner_low
        for name, interval in actual.items():
            covered[name] += interval["mae"][0] <= 1 <= interval["mae"][1]
    assert 0.90 <= covered["groups"] / 200 <= 0.99
    assert covered["rows"] / 200 < 0.75


def test_the_seed_decides() -> None:
    """The same seed gives the same interval, another seed a different one near it."""
    logits_BK, labels_B = drawn_rows(200, 5, 2)
    metric = ClassMetric(5, keep_rows=True)
    metric.update(logits_BK, labels_B)
    first, again, other = (metric.intervals(seed=seed)["log_loss"] for seed in (1, 1, 2))
    assert first == again != other
    assert first == pytest.approx(other, rel=0.03)


def test_weights_are_draws_with_replacement() -> None:
    """Each resample draws as many units as there are, in any number of chunks; the counts of a unit have mean 1 and a
    variance of nearly 1."""
    weights = weights_of(2000, 0, 600)
    assert weights.shape == (2000, 600)
    assert (weights.sum(axis=0) == 2000).all()
    assert weights.std() == pytest.approx(1, abs=0.01)
    assert weights.mean(axis=1).std() == pytest.approx(600**-0.5, rel=0.1)


def test_few_groups_of_many_rows_are_weighted_in_small_chunks() -> None:
    """The weights of 20 groups over 100,000 rows stay within 4 MiB at a time, and the draws are the same ones."""
    group_N = np.arange(100_000) % 20
    sizes = []

    def scorer(weights_NR: np.ndarray) -> dict[str, np.ndarray]:
        sizes.append(weights_NR.nbytes)
        return {"first": weights_NR[0]}

    actual = bootstrap_intervals(scorer, 20, group_N, seed=5, resamples=60)
    assert max(sizes) <= 4 * 2**20
    assert actual["first"] == np.percentile(weights_of(20, 5, 60)[0], [2.5, 97.5]).tolist()
    chunks = list(resampled_weights(20, 5, 60, rows=100_000))
    assert len(chunks) > 1
    assert (np.concatenate(chunks, axis=1) == weights_of(20, 5, 60)).all()


def test_batches_do_not_matter() -> None:
    """The intervals do not depend on the batches."""
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
    """Against a loop over rows; categories without a row are 0, and there may be no row at all."""
    rng = np.random.default_rng(0)
    category, values = rng.integers(0, 9, 40), rng.random((40, 3))
    category[category == 4] = 5
    expected = np.zeros((9, 3))
    for row in range(40):
        expected[category[row]] += values[row]
    np.testing.assert_allclose(summed_by(category, 9)(values), expected, rtol=1e-12)
    assert summed_by(np.zeros(0, dtype=int), 2)(np.zeros((0, 3))).tolist() == [[0] * 3] * 2


def test_no_interval_where_nothing_can_vary() -> None:
    """One row, one group, or no labeled row: no interval rather than one of width 0."""
    metric = ClassMetric(2, keep_rows=True)
    assert metric.intervals() == {}
    metric.update(torch.eye(2), torch.tensor([0, 1]))
    assert metric.intervals(["a", "a"]) == {}
    assert len(metric.intervals(["a", "b"], resamples=5)) == 13
    assert bootstrap_intervals(lambda w: {"sum": w.sum(axis=0)}, 1, None, 0) == {}


def test_what_cannot_be_resampled_is_refused() -> None:
    """Rows that were not stored; another number of groups than rows."""
    for metric in (ClassMetric(2), LabelMetric(2), RegressionMetric()):
        with pytest.raises(ValueError, match="keep_rows=True"):
            metric.intervals()
    with pytest.raises(ValueError, match="found 1 groups for 2 rows; allowed: one for each row"):
        sampling_units(["a"], np.array([True, False]))
