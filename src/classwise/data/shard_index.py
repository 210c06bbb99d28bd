"""What is in a shard and where: found out once, and remembered in the user's cache directory.

Of each shard there may be two files there, beside those of its check (see shard_checks.py). `NAME-STAMP.npy` is an
array (7, N) of 64-bit numbers, one column an image, in the order of the first row: worker processes map it, so that a
million images take no memory of theirs, and search in it. `NAME-STAMP.parquet` holds the rows: the images' names and
their columns. NAME is a hash of the shard's address, STAMP one of its size and time of change, so that a shard that
has changed is looked at anew. Without a cache directory that can be written to, a process keeps what it has found in
memory."""

import contextlib
import hashlib
import io
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
import polars as pl

from classwise.data.listing import is_image_name
from classwise.data.shard_files import ShardFile
from classwise.errors import DataError
from classwise.files import user_cache, write_bytes

KEY, AT, STORED, SIZE, METHOD, WITHIN, EXTRA = range(7)
"""The rows of the array. KEY: `key_of` the image's name. AT, STORED: where its bytes, or those of the page that
holds it, are in the shard, and how many. SIZE: how many bytes the image has. METHOD: how they are stored, see
below. WITHIN: where the image is in its page. EXTRA: the size of its page, or the CRC-32 of its bytes."""
RAW, DEFLATED, PAGE, NOTHING = 0, 8, 16, 255
"""Methods: as they are; as in a zip (APPNOTE.TXT 4.4.5); in a page of Parquet, whose codec is added; no bytes at
all."""
VERSION = 1

Locations = npt.NDArray[np.uint64]


def key_of(name: str) -> int:
    """64 bits of a hash of an image's name in its shard."""
    return int.from_bytes(
        hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=8).digest(), "little"
    )


def locations_array(
    keys: Sequence[int] | npt.NDArray[np.uint64], columns: Sequence[Sequence[int]]
) -> Locations:
    """(7, N), sorted by key. Raises ValueError where two images have one key."""
    array = np.empty((7, len(keys)), np.uint64)
    array[KEY] = keys
    for row, values in enumerate(columns, start=1):
        array[row] = values
    array = np.ascontiguousarray(array[:, np.argsort(array[KEY], kind="stable")])
    if (array[KEY][1:] == array[KEY][:-1]).any():
        raise ValueError("two images have one key")
    return array


def find(locations: Locations, key: int) -> npt.NDArray[np.uint64] | None:
    """The column (7,) of the image with this key; None if there is none."""
    keys = locations[KEY]
    place = int(np.searchsorted(keys, np.uint64(key)))
    return locations[:, place] if place < len(keys) and int(keys[place]) == key else None


def remembered_locations(file: ShardFile) -> Locations | None:
    """The array of a shard that was looked at before, mapped; None if there is none that can be read."""
    if not file.has_version:
        return None
    with contextlib.suppress(OSError, ValueError, EOFError):
        found = np.load(remembered_path(file, ".npy"), mmap_mode="r", allow_pickle=False)
        if found.dtype == np.uint64 and found.ndim == 2 and len(found) == 7:
            return np.asarray(found)
    return None


def remembered_rows(file: ShardFile) -> pl.DataFrame | None:
    """The rows of a shard that was looked at before; None if there are none that can be read."""
    if not file.has_version:
        return None
    with contextlib.suppress(OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException):
        path = remembered_path(file, ".parquet")
        return pl.read_parquet(path) if path.is_file() else None
    return None


def remember(file: ShardFile, locations: Locations | None = None, rows: pl.DataFrame | None = None) -> None:
    """Write what was found of a shard, and remove what was found of it before it changed. A cache that cannot be
    written to is left alone, and so is a shard without a version: another one of its size would be taken for it."""
    if not file.has_version:
        return
    with contextlib.suppress(OSError):
        if locations is not None:
            buffer = io.BytesIO()
            np.save(buffer, locations)
            _write(remembered_path(file, ".npy"), buffer.getvalue())
        if rows is not None:
            buffer = io.BytesIO()
            rows.write_parquet(buffer)
            _write(remembered_path(file, ".parquet"), buffer.getvalue())


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    for older in path.parent.glob(f"{path.name.partition('-')[0]}-*{path.suffix}"):
        if older != path:
            older.unlink(missing_ok=True)
    write_bytes(path, data)


def remembered_path(file: ShardFile, suffix: str) -> Path:
    """Where what is known of a shard is remembered. Raises OSError for a user without a home folder."""
    name = file.name if "://" in file.name else os.path.realpath(file.name)
    names = (hashlib.sha256(text.encode()).hexdigest()[:20] for text in (name, f"{VERSION} {file.stamp}"))
    return user_cache() / "shards" / ("-".join(names) + suffix)


def plain_name(name: str) -> str:
    """A name in an archive as a path has it: without `./`, and never from the root."""
    if name.startswith(("/", "./")) or "//" in name or "/./" in name:
        return PurePosixPath(name.lstrip("/")).as_posix()
    return name


def is_visible_image(name: str) -> bool:
    """Whether a file in an archive is an image, outside of hidden folders and of what macOS adds."""
    return is_image_name(name) and not any(part.startswith((".", "__MACOSX")) for part in name.split("/"))


def folder_order(name: str) -> tuple[tuple[bool, str], ...]:
    """The order in which `files_below` lists a folder: its files, then those of each folder in it."""
    *folders, base = name.split("/")
    return (*((True, folder) for folder in folders), (False, base))


def refuse_twice(file: ShardFile, names: Sequence[str]) -> None:
    """Raise DataError for a name that two images of a shard have."""
    if len(set(names)) < len(names):
        seen: set[str] = set()
        twice = next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise DataError(f"{file.name}: two files in it are called {twice!r}; each needs a name of its own")
