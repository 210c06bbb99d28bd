"""What the columns of a table are: paths, ids, groups, a split, and the targets."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from classwise.config.schema import RESERVED_NAMES
from classwise.errors import DataError
from classwise.suggest.guess import Guess, listed
from classwise.suggest.images_of_table import ImageColumn
from classwise.suggest.kinds import Kind, kind_of
from classwise.suggest.names import (
    GROUP_NAMES,
    ID_NAMES,
    LABEL_NAMES,
    columns_named,
    words,
)
from classwise.suggest.one_hot import (
    FlagColumns,
    blank_decision,
    flag_columns,
    multilabel_decision,
    one_hot_decision,
    unknown_decision,
)
from classwise.suggest.split_columns import add_group, say_unclear_splits, take_split, unclear_splits

LISTED_REASONS = 6


@dataclass(frozen=True)
class Candidate:
    """A target that the table could have: its columns and keys."""

    columns: tuple[str, ...]
    keys: dict[str, Any]
    kind: Kind

    @property
    def name(self) -> str:
        return self.columns[0] if len(self.columns) == 1 else "label"


def guess_columns(
    table: pl.DataFrame,
    path: Path,
    images: ImageColumn,
    answers: Sequence[str] = (),
    lists: Collection[str] = (),
) -> Guess:
    """The keys for a table whose column of paths is known. `path`: its file, for messages. `answers`: columns that are
    known to be asked for. `lists`: columns whose cells are lists with bars between their items. Raises DataError if no
    column can be a target, with the reason for each."""
    guess = Guess(table=table, folders=images.folders, data={"path": images.column}, targets={})
    columns = [column for column in table.columns if column != images.column]
    columns = take_split(guess, columns)
    unclear = unclear_splits(guess, columns)

    # Ids are unique; a group has several rows, and is not all of them.
    ids = [column for column in columns_named(columns, ID_NAMES) if table[column].n_unique() == table.height]
    if ids:
        guess.data["id"] = ids[0]
        columns.remove(ids[0])
    groups = [
        column
        for column in columns_named(columns, GROUP_NAMES)
        if 2 < table[column].n_unique() < table.height
        and not table[column].null_count()
        and column not in answers
    ]

    without_groups = [column for column in columns if column not in (*groups[:1], *unclear)]
    targets, reasons = _targets(table, without_groups, answers, lists)
    if not targets and unclear:  # nothing else to learn
        unclear = []
        targets, reasons = _targets(table, [c for c in columns if c not in groups[:1]], answers, lists)
    if not targets and groups:  # nothing else to learn: who it is
        targets, reasons = _targets(table, columns, answers, lists)
        groups = []
    if not targets:
        found = "; ".join(f"{column}: {reason}" for column, reason in list(reasons.items())[:LISTED_REASONS])
        raise DataError(
            f"{path}: found no column with labels among {listed(columns, 12) or 'none'}"
            f" ({found or 'no other columns'}); labels are values that recur, or numbers"
        )
    if groups:
        add_group(guess, groups[0])
    _add_targets(guess, targets)
    _say_one_of_several(guess, answers)
    say_unclear_splits(guess, unclear)
    _say_unused(guess, targets, [column for column in columns if column not in unclear], reasons)
    return guess


def _targets(
    table: pl.DataFrame, columns: Sequence[str], answers: Sequence[str], lists: Collection[str]
) -> tuple[list[Candidate], dict[str, str]]:
    """The columns that become targets, and for the others why not: those that are asked for; else one that is named
    like a label; else columns of yes and no; else all with classes or several labels; else all of numbers."""
    wanted = [column for column in columns if column in answers]
    if wanted and len(wanted) < len(columns):
        targets, why_not = _targets(table, wanted, wanted, lists)
        if targets:
            return targets, why_not
    flags = flag_columns(table, columns)
    flag_names = flags.names if flags is not None else []
    named_columns = [
        c for c in columns_named(columns, LABEL_NAMES) if c not in flag_names or len(flag_names) < 3
    ]
    by_word = [c for c in columns if c not in named_columns and c not in flag_names and _is_named(c)]
    named_columns += by_word if len(by_word) == 1 else []

    candidates: list[Candidate] = []
    reasons: dict[str, str] = {}
    for column in columns:
        if column in flag_names and column not in named_columns and len(flag_names) > 1:
            continue
        is_named = column in named_columns or column in wanted
        kind = kind_of(column, table[column].to_list(), is_named, is_list=column in lists)
        if isinstance(kind, str):
            reasons[column] = kind
        else:
            candidates.append(Candidate((column,), {"column": column} | kind.keys, kind))

    by_name = {candidate.name: candidate for candidate in candidates}
    named = [by_name[column] for column in named_columns if column in by_name]
    are_all_wanted = len(wanted) == len(columns)
    if named and not are_all_wanted:
        return named[:1], reasons
    hot = _targets_of_flags(flags) if flags is not None and len(flag_names) > 1 else []
    if are_all_wanted:
        in_hot = {column for target in hot for column in target.columns}
        return [*hot, *(c for c in candidates if not in_hot & set(c.columns))], reasons
    categorical = [candidate for candidate in candidates if candidate.kind.type != "regression"]
    good = [candidate for candidate in categorical if candidate.kind.is_good]
    if hot and not any(candidate.kind.type == "multilabel" for candidate in good):
        return hot, reasons
    return good or categorical or candidates, reasons


def _is_named(column: str) -> bool:
    """Whether one of the words in a column's name is that of a label: damage_class, main_label."""
    return bool({"label", "class", "category", "species", "diagnosis", "breed"} & set(words(column)))


