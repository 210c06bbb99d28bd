"""What `--write-groups` writes: the table once more, with a column that joins copies of an image, so that a split holds
them together (`data.group`)."""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path

import polars as pl

from classwise.data.split import merge_groups
from classwise.data.table import full_column, read_table, write_table
from classwise.datacheck.table_edit import add_column, refuse_output
from classwise.errors import DataError
from classwise.files import refuse_existing

COLUMN = "group"


def write_groups(
    source: Path,
    out: Path,
    group_by_id: Mapping[str, Hashable],
    id_column: str,
    existing: str | None = None,
    name: str = COLUMN,
    force: bool = False,
) -> int:
    """Write the table `source` to `out` with one more column `name`: the group of each row. Every other byte of a text
    file stays as it is. Returns the number of groups with more than one row.

    `group_by_id`: the group of each row that was looked at, by its cell in `id_column`; any other row is a group of its
    own. `existing`: the table's own column of groups (data.group), with which these are united: rows that either joins,
    directly or through other rows, are joined.

    Raises DataError if the table has a column `name` already or lacks another one; OutputError if `out` is the table
    itself, another kind of file, or exists and not `force`."""
    refuse_output(source, out, force)
    frame = read_table(source)
    groups = _groups(frame, str(source), group_by_id, id_column=id_column, existing=existing, name=name)
    add_column(source, out, name, groups)
    return _joined(groups)


def write_grouped_samples(
    samples: pl.DataFrame,
    out: Path,
    group_by_id: Mapping[str, Hashable],
    id_column: str = "path",
    name: str = COLUMN,
    force: bool = False,
) -> int:
    """As `write_groups`, for a source that is a folder: `samples` are its rows (path, label and so on), which become a
    table with the groups as its last column."""
    refuse_existing(out, force)
    groups = _groups(samples, str(out), group_by_id, id_column=id_column, existing=None, name=name)
    write_table(samples.with_columns(pl.Series(name, groups, dtype=pl.String)), out)
    return _joined(groups)


def _groups(
    frame: pl.DataFrame,
    where: str,
    group_by_id: Mapping[str, Hashable],
    id_column: str,
    existing: str | None,
    name: str,
) -> list[str]:
    """The group of each row of the table, named by the number of its first row from 0."""
    if name in frame.columns:
        raise DataError(
            f"{where}: the table has a column {name!r} already; allowed for the new one: any name but"
            f" {', '.join(map(repr, frame.columns))}"
        )
    ids = full_column(frame, id_column, where, "the column of ids")
    # What was not looked at shares its group with nothing but the same id.
    copies: list[Hashable] = [(True, group_by_id[id_]) if id_ in group_by_id else (False, id_) for id_ in ids]
    own: list[Sequence[Hashable]] = []
    if existing is not None:
        own.append(full_column(frame, existing, where, "data.group"))
    return merge_groups(copies, *own)


def _joined(groups: Sequence[str]) -> int:
    return len({group for row, group in enumerate(groups) if group != str(row)})
