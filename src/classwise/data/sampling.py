"""The order of the training rows in an epoch, as a function of (seed, epoch)."""

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
    """
    rng = generator(seed, ORDER, epoch)
    if sampling == "shuffle":
        return rng.permutation(len(labels_N))
    powers = {"balanced": 0.0, "sqrt": 0.5}
    if sampling not in powers:
        raise ConfigError(f"data.sampling: found {sampling!r}, allowed: shuffle, {', '.join(powers)}")
    rows = _drawn(labels_N, powers[sampling], rng)
    return rows[rng.permutation(len(rows))]


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
