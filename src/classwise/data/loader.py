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


class _BatchSampler:
    """torch's batch sampler: the batches of one epoch as lists of (epoch, row). Set anew before each pass."""

    def __init__(self) -> None:
        self.epoch = 0
        self.rows_of_batches = list[Rows]()

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for rows in self.rows_of_batches:
            yield [(self.epoch, int(row)) for row in rows]

    def __len__(self) -> int:
        return len(self.rows_of_batches)


class Loader:
    """Batches of an image dataset with its labels. The workers are started once and live as long as the loader.

    batch_size: the size by which callers cut an order of rows into batches.
    workers: processes that read images; 0 reads in this process.
    pin_memory: put batches into pinned memory, so that a copy to the device does not wait.
    start: how workers are started (see `start_method`).
    timeout: seconds that a worker may spend on one file; 0 for no limit.
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
        self._complete = _is_complete(self.targets)
        self._pin_memory = pin_memory
        self._batch_sampler = _BatchSampler()
        options: dict[str, Any] = {
            "batch_sampler": self._batch_sampler,
            "collate_fn": Collate(),
            "pin_memory": pin_memory,
            # DataLoader draws a seed for its workers: from here, so that the global generator does not advance.
            "generator": torch.Generator(),
        }
        self._loader: DataLoader[Item]
        if not workers:
            self._loader = DataLoader(dataset, **options)
            return

        context = context_of(start_method(start))
        heartbeat = Heartbeat(context, workers)
        bytes_per_batch = batch_size * dataset.pixels.channels * math.prod(dataset.size)
        self._loader = WatchedLoader(
            heartbeat=heartbeat,
            timeout=timeout,
            path_of_row=dataset.paths.__getitem__,
            make_collate=lambda: Collate(Slots.allocate(context, workers, bytes_per_batch)),
            dataset=TrackedImageDataset(dataset, heartbeat),
            num_workers=workers,
            persistent_workers=True,
            worker_init_fn=start_worker,
            multiprocessing_context=context,
            **options,
        )

    def batches(self, rows_of_batches: Sequence[Rows], epoch: int = 0) -> Iterator[Batch]:
        """One batch for each of the given arrays of rows, in this order.

        Raises ImageError; and WorkerError, after which the next pass starts new workers.
        """
        self._batch_sampler.epoch = epoch
        self._batch_sampler.rows_of_batches = list(rows_of_batches)
        try:
            for images_BHWC, rows, device_augment, errors in self._loader:
                if errors:
                    # Taken out of the list: an error that the frame of its own traceback still holds makes a reference
                    # cycle, and workers whose loader is collected as part of a cycle are never told to end.
                    raise errors.pop(0)
                yield Batch(
                    images=images_BHWC.permute(0, 3, 1, 2),
                    targets=_labels_of(self.targets, torch.from_numpy(rows), self._pin_memory),
                    rows=rows,
                    complete=self._complete,
                    device_augment=device_augment if device_augment.size else None,
                )
        except WorkerError:
            self.close()
            raise

    def close(self) -> None:
        """End the workers now. They ignore SIGTERM: a process that leaves by an error which something still holds
        (`sys.last_exc`, a debugger) would otherwise wait for them forever."""
        with defer_signals():  # half-ended workers would be waited for as well
            iterator = self._loader._iterator
            self._loader._iterator = None
            if iterator is not None:
                iterator._shutdown_workers()  # type: ignore[attr-defined]


class FeatureLoader:
    """The same batches, of features that a frozen backbone has made of the images: it need not make them again in
    every epoch.

    compute: returns features_ND in the order of the dataset's rows; it is called when a batch is first needed, and
    again only after `drop`.
    """

    def __init__(
        self,
        compute: Callable[[], torch.Tensor],
        targets: Mapping[str, npt.NDArray[Any]],
        pin_memory: bool = False,
    ) -> None:
        self.targets = {name: torch.from_numpy(labels) for name, labels in targets.items()}
        self._complete = _is_complete(self.targets)
        self._pin_memory = pin_memory
        self._compute = compute
        self._features_ND: torch.Tensor | None = None

    def batches(self, rows_of_batches: Sequence[Rows], epoch: int = 0) -> Iterator[Batch]:
        """One batch for each of the given arrays of rows; the features are the same in every epoch."""
        if self._features_ND is None:
            self._features_ND = self._compute()
        features_ND = self._features_ND
        for rows in rows_of_batches:
            index_B = torch.from_numpy(rows)
            features_BD = features_ND[index_B].pin_memory() if self._pin_memory else features_ND[index_B]
            yield Batch(
                images=features_BD,
                targets=_labels_of(self.targets, index_B, self._pin_memory),
                rows=rows,
                complete=self._complete,
            )

    def drop(self) -> None:
        """Free the features."""
        self._features_ND = None


def _labels_of(
    targets: Mapping[str, torch.Tensor], rows: torch.Tensor, pin_memory: bool
) -> dict[str, torch.Tensor]:
    """The labels of some rows; in pinned memory, if a copy to the device is not to wait."""
    return {
        name: labels[rows].pin_memory() if pin_memory else labels[rows] for name, labels in targets.items()
    }


def _is_complete(targets: Mapping[str, torch.Tensor]) -> bool:
    """Whether every target holds class numbers, all of them known."""
    return all(
        labels.ndim == 1 and labels.dtype == torch.int64 and not bool((labels < 0).any())
        for labels in targets.values()
    )
