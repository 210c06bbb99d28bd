"""What the metrics store of each row, and what is summed over rows."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from classwise.metrics.bootstrap import Weights, summed_by
from classwise.metrics.scores import BINS, LOSS_LIMIT, TOP, Array, ratio


def log_probabilities(logits_BK: Tensor) -> Tensor:
    """log p of each class (B, K), float64: probabilities near 1 keep their order, and small losses their digits."""
    return logits_BK.double().log_softmax(dim=1)


def probability_statistics(
    logits_BK: Tensor, log_p_BK: Tensor, predicted_B: Tensor, labels_B: Tensor, counted_B: Tensor
) -> Tensor:
    """What `probability_scores` needs of each row: float64 (B, 3 + BINS), zeros for rows outside `counted_B`.
    `log_p_BK`: as from `log_probabilities`.

    Columns: 1 where the label is among the 3, then the 5, largest logits (of equal ones the first); -log p(label), at
    most LOSS_LIMIT; and in the column of its bin ((b - 1) / BINS, b / BINS] the confidence, p(predicted), minus 1 for a
    hit (Guo et al. 2017, section 2).
    """
    rank_B, loss_B, bin_B, gap_B = _row_statistics(logits_BK, log_p_BK, predicted_B, labels_B)
    gaps_BN = torch.zeros(len(gap_B), BINS, dtype=torch.float64, device=gap_B.device)
    gaps_BN.scatter_(1, bin_B[:, None], gap_B[:, None])
    hits_BT = torch.stack([(rank_B < k).double() for k in TOP.values()], dim=1)
    return torch.where(counted_B[:, None], torch.cat([hits_BT, loss_B[:, None], gaps_BN], dim=1), 0.0)


def probability_sums(
    logits_BK: Tensor, log_p_BK: Tensor, predicted_B: Tensor, labels_B: Tensor, counted_B: Tensor
) -> Tensor:
    """The sums of `probability_statistics` over the rows, (3 + BINS,), in half the time."""
    rank_B, loss_B, bin_B, gap_B = _row_statistics(logits_BK, log_p_BK, predicted_B, labels_B)
    hits = [((rank_B < k) & counted_B).sum(dim=0, keepdim=True, dtype=torch.float64) for k in TOP.values()]
    gaps_N = torch.zeros(BINS, dtype=torch.float64, device=gap_B.device)
    gaps_N.scatter_add_(0, bin_B, torch.where(counted_B, gap_B, 0.0))
    loss = torch.where(counted_B, loss_B, 0.0).sum(dim=0, keepdim=True)
    return torch.cat([*hits, loss, gaps_N])


def _row_statistics(
    logits_BK: Tensor, log_p_BK: Tensor, predicted_B: Tensor, labels_B: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For each row (B,): the rank of the label's logit from 0 (0 where there are no more classes than the smallest k of
    `TOP`), -log p(label), the bin of the confidence, and the
    confidence minus 1 for a hit."""
    # Rows without a label or a prediction are masked by the callers; until then any class will do.
    classes = logits_BK.shape[1]
    label_B1 = labels_B.long().clamp(0, classes - 1)[:, None]
    predicted_B1 = predicted_B.clamp(0, classes - 1)[:, None]

    if classes <= min(TOP.values()):
        rank_B = torch.zeros_like(predicted_B)  # whatever it is, it is among the first
    else:
        # Of equal logits the first class ranks higher, as argmax takes it.
        label_logit_B1 = logits_BK.gather(1, label_B1)
        is_before_BK = torch.arange(classes, device=logits_BK.device) < label_B1
        ranks_above_BK = torch.where(is_before_BK, logits_BK >= label_logit_B1, logits_BK > label_logit_B1)
        rank_B = ranks_above_BK.sum(dim=1)

    loss_B1 = (-log_p_BK.gather(1, label_B1)).clamp(max=LOSS_LIMIT)

    # Bins are open below and closed above; a confidence of NaN is masked by the callers.
    confidence_B1 = log_p_BK.gather(1, predicted_B1).exp()
    bin_B1 = (confidence_B1.nan_to_num() * BINS).ceil().long().clamp(1, BINS) - 1
    gap_B1 = confidence_B1 - (predicted_B1 == label_B1).double()
    return rank_B, loss_B1.squeeze(1), bin_B1.squeeze(1), gap_B1.squeeze(1)


def marginal_sums(
    true_N: npt.NDArray[np.int64],
    predicted_N: npt.NDArray[np.int64],
    classes: int,
    shares: Sequence[float] | None = None,
) -> Callable[[Weights], tuple[Array, Array, Array]]:
    """A function from weights (N, R) of the rows to hits, true rows and predicted rows (R, K) of each class.

    `shares` (K,): class shares to which the rows of each resample are weighted, as in `scores_at_prior`.
    """
    # By way of the cells that occur, of which there are far fewer than rows, and without a matrix (R, K, K).
    cells, cell_N = np.unique(true_N * classes + predicted_N, return_inverse=True)
    row_C, column_C = divmod(cells, classes)
    sum_by_cell = summed_by(cell_N, len(cells))
    sum_by_row = summed_by(row_C, classes)
    sum_by_column = summed_by(column_C, classes)

    def marginals(weights_NR: Weights) -> tuple[Array, Array, Array]:
        counts_CR = sum_by_cell(weights_NR)
        if shares is not None:
            counts_CR *= ratio(np.asarray(shares)[:, None], sum_by_row(counts_CR))[row_C]
        hits_CR = counts_CR * (row_C == column_C)[:, None]
        return sum_by_row(hits_CR).T, sum_by_row(counts_CR).T, sum_by_column(counts_CR).T

    return marginals


def concat_rows(batches: Sequence[Tensor], dtype: torch.dtype, shape: Sequence[int] = ()) -> npt.NDArray[Any]:
    """Batches (B, *shape) concatenated on the host as one array (N, *shape) of `dtype`."""
    rows = torch.cat(list(batches)) if batches else torch.zeros(0, *shape)
    array: npt.NDArray[Any] = rows.detach().to(dtype).cpu().numpy()
    return array


def require_rows(keep_rows: bool) -> None:
    """ValueError unless there are stored rows to resample."""
    if not keep_rows:
        raise ValueError("intervals: the rows were not kept; allowed: a metric made with keep_rows=True")
