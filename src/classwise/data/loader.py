"""Batches: pictures read and changed by worker processes, in an order and by numbers that do not depend on them.

Nothing here has a state to save. The order of an epoch is a function of (seed, epoch), a picture's random
changes of (seed, epoch, row); the workers are told the epoch with every row, so they can live for the whole
run and still see each epoch.
"""

import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

from classwise.data.augment import Augment, augment_image
from classwise.data.images import fit_image, read_image
from classwise.data.sampling import epoch_order
from classwise.errors import ImageError
from classwise.randomness import AUGMENT, generator

Rows = npt.NDArray[np.int64]
Item = tuple[npt.NDArray[np.uint8], int] | ImageError


@dataclass(frozen=True)
class Batch:
    """images_BCHW uint8, targets by name (labels_B int64, -1 is masked), and the rows' numbers in the set."""

    images: torch.Tensor
    targets: dict[str, torch.Tensor]
    rows: Rows

    def __len__(self) -> int:
        return len(self.rows)

    def to(self, device: torch.device) -> "Batch":
        """The same batch on a device; the copy does not wait."""
        targets = {name: labels.to(device, non_blocking=True) for name, labels in self.targets.items()}
        return Batch(self.images.to(device, non_blocking=True), targets, self.rows)


@dataclass(frozen=True)
class Pictures(Dataset[Item]):
    """Pictures by (epoch, row), as (height, width, 3) uint8 of one size.

    `augment` None is evaluation: the picture is brought to `size` and nothing else.
    """

    paths: Sequence[Path]
    size: tuple[int, int]
    fit: str
    max_pixels: int
    seed: int = 0
    augment: Augment | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, place: tuple[int, int]) -> Item:
        epoch, row = place
        try:
            image = read_image(self.paths[row], self.max_pixels)
        except ImageError as error:
            return error  # raised by the parent: a worker's traceback would hide which file it was
        if self.augment is None:
            return fit_image(image, self.size, self.fit), row
        rng = generator(self.seed, AUGMENT, epoch, row)
        return augment_image(image, self.size, self.fit, self.augment, rng), row


class _Places:
    """The batches of one epoch as lists of (epoch, row); set anew before each pass."""

    def __init__(self) -> None:
        self.epoch, self.rows, self.batch_size = 0, np.empty(0, dtype=np.int64), 1

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for start in range(0, len(self.rows), self.batch_size):
            yield [(self.epoch, int(row)) for row in self.rows[start : start + self.batch_size]]

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)


class Loader:
    """Batches of a picture set with its labels; the workers are started once and live as long as it does."""

    def __init__(
        self,
        pictures: Pictures,
        targets: dict[str, npt.NDArray[np.int64]],
        batch_size: int,
        workers: int,
        pin_memory: bool = False,
    ) -> None:
        self.pictures = pictures
        self.batch_size = batch_size
        self.targets = {name: torch.from_numpy(labels) for name, labels in targets.items()}
        self._places = _Places()
        self._loader: DataLoader[Item] = DataLoader(
            pictures,
            batch_sampler=self._places,
            num_workers=workers,
            collate_fn=_collate,
            persistent_workers=workers > 0,
            worker_init_fn=_start_worker,
            pin_memory=pin_memory,
            # DataLoader draws a seed for its workers: from here, so that the global generator stays put.
            generator=torch.Generator(),
        )

    def batches(self, rows: Rows, epoch: int = 0) -> Iterator[Batch]:
        """The given rows in this order, the last batch as short as it comes. Raises ImageError."""
        self._places.epoch, self._places.rows, self._places.batch_size = epoch, rows, self.batch_size
        for images, found, errors in self._loader:
            if errors:
                # Taken out of the list: an error that its own traceback's frame still holds makes a cycle, and
                # workers whose loader is collected as part of one never get the word to end.
                raise errors.pop(0)
            targets = {name: labels[found] for name, labels in self.targets.items()}
            yield Batch(images.permute(0, 3, 1, 2), targets, found.numpy())

    def close(self) -> None:
        """End the workers now. They ignore SIGTERM, so a process that leaves by an error which something still
        holds (`sys.last_exc`, a debugger) would wait for them for ever."""
        iterator, self._loader._iterator = self._loader._iterator, None
        if iterator is not None:
            iterator._shutdown_workers()  # type: ignore[attr-defined]

    def windows(self, rows: Rows, epoch: int, accumulate: int) -> Iterator[list[Batch]]:
        """`accumulate` batches at a time, which make one update; the last window as short as it comes."""
        window: list[Batch] = []
        for batch in self.batches(rows, epoch):
            window.append(batch)
            if len(window) == accumulate:
                yield window
                window = []
        if window:
            yield window


def _collate(items: list[Item]) -> tuple[torch.Tensor, torch.Tensor, list[ImageError]]:
    """images_BHWC (permuted by the parent, which makes them channels_last for nothing), rows, errors."""
    errors = [item for item in items if isinstance(item, ImageError)]
    good = [item for item in items if not isinstance(item, ImageError)]
    if errors:
        return torch.empty(0), torch.empty(0, dtype=torch.int64), errors
    images = torch.from_numpy(np.stack([image for image, _ in good]))
    return images, torch.tensor([row for _, row in good], dtype=torch.int64), []


def _start_worker(worker: int) -> None:
    """One thread a worker: several workers with several threads each only get in each other's way."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    # A signal to the whole group is for the parent, which ends its workers once its checkpoint is written.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


@dataclass(frozen=True)
class TrainingData:
    """The training rows, window by window, as functions of the epoch.

    `classes` (N,) are what the sampling balances. One window is the `accumulate` batches of one update.
    """

    loader: Loader
    ids: Sequence[str]
    classes: npt.NDArray[np.int64]
    sampling: str
    seed: int
    accumulate: int

    @property
    def updates_per_epoch(self) -> int:
        """The last window may be short, and still makes an update."""
        return -(-len(self.classes) // self._rows_per_update)

    @property
    def _rows_per_update(self) -> int:
        return self.loader.batch_size * self.accumulate

    def windows(self, epoch: int, skip: int = 0) -> Iterator[list[Batch]]:
        """The windows of an epoch (counted from 0), without the first `skip`."""
        order = epoch_order(self.sampling, self.classes, self.seed, epoch)
        return self.loader.windows(order[skip * self._rows_per_update :], epoch, self.accumulate)

    def names(self, rows: Rows) -> list[str]:
        """The ids of rows, for a message."""
        return [self.ids[row] for row in rows]


@dataclass(frozen=True)
class ValidationData:
    """All validation rows, each once and in order; the loader's pictures are not augmented."""

    loader: Loader

    def __len__(self) -> int:
        return len(self.loader.pictures)

    def batches(self) -> Iterator[Batch]:
        """One pass."""
        return self.loader.batches(np.arange(len(self)))

    def targets(self, device: torch.device) -> dict[str, torch.Tensor]:
        """The labels of all rows by name, (N,) on a device."""
        return {name: labels.to(device) for name, labels in self.loader.targets.items()}
