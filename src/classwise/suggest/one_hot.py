"""Columns of yes and no: one for each class, or one for each of several labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from classwise.suggest.guess import listed
from classwise.suggest.kinds import UNKNOWN_WORDS

WORDS = (
    ("0", "1"),
    ("0.0", "1.0"),
    ("false", "true"),
    ("-1", "1"),
    ("-1.0", "1.0"),
    ("no", "yes"),
    ("n", "y"),
)
"""Cells for no and yes, in lower case. The first three are understood without targets.NAME.flags."""
UNDERSTOOD = 3
MARKS = ("1", "1.0", "x", "✓", "✔", "yes", "y", "true", "t")
"""Cells for yes, in lower case, beside blank ones for no."""
UNCERTAIN = ("-1", "-1.0")
"""A third value beside 0 and 1."""


class FlagColumns:
    """The columns of a table that hold yes and no: as an array with NaN where a cell is empty or unknown.

    words: the cells for no and yes, if the target has to name them. missing: cells that mean unknown.
    """

    def __init__(
        self, names: list[str], flags_NK: Any, words: tuple[str, str] | None, missing: list[str]
    ) -> None:
        self.names = names
        self.flags_NK = flags_NK
        self.words = words
        self.missing = missing

    @property
    def keys(self) -> dict[str, Any]:
        """The keys of a target with such cells."""
        keys: dict[str, Any] = {}
        if self.missing:
            keys["missing"] = self.missing
        if self.words is not None:
            keys["flags"] = list(self.words)
        return keys

    def exclusive_run(self) -> list[str]:
        """The longest run of neighbouring columns of which exactly one is yes in every row with known cells; empty if
        there is none of at least two, each of which is yes somewhere."""
        ones_NK = np.nan_to_num(self.flags_NK)
        known_N = ~np.isnan(self.flags_NK).any(axis=1)
        if not known_N.any():
            return []
        sums = np.concatenate([np.zeros((known_N.sum(), 1)), ones_NK[known_N].cumsum(axis=1)], axis=1)
        count = len(self.names)
        used_K = ones_NK[known_N].any(axis=0)
        for length in range(count, 1, -1):
            for start in range(count - length + 1):
                if (sums[:, start + length] - sums[:, start] == 1).all() and used_K[
                    start : start + length
                ].sum() > 1:
                    return self.names[start : start + length]
        return []

    def without(self, names: Sequence[str]) -> "FlagColumns":
        """The same without these columns."""
        left = [k for k, name in enumerate(self.names) if name not in names]
        return FlagColumns([self.names[k] for k in left], self.flags_NK[:, left], self.words, self.missing)

    def multilabel_reason(self) -> str:
        """Why the columns are no classes: how many rows have several or none."""
        ones_N = np.nansum(self.flags_NK, axis=1)
        several, none = int((ones_N > 1).sum()), int((ones_N == 0).sum())
        return f"{several} rows have several of these columns at yes and {none} have none"


def flag_columns(table: pl.DataFrame, columns: Sequence[str]) -> FlagColumns | None:
    """Those of the columns that hold yes and no, in the words that most of them use; None if there are none."""
    cells = {name: [(cell or "").strip().casefold() for cell in table[name].to_list()] for name in columns}
    values = {name: set(column) - {"", *UNKNOWN_WORDS} for name, column in cells.items()}
    best: tuple[list[str], tuple[str, str], list[str]] = ([], WORDS[0], [])
    for no, yes in WORDS:
        third = UNCERTAIN if no not in UNCERTAIN else ()
        found = [
            name for name, held in values.items() if held and held <= {no, yes, *third} and held & {no, yes}
        ]
        held = set().union(*(set(cells[name]) for name in found))
        if {no, yes} <= held and len(found) > len(best[0]):
            missing = sorted(held & {*third, *UNKNOWN_WORDS})
            best = (found, (no, yes), missing)
    names, (no, yes), missing = best
    if not names:
        return _marked_columns(cells)
    flags = [[{no: 0.0, yes: 1.0}.get(cell, np.nan) for cell in cells[name]] for name in names]
    is_understood = (no, yes) in WORDS[:UNDERSTOOD]
    return FlagColumns(names, np.array(flags).T, None if is_understood else (no, yes), missing)


def _marked_columns(cells: dict[str, list[str]]) -> FlagColumns | None:
    """Columns that hold the same mark and blank cells only, of which a blank one must mean no; None if there are not at
    least two, with a mark in every row or in as many as two of them."""
    for mark in MARKS:
        names = [name for name, column in cells.items() if set(column) == {"", mark}]
        if len(names) < 2:
            continue
        flags_NK = np.array([[float(cell == mark) for cell in cells[name]] for name in names]).T
        if flags_NK.any(axis=1).all() or (flags_NK.sum(axis=1) > 1).any():
            return FlagColumns(names, flags_NK, ("", mark), [])
    return None


def blank_decision(name: str, flags: FlagColumns) -> tuple[tuple[str, str, str], ...]:
    """The decision that blank cells mean no, if they do."""
    if flags.words is None or flags.words[0]:
        return ()
    choice = f"{name}: a blank cell taken for no, {flags.words[1]!r} for yes"
    return ((choice, "the columns hold nothing else", f"targets.{name}.flags says what cells mean"),)


def unknown_decision(name: str, flags: FlagColumns) -> tuple[tuple[str, str, str], ...]:
    """The decision for cells that are neither yes nor no, if there are some."""
    if not flags.missing:
        return ()
    count = int(np.isnan(flags.flags_NK).sum())
    cells = " and ".join(map(repr, flags.missing))
    choice = f"{name}: {cells}, and empty cells, taken for unknown ({count} cells)"
    return (
        (choice, "they are neither yes nor no", f"targets.{name}.flags and `missing` say what cells mean"),
    )


def one_hot_decision(name: str, columns: list[str]) -> tuple[str, str, str]:
    """The decision for columns of which exactly one is yes."""
    return (
        f"{name}: {len(columns)} classes, one column each ({listed([c.strip() for c in columns])})",
        "exactly one of these columns is yes in every row",
        'type "multilabel" takes them for labels of their own',
    )


def multilabel_decision(name: str, flags: FlagColumns) -> tuple[str, str, str]:
    """The decision for columns of which any number may be yes."""
    names = listed([column.strip() for column in flags.names])
    return (
        f"{name}: any number of {len(flags.names)} labels, one column each ({names})",
        flags.multilabel_reason(),
        "a target of its own for each column that is another question",
    )
