"""The confusion matrix as coloured cells, and the most frequent confusions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from classwise.report.names import shorten


@dataclass(frozen=True)
class Cell:
    """One count of a confusion matrix. `strength`: that of the colour, in [0, 1], as text; `style`: its CSS classes."""

    count: int
    strength: str
    style: str
    title: str


@dataclass(frozen=True)
class MatrixRow:
    """The cells of one true class, and their total."""

    label: str
    cells: list[Cell]
    total: int


@dataclass(frozen=True)
class Matrix:
    """Rows are true classes, columns predicted ones; `predicted` holds the totals of the columns."""

    rows: list[MatrixRow]
    predicted: list[int]

    @property
    def labels(self) -> list[str]:
        return [row.label for row in self.rows]


@dataclass(frozen=True)
class ConfusedPair:
    """`count` of the `total` rows of the class `truth` were predicted as another class."""

    truth: str
    predicted: str
    count: int
    total: int

    @property
    def share(self) -> float:
        return self.count / self.total


def confusion_counts(recorded: Any, classes: int) -> np.ndarray | None:
    """(K, K) counts of metrics.json, or None where they are not `classes` by `classes` whole numbers."""
    try:
        counts_KK = np.asarray(recorded, dtype=np.int64)
    except (TypeError, ValueError):
        return None
    return counts_KK if classes and counts_KK.shape == (classes, classes) else None


def confusion_matrix(counts_KK: np.ndarray, labels: Sequence[str]) -> Matrix:
    """The matrix with the colour of every cell, which shows its share of the row."""
    rows = []
    for i, counts_K in enumerate(counts_KK.tolist()):
        truth = labels[i]
        total = sum(counts_K)
        cells = [
            _cell(count, total=total, truth=truth, predicted=labels[j], correct=i == j)
            for j, count in enumerate(counts_K)
        ]
        rows.append(MatrixRow(truth, cells=cells, total=total))
    return Matrix(rows, predicted=counts_KK.sum(axis=0).tolist())


def strength(share: float) -> float:
    """The strength of a cell's colour. The exponent keeps a confusion of a few per cent visible."""
    return math.pow(share, 0.7)


def _cell(count: int, total: int, truth: str, predicted: str, correct: bool) -> Cell:
    if not count:
        return Cell(0, strength="0", style="ok" if correct else "", title="")
    shade = strength(count / total)
    title = f"{shorten(truth, 60)} → {shorten(predicted, 60)}: {count} of {total} ({count / total:.0%})"
    style = ("ok" if correct else "no") + _number_style(shade)
    return Cell(count, strength=f"{shade:.2f}", style=style, title=title)


def _number_style(shade: float) -> str:
    """Whether the number stands on a dark colour. Two steps, since light and dark pages change at different ones."""
    if shade > 0.74:
        return " hi"
    return " mid" if shade > 0.65 else ""


def confused_pairs(counts_KK: np.ndarray | None, labels: Sequence[str], most: int) -> list[ConfusedPair]:
    """The `most` largest confusions by their share of the true class, since macro scores weight classes equally."""
    if counts_KK is None or len(labels) < 3:
        return []  # of two classes the matrix shows it already
    wrong_KK = counts_KK - np.diag(np.diag(counts_KK))
    totals_K = counts_KK.sum(axis=1)
    share_KK = wrong_KK / np.maximum(totals_K, 1)[:, None]
    truth, predicted = np.nonzero(wrong_KK)
    # The last key of lexsort is the first to sort by.
    order = np.lexsort((-wrong_KK[truth, predicted], -share_KK[truth, predicted]))[:most]
    return [
        ConfusedPair(
            truth=labels[i],
            predicted=labels[j],
            count=int(wrong_KK[i, j]),
            total=int(totals_K[i]),
        )
        for i, j in zip(truth[order].tolist(), predicted[order].tolist(), strict=True)
    ]
