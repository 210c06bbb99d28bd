"""Nested gains: on rows that a rule was not fitted to, adopted only where they are certain."""

import numpy as np
import pytest

from classwise.decision.goals import Goal
from classwise.decision.nested import (
    MIN_CHANGED,
    Judge,
    OutOfFoldTarget,
    adopted,
    candidates,
    gain_of,
    nested_answers,
    value_interval,
)
from classwise.decision.offsets import fit_offsets
from classwise.decision.rules import HALF_PRIOR, PLAIN, TUNED, answers, fitted

CLASSES = 3


def drawn(
    rows: int, seed: int, imbalance: float = 1.0, group: int = 1, moved: np.ndarray | float = 0.0
) -> OutOfFoldTarget:
    """Exact log probabilities, moved; rows of a `group` have one class and half of their noise in common."""
    rng = np.random.default_rng([seed, rows, group])
    prior = imbalance ** (-np.arange(CLASSES) / (CLASSES - 1))
    prior /= prior.sum()
    groups = rows // group
    true = rng.choice(CLASSES, groups, p=prior).repeat(group)
    seen = rng.normal(size=(groups, CLASSES)).repeat(group, axis=0)
    if group > 1:
        seen = (seen + rng.normal(size=(rows, CLASSES))) / np.sqrt(2)
    seen[np.arange(rows), true] += 1.5
    logits = 1.5 * seen + np.log(prior) + moved
    log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    group_N = np.arange(rows) // group
    return OutOfFoldTarget("class", log_p, true, group_N % 5, None if group == 1 else group_N)


def judge_of(rows: OutOfFoldTarget) -> Judge:
    return Judge(Goal("macro_f1", CLASSES), rows.true, "class")


def rule_adopted(rows: OutOfFoldTarget, seed: int, resamples: int = 200) -> str:
    judge = judge_of(rows)
    found = candidates(rows, [HALF_PRIOR, TUNED], judge.goal, judge, seed, resamples)
    chosen = adopted(rows, found, judge, seed, resamples)
    return "none" if chosen is None else chosen.rule.name


def test_the_rows_of_a_fold_have_no_say_in_the_rule_that_answers_them() -> None:
    """Other labels in one fold change the answers in all others, and none in it."""
    rows = drawn(300, 0, imbalance=10)
    other = np.where(rows.folds == 2, 2 - rows.true, rows.true)
    changed = OutOfFoldTarget("class", rows.log_p, other, rows.folds, None)
    goal = Goal("macro_f1", CLASSES)
    before, after = (nested_answers(one, TUNED, goal) for one in (rows, changed))
    same = before == after
    assert same[rows.folds == 2].all()
    assert not same[rows.folds != 2].all()


def test_each_fold_is_answered_as_fitted_to_the_others() -> None:
    rows = drawn(200, 1, imbalance=10)
    goal = Goal("macro_f1", CLASSES)
    found = nested_answers(rows, TUNED, goal)
    others = rows.folds != 3
    rule = fitted(TUNED, "class", rows.log_p[others], rows.true[others], goal)
    assert (found[~others] == answers("class", rows.log_p[~others], rule)).all()


def best(imbalance: float) -> np.ndarray:
    """The offsets with the highest macro F1 on 40,000 rows."""
    exact = drawn(40_000, 99, imbalance)
    return fit_offsets(exact.log_p, exact.true, Goal("macro_f1", CLASSES))


def test_nothing_is_adopted_where_nothing_can_be_gained() -> None:
    """The probabilities are moved by the best offsets, so others can only lose. 200 draws, of rows and of groups, with
    a long tail and without; more rows and classes: benchmarks/folds.py decisions."""
    found = []
    for imbalance, group in ((1.0, 1), (1.0, 4), (12.0, 1), (12.0, 4)):
        moved = best(imbalance)
        found += [rule_adopted(drawn(120 * group, seed, imbalance, group, moved), seed) for seed in range(50)]
    assert sum(rule != "none" for rule in found) <= 0.05 * 200


