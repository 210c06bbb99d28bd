"""The part that losses with class weights share: the weights, the epoch from which they apply, and the normalizer."""

from torch import Tensor, nn

from classwise.losses.checks import as_epoch, as_normalize_by, as_weight
from classwise.losses.labels import label_normalizer
from classwise.losses.normalizer import Normalizer


class ClassWeightedLoss(nn.Module):
    """Abstract base of the losses with class weights; a subclass adds `forward`.

    `weight` (K,): one factor per class, or None for no weights. They apply from the epoch `weights_from_epoch`,
    counted from 1; before that the loss is unweighted. This is deferred re-weighting (Cao et al. 2019, 'Learning
    imbalanced datasets with label-distribution-aware margin loss', section 3.3): the features are learned unweighted,
    and the weights then move the decision boundaries.

    `normalize_by`: what the weighted sum over the rows of an update is divided by.

    "weights"  their summed weights, as `torch.nn.CrossEntropyLoss` does. A rare class then counts less than its weight
               says: the one row of it in a batch raises the sum that the batch is divided by. With weights of 100 and 1
               and a batch of 8 rows, its row adds at most 100 / 107 to the gradient; without it, each row adds 1 / 8.
    "rows"     their number, as Cui et al. 2019 do, 'Class-balanced loss based on effective number of samples'. The
               ratio of two weights is the ratio of what their rows add to the gradient, whatever the batch size. Scale
               the weights to a mean of 1 over the training rows to keep the scale of the loss.

    In evaluation mode (`eval()`) it is always the summed weights: over a whole data set this is the weighted mean,
    whose scale does not depend on the class frequencies of that set.

    Raises ConfigError for weights that are not finite and >= 0, an epoch below 1 and an unknown `normalize_by`.
    """

    weight: Tensor | None

    def __init__(self, weight: Tensor | None, weights_from_epoch: int, normalize_by: str = "weights") -> None:
        super().__init__()
        self.weights_from_epoch = as_epoch(weights_from_epoch)
        self.normalize_by = as_normalize_by(normalize_by)
        self.epoch = 0
        self.register_buffer("weight", as_weight(weight))
        # To look up a buffer takes longer than an attribute, and an unweighted loss asks in every update.
        self.is_weighted = weight is not None

    @property
    def active_weight(self) -> Tensor | None:
        """The class weights (K,) that apply in the current epoch, or None."""
        return self.weight if self.epoch + 1 >= self.weights_from_epoch else None

    def set_epoch(self, epoch: int) -> None:
        """Called at the start of every epoch, counted from 0."""
        self.epoch = epoch

    def normalizer(self, labels: Tensor, complete: bool = False) -> Normalizer:
        """The number of the labeled rows or, with active weights, what `normalize_by` says."""
        by_rows = self.training and self.normalize_by == "rows"
        return label_normalizer(labels, None if by_rows else self.active_weight, complete)
