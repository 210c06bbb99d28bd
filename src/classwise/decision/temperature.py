"""Temperature scaling (Guo et al. 2017, 'On calibration of modern neural networks', section 4.2): logits divided by one
number, which changes no prediction."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from classwise.decision.goals import Ints, Truth
from classwise.metrics.bootstrap import Groups, mean_intervals, sampling_units
from classwise.metrics.rows import log_probabilities, probability_sums
from classwise.metrics.scores import Array, probability_scores

LIMITS = (0.02, 50.0)
"""Of a temperature: of predictions that are all right there is no best one."""
STEPS = 60
"""Of the bisection: to 1e-16 of the logarithm's range."""


@dataclass(frozen=True)
class Calibration:
    """Of probabilities over rows: log loss, and the calibration error of the predicted class (None with several
    labels)."""

    log_loss: float
    calibration_error: float | None


def fit_temperature(logits_NK: Array, true: Truth) -> float:
    """The temperature with the lowest log loss of logits or log probabilities.

    `true`: the classes (N,); or cells (N, L) of 1, 0, and NaN where unknown, of independent labels. With beta = 1 / T
    the log loss is convex, and its slope is the mean of E[z] - z_true.
    """
    low, high = -np.log(LIMITS[1]), -np.log(LIMITS[0])
    for _ in range(STEPS):
        middle = (low + high) / 2
        if _slope(logits_NK, true, float(np.exp(middle))) > 0:
            high = middle
        else:
            low = middle
    return float(np.exp(-(low + high) / 2))


def _slope(logits: Array, true: Truth, beta: float) -> float:
    """The derivative of the summed log loss by beta."""
    if true.ndim == 2:
        known = ~np.isnan(true)
        p = 1 / (1 + np.exp(-np.clip(beta * logits, -700, 700)))
        return float(((p - np.nan_to_num(true)) * logits)[known].sum())
    scaled = beta * logits
    p = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    own_N = logits[np.arange(len(true)), true.astype(np.int64)]
    return float(((p * logits).sum(axis=1) - own_N).sum())


def log_losses(logits: Array, true: Truth, temperature: float | Array = 1.0) -> tuple[Array, Array]:
    """The summed log loss and the number of known cells of each row (N,); `temperature`: one, or one for each row."""
    scaled = logits / np.broadcast_to(np.asarray(temperature), len(logits))[:, None]
    if true.ndim == 2:
        known = ~np.isnan(true)
        loss = np.logaddexp(0, np.where(true == 1, -scaled, scaled))
        return (loss * known).sum(axis=1), known.sum(axis=1).astype(np.float64)
    norm_N = np.logaddexp.reduce(scaled, axis=1)
    return norm_N - scaled[np.arange(len(true)), true.astype(np.int64)], np.ones(len(true))


def calibration_of(
    logits: Array, true: Truth, predicted_N: Ints | None, temperature: float | Array = 1.0
) -> Calibration:
    """Log loss and calibration error at a temperature. `predicted_N`: the predicted classes, None of several labels."""
    loss_N, cells_N = log_losses(logits, true, temperature)
    mean = float(loss_N.sum() / max(1.0, cells_N.sum()))
    if predicted_N is None:
        return Calibration(mean, None)
    scaled_NK = torch.from_numpy(logits / np.broadcast_to(np.asarray(temperature), len(logits))[:, None])
    sums = probability_sums(
        scaled_NK,
        log_probabilities(scaled_NK),
        torch.from_numpy(predicted_N),
        torch.from_numpy(true.astype(np.int64)),
        torch.ones(len(true), dtype=torch.bool),
    )
    scores = probability_scores(sums.numpy(), np.array(len(true), dtype=np.float64), logits.shape[1])
    return Calibration(mean, float(scores["calibration_error"]))


@dataclass(frozen=True)
class NestedTemperature:
    """A temperature fitted to all rows, and what those fitted without each fold come to on it: the calibration
    `before` and `after`, and how much lower the log loss is, `gain`, with its 95 % interval (None of too few rows)."""

    temperature: float
    before: Calibration
    after: Calibration
    gain: float
    interval: list[float] | None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def nested_temperature(
    logits: Array,
    true: Truth,
    predicted_N: Ints | None,
    fold_N: Ints,
    groups: Groups | None,
    seed: int,
    resamples: int,
) -> NestedTemperature:
    """Fit a temperature to all rows, and estimate it nested: on each fold the one that was fitted to the others."""
    temperature_N = np.ones(len(logits))
    for fold in np.unique(fold_N):
        others = fold_N != fold
        temperature_N[~others] = fit_temperature(logits[others], true[others])
    (before_N, cells_N), (after_N, _) = log_losses(logits, true), log_losses(logits, true, temperature_N)
    gain_N = before_N - after_N
    units, unit_N = sampling_units(groups, np.ones(len(logits), dtype=bool))
    intervals = mean_intervals({"gain": gain_N}, cells_N, units, unit_N, seed, resamples) if resamples else {}
    return NestedTemperature(
        temperature=fit_temperature(logits, true),
        before=calibration_of(logits, true, predicted_N),
        after=calibration_of(logits, true, predicted_N, temperature_N),
        gain=float(gain_N.sum() / max(1.0, cells_N.sum())),
        interval=intervals.get("gain"),
    )
