"""A confusion matrix by the cells that occur, of which many classes have few; and the scores of a class target."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from classwise.metrics.scores import Array, as_floats, label_scores, precision_recall_f1

Ints = npt.NDArray[np.int64]

MOST_WRITTEN_OUT = 200
"""Classes up to which files hold the whole matrix, and the probability of every class."""


@dataclass(frozen=True)
class Confusion:
    """The cells of a confusion matrix that are not empty: true class, predicted class and count (C,) of each, in the
    order of the matrix. `classes`: the number K of classes."""

    classes: int
    true: Ints
    predicted: Ints
    count: Ints

    @staticmethod
    def of(confusion_KK: npt.NDArray[Any]) -> "Confusion":
        """From a whole matrix (K, K) of counts, rows true, columns predicted."""
        true_C, predicted_C = np.nonzero(confusion_KK)
        return Confusion(
            classes=len(confusion_KK),
            true=true_C,
            predicted=predicted_C,
            count=confusion_KK[true_C, predicted_C].astype(np.int64),
        )

    def dense(self) -> Ints:
        """The whole matrix (K, K)."""
        confusion_KK = np.zeros((self.classes, self.classes), dtype=np.int64)
        confusion_KK[self.true, self.predicted] = self.count
        return confusion_KK

    @property
    def support(self) -> Ints:
        """The true rows of each class (K,)."""
        return self._summed(self.true, self.count).astype(np.int64)

    def marginals(self, weight_K: Array | None = None) -> tuple[Array, Array, Array]:
        """Hits, true rows and predicted rows (K,) of each class, the rows of each true class weighted."""
        count_C = self.count.astype(np.float64)
        if weight_K is not None:
            count_C = count_C * weight_K[self.true]
        hits_C = count_C * (self.true == self.predicted)
        return (
            self._summed(self.true, hits_C),
            self._summed(self.true, count_C),
            self._summed(self.predicted, count_C),
        )

    def distances(self, weight_K: Array | None = None) -> tuple[float, float]:
        """The sums over rows of |true - predicted| and of its square, the rows of each true class weighted."""
        count_C = self.count if weight_K is None else self.count * weight_K[self.true]
        steps_C = np.abs(self.true - self.predicted)
        return (count_C * steps_C).sum(), (count_C * steps_C**2).sum()

    def as_json(self) -> Any:
        """As in metrics.json: the whole matrix as lists; of more than MOST_WRITTEN_OUT classes the class numbers `true`
        and `predicted`, from 0, and the `count` of each cell that is not empty."""
        if self.classes <= MOST_WRITTEN_OUT:
            return self.dense().tolist()
        return {name: getattr(self, name).tolist() for name in ("true", "predicted", "count")}

    def _summed(self, class_C: Ints, value_C: npt.NDArray[Any]) -> Array:
        return np.bincount(class_C, value_C, minlength=self.classes).astype(np.float64)


def confusion_from_json(recorded: Any, classes: int) -> Confusion | None:
    """What `as_json` gave, or None for anything else."""
    try:
        if not isinstance(recorded, dict):
            counts_KK = np.asarray(recorded, dtype=np.int64)
            return Confusion.of(counts_KK) if classes and counts_KK.shape == (classes, classes) else None
        columns = [np.asarray(recorded[name], dtype=np.int64) for name in ("true", "predicted", "count")]
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    true_C, predicted_C, count_C = columns
    is_column = all(column.shape == (len(true_C),) for column in columns if column.ndim == 1)
    if not is_column or any(column.ndim != 1 for column in columns):
        return None
    numbers_C = np.concatenate([true_C, predicted_C])
    if len(numbers_C) and not 0 <= numbers_C.min() <= numbers_C.max() < classes:
        return None
    return Confusion(classes, true=true_C, predicted=predicted_C, count=count_C)


def class_scores(
    confusion: npt.NDArray[Any] | Confusion,
    labels: Sequence[str],
    extra_scores: Mapping[str, float] | None = None,
    type: str = "class",
    class_columns: Mapping[str, Sequence[float | None]] | None = None,
) -> dict[str, Any]:
    """The scores of a class target as in metrics.json: plain floats, ints, strings, lists and dicts.

    `confusion`: counts (K, K), rows true, columns predicted, or the cells of such a matrix. `labels`: the names of the
    K classes. `extra_scores`: scores that need more than the predicted classes; `class_columns`: such scores of each
    class, None where a class has none. See `label_scores` for the formulas. Raises ValueError for what is not a
    confusion matrix of K classes.
    """
    if not isinstance(confusion, Confusion):
        confusion = Confusion.of(_checked_confusion(confusion, len(labels)))
    marginals = confusion.marginals()
    support_K = confusion.support
    further = class_columns or {}
    keys = ("label", "precision", "recall", "f1", *further, "support")
    values = (column.tolist() for column in precision_recall_f1(*marginals))
    columns = (labels, *values, *further.values(), support_K.tolist())
    return {
        "type": type,
        "labels": list(labels),
        "samples": int(support_K.sum()),
        **as_floats(label_scores(*marginals)),
        **(extra_scores or {}),
        "per_class": [dict(zip(keys, row, strict=True)) for row in zip(*columns, strict=True)],
        "confusion": confusion.as_json(),
    }


def scores_of_present(scores: Mapping[str, Any]) -> dict[str, Any]:
    """`absent`, the classes without a row, and `macro_f1_present`, the mean F1 of all others; nothing where every class
    has rows, or none has. `scores`: of a target, as in metrics.json."""
    per_class = scores.get("per_class", [])
    absent = [row["label"] for row in per_class if not row["support"]]
    present = [row["f1"] for row in per_class if row["support"]]
    if not absent or not present:
        return {}
    return {"macro_f1_present": sum(present) / len(present), "absent": absent}


def _checked_confusion(confusion: npt.NDArray[Any], classes: int) -> npt.NDArray[np.int64]:
    if confusion.shape != (classes, classes) or not classes:
        raise ValueError(f"found a confusion matrix of shape {confusion.shape} for {classes} labels")
    if not np.issubdtype(confusion.dtype, np.integer) or (confusion < 0).any():
        raise ValueError(f"found a confusion matrix of {confusion.dtype}; allowed: counts, integers >= 0")
    return confusion.astype(np.int64)
