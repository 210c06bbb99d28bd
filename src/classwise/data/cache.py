"""Decoded pictures on the disk, so that a file is decoded once and not in every epoch of every run.

A store is one folder: `pixels` holds pictures one behind the other as uint8, `index` a record for each: a hash of the
file's bytes, where its pixels stand, their size, and their checksum. What is stored depends on nothing but the file's
bytes, the size that was asked for and the decoders' versions, which the folder's name stands for: a picture from the
store is, byte for byte, what decoding would give.

Safe against kill, full disk and power cuts: pixels are written before their record; a picture is used only once its
pixels have been checked against their sum; half a record at the end is written over. Several processes may add at
once: each locks the index for the moment of appending. What does not fit the limit or the disk is decoded each time.
Why so: docs/decisions/0022-cache.md.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import importlib.metadata
import os
import shutil
import threading
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
RECORD = np.dtype([("key", "S32"), ("at", "<u8"), ("height", "<u4"), ("width", "<u4"), ("sum", "<u4")])
DECODERS = ("simplejpeg", "pillow", "opencv-python-headless", "numpy")
VERSION = 2  # of what is done to a picture before it is stored
AT_ONCE = 32 * 2**20  # bytes of pixels that wait in memory until they are appended
RESERVE = 2 * 2**30  # bytes of the disk that are left to others: checkpoints, above all


def default_base() -> Path:
    """Where programs keep what they can make again: $XDG_CACHE_HOME or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "classwise" / "pictures"


def store_folder(base: Path, root: Path, least: tuple[int, int], max_pixels: int) -> Path:
    """The folder below `base` for the pictures below `root`, of at most `max_pixels`, none smaller than `least`, as
    these versions of the decoders make them."""
    versions = [f"{name} {importlib.metadata.version(name)}" for name in DECODERS if _is_there(name)]
    facts = repr((VERSION, versions, str(root.resolve()), tuple(least), max_pixels))
    name = "".join(c if c.isalnum() and c.isascii() else "-" for c in root.resolve().name)[:40]
    return base / f"{name}-{least[0]}x{least[1]}-{hashlib.sha256(facts.encode()).hexdigest()[:16]}"


@dataclass(frozen=True)
class StoredPictures:
    """Where the pixels of N pictures stand. Travels to loader workers; the file is mapped when it is first used.

    `inode` is the file's own: one that somebody has put in its place meanwhile is not read.
    """

    pixels: Path
    inode: tuple[int, int]
    at: npt.NDArray[np.int64]  # first byte of each, -1: not stored
    sizes: npt.NDArray[np.int32]  # (N, 2) height, width

    def get(self, row: int) -> Image | None:
        """(height, width, 3), read-only; None where the picture is not stored, or is no longer."""
        at = int(self.at[row])
        mapped = _mapped(self.pixels, self.inode) if at >= 0 else None
        if mapped is None:
            return None
        height, width = self.sizes[row].tolist()
        end = at + 3 * height * width
        return mapped[at:end].reshape(height, width, 3) if end <= len(mapped) else None

    def take(self, rows: Sequence[int]) -> "StoredPictures":
        """Those of some rows."""
        return dataclasses.replace(self, at=self.at[rows], sizes=self.sizes[rows])


