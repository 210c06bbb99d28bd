"""A loss in the user's own file, and the test that it has to pass before a run begins.

The least that such a loss has to be is a function of outputs and targets that returns the loss of each row:

    class MyLoss(nn.Module):
        def forward(self, outputs, targets):
            return F.cross_entropy(outputs, targets, reduction="none")

`RowLoss` makes of it what losses/base.py asks for: unlabeled rows, the shares of mixed images and row weights are its
matter, and the sum is divided by the normalizer of the update. What each row adds to the normalizer is 1, or what a
method `normalizer(targets)` says. A module that follows losses/base.py itself is used as it is.

    type         outputs              targets                       returns
    class        logits (B, K)        class numbers (B,), int64     (B,)
    ordinal      logits (B, K - 1)    level numbers (B,), int64     (B,)
    multilabel   logits (B, L)        0 and 1 (B, L), float         (B, L)
    regression   (B,), standardized   (B,), standardized, float     (B,)
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from classwise.errors import ConfigError
from classwise.losses.base import Loss
from classwise.losses.labels import (
    at_least_float32,
    entry_normalizer,
    is_labeled,
    is_soft,
    label_index,
    label_normalizer,
    values_and_weights,
)
from classwise.losses.normalizer import Normalizer
from classwise.own_parts.source import SourceFile, failure_text

LABELS_OF_A_ROW = 2
"""A mixed image has two labels at the most, any other image one."""
ROW_TYPES = ("class", "ordinal", "multilabel", "regression")
TOLERANCE = 1e-5
"""Of the largest gradient: a loss may compute in float32."""


class RowLoss(nn.Module):
    """The loss of each row, as a sum over the labeled rows divided by the normalizer of the update.

    `rows`: from outputs and targets, as the module's docstring lists them, to the loss of each row. With soft labels
    it is computed once for each label of a row: the loss of a mixed image is the mixture of the losses of its labels.
    """

    additive: bool = True
    terms: int = 1
    soft_targets: bool = True

    def __init__(self, rows: Callable[[Tensor, Tensor], Tensor], type: str, where: str = "loss") -> None:
        super().__init__()
        self.rows = rows
        self.where = where
        self.has_classes = type in ("class", "ordinal")
        self.ndim = 2 if type == "multilabel" else 1
        self.likelihood_scale: float = 0.5 if type == "regression" else 1.0
        self._own_normalizer: Callable[[Tensor], Tensor] | None = getattr(rows, "normalizer", None)

    def normalizer(self, targets: Tensor, complete: bool = False) -> Normalizer:
        """The number of labeled rows, or of labeled cells, or the sum of what the loss's own `normalizer` says."""
        if self._own_normalizer is not None:
            return Normalizer(self._sum(self._own_shares, targets).double().reshape(1))
        if self.has_classes:
            return label_normalizer(targets, complete=complete)
        return entry_normalizer(targets, self.ndim)

    def forward(self, outputs: Tensor, targets: Tensor, normalizer: Normalizer | None = None) -> Tensor:
        """The summed loss of the labeled rows, divided by `normalizer` (default: that of this batch); a scalar."""
        outputs = at_least_float32(outputs)
        if not self.has_classes and self.ndim == 1:
            outputs = outputs.squeeze(1)
        normalizer = self.normalizer(targets) if normalizer is None else normalizer
        return normalizer.divide(
            self._sum(lambda labels: self._checked(self.rows(outputs, labels), labels), targets)
        )

    def _sum(self, of_labels: Callable[[Tensor], Tensor], targets: Tensor) -> Tensor:
        """The sum over the labeled rows of a function of hard labels or values; a scalar."""
        if not self.has_classes:
            return self._sum_of_values(of_labels, targets)
        if not is_soft(targets):
            return torch.where(is_labeled(targets), of_labels(label_index(targets)), 0).sum()
        share_BJ, label_BJ = targets.topk(min(LABELS_OF_A_ROW, targets.shape[1]), dim=1)
        parts = [
            torch.where(share_B > 0, share_B * of_labels(label_B), 0).sum()
            for share_B, label_B in zip(share_BJ.unbind(1), label_BJ.unbind(1), strict=True)
        ]
        return sum(parts[1:], start=parts[0])

    def _sum_of_values(self, of_values: Callable[[Tensor], Tensor], targets: Tensor) -> Tensor:
        values, weights = values_and_weights(targets, self.ndim)
        labeled = ~values.isnan()
        values = torch.where(labeled, values, 0)
        if self.ndim == 1:
            found = of_values(values)
        else:
            # A cell between 0 and 1 is mixed of both.
            found = values * of_values(torch.ones_like(values)) + (1 - values) * of_values(
                torch.zeros_like(values)
            )
        return torch.where(labeled, found if weights is None else found * weights, 0).sum()

    def _own_shares(self, labels: Tensor) -> Tensor:
        assert self._own_normalizer is not None
        return self._checked(self._own_normalizer(labels), labels)

    def _checked(self, found: Any, labels: Tensor) -> Tensor:
        """What the user's code returned, if it has one number for each row or cell."""
        if isinstance(found, Tensor) and found.shape == labels.shape:
            return found
        if isinstance(found, Tensor) and not found.ndim:
            raise ConfigError(
                f"{self.where}: returned one number for {len(labels)} rows; allowed: the loss of each row,"
                f' {tuple(labels.shape)}, which classwise sums up and divides for the whole update: reduction="none" in'
                " torch's own losses, and no .mean() or .sum()"
            )
        shown = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ConfigError(
            f"{self.where}: returned {shown}; allowed: the loss of each row, {tuple(labels.shape)}"
        )


