"""A table of labels as a source, the tables of the other parts of a split beside it, and which table of a folder."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from classwise.data.sources import without_repeated_rows
from classwise.data.table import SUFFIXES
from classwise.errors import DataError
from classwise.suggest.columns import guess_columns
from classwise.suggest.foreign_tables import OTHER_SUFFIXES, AnyTable, read_any_table
from classwise.suggest.guess import Guess, listed
from classwise.suggest.images_of_table import ImageColumn, find_image_column
from classwise.suggest.joined_tables import asked_for, with_split_of_sibling
from classwise.suggest.layout import PARTS, part_of_folder
from classwise.suggest.names import SUBMISSION, TRAINING_TABLES, normal, words
from classwise.suggest.paths_in_two_columns import with_joined_paths
from classwise.suggest.repeated_images import settle_repeated_images
from classwise.suggest.split_in_paths import add_split_of_paths

CUB = ("images.txt", "image_class_labels.txt")
"""The lists of Caltech-UCSD Birds and of data sets in its form: number and path, number and class."""
NOT_TABLES = ("readme", "license", "licence", "classes", "requirements", "synset", "map", "mapping", "info")
"""Words in the names of lists that describe something else."""


def guess_table(path: Path, joined_files: AnyTable | None = None) -> Guess:
    """What a table, with its images near it, seems to be. `joined_files`: the table in place of the file at `path`,
    which is only where it would lie. Raises DataError for a table without a column of paths or without labels."""
    read = joined_files or read_any_table(path)
    if read.table.height == 0:
        raise DataError(f"{path} has no rows")
    table, repeated = without_repeated_rows(read.table, "samples.csv" if joined_files else path.name)
    table, two_columns = with_joined_paths(table, path)
    images = find_image_column(table, path)
    table, joined = with_split_of_sibling(table, images.column, path)
    answers, why_answers = asked_for(table, path, images.column)
    guess = guess_columns(table, path, images, answers, read.lists)
    joined += [two_columns] if two_columns else []
    guess.said = [*repeated, *joined, *images.notes, *guess.said, *why_answers]
    if repeated:
        guess.note("data.path", "; ".join(["column with the image paths", *repeated]))

    # A table that `train` can read stays where it is.
    settled = settle_repeated_images(guess, images, path)
    images = settled.images
    split_why = add_split_of_paths(guess, images.names)
    added = [column for column in guess.table.columns if column not in read.table.columns]
    needs_writing = (
        bool(read.changed or joined or split_why or settled.why or added) or images.paths is not None
    )
    if images.paths is not None:
        guess.table = guess.table.with_columns(pl.Series(images.column, images.paths))
    if needs_writing:
        others = "it is joined with another table" if joined else "its paths are those of another folder"
        others = "its paths are in two columns" if two_columns else others
        gets = f"it gets the column {added[0]!r}" if added and not joined else others
        why = read.changed or settled.why or split_why or gets
        written = "samples.csv is written" if joined_files else f"{path.name} is written anew"
        guess.said.insert(0, f"{written}, since {why}")
    else:
        guess.source = path
    _missing_images(guess, images, path)
    if not (guess.data.keys() & {"split", "fold"}):
        _add_tables_of_split(guess, path, images)
    return guess


def _missing_images(guess: Guess, images: ImageColumn, path: Path) -> None:
    """Rows without a file are left out, which is said. Raises DataError if no image of a class is there: `train` leaves
    out no whole class."""
    if not images.missing:
        return
    rows = list(images.missing)
    names = guess.table[guess.data["path"]].to_list()
    text = f"{len(rows)} of {len(names)} rows name images that are not there, such as {names[rows[0]]!r}"
    if lost := _lost_classes(guess, rows):
        raise DataError(
            f"{path}: {text}, and no image is there of {listed(lost)}; add the images, or take these rows"
            " out of the table"
        )
    guess.data["bad_images"] = "skip"
    guess.said.append(f"warning: {text}; they are left out (data.bad_images)")
    guess.note("data.bad_images", f"{text}; they are left out")


def _lost_classes(guess: Guess, rows: list[int]) -> list[str]:
    """The classes of which no image is left."""
    left = set(range(guess.table.height)) - set(rows)
    lost: list[str] = []
    for target in guess.targets.values():
        column = target.get("column")
        if column and target.get("type", "class") == "class":
            cells = guess.table[column].to_list()
            lost += sorted({cells[row] or "" for row in rows} - {cells[row] or "" for row in left})
    return [label for label in lost if label.strip()]


# Tables of the other parts


@dataclass(frozen=True)
class _Part:
    """The table of one part of a split: its rows, and their images relative to a folder."""

    part: str
    path: Path
    table: pl.DataFrame
    folders: list[Path]


def _add_tables_of_split(guess: Guess, path: Path, images: ImageColumn) -> None:
    """val.csv and test.csv beside train.csv: validation and test rows, if they have the labels."""
    if part_of_folder(path.stem) != "train":
        return
    parts: list[_Part] = []
    for beside in _siblings(path):
        part = str(part_of_folder(beside.stem))
        try:
            table = read_any_table(beside).table
        except DataError:
            continue
        why_not = _why_not_a_part(guess, table)
        if not why_not:
            try:
                found = find_image_column(table.unique(maintain_order=True), beside)
                same = found.column == images.column and found.paths is None
                why_not = "" if same else "its images are named in another way"
            except DataError:
                why_not = "there are no files for its rows"
        if not why_not:
            part_table = table.unique(maintain_order=True)
            shared = _shared_images(guess, images, part_table, found)
            why_not = f"{shared} of its {part_table.height} images are in {path.name} too" if shared else ""
        if why_not:
            guess.said.append(f"not used: {beside.name}, since {why_not}")
        elif part not in {other.part for other in parts}:
            parts.append(_Part(part, beside, part_table, found.folders))
    if not parts:
        return
    for found_part in parts:
        if found_part.part == "test":
            _keep_table_out(guess, found_part)
    valid = [found_part for found_part in parts if found_part.part == "valid"]
    if not valid:
        return
    if guess.source is None or valid[0].folders != guess.folders:
        _merge(guess, valid, path)
        return
    guess.data["valid"] = str(valid[0].path.resolve())
    guess.decide(
        "data.valid",
        f"validation: the {valid[0].table.height} rows of {valid[0].path.name}",
        "it lies beside the table for training, with the same columns",
        "a fraction of the rows, such as 0.2",
    )


def _keep_table_out(guess: Guess, part: _Part) -> None:
    """Say how the rows of a test table are scored: a test is for the end."""
    images = "" if part.folders == guess.folders else f" --images {part.folders[0]}"
    guess.decide(
        "data.test",
        f"test: the {part.table.height} rows of {part.path.name} kept out",
        "a test that is looked at after every run is none",
        f"classwise evaluate RUN {part.path}{images} scores them",
    )


def _siblings(path: Path) -> list[Path]:
    """The tables beside it whose names differ only in the part of a split that they name."""
    own = [word for word in words(path.stem) if part_of_folder(word) is None]
    return [
        other
        for other in sorted(path.parent.iterdir())
        if other.suffix.lower() == path.suffix.lower()
        and other != path
        and part_of_folder(other.stem) in ("valid", "test")
        and [word for word in words(other.stem) if part_of_folder(word) is None] == own
    ]


def _why_not_a_part(guess: Guess, table: pl.DataFrame) -> str:
    """Why a table beside it cannot be validated or tested on; empty if it can."""
    for target in guess.targets.values():
        columns = target.get("columns") or [target["column"]]
        if any(column not in table.columns for column in columns):
            return "it has no labels"
        if target.get("type", "class") not in ("class", "ordinal") or len(columns) > 1:
            known = table.select(columns).drop_nulls()
            if not known.height or (
                all(known[column].n_unique() == 1 for column in columns) and known.height > 2
            ):
                return "its labels are all the same, as those of a template are"
            continue
        labels = set(table[columns[0]].drop_nulls().to_list())
        known_labels = set(guess.table[columns[0]].drop_nulls().to_list())
        if not labels:
            return "its labels are empty"
        if not labels <= known_labels and not target.get("edges"):
            return (
                f"it has labels that the training table has not ({listed(sorted(labels - known_labels), 3)})"
            )
        if len(labels) == 1 and table.height > 3:
            return "its labels are all the same, as those of a template are"
    if guess.data["path"] not in table.columns:
        return f"it has no column {guess.data['path']!r}"
    for key in ("id", "group"):
        if guess.data.get(key) not in (None, *table.columns):
            return f"it has no column {guess.data[key]!r}"
    return ""


def _shared_images(guess: Guess, images: ImageColumn, table: pl.DataFrame, found: ImageColumn) -> int:
    """How many images of a table are those of the training table."""

    def files(column: ImageColumn) -> set[Path]:
        root = column.folders[0] if len(column.folders) == 1 else Path(os.path.commonpath(column.folders))
        return {root / name for name in column.names}

    return len(files(images) & files(found))


def _merge(guess: Guess, parts: list[_Part], path: Path) -> None:
    """One table of all parts, with paths from a folder that has all of them, and a column for the part."""
    all_parts = [_Part("train", path, guess.table, guess.folders), *parts]
    folders = [folder.resolve() for part in all_parts for folder in part.folders]
    root = Path(os.path.commonpath(folders))
    path_column = guess.data["path"]
    columns = [
        column for column in guess.table.columns if all(column in part.table.columns for part in parts)
    ]
    tables = []
    for part in all_parts:
        found = find_image_column(part.table, part.path) if part.part != "train" else None
        names = _names_below(root, part, found)
        table = part.table.select(columns).with_columns(pl.Series(path_column, names))
        tables.append(table.with_columns(pl.lit(part.part).alias(_free("split", columns))))
    guess.table = pl.concat(tables)
    guess.folders = [root]
    guess.source = None
    guess.data["split"] = _free("split", columns)
    guess.data["split_values"] = {part.part: part.part for part in all_parts}
    guess.data.pop("id", None)
    given = ", ".join(
        f"{part.table.height} rows of {part.path.name} for {PARTS[part.part]}" for part in all_parts
    )
    guess.decide(
        "data.split",
        f"split: {given}, in one table",
        "the tables have the same columns, and their names say their parts",
        "the table for training alone, in a folder without the others",
    )
    guess.keep_test_out()


def _names_below(root: Path, part: _Part, found: ImageColumn | None) -> list[str]:
    """The paths of a part's images below `root`."""
    images = found or find_image_column(part.table, part.path)
    base = images.folders[0] if len(images.folders) == 1 else Path(os.path.commonpath(images.folders))
    return [Path(os.path.relpath((base / name).absolute(), root)).as_posix() for name in images.names]


