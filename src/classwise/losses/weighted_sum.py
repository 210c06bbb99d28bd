"""Several losses of one head as one, such as focal loss plus label smoothing."""

from collections.abc import Iterator, Sequence
from typing import cast

from torch import Tensor, nn

from classwise.errors import ConfigError
from classwise.losses.base import Loss, check_loss, set_epoch
from classwise.losses.checks import as_factors
from classwise.losses.normalizer import Normalizer


class WeightedSum(nn.Module):
    """The sum of `losses`, each times its weight (finite, >= 0).

    Each loss keeps its own normalizer, so `terms` is the sum of theirs. The sum is additive, and accepts soft targets,
    if all of its losses do. Raises TypeError for a module that does not follow `Loss`, and ConfigError for invalid
    weights and for losses whose `likelihood_scale` differs: they are for different kinds of target.
    """

    def __init__(self, losses: Sequence[nn.Module], weights: Sequence[float]) -> None:
        super().__init__()
        names = [type(loss).__name__ for loss in losses]
        self.weights = as_factors(weights, names)
        for loss in losses:
            check_loss(loss, "weighted sum of losses")
        self.losses = nn.ModuleList(losses)

        # What the losses have in common is what the sum offers.
        self.additive: bool = all(loss.additive for loss in self._losses())
        self.terms: int = sum(loss.terms for loss in self._losses())
        self.soft_targets: bool = all(loss.soft_targets for loss in self._losses())
        scales = {loss.likelihood_scale for loss in self._losses()}
        if len(scales) > 1:
            raise ConfigError(f"weighted sum of losses: found {names}, allowed: losses of one kind of target")
        self.likelihood_scale: float = scales.pop()

    def set_epoch(self, epoch: int) -> None:
        """Pass the epoch, counted from 0, to the losses that change with it."""
        set_epoch(self._losses(), epoch)

    def normalizer(self, targets: Tensor, complete: bool = False) -> Normalizer:
        """The normalizers of the losses one after the other: `terms` numbers."""
        # Counted even if `complete`: torch's own mean is a shortcut for losses that stand alone.
        return Normalizer.concat([loss.normalizer(targets) for loss in self._losses()])

    def forward(self, outputs: Tensor, targets: Tensor, normalizer: Normalizer | None = None) -> Tensor:
        """The weighted sum of the losses, each divided by its terms of `normalizer` (default: that of this batch); a
        scalar."""
        normalizer = self.normalizer(targets) if normalizer is None else normalizer
        normalizers = normalizer.split([loss.terms for loss in self._losses()])
        values = [
            weight * loss(outputs, targets, loss_normalizer)
            for loss, weight, loss_normalizer in zip(self._losses(), self.weights, normalizers, strict=True)
        ]
        return sum(values[1:], start=values[0])

    def _losses(self) -> Iterator[Loss]:
        return (cast(Loss, loss) for loss in self.losses)
