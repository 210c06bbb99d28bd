"""The file operations that really reach the system, seen, stopped or cut short one by one.

Everything that writes here goes through Python's `os` and `io`: pathlib, shutil and tempfile call their functions as
attributes of the modules, so replacing these shows every operation in its order.
"""

import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

FAULTS = ("ENOSPC", "EIO", "short write", "kill before", "kill after")
_real_open, _real_fsync = io.open, os.fsync


@dataclass(frozen=True)
class Operation:
    """One operation: `mkdir`, `create`, `write`, `fsync`, `rename`, `unlink`, `rmdir`, `close`; its paths and bytes."""

    kind: str
    path: str
    other: str = ""
    data: bytes = b""


@contextmanager
def interposed(
    root: Path, before: Callable[[Operation], None], after: Callable[[Operation], None]
) -> Iterator[None]:
    """Calls `before` and `after` around every operation that changes something below `root`."""
    top = os.path.realpath(root)

    def inside(path: Any, dir_fd: int | None = None) -> str | None:
        text = os.fspath(path)
        text = os.fsdecode(text) if isinstance(text, bytes) else text
        if dir_fd is not None:
            text = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), text)
        text = os.path.join(os.path.realpath(os.path.dirname(text) or "."), os.path.basename(text))
        return text if text == top or text.startswith(top + os.sep) else None

    def around(operation: Operation, work: Callable[[], Any]) -> Any:
        before(operation)
        found = work()
        after(operation)
        return found

    def one_path(kind: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *arguments: Any, dir_fd: int | None = None, **options: Any) -> Any:
            found = inside(path, dir_fd)
            extra = {"dir_fd": dir_fd} if dir_fd is not None else {}
            if found is None:
                return real(path, *arguments, **extra, **options)
            return around(Operation(kind, found), lambda: real(path, *arguments, **extra, **options))

        return call

    def two_paths(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(source: Any, target: Any, **options: Any) -> Any:
            names = inside(source), inside(target)
            if names[0] is None or names[1] is None:
                return real(source, target, **options)
            return around(Operation("rename", names[0], names[1]), lambda: real(source, target, **options))

        return call

    def fsync(handle: Any) -> Any:
        number = handle if isinstance(handle, int) else handle.fileno()
        found = inside(os.readlink(f"/proc/self/fd/{number}"))
        return (
            _real_fsync(number)
            if found is None
            else around(Operation("fsync", found), lambda: _real_fsync(number))
        )

    real_os_open = os.open

    def os_open(path: Any, flags: int, *arguments: Any, dir_fd: int | None = None, **options: Any) -> int:
        found = inside(path, dir_fd) if flags & os.O_CREAT else None
        extra = {"dir_fd": dir_fd} if dir_fd is not None else {}
        work = lambda: real_os_open(path, flags, *arguments, **extra, **options)  # noqa: E731
        if found is None or os.path.lexists(found):
            return int(work())
        return int(around(Operation("create", found), work))

    def io_open(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if not set(mode) & set("wxa+"):
            return _real_open(file, mode, *arguments, **options)
        name = os.readlink(f"/proc/self/fd/{file}") if isinstance(file, int) else file
        found = inside(name)
        if found is None:
            return _real_open(file, mode, *arguments, **options)
        work = lambda: _real_open(file, mode, *arguments, **options)  # noqa: E731
        fresh = not isinstance(file, int) and ("w" in mode or not os.path.lexists(found))
        opened = around(Operation("create", found), work) if fresh else work()
        return _Watched(opened, found, around)

    patches = [
        mock.patch.object(os, "mkdir", one_path("mkdir", os.mkdir)),
        mock.patch.object(os, "unlink", one_path("unlink", os.unlink)),
        mock.patch.object(os, "remove", one_path("unlink", os.remove)),
        mock.patch.object(os, "rmdir", one_path("rmdir", os.rmdir)),
        mock.patch.object(os, "chmod", one_path("chmod", os.chmod)),
        mock.patch.object(os, "replace", two_paths(os.replace)),
        mock.patch.object(os, "rename", two_paths(os.rename)),
        mock.patch.object(os, "fsync", fsync),
        mock.patch.object(os, "open", os_open),
        mock.patch.object(io, "open", io_open),
        mock.patch("builtins.open", io_open),
    ]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in reversed(patches):
            patch.stop()


class _Watched:
    """A file open for writing whose writes go to the system one by one, so that each can fail."""

    def __init__(self, file: Any, path: str, around: Callable[[Operation, Callable[[], Any]], Any]) -> None:
        self._file, self._path, self._around = file, path, around

    def write(self, data: Any) -> Any:
        raw = (
            data.encode(getattr(self._file, "encoding", None) or "utf-8")
            if isinstance(data, str)
            else bytes(data)
        )

        def work() -> Any:
            found = self._file.write(data)
            self._file.flush()
            return found

        try:
            return self._around(Operation("write", self._path, data=raw), work)
        except ShortWrite:
            half = data[: len(data) // 2]
            self._file.write(half)
            self._file.flush()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._path) from None

    def __enter__(self) -> "_Watched":
        return self

    def __exit__(self, *details: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class ShortWrite(Exception):  # noqa: N818 - a signal to `_Watched.write`
    """Half of the bytes reach the file, then the disk is full."""


def recorded(root: Path, work: Callable[[], Any]) -> list[Operation]:
    """All operations of `work` below `root`, in order."""
    found: list[Operation] = []
    with interposed(root, lambda operation: None, found.append):
        work()
    return found


def with_fault(root: Path, number: int, fault: str, work: Callable[[], Any]) -> Operation | None:
    """`work` with operation `number` (from 0) failing; the operation, or None if there were fewer. Errors of `work`
    come through; a kill ends the process at once."""
    count = -1
    hit: list[Operation] = []

    def before(operation: Operation) -> None:
        nonlocal count
        count += 1
        if count != number:
            return
        hit.append(operation)
        if fault == "kill before":
            os._exit(9)
        if fault == "short write" and operation.kind == "write":
            raise ShortWrite
        if fault in ("ENOSPC", "EIO", "short write"):
            code = errno.EIO if fault == "EIO" else errno.ENOSPC
            raise OSError(code, os.strerror(code), operation.path)

    def after(operation: Operation) -> None:
        if count == number and fault == "kill after":
            os._exit(9)

    with interposed(root, before, after):
        work()
    return hit[0] if hit else None


def in_a_child(work: Callable[[], Any]) -> int:
    """The exit code of `work` in a forked process: 0, 9 killed by the fault, 1 an error."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
