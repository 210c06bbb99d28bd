"""One run directory, one process that writes into it."""

import contextlib
import fcntl
import json
import os
import platform
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from classwise.errors import OutputError

_held: set[str] = set()  # the system's lock does not keep a process from locking twice


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the run directory `folder` until the end of the block. Raises OutputError that says who holds it.

    The lock is the system's and belongs to this process alone: it is gone the moment that the process is, however
    it ends, even where its loader workers live on for a second. The file `.lock` says who holds it; one that a
    killed process has left is taken over.
    """
    path = folder / ".lock"
    key = str(path.resolve())
    if key in _held:  # and the file must not be read: closing it would give the lock up
        raise OutputError(f"{folder} is in use by this process; only one run may write into it")
    handle = _locked_file(path, folder)
    _held.add(key)
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(_me(), ensure_ascii=False).encode(), 0)
        yield
    finally:
        path.unlink(missing_ok=True)
        _held.discard(key)
        os.close(handle)


def _locked_file(path: Path, folder: Path) -> int:
    """The open file, locked; and no other has taken its name meanwhile."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.fstat(handle).st_ino == path.stat().st_ino:
                return handle
        except (BlockingIOError, PermissionError):
            os.close(handle)
            raise OutputError(
                f"{folder} is in use by {_holder(path)}; only one process may write into it"
            ) from None
        os.close(handle)


def _me() -> dict[str, object]:
    return {
        "process": os.getpid(),
        "host": platform.node(),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _holder(path: Path) -> str:
    """Who holds the lock, as far as its file says."""
    try:
        who = json.loads(path.read_text(encoding="utf-8"))
        return f"process {who['process']} on {who['host']} ({who['command']}) since {who['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