class PictureStore:
    """A store that pictures are looked up in and added to, from any number of threads and processes.

    `limit`: bytes that all stores below the same base may take together; the least recently used of the others are
    deleted to make room, unless a run has them open. Raises OSError where the folder cannot be made or read.
    """

    def __init__(self, folder: Path, limit: int, reserve: int = RESERVE) -> None:
        self.folder, self.limit, self.reserve = folder, limit, reserve
        self.full = ""
        """Why nothing more is stored; empty while there is room."""
        self.added = self.left_out = 0
        self._keys: dict[Path, bytes] = {}
        self._known: dict[bytes, np.void] = {}
        self._checked: set[bytes] = set()
        self._waiting: dict[bytes, tuple[np.void, bytes]] = {}
        self._bytes = self._read_to = 0
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        # While this is held, no other process deletes the store (see `_make_room`).
        self._use = os.open(folder / "in-use", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        fcntl.flock(self._use, fcntl.LOCK_SH)
        os.utime(folder / "in-use")
        self._pixels = os.open(folder / "pixels", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._read()

    def __str__(self) -> str:
        had = len(self._keys) - self.added - self.left_out
        known = f"{self.added} decoded and kept" + (f", {had} were there already" if had > 0 else "")
        left = f"; {self.left_out} not kept, since {self.full}" if self.left_out else ""
        return f"pictures: {known}{left}; {self.size / 1e6:,.1f} MB in {self.folder}"

    def close(self) -> None:
        """Others may delete the store from now on; what is mapped stays."""
        for handle in (self._use, self._pixels):
            os.close(handle)

    def find(self, path: Path, data: bytes) -> bool:
        """Whether the picture of the file with these bytes is stored, and whole; remembers what `path` holds."""
        key = hashlib.blake2b(data, digest_size=16).hexdigest().encode()
        with self._lock:
            self._keys[path] = key
            record = self._known.get(key)
            if record is None or key in self._checked:
                return record is not None or key in self._waiting
        pixels = os.pread(self._pixels, 3 * int(record["height"]) * int(record["width"]), int(record["at"]))
        whole = zlib.crc32(pixels) == int(record["sum"])
        with self._lock:
            if whole:
                self._checked.add(key)
            else:
                self._known.pop(key, None)
        return whole

    def add(self, path: Path, image_HWC: Image) -> None:
        """Store the picture of a file that `find` has seen, if there is room; it is on the disk after `flush`."""
        data = image_HWC.tobytes()
        record = np.zeros(1, RECORD)[0]
        record["sum"] = zlib.crc32(data)
        record["height"], record["width"] = image_HWC.shape[:2]
        with self._lock:
            key = self._keys[path]
            if self.full or key in self._waiting:
                self.left_out += bool(self.full)
                return
            record["key"] = key
            self._waiting[key] = record, data
            self._bytes += len(data)
            if self._bytes >= AT_ONCE:
                self._append()

    def flush(self) -> None:
        """Append what waits, and take in what other processes have added."""
        with self._lock:
            self._append()
            self._read()

    def keys(self, paths: Sequence[Path]) -> list[str]:
        """What the files hold, as far as `find` has seen them; else empty."""
        return [self._keys.get(path, b"").decode() for path in paths]

    def learn(self, paths: Sequence[Path], keys: Sequence[str]) -> None:
        """What other processes' `keys` have said of files. Their pixels are checked when they are asked for."""
        self._keys |= {path: key.encode() for path, key in zip(paths, keys, strict=True) if key}

    def of(self, paths: Sequence[Path]) -> StoredPictures:
        """Where the pictures of those files stand."""
        at, sizes = np.full(len(paths), -1, np.int64), np.zeros((len(paths), 2), np.int32)
        for row, path in enumerate(paths):
            record = self._known.get(self._keys.get(path, b""))
            if record is not None and self._is_whole(record):
                at[row], sizes[row] = record["at"], (record["height"], record["width"])
        return StoredPictures(self.folder / "pixels", _inode(os.fstat(self._pixels)), at, sizes)

    @property
    def size(self) -> int:
        """Bytes of pixels on the disk."""
        return os.fstat(self._pixels).st_size

    def _is_whole(self, record: np.void) -> bool:
        key = bytes(record["key"])
        if key not in self._checked:
            pixels = os.pread(
                self._pixels, 3 * int(record["height"]) * int(record["width"]), int(record["at"])
            )
            if zlib.crc32(pixels) == int(record["sum"]):
                self._checked.add(key)
        return key in self._checked

    def _append(self) -> None:
        waiting, self._waiting, self._bytes = self._waiting, {}, 0
        if not waiting:
            return
        try:
            with self._locked_index() as index:
                at, room = self.size, self._make_room(sum(len(data) for _, data in waiting.values()))
                for record, data in waiting.values():
                    if len(data) > room:
                        self.full = (
                            self.full or f"they may take {self.limit / 1e9:g} GB (data.cache_gigabytes)"
                        )
                        self.left_out += 1
                        continue
                    record["at"] = at
                    _write_all(self._pixels, data, at)
                    at, room = at + len(data), room - len(data)
                    whole = os.fstat(index).st_size // RECORD.itemsize * RECORD.itemsize
                    _write_all(index, record.tobytes(), whole)
                    self._known[bytes(record["key"])] = record
                    self._checked.add(bytes(record["key"]))
                    self.added += 1
        except OSError as error:
            self.full = f"the disk says: {error.strerror or error}"
            self.left_out += sum(key not in self._known for key in waiting)

    def _make_room(self, wanted: int) -> int:
        """Bytes that may be added now; other stores go first where `wanted` is more."""
        others = []
        for folder in self.folder.parent.iterdir():
            with contextlib.suppress(OSError):
                if folder != self.folder and (folder / "in-use").exists():
                    used = (folder / "in-use").stat().st_mtime
                    others.append((used, (folder / "pixels").stat().st_size, folder))
        taken = self.size + sum(size for _, size, _ in others)
        for _, size, folder in sorted(others):
            if taken + wanted <= self.limit:
                break
            taken -= size if _delete_unused(folder) else 0
        free = shutil.disk_usage(self.folder).free - self.reserve
        if free < min(wanted, self.limit - taken):
            self.full = f"{self.reserve / 1e9:.1f} GB of the disk are left to other things"
        return min(self.limit - taken, free)

    def _read(self) -> None:
        """Take in the records that are new; of two for one file the later one counts."""
        try:
            with (self.folder / "index").open("rb") as file:
                file.seek(self._read_to)
                data = file.read()
        except FileNotFoundError:
            return
        records = np.frombuffer(data, RECORD, count=len(data) // RECORD.itemsize)
        self._read_to += len(records) * RECORD.itemsize
        end = self.size
        for record in records:
            sides = int(record["height"]) * int(record["width"])
            if sides > 0 and int(record["at"]) + 3 * sides <= end:
                self._known[bytes(record["key"])] = record

    @contextlib.contextmanager
    def _locked_index(self) -> Iterator[int]:
        handle = os.open(self.folder / "index", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield handle
        finally:
            os.close(handle)


_maps: dict[Path, tuple[tuple[int, int], Image]] = {}


def _mapped(path: Path, inode: tuple[int, int]) -> Image | None:
    """The whole file, mapped once a process; None if it is no longer that file."""
    known = _maps.get(path)
    if known is None or known[0] != inode:
        try:
            with path.open("rb") as file:
                if _inode(os.fstat(file.fileno())) != inode:
                    return None
                known = inode, np.memmap(file, np.uint8, "r")
        except (OSError, ValueError):  # ValueError: empty
            return None
        _maps[path] = known
    return known[1]


def _inode(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _delete_unused(folder: Path) -> bool:
    """Delete a store unless some process has it open."""
    handle = os.open(folder / "in-use", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


def _is_there(package: str) -> bool:
    """OpenCV goes by several names."""
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _write_all(handle: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(handle, view, at)
        view, at = view[written:], at + written
