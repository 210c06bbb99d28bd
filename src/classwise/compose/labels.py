"""The label columns of a table as arrays, and the rows that have a label."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from classwise.config.schema import Config
from classwise.data.sources import Samples
from classwise.data.table import column as table_column
from classwise.data.table import rows_text
from classwise.data.target_from_table import make_target
from classwise.data.targets import Target
from classwise.errors import DataError

Labels = dict[str, npt.NDArray[Any]]
"""By target, an array with one entry or row per sample; see data/targets.py for the types."""


def build_target(name: str, config: Config, samples: Samples) -> Target:
    """The target `name` of the config; a label list that the config does not give is read from the table. Raises
    ConfigError, DataError."""
    target = config.targets[name]
    return make_target(
        name=name,
        type=target.type,
        column=target.column,
        columns=target.columns,
        labels=target.labels,
        edges=target.edges,
        separator=target.separator,
        query=target.query,
        missing=target.missing or (),
        none=target.none or (),
        flags=target.flags,
        frame=samples.frame,
        where=samples.where,
        unify=config.data.unify_labels,
    )


def refuse_missing_columns(config: Config, tables: Sequence[Samples]) -> None:
    """Raise DataError where a table lacks a column of a target, which is known before any image is read."""
    wanted = []
    for name, target in config.targets.items():
        single = [(key, getattr(target, key)) for key in ("column", "query")]
        several = [("columns", column) for column in target.columns or ()]
        wanted += [(f"targets.{name}.{key}", column) for key, column in [*single, *several] if column]
    for rows in tables:
        for key, column in wanted:
            table_column(rows.frame.head(0), column, rows.where, key)


def labeled_rows(targets: Sequence[Target], samples: Samples, config: Config) -> tuple[Samples, Labels]:
    """The rows with a label for at least one target, and their labels. `data.unlabeled` decides whether rows without
    any are left out or are an error. Raises DataError."""
    if config.data.unlabeled == "skip":
        labeled_N = _has_label(targets, samples, _encode_all(targets, samples))
        unlabeled = int((~labeled_N).sum())
        # If no row has a label, `encode` says so.
        if unlabeled and labeled_N.any():
            samples = samples.take(np.flatnonzero(labeled_N).tolist())
            note = f"{unlabeled} rows without any label left out (data.unlabeled = skip)"
            samples = dataclasses.replace(samples, notes=(*samples.notes, note))
    return samples, encode(targets, samples)


def encode(targets: Sequence[Target], samples: Samples) -> Labels:
    """The labels of all rows, by target. Raises DataError for a missing column, an unknown label, or a row without
    any label."""
    labels = _encode_all(targets, samples)
    labeled_N = _has_label(targets, samples, labels)
    if not labeled_N.all():
        rows = [int(i) + 1 for i in np.flatnonzero(~labeled_N)]
        columns = [repr(column) for target in targets for column in target.columns]
        raise DataError(
            f"{samples.where}: no label in {rows_text(rows)}: empty in column{'s' * (len(columns) > 1)}"
            f' {", ".join(columns)} (data.unlabeled = "skip" leaves such rows out)'
        )
    return labels


def _encode_all(targets: Sequence[Target], samples: Samples) -> Labels:
    return {target.name: target.encode(samples.frame, samples.where) for target in targets}


def _has_label(targets: Sequence[Target], samples: Samples, labels: Labels) -> npt.NDArray[np.bool_]:
    """Which rows (N,) have a label for at least one target."""
    labeled_N = np.zeros(len(samples), dtype=bool)
    for target in targets:
        labeled_N |= target.is_labeled(labels[target.name])
    return labeled_N