def test_a_known_gain_is_adopted() -> None:
    """One class is always said to be far too probable."""
    rows = drawn(400, 3, moved=np.array([4.0, 0, 0]))
    assert rule_adopted(rows, 3) == TUNED


def test_half_the_prior_comes_first_where_nothing_beats_it() -> None:
    """The probabilities lack half the log prior of what is best: tuned offsets gain as well, but not more."""
    prior = 30.0 ** (-np.arange(CLASSES) / (CLASSES - 1))
    moved = best(30.0) + 0.5 * np.log(prior)
    names = [rule_adopted(drawn(4000, seed, 30.0, moved=moved), seed) for seed in range(4)]
    assert names.count(HALF_PRIOR) >= 3


def test_the_interval_holds_the_gain() -> None:
    rows = drawn(400, 3, moved=np.array([4.0, 0, 0]))
    judge = judge_of(rows)
    gain = candidates(rows, [TUNED], judge.goal, judge, 0, 200)[0].gain
    assert gain.interval is not None
    assert 0 < gain.interval[0] < gain.gain < gain.interval[1]
    assert gain.gain == pytest.approx(gain.value - gain.plain)


def test_of_a_handful_of_changed_rows_there_is_no_interval() -> None:
    """All of them better by chance would look certain."""
    rows = drawn(300, 5)
    plain = answers("class", rows.log_p, PLAIN)
    wrong = np.flatnonzero(plain != rows.true)[: MIN_CHANGED - 1]
    other = plain.copy()
    other[wrong] = rows.true[wrong]
    gain = gain_of(rows, judge_of(rows), plain, other, 0, 200)
    assert gain.gain > 0
    assert gain.interval is None
    assert gain.reason.startswith(f"{MIN_CHANGED - 1} rows are answered otherwise")


def test_whole_groups_are_drawn() -> None:
    """Rows that repeat each other say no more than one of them, so the interval is wider than of as many rows."""
    rows = drawn(400, 6, moved=np.array([1.0, 0, 0]))
    goal = Goal("macro_f1", CLASSES)
    repeated = OutOfFoldTarget(
        "class", rows.log_p.repeat(4, axis=0), rows.true.repeat(4), rows.folds.repeat(4), np.arange(1600) // 4
    )
    alone = OutOfFoldTarget("class", repeated.log_p, repeated.true, repeated.folds, None)
    widths = []
    for one in (repeated, alone):
        other = nested_answers(one, TUNED, goal)
        gain = gain_of(one, judge_of(one), answers("class", one.log_p, PLAIN), other, 0, 500)
        assert gain.interval is not None
        widths.append(gain.interval[1] - gain.interval[0])
    assert widths[0] > 1.5 * widths[1]


def test_the_interval_of_the_nested_score_holds_the_later_score() -> None:
    """100 draws; 200 with more rows: benchmarks/folds.py decisions."""
    covered = []
    for seed in range(100):
        rows = drawn(300, seed, imbalance=5)
        judge = judge_of(rows)
        given = nested_answers(rows, HALF_PRIOR, judge.goal)
        interval = value_interval(rows, judge, given, seed, 200)
        assert interval is not None
        later = drawn(20_000, 10_000 + seed, imbalance=5)
        rule = fitted(HALF_PRIOR, "class", rows.log_p, rows.true, judge.goal)
        value = judge.goal.value(later.true, answers("class", later.log_p, rule))
        covered.append(interval[0] <= value <= interval[1])
    assert np.mean(covered) >= 0.85


def test_a_gain_in_the_joint_class_is_measured_there() -> None:
    """The judge scores what the answers come to together with those of another target."""
    rows = drawn(200, 7)
    other = np.arange(200) % 2
    judge = Judge(
        Goal("accuracy", 2 * CLASSES),
        rows.true * 2 + other,
        "class",
        of=lambda given: given * 2 + (1 - other),
    )
    plain = answers("class", rows.log_p, PLAIN)
    assert gain_of(rows, judge, plain, rows.true, 0, 100).value == 0
