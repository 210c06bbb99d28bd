"""Columns of a table that say which part of a split, or which fold, a row is in; and the groups that it may cut."""

from collections import Counter
from collections.abc import Mapping, Sequence

import polars as pl

from classwise.data.cells import sorted_labels
from classwise.data.split_column import part_of_word
from classwise.suggest.guess import Guess, listed
from classwise.suggest.names import FLAG_SPLITS, FOLD_NAMES, SPLIT_NAMES, columns_named, normal

MOST_FOLDS = 30
MOST_PARTS = 12
YES_NO = {
    "1": True,
    "0": False,
    "true": True,
    "false": False,
    "yes": True,
    "no": False,
    "1.0": True,
    "0.0": False,
}
PARTS_BY_NUMBER = (
    {"0": "train", "1": "valid", "2": "test"},
    {"1": "train", "2": "valid", "3": "test"},
)
"""What numbers mean in a column that is named as a split, if most rows are for training then."""


def take_split(guess: Guess, columns: list[str]) -> list[str]:
    """Recognize a column with the part of a split or the fold of each row; the other columns."""
    table = guess.table
    flags = _flags_by_part(table, columns)
    if len(flags) > 1:
        return _take_flags(guess, columns, flags)
    for column in columns:
        cells = [(cell or "").strip() for cell in table[column].to_list()]
        values = split_values_of(column, cells)
        if values is None or not _is_split(values):
            continue
        _use_values(guess, column, cells, values)
        return [other for other in columns if other != column]
    for column in columns_named(columns, FOLD_NAMES):
        distinct = table[column].drop_nulls().n_unique()
        if 2 <= distinct <= MOST_FOLDS and not table[column].null_count():
            _use_folds(guess, column)
            return [other for other in columns if other != column]
    return columns


def _is_split(values: Mapping[str, str]) -> bool:
    return "train" in values.values() and len(set(values.values())) > 1


def _use_values(guess: Guess, column: str, cells: Sequence[str], values: dict[str, str]) -> None:
    """Make a column of parts data.split, with data.split_values where its words say less."""
    counts = {
        part: sum(values[cell] == part for cell in cells) for part in ("train", "valid", "test", "skip")
    }
    guess.data["split"] = column
    given = ", ".join(f"{count} {part}" for part, count in counts.items() if count)
    meaning = ", ".join(f"{cell!r} = {part}" for cell, part in values.items())
    guess.decide(
        "data.split",
        f"split: column {column!r} ({given})",
        f"its values say so ({meaning})",
        "without data.split the rows are drawn",
    )
    if counts["test"] or not all(part_of_word(cell) == part for cell, part in values.items()):
        guess.data["split_values"] = values
    guess.keep_test_out()


def _use_folds(guess: Guess, column: str) -> None:
    """Make a column of folds data.fold; or data.split, if it has a value for the test beside the folds."""
    cells = [(cell or "").strip() for cell in guess.table[column].to_list()]
    folds = list(sorted_labels(set(cells)))
    kept_out = [fold for fold in folds if part_of_word(fold) == "test"]
    usual = [fold for fold in folds if fold not in kept_out and not fold.startswith("-")]
    if kept_out and len(usual) > 1:
        values = {fold: "test" if fold in kept_out else "train" for fold in folds} | {usual[0]: "valid"}
        _use_values(guess, column, cells, values)
        return
    guess.data["fold"] = column
    which = "first fold"
    if len(usual) > 1 and usual[0] != folds[0]:  # -1 marks rows that are in no fold, or always trained on
        guess.data["valid_fold"] = usual[0]
        which = f"fold {usual[0]!r}"
    guess.decide(
        "data.fold",
        f"split: column {column!r}, whose {which} validates",
        f"it is named as folds are, and holds {len(folds)} different values",
        "without data.fold the rows are drawn",
    )


def _flags_by_part(table: pl.DataFrame, columns: Sequence[str]) -> dict[str, str]:
    """Columns of yes and no that are named as parts of a split, by the part."""
    return {
        part: column
        for part, names in FLAG_SPLITS.items()
        for column in columns_named(columns, names)[:1]
        if all((cell or "").strip().casefold() in YES_NO for cell in table[column].to_list())
    }


