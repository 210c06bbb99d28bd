"""Shared memory that workers fill with batches again and again.

The usual way is new shared memory for every batch. The operating system clears its pages first, and both processes
fault on each of them: that costs many times as much as copying the images, and the parent has to release it. Here
every worker has a few slots that last. A slot is taken when a batch is put there, and free once nothing in the parent
refers to the batch any more, whenever that may be. Where no slot is free (somebody collects batches), or a batch is too
large for one, the usual way is taken. Figures: docs/decisions/0019-workers.md.
"""

import itertools
import math
import os
import shutil
import weakref
from collections.abc import Sequence
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

Images = npt.NDArray[np.uint8]

SLOTS_PER_WORKER = 4
"""A worker has two batches on their way; the parent has one that it trains on and one that it has just received."""
MAX_SHARE = 0.25
"""Of the free shared memory: the usual way needs some as well."""

_serial_numbers = itertools.count()
_slots_of_this_process: "weakref.WeakValueDictionary[int, Slots]" = weakref.WeakValueDictionary()


class Slots:
    """Shared memory for `SLOTS_PER_WORKER` batches a worker, each of at most `bytes_per_batch`. It is passed to the
    workers when they start."""

    def __init__(self, context: BaseContext, workers: int, bytes_per_batch: int) -> None:
        self.number = next(_serial_numbers)
        self.owner = os.getpid()
        self.memory = torch.empty((workers * SLOTS_PER_WORKER, bytes_per_batch), dtype=torch.uint8)
        self.memory.share_memory_()
        self.taken: Any = context.RawArray("b", workers * SLOTS_PER_WORKER)

    @staticmethod
    def allocate(context: BaseContext, workers: int, bytes_per_batch: int) -> "Slots | None":
        """New slots; None where shared memory is too small to spare so much of it."""
        folder = Path("/dev/shm")
        free = shutil.disk_usage(folder).free if folder.is_dir() else math.inf
        if not bytes_per_batch or workers * SLOTS_PER_WORKER * bytes_per_batch > MAX_SHARE * free:
            return None
        try:
            slots = Slots(context, workers, bytes_per_batch)
        except RuntimeError:  # torch's error where there is no room after all
            return None
        _slots_of_this_process[slots.number] = slots
        return slots

    def put(self, worker: int, images: Sequence[Images]) -> "SlotRef | None":
        """Called in a worker: the images as one batch in one of its slots; None if there is no room."""
        shape = (len(images), *images[0].shape)
        if math.prod(shape) > self.memory.shape[1]:
            return None
        for slot in range(worker * SLOTS_PER_WORKER, (worker + 1) * SLOTS_PER_WORKER):
            if not self.taken[slot]:
                self.taken[slot] = 1
                np.stack(images, out=self._view(slot, shape))
                return SlotRef(self.number, slot, shape)
        return None

    def batch(self, slot: int, shape: tuple[int, ...]) -> torch.Tensor:
        """Called in the parent: the batch in a slot. The slot is free again when the last tensor on it is gone."""
        view = self._view(slot, shape)
        weakref.finalize(view, _free, self.owner, self.taken, slot).atexit = False
        return torch.from_numpy(view)  # holds a reference to this very array

    def _view(self, slot: int, shape: tuple[int, ...]) -> Images:
        view: Images = self.memory[slot].numpy()[: math.prod(shape)].reshape(shape)
        return view


class SlotRef:
    """A reference to a batch in a slot: pickled in the worker, it arrives in the parent as a tensor."""

    def __init__(self, number: int, slot: int, shape: tuple[int, ...]) -> None:
        self.number = number
        self.slot = slot
        self.shape = shape

    def __reduce__(self) -> Any:
        return _batch_in_parent, (self.number, self.slot, self.shape)


def _batch_in_parent(number: int, slot: int, shape: tuple[int, ...]) -> torch.Tensor:
    return _slots_of_this_process[number].batch(slot, shape)


def _free(owner: int, taken: Any, slot: int) -> None:
    # A process that was forked meanwhile has copies of the parent's objects, whose end says nothing.
    if os.getpid() == owner:
        taken[slot] = 0
