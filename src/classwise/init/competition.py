"""The face-mask competition's tree as one table: a row an image, with mask, gender, age and person.

    train/train.csv                                   id, gender, race, age, path; one row a person
    train/images/{id}_{gender}_{race}_{age}/{mask1..mask5,incorrect_mask,normal}.<ext>

Ids are text (`000600-1`), and one of them stands for two people: rows are found by their folder, while `person`
is the id, so that whoever shares an id stays on one side of a split.
"""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from classwise.data.sources import is_image_name
from classwise.data.table import full_column, read_table
from classwise.errors import DataError

MASKS = {**{f"mask{i}": "wear" for i in range(1, 6)}, "incorrect_mask": "incorrect", "normal": "normal"}


@dataclass(frozen=True)
class Competition:
    """The table, the folder that its paths are relative to, and what was left out."""

    table: pl.DataFrame
    images: Path
    notes: tuple[str, ...]


def is_competition(folder: Path) -> bool:
    """Whether this is such a tree, or its `train` folder."""
    return _train_folder(folder) is not None


def competition_table(folder: Path) -> Competition:
    """`path, person, mask, gender, age` of every image. Raises DataError for a person without a folder or
    without images, and for an image whose name says no mask."""
    train = _train_folder(folder)
    if train is None:
        raise DataError(f"{folder} is no competition tree: it has no train/train.csv with train/images")
    where = str(train / "train.csv")
    people = read_table(train / "train.csv")
    columns = {
        name: full_column(people, name, where, "competition") for name in ("id", "gender", "age", "path")
    }
    rows, ignored = [], 0
    for number, (id, gender, age, path) in enumerate(zip(*columns.values(), strict=True), start=1):
        person = train / "images" / path
        if not person.is_dir():
            raise DataError(f"{where}: row {number}: there is no folder {person}")
        files = sorted(person.iterdir())
        images = [file for file in files if is_image_name(file.name)]
        ignored += len(files) - len(images)
        if not images:
            raise DataError(f"{where}: row {number}: no images in {person}")
        for file in images:
            if file.stem not in MASKS:
                raise DataError(f"{file}: its name says no mask; allowed: {', '.join(MASKS)}")
            rows.append((f"{path}/{file.name}", id, MASKS[file.stem], gender, age))
    table = pl.DataFrame(
        rows, schema=dict.fromkeys(("path", "person", "mask", "gender", "age"), pl.String), orient="row"
    )
    notes = (f"{ignored} hidden or other files were left out",) if ignored else ()
    return Competition(table, train / "images", notes)


def _train_folder(folder: Path) -> Path | None:
    for candidate in (folder / "train", folder):
        if (candidate / "train.csv").is_file() and (candidate / "images").is_dir():
            header = read_table(candidate / "train.csv").columns
            if {"id", "gender", "age", "path"} <= set(header):
                return candidate
    return None
