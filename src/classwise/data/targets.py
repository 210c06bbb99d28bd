"""Targets: what a table's columns of answers mean, and the answers as numbers.

An empty cell is an answer that is not known: it masks the target for that row, in losses and metrics alike.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl

from classwise.data.cells import (
    bin_edges,
    cut_at,
    edge_labels,
    flag_cells,
    label_sets,
    labels_of_column,
    sorted_labels,
)
from classwise.data.split import Stratum
from classwise.data.table import column as table_column
from classwise.data.table import full_column, is_empty, number_cells, rows_text
from classwise.errors import ConfigError, DataError, nearest

Labels = npt.NDArray[np.int64]
Known = npt.NDArray[np.bool_]
Encoded = npt.NDArray[Any]
T = TypeVar("T")


class Target(Protocol):
    """What every target can do. `labels` is empty where there is no list of classes."""

    @property
    def name(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def columns(self) -> tuple[str, ...]:
        """The table's columns that it reads."""

    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def is_class_like(self) -> bool:
        """Whether every known answer belongs to one of `labels`."""

    def encode(self, frame: pl.DataFrame, where: str) -> Encoded:
        """The answers as a batch holds them; raises DataError that names table, column and row."""

    def known(self, encoded: Encoded) -> Known:
        """(N,): the rows with any answer."""

    def class_numbers(self, encoded: Encoded) -> Labels:
        """(N,): the number of each row's class, -1 unknown. Raises ValueError where there are no classes."""

    def strata(self, encoded: Encoded) -> list[Stratum]:
        """What a split keeps in proportion."""

    def as_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps, so that predictions need no config; see `target_from_dict`."""


@dataclass(frozen=True)
class ClassTarget:
    """One label of a list (`type` class), or of a list in order (ordinal); `edges` cut a number column into
    them. Encoded: int64 (N,), -1 unknown."""

    name: str
    type: str
    column: str
    labels: tuple[str, ...]
    edges: tuple[float, ...] | None = None
    is_class_like = True

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    def encode(self, frame: pl.DataFrame, where: str) -> Labels:
        """A column with edges may hold the labels themselves: predictions do."""
        cells = table_column(frame, self.column, where, f"targets.{self.name}.column")
        found = {cell for cell in cells if not is_empty(cell)}
        if self.edges is not None and not found <= set(self.labels):
            why = f"the target is cut at {list(self.edges)}, so it must hold numbers"
            return cut_at(number_cells(cells, where, self.column, why), self.edges)
        number: dict[str | None, int] = {label: k for k, label in enumerate(self.labels)}
        unknown = [cell for cell in cells if cell not in number and not is_empty(cell)]
        if unknown:
            raise _unknown_label(
                self, unknown[0], [i for i, cell in enumerate(cells) if cell == unknown[0]], where
            )
        return np.array([number.get(cell, -1) for cell in cells], dtype=np.int64)

    def known(self, encoded: Encoded) -> Known:
        known_N: Known = encoded >= 0
        return known_N

    def class_numbers(self, encoded: Encoded) -> Labels:
        return encoded

    def strata(self, encoded: Encoded) -> list[Stratum]:
        """Its classes, each of which has to stand on both sides."""
        return [Stratum(self.name, encoded, self.labels, required=True)]

    def as_dict(self) -> dict[str, Any]:
        return _as_dict(self)


@dataclass(frozen=True)
class MultilabelTarget:
    """Any number of labels a row. Either one column, its labels parted by `separator` (the separator alone:
    none of them), or, with `separator` None, one column of 0 and 1 for each label.

    Encoded: float32 (N, L), 1 there, 0 not there, NaN unknown.
    """

    name: str
    columns: tuple[str, ...]
    labels: tuple[str, ...]
    separator: str | None = None
    is_class_like = False

    @property
    def type(self) -> str:
        return "multilabel"

    def encode(self, frame: pl.DataFrame, where: str) -> Encoded:
        """Cells of 0 and 1 are unknown one by one, a cell of labels as a whole."""
        if self.separator is None:
            key = f"targets.{self.name}.columns"
            flags = [
                flag_cells(table_column(frame, name, where, key), where, name, self.name)
                for name in self.columns
            ]
            return np.stack(flags, axis=1).astype(np.float32)
        cells = table_column(frame, self.columns[0], where, f"targets.{self.name}.column")
        number = {label: k for k, label in enumerate(self.labels)}
        encoded_NL = np.zeros((len(cells), len(number)), dtype=np.float32)
        for i, labels in enumerate(label_sets(cells, self.separator, where, self.columns[0])):
            unknown = [label for label in labels or () if label not in number]
            if unknown:
                raise _unknown_label(self, unknown[0], [i], where)
            encoded_NL[i, [number[label] for label in labels or ()]] = 1
            if labels is None:
                encoded_NL[i] = math.nan
        return encoded_NL

    def known(self, encoded: Encoded) -> Known:
        known_N: Known = np.logical_not(np.isnan(encoded).all(axis=1))
        return known_N

    def class_numbers(self, encoded: Encoded) -> Labels:
        raise _no_classes(self)

    def strata(self, encoded: Encoded) -> list[Stratum]:
        """The rows of each label, which have to stand on both sides."""
        return [
            Stratum(self.name, np.where(encoded_N == 1, 0, -1), (label,), required=True)
            for label, encoded_N in zip(self.labels, encoded.T, strict=True)
        ]

    def as_dict(self) -> dict[str, Any]:
        return _as_dict(self)


@dataclass(frozen=True)
class RegressionTarget:
    """A number; with `edges` its class can be part of a joint class. Encoded: float64 (N,) in the column's
    unit, NaN unknown."""

    name: str
    column: str
    labels: tuple[str, ...] = ()
    edges: tuple[float, ...] | None = None

    @property
    def type(self) -> str:
        return "regression"

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def is_class_like(self) -> bool:
        return self.edges is not None

    def encode(self, frame: pl.DataFrame, where: str) -> Encoded:
        """Finite numbers only."""
        cells = table_column(frame, self.column, where, f"targets.{self.name}.column")
        why = f"target {self.name!r} is a regression, so it must hold finite numbers"
        return number_cells(cells, where, self.column, why)

    def known(self, encoded: Encoded) -> Known:
        return ~np.isnan(encoded)

    def class_numbers(self, encoded: Encoded) -> Labels:
        if self.edges is None:
            raise _no_classes(self)
        return cut_at(encoded, self.edges)

    def strata(self, encoded: Encoded) -> list[Stratum]:
        """The classes between its edges, or up to ten bins with as many rows each; nothing is refused."""
        edges = bin_edges(encoded[self.known(encoded)]) if self.edges is None else self.edges
        labels = self.labels or edge_labels(edges)
        return [Stratum(self.name, cut_at(encoded, edges), labels, required=False)]

    def as_dict(self) -> dict[str, Any]:
        return _as_dict(self)


@dataclass(frozen=True)
class RankingTarget:
    """How relevant an image is for its query: 0, 1, 2, ... Only images of one query are compared.

    Encoded: int64 (N, 2), relevance (-1 unknown) and the number of the query, counted within the table.
    """

    name: str
    column: str
    query: str
    labels = ()
    is_class_like = False

    @property
    def type(self) -> str:
        return "ranking"

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column, self.query)

    def encode(self, frame: pl.DataFrame, where: str) -> Labels:
        """Relevance is a whole number from 0; every row has a query, be its relevance known or not."""
        cells = table_column(frame, self.column, where, f"targets.{self.name}.column")
        why = f"the relevance of target {self.name!r} must be a whole number: 0, 1, 2, ..."
        relevance_N = number_cells(cells, where, self.column, why)
        # Above 2**53 a float64 is not the number that stands in the cell.
        wrong_N = (relevance_N < 0) | (relevance_N >= 2**53) | (relevance_N % 1 > 0)
        if wrong_N.any():
            i = int(wrong_N.argmax())
            raise DataError(f"{where}: row {i + 1}: column {self.column!r}: found {cells[i]!r}, but {why}")
        queries = full_column(frame, self.query, where, f"targets.{self.name}.query")
        number = {query: q for q, query in enumerate(dict.fromkeys(queries))}
        known_N = np.where(np.isnan(relevance_N), -1, relevance_N).astype(np.int64)
        return np.stack([known_N, np.array([number[query] for query in queries])], axis=1)

    def known(self, encoded: Encoded) -> Known:
        known_N: Known = encoded[:, 0] >= 0
        return known_N

    def class_numbers(self, encoded: Encoded) -> Labels:
        raise _no_classes(self)

    def strata(self, encoded: Encoded) -> list[Stratum]:
        """The grades of relevance, at most ten; nothing is refused."""
        relevance_N = np.where(self.known(encoded), encoded[:, 0], math.nan)
        edges = bin_edges(relevance_N[self.known(encoded)])
        return [Stratum(self.name, cut_at(relevance_N, edges), edge_labels(edges), required=False)]

    def as_dict(self) -> dict[str, Any]:
        return _as_dict(self)


def make_target(
    name: str,
    type: str,
    column: str | None,
    columns: Sequence[str] | None,
    labels: Sequence[str] | None,
    edges: Sequence[float] | None,
    separator: str | None,
    query: str | None,
    frame: pl.DataFrame,
    where: str,
) -> Target:
    """A target with its label list settled: as given, cut at `edges`, or what the table holds.

    Raises ConfigError for a type that there is not or a key that is missing, and DataError for a column that
    is missing, holds what it may not, or holds nothing to learn from (one class only, say).
    """
    cut = None if edges is None else tuple(edges)

    def class_target() -> ClassTarget:
        own = _given(column, name, "column")
        settled = labels if cut is None else labels or edge_labels(cut)
        if settled is None:
            cells = table_column(frame, own, where, f"targets.{name}.column")
            settled = labels_of_column(cells, type == "ordinal", f"targets.{name}.labels", where, own)
        return ClassTarget(name, type, own, tuple(settled), cut)

    def regression() -> RegressionTarget:
        names = () if cut is None else tuple(labels or edge_labels(cut))
        return RegressionTarget(name, _given(column, name, "column"), names, cut)

    makers: dict[str, Callable[[], Target]] = {
        "class": class_target,
        "ordinal": class_target,
        "multilabel": lambda: _multilabel(name, column, columns, labels, separator, frame, where),
        "regression": regression,
        "ranking": lambda: RankingTarget(name, _given(column, name, "column"), _given(query, name, "query")),
    }
    if type not in makers:
        raise ConfigError(f"targets.{name}.type: found {type!r}, {nearest(type, makers)}")
    target = makers[type]()
    _refuse_nothing_to_learn(target, target.encode(frame, where), where)
    return target


def target_from_dict(values: Mapping[str, Any]) -> Target:
    """The reverse of `as_dict`, also after a way through JSON."""
    fields: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
    }
    type = fields.pop("type")
    kinds: dict[str, Callable[..., Target]] = {
        "class": functools.partial(ClassTarget, type="class"),
        "ordinal": functools.partial(ClassTarget, type="ordinal"),
        "multilabel": MultilabelTarget,
        "regression": RegressionTarget,
        "ranking": RankingTarget,
    }
    return kinds[type](**fields)


def _as_dict(target: Any) -> dict[str, Any]:
    fields = {
        key: list(value) if isinstance(value, tuple) else value for key, value in asdict(target).items()
    }
    return {**fields, "type": target.type}


def _given(value: T | None, name: str, key: str) -> T:
    if value is None:
        raise ConfigError(f"targets.{name}.{key}: not given, but a target of this type needs it")
    return value


def _multilabel(
    name: str,
    column: str | None,
    columns: Sequence[str] | None,
    labels: Sequence[str] | None,
    separator: str | None,
    frame: pl.DataFrame,
    where: str,
) -> MultilabelTarget:
    if columns is not None:
        if column is not None or labels is not None:
            key = "column" if column is not None else "labels"
            raise ConfigError(f"targets.{name}.{key}: not together with columns, whose names are the labels")
        return MultilabelTarget(name, tuple(columns), tuple(columns))
    own, between = _given(column, name, "column"), "|" if separator is None else separator
    if labels is None:
        cells = table_column(frame, own, where, f"targets.{name}.column")
        sets = label_sets(cells, between, where, own)
        labels = sorted_labels({label for found in sets for label in found or ()})
    return MultilabelTarget(name, (own,), tuple(labels), between)


def _unknown_label(target: Target, label: str | None, rows: Sequence[int], where: str) -> DataError:
    return DataError(
        f"{where}: column {target.columns[0]!r}: label {label!r} in {rows_text([i + 1 for i in rows])}"
        f" is not one of target {target.name!r}; {nearest(str(label), target.labels)}"
    )


def _no_classes(target: Target) -> ValueError:
    return ValueError(f"target {target.name!r} is a {target.type} and has no classes")


def _refuse_nothing_to_learn(target: Target, encoded: Encoded, where: str) -> None:
    names = ", ".join(map(repr, target.columns[: 1 if target.type == "ranking" else None]))
    columns = f"{where}: column{'s' if names.count(', ') else ''} {names} (targets.{target.name})"
    labels = encoded[target.known(encoded)]
    if not len(labels):
        raise DataError(f"{columns}: every cell is empty; there is nothing to learn")
    if target.type == "multilabel":
        if not ((labels == 1).any(axis=0) & (labels == 0).any(axis=0)).any():
            raise DataError(
                f"{columns}: no label is there in one row and not in another; there is nothing to tell apart"
            )
    elif target.type == "ranking":
        pairs = np.unique(labels, axis=0)
        if len(np.unique(pairs[:, 1])) == len(pairs):
            raise DataError(f"{columns}: no query has two different relevances; there is nothing to rank")
    elif len(np.unique(labels)) < 2:
        regression = target.type == "regression"
        one = f"value only, {labels[0]:g}" if regression else f"class only, {target.labels[labels[0]]!r}"
        raise DataError(f"{columns} holds one {one}; there is nothing to tell apart")
