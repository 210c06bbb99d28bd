"""Generalized cross entropy: between cross entropy and mean absolute error, for noisy labels."""

from torch import Tensor, nn

from classwise.losses.base import deferred
from classwise.losses.checks import as_epoch, as_number, as_weight, check_batch
from classwise.losses.labels import at_least_float32, label_normalizer, label_sum
from classwise.losses.normalizer import Normalizer


class GeneralizedCrossEntropy(nn.Module):
    """w (1 - p^q) / q with p the softmax probability of the label and w the weight of its class.

    Zhang and Sabuncu 2018, 'Generalized cross entropy loss for training deep neural networks with noisy labels',
    equation 6. `q` in (0, 1]: 1 is 1 - p, which shrugs off wrong labels but learns slowly; towards 0 it becomes
    cross entropy. A row's gradient is that of cross entropy times p^q, so a label that the model finds absurd
    pulls little. Divided by the sum of the weights of the labeled rows; `weight` (K,) is used from the epoch
    `weights_from_epoch` on (deferred re-weighting, see `normalizer.deferred`).
    """

    additive: bool = True
    terms: int = 1
    soft_targets: bool = True
    likelihood_scale: float = 1.0
    weight: Tensor | None

    def __init__(self, q: float = 0.7, weight: Tensor | None = None, weights_from_epoch: int = 1) -> None:
        super().__init__()
        self.q = as_number(q, "q", 0, 1, above=True)
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
        check_batch(logits_BK, labels, None if self.weight is None else len(self.weight))
        log_p_BK = at_least_float32(logits_BK).log_softmax(dim=1)
        # 1 - p^q as expm1 keeps its digits where p is near 1.
        loss_BK = -(self.q * log_p_BK).expm1() / self.q
        total = label_sum(loss_BK, labels, deferred(self.weight, self.weights_from_epoch, self.epoch))
        normalizer = self.normalizer(labels) if normalizer is None else normalizer
        return normalizer.divide(total)
