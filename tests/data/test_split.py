"""The split: grouped, stratified, exact where rows are exchangeable, and a function of its seed alone."""

import random
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from classwise.data.split import Stratum, labels_of_one_group, merge_groups, split_rows


def strata_of(labels, names=None, optional: str = "") -> list[Stratum]:
    """One stratum a target; label lists are made to fit where `names` does not give them."""
    strata = []
    for name, numbers in labels.items():
        numbers = np.asarray(numbers)
        list_ = [str(k) for k in range(numbers.max() + 1)] if names is None else names[name]
        strata.append(Stratum(name, numbers, list_, required=name not in optional))
    return strata


def split(labels, groups=None, share=0.2, seed=0, optional: str = "") -> np.ndarray:
    """`labels` by target as numbers from 0, -1 unknown; those named in `optional` are not required."""
    return split_rows(strata_of(labels, optional=optional), groups, share, seed)


def people(counts: Sequence[int]) -> tuple[dict[str, np.ndarray], list[str], np.ndarray]:
    """The competition's rows: `counts` people of each kind (gender x age), seven images each (five masks
    worn, one wrongly worn, one normal), in a shuffled order. Labels by target, groups, the kind of each row."""
    kind_of = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    mask, kind = np.tile([0] * 5 + [1, 2], len(kind_of)), np.repeat(kind_of, 7)
    groups = np.repeat([f"{i:06}-1" for i in range(len(kind_of))], 7).tolist()
    return {"mask": mask, "gender": kind // 3, "age": kind % 3}, groups, kind


def sides(valid: np.ndarray, groups: Sequence[str]) -> tuple[set[str], set[str]]:
    """The groups in training and those in validation."""
    names = np.asarray(groups)
    return set(names[~valid].tolist()), set(names[valid].tolist())


def test_the_competitions_proportions():
    """2,700 people: each kind gives its share of people to the nearest whole one, no person stands on both
    sides, and all together are 20 % and not 18.1 % (a draw with replacement)."""
    counts = [332, 245, 50, 437, 491, 65]
    labels, groups, kind = people(counts)
    valid = split(labels, groups)
    train_people, valid_people = sides(valid, groups)
    assert not train_people & valid_people
    assert len(train_people | valid_people) == sum(counts)
    for k, count in enumerate(counts):
        assert abs(valid[kind == k].sum() / 7 - 0.2 * count) <= 1
    assert len(valid_people) == 324
    assert valid.sum() == 7 * 324


@pytest.mark.parametrize("share", [0.05, 0.2, 0.25, 0.5, 0.9])
def test_the_share_of_exchangeable_rows_is_exact(share):
    """Rows that differ in nothing: the share is met to the row, in every class."""
    valid = split({"a": np.repeat([0, 1, 2], [100, 40, 20])}, share=share)
    assert [int(part.sum()) for part in np.split(valid, [100, 140])] == [
        round(share * n) for n in (100, 40, 20)
    ]


def test_a_long_tail_keeps_its_shape():
    """600 to 6 rows a class: every class within one row of its share, the whole within two."""
    counts = np.array([600, 360, 216, 130, 78, 47, 28, 17, 10, 6])
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(10), counts))
    valid = split({"a": labels})
    found = np.bincount(labels[valid], minlength=10)
    assert np.abs(found - 0.2 * counts).max() < 1
    assert abs(found.sum() - 0.2 * counts.sum()) < 2


def test_the_rarest_class_stands_on_both_sides():
    """Two rows are enough, at any share that would round to none or to all of them."""
    labels = np.array([0] * 50 + [1] * 2 + [2] * 3)
    for share in (0.01, 0.2, 0.95):
        valid = split({"a": labels}, share=share)
        assert all(0 < valid[labels == k].sum() < (labels == k).sum() for k in range(3))


def test_rare_labels_of_groups_do_not_drag_the_share_along():
    """People with one to four images of ten classes, the rarest with two people: to have those on both
    sides takes other rows along, which other people then make up for."""
    rng = np.random.default_rng(0)
    offs = []
    for seed in range(10):
        groups = np.repeat(np.arange(60), rng.integers(1, 5, 60))
        labels = rng.choice(
            10, len(groups), p=1 / np.arange(1, 11) ** 1.5 / (1 / np.arange(1, 11) ** 1.5).sum()
        )
        for k in range(10):
            if len(set(groups[labels == k])) < 2:
                labels[labels == k] = 0
        valid = split({"a": np.unique(labels, return_inverse=True)[1]}, [str(g) for g in groups], 0.2, seed)
        offs.append(abs(valid.mean() - 0.2))
    assert max(offs) < 0.02
    assert np.mean(offs) < 0.01