def _targets_of_flags(flags: FlagColumns) -> list[Candidate]:
    """Columns of yes and no as one class, where exactly one is yes, and as labels of their own otherwise."""
    targets = []
    run = flags.exclusive_run()
    if run and (len(run) > 2 or len(flags.names) == 2):
        decisions = (
            one_hot_decision("label", run),
            *blank_decision("label", flags),
            *unknown_decision("label", flags),
        )
        kind = Kind({}, len(run), decisions=decisions)
        targets.append(Candidate(tuple(run), {"columns": run, "type": "class"} | flags.keys, kind))
        flags = flags.without(run)
    if len(flags.names) > 1:
        name = "tags" if targets else "label"
        decisions = (
            multilabel_decision(name, flags),
            *blank_decision(name, flags),
            *unknown_decision(name, flags),
        )
        kind = Kind({"type": "multilabel"}, len(flags.names), decisions=decisions)
        keys = {"columns": flags.names, "type": "multilabel"} | flags.keys
        targets.append(Candidate(tuple(flags.names), keys, kind))
    return targets


def _add_targets(guess: Guess, targets: Sequence[Candidate]) -> None:
    """The targets under names that the config accepts, with what was decided of them."""
    for candidate in targets:
        name = target_name(
            "tags" if "label" in guess.targets and len(candidate.columns) > 1 else candidate.name
        )
        while name in guess.targets:
            name += "_"
        guess.targets[name] = dict(candidate.keys)
        key = "columns" if len(candidate.columns) > 1 else "column"
        for choice, reason, instead in candidate.kind.decisions:
            guess.decide(f"targets.{name}.{key}", choice, reason, instead)
    if _has_unlabeled_rows(guess):
        _unlabeled(guess)


def _say_one_of_several(guess: Guess, answers: Sequence[str]) -> None:
    """A line for each column that is a target beside others only because its values recur: it may say where an image
    comes from instead of what it shows."""
    classes = [
        (name, str(target["column"]))
        for name, target in guess.targets.items()
        if target.get("type", "class") == "class" and "column" in target
    ]
    for name, column in classes if len(guess.targets) > 1 else []:
        if column in answers or f"targets.{name}.column" in guess.notes:
            continue  # asked for, or explained already
        cells = guess.table[column].str.strip_chars().replace("", None).drop_nulls()
        guess.decide(
            f"targets.{name}.column",
            f"{column}: a target of {cells.n_unique()} classes",
            f"its values recur in {cells.len()} rows",
            f'without [targets.{name}] it is not learned; group = "{column}" in [data] if it says which images belong'
            " together",
        )


