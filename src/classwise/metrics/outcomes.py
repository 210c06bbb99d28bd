"""What each row came to in one epoch, as far as the metric that selects needs it: a few bytes a row."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from classwise.metrics.bootstrap import Groups
from classwise.metrics.optimism import (
    LEVEL_SCORES,
    REGRESSION_SCORES,
    ROW_MEANS,
    best_epoch,
    optimism,
    resampled_class_scores,
    resampled_means,
    resampled_regression_scores,
    too_few_units,
)
from classwise.metrics.rows import log_probabilities, probability_statistics
from classwise.metrics.scores import AT_PRIOR, LABEL_SCORES, Array

MOST_BYTES = 32 * 2**20
"""Of all rows and epochs together: they are written with every checkpoint."""


def outcome_dtype(metric: str, type: str, classes: int) -> torch.dtype | None:
    """How one row is kept for a score (without the name of its target) of a target of this type: the predicted class in
    as few bytes as hold it, or a number. None where the score is not a function of such rows: a calibration error, a
    mean average precision, the scores of multilabel and ranking targets."""
    if type in ("class", "ordinal", "joint"):
        metric = metric.removesuffix(AT_PRIOR)
        if metric in LABEL_SCORES or metric in LEVEL_SCORES:
            return torch.uint8 if classes <= 256 else torch.int16 if classes <= 2**15 else torch.int32
        return torch.float32 if metric in ROW_MEANS else None
    return torch.float32 if type == "regression" and metric in REGRESSION_SCORES else None


def class_outcome(metric: str, decoded_BK: Tensor, predicted_B: Tensor, labels_B: Tensor) -> Tensor:
    """The predicted classes (B,), or a number of each row where the score is the mean of one."""
    if metric not in ROW_MEANS:
        return predicted_B
    counted_B = (labels_B >= 0) & (predicted_B >= 0)
    log_p_BK = log_probabilities(decoded_BK)
    statistics_BS = probability_statistics(decoded_BK, log_p_BK, predicted_B, labels_B, counted_B)
    return statistics_BS[:, ROW_MEANS.index(metric)]


def reason_against_optimism(
    metric: str, true_N: np.ndarray[Any, Any], classes: int, groups: Groups | None
) -> str:
    """Why the known rows are too few, or too few of a kind, for an optimism; empty if they are not. Arguments as in
    `selection_optimism`."""
    known_N = true_N >= 0 if classes else np.isfinite(true_N)
    known_groups = None if groups is None else np.asarray(groups)[known_N]
    return too_few_units(metric.removesuffix(AT_PRIOR), true_N[known_N], classes, known_groups)


def selection_optimism(
    metric: str,
    true_N: np.ndarray[Any, Any],
    outcomes_EN: np.ndarray[Any, Any],
    scores_E: Array,
    classes: int,
    groups: Groups | None,
    seed: int,
    resamples: int,
    higher_is_better: bool,
    shares: Sequence[float] | None = None,
) -> float:
    """See `optimism`. `metric`: a score without the name of its target; `true_N`: classes, -1 where unknown, or values,
    NaN where unknown; `outcomes_EN`: as recorded, of the epochs that could be selected; `scores_E`: their scores.
    `shares`: the class shares of a score at prior."""
    known_N = true_N >= 0 if classes else np.isfinite(true_N)
    true_N = true_N[known_N]
    outcomes_EN = outcomes_EN[:, known_N]
    groups = None if groups is None else np.asarray(groups)[known_N]
    if metric in ROW_MEANS:
        resampled_RE = resampled_means(outcomes_EN.astype(np.float64), groups, seed, resamples)
    elif classes:
        predicted_EN = outcomes_EN.astype(np.int64)
        resampled_RE = resampled_class_scores(
            metric.removesuffix(AT_PRIOR),
            true_N.astype(np.int64),
            predicted_EN,
            classes,
            groups,
            seed=seed,
            resamples=resamples,
            shares=shares,
        )
    else:
        errors_EN = outcomes_EN.astype(np.float64)
        resampled_RE = resampled_regression_scores(metric, true_N, errors_EN, groups, seed, resamples)
    return optimism(scores_E, resampled_RE, best_epoch, higher_is_better)
