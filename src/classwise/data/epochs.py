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
        return -(-self.batches_per_epoch // self.micro_batches_per_update)

    @property
    def batches_per_epoch(self) -> int:
        """Of all processes together; the same in every epoch."""
        order = table_order(len(self.ids), self.queries)
        return len(batches_of(order, self.loader.batch_size, self.queries))

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
        shares = self._updates_of_rank(batches, self.rank)[skip:]
        first_shares = self._updates_of_rank(batches, 0)[skip:]

        # The batches to read: this process's share of each update or, where that is empty, the update's first batch.
        rows_of_batches: list[Rows] = []
        for share, first_share in zip(shares, first_shares, strict=True):
            rows_of_batches += share or first_share[:1]

        # One pass over all of them, so that the workers read ahead across updates.
        source = _source(self.loader, self.features, epoch, self.frozen_epochs)
        stream = source.batches(rows_of_batches, epoch)
        for share in shares:
            yield list(itertools.islice(stream, len(share))) or [without_labels(next(stream))]

    def _updates_of_rank(self, batches: Sequence[Rows], rank: int) -> list[list[Rows]]:
        return rank_share(
            batches,
            micro_batches_per_update=self.micro_batches_per_update,
            rank=rank,
            world_size=self.world_size,
        )

    def _order(self, epoch: int) -> Rows:
        """The rows of an epoch in order, of all processes together."""
        if self.queries is None:
            # Without classes every row is of unknown class: shuffle ignores that, the other samplings refuse it.
            classes = np.full(len(self.ids), -1) if self.classes is None else self.classes
            return epoch_order(self.sampling, labels_N=classes, seed=self.seed, epoch=epoch)
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

    The rows come in order or, with `queries` (N,), query by query, with no query divided between batches: `Batch.rows`
    says which rows a batch holds.
    """

    loader: Loader
    queries: Rows | None = None
    features: FeatureLoader | None = None
    frozen_epochs: int = 0
    rank: int = 0
    world_size: int = 1

    def __len__(self) -> int:
        return len(self.loader.dataset)

    @property
    def batches_per_epoch(self) -> int:
        """Batches of one pass, of all processes together."""
        return len(self._rows_of_batches())

    def batches(self, epoch: int | None = None) -> Iterator[Batch]:
        """One pass over all rows. After a training epoch (counted from 0) the batches hold what that epoch was trained
        on, features or images; with None they hold images."""
        if epoch is None:
            return self.loader.batches(self._rows_of_batches())
        source = _source(self.loader, self.features, epoch, self.frozen_epochs)
        return source.batches(self._rows_of_batches())

    def rounds(self, epoch: int) -> Iterator[tuple[Batch, list[torch.Tensor]]]:
        """One pass as in `batches`, in which `world_size` processes take turns: this process's batch of each round, and
        the rows of the batches of all processes. Where the last round has no batch left for this process, it gets the
        first process's."""
        rows_of_batches = self._rows_of_batches()
        starts = range(0, len(rows_of_batches), self.world_size)
        rounds = [rows_of_batches[start : start + self.world_size] for start in starts]
        shares = [round[self.rank if self.rank < len(round) else 0] for round in rounds]
        source = _source(self.loader, self.features, epoch, self.frozen_epochs)
        for batch, round in zip(source.batches(shares), rounds, strict=True):
            yield batch, [torch.from_numpy(rows) for rows in round]

    def targets(self, device: torch.device) -> dict[str, torch.Tensor]:
        """The labels of all rows by target name, (N, ...), on a device and in the order of the rows."""
        return {name: labels.to(device) for name, labels in self.loader.targets.items()}

    def _rows_of_batches(self) -> list[Rows]:
        order = table_order(len(self), self.queries)
        return batches_of(order, self.loader.batch_size, self.queries)


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
