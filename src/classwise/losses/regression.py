"""Losses of a number, and the step from the user's unit to the standardized one that the model works in."""

import math
from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classwise.errors import ConfigError
from classwise.losses.base import Loss, check_part
from classwise.losses.checks import as_number, check_column
from classwise.losses.labels import at_least_float32
from classwise.losses.normalizer import Normalizer

# All of them take outputs (B, 1) and targets (B,), NaN where unknown; the sum over the known rows is divided by
# their number. A mixed image's target is the mixture of both numbers, which is a number like any other.


class SquaredError(nn.Module):
    """(x - y)^2: `torch.nn.MSELoss`."""

    additive: bool = True
    terms: int = 1
    soft_targets: bool = True
    likelihood_scale: float = 0.5

    def normalizer(self, targets_B: Tensor, complete: bool = False) -> Normalizer:
        """The number of known rows."""
        return known_normalizer(targets_B)

    def forward(self, outputs_B1: Tensor, targets_B: Tensor, normalizer: Normalizer | None = None) -> Tensor:
        """The sum over the known rows, divided by `normalizer` (1,)."""
        return over_known(Tensor.square, outputs_B1, targets_B, normalizer)


class AbsoluteError(nn.Module):
    """|x - y|: `torch.nn.L1Loss`."""

    additive: bool = True
    terms: int = 1
    soft_targets: bool = True
    likelihood_scale: float = 0.5

    def normalizer(self, targets_B: Tensor, complete: bool = False) -> Normalizer:
        """The number of known rows."""
        return known_normalizer(targets_B)

    def forward(self, outputs_B1: Tensor, targets_B: Tensor, normalizer: Normalizer | None = None) -> Tensor:
        """The sum over the known rows, divided by `normalizer` (1,)."""
        return over_known(Tensor.abs, outputs_B1, targets_B, normalizer)


class SmoothL1(nn.Module):
    """d^2 / (2 beta) where d = |x - y| < beta, else d - beta / 2: `torch.nn.SmoothL1Loss`. `beta` > 0.

    Girshick 2015, 'Fast R-CNN', equation 3, has beta = 1. For large differences it is the absolute error.
    """

    additive: bool = True
    terms: int = 1
    soft_targets: bool = True
    likelihood_scale: float = 0.5

    def __init__(self, beta: float = 1.0) -> None:
        super().__init__()
        self.beta = as_number(beta, "beta", 0, above=True)

    def normalizer(self, targets_B: Tensor, complete: bool = False) -> Normalizer:
        """The number of known rows."""
        return known_normalizer(targets_B)

    def forward(self, outputs_B1: Tensor, targets_B: Tensor, normalizer: Normalizer | None = None) -> Tensor:
        """The sum over the known rows, divided by `normalizer` (1,)."""
        return over_known(lambda d_B: _huber(d_B, self.beta) / self.beta, outputs_B1, targets_B, normalizer)


class Huber(nn.Module):
    """d^2 / 2 where d = |x - y| < delta, else delta (d - delta / 2): `torch.nn.HuberLoss`. `delta` > 0.

    Huber 1964, 'Robust estimation of a location parameter'. For small differences it is half the squared error.
    """

    additive: bool = True
    terms: int = 1
    soft_targets: bool = True
    likelihood_scale: float = 0.5

    def __init__(self, delta: float = 1.0) -> None:
        super().__init__()
        self.delta = as_number(delta, "delta", 0, above=True)

    def normalizer(self, targets_B: Tensor, complete: bool = False) -> Normalizer:
        """The number of known rows."""
        return known_normalizer(targets_B)

    def forward(self, outputs_B1: Tensor, targets_B: Tensor, normalizer: Normalizer | None = None) -> Tensor:
        """The sum over the known rows, divided by `normalizer` (1,)."""
        return over_known(lambda d_B: _huber(d_B, self.delta), outputs_B1, targets_B, normalizer)


class Standardized(nn.Module):
    """`loss` of targets (y - mean) / std: the model works around 0, the table keeps the user's unit.

    `mean` (finite) and `std` (> 0) are those of the training rows, in the user's unit. What `loss` measures,
    such as the delta of Huber, is then in standard deviations.
    """

    def __init__(self, loss: nn.Module, mean: float, std: float) -> None:
        super().__init__()
        check_part(loss, "standardized loss")
        if not math.isfinite(mean):
            raise ConfigError(f"mean of the target: found {mean}, allowed: a finite number")
        self.mean, self.std = mean, as_number(std, "standard deviation of the target", 0, above=True)
        self.loss = loss
        self.additive: bool = self._inner().additive
        self.terms: int = self._inner().terms
        self.soft_targets: bool = self._inner().soft_targets
        self.likelihood_scale: float = self._inner().likelihood_scale

    def normalizer(self, targets_B: Tensor, complete: bool = False) -> Normalizer:
        """The normalizer of `loss`: shape (terms,), float64."""
        return self._inner().normalizer(targets_B)

    def forward(self, outputs_B1: Tensor, targets_B: Tensor, normalizer: Normalizer | None = None) -> Tensor:
        """The value of `loss` for `outputs_B1` (B, 1), standardized, and `targets_B` (B,) in the user's unit."""
        _check(outputs_B1, targets_B)
        # In float64: a year such as 2024 less its mean would keep three digits in float32.
        return self._inner()(outputs_B1, (targets_B.double() - self.mean) / self.std, normalizer)

    def _inner(self) -> Loss:
        return cast(Loss, self.loss)


def known_normalizer(targets_B: Tensor) -> Normalizer:
    """The number of known rows."""
    return Normalizer((~targets_B.isnan()).sum(dtype=torch.float64).reshape(1))


def over_known(
    of_difference: Callable[[Tensor], Tensor],
    outputs_B1: Tensor,
    targets_B: Tensor,
    normalizer: Normalizer | None,
) -> Tensor:
    """The sum over the known rows of a function of x - y that is 0 at 0, divided by `normalizer` (1,)."""
    _check(outputs_B1, targets_B)
    outputs_B = at_least_float32(outputs_B1).squeeze(1)
    known_B = ~targets_B.isnan()
    # The target is replaced before the difference is taken: no NaN can reach the gradient.
    known_targets_B = torch.where(known_B, targets_B, 0).to(outputs_B.dtype)
    difference_B = torch.where(known_B, outputs_B - known_targets_B, 0)
    normalizer = known_normalizer(targets_B) if normalizer is None else normalizer
    return normalizer.divide(of_difference(difference_B).sum())


def _check(outputs_B1: Tensor, targets_B: Tensor) -> None:
    what = "targets (B,), floating, NaN where unknown"
    check_column(outputs_B1, targets_B, (len(targets_B),), what, floating=True)


def _huber(difference_B: Tensor, delta: float) -> Tensor:
    return F.huber_loss(difference_B, torch.zeros_like(difference_B), reduction="none", delta=delta)
