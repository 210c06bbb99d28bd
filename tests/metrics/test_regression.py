"""Regression scores against scikit-learn."""

import json

import numpy as np
import pytest
import sklearn.metrics as reference
import torch

from classwise.metrics.bootstrap import mean_intervals
from classwise.metrics.regression import RegressionMetric
from classwise.metrics.scores import SCORES

NAN, INF = float("nan"), float("inf")


def expected_scores(truth: np.ndarray, values: np.ndarray) -> dict[str, float]:
    """scikit-learn's scores."""
    return {
        "mae": reference.mean_absolute_error(truth, values),
        "mse": reference.mean_squared_error(truth, values),
        "rmse": reference.root_mean_squared_error(truth, values),
        "r2": reference.r2_score(truth, values),
    }


def counted(values: np.ndarray, truth: np.ndarray, size: int) -> RegressionMetric:
    """A metric that was updated with the rows in batches."""
    metric = RegressionMetric(keep_rows=True)
    for part, targets in zip(
        torch.from_numpy(values).split(size), torch.from_numpy(truth).split(size), strict=True
    ):
        metric.update(part, targets)
    return metric


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and true values in many units, some true values unknown."""
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(3, 80))
    scale = 10.0 ** rng.uniform(-3, 3)
    truth = scale * (rng.normal(size=rows) + rng.uniform(-20, 20))
    values = truth + scale * rng.normal(size=rows)
    truth[2:][rng.random(rows - 2) < 0.2] = NAN
    return values, truth


def test_equals_scikit_learn() -> None:
    """200 random cases in batches of 7, some rows unlabeled."""
    for seed in range(200):
        values, truth = drawn(seed)
        actual, known = counted(values, truth, 7).compute(), ~np.isnan(truth)
        for name, value in expected_scores(truth[known], values[known]).items():
            assert actual[name] == pytest.approx(value, rel=1e-12, abs=1e-12), (seed, name)
        assert actual["samples"] == known.sum()


def test_a_large_mean_costs_no_digits() -> None:
    """A large mean: the difference of two sums of squares would lose most of the digits."""
    rng = np.random.default_rng(0)
    truth = 1e7 + rng.normal(size=1000)
    values = truth + 0.5 * rng.normal(size=1000)
    actual = counted(values, truth, 32).compute()
    assert actual["r2"] == pytest.approx(reference.r2_score(truth, values), abs=1e-8)
    naive = 1 - ((values - truth) ** 2).sum() / ((truth**2).sum() - truth.sum() ** 2 / 1000)
    assert abs(naive - actual["r2"]) > 1e-4


def test_batches_do_not_matter() -> None:
    """The scores are those of the whole set, whatever the batches."""
    values, truth = drawn(9)
    whole = counted(values, truth, len(truth)).compute()
    for size in (1, 5, len(truth) - 1):
        actual = counted(values, truth, size).compute()
        assert actual.pop("type") == "regression"
        assert actual == pytest.approx({name: whole[name] for name in actual}, rel=1e-12)


@pytest.mark.parametrize("grouped", [False, True], ids=["rows", "groups"])
def test_intervals_of_functions_of_means(grouped: bool) -> None:
    """Those of mae and mse are those of means; that of rmse is the root of that of mse; that of r2 contains it."""
    values, truth = drawn(4)
    groups = np.arange(len(truth)) // 2 if grouped else None
    known = np.flatnonzero(~np.isnan(truth))
    metric = counted(values, truth, 7)
    actual = metric.intervals(groups, seed=8, resamples=200).scores
    unit_N = np.unique(groups[known], return_inverse=True)[1] if grouped else None
    units = int(unit_N.max()) + 1 if grouped else len(known)
    error_N = (values - truth)[known]
    sums = {"mae": np.abs(error_N), "mse": error_N**2}
    means = mean_intervals(sums, np.ones(len(known)), units, unit_N, seed=8, resamples=200)
    assert actual["mae"] == pytest.approx(means["mae"])
    assert actual["mse"] == pytest.approx(means["mse"])
    assert actual["rmse"] == pytest.approx(np.sqrt(means["mse"]))
    assert actual["r2"][0] < metric.compute()["r2"] < actual["r2"][1] <= 1


def test_true_values_that_do_not_vary() -> None:
    """R2 as in scikit-learn: 1 without an error, 0 with one, also where a mean of equal numbers is not exactly them."""
    for truth, values, r2 in ((2.0, 2.0, 1.0), (2.0, 3.0, 0.0), (0.1, 0.2, 0.0)):
        metric = counted(np.full(7, values), np.full(7, truth), 2)
        assert metric.compute()["r2"] == r2
        assert "r2" in metric.intervals(resamples=20).withheld
        if truth == 2.0:  # of 0.1 scikit-learn finds a spread of 1e-34
            assert reference.r2_score(np.full(7, truth), np.full(7, values)) == r2


def test_unlabeled_invalid_and_infinite_rows() -> None:
    """A NaN target is not counted, a prediction that is not finite is invalid, an infinite target is refused."""
    metric = RegressionMetric()
    metric.update(
        torch.tensor([1.0, NAN, INF, NAN, 4.0]), torch.tensor([2.0, 3.0, 1.0, NAN, NAN], dtype=torch.float64)
    )
    assert metric.invalid == 2
    assert (metric.compute()["samples"], metric.compute()["mae"]) == (1, 1.0)
    metric.update(torch.tensor([1.0]), torch.tensor([INF]))
    with pytest.raises(ValueError, match="1 rows have an infinite true value"):
        metric.compute()
    metric.reset()
    assert (metric.invalid, metric.compute()["samples"]) == (0, 0)


def test_the_keys_of_metrics_json() -> None:
    """Plain floats in the order of the scores, zeros without rows; shapes that do not fit are refused."""
    empty = RegressionMetric().compute()
    assert list(empty) == ["type", *SCORES["regression"], "samples"]
    assert {empty[name] for name in SCORES["regression"]} == {0.0}
    assert json.loads(json.dumps(empty, allow_nan=False)) == empty
    with pytest.raises(ValueError, match=r"allowed: both \(B,\)"):
        RegressionMetric().update(torch.zeros(3, 1), torch.zeros(3))
