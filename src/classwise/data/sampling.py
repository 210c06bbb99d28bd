"""The order of the training rows in an epoch as a function of (seed, epoch), and how it is cut and dealt out.

The order is that of the whole run: several processes compute the same one and take different batches of it, so
classes come in the proportion asked for over all processes together.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from classwise.errors import ConfigError
from classwise.randomness import ORDER, generator

Order = npt.NDArray[np.int64]


def epoch_order(sampling: str, labels_N: npt.NDArray[np.int64], seed: int, epoch: int) -> Order:
    """N row numbers for one epoch.

    shuffle: each row once. balanced: every class of `labels_N` equally often. sqrt: each class in proportion
    to the square root of its count (Mahajan et al. 2018, section 2.2). The latter two draw with replacement,
    but spread a class's draws over its rows evenly: no row is drawn twice more often than another of its class.
    A row without a class (-1) is drawn once by all three; the classes share the other draws.
    """
    rng = generator(seed, ORDER, epoch)
    if sampling == "shuffle":
        return rng.permutation(len(labels_N))
    powers = {"balanced": 0.0, "sqrt": 0.5}
    if sampling not in powers:
        raise ConfigError(f"data.sampling: found {sampling!r}, allowed: shuffle, {', '.join(powers)}")
    known, unknown = np.flatnonzero(labels_N >= 0), np.flatnonzero(labels_N < 0)
    if not len(known):
        raise ConfigError(f"data.sampling: found {sampling!r}, but no row has a class; allowed: shuffle")
    rows = np.concatenate([known[_drawn(labels_N[known], powers[sampling], rng)], unknown])
    return rows[rng.permutation(len(rows))]


def query_order(queries_N: npt.NDArray[np.int64], seed: int, epoch: int) -> Order:
    """N row numbers for one epoch: each row once, queries shuffled, a query's rows together and in order."""
    _, number_N = np.unique(queries_N, return_inverse=True)
    place_Q = generator(seed, ORDER, epoch).permutation(int(number_N.max(initial=-1)) + 1)
    return np.argsort(place_Q[number_N], kind="stable")


def table_order(rows: int, queries_N: npt.NDArray[np.int64] | None = None) -> Order:
    """All rows in order or, where there are queries, query by query."""
    return np.arange(rows) if queries_N is None else np.argsort(queries_N, kind="stable")


def batches_of(order: Order, batch_size: int, queries_N: npt.NDArray[np.int64] | None = None) -> list[Order]:
    """The order cut into batches of `batch_size` rows, the last one as short as it comes.

    With the query of each row, `order` holds queries together, and a batch takes so many whole ones that even
    the largest of all would fit that often (at least one): the number of batches is that of any order.
    """
    if queries_N is None or not len(order):
        return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    starts = np.flatnonzero(np.diff(queries_N[order], prepend=-1))
    largest = int(np.diff(starts, append=len(order)).max())
    return np.split(order, starts[:: max(1, batch_size // largest)][1:])


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


def _drawn(labels_N: npt.NDArray[np.int64], power: float, rng: np.random.Generator) -> Order:
    counts_K = np.bincount(labels_N)
    weights_K = np.where(counts_K > 0, counts_K.astype(np.float64) ** power, 0.0)
    # Where each class ends on a line of N draws; a random start settles the fractions without bias.
    ends_K = np.cumsum(weights_K) / weights_K.sum() * len(labels_N)
    quotas_K = np.diff(np.floor(np.concatenate([[0.0], ends_K[:-1], [len(labels_N)]]) + rng.random()))
    parts = []
    for k in np.flatnonzero(counts_K):
        rows = np.flatnonzero(labels_N == k)
        turns = -(-int(quotas_K[k]) // len(rows))
        order = [rng.permutation(rows) for _ in range(turns)]
        parts.append(np.concatenate([*order, rows[:0]])[: int(quotas_K[k])])
    return np.concatenate(parts)
