"""Cut points of ordered levels: the level predicted is the number of k for which P(y > k) exceeds the cut of k.

With all cuts at 0.5 that is the median of the distribution, which ordinal heads predict (CORN: Shi, Cao, Raschka 2023,
section 3.4). A cut is kept as an offset to the logit of P(y > k): cut = 1 / (1 + exp(offset)).
"""

from collections.abc import Callable

import numpy as np

from classwise.decision.goals import Goal, Ints, along_flips
from classwise.decision.line_search import ascend
from classwise.metrics.scores import Array


def above_logits(log_p_NK: Array) -> Array:
    """The logits (N, K - 1) of P(y > k) for k = 0 to K - 2, from log probabilities of the levels."""
    log_above = np.logaddexp.accumulate(log_p_NK[:, ::-1], axis=1)[:, ::-1][:, 1:]
    log_below = np.logaddexp.accumulate(log_p_NK, axis=1)[:, :-1]
    logits: Array = log_above - log_below
    return logits


def predicted_level(log_p_NK: Array, offsets_J: Array) -> Ints:
    """The number (N,) of k whose P(y > k) is above its cut."""
    levels: Ints = (above_logits(log_p_NK) + offsets_J > 0).sum(axis=1)
    return levels


def cuts_of(offsets_J: Array) -> Array:
    """The cuts, from 0 to 1, of offsets."""
    cuts: Array = 1 / (1 + np.exp(offsets_J))
    return cuts


def half_prior(true_N: Ints, classes: int) -> Array:
    """Minus half the log odds of a level above k, for each k (K - 1,)."""
    rows_K = np.maximum(np.bincount(true_N, minlength=classes), 0.5)
    above_J = rows_K[::-1].cumsum()[::-1][1:]
    offsets_J: Array = -0.5 * np.log(above_J / (rows_K.sum() - above_J))
    return offsets_J


def fit_cut_points(log_p_NK: Array, true_N: Ints, goal: Goal) -> Array:
    """The offsets (K - 1,) with the highest goal on these rows, less what they cost (line_search.py); a cut costs as
    much as one row of the rarer of its two levels. They are drawn towards 0 or half the log odds."""
    rows_K = np.bincount(true_N, minlength=goal.classes).astype(np.float64)
    logits_NJ = above_logits(log_p_NK)

    def flips(offsets_J: Array, k: int) -> tuple[Array, Callable[[Ints], Array]]:
        is_above_NJ = logits_NJ + offsets_J > 0
        before_N = is_above_NJ.sum(axis=1) - is_above_NJ[:, k]
        order = np.argsort(-logits_NJ[:, k], kind="stable")
        true, before = true_N[order], before_N[order]
        return -logits_NJ[order, k], lambda ends_M: along_flips(goal, true, before, before + 1, ends_M)

    one_row_K = goal.one_row(rows_K)
    one_row_J = np.maximum(one_row_K[:-1], one_row_K[1:])
    centers = (np.zeros(goal.classes - 1), half_prior(true_N, goal.classes))
    found = [ascend(center, center, one_row_J, flips) for center in centers]
    return max(found, key=lambda pair: pair[1])[0]
