"""What a check writes for the data to be changed by: groups of copies, and proposals for a person to accept."""

import itertools
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from classwise.data.table import write_table
from classwise.datacheck.found_labels import LIKELY, LabelError, LabelErrors
from classwise.datacheck.proposals import REMOVE, Proposal, apply_proposals, write_proposals
from classwise.datacheck.rows import Rows, Table, rows_of
from classwise.datacheck.written_groups import write_grouped_samples, write_groups
from classwise.errors import ConfigError
from classwise.files import refuse_existing

GROUPS, PROPOSALS = "groups", "proposals.csv"
GROUP = "group"

KEPT_FIRST = ("test", "valid", "train")
"""Of copies in several parts, the row in the first of these stays."""


def refuse_existing_changes(rows: Rows, folder: Path, groups: bool, fix: bool, force: bool) -> None:
    """Raise OutputError, before anything is looked at, for a file of an earlier check that would be replaced;
    ConfigError for shards."""
    for option, given in {"--write-groups": groups, "--fix": fix}.items():
        if given:
            _refuse_shards(rows, option)
    if groups and folder.exists():
        refuse_existing(folder / _groups_name(rows.table), force)
    if fix and folder.exists():
        refuse_existing(folder / PROPOSALS, force)


def _refuse_shards(rows: Rows, option: str) -> None:
    """Raise ConfigError if the table of the data is in shards, which no other table can take the place of."""
    if rows.parts[0].samples.shards is not None:
        raise ConfigError(
            f"{option}: found with shards, whose table is in them; change the table that they were packed from, and"
            " pack it again"
        )


def _groups_name(table: Table) -> str:
    return f"{GROUPS}{'.csv' if table.file is None else table.file.suffix.lower()}"


def _free_name(table: Table) -> str:
    """A name for the new column that the table does not have."""
    names = itertools.chain((GROUP,), (f"copy_{GROUP}{number or ''}" for number in itertools.count()))
    return next(name for name in names if name not in table.frame.columns)


def write_group_table(rows: Rows, group_of: Sequence[int], folder: Path, force: bool) -> str:
    """Write the table of the data with one more column, which holds copies together; returns a line on it. Raises
    DataError, OutputError."""
    table = rows.table
    name = _free_name(table)
    out = folder / _groups_name(table)
    is_source_N = rows.is_source
    by_id = {
        id: group
        for id, group, is_source in zip(rows.own_ids, group_of, is_source_N.tolist(), strict=True)
        if is_source
    }
    if table.file is None:
        count = write_grouped_samples(
            table.frame, out, by_id, id_column=table.id_column, name=name, force=force
        )
    else:
        count = write_groups(
            table.file,
            out,
            by_id,
            id_column=table.id_column,
            existing=table.group_column,
            name=name,
            force=force,
        )
    folders = [str(path) for path in table.folders]
    images = f'"{folders[0]}"' if len(folders) == 1 else str(folders)
    return (
        f"{out}: {count} group{'' if count == 1 else 's'} of several rows; to keep them together:"
        f' data.source = "{out}", data.images = {images}, data.group = "{name}"'
    )


def write_fixes(
    rows: Rows,
    *,
    exact: Sequence[Sequence[int]],
    unusable: Mapping[int, str],
    errors: LabelErrors | None,
    folder: Path,
    force: bool,
) -> str:
    """Write proposals.csv: other labels for likely errors; the removal of copies with equal labels, of rows that
    another set holds too, and of images that cannot be used. Returns a line on it. Raises OutputError.

    `exact`: the rows that hold one image. `unusable`: why the images of some rows of data.source cannot be used."""
    likely = [error for error in (errors.listed if errors else ()) if error.wrong >= LIKELY]
    relabeled = [_relabel(rows, error) for error in likely]
    proposals = [proposal for proposal in relabeled if proposal is not None]
    proposals += [
        _removal(rows, row, f"the image cannot be used: {reason}") for row, reason in unusable.items()
    ]
    proposals += [proposal for copies in exact for proposal in _removals(rows, copies, unusable)]
    out = folder / PROPOSALS
    write_proposals(proposals, out, force)
    left_out = sum(proposal is None for proposal in relabeled)
    more = f"; {left_out} labels that are not the text of one cell are left to you" if left_out else ""
    labels = "" if errors else "; labels need out-of-fold predictions (--run FOLDS)"
    then = (
        "; write y into the column accept of those that are right, and then: classwise check SOURCE --apply"
        f" {out} --out NEW.csv"
    )
    count = f"{len(proposals)} proposal{'' if len(proposals) == 1 else 's'}"
    return f"{out}: {count}{more}{labels}{then if proposals else ''}"


