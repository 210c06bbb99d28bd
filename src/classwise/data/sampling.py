"""The order of the training rows in an epoch as a function of (seed, epoch); how it is cut into batches and shared.

The order is that of the whole run: several processes compute the same order and take different batches of it, so the
classes have the wanted proportions over all processes together.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from classwise.errors import ConfigError
from classwise.randomness import ORDER, generator

Order = npt.NDArray[np.int64]

# How a class's share of an epoch depends on its count: proportional to this power of it.
_POWERS = {"balanced": 0.0, "sqrt": 0.5}


def epoch_order(sampling: str, labels_N: npt.NDArray[np.int64], seed: int, epoch: int) -> Order:
    """N row numbers for one epoch.

    shuffle: each row once. balanced: every class of `labels_N` equally often. sqrt: each class in proportion to the
    square root of its count (Mahajan et al. 2018, section 2.2). The latter two draw with replacement, but spread a
    class's draws evenly over its rows: the counts of two rows of a class differ by one at most. A row of unknown class
    (-1) is drawn once by all three; the classes share the other draws. Raises ConfigError.
    """
    rng = generator(seed, ORDER, epoch)
    if sampling == "shuffle":
        return rng.permutation(len(labels_N))
    if sampling not in _POWERS:
        raise ConfigError(f"data.sampling: found {sampling!r}, allowed: shuffle, {', '.join(_POWERS)}")
    labeled_rows = np.flatnonzero(labels_N >= 0)
    unlabeled_rows = np.flatnonzero(labels_N < 0)
    if not len(labeled_rows):
        raise ConfigError(f"data.sampling: found {sampling!r}, but no row has a class; allowed: shuffle")
    drawn_rows = labeled_rows[_draw_rows(labels_N[labeled_rows], _POWERS[sampling], rng)]
    rows = np.concatenate([drawn_rows, unlabeled_rows])
    return rows[rng.permutation(len(rows))]


def expected_draws(sampling: str, labels_N: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """How often `epoch_order` draws each row in an epoch on average (N,); 1 throughout for shuffle."""
    draws_N = np.ones(len(labels_N))
    is_labeled_N = labels_N >= 0
    if sampling in _POWERS and is_labeled_N.any():
        _, class_of_row, counts_K = np.unique(labels_N[is_labeled_N], return_inverse=True, return_counts=True)
        share_K = counts_K ** _POWERS[sampling] / (counts_K ** _POWERS[sampling]).sum()
        draws_N[is_labeled_N] = (len(class_of_row) * share_K / counts_K)[class_of_row]
    return draws_N


def query_order(queries_N: npt.NDArray[np.int64], seed: int, epoch: int) -> Order:
    """N row numbers for one epoch: each row once, the queries shuffled, a query's rows together and in order."""
    _, query_number_N = np.unique(queries_N, return_inverse=True)
    position_Q = generator(seed, ORDER, epoch).permutation(int(query_number_N.max(initial=-1)) + 1)
    return np.argsort(position_Q[query_number_N], kind="stable")


def table_order(rows: int, queries_N: npt.NDArray[np.int64] | None = None) -> Order:
    """All row numbers in order or, where there are queries, query by query."""
    return np.arange(rows) if queries_N is None else np.argsort(queries_N, kind="stable")


def batches_of(order: Order, batch_size: int, queries_N: npt.NDArray[np.int64] | None = None) -> list[Order]:
    """The order cut into batches of `batch_size` rows; the last batch may be short.

    With `queries_N` (the query of each row) `order` must hold the rows of a query together. A batch then takes as many
    whole queries as would fit if all were as large as the largest (at least one), so that every order gives the same
    number of batches.
    """
    if queries_N is None or not len(order):
        return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    starts = np.flatnonzero(np.diff(queries_N[order], prepend=-1))
    largest = int(np.diff(starts, append=len(order)).max())
    queries_per_batch = max(1, batch_size // largest)
    return np.split(order, starts[::queries_per_batch][1:])


def rank_share(
    batches: Sequence[Order], micro_batches_per_update: int, rank: int, world_size: int
) -> list[list[Order]]:
    """The batches of one process, update by update. Raises ValueError for a rank outside the world.

    An update is made of `micro_batches_per_update` consecutive batches, over all processes. They are dealt out in equal
    runs, rounded up: the last ranks may get fewer or none, above all in the last update, which may be short. All ranks
    have the same number of updates.
    """
    if not 0 <= rank < world_size:
        raise ValueError(f"rank: found {rank} of {world_size} processes, allowed: 0 to {world_size - 1}")
    share = -(-micro_batches_per_update // world_size)
    starts = range(0, len(batches), micro_batches_per_update)
    updates = [batches[start : start + micro_batches_per_update] for start in starts]
    return [list(update[rank * share : (rank + 1) * share]) for update in updates]


def _draw_rows(labels_N: npt.NDArray[np.int64], power: float, rng: np.random.Generator) -> Order:
    """N draws from N rows, class by class, each class in proportion to this power of its count."""
    counts_K = np.bincount(labels_N)
    weights_K = np.where(counts_K > 0, counts_K.astype(np.float64) ** power, 0.0)

    # Where each class ends on a line of N draws. A random offset rounds the fractions without bias.
    ends_K = np.cumsum(weights_K) / weights_K.sum() * len(labels_N)
    bounds = np.concatenate([[0.0], ends_K[:-1], [len(labels_N)]])
    draws_K = np.diff(np.floor(bounds + rng.random()))

    # All rows of a class in a random order, and again, until the class has its draws.
    rows_of_classes = []
    for k in np.flatnonzero(counts_K):
        rows = np.flatnonzero(labels_N == k)
        draws = int(draws_K[k])
        passes = [rng.permutation(rows) for _ in range(-(-draws // len(rows)))]
        rows_of_classes.append(np.concatenate([*passes, rows[:0]])[:draws])
    return np.concatenate(rows_of_classes)
