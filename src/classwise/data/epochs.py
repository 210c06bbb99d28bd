"""The rows of an epoch in order: training rows update by update, validation rows each once.

The order of an epoch is a function of (seed, epoch) alone, so a resumed run goes on with the same batches.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from classwise.data.batch import Batch, Rows, without_labels
from classwise.data.loader import FeatureLoader, Loader
from classwise.data.sampling import batches_of, epoch_order, query_order, rank_share, table_order
from classwise.errors import ConfigError


def unmixed(batches: list[Batch], update: int) -> list[Batch]:
    """The batches of an update as they are."""
    return batches


@dataclass(frozen=True)
class TrainingData:
    """The training rows, update by update, as functions of the epoch. An update is made of `micro_batches_per_update`
    batches, which `world_size` processes share; `updates` gives those of the process with this `rank`.

    `classes` (N,) are what the sampling balances, -1 unknown; None allows only shuffle. With `queries` (N,) batches
    hold whole queries. The epochs before `frozen_epochs` come from `features`, the others as images. `mixing` is what
    the loop applies to the batches of an update on the device, given the update's number (see mixing.py).
    """

    loader: Loader
    ids: Sequence[str]
    classes: Rows | None
    sampling: str
    seed: int
    micro_batches_per_update: int
    queries: Rows | None = None
    rank: int = 0
    world_size: int = 1
    features: FeatureLoader | None = None
    frozen_epochs: int = 0
    mixing: Callable[[list[Batch], int], list[Batch]] = unmixed

    @property
    def updates_per_epoch(self) -> int:
        """The same in every epoch and process; the last update may be short."""
        batches = batches_of(table_order(len(self.ids), self.queries), self.loader.batch_size, self.queries)
        return -(-len(batches) // self.micro_batches_per_update)

    @property
    def first_micro_batch_idx(self) -> int:
        """The index within an update of this process's first micro-batch."""
        return self.rank * -(-self.micro_batches_per_update // self.world_size)

    def updates(self, epoch: int, skip: int = 0) -> Iterator[list[Batch]]:
        """The batches of each update of an epoch (counted from 0), without the first `skip` updates.

        The last update may be short. A process for which it leaves no batch gets the update's first batch with every
        label removed: it adds nothing to any sum, but gives the same parameters a gradient.
        Raises ImageError, ConfigError.
        """
        batches = batches_of(self._order(epoch), self.loader.batch_size, self.queries)
        updates = rank_share(batches, self.micro_batches_per_update, self.rank, self.world_size)
        firsts = rank_share(batches, self.micro_batches_per_update, 0, self.world_size)
        shares = list(zip(updates, firsts, strict=True))[skip:]
        source = _source(self.loader, self.features, epoch, self.frozen_epochs)
        found = source.batches([part for own, first in shares for part in own or first[:1]], epoch)
        for own, _ in shares:
            yield list(itertools.islice(found, len(own))) or [without_labels(next(found))]

    def _order(self, epoch: int) -> Rows:
        if self.queries is None:
            # Without classes no row has one: shuffle does not ask, the others refuse.
            classes = np.full(len(self.ids), -1) if self.classes is None else self.classes
            return epoch_order(self.sampling, classes, self.seed, epoch)
        if self.sampling != "shuffle":
            raise ConfigError(
                f"data.sampling: found {self.sampling!r}, but batches that hold whole queries cannot be drawn"
                " by class; allowed: shuffle"
            )
        return query_order(self.queries, self.seed, epoch)

    def names(self, rows: Rows) -> list[str]:
        """The ids of rows, for a message."""
        return [self.ids[row] for row in rows]


@dataclass(frozen=True)
class ValidationData:
    """All validation rows, each once; the loader's images are not augmented.

    The rows come in order or, with `queries` (N,), query by query, none of them cut: `Batch.rows` says which.
    """

    loader: Loader
    queries: Rows | None = None
    features: FeatureLoader | None = None
    frozen_epochs: int = 0
    rank: int = 0
    world_size: int = 1

    def __len__(self) -> int:
        return len(self.loader.dataset)

    def batches(self, epoch: int | None = None) -> Iterator[Batch]:
        """One pass: after an epoch of training (counted from 0) in its form, features or images; else as
        images."""
        parts = batches_of(table_order(len(self), self.queries), self.loader.batch_size, self.queries)
        if epoch is None:
            return self.loader.batches(parts)
        return _source(self.loader, self.features, epoch, self.frozen_epochs).batches(parts)

    def rounds(self, epoch: int) -> Iterator[tuple[Batch, list[torch.Tensor]]]:
        """One pass as in `batches`, in which `world_size` processes take turns: this one's batch, and the rows of the
        batches of all. In the last round a process may find no rows of its own; its batch is then the first's."""
        parts = batches_of(table_order(len(self), self.queries), self.loader.batch_size, self.queries)
        rounds = [parts[start : start + self.world_size] for start in range(0, len(parts), self.world_size)]
        own = [round[self.rank if self.rank < len(round) else 0] for round in rounds]
        source = _source(self.loader, self.features, epoch, self.frozen_epochs)
        for batch, round in zip(source.batches(own), rounds, strict=True):
            yield batch, [torch.from_numpy(rows) for rows in round]

    def targets(self, device: torch.device) -> dict[str, torch.Tensor]:
        """The answers of all rows by name, (N, ...) on a device, in order."""
        return {name: labels.to(device) for name, labels in self.loader.targets.items()}


def _source(
    loader: Loader, features: FeatureLoader | None, epoch: int, frozen_epochs: int
) -> Loader | FeatureLoader:
    """Where an epoch's batches come from; the features are dropped once an epoch no longer needs them."""
    if features is None:
        return loader
    if epoch < frozen_epochs:
        return features
    features.drop()
    return loader
