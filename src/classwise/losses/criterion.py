"""The criterion: the losses of all heads as one number, and the mass that it is divided by."""

from collections.abc import Iterator, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from classwise.errors import ConfigError
from classwise.losses.mass import Loss, check_part, checked_factors, split_mass


class Criterion(nn.Module):
    """The sum over the heads of weight * (sum over the rows / mass of the head).

    `losses` and `weights` name the same heads, by any text at all; the order is that of `losses`. Exact under
    accumulation if `additive`: take the mass of every micro-batch of the update, add them (over processes
    too), and give the total to each call.

        mass = sum(criterion.mass(targets) for _, targets in window)
        for images, targets in window:
            criterion(model(images), targets, mass).backward()
    """

    def __init__(self, losses: Mapping[str, nn.Module], weights: Mapping[str, float]) -> None:
        super().__init__()
        if set(losses) != set(weights):
            raise ConfigError(f"loss weights for {sorted(weights)}, but the heads are {sorted(losses)}")
        # Not an nn.ModuleDict: it refuses names such as 'type', 'a.b' and the empty one.
        self.names = tuple(losses)
        self.weights = checked_factors([weights[name] for name in self.names], self.names)
        for name, loss in losses.items():
            check_part(loss, f"loss of head {name!r}")
        self.losses = nn.ModuleList(losses.values())
        self.additive: bool = all(loss.additive for _, loss in self._heads())
        self.terms: int = sum(loss.terms for _, loss in self._heads())

    def mass(self, targets: Mapping[str, Tensor]) -> Tensor:
        """The masses of one micro-batch, head after head: shape (terms,), float64.

        `targets`: labels (B,) by head, -1 where unknown.
        """
        self._check_names("targets", targets)
        return torch.cat([loss.mass(targets[name]) for name, loss in self._heads()])

    def forward(
        self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor], mass: Tensor | None = None
    ) -> Tensor:
        """The loss of one micro-batch, a scalar: `outputs` are logits (B, K) by head, `targets` labels (B,)."""
        self._check_names("outputs", outputs)
        self._check_names("targets", targets)
        mass = self.mass(targets) if mass is None else mass
        stretches = split_mass(mass, [loss.terms for _, loss in self._heads()])
        values = [
            weight * loss(outputs[name], targets[name], part)
            for (name, loss), weight, part in zip(self._heads(), self.weights, stretches, strict=True)
        ]
        return sum(values[1:], start=values[0])

    def _heads(self) -> Iterator[tuple[str, Loss]]:
        return zip(self.names, (cast(Loss, loss) for loss in self.losses), strict=True)

    def _check_names(self, what: str, found: Mapping[str, Tensor]) -> None:
        missing = [name for name in self.names if name not in found]
        if missing:
            raise ValueError(f"{what}: no entry for {missing}; found {list(found)}")
