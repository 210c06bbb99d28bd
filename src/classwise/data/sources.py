"""Where images come from: a table with paths, or a folder (with one sub-folder per class, or without)."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl

from classwise.data.left_out import left_out_notes
from classwise.data.table import full_column, read_table, rows_text
from classwise.errors import DataError

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp",
    ".tif", ".tiff", ".gif", ".avif", ".heic", ".heif",
)  # fmt: skip


@dataclass(frozen=True)
class Samples:
    """The rows of one source, before their labels are looked at.

    where: names the source in messages. names: paths relative to `root`, as the table has them.
    frame: every column of the table. notes: what was left out, for the user.
    contents: a hash of each row's decoded image, once the images have been read: rows with the same one hold the same
    pixels, whatever their files are called.
    """

    where: str
    root: Path
    ids: tuple[str, ...]
    names: tuple[str, ...]
    groups: tuple[str, ...] | None
    frame: pl.DataFrame
    notes: tuple[str, ...] = field(default=())
    contents: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def paths(self) -> list[Path]:
        """The image files, in the order of the rows."""
        return [self.root / name for name in self.names]

    def take(self, rows: Sequence[int]) -> "Samples":
        """The same source with these rows only, in this order."""
        return replace(
            self,
            ids=tuple(self.ids[row] for row in rows),
            names=tuple(self.names[row] for row in rows),
            groups=None if self.groups is None else tuple(self.groups[row] for row in rows),
            frame=self.frame[list(rows)] if len(rows) else self.frame.clear(),
            contents=None if self.contents is None else tuple(self.contents[row] for row in rows),
        )


def read_source(
    source: Path, images: Path, path: str, id: str | None, group: str | None, skip_lost: bool = False
) -> Samples:
    """The rows of a table or of a folder of class folders. `path`, `id` and `group` are columns of the table;
    `skip_lost` as in `folder_table`.

    A folder gives the columns `path` (relative to the folder) and `label` (the name of its sub-folder).
    Raises DataError for a file or folder that does not exist, a missing column, an empty cell, a duplicate id, and a
    path that leaves the folder `images`.
    """
    if source.is_dir():
        frame, notes = folder_table(source, skip_lost)
        return samples_of(
            frame, where=str(source), root=source, path="path", id=None, group=None, notes=notes
        )
    if not source.exists():
        raise DataError(f"data.source: there is no table or folder {source}")
    if not images.is_dir():
        raise DataError(f"data.images: there is no folder {images}")
    frame = read_table(source)
    return samples_of(frame, where=str(source), root=images, path=path, id=id, group=group)


def samples_of(
    frame: pl.DataFrame,
    where: str,
    root: Path,
    path: str,
    id: str | None,
    group: str | None,
    notes: tuple[str, ...] = (),
) -> Samples:
    """The rows of a table that is already read; without `id` the path is the id. Errors as in `read_source`."""
    names = full_column(frame, path, where, "data.path")
    path_is_id = id in (None, path)
    ids = names if path_is_id else full_column(frame, str(id), where, "data.id")
    refuse_repeated(ids, where, "path" if path_is_id else "id")
    groups = None if group is None else tuple(full_column(frame, group, where, "data.group"))
    refuse_escapes(names, root, where)
    return Samples(
        where=where,
        root=root,
        ids=tuple(ids),
        names=tuple(names),
        groups=groups,
        frame=frame,
        notes=notes,
    )


def folder_table(folder: Path, skip_lost: bool = False) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """`path` and `label` of every image below a folder's class folders, sorted; and notes on what was left out. Raises
    DataError if there are no such images, and for images that cannot be read (see left_out.py), of which `skip_lost`
    allows some."""
    rows: list[tuple[str, str]] = []
    others: list[str] = []
    images_outside_classes = 0
    for name in _files(folder):
        if not is_image_name(name):
            others.append(name)
        elif "/" not in name:
            images_outside_classes += 1
        else:
            rows.append((name, name.split("/", 1)[0]))
    notes = left_out_notes(folder, others, (name for name, _ in rows), skip_lost)
    if not rows:
        raise DataError(
            f"{folder}: found no images in sub-folders ({images_outside_classes} directly in it, {len(others)} other"
            f" files); a folder source has one sub-folder per class with files {', '.join(IMAGE_SUFFIXES)}"
        )
    if images_outside_classes:
        notes.append(f"{folder}: left out {images_outside_classes} images that are in no class folder")
    frame = pl.DataFrame(rows, schema={"path": pl.String, "label": pl.String}, orient="row")
    return frame, tuple(notes)


def image_names(folder: Path) -> list[str]:
    """Every image below a folder as a path relative to it, sorted."""
    return [name for name in _files(folder) if is_image_name(name)]


def is_image_name(name: str) -> bool:
    """Whether a file is named as an image, by its suffix. Hidden files are not, among them macOS's `._*` files."""
    base = name.rsplit("/", 1)[-1]
    return not base.startswith(".") and base.lower().endswith(IMAGE_SUFFIXES)


