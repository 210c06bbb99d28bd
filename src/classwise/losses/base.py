"""The interface of a loss: what it needs so that it can be combined with others and accumulated exactly."""

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from torch import Tensor

from classwise.losses.normalizer import Normalizer


@runtime_checkable
class Loss(Protocol):
    """The interface that `WeightedSum` and `Criterion` expect of a module.

    `additive`: the value is a sum over rows divided by a normalizer that is itself a sum over rows.
    `terms`: the number of fractions that the value adds up, each with its own normalizer (1 for a simple loss).
    `soft_targets`: whether the loss accepts the targets of mixed images.
    `likelihood_scale`: the factor in front of the value, read as a negative log-likelihood, when the weights between
    heads are learned: 1, or 1/2 for a regression (Kendall et al. 2018, equations 5 and 10).
    """

    additive: bool
    terms: int
    soft_targets: bool
    likelihood_scale: float

    def normalizer(self, targets: Tensor, complete: bool = False) -> Normalizer:
        """What this batch adds to the normalizer of its update, one number per term.

        `complete`: the caller knows that every row is labeled, so a loss that is divided by the number of labeled rows
        need not count them.
        """

    def __call__(self, outputs: Tensor, targets: Tensor, normalizer: Normalizer | None = None) -> Tensor:
        """The same as `forward`, as for every module."""

    def forward(self, outputs: Tensor, targets: Tensor, normalizer: Normalizer | None = None) -> Tensor:
        """The sums over this batch divided by `normalizer` (default: that of this batch), a scalar."""


@runtime_checkable
class ByEpoch(Protocol):
    """A loss that changes with the epoch: one with deferred weights, or one that contains such losses."""

    def set_epoch(self, epoch: int) -> None:
        """Called at the start of every epoch, counted from 0."""


def set_epoch(losses: Iterable[object], epoch: int) -> None:
    """Pass the epoch, counted from 0, to those of `losses` that depend on it."""
    for loss in losses:
        if isinstance(loss, ByEpoch):
            loss.set_epoch(epoch)


def check_loss(loss: object, where: str) -> None:
    """TypeError unless `loss` follows `Loss`: an ordinary torch loss has no normalizer and cannot be accumulated."""
    if not isinstance(loss, Loss):
        raise TypeError(
            f"{where}: {type(loss).__name__} needs `additive`, `terms`, `soft_targets`, `likelihood_scale` and"
            f" `normalizer(targets)`; see {Loss.__module__}"
        )