def own_loss(made: Any, type: str, where: str) -> nn.Module:
    """The user's loss as classwise uses it. Raises ConfigError for what can be no loss of targets of this type."""
    if isinstance(made, nn.Module) and isinstance(made, Loss):
        if not made.additive:
            raise ConfigError(
                f"{where}: additive is {made.additive!r}, so it cannot be accumulated exactly; allowed: True, a sum"
                " over rows divided by a sum over rows"
            )
        return made
    if not callable(made):
        raise ConfigError(
            f"{where}: it makes something that cannot be called with outputs and targets; allowed: a torch.nn.Module"
            " with `forward(outputs, targets)`"
        )
    if type not in ROW_TYPES:
        raise ConfigError(
            f"{where}: a row of a {type} target has no loss of its own; allowed: a module that follows"
            " classwise.losses.base.Loss"
        )
    return RowLoss(made, type, where)


def check_own_loss(
    loss: nn.Module, type: str, outputs: int, classes: int, where: str, source: SourceFile
) -> None:
    """Raise ConfigError unless the loss is exact: on a few drawn rows, one of them unlabeled, in float64.

    `outputs`, `classes`: of the head; `where` begins the message, and `source` is the user's file.
    """
    outputs_BO, targets = _drawn(type, outputs, classes)
    try:
        complaint = _complaint(loss.double(), outputs_BO, targets)
    except ConfigError:
        raise
    except Exception as error:  # the user's code raises anything
        raise ConfigError(
            f"{where}: it fails on a batch of {len(targets)} rows: {failure_text(error, source)}"
        ) from error
    if complaint:
        raise ConfigError(f"{where}: {complaint}")


