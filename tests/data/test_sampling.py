"""The order of an epoch: a function of (seed, epoch), with the classes in the proportion asked for; and how it
is cut into batches and dealt out to processes."""

import itertools
import multiprocessing
import random

import numpy as np
import pytest
import torch

from classwise.data.sampling import (
    batches_of,
    epoch_order,
    expected_draws,
    query_order,
    rank_share,
    table_order,
)
from classwise.errors import ConfigError

COUNTS = np.array([600, 97, 30, 6, 1])
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(5), COUNTS))
SAMPLINGS = ("shuffle", "balanced", "sqrt")


def drawn(sampling: str, epoch: int = 0, labels: np.ndarray = LABELS, seed: int = 42) -> np.ndarray:
    return epoch_order(sampling, labels, seed, epoch)


def test_shuffle_takes_every_row_once():
    """A permutation, and not the order of the table."""
    order = drawn("shuffle")
    np.testing.assert_array_equal(np.sort(order), np.arange(len(LABELS)))
    assert (order != np.arange(len(LABELS))).mean() > 0.95


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_an_epoch_has_as_many_rows_as_the_table(sampling):
    """Whatever the sampling: so the number of updates, and the schedule, do not hang on it."""
    order = drawn(sampling)
    assert order.shape == LABELS.shape
    assert order.dtype == np.int64
    assert order.min() >= 0
    assert order.max() < len(LABELS)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_the_order_is_a_function_of_seed_and_epoch(sampling):
    """Asked again after other epochs, other tables and other generators, it is the same; another epoch or
    another seed gives another."""
    first = drawn(sampling, epoch=3)
    for other in (drawn(sampling, epoch=4), drawn(sampling, epoch=3, seed=43)):
        assert not np.array_equal(first, other)
    np.random.seed(0)
    drawn(sampling, labels=LABELS[:50])
    np.testing.assert_array_equal(drawn(sampling, epoch=3), first)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_the_global_generators_stay(sampling):
    """numpy's, Python's and torch's."""
    before = np.random.get_state()[1].copy(), random.getstate(), torch.get_rng_state()
    drawn(sampling)
    np.testing.assert_array_equal(np.random.get_state()[1], before[0])
    assert random.getstate() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])


@pytest.mark.parametrize(("sampling", "power"), [("balanced", 0.0), ("sqrt", 0.5)])
def test_classes_come_in_proportion(sampling, power):
    """Every class within one draw of its quota, in every epoch: equally often, or as the root of its count."""
    quotas = COUNTS**power / (COUNTS**power).sum() * len(LABELS)
    for epoch in range(20):
        found = np.bincount(LABELS[drawn(sampling, epoch)], minlength=5)
        assert np.abs(found - quotas).max() < 1


@pytest.mark.parametrize("sampling", ["balanced", "sqrt"])
def test_quotas_are_right_on_average(sampling):
    """The fractions of a draw fall to each class in turn: over many epochs nobody gains."""
    labels = np.repeat(np.arange(7), [9, 5, 4, 2, 1, 1, 1])
    weights = np.bincount(labels) ** (0.0 if sampling == "balanced" else 0.5)
    mean = np.mean(
        [np.bincount(labels[drawn(sampling, e, labels)], minlength=7) for e in range(2000)], axis=0
    )
    # The standard error of the mean of a draw that is up or down by less than one.
    np.testing.assert_allclose(mean, weights / weights.sum() * len(labels), atol=5 * 0.5 / 2000**0.5)


@pytest.mark.parametrize("sampling", ["balanced", "sqrt"])
def test_the_rows_of_a_class_are_used_evenly(sampling):
    """No row twice more often than another of its class, and all of them over the epochs."""
    total = np.zeros(len(LABELS))
    for epoch in range(30):
        uses = np.bincount(drawn(sampling, epoch), minlength=len(LABELS))
        for k in range(5):
            assert np.ptp(uses[k == LABELS]) <= 1
        total += uses
    assert total.min() > 0


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_classes_are_mixed(sampling):
    """The order is shuffled as a whole: no class comes in a block."""
    order = LABELS[drawn(sampling)]
    for k in range(2):
        first, second = np.array_split(order == k, 2)
        # Three standard deviations of a half's count, if the order is random.
        assert abs(int(first.sum()) - int(second.sum())) < 3 * (order == k).sum() ** 0.5 + 1


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_classes_without_rows_and_fewer_rows_than_classes(sampling):
    """A label list longer than the data, or an epoch too short for every class, is no trouble."""
    gaps = np.array([7, 0, 7, 0, 7])
    assert set(drawn(sampling, labels=gaps).tolist()) <= set(range(5))
    for epoch in range(5):
        assert len(drawn(sampling, epoch, np.arange(3))) == 3
        np.testing.assert_array_equal(np.sort(drawn(sampling, epoch, np.arange(3))), np.arange(3))


