"""The part that losses with class weights share: the weights, and the epoch from which they apply."""

from torch import Tensor, nn

from classwise.losses.checks import as_epoch, as_weight
from classwise.losses.labels import label_normalizer
from classwise.losses.normalizer import Normalizer


class ClassWeightedLoss(nn.Module):
    """Abstract base of the losses with class weights; a subclass adds `forward`.

    `weight` (K,): one factor per class, or None for no weights. They apply from the epoch `weights_from_epoch`,
    counted from 1; before that the loss is unweighted. This is deferred re-weighting (Cao et al. 2019, 'Learning
    imbalanced datasets with label-distribution-aware margin loss', section 3.3): the features are learned unweighted,
    and the weights then move the decision boundaries.

    Raises ConfigError for weights that are not finite and >= 0, and for an epoch below 1.
    """

    weight: Tensor | None

    def __init__(self, weight: Tensor | None, weights_from_epoch: int) -> None:
        super().__init__()
        self.weights_from_epoch = as_epoch(weights_from_epoch)
        self.epoch = 0
        self.register_buffer("weight", as_weight(weight))

    @property
    def active_weight(self) -> Tensor | None:
        """The class weights (K,) that apply in the current epoch, or None."""
        return self.weight if self.epoch + 1 >= self.weights_from_epoch else None

    def set_epoch(self, epoch: int) -> None:
        """Called at the start of every epoch, counted from 0."""
        self.epoch = epoch

    def normalizer(self, labels: Tensor, complete: bool = False) -> Normalizer:
        """The summed weights of the labeled rows; without active weights, their number."""
        return label_normalizer(labels, self.active_weight, complete)
