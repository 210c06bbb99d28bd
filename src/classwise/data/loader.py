"""Batches: images read and changed by worker processes, in an order and by numbers that do not depend on them.

Nothing here has a state to save. The order of an epoch is a function of (seed, epoch), an image's random
changes of (seed, epoch, row); the workers are told the epoch with every row, so they can live for the whole
run and still see each epoch.
"""

import dataclasses
import itertools
import math
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from classwise.data.augment import Augment, finish_image, place_image
from classwise.data.cache import CachedImages
from classwise.data.device_augment import augment_on_device
from classwise.data.images import fit_image, min_image_size, read_image
from classwise.data.sampling import batches_of, epoch_order, query_order, rank_share, table_order
from classwise.data.slots import SlotRef, Slots
from classwise.data.workers import Heartbeat, WatchedLoader, begin_worker, context_of, start_method
from classwise.errors import ConfigError, ImageError, WorkerError
from classwise.randomness import AUGMENT, generator
from classwise.signals import defer_signals

Rows = npt.NDArray[np.int64]
Item = tuple[npt.NDArray[np.uint8], int, Sequence[float]] | ImageError


@dataclass(frozen=True)
class Batch:
    """Images, answers and the rows' numbers in the set.

    images_BCHW uint8, or features_BD of a frozen backbone. targets by name: labels_B int64, -1 unknown (class,
    ordinal); labels_BL float32, NaN unknown (multilabel); values_B float64, NaN unknown (regression); int64
    (B, 2), relevance (-1 unknown) and query (ranking). `complete`: each target is class numbers, all of them known.
    `finish` (B, 9): what is left of the augmentation for the device to do, rows of `DeviceAugment`; None: nothing.
    """

    images: torch.Tensor
    targets: dict[str, torch.Tensor]
    rows: Rows
    complete: bool = False
    finish: npt.NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device, where its augmentation is finished; the copy does not wait."""
        if self.images.device == device and self.finish is None:
            return self
        targets = {name: labels.to(device, non_blocking=True) for name, labels in self.targets.items()}
        images = self.images.to(device, non_blocking=True)
        if self.finish is not None:
            images = augment_on_device(images.permute(0, 2, 3, 1), self.finish).permute(0, 3, 1, 2)
        return Batch(images, targets, self.rows, self.complete)

    def parts(self, most: int) -> Iterator["Batch"]:
        """The batch in pieces of at most so many images, all of nearly the same size; 0: as it is."""
        pieces = -(-len(self.images) // most) if most else 1
        if pieces == 1:
            yield self
            return
        images = torch.tensor_split(self.images, pieces)
        targets = {name: torch.tensor_split(labels, pieces) for name, labels in self.targets.items()}
        # A batch without answers has no rows.
        rows = np.array_split(self.rows, pieces) if len(self) else [self.rows] * pieces
        for i in range(pieces):
            yield Batch(
                images[i], {name: found[i] for name, found in targets.items()}, rows[i], self.complete
            )


@dataclass(frozen=True)
class ImageDataset(Dataset[Item]):
    """Images by (epoch, row), as (height, width, 3) uint8 of one size.

    `augment` None is evaluation: the image is brought to `size` and nothing else. No file outside of `root` is read,
    if one is given. Those that are `cached` are not read from their files: the pixels are the same either way.
    `augments_on_host` False leaves the second half of the augmentation to the device (see device_augment.py).
    """

    paths: Sequence[Path]
    size: tuple[int, int]
    fit: str
    max_pixels: int
    seed: int = 0
    augment: Augment | None = None
    root: Path | None = None
    cached: CachedImages | None = None
    augments_on_host: bool = True

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, rows: Sequence[int]) -> "ImageDataset":
        """Those of some rows."""
        cached = None if self.cached is None else self.cached.take(rows)
        return dataclasses.replace(self, paths=[self.paths[row] for row in rows], cached=cached)

    def read(self, row: int) -> npt.NDArray[np.uint8]:
        """The image as it is stored, read-only, or as its file says. Raises ImageError."""
        found = self.cached.get(row) if self.cached is not None else None
        if found is None:
            found = read_image(self.paths[row], self.max_pixels, self.root, min_image_size(self.size))
        return found

    def change(
        self, image_HWC: npt.NDArray[np.uint8], epoch: int, row: int
    ) -> tuple[npt.NDArray[np.uint8], Sequence[float]]:
        """The image that has been read as a batch wants it, and what is left to do for the device."""
        if self.augment is None:
            return fit_image(image_HWC, self.size, self.fit), ()
        rng = generator(self.seed, AUGMENT, epoch, row)
        image_HWC, finish = place_image(image_HWC, self.size, self.fit, self.augment, rng)
        return (finish_image(image_HWC, finish), ()) if self.augments_on_host else (image_HWC, finish)

    def __getitem__(self, place: tuple[int, int]) -> Item:
        epoch, row = place
        try:
            image, left = self.change(self.read(row), epoch, row)
            return image, row, left
        except ImageError as error:
            return error  # raised by the parent: a worker's traceback would hide which file it was
        except (
            Exception
        ) as error:  # a mistake of ours or too little memory: which file it was helps then, too
            return _failed(self.paths[row], error)


@dataclass(frozen=True)
class _TrackedImageDataset(Dataset[Item]):
    """The same images in a worker, which notes what it does."""

    dataset: ImageDataset
    notes: Heartbeat

    def __getitem__(self, place: tuple[int, int]) -> Item:
        info = get_worker_info()
        assert info is not None
        self.notes.begin(info.id, place[1])
        item = self.dataset[place]
        self.notes.end(info.id, place[1])
        return item


class _Places:
    """The batches of one epoch as lists of (epoch, row); set anew before each pass."""

    def __init__(self) -> None:
        self.epoch, self.parts = 0, list[Rows]()

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for part in self.parts:
            yield [(self.epoch, int(row)) for row in part]

    def __len__(self) -> int:
        return len(self.parts)


class Loader:
    """Batches of an image set with its answers; the workers are started once and live as long as it does.

    `batch_size` is what those who cut an order into batches go by. `start`: how workers are started (see
    `start_method`); `timeout`: seconds that one may spend on a file, 0 for as long as it takes.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        targets: Mapping[str, npt.NDArray[Any]],
        batch_size: int,
        workers: int,
        pin_memory: bool = False,
        start: str = "auto",
        timeout: float = 120.0,
    ) -> None:
        self.dataset = dataset
        self.batch_size = batch_size
        self.targets = {name: torch.from_numpy(labels) for name, labels in targets.items()}
        self._complete, self._pins = _complete(self.targets), pin_memory
        self._places = _Places()
        options: dict[str, Any] = {
            "batch_sampler": self._places,
            "collate_fn": Collate(),
            "pin_memory": pin_memory,
            # DataLoader draws a seed for its workers: from here, so that the global generator stays put.
            "generator": torch.Generator(),
        }
        self._loader: DataLoader[Item]
        if not workers:
            self._loader = DataLoader(dataset, **options)
            return
        context = context_of(start_method(start))
        notes = Heartbeat(context, workers)
        size = batch_size * 3 * math.prod(dataset.size)
        self._loader = WatchedLoader(
            notes,
            timeout,
            dataset.paths.__getitem__,
            lambda: Collate(Slots.of(context, workers, size)),
            dataset=_TrackedImageDataset(dataset, notes),
            num_workers=workers,
            persistent_workers=True,
            worker_init_fn=_start_worker,
            multiprocessing_context=context,
            **options,
        )

    def batches(self, parts: Sequence[Rows], epoch: int = 0) -> Iterator[Batch]:
        """One batch for each of the given row arrays, in this order. Raises ImageError, WorkerError; after the
        latter the next pass starts new workers."""
        self._places.epoch, self._places.parts = epoch, list(parts)
        try:
            for images, found, finish, errors in self._loader:
                if errors:
                    # Taken out of the list: an error that its own traceback's frame still holds makes a cycle, and
                    # workers whose loader is collected as part of one never get the word to end.
                    raise errors.pop(0)
                rows = torch.from_numpy(found)
                targets = _taken(self.targets, rows, self._pins)
                left = finish if finish.size else None
                yield Batch(images.permute(0, 3, 1, 2), targets, found, self._complete, left)
        except WorkerError:
            self.close()
            raise

    def close(self) -> None:
        """End the workers now. They ignore SIGTERM, so a process that leaves by an error which something still
        holds (`sys.last_exc`, a debugger) would wait for them for ever."""
        with defer_signals():  # half ended, they would be waited for as well
            iterator, self._loader._iterator = self._loader._iterator, None
            if iterator is not None:
                iterator._shutdown_workers()  # type: ignore[attr-defined]


