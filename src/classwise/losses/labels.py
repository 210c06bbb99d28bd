"""Class labels, hard or soft: what they add to a summed loss and to its normalizer.

Hard labels are integers (B,), -1 where unknown. Soft labels (B, K) hold the share of each class: >= 0, each row with a
sum <= 1, and what is missing to 1 is unknown. Every loss that accepts soft labels is linear in them, and so is its
normalizer: t_1 loss(label 1) + t_2 loss(label 2) + ..., which is what mixing images requires.
"""

import numpy as np
import torch
from torch import Tensor

from classwise.losses.normalizer import Normalizer, is_on_host

IGNORED = -1
"""The label of an unlabeled row: it counts in neither the sum nor the normalizer."""
HALF_PRECISION = (torch.float16, torch.bfloat16)


def is_soft(labels: Tensor) -> bool:
    """Whether `labels` are shares (B, K) rather than class numbers (B,)."""
    return labels.ndim == 2


def at_least_float32(logits: Tensor) -> Tensor:
    """Half-precision logits as float32, others unchanged: a sum of logarithms needs more than 8 bits."""
    return logits.float() if logits.dtype in HALF_PRECISION else logits


def is_labeled(labels_B: Tensor) -> Tensor:
    """Which rows are labeled (B,), from hard labels."""
    # In 64 bits first: as an unsigned byte, class 255 would equal -1.
    return labels_B.long() != IGNORED


def label_index(labels_B: Tensor) -> Tensor:
    """Labels (B,) that can be used as an index: unlabeled rows point to class 0 and must be masked elsewhere."""
    return labels_B.long().masked_fill(~is_labeled(labels_B), 0)


def row_weights(labels: Tensor, weight_K: Tensor | None, dtype: torch.dtype) -> Tensor:
    """The weight of each row (B,): that of its class (1 without class weights), 0 for an unlabeled row.

    With soft labels it is the sum of the class weights, each times the share of its class. Raises ValueError where soft
    labels and weights have different numbers of classes.
    """
    if is_soft(labels):
        share_BK = labels.to(dtype)
        if weight_K is not None and len(weight_K) != labels.shape[1]:
            raise ValueError(
                f"found soft labels of {labels.shape[1]} classes; this loss was made for {len(weight_K)}"
            )
        return (share_BK if weight_K is None else share_BK * weight_K.to(dtype)).sum(dim=1)

    labeled_B = is_labeled(labels)
    if weight_K is None:
        return labeled_B.to(dtype)
    return weight_K.to(dtype).gather(0, label_index(labels)) * labeled_B


def label_normalizer(labels: Tensor, weight_K: Tensor | None = None, complete: bool = False) -> Normalizer:
    """The summed weights of the rows, one number. Without weights it is the number of labeled rows: that of all rows,
    without counting, where `complete` says that all are labeled."""
    if weight_K is not None or is_soft(labels):
        return Normalizer(row_weights(labels, weight_K, torch.float64).sum().reshape(1))
    if complete:
        return Normalizer([float(len(labels))], is_row_count=True)
    if is_on_host(labels):
        # numpy counts in a quarter of the time that tensors of this size take.
        return Normalizer([float(np.count_nonzero(labels.numpy() != IGNORED))])
    return Normalizer(is_labeled(labels).sum(dim=0, keepdim=True, dtype=torch.float64))


def values_and_weights(targets: Tensor, ndim: int) -> tuple[Tensor, Tensor | None]:
    """Floating-point targets of `ndim` dimensions and the weight of each, None for weights of 1. Weighted targets have
    one dimension more, of size 2: value and weight (see data/weighting.py)."""
    if targets.ndim == ndim + 1 and targets.shape[-1] == 2:
        return targets[..., 0], targets[..., 1]
    return targets, None


def entry_normalizer(targets: Tensor, ndim: int) -> Normalizer:
    """The number of labeled entries of floating-point `targets` of `ndim` dimensions, NaN where unknown, or their
    summed weights: one number."""
    values, weights = values_and_weights(targets, ndim)
    labeled = ~values.isnan()
    counted = labeled if weights is None else labeled * weights
    return Normalizer(counted.sum(dtype=torch.float64).reshape(1))


def label_sum(loss_BK: Tensor, labels: Tensor, weight_K: Tensor | None = None) -> Tensor:
    """The weighted sum over the rows, a scalar; `loss_BK[b, k]` is the loss of row b if its label were k."""
    if is_soft(labels):
        share_BK = labels.to(loss_BK.dtype)
        return (loss_BK * (share_BK if weight_K is None else share_BK * weight_K.to(loss_BK.dtype))).sum()
    loss_B = loss_BK.gather(1, label_index(labels).unsqueeze(1)).squeeze(1)
    return (row_weights(labels, weight_K, loss_B.dtype) * loss_B).sum()
