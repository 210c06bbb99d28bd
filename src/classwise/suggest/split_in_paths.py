"""A split that only the paths of a table say: train/0001.jpg and val/0002.jpg in one column."""

from collections.abc import Sequence

import polars as pl

from classwise.suggest.guess import Guess
from classwise.suggest.layout import PARTS, part_of_folder
from classwise.suggest.split_columns import add_group


def add_split_of_paths(guess: Guess, names: Sequence[str]) -> str:
    """Add a column with the part of each row, if one level of the folders in which all its images lie is named as parts
    of a split; why the table has to be written then, or nothing. `names`: the path of each row's image."""
    if guess.data.keys() & {"split", "fold"}:
        return ""
    folders = _folders_of_parts([name.split("/")[:-1] for name in names])
    if not folders:
        return ""
    parts = [str(part_of_folder(folder)) for folder in folders]
    column = "split"
    while column in guess.table.columns:
        column += "_"
    guess.table = guess.table.with_columns(pl.Series(column, parts))
    guess.data["split"] = column
    if "test" in parts:
        guess.data["split_values"] = {part: part for part in PARTS if part in parts}
    given = ", ".join(f"{parts.count(part)} rows for {what}" for part, what in PARTS.items() if part in parts)
    guess.decide(
        "data.split",
        f"split: {given}",
        f"their images lie in folders named {', '.join(sorted(set(folders)))}",
        "without data.split the rows are drawn",
    )
    guess.keep_test_out()

    # Groups that this split cuts are given up.
    if (group := guess.data.pop("group", None)) is not None:
        guess.notes.pop("data.group", None)
        add_group(guess, group)
    return "its paths say the part of a split of each row"


def _folders_of_parts(paths: Sequence[Sequence[str]]) -> list[str]:
    """The folder of each path at the level where all are parts of a split, of which one is for training."""
    for level in range(min(map(len, paths), default=0)):
        folders = [path[level] for path in paths]
        parts = {folder: part_of_folder(folder) for folder in set(folders)}
        found = set(parts.values())
        if None not in found and "train" in found and len(found) > 1:
            return folders
    return []
