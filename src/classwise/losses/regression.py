"""Losses of a number, and the conversion from the user's unit to the standardized one that the model works in.

All losses take outputs (B, 1) and targets (B,), NaN where unknown; the sum over the labeled rows is divided by their
number. Weighted targets are (B, 2), value and weight; the weighted sum is divided by the summed weights. The target of
a mixed image is the mixture of the two numbers, which is a number like any other.
"""

import math
from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classwise.errors import ConfigError
from classwise.losses.base import Loss, check_loss
from classwise.losses.checks import as_number, check_column
from classwise.losses.labels import at_least_float32, entry_normalizer, values_and_weights
from classwise.losses.normalizer import Normalizer


class SquaredError(nn.Module):
    """(x - y)^2: `torch.nn.MSELoss`."""

    additive: bool = True
    terms: int = 1
    soft_targets: bool = True
    likelihood_scale: float = 0.5

    def normalizer(self, targets_B: Tensor, complete: bool = False) -> Normalizer:
        """The number of labeled rows."""
        return entry_normalizer(targets_B, 1)

    def forward(self, outputs_B1: Tensor, targets_B: Tensor, normalizer: Normalizer | None = None) -> Tensor:
        """The summed loss, divided by `normalizer` (default: that of this batch); a scalar."""
        return sum_over_normalizer(Tensor.square, outputs_B1, targets_B, normalizer)


class AbsoluteError(nn.Module):
    """|x - y|: `torch.nn.L1Loss`."""

    additive: bool = True
    terms: int = 1
    soft_targets: bool = True
    likelihood_scale: float = 0.5

    def normalizer(self, targets_B: Tensor, complete: bool = False) -> Normalizer:
        """The number of labeled rows."""
        return entry_normalizer(targets_B, 1)

    def forward(self, outputs_B1: Tensor, targets_B: Tensor, normalizer: Normalizer | None = None) -> Tensor:
        """The summed loss, divided by `normalizer` (default: that of this batch); a scalar."""
        return sum_over_normalizer(Tensor.abs, outputs_B1, targets_B, normalizer)


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
        self.beta = as_number(beta, "beta", low=0, above=True)

    def normalizer(self, targets_B: Tensor, complete: bool = False) -> Normalizer:
        """The number of labeled rows."""
        return entry_normalizer(targets_B, 1)

    def forward(self, outputs_B1: Tensor, targets_B: Tensor, normalizer: Normalizer | None = None) -> Tensor:
        """The summed loss, divided by `normalizer` (default: that of this batch); a scalar."""
        return sum_over_normalizer(
            lambda d_B: _huber(d_B, self.beta) / self.beta, outputs_B1, targets_B, normalizer
        )


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
        self.delta = as_number(delta, "delta", low=0, above=True)

    def normalizer(self, targets_B: Tensor, complete: bool = False) -> Normalizer:
        """The number of labeled rows."""
        return entry_normalizer(targets_B, 1)

    def forward(self, outputs_B1: Tensor, targets_B: Tensor, normalizer: Normalizer | None = None) -> Tensor:
        """The summed loss, divided by `normalizer` (default: that of this batch); a scalar."""
        return sum_over_normalizer(lambda d_B: _huber(d_B, self.delta), outputs_B1, targets_B, normalizer)


class Standardized(nn.Module):
    """`loss` of targets (y - mean) / std: the model's outputs are near 0, the table keeps the user's unit.

    `mean` (finite) and `std` (> 0) are those of the training rows, in the user's unit. Settings of `loss` that are
    distances, such as the delta of Huber, are then in standard deviations. Raises ConfigError for other values, and
    TypeError for a module that does not follow `Loss`.
    """

    def __init__(self, loss: nn.Module, mean: float, std: float) -> None:
        super().__init__()
        check_loss(loss, "standardized loss")
        if not math.isfinite(mean):
            raise ConfigError(f"mean of the target: found {mean}, allowed: a finite number")
        self.mean = mean
        self.std = as_number(std, "standard deviation of the target", low=0, above=True)
        self.loss = loss
        self.additive: bool = self._inner().additive
        self.terms: int = self._inner().terms
        self.soft_targets: bool = self._inner().soft_targets
        self.likelihood_scale: float = self._inner().likelihood_scale

    def normalizer(self, targets_B: Tensor, complete: bool = False) -> Normalizer:
        """The normalizer of `loss`: `terms` numbers."""
        return self._inner().normalizer(targets_B)

    def forward(self, outputs_B1: Tensor, targets_B: Tensor, normalizer: Normalizer | None = None) -> Tensor:
        """The value of `loss` for standardized `outputs_B1` and `targets_B` in the user's unit, a scalar.

        Raises ValueError for shapes that do not fit.
        """
        values_B, weights_B = values_and_weights(targets_B, 1)
        _check(outputs_B1, values_B)
        # In float64: in float32, a year such as 2024 minus the mean would keep three digits.
        standardized = (values_B.double() - self.mean) / self.std
        if weights_B is not None:
            standardized = torch.stack([standardized, weights_B.double()], dim=-1)
        return self._inner()(outputs_B1, standardized, normalizer)

    def _inner(self) -> Loss:
        return cast(Loss, self.loss)


def sum_over_normalizer(
    loss_of_difference: Callable[[Tensor], Tensor],
    outputs_B1: Tensor,
    targets_B: Tensor,
    normalizer: Normalizer | None,
) -> Tensor:
    """The sum over the labeled rows of a function of output - target that is 0 at 0, divided by `normalizer` (default:
    that of this batch); a scalar. Raises ValueError for shapes that do not fit."""
    values_B, weights_B = values_and_weights(targets_B, 1)
    _check(outputs_B1, values_B)
    outputs_B = at_least_float32(outputs_B1).squeeze(1)
    labeled_B = ~values_B.isnan()
    # NaN is replaced before the difference is taken, so that it cannot reach the gradient.
    finite_targets_B = torch.where(labeled_B, values_B, 0).to(outputs_B.dtype)
    difference_B = torch.where(labeled_B, outputs_B - finite_targets_B, 0)
    loss_B = loss_of_difference(difference_B)
    if weights_B is not None:
        loss_B = loss_B * weights_B.to(loss_B.dtype)
    normalizer = entry_normalizer(targets_B, 1) if normalizer is None else normalizer
    return normalizer.divide(loss_B.sum())


def _check(outputs_B1: Tensor, targets_B: Tensor) -> None:
    check_column(
        outputs_B1,
        targets_B,
        expected_shape=(len(targets_B),),
        allowed_targets="targets (B,) of floating-point numbers, NaN where unknown",
        floating=True,
    )


def _huber(difference_B: Tensor, delta: float) -> Tensor:
    return F.huber_loss(difference_B, torch.zeros_like(difference_B), reduction="none", delta=delta)
