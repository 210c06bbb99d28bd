"""Writing files atomically: no partial files, even after a crash; the user's cache directory; and addresses of files
that are not on this machine."""

import contextlib
import errno
import hashlib
import itertools
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from classwise.errors import OutputError

# Two letters at least: one is a drive of Windows. A Path keeps one of the two slashes.
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/{1,2}(?=[^/])")


def user_cache() -> Path:
    """Our folder in the user's cache directory: $XDG_CACHE_HOME or ~/.cache. Raises OSError for a user without a home
    folder, as in a container with an unknown user id."""
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(base or Path.home() / ".cache") / "classwise"
    except RuntimeError:
        raise OSError(
            errno.ENOENT, "no home folder is known; set HOME or XDG_CACHE_HOME", "~/.cache"
        ) from None


def is_address(path: str | Path) -> bool:
    """Whether this is an address, such as `s3://bucket/a.tar`, and no path on this machine."""
    return _ADDRESS.match(str(path)) is not None


def address_of(path: str | Path) -> str:
    """An address with both of its slashes, of which a Path keeps one."""
    return _ADDRESS.sub(r"\1://", str(path), count=1)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that after a crash either the old file or the new one is there, never a partial one.

    The bytes go to a temporary file in the same folder, are flushed to the disk, and take the name in one step. On an
    error the temporary file is removed.
    """
    # The name is chosen before the file is made, so that it can be removed even if a signal comes right after that.
    new = path.with_name(f".writing-{os.getpid()}-{secrets.token_hex(4)}{path.suffix}")
    try:
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of UTF-8 text."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """`write_bytes` of `value` as JSON. Raises ValueError for NaN and infinity, which JSON does not have."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """Indented JSON with a final newline, in the order of the keys given."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def make_folder(folder: Path, exist_ok: bool = True) -> None:
    """Make a folder and its missing parents, so that they survive a power cut: the name of each is flushed to the
    disk in its parent. Raises OSError; FileExistsError if the folder exists and not `exist_ok`."""
    ancestry = [folder, *folder.parents]
    missing = list(itertools.takewhile(lambda path: not path.exists(), ancestry))
    if not missing and exist_ok and folder.is_dir():
        return
    folder.mkdir(parents=True, exist_ok=exist_ok)
    for new_folder in reversed(missing):
        sync_folder(new_folder.parent)


@contextlib.contextmanager
def folder_in_one_step(out: Path) -> Iterator[Path]:
    """A folder beside `out` to write into, which takes its name, in place of what was there, at the end of the block;
    after an error it is removed, and `out` is what it was. Raises OSError."""
    place = Path(os.path.abspath(out))  # noqa: PTH100 - `.` and `..` have no name of their own
    token = secrets.token_hex(4)
    new, old = (place.with_name(f".{what}-{place.name}-{token}") for what in ("writing", "replaced"))
    try:
        make_folder(new)
        yield new
        sync_folder(new)
        if place.exists():
            place.rename(old)
        new.rename(place)
        sync_folder(place.parent)
    finally:
        if old.exists() and not place.exists():  # the second renaming failed
            old.rename(place)
        for folder in (new, old):
            shutil.rmtree(folder, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Flush a folder's own entries (new and changed names) to the disk, where the system can open a folder for that:
    Windows cannot."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(data: bytes) -> str:
    """The SHA-256 of `data` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def refuse_existing(path: Path, force: bool) -> None:
    """Raise OutputError if `path` exists and not `force`, or if no file can be made there."""
    if path.is_dir():
        raise OutputError(f"{path} is a folder; name a file")
    if path.exists() and not force:
        raise OutputError(f"{path} exists already; it is kept. Use --force to replace it, or another name")
    if not path.parent.is_dir():
        raise OutputError(f"{path}: there is no folder {path.parent}; make it first, or name another folder")


def numbered(first: Path) -> Iterable[Path]:
    """NAME, NAME-2, NAME-3, ..."""
    yield first
    number = 2
    while True:
        yield first.with_name(f"{first.name}-{number}")
        number += 1
