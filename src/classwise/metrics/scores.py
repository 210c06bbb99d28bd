"""From counts to scores: what is said about one class of many comes from hits, rows and predictions of each class.

The functions of arrays work on any number of leading axes, so that the thousand resamples of a bootstrap are
scored like the one set of counts.
"""

from collections.abc import Mapping, Sequence
from typing import Any

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
}
"""Every score by which a checkpoint can be selected, and whether more of it is better."""

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
"""What predicted classes alone give: the scores of the joint class."""

TOP = {"top3_accuracy": 3, "top5_accuracy": 5}
"""Among how many classes the true one has to be; only where there are more classes than that."""

_CLASS_SCORES = (*LABEL_SCORES, *TOP, "log_loss", "calibration_error")

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
    ),
    "regression": ("mae", "mse", "rmse", "r2"),
    "ranking": ("mrr", "ndcg", "map", "ndcg_at_5", "ndcg_at_10"),
}
"""The scores of each type of target, in the order of metrics.json."""

BINS = 15

LOSS_LIMIT = float(-np.log(np.finfo(np.float64).eps))
"""No row's log loss is more: probabilities below 2.2e-16 count as that, as in scikit-learn's `log_loss`."""


def class_scores(
    confusion: npt.NDArray[Any],
    labels: Sequence[str],
    more: Mapping[str, float] | None = None,
    type: str = "class",
) -> dict[str, Any]:
    """The scores of a class target as they stand in metrics.json: plain floats, ints, strings, lists and dicts.

    `confusion` (K, K): counts, rows true, columns predicted. `labels`: the names of the K classes. `more`: scores
    that do not come from predicted classes alone. See `label_scores` for the formulas.
    """
    counts_KK = _checked(confusion, len(labels))
    marginals = confusion_marginals(counts_KK.astype(np.float64))
    support_K = counts_KK.sum(axis=1)
    columns = (*(column.tolist() for column in precision_recall_f1(*marginals)), support_K.tolist())
    return {
        "type": type,
        "labels": list(labels),
        "samples": int(support_K.sum()),
        **plain(label_scores(*marginals)),
        **(more or {}),
        "per_class": [
            {"label": label, "precision": precision, "recall": recall, "f1": f1, "support": support}
            for label, precision, recall, f1, support in zip(labels, *columns, strict=True)
        ],
        "confusion": counts_KK.tolist(),
    }


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

    Macro averages run over all K classes, and a ratio with nothing below the line is 0: scikit-learn's
    `f1_score(labels=range(K), average="macro", zero_division=0)`. `balanced_accuracy` is the mean recall over the
    classes that occur in the truth, as in scikit-learn. With N rows, c hits in all and e = sum n p:
    `mcc` = (c N - e) / sqrt((N^2 - sum p^2) (N^2 - sum n^2)) (Gorodkin 2004, 'Comparing two K-category
    assignments', equation 8), `kappa` = (c N - e) / (N^2 - e) (Cohen 1960). Without any row every score is 0.
    """
    precision_K, recall_K, f1_K = precision_recall_f1(hits_K, support_K, predicted_K)
    rows, hits = support_K.sum(axis=-1), hits_K.sum(axis=-1)
    by_chance = (support_K * predicted_K).sum(axis=-1)
    spread = [rows**2 - (counts_K**2).sum(axis=-1) for counts_K in (support_K, predicted_K)]
    accuracy = ratio(hits, rows)
    return {
        "accuracy": accuracy,
        "balanced_accuracy": ratio(recall_K.sum(axis=-1), (support_K > 0).sum(axis=-1)),
        "macro_f1": f1_K.mean(axis=-1),
        "macro_precision": precision_K.mean(axis=-1),
        "macro_recall": recall_K.mean(axis=-1),
        "micro_f1": accuracy,  # each row has one class, so that a miss is one false positive and one false negative
        "weighted_f1": ratio((f1_K * support_K).sum(axis=-1), rows),
        "weighted_precision": ratio((precision_K * support_K).sum(axis=-1), rows),
        "weighted_recall": accuracy,
        "mcc": ratio(hits * rows - by_chance, np.sqrt(spread[0]) * np.sqrt(spread[1])),
        "kappa": ratio(hits * rows - by_chance, rows**2 - by_chance),
    }


def level_scores(support_K: Array, predicted_K: Array, distance: Array, square: Array) -> dict[str, Array]:
    """`mae_levels` and `quadratic_kappa` (...) of levels 0 to K - 1 in order.

    From the true and predicted rows of each level (..., K), and the sums (...) over the rows of |true - predicted|
    and its square. quadratic kappa = 1 - (sum of squares) / (that sum where truth and prediction are independent):
    Cohen 1968, 'Weighted kappa', with weights (i - j)^2. 0 where all rows have the same one level in both.
    """
    level_K = np.arange(support_K.shape[-1], dtype=np.float64)
    rows = support_K.sum(axis=-1)
    moments = [(support_K * level_K**power).sum(axis=-1) for power in (1, 2)]
    moments += [(predicted_K * level_K**power).sum(axis=-1) for power in (1, 2)]
    # N times the expected sum, since sum_ij n_i p_j (i - j)^2 is a product of moments.
    by_chance = rows * (moments[1] + moments[3]) - 2 * moments[0] * moments[2]
    return {
        "mae_levels": ratio(distance, rows),
        "quadratic_kappa": ratio(by_chance - rows * square, by_chance),
    }


def probability_scores(sums: Array, rows: Array, classes: int) -> dict[str, Array]:
    """Top-k accuracies, `log_loss` and `calibration_error` (...) from sums (..., 3 + BINS) over rows (...).

    The sums are those of `metric.probability_statistics`. Calibration error: sum over 15 equal bins of the
    confidence, |sum of (confidence - hit)| / rows (Guo et al. 2017, equation 3).
    """
    top = {name: ratio(sums[..., i], rows) for i, (name, k) in enumerate(TOP.items()) if classes > k}
    return {
        **top,
        "log_loss": ratio(sums[..., 2], rows),
        "calibration_error": ratio(np.abs(sums[..., 3:]).sum(axis=-1), rows),
    }


def ratio(above: npt.ArrayLike, below: npt.ArrayLike) -> Array:
    """above / below, and 0 where below is 0."""
    above, below = np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)
    shape = np.broadcast_shapes(above.shape, below.shape)
    result: Array = np.divide(above, below, out=np.zeros(shape), where=below > 0)
    return result


def plain(scores: Mapping[str, Array]) -> dict[str, float]:
    """Scores of one set of counts, whatever axes of length 1 they have, as Python's floats."""
    return {name: float(value.item()) for name, value in scores.items()}


def _checked(confusion: npt.NDArray[Any], classes: int) -> npt.NDArray[np.int64]:
    if confusion.shape != (classes, classes) or not classes:
        raise ValueError(f"found a confusion matrix of shape {confusion.shape} for {classes} labels")
    if not np.issubdtype(confusion.dtype, np.integer) or (confusion < 0).any():
        raise ValueError(
            f"found a confusion matrix of {confusion.dtype}; allowed: counts, whole numbers >= 0"
        )
    return confusion.astype(np.int64)
