"""Checks that several losses share: of settings (ConfigError) and of the shapes of a batch (ValueError)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from classwise.errors import ConfigError
from classwise.losses.labels import is_soft


def as_epoch(from_epoch: int) -> int:
    """`from_epoch` if it is an epoch, counted from 1; ConfigError otherwise."""
    if from_epoch < 1:
        raise ConfigError(f"weights_from_epoch: found {from_epoch}, allowed: 1 (the first epoch) or more")
    return from_epoch


def as_normalize_by(normalize_by: str) -> str:
    """`normalize_by` if it is known; ConfigError otherwise."""
    if normalize_by not in ("rows", "weights"):
        raise ConfigError(f"normalize_by: found {normalize_by!r}, allowed: rows, weights")
    return normalize_by


def as_number(value: float, key: str, low: float, high: float = math.inf, above: bool = False) -> float:
    """`value` if it is finite and in [low, high], or in (low, high] with `above`; ConfigError otherwise."""
    if math.isfinite(value) and low <= value <= high and not (above and value == low):
        return float(value)
    limits = f"{'> ' if above else '>= '}{low:g}" + (f" and <= {high:g}" if math.isfinite(high) else "")
    raise ConfigError(f"{key}: found {value}, allowed: a finite number {limits}")


def as_weight(weight: Tensor | None, key: str = "class weights") -> Tensor | None:
    """A copy of `weight` (K,) in float64, so that sums of weights are exact enough; None stays None.

    ConfigError unless every weight is finite and >= 0.
    """
    if weight is None:
        return None
    if weight.ndim != 1 or not bool((weight.isfinite() & (weight >= 0)).all()):
        raise ConfigError(f"{key}: found {weight.tolist()}, allowed: one finite number >= 0 for each class")
    return weight.detach().to(torch.float64, copy=True)


def as_counts(counts: Tensor) -> Tensor:
    """`counts` (K,), the rows of each class, in float64; ConfigError unless finite, >= 0 and not all 0."""
    counts_K = counts.detach().to(torch.float64)
    is_valid = counts_K.ndim == 1 and bool((counts_K.isfinite() & (counts_K >= 0)).all())
    if not is_valid or not counts_K.sum() > 0:
        raise ConfigError(f"counts: found {counts.tolist()}, allowed: the rows of each class, not all 0")
    return counts_K


def as_factors(factors: Sequence[float], names: Sequence[object]) -> tuple[float, ...]:
    """The factors of a weighted sum of losses; ConfigError unless each of `names` has a finite one >= 0."""
    if not names or len(factors) != len(names):
        raise ConfigError(f"weights of a sum of losses: {len(factors)} weights for {len(names)} losses")
    for name, factor in zip(names, factors, strict=True):
        if not (math.isfinite(factor) and factor >= 0):
            raise ConfigError(f"weight of loss {name!r}: found {factor}, allowed: a finite number >= 0")
    return tuple(float(factor) for factor in factors)


def check_batch(logits_BK: Tensor, labels: Tensor, classes: int | None = None, soft: bool = True) -> None:
    """ValueError unless the logits are (B, K), the labels hard or (if `soft`) soft, and K is `classes`."""
    # Nearly every batch is of this kind, and the checks below take longer than some losses.
    has_hard_labels = logits_BK.ndim == 2 and labels.ndim == 1 and len(labels) == len(logits_BK)
    if has_hard_labels and labels.dtype == torch.int64 and classes in (None, logits_BK.shape[1]):
        return

    # Hard labels are integers (B,), soft ones floating-point shares (B, K).
    shape = tuple(logits_BK.shape)
    expected_shape = shape if is_soft(labels) else shape[:1]
    fits_dtype = labels.is_floating_point() == is_soft(labels) and (soft or not is_soft(labels))
    if logits_BK.ndim != 2 or tuple(labels.shape) != expected_shape or not fits_dtype:
        actual = f"logits {shape}, labels {tuple(labels.shape)} of {labels.dtype}"
        allowed = "logits (B, K), labels (B,) of integers, -1 where unknown"
        raise ValueError(f"found {actual}; allowed: {allowed}{', or soft labels (B, K)' if soft else ''}")
    if classes is not None and shape[1] != classes:
        raise ValueError(f"found logits for {shape[1]} classes; this loss was made for {classes}")


def check_column(
    outputs_B1: Tensor, targets: Tensor, expected_shape: tuple[int, ...], allowed_targets: str, floating: bool
) -> None:
    """ValueError unless the outputs are (B, 1), and the targets of `expected_shape` and `floating` or integers.

    `allowed_targets` describes the targets in the message.
    """
    fits_targets = tuple(targets.shape) == expected_shape and targets.is_floating_point() == floating
    if tuple(outputs_B1.shape) != (len(targets), 1) or not fits_targets:
        actual = f"outputs {tuple(outputs_B1.shape)}, targets {tuple(targets.shape)} of {targets.dtype}"
        raise ValueError(f"found {actual}; allowed: outputs (B, 1), {allowed_targets}")
