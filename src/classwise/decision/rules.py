"""The rules by which a target's answer follows from its log probabilities, and how each is fitted.

    none            the head's own: the most probable class, the median level, labels from 0.5 on
    half_prior      offsets of half the log class shares, which nothing is tuned for
    expected_cost   the class with the lowest expected cost; for costs, likewise untuned
    tuned           fitted offsets (classes), cut points (levels), thresholds (labels)

`log_p` are log probabilities (N, K) of classes and levels, and logits (N, L) of labels; `true` the classes (N,), or
cells (N, L) of 1, 0, and NaN where unknown.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from classwise.decision import cut_points, offsets, thresholds
from classwise.decision.goals import Bools, Goal, Ints, Truth, multilabel_scorer
from classwise.metrics.bootstrap import Weights
from classwise.metrics.scores import Array

Answers = Ints | Bools
"""Classes (N,), or chosen labels (N, L)."""

NONE, HALF_PRIOR, EXPECTED_COST, TUNED = "none", "half_prior", "expected_cost", "tuned"

MOST_WORK = 2e9
"""Rows times the square of the classes above which offsets are not tuned: some minutes a fold."""


@dataclass(frozen=True)
class Rule:
    """A rule by its `name`, with its `offsets` (K, K - 1 or L numbers; none for `none` and `expected_cost`) and the
    `costs` that it minimizes the expectation of."""

    name: str = NONE
    offsets: tuple[float, ...] = ()
    costs: tuple[tuple[float, ...], ...] = ()


PLAIN = Rule()
"""What the head answers without a decision."""


def answers(type: str, log_p: Array, rule: Rule) -> Answers:
    """What a rule answers in every row."""
    if rule.name == EXPECTED_COST:
        p_NK = np.exp(log_p - np.logaddexp.reduce(log_p, axis=1, keepdims=True))
        cheapest_N: Ints = (p_NK @ np.asarray(rule.costs)).argmin(axis=1)
        return cheapest_N
    size = {"class": log_p.shape[1], "multilabel": log_p.shape[1], "ordinal": log_p.shape[1] - 1}[type]
    values = np.array(rule.offsets) if rule.offsets else np.zeros(size)
    return _ANSWERS[type](log_p, values)


_ANSWERS: dict[str, Callable[[Array, Array], Answers]] = {
    "class": offsets.predicted_class,
    "ordinal": cut_points.predicted_level,
    "multilabel": thresholds.chosen_labels,
}


def fitted(name: str, type: str, log_p: Array, true: Truth, goal: Goal) -> Rule:
    """The rule of that name for these rows."""
    if name == EXPECTED_COST:
        return Rule(name, costs=goal.costs)
    if name == HALF_PRIOR:
        return Rule(name, _floats(_half_prior(type, true, goal.classes)))
    if name == TUNED:
        return Rule(name, _floats(_tuned(type, log_p, true, goal)))
    return Rule()


def _half_prior(type: str, true: Truth, classes: int) -> Array:
    if type == "multilabel":
        return thresholds.half_prior(true)
    of_classes = offsets.half_prior if type == "class" else cut_points.half_prior
    return of_classes(true.astype(np.int64), classes)


def _tuned(type: str, log_p: Array, true: Truth, goal: Goal) -> Array:
    if type == "multilabel":
        return thresholds.fit_thresholds(log_p, true, goal)
    fit = offsets.fit_offsets if type == "class" else cut_points.fit_cut_points
    return fit(log_p, true.astype(np.int64), goal)


def _floats(values: Array) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def scorer_of(type: str, goal: Goal, true: Truth, given: Answers) -> Callable[[Weights], Array]:
    """From weights (N, R) of the rows to the goal (R,) of answers."""
    if type == "multilabel":
        return multilabel_scorer(goal, true, given.astype(bool))
    return goal.scorer(true.astype(np.int64), given.astype(np.int64))
