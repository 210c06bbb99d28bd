"""Logit adjustment: the class frequencies of the training set enter the softmax instead of the weights."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classwise.errors import ConfigError
from classwise.losses.checks import as_number, check_batch
from classwise.losses.cross_entropy import cross_entropy_sum
from classwise.losses.labels import at_least_float32, label_normalizer
from classwise.losses.normalizer import Normalizer


class LogitAdjustment(nn.Module):
    """Cross entropy of logits + tau * log prior (Menon et al. 2021, 'Long-tail learning via logit adjustment',
    equation 10); the prior is n_k / N with n the `counts` (K,), rows of each class in the training set.

    `tau` >= 0: 1 aims at the balanced error and is balanced softmax, 0 is plain cross entropy. Inference uses
    the logits as they are: what the prior explains was learned apart from them.

    A class with no row counts as one: with a prior of 0 it would take no part in the softmax, nothing would
    push its logit down, and inference, which adds no prior, could choose it anywhere.
    """

    additive: bool = True
    terms: int = 1
    soft_targets: bool = True
    likelihood_scale: float = 1.0
    log_prior: Tensor

    def __init__(self, counts: Tensor, tau: float = 1.0) -> None:
        super().__init__()
        self.tau = as_number(tau, "tau", 0)
        self.register_buffer("log_prior", log_prior(counts))

    def normalizer(self, labels: Tensor, complete: bool = False) -> Normalizer:
        """The number of labeled rows."""
        return label_normalizer(labels, complete=complete)

    def forward(self, logits_BK: Tensor, labels: Tensor, normalizer: Normalizer | None = None) -> Tensor:
        """The sum over the rows of `logits_BK` with `labels`, (B,) or soft (B, K), divided by `normalizer` (1,)."""
        return adjusted_loss(logits_BK, labels, self.tau * self.log_prior, normalizer)


def adjusted_loss(
    logits_BK: Tensor, labels: Tensor, shift_K: Tensor, normalizer: Normalizer | None = None
) -> Tensor:
    """The sum of the rows' cross entropies of logits + shift, a scalar, divided by `normalizer` (1,)."""
    check_batch(logits_BK, labels, len(shift_K))
    logits_BK = at_least_float32(logits_BK)
    logits_BK = logits_BK + shift_K.to(logits_BK.dtype)
    if normalizer is not None and normalizer.is_row_count:
        return F.cross_entropy(logits_BK, labels)
    normalizer = label_normalizer(labels) if normalizer is None else normalizer
    return normalizer.divide(cross_entropy_sum(logits_BK, labels))


def log_prior(counts: Tensor) -> Tensor:
    """The logarithm of each class's share (K,), float64; a class with no row counts as one.

    ConfigError unless `counts` are one finite number >= 0 a class, and not all 0.
    """
    counts_K = counts.detach().to(torch.float64)
    good = counts_K.ndim == 1 and bool((counts_K.isfinite() & (counts_K >= 0)).all())
    if not good or not counts_K.sum() > 0:
        raise ConfigError(f"counts: found {counts.tolist()}, allowed: the rows of each class, not all 0")
    counts_K = counts_K.clamp(min=1)
    return (counts_K / counts_K.sum()).log()