def _complaint(loss: nn.Module, outputs_BO: Tensor, targets: Tensor) -> str:
    """What is wrong with a loss; empty if nothing is."""
    rows = len(targets)
    everything = [slice(0, rows)]
    whole, gradient_BO = _value_and_gradient(loss, outputs_BO, targets, everything)
    if not whole.isfinite() or not gradient_BO.isfinite().all():
        return f"the loss of drawn outputs is {float(whole)}, or its gradient is not finite"
    if not gradient_BO.any():
        return "its gradient is 0 everywhere; does it use the outputs, and not detach them?"
    again, _ = _value_and_gradient(loss, outputs_BO, targets, everything)
    if whole != again:
        return (
            f"the same batch gives {float(whole):.6g} and then {float(again):.6g}; allowed: a loss that draws no random"
            " numbers and keeps nothing from one batch to the next, since a resumed run would differ"
        )

    # What accumulation and unlabeled rows rely on.
    _, in_parts_BO = _value_and_gradient(loss, outputs_BO, targets, [slice(0, 2), slice(2, rows)])
    gap = float((gradient_BO - in_parts_BO).abs().max() / gradient_BO.abs().max())
    if gap > TOLERANCE:
        return (
            f"the gradients of two micro-batches (2 and {rows - 2} rows) differ from that of one batch by {gap:.1%};"
            " the loss of a row must not depend on the other rows, nor be divided by their number (what the sum is"
            " divided by is a method `normalizer(targets)`)"
        )
    if gradient_BO[UNLABELED_ROW].any():
        unknown = "NaN" if targets.is_floating_point() else "-1"
        return (
            f"a row without a label changes it; rows whose target is {unknown} must count in neither the sum nor the"
            " normalizer"
        )
    nothing, _ = _value_and_gradient(loss, outputs_BO, _unlabeled(targets), everything)
    if not nothing.isfinite():
        return f"it is {float(nothing)} for a batch without a labeled row; allowed: a finite number"
    return ""


UNLABELED_ROW = 3
"""Of the drawn rows: it is in the second micro-batch."""


def _drawn(type: str, outputs: int, classes: int) -> tuple[Tensor, Tensor]:
    """Outputs and targets of seven rows; the second micro-batch has more of them, and one without a label."""
    draw = torch.Generator().manual_seed(0)
    rows = 7
    outputs_BO = torch.randn(rows, outputs, generator=draw, dtype=torch.float64)
    if type in ("class", "ordinal"):
        targets = torch.arange(rows) % classes
        targets[UNLABELED_ROW] = -1
        return outputs_BO, targets
    if type == "multilabel":
        targets = torch.randint(0, 2, (rows, outputs), generator=draw).double()
    elif type == "ranking":
        # Relevance and query: the first two rows are one query, the others another.
        relevance_B = torch.arange(rows) % 2
        relevance_B[UNLABELED_ROW] = -1
        return outputs_BO, torch.stack([relevance_B, torch.tensor([0, 0] + [1] * (rows - 2))], dim=1)
    else:
        targets = torch.randn(rows, generator=draw, dtype=torch.float64)
    targets[UNLABELED_ROW] = torch.nan
    return outputs_BO, targets


def _unlabeled(targets: Tensor) -> Tensor:
    """The same batch without a label; rows of a ranking (relevance and query) keep their query."""
    if targets.is_floating_point():
        return torch.full_like(targets, torch.nan)
    unlabeled = targets.clone()
    unlabeled[(...,) if targets.ndim == 1 else (..., 0)] = -1
    return unlabeled


def _value_and_gradient(
    loss: nn.Module, outputs_BO: Tensor, targets: Tensor, micro_batches: list[slice]
) -> tuple[Tensor, Tensor]:
    """The loss, and its gradient for the outputs, added up over micro-batches under their common normalizer."""
    module = cast(Loss, loss)
    outputs_BO = outputs_BO.clone().requires_grad_()
    normalizer = sum((module.normalizer(targets[part]) for part in micro_batches), start=cast(Any, 0))
    total = torch.zeros((), dtype=torch.float64)
    for part in micro_batches:
        value = module(outputs_BO[part], targets[part], normalizer)
        if not isinstance(value, Tensor) or value.ndim:
            raise TypeError(f"`forward` returned {type(value).__name__}, allowed: a scalar tensor")
        if not value.requires_grad:
            continue
        value.backward()
        total += value.detach()
    gradient_BO = torch.zeros_like(outputs_BO) if outputs_BO.grad is None else outputs_BO.grad
    return total, gradient_BO
