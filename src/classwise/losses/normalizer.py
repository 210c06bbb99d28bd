"""What every loss here shares: sums in the numerator, and a *normalizer* as the denominator.

The mean of a batch is a sum over its rows divided by a normalizer: the number of labelled rows, or the sum of their
class weights. Both parts of several micro-batches can be added, the means themselves cannot. So the training
loop adds the normalizers of all micro-batches of an update first and hands the total to each of them; the gradients
that add up are then those of one big batch, whatever the sizes, weights and masked labels.

Labels of a class are hard, (B,) whole numbers with -1 where unknown, or soft, (B, K) with the share of each class:
>= 0, each row with a sum <= 1, and what is missing to 1 is unknown. Every loss that takes soft labels is linear in
them, and so is its normalizer: t_1 loss(label 1) + t_2 loss(label 2) + ..., which is what mixing images asks for.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Protocol, TypeAlias, cast, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from classwise.errors import ConfigError

Normalizer: TypeAlias = Tensor | Sequence[float]
"""One denominator a term: a tensor (terms,), or plain numbers, which cost no operation on the device."""


class WholeUpdate(list[float]):
    """The normalizers of a batch that is a whole update and of which every answer is known: the number of its rows, for each
    term. A loss may then take torch's own mean, which divides within the kernel; labels of classes are hard."""


IGNORED = -1
"""The label of a row without a known class: it counts in neither the sum nor the normalizer."""


@runtime_checkable
class Loss(Protocol):
    """What a module has to offer to stand inside `WeightedSum` and `Criterion`.

    `additive`: the value is a sum over rows divided by a normalizer that is a sum over rows.
    `terms`: how many fractions the value adds up, each with a normalizer of its own (1 for a simple loss).
    `soft_targets`: whether it takes the targets of mixed images.
    `likelihood_scale`: what the value, as a negative log-likelihood, has in front under learnt weights between
    the heads: 1, or 1/2 for a regression (Kendall et al. 2018, equations 5 and 10).
    """

    additive: bool
    terms: int
    soft_targets: bool
    likelihood_scale: float

    def normalizer(self, targets: Tensor) -> Tensor:
        """The denominators of this batch: shape (terms,), float64."""

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
    loss', section 3.3: the features are learnt unweighted, the weights then move the borders.
    """
    return weight_K if epoch + 1 >= from_epoch else None


def as_epoch(from_epoch: int) -> int:
    """`from_epoch` if it is an epoch, counted from 1; ConfigError otherwise."""
    if from_epoch < 1:
        raise ConfigError(f"weights_from_epoch: found {from_epoch}, allowed: 1 (the first epoch) or more")
    return from_epoch


def as_number(value: float, key: str, low: float, high: float = math.inf, above: bool = False) -> float:
    """`value` if it is a finite number from `low` (or `above` it) to `high`; ConfigError otherwise."""
    if math.isfinite(value) and low <= value <= high and not (above and value == low):
        return float(value)
    limits = f"{'> ' if above else '>= '}{low:g}" + (f" and <= {high:g}" if math.isfinite(high) else "")
    raise ConfigError(f"{key}: found {value}, allowed: a finite number {limits}")


def as_weight(weight: Tensor | None, what: str = "class weights") -> Tensor | None:
    """`weight` (K,) as float64, so that normalizers add exactly enough; refused unless finite and not negative."""
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
    """TypeError unless `part` follows `Loss`: an ordinary torch loss has no normalizer and cannot be accumulated."""
    if not isinstance(part, Loss):
        found = type(part).__name__
        raise TypeError(
            f"{where}: {found} needs `additive`, `terms`, `soft_targets`, `likelihood_scale` and `normalizer(targets)`;"
            f" see {Loss.__module__}"
        )


def is_soft(labels: Tensor) -> bool:
    """Whether `labels` are shares (B, K) rather than class numbers (B,)."""
    return labels.ndim == 2


def check_batch(logits_BK: Tensor, labels: Tensor, classes: int | None = None, soft: bool = True) -> None:
    """ValueError unless the logits are (B, K), the labels hard or (if `soft`) soft, and K is `classes`."""
    plain = logits_BK.ndim == 2 and labels.ndim == 1 and len(labels) == len(logits_BK)
    if plain and labels.dtype == torch.int64 and classes in (None, logits_BK.shape[1]):
        return  # nearly always
    shape = tuple(logits_BK.shape)
    good = labels.is_floating_point() == is_soft(labels) and (soft or not is_soft(labels))
    expected = shape if is_soft(labels) else shape[:1]
    if logits_BK.ndim != 2 or tuple(labels.shape) != expected or not good:
        found = f"logits {shape}, labels {tuple(labels.shape)} of {labels.dtype}"
        allowed = "logits (B, K), labels (B,) of whole numbers, -1 where unknown"
        raise ValueError(f"found {found}; allowed: {allowed}{', or soft labels (B, K)' if soft else ''}")
    if classes is not None and shape[1] != classes:
        raise ValueError(f"found logits for {shape[1]} classes; this loss was made for {classes}")


def check_column(
    outputs_B1: Tensor, targets: Tensor, expected: tuple[int, ...], what: str, floating: bool
) -> None:
    """ValueError unless outputs are (B, 1) and targets of the `expected` shape, `floating` or whole numbers."""
    good = tuple(targets.shape) == expected and targets.is_floating_point() == floating
    if tuple(outputs_B1.shape) != (len(targets), 1) or not good:
        found = f"outputs {tuple(outputs_B1.shape)}, targets {tuple(targets.shape)} of {targets.dtype}"
        raise ValueError(f"found {found}; allowed: outputs (B, 1), {what}")


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


def row_weights(labels: Tensor, weight_K: Tensor | None, dtype: torch.dtype) -> Tensor:
    """The weight of each row (B,): that of its class (1 without class weights), 0 for an ignored row.

    With soft labels it is the mean over the classes, by their shares.
    """
    if is_soft(labels):
        share_BK = labels.to(dtype)
        if weight_K is not None and len(weight_K) != labels.shape[1]:
            found = f"found soft labels of {labels.shape[1]} classes"
            raise ValueError(f"{found}; this loss was made for {len(weight_K)}")
        return (share_BK if weight_K is None else share_BK * weight_K.to(dtype)).sum(dim=1)
    known_B = is_known(labels)
    if weight_K is None:
        return known_B.to(dtype)
    return weight_K.to(dtype).gather(0, label_index(labels)) * known_B


def label_normalizer(labels: Tensor, weight_K: Tensor | None = None) -> Tensor:
    """The sum of the rows' weights: shape (1,), float64."""
    if weight_K is None and not is_soft(labels):
        return is_known(labels).sum(dim=0, keepdim=True, dtype=torch.float64)
    return row_weights(labels, weight_K, torch.float64).sum().reshape(1)


