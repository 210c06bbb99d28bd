"""The folds of a cross-validation: what their draw promises, on many tables."""

import numpy as np
import pytest

from classwise.data.folds import draw_folds
from classwise.data.strata import Stratum

SEEDS = 500
Numbers = np.ndarray


def table(seed: int, groups_of_labels: bool = False) -> tuple[dict[str, Numbers], Numbers, int]:
    """Labels by target (-1: none), groups, and a number of folds that they allow. Sizes of groups are long-tailed.
    `groups_of_labels`: all rows of a group have the same labels."""
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(6, 120))
    group_N = np.minimum(rng.zipf(1.4, rows), int(rng.integers(2, rows))) + rng.integers(0, rows, rows) // 3
    _, group_N = np.unique(group_N, return_inverse=True)
    shares = np.array([0.5, 0.2, 0.15, 0.08, 0.05, 0.02])
    labels = {"kind": rng.choice(6, rows, p=shares), "size": rng.integers(-1, 3, rows)}
    if groups_of_labels:
        labels = {"kind": labels["kind"][group_N]}
    groups = int(group_N.max()) + 1
    return labels, group_N, int(rng.integers(2, min(10, groups) + 1)) if groups > 2 else 2


def folds_of(labels: dict[str, Numbers], group_N: Numbers, count: int, seed: int = 0) -> Numbers:
    """The fold of each row, drawn by the ids 0, 1, 2, ..."""
    strata = [Stratum(name, numbers, list("abcdef"), required=True) for name, numbers in labels.items()]
    return draw_folds(strata, group_N.tolist(), count, seed, ids=[f"{i:04}" for i in range(len(group_N))])


def usable(seed: int, **kind: bool) -> tuple[dict[str, Numbers], Numbers, int] | None:
    labels, group_N, count = table(seed, **kind)
    return (labels, group_N, count) if group_N.max() + 1 >= count else None


TABLES = [found for seed in range(SEEDS) if (found := usable(seed))]
PLAIN_TABLES = [found for seed in range(SEEDS) if (found := usable(seed, groups_of_labels=True))]


def test_each_row_is_in_one_fold_and_no_fold_is_empty() -> None:
    assert len(TABLES) > 0.9 * SEEDS
    for labels, group_N, count in TABLES:
        fold_N = folds_of(labels, group_N, count)
        assert sorted(set(fold_N.tolist())) == list(range(count))


def test_no_group_is_in_two_folds() -> None:
    for labels, group_N, count in TABLES:
        fold_N = folds_of(labels, group_N, count)
        assert len(set(zip(group_N.tolist(), fold_N.tolist(), strict=True))) == group_N.max() + 1


def test_a_label_is_in_as_many_folds_as_its_groups_allow() -> None:
    """Where the rows of a group have one label, that is always possible: in every fold, or each group in a fold of its
    own. scikit-learn's StratifiedGroupKFold leaves a label of four groups out of one of five folds."""
    for labels, group_N, count in PLAIN_TABLES:
        fold_N = folds_of(labels, group_N, count)
        for kind in set(labels["kind"].tolist()):
            has_N = labels["kind"] == kind
            assert len(set(fold_N[has_N].tolist())) == min(count, len(set(group_N[has_N].tolist())))


def test_folds_of_rows_are_equal_up_to_one_row_a_label() -> None:
    """Without groups every label is shared out evenly, and so are all rows."""
    rng = np.random.default_rng(1)
    kind_N = rng.choice(6, 1000, p=[0.5, 0.2, 0.15, 0.08, 0.05, 0.02])
    fold_N = draw_folds([Stratum("kind", kind_N, list("abcdef"), True)], None, 7, seed=3)
    for rows in (*(kind_N == kind for kind in range(6)), np.ones(1000, bool)):
        counts = np.bincount(fold_N[rows], minlength=7)
        assert counts.max() - counts.min() <= 1


def test_folds_of_groups_are_balanced_in_rows() -> None:
    """Long-tailed groups, none of them larger than a fold: GroupKFold(shuffle=True) gives up to 6.4 times as many rows
    to one fold as to another."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        group_N = np.repeat(np.arange(60), np.minimum(rng.zipf(1.6, 60), 40))
        kind_N = rng.integers(0, 3, len(group_N))
        counts = np.bincount(folds_of({"kind": kind_N}, group_N, 5, seed))
        assert counts.max() <= 1.25 * counts.min()


def test_no_move_of_one_group_makes_the_folds_more_equal() -> None:
    """Measured as the draw does: by squared distances of all labels' rows, over how many there are."""

    def cost(fold_N: Numbers) -> float:
        parts = [numbers == k for numbers in labels.values() for k in set(numbers[numbers >= 0].tolist())]
        parts.append(np.ones(len(fold_N), bool))
        return sum(
            ((np.bincount(fold_N[part], minlength=count) - part.sum() / count) ** 2).sum() / part.sum()
            for part in parts
        )

    def lacking(fold_N: Numbers) -> int:
        return sum(
            count - len(set(fold_N[numbers == k].tolist()))
            for numbers in labels.values()
            for k in set(numbers[numbers >= 0].tolist())
        )

    for labels, group_N, count in TABLES[:40]:
        fold_N = folds_of(labels, group_N, count)
        here, lacks = cost(fold_N), lacking(fold_N)
        for group in set(group_N.tolist()):
            for fold in range(count):
                moved_N = np.where(group_N == group, fold, fold_N)
                if len(set(moved_N.tolist())) == count and lacking(moved_N) <= lacks:
                    assert cost(moved_N) > here - 1e-6 or (moved_N == fold_N).all()


def test_the_order_of_the_rows_makes_no_difference() -> None:
    labels, group_N, count = TABLES[7]
    order = np.random.default_rng(0).permutation(len(group_N))
    strata = [Stratum("kind", labels["kind"][order], list("abcdef"), True)]
    shuffled = draw_folds(strata, group_N[order].tolist(), count, 0, ids=[f"{i:04}" for i in order])
    strata = [Stratum("kind", labels["kind"], list("abcdef"), True)]
    plain = draw_folds(strata, group_N.tolist(), count, 0, ids=[f"{i:04}" for i in range(len(group_N))])
    assert (shuffled == plain[order]).all()


def test_another_seed_draws_other_folds() -> None:
    labels, group_N, count = TABLES[7]
    assert (folds_of(labels, group_N, count, 0) != folds_of(labels, group_N, count, 1)).any()


def test_more_folds_than_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="2 groups for 3 folds"):
        folds_of({"kind": np.zeros(8, np.int64)}, np.arange(8) // 4, 3)