def _relabel(rows: Rows, error: LabelError) -> Proposal | None:
    """The proposal of another label; None where the label is not the text of one cell of data.source."""
    target = next(target for target in rows.targets if target.name == error.target)
    assert rows.config is not None
    is_cut = rows.config.targets[target.name].edges is not None  # the cell has a number
    if len(target.columns) != 1 or target.type == "multilabel" or is_cut or not rows.is_source[error.row]:
        return None
    column = target.columns[0]
    return Proposal(
        id=rows.own_ids[error.row],
        column=column,
        found=_cell(rows, error.row, column),
        proposed=error.proposed,
        reason=f"by a model that has not seen the row, {error.proposed!r} is more likely than {error.given!r}",
        value=round(error.wrong, 4),
    )


def _removal(rows: Rows, row: int, reason: str) -> Proposal:
    column = rows.table.id_column
    id = rows.own_ids[row]
    return Proposal(id=id, column=column, found=id, proposed="", reason=reason, action=REMOVE)


def _cell(rows: Rows, row: int, column: str) -> str:
    """A cell of the table that a row is of."""
    for part in rows.parts:
        if row < len(part.samples):
            return str(part.samples.frame[column][row])
        row -= len(part.samples)
    raise AssertionError


def _removals(rows: Rows, copies: Sequence[int], unusable: Mapping[int, str]) -> list[Proposal]:
    """Of an image that several rows hold: all rows of data.source that another set has, too; else all but one, where
    all have the same labels. A test keeps its row, then validation. Images of a ranking may recur."""
    own = [row for row in copies if rows.is_source[row] and row not in unusable]
    if not own or any(target.type == "ranking" for target in rows.targets):
        return []
    others = [row for row in copies if rows.is_other[row]]
    if others:
        held = (
            f"the same image, pixel for pixel, is in {rows.part_of[others[0]]}: {rows.own_ids[others[0]]!r}"
        )
        return [_removal(rows, row, held) for row in own]
    everywhere = [row for row in copies if row not in unusable]
    if len({tuple(texts[row] for texts in rows.texts.values()) for row in everywhere}) != 1:
        return []
    kept = min(everywhere, key=lambda row: (KEPT_FIRST.index(rows.part_of[row]), row))
    reason = f"the same image as {rows.ids[kept]!r}, pixel for pixel, with the same labels"
    return [_removal(rows, row, reason) for row in own if row != kept]


def apply_to(
    source: Path, proposals: Path, out: Path, overrides: Sequence[tuple[str, str]], force: bool
) -> str:
    """Write the table of a source, with the accepted proposals, to `out`; returns a line on it. Raises DataError,
    ConfigError, OutputError."""
    rows = rows_of(source, (), overrides)
    _refuse_shards(rows, "--apply")
    table = rows.table
    if table.file is not None:
        return apply_proposals(table.file, proposals, out, table.id_column, force).text
    # A folder has no table yet; `out` is its first.
    with tempfile.TemporaryDirectory(prefix="classwise-") as name:
        path = Path(name) / f"samples{out.suffix.lower() or '.csv'}"
        write_table(table.frame, path)
        return apply_proposals(path, proposals, out, table.id_column, force).text
