"""Confidence intervals of means by resampling: how far they would vary over other samples of as many rows or groups.

The studentized bootstrap (bootstrap-t) of Efron and Tibshirani, 'An introduction to the bootstrap' (1993), section
12.5: each resample has its own standard error, so that the interval of a skewed mean, such as that of losses, reaches
far enough to the long side. With groups it is the cluster bootstrap (Davison and Hinkley 1997, section 3.8): whole
groups are drawn, so that similar rows do not count as independent ones.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # scikit-learn brings it

from classwise.metrics.scores import Array, ratio
from classwise.randomness import BOOTSTRAP, generator

Interval = list[float]
"""[low, high]."""
Weights = Array
Scorer = Callable[[Weights], Mapping[str, Array]]
"""From weights (N, R), of N rows in R resamples, to scores (R,) by name."""
Groups = Sequence[Any] | npt.NDArray[Any]

Resampling = tuple[Scorer, int, npt.NDArray[np.int64] | None]
"""What resampling a metric needs: the `scorer` of the weights of the rows that count, and their `units` and `unit_N` as
in `mean_intervals`."""

PERCENTILES = (2.5, 97.5)
_CHUNK = 2**19  # weights at a time: 4 MiB, which fits a processor's cache


def percentile_interval(draws_R: Array, value: float) -> Interval:
    """The central 95 % of the draws, extended to the score itself."""
    low, high = np.percentile(draws_R, PERCENTILES)
    return [float(min(low, value)), float(max(high, value))]


def mean_intervals(
    sums: Mapping[str, Array],
    counts_N: Array | Mapping[str, Array],
    units: int,
    unit_N: npt.NDArray[np.int64] | None,
    seed: int,
    resamples: int = 1000,
) -> dict[str, Interval]:
    """The 95 % interval of (sum of values) / (sum of counts) over rows, for values (N,) by name.

    `counts_N`: one array for all values, or one for each by name. `units`: the number of sampling units, of which as
    many are drawn with replacement. `unit_N`: the unit of each row, or None where each row is one. The result depends
    on (seed, units, resamples) and the rows. A mean of units that are nearly all equal has none.
    """
    names = list(sums)
    counts = counts_N if isinstance(counts_N, Mapping) else dict.fromkeys(names, counts_N)
    sums_US = np.stack([_by_unit(sums[name], units, unit_N) for name in names], axis=1)
    counts_US = np.stack([_by_unit(counts[name], units, unit_N) for name in names], axis=1)

    # Standard errors by the delta method: the squared deviations a - mean b, added up over the drawn units.
    columns = np.concatenate([sums_US, counts_US, sums_US**2, sums_US * counts_US, counts_US**2], axis=1)
    mean_S, error_S = _means_and_errors(columns.sum(axis=0))
    # The products are small: threads that wait for each other cost more than they save, on a busy machine tenfold.
    with threadpool_limits(1, "blas"):
        drawn = [
            _means_and_errors(weights_UR.T @ columns)
            for weights_UR in resampled_weights(units, seed, resamples)
        ]
    mean_RS = np.concatenate([mean for mean, _ in drawn])
    error_RS = np.concatenate([error for _, error in drawn])

    intervals = {}
    for s, name in enumerate(names):
        # A resample of equal values has an infinite t. Where there are many, one end would be infinite as well.
        distance_R = mean_RS[:, s] - mean_S[s]
        varies_R = error_RS[:, s] > 1e-9 * error_S[s]
        infinite_R = np.where(distance_R < 0, -np.inf, np.inf)
        t_R = np.where(varies_R, distance_R / np.where(varies_R, error_RS[:, s], 1), infinite_R)
        with np.errstate(invalid="ignore"):  # between a finite t and an infinite one
            low_t, high_t = np.percentile(t_R, PERCENTILES)
        if error_S[s] > 1e-12 * abs(mean_S[s]) and np.isfinite(low_t) and np.isfinite(high_t):
            intervals[name] = [
                float(mean_S[s] - high_t * error_S[s]),
                float(mean_S[s] - low_t * error_S[s]),
            ]
    return intervals


def within(interval: Interval, low: float, high: float = np.inf) -> Interval:
    """The part of the interval that a score can have."""
    return [float(np.clip(end, low, high)) for end in interval]


def _means_and_errors(sums: Array) -> tuple[Array, Array]:
    """Means and their standard errors (..., S) from the sums (..., 5 S) of a, b, a^2, a b and b^2."""
    a, b, aa, ab, bb = np.split(sums, 5, axis=-1)
    mean = ratio(a, b)
    return mean, ratio(np.sqrt(np.maximum(aa - 2 * mean * ab + mean**2 * bb, 0)), b)


def _by_unit(values_N: Array, units: int, unit_N: npt.NDArray[np.int64] | None) -> Array:
    if unit_N is None:
        return np.asarray(values_N, dtype=np.float64)
    return np.bincount(unit_N, values_N, minlength=units).astype(np.float64)


def resampled_scores(resampling: Resampling, seed: int, resamples: int) -> dict[str, Array]:
    """Every score on each of the resamples, (R,). The draws depend on (seed, units, resamples) alone."""
    scorer, units, unit_N = resampling
    rows = units if unit_N is None else len(unit_N)
    # The products are small: threads that wait for each other cost more than they save, on a busy machine tenfold.
    with threadpool_limits(1, "blas"):
        chunks = [
            scorer(weights_UR if unit_N is None else weights_UR.take(unit_N, axis=0))
            for weights_UR in resampled_weights(units, seed, resamples, rows=rows)
        ]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def resampled_weights(units: int, seed: int, resamples: int, rows: int = 0) -> Iterator[Weights]:
    """Chunks (units, R), of `resamples` columns in all: how often each unit is drawn, each column summing to `units`.

    One column per resample, so that picking rows and adding them up runs along memory. `rows`: the number of rows of
    all units, if larger than `units`, so that a chunk expanded to rows stays small too. The draws do not depend on it.
    """
    rng = generator(seed, BOOTSTRAP)
    chunk_size = max(1, _CHUNK // max(units, rows))
    for start in range(0, resamples, chunk_size):
        columns = min(chunk_size, resamples - start)
        # The flat index of (drawn unit, resample), so that one count over all of them gives the whole chunk.
        index = rng.integers(0, units, size=(columns, units)) * columns
        index += np.arange(columns)[:, None]
        weights = np.bincount(index.ravel(), minlength=units * columns).reshape(units, columns)
        yield weights.astype(np.float64)


def sampling_units(
    groups: Groups | None, counted_N: npt.NDArray[np.bool_]
) -> tuple[int, npt.NDArray[np.int64] | None]:
    """The number of sampling units and the unit of each counted row: rows (None), or the groups that have one.

    `counted_N`: which of all rows count. `groups`: of all rows, in their order. Raises ValueError for another number of
    them.
    """
    if groups is None:
        return int(counted_N.sum()), None
    if len(groups) != len(counted_N):
        raise ValueError(f"found {len(groups)} groups for {len(counted_N)} rows; allowed: one for each row")
    counted_groups, unit_N = np.unique(np.asarray(groups)[counted_N], return_inverse=True)
    if len(counted_groups) == len(unit_N):  # groups of one row are rows
        return len(unit_N), None
    return len(counted_groups), unit_N.astype(np.int64)


def summed_by(category_N: npt.NDArray[np.int64], size: int) -> Callable[[Array], Array]:
    """A function that sums values (N, R) over the rows of each of `size` categories: (size, R)."""
    order = np.argsort(category_N, kind="stable")
    present, starts = np.unique(category_N[order], return_index=True)

    def summed(values_NR: Array) -> Array:
        sums = np.zeros((size, values_NR.shape[1]))
        if len(present):  # reduceat needs at least one segment
            sums[present] = np.add.reduceat(values_NR.take(order, axis=0), starts, axis=0)
        return sums

    return summed
