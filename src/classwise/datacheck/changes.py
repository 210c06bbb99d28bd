"""What a check writes for the data to be changed by: groups of copies, and proposals for a person to accept."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from classwise.data.table import write_table
from classwise.datacheck.found_labels import LabelError, LabelErrors
from classwise.datacheck.proposals import REMOVE, Proposal, apply_proposals, write_proposals
from classwise.datacheck.rows import Rows, Table, rows_of
from classwise.datacheck.written_groups import write_grouped_samples, write_groups

GROUPS, PROPOSALS = "groups", "proposals.csv"
GROUP, OTHER_NAMES = "group", ("copy_group", "classwise_copy_group")
"""The name of the new column, and those that it takes where the table has one of that name."""

KEPT_FIRST = ("test", "valid", "train")
"""Of copies in several parts, the row in the first of these stays."""


def _free_name(table: Table) -> str:
    """A name for the new column that the table does not have."""
    return next(name for name in (GROUP, *OTHER_NAMES) if name not in table.frame.columns)


def write_group_table(rows: Rows, group_of: Sequence[int], folder: Path, force: bool) -> str:
    """Write the table of the data with one more column, which holds copies together; returns a line on it. Raises
    DataError, OutputError."""
    table = rows.table
    name = _free_name(table)
    by_id = {
        id: group
        for id, group, is_other in zip(rows.ids, group_of, rows.is_other.tolist(), strict=True)
        if not is_other
    }
    if table.file is None:
        out = folder / f"{GROUPS}.csv"
        count = write_grouped_samples(
            table.frame, out, by_id, id_column=table.id_column, name=name, force=force
        )
    else:
        out = folder / f"{GROUPS}{table.file.suffix.lower()}"
        count = write_groups(
            table.file,
            out,
            by_id,
            id_column=table.id_column,
            existing=table.group_column,
            name=name,
            force=force,
        )
    return (
        f'{out}: {count} groups of several rows; to keep them together: data.source = "{out}", data.group ='
        f' "{name}", and data.images as it is now'
    )


def write_fixes(
    rows: Rows, exact: Sequence[Sequence[int]], errors: LabelErrors | None, folder: Path, force: bool
) -> str:
    """Write proposals.csv: other labels for the likeliest errors, and the removal of copies with equal labels among the
    rows that hold one image (`exact`); returns a line on it. Raises OutputError."""
    proposals: list[Proposal] = []
    left_out = 0
    for error in errors.listed if errors else ():
        proposal = _relabel(rows, error)
        left_out += proposal is None
        proposals += [] if proposal is None else [proposal]
    proposals += [proposal for copies in exact for proposal in _removals(rows, copies)]
    out = folder / PROPOSALS
    write_proposals(proposals, out, force)
    more = f"; {left_out} errors of several labels in several columns are left to you" if left_out else ""
    labels = "" if errors else "; labels need out-of-fold predictions (--run FOLDS)"
    return (
        f"{out}: {len(proposals)} proposals{more}{labels}; write y into the column accept of those that are right,"
        " and then:"
        f" classwise check SOURCE --apply {out} --out NEW.csv"
    )


def _relabel(rows: Rows, error: LabelError) -> Proposal | None:
    """The proposal of another label; None where the label is not the text of one cell."""
    target = next(target for target in rows.targets if target.name == error.target)
    if len(target.columns) != 1 or target.type == "multilabel":
        return None
    column = target.columns[0]
    return Proposal(
        id=rows.ids[error.row],
        column=column,
        found=_cell(rows, error.row, column),
        proposed=error.proposed,
        reason=f"out of fold, {error.proposed!r} is more likely than {error.given!r}",
        value=round(error.wrong, 4),
    )


def _cell(rows: Rows, row: int, column: str) -> str:
    """A cell of the table that a row is of."""
    for part in rows.parts:
        if row < len(part.samples):
            return str(part.samples.frame[column][row])
        row -= len(part.samples)
    raise AssertionError


def _removals(rows: Rows, copies: Sequence[int]) -> list[Proposal]:
    """Of an image that several rows hold, all rows of the table but one, where all have the same labels: a test keeps
    its row, then validation."""
    in_table = set(rows.table.frame[rows.table.id_column].to_list())
    own = [row for row in copies if not rows.is_other[row] and rows.ids[row] in in_table]
    if len({tuple(texts[row] for texts in rows.texts.values()) for row in own}) != 1:
        return []
    kept = min(own, key=lambda row: (KEPT_FIRST.index(rows.part_of[row]), row))
    column = rows.table.id_column
    return [
        Proposal(
            id=rows.ids[row],
            column=column,
            found=rows.ids[row],
            proposed="",
            reason=f"the same image as {rows.ids[kept]!r}, pixel for pixel, with the same labels",
            action=REMOVE,
        )
        for row in own
        if row != kept
    ]


def apply_to(
    source: Path, proposals: Path, out: Path, overrides: Sequence[tuple[str, str]], force: bool
) -> str:
    """Write the table of a source, with the accepted proposals, to `out`; returns a line on it. Raises DataError,
    OutputError."""
    table = rows_of(source, (), overrides).table
    if table.file is not None:
        return apply_proposals(table.file, proposals, out, table.id_column, force).text
    # A folder has no table yet; `out` is its first.
    with tempfile.TemporaryDirectory(prefix="classwise-") as name:
        path = Path(name) / f"samples{out.suffix.lower() or '.csv'}"
        write_table(table.frame, path)
        return apply_proposals(path, proposals, out, table.id_column, force).text
