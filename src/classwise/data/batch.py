"""A batch of images with its labels: moved to a device, cut into chunks, stripped of its labels."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from classwise.data.device_augment import augment_on_device

Rows = npt.NDArray[np.int64]


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


def to_device_async(array: npt.NDArray[Any], device: torch.device) -> torch.Tensor:
    """The array as a tensor on a device; the copy does not wait."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
