"""Features on the disk: one file for each set of images and each backbone, named after a hash of all they depend on.

A file holds an array and a hash of its bytes, so that one that is damaged is computed again. The folder is its user's
alone, and neither it nor a file may be a link; files are replaced in one step. What has not been used for longest is
deleted when all files together take more than the limit.
"""

import contextlib
import io
import os
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from classwise.data.cache import RESERVE, default_base
from classwise.data.cache_files import open_own_folder, read_own, replace_own, user_id
from classwise.files import sha256

Array = npt.NDArray[np.float32]
SHARE = 0.1
"""Of data.cache_gigabytes that features may take beside the decoded images."""
DIGEST_LENGTH = 64


class FeatureCache(Protocol):
    """Features by key."""

    def find(self, key: str) -> Array | None:
        """What was kept under the key; None if there is nothing, or it is damaged."""

    def keep(self, key: str, features: Array) -> None:
        """Keep features, if there is room."""


class NoFeatureCache:
    """Keeps nothing."""

    def find(self, key: str) -> Array | None:
        """None."""
        return None

    def keep(self, key: str, features: Array) -> None:
        """Nothing."""


class FolderFeatureCache:
    """Features in a folder that is made if there is none, at most `limit` bytes. A folder or disk that cannot be used
    keeps nothing."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit

    def find(self, key: str) -> Array | None:
        """See `FeatureCache`."""
        try:
            handle = open_own_folder(self.folder)
            try:
                data = read_own(handle, f"{key}.npy", self.limit)
                os.utime(f"{key}.npy", dir_fd=handle, follow_symlinks=False)  # when it was last used
            finally:
                os.close(handle)
            if sha256(data[DIGEST_LENGTH:]).encode() != data[:DIGEST_LENGTH]:
                return None
            features: Array = np.load(io.BytesIO(data[DIGEST_LENGTH:]), allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        return features if features.dtype == np.float32 else None

    def keep(self, key: str, features: Array) -> None:
        """See `FeatureCache`."""
        file = io.BytesIO()
        np.save(file, features, allow_pickle=False)
        data = file.getvalue()
        if len(data) + DIGEST_LENGTH > self.limit:
            return
        with contextlib.suppress(OSError):
            handle = open_own_folder(self.folder)
            try:
                _make_room(handle, self.limit - len(data) - DIGEST_LENGTH)
                # The disk belongs to checkpoints first.
                disk = os.fstatvfs(handle)
                if disk.f_bavail * disk.f_frsize - len(data) >= RESERVE:
                    replace_own(handle, f"{key}.npy", sha256(data).encode() + data)
            finally:
                os.close(handle)


def feature_cache_of(cache: str, gigabytes: float) -> FeatureCache:
    """The cache that goes with data.cache and data.cache_gigabytes."""
    if cache == "off":
        return NoFeatureCache()
    try:
        base = default_base().parent if cache == "auto" else Path(cache)
    except OSError:  # no home folder; `open_cache` has said so
        return NoFeatureCache()
    # Several users may share a folder of caches.
    return FolderFeatureCache(base / f"features-{user_id()}", int(gigabytes * SHARE * 2**30))


def _make_room(folder: int, limit: int) -> None:
    """Delete the files that have not been used for longest until all together take at most `limit` bytes; also what a
    kill has left half written."""
    files = []
    for name in os.listdir(folder):
        with contextlib.suppress(OSError):  # another process was faster
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            files.append((status.st_mtime_ns, status.st_size, name))
    total = sum(size for _, size, _ in files)
    for _, size, name in sorted(files):
        if total <= limit:
            return
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=folder)
        total -= size
