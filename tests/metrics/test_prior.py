"""Scores at other class shares: equal to scikit-learn's with weighted rows."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    cohen_kappa_score,
    f1_score,
    matthews_corrcoef,
    precision_score,
    recall_score,
)

from classwise.metrics.bootstrap import resampled_scores, resampled_weights
from classwise.metrics.classification import ClassMetric, LabelMetric
from classwise.metrics.collection import MetricCollection, flat_scores
from classwise.metrics.names import higher_is_better
from classwise.metrics.prior import intervals_at_prior, resampling_at_prior, scores_at_prior
from classwise.metrics.scores import LABEL_SCORES
from classwise.model.heads import ClassHead

SHARES = (0.1, 0.2, 0.3, 0.4)
LABELS = tuple("abcd")


def rows(seed: int, count: int = 90) -> tuple[Any, Any]:
    """True and predicted classes of a long tail, each class in a row at least."""
    rng = np.random.default_rng(seed)
    true_N = np.concatenate([np.arange(4), rng.choice(4, count - 4, p=(0.6, 0.25, 0.1, 0.05))])
    predicted_N = np.where(rng.random(count) < 0.6, true_N, rng.integers(0, 4, count))
    return true_N, predicted_N


def metric_of(true_N: Any, predicted_N: Any) -> LabelMetric:
    metric = LabelMetric(4, keep_rows=True, labels=LABELS)
    metric.update(torch.from_numpy(predicted_N), torch.from_numpy(true_N))
    return metric


def row_weights(true_N: Any, shares: Any = SHARES) -> Any:
    """The weight of each row: its class's share over the class's share among the rows."""
    return np.array(shares)[true_N] / (np.bincount(true_N, minlength=4) / len(true_N))[true_N]


def by_scikit_learn(true_N: Any, predicted_N: Any, weights_N: Any) -> dict[str, float]:
    weighted = {"sample_weight": weights_N}
    averaged = weighted | {"labels": range(4), "zero_division": 0}
    found = {
        "accuracy": accuracy_score(true_N, predicted_N, **weighted),
        "balanced_accuracy": balanced_accuracy_score(true_N, predicted_N, **weighted),
        "mcc": matthews_corrcoef(true_N, predicted_N, **weighted),
        "kappa": cohen_kappa_score(true_N, predicted_N, **weighted),
        "micro_f1": f1_score(true_N, predicted_N, average="micro", **averaged),
    }
    for name, score in (("f1", f1_score), ("precision", precision_score), ("recall", recall_score)):
        for average in ("macro", "weighted"):
            found[f"{average}_{name}"] = score(true_N, predicted_N, average=average, **averaged)
    return found


@pytest.mark.parametrize("seed", range(20))
def test_scores_are_those_of_weighted_rows(seed: int) -> None:
    """Every score, of the whole and of each class, to 1e-12."""
    true_N, predicted_N = rows(seed)
    found = scores_at_prior(metric_of(true_N, predicted_N), SHARES)
    expected = by_scikit_learn(true_N, predicted_N, row_weights(true_N))
    assert set(expected) == set(LABEL_SCORES)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-12), name
    f1_K = f1_score(
        true_N, predicted_N, labels=range(4), average=None, zero_division=0, sample_weight=row_weights(true_N)
    )
    assert [row["f1"] for row in found["per_class"]] == pytest.approx(f1_K, abs=1e-12)
    assert found["shares"] == dict(zip(LABELS, SHARES, strict=True))
    assert found["unseen"] == []


def test_the_rows_own_shares_change_nothing() -> None:
    """At the shares of the rows every score is the plain one."""
    true_N, predicted_N = rows(1)
    metric = metric_of(true_N, predicted_N)
    plain = metric.compute()
    found = scores_at_prior(metric, (np.bincount(true_N) / len(true_N)).tolist())
    for name in LABEL_SCORES:
        assert found[name] == pytest.approx(plain[name], abs=1e-12), name


def test_a_class_without_rows_is_named() -> None:
    """It counts as F1 0, and the others keep their proportions."""
    true_N, predicted_N = rows(2)
    seen = true_N != 3
    found = scores_at_prior(metric_of(true_N[seen], predicted_N[seen]), SHARES)
    weights_N = np.array(SHARES)[true_N[seen]] / np.bincount(true_N[seen])[true_N[seen]]
    expected = f1_score(
        *(true_N[seen], predicted_N[seen]),
        labels=range(4),
        average="macro",
        sample_weight=weights_N,
        zero_division=0,
    )
    assert found["unseen"] == ["d"]
    assert found["per_class"][3]["f1"] == 0
    assert found["macro_f1"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("groups", [None, 30])
def test_every_resample_is_weighted_to_the_same_shares(groups: int | None) -> None:
    """scikit-learn's score of each resample, its rows weighted anew."""
    true_N, predicted_N = rows(3)
    group_N = None if groups is None else np.arange(len(true_N)) % groups
    units = groups or len(true_N)
    resampling = resampling_at_prior(metric_of(true_N, predicted_N), SHARES, group_N)
    found = resampled_scores(resampling, seed=5, resamples=40)

    expected = []
    for weights_UR in resampled_weights(units, 5, 40, rows=len(true_N)):
        for weights_U in weights_UR.T:
            draws_N = weights_U if group_N is None else weights_U[group_N]
            support_K = np.bincount(true_N, weights=draws_N, minlength=4)
            weights_N = draws_N * (np.array(SHARES) / np.maximum(support_K, 1e-9))[true_N]
            expected.append(by_scikit_learn(true_N, predicted_N, weights_N)["macro_f1"])
    assert found["macro_f1"] == pytest.approx(expected, abs=1e-12)
    assert set(found) == set(LABEL_SCORES)