def test_another_sampling_is_refused():
    """The key, what was found, what is allowed."""
    with pytest.raises(ConfigError) as caught:
        drawn("oversample")
    assert str(caught.value) == "data.sampling: found 'oversample', allowed: shuffle, balanced, sqrt"


@pytest.mark.parametrize(("sampling", "power"), [("balanced", 0.0), ("sqrt", 0.5)])
def test_rows_without_a_class_come_once(sampling, power):
    """Each exactly once in every epoch, spread over it; the classes share the other draws as they would alone."""
    labels = np.random.default_rng(1).permutation(np.concatenate([LABELS, np.full(200, -1)]))
    quotas = COUNTS**power / (COUNTS**power).sum() * len(LABELS)
    for epoch in range(10):
        order = drawn(sampling, epoch, labels)
        assert len(order) == len(labels)
        assert (np.bincount(order, minlength=len(labels))[labels == -1] == 1).all()
        assert np.abs(np.bincount(labels[order][labels[order] >= 0], minlength=5) - quotas).max() < 1
        unknown = np.flatnonzero(labels[order] == -1)
        assert abs(unknown.mean() / len(order) - 0.5) < 0.1


def test_sampling_by_class_needs_one():
    """Where no row has a class there is nothing to balance, which is said; shuffling goes on."""
    for sampling in ("balanced", "sqrt"):
        with pytest.raises(ConfigError, match=rf"data\.sampling: found '{sampling}', but no row has a class"):
            drawn(sampling, labels=np.full(9, -1))
    np.testing.assert_array_equal(np.sort(drawn("shuffle", labels=np.full(9, -1))), np.arange(9))


def test_queries_are_shuffled_whole():
    """Each row once, a query's rows together and in order, queries in another order every epoch."""
    queries = np.random.default_rng(0).integers(0, 40, 300)
    orders = [query_order(queries, 42, epoch) for epoch in range(5)]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(300))
        runs = [
            (q, list(rows)) for q, rows in itertools.groupby(order.tolist(), key=lambda row: queries[row])
        ]
        assert len(runs) == len(np.unique(queries))
        assert all(rows == np.flatnonzero(queries == q).tolist() for q, rows in runs)
    assert len({tuple(queries[order]) for order in orders}) == 5
    np.testing.assert_array_equal(query_order(queries, 42, 3), orders[3])
    assert not np.array_equal(query_order(queries, 43, 3), orders[3])


def test_every_query_comes_first_as_often():
    """No query has a better place than another: over many epochs each is first about equally often."""
    queries = np.repeat([3, 7, 9, 20], [1, 5, 2, 3])
    firsts = [int(queries[query_order(queries, 42, epoch)[0]]) for epoch in range(2000)]
    counts = [firsts.count(q) for q in (3, 7, 9, 20)]
    # Five standard deviations of a count out of 2,000 at one in four.
    assert max(abs(count - 500) for count in counts) < 5 * (2000 * 0.25 * 0.75) ** 0.5


