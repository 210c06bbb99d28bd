"""LDAM: the rarer a class, the larger the margin by which its logit has to win."""

from torch import Tensor

from classwise.errors import ConfigError
from classwise.losses.checks import as_counts, as_number, check_batch
from classwise.losses.class_weighted import ClassWeightedLoss
from classwise.losses.cross_entropy import cross_entropy_sum
from classwise.losses.labels import at_least_float32, is_labeled, label_index
from classwise.losses.normalizer import Normalizer


class LDAM(ClassWeightedLoss):
    """Weighted cross entropy of `scale` * (logits, less the margin of the true class on its logit).

    Cao et al. 2019, 'Learning imbalanced datasets with label-distribution-aware margin loss', section 3.2: the margin
    of class k is C / n_k^(1/4), with n the `counts` (K,) of the training set and C such that the largest margin is
    `max_margin` (> 0). A class without rows gets `max_margin`. `scale` (> 0) is the authors' s: in their code the
    logits are cosines of normalized features and weights, in [-1, 1], and 30 makes the softmax sharp again. Use 1 for
    ordinary logits.

    `weight` (K,) with `weights_from_epoch` is their deferred re-weighting, LDAM-DRW (section 3.3); their code takes
    effective weights with a beta of 0.9999, and divides by the summed weights. `normalize_by`: see `ClassWeightedLoss`.

    Hard labels only: the margin is that of the one true class of a row.
    """

    additive: bool = True
    terms: int = 1
    soft_targets: bool = False
    likelihood_scale: float = 1.0
    margin: Tensor

    def __init__(
        self,
        counts: Tensor,
        max_margin: float = 0.5,
        scale: float = 30.0,
        weight: Tensor | None = None,
        weights_from_epoch: int = 1,
        normalize_by: str = "weights",
    ) -> None:
        super().__init__(weight, weights_from_epoch, normalize_by)
        self.scale = as_number(scale, "scale", low=0, above=True)
        max_margin = as_number(max_margin, "max_margin", low=0, above=True)
        self.register_buffer("margin", _relative_margins(counts) * max_margin)
        if self.weight is not None and len(self.weight) != len(self.margin):
            raise ConfigError(f"class weights: {len(self.weight)} numbers for {len(self.margin)} classes")

    def normalizer(self, labels_B: Tensor, complete: bool = False) -> Normalizer:
        """As of every class-weighted loss, but counted even if `complete`: this loss has no torch mean to take a
        shortcut to."""
        return super().normalizer(labels_B)

    def forward(self, logits_BK: Tensor, labels_B: Tensor, normalizer: Normalizer | None = None) -> Tensor:
        """The summed loss of `logits_BK` and `labels_B`, divided by `normalizer` (default: that of this batch); a
        scalar. Raises ValueError for shapes that do not fit."""
        check_batch(logits_BK, labels_B, len(self.margin), soft=False)
        logits_BK = at_least_float32(logits_BK)

        # Only the true class's logit is lowered; an unlabeled row has none.
        label_B1 = label_index(labels_B).unsqueeze(1)
        margin_B1 = self.margin.to(logits_BK.dtype).gather(0, label_B1.squeeze(1)).unsqueeze(1)
        shifted_BK = logits_BK.scatter_add(1, label_B1, -margin_B1 * is_labeled(labels_B).unsqueeze(1))

        total = cross_entropy_sum(self.scale * shifted_BK, labels_B, self.active_weight)
        normalizer = self.normalizer(labels_B) if normalizer is None else normalizer
        return normalizer.divide(total)


def _relative_margins(counts: Tensor) -> Tensor:
    """n^(-1/4) divided by its largest value (K,), float64. Raises ConfigError for invalid counts."""
    counts_K = as_counts(counts)
    fewest = counts_K[counts_K > 0].min()
    return (fewest / counts_K.clamp(min=float(fewest))) ** 0.25
