"""The validation scores as the page shows them: per class, as a confusion matrix, and as confused pairs.

Everything is read off `metrics.json`; nothing is computed anew, so the page cannot disagree with the file.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from classwise.report.figures import Dot, scatter_chart, shorten
from classwise.report.read import Json, RunFiles, count, listing, mapping, number

MOST_CLASSES = 40  # in full; with more, the weakest ones and the confused pairs stand for them
WEAKEST = 20
PAIRS = 8
PAIRS_WITHOUT_MATRIX = 20

# The order in which numbers are shown, and how they are written.
NUMBER_NAMES = {
    "macro_f1": "macro F1",
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
    "macro_precision": "macro precision",
    "macro_recall": "macro recall",
    "weighted_f1": "weighted F1",
    "mae": "MAE",
    "mse": "MSE",
    "rmse": "RMSE",
    "r2": "R²",
    "mrr": "MRR",
    "ndcg": "NDCG",
    "map": "MAP",
    "loss": "loss",
}


@dataclass(frozen=True)
class ClassRow:
    """One class's scores. `train` is None where the run does not record the training rows."""

    label: str
    train: int | None
    support: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Cell:
    """One count of a confusion matrix: `strength` in [0, 1] is the colour's, `style` its kind."""

    count: int
    strength: str
    style: str
    title: str


@dataclass(frozen=True)
class MatrixRow:
    label: str
    cells: list[Cell]
    total: int


@dataclass(frozen=True)
class Matrix:
    """Rows true, columns predicted."""

    rows: list[MatrixRow]
    predicted: list[int]

    @property
    def labels(self) -> list[str]:
        return [row.label for row in self.rows]


@dataclass(frozen=True)
class Pair:
    """`count` of a class's `total` rows were taken for another class."""

    truth: str
    predicted: str
    count: int
    total: int

    @property
    def share(self) -> float:
        return self.count / self.total


@dataclass(frozen=True)
class TargetScores:
    """One target, or the joint class. `classes` counts all of them, `rows` may hold the weakest only."""

    key: str
    title: str
    classes: int
    unseen: int  # classes without a validation row
    numbers: list[tuple[str, float]]
    rows: list[ClassRow]
    matrix: Matrix | None
    pairs: list[Pair]
    scatter: Markup

    @property
    def in_full(self) -> bool:
        return self.classes <= MOST_CLASSES


def metric_name(key: str) -> str:
    """`macro_f1` as `macro F1`; a name that is not ours stays as it is."""
    return NUMBER_NAMES.get(key, key)


def joint_title(run: RunFiles) -> str:
    """The joint class by the targets it is made of: `mask × gender × age`."""
    targets = listing(mapping(run.config.get("joint")).get("targets"))
    return " × ".join(str(name) for name in targets) or "joint"


def all_scores(run: RunFiles) -> list[TargetScores]:
    """The joint class first, where there is one: it is what the run is ranked by. Then the targets in order."""
    found = []
    joint = mapping(run.metrics.get("joint"))
    if joint:
        found.append(_scores(joint, "joint", joint_title(run), joint_train_counts(run)))
    for name, scores in mapping(run.metrics.get("targets")).items():
        found.append(_scores(mapping(scores), name, name, train_counts(run, name)))
    return found


def train_counts(run: RunFiles, target: str) -> dict[str, int]:
    """Training rows per label of one target, as the run recorded them."""
    labels = mapping(mapping(run.status.get("data")).get("labels"))
    return {
        str(row.get("label")): count(row.get("train")) for row in map(mapping, listing(labels.get(target)))
    }


def joint_train_counts(run: RunFiles) -> dict[str, int]:
    joint = mapping(mapping(run.status.get("data")).get("joint"))
    pairs = zip(listing(joint.get("labels")), listing(joint.get("train")), strict=False)
    return {str(label): count(rows) for label, rows in pairs}


