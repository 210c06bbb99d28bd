"""The files of an image cache: opened for one user alone, locked while in use, deleted only if nobody uses them."""

import contextlib
import errno
import os
import secrets
import stat
from pathlib import Path

try:
    import fcntl

    HAS_CACHES = os.open in os.supports_dir_fd
except ImportError:  # Windows
    HAS_CACHES = False
"""Whether the system can hold caches as this module wants them: private, opened without following links, locked."""


def open_cache(folder: Path) -> dict[str, int]:
    """Handles of the folder, of `pixels`, and of `in-use`, which is locked. Until the lock is held, another process may
    delete the cache: then it is made again. Raises OSError."""
    for _ in range(100):
        handles: dict[str, int] = {}
        try:
            handles["folder"] = open_own_folder(folder)
            handles["in-use"] = open_file(folder / "in-use")
            lock_file(handles["in-use"], shared=True)
            handles["pixels"] = open_file(folder / "pixels")
            # The locked file is still the one of this name: nobody has deleted it before it was locked.
            if inode_of(os.fstat(handles["in-use"])) == inode_of((folder / "in-use").stat()):
                os.utime(handles["in-use"])  # when it was last used
                return handles
        except FileNotFoundError:
            pass
        except BaseException:
            close_all(handles)
            raise
        close_all(handles)
    raise OSError(errno.EBUSY, "other processes keep deleting it", str(folder))


def open_own_folder(folder: Path) -> int:
    """A handle of a folder that only its user can enter, which is made if there is none. Raises OSError for a link, for
    another user's folder, and on a system that has no such folders (Windows)."""
    if not HAS_CACHES:
        raise OSError(errno.ENOTSUP, "this system lacks the locks and checks that a cache needs", str(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        require_own(handle, folder)
    except OSError:
        os.close(handle)
        raise
    with contextlib.suppress(OSError):  # some file systems have no modes
        os.fchmod(handle, 0o700)
    return handle


def open_file(path: Path) -> int:
    """A handle of a file of a cache, which is made if there is none. Raises OSError for a link and for another user's
    file."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        require_own(handle, path)
    except OSError:
        os.close(handle)
        raise
    return handle


def lock_file(handle: int, shared: bool = False) -> None:
    """Wait for the lock on an open file, which ends with the handle. Raises OSError."""
    fcntl.flock(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)


def user_id() -> int:
    """The user's number; 0 on Windows, which has none."""
    return os.geteuid() if hasattr(os, "geteuid") else 0


def require_own(handle: int, path: Path) -> None:
    """Raises OSError for another user's file or folder: its owner could replace what is in it."""
    if os.fstat(handle).st_uid != user_id():
        raise OSError(errno.EPERM, "belongs to another user", str(path))


def read_own(folder: int, name: str, most_bytes: int) -> bytes:
    """The bytes of a file in an opened folder. Raises OSError for a link, another user's file, and what is no file or
    larger than `most_bytes`."""
    handle = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    with os.fdopen(handle, "rb") as file:
        require_own(handle, Path(name))
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_size > most_bytes:
            raise OSError(errno.EINVAL, "not a file of this cache", name)
        return file.read()


def replace_own(folder: int, name: str, data: bytes) -> None:
    """Write a file in an opened folder, in one step. Raises OSError."""
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


def delete_unused(folder: Path) -> bool:
    """Delete a cache unless some process has it open: its three files, and the folder if it held nothing else. Returns
    whether it is gone."""
    try:
        handle = os.open(folder / "in-use", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:  # another process was faster, or it is another user's
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if inode_of(os.fstat(handle)) != inode_of((folder / "in-use").stat()):
            return False  # deleted and made again meanwhile
        for name in ("index", "pixels", "in-use"):
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()
    except OSError:
        return not (folder / "pixels").exists()
    finally:
        os.close(handle)
    return True


def inode_of(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def write_all(handle: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(handle, view, at)
        view = view[written:]
        at += written


def close_all(handles: dict[str, int]) -> None:
    """Close the files, which unlocks the cache."""
    for handle in handles.values():
        os.close(handle)
