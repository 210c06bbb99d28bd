"""The folder of the face-mask competition as one table, with one row per image: path, person, mask, gender, age.

    train/train.csv                                   id, gender, race, age, path; one row per person
    train/images/{id}_{gender}_{race}_{age}/{mask1..mask5,incorrect_mask,normal}.<ext>

Ids are text (`000600-1`), and one of them is shared by two people. Images are therefore found by the folder of the
person, while `person` is the id, so that everybody who shares an id is on the same side of a split.
"""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from classwise.data.listing import is_image_name
from classwise.data.table import full_column, read_table
from classwise.errors import DataError

MASKS = {**{f"mask{i}": "wear" for i in range(1, 6)}, "incorrect_mask": "incorrect", "normal": "normal"}
"""The label `mask` by the name of the image."""


@dataclass(frozen=True)
class Competition:
    """The table, the folder that its paths are relative to, and notes on files that were left out."""

    table: pl.DataFrame
    images: Path
    notes: tuple[str, ...]


def is_competition(folder: Path) -> bool:
    """Whether this is the competition's folder, or its `train` folder."""
    return _train_folder(folder) is not None


def competition_table(folder: Path) -> Competition:
    """The table of all images.

    Raises DataError for another kind of folder, for a person without a folder or without images, and for an image
    whose name is not one of `MASKS`.
    """
    train = _train_folder(folder)
    if train is None:
        raise DataError(
            f"{folder}: not the folder of the face-mask competition: train/train.csv with train/images is missing"
        )
    # One row of train.csv is a person, with a folder of images.
    where = str(train / "train.csv")
    people = read_table(train / "train.csv")
    columns = [full_column(people, name, where, "competition") for name in ("id", "gender", "age", "path")]
    rows: list[dict[str, str]] = []
    ignored = 0
    for number, (id, gender, age, path) in enumerate(zip(*columns, strict=True), start=1):
        person = train / "images" / path
        if not person.is_dir():
            raise DataError(f"{where}: row {number}: there is no folder {person}")
        files = sorted(person.iterdir())
        images = [file for file in files if is_image_name(file.name)]
        ignored += len(files) - len(images)
        if not images:
            raise DataError(f"{where}: row {number}: no images in {person}")
        # The name of an image says how the mask is worn; nothing else does.
        for file in images:
            if file.stem not in MASKS:
                raise DataError(f"{file}: found the name {file.stem!r}, allowed: {', '.join(MASKS)}")
            mask = MASKS[file.stem]
            rows.append(
                {"path": f"{path}/{file.name}", "person": id, "mask": mask, "gender": gender, "age": age}
            )
    schema = dict.fromkeys(("path", "person", "mask", "gender", "age"), pl.String)
    notes = (f"{ignored} hidden or other files were left out",) if ignored else ()
    return Competition(table=pl.DataFrame(rows, schema=schema), images=train / "images", notes=notes)


def _train_folder(folder: Path) -> Path | None:
    """The folder with train.csv and images: `folder` or its `train` folder; None if neither has them."""
    for candidate in (folder / "train", folder):
        if (candidate / "train.csv").is_file() and (candidate / "images").is_dir():
            header = read_table(candidate / "train.csv").columns
            if {"id", "gender", "age", "path"} <= set(header):
                return candidate
    return None
