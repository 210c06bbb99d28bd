"""Shortcuts: equal to scikit-learn's naive Bayes, found where there is one, and silent where labels are shuffled."""

from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import balanced_accuracy_score, recall_score
from sklearn.naive_bayes import CategoricalNB

from classwise.datacheck.found_columns import shortcut_finding
from classwise.datacheck.shortcuts import (
    FOLDS,
    SMOOTHING,
    Shortcut,
    _folds,
    _permuted,
    column_bins,
    find_shortcuts,
    is_sorted_by_class,
)
from classwise.randomness import CHECK, generator

COUNTS = (300, 100, 40, 12)


def long_tail(seed: int) -> Any:
    rng = np.random.default_rng(seed)
    return rng.permutation(np.repeat(np.arange(len(COUNTS)), COUNTS))


def clean_columns(seed: int, rows: int) -> dict[str, Any]:
    """Numbers of several kinds, strings, and missing values: nothing of them has to do with labels."""
    rng = np.random.default_rng(seed)
    taken = rng.integers(0, 10**6, rows)
    return {
        "bytes": rng.lognormal(9, 1, rows),
        "width": rng.choice([32, 48, 64], rows),
        "folder": [f"folder {number}" for number in rng.integers(0, 40, rows)],
        "suffix": rng.choice([".jpg", ".png"], rows, p=(0.95, 0.05)).tolist(),
        "taken": [int(time) if time % 3 else None for time in taken],
    }


def by_scikit_learn(bin_N: Any, class_N: Any, group_N: Any) -> Any:
    """The prediction of each row by a naive Bayes of the other folds."""
    fold_N = _folds(group_N, generator(0, CHECK))
    predicted_N = np.empty(len(class_N), dtype=int)
    for fold in range(FOLDS):
        rest_N = fold_N != fold
        model = CategoricalNB(alpha=SMOOTHING, min_categories=int(bin_N.max()) + 1, fit_prior=False)
        model.fit(bin_N[rest_N, None], class_N[rest_N])
        predicted_N[~rest_N] = model.predict(bin_N[~rest_N, None])
    return predicted_N


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_those_of_scikit_learn(seed: int) -> None:
    """Balanced accuracy and informedness, of a number that tells some of the label."""
    class_N = long_tail(seed)
    number_N = class_N * 0.7 + np.random.default_rng(seed).normal(size=len(class_N))
    predicted_N = by_scikit_learn(column_bins(pl.Series(number_N)), class_N, np.arange(len(class_N)))
    (found,) = find_shortcuts({"number": number_N}, class_N, permutations=9)
    assert found.balanced_accuracy == pytest.approx(balanced_accuracy_score(class_N, predicted_N), abs=1e-12)
    best = found.best_class
    hit_rate, others = (recall_score(class_N == best, predicted_N == best, pos_label=p) for p in (1, 0))
    assert found.informedness == pytest.approx(hit_rate + others - 1, abs=1e-12)


def test_a_clear_shortcut_is_strong_and_comes_first() -> None:
    class_N = long_tail(0)
    columns = {**clean_columns(0, len(class_N)), "quality": [f"q{label}" for label in class_N]}
    first, *others = find_shortcuts(columns, class_N)
    assert first.column == "quality"
    assert first.is_strong
    assert first.balanced_accuracy == 1
    assert not any(one.is_notable for one in others)


def test_a_mark_of_one_rare_class_is_found() -> None:
    """Twelve rows of 452: the score over all classes hardly moves."""
    class_N = long_tail(1)
    columns = {**clean_columns(1, len(class_N)), "border": np.where(class_N == 3, 255, 0)}
    first, *_ = find_shortcuts(columns, class_N)
    assert (first.column, first.best_class) == ("border", 3)
    assert first.is_strong
    assert first.informedness == 1


def shortcut(strength: float, informedness: float, p_strength: float, p_class: float) -> Shortcut:
    return Shortcut(
        column="bytes",
        balanced_accuracy=0.25 + 0.75 * strength,
        chance=0.25,
        strength=strength,
        best_class=3,
        informedness=informedness,
        p_strength=p_strength,
        p_class=p_class,
        rows=120,
    )


