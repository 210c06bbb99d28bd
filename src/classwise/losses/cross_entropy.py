"""Cross entropy with class weights and label smoothing, as a sum divided by a given normalizer."""

import torch
import torch.nn.functional as F
from torch import Tensor

from classwise.errors import ConfigError
from classwise.losses.checks import check_batch
from classwise.losses.class_weighted import ClassWeightedLoss
from classwise.losses.labels import IGNORED, at_least_float32, is_soft, label_sum
from classwise.losses.normalizer import Normalizer


class CrossEntropy(ClassWeightedLoss):
    """`torch.nn.functional.cross_entropy`, but the caller may set the normalizer that its mean divides by.

    `weight` (K,), `weights_from_epoch` and `normalize_by`: see `ClassWeightedLoss`. `label_smoothing` in [0, 1]: the
    share of the target that is spread evenly over all classes (Szegedy et al. 2016, section 7). As in torch, weights
    apply to the spread share class by class, while the normalizer takes the rows' own classes only.
    """

    additive: bool = True
    terms: int = 1
    soft_targets: bool = True
    likelihood_scale: float = 1.0

    def __init__(
        self,
        weight: Tensor | None = None,
        label_smoothing: float = 0.0,
        weights_from_epoch: int = 1,
        normalize_by: str = "weights",
    ) -> None:
        super().__init__(weight, weights_from_epoch, normalize_by)
        if not 0 <= label_smoothing <= 1:
            raise ConfigError(f"label_smoothing: found {label_smoothing}, allowed: 0 to 1")
        self.label_smoothing = label_smoothing

    def forward(self, logits_BK: Tensor, labels: Tensor, normalizer: Normalizer | None = None) -> Tensor:
        """The summed loss of `logits_BK` and `labels`, hard (B,) or soft (B, K), divided by `normalizer` (default: that
        of this batch); a scalar. Raises ValueError for shapes that do not fit."""
        # Where nothing is unlabeled or weighted, torch's mean is the same number in fewer operations.
        if normalizer is not None and normalizer.is_row_count and not self.is_weighted:
            return F.cross_entropy(at_least_float32(logits_BK), labels, label_smoothing=self.label_smoothing)

        check_batch(logits_BK, labels, None if self.weight is None else len(self.weight))
        total = cross_entropy_sum(
            at_least_float32(logits_BK), labels, self.active_weight, self.label_smoothing
        )
        normalizer = self.normalizer(labels) if normalizer is None else normalizer
        return normalizer.divide(total)


def cross_entropy_sum(
    logits_BK: Tensor, labels: Tensor, weight_K: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """The summed cross entropies of the rows, a scalar: torch's own for hard labels, and linear in soft ones."""
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

    # Torch spreads the smoothing over a row of soft labels as if it always summed to 1; here a row with an unknown
    # share counts by its known share only.
    loss_BK = -logits_BK.log_softmax(dim=1)
    loss_BK = loss_BK if weight_K is None else loss_BK * weight_K
    spread_BK = loss_BK.mean(dim=1, keepdim=True).expand_as(loss_BK)
    return label_sum(loss_BK.lerp(spread_BK, label_smoothing), labels)