def _take_flags(guess: Guess, columns: list[str], flags: Mapping[str, str]) -> list[str]:
    """One column of parts from several of yes and no. A row with none of them is for training, unless a column says
    which rows are: then it is left out. What is for the test is for nothing else."""
    rest = "skip" if "train" in flags else "train"
    parts = [rest] * guess.table.height
    for part in ("train", "valid", "test"):
        if part in flags:
            cells = [(cell or "").strip().casefold() for cell in guess.table[flags[part]].to_list()]
            parts = [part if YES_NO[cell] else other for cell, other in zip(cells, parts, strict=True)]
    values: dict[str, str] = {part: part for part in ("train", "valid", "test", "skip") if part in parts}
    if not _is_split(values):
        return columns
    name = "split"
    while name in guess.table.columns:
        name += "_"
    guess.table = guess.table.with_columns(pl.Series(name, parts))
    guess.data["split"] = name
    guess.data["split_values"] = values
    given = ", ".join(f"{parts.count(part)} {part}" for part in values)
    guess.decide(
        "data.split",
        f"split: columns {', '.join(map(repr, flags.values()))} ({given})",
        "they hold yes and no, and are named as parts of a split",
        "without data.split the rows are drawn",
    )
    guess.keep_test_out()
    return [column for column in columns if column not in flags.values()]


def split_values_of(column: str, cells: Sequence[str]) -> dict[str, str] | None:
    """The part of a split that each different cell of a column means; None if it says none."""
    values = list(dict.fromkeys(cells))
    if len(values) > MOST_PARTS or len(values) < 2:
        return None
    name = normal(column)
    parts = {value: part_of_word(value) for value in values}
    found = {part for part in parts.values() if part}
    is_named = _is_named_as_split(column)
    are_words = is_named or any(
        len(value) > 2 for value in values
    )  # two letters may be codes of something else
    if all(parts.values()) and "train" in found and len(found) > 1 and are_words:
        return {value: str(part) for value, part in parts.items()}
    if is_named and "train" in found and len(found) > 1:
        return {value: part or "skip" for value, part in parts.items()}
    for part, names in FLAG_SPLITS.items():
        if name in names and all(value.casefold() in YES_NO for value in values):
            other = "test" if part == "train" else "train"
            return {value: part if YES_NO[value.casefold()] else other for value in values}
    return _parts_by_number(cells) if is_named else None


def _is_named_as_split(column: str) -> bool:
    name = normal(column)
    return name in SPLIT_NAMES or name.replace("_", "") in SPLIT_NAMES


def _parts_by_number(cells: Sequence[str]) -> dict[str, str] | None:
    """What 0, 1 and 2, or 1, 2 and 3, mean in a column that is named as a split: only if most rows are then for
    training, since 1 may also mean that a row is trained on."""
    counts = Counter(cells)
    for parts in PARTS_BY_NUMBER:
        of_value = {value: parts.get(value.removesuffix(".0")) for value in counts}
        largest = max(counts, key=counts.__getitem__)
        if all(of_value.values()) and of_value[largest] == "train":
            return {value: str(part) for value, part in of_value.items()}
    return None


def unclear_splits(guess: Guess, columns: Sequence[str]) -> list[str]:
    """Columns that are named as a split, though their values do not say which rows are for training."""
    if guess.data.keys() & {"split", "fold"}:
        return []
    return [
        column
        for column in columns
        if _is_named_as_split(column) and 2 <= guess.table[column].n_unique() <= MOST_PARTS
    ]


def say_unclear_splits(guess: Guess, columns: Sequence[str]) -> None:
    """A split that is not used may matter: rows that are alike, or a test, could come to both sides."""
    for column in columns:
        values = sorted({(cell or "").strip() for cell in guess.table[column].to_list()})
        example = ", ".join(f'"{value}" = "..."' for value in values[:3])
        guess.said.append(
            f"warning: not used: {column!r}, which is named as a split, but its values ({listed(values)}) do not say"
            f' which rows are for training; data.split = "{column}" with data.split_values = {{ {example} }} uses it'
            " (train, valid, test or skip)"
        )


def add_group(guess: Guess, column: str) -> None:
    """Use a column of groups, unless the given split cuts them."""
    table = guess.table
    side = guess.data.get("split") or guess.data.get("fold")
    if side is not None:
        sides = table.group_by(column).agg(pl.col(side).n_unique())[side].to_list()
        cut = sum(number > 1 for number in sides)
        if cut:
            guess.said.append(
                f"not used: {column!r}, which looks like groups, since the given split has rows of {cut} of them in"
                " several parts"
            )
            return
    guess.data["group"] = column
    guess.note(
        "data.group",
        f"column of groups, as its name says: rows with the same {column} are never split; otherwise: without it rows"
        " are split one by one",
    )
