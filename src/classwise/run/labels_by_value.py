"""Labels of a table to be scored that are numbers, written otherwise than those of the run: 1.0 for 1, as a spreadsheet
or a data frame with gaps writes them."""

import re
from collections.abc import Sequence
from decimal import Decimal

import polars as pl

from classwise.data.cells import label_sets
from classwise.data.table import is_empty
from classwise.data.targets import ClassTarget, MultilabelTarget, Target

LISTED = 3  # pairs in a line
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?")


def with_labels_by_value(
    targets: Sequence[Target], frame: pl.DataFrame, where: str
) -> tuple[pl.DataFrame, list[str]]:
    """The table with numbers that are no label of the run written as the run's label of the same value, and a line for
    each target that says so. A value that the run writes in two ways (7 and 007 as two classes) is matched by its text
    only. Raises DataError for a cell that is no set of labels."""
    lines: list[str] = []
    for target in targets:
        column = target.columns[0]
        if column not in frame.columns:
            continue  # the target's own error says so
        cells = frame[column].to_list()
        renamed, rows = _renamed(target, label_cells(target, frame, where))
        if not renamed:
            continue
        separator = target.separator if isinstance(target, MultilabelTarget) else None
        frame = frame.with_columns(
            pl.Series(column, [_written(cell, renamed, separator) for cell in cells], dtype=pl.String)
        )
        pairs = [f"{label} as {known}" for label, known in list(renamed.items())[:LISTED]]
        more = ", ..." if len(renamed) > LISTED else ""
        lines.append(
            f"{target.name}: {rows} row{' has its' if rows == 1 else 's have their'} number written otherwise than the"
            f" run's labels and {'is' if rows == 1 else 'are'} matched by value ({', '.join(pairs)}{more})"
        )
    return frame, lines


def label_cells(target: Target, frame: pl.DataFrame, where: str) -> list[list[str]]:
    """The labels of each row of a column that holds labels, without those that the target takes for unknown or for
    none; nothing for other columns."""
    column = target.columns[0]
    if column not in frame.columns:
        return []
    cells = frame[column].to_list()
    if isinstance(target, ClassTarget) and target.edges is None and target.one_hot is None:
        return [
            [cell] if cell is not None and not is_empty(cell) and cell.strip() not in target.missing else []
            for cell in cells
        ]
    if isinstance(target, MultilabelTarget) and target.separator is not None:
        sets = label_sets(cells, target.separator, where, column, target.missing, target.none)
        return [list(labels or ()) for labels in sets]
    return []


def _renamed(target: Target, labels: Sequence[Sequence[str]]) -> tuple[dict[str, str], int]:
    """The run's label by the text of the table, and how many rows have such a text."""
    if not labels:
        return {}, 0
    # What stands for an unknown label or for none is a text of the run, too: -1.0 is -1.
    other = [*getattr(target, "missing", ()), *getattr(target, "none", ())]
    texts: dict[Decimal, set[str]] = {}  # exact: long ids are numbers, too
    for text in (*target.labels, *other):
        if _NUMBER.fullmatch(text.strip()):
            texts.setdefault(Decimal(text.strip()), set()).add(text)
    renamed: dict[str, str] = {}
    rows = 0
    known = set(target.labels)
    for row in labels:
        new = [label for label in row if label not in known and _NUMBER.fullmatch(label.strip())]
        matched = {label: texts.get(Decimal(label.strip()), set()) for label in new}
        single = {label: next(iter(found)) for label, found in matched.items() if len(found) == 1}
        renamed |= single
        rows += bool(single)
    return renamed, rows


def _written(cell: str | None, renamed: dict[str, str], separator: str | None) -> str | None:
    """The cell with the run's labels in it."""
    if cell is None or separator is None:
        return cell if cell is None else renamed.get(cell, cell)
    parts = cell.split(separator)
    return separator.join(renamed.get(part.strip(), part) for part in parts)
