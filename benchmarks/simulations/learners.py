"""Learners that are equally good by construction: each sees another part of features that are exchangeable.

Rows have one of K classes, long-tailed, and V parts of F features each. Given the class, all parts have the same normal
distribution. So linear discriminant analysis of one part is as good as that of another, whatever
the training rows: which part wins is chance alone.

Letters in names: D data sets, J seeds, V variants, N rows, K classes, F features.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from classwise.data.split import Stratum, draw_test_rows, split_rows
from classwise.metrics.scores import label_scores

Array = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]

CLASSES = 5
FEATURES = 6
COUNTS = (200, 125, 85, 55, 35)  # rows by class
VALID = 0.2  # data.valid


@dataclass(frozen=True)
class Population:
    """Where data sets come from. `means` (V, K, F): of each part of the features, by class; `noise`: the share of the
    training rows that a learner leaves out at random, as another seed of a network would learn something else;
    `agreement`: the correlation between the parts of a row, so that variants mostly agree on it, as real ones do."""

    means: Array
    noise: float
    agreement: float

    def features(self, rng: np.random.Generator, sets: int, labels_N: Numbers) -> Array:
        """The features (D, V, N, F) of new rows with these labels."""
        means_VNF = self.means[:, labels_N]
        own = rng.normal(size=(sets, *means_VNF.shape))
        common = rng.normal(size=(sets, 1, *means_VNF.shape[1:]))
        features: Array = means_VNF + np.sqrt(1 - self.agreement) * own + np.sqrt(self.agreement) * common
        return features


def population(
    variants: int, signal: float, noise: float, gain: float = 0.0, agreement: float = 0.0
) -> Population:
    """A population whose classes lie `signal` apart. `gain`: how much farther apart they are for the last variant."""
    means_KF = np.random.default_rng(7).normal(size=(CLASSES, FEATURES)) * signal
    means_VKF = np.stack([means_KF * (1 + gain * (v == variants - 1)) for v in range(variants)])
    return Population(means_VKF, noise, agreement)


def long_tailed(counts: tuple[int, ...] = COUNTS) -> Numbers:
    """The labels (N,) of as many rows of each class."""
    return np.repeat(np.arange(len(counts)), counts)


def drawn_splits(labels_N: Numbers, test: float, seed: int) -> tuple[Flags, Flags]:
    """The training and the test rows (N,) that classwise draws with this seed, with data.valid = 0.2. `test`: the share
    of the test; 0: the validation rows are the second part, as in a comparison at a fixed epoch."""
    stratum = Stratum("label", labels_N, [str(k) for k in range(CLASSES)], required=True)
    if not test:
        valid_N = split_rows([stratum], None, VALID, seed)
        return ~valid_N, valid_N
    test_N, _ = draw_test_rows([stratum], None, test, seed, parts_left=2)
    rows = np.flatnonzero(~test_N)
    stratum = Stratum("label", labels_N[rows], stratum.labels, required=True)
    train_N = np.zeros(len(labels_N), dtype=np.bool_)
    train_N[rows[~split_rows([stratum], None, VALID * len(labels_N) / len(rows), seed)]] = True
    return train_N, test_N


def trained(
    features_DVNF: Array, labels_N: Numbers, train_DJN: Flags, noise: float, rng: np.random.Generator
) -> Callable[[Array], Numbers]:
    """One learner for each data set, variant and seed, fitted to the training rows: a function from features
    (D, V, M, F) to predicted classes (D, V, J, M)."""
    sets, variants, rows, _ = features_DVNF.shape
    kept_DVJN = rng.random((sets, variants, train_DJN.shape[1], rows)) >= noise
    weight_DVJN = (train_DJN[:, None] & kept_DVJN).astype(np.float64)

    # Class means and the covariance within classes, by products of the weights with sums over rows.
    one_hot_NK = np.eye(CLASSES)[labels_N]
    count_DVJK = np.maximum(weight_DVJN @ one_hot_NK, 1e-9)
    sums = [(weight_DVJN * one_hot_NK[:, k]) @ features_DVNF for k in range(CLASSES)]
    mean_DVJKF = np.stack(sums, axis=3) / count_DVJK[..., None]
    products = (features_DVNF[..., :, None] * features_DVNF[..., None, :]).reshape(sets, variants, rows, -1)
    total = (weight_DVJN @ products).reshape(*count_DVJK.shape[:3], FEATURES, FEATURES)
    between = np.einsum("...k,...kf,...kg->...fg", count_DVJK, mean_DVJKF, mean_DVJKF)
    covariance = (total - between) / count_DVJK.sum(-1)[..., None, None] + 1e-3 * np.eye(FEATURES)

    # Linear scores by class, with the training rows' frequencies as the prior.
    weights_DVJFK = np.linalg.solve(covariance, np.swapaxes(mean_DVJKF, -1, -2))
    offset_DVJK = -0.5 * np.einsum("...fk,...kf->...k", weights_DVJFK, mean_DVJKF)
    offset_DVJK += np.log(count_DVJK / count_DVJK.sum(-1, keepdims=True))

    def predict(features_DVMF: Array) -> Numbers:
        scores = features_DVMF[:, :, None] @ weights_DVJFK + offset_DVJK[..., None, :]
        predicted: Numbers = scores.argmax(axis=-1)
        return predicted

    return predict


def macro_f1(predicted: Numbers, labels_N: Numbers, counted: npt.NDArray[Any]) -> Array:
    """The package's macro F1 (...) of predicted classes (..., N) over the rows `counted` (..., N)."""
    true = labels_N == np.arange(CLASSES)[:, None]
    columns = [
        (
            (counted & (predicted == k) & true[k]).sum(axis=-1),
            (counted & true[k] & (predicted >= 0)).sum(axis=-1),
            (counted & (predicted == k)).sum(axis=-1),
        )
        for k in range(CLASSES)
    ]
    hits, support, guessed = (
        np.stack(column, axis=-1).astype(np.float64) for column in zip(*columns, strict=True)
    )
    return label_scores(hits, support, guessed)["macro_f1"]
