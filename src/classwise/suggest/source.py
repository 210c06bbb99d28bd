"""What a source of images seems to be: which columns hold the paths, the ids, the groups and the labels."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from classwise.config.schema import RESERVED_NAMES
from classwise.data.listing import is_image_name
from classwise.data.sources import folder_table, samples_of
from classwise.data.table import SUFFIXES, read_table
from classwise.errors import DataError
from classwise.suggest.competition import competition_table, is_competition
from classwise.suggest.ordered import ordered_labels

# Common names of such columns, in the order in which they are tried.
PATH_NAMES = ("path", "image_path", "filepath", "file", "filename", "file_name", "image", "img", "picture")
ID_NAMES = ("id", "image_id", "imageid", "uuid", "key")
GROUP_NAMES = (
    "group", "person", "person_id", "patient", "patient_id", "subject", "subject_id", "user", "user_id",
    "individual", "identity", "family", "video", "scene", "session", "location", "site", "slide", "specimen",
)  # fmt: skip
LABEL_NAMES = ("label", "class", "target", "category", "y", "answer", "species", "diagnosis")
TRAINING_TABLES = ("train", "samples", "labels", "data")
MAX_CLASSES = 200
SEPARATORS = ("|", ";", ",")
"""Characters that may separate the labels of a multilabel cell, in the order in which they are tried."""


@dataclass
class Guess:
    """What a source seems to be: the config's [data] and [targets], and comments on them."""

    table: pl.DataFrame
    root: Path
    """The folder that the image paths are relative to."""
    data: dict[str, Any]
    targets: dict[str, dict[str, Any]]
    joint: list[str] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    """Comments by dotted key, in place of the general ones."""
    source: Path | None = None
    """The file of the table; None if it has to be written."""


def guess_source(source: Path) -> Guess:
    """Recognize a table, the face-mask competition's folder, a folder with a table in it, or a folder of class folders.

    Raises DataError for anything else.
    """
    if source.is_file() and source.suffix.lower() in SUFFIXES:
        return _guess_table(source)
    if not source.exists():
        raise DataError(f"there is no folder or table {source}")
    if not source.is_dir():
        raise DataError(f"{source}: found {source.suffix or 'no'} suffix; a table is {', '.join(SUFFIXES)}")
    if is_competition(source):
        return _guess_competition(source)

    # A table in the folder: the only one, or one with a usual name.
    tables = [path for path in sorted(source.iterdir()) if path.suffix.lower() in SUFFIXES]
    training_tables = [path for path in tables if path.stem.lower() in TRAINING_TABLES]
    if training_tables:
        return _guess_table(training_tables[0])
    if len(tables) == 1:
        return _guess_table(tables[0])
    return _guess_class_folders(source)


def _guess_class_folders(source: Path) -> Guess:
    table, notes = folder_table(source)
    if table["label"].n_unique() < 2:
        raise DataError(
            f"{source}: found only one class folder with images, {table['label'][0]!r}; at least two are needed"
        )
    comment = "; ".join(["column with the labels: the names of the folders", *notes])
    guess = Guess(
        table=table,
        root=source,
        data={"path": "path"},
        targets={"label": {"column": "label"}},
        notes={"targets.label.column": comment},
    )
    _order_labels(guess)
    return guess


def _guess_competition(source: Path) -> Guess:
    competition = competition_table(source)
    notes = {"data.group": "column with the person; a person is never split between training and validation"}
    if competition.notes:
        notes["data.path"] = "; ".join(["column with the image paths", *competition.notes])
    return Guess(
        table=competition.table,
        root=competition.images,
        data={"path": "path", "group": "person"},
        targets={
            "mask": {"column": "mask", "labels": ["wear", "incorrect", "normal"]},
            "gender": {"column": "gender", "labels": ["male", "female"]},
            "age": {"column": "age", "edges": [30.0, 60.0]},
        },
        joint=["mask", "gender", "age"],
        notes=notes,
    )


def _guess_table(path: Path) -> Guess:
    """Which column holds the paths, which the ids and the groups, and which are targets."""
    table = read_table(path)
    path_column, root = _path_column(table, path)
    data = {"path": path_column}

    # Ids are unique; a group has several rows, and is not all of them.
    columns = [column for column in table.columns if column != path_column]
    ids = [column for column in _columns_named(columns, ID_NAMES) if table[column].n_unique() == table.height]
    if ids:
        data["id"] = ids[0]
        columns.remove(ids[0])
    groups = [
        column
        for column in _columns_named(columns, GROUP_NAMES)
        if 1 < table[column].n_unique() < table.height
    ]
    if groups:
        data["group"] = groups[0]
    candidates = [column for column in columns if column not in groups[:1]]

    target_keys = _target_columns(table, candidates)
    if not target_keys:
        raise DataError(
            f"{path}: found no column with labels among {', '.join(columns) or 'none'}; labels are 2 to {MAX_CLASSES}"
            " different values, each in at least two rows, or numbers"
        )
    samples_of(
        table, str(path), root, path_column, data.get("id"), data.get("group")
    )  # what `train` would refuse
    targets: dict[str, dict[str, Any]] = {}
    for column, keys in target_keys.items():
        name = _target_name(column)
        while name in targets:
            name += "_"
        targets[name] = {"column": column} | keys

    # What the user should know about the columns and rows that are not used.
    notes = {}
    unused = [column for column in candidates if column not in target_keys]
    if unused:
        notes[f"targets.{next(iter(targets))}.column"] = (
            f"column with the labels; not used: {', '.join(unused)} (too many different values, or values that occur"
            ' only once; a column of numbers can be a target with type = "regression" or with `edges`)'
        )
    if _has_unlabeled_rows(table, list(target_keys)):
        data["unlabeled"] = "skip"
        notes["data.unlabeled"] = "some rows have no label at all: they are left out, and counted in the log"
    guess = Guess(table=table, root=root, data=data, targets=targets, notes=notes, source=path)
    _order_labels(guess)
    return guess


