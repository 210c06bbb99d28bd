"""The criterion: the losses of all heads as one number, and the normalizer that divides it."""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from classwise.errors import ConfigError
from classwise.losses.base import Loss, check_loss, set_epoch
from classwise.losses.checks import as_factors
from classwise.losses.normalizer import Normalizer, inverse_or_zero


class Criterion(nn.Module):
    """The sum over the heads of weight * (sum over the rows / normalizer of the head).

    `losses` and `weights` have the same keys, the names of the heads; the order is that of `losses`. Exact under
    accumulation if `additive`: add up the normalizers of all micro-batches of the update (and of all processes), and
    pass the total to each call.

        normalizer = sum(criterion.normalizer(targets) for _, targets in micro_batches)
        for images, targets in micro_batches:
            loss = criterion(model(images), targets, normalizer)
            loss.backward()

    With `uncertainty` the weights between the heads are learned, in addition to the given ones (Kendall, Gal and
    Cipolla 2018, 'Multi-task learning using uncertainty to weigh losses', equations 7 and 10): a head's loss L becomes
    c exp(-s) L + s / 2, with s its entry of the parameter `log_variance` (heads,), which starts at 0 and belongs in the
    optimizer, without weight decay. c is the loss's `likelihood_scale`, 1 or, for a regression, 1/2. Each micro-batch
    adds s / 2 times its share of the head's normalizer, so an update contains s / 2 once, and the s of a head without a
    labeled row does not change.

    Raises ConfigError for keys that differ and for invalid weights, TypeError for a module that does not follow `Loss`.
    """

    log_variance: nn.Parameter | None

    def __init__(
        self, losses: Mapping[str, nn.Module], weights: Mapping[str, float], uncertainty: bool = False
    ) -> None:
        super().__init__()
        if set(losses) != set(weights):
            raise ConfigError(f"loss weights for {sorted(weights)}, but the heads are {sorted(losses)}")
        for name, loss in losses.items():
            check_loss(loss, f"loss of head {name!r}")

        # Not an nn.ModuleDict: it refuses names such as 'type', 'a.b' and the empty one.
        self.names = tuple(losses)
        self._names_set = frozenset(losses)
        self.weights = as_factors([weights[name] for name in self.names], self.names)
        self.losses = nn.ModuleList(losses.values())
        self.log_variance = nn.Parameter(torch.zeros(len(losses))) if uncertainty else None

        # What the heads' losses have in common is what the criterion offers.
        self._heads = [(name, cast(Loss, loss)) for name, loss in losses.items()]
        self._terms = [loss.terms for _, loss in self._heads]
        self.additive: bool = all(loss.additive for _, loss in self._heads)
        self.terms: int = sum(self._terms)
        self.soft_targets: bool = all(loss.soft_targets for _, loss in self._heads)

        # For the shortcut of `forward`: sums that are divided only once, at the end.
        self._ones = [Normalizer([1.0] * terms) for terms in self._terms]
        self._can_divide_once = self.additive and not uncertainty
        # Normalizers of fully labeled batches, by their rows: the same for every such batch of an epoch.
        self._row_count_normalizers: dict[int, Normalizer] = {}

    def set_epoch(self, epoch: int) -> None:
        """Pass the epoch, counted from 0, to the losses that change with it."""
        set_epoch((loss for _, loss in self._heads), epoch)
        self._row_count_normalizers.clear()  # class weights may apply from this epoch on

    def normalizer(self, targets: Mapping[str, Tensor], complete: bool = False) -> Normalizer:
        """What one micro-batch adds to its update's normalizer, head after head: one number for each of `terms`.

        `targets` by head; `complete`: the caller knows that every row is labeled, so rows need not be counted. Raises
        ValueError for a head without an entry.
        """
        self._check_names("targets", targets)
        rows = len(targets[self.names[0]])
        # In evaluation, losses with class weights are divided by the summed weights instead.
        if complete and self.training and rows in self._row_count_normalizers:
            return self._row_count_normalizers[rows]
        normalizer = Normalizer.concat(
            [loss.normalizer(targets[name], complete) for name, loss in self._heads]
        )
        if normalizer.is_row_count and self.training:
            self._row_count_normalizers[rows] = normalizer
        return normalizer

    def forward(
        self,
        outputs: Mapping[str, Tensor],
        targets: Mapping[str, Tensor],
        normalizer: Normalizer | None = None,
    ) -> Tensor:
        """The loss of one micro-batch, a scalar: `outputs` and `targets` by head, as each loss takes them.

        `normalizer`: that of the whole update (default: that of this micro-batch). Raises ValueError for a head without
        an entry.
        """
        if normalizer is None:
            normalizer = self.normalizer(targets)

        try:
            # Divided once instead of head by head, which costs three operations a head, forward and backward.
            divisor = self._common_divisor(normalizer)
            if divisor is not None:
                return self._weighted_sum(outputs, targets, self._ones) * inverse_or_zero(divisor)
            return self._weighted_sum(outputs, targets, normalizer.split(self._terms))
        except KeyError:
            # Looked at only now: no chunk of an update waits for a check that always passes.
            self._check_names("outputs", outputs)
            self._check_names("targets", targets)
            raise

    def _weighted_sum(
        self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor], normalizers: Sequence[Normalizer]
    ) -> Tensor:
        """The weighted sum of the heads' losses, each divided by its entry of `normalizers`; a scalar."""
        # `forward`, since a module's call takes as long as a small operation, and no hooks are used on losses.
        values = [
            loss.forward(outputs[name], targets[name], head_normalizer)
            for (name, loss), head_normalizer in zip(self._heads, normalizers, strict=True)
        ]
        if self.log_variance is not None:
            values = self._with_uncertainty(self.log_variance, values, targets, normalizers)

        # A factor of 1 needs no multiplication.
        total = values[0] if self.weights[0] == 1 else self.weights[0] * values[0]
        for weight, value in zip(self.weights[1:], values[1:], strict=True):
            total = total + (value if weight == 1 else weight * value)
        return total

    def _common_divisor(self, normalizer: Normalizer) -> float | None:
        """The number that all terms are divided by, if the host knows that it is the same for all of them."""
        if normalizer.is_row_count or not self._can_divide_once:
            return None
        values = normalizer.values
        if not isinstance(values, list):
            return None
        return values[0] if values.count(values[0]) == len(values) == self.terms else None

    def learned_weights(self) -> dict[str, float]:
        """exp(-s) of every head, if the weights are learned; otherwise empty."""
        if self.log_variance is None:
            return {}
        return dict(zip(self.names, (-self.log_variance.detach()).exp().tolist(), strict=True))

    def _with_uncertainty(
        self,
        log_variance_H: Tensor,
        values: list[Tensor],
        targets: Mapping[str, Tensor],
        normalizers: Sequence[Normalizer],
    ) -> list[Tensor]:
        """Each head's value under its learned weight, with this micro-batch's share of the regularizer."""
        weighted = []
        heads = zip(self._heads, log_variance_H.unbind(), values, normalizers, strict=True)
        for (name, loss), s, value, normalizer in heads:
            # The first term of a head stands for all of them: they count the same rows.
            share = first_term_share(loss.normalizer(targets[name]), normalizer, s)
            weighted.append(loss.likelihood_scale * (-s).exp() * value + s / 2 * share)
        return weighted

    def _check_names(self, what: str, by_head: Mapping[str, Tensor]) -> None:
        if not by_head.keys() >= self._names_set:
            missing = [name for name in self.names if name not in by_head]
            raise ValueError(f"{what}: no entry for {missing}; found {list(by_head)}")


def first_term_share(micro_batch: Normalizer, update: Normalizer, like: Tensor) -> Tensor | float:
    """The first number of a micro-batch's normalizer divided by that of its update's; 0 where that is 0.

    A float if both are on the host, else a scalar of `like`'s dtype and device.
    """
    if isinstance(micro_batch.values, list) and isinstance(update.values, list):
        return micro_batch.values[0] * inverse_or_zero(update.values[0])
    share = torch.as_tensor(micro_batch.values[0], dtype=torch.float64, device=like.device)
    return Normalizer(update.values[:1]).divide(share).to(like.dtype)