class FeatureLoader:
    """The same batches of features that a frozen backbone has made of the images, so that it need not make
    them again in every epoch.

    `compute` gives features_ND, row by row as in the set; it is called when a batch is first needed, and again
    only after `drop`.
    """

    def __init__(
        self,
        compute: Callable[[], torch.Tensor],
        targets: Mapping[str, npt.NDArray[Any]],
        pin_memory: bool = False,
    ) -> None:
        self.targets = {name: torch.from_numpy(labels) for name, labels in targets.items()}
        self._complete, self._pins = _complete(self.targets), pin_memory
        self._compute = compute
        self._features_ND: torch.Tensor | None = None

    def batches(self, parts: Sequence[Rows], epoch: int = 0) -> Iterator[Batch]:
        """One batch for each of the given row arrays; the features are those of every epoch."""
        if self._features_ND is None:
            self._features_ND = self._compute()
        features_ND = self._features_ND
        for part in parts:
            rows = torch.from_numpy(part)
            features = features_ND[rows].pin_memory() if self._pins else features_ND[rows]
            yield Batch(features, _taken(self.targets, rows, self._pins), part, self._complete)

    def drop(self) -> None:
        """Forget the features."""
        self._features_ND = None


def _taken(values: Mapping[str, torch.Tensor], rows: torch.Tensor, pin: bool) -> dict[str, torch.Tensor]:
    """Those of some rows; in pinned memory, if a copy to the device is not to wait for it."""
    return {name: value[rows].pin_memory() if pin else value[rows] for name, value in values.items()}


