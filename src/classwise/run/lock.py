"""One run directory, one process that writes into it."""

import contextlib
import fcntl
import json
import os
import platform
import shlex
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from classwise.errors import OutputError

LOCK = ".lock"
Who = dict[str, object]

# By process (a fork copies this, but not the lock) and folder: the system's lock does not keep a process from
# locking twice.
_held: dict[tuple[int, int, int], Who] = {}
_guard = threading.Lock()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the run directory `folder`, which exists, until the end of the block. Raises OutputError that says who
    holds it, or why it cannot be locked.

    The lock is the system's and belongs to this process alone: it is gone the moment that the process is, however
    it ends, even where its loader workers live on for a second. The file `.lock` says who holds it; one that a
    killed process has left is taken over. Nothing in the process that holds it may open that file (to copy the
    folder, say): the system gives a lock up when its process closes the file, however often it was opened.
    """
    path, who = folder / LOCK, _me()
    with _guard:  # whoever is refused may count on the file being there
        key = _refuse_held_here(folder)
        handle = _locked_file(path, folder)
        _held[key] = who
    try:
        _write(handle, who, folder)
        yield
    finally:
        if _is_at(handle, path):
            path.unlink(missing_ok=True)
        os.close(handle)
        del _held[key]


def refuse_held(folder: Path) -> None:
    """Raises OutputError that says who holds `folder`, if somebody does. Nothing is touched."""
    path = folder / LOCK
    if not folder.is_dir():
        return
    with _guard:  # while nobody here takes the lock: closing the file would give it up again
        _refuse_held_here(folder)
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return
        try:
            fcntl.lockf(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise OutputError(_in_use(folder, _holder(path))) from None
        except OSError:
            return
        finally:
            os.close(handle)


def _refuse_held_here(folder: Path) -> tuple[int, int, int]:
    """How this process knows the folder, which has many paths."""
    try:
        found = folder.stat()
    except OSError as error:
        raise OutputError(f"{folder} cannot be locked: {error.strerror}") from None
    key = os.getpid(), found.st_dev, found.st_ino
    if key in _held:
        raise OutputError(_in_use(folder, f"this {_text(_held[key])}"))
    return key


def _locked_file(path: Path, folder: Path) -> int:
    """The open file, locked; and no other has taken its name meanwhile."""
    while True:
        try:
            # Not through a link, which could lead to somebody's file.
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            raise OutputError(f"{folder} cannot be locked: {path}: {error.strerror}") from None
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, handle)
            _lock(handle, path, folder)
            if _is_at(handle, path):
                stack.pop_all()
                return handle


def _lock(handle: int, path: Path, folder: Path) -> None:
    for tries_left in (1, 0):
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except (BlockingIOError, PermissionError):
            if not tries_left:
                raise OutputError(_in_use(folder, _holder(path))) from None
            time.sleep(0.1)  # it may be `refuse_held`, which is soon gone
        except OSError as error:
            raise OutputError(
                f"{folder} cannot be locked: its file system gives no locks ({error.strerror}), and a run needs one,"
                " so that no second process writes into it; train on another file system, or have this one mounted"
                " with locks"
            ) from None


def _is_at(handle: int, path: Path) -> bool:
    """Whether the open file is the one of that name."""
    with contextlib.suppress(OSError):
        return os.path.samestat(os.fstat(handle), path.lstat())
    return False


def _me() -> Who:
    return {
        "process": os.getpid(),
        "host": platform.node(),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _write(handle: int, who: Who, folder: Path) -> None:
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(who).encode(), 0)
    except OSError as error:
        raise OutputError(f"{folder / LOCK} cannot be written: {error.strerror}") from None


def _holder(path: Path) -> str:
    """Who holds the lock, as far as its file says: written right after locking, which may be now."""
    for _ in range(20):
        time.sleep(0.05)
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return _text(json.loads(path.read_text(encoding="utf-8")))
    return "another process"


def _text(who: Who) -> str:
    return f"process {who['process']} on {who['host']} ({who['command']}) since {who['since']}"


def _in_use(folder: Path, holder: str) -> str:
    return f"{folder} is in use by {holder}; only one run may write into it"