def refuse_repeated(ids: Sequence[str], where: str, what: str) -> None:
    """Raise DataError for duplicate ids, with the rows of the first of them; `what` an id is, for the message."""
    if len(set(ids)) == len(ids):
        return
    rows_of_id: dict[str, list[int]] = {}
    for row, id in enumerate(ids, start=1):
        rows_of_id.setdefault(id, []).append(row)
    duplicates = {id: rows for id, rows in rows_of_id.items() if len(rows) > 1}
    id, rows = next(iter(duplicates.items()))
    more = f"; {len(duplicates)} duplicates in all" if len(duplicates) > 1 else ""
    raise DataError(f"{where}: {what} {id!r} is in {rows_text(rows)}; each must be unique{more}")


def _files(folder: Path) -> Iterator[str]:
    """Every file below a folder as a path relative to it, sorted folder by folder; hidden folders are left out."""

    def fail(error: OSError) -> None:
        raise DataError(f"{error.filename}: this folder cannot be listed: {error.strerror}")

    for base, folders, files in os.walk(folder, onerror=fail):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        # os.walk follows no links; a link to a folder is passed on as a file, so that it is counted.
        links = [name for name in folders if os.path.islink(os.path.join(base, name))]
        for name in sorted(files + links):
            path = (Path(base) / name).relative_to(folder).as_posix()
            if is_image_name(name) and not path.isascii():
                _refuse_undecodable(base, name)
            yield path


def _refuse_undecodable(folder: str, name: str) -> None:
    """Linux allows any bytes in a file name, but one that is not UTF-8 cannot be written to a table or a result."""
    try:
        os.path.join(folder, name).encode()
    except UnicodeEncodeError:
        raise DataError(f"{folder}: the name of {os.fsencode(name)!r} is not UTF-8; rename it") from None


def refuse_escapes(names: Sequence[str], root: Path, where: str, key: str = "data.images") -> None:
    """Raise DataError for a path that leaves the folder `root`, by its text or through a link, before anything is read.
    `key`: the config key that names the folder, for the message."""
    real_root = os.path.realpath(root)
    escapes: list[tuple[int, str]] = []
    real_folders: dict[str, str] = {}  # one look-up for each folder: a table has many rows in few folders
    for row, name in enumerate(names, start=1):
        if "\0" in name or os.path.isabs(name):
            escapes.append((row, name))
            continue

        # Where the file really is: its folder is resolved once, the file itself only if it is a link.
        folder, base = os.path.split(os.path.join(real_root, name))
        if folder not in real_folders:
            real_folders[folder] = os.path.realpath(folder)
        real = os.path.join(real_folders[folder], base)
        if os.path.islink(real):
            real = os.path.realpath(real)
        if not os.path.normpath(real).startswith(real_root.rstrip(os.sep) + os.sep):
            escapes.append((row, name))
    if escapes:
        row, name = escapes[0]
        more = f"; {len(escapes)} such rows in all" if len(escapes) > 1 else ""
        raise DataError(
            f"{where}: row {row}: the path {name!r} leaves the folder {root} ({key});"
            f" paths are relative to it and stay inside{more}"
        )
