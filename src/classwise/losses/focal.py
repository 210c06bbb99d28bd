"""Focal loss: little loss where the true class is already probable, much where it is not."""

import math

import torch
from torch import Tensor, nn

from classwise.errors import ConfigError
from classwise.losses.base import deferred
from classwise.losses.checks import as_epoch, as_weight, check_batch
from classwise.losses.labels import at_least_float32, label_normalizer, label_sum
from classwise.losses.normalizer import Normalizer


class Focal(nn.Module):
    """-w (1 - p)^gamma log p with p the softmax probability of the true class and w the weight of that class.

    Lin et al. 2017, 'Focal loss for dense object detection', equations 4 (no weight) and 5 (their alpha is
    `weight` (K,) here), carried from the sigmoid to the softmax. `gamma` >= 0; with 0 it is weighted cross
    entropy, and it is divided by the same normalizer: the sum of the weights of the labeled rows. The weights are
    used from the epoch `weights_from_epoch` on (deferred re-weighting, see `normalizer.deferred`).
    """

    additive: bool = True
    terms: int = 1
    soft_targets: bool = True
    likelihood_scale: float = 1.0
    weight: Tensor | None

    def __init__(self, gamma: float = 2.0, weight: Tensor | None = None, weights_from_epoch: int = 1) -> None:
        super().__init__()
        if not (math.isfinite(gamma) and gamma >= 0):
            raise ConfigError(f"gamma: found {gamma}, allowed: a finite number >= 0")
        self.gamma = gamma
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
        loss_BK = -(self.gamma * log_of_the_rest(log_p_BK)).exp() * log_p_BK
        total = label_sum(loss_BK, labels, deferred(self.weight, self.weights_from_epoch, self.epoch))
        normalizer = self.normalizer(labels) if normalizer is None else normalizer
        return normalizer.divide(total)


def log_of_the_rest(log_p_BK: Tensor) -> Tensor:
    """log(1 - p) of every class (B, K), to the last digits also where p is near 1.

    (1 - p)^gamma = exp(gamma log(1 - p)) then has a finite gradient at p = 1 for every gamma, where
    d(1 - p)^gamma/dp is infinite below 1. Only the likeliest class can come near 1: for it the others are added
    up; all others have p <= 1/2, and log1p keeps their digits.
    """
    top_B1 = log_p_BK.argmax(dim=1, keepdim=True)
    others_BK = log_p_BK.scatter(1, top_B1, torch.finfo(log_p_BK.dtype).min)
    rest_B1 = others_BK.logsumexp(dim=1, keepdim=True)
    return (-others_BK.exp()).log1p().scatter(1, top_B1, rest_B1)
