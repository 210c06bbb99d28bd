"""Logit adjustment: the class frequencies of the training set enter the softmax instead of class weights."""

import torch.nn.functional as F
from torch import Tensor, nn

from classwise.losses.checks import as_counts, as_number, check_batch
from classwise.losses.cross_entropy import cross_entropy_sum
from classwise.losses.labels import at_least_float32, label_normalizer
from classwise.losses.normalizer import Normalizer


class LogitAdjustment(nn.Module):
    """Cross entropy of logits + tau * log prior (Menon et al. 2021, 'Long-tail learning via logit adjustment',
    equation 10); the prior is n_k / N with n the `counts` (K,), the rows of each class in the training set.

    `tau` >= 0: 1 minimizes the balanced error and is balanced softmax, 0 is plain cross entropy. Inference uses the
    logits unchanged: they were learned without what the prior explains.

    A class without rows counts as one row: with a prior of 0 it would not enter the softmax, nothing would push its
    logit down, and inference, which adds no prior, could predict it anywhere.
    """

    additive: bool = True
    terms: int = 1
    soft_targets: bool = True
    likelihood_scale: float = 1.0
    log_prior: Tensor

    def __init__(self, counts: Tensor, tau: float = 1.0) -> None:
        super().__init__()
        self.tau = as_number(tau, "tau", low=0)
        self.register_buffer("log_prior", log_prior(counts))

    def normalizer(self, labels: Tensor, complete: bool = False) -> Normalizer:
        """The number of labeled rows."""
        return label_normalizer(labels, complete=complete)

    def forward(self, logits_BK: Tensor, labels: Tensor, normalizer: Normalizer | None = None) -> Tensor:
        """The summed loss of `logits_BK` and `labels`, hard (B,) or soft (B, K), divided by `normalizer` (default: that
        of this batch); a scalar. Raises ValueError for shapes that do not fit."""
        return adjusted_loss(logits_BK, labels, self.tau * self.log_prior, normalizer)


def adjusted_loss(
    logits_BK: Tensor, labels: Tensor, shift_K: Tensor, normalizer: Normalizer | None = None
) -> Tensor:
    """The summed cross entropies of logits + shift, divided by `normalizer` (default: that of this batch); a scalar."""
    check_batch(logits_BK, labels, len(shift_K))
    logits_BK = at_least_float32(logits_BK)
    logits_BK = logits_BK + shift_K.to(logits_BK.dtype)
    # Where every row is labeled, torch's mean is the same number in fewer operations.
    if normalizer is not None and normalizer.is_row_count:
        return F.cross_entropy(logits_BK, labels)
    normalizer = label_normalizer(labels) if normalizer is None else normalizer
    return normalizer.divide(cross_entropy_sum(logits_BK, labels))


def log_prior(counts: Tensor) -> Tensor:
    """The logarithm of each class's share (K,), float64; a class without rows counts as one row.

    ConfigError unless `counts` are one finite number >= 0 per class, and not all 0.
    """
    counts_K = as_counts(counts).clamp(min=1)
    return (counts_K / counts_K.sum()).log()
