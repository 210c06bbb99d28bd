"""Balanced softmax: the class counts of the training set enter the softmax instead of class weights."""

from torch import Tensor, nn

from classwise.losses.labels import label_normalizer
from classwise.losses.logit_adjustment import adjusted_loss, log_prior
from classwise.losses.normalizer import Normalizer


class BalancedSoftmax(nn.Module):
    """Cross entropy of logits + log prior (Ren et al. 2020, 'Balanced meta-softmax', equations 3 and 4).

    `counts` (K,): the rows of each class in the training set. Because the logarithm of the class frequencies is added
    during training, the logits learn no bias towards frequent classes, and inference uses them unchanged. It is logit
    adjustment with tau = 1, derived in another way.

    A class without rows counts as one row: with a prior of 0 it would not enter the softmax, nothing would push its
    logit down, and inference, which adds no prior, could predict it anywhere.
    """

    additive: bool = True
    terms: int = 1
    soft_targets: bool = True
    likelihood_scale: float = 1.0
    log_prior: Tensor

    def __init__(self, counts: Tensor) -> None:
        super().__init__()
        self.register_buffer("log_prior", log_prior(counts))

    def normalizer(self, labels: Tensor, complete: bool = False) -> Normalizer:
        """The number of labeled rows."""
        return label_normalizer(labels, complete=complete)

    def forward(self, logits_BK: Tensor, labels: Tensor, normalizer: Normalizer | None = None) -> Tensor:
        """The summed loss of `logits_BK` and `labels`, hard (B,) or soft (B, K), divided by `normalizer` (default: that
        of this batch); a scalar. Raises ValueError for shapes that do not fit."""
        return adjusted_loss(logits_BK, labels, self.log_prior, normalizer)