def test_each_claim_needs_a_p_value_of_its_own() -> None:
    """A large number that chance explains is not notable because a small one is significant."""
    assert shortcut(strength=0.2, informedness=0.1, p_strength=0.01, p_class=0.5).is_notable
    assert shortcut(strength=-0.01, informedness=0.4, p_strength=1.0, p_class=0.01).is_notable
    assert not shortcut(strength=0.2, informedness=0.1, p_strength=0.5, p_class=0.01).is_notable
    assert not shortcut(strength=0.05, informedness=0.4, p_strength=0.01, p_class=0.3).is_notable
    assert not shortcut(strength=0.05, informedness=0.9, p_strength=0.01, p_class=0.3).is_strong


def test_one_class_that_is_told_is_no_claim_on_all() -> None:
    """The balanced accuracy may then be that of guessing or below: it is not what was found, so it is not shown."""
    labels = ["circle", "triangle", "square", "cross"]
    one = shortcut(strength=-0.01, informedness=0.45, p_strength=1.0, p_class=0.005)
    advice = shortcut_finding("label", labels, one).advice
    assert (
        "the size of the file tells 'cross' from the other classes of label: from it alone, the share"
        in advice
    )
    assert (
        "is larger by 0.45 than that of other rows taken for it, by guessing 0 (p = 0.005, 120 rows)"
        in advice
    )
    assert "balanced accuracy" not in advice
    both = shortcut(strength=0.32, informedness=0.45, p_strength=0.005, p_class=0.005)
    advice = shortcut_finding("label", labels, both).advice
    assert (
        "tells label, above all 'cross': from it alone the balanced accuracy is 0.49, by guessing 0.25"
        in advice
    )


def test_missing_values_can_be_the_shortcut() -> None:
    """Only photographs of one class have a date."""
    class_N = long_tail(2)
    taken = [int(row) if label == 1 else None for row, label in enumerate(class_N)]
    (found,) = find_shortcuts({"taken": taken}, class_N)
    assert found.best_class == 1
    assert found.informedness == 1


def test_shuffled_labels_warn_seldom() -> None:
    """Five columns together, of 40 shuffles: two may, by the 5 % that are allowed."""
    class_N = long_tail(3)
    columns = clean_columns(3, len(class_N))
    rng = np.random.default_rng(3)
    notable = [
        any(
            one.is_notable
            for one in find_shortcuts(columns, rng.permutation(class_N), permutations=99, seed=shuffle)
        )
        for shuffle in range(40)
    ]
    assert sum(notable) <= 2


def test_p_values_are_uniform_on_shuffled_labels() -> None:
    """The least of all columns is below 0.2 in about a fifth of 100 shuffles, within three standard errors."""
    class_N = long_tail(4)
    columns = clean_columns(4, len(class_N))
    rng = np.random.default_rng(4)
    least = [
        min(one.p_value for one in find_shortcuts(columns, rng.permutation(class_N), permutations=49, seed=i))
        for i in range(100)
    ]
    assert 0.08 < np.mean(np.array(least) <= 0.2) < 0.32


def grouped(seed: int) -> tuple[Any, Any, Any]:
    """60 people of ten photographs, each of one class and with one camera that has nothing to do with it."""
    rng = np.random.default_rng(seed)
    person_N = np.repeat(np.arange(60), 10)
    return rng.integers(0, 3, 60)[person_N], rng.integers(0, 4, 60)[person_N], person_N


def test_groups_keep_the_camera_of_a_person_from_being_a_shortcut() -> None:
    """Taken for 600 independent rows, cameras would be significant nearly always."""
    with_groups, without = [], []
    for seed in range(30):
        class_N, camera_N, person_N = grouped(seed)
        columns = {"camera": [f"camera {camera}" for camera in camera_N]}
        with_groups += find_shortcuts(columns, class_N, person_N, permutations=39, seed=seed)
        without += find_shortcuts(columns, class_N, permutations=39, seed=seed)
    assert sum(one.p_value <= 0.05 for one in with_groups) <= 4
    assert sum(one.p_value <= 0.05 for one in without) >= 25


def test_permuted_labels_stay_together_in_groups() -> None:
    """Of groups of equal sizes, each has the labels of another one."""
    group_N = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2])
    order_N = _permuted(group_N, np.random.default_rng(0))
    assert sorted(order_N) == list(range(9))
    for group in range(3):
        assert len(set(group_N[order_N][group_N == group])) == 1


