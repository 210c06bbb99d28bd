"""What a source of images seems to be: a table, a folder with a table in it, or folders that stand for classes."""

import contextlib
from pathlib import Path

import polars as pl

from classwise.data.image_paths import find_images
from classwise.data.listing import IMAGE_SUFFIXES, files_below, image_names, is_image_name
from classwise.data.table import SUFFIXES
from classwise.errors import DataError
from classwise.suggest.competition import competition_table, is_competition
from classwise.suggest.files_as_one_table import guess_class_lists, guess_numbered_tables, said_of_fellows
from classwise.suggest.folders import guess_folders, guess_of_layout, layout_of_file_names
from classwise.suggest.foreign_tables import OTHER_SUFFIXES
from classwise.suggest.guess import Guess
from classwise.suggest.label_names import add_label_names
from classwise.suggest.layout import part_of_folder
from classwise.suggest.not_labels import boxes_text
from classwise.suggest.ordered import ordered_labels
from classwise.suggest.parts_with_tables import guess_parts_with_tables
from classwise.suggest.shards import guess_shards, shards_of
from classwise.suggest.split_lists import add_listed_split
from classwise.suggest.tables import guess_cub, guess_table, is_cub, is_usual, tables_in, unused_tables

MOST = 0.8
"""A table is about the images of class folders if it has this share of them."""
NO_IMAGES = {
    ".npz": "arrays", ".npy": "arrays", ".h5": "HDF5", ".hdf5": "HDF5", ".mat": "MATLAB", ".zip": "an archive",
    ".tar": "an archive", ".gz": "compressed files", ".tfrecord": "TFRecords", ".pkl": "pickled Python objects",
    ".dcm": "DICOM images", ".nii": "NIfTI volumes", ".parquet": "tables", ".idx3-ubyte": "MNIST's arrays",
}  # fmt: skip
"""What else data sets come as, for the message."""
OTHER_TABLES = {
    **dict.fromkeys((".xlsx", ".xls", ".xlsm", ".ods", ".numbers"), "save it as CSV"),
    **dict.fromkeys((".gz", ".zip", ".bz2", ".xz", ".7z", ".tar"), "unpack it"),
    **dict.fromkeys(
        (".mat", ".npy", ".npz", ".pkl", ".pickle", ".h5", ".hdf5"), "write its labels into a CSV file"
    ),
}
"""What to do with a table that is not read, by suffix."""


def guess_source(source: Path) -> Guess:
    """Recognize shards, a table, the face-mask competition's folder, a folder with a table in it, or a folder of class
    folders, perhaps in parts of a split.

    Raises DataError for anything else.
    """
    if (shards := shards_of(source)) is not None:
        guess = guess_shards(shards)
    elif source.is_file() and source.suffix.lower() in (*SUFFIXES, *OTHER_SUFFIXES):
        guess = guess_table(source)
        guess.said += said_of_fellows(source)
        add_label_names(guess, source.parent)
    elif not source.exists():
        raise DataError(f"there is no folder or table {source}")
    elif not source.is_dir():
        advice = OTHER_TABLES.get(source.suffix.lower(), "")
        raise DataError(
            f"{source}: found {source.suffix or 'no'} suffix; a table is {', '.join(SUFFIXES)}"
            f"{f'; {advice}' if advice else ''}"
        )
    elif is_competition(source):
        return _guess_competition(source)
    else:
        guess = _guess_folder(source)
        named_by = add_label_names(guess, source)
        guess.said = [line for line in guess.said if not line.startswith(f"not used: {named_by};")]
    _order_labels(guess)
    return guess


def _guess_folder(source: Path) -> Guess:
    """A folder by its tables, or by its folders. A table that is named as those for training are comes before class
    folders, any other one after them; one whose rows name no images counts for nothing."""
    if is_cub(source):
        return guess_cub(source)
    of_folders, folder_error = _of_folders(source)
    if of_folders is None:
        for guess_files in (guess_class_lists, guess_numbered_tables):
            if (joined := guess_files(source)) is not None:
                return joined
    tables = tables_in(source)
    failed: dict[Path, DataError] = {}
    for path in (*filter(is_usual, tables), None, *(path for path in tables if not is_usual(path))):
        if path is None:
            if (parts := guess_parts_with_tables(source)) is not None:
                return parts
            continue
        try:
            guess = guess_table(path)
        except DataError as error:
            failed[path] = error
            continue
        if of_folders is not None and prefers_folders(of_folders, guess, is_usual(path)):
            continue
        guess.said += unused_tables(tables, path, guess)
        return guess
    if of_folders is not None:
        of_folders.said += unused_tables(tables, None, of_folders)
        return of_folders
    return _guess_loose_images(source, failed, folder_error)


def _of_folders(source: Path) -> tuple[Guess | None, DataError | None]:
    """What the folders of a source say, or why they say nothing; neither if there are no folders with images."""
    if not any("/" in name for name in image_names(source, follow_links=True)):
        return None, None
    try:
        guess = guess_folders(source)
    except DataError as error:
        return None, error
    add_listed_split(guess, source)
    return guess, None


def prefers_folders(of_folders: Guess, of_table: Guess, is_usual_table: bool) -> bool:
    """Whether folders are the classes though a table has labels: they are, unless the table knows other labels of the
    same images. A table named as tables for training are comes first, but not where it has the same labels and the
    folders also say which images are for validation."""
    if not is_usual_table:
        return not labels_differ(of_folders, of_table)
    has_validation = "valid" in of_folders.table.get_column("split", default=pl.Series([""])).to_list()
    has_split = bool(of_table.data.keys() & {"split", "fold", "valid"})
    return has_validation and not has_split and not labels_differ(of_folders, of_table, least=0.0)


