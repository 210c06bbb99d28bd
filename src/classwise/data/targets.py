"""Targets: what a column of answers means, and the answers as numbers."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from classwise.data.table import rows_text
from classwise.errors import DataError, nearest

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ClassTarget:
    """A target of type `class`: its name, its column, its label list, and where a number column is cut."""

    name: str
    column: str
    labels: tuple[str, ...]
    edges: tuple[float, ...] | None = None

    def encode(self, cells: Sequence[str], where: str) -> Labels:
        """The label numbers of a column. Raises DataError that names the row and what is allowed."""
        if self.edges is not None and not set(cells) <= set(self.labels):
            return np.digitize(_numbers(cells, self.edges, where, self.column), self.edges).astype(np.int64)
        number = {label: k for k, label in enumerate(self.labels)}
        unknown = [i for i, cell in enumerate(cells) if cell not in number]
        if unknown:
            cell = cells[unknown[0]]
            raise DataError(
                f"{where}: column {self.column!r}: label {cell!r} in {rows_text([i + 1 for i in unknown])}"
                f" is not one of target {self.name!r}; {nearest(cell, self.labels)}"
            )
        return np.array([number[cell] for cell in cells], dtype=np.int64)

    def as_dict(self) -> dict[str, object]:
        """What a checkpoint keeps, so that predictions need no config."""
        return {
            "name": self.name,
            "column": self.column,
            "type": "class",
            "labels": list(self.labels),
            "edges": None if self.edges is None else list(self.edges),
        }

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "ClassTarget":
        """The reverse of `as_dict`."""
        edges = None if values["edges"] is None else tuple(values["edges"])
        return ClassTarget(values["name"], values["column"], tuple(values["labels"]), edges)


def class_target(
    name: str,
    column: str,
    cells: Sequence[str],
    labels: Sequence[str] | None,
    edges: Sequence[float] | None,
    where: str,
) -> ClassTarget:
    """Settle the label list: as given, cut at `edges`, or what the column holds (numbers by value)."""
    if labels is None:
        labels = _sorted_labels(cells) if edges is None else edge_labels(edges)
    target = ClassTarget(name, column, tuple(labels), None if edges is None else tuple(edges))
    present = set(target.encode(cells, where).tolist())
    if len(present) < 2:
        raise DataError(
            f"{where}: column {column!r} (targets.{name}) holds one class only, {labels[present.pop()]!r};"
            " there is nothing to tell apart"
        )
    return target


def edge_labels(edges: Sequence[float]) -> list[str]:
    """Names of the classes that edges cut: [30, 60] gives <30, 30 to <60, >=60."""
    # The shortest text that is this number and no other: two edges never share a name.
    text = [np.format_float_positional(edge, trim="-") for edge in edges]
    between = [f"{a} to <{b}" for a, b in itertools.pairwise(text)]
    return [f"<{text[0]}", *between, f">={text[-1]}"]


def _sorted_labels(cells: Sequence[str]) -> tuple[str, ...]:
    unique = sorted(set(cells))
    try:
        values = {cell: float(cell) for cell in unique}
    except ValueError:
        return tuple(unique)
    # `nan` is a number to Python, but has no place in an order.
    return tuple(unique if any(map(math.isnan, values.values())) else sorted(unique, key=values.__getitem__))


def _numbers(
    cells: Sequence[str], edges: Sequence[float], where: str, column: str
) -> npt.NDArray[np.float64]:
    values = np.empty(len(cells))
    for i, cell in enumerate(cells):
        try:
            values[i] = float(cell)
        except ValueError:
            values[i] = math.nan
        if not math.isfinite(values[i]):
            raise DataError(
                f"{where}: row {i + 1}: column {column!r}: found {cell!r}, but the target is cut at"
                f" {list(edges)}, so it must hold numbers"
            )
    return values