@pytest.mark.parametrize(
    ("first", "second", "groups", "share", "seed"),
    [
        # Labels in a chain, each held by two groups.
        ([0, 1, 1, 2, 2, 3, 3, 0], [0, 1] * 4, "aabbccdd", 0.1, 0),
        # Moving the only free group of one label takes the last of another along, which has to be mended then.
        ([3, 1, 0, 2, 2, 1, 3, 3, 0, 3, 3, 1], [3, 0, 0, 0, 3, 1, 1, 0, 2, 2, 1, 3], "dbbeadecfbef", 0.1, 3),
        # Only after settling is there a group that may move.
        ([2, 0, 0, 2, 2, 2, 2], [0, 1, 2, 0, 0, 2, 1], "fabeece", 0.2, 1),
    ],
)
def test_labels_in_each_others_way(first, second, groups, share, seed):
    """Where a split with every label on both sides exists, it is found, though simple moves do not reach it."""
    labels = {"x": np.array(first), "y": np.array(second)}
    valid = split(labels, list(groups), share, seed)
    for numbers in labels.values():
        for k in np.unique(numbers):
            assert 0 < valid[numbers == k].sum() < (numbers == k).sum()


def test_labels_that_exclude_each_other_are_split_as_far_as_can_be():
    """Three groups, each pair of which shares a label: one label has to stay on one side. No group is cut
    for it, and neither side is empty."""
    groups = ["a", "a", "b", "b", "c", "c"]
    labels = {"x": np.array([0, 1, 1, 2, 2, 0])}
    valid = split(labels, groups, 0.3)
    assert not set.intersection(*sides(valid, groups))
    assert 0 < valid.sum() < 6


@pytest.mark.parametrize(
    ("groups", "single"),
    [
        (None, ["mask=wear", "age=old"]),
        (["p", "q", "r", "q", "q"], ["mask=wear", "age=old"]),
        (["p", "q", "r", "q", "p"], ["mask=wear", "age=old"]),
        (["p", "q", "r", "s", "t"], ["mask=wear", "age=old"]),
    ],
)
def test_a_label_that_cannot_be_on_both_sides_is_trained_on(groups, single):
    """All such labels are named; the others are on both sides where a group is left for it."""
    labels = {"mask": np.array([1, 1, 0, 1, 1]), "age": np.array([0, 0, 0, 0, 1])}
    strata = strata_of(labels, {"mask": ["wear", "normal"], "age": ["young", "old"]})
    assert labels_of_one_group(strata, groups) == single
    for seed in range(5):
        valid = split_rows(strata, groups, 0.4, seed)
        assert not valid[2]
        assert not valid[4]
        assert valid.any()
        if groups is not None:
            assert not set.intersection(*sides(valid, groups))


def test_where_every_group_is_needed_no_row_validates():
    """A table of single rows has none to spare; its caller says so."""
    assert not split({"a": np.arange(6)}, share=0.5).any()


@pytest.mark.parametrize("seed", range(5))
def test_rare_labels_change_no_share_of_the_others(seed):
    """A hundred classes of one row beside two large ones: these give their share as if alone."""
    labels = np.concatenate([np.zeros(60, int), np.ones(40, int), np.arange(2, 102)])
    valid = split({"a": labels}, share=0.2, seed=seed)
    assert [int(valid[labels == k].sum()) for k in (0, 1)] == [12, 8]
    assert not valid[100:].any()


def test_classes_without_rows_do_not_matter():
    """A fixed label list may be longer than the data: the split is that of the classes there are."""
    labels = np.repeat([0, 2], 10)
    strata = strata_of({"a": labels}, {"a": ["x", "never", "y", "nor this"]})
    valid = split_rows(strata, None, 0.2, 0)
    assert (valid[:10].sum(), valid[10:].sum()) == (2, 2)


def test_the_seed_decides_and_nothing_else():
    """The same seed gives the same rows, another seed others, whatever the global generators did."""
    labels = {"a": np.repeat([0, 1, 2], 40), "b": np.tile([0, 1], 60)}
    first = split(labels, seed=7)
    np.random.seed(1)
    random.seed(1)
    torch.manual_seed(1)
    np.testing.assert_array_equal(split(labels, seed=7), first)
    assert len({split(labels, seed=seed).tobytes() for seed in range(8)}) == 8


def test_the_names_of_groups_do_not_matter():
    """Only who belongs together does."""
    labels, groups, _ = people([6, 5, 4, 6, 5, 4])
    renamed = [f"사람 {group}" for group in groups]
    np.testing.assert_array_equal(split(labels, groups), split(labels, renamed))


def test_the_global_generators_stay():
    """numpy's, Python's and torch's."""
    before = np.random.get_state()[1].copy(), random.getstate(), torch.get_rng_state()
    split({"a": np.repeat([0, 1], 30)})
    np.testing.assert_array_equal(np.random.get_state()[1], before[0])
    assert random.getstate() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])


def test_a_second_split_does_not_see_the_first():
    """No state is kept between calls: a small table after a large one is split as if alone."""
    small = {"a": np.repeat([0, 1], 10)}
    alone = split(small)
    split({"a": np.repeat([0, 1, 2], 200)})
    np.testing.assert_array_equal(split(small), alone)
    assert len(alone) == 20


