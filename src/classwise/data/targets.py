"""Targets: what a table's columns of labels mean, and the labels as numbers.

An empty cell is an unknown label: it masks the target for that row, in losses and metrics alike.
"""

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NoReturn, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from classwise.data.cells import (
    bin_edges,
    cut_at,
    edge_labels,
    flag_cells,
    known_cells,
    label_sets,
)
from classwise.data.label_spelling import spelling_key
from classwise.data.split import Stratum
from classwise.data.table import column as table_column
from classwise.data.table import full_column, is_empty, number_cells, rows_text, text_column
from classwise.errors import DataError, nearest

Labels = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Encoded = npt.NDArray[Any]
LISTED_LABELS = 8  # unknown labels named in an error; more are only counted


class Target(Protocol):
    """What every target can do. `labels` is empty if the target has no list of classes.

    `encoded` are the labels of N rows as a batch holds them, as `encode` returns them.
    """

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
        """Whether every known label is one of `labels`, or belongs to one of them."""

    def encode(self, frame: pl.DataFrame, where: str) -> Encoded:
        """The labels of all rows as a batch holds them; `where` names the table. Raises DataError that names table,
        column and row."""

    def is_labeled(self, encoded: Encoded) -> Mask:
        """(N,): the rows with a known label, or with at least one."""

    def class_numbers(self, encoded: Encoded) -> Labels:
        """(N,): the number of each row's class, -1 unknown. Raises ValueError if the target has no classes."""

    def strata(self, encoded: Encoded) -> list[Stratum]:
        """What a split keeps in proportion."""

    def as_dict(self) -> dict[str, Any]:
        """What a checkpoint stores, so that predictions need no config; see `target_from_dict`."""


@dataclass(frozen=True)
class ClassTarget:
    """One label of a list (`type` class) or of an ordered list (`type` ordinal); `edges` cut a column of numbers into
    these classes. With `one_hot` each label has a column of 0 and 1 (see `flags`) instead of the one `column`. A cell
    in `missing` is as empty. `unify`: a label counts as the one in the list that differs only in spelling (see
    label_spelling.py). Encoded: int64 (N,), -1 unknown."""

    name: str
    type: str
    column: str
    labels: tuple[str, ...]
    edges: tuple[float, ...] | None = None
    one_hot: tuple[str, ...] | None = None
    missing: tuple[str, ...] = ()
    flags: tuple[str, str] | None = None
    unify: bool = False
    is_class_like = True

    @property
    def columns(self) -> tuple[str, ...]:
        return self.one_hot or (self.column,)

    def encode(self, frame: pl.DataFrame, where: str) -> Labels:
        """A column that is cut at edges may also hold the labels themselves, as predictions do."""
        if self.one_hot is not None:
            return _one_of_columns(self, self.one_hot, frame, where)
        column = text_column(frame, self.column, where, f"targets.{self.name}.column")
        # By distinct cells: a million rows have few labels.
        distinct = column.drop_nulls().unique().to_list()
        known = known_cells(distinct, self.missing)
        values = {cell for cell in known if not is_empty(cell)}
        if self.edges is not None and not values <= set(self.labels):
            why = f"the target is cut at {list(self.edges)}, so it must hold numbers"
            cells = known_cells(column.to_list(), self.missing)
            return cut_at(number_cells(cells, where, self.column, why), self.edges)
        number_of = label_numbers(self.labels, values, self.unify)
        if values - number_of.keys():
            self._refuse_unknown(known_cells(column.to_list(), self.missing), number_of, where)
        if not distinct:
            return np.full(len(column), -1, np.int64)
        numbers = [-1 if cell is None else number_of.get(cell, -1) for cell in known]
        encoded = column.replace_strict(distinct, numbers, default=-1, return_dtype=pl.Int64)
        return np.array(encoded.to_numpy())

    def _refuse_unknown(
        self, cells: Sequence[str | None], number_of: Mapping[str, int], where: str
    ) -> NoReturn:
        """Raise DataError for the cells that are no label."""
        unknown: dict[str, list[int]] = {}
        for row, cell in enumerate(cells, start=1):
            if cell is not None and cell not in number_of and not is_empty(cell):
                unknown.setdefault(cell, []).append(row)
        raise _unknown_labels(self, unknown, where)

    def is_labeled(self, encoded: Encoded) -> Mask:
        labeled_N: Mask = encoded >= 0
        return labeled_N

    def class_numbers(self, encoded: Encoded) -> Labels:
        return encoded

    def strata(self, encoded: Encoded) -> list[Stratum]:
        """Its classes, each of which must be on both sides."""
        return [Stratum(self.name, encoded, self.labels, required=True)]

    def as_dict(self) -> dict[str, Any]:
        return _as_dict(self)


