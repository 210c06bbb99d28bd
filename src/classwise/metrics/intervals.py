"""95 % confidence intervals of scores, and why there is none where too few rows would make it a guess.

Scores of predicted classes are drawn from a model (posterior.py), means over rows from a studentized bootstrap
(bootstrap.py). Which of them hold, and from how many rows on, is measured in benchmarks/simulations/intervals.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from classwise.metrics.bootstrap import Interval, percentile_interval, within
from classwise.metrics.confusion import Confusion
from classwise.metrics.posterior import (
    DesignEffects,
    Drawn,
    Ints,
    draw_confusions,
    draw_shares,
    independent,
    share_design_effect,
)
from classwise.metrics.scores import (
    Array,
    label_scores,
    level_scores,
    precision_recall_f1,
    ratio,
)

MIN_UNITS = 10
"""Rows, or groups, below which no score has an interval."""

MIN_MEAN_UNITS = 20
"""Rows, groups or queries below which a mean has no interval: log loss, errors in a unit, scores of rankings."""

MIN_CLASS_UNITS = 3
"""Rows of a class, or groups with one, below which its own scores have no interval: it would be most of [0, 1]."""

CELLS_AT_ONCE = 4_000_000
"""Draws times classes that are held in memory together."""

CALIBRATION = "it is biased upwards, by an unknown amount"

RANKED = "it depends on the order of all rows, for which no interval is computed"

EQUAL = "too few different values"

ONE_CLASS = "there is only one class"

_AGREEMENTS = ("mcc", "kappa", "quadratic_kappa")
"""Scores from -1 to 1 of the agreement beyond chance: 0 for rows of one class, whatever is predicted."""

_NAMED = 3  # classes without a row that a reason names


@dataclass(frozen=True)
class Intervals:
    """`scores`: the 95 % interval [low, high] by score. `withheld`: why the other scores have none. `classes`: the same
    for each class or label, for its precision, recall and F1."""

    scores: dict[str, Interval] = field(default_factory=dict)
    withheld: dict[str, str] = field(default_factory=dict)
    classes: "list[Intervals]" = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """As in metrics.json: `intervals`, and `no_interval` where there is a reason to give."""
        return {"intervals": self.scores} | ({"no_interval": self.withheld} if self.withheld else {})


def with_intervals(scores: Mapping[str, Any], intervals: Intervals) -> dict[str, Any]:
    """Scores as in metrics.json with their intervals, each class with its own."""
    result = dict(scores) | intervals.as_json()
    if intervals.classes:
        rows = zip(scores["per_class"], intervals.classes, strict=True)
        result["per_class"] = [dict(row) | of_class.as_json() for row, of_class in rows]
    return result


def too_few(units: int, least: int, noun: str) -> str:
    """Why there is no interval, in words; empty if there are enough units."""
    if units >= least:
        return ""
    singular = {"rows": "row", "groups": "group", "queries": "query"}
    return f"{units} {noun if units != 1 else singular[noun]}; an interval needs {least} or more"


def withheld_all(names: Sequence[str], reason: str, classes: int = 0) -> Intervals:
    """No interval at all, for one reason."""
    of_class = Intervals(withheld=dict.fromkeys(("precision", "recall", "f1"), reason))
    return Intervals(withheld=dict.fromkeys(names, reason), classes=[of_class] * classes)


def absent_reason(labels: Sequence[str], support_K: npt.NDArray[Any], noun: str = "row of") -> str:
    """Why a macro average has no interval: it counts classes without a row as 0. Empty if there is none of these.

    `noun`: what there is none of, with its preposition.
    """
    absent = [label for label, rows in zip(labels, support_K, strict=True) if not rows]
    if not absent:
        return ""
    named = ", ".join(absent[:_NAMED]) + (f" and {len(absent) - _NAMED} more" if len(absent) > _NAMED else "")
    return f"no {noun} {named}, counted as 0"


def units_by_class(true_N: Ints, unit_N: Ints | None, classes: int) -> Ints:
    """The number (K,) of rows of each class, or of groups that have one."""
    if unit_N is not None and len(true_N):
        true_N = np.unique(true_N * (unit_N.max() + 1) + unit_N) // (unit_N.max() + 1)
    return np.bincount(true_N, minlength=classes)


def confusion_intervals(
    confusion: Confusion,
    labels: Sequence[str],
    effects: DesignEffects | None,
    units_K: Ints,
    noun: str,
    seed: int,
    draws: int,
    ordinal: bool = False,
    shares: Sequence[float] | None = None,
) -> Intervals:
    """The intervals of all scores that follow from a confusion matrix.

    `effects`: None for rows without groups. `units_K`: the rows, or groups, of each class; `noun`: what they are, in
    the plural. `shares`: class shares that the rows are weighted to, as in `scores_at_prior`.
    """
    effects = effects or independent(confusion.classes)
    weight_K = None if shares is None else ratio(np.asarray(shares), confusion.support)
    hits_K, support_K, predicted_K = confusion.marginals(weight_K)
    values = label_scores(hits_K, support_K, predicted_K)
    if ordinal:
        values |= level_scores(support_K, predicted_K, *map(np.asarray, confusion.distances(weight_K)))

    # Many classes are drawn in parts, of which only what an interval needs is kept.
    own = np.flatnonzero(units_K >= MIN_CLASS_UNITS)
    parts = []
    step = max(1, CELLS_AT_ONCE // confusion.classes)
    for part, start in enumerate(range(0, draws, step)):
        size = min(step, draws - start)
        parts.append(_drawn_scores(confusion, effects, own, seed, size, part, ordinal, shares))
    draws_by_score = {name: np.concatenate([scores[name] for scores, _ in parts]) for name in values}
    drawn_by_class = [np.concatenate([drawn[i] for _, drawn in parts]) for i in range(3)]

    reason = absent_reason(labels, support_K)
    withheld = {name: reason for name in values if reason and name.startswith("macro_")}
    if np.count_nonzero(support_K) < 2:
        withheld |= {name: "every row is of one class" for name in _AGREEMENTS if name in values}
    scores = {
        name: within(percentile_interval(draws_by_score[name], float(value)), *_limits(name, len(labels)))
        for name, value in values.items()
        if name not in withheld
    }
    classes = class_intervals(
        drawn_by_class,
        precision_recall_f1(hits_K, support_K, predicted_K),
        units_K=units_K,
        predicted_K=predicted_K,
        noun=noun,
    )
    return Intervals(scores, withheld, classes)


def _drawn_scores(
    confusion: Confusion,
    effects: DesignEffects,
    own: Ints,
    seed: int,
    draws: int,
    part: int,
    ordinal: bool,
    shares: Sequence[float] | None,
) -> tuple[dict[str, Array], tuple[Array, Array, Array]]:
    """The scores (R,) of drawn matrices, and precision, recall and F1 (R, ...) of the classes `own`."""

    def drawn(effect_K: Array) -> Drawn:
        return draw_confusions(confusion, effect_K, effects.shares, seed, draws, ordinal, shares, part)

    whole = drawn(effects.whole)
    by_class = whole if np.array_equal(effects.whole, effects.within) else drawn(effects.within)
    scores = label_scores(whole.hits, whole.support, whole.predicted)
    if ordinal:
        scores |= level_scores(whole.support, whole.predicted, whole.distance, whole.square)

    # Recall concerns the rows of one class only; precision and F1 those of other classes too.
    precision, _, f1 = precision_recall_f1(whole.hits[:, own], whole.support[:, own], whole.predicted[:, own])
    recall = precision_recall_f1(by_class.hits[:, own], by_class.support[:, own], by_class.predicted[:, own])[
        1
    ]
    return scores, (precision, recall, f1)


def _limits(name: str, classes: int) -> tuple[float, float]:
    """The lowest and the highest value of a score of predicted classes."""
    if name == "mae_levels":
        return 0, classes - 1
    return (-1 if name in _AGREEMENTS else 0), 1


def class_intervals(
    drawn: Sequence[Array],
    values: tuple[Array, Array, Array],
    units_K: Ints,
    predicted_K: npt.NDArray[Any],
    noun: str,
) -> list[Intervals]:
    """The intervals of precision, recall and F1 of each class, from values (K,) of each and draws (R, ...) of the
    classes with enough units."""
    names = ("precision", "recall", "f1")
    result = []
    column = 0
    for k, units in enumerate(units_K):
        if units < MIN_CLASS_UNITS:
            reason = f"fewer than {MIN_CLASS_UNITS} {noun} of the class"
            result.append(Intervals(withheld=dict.fromkeys(names, reason)))
            continue
        withheld = {} if predicted_K[k] else {"precision": "never predicted, counted as 0"}
        scores = {
            name: within(percentile_interval(drawn[i][:, column], float(values[i][k])), 0, 1)
            for i, name in enumerate(names)
            if name not in withheld
        }
        column += 1
        result.append(Intervals(scores, withheld))
    return result


def share_interval(is_hit_N: npt.NDArray[np.bool_], unit_N: Ints | None, seed: int, draws: int) -> Interval:
    """The interval of the share of hits among rows, or among rows in groups."""
    effect = 1.0 if unit_N is None else share_design_effect(is_hit_N, unit_N)
    hits = float(is_hit_N.sum())
    rows = len(is_hit_N)
    return percentile_interval(draw_shares(hits / effect, rows / effect, seed, draws), hits / rows)
