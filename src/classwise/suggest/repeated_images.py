"""Tables with several rows of one image: several labels of it, opinions of several people, or boxes of objects."""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from classwise.errors import DataError
from classwise.suggest.guess import Guess, listed
from classwise.suggest.images_of_table import UNUSUAL, ImageColumn, folders_near
from classwise.suggest.names import normal, words
from classwise.suggest.not_labels import BOXES, WHOLE

SAMPLED = 50
"""Names that are looked for in the folders near the table."""
SEVERAL = 0.2
"""Images have several labels, if at least this share of them has rows with different ones."""
PEOPLE = (
    "rater",
    "annotator",
    "reader",
    "expert",
    "worker",
    "user",
    "coder",
    "observer",
    "reviewer",
    "session",
    "round",
)
"""Words in the names of columns that tell apart opinions on the same image."""
SEPARATORS = ("|", ";", ",")


@dataclass(frozen=True)
class Settled:
    """The images after the rows were settled, and why the table has to be written; empty if it has not."""

    images: ImageColumn
    why: str = ""


def settle_repeated_images(guess: Guess, images: ImageColumn, path: Path) -> Settled:
    """Make one row with several labels, or rows with ids of their own, of the rows of one image. Raises DataError for
    a table of boxes."""
    count = len(set(images.names))
    if count == len(images.names):
        return Settled(images)
    boxes = [column for column in guess.table.columns if normal(column).replace("_", "") in BOXES]
    if len(boxes) >= 3 or "bbox" in boxes:
        raise DataError(
            f"{path}: found {len(images.names)} rows for {count} images, and boxes of objects ({', '.join(boxes[:4])}),"
            f" a data set that {WHOLE}"
        )
    _refuse_several_files(guess, images, path)
    labels = _labels_by_image(guess, images)
    differing = {name: found for name, found in labels.items() if len(found) > 1}
    if differing and len(differing) >= SEVERAL * count and not _opinions(guess.table):
        return _as_several_labels(guess, images, labels, differing)
    return _with_ids(guess, images, count, differing)


def _refuse_several_files(guess: Guess, images: ImageColumn, path: Path) -> None:
    """Raise DataError where names recur that several folders have a file of: the rows are of different images then."""
    counts = Counter(guess.table[images.column].to_list())
    recurring = [cell for cell, count in counts.items() if count > 1 and cell and "/" not in cell][:SAMPLED]
    near = [folder for folder in folders_near(path) if folder.is_relative_to(path.parent)]
    usual = [folder for folder in near if not set(words(folder.name)) & set(UNUSUAL)]
    folders_of = {cell: [folder for folder in usual if (folder / cell).is_file()] for cell in recurring}
    several = {cell: found for cell, found in folders_of.items() if len(found) >= counts[cell]}
    if several and 2 * len(several) >= len(recurring):
        cell, found = next(iter(several.items()))
        where = listed([folder.relative_to(path.parent).as_posix() for folder in found], 3)
        raise DataError(
            f"{path}: {cell!r} is in {counts[cell]} rows, and there are files of that name in {where}; write the folder"
            " before the name"
        )


def _labels_by_image(guess: Guess, images: ImageColumn) -> dict[str, list[str]]:
    """The different labels of each image; nothing if there is no single class target in one column."""
    (target, *others) = guess.targets.values()
    if others or target.get("type", "class") not in ("class", "ordinal") or "column" not in target:
        return {}
    found: dict[str, list[str]] = {}
    for name, cell in zip(images.names, guess.table[target["column"]].to_list(), strict=True):
        label = (cell or "").strip()
        if label and label not in target.get("missing", []) and label not in found.setdefault(name, []):
            found[name].append(label)
    return found


def _opinions(table: pl.DataFrame) -> bool:
    return any(set(words(column)) & set(PEOPLE) for column in table.columns)


def _as_several_labels(
    guess: Guess, images: ImageColumn, labels: dict[str, list[str]], differing: dict[str, list[str]]
) -> Settled:
    """One row an image, with all its labels in a cell."""
    name, target = next(iter(guess.targets.items()))
    all_labels = {label for found in labels.values() for label in found}
    separator = next(s for s in SEPARATORS if not any(s in label for label in all_labels))
    first_row = {image: row for row, image in reversed(list(enumerate(images.names)))}
    firsts = sorted(first_row.values())
    kept = [images.names[row] for row in firsts]
    cells = [separator.join(labels.get(image, [])) or None for image in kept]
    guess.table = guess.table[firsts].with_columns(pl.Series(target["column"], cells, dtype=pl.String))
    guess.targets[name] = {"column": target["column"], "type": "multilabel", "separator": separator}
    guess.data.pop("id", None)
    guess.notes.pop(f"targets.{name}.column", None)
    image, found = next(iter(differing.items()))
    guess.decide(
        f"targets.{name}.column",
        f"{name}: several labels of an image ({len(all_labels)} labels), from its rows",
        f"{len(differing)} of {len(kept)} images have rows with different labels, such as {image!r}"
        f" ({', '.join(found[:3])})",
        "a table with one row an image",
    )
    missing = tuple(row for row, old in enumerate(firsts) if old in set(images.missing))
    paths = None if images.paths is None else [images.paths[row] for row in firsts]
    return Settled(
        replace(images, names=tuple(kept), missing=missing, paths=paths),
        "an image has several rows, one for each label",
    )


def _with_ids(guess: Guess, images: ImageColumn, count: int, differing: dict[str, list[str]]) -> Settled:
    """Ids for the rows, in place of the paths: of a column that has them, or numbers."""
    why = ""
    if "id" not in guess.data:
        used = {images.column, *(column for target in guess.targets.values() for column in _columns(target))}
        unique = [
            column
            for column in guess.table.columns
            if column and column not in used and guess.table[column].n_unique() == guess.table.height
        ]
        if not unique:
            column = "row"
            while column in guess.table.columns:
                column += "_"
            guess.table = guess.table.with_columns(
                pl.Series(column, [str(n) for n in range(1, guess.table.height + 1)])
            )
            unique, why = [column], "its rows get numbers as ids"
        guess.data["id"] = unique[0]
    contradictory = ""
    if differing:
        image, found = next(iter(differing.items()))
        contradictory = (
            f", {len(differing)} of them with different labels ({image!r}: {', '.join(found[:3])})"
        )
    guess.said.append(
        f"warning: {guess.table.height} rows of {count} images: some images have several rows{contradictory}; the rows"
        f" of one image are never split (data.id = {guess.data['id']!r})"
    )
    return Settled(images, why)


def _columns(target: dict[str, object]) -> list[str]:
    columns = target.get("columns") or [target["column"]]
    return [str(column) for column in columns] if isinstance(columns, list | tuple) else []
