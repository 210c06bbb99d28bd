"""Shift: a test that holds its level, with groups too, and that finds a difference and the rows it lies in."""

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score

from classwise.datacheck.shift import (
    FOLDS,
    MOST_ROWS,
    RIDGE,
    _auc,
    _drawn,
    _out_of_fold,
    _whitened,
    auc_interval,
    compare_sets,
)
from classwise.errors import DataError


def two_sets(seed: int, moved: float, rows: int = 100) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, 8)), rng.normal(size=(rows, 8)) + moved * np.eye(8)[0]


def test_scores_are_those_of_ridge_regression_on_the_other_folds() -> None:
    """scikit-learn's Ridge, fold by fold, and its AUC."""
    features_AF, features_BF = two_sets(0, 1)
    components_KD = _whitened(np.concatenate([features_AF, features_BF]))
    side_K, fold_K = np.repeat([False, True], 100), np.arange(200) % FOLDS
    scores_KP = _out_of_fold(components_KD, side_K[:, None], fold_K)
    aucs = []
    for fold in range(FOLDS):
        rest_K = fold_K != fold
        model = Ridge(alpha=RIDGE * rest_K.sum()).fit(components_KD[rest_K], side_K[rest_K])
        expected = model.predict(components_KD[~rest_K]) - side_K[rest_K].mean()
        np.testing.assert_allclose(scores_KP[~rest_K, 0], expected, atol=1e-10)
        aucs.append(roc_auc_score(side_K[~rest_K], expected))
    assert _auc(scores_KP, side_K[:, None], fold_K)[0] == pytest.approx(np.mean(aucs))


def test_components_are_uncorrelated_with_variance_one() -> None:
    features_KF = np.random.default_rng(0).normal(size=(50, 6)) @ np.diag([1, 10, 100, 1, 1, 0])
    components_KD = _whitened(features_KF)
    np.testing.assert_allclose(components_KD.T @ components_KD / 50, np.eye(5), atol=1e-9)


def test_p_values_are_uniform_where_sets_are_alike() -> None:
    """200 pairs of sets: 20 % have a p-value up to 0.2, within three standard errors."""
    p = np.array([compare_sets(*two_sets(seed, 0, rows=30), permutations=49).p_value for seed in range(200)])
    assert 0.115 < (p <= 0.2).mean() < 0.285


def test_p_values_are_uniform_with_groups() -> None:
    """Rows of a group are alike; taken for independent, nearly all pairs would be significant."""
    with_groups, without = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        features_NF = np.repeat(rng.normal(size=(40, 4)), 6, axis=0) + 0.1 * rng.normal(size=(240, 4))
        group_N = np.repeat(np.arange(40), 6)
        parts = features_NF[:120], features_NF[120:]
        groups = group_N[:120].tolist(), group_N[120:].tolist()
        with_groups.append(compare_sets(*parts, *groups, permutations=49).p_value <= 0.1)
        without.append(compare_sets(*parts, permutations=49).p_value <= 0.1)
    assert sum(with_groups) <= 14
    assert sum(without) >= 20


@pytest.mark.parametrize(("moved", "auc"), [(1.0, 0.76), (3.0, 0.983)])
def test_a_moved_set_is_found(moved: float, auc: float) -> None:
    """Two normal distributions `moved` apart have an AUC of Phi(moved / sqrt 2); learned from rows, a little less."""
    found = compare_sets(*two_sets(1, moved, rows=400))
    assert found.auc == pytest.approx(auc, abs=0.035)
    assert found.p_value == 0.002
    assert found.is_notable
    assert found.interval[0] < auc < found.interval[1]
    assert found.is_strong == (moved == 3)


def test_the_rows_that_tell_most_come_first() -> None:
    """Ten rows of B that lie far away, among others that are as in A."""
    features_AF, features_BF = two_sets(2, 0)
    features_BF[40:50, 3] += 8
    found = compare_sets(features_AF, features_BF)
    assert set(found.rows_B[:10]) == set(range(40, 50))
    assert sorted(found.rows_A) == list(range(100))
    assert sorted(found.rows_B) == list(range(100))
    assert (np.diff(found.scores_B) <= 0).all()
    assert (np.diff(found.scores_A) >= 0).all()


def test_a_group_in_both_sets_is_on_one_side_of_each_fold() -> None:
    """Copies of the same rows tell nothing of each other."""
    features_AF, _ = two_sets(3, 0)
    groups = list(range(100))
    found = compare_sets(features_AF, features_AF, groups, groups)
    assert found.p_value > 0.05
    assert not found.is_notable


def test_of_large_sets_whole_groups_are_drawn() -> None:
    group_N = np.arange(3 * MOST_ROWS) // 7
    rows = _drawn(np.arange(len(group_N)), group_N, np.random.default_rng(0))
    assert MOST_ROWS <= len(rows) < MOST_ROWS + 7
    counts = np.bincount(group_N[rows])
    whole = np.bincount(group_N)[: len(counts)]
    assert (counts[counts > 0] == whole[counts > 0]).all()


def test_sets_of_different_sizes_can_be_compared() -> None:
    features_AF, features_BF = two_sets(4, 3, rows=300)
    assert compare_sets(features_AF, features_BF[:20]).is_notable


def test_the_interval_holds_the_true_auc() -> None:
    """In 95 % of 400 draws of 30 and 40 rows, within three standard errors; and not of no width at 1."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        a, b = rng.normal(size=30), rng.normal(1, 1, size=40)
        low, high = auc_interval(float((b[:, None] > a).mean()), 30, 40)
        held += low <= 0.7602 <= high
    assert 0.917 <= held / 400 <= 0.983
    low, high = auc_interval(1.0, 30, 40)
    assert 0.8 < low < 1 == high


@pytest.mark.parametrize("constant", [0.0, 7.0])
def test_constant_features_tell_nothing(constant: float) -> None:
    found = compare_sets(np.full((20, 3), constant), np.full((20, 3), constant))
    assert found.auc == 0.5
    assert found.p_value == 1


def test_too_few_rows_and_groups_are_refused() -> None:
    features_AF, features_BF = two_sets(5, 1)
    with pytest.raises(DataError, match=r"found 2 and 100 rows .* at least 10 each"):
        compare_sets(features_AF[:2], features_BF)
    with pytest.raises(DataError, match="found 1 and 100 groups"):
        compare_sets(features_AF, features_BF, ["one"] * 100, list(range(100)))


def test_what_cannot_be_compared_is_refused() -> None:
    features_AF, features_BF = two_sets(6, 1)
    with pytest.raises(ValueError, match=r"\(100, 8\) and \(100, 7\)"):
        compare_sets(features_AF, features_BF[:, :7])
    with pytest.raises(ValueError, match="groups of one set"):
        compare_sets(features_AF, features_BF, list(range(100)))
    with pytest.raises(DataError, match="not finite"):
        compare_sets(np.where(features_AF > 1, np.nan, features_AF), features_BF)


def test_the_same_input_gives_the_same_result() -> None:
    first, second = (compare_sets(*two_sets(7, 0.5), permutations=49) for _ in range(2))
    assert (first.auc, first.p_value) == (second.auc, second.p_value)
    np.testing.assert_array_equal(first.rows_B, second.rows_B)
