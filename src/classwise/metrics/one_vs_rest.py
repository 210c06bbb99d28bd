"""ROC AUC and average precision of each class against the rest, from the order of all rows."""

import torch
from torch import Tensor

RANKED_CELLS = 5_000_000
"""Scores (rows times classes) up to which every class is ranked without being asked: sorting takes a second."""
EVERY_CELL = 2**62
"""For a metric that selects: however many there are."""
_CHUNK = 2_000_000  # scores that are sorted at once
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

    def compute(self) -> tuple[Tensor, Tensor] | None:
        """AUC and average precision (K,), see `one_vs_rest`; None without rows, and where there were too many."""
        if not self._scores:
            return None
        columns = (torch.cat(self._scores), torch.cat(self._true), torch.cat(self._counted))
        width = max(1, _CHUNK // max(1, len(columns[0])))
        parts = [
            one_vs_rest(*(column[:, start : start + width] for column in columns))
            for start in range(0, columns[0].shape[1], width)
        ]
        return torch.cat([auc for auc, _ in parts]), torch.cat([ap for _, ap in parts])


def one_vs_rest(scores_NK: Tensor, true_NK: Tensor, counted_NK: Tensor) -> tuple[Tensor, Tensor]:
    """The ROC AUC and the average precision of each column, (K,) float64 on the host.

    AUC is the probability that a row of the class has a higher score than another row, ties counting half
    (Fawcett 2006, 'An introduction to ROC analysis', section 7); NaN without a row of the class or of the rest. Average
    precision is the sum over thresholds, which are the distinct scores, of recall step times precision, as in
    scikit-learn; 0 without a row of the class. Cells outside `counted_NK` take no part.
    """
    # The highest score first; what does not count adds nothing wherever it stands.
    value_NK, order_NK = torch.sort(scores_NK, dim=0, descending=True)
    counted_NK = counted_NK.gather(0, order_NK)
    positive_NK = (true_NK.gather(0, order_NK) & counted_NK).double()
    negative_NK = counted_NK.double() - positive_NK
    above_positives_NK = positive_NK.cumsum(dim=0)
    above_negatives_NK = negative_NK.cumsum(dim=0)

    # Rows with equal scores share a threshold: the counts of the last of them, and those before the first of them.
    last_NK, first_NK = _tie_bounds(value_NK)
    hits_NK = above_positives_NK.gather(0, last_NK)
    false_NK = above_negatives_NK.gather(0, last_NK)
    false_before_NK = (above_negatives_NK - negative_NK).gather(0, first_NK)

    positives_K = above_positives_NK[-1]
    negatives_K = above_negatives_NK[-1]
    precision_NK = hits_NK / (hits_NK + false_NK).clamp(min=1)
    ap_K = (positive_NK * precision_NK).sum(dim=0) / positives_K.clamp(min=1)
    below_NK = negatives_K - (false_NK + false_before_NK) / 2  # of the rest, ties counting half
    auc_K = (positive_NK * below_NK).sum(dim=0) / (positives_K * negatives_K)  # 0 / 0 is NaN
    return auc_K.cpu(), ap_K.cpu()


def _tie_bounds(value_NK: Tensor) -> tuple[Tensor, Tensor]:
    """The last and the first row with the same value, for each row of sorted columns."""
    rows = len(value_NK)
    row_NK = torch.arange(rows, device=value_NK.device)[:, None].expand_as(value_NK)
    differs_NK = value_NK[1:] != value_NK[:-1]
    edge_1K = torch.ones_like(value_NK[:1], dtype=torch.bool)
    is_last_NK = torch.cat([differs_NK, edge_1K])
    is_first_NK = torch.cat([edge_1K, differs_NK])
    last_NK = torch.where(is_last_NK, row_NK, rows).flip(0).cummin(dim=0).values.flip(0)
    first_NK = torch.where(is_first_NK, row_NK, -1).cummax(dim=0).values
    return last_NK, first_NK
