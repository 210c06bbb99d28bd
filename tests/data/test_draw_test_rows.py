"""The draw of the test rows: before the split of the others, stratified and grouped, and rare labels left to these."""

import numpy as np
import pytest

from classwise.data.split import Stratum, draw_test_rows, split_rows


def stratum(numbers: np.ndarray, required: bool = True, name: str = "kind") -> Stratum:
    labels = [str(k) for k in range(int(numbers.max()) + 1)]
    return Stratum(name, numbers, labels, required)


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_every_class_gives_its_share(share: float) -> None:
    """Rows that can be exchanged are drawn exactly; the same seed draws the same rows, another one others."""
    numbers = np.repeat([0, 1, 2], [500, 200, 50])
    test, untested = draw_test_rows([stratum(numbers)], None, share, seed=1, parts_left=2)
    assert untested == []
    for k, count in enumerate((500, 200, 50)):
        assert test[numbers == k].sum() == round(share * count)
    assert np.array_equal(test, draw_test_rows([stratum(numbers)], None, share, 1, 2)[0])
    assert not np.array_equal(test, draw_test_rows([stratum(numbers)], None, share, 2, 2)[0])


def test_it_is_another_draw_than_that_of_validation() -> None:
    """With one stream of random numbers for both, test rows would be those that validation takes without a test."""
    numbers = np.repeat([0, 1], 500)
    test, _ = draw_test_rows([stratum(numbers)], None, 0.2, seed=3, parts_left=2)
    valid = split_rows([stratum(numbers)], None, 0.2, seed=3)
    assert 20 < (test & valid).sum() < 60  # 40 of 200 by chance


@pytest.mark.parametrize("seed", range(20))
def test_a_label_too_rare_for_three_splits_is_left_to_the_others(seed: int) -> None:
    """Two rows of a class cannot be in three splits: both stay, and so the split of the others goes through."""
    numbers = np.array([0] * 20 + [1] * 3 + [2] * 2)
    test, untested = draw_test_rows([stratum(numbers)], None, 0.2, seed, parts_left=2)
    assert untested == ["kind=2"]
    assert test[numbers == 0].sum() == 4
    assert test[numbers == 1].sum() == 1
    assert not test[numbers == 2].any()
    rest = numbers[~test]
    valid = split_rows([stratum(rest)], None, 0.25, seed)
    assert all(valid[rest == k].any() and not valid[rest == k].all() for k in range(3))


def test_with_a_table_for_validation_two_groups_are_enough() -> None:
    """There are only two splits then; a class with a single row stays in training."""
    numbers = np.array([0] * 20 + [1] * 2 + [2])
    test, untested = draw_test_rows([stratum(numbers)], None, 0.2, seed=0, parts_left=1)
    assert untested == ["kind=2"]
    assert test[numbers == 1].sum() == 1
    assert not test[numbers == 2].any()


@pytest.mark.parametrize("seed", range(30))
def test_groups_stay_whole_and_rare_labels_leave_two_groups(seed: int) -> None:
    """Random people with several images and two targets: no person is cut; a label that three people have is tested
    and leaves at least two of them for the other splits, one that two have is not tested."""
    rng = np.random.default_rng(seed)
    people = rng.integers(0, 60, 300)
    kind = rng.choice(4, size=60, p=[0.7, 0.2, 0.06, 0.04])[people]
    age = rng.choice(5, size=60, p=[0.5, 0.3, 0.1, 0.06, 0.04])[people]
    strata = [stratum(kind), stratum(age, name="age")]
    groups = [f"p{person}" for person in people]
    test, untested = draw_test_rows(strata, groups, 0.2, seed, parts_left=2)
    assert not set(people[test]) & set(people[~test])
    for name, numbers in (("kind", kind), ("age", age)):
        for k in np.unique(numbers):
            left = len(set(people[(numbers == k) & ~test]))
            tested = len(set(people[(numbers == k) & test]))
            assert (f"{name}={k}" in untested) == (left + tested < 3)
            assert tested == 0 if left + tested < 3 else left >= 2
    assert abs(test.mean() - 0.2) < 0.05


def test_a_label_that_need_not_be_everywhere_holds_nothing_back() -> None:
    """Bins of a number are kept in proportion as far as possible; a single row of one may be tested."""
    numbers = np.array([0] * 10 + [1] * 2)
    drawn = [draw_test_rows([stratum(numbers, required=False)], None, 0.5, seed, 2)[0] for seed in range(5)]
    assert all(test.sum() == 6 and test[numbers == 1].sum() == 1 for test in drawn)