def _scores(scores: Json, key: str, title: str, train: dict[str, int]) -> TargetScores:
    rows = [_class_row(mapping(row), train) for row in listing(scores.get("per_class"))]
    labels = [str(label) for label in listing(scores.get("labels"))] or [row.label for row in rows]
    confusion = _confusion(scores.get("confusion"), len(labels))
    in_full = len(labels) <= MOST_CLASSES
    return TargetScores(
        key=key,
        title=title,
        classes=len(labels),
        unseen=sum(row.support == 0 for row in rows),
        numbers=[(name, value) for name in NUMBER_NAMES if (value := number(scores.get(name))) is not None],
        rows=_rarest_first(rows) if in_full else _weakest(rows),
        matrix=_matrix(confusion, labels) if confusion is not None and in_full else None,
        pairs=_pairs(confusion, labels, PAIRS if in_full else PAIRS_WITHOUT_MATRIX),
        scatter=_scatter(rows),
    )


def _class_row(row: Json, train: dict[str, int]) -> ClassRow:
    label = str(row.get("label"))
    precision, recall, f1 = (number(row.get(key)) or 0.0 for key in ("precision", "recall", "f1"))
    return ClassRow(label, train.get(label), count(row.get("support")), precision, recall, f1)


def _rarest_first(rows: list[ClassRow]) -> list[ClassRow]:
    return sorted(rows, key=lambda row: row.support if row.train is None else row.train)


def _weakest(rows: list[ClassRow]) -> list[ClassRow]:
    """Of the classes that were validated at all; the others have no score to be weak in."""
    return sorted(rows, key=lambda row: (row.support == 0, row.f1, row.support))[:WEAKEST]


def _confusion(found: Any, classes: int) -> np.ndarray | None:
    try:
        counts = np.asarray(found, dtype=np.int64)
    except (TypeError, ValueError):
        return None
    return counts if classes and counts.shape == (classes, classes) else None


def _matrix(counts: np.ndarray, labels: Sequence[str]) -> Matrix:
    totals = counts.sum(axis=1)
    rows = [
        MatrixRow(
            label,
            [_cell(int(n), int(totals[i]), labels[i], labels[j], i == j) for j, n in enumerate(counts[i])],
            int(totals[i]),
        )
        for i, label in enumerate(labels)
    ]
    return Matrix(rows, [int(n) for n in counts.sum(axis=0)])


def strength(share: float) -> float:
    """A cell's colour for its share of the row. The root keeps a confusion of a few per cent visible."""
    return math.pow(share, 0.7)


def _cell(n: int, total: int, truth: str, predicted: str, right: bool) -> Cell:
    if not n:
        return Cell(0, "0", "ok" if right else "", "")
    shade = strength(n / total)
    style = ("ok" if right else "no") + _depth(shade)
    title = f"{shorten(truth, 60)} → {shorten(predicted, 60)}: {n} of {total} ({n / total:.0%})"
    return Cell(n, f"{shade:.2f}", style, title)


def _depth(shade: float) -> str:
    """How dark a cell is, for the colour of its number. Two steps: light and dark pages turn at different ones."""
    return " hi" if shade > 0.74 else " mid" if shade > 0.65 else ""


def _pairs(counts: np.ndarray | None, labels: Sequence[str], most: int) -> list[Pair]:
    """The confusions that cost most: by the share of the true class, since macro scores weigh classes alike."""
    if counts is None or len(labels) < 3:
        return []  # with two classes the matrix says it already
    wrong = counts - np.diag(np.diag(counts))
    totals = counts.sum(axis=1)
    share = wrong / np.maximum(totals, 1)[:, None]
    truth, predicted = np.nonzero(wrong)
    order = np.lexsort((-wrong[truth, predicted], -share[truth, predicted]))[:most]
    return [
        Pair(labels[i], labels[j], int(wrong[i, j]), int(totals[i]))
        for i, j in zip(truth[order].tolist(), predicted[order].tolist(), strict=True)
    ]


def _scatter(rows: list[ClassRow]) -> Markup:
    """F1 against training rows, from six classes up: fewer are read off the table as easily. A class without
    validation rows has no score to show."""
    dots = [
        Dot(row.label, max(row.train, 1), row.f1) for row in rows if row.train is not None and row.support
    ]
    if len(dots) < 6:
        return Markup("")
    return scatter_chart(dots, "F1 of each class against its training rows", "training rows (logarithmic)")
