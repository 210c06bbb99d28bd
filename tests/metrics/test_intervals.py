"""Intervals of class targets: what they contain, what they depend on, and where there is none.

How often they contain the true score is simulated in tests/benchmarks/test_honesty_intervals.py.
"""

import itertools

import numpy as np
import pytest
import torch

from classwise.metrics.classification import ClassMetric, LabelMetric
from classwise.metrics.collection import MetricCollection
from classwise.metrics.intervals import Intervals
from classwise.metrics.scores import LABEL_SCORES, SCORES
from classwise.model.heads import ClassHead, OrdinalHead

NAN = float("nan")


def drawn_rows(rows: int, classes: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and labels, some rows unlabeled and one without a prediction."""
    draw = torch.Generator().manual_seed(seed)
    logits_BK = torch.randn(rows, classes, generator=draw, dtype=torch.float64)
    labels_B = torch.randint(-1, classes, (rows,), generator=draw)
    logits_BK += 2 * torch.nn.functional.one_hot(labels_B.clamp(min=0), classes)
    logits_BK[3], labels_B[3] = NAN, 0
    return logits_BK, labels_B


def label_metric(true: list[int], predicted: list[int], classes: int) -> LabelMetric:
    metric = LabelMetric(classes, keep_rows=True)
    metric.update(torch.tensor(predicted), torch.tensor(true))
    return metric


WITHHELD = ["calibration_error", "roc_auc", "average_precision"]


@pytest.mark.parametrize("grouped", [False, True], ids=["rows", "groups"])
@pytest.mark.parametrize("ordinal", [False, True], ids=["class", "ordinal"])
def test_every_interval_contains_its_score(grouped: bool, ordinal: bool) -> None:
    """Every score but the calibration error and those of the order of all rows has an interval around it, and so has
    every class."""
    logits_BK, labels_B = drawn_rows(200, 6, 0)
    groups = np.arange(200) % 61 if grouped else None
    predicted = OrdinalHead(6).predicted if ordinal else None
    metric = ClassMetric(6, keep_rows=True, predicted=predicted, ordinal=ordinal)
    metric.update(logits_BK.log_softmax(dim=1), labels_B)
    scores, actual = metric.compute(), metric.intervals(groups, seed=3, resamples=200)
    type_ = "ordinal" if ordinal else "class"
    assert [*actual.scores] == [name for name in SCORES[type_] if name in scores and name not in WITHHELD]
    assert list(actual.withheld) == WITHHELD
    for name, (low, high) in actual.scores.items():
        assert low <= scores[name] <= high, name
        assert 0.001 < high - low < 0.7, name
    for row, of_class in zip(scores["per_class"], actual.classes, strict=True):
        assert list(of_class.scores) == ["precision", "recall", "f1"]
        for name, (low, high) in of_class.scores.items():
            assert 0 <= low <= row[name] <= high <= 1, name


def test_joint_and_class_targets_agree() -> None:
    """A metric of classes only, as for the joint class, has the same intervals."""
    logits_BK, labels_B = drawn_rows(120, 5, 1)
    whole, labels_only = ClassMetric(5, keep_rows=True), LabelMetric(5, keep_rows=True)
    whole.update(logits_BK, labels_B)
    labels_only.update(ClassHead(5).predicted(logits_BK), labels_B)
    joint, actual = labels_only.intervals(seed=4, resamples=100), whole.intervals(seed=4, resamples=100)
    assert tuple(joint.scores) == LABEL_SCORES
    assert joint.scores == {name: actual.scores[name] for name in LABEL_SCORES}
    assert joint.classes == actual.classes


def test_perfect_rows_do_not_mean_a_perfect_classifier() -> None:
    """Five correct rows in each of three classes: the interval of each score reaches down to where all of 15 rows, or
    all of 5, are correct in a few of 100 cases; from 1,000 rows a class it is narrow."""
    few = label_metric([0, 1, 2] * 5, [0, 1, 2] * 5, 3).intervals()
    many = label_metric([0, 1, 2] * 1000, [0, 1, 2] * 1000, 3).intervals()
    assert 0.7 < few.scores["accuracy"][0] < 0.95
    assert 0.4 < few.classes[0].scores["recall"][0] < 0.95
    assert few.scores["accuracy"][1] == few.classes[2].scores["f1"][1] == 1
    assert many.scores["macro_f1"][0] > 0.997


def test_many_rows_have_the_interval_of_a_share() -> None:
    """A recall of 0.8 over 1,000 rows: 1.96 standard errors to either side; the accuracy likewise."""
    rng = np.random.default_rng(0)
    true = rng.integers(0, 2, 2000)
    predicted = np.where(rng.random(2000) < 0.8, true, 1 - true)
    actual = label_metric(true.tolist(), predicted.tolist(), 2).intervals(resamples=4000)
    for (low, high), rows in ((actual.classes[0].scores["recall"], 1000), (actual.scores["accuracy"], 2000)):
        assert high - low == pytest.approx(2 * 1.96 * (0.16 / rows) ** 0.5, rel=0.1)


def test_copies_of_a_row_are_not_independent() -> None:
    """Each row ten times, in one group: the interval over groups is nearly that of the rows without copies, three times
    as wide as the one over rows."""
    rng = np.random.default_rng(0)
    true = rng.integers(0, 2, 80)
    predicted = np.where(rng.random(80) < 0.7, true, 1 - true)
    copied = label_metric(true.repeat(10).tolist(), predicted.repeat(10).tolist(), 2)
    once = label_metric(true.tolist(), predicted.tolist(), 2).intervals()
    by_group, by_row = copied.intervals(np.arange(80).repeat(10)), copied.intervals()
    for name in ("accuracy", "macro_f1", "mcc"):
        assert np.diff(by_group.scores[name]) == pytest.approx(np.diff(once.scores[name]), rel=0.15), name
        assert np.diff(by_group.scores[name]) > 2.5 * np.diff(by_row.scores[name]), name


def test_groups_of_independent_rows_cost_little() -> None:
    """Rows put into 100 groups at random have nearly the interval that they have without groups."""
    rng = np.random.default_rng(1)
    true = rng.integers(0, 3, 1000)
    metric = label_metric(true.tolist(), np.where(rng.random(1000) < 0.7, true, 0).tolist(), 3)
    by_group, by_row = metric.intervals(rng.integers(0, 100, 1000)), metric.intervals()
    assert np.diff(by_group.scores["accuracy"]) == pytest.approx(np.diff(by_row.scores["accuracy"]), rel=0.25)


def test_only_the_seed_and_the_counts_decide() -> None:
    """The same intervals from any order of the rows and any batches; others, but near, from another seed."""
    logits_BK, labels_B = drawn_rows(200, 5, 2)

    def intervals(order: torch.Tensor, size: int, seed: int) -> Intervals:
        metric = LabelMetric(5, keep_rows=True)
        for rows in order.split(size):
            metric.update(ClassHead(5).predicted(logits_BK[rows]), labels_B[rows])
        return metric.intervals(seed=seed, resamples=500)

    first = intervals(torch.arange(200), 200, seed=1)
    assert first == intervals(torch.arange(200).flip(0), 7, seed=1)
    other = intervals(torch.arange(200), 200, seed=2)
    assert first != other
    assert first.scores["macro_f1"] == pytest.approx(other.scores["macro_f1"], abs=0.02)


def test_few_rows_have_no_interval() -> None:
    """Fewer than 10 rows or groups: none at all; a class of fewer than 3: none for it. Both say why."""
    metric = label_metric([0, 1, 1] * 3, [0, 1, 1] * 3, 2)
    assert metric.intervals().scores == {}
    assert metric.intervals().withheld["macro_f1"] == "9 rows; an interval needs 10 or more"
    assert metric.intervals().classes[1].withheld["f1"] == "9 rows; an interval needs 10 or more"
    many = label_metric([0] * 2 + [1] * 20, [0] * 2 + [1] * 20, 2)
    assert many.intervals(np.arange(22) // 3).withheld["accuracy"] == "8 groups; an interval needs 10 or more"
    assert many.intervals().classes[0].withheld["recall"] == "fewer than 3 rows of the class"
    by_group = many.intervals([0, 0, *range(1, 21)])
    assert by_group.classes[0].withheld["recall"] == "fewer than 3 groups of the class"
    assert by_group.classes[1].scores["recall"][0] < 1
    assert LabelMetric(2, keep_rows=True).intervals().scores == {}


def test_what_counts_as_0_has_no_interval() -> None:
    """A class without a row makes every macro average wrong rather than uncertain; a class that is never predicted has
    no precision."""
    actual = label_metric([0] * 10 + [1] * 10, [0] * 20, 3).intervals()
    assert {name for name in LABEL_SCORES if name.startswith("macro_")} == set(actual.withheld)
    assert actual.withheld["macro_f1"] == "no row of 2, counted as 0"
    assert actual.classes[1].withheld == {"precision": "never predicted, counted as 0"}
    assert list(actual.classes[1].scores) == ["recall", "f1"]
    assert actual.classes[2].withheld["f1"] == "fewer than 3 rows of the class"


@pytest.mark.parametrize("ordinal", [False, True], ids=["class", "ordinal"])
def test_what_cannot_be_measured_has_no_interval(ordinal: bool) -> None:
    """Rows of one class say nothing about chance agreement: mcc and the kappas are 0 whatever is predicted, and their
    draws too. A target with one class has scores that could be no others."""
    one_of_three = ClassMetric(3, keep_rows=True, ordinal=ordinal)
    one_of_three.update(torch.eye(3)[[1] * 60], torch.ones(60, dtype=torch.int64))
    actual = one_of_three.intervals()
    agreements = {"mcc", "kappa"} | ({"quadratic_kappa"} if ordinal else set())
    for name in agreements:
        assert actual.withheld[name] == "every row is of one class"
    assert not agreements & set(actual.scores)
    assert 0.9 < actual.scores["accuracy"][0] < actual.scores["accuracy"][1] == 1
    assert (
        one_of_three.counts.intervals(shares=(0.2, 0.3, 0.5)).withheld["mcc"] == "every row is of one class"
    )

    only_one = ClassMetric(1, keep_rows=True, ordinal=ordinal)
    only_one.update(torch.ones(60, 1), torch.zeros(60, dtype=torch.int64))
    actual = only_one.intervals()
    assert actual.scores == {}
    assert {*LABEL_SCORES, *agreements} <= set(actual.withheld)
    assert actual.withheld["macro_f1"] == "there is only one class"
    assert actual.classes[0].withheld == dict.fromkeys(
        ("precision", "recall", "f1"), "there is only one class"
    )


def test_no_end_is_beyond_what_a_score_can_be() -> None:
    """Perfect rows end at 1, not at a rounding error above it, and contain the score."""
    for counts in itertools.product((5, 11, 13, 60), repeat=3):
        true = np.arange(3).repeat(counts).tolist()
        metric = label_metric(true, true, 3)
        scores, actual = metric.compute(), metric.intervals(resamples=20)
        for name, (low, high) in actual.scores.items():
            assert -1 <= low <= scores[name] <= high <= 1, (counts, name)


def test_metrics_json_has_both() -> None:
    """`intervals` and `no_interval` of each target and each class; neither without resamples."""
    collection = MetricCollection({"kind": ClassHead(3)}, {"kind": ["a", "b", "c"]}, keep_rows=True)
    logits_BK, labels_B = torch.eye(3).repeat(8, 1), torch.tensor([0, 1, 0]).repeat(8)
    collection.update({"kind": logits_BK}, {"kind": labels_B})
    scores = collection.compute(resamples=50)["targets"]["kind"]
    assert "macro_f1" not in scores["intervals"]
    assert scores["no_interval"]["macro_f1"] == "no row of c, counted as 0"
    assert list(scores["per_class"][0]["intervals"]) == ["precision", "recall", "f1"]
    assert scores["per_class"][2]["intervals"] == {}
    assert list(scores["per_class"][2]["no_interval"]) == ["precision", "recall", "f1"]
    plain = collection.compute()["targets"]["kind"]
    assert not {"intervals", "no_interval"} & {*plain, *plain["per_class"][0]}


def test_rows_that_were_not_kept_are_refused() -> None:
    """A metric made without keep_rows=True has no intervals."""
    for metric in (ClassMetric(2), LabelMetric(2)):
        with pytest.raises(ValueError, match="keep_rows=True"):
            metric.intervals()
