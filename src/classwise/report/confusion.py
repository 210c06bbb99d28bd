"""The confusion matrix as coloured cells, and the most frequent confusions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from classwise.metrics.confusion import Confusion
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


def confusion_matrix(confusion: Confusion, labels: Sequence[str]) -> Matrix:
    """The matrix with the colour of every cell, which shows its share of the row."""
    rows = []
    counts_KK = confusion.dense()
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


def confused_pairs(confusion: Confusion | None, labels: Sequence[str], most: int) -> list[ConfusedPair]:
    """The `most` largest confusions by their share of the true class, since macro scores weight classes equally."""
    if confusion is None or len(labels) < 3:
        return []  # of two classes the matrix shows it already
    is_wrong_C = confusion.true != confusion.predicted
    truth, predicted, count = (
        column[is_wrong_C] for column in (confusion.true, confusion.predicted, confusion.count)
    )
    totals_K = confusion.support
    # The last key of lexsort is the first to sort by.
    order = np.lexsort((-count, -count / totals_K[truth]))[:most]
    return [
        ConfusedPair(
            truth=labels[truth[cell]],
            predicted=labels[predicted[cell]],
            count=int(count[cell]),
            total=int(totals_K[truth[cell]]),
        )
        for cell in order.tolist()
    ]
