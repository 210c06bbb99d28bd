"""What offsets maximize: a score of predicted classes, or the negative mean cost.

Shapes: N rows, K classes, M candidate decisions or R resamples. Higher is better throughout.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from classwise.metrics.bootstrap import Weights
from classwise.metrics.rows import marginal_sums
from classwise.metrics.scores import (
    HIGHER_IS_BETTER,
    LABEL_SCORES,
    Array,
    label_scores,
    level_scores,
    precision_recall_f1,
    ratio,
)

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Truth = npt.NDArray[Any]
"""The true classes (N,), or cells (N, L) of 1, 0, and NaN where unknown."""

LEVEL_SCORES = ("mae_levels", "quadratic_kappa")
MULTILABEL_SCORES = ("macro_f1", "micro_f1")
MEAN_COST = "mean_cost"
AVERAGED_OVER_CLASSES = ("macro_f1", "macro_precision", "macro_recall", "balanced_accuracy")


def can_be_decided(score: str, type: str) -> bool:
    """Whether a score (without the name of its target) of a target of this type, or of `joint`, follows from the
    predicted classes alone, so that offsets can be fitted to it."""
    if type == "multilabel":
        return score in MULTILABEL_SCORES
    if type == "ordinal" and score in LEVEL_SCORES:
        return True
    return type in ("class", "ordinal", "joint") and score in LABEL_SCORES


@dataclass(frozen=True)
class Goal:
    """The `score` by its name, or MEAN_COST with `costs` (K, K): true classes in rows, predicted ones in columns."""

    score: str
    classes: int
    costs: tuple[tuple[float, ...], ...] = ()

    @property
    def sign(self) -> int:
        """-1 where lower is better."""
        return -1 if self.costs or not HIGHER_IS_BETTER[self.score] else 1

    def one_row(self, rows_K: Array) -> Array:
        """About how much (K,) the goal changes with one row of each class, of which there are `rows_K`."""
        if self.costs:
            return np.full(self.classes, np.max(self.costs) / max(1.0, rows_K.sum()))
        if self.score in AVERAGED_OVER_CLASSES:
            return 1 / (self.classes * np.maximum(rows_K, 1))
        return np.full(self.classes, 1 / max(1.0, rows_K.sum()))

    def value(self, true_N: Ints, predicted_N: Ints) -> float:
        """The score itself, of which lower may be better."""
        score = self.scorer(true_N, predicted_N)(np.ones((len(true_N), 1)))
        return float(self.sign * score[0])

    def scorer(self, true_N: Ints, predicted_N: Ints) -> Callable[[Weights], Array]:
        """From weights (N, R) to the goal (R,) of these predictions."""
        if self.costs:
            cost_N = np.asarray(self.costs)[true_N, predicted_N]
            return lambda weights_NR: -ratio(cost_N @ weights_NR, weights_NR.sum(axis=0))
        marginals = marginal_sums(true_N, predicted_N, self.classes)
        steps_N = np.abs(true_N - predicted_N).astype(np.float64)

        def score(weights_NR: Weights) -> Array:
            hits, support, predicted = marginals(weights_NR)
            sums = np.zeros((2, weights_NR.shape[1]))
            if self.score in LEVEL_SCORES:
                sums = np.stack([steps_N, steps_N**2]) @ weights_NR
            return self.of_counts(hits, support, predicted, distance_M=sums[0], square_M=sums[1])

        return score

    def of_counts(
        self, hits_MK: Array, support_MK: Array, predicted_MK: Array, distance_M: Array, square_M: Array
    ) -> Array:
        """The goal (M,) from counts: hits, true and predicted rows of each class, and the sums of |true - predicted|
        and of its square."""
        if self.score in LEVEL_SCORES:
            scores = level_scores(support_MK, predicted_MK, distance=distance_M, square=square_M)
            values_M: Array = self.sign * scores[self.score]
            return values_M
        if self.score == "macro_f1":  # by itself, since the others take most of the time of a fit
            macro_M: Array = ratio(2 * hits_MK, support_MK + predicted_MK).mean(axis=1)
            return macro_M
        return label_scores(hits_MK, support_MK, predicted_MK)[self.score]


def along_flips(goal: Goal, true_N: Ints, before_N: Ints, after_N: Ints, ends_M: Ints) -> Array:
    """The goal (M,) after the first `ends_M` rows have changed from one class to another, in the order of the rows;
    ends in ascending order."""
    if goal.costs:
        costs = np.asarray(goal.costs)
        before = costs[true_N, before_N]
        steps_N = np.concatenate([[0.0], np.cumsum(costs[true_N, after_N] - before)])
        means_M: Array = -(before.sum() + steps_N[ends_M]) / max(1, len(true_N))
        return means_M
    support_K = np.bincount(true_N, minlength=goal.classes).astype(np.float64)
    hits_MK = _flipped(true_N, before_N == true_N, after_N == true_N, true_N, ends_M, goal.classes)
    every_N = np.ones(len(true_N), dtype=bool)
    predicted_MK = _flipped(before_N, every_N, every_N, after_N, ends_M, goal.classes)
    distance_M = square_M = np.zeros(len(ends_M))
    if goal.score in LEVEL_SCORES:
        distance_M, square_M = (
            _flipped_sum(np.abs(true_N - before_N) ** power, np.abs(true_N - after_N) ** power)[ends_M]
            for power in (1, 2)
        )
    support_MK = np.broadcast_to(support_K, hits_MK.shape)
    return goal.of_counts(hits_MK, support_MK, predicted_MK, distance_M, square_M)


def _flipped(
    lost_N: Ints, is_lost_N: Bools, is_won_N: Bools, won_N: Ints, ends_M: Ints, classes: int
) -> Array:
    """Counts by class (M, K): at first those of `lost_N` where `is_lost_N`; each row that flips takes its own away and
    adds one to `won_N` where `is_won_N`."""
    start_K = np.bincount(lost_N[is_lost_N], minlength=classes)
    bin_N = np.searchsorted(ends_M, np.arange(1, len(lost_N) + 1))  # the first end that has the row
    size = (len(ends_M) + 1) * classes
    won = np.bincount((bin_N * classes + won_N)[is_won_N], minlength=size)
    lost = np.bincount((bin_N * classes + lost_N)[is_lost_N], minlength=size)
    steps_MK = (won - lost).reshape(-1, classes)[: len(ends_M)]
    counts_MK: Array = (start_K + steps_MK.cumsum(axis=0)).astype(np.float64)
    return counts_MK


def _flipped_sum(before_N: Ints, after_N: Ints) -> Array:
    """The sum (N + 1,) over all rows after the first 0 to N of them have changed."""
    sums: Array = before_N.sum() + np.concatenate([[0.0], np.cumsum(after_N - before_N)])
    return sums


def multilabel_scorer(goal: Goal, true_NL: Array, predicted_NL: Bools) -> Callable[[Weights], Array]:
    """From weights (N, R) to the goal (R,) of chosen labels (N, L); true cells are 1, 0, or NaN where unknown."""
    known_NL = ~np.isnan(true_NL)
    is_true_NL = true_NL == 1
    chosen_NL = predicted_NL & known_NL
    columns = np.concatenate([is_true_NL & chosen_NL, is_true_NL, chosen_NL], axis=1).astype(np.float64)

    def score(weights_NR: Weights) -> Array:
        counts = np.split(weights_NR.T @ columns, 3, axis=1)
        return of_label_counts(goal, *counts)

    return score


def of_label_counts(goal: Goal, hits_ML: Array, support_ML: Array, predicted_ML: Array) -> Array:
    """The goal (M,) of a multilabel target from counts of cells (M, L)."""
    if goal.score == "micro_f1":
        sums = [counts.sum(axis=1) for counts in (hits_ML, support_ML, predicted_ML)]
        return precision_recall_f1(*sums)[2]
    macro_M: Array = precision_recall_f1(hits_ML, support_ML, predicted_ML)[2].mean(axis=1)
    return macro_M
