"""Items of an image dataset to one batch, in memory that the parent process can read without a copy."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import get_worker_info

from classwise.data.batch import Rows
from classwise.data.dataset import Item
from classwise.data.slots import SlotRef, Slots
from classwise.errors import ImageError


@dataclass(frozen=True)
class Collate:
    """Makes a batch of items: (images_BHWC, rows_B, device_augment_BK, errors).

    The parent permutes the images, which makes them channels_last at no cost. Only the first of several errors is
    passed on, so that what a worker sends stays below what a pipe takes in one piece. A worker puts its images into
    one of its `slots` where there are any (see slots.py).
    """

    slots: Slots | None = None

    def __call__(
        self, items: list[Item]
    ) -> tuple[torch.Tensor | SlotRef, Rows, npt.NDArray[np.float64], list[ImageError]]:
        errors = [item for item in items if isinstance(item, ImageError)]
        if errors:
            return torch.empty(0), np.empty(0, np.int64), np.empty(0), errors[:1]
        read_items = [item for item in items if not isinstance(item, ImageError)]
        images, rows, device_augment = zip(*read_items, strict=True)
        return self._stack(images), np.array(rows, np.int64), np.array(device_augment, np.float64), []

    def _stack(self, images: Sequence[npt.NDArray[np.uint8]]) -> torch.Tensor | SlotRef:
        """The images as one array: in a worker in a slot, or else in new shared memory."""
        worker = get_worker_info()
        if worker is None:
            return torch.from_numpy(np.stack(images))
        slot_ref = None if self.slots is None else self.slots.put(worker.id, images)
        if slot_ref is not None:
            return slot_ref

        # In shared memory from the start: the parent reads it from there, and where there is none left, the error is
        # raised here, where it can be reported.
        images_BHWC = torch.empty((len(images), *images[0].shape), dtype=torch.uint8)
        images_BHWC.share_memory_()
        np.stack(images, out=images_BHWC.numpy())
        return images_BHWC
