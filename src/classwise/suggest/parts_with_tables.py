"""Parts of a split that are folders with a table in each: train/_classes.csv, train/metadata.jsonl."""

from pathlib import Path

import polars as pl

from classwise.errors import DataError
from classwise.suggest.columns import guess_columns
from classwise.suggest.foreign_tables import read_any_table
from classwise.suggest.guess import Guess
from classwise.suggest.images_of_table import ImageColumn, find_image_column
from classwise.suggest.layout import PARTS, part_of_folder
from classwise.suggest.tables import tables_in


def guess_parts_with_tables(source: Path) -> Guess | None:
    """One table of the tables in the folders train, valid, test and so on; None if the folder for training has none
    that names its images."""
    parts = {
        part: folder
        for folder in sorted(source.iterdir(), reverse=True)
        if folder.is_dir() and (part := part_of_folder(folder.name)) is not None
    }
    found = {
        part: table for part, folder in parts.items() if (table := _table_of_part(folder, source)) is not None
    }
    if "train" not in found:
        return None
    tables: list[pl.DataFrame] = []
    said = []
    columns = found["train"].columns
    for part in PARTS:
        if part not in parts:
            continue
        if part not in found or found[part].columns != columns:
            why = "no table of its images" if part not in found else "a table with other columns"
            said.append(f"not used: {parts[part].name}/, which has {why}")
            continue
        tables.append(found[part].with_columns(pl.lit(part).alias("split_")))
    table = pl.concat(tables)
    where = source / parts["train"].name / "table"
    images = ImageColumn("path_", [source], tuple(table["path_"].to_list()), ())
    guess = guess_columns(table.drop("split_"), where, images)
    guess.table = table.rename({"path_": "path", "split_": "split"})
    guess.data |= {"path": "path"}
    guess.said += said
    if len(tables) > 1:
        guess.data["split"] = "split"
        guess.data["split_values"] = {part: part for part in PARTS if part in table["split_"]}
        counts = ", ".join(
            f"{count} rows for {what}"
            for part, what in PARTS.items()
            if (count := int((table["split_"] == part).sum()))
        )
        guess.decide(
            "data.split",
            f"split: {counts}",
            "each of the folders named as parts of a split has a table of its images",
            "name one of the folders instead",
        )
        guess.keep_test_out()
    return guess


def _table_of_part(folder: Path, source: Path) -> pl.DataFrame | None:
    """The table in a folder with `path_`, the images' paths below the source, in place of its own column of paths; None
    if no table in it names images."""
    for path in tables_in(folder):
        try:
            table = read_any_table(path).table.unique(maintain_order=True)
            images = find_image_column(table, path)
        except DataError:
            continue
        if len(images.folders) > 1:
            continue
        base = images.folders[0]
        if not base.is_relative_to(source):
            continue
        front = base.relative_to(source).as_posix()
        names = [name if front == "." else f"{front}/{name}" for name in images.names]
        left = table.drop([name for name in (images.column, "path", "split") if name in table.columns])
        return left.with_columns(pl.Series("path_", names))
    return None
