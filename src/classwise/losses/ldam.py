"""LDAM: the rarer a class, the larger the margin by which its logit has to win."""

import torch
from torch import Tensor, nn

from classwise.errors import ConfigError
from classwise.losses.base import deferred
from classwise.losses.checks import as_epoch, as_number, as_weight, check_batch
from classwise.losses.cross_entropy import cross_entropy_sum
from classwise.losses.labels import at_least_float32, is_known, label_index, label_normalizer
from classwise.losses.normalizer import Normalizer


class LDAM(nn.Module):
    """Weighted cross entropy of `scale` * (logits - margin of the true class on its own logit).

    Cao et al. 2019, 'Learning imbalanced datasets with label-distribution-aware margin loss', section 3.2: the
    margin of class k is C / n_k^(1/4), n the `counts` (K,) of the training set, and C such that the largest one
    is `max_margin` (> 0). `scale` (> 0) is the authors' s: in their code the logits are cosines of
    normalized features and weights, in [-1, 1], and 30 opens the softmax again. For plain logits take 1.

    `weight` (K,) with `weights_from_epoch` is their deferred re-weighting, LDAM-DRW (section 3.3). Divided by the
    sum of the weights of the labeled rows. A class with no row gets `max_margin`.

    Hard labels only: a row has one true class, which the margin is taken from.
    """

    additive: bool = True
    terms: int = 1
    soft_targets: bool = False
    likelihood_scale: float = 1.0
    weight: Tensor | None
    margin: Tensor

    def __init__(
        self,
        counts: Tensor,
        max_margin: float = 0.5,
        scale: float = 30.0,
        weight: Tensor | None = None,
        weights_from_epoch: int = 1,
    ) -> None:
        super().__init__()
        self.scale = as_number(scale, "scale", 0, above=True)
        self.weights_from_epoch = as_epoch(weights_from_epoch)
        self.epoch = 0
        self.register_buffer("margin", _margins(counts) * as_number(max_margin, "max_margin", 0, above=True))
        self.register_buffer("weight", as_weight(weight))
        if self.weight is not None and len(self.weight) != len(self.margin):
            raise ConfigError(f"class weights: {len(self.weight)} numbers for {len(self.margin)} classes")

    def set_epoch(self, epoch: int) -> None:
        """Called at the start of every epoch, counted from 0."""
        self.epoch = epoch

    def normalizer(self, labels_B: Tensor, complete: bool = False) -> Normalizer:
        """The sum of the weights of the labeled rows."""
        return label_normalizer(labels_B, deferred(self.weight, self.weights_from_epoch, self.epoch))

    def forward(self, logits_BK: Tensor, labels_B: Tensor, normalizer: Normalizer | None = None) -> Tensor:
        """The sum over the rows of `logits_BK` (B, K) with `labels_B` (B,), divided by `normalizer` (1,)."""
        check_batch(logits_BK, labels_B, len(self.margin), soft=False)
        logits_BK = at_least_float32(logits_BK)
        label_B1 = label_index(labels_B).unsqueeze(1)
        margin_B1 = self.margin.to(logits_BK.dtype).gather(0, label_B1.squeeze(1)).unsqueeze(1)
        shifted_BK = logits_BK.scatter_add(1, label_B1, -margin_B1 * is_known(labels_B).unsqueeze(1))
        weight_K = deferred(self.weight, self.weights_from_epoch, self.epoch)
        total = cross_entropy_sum(self.scale * shifted_BK, labels_B, weight_K)
        normalizer = self.normalizer(labels_B) if normalizer is None else normalizer
        return normalizer.divide(total)


def _margins(counts: Tensor) -> Tensor:
    """n^(-1/4) over its largest value (K,), float64; ConfigError for counts that are none."""
    counts_K = counts.detach().to(torch.float64)
    good = counts_K.ndim == 1 and bool((counts_K.isfinite() & (counts_K >= 0)).all())
    if not good or not counts_K.sum() > 0:
        raise ConfigError(f"counts: found {counts.tolist()}, allowed: the rows of each class, not all 0")
    fewest = counts_K[counts_K > 0].min()
    return (fewest / counts_K.clamp(min=float(fewest))) ** 0.25