def to_device_async(array: npt.NDArray[Any], device: torch.device) -> torch.Tensor:
    """The array as a tensor on a device; the copy does not wait."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def _complete(targets: Mapping[str, torch.Tensor]) -> bool:
    """Whether each target is class numbers, all of them known."""
    return all(
        labels.ndim == 1 and labels.dtype == torch.int64 and not bool((labels < 0).any())
        for labels in targets.values()
    )


def _failed(path: Path, error: Exception) -> ImageError:
    """The error of an image on which reading itself failed; where it did shows with its traceback."""
    found = ImageError(path, f"reading it failed with {type(error).__name__}: {error}")
    found.add_note("".join(traceback.format_exception(error)))
    return found


@dataclass(frozen=True)
class Collate:
    """Makes a batch of items: images_BHWC (permuted by the parent, which makes them channels_last for nothing), rows,
    what is left to do for the device, and the first error, if there is one: an answer of a worker stays below what a
    pipe takes in one piece. A worker has `slots` for its batches, if there is memory."""

    slots: Slots | None = None

    def __call__(
        self, items: list[Item]
    ) -> tuple[torch.Tensor | SlotRef, Rows, npt.NDArray[np.float64], list[ImageError]]:
        errors = [item for item in items if isinstance(item, ImageError)]
        good = [item for item in items if not isinstance(item, ImageError)]
        if errors:
            return torch.empty(0), np.empty(0, np.int64), np.empty(0), errors[:1]
        images, rows, finish = zip(*good, strict=True)
        return self._joined(images), np.array(rows, np.int64), np.array(finish, np.float64), []

    def _joined(self, images: Sequence[npt.NDArray[np.uint8]]) -> torch.Tensor | SlotRef:
        info = get_worker_info()
        if info is None:
            return torch.from_numpy(np.stack(images))
        put = None if self.slots is None else self.slots.put(info.id, images)
        if put is not None:
            return put
        # In shared memory from the start: sent from there, and where there is none left, it is said here.
        images_BHWC = torch.empty((len(images), *images[0].shape), dtype=torch.uint8)
        images_BHWC.share_memory_()  # type: ignore[no-untyped-call]
        np.stack(images, out=images_BHWC.numpy())
        return images_BHWC


def _start_worker(worker: int) -> None:
    """One thread a worker: several workers with several threads each only get in each other's way."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    begin_worker()


def unmixed(window: list[Batch], update: int) -> list[Batch]:
    """The window as it is."""
    return window


@dataclass(frozen=True)
class TrainingData:
    """The training rows, window by window, as functions of the epoch. An update is made of `window` batches, which
    `world_size` processes share; `windows` gives those of the one with this `rank`.

    `classes` (N,) are what the sampling balances, -1 unknown; None leaves only shuffle. With `queries` (N,)
    batches hold whole queries. The epochs before `frozen_epochs` come from `features`, the others as images.
    `mixing` is what the loop does to a window on the device, given the update's number (see mixing.py).
    """

    loader: Loader
    ids: Sequence[str]
    classes: Rows | None
    sampling: str
    seed: int
    window: int
    queries: Rows | None = None
    rank: int = 0
    world_size: int = 1
    features: FeatureLoader | None = None
    frozen_epochs: int = 0
    mixing: Callable[[list[Batch], int], list[Batch]] = unmixed

    @property
    def updates_per_epoch(self) -> int:
        """The same in every epoch and process; the last window may be short, and still makes an update."""
        batches = batches_of(table_order(len(self.ids), self.queries), self.loader.batch_size, self.queries)
        return -(-len(batches) // self.window)

    @property
    def first_place(self) -> int:
        """The place in its update of this process's first batch."""
        return self.rank * -(-self.window // self.world_size)

    def windows(self, epoch: int, skip: int = 0) -> Iterator[list[Batch]]:
        """The windows of an epoch (counted from 0), without the first `skip`. The last one is as short as it
        comes. A process for which it leaves nothing gets its first batch with every answer taken away, which adds
        nothing to any sum, but gives the same parameters a gradient. Raises ImageError, ConfigError."""
        batches = batches_of(self._order(epoch), self.loader.batch_size, self.queries)
        updates = rank_share(batches, self.window, self.rank, self.world_size)
        firsts = rank_share(batches, self.window, 0, self.world_size)
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


def without_labels(batch: Batch) -> Batch:
    """The images with every answer unknown, and no rows: they count for nothing."""
    targets = {name: _unknown(values) for name, values in batch.targets.items()}
    return dataclasses.replace(batch, targets=targets, rows=batch.rows[:0], complete=False)


def _unknown(values: torch.Tensor) -> torch.Tensor:
    """As `Batch` says for each type of target; a ranking's queries stay."""
    if values.is_floating_point():
        return torch.full_like(values, float("nan"))
    if values.ndim == 1:
        return torch.full_like(values, -1)
    return torch.stack([torch.full_like(values[:, 0], -1), values[:, 1]], dim=1)


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
