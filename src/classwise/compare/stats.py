"""The statistics of a comparison: each variant's mean, and its difference from the first one, paired by seed."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

Values = npt.NDArray[np.float64]
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """The mean of `n` numbers, their standard deviation (n - 1 degrees of freedom), and the mean's 95% confidence
    interval. `sd` and `interval` are None for a single number."""

    n: int
    mean: float
    sd: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Difference:
    """A variant minus the first one, over the seeds that both have: mean, 95% confidence interval, two-sided p-value;
    `p_holm` is adjusted for all differences of the comparison.

    `interval`, `p` and `p_holm` are None for a single pair, and where all pairs differ by the same amount."""

    pairs: int
    mean: float
    interval: tuple[float, float] | None
    p: float | None
    p_holm: float | None = None


@dataclass(frozen=True)
class Summary:
    """One variant: its score over the seeds (None where no run is done), and its difference from the first variant."""

    variant: str
    score: Estimate | None
    difference: Difference | None


def summarize(values: Mapping[str, Mapping[int, float]]) -> list[Summary]:
    """`values`: score by seed, by variant; the first variant is the baseline of the differences."""
    baseline = next(iter(values.values()), {})
    summaries = [
        Summary(
            name,
            score=estimate(list(scores.values())),
            difference=difference(scores, baseline) if scores is not baseline else None,
        )
        for name, scores in values.items()
    ]

    # Holm's method needs all p-values at once.
    p_values = [row.difference.p for row in summaries if row.difference and row.difference.p is not None]
    adjusted = iter(holm(p_values))
    return [_with_holm(row, adjusted) for row in summaries]


def estimate(numbers: Sequence[float]) -> Estimate | None:
    """Mean, standard deviation s and the interval mean ± t s / sqrt(n); t is Student's 97.5% quantile, n - 1 degrees of
    freedom. None for no numbers."""
    if not numbers:
        return None
    values_N = np.asarray(numbers, dtype=np.float64)
    n = len(values_N)
    mean = float(values_N.mean())
    if n < 2:
        return Estimate(n, mean, sd=None, interval=None)
    sd = float(values_N.std(ddof=1))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * sd / math.sqrt(n)
    return Estimate(n, mean, sd=sd, interval=(mean - half, mean + half))


def difference(scores: Mapping[int, float], baseline: Mapping[int, float]) -> Difference | None:
    """The paired t-test (`scipy.stats.ttest_rel`) over the seeds that both have; None where they share none.

    Without variance among the differences there is no interval and no p-value.
    """
    seeds = [seed for seed in scores if seed in baseline]
    if not seeds:
        return None
    scores_N = np.array([scores[seed] for seed in seeds], dtype=np.float64)
    baseline_N = np.array([baseline[seed] for seed in seeds], dtype=np.float64)
    mean = float((scores_N - baseline_N).mean())
    if len(seeds) < 2 or not _vary(scores_N, baseline_N):
        return Difference(len(seeds), mean, interval=None, p=None)
    test: Any = stats.ttest_rel(scores_N, baseline_N)
    low, high = test.confidence_interval(CONFIDENCE)
    return Difference(len(seeds), mean, interval=(float(low), float(high)), p=float(test.pvalue))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm (1979), Scand. J. Statist. 6: the i-th smallest of m p-values times m - i + 1, never decreasing, at most 1.

    Rejecting where these are below 0.05 keeps the probability of any false rejection among all m below 5%.
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def _vary(scores_N: Values, baseline_N: Values) -> bool:
    """Whether the differences vary by more than rounding errors."""
    size = max(float(np.abs(scores_N).max()), float(np.abs(baseline_N).max()))
    return float((scores_N - baseline_N).std(ddof=1)) > 1e-12 * size


def _with_holm(row: Summary, adjusted: Iterator[float]) -> Summary:
    """`row` with the next adjusted p-value, if it has a p-value at all."""
    if row.difference is None or row.difference.p is None:
        return row
    return replace(row, difference=replace(row.difference, p_holm=next(adjusted)))