@dataclass(frozen=True)
class MultilabelTarget:
    """Any number of labels a row: in one column, separated by `separator` (the separator alone means no label, as does
    a cell in `none`); or, if `separator` is None, one column of 0 and 1 (see `flags`) for each label. A cell in
    `missing` is as empty. `unify` as in ClassTarget.

    Encoded: float32 (N, L), 1 for a label that the row has, 0 for one that it has not, NaN unknown.
    """

    name: str
    columns: tuple[str, ...]
    labels: tuple[str, ...]
    separator: str | None = None
    missing: tuple[str, ...] = ()
    none: tuple[str, ...] = ()
    flags: tuple[str, str] | None = None
    unify: bool = False
    is_class_like = False

    @property
    def type(self) -> str:
        return "multilabel"

    def encode(self, frame: pl.DataFrame, where: str) -> Encoded:
        """In columns of 0 and 1 an empty cell makes one label unknown; in a column of labels, all labels of the row."""
        if self.separator is None:
            key = f"targets.{self.name}.columns"
            flags = [
                flag_cells(
                    known_cells(table_column(frame, name, where, key), self.missing),
                    where,
                    name,
                    self.name,
                    self.flags,
                )
                for name in self.columns
            ]
            return np.stack(flags, axis=1).astype(np.float32)
        cells = table_column(frame, self.columns[0], where, f"targets.{self.name}.column")
        sets = label_sets(cells, self.separator, where, self.columns[0], self.missing, self.none)
        written = {label for labels in sets for label in labels or ()}
        number_of = label_numbers(self.labels, written, self.unify)
        encoded_NL = np.zeros((len(cells), len(self.labels)), dtype=np.float32)
        unknown: dict[str, list[int]] = {}
        for i, labels in enumerate(sets):
            if labels is None:
                encoded_NL[i] = math.nan
                continue
            for label in labels:
                if label in number_of:
                    encoded_NL[i, number_of[label]] = 1
                else:
                    unknown.setdefault(label, []).append(i + 1)
        if unknown:
            raise _unknown_labels(self, unknown, where)
        return encoded_NL

    def is_labeled(self, encoded: Encoded) -> Mask:
        labeled_N: Mask = np.logical_not(np.isnan(encoded).all(axis=1))
        return labeled_N

    def class_numbers(self, encoded: Encoded) -> Labels:
        raise _no_classes(self)

    def strata(self, encoded: Encoded) -> list[Stratum]:
        """The rows of each label, which must be on both sides."""
        return [
            Stratum(self.name, np.where(encoded_N == 1, 0, -1), (label,), required=True)
            for label, encoded_N in zip(self.labels, encoded.T, strict=True)
        ]

    def as_dict(self) -> dict[str, Any]:
        return _as_dict(self)


@dataclass(frozen=True)
class RegressionTarget:
    """A number; with `edges`, the class between them can be part of a joint class. Encoded: float64 (N,) in the
    column's unit, NaN unknown."""

    name: str
    column: str
    labels: tuple[str, ...] = ()
    edges: tuple[float, ...] | None = None
    missing: tuple[str, ...] = ()

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
        """Only finite numbers are allowed."""
        cells = known_cells(
            table_column(frame, self.column, where, f"targets.{self.name}.column"), self.missing
        )
        why = f"target {self.name!r} is a regression, so it must hold finite numbers"
        return number_cells(cells, where, self.column, why)

    def is_labeled(self, encoded: Encoded) -> Mask:
        return ~np.isnan(encoded)

    def class_numbers(self, encoded: Encoded) -> Labels:
        if self.edges is None:
            raise _no_classes(self)
        return cut_at(encoded, self.edges)

    def strata(self, encoded: Encoded) -> list[Stratum]:
        """The classes between its edges, or up to ten bins of equally many rows; none is required on both sides."""
        edges = bin_edges(encoded[self.is_labeled(encoded)]) if self.edges is None else self.edges
        labels = self.labels or edge_labels(edges)
        return [Stratum(self.name, cut_at(encoded, edges), labels, required=False)]

    def as_dict(self) -> dict[str, Any]:
        return _as_dict(self)


