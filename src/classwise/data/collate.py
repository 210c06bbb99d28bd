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
