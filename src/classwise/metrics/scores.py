"""Scores from counts: those of a class target follow from the hits, true rows and predicted rows of each class.

The functions of arrays accept any number of leading axes, so that the thousand resamples of a bootstrap are scored like
a single set of counts.
"""

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

HIGHER_IS_BETTER: dict[str, bool] = {
    "accuracy": True,
    "balanced_accuracy": True,
    "macro_f1": True,
    "macro_precision": True,
    "macro_recall": True,
    "micro_f1": True,
    "micro_precision": True,
    "micro_recall": True,
    "weighted_f1": True,
    "weighted_precision": True,
    "weighted_recall": True,
    "sample_f1": True,
    "exact_match": True,
    "mcc": True,
    "kappa": True,
    "quadratic_kappa": True,
    "top3_accuracy": True,
    "top5_accuracy": True,
    "roc_auc": True,
    "average_precision": True,
    "log_loss": False,
    "calibration_error": False,
    "mae_levels": False,
    "mae": False,
    "mse": False,
    "rmse": False,
    "r2": True,
    "mrr": True,
    "ndcg": True,
    "map": True,
    "ndcg_at_5": True,
    "ndcg_at_10": True,
    "mean": True,
}
"""Every score by which a checkpoint can be selected, and whether higher is better."""

_ERRORS = ("log_loss", "mae_levels", "mae", "mse", "rmse")
_AGREEMENTS = ("mcc", "kappa", "quadratic_kappa")


def is_own_metric(name: str) -> bool:
    """Whether a score (without the name of its target) is that of a metric of the user's own: it has a plain name that
    no score of ours has."""
    name = name.removesuffix(AT_PRIOR)
    return name.isidentifier() and name not in HIGHER_IS_BETTER and not name.startswith("worst_")


def score_range(name: str) -> tuple[float, float]:
    """The lowest and the highest value of a score (without the name of its target): no estimate of it lies outside."""
    if is_own_metric(name):
        return -math.inf, math.inf
    if name in _ERRORS:
        return 0.0, math.inf
    return (-math.inf if name == "r2" else -1.0 if name in _AGREEMENTS else 0.0), 1.0


LABEL_SCORES = (
    "accuracy",
    "balanced_accuracy",
    "macro_f1",
    "macro_precision",
    "macro_recall",
    "micro_f1",
    "weighted_f1",
    "weighted_precision",
    "weighted_recall",
    "mcc",
    "kappa",
)
"""The scores that need predicted classes only: those of the joint class."""

ROW_WEIGHTED = "_row_weighted"
"""Ends the name of a score with the weights of data.weight, where it stands beside the score without."""
AT_PRIOR = "_at_prior"
"""Ends the name of a score at the class shares of selection.prior: `macro_f1_at_prior`, one of `LABEL_SCORES`."""

TOP = {"top3_accuracy": 3, "top5_accuracy": 5}
"""The k of each top-k accuracy, which exists only for targets of more than k classes."""

_CLASS_SCORES = (*LABEL_SCORES, *TOP, "log_loss", "calibration_error", "roc_auc", "average_precision")

SCORES: dict[str, tuple[str, ...]] = {
    "class": _CLASS_SCORES,
    "ordinal": (*_CLASS_SCORES, "mae_levels", "quadratic_kappa"),
    "multilabel": (
        "micro_f1",
        "macro_f1",
        "sample_f1",
        "micro_precision",
        "micro_recall",
        "macro_precision",
        "macro_recall",
        "exact_match",
        "map",
        "log_loss",
        "roc_auc",
    ),
    "regression": ("mae", "mse", "rmse", "r2"),
    "ranking": ("mrr", "ndcg", "map", "ndcg_at_5", "ndcg_at_10"),
}
"""The scores of each type of target, in the order of metrics.json."""

BINS = 15
"""The number of equal bins of the calibration error."""

LOSS_LIMIT = float(-np.log(np.finfo(np.float64).eps))
"""The largest log loss of a row: probabilities are at least 2.2e-16, as in scikit-learn's `log_loss`."""


def confusion_marginals(confusion_KK: Array) -> tuple[Array, Array, Array]:
    """Hits, true rows and predicted rows (..., K) of each class, from confusion matrices (..., K, K)."""
    hits_K = np.diagonal(confusion_KK, axis1=-2, axis2=-1)
    return hits_K, confusion_KK.sum(axis=-1), confusion_KK.sum(axis=-2)


def precision_recall_f1(hits_K: Array, support_K: Array, predicted_K: Array) -> tuple[Array, Array, Array]:
    """h / p, h / n and 2 h / (n + p) of each class, all of the shape of the counts."""
    return (
        ratio(hits_K, predicted_K),
        ratio(hits_K, support_K),
        ratio(2 * hits_K, support_K + predicted_K),
    )