def test_large_tables():
    """A hundred thousand rows in forty thousand groups with three targets go through, and meet the share."""
    rng = np.random.default_rng(0)
    groups = np.sort(rng.integers(0, 40_000, 100_000))
    labels = {name: rng.integers(0, 8, 40_000)[groups] for name in "ab"} | {"c": rng.integers(0, 3, 100_000)}
    valid = split(labels, [str(group) for group in groups])
    assert abs(valid.sum() - 20_000) <= 2
    for numbers in labels.values():
        shares = np.bincount(numbers[valid]) / np.bincount(numbers)
        np.testing.assert_allclose(shares, 0.2, atol=0.001)
    assert not set.intersection(*sides(valid, groups.tolist()))


def test_unknown_labels_promise_nothing():
    """The known labels give their share to the row, and so do the rows without one: they are not a class, so
    a single one of them is no trouble."""
    labels = np.repeat([0, 1, -1], [50, 20, 30])
    valid = split({"a": labels})
    assert [int(valid[labels == k].sum()) for k in (0, 1, -1)] == [10, 4, 6]
    for seed in range(5):
        valid = split({"a": np.array([0, 0, 1, 1, -1])}, share=0.4, seed=seed)
        assert valid[:2].sum() == valid[2:4].sum() == 1


def test_known_labels_of_one_target_in_the_rows_of_another():
    """Two targets that are known for different rows are each split in proportion."""
    a, b = np.repeat([0, 1, -1], [40, 10, 50]), np.repeat([-1, 1, 0], [50, 20, 30])
    valid = split({"a": a, "b": b})
    for numbers, counts in ((a, (8, 2)), (b, (6, 4))):
        assert tuple(valid[numbers == k].sum() for k in (0, 1)) == counts


def test_an_unknown_label_hides_no_single_group():
    """A label whose other rows are unknown has one group, and is trained on."""
    labels = {"a": np.array([0, 0, 1, 1, -1])}
    assert labels_of_one_group(strata_of(labels), list("pqrrs")) == ["a=1"]
    assert not split(labels, list("pqrrs"), share=0.4)[2:4].any()


def test_a_stratum_that_is_not_required():
    """Its labels are kept in proportion; one with a single group is no error, and never costs a required label
    its place on both sides."""
    bins = np.repeat(np.arange(5), 40)
    valid = split({"a": bins}, optional="a")
    assert np.bincount(bins[valid]).tolist() == [8] * 5
    label, bins = np.array([0] * 10 + [1, 1]), np.arange(12)
    for seed in range(5):
        valid = split({"a": label, "b": bins}, share=0.1, seed=seed, optional="b")
        assert 0 < valid[label == 1].sum() < 2
        assert 0 < valid[label == 0].sum() < 10


def test_a_row_in_several_strata_of_one_name():
    """The labels of a multilabel target overlap: each of them gives its share, and is named where it cannot."""
    rng = np.random.default_rng(0)
    there = rng.random((400, 4)) < [0.5, 0.3, 0.1, 0.02]
    strata = [
        Stratum("tags", np.where(there_N, 0, -1), [str(k)], required=True)
        for k, there_N in enumerate(there.T)
    ]
    valid = split_rows(strata, None, 0.25, 0)
    assert np.abs(there[valid].sum(axis=0) - 0.25 * there.sum(axis=0)).max() <= 1
    assert labels_of_one_group(strata, None) == []
    rare = [Stratum("tags", np.array([-1, 0, -1]), ["cat"], required=True)]
    assert labels_of_one_group(rare, None) == ["tags=cat"]
    assert not split_rows(rare, None, 0.5, 0)[1]


def test_merged_groups_against_a_search():
    """On 200 random tables: two rows are together exactly where a chain of shared groups joins them."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        rows = int(rng.integers(1, 12))
        groupings = [rng.integers(0, rows, rows).tolist() for _ in range(int(rng.integers(1, 4)))]
        joined = np.eye(rows, dtype=bool)
        for groups in groupings:
            joined |= np.equal.outer(groups, groups)
        for _ in range(rows):
            joined = (joined.astype(int) @ joined.astype(int)) > 0
        merged = merge_groups(*groupings)
        np.testing.assert_array_equal(np.equal.outer(np.array(merged), np.array(merged)), joined)


def test_people_and_queries_stay_whole():
    """A split by merged groups cuts neither a person nor a query."""
    rng = np.random.default_rng(0)
    people, queries = rng.integers(0, 150, 300), np.repeat(np.arange(150), 2)
    queries[people < 50] = 1000 + people[people < 50]
    valid = split({"a": rng.integers(0, 3, 300)}, merge_groups(people.tolist(), queries.tolist()))
    for groups in (people, queries):
        assert all(len(set(valid[groups == g].tolist())) == 1 for g in np.unique(groups))
    assert 0 < valid.sum() < 300
