"""What a rule gains on rows that it was not fitted to: fitted on all folds but one, scored on that one, each in turn.

A rule is adopted only where the interval of its gain over the plain answers lies above 0, and of several the simplest
that no other beats in the same way. The interval is that of a bootstrap of rows, or of whole groups, that are drawn for
both answers alike. It holds with 95 % for all rules that are tried together (Bonferroni), since each of them is another
chance to gain by luck.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from classwise.decision.goals import Bools, Goal, Ints, Truth
from classwise.decision.rules import PLAIN, Answers, Rule, answers, fitted, scorer_of
from classwise.metrics.bootstrap import Groups, percentile_interval, resampled_scores, sampling_units
from classwise.metrics.classification import LabelMetric
from classwise.metrics.intervals import MIN_UNITS
from classwise.metrics.scores import LABEL_SCORES, Array

CONFIDENCE = 95.0
"""Percent, of all intervals of the rules that are tried together."""

MIN_CHANGED = 10
"""Rows, or groups, whose answers differ between two rules, below which no interval of the difference is made: that of a
handful of rows, all changed for the better by chance, would lie above 0."""


@dataclass(frozen=True)
class OutOfFoldTarget:
    """The rows of a target that have a label: its `type`, its log probabilities (or logits), what is true, the folds,
    and the groups of rows that vary together (None: each is its own)."""

    type: str
    log_p: Array
    true: Truth
    folds: Ints
    groups: Groups | None


@dataclass(frozen=True)
class Judge:
    """What a gain is measured in: a `goal`, and what it is a score of, where that is not the target itself: a function
    from the target's answers to those of the joint class, which are scored against `true`."""

    goal: Goal
    true: Truth
    type: str
    of: Callable[[Answers], Answers] | None = None

    def scorer(self, given: Answers) -> Callable[[Array], Array]:
        return scorer_of(self.type, self.goal, self.true, given if self.of is None else self.of(given))


@dataclass(frozen=True)
class Gain:
    """Score of the plain answers and of the others on the same rows, how much better these are, the interval of that
    (None without one, for a `reason`), and how many rows they answer otherwise."""

    plain: float
    value: float
    gain: float
    interval: list[float] | None
    reason: str
    changed: int

    @property
    def is_certain(self) -> bool:
        return self.interval is not None and self.interval[0] > 0


@dataclass(frozen=True)
class Candidate:
    """A rule fitted to all rows, its answers out of fold when fitted without each fold, and their gain over the plain
    ones."""

    rule: Rule
    nested: Answers
    gain: Gain


def nested_answers(rows: OutOfFoldTarget, name: str, goal: Goal) -> Answers:
    """The answers to the rows of each fold by the rule as fitted to all others."""
    given = answers(rows.type, rows.log_p, PLAIN).copy()
    for fold in np.unique(rows.folds):
        others = rows.folds != fold
        rule = fitted(name, rows.type, rows.log_p[others], rows.true[others], goal)
        given[~others] = answers(rows.type, rows.log_p[~others], rule)
    return given


def candidates(
    rows: OutOfFoldTarget, names: Sequence[str], goal: Goal, judge: Judge, seed: int, resamples: int
) -> list[Candidate]:
    """The rules of these names, each fitted to the `goal` of its target and estimated by the `judge`."""
    plain = answers(rows.type, rows.log_p, PLAIN)
    found = []
    for name in names:
        nested = nested_answers(rows, name, goal)
        rule = fitted(name, rows.type, rows.log_p, rows.true, goal)
        gain = gain_of(rows, judge, plain, nested, seed, resamples, tried=len(names))
        found.append(Candidate(rule, nested, gain))
    return found


def adopted(
    rows: OutOfFoldTarget, found: Sequence[Candidate], judge: Judge, seed: int, resamples: int
) -> Candidate | None:
    """The first candidate whose gain is certain, or a later one whose gain over that is; None if there is none."""
    best: Candidate | None = None
    for candidate in found:
        gain = candidate.gain
        if best is not None:
            gain = gain_of(rows, judge, best.nested, candidate.nested, seed, resamples, tried=len(found))
        if candidate.gain.is_certain and gain.is_certain:
            best = candidate
    return best


def gain_of(
    rows: OutOfFoldTarget,
    judge: Judge,
    plain: Answers,
    other: Answers,
    seed: int,
    resamples: int,
    tried: int = 1,
) -> Gain:
    """How much better other answers to the same rows are than the plain ones; the interval is of 95 % for as many rules
    as are `tried` together."""
    scorers = (judge.scorer(plain), judge.scorer(other))
    ones = np.ones((len(rows.log_p), 1))
    plain_value, value = (float(scorer(ones)[0]) for scorer in scorers)
    changed_N = (plain != other).reshape(len(plain), -1).any(axis=1)
    units, unit_N = sampling_units(rows.groups, np.ones(len(plain), dtype=bool))
    reason = _too_few(changed_N, units, unit_N, resamples)
    interval = None
    if not reason:

        def difference(weights_NR: Array) -> dict[str, Array]:
            return {"gain": scorers[1](weights_NR) - scorers[0](weights_NR)}

        draws_R = resampled_scores((difference, units, unit_N), seed, resamples)["gain"]
        tail = (100 - CONFIDENCE) / 2 / tried
        low, high = np.percentile(draws_R, (tail, 100 - tail))
        interval = [float(min(low, value - plain_value)), float(max(high, value - plain_value))]
    sign = judge.goal.sign
    return Gain(
        plain=sign * plain_value,
        value=sign * value,
        gain=value - plain_value,
        interval=interval,
        reason=reason,
        changed=int(changed_N.sum()),
    )


def _too_few(changed_N: Bools, units: int, unit_N: Ints | None, resamples: int) -> str:
    """Why there is no interval; empty if there is one."""
    noun = "rows" if unit_N is None else "groups"
    if not resamples:
        return "report.resamples = 0"
    if units < MIN_UNITS:
        return f"{units} {noun}; an interval needs {MIN_UNITS} or more"
    changed = int(changed_N.sum()) if unit_N is None else len(np.unique(unit_N[changed_N]))
    if changed < MIN_CHANGED:
        found = f"1 {noun[:-1]} is" if changed == 1 else f"{changed} {noun} are"
        return f"{found} answered otherwise; an interval needs {MIN_CHANGED} or more"
    return ""


def value_interval(
    rows: OutOfFoldTarget, judge: Judge, given: Answers, seed: int, resamples: int
) -> list[float] | None:
    """The 95 % interval of the score of answers: as such a score has it in metrics.json, and for costs, levels and
    labels by the bootstrap; None where none can be trusted."""
    if not resamples:
        return None
    answered = given if judge.of is None else judge.of(given)
    if judge.type != "multilabel" and judge.goal.score in LABEL_SCORES:
        metric = LabelMetric(judge.goal.classes, keep_rows=True)
        metric.update(
            torch.from_numpy(answered.astype(np.int64)), torch.from_numpy(judge.true.astype(np.int64))
        )
        return metric.intervals(rows.groups, seed, resamples).scores.get(judge.goal.score)
    units, unit_N = sampling_units(rows.groups, np.ones(len(rows.log_p), dtype=bool))
    if units < MIN_UNITS:
        return None
    scorer = scorer_of(judge.type, judge.goal, judge.true, answered)

    def value(weights_NR: Array) -> dict[str, Array]:
        return {"value": judge.goal.sign * scorer(weights_NR)}

    draws_R = resampled_scores((value, units, unit_N), seed, resamples)["value"]
    return percentile_interval(draws_R, float(value(np.ones((len(rows.log_p), 1)))["value"][0]))
