"""Focal loss: little loss where the true class is already probable, much where it is not."""

import math

import torch
from torch import Tensor, nn

from classwise.errors import ConfigError
from classwise.losses.mass import (
    as_weight,
    at_least_float32,
    check_batch,
    label_index,
    label_mass,
    over_mass,
    row_weights,
)


class Focal(nn.Module):
    """-w (1 - p)^gamma log p with p the softmax probability of the true class and w the weight of that class.

    Lin et al. 2017, 'Focal loss for dense object detection', equations 4 (no weight) and 5 (their alpha is
    `weight` (K,) here), carried from the sigmoid to the softmax. `gamma` >= 0; with 0 it is weighted cross
    entropy, and it is divided by the same mass: the sum of the weights of the labelled rows.
    """

    additive: bool = True
    terms: int = 1
    weight: Tensor | None

    def __init__(self, gamma: float = 2.0, weight: Tensor | None = None) -> None:
        super().__init__()
        if not (math.isfinite(gamma) and gamma >= 0):
            raise ConfigError(f"gamma: found {gamma}, allowed: a finite number >= 0")
        self.gamma = gamma
        self.register_buffer("weight", as_weight(weight))

    def mass(self, labels_B: Tensor) -> Tensor:
        """The sum of the weights of the labelled rows: shape (1,), float64."""
        return label_mass(labels_B, self.weight)

    def forward(self, logits_BK: Tensor, labels_B: Tensor, mass: Tensor | None = None) -> Tensor:
        """The sum over the rows of `logits_BK` (B, K) with `labels_B` (B,), divided by `mass` (1,)."""
        check_batch(logits_BK, labels_B, None if self.weight is None else len(self.weight))
        log_p_BK = at_least_float32(logits_BK).log_softmax(dim=1)
        label_B1 = label_index(labels_B).unsqueeze(1)
        log_p_B = log_p_BK.gather(1, label_B1).squeeze(1)
        # log(1 - p) as the log-sum of the other classes: (1 - p)^gamma = exp(gamma log(1 - p)) then has a finite
        # gradient at p = 1 for every gamma, where d(1 - p)^gamma/dp is infinite below 1, and keeps its digits.
        log_rest_B = log_p_BK.scatter(1, label_B1, torch.finfo(log_p_BK.dtype).min).logsumexp(dim=1)
        loss_B = -(self.gamma * log_rest_B).exp() * log_p_B
        total = (row_weights(labels_B, self.weight, loss_B.dtype) * loss_B).sum()
        return over_mass(total, self.mass(labels_B) if mass is None else mass)
