"""The cells of a table as answers: several labels in one cell, flags, and numbers cut into classes."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from classwise.data.table import is_empty
from classwise.errors import ConfigError, DataError

Cells = Sequence[str | None]
Numbers = npt.NDArray[np.int64]
Values = npt.NDArray[Any]

MOST_BINS = 10
FLAGS = {"0": 0.0, "1": 1.0, "false": 0.0, "true": 1.0, "0.0": 0.0, "1.0": 1.0}


def edge_labels(edges: Sequence[float]) -> list[str]:
    """Names of the classes that edges cut: [30, 60] gives <30, 30 to <60, >=60; no edges, one class `any`."""
    if not len(edges):
        return ["any"]
    # The shortest text that is this number and no other: two edges never share a name.
    text = [np.format_float_positional(edge, trim="-") for edge in edges]
    between = [f"{a} to <{b}" for a, b in itertools.pairwise(text)]
    return [f"<{text[0]}", *between, f">={text[-1]}"]


def cut_at(values_N: Values, edges: Sequence[float]) -> Numbers:
    """A value on an edge belongs above it."""
    return np.where(np.isnan(values_N), -1, np.digitize(values_N, edges)).astype(np.int64)


def bin_edges(values: Values) -> list[float]:
    """Where to cut: between all values if there are few, else into bins with as many rows each."""
    distinct = np.unique(values)
    if len(distinct) <= MOST_BINS:
        return [float(value) for value in distinct[1:]]
    shares = np.arange(1, MOST_BINS) / MOST_BINS
    return [float(edge) for edge in np.unique(np.quantile(values, shares, method="higher"))]


def found_labels(cells: Cells, ordered: bool, key: str, where: str, column: str) -> tuple[str, ...]:
    """The labels that a column holds. Levels have to be numbers, since text does not say its order: raises
    ConfigError that asks for `key`."""
    found = {cell for cell in cells if cell is not None and not is_empty(cell)}
    values = number_values(found)
    if ordered and (values is None or len(set(values.values())) < len(values)):
        what = "text" if values is None else "one number written in several ways"
        raise ConfigError(
            f"{key}: not given, and {where}: column {column!r} holds {what}"
            f" ({', '.join(map(repr, sorted(found)[:5]))}); name the levels in order, lowest first"
        )
    return sorted_labels(found)


def sorted_labels(found: set[str]) -> tuple[str, ...]:
    """Numbers by their value, other text by its characters."""
    values = number_values(found)
    return tuple(sorted(found) if values is None else sorted(sorted(found), key=values.__getitem__))


def number_values(cells: set[str]) -> dict[str, float] | None:
    """The numbers that cells stand for; None where one is text. (`nan` has no place in an order.)"""
    try:
        values = {cell: float(cell) for cell in cells}
    except ValueError:
        return None
    return None if any(map(math.isnan, values.values())) else values


def label_sets(cells: Cells, separator: str, where: str, column: str) -> list[tuple[str, ...] | None]:
    """The labels of each cell, None where it is empty."""
    sets = [_split_cell(cell, separator) for cell in cells]
    for i, labels in enumerate(sets):
        for label in labels or ():
            if not label or (labels or ()).count(label) > 1:
                what = f"label {label!r} twice" if label else "a separator without a label beside it"
                raise DataError(
                    f"{where}: row {i + 1}: column {column!r}: found {cells[i]!r}, with {what}; allowed: labels"
                    f" with {separator!r} between them, each once, or {separator!r} alone for none of them"
                )
    return sets


def _split_cell(cell: str | None, separator: str) -> tuple[str, ...] | None:
    # A separator of white space alone is looked for first: the cell would pass for an empty one.
    if cell == separator or (cell and cell.strip() == separator.strip() != ""):
        return ()
    return None if cell is None or is_empty(cell) else tuple(part.strip() for part in cell.split(separator))


def flag_cells(cells: Cells, where: str, column: str, name: str) -> npt.NDArray[np.float64]:
    """(N,): 1 there, 0 not there, NaN empty; `name` is the target's."""
    texts = ["" if cell is None else cell.strip().lower() for cell in cells]
    wrong = next((i for i, text in enumerate(texts) if text and text not in FLAGS), None)
    if wrong is not None:
        raise DataError(
            f"{where}: row {wrong + 1}: column {column!r}: found {cells[wrong]!r}; allowed for a label of target"
            f" {name!r}: 0, 1, false, true"
        )
    return np.array([FLAGS.get(text, math.nan) for text in texts])
