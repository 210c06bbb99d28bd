"""Row weights: each row's part of the loss, written into its labels, so that every loss is exact under accumulation.

A class or a level becomes shares (B, K) that add up to the row's weight: losses are linear in the shares, and so is
what they are divided by. Numbers and cells of several labels get a last dimension of two, value and weight.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from classwise.data.batch import Batch, to_device_async


@dataclass(frozen=True)
class RowWeighting:
    """Puts the weights of the training rows into the labels of their batches.

    weights: (N,), one for each row of the dataset. classes: the number of classes of each target with class numbers,
    by name.
    """

    weights: npt.NDArray[np.float64]
    classes: Mapping[str, int]

    def __call__(self, batches: list[Batch]) -> list[Batch]:
        """The same images with weighted labels. Those of a batch without rows are all unknown, and stay so."""
        return [batch if not len(batch) else self._weighted(batch) for batch in batches]

    def labels(self, labels: Mapping[str, Tensor], weights_B: Tensor) -> dict[str, Tensor]:
        """Labels by target, (B, ...), as the losses take weighted ones."""
        return {
            name: weighted_labels(values, weights_B, self.classes.get(name))
            for name, values in labels.items()
        }

    def _weighted(self, batch: Batch) -> Batch:
        weights_B = to_device_async(self.weights[batch.rows], batch.images.device)
        return Batch(batch.images, self.labels(batch.targets, weights_B), batch.rows)


def weighted_labels(labels: Tensor, weights_B: Tensor, classes: int | None) -> Tensor:
    """Class numbers (B,) of so many `classes` as shares (B, K) that add up to the weights; numbers (B,) and cells
    (B, L), where `classes` is None, with their weights in a last dimension."""
    if classes is not None:
        return class_shares(labels, classes) * weights_B.unsqueeze(1).float()
    weights = weights_B.to(labels.dtype).reshape(-1, *[1] * (labels.ndim - 1)).expand_as(labels)
    return torch.stack([labels, weights], dim=-1)


def class_shares(labels_N: Tensor, classes: int) -> Tensor:
    """Hard labels as shares (N, K); an unknown label has no share of any class."""
    one_hot_NK = F.one_hot(labels_N.clamp(min=0), classes).float()
    return one_hot_NK * (labels_N >= 0).unsqueeze(1)
