"""Additive offsets to the log probabilities of classes, of which the largest sum is predicted."""

from collections.abc import Callable

import numpy as np

from classwise.decision.goals import Goal, Ints, along_flips
from classwise.decision.line_search import ascend
from classwise.metrics.scores import Array


def predicted_class(log_p_NK: Array, offsets_K: Array) -> Ints:
    """The class (N,) with the largest log probability plus offset; of equal ones the first."""
    predicted_N: Ints = (log_p_NK + offsets_K).argmax(axis=1)
    return predicted_N


def half_prior(true_N: Ints, classes: int) -> Array:
    """Minus half the log share of each class (K,), with mean 0; a class without a row counts half a row."""
    rows_K = np.maximum(np.bincount(true_N, minlength=classes), 0.5)
    offsets_K = -0.5 * np.log(rows_K)
    centered: Array = offsets_K - offsets_K.mean()
    return centered


def fit_offsets(log_p_NK: Array, true_N: Ints, goal: Goal) -> Array:
    """The offsets (K,) with the highest goal on these rows, with mean 0, less what they cost (line_search.py).

    They are drawn towards 0 or half the log prior, whichever ends higher.
    """
    rows_K = np.bincount(true_N, minlength=goal.classes).astype(np.float64)

    def flips(offsets_K: Array, k: int) -> tuple[Array, Callable[[Ints], Array]]:
        sums_NK = log_p_NK + offsets_K
        sums_NK[:, k] = -np.inf
        before_N = sums_NK.argmax(axis=1)
        at_N = sums_NK[np.arange(len(sums_NK)), before_N] - log_p_NK[:, k]
        order = np.argsort(at_N, kind="stable")
        true, before, after = true_N[order], before_N[order], np.full(len(order), k)
        return at_N[order], lambda ends_M: along_flips(goal, true, before, after, ends_M)

    one_row_K = goal.one_row(rows_K)
    centers = (np.zeros(goal.classes), half_prior(true_N, goal.classes))
    found = [ascend(center, center, one_row_K, flips) for center in centers]
    offsets_K = max(found, key=lambda pair: pair[1])[0]
    centered: Array = offsets_K - offsets_K.mean()
    return centered
