"""Confidence intervals by resampling: how far a score would vary over other samples of as many rows, or groups of rows.

Percentile intervals of Efron and Tibshirani, 'An introduction to the bootstrap' (1993), section 13.3. With groups it is
the cluster bootstrap (Davison and Hinkley 1997, section 3.8): whole groups are drawn, so that similar rows do not count
as independent ones. A resample is a vector of weights, how often each row was drawn, and every score is a function of
weighted sums over rows: no row is ever copied.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # scikit-learn brings it

from classwise.metrics.scores import Array
from classwise.randomness import BOOTSTRAP, generator

Weights = Array
Scorer = Callable[[Weights], Mapping[str, Array]]
"""From weights (N, R), of N rows in R resamples, to scores (R,) by name."""
Groups = Sequence[Any] | npt.NDArray[Any]
Resampling = tuple[Scorer, int, npt.NDArray[np.int64] | None]
"""What the bootstrap of a metric needs: the `scorer` of the weights of the rows that count, and their `units` and
`unit_N` as in `bootstrap_intervals`."""

PERCENTILES = (2.5, 97.5)
_CHUNK = 2**19  # weights at a time: 4 MiB, which fits a processor's cache


def bootstrap_intervals(
    scorer: Scorer, units: int, unit_N: npt.NDArray[np.int64] | None, seed: int, resamples: int = 1000
) -> dict[str, list[float]]:
    """The 95 % percentile interval [low, high] of every score.

    `units`: the number of sampling units, of which as many are drawn with replacement. `unit_N`: the unit of each row,
    or None where each row is one. The result depends on (seed, units, resamples) and the rows. It is empty for fewer
    than two units, since nothing can vary.

    A class without rows in a resample counts 0 there, so the intervals of macro averages extend downwards where classes
    are rare. A calibration error is a sum of absolute values, so its interval lies rather high.
    """
    if units < 2:
        return {}
    resampled = resampled_scores((scorer, units, unit_N), seed=seed, resamples=resamples)
    return {name: np.percentile(values_R, PERCENTILES).tolist() for name, values_R in resampled.items()}


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
    """The `units` and `unit_N` of `bootstrap_intervals`: the counted rows, or the groups that have one.

    `counted_N`: which of all rows count. `groups`: of all rows, in their order. Raises ValueError for another number of
    them.
    """
    if groups is None:
        return int(counted_N.sum()), None
    if len(groups) != len(counted_N):
        raise ValueError(f"found {len(groups)} groups for {len(counted_N)} rows; allowed: one for each row")
    counted_groups, unit_N = np.unique(np.asarray(groups)[counted_N], return_inverse=True)
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
