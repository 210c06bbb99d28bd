"""Paths that a table has in two columns: the folder, or the class that the folder is named after, and the file."""

from pathlib import Path

import polars as pl

from classwise.data.listing import is_image_name
from classwise.suggest.images_of_table import folders_near
from classwise.suggest.names import PATH_NAMES, columns_named

SAMPLED_ROWS = 50


def with_joined_paths(table: pl.DataFrame, path: Path) -> tuple[pl.DataFrame, str]:
    """The table with a column of whole paths in place of that of the file names, if these recur and another column has
    the folder of each; and a line that says so. `path`: the file of the table."""
    for column in columns_named(table.columns, PATH_NAMES):
        cells = table[column].to_list()
        if table[column].n_unique() == table.height or not all(
            is_image_name(cell or "") for cell in cells[:5]
        ):
            continue
        for other in table.columns:
            if other == column or not 1 < table[other].n_unique() <= table.height / 2:
                continue
            paths = [
                f"{(folder or '').strip().strip('/')}/{(cell or '').strip()}"
                for folder, cell in zip(table[other].to_list(), cells, strict=True)
            ]
            if len(set(paths)) > table[column].n_unique() and _are_files(paths, path):
                joined = table.with_columns(pl.Series(column, paths))
                return joined, f"paths: column {other!r} has the folders of the files in {column!r}"
    return table, ""


def _are_files(paths: list[str], path: Path) -> bool:
    """Whether a sample of the paths are those of files below one of the folders near the table."""
    sample = paths[:: max(1, len(paths) // SAMPLED_ROWS)]
    near = [folder for folder in folders_near(path) if folder.is_relative_to(path.parent)]
    return any(all((folder / name).is_file() for name in sample) for folder in near)
