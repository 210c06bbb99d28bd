"""What other tables beside a table say of it: which columns are asked for, and which part of a split a row is in."""

import itertools
from pathlib import Path

import polars as pl

from classwise.data.table import SUFFIXES
from classwise.errors import DataError
from classwise.suggest.foreign_tables import read_any_table
from classwise.suggest.guess import listed
from classwise.suggest.layout import part_of_folder
from classwise.suggest.names import FLAG_SPLITS, FOLD_NAMES, SPLIT_NAMES, SUBMISSION, normal, words
from classwise.suggest.split_columns import split_values_of


def asked_for(table: pl.DataFrame, path: Path, key: str) -> tuple[list[str], list[str]]:
    """The columns of the table that a template of a submission beside it has as well, those that a table for the test
    lacks, or the one that the table is named after; and a line that says so. Empty if nothing says."""
    others = [column for column in table.columns if column != key]
    for beside in _beside(path):
        if not set(words(beside.stem)) & set(SUBMISSION):
            continue
        asked = [column for column in others if column in beside_columns(beside)]
        if asked and len(asked) < len(others):
            return asked, [f"asked for: {listed(asked)}, as in {beside.name}"]
        if asked:
            return asked, []
    own = [word for word in words(path.stem) if part_of_folder(word) is None]
    for beside in _beside(path):
        is_test = part_of_folder(beside.stem) == "test"
        if not is_test or [word for word in words(beside.stem) if part_of_folder(word) is None] != own:
            continue
        columns = beside_columns(beside)
        asked = [column for column in others if column not in columns]
        if key in columns and asked and len(asked) < len(others):
            return asked, [f"asked for: {listed(asked)}, which {beside.name} lacks"]
    named = [column for column in others if normal(column) in words(path.stem) and len(column) > 3]
    of_splits = {*SPLIT_NAMES, *FOLD_NAMES, *itertools.chain(*FLAG_SPLITS.values())}
    named = [column for column in named if normal(column) not in of_splits]
    return (named, [f"asked for: {named[0]}, as the name of the table says"]) if len(named) == 1 else ([], [])


def with_split_of_sibling(table: pl.DataFrame, key: str, path: Path) -> tuple[pl.DataFrame, list[str]]:
    """The table with the part of each row from another table that has the same keys and a column of parts; and a line
    that says so."""
    if key not in table.columns or table[key].n_unique() < table.height:
        return table, []
    for beside in _beside(path):
        columns = beside_columns(beside)
        if key not in columns or set(words(beside.stem)) & set(SUBMISSION):
            continue
        other = read_any_table(beside).table
        for column in other.columns:
            cells = [(cell or "").strip() for cell in other[column].to_list()]
            if column == key or column in table.columns or split_values_of(column, cells) is None:
                continue
            if other[key].n_unique() < other.height or not set(table[key].to_list()) <= set(
                other[key].to_list()
            ):
                continue
            joined = table.join(other.select(key, column), on=key, how="left", maintain_order="left")
            return joined, [f"column {column!r} is that of {beside.name}, joined by {key!r}"]
    return table, []


def beside_columns(path: Path) -> list[str]:
    """The columns of a table; none if it cannot be read."""
    try:
        return read_any_table(path).table.columns
    except DataError:
        return []


def _beside(path: Path) -> list[Path]:
    """The other tables in the folder of a table."""
    return [
        other
        for other in sorted(path.parent.iterdir())
        if other != path and other.is_file() and other.suffix.lower() in SUFFIXES
    ]
