"""Offsets, cut points and thresholds against exhaustive search, and what pulls them back."""

import itertools

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, f1_score

from classwise.decision import cut_points, offsets, thresholds
from classwise.decision.goals import MEAN_COST, Goal, along_flips
from classwise.decision.rules import EXPECTED_COST, PLAIN, TUNED, Rule, answers, fitted

LONG = np.array([0.75, 0.2, 0.05])


def drawn(rows: int, seed: int, prior: np.ndarray = LONG) -> tuple[np.ndarray, np.ndarray]:
    """Log probabilities (N, K), exact, and classes."""
    rng = np.random.default_rng(seed)
    true = rng.choice(len(prior), rows, p=prior)
    seen = rng.normal(size=(rows, len(prior)))
    seen[np.arange(rows), true] += 1.3
    logits = 1.3 * seen + np.log(prior)
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True), true


class Free(Goal):
    """A goal for which offsets cost nothing."""

    def one_row(self, rows_K: np.ndarray) -> np.ndarray:
        return np.zeros(len(rows_K))


def unpenalized(log_p: np.ndarray, true: np.ndarray, goal: Goal) -> float:
    """What offsets come to that cost nothing."""
    free = Free(goal.score, goal.classes, goal.costs)
    return goal.value(true, offsets.predicted_class(log_p, offsets.fit_offsets(log_p, true, free)))


def best_of_all(log_p: np.ndarray, true: np.ndarray, goal: Goal) -> float:
    """The best goal over a fine grid of two offsets, the third being 0."""
    grid = np.linspace(-3, 3, 61)
    values = [
        goal.sign * goal.value(true, offsets.predicted_class(log_p, np.array([0, b, c])))
        for b, c in itertools.product(grid, grid)
    ]
    return goal.sign * max(values)


@pytest.mark.parametrize("seed", range(3))
def test_offsets_of_three_classes_reach_the_best_of_all(seed: int) -> None:
    """Macro F1, by coordinate ascent and by a grid of 3,700 pairs; ascent may end on a lower hill, but not far."""
    log_p, true = drawn(80, seed)
    goal = Goal("macro_f1", 3)
    assert unpenalized(log_p, true, goal) >= best_of_all(log_p, true, goal) - 0.01


def test_offsets_for_costs_reach_the_lowest_cost_of_all() -> None:
    log_p, true = drawn(80, 5)
    goal = Goal(MEAN_COST, 3, ((0, 1, 1), (2, 0, 1), (9, 4, 0)))
    assert unpenalized(log_p, true, goal) <= best_of_all(log_p, true, goal) + 0.01


@pytest.mark.parametrize("score", ["macro_f1", "balanced_accuracy", "accuracy", "mcc"])
def test_the_score_along_a_line_is_that_of_the_answers(score: str) -> None:
    """The goal after each number of rows that have changed their class, against the answers themselves."""
    log_p, true = drawn(120, 2)
    goal = Goal(score, 3)
    before, after = log_p.argmax(axis=1), np.full(120, 2)
    ends = np.arange(121)
    expected = [goal.value(true, np.where(np.arange(120) < end, after, before)) for end in ends]
    np.testing.assert_allclose(along_flips(goal, true, before, after, ends), expected, atol=1e-12)


@pytest.mark.parametrize("score", ["macro_f1", "quadratic_kappa", "mae_levels"])
def test_the_score_along_a_cut_is_that_of_the_levels(score: str) -> None:
    """Every row goes up by one level; of some ends only."""
    rng = np.random.default_rng(3)
    true, before = rng.integers(0, 4, 50), rng.integers(0, 3, 50)
    goal = Goal(score, 4)
    ends = np.array([0, 7, 20, 50])
    expected = [
        goal.sign * goal.value(true, np.where(np.arange(50) < end, before + 1, before)) for end in ends
    ]
    np.testing.assert_allclose(along_flips(goal, true, before, before + 1, ends), expected, atol=1e-12)


def test_f1_is_that_of_scikit_learn() -> None:
    log_p, true = drawn(90, 3)
    predicted = offsets.predicted_class(log_p, np.zeros(3))
    expected = f1_score(true, predicted, labels=range(3), average="macro", zero_division=0)
    assert Goal("macro_f1", 3).value(true, predicted) == pytest.approx(expected, abs=1e-12)


def test_few_rows_stay_nearer_to_where_they_start() -> None:
    """The same rows fifty times over are worth fifty times as much, and pull further from 0 and half the prior."""
    log_p, true = drawn(60, 4)
    goal = Goal("macro_f1", 3)
    centers = (np.zeros(3), offsets.half_prior(true, 3))
    distances = []
    for times in (1, 50):
        found = offsets.fit_offsets(log_p.repeat(times, axis=0), true.repeat(times), goal)
        distances.append(min(np.abs(found - center).sum() for center in centers))
    assert distances[0] < distances[1]


