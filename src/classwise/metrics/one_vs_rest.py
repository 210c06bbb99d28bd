"""ROC AUC and average precision of each class against the rest, from the order of all rows."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from classwise.metrics.scores import Array

RANKED_CELLS = 5_000_000
"""Scores (rows times classes) up to which every class is ranked without being asked: sorting takes a second."""
EVERY_CELL = 2**62
"""For a metric that selects: however many there are."""
UNRANKED = (
    "{cells:,} scores (rows times classes) are more than {limit:,}, up to which all classes are ranked; a"
    " selection.metric that ranks them, such as roc_auc, has them ranked"
)


class RankedRows:
    """The scores and true classes of all rows, as long as there are no more than `limit` scores.

    An update never waits for the device.
    """

    def __init__(self, limit: int = RANKED_CELLS) -> None:
        self.limit = limit
        self.cells = 0
        self._scores: list[Tensor] = []
        self._true: list[Tensor] = []
        self._counted: list[Tensor] = []

    def update(self, scores_BK: Tensor, true_BK: Tensor, counted_BK: Tensor) -> None:
        """Add a batch: the scores of each class, whether the row is of it, and whether the cell counts."""
        self.cells += scores_BK.numel()
        if self.is_full:
            self._scores.clear()
            self._true.clear()
            self._counted.clear()
            return
        self._scores.append(scores_BK.detach())
        self._true.append(true_BK)
        self._counted.append(counted_BK)

    def merge(self, other: "RankedRows") -> None:
        """Add the rows of another one."""
        for batch in zip(other._scores, other._true, other._counted, strict=True):
            self.update(*batch)
        if other.is_full:
            self.cells = max(self.cells, other.cells)

    def reset(self) -> None:
        """Start again from zero."""
        self.cells = 0
        self._scores.clear()
        self._true.clear()
        self._counted.clear()

    @property
    def is_full(self) -> bool:
        """Whether there were too many scores, so that none are kept."""
        return self.cells > self.limit

    def compute(self) -> tuple[Array, Array] | None:
        """AUC and average precision (K,), see `one_vs_rest`; None without rows, and where there were too many."""
        if not self._scores:
            return None
        scores_NK = torch.cat(self._scores)
        if scores_NK.dtype.itemsize < 4:
            scores_NK = scores_NK.float()  # NumPy knows no bfloat16
        columns = (scores_NK, torch.cat(self._true), torch.cat(self._counted))
        return one_vs_rest(*(column.cpu().numpy() for column in columns))


def one_vs_rest(
    scores_NK: npt.NDArray[Any], true_NK: npt.NDArray[np.bool_], counted_NK: npt.NDArray[np.bool_]
) -> tuple[Array, Array]:
    """The ROC AUC and the average precision of each column, (K,) float64.

    AUC is the probability that a row of the class has a higher score than another row, ties counting half
    (Fawcett 2006, 'An introduction to ROC analysis', section 7); NaN without a row of the class or of the rest. Average
    precision is the mean over the rows of the class of the precision at their scores, which is the sum over thresholds
    of recall step times precision, as in scikit-learn; 0 without a row of the class. Cells outside `counted_NK` take no
    part.
    """
    found = [_ranked(*columns) for columns in zip(scores_NK.T, true_NK.T, counted_NK.T, strict=True)]
    auc_K, ap_K = np.array(found, dtype=np.float64).T.reshape(2, -1)
    return auc_K, ap_K


def _ranked(
    score_N: npt.NDArray[Any], true_N: npt.NDArray[np.bool_], counted_N: npt.NDArray[np.bool_]
) -> tuple[float, float]:
    """AUC and average precision of one column."""
    # Sorted apart, two plain sorts of numbers: a sort that also says where each number stood takes ten times longer.
    of_class_P = np.sort(score_N[counted_N & true_N])
    of_rest_M = np.sort(score_N[counted_N & ~true_N])
    positives, negatives = len(of_class_P), len(of_rest_M)
    if not positives:
        return math.nan, 0.0

    # For each row of the class: rows of the rest below its score, those not above it, and rows of the class above or
    # at it, itself among them.
    below_P = np.searchsorted(of_rest_M, of_class_P, side="left")
    not_above_P = np.searchsorted(of_rest_M, of_class_P, side="right")
    hits_P = positives - np.searchsorted(of_class_P, of_class_P, side="left")

    ap = float(np.mean(hits_P / (hits_P + (negatives - below_P))))
    if not negatives:
        return math.nan, ap
    return float((below_P + not_above_P).sum() / (2 * positives * negatives)), ap