def test_groups_of_other_sizes_get_labels_in_the_same_proportions() -> None:
    """A group of one label hands on this label only; the rows of a mixed one are repeated, or thinned out."""
    group_N = np.repeat([0, 1], [6, 3])
    class_N = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2])
    seen = set()
    for seed in range(20):
        labels = class_N[_permuted(group_N, np.random.default_rng(seed))]
        seen.add((tuple(np.unique(labels[:6])), tuple(np.unique(labels[6:]))))
    assert ((2,), (0, 1)) in seen
    assert ((0, 1), (2,)) in seen
    assert {pair[0] for pair in seen} == {(2,), (0, 1)}


def test_p_values_hold_for_groups_of_very_different_sizes() -> None:
    """Of 100 draws, 5 % are allowed at 0.05: 11 at most, by three standard errors. A number of each person has nothing
    to do with the label of each person."""
    significant = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        person_N = np.repeat(np.arange(40), np.maximum(1, rng.lognormal(1.5, 1, 40)).astype(int))
        class_N, number_N = rng.integers(0, 3, 40)[person_N], rng.normal(size=40)[person_N]
        (found,) = find_shortcuts({"number": number_N}, class_N, person_N, permutations=39, seed=seed)
        significant += found.p_value <= 0.05
    assert significant <= 11


def test_the_source_of_the_label_is_left_out() -> None:
    class_N = long_tail(5)
    columns = {"folder": [f"class {label}" for label in class_N]}
    assert find_shortcuts(columns, class_N, left_out=("folder",)) == []


def test_constant_columns_single_classes_and_few_rows_tell_nothing() -> None:
    """A class of fewer rows than folds is left out, and there have to be two others."""
    assert find_shortcuts({"width": [64] * 20}, [0, 1] * 10) == []
    assert find_shortcuts({"width": range(20)}, [0] * 20) == []
    assert find_shortcuts({"width": range(2)}, [0, 1]) == []
    assert find_shortcuts({"width": range(21)}, [0] * 20 + [1]) == []
    assert find_shortcuts({}, [0, 1] * 10) == []
    assert find_shortcuts({"width": []}, []) == []
    assert find_shortcuts({"width": [1, None] * 10}, [-1] * 20) == []


def test_rows_without_label_and_rare_classes_do_not_count() -> None:
    """The same as without these rows, and classes keep their numbers."""
    class_N = np.array([7, 9] * 20)
    number_N = np.random.default_rng(0).normal(size=40) + (class_N == 9)
    (expected,) = find_shortcuts({"number": number_N}, class_N)
    (found,) = find_shortcuts({"number": [*number_N, 5.0, 5.0]}, [*class_N, -1, 3])
    assert found == expected
    assert found.best_class in (7, 9)
    assert found.rows == 40


def test_other_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="found 2 rows and 3 labels"):
        find_shortcuts({"width": [1, 2]}, [0, 1, 0])


@pytest.mark.parametrize(
    ("values", "bins"),
    [
        ([3.0, None, 1.0, float("nan"), 3.0], [2, 0, 1, 0, 2]),
        (["b", None, "a", "b"], [0, 1, 2, 0]),
        ([True, False, True], [1, 0, 1]),
        (["", None], [1, 0]),
    ],
)
def test_bins_keep_apart_what_differs(values: Any, bins: Any) -> None:
    """A missing string is another category than an empty one, and infinity counts as missing."""
    assert column_bins(pl.Series(values, strict=False)).tolist() == bins


def test_many_numbers_have_bins_of_equal_size() -> None:
    counts = np.bincount(column_bins(pl.Series(np.random.default_rng(0).normal(size=640))))
    assert len(counts) == 32
    assert set(counts) == {20}


def test_dates_are_numbers() -> None:
    dates = pl.Series(["2021-01-02", "2020-01-01", None]).str.to_datetime("%Y-%m-%d")
    assert column_bins(dates).tolist() == [2, 1, 0]


def test_a_sorted_table_is_known() -> None:
    assert is_sorted_by_class([0, 0, 1, 1, -1, 2])
    assert not is_sorted_by_class(long_tail(6))


def test_the_same_input_gives_the_same_result() -> None:
    class_N = long_tail(7)
    columns = clean_columns(7, len(class_N))
    assert find_shortcuts(columns, class_N, seed=1) == find_shortcuts(columns, class_N, seed=1)
