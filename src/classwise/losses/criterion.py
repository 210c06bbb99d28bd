"""The criterion: the losses of all heads as one number, and the normalizer that it is divided by."""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from classwise.errors import ConfigError
from classwise.losses.base import Loss, check_part, set_epoch
from classwise.losses.checks import checked_factors
from classwise.losses.normalizer import Normalizer, inverse_or_zero


class Criterion(nn.Module):
    """The sum over the heads of weight * (sum over the rows / normalizer of the head).

    `losses` and `weights` name the same heads, by any text at all; the order is that of `losses`. Exact under
    accumulation if `additive`: take the normalizer of every micro-batch of the update, add them (over processes
    too), and give the total to each call.

        normalizer = sum(criterion.normalizer(targets) for _, targets in micro_batches)
        for images, targets in micro_batches:
            loss = criterion(model(images), targets, normalizer)
            loss.backward()

    With `uncertainty` the weights between the heads are learned beside the given ones (Kendall, Gal and Cipolla
    2018, 'Multi-task learning using uncertainty to weigh losses', equations 7 and 10): a head's loss L becomes
    c exp(-s) L + s / 2, with s its entry of the parameter `log_variance` (heads,), which starts at 0 and belongs
    in the optimizer, without weight decay. c is the loss's `likelihood_scale`, 1 or, for a regression, 1/2.
    Each micro-batch adds the share of s / 2 that it has in the head's normalizer: an update holds s / 2 once, and the s
    of a head without a known target stays where it is.
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
        self._names_set = frozenset(losses)
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
        self._ones = [Normalizer([1.0] * terms) for terms in self._terms]
        self._may_share = self.additive and not uncertainty

    def set_epoch(self, epoch: int) -> None:
        """Passed on to the losses that change with the epoch, counted from 0."""
        set_epoch((loss for _, loss in self._parts), epoch)

    def normalizer(self, targets: Mapping[str, Tensor], complete: bool = False) -> Normalizer:
        """What one micro-batch adds to its update's normalizer, head after head: one number for each of `terms`.

        `targets` by head; `complete`: the caller knows that every label is known, so rows need not be counted.
        """
        self._check_names("targets", targets)
        return Normalizer.joined([loss.normalizer(targets[name], complete) for name, loss in self._parts])

    def forward(
        self,
        outputs: Mapping[str, Tensor],
        targets: Mapping[str, Tensor],
        normalizer: Normalizer | None = None,
    ) -> Tensor:
        """The loss of one micro-batch, a scalar: `outputs` and `targets` by head, as each loss takes them.

        `normalizer`: that of the whole update (default: this micro-batch's own).
        """
        self._check_names("outputs", outputs)
        self._check_names("targets", targets)
        if normalizer is None:
            normalizer = self.normalizer(targets)
        shared = self._shared(normalizer)
        if shared is not None:
            # Divided once instead of head by head, which costs three operations a head, forward and backward.
            return self._sum(outputs, targets, self._ones) * inverse_or_zero(shared)
        return self._sum(outputs, targets, normalizer.split(self._terms))

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

    def _shared(self, normalizer: Normalizer) -> float | None:
        """The number that all terms are divided by, where the host knows that it is one and the same."""
        values = normalizer.values
        if not self._may_share or normalizer.is_row_count or not isinstance(values, list):
            return None
        return values[0] if values.count(values[0]) == len(values) == self.terms else None

    def learned_weights(self) -> dict[str, float]:
        """exp(-s) of every head, where the weights are learned; else nothing."""
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
        """Each head's value under its learned weight, with this micro-batch's share of the regularizer."""
        weighted = []
        heads = zip(self._parts, log_variance_H.unbind(), values, normalizers, strict=True)
        for (name, loss), s, value, normalizer in heads:
            # A head with several terms goes by the first: they all count the same rows.
            share = first_term_share(loss.normalizer(targets[name]), normalizer, s)
            weighted.append(loss.likelihood_scale * (-s).exp() * value + s / 2 * share)
        return weighted

    def _check_names(self, what: str, by_head: Mapping[str, Tensor]) -> None:
        if not by_head.keys() >= self._names_set:
            missing = [name for name in self.names if name not in by_head]
            raise ValueError(f"{what}: no entry for {missing}; found {list(by_head)}")


def first_term_share(part: Normalizer, whole: Normalizer, like: Tensor) -> Tensor | float:
    """What a micro-batch's normalizer is of its update's, by their first numbers; 0 where that is 0."""
    if isinstance(part.values, list) and isinstance(whole.values, list):
        return part.values[0] * inverse_or_zero(whole.values[0])
    share = torch.as_tensor(part.values[0], dtype=torch.float64, device=like.device)
    return Normalizer(whole.values[:1]).divide(share).to(like.dtype)
