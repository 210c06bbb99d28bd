"""Where images come from: a table with paths, or a folder (with one sub-folder per class, or without)."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl

from classwise.data.table import full_column, read_table, rows_text
from classwise.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp")


@dataclass(frozen=True)
class Samples:
    """The rows of one source, before anything is known of their answers.

    `names` are paths relative to `root` as the table has them; `frame` keeps every column of the table.
    """

    where: str
    root: Path
    ids: tuple[str, ...]
    names: tuple[str, ...]
    groups: tuple[str, ...] | None
    frame: pl.DataFrame
    notes: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def paths(self) -> list[Path]:
        """The image files, in row order."""
        return [self.root / name for name in self.names]

    def take(self, rows: Sequence[int]) -> "Samples":
        """The same source with these rows only, in this order."""
        return replace(
            self,
            ids=tuple(self.ids[row] for row in rows),
            names=tuple(self.names[row] for row in rows),
            groups=None if self.groups is None else tuple(self.groups[row] for row in rows),
            frame=self.frame[list(rows)],
        )


def read_source(source: Path, images: Path, path: str, id: str | None, group: str | None) -> Samples:
    """A table or a folder of class folders as rows.

    A folder gives the columns `path` (relative to the folder) and `label` (its sub-folder's name).
    Raises DataError: no such file or folder, a missing column, an empty cell, an id twice, a path that
    leaves `images`.
    """
    if source.is_dir():
        frame, notes = folder_table(source)
        return samples_of(frame, str(source), source, "path", None, None, notes)
    if not source.exists():
        raise DataError(f"data.source: there is no table or folder {source}")
    if not images.is_dir():
        raise DataError(f"data.images: there is no folder {images}")
    return samples_of(read_table(source), str(source), images, path, id, group)


def samples_of(
    frame: pl.DataFrame,
    where: str,
    root: Path,
    path: str,
    id: str | None,
    group: str | None,
    notes: tuple[str, ...] = (),
) -> Samples:
    """Rows from a table's columns; see `read_source` for the errors."""
    names = full_column(frame, path, where, "data.path")
    ids = names if id in (None, path) else full_column(frame, str(id), where, "data.id")
    refuse_repeated(ids, where, "path" if id in (None, path) else "id")
    groups = None if group is None else tuple(full_column(frame, group, where, "data.group"))
    refuse_escapes(names, root, where)
    return Samples(where, root, tuple(ids), tuple(names), groups, frame, notes)


def folder_table(folder: Path) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """`path` and `label` of every image below a folder's class folders, sorted, and notes on what was left."""
    found, ignored, loose = [], 0, 0
    for name in _files(folder):
        if not is_image_name(name):
            ignored += 1
        elif "/" not in name:
            loose += 1
        else:
            found.append((name, name.split("/", 1)[0]))
    if not found:
        raise DataError(
            f"{folder}: found no images in sub-folders ({loose} directly in it, {ignored} other files);"
            f" a folder source has one sub-folder per class with files {', '.join(IMAGE_SUFFIXES)}"
        )
    notes = []
    if ignored:
        notes.append(
            f"{folder}: left out {ignored} files that are hidden, not named as images, or links to folders"
        )
    if loose:
        notes.append(f"{folder}: left out {loose} images that lie in no class folder")
    frame = pl.DataFrame(found, schema={"path": pl.String, "label": pl.String}, orient="row")
    return frame, tuple(notes)


def image_names(folder: Path) -> list[str]:
    """Every image below a folder as a path relative to it, sorted."""
    return [name for name in _files(folder) if is_image_name(name)]


def is_image_name(name: str) -> bool:
    """By its suffix; hidden files, among them the `._*` that macOS leaves behind, are none."""
    base = name.rsplit("/", 1)[-1]
    return not base.startswith(".") and base.lower().endswith(IMAGE_SUFFIXES)


def refuse_repeated(ids: Sequence[str], where: str, what: str) -> None:
    """Raise DataError if an id stands twice, with the rows of the first such id."""
    if len(set(ids)) == len(ids):
        return
    rows: dict[str, list[int]] = {}
    for row, id in enumerate(ids, start=1):
        rows.setdefault(id, []).append(row)
    twice = {id: found for id, found in rows.items() if len(found) > 1}
    id, found = next(iter(twice.items()))
    more = f"; {len(twice)} repeated in all" if len(twice) > 1 else ""
    raise DataError(f"{where}: {what} {id!r} stands in {rows_text(found)}; each must be unique{more}")


def _files(folder: Path) -> Iterator[str]:
    def fail(error: OSError) -> None:
        raise DataError(f"{error.filename}: this folder cannot be listed: {error.strerror}")

    for base, folders, files in os.walk(folder, onerror=fail):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        # os.walk follows no links; a linked folder is handed on as a file, so that somebody counts it.
        links = [name for name in folders if os.path.islink(os.path.join(base, name))]
        for name in sorted(files + links):
            path = (Path(base) / name).relative_to(folder).as_posix()
            if is_image_name(name) and not path.isascii():
                _refuse_undecodable(base, name)
            yield path


def _refuse_undecodable(folder: str, name: str) -> None:
    """Linux allows any bytes in a name; what is not UTF-8 can stand in no table and no result."""
    try:
        os.path.join(folder, name).encode()
    except UnicodeEncodeError:
        raise DataError(f"{folder}: the name of {os.fsencode(name)!r} is not UTF-8; rename it") from None


def refuse_escapes(names: Sequence[str], root: Path, where: str, key: str = "data.images") -> None:
    """A path that leaves the folder, by its text or through a link, is refused before anything is read: DataError.
    `key` is what names the folder."""
    real_root = os.path.realpath(root)
    escaped = []
    real_folders: dict[str, str] = {}  # one look-up a folder, since a table names few of them
    for row, name in enumerate(names, start=1):
        if "\0" in name or os.path.isabs(name):
            escaped.append((row, name))
            continue
        folder, base = os.path.split(os.path.join(real_root, name))
        if folder not in real_folders:
            real_folders[folder] = os.path.realpath(folder)
        real = os.path.join(real_folders[folder], base)
        if os.path.islink(real):
            real = os.path.realpath(real)
        if not os.path.normpath(real).startswith(real_root.rstrip(os.sep) + os.sep):
            escaped.append((row, name))
    if escaped:
        row, name = escaped[0]
        more = f"; {len(escaped)} such rows in all" if len(escaped) > 1 else ""
        raise DataError(
            f"{where}: row {row}: the path {name!r} leaves the folder {root} ({key});"
            f" paths are relative to it and stay inside{more}"
        )
