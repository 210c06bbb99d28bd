"""Cross entropy with class weights and label smoothing, on sums."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classwise.errors import ConfigError
from classwise.losses.base import deferred
from classwise.losses.checks import as_epoch, as_weight, check_batch
from classwise.losses.labels import IGNORED, at_least_float32, is_soft, label_normalizer, label_sum
from classwise.losses.normalizer import Normalizer


class CrossEntropy(nn.Module):
    """`torch.nn.functional.cross_entropy`, with the normalizer that its mean divides by in the caller's hands.

    `weight` (K,): one factor for each class, used from the epoch `weights_from_epoch` on (deferred re-weighting,
    see `normalizer.deferred`). `label_smoothing` in [0, 1]: the share of the target that is spread evenly over all
    classes (Szegedy et al. 2016, section 7). As in torch, weights apply to the spread share class by class,
    while the normalizer stays the sum of the weights of the rows' own classes.
    """

    additive: bool = True
    terms: int = 1
    soft_targets: bool = True
    likelihood_scale: float = 1.0
    weight: Tensor | None

    def __init__(
        self, weight: Tensor | None = None, label_smoothing: float = 0.0, weights_from_epoch: int = 1
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing <= 1:
            raise ConfigError(f"label_smoothing: found {label_smoothing}, allowed: 0 to 1")
        self.label_smoothing = label_smoothing
        self.weights_from_epoch = as_epoch(weights_from_epoch)
        self.epoch = 0
        self.register_buffer("weight", as_weight(weight))

    def set_epoch(self, epoch: int) -> None:
        """Called at the start of every epoch, counted from 0."""
        self.epoch = epoch

    def normalizer(self, labels: Tensor, complete: bool = False) -> Normalizer:
        """The sum of the weights of the labeled rows."""
        return label_normalizer(
            labels, deferred(self.weight, self.weights_from_epoch, self.epoch), complete=complete
        )

    def forward(self, logits_BK: Tensor, labels: Tensor, normalizer: Normalizer | None = None) -> Tensor:
        """The sum over the rows of `logits_BK` with `labels`, (B,) or soft (B, K), divided by `normalizer` (1,)."""
        if normalizer is not None and normalizer.is_row_count and self.weight is None:
            return F.cross_entropy(at_least_float32(logits_BK), labels, label_smoothing=self.label_smoothing)
        check_batch(logits_BK, labels, None if self.weight is None else len(self.weight))
        logits_BK = at_least_float32(logits_BK)
        weight_K = deferred(self.weight, self.weights_from_epoch, self.epoch)
        total = cross_entropy_sum(logits_BK, labels, weight_K, self.label_smoothing)
        normalizer = self.normalizer(labels) if normalizer is None else normalizer
        return normalizer.divide(total)


def cross_entropy_sum(
    logits_BK: Tensor, labels: Tensor, weight_K: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """The sum of the rows' cross entropies, a scalar: torch's own, and linear in soft labels.

    Torch spreads the smoothing over a row of soft labels as if it always summed to 1; here a row that is known
    in part counts in part.
    """
    weight_K = None if weight_K is None else weight_K.to(logits_BK.dtype)
    if not is_soft(labels):
        return F.cross_entropy(
            logits_BK,
            labels if labels.dtype == torch.int64 else labels.long(),
            weight_K,
            ignore_index=IGNORED,
            reduction="sum",
            label_smoothing=label_smoothing,
        )
    loss_BK = -logits_BK.log_softmax(dim=1)
    loss_BK = loss_BK if weight_K is None else loss_BK * weight_K
    spread_BK = loss_BK.mean(dim=1, keepdim=True).expand_as(loss_BK)
    return label_sum(loss_BK.lerp(spread_BK, label_smoothing), labels)
