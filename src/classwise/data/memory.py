"""What runs have found out and need not find out again, in one small JSON file for each finding.

A finding belongs to a *key*: plain values of all that it depends on. Its file is named after a hash of the key, and
holds the key itself too, so that a file counts only for what it was written for. A file that is damaged, foreign or
from another version is no finding, and is replaced by the next one.

The folder is its user's alone, and neither it nor a file in it may be a link, as in the image cache. Files are replaced
in one step, so any number of processes may read and write at the same time: of two that write the same key, the last
one stays.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from classwise.data.cache import default_base
from classwise.data.cache_files import open_own_folder, read_own, replace_own, user_id
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
                entry = json.loads(read_own(folder, _file_name(kind, key), MOST_BYTES))
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
                replace_own(folder, _file_name(kind, key), text.encode())
                _forget_oldest(folder)


def memory_of(cache: str) -> Memory:
    """The memory that goes with data.cache: in the user's cache directory, or in the folder of the image caches."""
    if cache == "off":
        return NoMemory()
    try:
        base = default_base().parent if cache == "auto" else Path(cache)
    except OSError:  # no home folder; `open_cache` has said so
        return NoMemory()
    # Several users may share a folder of caches.
    return FolderMemory(base / f"remembered-{user_id()}")


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
