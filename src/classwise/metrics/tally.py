"""Counting predictions against labels, batch by batch: every score comes from counts over the whole set."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def predicted_labels(logits_BK: Tensor) -> Tensor:
    """The class with the largest logit (B,), or -1 where there is none to choose.

    There is none where the largest logit is not finite: with a NaN in the row argmax silently returns the NaN's
    place, and with an infinity, or -inf everywhere, the probabilities are NaN. A class switched off by -inf is
    fine.
    """
    largest_B, predicted_B = logits_BK.max(dim=1)
    return torch.where(largest_B.abs() < math.inf, predicted_B, -1)


class ClassTally:
    """A confusion matrix that grows: rows are the true class, columns the predicted one.

    An update waits for nothing: it adds to `cells` on `device`, which has to be that of the tensors counted,
    and only reading a count copies to the host. `cells` (int64) may be summed over processes as it is.

    Rows with label -1 count nowhere but in `masked`. Rows whose prediction is -1 (no finite logit, see
    `predicted_labels`) are in no column: they stand in `invalid` and not in `confusion`, so a caller must look at
    `invalid` before it trusts a score. A label or prediction that is no class at all makes every count raise
    ValueError.
    """

    def __init__(self, classes: int, device: torch.device | str = "cpu") -> None:
        if classes < 1:
            raise ValueError(f"classes: found {classes}, allowed: 1 or more")
        self.classes = classes
        # Three more than K on both sides, so that nothing can be counted in another's cell: below -1, -1,
        # then 0 to K - 1, then K and above.
        self._side = classes + 3
        self.cells = torch.zeros(self._side**2, dtype=torch.int64, device=device)

    def update(self, logits_BK: Tensor, labels_B: Tensor) -> None:
        """Count one batch: logits (B, K) against labels (B,), -1 where unknown."""
        if logits_BK.ndim != 2 or logits_BK.shape[1] != self.classes:
            raise ValueError(f"found logits {tuple(logits_BK.shape)}; allowed: (B, {self.classes})")
        self.update_labels(predicted_labels(logits_BK), labels_B)

    def update_labels(self, predicted_B: Tensor, labels_B: Tensor) -> None:
        """Count one batch: predicted classes (B,), -1 for none, against labels (B,), -1 where unknown."""
        if predicted_B.ndim != 1 or predicted_B.shape != labels_B.shape:
            shapes = f"predictions {tuple(predicted_B.shape)}, labels {tuple(labels_B.shape)}"
            raise ValueError(f"found {shapes}; allowed: (B,) both")
        row_B = labels_B.long().clamp(-2, self.classes)
        column_B = predicted_B.long().clamp(-2, self.classes)
        cell_B = row_B * self._side + column_B + 2 * (self._side + 1)
        self.cells.scatter_add_(0, cell_B, torch.ones_like(cell_B))

    def merge(self, other: "ClassTally") -> None:
        """Add the counts of another tally of the same classes."""
        if other.classes != self.classes:
            raise ValueError(f"found a tally of {other.classes} classes; this one has {self.classes}")
        self.cells += other.cells.to(self.cells.device)

    def reset(self) -> None:
        """Start again from zero."""
        self.cells.zero_()

    @property
    def confusion(self) -> npt.NDArray[np.int64]:
        """Counts (K, K): rows true, columns predicted. Labelled rows with a prediction only."""
        return self._table()[2:-1, 2:-1].copy()

    @property
    def invalid(self) -> int:
        """Labelled rows without a prediction: their logits were not finite."""
        return int(self._table()[2:-1, 1].sum())

    @property
    def masked(self) -> int:
        """Rows without a label."""
        return int(self._table()[1].sum())

    def _table(self) -> npt.NDArray[np.int64]:
        table: npt.NDArray[Any] = self.cells.cpu().numpy().reshape(self._side, self._side)
        stray = int(table.sum() - table[1:-1, 1:-1].sum())
        if stray:
            raise ValueError(f"{stray} rows have a label or prediction outside -1 to {self.classes - 1}")
        return table
