"""The parts of a split that the table itself gives, by data.split or data.fold."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from classwise.compose.contents import LISTED_PAIRS, has_queries
from classwise.compose.split_checks import SPLIT_NAMES, refuse_overlap
from classwise.compose.splits import Split
from classwise.config.schema import Config
from classwise.data.cells import sorted_labels
from classwise.data.sources import Samples
from classwise.data.split_column import parts_of_column, parts_of_folds
from classwise.data.table import column as table_column
from classwise.data.table import full_column
from classwise.data.targets import Target
from classwise.errors import ConfigError, DataError

FARTHEST_FIRST = ("test", "valid", "train")
"""Of rows with the same image in several parts, those of the first of these stay."""


def given_parts(frame: pl.DataFrame, where: str, config: Config) -> list[str] | None:
    """The part of each row (train, valid, test or skip) that data.split or data.fold gives; None without either. Raises
    DataError for a column that is missing and for cells that are not allowed."""
    data = config.data
    if data.split is not None:
        cells = table_column(frame, data.split, where, "data.split")
        parts = parts_of_column(cells, data.split_values, where, data.split)
        # Folds are made of all rows that are not for the test.
        return parts if not config.is_of_folds else ["train" if part == "valid" else part for part in parts]
    if data.fold is not None:
        full_cells = full_column(frame, data.fold, where, "data.fold")
        valid_fold = data.valid_fold if config.fold is None else _given_fold(full_cells, config, where)
        return parts_of_folds(full_cells, valid_fold, where, data.fold)
    return None


def given_folds(cells: Sequence[str]) -> list[str]:
    """The folds of data.fold in their order: by number or by name."""
    return list(sorted_labels({cell.strip() for cell in cells}))


def _given_fold(cells: Sequence[str], config: Config, where: str) -> str:
    """The fold that folds.fold names by its number. Raises DataError for another count of folds."""
    folds = given_folds(cells)
    assert config.folds is not None
    assert config.folds.fold is not None
    if len(folds) != config.folds.count:
        raise DataError(
            f"{where}: column {config.data.fold!r} (data.fold) has {len(folds)} folds"
            f" ({', '.join(map(repr, folds[:20]))}), but folds.count is {config.folds.count}"
        )
    return folds[config.folds.fold]


def split_by_column(
    split: Split, config: Config, targets: Sequence[Target]
) -> tuple[Split, dict[str, Split], list[str]]:
    """The training rows, the validation and test rows that the column gives, by name, and warnings. Rows whose image is
    in a later part as well are left out of the earlier one. Raises DataError, for a group in two parts as well."""
    parts = given_parts(split.samples.frame, split.samples.where, config)
    if parts is None:
        return split, {}, []
    parts, warnings = _without_copies(split.samples, parts, targets)
    by_name = {
        name: rows_of(split.samples, split.labels, np.flatnonzero(np.array(parts) == name))
        for name in reversed(FARTHEST_FIRST)
        if name in parts
    }
    key = "split" if config.data.split is not None else "fold"
    if "train" not in by_name:
        raise DataError(f"{split.samples.where}: no labeled row is for training (data.{key})")
    names = list(by_name)
    for number, name in enumerate(names):
        for other in names[:number]:
            refuse_overlap(by_name[other].samples, by_name[name].samples, targets, key, within=True)
    return by_name.pop("train"), by_name, warnings


def refuse_given_twice(given: Mapping[str, Split], own: Mapping[str, Split], config: Config) -> None:
    """Raise ConfigError if the column gives rows for a part that another key gives as well."""
    key = "split" if config.data.split is not None else "fold"
    for name in given:
        value = getattr(config.data, name)
        if name in own or (name == "test" and value is not None) or value == 0:
            raise ConfigError(
                f"data.{name}: found {value!r}, but the column {getattr(config.data, key)!r} (data.{key}) gives the"
                f" {SPLIT_NAMES[name]} rows; allowed: one of them"
            )


def rows_of(samples: Samples, labels: Mapping[str, npt.NDArray[Any]], rows: npt.NDArray[Any]) -> Split:
    """The split that holds these rows."""
    return Split(samples.take(rows), {name: values[rows] for name, values in labels.items()})


def _without_copies(
    samples: Samples, parts: Sequence[str], targets: Sequence[Target]
) -> tuple[list[str], list[str]]:
    """The parts with `skip` for every row whose image is in a later part too, and a warning that names some of them.
    With a ranking target images may recur."""
    if has_queries(targets):
        return list(parts), []
    images = samples.contents or samples.names
    left = list(parts)
    owner: dict[str, int] = {}
    copies: list[tuple[int, int]] = []
    for name in FARTHEST_FIRST:
        rows = [row for row, part in enumerate(parts) if part == name]
        for row in rows:
            first = owner.get(images[row])
            if first is not None and parts[first] != name:
                left[row] = "skip"
                copies.append((row, first))
        for row in rows:
            owner.setdefault(images[row], row)
    if not copies:
        return left, []
    listed = ", ".join(
        f"{samples.names[row]!r} ({parts[row]}) is {samples.names[first]!r} ({parts[first]})"
        for row, first in copies[:LISTED_PAIRS]
    )
    more = f" and {len(copies) - LISTED_PAIRS} more" if len(copies) > LISTED_PAIRS else ""
    rows_text = "1 row" if len(copies) == 1 else f"{len(copies)} rows"
    return left, [
        f"{rows_text} left out of their part of the given split, since their images are in a later part as well:"
        f" {listed}{more}"
    ]
