"""The best value of one offset while the others stay: exact, since a score changes only where a row changes its class.

An offset has a cost of its own that grows with its distance from a `center`: as much as one row of the class is worth
for a distance of 1. So a class of six rows is moved only by what a row or more gains, and one of six hundred freely.
"""

from collections.abc import Callable

import numpy as np

from classwise.decision.goals import Ints
from classwise.metrics.scores import Array

MOST_ENDS = 4000
"""Values of an offset that are compared; of more rows not every one is looked at."""
MARGIN = 1e-6
SWEEPS = 10
"""Passes over all offsets; usually two or three change something."""


def ends_and_offsets(at_N: Array, center: float) -> tuple[Ints, Array]:
    """How many rows have changed (M,), and an offset for each that changes just so many: the center where it does, else
    one in the middle between two rows. `at_N`: the offset at which each row changes, ascending."""
    count = len(at_N)
    is_end = (
        np.concatenate([[True], at_N[1:] > at_N[:-1] + 2 * MARGIN, [True]]) if count else np.array([True])
    )
    ends_M = np.flatnonzero(is_end)
    if len(ends_M) > MOST_ENDS:
        ends_M = ends_M[np.linspace(0, len(ends_M) - 1, MOST_ENDS).astype(np.int64)]
    lowest = np.concatenate([[-np.inf], at_N])[ends_M]
    highest = np.concatenate([at_N, [np.inf]])[ends_M]
    # Beyond the first and the last row a step of 1 is as good as any other.
    below = np.where(np.isinf(lowest), highest - 2, lowest)
    above = np.where(np.isinf(highest), lowest + 2, highest)
    middle = below / 2 + above / 2
    middle[~np.isfinite(middle)] = center  # there is no row at all
    is_inside = (lowest + MARGIN < center) & (center < highest - MARGIN)
    return ends_M, np.where(is_inside, center, middle)


def ascend(
    offsets_K: Array,
    center_K: Array,
    one_row_K: Array,
    flips: Callable[[Array, int], tuple[Array, Callable[[Ints], Array]]],
) -> tuple[Array, float]:
    """Coordinate ascent from `offsets_K`; returns the offsets and what they come to, costs taken off.

    `flips(offsets_K, k)`: the ascending values of offset k at which rows change, and a function from how many have
    changed to the goal. Deterministic: of equally good values the nearest to the center, then the lowest.
    """
    offsets_K = offsets_K.copy()
    best = -np.inf
    for _ in range(SWEEPS):
        before = best
        for k in range(len(offsets_K)):
            at_N, goal_of = flips(offsets_K, k)
            ends_M, value_M = ends_and_offsets(at_N, float(center_K[k]))
            distance_M = np.abs(value_M - center_K[k])
            others = float((one_row_K * (offsets_K - center_K) ** 2).sum())
            others -= float(one_row_K[k] * (offsets_K[k] - center_K[k]) ** 2)
            total_M = goal_of(ends_M) - one_row_K[k] * distance_M**2 - others
            chosen = np.lexsort((value_M, distance_M, -np.round(total_M, 12)))[0]
            if total_M[chosen] > best + 1e-12:
                best = float(total_M[chosen])
                offsets_K[k] = value_M[chosen]
        if best <= before + 1e-12:
            break
    return offsets_K, best
