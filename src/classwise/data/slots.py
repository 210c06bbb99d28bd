"""Memory that workers fill with batches again and again.

The usual way is new shared memory for every batch. The system clears its pages first, and both processes meet each of
them for the first time: that costs many times as much as copying the images, and the parent has to give it back.
Here every worker has a few slots that last. A slot is taken when a batch is put there, and free once nothing in the
parent refers to the batch any more, whenever that may be; where no slot is free (somebody collects batches), or a
batch is too large for one, the usual way is taken. Figures: docs/decisions/0019-workers.md.
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
EACH = 4  # a worker has two batches on their way, and the parent one that it trains on and one that it has just got
SHARE = 0.25  # of the shared memory that is free: the usual way needs some as well

_numbers = itertools.count()
_of_this_process: "weakref.WeakValueDictionary[int, Slots]" = weakref.WeakValueDictionary()


class Slots:
    """Shared memory for `EACH` batches of at most `size` bytes a worker. It travels to the workers when they start."""

    def __init__(self, context: BaseContext, workers: int, size: int) -> None:
        self.number, self.owner = next(_numbers), os.getpid()
        self.memory = torch.empty((workers * EACH, size), dtype=torch.uint8)
        self.memory.share_memory_()
        self.taken: Any = context.RawArray("b", workers * EACH)

    @staticmethod
    def of(context: BaseContext, workers: int, size: int) -> "Slots | None":
        """None where shared memory is too small to spare so much of it."""
        folder = Path("/dev/shm")
        free = shutil.disk_usage(folder).free if folder.is_dir() else math.inf
        if not size or workers * EACH * size > SHARE * free:
            return None
        try:
            slots = Slots(context, workers, size)
        except RuntimeError:  # torch's, where there is none after all
            return None
        _of_this_process[slots.number] = slots
        return slots

    def put(self, worker: int, images: Sequence[Images]) -> "SlotRef | None":
        """In a worker: the images as one batch in one of its slots; None if there is no room."""
        shape = (len(images), *images[0].shape)
        if math.prod(shape) > self.memory.shape[1]:
            return None
        for slot in range(worker * EACH, (worker + 1) * EACH):
            if not self.taken[slot]:
                self.taken[slot] = 1
                np.stack(images, out=self._view(slot, shape))
                return SlotRef(self.number, slot, shape)
        return None

    def batch(self, slot: int, shape: tuple[int, ...]) -> torch.Tensor:
        """In the parent: the batch in a slot, which is free again when the last tensor on this memory is gone."""
        view = self._view(slot, shape)
        weakref.finalize(view, _free, self.owner, self.taken, slot).atexit = False
        return torch.from_numpy(view)  # it holds on to this very array

    def _view(self, slot: int, shape: tuple[int, ...]) -> Images:
        found: Images = self.memory[slot].numpy()[: math.prod(shape)].reshape(shape)
        return found


class SlotRef:
    """A batch on its way to the parent, where it arrives as a tensor."""

    def __init__(self, number: int, slot: int, shape: tuple[int, ...]) -> None:
        self.place = number, slot, shape

    def __reduce__(self) -> Any:
        return _arrived, self.place


def _arrived(number: int, slot: int, shape: tuple[int, ...]) -> torch.Tensor:
    return _of_this_process[number].batch(slot, shape)


def _free(owner: int, taken: Any, slot: int) -> None:
    if os.getpid() == owner:  # a process that was forked meanwhile has copies of the parent's objects
        taken[slot] = 0
