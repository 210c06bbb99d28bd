"""Abstention: predictions below a probability are marked, and what share of the rest is wrong.

The curve of coverage against risk (El-Yaniv and Wiener 2010, 'On the foundations of noise-free selective
classification'): the surest predictions first.
"""

from dataclasses import dataclass

import numpy as np

from classwise.decision.goals import Bools, Ints
from classwise.metrics.scores import Array

COVERAGES = tuple(round(1 - 0.05 * i, 2) for i in range(20))
"""Shares of rows at which a curve is given."""


@dataclass(frozen=True)
class CurvePoint:
    """At a `threshold` the `coverage` is the share of rows that are answered, and the `risk` the share of wrong
    answers among these."""

    threshold: float
    coverage: float
    risk: float


def confidence_of_class(log_p_NK: Array, predicted_N: Ints) -> Array:
    """The probability (N,) of the predicted class."""
    norm_N = np.logaddexp.reduce(log_p_NK, axis=1)
    p_N: Array = np.exp(log_p_NK[np.arange(len(predicted_N)), predicted_N] - norm_N)
    return p_N


def confidence_of_labels(logits_NL: Array, chosen_NL: Bools) -> Array:
    """The probability (N,) of what is said of the least certain label: that it is there where it is chosen, else that
    it is not."""
    said = np.where(chosen_NL, logits_NL, -logits_NL)
    p_N: Array = 1 / (1 + np.exp(-np.clip(said.min(axis=1), -700, 700)))
    return p_N


def risk_curve(confidence_N: Array, wrong_N: Array) -> list[CurvePoint]:
    """One point for each of COVERAGES. `wrong_N`: 1 for a wrong answer, 0 for a right one, or the share of wrong cells.
    Rows with the confidence of the threshold itself are answered, so a coverage may be higher than asked for."""
    order = np.argsort(-confidence_N, kind="stable")
    points: list[CurvePoint] = []
    for coverage in COVERAGES:
        last = max(1, int(np.ceil(round(coverage * len(order), 9)))) - 1
        point = risk_at(confidence_N, wrong_N, float(confidence_N[order[last]]))
        if not points or point.coverage < points[-1].coverage:
            points.append(point)
    return points


def risk_at(confidence_N: Array, wrong_N: Array, threshold: float) -> CurvePoint:
    """The coverage and the risk of a threshold; without an answered row the risk is 0."""
    answered = confidence_N >= threshold
    risk = float(wrong_N[answered].mean()) if answered.any() else 0.0
    return CurvePoint(threshold, float(answered.mean()), risk)