@dataclass(frozen=True)
class RankingTarget:
    """How relevant an image is for its query: 0, 1, 2, ... Only images of the same query are compared.

    Encoded: int64 (N, 2), relevance (-1 unknown) and the number of the query, counted within the table.
    """

    name: str
    column: str
    query: str
    missing: tuple[str, ...] = ()
    labels = ()
    is_class_like = False

    @property
    def type(self) -> str:
        return "ranking"

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column, self.query)

    def encode(self, frame: pl.DataFrame, where: str) -> Labels:
        """Relevance is a whole number from 0. Every row has a query, whether its relevance is known or not."""
        cells = known_cells(
            table_column(frame, self.column, where, f"targets.{self.name}.column"), self.missing
        )
        why = f"the relevance of target {self.name!r} must be a whole number: 0, 1, 2, ..."
        relevance_N = number_cells(cells, where, self.column, why)
        # From 2**53 on, a float64 need not be the number in the cell.
        wrong_N = (relevance_N < 0) | (relevance_N >= 2**53) | (relevance_N % 1 > 0)
        if wrong_N.any():
            i = int(wrong_N.argmax())
            raise DataError(f"{where}: row {i + 1}: column {self.column!r}: found {cells[i]!r}, but {why}")
        queries = full_column(frame, self.query, where, f"targets.{self.name}.query")
        number_of = {query: q for q, query in enumerate(dict.fromkeys(queries))}
        query_N = np.array([number_of[query] for query in queries])
        encoded_relevance_N = np.where(np.isnan(relevance_N), -1, relevance_N).astype(np.int64)
        return np.stack([encoded_relevance_N, query_N], axis=1)

    def is_labeled(self, encoded: Encoded) -> Mask:
        labeled_N: Mask = encoded[:, 0] >= 0
        return labeled_N

    def class_numbers(self, encoded: Encoded) -> Labels:
        raise _no_classes(self)

    def strata(self, encoded: Encoded) -> list[Stratum]:
        """The grades of relevance, at most ten; none is required on both sides."""
        relevance_N = np.where(self.is_labeled(encoded), encoded[:, 0], math.nan)
        edges = bin_edges(relevance_N[self.is_labeled(encoded)])
        return [Stratum(self.name, cut_at(relevance_N, edges), edge_labels(edges), required=False)]

    def as_dict(self) -> dict[str, Any]:
        return _as_dict(self)


def _one_of_columns(target: ClassTarget, columns: Sequence[str], frame: pl.DataFrame, where: str) -> Labels:
    """The class (N,) of each row: the column that is 1; -1 if none is and one is unknown. Raises DataError for a row in
    which several are 1, or none though all are known."""
    key = f"targets.{target.name}.columns"
    flags_NK = np.stack(
        [
            flag_cells(
                known_cells(table_column(frame, name, where, key), target.missing),
                where,
                name,
                target.name,
                target.flags,
            )
            for name in columns
        ],
        axis=1,
    )
    is_one_NK = flags_NK == 1
    ones_N = is_one_NK.sum(axis=1)
    is_wrong_N = (ones_N > 1) | ((ones_N == 0) & ~np.isnan(flags_NK).any(axis=1))
    if is_wrong_N.any():
        rows = [int(i) + 1 for i in np.flatnonzero(is_wrong_N)]
        found = [name for name, is_one in zip(columns, is_one_NK[rows[0] - 1], strict=True) if is_one]
        raise DataError(
            f"{where}: {rows_text(rows)}: of the columns of target {target.name!r} ({key}),"
            f" {' and '.join(map(repr, found)) or 'none'} is yes; allowed for a class: exactly one. Several or none at"
            f' once: targets.{target.name}.type = "multilabel"'
        )
    numbers_N: Labels = np.where(ones_N == 1, is_one_NK.argmax(axis=1), -1).astype(np.int64)
    return numbers_N


def label_numbers(labels: Sequence[str], written: Iterable[str | None], unify: bool) -> dict[str, int]:
    """The number of each label and, with `unify`, of what is `written` in a table and alike to one of them."""
    number_of = {label: k for k, label in enumerate(labels)}
    if unify:
        number_by_key = {spelling_key(label): k for label, k in number_of.items()}
        for cell in written:
            if cell is not None and cell not in number_of and (key := spelling_key(cell)) in number_by_key:
                number_of[cell] = number_by_key[key]
    return number_of


def target_from_dict(values: Mapping[str, Any]) -> Target:
    """The reverse of `as_dict`, also after a round trip through JSON."""
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


def _unknown_labels(target: Target, rows_of_label: Mapping[str, Sequence[int]], where: str) -> DataError:
    """The error for labels that the target does not have, with the rows of each."""
    found = [f"{label!r} in {rows_text(rows)}" for label, rows in rows_of_label.items()]
    listed = "; ".join(found[:LISTED_LABELS])
    more = f"; and {len(found) - LISTED_LABELS} more labels" if len(found) > LISTED_LABELS else ""
    what = "label" if len(found) == 1 else f"{len(found)} labels"
    of = "is not one" if len(found) == 1 else "are none"
    keys = {spelling_key(label) for label in target.labels}
    alike = sum(spelling_key(label) in keys for label in rows_of_label)
    hint = ""
    if alike:
        which = "it is" if len(found) == 1 else f"{alike} of them are"
        hint = f"; {which} only spelled differently: data.unify_labels = true takes such labels for one"
    return DataError(
        f"{where}: column {target.columns[0]!r}: {what} {listed}{more} {of} of target {target.name!r};"
        f" {nearest(next(iter(rows_of_label)), target.labels)}{hint}"
    )


def _no_classes(target: Target) -> ValueError:
    return ValueError(f"target {target.name!r} is a {target.type} and has no classes")