def _path_column(table: pl.DataFrame, path: Path) -> tuple[str, Path]:
    """The column with paths of files below one of the folders near the table, and that folder.

    Raises DataError if there is none.
    """
    inner = sorted(folder for folder in path.parent.glob("*") if folder.is_dir())
    innermost = [folder for parent in inner for folder in sorted(parent.glob("*")) if folder.is_dir()]
    folders = [path.parent, *inner, *innermost][:100]
    columns = list(dict.fromkeys([*_columns_named(table.columns, PATH_NAMES), *table.columns]))
    for column in columns:
        cells = [cell for cell in table[column].head(50).to_list() if cell]
        for folder in folders:
            # Path.is_file raises for a text that is too long to be a name; os.path says False.
            files = sum(os.path.isfile(folder / cell) for cell in cells)  # noqa: PTH113
            if files * 2 > len(cells):
                return column, folder

    looks_likely = (
        column for column in columns if any(is_image_name(cell or "") for cell in table[column].head(50))
    )
    likely = next(looks_likely, None)
    hint = f" (column {likely!r} has names of images, but there are no such files)" if likely else ""
    raise DataError(f"{path}: no column holds paths of files below {path.parent}{hint}")


def _target_columns(table: pl.DataFrame, columns: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The columns that become targets, each with the keys that its type needs: one that is named like a label; else
    all columns with classes or several labels; else all columns of numbers."""
    candidates: dict[str, dict[str, Any]] = {}
    for column in columns:
        keys = _target_keys(table[column])
        if keys is not None:
            candidates[column] = keys
    named = _columns_named(list(candidates), LABEL_NAMES)[:1]
    categorical = [column for column, keys in candidates.items() if keys.get("type") != "regression"]
    return {column: candidates[column] for column in named or categorical or candidates}


def _target_keys(cells: pl.Series) -> dict[str, Any] | None:
    """The keys of a target with these cells, None if they cannot be one. Empty cells are unknown labels."""
    labels = cells.drop_nulls()
    counts = labels.value_counts()["count"]
    if len(counts) < 2:
        return None
    numbers = labels.cast(pl.Float64, strict=False)
    numeric = bool(numbers.is_finite().all()) and numbers.null_count() == 0

    # Several labels in a cell.
    for separator in SEPARATORS:
        if numeric or not labels.str.contains(separator, literal=True).any():
            continue
        parts = [part.strip() for cell in labels.to_list() for part in cell.split(separator) if part.strip()]
        if 2 <= len(set(parts)) <= MAX_CLASSES and min(map(parts.count, set(parts))) >= 2:
            return {"type": "multilabel", "separator": separator}

    # Classes: few enough values, each in at least two rows, so that both splits can have it.
    if len(counts) <= min(MAX_CLASSES, labels.len() // 2) and int(counts.min()) >= 2:  # type: ignore[arg-type]
        return {}
    return {"type": "regression"} if numeric else None


def _order_labels(guess: Guess) -> None:
    """Make class targets ordinal where the names of the labels say an order, and propose it where they may."""
    for name, target in guess.targets.items():
        cells = guess.table[str(target["column"])].drop_nulls().unique().to_list()
        found = ordered_labels([cell for cell in cells if cell.strip()]) if "type" not in target else None
        if found is None:
            continue
        labels, is_sure = found
        if is_sure:
            target |= {"type": "ordinal", "labels": labels}
            note = 'ordered levels, as their names say, lowest first; "class" takes them for unrelated'
        else:
            listed = ", ".join(f'"{label}"' for label in labels)
            note = f'if the labels are levels of a scale: type = "ordinal", labels = [{listed}]'
        guess.notes[f"targets.{name}.type"] = note


def _has_unlabeled_rows(table: pl.DataFrame, columns: Sequence[str]) -> bool:
    """Whether any row is empty, or blank, in all of these columns."""
    cells = table.select(columns).with_columns(pl.all().str.strip_chars().replace("", None))
    return bool(cells.select(pl.all_horizontal(pl.all().is_null())).to_series().any())


def _columns_named(columns: Sequence[str], names: Sequence[str]) -> list[str]:
    """The columns with one of these names, in the order of the names; upper and lower case are the same."""
    by_name = {column.lower(): column for column in columns}
    return [by_name[name] for name in names if name in by_name]


def _target_name(column: str) -> str:
    """A name for a target that the config and the command line accept."""
    name = "".join(c if c.isalnum() or c in "_- " else "_" for c in column)
    return f"{name}_" if name in RESERVED_NAMES else name
