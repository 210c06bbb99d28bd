"""Generalized cross entropy: between cross entropy and mean absolute error, for noisy labels."""

from torch import Tensor

from classwise.losses.checks import as_number, check_batch
from classwise.losses.class_weighted import ClassWeightedLoss
from classwise.losses.labels import at_least_float32, label_sum
from classwise.losses.normalizer import Normalizer


class GeneralizedCrossEntropy(ClassWeightedLoss):
    """w (1 - p^q) / q with p the softmax probability of the label and w the weight of its class.

    Zhang and Sabuncu 2018, 'Generalized cross entropy loss for training deep neural networks with noisy labels',
    equation 6. `q` in (0, 1]: with 1 it is 1 - p, which is robust to wrong labels but learns slowly; towards 0 it
    becomes cross entropy. A row's gradient is that of cross entropy times p^q, so a label that the model finds very
    improbable has little influence. `weight` (K,), `weights_from_epoch` and `normalize_by`: see `ClassWeightedLoss`.
    """

    additive: bool = True
    terms: int = 1
    soft_targets: bool = True
    likelihood_scale: float = 1.0

    def __init__(
        self,
        q: float = 0.7,
        weight: Tensor | None = None,
        weights_from_epoch: int = 1,
        normalize_by: str = "weights",
    ) -> None:
        super().__init__(weight, weights_from_epoch, normalize_by)
        self.q = as_number(q, "q", low=0, high=1, above=True)

    def forward(self, logits_BK: Tensor, labels: Tensor, normalizer: Normalizer | None = None) -> Tensor:
        """The summed loss of `logits_BK` and `labels`, hard (B,) or soft (B, K), divided by `normalizer` (default: that
        of this batch); a scalar. Raises ValueError for shapes that do not fit."""
        check_batch(logits_BK, labels, None if self.weight is None else len(self.weight))
        log_p_BK = at_least_float32(logits_BK).log_softmax(dim=1)
        # 1 - p^q by expm1 keeps its digits where p is near 1.
        loss_BK = -(self.q * log_p_BK).expm1() / self.q
        total = label_sum(loss_BK, labels, self.active_weight)
        normalizer = self.normalizer(labels) if normalizer is None else normalizer
        return normalizer.divide(total)
