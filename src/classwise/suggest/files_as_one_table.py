"""Several files that are one table: one list of images for each class (cats.txt, dogs.txt), and numbered parts of a
table (train_1.csv, train_2.csv)."""

import re
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from classwise.data.listing import is_image_name
from classwise.errors import DataError
from classwise.suggest.foreign_tables import MOST_BYTES, AnyTable, read_any_table
from classwise.suggest.guess import Guess, listed
from classwise.suggest.layout import part_of_folder
from classwise.suggest.tables import guess_table, tables_in

LIST_SUFFIXES = (".txt", ".lst", ".list", ".csv")
REPEATED_SHARE = 0.1
"""Of the smaller of two tables: more rows that are in both are no slip."""
_NUMBERED = re.compile(r"(.*?[^\W\d_])[ _.-]*(?:part[ _.-]*)?(\d+)", re.IGNORECASE)


def guess_class_lists(source: Path) -> Guess | None:
    """Two or more files that hold nothing but paths of images, named as their class; None if there are none. An image
    in several lists has several labels. Raises DataError for lists that are numbered parts, whose names are no
    classes."""
    lists = {path: images for path in _small_files(source) if (images := _image_lines(path))}
    if len(lists) < 2 or any(part_of_folder(path.stem) for path in lists):
        return None
    names = [path.name for path in lists]
    if numbered_parts(list(lists)):
        raise DataError(
            f"{source}: found the numbered lists {listed(names, 5)}, which hold paths of images but no labels; a list"
            " of one class is named as the class (cats.txt), any other one needs a label behind each path"
        )
    labels: dict[str, list[str]] = {}
    for path, images in lists.items():
        for image in dict.fromkeys(images):
            labels.setdefault(image, []).append(path.stem)
    has_several = any(len(found) > 1 for found in labels.values())
    table = pl.DataFrame(
        {"path": list(labels), "label": ["|".join(found) for found in labels.values()]},
        schema={"path": pl.String, "label": pl.String},
    )
    why = f"{listed(names, 5)} each list the images of one class"
    read = AnyTable(table, why, frozenset(["label"]) if has_several else frozenset())
    return guess_table(source / "samples.csv", read)


def guess_numbered_tables(source: Path) -> Guess | None:
    """The parts of a table, joined; None if the likeliest table of the folder is not numbered, or has no fellow with
    the same columns. Raises DataError for tables that share rows, as those of folds do."""
    tables = tables_in(source)
    parts = next(iter(numbered_parts(tables).values()), []) if tables else []
    if not parts or tables[0] not in parts:
        return None
    try:
        read = [read_any_table(path) for path in parts]
    except DataError:
        return None  # its own error comes up where it is tried as a table
    if any(one.table.columns != read[0].table.columns for one in read):
        return None
    joined = pl.concat([one.table for one in read])
    _refuse_shared(parts, [one.table for one in read])
    numbers = "".join(
        f" {one.table.height} rows of {path.name}," for path, one in zip(parts, read, strict=True)
    )
    why = f"{len(parts)} numbered tables with the same columns are one:{numbers.rstrip(',')}"
    lists = frozenset(name for one in read for name in one.lists)
    whole = parts[0].with_name(_stem(parts[0]) + parts[0].suffix)
    guess = guess_table(whole, AnyTable(joined, why, lists))
    left = [path.name for path in sorted(source.iterdir()) if _is_other_part(path, parts, guess)]
    if left:
        guess.said.append(
            f"not used: {listed(left, 5)}; as one table beside the others they can be validation or test rows"
        )
    used = {path.name for path in parts}
    guess.said += [
        f"not used: {path.name}; classwise init {path} uses that table instead"
        for path in tables
        if path.name not in used and path.name not in " ".join(guess.said)
    ]
    return guess


def numbered_parts(paths: Sequence[Path]) -> dict[tuple[str, str], list[Path]]:
    """Two or more files whose names differ in the number at their end alone, in the order of the numbers; not folds."""
    found: dict[tuple[str, str], list[tuple[int, Path]]] = {}
    for path in paths:
        if (match := _NUMBERED.fullmatch(path.stem)) and not match[1].lower().endswith("fold"):
            found.setdefault((match[1], path.suffix.lower()), []).append((int(match[2]), path))
    return {key: [path for _, path in sorted(group)] for key, group in found.items() if len(group) > 1}


def said_of_fellows(path: Path) -> list[str]:
    """A line if a table was named that is one of several numbered parts."""
    beside = [other for other in sorted(path.parent.iterdir()) if other.suffix.lower() == path.suffix.lower()]
    group = next((group for group in numbered_parts(beside).values() if path in group), [path])
    fellows = [other.name for other in group if other != path]
    if not fellows:
        return []
    return [
        f"{path.name} alone, as named; with {listed(fellows, 5)} it may be one table: classwise init {path.parent}"
    ]


def _small_files(source: Path) -> list[Path]:
    return [
        path
        for path in sorted(source.iterdir())
        if path.suffix.lower() in LIST_SUFFIXES and path.is_file() and path.stat().st_size <= MOST_BYTES
    ]


def _image_lines(path: Path) -> list[str]:
    """The lines of a file in which each is the path of an image; nothing for any other file."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    images = [line.strip().replace("\\", "/") for line in lines if line.strip()]
    return images if all(map(is_image_name, images)) else []


def _refuse_shared(parts: Sequence[Path], tables: Sequence[pl.DataFrame]) -> None:
    """Raise DataError where two tables have many rows in common, as those of folds have; a few are dropped and counted
    as repeated rows of any table are."""
    for at, table in enumerate(tables):
        for other in range(at):
            shared = table.join(tables[other], on=table.columns, how="semi", nulls_equal=True).height
            if shared > REPEATED_SHARE * min(table.height, tables[other].height):
                raise DataError(
                    f"{parts[at].parent}: {shared} rows of {parts[at].name} are in {parts[other].name} too, so they are"
                    f" not parts of one table; if they are folds, write one table with a column of the fold (data.fold)"
                    f", else name one of them: classwise init {parts[at]}"
                )


def _stem(path: Path) -> str:
    match = _NUMBERED.fullmatch(path.stem)
    assert match
    return match[1]


def _is_other_part(path: Path, parts: Sequence[Path], guess: Guess) -> bool:
    """Whether a file is a table of another part of a split that nothing has been said of."""
    return (
        path.suffix.lower() == parts[0].suffix.lower()
        and part_of_folder(path.stem) in ("valid", "test")
        and path.name not in " ".join([*guess.said, *map(str, guess.data.values())])
    )
