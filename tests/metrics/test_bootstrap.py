"""Intervals of means against plain loops over resampled units, and their coverage."""

import numpy as np
import pytest

from classwise.metrics.bootstrap import (
    mean_intervals,
    percentile_interval,
    resampled_weights,
    sampling_units,
    within,
)


def weights_of(units: int, seed: int, resamples: int) -> np.ndarray:
    """How often each unit is drawn: (units, resamples)."""
    return np.concatenate(list(resampled_weights(units, seed, resamples)), axis=1).astype(int)


def plain_interval(values: np.ndarray, counts: np.ndarray, seed: int, resamples: int) -> list[float]:
    """Efron and Tibshirani 1993, equations 12.20 and 12.21, with the delta method's standard error of a ratio."""

    def mean_and_error(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
        mean = a.sum() / b.sum()
        return mean, np.sqrt(((a - mean * b) ** 2).sum()) / b.sum()

    mean, error = mean_and_error(values, counts)
    t = []
    for weights in weights_of(len(values), seed, resamples).T:
        drawn_mean, drawn_error = mean_and_error(values.repeat(weights), counts.repeat(weights))
        t.append((drawn_mean - mean) / drawn_error)
    low, high = np.percentile(t, [2.5, 97.5])
    return [mean - high * error, mean - low * error]


@pytest.mark.parametrize("grouped", [False, True], ids=["rows", "groups"])
def test_intervals_by_a_plain_loop(grouped: bool) -> None:
    """Units are repeated as often as they are drawn; a group is the sum of its rows. Counts may differ by name."""
    rng = np.random.default_rng(0)
    values_N, other_N = rng.exponential(size=60), rng.normal(size=60)
    weights_N = rng.integers(1, 4, 60).astype(float)
    unit_N = np.arange(60) % 17 if grouped else np.arange(60)
    units = 17 if grouped else 60
    counts = {"values": np.ones(60), "other": weights_N}
    sums = {"values": values_N, "other": other_N}
    actual = mean_intervals(sums, counts, units, unit_N if grouped else None, seed=3, resamples=80)
    for name in sums:
        a, b = (np.bincount(unit_N, column) for column in (sums[name], counts[name]))
        assert actual[name] == pytest.approx(plain_interval(a, b, 3, 80), rel=1e-9), name


def test_an_interval_covers_a_skewed_mean() -> None:
    """300 simulated sets of 20 exponential losses: the true mean lies in about 95 of 100 intervals, and in at most 91
    of 100 percentile intervals, which reach less far to the long side."""
    rng = np.random.default_rng(5)
    covered = {"studentized": 0, "percentile": 0}
    for seed in range(300):
        losses_N = rng.exponential(size=20)
        low, high = mean_intervals({"loss": losses_N}, np.ones(20), 20, None, seed, 400)["loss"]
        covered["studentized"] += low <= 1 <= high
        low, high = np.percentile(weights_of(20, seed, 400).T @ losses_N / 20, [2.5, 97.5])
        covered["percentile"] += low <= 1 <= high
    assert 0.92 <= covered["studentized"] / 300 <= 0.98
    assert covered["percentile"] / 300 < 0.91


def test_an_interval_over_groups_covers_the_truth() -> None:
    """200 simulated sets of 40 people with 8 similar numbers each, the true mean error 1: it lies in about 95 of 100
    intervals over people, and in far fewer over rows, which would be narrower."""
    rng = np.random.default_rng(9)
    person_N = np.arange(40).repeat(8)
    covered = {"groups": 0, "rows": 0}
    for seed in range(200):
        error_N = 1 + 0.3 * rng.normal(size=40)[person_N] + 0.1 * rng.normal(size=320)
        for name, units, unit_N in (("groups", 40, person_N), ("rows", 320, None)):
            low, high = mean_intervals({"error": error_N}, np.ones(320), units, unit_N, seed, 400)["error"]
            covered[name] += low <= 1 <= high
    assert 0.90 <= covered["groups"] / 200 <= 0.99
    assert covered["rows"] / 200 < 0.75


def test_nearly_equal_values_have_no_interval() -> None:
    """Without variance there is nothing to resample; a single other value is missing from a third of the resamples."""
    ones = np.ones(20)
    assert mean_intervals({"same": ones * 0.1}, ones, 20, None, 0, 200) == {}
    assert mean_intervals({"one": np.eye(20)[0]}, ones, 20, None, 0, 200) == {}
    low, high = mean_intervals({"half": np.arange(20) % 2.0}, ones, 20, None, 0, 200)["half"]
    assert 0.1 < low < 0.5 < high < 0.9


def test_weights_are_draws_with_replacement() -> None:
    """Each resample draws as many units as there are, in any number of chunks; the counts of a unit have mean 1 and a
    variance of nearly 1."""
    weights = weights_of(2000, 0, 600)
    assert weights.shape == (2000, 600)
    assert (weights.sum(axis=0) == 2000).all()
    assert weights.std() == pytest.approx(1, abs=0.01)
    assert weights.mean(axis=1).std() == pytest.approx(600**-0.5, rel=0.1)


def test_an_interval_contains_its_score() -> None:
    """The central 95 % of the draws, extended to the score; a score has limits."""
    draws_R = np.linspace(0, 1, 1001)
    assert percentile_interval(draws_R, 0.5) == pytest.approx([0.025, 0.975])
    assert percentile_interval(draws_R, 1.0) == pytest.approx([0.025, 1.0])
    assert percentile_interval(draws_R, 0.0) == pytest.approx([0.0, 0.975])
    assert within([-0.2, 1.3], 0, 1) == [0, 1]


def test_another_number_of_groups_than_rows_is_refused() -> None:
    """Groups are of all rows, in their order; those without a counted row are no units."""
    with pytest.raises(ValueError, match="found 1 groups for 2 rows; allowed: one for each row"):
        sampling_units(["a"], np.array([True, False]))
    units, unit_N = sampling_units(["b", "a", "c", "b"], np.array([True, True, False, True]))
    assert unit_N is not None
    assert (units, unit_N.tolist()) == (2, [1, 0, 1])
    assert sampling_units(["b", "a", "b"], np.array([True, True, False])) == (2, None)  # groups of one row are rows