def test_intervals_are_those_of_the_scores_at_the_shares() -> None:
    """Around scores at two extremes, which the plain interval does not contain; accuracy tells them apart."""
    true_N = np.repeat([0, 1, 2, 3], [200, 60, 30, 20])
    predicted_N = np.where(np.arange(len(true_N)) % 10 < 9, true_N, 0)
    predicted_N[true_N == 3] = np.where(np.arange(20) < 4, 3, 0)
    metric = metric_of(true_N, predicted_N)
    plain = metric.intervals(seed=1, resamples=200).scores["accuracy"]
    for shares in ((0.97, 0.01, 0.01, 0.01), (0.01, 0.01, 0.01, 0.97)):
        value = scores_at_prior(metric, shares)["accuracy"]
        low, high = intervals_at_prior(metric, shares, seed=1, resamples=200).scores["accuracy"]
        assert low <= value <= high
        assert not plain[0] <= value <= plain[1]


def test_a_collection_has_both() -> None:
    """The plain scores as without a prior, and those at the prior beside them, under names of their own."""
    true_N, predicted_N = rows(4)
    logits_BK = 5 * torch.eye(4)[torch.from_numpy(predicted_N)]
    labels = {"it": torch.from_numpy(true_N)}
    results = {}
    for priors in ({}, {"it": SHARES}):
        metrics = MetricCollection({"it": ClassHead(4)}, {"it": LABELS}, keep_rows=True, priors=priors)
        metrics.update({"it": logits_BK}, labels)
        results[bool(priors)] = metrics.compute(seed=1, resamples=20)
    with_prior = dict(results[True]["targets"]["it"])
    at_prior = with_prior.pop("at_prior")
    assert with_prior == results[False]["targets"]["it"]
    assert at_prior["macro_f1"] == scores_at_prior(metric_of(true_N, predicted_N), SHARES)["macro_f1"]
    assert set(at_prior["intervals"]) == set(LABEL_SCORES)

    flat = flat_scores(results[True])
    assert flat["macro_f1_at_prior"] == at_prior["macro_f1"]
    assert flat["macro_f1"] == with_prior["macro_f1"]
    assert set(flat) - set(flat_scores(results[False])) == {f"{name}_at_prior" for name in LABEL_SCORES}
    assert higher_is_better("it.macro_f1_at_prior")


def test_counts_of_a_class_metric() -> None:
    """The predicted classes alone are what a score at a prior is made of."""
    metric = ClassMetric(4, labels=LABELS)
    metric.update(torch.eye(4), torch.tensor([0, 1, 2, 0]))
    assert metric.counts.confusion.tolist() == metric.confusion.tolist()
    assert metric.counts.labels == list(LABELS)


@pytest.mark.parametrize("groups", [None, 30])
def test_intervals_at_given_shares(groups: int | None) -> None:
    """Every interval contains its score; recalls have those of the rows' own shares, and nothing varies that the shares
    decide: with all rows correct, the weighted F1 is as certain as the accuracy."""
    true_N, predicted_N = rows(3)
    group_N = None if groups is None else np.arange(len(true_N)) % groups
    metric = metric_of(true_N, predicted_N)
    actual = intervals_at_prior(metric, SHARES, group_N, seed=5, resamples=300)
    found = scores_at_prior(metric, SHARES)
    assert set(actual.scores) == set(LABEL_SCORES)
    for name, (low, high) in actual.scores.items():
        assert low <= found[name] <= high, name
    plain = metric.intervals(group_N, seed=5, resamples=300)
    assert actual.scores["macro_recall"] == pytest.approx(plain.scores["macro_recall"], abs=0.04)
    assert actual.scores["accuracy"] != pytest.approx(plain.scores["accuracy"], abs=0.02)


def test_many_rows_at_other_shares() -> None:
    """Two classes with recalls of 0.9 and 0.6 at even shares: the accuracy has the standard error of their mean."""
    true_N = np.array([0] * 3000 + [1] * 1000)
    predicted_N = np.where(np.arange(4000) % 10 < np.where(true_N == 0, 9, 6), true_N, 1 - true_N)
    metric = LabelMetric(2, keep_rows=True)
    metric.update(torch.from_numpy(predicted_N), torch.from_numpy(true_N))
    low, high = intervals_at_prior(metric, (0.5, 0.5), resamples=4000).scores["accuracy"]
    error = (0.25 * (0.09 / 3000 + 0.24 / 1000)) ** 0.5
    assert (low, high) == pytest.approx((0.75 - 1.96 * error, 0.75 + 1.96 * error), abs=0.2 * error)


def test_known_shares_leave_less_to_chance() -> None:
    """At the shares of the rows themselves, the interval of accuracy is not wider than where the shares vary too."""
    true_N, predicted_N = rows(3)
    metric = metric_of(true_N, predicted_N)
    shares = (np.bincount(true_N, minlength=4) / len(true_N)).tolist()
    low, high = intervals_at_prior(metric, shares, seed=5).scores["accuracy"]
    plain_low, plain_high = metric.intervals(seed=5).scores["accuracy"]
    assert high - low <= (plain_high - plain_low) * 1.02
