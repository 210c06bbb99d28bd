"""What was taken for what: the confusion matrix as coloured cells, and the confusions that cost most."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from classwise.report.names import shorten


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


def confusion_counts(found: Any, classes: int) -> np.ndarray | None:
    """The counts of metrics.json, or None where they are not `classes` by `classes` whole numbers."""
    try:
        counts = np.asarray(found, dtype=np.int64)
    except (TypeError, ValueError):
        return None
    return counts if classes and counts.shape == (classes, classes) else None


def confusion_matrix(counts: np.ndarray, labels: Sequence[str]) -> Matrix:
    """The matrix with the colour of every cell, by its share of the row."""
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


def confused_pairs(counts: np.ndarray | None, labels: Sequence[str], most: int) -> list[Pair]:
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
