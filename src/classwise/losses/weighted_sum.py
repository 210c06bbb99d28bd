"""Several losses of one head as one, such as focal plus label smoothing."""

from collections.abc import Iterator, Sequence
from typing import cast

from torch import Tensor, nn

from classwise.errors import ConfigError
from classwise.losses.base import Loss, check_part, set_epoch
from classwise.losses.checks import checked_factors
from classwise.losses.normalizer import Normalizer


class WeightedSum(nn.Module):
    """The sum of `losses`, each times its weight (finite, >= 0).

    Each part keeps its own normalizer, so `terms` is the sum of theirs; it is additive, and takes soft targets, if all
    parts do. ConfigError for parts whose `likelihood_scale` differs: they are not of one kind of target.
    """

    def __init__(self, losses: Sequence[nn.Module], weights: Sequence[float]) -> None:
        super().__init__()
        self.weights = checked_factors(weights, [type(loss).__name__ for loss in losses])
        for loss in losses:
            check_part(loss, "weighted sum of losses")
        self.losses = nn.ModuleList(losses)
        self.additive: bool = all(loss.additive for loss in self._parts())
        self.terms: int = sum(loss.terms for loss in self._parts())
        self.soft_targets: bool = all(loss.soft_targets for loss in self._parts())
        scales = {loss.likelihood_scale for loss in self._parts()}
        if len(scales) > 1:
            found = [type(loss).__name__ for loss in losses]
            raise ConfigError(f"weighted sum of losses: found {found}, allowed: losses of one kind of target")
        self.likelihood_scale: float = scales.pop()

    def set_epoch(self, epoch: int) -> None:
        """Passed on to the parts that change with the epoch, counted from 0."""
        set_epoch(self._parts(), epoch)

    def normalizer(self, targets: Tensor, complete: bool = False) -> Normalizer:
        """The parts' normalizers one after the other: shape (terms,), float64."""
        # Counted also where all labels are known: torch's own mean is for losses that stand alone.
        return Normalizer.joined([loss.normalizer(targets) for loss in self._parts()])

    def forward(self, outputs: Tensor, targets: Tensor, normalizer: Normalizer | None = None) -> Tensor:
        """The weighted sum of the parts, each divided by its own stretch of `normalizer` (terms,)."""
        normalizer = self.normalizer(targets) if normalizer is None else normalizer
        stretches = normalizer.split([loss.terms for loss in self._parts()])
        values = [
            weight * loss(outputs, targets, part)
            for loss, weight, part in zip(self._parts(), self.weights, stretches, strict=True)
        ]
        return sum(values[1:], start=values[0])

    def _parts(self) -> Iterator[Loss]:
        return (cast(Loss, loss) for loss in self.losses)
