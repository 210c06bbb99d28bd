"""What a loss has to offer, so that it can be joined with others and accumulated exactly."""

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from torch import Tensor

from classwise.losses.normalizer import Normalizer


@runtime_checkable
class Loss(Protocol):
    """What a module has to offer to stand inside `WeightedSum` and `Criterion`.

    `additive`: the value is a sum over rows divided by a normalizer that is a sum over rows.
    `terms`: how many fractions the value adds up, each with a normalizer of its own (1 for a simple loss).
    `soft_targets`: whether it takes the targets of mixed images.
    `likelihood_scale`: what the value, as a negative log-likelihood, has in front under learned weights between
    the heads: 1, or 1/2 for a regression (Kendall et al. 2018, equations 5 and 10).
    """

    additive: bool
    terms: int
    soft_targets: bool
    likelihood_scale: float

    def normalizer(self, targets: Tensor, complete: bool = False) -> Normalizer:
        """What this batch adds to the normalizer of its update, one number for each term.

        `complete`: the caller knows that every label is known, so a loss that is divided by the number of labeled rows
        need not count them.
        """

    def __call__(self, outputs: Tensor, targets: Tensor, normalizer: Normalizer | None = None) -> Tensor:
        """The same as `forward`, as for every module."""

    def forward(self, outputs: Tensor, targets: Tensor, normalizer: Normalizer | None = None) -> Tensor:
        """The sums over this batch divided by `normalizer` (default: its own), a scalar."""


@runtime_checkable
class ByEpoch(Protocol):
    """A loss that changes with the epoch: one with deferred weights, or one that holds such losses."""

    def set_epoch(self, epoch: int) -> None:
        """Called at the start of every epoch, counted from 0."""


def set_epoch(losses: Iterable[object], epoch: int) -> None:
    """Tell the epoch to those of `losses` that ask for it."""
    for loss in losses:
        if isinstance(loss, ByEpoch):
            loss.set_epoch(epoch)


def deferred(weight_K: Tensor | None, from_epoch: int, epoch: int) -> Tensor | None:
    """The class weights in `epoch`, counted from 0: none before `from_epoch`, counted from 1.

    Deferred re-weighting, Cao et al. 2019, 'Learning imbalanced datasets with label-distribution-aware margin
    loss', section 3.3: the features are learned unweighted, the weights then move the borders.
    """
    return weight_K if epoch + 1 >= from_epoch else None


def check_part(part: object, where: str) -> None:
    """TypeError unless `part` follows `Loss`: an ordinary torch loss has no normalizer and cannot be accumulated."""
    if not isinstance(part, Loss):
        found = type(part).__name__
        raise TypeError(
            f"{where}: {found} needs `additive`, `terms`, `soft_targets`, `likelihood_scale` and `normalizer(targets)`;"
            f" see {Loss.__module__}"
        )
