"""How labels came to be wrong, estimated from out-of-fold probabilities: what a row shows, and what it was called.

A model that is unsure of a row is no evidence against the label; one that is sure of another class is, and more so
where that class is often called this one. So the probabilities p of a row are taken for evidence of its true class,

    q = softmax(t log p + b)

with a temperature t and a bias b of each class that are fitted, since networks are overconfident and prefer frequent
classes, and labels for what is left of the true class: right with probability 1 - e, and otherwise one of the others,
by a share for each pair of classes. Both are fitted together by expectation maximization, as Dawid and Skene did for
answers of several people ('Maximum likelihood estimation of observer error-rates using the EM algorithm', 1979); a
temperature in place of free answers is what Goldberger and Ben-Reuven add to networks ('Training deep neural-networks
using a noise adaptation layer', ICLR 2017). One error rate for all classes, since rare classes have too few rows for
one of their own.

Letters in names: N rows, K classes.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

ITERATIONS = 60
TOLERANCE = 1e-4
"""The change of the error rate, and of the logarithm of the temperature, at which fitting ends."""
LEAST_PROBABILITY = 1e-9
FIRST_ERROR_RATE = 0.05
PRIOR_ERRORS, PRIOR_ROWS = 1.0, 10.0
"""Errors among rows that are counted before any row is seen."""
PAIR_ROWS = 0.3
"""Errors of each pair of classes that are counted before any row is seen."""
TEMPERATURE_ROWS = 4.0
"""What holds the logarithm of the temperature near 0: as many rows of one squared nat each."""
FITTED_CELLS = 4_000_000
"""Rows times classes that are fitted; of more, rows at equal distances."""


@dataclass(frozen=True)
class NoiseModel:
    """temperature, bias (K,): of the probabilities. error_rate: the share of wrong labels. called_KK: what rows of each
    true class (rows) are called where they are called wrong: rows sum to 1, with zeros on the diagonal."""

    temperature: float
    bias_K: Floats  # noqa: N815 - shape suffixes
    error_rate: float
    called_KK: Floats  # noqa: N815

    def posterior(self, probabilities_NK: Floats, label_N: Ints) -> Floats:
        """(N, K) the probability of each true class, for rows with these probabilities that are called `label_N`."""
        return _posterior(self, _log(probabilities_NK), label_N)


def fit_noise_model(probabilities_NK: Floats, label_N: Ints, by_pair: bool) -> NoiseModel:
    """The model of rows with labels. `by_pair`: wrong labels differ by pair of classes; otherwise all pairs are alike,
    which cannot take classes that a model confuses for classes that people confuse. K is 2 or more."""
    classes = probabilities_NK.shape[1]
    step = max(1, -(-probabilities_NK.size // FITTED_CELLS))
    log_NK, label_N = _log(probabilities_NK[::step]), label_N[::step]
    alike_KK = (1 - np.eye(classes)) / (classes - 1)
    model = NoiseModel(1.0, np.zeros(classes), FIRST_ERROR_RATE, alike_KK)
    for _ in range(ITERATIONS):
        before = model
        model = _improved(model, log_NK, label_N, alike_KK, by_pair)
        moved = abs(np.log(model.temperature / before.temperature))
        if max(moved, abs(model.error_rate - before.error_rate)) < TOLERANCE:
            break
    return model


def _improved(
    model: NoiseModel, log_NK: Floats, label_N: Ints, alike_KK: Floats, by_pair: bool
) -> NoiseModel:
    """One step of expectation maximization."""
    true_NK = _posterior(model, log_NK, label_N)

    # How many rows of each class are called each other one.
    called_KK = np.zeros_like(alike_KK)
    np.add.at(called_KK.T, label_N, true_NK)
    np.fill_diagonal(called_KK, 0)
    error_rate = (called_KK.sum() + PRIOR_ERRORS) / (len(label_N) + PRIOR_ROWS)
    if by_pair:
        smoothed_KK = called_KK + PAIR_ROWS * (alike_KK > 0)
        alike_KK = smoothed_KK / smoothed_KK.sum(axis=1, keepdims=True)

    # A Newton step for the temperature, by its logarithm.
    seen_NK = softmax(model.temperature * log_NK + model.bias_K, axis=1)
    scaled_NK = model.temperature * log_NK
    mean_N1 = (seen_NK * scaled_NK).sum(axis=1, keepdims=True)
    variance = (seen_NK * (scaled_NK - mean_N1) ** 2).sum()
    slope = ((true_NK - seen_NK) * scaled_NK).sum() - TEMPERATURE_ROWS * np.log(model.temperature)
    temperature = model.temperature * np.exp(np.clip(slope / (variance + TEMPERATURE_ROWS), -0.5, 0.5))

    # Then a step of iterative scaling for the bias, so that classes are seen as often as they occur.
    seen_NK = softmax(temperature * log_NK + model.bias_K, axis=1)
    bias_K = model.bias_K + np.log((true_NK.sum(axis=0) + 1) / (seen_NK.sum(axis=0) + 1))
    return NoiseModel(float(temperature), bias_K - bias_K.mean(), float(error_rate), alike_KK)


def _posterior(model: NoiseModel, log_NK: Floats, label_N: Ints) -> Floats:
    seen_NK = softmax(model.temperature * log_NK + model.bias_K, axis=1)
    right_KK = (1 - model.error_rate) * np.eye(len(model.bias_K))
    joint_NK = seen_NK * (right_KK + model.error_rate * model.called_KK).T[label_N]
    return np.asarray(joint_NK / joint_NK.sum(axis=1, keepdims=True))


def _log(probabilities_NK: Floats) -> Floats:
    return np.asarray(np.log(np.maximum(probabilities_NK, LEAST_PROBABILITY)))
