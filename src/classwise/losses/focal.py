"""Focal loss: a small loss where the true class is already probable, a large one where it is not."""

import math

import torch
from torch import Tensor

from classwise.errors import ConfigError
from classwise.losses.checks import check_batch
from classwise.losses.class_weighted import ClassWeightedLoss
from classwise.losses.labels import at_least_float32, label_sum
from classwise.losses.normalizer import Normalizer


class Focal(ClassWeightedLoss):
    """-w (1 - p)^gamma log p with p the softmax probability of the true class and w the weight of that class.

    Lin et al. 2017, 'Focal loss for dense object detection', equations 4 (no weight) and 5 (their alpha is `weight`
    (K,) here), with the softmax in place of the sigmoid. `gamma` >= 0; with 0 it is weighted cross entropy, and it is
    divided by the same normalizer. `weights_from_epoch` and `normalize_by`: see `ClassWeightedLoss`.
    """

    additive: bool = True
    terms: int = 1
    soft_targets: bool = True
    likelihood_scale: float = 1.0

    def __init__(
        self,
        gamma: float = 2.0,
        weight: Tensor | None = None,
        weights_from_epoch: int = 1,
        normalize_by: str = "weights",
    ) -> None:
        super().__init__(weight, weights_from_epoch, normalize_by)
        if not (math.isfinite(gamma) and gamma >= 0):
            raise ConfigError(f"gamma: found {gamma}, allowed: a finite number >= 0")
        self.gamma = gamma

    def forward(self, logits_BK: Tensor, labels: Tensor, normalizer: Normalizer | None = None) -> Tensor:
        """The summed loss of `logits_BK` and `labels`, hard (B,) or soft (B, K), divided by `normalizer` (default: that
        of this batch); a scalar. Raises ValueError for shapes that do not fit."""
        check_batch(logits_BK, labels, None if self.weight is None else len(self.weight))
        log_p_BK = at_least_float32(logits_BK).log_softmax(dim=1)
        loss_BK = -(self.gamma * log_one_minus_p(log_p_BK)).exp() * log_p_BK
        total = label_sum(loss_BK, labels, self.active_weight)
        normalizer = self.normalizer(labels) if normalizer is None else normalizer
        return normalizer.divide(total)


def log_one_minus_p(log_p_BK: Tensor) -> Tensor:
    """log(1 - p) of every class (B, K), accurate to the last digits also where p is near 1.

    (1 - p)^gamma = exp(gamma log(1 - p)) then has a finite gradient at p = 1 for every gamma, where d(1 - p)^gamma/dp
    is infinite for gamma below 1. Only the most probable class can come near 1: for it the probabilities of the others
    are added up. All other classes have p <= 1/2, where log1p keeps the digits.
    """
    top_B1 = log_p_BK.argmax(dim=1, keepdim=True)
    others_BK = log_p_BK.scatter(1, top_B1, torch.finfo(log_p_BK.dtype).min)
    rest_B1 = others_BK.logsumexp(dim=1, keepdim=True)
    return (-others_BK.exp()).log1p().scatter(1, top_B1, rest_B1)
