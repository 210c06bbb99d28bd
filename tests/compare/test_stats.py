"""The statistics against formulas written out and SciPy's distributions."""

import math
import random
import statistics
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from classwise.compare.stats import difference, estimate, holm, summarize


def test_mean_and_interval_are_students() -> None:
    """200 random samples of 2 to 12: mean and sd as in `statistics`, the interval as SciPy's own."""
    rng = random.Random(1)
    for _ in range(200):
        numbers = [rng.gauss(0.7, 0.1) for _ in range(rng.randint(2, 12))]
        found = estimate(numbers)
        assert found is not None
        assert found.n == len(numbers)
        assert found.mean == pytest.approx(statistics.fmean(numbers), rel=1e-12)
        assert found.sd == pytest.approx(statistics.stdev(numbers), rel=1e-12)
        wanted = stats.t.interval(
            0.95, len(numbers) - 1, loc=statistics.fmean(numbers), scale=stats.sem(numbers)
        )
        assert found.interval == pytest.approx(wanted, rel=1e-10)


def test_the_difference_is_the_paired_t_test_over_common_seeds() -> None:
    """200 random pairs with seeds missing on either side: t and p by hand from the differences alone."""
    rng = random.Random(2)
    for _ in range(200):
        seeds = range(rng.randint(3, 12))
        one = {seed: rng.gauss(0.7, 0.1) for seed in seeds if seed < 2 or rng.random() < 0.8}
        other = {seed: rng.gauss(0.72, 0.1) for seed in reversed(seeds) if seed < 2 or rng.random() < 0.8}
        steps = [one[seed] - other[seed] for seed in one if seed in other]
        found = difference(one, other)
        assert found is not None
        assert found.pairs == len(steps)
        assert found.mean == pytest.approx(statistics.fmean(steps), rel=1e-9)
        error = statistics.stdev(steps) / math.sqrt(len(steps))
        t = statistics.fmean(steps) / error
        assert found.p == pytest.approx(2 * stats.t.sf(abs(t), len(steps) - 1), rel=1e-9)
        half = stats.t.ppf(0.975, len(steps) - 1) * error
        assert found.interval == pytest.approx((found.mean - half, found.mean + half), rel=1e-9, abs=1e-12)


def step_down(p_values: Sequence[float], level: float) -> set[int]:
    """Holm's procedure as the paper states it: the hypotheses that are rejected at `level`."""
    rejected: set[int] = set()
    left = list(range(len(p_values)))
    while left:
        smallest = min(left, key=lambda index: p_values[index])
        if p_values[smallest] > level / len(left):
            break
        rejected.add(smallest)
        left.remove(smallest)
    return rejected


def test_holm_rejects_what_the_step_down_procedure_rejects() -> None:
    """200 random families at 20 levels each: adjusted p <= level exactly for what the procedure rejects."""
    rng = random.Random(3)
    for _ in range(200):
        p_values = [rng.random() ** 4 for _ in range(rng.randint(1, 8))]
        if rng.random() < 0.3:
            p_values[-1] = p_values[0]
        adjusted = holm(p_values)
        assert all(a >= p for a, p in zip(adjusted, p_values, strict=True))
        assert max(adjusted) <= 1
        for level in (rng.random() ** 3 for _ in range(20)):
            assert {i for i, a in enumerate(adjusted) if a <= level} == step_down(p_values, level)
    assert holm([]) == []


def test_summaries_are_against_the_first_variant() -> None:
    """The first has no difference; the others' adjusted p-values are Holm's over all of them."""
    rng = np.random.default_rng(4)
    values = {name: dict(enumerate(rng.normal(0.5, 0.1, 6).tolist())) for name in "abcd"}
    first, *others = summarize(values)
    assert first.variant == "a"
    assert first.difference is None
    p_values = []
    for row in others:
        test = stats.ttest_rel(list(values[row.variant].values()), list(values["a"].values()))
        assert row.difference is not None
        assert row.difference.p == pytest.approx(test.pvalue, rel=1e-12)
        p_values.append(float(test.pvalue))
    assert [row.difference.p_holm for row in others if row.difference] == pytest.approx(holm(p_values))


def test_without_spread_nothing_is_claimed() -> None:
    """One seed gives a mean only; equal differences give no p-value; no common seed gives no difference."""
    alone = estimate([0.5])
    assert alone is not None
    assert (alone.n, alone.mean, alone.sd, alone.interval) == (1, 0.5, None, None)
    assert estimate([]) is None
    for one, other in (({1: 0.6}, {1: 0.5}), ({1: 0.6, 2: 0.4}, {1: 0.5, 2: 0.3}), ({1: 0.5, 2: 0.6},) * 2):
        found = difference(one, other)
        assert found is not None
        assert (found.interval, found.p, found.p_holm) == (None, None, None)
        assert found.mean == pytest.approx(one[1] - other[1])
    assert difference({1: 0.5}, {2: 0.5}) is None
    (_, empty) = summarize({"a": {1: 0.5}, "b": {}})
    assert (empty.score, empty.difference) == (None, None)
