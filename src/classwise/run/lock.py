"""A lock on the run directory, so that only one process writes into it."""

import contextlib
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
from typing import Literal

from classwise.errors import OutputError

try:
    import fcntl

    HAS_FCNTL = True
except ImportError:  # Windows
    HAS_FCNTL = False

LOCK = ".lock"
HOLDER = ".lock-holder"  # on Windows nobody else can read a locked file
LOCK_FILES = (LOCK, HOLDER)
Who = dict[str, object]
LockState = Literal["held", "free", "unknown"]

# Who holds what, by process (a fork copies this table, but not the locks), device and inode. The system's lock does
# not keep a process from locking a file twice.
_held: dict[tuple[int, int, int], Who] = {}
_guard = threading.Lock()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock the run directory `folder`, which must exist, until the end of the block. Raises OutputError, which says who
    holds it or why it cannot be locked.

    The lock is a POSIX record lock of this process: it is released as soon as the process ends, however it ends,
    even if its loader workers live on for a second. The file `.lock` says who holds it; one that a killed process
    has left is taken over. The process that holds the lock must not open that file (to copy the folder, say): the
    system releases a record lock when its process closes the file, however often it was opened. Windows has no such
    locks: there it is the `filelock` package's.
    """
    if not HAS_FCNTL:
        with _locked_by_package(folder):
            yield
        return
    path = folder / LOCK
    who = _me()
    # Whoever is refused meanwhile reads the file, so it must be there as soon as the lock is.
    with _guard:
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
    """Raise OutputError if a process holds `folder`, and say which. Nothing is changed."""
    if not folder.is_dir():
        return
    with _guard:
        _refuse_held_here(folder)
    if lock_state(folder) == "held":
        raise OutputError(_in_use(folder, _holder(folder / (LOCK if HAS_FCNTL else HOLDER))))


def lock_state(folder: Path) -> LockState:
    """Whether a process holds the run directory `folder`; unknown where the lock file cannot be opened or the file
    system supports no locks. On a shared disk, `free` may mean that the system knows nothing of other machines' locks.
    Nothing is changed."""
    # No thread of this process may take the lock meanwhile: closing the file would release it again.
    with _guard:
        try:
            _refuse_held_here(folder)
        except OutputError:
            return "held" if folder.is_dir() else "free"
        return _state_of_file(folder / LOCK) if HAS_FCNTL else _state_by_package(folder / LOCK)


def lock_holder(folder: Path) -> Who:
    """What the lock file says: process, host, command, since; empty where there is none that can be read. A killed
    process leaves it behind."""
    # The process that holds the lock must not open the file: closing it would release the lock.
    with _guard, contextlib.suppress(OSError, ValueError):
        status = folder.stat()
        if who := _held.get((os.getpid(), status.st_dev, status.st_ino)):
            return dict(who)
        who = json.loads((folder / (LOCK if HAS_FCNTL else HOLDER)).read_text(encoding="utf-8"))
        return who if isinstance(who, dict) else {}
    return {}


def _state_of_file(path: Path) -> LockState:
    """`lock_state` by the POSIX lock."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return "free"
    except OSError:
        return "unknown"
    try:
        fcntl.lockf(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return "held"
    except OSError:
        return "unknown"
    finally:
        os.close(handle)
    return "free"


def _state_by_package(path: Path) -> LockState:
    """`lock_state` where there is no fcntl."""
    import filelock

    if not path.exists():
        return "free"
    try:
        with filelock.FileLock(path, timeout=0):
            return "free"
    except filelock.Timeout:
        return "held"
    except OSError:
        return "unknown"


@contextlib.contextmanager
def _locked_by_package(folder: Path) -> Iterator[None]:
    """`locked` where there is no fcntl. Windows, too, releases the lock as soon as the process ends."""
    import filelock

    lock = filelock.FileLock(folder / LOCK, timeout=0)
    who = _me()
    with _guard:
        key = _refuse_held_here(folder)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise OutputError(_in_use(folder, _holder(folder / HOLDER))) from None
        except OSError as error:
            raise OutputError(f"{folder} cannot be locked: {error.strerror or error}") from None
        _held[key] = who
    try:
        (folder / HOLDER).write_text(json.dumps(who), encoding="utf-8")
        yield
    finally:
        (folder / HOLDER).unlink(missing_ok=True)
        lock.release()
        del _held[key]


def _refuse_held_here(folder: Path) -> tuple[int, int, int]:
    """The folder's key in `_held`, whichever of its paths is used. Raises OutputError if this process holds it."""
    try:
        status = folder.stat()
    except OSError as error:
        raise OutputError(f"{folder} cannot be locked: {error.strerror}") from None
    key = (os.getpid(), status.st_dev, status.st_ino)
    if key in _held:
        raise OutputError(_in_use(folder, f"this {_text(_held[key])}"))
    return key


def _locked_file(path: Path, folder: Path) -> int:
    """The handle of the open and locked file. Raises OutputError."""
    while True:
        try:
            # No symbolic links: one could lead to a file that has nothing to do with the run.
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            raise OutputError(f"{folder} cannot be locked: {path}: {error.strerror}") from None
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, handle)
            _lock(handle, path, folder)
            # The holder before may have deleted the file meanwhile; a lock on a deleted file keeps nobody out.
            if _is_at(handle, path):
                stack.pop_all()
                return handle


def _lock(handle: int, path: Path, folder: Path) -> None:
    """Lock the open file, or raise OutputError."""
    for tries_left in (1, 0):
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except (BlockingIOError, PermissionError):
            if not tries_left:
                raise OutputError(_in_use(folder, _holder(path))) from None
            time.sleep(0.1)  # it may be held by `refuse_held`, for an instant
        except OSError as error:
            raise OutputError(
                f"{folder} cannot be locked: its file system supports no locks ({error.strerror}), and a run needs one,"
                " so that no second process writes into it; train on another file system, or mount this one with locks"
            ) from None


def _is_at(handle: int, path: Path) -> bool:
    """Whether `path` still names the open file."""
    with contextlib.suppress(OSError):
        return os.path.samestat(os.fstat(handle), path.lstat())
    return False


def _me() -> Who:
    """What the lock file says of this process."""
    return {
        "process": os.getpid(),
        "host": platform.node(),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _write(handle: int, who: Who, folder: Path) -> None:
    """Write the lock file. Raises OutputError."""
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(who).encode(), 0)
    except OSError as error:
        raise OutputError(f"{folder / LOCK} cannot be written: {error.strerror}") from None


def _holder(path: Path) -> str:
    """Who holds the lock, by its file. It is written right after locking, which may be happening now: so wait a bit."""
    for _ in range(20):
        time.sleep(0.05)
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return _text(json.loads(path.read_text(encoding="utf-8")))
    return "another process"


def _text(who: Who) -> str:
    return f"process {who['process']} on {who['host']} ({who['command']}) since {who['since']}"


def _in_use(folder: Path, holder: str) -> str:
    return f"{folder} is in use by {holder}; only one run may write into it"