def test_half_the_prior_is_half_the_prior() -> None:
    true = np.repeat([0, 1, 2], [75, 20, 5])
    found = offsets.half_prior(true, 3)
    assert found - found[0] == pytest.approx(-0.5 * (np.log(LONG) - np.log(LONG[0])))


def test_a_class_without_a_row_has_a_finite_offset() -> None:
    assert np.isfinite(offsets.half_prior(np.array([0, 0, 1]), 3)).all()


def test_expected_cost_takes_the_cheapest_class() -> None:
    """By hand: 0.7 * 1 against 0.3 * 5."""
    rule = Rule(EXPECTED_COST, costs=((0, 1), (5, 0)))
    assert answers("class", np.log([[0.7, 0.3], [0.9, 0.1]]), rule).tolist() == [1, 0]


# Levels


def levels(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Log probabilities of four levels in order, too sure of the middle ones, and the levels."""
    rng = np.random.default_rng(seed)
    true = rng.choice(4, rows, p=[0.1, 0.5, 0.3, 0.1])
    seen = true + rng.normal(size=rows)
    logits = -((seen[:, None] - np.arange(4)) ** 2) + np.log([0.05, 0.6, 0.3, 0.05])
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True), true


def test_without_offsets_the_level_is_the_median() -> None:
    """As the head of ordinal targets predicts it."""
    log_p, _ = levels(200, 0)
    above = np.exp(log_p)[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]
    assert (cut_points.predicted_level(log_p, np.zeros(3)) == (above > 0.5).sum(axis=1)).all()


@pytest.mark.parametrize("score", ["macro_f1", "quadratic_kappa", "mae_levels"])
def test_cut_points_are_no_worse_than_a_grid(score: str) -> None:
    log_p, true = levels(150, 1)
    goal = Goal(score, 4)
    free = Free(score, 4)
    found = goal.value(true, cut_points.predicted_level(log_p, cut_points.fit_cut_points(log_p, true, free)))
    grid = np.linspace(-2, 2, 17)
    best = max(
        goal.sign * goal.value(true, cut_points.predicted_level(log_p, np.array(cuts)))
        for cuts in itertools.product(grid, repeat=3)
    )
    assert goal.sign * found >= best - 0.02


def test_kappa_is_that_of_scikit_learn() -> None:
    log_p, true = levels(150, 2)
    predicted = cut_points.predicted_level(log_p, np.zeros(3))
    expected = cohen_kappa_score(true, predicted, weights="quadratic")
    assert Goal("quadratic_kappa", 4).value(true, predicted) == pytest.approx(expected)


# Labels


def labels(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits and cells of two labels, some of them unknown."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(rows, 2)) * 1.5 - np.array([0.5, 2.0])
    true = (rng.random((rows, 2)) < 1 / (1 + np.exp(-logits))).astype(float)
    return logits, np.where(rng.random((rows, 2)) < 0.1, np.nan, true)


def test_thresholds_reach_the_best_f1_of_each_label() -> None:
    """As over every threshold that scikit-learn's F1 can have, where they cost nothing."""
    logits, true = labels(120, 0)
    goal = Free("macro_f1", 2)
    chosen = thresholds.chosen_labels(logits, thresholds.fit_thresholds(logits, true, goal))
    for k in range(2):
        known = ~np.isnan(true[:, k])
        z, y = logits[known, k], true[known, k]
        best = max(f1_score(y, z >= cut, zero_division=0) for cut in z)
        assert f1_score(y, chosen[known, k]) == pytest.approx(best)


def test_thresholds_for_micro_f1_are_no_worse_than_a_grid() -> None:
    logits, true = labels(120, 1)
    goal = Free("micro_f1", 2)
    known = ~np.isnan(true)

    def micro(offsets_L: np.ndarray) -> float:
        chosen = thresholds.chosen_labels(logits, offsets_L)
        return float(f1_score(true[known], chosen[known], zero_division=0))

    grid = np.linspace(-3, 3, 25)
    best = max(micro(np.array(pair)) for pair in itertools.product(grid, grid))
    assert micro(thresholds.fit_thresholds(logits, true, goal)) >= best - 0.005


# In one name


@pytest.mark.parametrize(("type", "draw"), [("class", drawn), ("ordinal", levels), ("multilabel", labels)])
def test_a_fit_is_deterministic(type: str, draw: object) -> None:
    log_p, true = draw(100, 7)  # type: ignore[operator]
    goal = Goal("macro_f1", log_p.shape[1])
    assert fitted(TUNED, type, log_p, true, goal) == fitted(TUNED, type, log_p.copy(), true.copy(), goal)


def test_the_plain_rule_is_the_most_probable_class() -> None:
    log_p, _ = drawn(50, 8)
    assert (answers("class", log_p, PLAIN) == log_p.argmax(axis=1)).all()