def _free(name: str, columns: list[str]) -> str:
    while name in columns:
        name += "_"
    return name


# The tables of a folder


def tables_in(folder: Path) -> list[Path]:
    """The tables that lie in a folder and may hold labels, the likeliest first: those named as tables for training are.
    Templates of submissions, and tables of other parts of a split where there is one for training, are none."""
    found = [
        entry
        for entry in sorted(folder.iterdir())
        if entry.is_file()
        and entry.suffix.lower() in (*SUFFIXES, *OTHER_SUFFIXES)
        and not entry.name.startswith(".")
    ]
    found = [entry for entry in found if not set(words(entry.stem)) & set(SUBMISSION)]
    usual = [entry for entry in found if entry.suffix.lower() in SUFFIXES]
    lists = [
        entry
        for entry in found
        if entry not in usual and not set(words(entry.stem)) & set(NOT_TABLES) and entry.stat().st_size > 0
    ]
    ordered = [*usual, *lists]
    has_train = any(part_of_folder(entry.stem) == "train" for entry in ordered)

    def rank(entry: Path) -> tuple[int, int, int]:
        name = normal(entry.stem)
        part = part_of_folder(entry.stem)
        place = TRAINING_TABLES.index(name) if name in TRAINING_TABLES else len(TRAINING_TABLES)
        return (
            0 if part == "train" else 1 if place < len(TRAINING_TABLES) else 2,
            place,
            ordered.index(entry),
        )

    return [
        entry
        for entry in sorted(ordered, key=rank)
        if not (has_train and part_of_folder(entry.stem) in ("valid", "test"))
    ]


