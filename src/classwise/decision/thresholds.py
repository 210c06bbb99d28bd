"""A threshold for each label of a multilabel target, kept as an offset to its logit: threshold = 1 / (1 + exp(offset)).

For the mean F1 of the labels each threshold is a problem of its own.
"""

from collections.abc import Callable

import numpy as np

from classwise.decision.goals import Bools, Goal, Ints, of_label_counts
from classwise.decision.line_search import ascend
from classwise.metrics.scores import Array


def chosen_labels(logits_NL: Array, offsets_L: Array) -> Bools:
    """Which labels (N, L) reach their threshold."""
    chosen: Bools = logits_NL + offsets_L >= 0
    return chosen


def half_prior(true_NL: Array) -> Array:
    """Minus half the log odds of each label (L,) in the rows where it is known; no row counts half a row."""
    true_L = np.maximum((true_NL == 1).sum(axis=0), 0.5)
    false_L = np.maximum((true_NL == 0).sum(axis=0), 0.5)
    offsets_L: Array = -0.5 * np.log(true_L / false_L)
    return offsets_L


def fit_thresholds(logits_NL: Array, true_NL: Array, goal: Goal) -> Array:
    """The offsets (L,) with the highest goal on these rows, less what they cost (line_search.py), drawn towards 0 or
    half the log odds."""
    known_NL = ~np.isnan(true_NL)
    support_L = (true_NL == 1).sum(axis=0).astype(np.float64)

    def flips(offsets_L: Array, k: int) -> tuple[Array, Callable[[Ints], Array]]:
        chosen_NL = chosen_labels(logits_NL, offsets_L) & known_NL
        hits_L = (chosen_NL & (true_NL == 1)).sum(axis=0).astype(np.float64)
        predicted_L = chosen_NL.sum(axis=0).astype(np.float64)
        rows = np.flatnonzero(known_NL[:, k])
        rows = rows[np.argsort(-logits_NL[rows, k], kind="stable")]
        hits_E = np.concatenate([[0.0], np.cumsum(true_NL[rows, k] == 1)])

        def goal_of(ends_M: Ints) -> Array:
            hits_ML, support_ML, predicted_ML = (
                np.repeat(counts[None], len(ends_M), axis=0) for counts in (hits_L, support_L, predicted_L)
            )
            hits_ML[:, k], predicted_ML[:, k] = hits_E[ends_M], ends_M
            return of_label_counts(goal, hits_ML, support_ML, predicted_ML)

        return -logits_NL[rows, k], goal_of

    one_row_L = goal.one_row(support_L)
    centers = (np.zeros(goal.classes), half_prior(true_NL))
    found = [ascend(center, center, one_row_L, flips) for center in centers]
    return max(found, key=lambda pair: pair[1])[0]
