"""The statistics of a comparison: mean and interval of a variant, and its difference to the first, paired by seed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

Values = npt.NDArray[np.float64]
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` numbers. `sd` has n - 1 below the line; None where one number shows no spread."""

    n: int
    mean: float
    sd: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Difference:
    """A variant minus the first one, over the seeds that both have. `p` is two-sided; `p_holm` is adjusted for
    all differences of the comparison. None where one pair, or pairs without any spread, allow no test."""

    pairs: int
    mean: float
    interval: tuple[float, float] | None
    p: float | None
    p_holm: float | None = None


@dataclass(frozen=True)
class Summary:
    """One variant: its own estimate (None where no run of it is done) and its difference to the first."""

    variant: str
    own: Estimate | None
    difference: Difference | None


def summarise(values: Mapping[str, Mapping[int, float]]) -> list[Summary]:
    """`values`: score by seed, by variant; the first variant is the baseline of the differences."""
    baseline = next(iter(values.values()), {})
    found = [
        Summary(
            name,
            estimate(list(scores.values())),
            difference(scores, baseline) if scores is not baseline else None,
        )
        for name, scores in values.items()
    ]
    tested = [row.difference.p for row in found if row.difference and row.difference.p is not None]
    adjusted = iter(holm(tested))
    return [_with_holm(row, adjusted) for row in found]


def estimate(numbers: Sequence[float]) -> Estimate | None:
    """Mean, standard deviation s and the interval mean -+ t s / sqrt(n), t being Student's quantile (0.975, n - 1)."""
    if not numbers:
        return None
    values_N = np.asarray(numbers, dtype=np.float64)
    n, mean = len(values_N), float(values_N.mean())
    if n < 2:
        return Estimate(n, mean, None, None)
    sd = float(values_N.std(ddof=1))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * sd / math.sqrt(n)
    return Estimate(n, mean, sd, (mean - half, mean + half))


def difference(scores: Mapping[int, float], baseline: Mapping[int, float]) -> Difference | None:
    """The paired t-test (`scipy.stats.ttest_rel`) over the seeds that both have; None where they share none.

    Differences that are all the same leave nothing to divide by: no interval and no p-value then.
    """
    seeds = [seed for seed in scores if seed in baseline]
    own_N, base_N = (
        np.array([side[seed] for seed in seeds], dtype=np.float64) for side in (scores, baseline)
    )
    if not seeds:
        return None
    mean = float((own_N - base_N).mean())
    if len(seeds) < 2 or not _spread(own_N, base_N):
        return Difference(len(seeds), mean, None, None)
    test: Any = stats.ttest_rel(own_N, base_N)
    low, high = test.confidence_interval(CONFIDENCE)
    return Difference(len(seeds), mean, (float(low), float(high)), float(test.pvalue))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm (1979), Scand. J. Statist. 6: the i-th smallest of m p-values times m - i + 1, never falling, at most 1.

    Comparing these with 0.05 keeps the chance of one false claim or more among all m below 5 %.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def _spread(own_N: Values, base_N: Values) -> bool:
    """Whether the differences differ by more than rounding does."""
    size = max(float(np.abs(own_N).max()), float(np.abs(base_N).max()))
    return float((own_N - base_N).std(ddof=1)) > 1e-12 * size


def _with_holm(row: Summary, adjusted: Any) -> Summary:
    d = row.difference
    if d is None or d.p is None:
        return row
    return Summary(row.variant, row.own, Difference(d.pairs, d.mean, d.interval, d.p, next(adjusted)))
