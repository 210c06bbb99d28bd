"""Balanced softmax: the class counts of the training set enter the softmax instead of the weights."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classwise.errors import ConfigError
from classwise.losses.mass import IGNORED, at_least_float32, check_batch, label_mass, over_mass


class BalancedSoftmax(nn.Module):
    """Cross entropy of logits + log prior (Ren et al. 2020, 'Balanced meta-softmax', equations 3 and 4).

    `counts` (K,): rows of each class in the training set. Adding the logarithm of the class frequencies while
    training leaves logits without that bias, so inference uses them as they are: nothing is added there.

    A class with no row counts as one: with a prior of 0 it would take no part in the softmax, nothing would
    push its logit down, and inference, which adds no prior, could choose it anywhere.
    """

    additive: bool = True
    terms: int = 1
    log_prior: Tensor

    def __init__(self, counts: Tensor) -> None:
        super().__init__()
        counts_K = counts.detach().to(torch.float64)
        if (
            counts_K.ndim != 1
            or not bool((counts_K.isfinite() & (counts_K >= 0)).all())
            or not counts_K.sum() > 0
        ):
            raise ConfigError(f"counts: found {counts.tolist()}, allowed: the rows of each class, not all 0")
        counts_K = counts_K.clamp(min=1)
        self.register_buffer("log_prior", (counts_K / counts_K.sum()).log())

    def mass(self, labels_B: Tensor) -> Tensor:
        """The number of labelled rows: shape (1,), float64."""
        return label_mass(labels_B)

    def forward(self, logits_BK: Tensor, labels_B: Tensor, mass: Tensor | None = None) -> Tensor:
        """The sum over the rows of `logits_BK` (B, K) with `labels_B` (B,), divided by `mass` (1,)."""
        check_batch(logits_BK, labels_B, len(self.log_prior))
        logits_BK = at_least_float32(logits_BK)
        adjusted_BK = logits_BK + self.log_prior.to(logits_BK.dtype)
        total = F.cross_entropy(adjusted_BK, labels_B.long(), ignore_index=IGNORED, reduction="sum")
        return over_mass(total, self.mass(labels_B) if mass is None else mass)
