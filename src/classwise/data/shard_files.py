"""The files in which many images lie, opened once in each process and read at any place.

A shard is a file on this machine, or behind an address (see remote.py). Reading does not depend on where a file
stands, so threads and forked processes may read from one handle at the same time."""

import os
import stat
import threading
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from classwise.data.remote import RemoteFile
from classwise.errors import DataError
from classwise.files import address_of, is_address


@dataclass(frozen=True)
class Shards:
    """The shards of a source as they were when its rows were read: the stamp of each by its path. No image is read
    from any other file."""

    stamps: dict[str, str]

    @property
    def are_remote(self) -> bool:
        """Whether they are behind addresses, where every machine sees the same."""
        return all(is_address(path) for path in self.stamps)


class ShardFile(Protocol):
    """An open shard. `name` is for messages."""

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> int: ...

    @property
    def stamp(self) -> str: ...

    @property
    def has_version(self) -> bool:
        """Whether the stamp of another file of this name and size would be another one."""

    def read(self, at: int, size: int) -> bytes:
        """These bytes. Raises DataError where they are not there, or the shard has changed since it was opened."""

    def open(self) -> IO[bytes]:
        """The same file for a library that reads files: to be closed by the caller."""


class LocalFile:
    """A shard on this machine. Raises DataError if it is missing, or no regular file."""

    has_version = True  # the time of its last change

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)
        self._lock = threading.Lock()
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                raise DataError(f"{path}: not a file, so no shard")
            flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
            self.handle = os.open(path, flags)
        except OSError as error:
            raise DataError(f"{path}: this shard cannot be opened: {error.strerror}") from None
        weakref.finalize(self, os.close, self.handle)
        status = os.fstat(self.handle)
        self.size = status.st_size
        self.stamp = _stamp(status)

    def read(self, at: int, size: int) -> bytes:
        refuse_beyond(self, at, size)
        data = self._read(at, size)
        while 0 < len(data) < size and (more := self._read(at + len(data), size - len(data))):
            data += more
        # Whoever writes into a shard while it is read would mix two images.
        refuse_changed(self.name, self.stamp, _stamp(os.fstat(self.handle)))
        if len(data) < size:
            raise DataError(f"{self.name}: cut short while it is read")
        return data

    def _read(self, at: int, size: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self.handle, size, at)
        with self._lock:  # Windows: only from where the file stands
            os.lseek(self.handle, at, os.SEEK_SET)
            return os.read(self.handle, size)

    def open(self) -> IO[bytes]:
        return self.path.open("rb")


def _stamp(status: os.stat_result) -> str:
    return f"{status.st_size} bytes, changed at {status.st_mtime_ns}"


def refuse_beyond(file: ShardFile, at: int, size: int) -> None:
    """Raise DataError for bytes that are not in the file."""
    if size < 0 or at < 0 or at + size > file.size:
        raise DataError(
            f"{file.name}: cut short or damaged: it has {file.size:,} bytes, and {size:,} from {at:,} on are asked for"
        )


def refuse_changed(name: str, before: str, now: str) -> None:
    """Raise DataError unless a shard's stamp is what it was."""
    if before != now:
        raise DataError(
            f"{name}: this shard has changed since its rows were read (it was {before}; it is {now}); start again"
        )


def open_file(path: Path) -> ShardFile:
    """A shard on this machine, or behind an address. Raises DataError if it is missing."""
    return RemoteFile(address_of(path)) if is_address(path) else LocalFile(path)
