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
    """Images, their labels, and their row numbers in the dataset.

    images: images_BCHW uint8, or features_BD of a frozen backbone.
    targets, by name: labels_B int64, -1 unknown (class, ordinal); labels_BL float32, NaN unknown (multilabel);
    values_B float64, NaN unknown (regression); int64 (B, 2), relevance (-1 unknown) and query (ranking).
    rows: (B,) int64; empty in a batch without labels (see `without_labels`).
    complete: every target holds class numbers, and all of them are known.
    device_augment: (B, 9) float64, the part of the augmentation that is left to the device, one `DeviceAugment` a row;
    None where nothing is left.
    """

    images: torch.Tensor
    targets: dict[str, torch.Tensor]
    rows: Rows
    complete: bool = False
    device_augment: npt.NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device, with its augmentation completed there. Does not wait for the copy."""
        if self.images.device == device and self.device_augment is None:
            return self
        targets = {name: labels.to(device, non_blocking=True) for name, labels in self.targets.items()}
        images = self.images.to(device, non_blocking=True)
        if self.device_augment is not None:
            images_BHWC = augment_on_device(images.permute(0, 2, 3, 1), self.device_augment)
            images = images_BHWC.permute(0, 3, 1, 2)
        return Batch(images, targets, self.rows, self.complete)

    def parts(self, max_size: int) -> Iterator["Batch"]:
        """The batch in chunks of nearly equal size, each of at most `max_size` images; 0: the batch as it is."""
        chunks = -(-len(self.images) // max_size) if max_size else 1
        if chunks == 1:
            yield self
            return

        images = torch.tensor_split(self.images, chunks)
        targets = {name: torch.tensor_split(labels, chunks) for name, labels in self.targets.items()}
        # A batch without labels has no rows, so neither has any of its chunks.
        rows = np.array_split(self.rows, chunks) if len(self) else [self.rows] * chunks
        for chunk_idx in range(chunks):
            labels_of_chunk = {name: labels[chunk_idx] for name, labels in targets.items()}
            yield Batch(images[chunk_idx], labels_of_chunk, rows[chunk_idx], self.complete)


def without_labels(batch: Batch) -> Batch:
    """The same images with every label unknown and no rows: they add nothing to any sum or count."""
    targets = {name: _unknown(labels) for name, labels in batch.targets.items()}
    return dataclasses.replace(batch, targets=targets, rows=batch.rows[:0], complete=False)


def _unknown(labels: torch.Tensor) -> torch.Tensor:
    """Unknown labels in the form of each type of target (see `Batch`); a ranking keeps its queries."""
    if labels.is_floating_point():
        return torch.full_like(labels, float("nan"))
    if labels.ndim == 1:
        return torch.full_like(labels, -1)
    return torch.stack([torch.full_like(labels[:, 0], -1), labels[:, 1]], dim=1)


def to_device_async(array: npt.NDArray[Any], device: torch.device) -> torch.Tensor:
    """The array as a tensor on a device, from pinned memory, so that nothing waits for the copy."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