def test_batches_of_rows():
    """200 random orders: the order itself, cut after every `batch_size` rows; the last one is what is left."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        order, size = rng.permutation(int(rng.integers(0, 50))), int(rng.integers(1, 12))
        found = batches_of(order, size)
        assert [batch.tolist() for batch in found] == [
            list(order[i : i + size]) for i in range(0, len(order), size)
        ]


def test_batches_of_queries():
    """200 random tables: whole queries in the order given, as many in each batch as fit even if all were as large
    as the largest, so that any order gives the same number of batches."""
    rng = np.random.default_rng(0)
    for case in range(200):
        queries = rng.integers(0, int(rng.integers(1, 15)), int(rng.integers(1, 60)))
        size = int(rng.integers(1, 30))
        most = max(1, size // int(np.bincount(queries).max()))
        numbers = set()
        for order in (query_order(queries, 1, case), table_order(len(queries), queries)):
            found = batches_of(order, size, queries)
            np.testing.assert_array_equal(np.concatenate(found), order)
            held = [set(queries[batch].tolist()) for batch in found]
            assert all(len(set_) == most for set_ in held[:-1])
            assert 1 <= len(held[-1]) <= most
            assert sum(map(len, held)) == len(set().union(*held)) == len(np.unique(queries))
            numbers.add(len(found))
        assert len(numbers) == 1


def test_no_rows_make_no_batches():
    """With queries and without."""
    none = np.empty(0, dtype=np.int64)
    assert batches_of(none, 4) == batches_of(none, 4, none) == []
    assert len(query_order(none, 0, 0)) == len(table_order(0, none)) == 0


def test_the_order_of_the_table():
    """Row by row, or query by query with the rows of each in order."""
    assert table_order(4).tolist() == [0, 1, 2, 3]
    assert table_order(5, np.array([2, 0, 2, 1, 0])).tolist() == [1, 4, 3, 0, 2]


def test_every_batch_belongs_to_one_rank():
    """200 random cases against a plain loop: update for update, each rank its own batches; only the last update may
    leave a rank with fewer or none, and all ranks count the same updates."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        count, accumulate, world_size = (
            int(rng.integers(low, high)) for low, high in ((1, 40), (1, 5), (1, 6))
        )
        batches = [np.array([i]) for i in range(count)]
        expected = [[[] for _ in range(-(-count // (accumulate * world_size)))] for _ in range(world_size)]
        for i in range(count):
            expected[i // accumulate % world_size][i // (accumulate * world_size)].append(i)
        for rank in range(world_size):
            found = rank_share(batches, accumulate * world_size, rank, world_size)
            assert [[int(batch[0]) for batch in update] for update in found] == expected[rank]
    assert [[len(w) for w in rank_share(batches[:5], 6, rank, 3)] for rank in range(3)] == [[2], [2], [1]]


@pytest.mark.parametrize("rank", [-1, 2])
def test_a_rank_outside_the_world(rank):
    """It would silently train on nothing, or on another's rows."""
    with pytest.raises(ValueError, match=f"rank: found {rank} of 2 processes, allowed: 0 to 1"):
        rank_share([], 1, rank, 2)


def test_a_number_of_micro_batches_that_processes_do_not_divide():
    """A run goes on with another number of processes: an update keeps its batches, however unevenly they are
    shared."""
    batches = [np.array([i]) for i in range(7)]
    for world_size in range(1, 6):
        shares = [rank_share(batches, 3, rank, world_size) for rank in range(world_size)]
        updates = [[int(b[0]) for share in shares for b in share[update]] for update in range(3)]
        assert updates == [[0, 1, 2], [3, 4, 5], [6]]
    assert [[len(w) for w in rank_share(batches, 3, rank, 2)] for rank in range(2)] == [[2, 2, 1], [1, 1, 0]]


def rows_of_rank(place: tuple[str, int, int]) -> list[list[list[int]]]:
    """What one process trains on: its rows by epoch and update. It runs in a process of its own."""
    sampling, rank, world_size = place
    epochs = []
    for epoch in range(3):
        batches = batches_of(epoch_order(sampling, LABELS, 42, epoch), 8)
        updates = rank_share(batches, 4, rank, world_size)
        epochs.append([[int(row) for batch in update for row in batch] for update in updates])
    return epochs


def test_two_processes_share_the_rows_of_one():
    """Two real processes that start afresh and know nothing of each other: together they take, update for update,
    the rows of the single process in its order, so balanced sampling is balanced over both."""
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        for sampling in SAMPLINGS:
            first, second = pool.map(rows_of_rank, [(sampling, 0, 2), (sampling, 1, 2)], chunksize=1)
            single = rows_of_rank((sampling, 0, 1))
            together = [
                [ours + theirs for ours, theirs in zip(*epochs, strict=True)]
                for epochs in zip(first, second, strict=True)
            ]
            assert together == single
            assert all(len(update) == 16 for update in first[0][:-1] + second[0][:-1])


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_expected_draws_are_the_average_over_epochs(sampling):
    """Of every class over 400 epochs, to 2 %; rows of unknown class are drawn once."""
    labels = np.array([0] * 60 + [2] * 12 + [1] * 3 + [-1] * 5)
    draws = expected_draws(sampling, labels)
    counted = sum(np.bincount(drawn(sampling, epoch, labels), minlength=80) for epoch in range(400)) / 400
    for label in (0, 1, 2):
        assert draws[labels == label].sum() == pytest.approx(counted[labels == label].sum(), rel=0.02)
        assert len(set(draws[labels == label])) == 1
    assert draws[labels < 0].tolist() == [1] * 5
    assert draws.sum() == pytest.approx(80)