def _unlabeled(guess: Guess) -> None:
    """Rows that are empty in all label columns are left out; or have none of several labels."""
    name, target = next(iter(guess.targets.items()))
    count = unlabeled_rows(guess)
    guess.data["unlabeled"] = "skip"
    rows = f"{count} row{'' if count == 1 else 's'}"
    if len(guess.targets) == 1 and target.get("separator"):
        guess.decide(
            "data.unlabeled",
            f"{name}: {rows} without any label left out",
            "an empty cell means that the labels are unknown",
            f'targets.{name}.none = [""] takes an empty cell for none of the labels',
        )
        return
    guess.said.append(f"{rows} without any label will be left out (data.unlabeled)")
    guess.note("data.unlabeled", "some rows have no label at all: they are left out, and counted in the log")


def unlabeled_rows(guess: Guess) -> int:
    """The rows that are empty, or unknown, in all columns of all targets."""
    known = []
    for target in guess.targets.values():
        means = target.get("flags", [])  # a blank cell may mean no
        unknown = {"", *target.get("missing", [])} - set(means)
        for column in target.get("columns") or [target["column"]]:
            cells = pl.col(column).str.strip_chars().fill_null("")
            known.append(~cells.is_in(sorted(unknown)))
    labeled = guess.table.select(pl.any_horizontal(known)).to_series().fill_null(value=False)
    return int((~labeled).sum())


def _has_unlabeled_rows(guess: Guess) -> bool:
    return unlabeled_rows(guess) > 0


def _say_unused(
    guess: Guess, targets: Sequence[Candidate], columns: Sequence[str], reasons: dict[str, str]
) -> None:
    """Which columns are not learnt, and what would make a target of one."""
    used = {column for candidate in targets for column in candidate.columns}
    _say_numbered_labels(guess, targets)
    indices = [column for column in columns if column == "" or re.fullmatch(r"Unnamed: \d+", column)]
    other = {*used, *indices, guess.data.get("group")}
    unused = [column for column in columns if column not in other]
    if not unused:
        return
    name, target = next(iter(guess.targets.items()))
    key = "columns" if "columns" in target else "column"
    why = "; ".join(f"{column}: {reasons[column]}" for column in unused if column in reasons)
    guess.said.append(
        f'not used: {listed(unused, 8)}; a table [targets.NAME] with column = "NAME" makes one of them a target'
    )
    guess.note(
        f"targets.{name}.{key}",
        f"column with the labels; not used: {', '.join(unused)}{f' ({why})' if why else ''}; a column of numbers can"
        ' be a target of type "regression" or with `edges`',
    )


def _say_numbered_labels(guess: Guess, targets: Sequence[Candidate]) -> None:
    """A warning where columns such as label1 and label2 become targets of their own though they hold the same labels:
    they may be several labels of an image."""
    by_stem: dict[str, list[Candidate]] = {}
    for candidate in targets:
        column = candidate.columns[0]
        if len(candidate.columns) == 1 and re.search(r"\d+$", column) and candidate.kind.type == "class":
            by_stem.setdefault(re.sub(r"[\W_]*\d+$", "", column), []).append(candidate)
    for alike in by_stem.values():
        columns = [candidate.columns[0] for candidate in alike]
        labels = [set(guess.table[column].drop_nulls().to_list()) for column in columns]
        if len(columns) > 1 and set.intersection(*labels):
            guess.said.append(
                f"warning: {', '.join(columns)}: targets of their own, though they have labels in common; if an image"
                ' has several labels, write them into one cell (a|b), which becomes type "multilabel"'
            )


def target_name(column: str) -> str:
    """A name for a target that the config and the command line accept."""
    name = "".join(c if c.isalnum() or c in "_- " else "_" for c in column.strip())
    return f"{name}_" if name in RESERVED_NAMES else name or "label"
