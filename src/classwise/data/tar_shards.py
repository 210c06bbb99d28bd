"""Tar shards by WebDataset's naming: files that share a name up to the first dot are one row, `0001.jpg` with
`0001.cls`, `0001.txt` and `0001.json`; and archives of class folders.

What a row's other files say becomes columns: `.cls` is `label`, `.txt` is `text`, and each key of a JSON object is
a column of its name. Without any of them, the first folder is the label, and the order is that of a folder."""

import json
import tarfile
from collections.abc import Iterator
from typing import Any

import polars as pl

from classwise.data.shard_files import ShardFile
from classwise.data.shard_index import (
    RAW,
    Locations,
    folder_order,
    is_visible_image,
    key_of,
    locations_array,
    plain_name,
    refuse_twice,
)
from classwise.errors import DataError

MEMBER = "__member__"
"""The column with the name of each row's image in its shard."""
BLOCK = tarfile.BLOCKSIZE
TEXT_COLUMNS = {"cls": "label", "txt": "text"}
SAID = (*TEXT_COLUMNS, "json")
LONGEST_TEXT = 2**20
"""Bytes of a file beside an image; a longer one is no label."""


def scan_tar(file: ShardFile) -> tuple[pl.DataFrame, Locations]:
    """The rows of a shard, with the column MEMBER, in the order of their images; and where these are. Raises
    DataError for an archive that is compressed, cut short or damaged."""
    rows: dict[str, dict[str, str | None]] = {}  # by what files of one row have in common, in order
    images: dict[str, tuple[str, int, int]] = {}
    for name, at, size, text in _members(file):
        key, extension = _split(name)
        if is_visible_image(name):
            if key in images:
                raise DataError(
                    f"{file.name}: {images[key][0]!r} and {name!r} are two images of one row by their names (all before"
                    " the first dot); allowed: one"
                )
            images[key] = name, at, size
        elif text is not None:
            rows.setdefault(key, {}).update(_cells(file, name, extension, text))
    refuse_twice(file, [name for name, _, _ in images.values()])

    # Columns of all rows; what belongs to no image is no row.
    columns = list(dict.fromkeys(column for key in images for column in rows.get(key, {})))
    cells = {column: [rows.get(key, {}).get(column) for key in images] for column in columns}
    if not columns:
        images = dict(sorted(images.items(), key=lambda item: folder_order(item[1][0])))
    names = [name for name, _, _ in images.values()]
    frame = pl.DataFrame({MEMBER: names, **cells}, schema=dict.fromkeys([MEMBER, *columns], pl.String))
    return frame, _locations(images)


def _locations(images: dict[str, tuple[str, int, int]]) -> Locations:
    names, places, sizes = zip(*images.values(), strict=True) if images else ((), (), ())
    nothing = [0] * len(names)
    return locations_array(
        [key_of(name) for name in names], [places, sizes, sizes, [RAW] * len(names), nothing, nothing]
    )


def _members(file: ShardFile) -> Iterator[tuple[str, int, int, bytes | None]]:
    """(name, offset, size) of the regular files, in order, and the content of those that say something of an image.
    Links and devices are nothing to read. Raises DataError."""
    try:
        with file.open() as opened, tarfile.open(fileobj=opened, mode="r:") as archive:
            end = 0
            for member in archive:
                archive.members = []  # type: ignore[attr-defined] # a million of them would fill the memory
                end = member.offset_data
                if member.isreg():
                    end += -(-member.size // BLOCK) * BLOCK
                    name = plain_name(member.name)
                    yield name, member.offset_data, member.size, _text(file, archive, member, name)
    except tarfile.ReadError as error:
        if file.size > 2 and file.read(0, 2) == b"\x1f\x8b":
            raise DataError(
                f"{file.name}: a compressed archive, in which no image can be found without unpacking all before it;"
                " unpack it, or write it without compression"
            ) from None
        raise DataError(
            f"{file.name}: no tar archive, or one that is cut short or damaged: {error}"
        ) from None
    except (tarfile.TarError, OSError, UnicodeError) as error:
        raise DataError(f"{file.name}: a damaged tar archive: {error}") from None
    if end + BLOCK > file.size or file.read(end, BLOCK).strip(b"\0"):
        raise DataError(f"{file.name}: cut short (an archive ends with an empty block); copy it again")


def _text(file: ShardFile, archive: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> bytes | None:
    """The content of a file beside an image; None of any other file. Raises DataError for one that is too long."""
    base = name.rpartition("/")[2]
    if _split(base)[1] not in SAID or base.startswith("."):
        return None
    if member.size > LONGEST_TEXT:
        raise DataError(
            f"{file.name}: {name} has {member.size:,} bytes; allowed beside an image: {LONGEST_TEXT:,}"
        )
    content = archive.extractfile(member)
    return b"" if content is None else content.read()


def _split(name: str) -> tuple[str, str]:
    """A file's name up to the first dot of its last part, and the rest in small letters (WebDataset's
    `base_plus_ext`)."""
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return folder + slash + stem, extension.lower()


def _cells(file: ShardFile, name: str, extension: str, content: bytes) -> dict[str, str | None]:
    """The columns that a file beside an image gives. Raises DataError."""
    try:
        text = content.decode("utf-8-sig").strip()
        if extension in TEXT_COLUMNS:
            return {TEXT_COLUMNS[extension]: text or None}
        values = json.loads(text)
    except ValueError as error:
        raise DataError(f"{file.name}: {name} cannot be read: {error}") from None
    if not isinstance(values, dict):
        raise DataError(
            f"{file.name}: {name} holds {type(values).__name__}; allowed: an object, whose keys are columns"
        )
    return {column: _cell(value) for column, value in values.items()}


def _cell(value: Any) -> str | None:
    """A value of JSON as the text of a cell."""
    if value is None or value == "":
        return None
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