def label_sum(loss_BK: Tensor, labels: Tensor, weight_K: Tensor | None = None) -> Tensor:
    """The weighted sum over the rows, a scalar; `loss_BK` is the loss that a row had if its label were k."""
    if is_soft(labels):
        share_BK = labels.to(loss_BK.dtype)
        return (loss_BK * (share_BK if weight_K is None else share_BK * weight_K.to(loss_BK.dtype))).sum()
    loss_B = loss_BK.gather(1, label_index(labels).unsqueeze(1)).squeeze(1)
    return (row_weights(labels, weight_K, loss_B.dtype) * loss_B).sum()


def divide_by_normalizer(total: Tensor, normalizer: Normalizer) -> Tensor:
    """`total` (scalar) divided by `normalizer` (1,); 0 with a zero gradient where the normalizer is 0."""
    if not isinstance(normalizer, Tensor) and len(normalizer) == 1:
        return total if normalizer[0] == 1 else total * inverse(normalizer[0])
    check_normalizer(normalizer, 1)
    assert isinstance(normalizer, Tensor)
    # 1 / 0 becomes 0 on the device: value and gradient are 0, and the host never asks what the normalizer was.
    return total * normalizer.reciprocal().nan_to_num(nan=math.nan, posinf=0.0).to(total.dtype).reshape(())


def inverse(normalizer: float) -> float:
    """1 / normalizer, and 0 where nothing is known."""
    return 1 / normalizer if normalizer else 0.0


def check_normalizer(normalizer: Normalizer, terms: int) -> None:
    """ValueError unless `normalizer` has one number for each term."""
    shape = tuple(normalizer.shape) if isinstance(normalizer, Tensor) else (len(normalizer),)
    if shape != (terms,):
        raise ValueError(f"found a normalizer of shape {shape}; allowed: ({terms},), one number a term")


def split_normalizer(normalizer: Normalizer, terms: Sequence[int]) -> list[Normalizer]:
    """The stretch of `normalizer` (sum of terms,) that belongs to each part, in order."""
    check_normalizer(normalizer, sum(terms))
    ends = list(itertools.accumulate(terms, initial=0))
    return [normalizer[start:end] for start, end in itertools.pairwise(ends)]


def numbers(normalizer: Tensor) -> Normalizer:
    """The normalizer as plain numbers where it lies on the host; on another device it stays there, since to ask for it
    would mean to wait."""
    return cast(list[float], normalizer.tolist()) if normalizer.device.type == "cpu" else normalizer


def host_normalizer(loss: Loss, targets: Tensor) -> list[float]:
    """`loss.normalizer(targets)` of targets on the host, as plain numbers. Where a loss says that it `counts_rows`, its normalizer
    is the number of known labels, which numpy counts in a quarter of the time that tensors of this size take."""
    if getattr(loss, "counts_rows", False) and targets.ndim == 1:
        return [float(np.count_nonzero(targets.numpy() != IGNORED))]
    return cast(list[float], loss.normalizer(targets).tolist())