def is_usual(path: Path) -> bool:
    """Whether a table is named as tables for training are."""
    return part_of_folder(path.stem) == "train" or normal(path.stem) in TRAINING_TABLES


def is_cub(folder: Path) -> bool:
    """Whether the folder has the lists of Caltech-UCSD Birds."""
    return all((folder / name).is_file() for name in CUB)


def guess_cub(folder: Path) -> Guess:
    """Caltech-UCSD Birds, and data sets in its form: lists that are joined by the number of the image."""
    paths = _numbered(folder / "images.txt")
    labels = _numbered(folder / "image_class_labels.txt")
    names = _numbered(folder / "classes.txt") if (folder / "classes.txt").is_file() else {}
    columns: dict[str, list[str]] = {
        "path": list(paths.values()),
        "label": [names.get(labels.get(key, ""), labels.get(key, "")) for key in paths],
    }
    if (folder / "train_test_split.txt").is_file():
        is_training = _numbered(folder / "train_test_split.txt")
        columns["split"] = ["train" if is_training.get(key) == "1" else "test" for key in paths]
    table = pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String))
    images = find_image_column(table, folder / "images.txt")
    guess = guess_columns(table, folder / "images.txt", images)
    _missing_images(guess, images, folder / "images.txt")
    joined = [name for name in (*CUB, "classes.txt", "train_test_split.txt") if (folder / name).is_file()]
    guess.said.insert(0, f"the lists {', '.join(joined)} as one table, joined by the number of the image")
    return guess


def _numbered(path: Path) -> dict[str, str]:
    """The rest of each line by the number in front of it."""
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    pairs = [line.strip().split(maxsplit=1) for line in lines if line.strip()]
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}


def unused_tables(tables: list[Path], used: Path | None, guess: Guess) -> list[str]:
    """Lines on the tables of the folder that are not used."""
    other: list[Any] = [
        path for path in tables if path != used and str(path.resolve()) not in guess.data.values()
    ]
    mentioned = " ".join(guess.said)
    return [
        f"not used: {path.name}; classwise init {path} uses that table instead"
        for path in other
        if path.name not in mentioned
    ]
