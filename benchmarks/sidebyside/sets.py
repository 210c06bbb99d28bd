"""The data sets of small_data.py, each split written as tables that lie beside a folder of images.

    NAME-train-S.csv    path, label, and the data set's own columns
    NAME-test-S.csv     path: what is to be predicted
    NAME-truth-S.csv    path, label of the same rows

Paths are relative to the folder of the tables. No table has a name that `classwise init` takes for a test table beside
its source, so that no trainer learns the class shares of the test.
"""

import csv
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from classwise.demo.competition import class_number, write_competition
from classwise.demo.fashion import write_fashion
from classwise.errors import DataError
from classwise.suggest.competition import competition_table
from longtail import digits_long_tail
from sidebyside.splits import hold_out, share_of_rows, tile_groups

Row = dict[str, str]
Made = tuple[list[Row], list[Row]]
"""Training rows and test rows, with paths relative to the folder of the tables."""

PEOPLE = 150
DIGITS_IMBALANCE = 15


@dataclass(frozen=True)
class SetSplit:
    """One split of a data set as files; `labels` in the order of all its classes, `rarest` by its training rows."""

    train: Path
    test: Path
    truth: Path
    labels: tuple[str, ...]
    rarest: str


def make_split(name: str, split: int, work: Path, data: Path | None) -> SetSplit:
    """Write the tables (and images) of a split below `work`, unless they are there; DataError without `data` for a
    data set that lies in that folder."""
    folder = work / folder_name(name, split)
    paths = {part: folder / f"{name}-{part}-{split}.csv" for part in ("train", "test", "truth")}
    if not paths["truth"].exists():
        train, test = SETS[name](folder, split, data)
        write_rows(paths["train"], train)
        write_rows(paths["test"], [{"path": row["path"]} for row in test])
        write_rows(paths["truth"], [{"path": row["path"], "label": row["label"]} for row in test])
    counts = Counter(row["label"] for row in read_rows(paths["train"]))
    labels = tuple(sorted({*counts, *(row["label"] for row in read_rows(paths["truth"]))}))
    rarest = min(labels, key=lambda label: (counts[label], label))
    return SetSplit(paths["train"], paths["test"], paths["truth"], labels, rarest)


def folder_name(name: str, split: int) -> str:
    """Data sets whose images are the same in every split have one folder for all."""
    if name in ("digits", "faces"):
        return f"{name}-{split}"
    return "tiles" if name.startswith("tiles") else name


def read_rows(path: Path) -> list[Row]:
    """The rows of a table."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """A table that appears under its name when it is complete."""
    partial = path.with_suffix(".part")
    with partial.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    partial.replace(path)


def _tiles(folder: Path, split: int, data: Path | None) -> Made:
    """The magnetic tiles, by groups of near duplicates."""
    rows = _copied(folder, data, "tiles")
    table = folder / "groups.csv"  # of all splits: finding them takes a while
    if not table.exists():
        paths, numbers = [folder / row["path"] for row in rows], [int(row["tile"]) for row in rows]
        groups = tile_groups(paths, numbers).tolist()
        write_rows(table, [{"group": str(group)} for group in groups])
    return _parted(rows, [row["group"] for row in read_rows(table)], split)


def _tiles_tenth(folder: Path, split: int, data: Path | None) -> Made:
    """A tenth of the training rows of `tiles`, at least two of every class; the same test rows."""
    train, test = _tiles(folder, split, data)
    kept = share_of_rows([row["label"] for row in train], 0.1, least=2, seed=split)
    return [train[i] for i in kept], test


def _tiles_rows(folder: Path, split: int, data: Path | None) -> Made:
    """The magnetic tiles, single photographs held out: as who does not know of the near duplicates would do it."""
    rows = _copied(folder, data, "tiles")
    return _parted(rows, range(len(rows)), split)


def _tiles_rows_tenth(folder: Path, split: int, data: Path | None) -> Made:
    """A tenth of the training rows of `tiles-rows`; the same test rows."""
    train, test = _tiles_rows(folder, split, data)
    kept = share_of_rows([row["label"] for row in train], 0.1, least=2, seed=split)
    return [train[i] for i in kept], test


def _cells(folder: Path, split: int, data: Path | None) -> Made:
    """Crops of blood cells; those of one photograph are a group."""
    rows = _copied(folder, data, "cells")
    return _parted(rows, [row["slide"] for row in rows], split)


def _clothes(folder: Path, split: int, data: Path | None) -> Made:
    """The bundled clothes, 600 down to 6, and their balanced test images: the same rows in every split."""
    tables = [folder / name for name in ("train.csv", "test.csv", "template.csv")]
    if not (folder / "images").exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_fashion(folder)
        for table in tables[:2]:
            table.rename(table.with_name(f"all-{table.name}"))
        tables[2].unlink()
    train, test = (read_rows(table.with_name(f"all-{table.name}")) for table in tables[:2])
    return train, test


def _digits(folder: Path, split: int, data: Path | None) -> Made:
    """scikit-learn's digits with an imbalance of 15 and 40 test images a class, drawn anew for every split."""
    tail = digits_long_tail(folder, DIGITS_IMBALANCE, seed=split)
    train, test = read_rows(tail.train), read_rows(tail.test)
    for table in (tail.train, tail.test):
        table.unlink()
    return train, test


def _faces(folder: Path, split: int, data: Path | None) -> Made:
    """Drawn faces as one label of 18 classes: 150 people to learn from, 100 others to be tested on, others in every
    split."""
    write_competition(folder, PEOPLE, seed=split)
    kinds = {"wear": "mask1", "incorrect": "incorrect_mask", "normal": "normal"}
    train = [
        {
            "path": f"train/images/{row['path']}",
            "label": _class_name(class_number(kinds[row["mask"]], row["gender"], int(row["age"]))),
            "person": row["person"],
        }
        for row in competition_table(folder).table.iter_rows(named=True)
    ]
    test = [
        {"path": f"eval/images/{row['ImageID']}", "label": _class_name(int(row["ans"]))}
        for row in read_rows(folder / "eval" / "truth.csv")
    ]
    return train, test


def _class_name(number: int) -> str:
    return f"class{number:02d}"


def _copied(folder: Path, data: Path | None, name: str) -> list[Row]:
    """The rows of a data set in `data`, its images copied beside the tables of the splits once."""
    if data is None or not (data / name / "table.csv").is_file():
        raise DataError(f"--data: found {data}; allowed: a folder with {name}/table.csv and {name}/images")
    if not (folder / "images").exists():
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copytree(data / name / "images", folder / "images.part", dirs_exist_ok=True)
        (folder / "images.part").rename(folder / "images")
    return read_rows(data / name / "table.csv")


def _parted(rows: list[Row], groups: Sequence[object], split: int) -> Made:
    in_test = hold_out([row["label"] for row in rows], groups, seed=split)
    train = [row for row, held in zip(rows, in_test, strict=True) if not held]
    return train, [row for row, held in zip(rows, in_test, strict=True) if held]


SETS: dict[str, Callable[[Path, int, Path | None], Made]] = {
    "tiles": _tiles,
    "tiles-tenth": _tiles_tenth,
    "tiles-rows": _tiles_rows,
    "tiles-rows-tenth": _tiles_rows_tenth,
    "cells": _cells,
    "clothes": _clothes,
    "digits": _digits,
    "faces": _faces,
}
