"""From counts to scores: everything that is said about a class target comes from its confusion matrix."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

HIGHER_IS_BETTER: dict[str, bool] = {
    "accuracy": True,
    "balanced_accuracy": True,
    "macro_f1": True,
    "macro_precision": True,
    "macro_recall": True,
    "weighted_f1": True,
}
"""Every score by which a checkpoint can be selected, and whether more of it is better."""


def class_scores(confusion: npt.NDArray[Any], labels: Sequence[str]) -> dict[str, Any]:
    """The scores of a class target as they stand in metrics.json: plain floats, ints, strings, lists and dicts.

    `confusion` (K, K): counts, rows true, columns predicted. `labels`: the names of the K classes.

    Macro averages run over all K classes, and a ratio with nothing below the line is 0: scikit-learn's
    `f1_score(labels=range(K), average="macro", zero_division=0)`. `balanced_accuracy` is the mean recall over the
    classes that occur in the truth, as in scikit-learn. Without any row every score is 0.
    """
    counts_KK = _checked(confusion, len(labels))
    hits_K, support_K, predicted_K = np.diag(counts_KK), counts_KK.sum(axis=1), counts_KK.sum(axis=0)
    precision_K = _ratio(hits_K, predicted_K)
    recall_K = _ratio(hits_K, support_K)
    f1_K = _ratio(2 * hits_K, support_K + predicted_K)
    return {
        "type": "class",
        "labels": list(labels),
        "accuracy": float(_ratio(hits_K.sum(), support_K.sum())),
        "balanced_accuracy": float(_ratio(recall_K.sum(), (support_K > 0).sum())),
        "macro_f1": float(f1_K.mean()),
        "macro_precision": float(precision_K.mean()),
        "macro_recall": float(recall_K.mean()),
        "weighted_f1": float(_ratio((f1_K * support_K).sum(), support_K.sum())),
        "per_class": [
            {"label": label, "precision": precision, "recall": recall, "f1": f1, "support": support}
            for label, precision, recall, f1, support in zip(
                labels,
                precision_K.tolist(),
                recall_K.tolist(),
                f1_K.tolist(),
                support_K.tolist(),
                strict=True,
            )
        ],
        "confusion": counts_KK.tolist(),
    }


def _ratio(above: npt.ArrayLike, below: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """above / below, and 0 where below is 0."""
    above, below = np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)
    ratio: npt.NDArray[np.float64] = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
    return ratio


def _checked(confusion: npt.NDArray[Any], classes: int) -> npt.NDArray[np.int64]:
    if confusion.shape != (classes, classes) or not classes:
        raise ValueError(f"found a confusion matrix of shape {confusion.shape} for {classes} labels")
    if not np.issubdtype(confusion.dtype, np.integer) or (confusion < 0).any():
        raise ValueError(
            f"found a confusion matrix of {confusion.dtype}; allowed: counts, whole numbers >= 0"
        )
    return confusion.astype(np.int64)
