"""What every loss here shares: sums in the numerator, and a *mass* as the denominator.

The mean of a batch is a sum over its rows divided by a mass: the number of labelled rows, or the sum of their
class weights. Both parts of several micro-batches can be added, the means themselves cannot. So the training
loop adds the masses of all micro-batches of an update first and hands the total to each of them; the gradients
that add up are then those of one big batch, whatever the sizes, weights and masked labels.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from classwise.errors import ConfigError

IGNORED = -1
"""The label of a row without a known class: it counts in neither the sum nor the mass."""


@runtime_checkable
class Loss(Protocol):
    """What a module has to offer to stand inside `WeightedSum` and `Criterion`.

    `additive`: the value is a sum over rows divided by a mass that is a sum over rows.
    `terms`: how many fractions the value adds up, each with a mass of its own (1 for a simple loss).
    """

    additive: bool
    terms: int

    def mass(self, labels_B: Tensor) -> Tensor:
        """The denominators of this batch: shape (terms,), float64."""

    def __call__(self, logits_BK: Tensor, labels_B: Tensor, mass: Tensor | None = None) -> Tensor:
        """The sums over this batch divided by `mass` (default: its own), a scalar."""


def as_weight(weight: Tensor | None, what: str = "class weights") -> Tensor | None:
    """`weight` (K,) as float64, so that masses add exactly enough; refused unless finite and not negative."""
    if weight is None:
        return None
    if weight.ndim != 1 or not bool((weight.isfinite() & (weight >= 0)).all()):
        raise ConfigError(f"{what}: found {weight.tolist()}, allowed: one finite number >= 0 for each class")
    return weight.detach().to(torch.float64, copy=True)


def checked_factors(factors: Sequence[float], names: Sequence[object]) -> tuple[float, ...]:
    """The factors of a weighted sum: one finite number >= 0 for each of `names`, and at least one."""
    if not names or len(factors) != len(names):
        raise ConfigError(f"weights of a sum of losses: {len(factors)} weights for {len(names)} losses")
    for name, factor in zip(names, factors, strict=True):
        if not (math.isfinite(factor) and factor >= 0):
            raise ConfigError(f"weight of loss {name!r}: found {factor}, allowed: a finite number >= 0")
    return tuple(float(factor) for factor in factors)


def check_part(part: object, where: str) -> None:
    """TypeError unless `part` follows `Loss`: an ordinary torch loss has no mass and cannot be accumulated."""
    if not isinstance(part, Loss):
        found = type(part).__name__
        raise TypeError(
            f"{where}: {found} needs `additive`, `terms` and `mass(labels_B)`; see {Loss.__module__}"
        )


def check_batch(logits_BK: Tensor, labels_B: Tensor, classes: int | None = None) -> None:
    """ValueError unless the shapes are (B, K) and (B,), the labels whole numbers, and K is `classes`."""
    shape = tuple(logits_BK.shape)
    if logits_BK.ndim != 2 or tuple(labels_B.shape) != shape[:1] or labels_B.is_floating_point():
        found = f"logits {shape}, labels {tuple(labels_B.shape)} of {labels_B.dtype}"
        raise ValueError(
            f"found {found}; allowed: logits (B, K), labels (B,) of whole numbers, -1 where unknown"
        )
    if classes is not None and shape[1] != classes:
        raise ValueError(f"found logits for {shape[1]} classes; this loss was made for {classes}")


def at_least_float32(logits: Tensor) -> Tensor:
    """Half-precision logits as float32, others as they are: a sum of logarithms needs more than 8 bits."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def is_known(labels_B: Tensor) -> Tensor:
    """Which rows count (B,)."""
    # In 64 bits first: as 8 bits without a sign, class 255 would equal -1.
    return labels_B.long() != IGNORED


def label_index(labels_B: Tensor) -> Tensor:
    """Labels that can be used as an index: ignored rows point at class 0 and must be left out otherwise."""
    return labels_B.long().masked_fill(~is_known(labels_B), 0)


def row_weights(labels_B: Tensor, weight_K: Tensor | None, dtype: torch.dtype) -> Tensor:
    """The weight of each row (B,): that of its class (1 without class weights), 0 for an ignored row."""
    known_B = is_known(labels_B)
    if weight_K is None:
        return known_B.to(dtype)
    return weight_K.to(dtype).gather(0, label_index(labels_B)) * known_B


def label_mass(labels_B: Tensor, weight_K: Tensor | None = None) -> Tensor:
    """The sum of the rows' weights: shape (1,), float64."""
    return row_weights(labels_B, weight_K, torch.float64).sum().reshape(1)


def over_mass(total: Tensor, mass: Tensor) -> Tensor:
    """`total` (scalar) divided by `mass` (1,); 0 with a zero gradient where the mass is 0."""
    check_mass(mass, 1)
    # 1 / 0 becomes 0 on the device: value and gradient are 0, and the host never asks what the mass was.
    return total * mass.reciprocal().nan_to_num(nan=math.nan, posinf=0.0).to(total.dtype).reshape(())


def check_mass(mass: Tensor, terms: int) -> None:
    """ValueError unless `mass` has one number for each term."""
    if tuple(mass.shape) != (terms,):
        raise ValueError(f"found a mass of shape {tuple(mass.shape)}; allowed: ({terms},), one number a term")


def split_mass(mass: Tensor, terms: Sequence[int]) -> list[Tensor]:
    """The stretch of `mass` (sum of terms,) that belongs to each part, in order."""
    check_mass(mass, sum(terms))
    ends = list(itertools.accumulate(terms, initial=0))
    return [mass[start:end] for start, end in itertools.pairwise(ends)]
