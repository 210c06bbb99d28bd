"""Intervals by resampling: how far a score would move with another draw of as many rows, or groups of rows.

Efron and Tibshirani, 'An introduction to the bootstrap' (1993), section 13.3, the percentile interval; with groups
the cluster bootstrap (Davison and Hinkley 1997, section 3.8): whole groups are drawn, so that rows that are alike
do not pass for independent ones. A resample is a vector of weights, how often each row was drawn, and every score
is a function of weighted sums over rows: no row is ever copied.
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

PERCENTILES = (2.5, 97.5)
_CHUNK = 2**19  # weights at a time: 4 MiB, which a processor's cache holds


def bootstrap_intervals(
    scorer: Scorer, units: int, unit_N: npt.NDArray[np.int64] | None, seed: int, resamples: int = 1000
) -> dict[str, list[float]]:
    """The 95 % percentile interval [low, high] of every score.

    `units`: how many things are drawn, with replacement, as many as there are. `unit_N`: the unit of each row, or
    None where each row is one. The result depends on (seed, units, resamples) and the rows. With fewer than two
    units nothing can vary: no intervals. A class without rows in a resample counts 0 there, so the intervals of
    macro averages reach down where classes are rare; a calibration error is a sum of absolute values, and its
    interval lies rather high.
    """
    if units < 2:
        return {}
    rows = units if unit_N is None else len(unit_N)
    # The products are small: threads that wait for each other cost more than they save, on a busy machine tenfold.
    with threadpool_limits(1, "blas"):
        parts = [
            scorer(weights_UR if unit_N is None else weights_UR.take(unit_N, axis=0))
            for weights_UR in resampled_weights(units, seed, resamples, rows)
        ]
    return {
        name: np.percentile(np.concatenate([part[name] for part in parts]), PERCENTILES).tolist()
        for name in parts[0]
    }


def resampled_weights(units: int, seed: int, resamples: int, rows: int = 0) -> Iterator[Weights]:
    """Chunks (units, R), of `resamples` columns in all: how often each unit is drawn, each column summing to `units`.

    A column for each resample, so that picking rows and adding them up runs along memory. `rows`: how many rows the
    units have in all, where that is more; a chunk spread over them stays small too. The draws do not depend on it.
    """
    draw = generator(seed, BOOTSTRAP)
    size = max(1, _CHUNK // max(units, rows))
    for start in range(0, resamples, size):
        count = min(size, resamples - start)
        place = draw.integers(0, units, size=(count, units)) * count
        place += np.arange(count)[:, None]
        weights = np.bincount(place.ravel(), minlength=units * count).reshape(units, count)
        yield weights.astype(np.float64)


def sampling_units(
    groups: Groups | None, known_N: npt.NDArray[np.bool_]
) -> tuple[int, npt.NDArray[np.int64] | None]:
    """What is drawn, for `bootstrap_intervals`: the known rows, or the groups that have one.

    `groups`: of every row seen, in their order. Raises ValueError where there are more or fewer.
    """
    if groups is None:
        return int(known_N.sum()), None
    if len(groups) != len(known_N):
        raise ValueError(f"found {len(groups)} groups for {len(known_N)} rows; allowed: one for each row")
    found, unit_N = np.unique(np.asarray(groups)[known_N], return_inverse=True)
    return len(found), unit_N.astype(np.int64)


def summed_by(category_N: npt.NDArray[np.int64], size: int) -> Callable[[Array], Array]:
    """A function that sums values (N, R) over the rows of each category: (size, R)."""
    order = np.argsort(category_N, kind="stable")
    present, starts = np.unique(category_N[order], return_index=True)

    def summed(values_NR: Array) -> Array:
        sums = np.zeros((size, values_NR.shape[1]))
        if len(present):  # reduceat wants one segment at least
            sums[present] = np.add.reduceat(values_NR.take(order, axis=0), starts, axis=0)
        return sums

    return summed