def labels_differ(of_folders: Guess, of_table: Guess, least: float = MOST) -> bool:
    """Whether a table has labels for at least this share of the images of class folders, none of which say the same as
    the folders."""
    labels = dict(zip(absolute_paths(of_folders), of_folders.table["label"].to_list(), strict=True))
    found = [labels.get(path) for path in absolute_paths(of_table)]
    rows = [row for row, label in enumerate(found) if label is not None]
    if not rows or len(rows) < least * len(labels):
        return False
    for column in of_table.table.columns:
        cells = of_table.table[column].to_list()
        pairs = {(found[row], cells[row]) for row in rows}
        if len(pairs) == len({pair[0] for pair in pairs}) == len({pair[1] for pair in pairs}):
            return False
    return True


def absolute_paths(guess: Guess) -> list[Path]:
    """The files of all rows."""
    cells = [cell or "" for cell in guess.table[guess.data["path"]].to_list()]
    found = find_images(cells, guess.folders, str(guess.root), follow_links=True)
    return [(found.root / name).resolve() for name in found.names]


def _guess_loose_images(source: Path, failed: dict[Path, DataError], folder_error: DataError | None) -> Guess:
    """A folder of images whose names say their class. Raises DataError with what was found, if they do not."""
    names = [path.name for path in source.iterdir() if is_image_name(path.name)]
    layout = layout_of_file_names(sorted(names))
    if layout is not None:
        return guess_of_layout(layout, source, [], "from the names of the files")
    if (guess := _guess_table_below(source)) is not None:
        return guess
    hints = [text for text in (boxes_text(source), _unread_tables_text(source)) if text]
    for error in (*failed.values(), folder_error):
        if error is not None:
            raise DataError("; ".join([str(error), *hints])) if hints else error
    raise DataError("; ".join([_nothing_text(source, len(names)), *hints]))


def _unread_tables_text(source: Path) -> str:
    """`labels.xlsx is not read: save it as CSV`, of the first such file in the folder."""
    found = (path for path in sorted(source.iterdir()) if path.suffix.lower() in OTHER_TABLES)
    return next((f"{path.name} is not read: {OTHER_TABLES[path.suffix.lower()]}" for path in found), "")


def _guess_table_below(source: Path) -> Guess | None:
    """A table for training in a folder of its own, such as annotations/train.csv, up to two levels below; None if there
    is none, or several."""
    found = [
        path
        for folder in sorted([*source.glob("*/"), *source.glob("*/*/")])
        if folder.is_dir() and not folder.name.startswith(".") and part_of_folder(folder.name) is None
        for path in tables_in(folder)
        if is_usual(path)
    ]
    guesses = []
    for path in found:
        with contextlib.suppress(DataError):
            guesses.append(guess_table(path))
    return guesses[0] if len(guesses) == 1 else None


def _nothing_text(source: Path, loose: int) -> str:
    """What a folder holds in which nothing can be recognized, and what it should hold."""
    suffixes = {Path(name).suffix.lower() for name in files_below(source)}
    other = sorted({text for suffix, text in NO_IMAGES.items() if suffix in suffixes})
    found = [f"{loose} images directly in it"] if loose else []
    found += [
        f"{text} ({', '.join(s for s in sorted(suffixes) if NO_IMAGES.get(s) == text)})" for text in other
    ]
    found += [] if found else [f"files {', '.join(sorted(suffixes)[:8])}" if suffixes else "no files"]
    return (
        f"{source}: found no images in sub-folders, and no table of labels, but {' and '.join(found)}; a source has one"
        f" sub-folder per class with files {', '.join(IMAGE_SUFFIXES)}, or a table ({', '.join(SUFFIXES)}) with a"
        " column of paths and one of labels"
    )


def _guess_competition(source: Path) -> Guess:
    competition = competition_table(source)
    notes = {"data.group": "column with the person; a person is never split between training and validation"}
    if competition.notes:
        notes["data.path"] = "; ".join(["column with the image paths", *competition.notes])
    return Guess(
        table=competition.table,
        folders=[competition.images],
        data={"path": "path", "group": "person"},
        targets={
            "mask": {"column": "mask", "labels": ["wear", "incorrect", "normal"]},
            "gender": {"column": "gender", "labels": ["male", "female"]},
            "age": {"column": "age", "edges": [30.0, 60.0]},
        },
        joint=["mask", "gender", "age"],
        notes=notes,
    )


def _order_labels(guess: Guess) -> None:
    """Make class targets ordinal where the names of the labels say an order, and propose it where they may."""
    for name, target in guess.targets.items():
        if target.get("type", "class") != "class" or "columns" in target:
            continue
        cells = guess.table[str(target["column"])].drop_nulls().unique().to_list()
        found = ordered_labels(
            [cell for cell in cells if cell.strip() and cell.strip() not in target.get("missing", [])]
        )
        if found is None:
            continue
        labels, is_sure = found
        if is_sure:
            target |= {"type": "ordinal", "labels": labels}
            guess.decide(
                f"targets.{name}.type",
                f"{name}: ordered levels ({' < '.join(labels)})",
                "their names say an order",
                'type "class" takes them for unrelated',
            )
        else:
            listed = ", ".join(f'"{label}"' for label in labels)
            guess.note(
                f"targets.{name}.type",
                f'if the labels are levels of a scale: type = "ordinal", labels = [{listed}]',
            )
