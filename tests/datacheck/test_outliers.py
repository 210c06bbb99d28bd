"""Outliers: planted ones first, few in clean sets, and copies of an outlier do not hide it."""

from typing import Any

import numpy as np
import pytest

from classwise.datacheck.outliers import (
    COMPONENTS,
    EXPECTED,
    LEAST_ROWS,
    NEIGHBORS,
    _of_length_one,
    find_outliers,
    tail_threshold,
)
from classwise.errors import DataError


def features(seed: int, rows: int = 400, count: int = 40) -> Any:
    """Two classes of positive features, as behind a ReLU, around a center each."""
    rng = np.random.default_rng(seed)
    centers = rng.gamma(1, 1, size=(2, count))
    return np.abs(centers[np.arange(rows) % 2] + 0.3 * rng.normal(size=(rows, count)))


def with_planted(seed: int, planted: int = 3) -> Any:
    """The first rows are of another kind each."""
    found = features(seed)
    found[:planted] = np.random.default_rng(seed + 100).gamma(0.3, 2, size=(planted, found.shape[1]))
    return found


@pytest.mark.parametrize("seed", range(5))
def test_planted_outliers_come_first_and_are_listed(seed: int) -> None:
    found = find_outliers(with_planted(seed))
    assert set(found.rows[:3]) == {0, 1, 2}
    assert 3 <= found.listed <= 5
    assert found.distance[2] > found.threshold >= found.distance[found.listed]


def test_clean_sets_list_almost_nothing() -> None:
    """One row at most in 20 sets of 400, since the tail of their distances falls faster than the fitted one."""
    assert sum(find_outliers(features(seed)).listed for seed in range(20)) <= 1


def test_distances_are_those_of_a_plain_computation() -> None:
    features_NF = features(0, rows=60)
    unit_NF = features_NF / np.linalg.norm(features_NF, axis=1, keepdims=True)
    distance_NN = np.linalg.norm(unit_NF[:, None] - unit_NF, axis=2)
    np.fill_diagonal(distance_NN, np.inf)
    found = find_outliers(features_NF)
    np.testing.assert_allclose(
        found.distance, np.sort(distance_NN, axis=1)[found.rows, :NEIGHBORS].mean(axis=1)
    )
    np.testing.assert_array_equal(found.nearest, distance_NN.argmin(axis=1)[found.rows])


def test_principal_components_keep_the_ranking_of_many_features() -> None:
    """500 features, of which most hold a little noise only."""
    features_NF = np.hstack([with_planted(1), 0.01 * np.random.default_rng(0).normal(size=(400, 460))])
    assert _of_length_one(features_NF).shape == (400, COMPONENTS)
    assert set(find_outliers(features_NF).rows[:3]) == {0, 1, 2}


def test_two_copies_of_an_outlier_are_both_listed() -> None:
    features_NF = with_planted(2, planted=1)
    features_NF[1] = features_NF[0]
    found = find_outliers(features_NF)
    assert set(found.rows[:2]) == {0, 1}
    assert found.listed >= 2
    assert found.nearest[:2].tolist() == found.rows[:2][::-1].tolist()


def test_beyond_the_threshold_of_an_exponential_tail_lie_as_many_as_expected() -> None:
    """EXPECTED of each of 400 sets of 200 rows, within three standard errors."""
    rng = np.random.default_rng(0)
    beyond = [int((x > tail_threshold(x)).sum()) for x in rng.exponential(size=(400, 200))]
    assert abs(np.mean(beyond) - EXPECTED) < 3 * np.std(beyond) / 20 + 0.02


def test_equal_rows_are_no_outliers() -> None:
    found = find_outliers(np.ones((30, 5)))
    assert found.listed == 0
    assert not found.distance.any()
    assert find_outliers(np.zeros((30, 5))).listed == 0


def test_few_rows_and_features_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(DataError, match=f"found 2 rows; at least {LEAST_ROWS}"):
        find_outliers(np.ones((2, 5)))
    with pytest.raises(DataError, match="not finite"):
        find_outliers(np.full((30, 5), np.nan))
