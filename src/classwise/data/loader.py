"""Batches of images read by worker processes, or of the features that a frozen backbone made of them.

Which rows make a batch is decided by the caller (see epochs.py); the images do not depend on the workers (see
dataset.py).
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy.typing as npt
import torch
from torch.utils.data import DataLoader

from classwise.data.batch import Batch, Rows
from classwise.data.collate import Collate
from classwise.data.dataset import ImageDataset, Item, TrackedImageDataset, start_worker
from classwise.data.slots import Slots
from classwise.data.workers import Heartbeat, WatchedLoader, context_of, start_method
from classwise.errors import WorkerError
from classwise.signals import defer_signals


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
            dataset=TrackedImageDataset(dataset, notes),
            num_workers=workers,
            persistent_workers=True,
            worker_init_fn=start_worker,
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


def _complete(targets: Mapping[str, torch.Tensor]) -> bool:
    """Whether each target is class numbers, all of them known."""
    return all(
        labels.ndim == 1 and labels.dtype == torch.int64 and not bool((labels < 0).any())
        for labels in targets.values()
    )
