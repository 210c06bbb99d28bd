"""The criterion: the losses of all heads as one number, and the normalizer that it is divided by."""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from classwise.errors import ConfigError
from classwise.losses.normalizer import (
    Loss,
    Normalizer,
    WholeUpdate,
    check_part,
    checked_factors,
    divide_by_normalizer,
    host_normalizer,
    inverse,
    set_epoch,
    split_normalizer,
)


class Criterion(nn.Module):
    """The sum over the heads of weight * (sum over the rows / normalizer of the head).

    `losses` and `weights` name the same heads, by any text at all; the order is that of `losses`. Exact under
    accumulation if `additive`: take the normalizer of every micro-batch of the update, add them (over processes
    too), and give the total to each call.

        normalizer = sum(criterion.normalizer(targets) for _, targets in window)
        for images, targets in window:
            criterion(model(images), targets, normalizer).backward()

    With `uncertainty` the weights between the heads are learnt beside the given ones (Kendall, Gal and Cipolla
    2018, 'Multi-task learning using uncertainty to weigh losses', equations 7 and 10): a head's loss L becomes
    c exp(-s) L + s / 2, with s its entry of the parameter `log_variance` (heads,), which starts at 0 and belongs
    in the optimizer, without weight decay. c is the loss's `likelihood_scale`, 1 or, for a regression, 1/2.
    Each micro-batch adds its share of the head's normalizer of s / 2: a window holds it once, and the s of a head
    without a known target stays where it is.
    """

    log_variance: nn.Parameter | None

    def __init__(
        self, losses: Mapping[str, nn.Module], weights: Mapping[str, float], uncertainty: bool = False
    ) -> None:
        super().__init__()
        if set(losses) != set(weights):
            raise ConfigError(f"loss weights for {sorted(weights)}, but the heads are {sorted(losses)}")
        # Not an nn.ModuleDict: it refuses names such as 'type', 'a.b' and the empty one.
        self.names = tuple(losses)
        self._known = frozenset(losses)
        self.weights = checked_factors([weights[name] for name in self.names], self.names)
        for name, loss in losses.items():
            check_part(loss, f"loss of head {name!r}")
        self.losses = nn.ModuleList(losses.values())
        self.log_variance = nn.Parameter(torch.zeros(len(losses))) if uncertainty else None
        self._parts = [(name, cast(Loss, loss)) for name, loss in losses.items()]
        self._terms = [loss.terms for _, loss in self._parts]
        self.additive: bool = all(loss.additive for _, loss in self._parts)
        self.terms: int = sum(self._terms)
        self.soft_targets: bool = all(loss.soft_targets for _, loss in self._parts)
        self._ones: list[Normalizer] = [[1.0] * terms for terms in self._terms]
        self._may_share = self.additive and not uncertainty
        self.counts_rows = self._counts_rows()
        """Whether each head's normalizer is the number of known labels in this epoch (see `normalizer.host_normalizer`)."""

    def set_epoch(self, epoch: int) -> None:
        """Passed on to the losses that change with the epoch, counted from 0."""
        set_epoch((loss for _, loss in self._parts), epoch)
        self.counts_rows = self._counts_rows()

    def normalizer(self, targets: Mapping[str, Tensor]) -> Tensor:
        """The normalizers of one micro-batch, head after head: shape (terms,), float64. `targets` by head."""
        self._check_names("targets", targets)
        return torch.cat([loss.normalizer(targets[name]) for name, loss in self._parts])

    def update_normalizer(self, window: Sequence[Mapping[str, Tensor]]) -> Normalizer:
        """The normalizers of an update, the sum over the `targets` of its micro-batches: plain numbers where these lie on
        the host, else a tensor (terms,) on the device."""
        if not all(values.device.type == "cpu" for targets in window for values in targets.values()):
            normalizers = [self.normalizer(targets) for targets in window]
            return sum(normalizers[1:], start=normalizers[0])
        found = [
            [number for name, loss in self._parts for number in host_normalizer(loss, targets[name])]
            for targets in window
        ]
        return [sum(numbers) for numbers in zip(*found, strict=True)]

    def forward(
        self,
        outputs: Mapping[str, Tensor],
        targets: Mapping[str, Tensor],
        normalizer: Normalizer | None = None,
    ) -> Tensor:
        """The loss of one micro-batch, a scalar: `outputs` and `targets` by head, as each loss takes them."""
        self._check_names("outputs", outputs)
        self._check_names("targets", targets)
        normalizer = self.normalizer(targets) if normalizer is None else normalizer
        if type(normalizer) is WholeUpdate:
            return self._sum(outputs, targets, [WholeUpdate(normalizer[:terms]) for terms in self._terms])
        if (
            not isinstance(normalizer, Tensor)
            and self._may_share
            and normalizer.count(normalizer[0]) == len(normalizer) == self.terms
        ):
            # Divided once instead of head by head, which costs three operations a head, there and back.
            return self._sum(outputs, targets, self._ones) * inverse(normalizer[0])
        return self._sum(outputs, targets, split_normalizer(normalizer, self._terms))

    def _sum(
        self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor], normalizers: Sequence[Normalizer]
    ) -> Tensor:
        # `forward`, since a module's call takes as long as a small operation, and nobody hooks into these.
        values = [
            loss.forward(outputs[name], targets[name], part)
            for (name, loss), part in zip(self._parts, normalizers, strict=True)
        ]
        if self.log_variance is not None:
            values = self._uncertain(self.log_variance, values, targets, normalizers)
        total = values[0] if self.weights[0] == 1 else self.weights[0] * values[0]
        for weight, value in zip(self.weights[1:], values[1:], strict=True):
            total = total + (value if weight == 1 else weight * value)
        return total

    def learnt_weights(self) -> dict[str, float]:
        """exp(-s) of every head, where the weights are learnt; else nothing."""
        if self.log_variance is None:
            return {}
        return dict(zip(self.names, (-self.log_variance.detach()).exp().tolist(), strict=True))

    def _uncertain(
        self,
        log_variance_H: Tensor,
        values: list[Tensor],
        targets: Mapping[str, Tensor],
        normalizers: Sequence[Normalizer],
    ) -> list[Tensor]:
        """Each head's value under its learnt weight, with this micro-batch's share of the regulariser."""
        heads = zip(self._parts, log_variance_H.unbind(), values, normalizers, strict=True)
        found = []
        for (name, loss), s, value, normalizer in heads:
            share = divide_by_normalizer(loss.normalizer(targets[name])[0], normalizer[:1]).to(s.dtype)
            found.append(loss.likelihood_scale * (-s).exp() * value + s / 2 * share)
        return found

    def _counts_rows(self) -> bool:
        return all(getattr(loss, "counts_rows", False) for _, loss in self._parts)

    def _check_names(self, what: str, found: Mapping[str, Tensor]) -> None:
        if not found.keys() >= self._known:
            missing = [name for name in self.names if name not in found]
            raise ValueError(f"{what}: no entry for {missing}; found {list(found)}")
