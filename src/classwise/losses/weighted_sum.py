"""Several losses of one head as one, such as focal plus label smoothing."""

from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from classwise.losses.mass import Loss, check_part, checked_factors, split_mass


class WeightedSum(nn.Module):
    """The sum of `losses`, each times its weight (finite, >= 0).

    Each part keeps its own mass, so `terms` is the sum of theirs; additive if all parts are.
    """

    def __init__(self, losses: Sequence[nn.Module], weights: Sequence[float]) -> None:
        super().__init__()
        self.weights = checked_factors(weights, [type(loss).__name__ for loss in losses])
        for loss in losses:
            check_part(loss, "weighted sum of losses")
        self.losses = nn.ModuleList(losses)
        self.additive: bool = all(loss.additive for loss in self._parts())
        self.terms: int = sum(loss.terms for loss in self._parts())

    def mass(self, labels_B: Tensor) -> Tensor:
        """The parts' masses one after the other: shape (terms,), float64."""
        return torch.cat([loss.mass(labels_B) for loss in self._parts()])

    def forward(self, logits_BK: Tensor, labels_B: Tensor, mass: Tensor | None = None) -> Tensor:
        """The weighted sum of the parts, each divided by its own stretch of `mass` (terms,)."""
        mass = self.mass(labels_B) if mass is None else mass
        stretches = split_mass(mass, [loss.terms for loss in self._parts()])
        values = [
            weight * loss(logits_BK, labels_B, part)
            for loss, weight, part in zip(self._parts(), self.weights, stretches, strict=True)
        ]
        return sum(values[1:], start=values[0])

    def _parts(self) -> Iterator[Loss]:
        return (cast(Loss, loss) for loss in self.losses)
