"""Where images come from: a table with paths, or a folder (with one sub-folder per class, or without)."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from classwise.data.image_paths import find_images
from classwise.data.left_out import left_out_notes
from classwise.data.listing import IMAGE_SUFFIXES, files_below, is_image_name
from classwise.data.row_paths import RowPaths
from classwise.data.shard_files import Shards
from classwise.data.shard_source import ShardRows, is_sharded, read_shards
from classwise.data.split_column import part_of_word
from classwise.data.table import full_column, full_texts, read_table, rows_text
from classwise.data.texts import RowNumbers, Texts
from classwise.errors import DataError


@dataclass(frozen=True)
class Samples:
    """The rows of one source, before their labels are looked at.

    where: names the source in messages. names: the images' paths relative to `root`; as the table has them, where
    these are paths of files. folders: the folders that no image may leave, if not `root` alone. follow_links:
    whether a link may lead out of them. frame: every column of the table. notes: what was left out, for the user.
    contents: a hash of each row's decoded image, once the images have been read: rows with the same one hold the
    same pixels, whatever their files are called. shards: the files in which the images lie, where these are no
    files of their own. files: (N,) a hash of the bytes of each row's image, once these have been read.

    The texts are kept in columns (see texts.py), whatever they are given as."""

    where: str
    root: Path
    ids: Sequence[str]
    names: Sequence[str]
    groups: Sequence[str] | None
    frame: pl.DataFrame
    notes: tuple[str, ...] = field(default=())
    contents: Sequence[str] | None = None
    folders: tuple[Path, ...] = ()
    follow_links: bool = False
    shards: Shards | None = None
    files: npt.NDArray[np.bytes_] | None = None

    def __post_init__(self) -> None:
        for name in ("ids", "names", "groups", "contents"):
            texts = getattr(self, name)
            object.__setattr__(self, name, None if texts is None else Texts.of(texts))

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def paths(self) -> RowPaths:
        """The image files, in the order of the rows."""
        return RowPaths(self.root, self.names)

    @property
    def allowed_folders(self) -> tuple[Path, ...] | Shards | None:
        """The folders outside of which no file may be read, also through links; None if links are followed. Of
        shards, themselves."""
        if self.shards is not None:
            return self.shards
        return None if self.follow_links else self.folders or (self.root,)

    def take(self, rows: RowNumbers) -> "Samples":
        """The same source with these rows only, in this order."""
        rows = np.asarray(rows, np.int64)
        return replace(
            self,
            ids=Texts.of(self.ids).take(rows),
            names=Texts.of(self.names).take(rows),
            groups=None if self.groups is None else Texts.of(self.groups).take(rows),
            frame=self.frame[rows] if len(rows) else self.frame.clear(),
            contents=None if self.contents is None else Texts.of(self.contents).take(rows),
            files=None if self.files is None else self.files[rows],
        )

    def with_rows(self, more: "Samples") -> "Samples":
        """These rows, and after them others of the same source."""
        return replace(
            self,
            ids=Texts.of(self.ids) + Texts.of(more.ids),
            names=Texts.of(self.names) + Texts.of(more.names),
            groups=_joined(self.groups, more.groups),
            frame=pl.concat([self.frame, more.frame]),
            contents=_joined(self.contents, more.contents),
            files=None
            if self.files is None or more.files is None
            else np.concatenate([self.files, more.files]),
        )


def _joined(first: Sequence[str] | None, second: Sequence[str] | None) -> Texts | None:
    """The one and then the other; None unless both are there."""
    return None if first is None or second is None else Texts.of(first) + Texts.of(second)


def read_source(
    source: Path,
    images: Path | Sequence[Path],
    path: str,
    id: str | None,
    group: str | None,
    skip_lost: bool = False,
    follow_links: bool = False,
) -> Samples:
    """The rows of a table, of a folder of class folders, or of shards. `path`, `id` and `group` are columns of the
    table; `images` are the folders in which its paths are looked for, see data/image_paths.py. Links out of them,
    and links to folders, are only followed with `follow_links`; `skip_lost` as in `folder_table`.

    A folder gives the columns `path` (relative to the folder) and `label` (the name of its sub-folder).
    Raises DataError for a file or folder that does not exist, a missing column, an empty cell, a duplicate id, a path
    that several files fit, and one that leaves the folders `images`.
    """
    if is_sharded(source):
        return samples_of_shards(read_shards(source, path), str(source), path, id, group)
    if source.is_dir():
        frame, notes = folder_table(source, skip_lost, follow_links)
        refuse_parts_as_classes(frame["label"].unique().to_list(), source)
        return samples_of(
            frame,
            where=str(source),
            images=source,
            path="path",
            id=None,
            group=None,
            notes=notes,
            follow_links=follow_links,
        )
    if not source.exists():
        raise DataError(f"data.source: there is no table or folder {source}")
    for folder in [images] if isinstance(images, Path) else images:
        if not folder.is_dir():
            raise DataError(f"data.images: there is no folder {folder}")
    frame = read_table(source)
    return samples_of(
        frame,
        where=str(source),
        images=images,
        path=path,
        id=id,
        group=group,
        follow_links=follow_links,
    )


def samples_of(
    frame: pl.DataFrame,
    where: str,
    images: Path | Sequence[Path],
    path: str,
    id: str | None,
    group: str | None,
    notes: tuple[str, ...] = (),
    follow_links: bool = False,
) -> Samples:
    """The rows of a table that is already read; without `id` the path is the id. A row that repeats another one
    exactly is left out. Errors as in `read_source`."""
    frame, repeated = without_repeated_rows(frame, where)
    cells = full_column(frame, path, where, "data.path")
    path_is_id = id in (None, path)
    ids = cells if path_is_id else full_column(frame, str(id), where, "data.id")
    refuse_repeated(ids, where, "path" if path_is_id else "id")
    groups = None if group is None else full_column(frame, group, where, "data.group")

    # The files that the cells name must lie where the config allows it.
    folders = (images,) if isinstance(images, Path) else tuple(images)
    found = find_images(cells, folders, where, follow_links)
    refuse_escapes(found.names, found.root, where, folders=folders, follow_links=follow_links)
    return Samples(
        where=where,
        root=found.root,
        ids=ids,
        names=found.names,
        groups=groups,
        frame=frame,
        notes=(*notes, *repeated, *found.notes),
        folders=folders if len(folders) > 1 else (),
        follow_links=follow_links,
    )


def samples_of_shards(rows: ShardRows, where: str, path: str, id: str | None, group: str | None) -> Samples:
    """The rows of shards; without `id`, the cells of the column `path` are the ids. Errors as in `read_source`."""
    path_is_id = id in (None, path)
    ids = full_texts(
        rows.frame, path if path_is_id else str(id), where, "data.path" if path_is_id else "data.id"
    )
    refuse_repeated(ids, where, "path" if path_is_id else "id")
    return Samples(
        where=where,
        root=rows.root,
        ids=ids,
        names=rows.names,
        groups=None if group is None else full_texts(rows.frame, group, where, "data.group"),
        frame=rows.frame,
        notes=rows.notes,
        shards=rows.shards,
    )


def refuse_parts_as_classes(labels: Sequence[str], source: Path) -> None:
    """Raise DataError if the class folders are the parts of a split: a model would learn to tell train from test."""
    parts = {part_of_word(label) for label in labels}
    if None not in parts and len(parts) > 1:
        raise DataError(
            f"{source}: found the folders {', '.join(sorted(labels))}, which are parts of a split and no classes;"
            f" classwise init {source} writes a table with the classes within them and data.split"
        )


def without_repeated_rows(frame: pl.DataFrame, where: str) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """The table without rows that repeat an earlier one in every column, and a note that counts them, if there are
    any."""
    distinct = frame.unique(maintain_order=True)
    repeated = frame.height - distinct.height
    if not repeated:
        return frame, ()
    what = "a row that repeats another one" if repeated == 1 else f"{repeated} rows that repeat another one"
    return distinct, (f"{where}: left out {what} in every column",)


def folder_table(
    folder: Path, skip_lost: bool = False, follow_links: bool = False
) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """`path` and `label` of every image below a folder's class folders, sorted; and notes on what was left out.
    Links to folders are only followed with `follow_links`. Raises DataError if there are no such images, and for
    images that cannot be read (see left_out.py), of which `skip_lost` allows some."""
    rows: list[tuple[str, str]] = []
    others: list[str] = []
    linked_folders = 0
    images_outside_classes = 0
    for name in files_below(folder, follow_links):
        if name.endswith("/"):
            linked_folders += 1
        elif not is_image_name(name):
            others.append(name)
        elif "/" not in name:
            images_outside_classes += 1
        else:
            rows.append((name, name.split("/", 1)[0]))
    links = ""
    if linked_folders:
        why = "they lead to where they lie" if follow_links else "data.follow_links = true follows them"
        links = f"{linked_folders} links to folders ({why})"
    notes = left_out_notes(folder, others, (name for name, _ in rows), skip_lost)
    if not rows:
        raise DataError(
            f"{folder}: found no images in sub-folders ({images_outside_classes} directly in it, {len(others)} other"
            f" files{f', {links}' if links else ''}); a folder source has one sub-folder per class with files"
            f" {', '.join(IMAGE_SUFFIXES)}"
        )
    if links:
        notes.append(f"{folder}: left out {links}")
    if images_outside_classes:
        notes.append(f"{folder}: left out {images_outside_classes} images that are in no class folder")
    frame = pl.DataFrame(rows, schema={"path": pl.String, "label": pl.String}, orient="row")
    return frame, tuple(notes)


def refuse_repeated(ids: Sequence[str], where: str, what: str) -> None:
    """Raise DataError for duplicate ids, with the rows of the first of them; `what` an id is, for the message."""
    if not Texts.of(ids).has_repeats:
        return
    rows_of_id: dict[str, list[int]] = {}
    for row, id in enumerate(ids, start=1):
        rows_of_id.setdefault(id, []).append(row)
    duplicates = {id: rows for id, rows in rows_of_id.items() if len(rows) > 1}
    id, rows = next(iter(duplicates.items()))
    more = f"; {len(duplicates)} duplicates in all" if len(duplicates) > 1 else ""
    raise DataError(f"{where}: {what} {id!r} is in {rows_text(rows)}; each must be unique{more}")


def refuse_escapes(
    names: Sequence[str],
    root: Path,
    where: str,
    key: str = "data.images",
    folders: Sequence[Path] = (),
    follow_links: bool = False,
) -> None:
    """Raise DataError for a path relative to `root` that leaves the `folders` (default: `root` alone), by its text
    or through a link, before anything is read. With `follow_links` only the text counts. `key`: the config key that
    names the folders, for the message."""
    resolve = os.path.abspath if follow_links else os.path.realpath
    real_root = resolve(root)
    allowed = tuple(resolve(folder).rstrip(os.sep) + os.sep for folder in folders or (root,))
    escapes: list[tuple[int, str, bool]] = []
    real_folders: dict[str, str] = {}  # one look-up for each folder: a table has many rows in few folders
    for row, name in enumerate(names, start=1):
        if "\0" in name or os.path.isabs(name):
            escapes.append((row, name, False))
            continue

        # Where the file really is: its folder is resolved once, the file itself only if it is a link.
        path = os.path.join(real_root, name)
        folder, base = os.path.split(path)
        if folder not in real_folders:
            real_folders[folder] = resolve(folder)
        real = os.path.join(real_folders[folder], base)
        if not follow_links and os.path.islink(real):
            real = os.path.realpath(real)
        if not os.path.normpath(real).startswith(allowed):
            by_link = os.path.normpath(path).startswith(allowed)
            escapes.append((row, name, by_link))
    if escapes:
        raise _escape_error(escapes, root, where, key, folders)


def _escape_error(
    escapes: Sequence[tuple[int, str, bool]], root: Path, where: str, key: str, folders: Sequence[Path]
) -> DataError:
    """The error for the rows whose paths leave the folders; each with its path, and whether it does so by a link."""
    row, name, by_link = escapes[0]
    more = f"; {len(escapes)} such rows in all" if len(escapes) > 1 else ""
    several = len(folders) > 1
    shown = ", ".join(map(str, folders)) if several else str(root)
    leaves = f"leaves the folder{'s' if several else ''} {shown} ({key})"
    if by_link and key == "data.images":
        advice = "it is a link that leads out of it; if you trust its target: data.follow_links = true"
    elif os.path.isabs(name):
        advice = "an absolute path must lie inside"
    else:
        advice = "paths are relative to it and stay inside"
    return DataError(f"{where}: row {row}: the path {name!r} {leaves}; {advice}{more}")
