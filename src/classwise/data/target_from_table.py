"""A target from the keys that the config gives it and from what the table holds."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import polars as pl

from classwise.data.cells import (
    edge_labels,
    known_labels,
    label_sets,
    labels_of_column,
    sorted_labels,
)
from classwise.data.label_spelling import spelling_key, unified_labels
from classwise.data.table import column as table_column
from classwise.data.table import text_column
from classwise.data.targets import (
    ClassTarget,
    Encoded,
    MultilabelTarget,
    RankingTarget,
    RegressionTarget,
    Target,
)
from classwise.errors import ConfigError, DataError, nearest

T = TypeVar("T")


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
    missing: Sequence[str] = (),
    none: Sequence[str] = (),
    flags: tuple[str, str] | None = None,
    unify: bool = False,
) -> Target:
    """A target with its list of labels: as given, between the `edges`, or what the table holds.

    The arguments but `frame` and `where` are the keys of [targets.NAME]; `where` names the table in messages; `unify`
    is the key data.unify_labels. Raises ConfigError for an unknown type or a missing key, and DataError for a column
    that is missing, has cells that are not allowed, or has nothing to learn from (only one class, say).
    """
    # One maker for each type; each uses the keys that its type has.
    cut = None if edges is None else tuple(edges)
    unknown = tuple(missing)

    def class_target() -> ClassTarget:
        if columns is not None:
            return ClassTarget(
                name,
                type=type,
                column="",
                labels=_labels_of_columns(name, columns, column=column, labels=labels),
                one_hot=tuple(columns),
                missing=unknown,
                flags=flags,
            )
        column_name = _required(column, name, "column")
        class_labels = labels if cut is None else labels or edge_labels(cut)
        if class_labels is None:
            class_labels = labels_of_column(
                known_labels(text_column(frame, column_name, where, f"targets.{name}.column"), unknown),
                ordered=type == "ordinal",
                key=f"targets.{name}.labels",
                where=where,
                column=column_name,
                unify=unify,
            )
        return ClassTarget(
            name,
            type=type,
            column=column_name,
            labels=tuple(class_labels),
            edges=cut,
            missing=unknown,
            unify=unify,
        )

    def multilabel() -> MultilabelTarget:
        if columns is not None:
            return MultilabelTarget(
                name,
                columns=tuple(columns),
                labels=_labels_of_columns(name, columns, column=column, labels=labels),
                missing=unknown,
                flags=flags,
            )
        return _multilabel_of_cells(
            name,
            column=_required(column, name, "column"),
            labels=labels,
            separator="|" if separator is None else separator,
            missing=unknown,
            none=tuple(none),
            frame=frame,
            where=where,
            unify=unify,
        )

    def regression() -> RegressionTarget:
        class_labels = () if cut is None else tuple(labels or edge_labels(cut))
        return RegressionTarget(
            name,
            column=_required(column, name, "column"),
            labels=class_labels,
            edges=cut,
            missing=unknown,
        )

    def ranking() -> RankingTarget:
        return RankingTarget(
            name, _required(column, name, "column"), _required(query, name, "query"), missing=unknown
        )

    makers: dict[str, Callable[[], Target]] = {
        "class": class_target,
        "ordinal": class_target,
        "multilabel": multilabel,
        "regression": regression,
        "ranking": ranking,
    }
    if type not in makers:
        raise ConfigError(f"targets.{name}.type: found {type!r}, {nearest(type, makers)}")

    if unify and labels is not None:
        _refuse_alike(name, labels)

    # Encoding the table shows whether its cells are what the target allows, and whether there are two to tell apart.
    target = makers[type]()
    _refuse_nothing_to_learn(target, target.encode(frame, where), where)
    return target


def _required(value: T | None, name: str, key: str) -> T:
    """The value of a key that the type needs. Raises ConfigError if it is not given."""
    if value is None:
        raise ConfigError(f"targets.{name}.{key}: not given, but a target of this type needs it")
    return value


def _labels_of_columns(
    name: str, columns: Sequence[str], column: str | None, labels: Sequence[str] | None
) -> tuple[str, ...]:
    """The labels of a target with a column for each: their names, without the spaces that some tables have around
    them. Raises ConfigError for keys that contradict that."""
    if column is not None or labels is not None:
        key = "column" if column is not None else "labels"
        raise ConfigError(f"targets.{name}.{key}: not together with columns, whose names are the labels")
    return tuple(column_name.strip() for column_name in columns)


def _multilabel_of_cells(
    name: str,
    column: str,
    labels: Sequence[str] | None,
    separator: str,
    missing: tuple[str, ...],
    none: tuple[str, ...],
    frame: pl.DataFrame,
    where: str,
    unify: bool,
) -> MultilabelTarget:
    """One column with all labels of a row in a cell."""
    if labels is None:
        cells = table_column(frame, column, where, f"targets.{name}.column")
        sets = label_sets(cells, separator, where, column, missing, none)
        counts = Counter(label for row_labels in sets for label in row_labels or ())
        labels = sorted_labels(unified_labels(counts) if unify else set(counts))
    return MultilabelTarget(
        name,
        columns=(column,),
        labels=tuple(labels),
        separator=separator,
        missing=missing,
        none=none,
        unify=unify,
    )


def _refuse_alike(name: str, labels: Sequence[str]) -> None:
    """Raise ConfigError if two labels of the config's own list would be one."""
    by_key: dict[str, str] = {}
    for label in labels:
        first = by_key.setdefault(spelling_key(label), label)
        if first != label:
            raise ConfigError(
                f"targets.{name}.labels: found {first!r} and {label!r}, which data.unify_labels = true takes for one;"
                " allowed: one of them"
            )


def _refuse_nothing_to_learn(target: Target, encoded: Encoded, where: str) -> None:
    """Raise DataError if no label is known, or if all known labels are alike."""
    names = ", ".join(map(repr, target.columns[: 1 if target.type == "ranking" else None]))
    columns = f"{where}: column{'s' if names.count(', ') else ''} {names} (targets.{target.name})"
    labels = encoded[target.is_labeled(encoded)]
    if not len(labels):
        raise DataError(f"{columns}: every cell is empty; there is nothing to learn")
    if target.type == "multilabel":
        if not ((labels == 1).any(axis=0) & (labels == 0).any(axis=0)).any():
            raise DataError(
                f"{columns}: every label is in all rows or in none; there is nothing to tell apart"
            )
    elif target.type == "ranking":
        pairs = np.unique(labels, axis=0)
        if len(np.unique(pairs[:, 1])) == len(pairs):
            raise DataError(f"{columns}: no query has two different relevances; there is nothing to rank")
    elif len(np.unique(labels)) < 2:
        regression = target.type == "regression"
        one = f"value only, {labels[0]:g}" if regression else f"class only, {target.labels[labels[0]]!r}"
        raise DataError(f"{columns} holds one {one}; there is nothing to tell apart")
