"""The cells of a table as labels: several labels in one cell, flags, and numbers cut into classes."""

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from classwise.data.label_spelling import label_counts, unified_labels
from classwise.data.table import is_empty
from classwise.errors import ConfigError, DataError

Cells = Sequence[str | None]
Numbers = npt.NDArray[np.int64]
Values = npt.NDArray[Any]

MAX_BINS = 10
FLAGS = {"0": 0.0, "1": 1.0, "false": 0.0, "true": 1.0, "0.0": 0.0, "1.0": 1.0}


def edge_labels(edges: Sequence[float]) -> list[str]:
    """Names of the classes between edges: [30, 60] gives <30, 30 to <60, >=60; no edges give one class, `any`."""
    if not len(edges):
        return ["any"]
    # The shortest text that is this number and no other: two edges never share a name.
    texts = [np.format_float_positional(edge, trim="-") for edge in edges]
    between = [f"{low} to <{high}" for low, high in itertools.pairwise(texts)]
    return [f"<{texts[0]}", *between, f">={texts[-1]}"]


def cut_at(values_N: Values, edges: Sequence[float]) -> Numbers:
    """(N,) class numbers between the edges, -1 where a value is NaN. A value on an edge belongs to the class above."""
    return np.where(np.isnan(values_N), -1, np.digitize(values_N, edges)).astype(np.int64)


def bin_edges(values: Values) -> list[float]:
    """Edges for a stratified split: between all values if there are few, else bins of equally many rows."""
    distinct = np.unique(values)
    if len(distinct) <= MAX_BINS:
        return [float(value) for value in distinct[1:]]
    shares = np.arange(1, MAX_BINS) / MAX_BINS
    return [float(edge) for edge in np.unique(np.quantile(values, shares, method="higher"))]


def labels_of_column(
    cells: Iterable[str | None], ordered: bool, key: str, where: str, column: str, unify: bool = False
) -> tuple[str, ...]:
    """The distinct labels of a column, sorted; with `unify` one for each set of labels that are alike (see
    label_spelling.py). `where` names the table.

    Raises ConfigError that asks for the config key `key` if the labels are `ordered` levels but not distinct numbers,
    since text has no order of its own.
    """
    counts = label_counts(cells)
    labels = unified_labels(counts) if unify else set(counts)
    values = number_values(labels)
    if ordered and (values is None or len(set(values.values())) < len(values)):
        what = "text" if values is None else "one number written in several ways"
        raise ConfigError(
            f"{key}: not given, and {where}: column {column!r} holds {what}"
            f" ({', '.join(map(repr, sorted(labels)[:5]))}); name the levels in order, lowest first"
        )
    return sorted_labels(labels)


def sorted_labels(labels: set[str]) -> tuple[str, ...]:
    """Numbers by their value, other text by its characters."""
    by_text = sorted(labels)
    values = number_values(labels)
    return tuple(by_text if values is None else sorted(by_text, key=values.__getitem__))


def number_values(cells: set[str]) -> dict[str, float] | None:
    """The number that each cell stands for; None if any of them is not a number, or is `nan`, which has no order."""
    try:
        values = {cell: float(cell) for cell in cells}
    except ValueError:
        return None
    return None if any(map(math.isnan, values.values())) else values


def known_cells(cells: Cells, missing: Sequence[str]) -> Cells:
    """The cells, with None for every one that is in `missing`, with or without spaces around it."""
    if not missing:
        return cells
    return [None if cell is None or cell.strip() in missing else cell for cell in cells]


def known_labels(column: pl.Series, missing: Sequence[str]) -> Iterable[str | None]:
    """`known_cells` of a column, as it is kept where none is missing."""
    return known_cells(column.to_list(), missing) if missing else column


def label_sets(
    cells: Cells,
    separator: str,
    where: str,
    column: str,
    missing: Sequence[str] = (),
    none: Sequence[str] = (),
) -> list[tuple[str, ...] | None]:
    """The labels of each cell, None where it is empty or in `missing`; a cell in `none` has none of them. Raises
    DataError for a cell with a label twice, or with a separator that has no label beside it."""
    texts = [(cell or "").strip() for cell in cells]
    sets = [
        None if text in missing else () if text in none else _split_cell(cell, separator)
        for cell, text in zip(cells, texts, strict=True)
    ]
    for row, labels in enumerate(sets, start=1):
        for label in labels or ():
            if not label or (labels or ()).count(label) > 1:
                what = f"label {label!r} twice" if label else "a separator without a label beside it"
                raise DataError(
                    f"{where}: row {row}: column {column!r}: found {cells[row - 1]!r}, with {what}; allowed: labels"
                    f" with {separator!r} between them, each once, or {separator!r} alone for none of them"
                )
    return sets


def _split_cell(cell: str | None, separator: str) -> tuple[str, ...] | None:
    # The separator alone comes first: if it is white space, the cell would otherwise count as empty.
    if cell == separator or (cell and cell.strip() == separator.strip() != ""):
        return ()
    return None if cell is None or is_empty(cell) else tuple(part.strip() for part in cell.split(separator))


def flag_cells(
    cells: Cells, where: str, column: str, name: str, flags: tuple[str, str] | None = None
) -> npt.NDArray[np.float64]:
    """(N,): 1 for a row that has the label, 0 for one that does not, NaN for an empty cell. `name` is the target's;
    `flags` are its cells for no and yes. Raises DataError for any other cell."""
    value_of = FLAGS if flags is None else {flags[0].lower(): 0.0, flags[1].lower(): 1.0}
    texts = ["" if cell is None else cell.strip().lower() for cell in cells]
    for row, text in enumerate(texts, start=1):
        if text and text not in value_of:
            allowed = "0, 1, false, true" if flags is None else " and ".join(map(repr, flags))
            raise DataError(
                f"{where}: row {row}: column {column!r}: found {cells[row - 1]!r}; allowed for a label of target"
                f" {name!r}: {allowed}, or what targets.{name}.flags = [no, yes] and targets.{name}.missing say"
            )
    return np.array([value_of.get(text, math.nan) for text in texts])
