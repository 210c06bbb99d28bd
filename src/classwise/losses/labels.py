"""Labels of a class: hard or soft, known or not, and what they add to a sum and to its normalizer.

Labels are hard, (B,) whole numbers with -1 where unknown, or soft, (B, K) with the share of each class: >= 0, each row
with a sum <= 1, and what is missing to 1 is unknown. Every loss that takes soft labels is linear in them, and so is its
normalizer: t_1 loss(label 1) + t_2 loss(label 2) + ..., which is what mixing images asks for.
"""

import numpy as np
import torch
from torch import Tensor

from classwise.losses.normalizer import Normalizer, is_on_host

IGNORED = -1
"""The label of a row without a known class: it counts in neither the sum nor the normalizer."""


def is_soft(labels: Tensor) -> bool:
    """Whether `labels` are shares (B, K) rather than class numbers (B,)."""
    return labels.ndim == 2


def at_least_float32(logits: Tensor) -> Tensor:
    """Half-precision logits as float32, others as they are: a sum of logarithms needs more than 8 bits."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def is_known(labels_B: Tensor) -> Tensor:
    """Which rows count (B,)."""
    # In 64 bits first: as 8 bits without a sign, class 255 would equal -1.
    return labels_B.long() != IGNORED


def label_index(labels_B: Tensor) -> Tensor:
    """Labels that can be used as an index: ignored rows point at class 0 and must be left out otherwise."""
    return labels_B.long().masked_fill(~is_known(labels_B), 0)


def row_weights(labels: Tensor, weight_K: Tensor | None, dtype: torch.dtype) -> Tensor:
    """The weight of each row (B,): that of its class (1 without class weights), 0 for an ignored row.

    With soft labels it is the mean over the classes, by their shares.
    """
    if is_soft(labels):
        share_BK = labels.to(dtype)
        if weight_K is not None and len(weight_K) != labels.shape[1]:
            found = f"found soft labels of {labels.shape[1]} classes"
            raise ValueError(f"{found}; this loss was made for {len(weight_K)}")
        return (share_BK if weight_K is None else share_BK * weight_K.to(dtype)).sum(dim=1)
    known_B = is_known(labels)
    if weight_K is None:
        return known_B.to(dtype)
    return weight_K.to(dtype).gather(0, label_index(labels)) * known_B


def label_normalizer(labels: Tensor, weight_K: Tensor | None = None, complete: bool = False) -> Normalizer:
    """The sum of the rows' weights, one number. Without weights it is the number of labeled rows: that of all rows,
    and not counted, where the labels are `complete`."""
    if weight_K is not None or is_soft(labels):
        return Normalizer(row_weights(labels, weight_K, torch.float64).sum().reshape(1))
    if complete:
        return Normalizer([float(len(labels))], is_row_count=True)
    if is_on_host(labels):
        # numpy counts in a quarter of the time that tensors of this size take.
        return Normalizer([float(np.count_nonzero(labels.numpy() != IGNORED))])
    return Normalizer(is_known(labels).sum(dim=0, keepdim=True, dtype=torch.float64))


def label_sum(loss_BK: Tensor, labels: Tensor, weight_K: Tensor | None = None) -> Tensor:
    """The weighted sum over the rows, a scalar; `loss_BK` is the loss that a row had if its label were k."""
    if is_soft(labels):
        share_BK = labels.to(loss_BK.dtype)
        return (loss_BK * (share_BK if weight_K is None else share_BK * weight_K.to(loss_BK.dtype))).sum()
    loss_B = loss_BK.gather(1, label_index(labels).unsqueeze(1)).squeeze(1)
    return (row_weights(labels, weight_K, loss_B.dtype) * loss_B).sum()
