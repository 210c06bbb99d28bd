"""What `--fix` proposes, for a person to accept, and what `--apply` makes of it: a new table beside the old one.

A proposal is a line of a table. It changes one cell (`relabel`) or leaves a row out (`remove`), and does so only if a
person has written a yes into its cell `accept`, and only if the table still has the cell that the proposal was made
for."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from classwise.data.table import column, full_column, is_empty, plain, read_table, write_table
from classwise.datacheck.table_edit import edit_table, refuse_output
from classwise.errors import DataError, OutputError
from classwise.files import refuse_existing

RELABEL, REMOVE = "relabel", "remove"
ACTIONS = (RELABEL, REMOVE)
YES = ("y", "yes", "true", "1", "x")
NO = ("n", "no", "false", "0")
COLUMNS = ("id", "action", "column", "found", "proposed", "reason", "value", "accept")


@dataclass(frozen=True)
class Proposal:
    """A change to one row of a table.

    `id`: the row, by its cell in the table's id column. `column` and `found`: the cell that the proposal is about, and
    its text. `action`: RELABEL writes `proposed` into that cell; REMOVE leaves the row out, and `proposed` is empty.
    `value`: how sure it is, as the finding has it."""

    id: str
    column: str
    found: str
    proposed: str
    reason: str
    value: float | None = None
    action: str = RELABEL

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise ValueError(f"action: found {self.action!r}, allowed: {', '.join(ACTIONS)}")
        if (self.proposed == "") != (self.action == REMOVE):
            raise ValueError(f"proposed: found {self.proposed!r} for the action {self.action}")


@dataclass(frozen=True)
class Applied:
    """What became of proposals: the rows with other cells, the rows left out, the proposals that nobody accepted, and
    the rows of the new table."""

    relabeled: int
    removed: int
    not_accepted: int
    rows: int

    @property
    def text(self) -> str:
        """One line for the user."""
        return (
            f"{_counted(self.relabeled, 'row')} relabeled, {_counted(self.removed, 'row')} removed,"
            f" {_counted(self.not_accepted, 'proposal')} not accepted; {_counted(self.rows, 'row')} in the new table"
        )


def write_proposals(proposals: Sequence[Proposal], path: Path, force: bool = False) -> None:
    """Write the proposals as a table (.csv or .tsv), in their order, with an empty column `accept`.

    No cell is a formula for a spreadsheet. Raises OutputError if the file exists, which may have a person's answers,
    and not `force`."""
    refuse_existing(path, force)
    cells = {
        "id": [proposal.id for proposal in proposals],
        "action": [proposal.action for proposal in proposals],
        "column": [proposal.column for proposal in proposals],
        "found": [proposal.found for proposal in proposals],
        "proposed": [proposal.proposed for proposal in proposals],
        "reason": [proposal.reason for proposal in proposals],
        "value": ["" if proposal.value is None else f"{proposal.value:.6g}" for proposal in proposals],
        "accept": [""] * len(proposals),
    }
    frame = pl.DataFrame({name: pl.Series(name, cells[name], dtype=pl.String) for name in COLUMNS})
    # An empty cell stays empty, rather than a pair of quotes.
    write_table(frame.with_columns(pl.all().replace("", None)), path, escape_formulas=True)


def apply_proposals(table: Path, proposals: Path, out: Path, id_column: str, force: bool = False) -> Applied:
    """Write `table` to `out` with the accepted ones of `proposals`, and everything else as it is.

    `id_column`: the column of `table` with the rows' ids (data.id, or else data.path). A row that the table has twice
    in every column is changed twice. Raises DataError, before anything is written, for an answer in `accept` that is
    neither yes nor no, a row that the table does not have, a cell that is no longer what was found, two accepted
    proposals that contradict each other, and where nothing was accepted; OutputError if `out` is one of the two tables,
    or exists and not `force`."""
    refuse_output(table, out, force)
    if out.exists() and out.samefile(proposals):
        raise OutputError(f"{out} is the table of proposals; name another file")
    accepted, not_accepted = _accepted(proposals)
    if not accepted:
        raise DataError(
            f"{proposals}: none of its {not_accepted} proposals"
            " is accepted; write y into the column accept of those to apply"
        )
    frame = read_table(table)
    rows_by_id: dict[str | None, list[int]] = {}
    for row, cell in enumerate(column(frame, id_column, str(table), "the column of ids")):
        rows_by_id.setdefault(cell, []).append(row)

    # First everything is looked at, so that a table with a mistake changes nothing.
    _refuse_contradictions(accepted, proposals)
    cells: dict[tuple[int, str], str] = {}
    removed: set[int] = set()
    for number, proposal in accepted.items():
        where = f"{proposals}, row {number}"
        for row in _rows_of(proposal, frame, rows_by_id, where=where, table=table):
            if proposal.action == REMOVE:
                removed.add(row)
            else:
                cells[row, proposal.column] = proposal.proposed
    if len(removed) == frame.height:
        raise DataError(f"{proposals}: all {frame.height} rows of {table} would be removed")
    edit_table(table, out, cells, removed)
    return Applied(
        relabeled=len({row for row, _ in cells}),
        removed=len(removed),
        not_accepted=not_accepted,
        rows=frame.height - len(removed),
    )


def _accepted(path: Path) -> tuple[dict[int, Proposal], int]:
    """The accepted proposals by their row in the file, from 1, and the number of others. Raises DataError."""
    frame = plain(read_table(path))
    where = str(path)
    ids = full_column(frame, "id", where, "proposals")
    texts = {name: column(frame, name, where, "proposals") for name in COLUMNS if name in frame.columns}
    for name in ("action", "column", "found", "proposed", "accept"):
        column(frame, name, where, "proposals")
    accepted = {}
    for row, id_ in enumerate(ids):
        if not _is_yes(texts["accept"][row], f"{where}, row {row + 1} ({id_})"):
            continue
        action, proposed = texts["action"][row] or "", texts["proposed"][row] or ""
        if action not in ACTIONS:
            raise DataError(
                f"{where}, row {row + 1} ({id_}): action: found {action!r}, allowed: {', '.join(ACTIONS)}"
            )
        if (proposed == "") != (action == REMOVE):
            needs = "nothing for remove" if proposed else "a label for relabel"
            raise DataError(f"{where}, row {row + 1} ({id_}): proposed: found {proposed!r}, allowed: {needs}")
        accepted[row + 1] = Proposal(
            id=id_,
            column=texts["column"][row] or "",
            found=texts["found"][row] or "",
            proposed=proposed,
            reason="",
            action=action,
        )
    return accepted, frame.height - len(accepted)


def _is_yes(cell: str | None, where: str) -> bool:
    if cell is None or is_empty(cell):
        return False
    answer = cell.strip().casefold()
    if answer not in (*YES, *NO):
        raise DataError(
            f"{where}: accept: found {cell!r}; allowed: {', '.join(YES)} for yes, {', '.join(NO)} or nothing for no"
        )
    return answer in YES


def _refuse_contradictions(accepted: dict[int, Proposal], path: Path) -> None:
    """Raise DataError if two accepted proposals want one cell to be two things, or one of them the row removed."""
    first: dict[tuple[str, str], int] = {}
    removed = {proposal.id: number for number, proposal in accepted.items() if proposal.action == REMOVE}
    for number, proposal in accepted.items():
        if proposal.action == REMOVE:
            continue
        earlier = first.setdefault((proposal.id, proposal.column), number)
        other = removed.get(proposal.id, earlier)
        if accepted[other].proposed != proposal.proposed:
            raise DataError(
                f"{path}: rows {min(number, other)} and {max(number, other)} propose different things for"
                f" {proposal.id!r}; accept one of them"
            )


def _rows_of(
    proposal: Proposal,
    frame: pl.DataFrame,
    rows_by_id: dict[str | None, list[int]],
    where: str,
    table: Path,
) -> list[int]:
    """The rows (from 0) of the table that a proposal is about. Raises DataError if there is none, or if it has another
    cell by now."""
    rows = rows_by_id.get(proposal.id, [])
    if not rows:
        raise DataError(f"{where}: {table} has no row {proposal.id!r}")
    cells = column(frame, proposal.column, str(table), f"{where}: column")
    for row in rows:
        if (cells[row] or "") != proposal.found:
            raise DataError(
                f"{where} ({proposal.id}): column {proposal.column!r} of {table} has {cells[row] or ''!r} in row"
                f" {row + 1}, but the proposal was made for {proposal.found!r}; check the table again"
            )
    return rows


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
