"""Linear probing: linear heads on the features of a frozen backbone, fitted to convergence.

A few epochs of SGD do not fit a linear head: the loss is flat along most directions, so that what comes out is decided
by learning rate and length. Over all rows at once, with a penalty on the weights, the same loss has one minimum, and
L-BFGS finds it in seconds. How strong the penalty has to be depends on the data: cross-validation on the training rows
tells.

Features are standardized, so that the penalty is fair to all of them; the fitted head has the scaling folded in and is
an ordinary linear layer on the features as they are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

Numbers = npt.NDArray[np.int64]
LossOf = Callable[[Tensor, Tensor], Tensor]
"""Raw outputs (N, outputs) and targets (N, ...) in; the mean loss, a scalar, out."""

PENALTIES = (0.1, 0.01, 0.003, 0.001)
"""The penalties that cross-validation chooses from, the strongest first."""
MAX_STEPS = 200
"""Of L-BFGS, for the final fit; it usually converges in fewer."""
VALIDATION_STEPS = 40
"""For each fit of the cross-validation, which begins at the solution of the penalty before."""
ROWS_AT_ONCE = 1024
SMALLEST_SCALE = 1e-6
"""A feature that varies less is constant: divided by its deviation, noise would become a feature."""


@dataclass(frozen=True)
class LinearHead:
    """A linear layer: weight (outputs, F) and bias (outputs,)."""

    weight: Tensor
    bias: Tensor

    def __call__(self, features_NF: Tensor) -> Tensor:
        """Raw outputs (N, outputs)."""
        return F.linear(features_NF, self.weight, self.bias)


@dataclass(frozen=True)
class Standardizer:
    """Scales features (N, F) to mean 0 and standard deviation 1. `mean` and `scale`: (F,)."""

    mean: Tensor
    scale: Tensor

    @staticmethod
    def of(features_NF: Tensor) -> "Standardizer":
        """By the rows of `features_NF`."""
        # In double precision, some rows at a time: a copy of all would take twice their memory.
        mean = features_NF.mean(dim=0, dtype=torch.float64)
        square = torch.zeros_like(mean)
        for chunk in features_NF.split(ROWS_AT_ONCE):
            square += (chunk.double() - mean).square().sum(dim=0)
        scale = (square / len(features_NF)).sqrt()
        scale = torch.where(scale < SMALLEST_SCALE, 1.0, scale)
        return Standardizer(mean.to(features_NF.dtype), scale.to(features_NF.dtype))

    def __call__(self, features_NF: Tensor) -> Tensor:
        return (features_NF - self.mean) / self.scale

    def folded_into(self, head: LinearHead) -> LinearHead:
        """The head for features as they are that equals `head` for standardized ones."""
        weight = head.weight / self.scale
        return LinearHead(weight, head.bias - weight @ self.mean)


def fitted_head(
    views: Sequence[Tensor], targets: Tensor, loss_of: LossOf, outputs: int, penalty: float
) -> LinearHead:
    """The linear head with the least loss + penalty / 2 * |weight|^2 over all rows.

    views: features (N, F) of the rows, once for each view of their images (such as the mirrored one); targets: (N, ...)
    as the loss takes them. The bias is not penalized. Starts from zero, and draws no random numbers.
    """
    features = torch.cat(list(views))
    standardize = Standardizer.of(features)
    head = _zero_head(outputs, features)
    inputs = standardize(features)
    del features
    repeated = torch.cat([targets] * len(views))
    head = _minimized(head, inputs, repeated, loss_of, penalty=penalty, steps=MAX_STEPS)
    return standardize.folded_into(head)


def held_out_outputs(
    views: Sequence[Tensor],
    targets: Tensor,
    loss_of: LossOf,
    outputs: int,
    folds_N: Numbers,
    penalties: Sequence[float] = PENALTIES,
) -> Tensor:
    """Raw outputs (penalties, N, outputs): each row's from a head that was fitted without the rows of its fold.

    folds_N: the fold of each row, from 0. Only the first view of a row is predicted. Arguments otherwise as for
    `fitted_head`.
    """
    outputs_PNO = views[0].new_zeros(len(penalties), len(views[0]), outputs)
    for fold in np.unique(folds_N):
        is_held_out = torch.from_numpy(folds_N == fold)
        fitted = torch.cat([view[~is_held_out] for view in views])
        fitted_targets = torch.cat([targets[~is_held_out]] * len(views))
        standardize = Standardizer.of(fitted)
        inputs, held_out = standardize(fitted), standardize(views[0][is_held_out])

        head = _zero_head(outputs, views[0])
        for position, penalty in enumerate(penalties):
            head = _minimized(head, inputs, fitted_targets, loss_of, penalty=penalty, steps=VALIDATION_STEPS)
            outputs_PNO[position, is_held_out] = head(held_out)
    return outputs_PNO


def _zero_head(outputs: int, like: Tensor) -> LinearHead:
    return LinearHead(like.new_zeros(outputs, like.shape[1]), like.new_zeros(outputs))


def _minimized(
    start: LinearHead, inputs_NF: Tensor, targets: Tensor, loss_of: LossOf, penalty: float, steps: int
) -> LinearHead:
    """The minimum of loss + penalty, from `start` on."""
    weight = start.weight.clone().requires_grad_()
    bias = start.bias.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=steps,
        history_size=10,
        tolerance_grad=1e-5,
        tolerance_change=1e-7,
        line_search_fn="strong_wolfe",
    )

    def closure() -> float:
        optimizer.zero_grad()
        loss = loss_of(F.linear(inputs_NF, weight, bias), targets) + penalty / 2 * weight.square().sum()
        loss.backward()
        return float(loss.detach())

    with torch.enable_grad():
        optimizer.step(closure)
    return LinearHead(weight.detach(), bias.detach())