def label_scores(hits_K: Array, support_K: Array, predicted_K: Array) -> dict[str, Array]:
    """`LABEL_SCORES` (...) from counts (..., K): of each class the hits h, the true rows n, the predicted rows p.

    Macro averages are over all K classes, and a ratio with a denominator of 0 is 0: scikit-learn's
    `f1_score(labels=range(K), average="macro", zero_division=0)`. `balanced_accuracy` is the mean recall over the
    classes that occur among the true ones, as in scikit-learn. With N rows, c hits in all and e = sum n p:
    `mcc` = (c N - e) / sqrt((N^2 - sum p^2) (N^2 - sum n^2)) (Gorodkin 2004, 'Comparing two K-category
    assignments', equation 8), `kappa` = (c N - e) / (N^2 - e) (Cohen 1960). Without any row every score is 0.
    """
    precision_K, recall_K, f1_K = precision_recall_f1(hits_K, support_K, predicted_K)
    rows = support_K.sum(axis=-1)
    hits = hits_K.sum(axis=-1)

    # For mcc and kappa: N times the hits by chance, and N^2 times the variances of the true and the predicted classes.
    by_chance = (support_K * predicted_K).sum(axis=-1)
    # Counts that are no whole numbers may miss 0 by a rounding error.
    true_spread = np.maximum(rows**2 - (support_K**2).sum(axis=-1), 0)
    predicted_spread = np.maximum(rows**2 - (predicted_K**2).sum(axis=-1), 0)

    # The product of two square roots misses the number itself by a rounding error, and a perfect mcc then exceeds 1.
    mcc = ratio(hits * rows - by_chance, np.sqrt(true_spread) * np.sqrt(predicted_spread))

    accuracy = ratio(hits, rows)
    return {
        "accuracy": accuracy,
        "balanced_accuracy": ratio(recall_K.sum(axis=-1), (support_K > 0).sum(axis=-1)),
        "macro_f1": f1_K.mean(axis=-1),
        "macro_precision": precision_K.mean(axis=-1),
        "macro_recall": recall_K.mean(axis=-1),
        "micro_f1": accuracy,  # each row has one class, so a miss is one false positive and one false negative
        "weighted_f1": ratio((f1_K * support_K).sum(axis=-1), rows),
        "weighted_precision": ratio((precision_K * support_K).sum(axis=-1), rows),
        "weighted_recall": accuracy,
        "mcc": np.clip(mcc, -1, 1),
        "kappa": ratio(hits * rows - by_chance, rows**2 - by_chance),
    }


def level_scores(support_K: Array, predicted_K: Array, distance: Array, square: Array) -> dict[str, Array]:
    """`mae_levels` and `quadratic_kappa` (...) of levels 0 to K - 1 in order.

    From the true and predicted rows of each level (..., K), and the sums (...) over the rows of |true - predicted| and
    its square. quadratic kappa = 1 - (sum of squares) / (its expectation for independent true and predicted levels):
    Cohen 1968, 'Weighted kappa', with weights (i - j)^2. It is 0 where one level is the only true and predicted one.
    """
    level_K = np.arange(support_K.shape[-1], dtype=np.float64)
    rows = support_K.sum(axis=-1)

    # N times the expected sum of squares: sum_ij n_i p_j (i - j)^2, from the first and second moments.
    true_first, true_second = ((support_K * level_K**power).sum(axis=-1) for power in (1, 2))
    predicted_first, predicted_second = ((predicted_K * level_K**power).sum(axis=-1) for power in (1, 2))
    by_chance = rows * (true_second + predicted_second) - 2 * true_first * predicted_first

    return {
        "mae_levels": ratio(distance, rows),
        "quadratic_kappa": ratio(by_chance - rows * square, by_chance),
    }


def probability_scores(sums: Array, rows: Array, classes: int) -> dict[str, Array]:
    """Top-k accuracies, `log_loss` and `calibration_error` (...) from sums (..., 3 + BINS) over rows (...).

    The sums are those of `rows.probability_statistics`. Calibration error: sum over 15 equal bins of the
    confidence, |sum of (confidence - hit)| / rows (Guo et al. 2017, equation 3).
    """
    top = {name: ratio(sums[..., i], rows) for i, (name, k) in enumerate(TOP.items()) if classes > k}
    return {
        **top,
        "log_loss": ratio(sums[..., 2], rows),
        "calibration_error": ratio(np.abs(sums[..., 3:]).sum(axis=-1), rows),
    }


def ratio(numerator: npt.ArrayLike, denominator: npt.ArrayLike) -> Array:
    """numerator / denominator, and 0 where the denominator is 0."""
    numerator = np.asarray(numerator, dtype=np.float64)
    denominator = np.asarray(denominator, dtype=np.float64)
    # Not np.broadcast_shapes, which is written in Python and takes longer than the division of a few classes.
    shape = np.broadcast(numerator, denominator).shape
    result: Array = np.divide(numerator, denominator, out=np.zeros(shape), where=denominator > 0)
    return result


def as_floats(scores: Mapping[str, Array]) -> dict[str, float]:
    """The scores of a single set of counts, in arrays of one element each, as Python floats."""
    return {name: float(value.item()) for name, value in scores.items()}
