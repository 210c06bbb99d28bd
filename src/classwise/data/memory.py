"""What runs have found out and need not find out again, in one small JSON file for each finding.

A finding belongs to a *key*: plain values of all that it depends on. Its file is named after a hash of the key, and
holds the key itself too, so that a file counts only for what it was written for. A file that is damaged, foreign or
from another version is no finding, and is replaced by the next one.

The folder is its user's alone, and neither it nor a file in it may be a link, as in the image cache. Files are replaced
in one step, so any number of processes may read and write at the same time: of two that write the same key, the last
one stays.
"""

import contextlib
import errno
import json
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from classwise.data.cache import default_base
from classwise.data.cache_files import open_own_folder, require_own
from classwise.files import json_text, sha256

SCHEMA = 1
"""Of the files; a file of another one is no finding."""
MOST_BYTES = 2**20
"""Larger files are not ours."""
MOST_FILES = 500
"""Of these the least recently written half is deleted when there are more."""


class Memory(Protocol):
    """Findings by kind (`measured`, ...) and key."""

    def recall(self, kind: str, key: Mapping[str, Any]) -> Any:
        """What was kept for this key, as plain values that the caller has to check; None if there is nothing."""

    def keep(self, kind: str, key: Mapping[str, Any], found: Any) -> None:
        """Remember plain values, without NaN. What cannot be written will have to be found out again."""


class NoMemory:
    """Remembers nothing."""

    def recall(self, kind: str, key: Mapping[str, Any]) -> Any:
        """None."""
        return None

    def keep(self, kind: str, key: Mapping[str, Any], found: Any) -> None:
        """Nothing."""


class FolderMemory:
    """Findings in a folder, which is made if there is none. A folder or disk that cannot be used remembers nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def recall(self, kind: str, key: Mapping[str, Any]) -> Any:
        """See `Memory`."""
        try:
            with _opened(self.folder) as folder:
                entry = json.loads(_read(folder, _file_name(kind, key)))
            is_own = isinstance(entry, dict) and (entry.get("schema"), entry.get("kind")) == (SCHEMA, kind)
            # As text: a tuple of the key comes back as a list.
            return entry.get("found") if is_own and _text(entry.get("key")) == _text(key) else None
        except (OSError, ValueError, RecursionError):
            return None

    def keep(self, kind: str, key: Mapping[str, Any], found: Any) -> None:
        """See `Memory`."""
        with contextlib.suppress(OSError, ValueError):
            text = json_text({"schema": SCHEMA, "kind": kind, "key": dict(key), "found": found})
            with _opened(self.folder) as folder:
                _replace(folder, _file_name(kind, key), text.encode())
                _forget_oldest(folder)


def memory_of(cache: str) -> Memory:
    """The memory that goes with data.cache: in the user's cache directory, or in the folder of the image caches."""
    if cache == "off":
        return NoMemory()
    # Several users may share a folder of caches.
    base = default_base().parent if cache == "auto" else Path(cache)
    return FolderMemory(base / f"remembered-{os.geteuid()}")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    """The folder as a handle, by which its files are opened: what is put in its place meanwhile is not used. Raises
    OSError."""
    handle = open_own_folder(path)
    try:
        yield handle
    finally:
        os.close(handle)


def _file_name(kind: str, key: Mapping[str, Any]) -> str:
    return f"{kind}-{sha256(_text(key).encode())[:32]}.json"


def _text(key: Any) -> str:
    """One text for equal keys, whatever the order of their entries."""
    return json.dumps(key, sort_keys=True, ensure_ascii=False, allow_nan=False)


def _read(folder: int, name: str) -> bytes:
    """The bytes of a file. Raises OSError for a link, another user's file, and what is no file or too large."""
    handle = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    try:
        require_own(handle, Path(name))
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MOST_BYTES:
            raise OSError(errno.EINVAL, "not a file of findings", name)
        return os.read(handle, MOST_BYTES)
    finally:
        os.close(handle)


def _replace(folder: int, name: str, data: bytes) -> None:
    """Write a file in one step; a partial one would be no finding, but one nobody replaces. Raises OSError."""
    new = f".writing-{os.getpid()}-{secrets.token_hex(4)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    handle = os.open(new, flags, 0o600, dir_fd=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(new, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(new, dir_fd=folder)
        raise


def _forget_oldest(folder: int) -> None:
    """Delete the older half of the files once there are too many; also files that a kill has left half written."""
    names = os.listdir(folder)
    if len(names) <= MOST_FILES:
        return
    written = []
    for name in names:
        with contextlib.suppress(OSError):  # another process was faster
            written.append((os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime_ns, name))
    for _, name in sorted(written)[: len(written) // 2]:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=folder)
