"""Class weights: one factor per class, from the class counts of the training rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from classwise.errors import ConfigError, DataError, nearest

KINDS = ("none", "inverse", "effective")


def class_weights(
    kind: str | Sequence[float], counts: Sequence[float] | npt.NDArray[Any], beta: float = 0.999
) -> Tensor | None:
    """The class weights of `kind` for `counts`, the training rows of each of the K classes: (K,), float64.

    "none"       no weights: None
    "inverse"    N / (K n_k), which is scikit-learn's "balanced"
    "effective"  (1 - beta) / (1 - beta^n_k), Cui et al. 2019, 'Class-balanced loss based on effective number of
                 samples', equation 2, scaled to a mean of 1 over the classes; `beta` in [0, 1)
    a list       K numbers, finite, >= 0, not all 0

    A class without rows gets the neutral weight 1: both rules would divide by 0. No training label uses this weight,
    but label smoothing does. A very large weight, the limit of both rules, would draw the model to a class that it
    never sees, and 0 would hide such rows from a validation loss.

    Raises ConfigError for an unknown kind, an invalid list and a beta out of range; DataError if no row is labeled.
    """
    if not isinstance(kind, str):
        return _from_list(kind, len(counts))
    if kind not in KINDS:
        raise ConfigError(
            f"class weights: found {kind!r}; {nearest(kind, KINDS)} (a list of one number per class is also allowed)"
        )
    n_K = np.asarray(counts, dtype=np.float64)
    if n_K.ndim != 1 or not n_K.size or (n_K < 0).any() or not np.isfinite(n_K).all() or not n_K.any():
        raise DataError(f"class weights: found class counts {n_K.tolist()}; at least one row needs a label")
    if kind == "none":
        return None
    return torch.from_numpy(_inverse(n_K) if kind == "inverse" else _effective(n_K, beta))


def scaled_to_mean_one(weight_K: Tensor, counts: Sequence[float] | npt.NDArray[Any]) -> Tensor:
    """The weights (K,) divided by their mean over the rows, `counts` (K,) of each class.

    Divided by the number of rows, a weighted loss then has the scale of an unweighted one. Raises ConfigError if every
    class with rows has the weight 0.
    """
    counts_K = torch.as_tensor(np.asarray(counts, dtype=np.float64))
    mean = float((weight_K * counts_K).sum() / counts_K.sum())
    if not mean > 0:
        raise ConfigError(
            "class weights: every class with training rows has the weight 0; allowed: one above 0"
        )
    return weight_K / mean


def _inverse(n_K: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    weight_K = np.ones_like(n_K)
    np.divide(n_K.sum(), n_K.size * n_K, out=weight_K, where=n_K > 0)
    return weight_K


def _effective(n_K: npt.NDArray[np.float64], beta: float) -> npt.NDArray[np.float64]:
    if not 0 <= beta < 1:
        raise ConfigError(f"beta of the effective number of samples: found {beta}, allowed: 0 up to below 1")
    present_K = n_K > 0
    weight_K = np.ones_like(n_K)
    unscaled = (1 - beta) / (1 - beta ** n_K[present_K])
    # The mean over the classes with rows becomes 1, and the other classes have 1, so the mean over all classes is 1.
    weight_K[present_K] = unscaled / unscaled.mean()
    return weight_K


def _from_list(weights: Sequence[float], classes: int) -> Tensor:
    weight_K = torch.tensor([float(weight) for weight in weights], dtype=torch.float64)
    if len(weight_K) != classes:
        raise ConfigError(
            f"class weights: found {len(weight_K)} numbers, allowed: one for each of {classes} classes"
        )
    if not bool((weight_K.isfinite() & (weight_K >= 0)).all()) or not bool(weight_K.any()):
        raise ConfigError(f"class weights: found {list(weights)}, allowed: finite numbers >= 0, not all 0")
    return weight_K
