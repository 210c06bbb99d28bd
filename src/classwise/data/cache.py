"""Decoded images on the disk, so that a file is decoded once and not in every epoch of every run.

A store is one folder: `pixels` holds images one behind the other as uint8, `index` a record for each: a hash of the
file's bytes, where its pixels stand, their size, and their checksum. What is stored depends on nothing but the file's
bytes, the size that was asked for and the decoders' versions, which the folder's name stands for: an image from the
store is, byte for byte, what decoding would give.

Safe against kill, full disk and power cuts: pixels are written before their record; an image is used only once its
pixels have been checked against their sum; half a record at the end is written over. Several processes may add at
once: each locks the index for the moment of appending. What does not fit the limit or the disk, or cannot be read
again, is decoded each time. Why so: docs/decisions/0022-cache.md.
"""

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import importlib.metadata
import os
import shutil
import threading
import weakref
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
RECORD = np.dtype([("key", "S32"), ("at", "<u8"), ("height", "<u4"), ("width", "<u4"), ("sum", "<u4")])
DECODERS = ("simplejpeg", "pillow", "numpy")  # and OpenCV, which goes by several package names
VERSION = 2  # of what is done to an image before it is stored
AT_ONCE = 32 * 2**20  # bytes of pixels that wait in memory until they are appended
RESERVE = 2 * 2**30  # bytes of the disk that are left to others: checkpoints, above all


def default_base() -> Path:
    """Where programs keep what they can make again: $XDG_CACHE_HOME or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "classwise" / "pictures"


def cache_folder(base: Path, root: Path, min_size: tuple[int, int], max_pixels: int) -> Path:
    """The folder below `base` for this user's images below `root`, of at most `max_pixels`, none smaller than
    `min_size`, as these versions of the decoders make them."""
    versions = [f"opencv {cv2.__version__}", *(f"{n} {importlib.metadata.version(n)}" for n in DECODERS)]
    facts = repr((VERSION, versions, str(root.resolve()), tuple(min_size), max_pixels, os.geteuid()))
    name = "".join(c if c.isalnum() and c.isascii() else "-" for c in root.resolve().name)[:40]
    return base / f"{name}-{min_size[0]}x{min_size[1]}-{hashlib.sha256(facts.encode()).hexdigest()[:16]}"


def content_key(data: bytes) -> bytes:
    """A hash of a file's bytes, 32 hexadecimal digits: what its image is found by."""
    return hashlib.blake2b(data, digest_size=16).hexdigest().encode()


@dataclass(frozen=True)
class CachedImages:
    """Where the pixels of N images stand. Travels to loader workers; the file is mapped when it is first used.

    `inode` is the file's own: one that somebody has put in its place meanwhile is not read.
    """

    pixels: Path
    inode: tuple[int, int]
    at: npt.NDArray[np.int64]  # first byte of each, -1: not stored
    sizes: npt.NDArray[np.int32]  # (N, 2) height, width

    def get(self, row: int) -> Image | None:
        """(height, width, 3), read-only; None where the image is not stored, or is no longer."""
        at = int(self.at[row])
        if at < 0:
            return None
        height, width = self.sizes[row].tolist()
        end = at + 3 * height * width
        mapped = _mapped(self.pixels, self.inode, end)
        return None if mapped is None else mapped[at:end].reshape(height, width, 3)

    def take(self, rows: Sequence[int]) -> "CachedImages":
        """Those of some rows."""
        return dataclasses.replace(self, at=self.at[rows], sizes=self.sizes[rows])


class ImageCache:
    """A store that images are looked up in and added to, from any number of threads and processes.

    `limit`: bytes that all stores below the same base may take together; the least recently used of the others are
    deleted to make room, unless a run has them open. The folder is for its user alone. Raises OSError where it cannot
    be made or read, or is somebody else's.
    """

    def __init__(self, folder: Path, limit: int, reserve: int = RESERVE) -> None:
        self.folder, self.limit, self.reserve = folder, limit, reserve
        self.full = ""
        """Why nothing more is stored; empty while there is room."""
        self.added = self.had = self.left_out = 0
        self._known: dict[bytes, np.void] = {}
        self._checked: set[bytes] = set()
        self._waiting: dict[bytes, tuple[np.void, bytes]] = {}
        self._bytes = self._read_to = 0
        self._lock = threading.Lock()
        # While `in-use` is locked, no other process deletes the store (see `_make_room`).
        self._opened = _open_cache(folder)
        self._pixels = self._opened["pixels"]
        self._inode = _inode(os.fstat(self._pixels))
        self._closed = weakref.finalize(self, _close, self._opened, folder / "pixels")
        self._read()

    def __str__(self) -> str:
        known = f"{self.added} decoded and kept" + (f", {self.had} were there already" if self.had else "")
        left = f"; {self.left_out} not kept, since {self.full}" if self.left_out else ""
        size = ""
        with contextlib.suppress(OSError):
            size = f"; {self.size / 1e6:,.1f} MB in {self.folder}"
        return f"images: {known}{left}{size}"

    def close(self) -> None:
        """Others may delete the store from now on; images that are in use stay. A second time does nothing."""
        self._pixels = -1  # its number will soon be another file's
        self._closed()

    def find(self, key: bytes) -> bool:
        """Whether the image of the file with this `content_key` is stored, and whole."""
        with self._lock:
            record = self._known.get(key)
            if record is None or key in self._checked:
                return record is not None or key in self._waiting
        whole = self._is_whole(record)
        with self._lock:
            if key not in self._checked:  # as another thread may have found
                if whole:
                    self._checked.add(key)
                    self.had += 1
                else:
                    self._known.pop(key, None)
        return whole

    def add(self, key: bytes, image_HWC: Image) -> None:
        """Store an image that `find` has not found, if there is room; it is on the disk after `flush`."""
        data = image_HWC.tobytes()
        record = np.zeros(1, RECORD)[0]
        record["key"], record["sum"] = key, zlib.crc32(data)
        record["height"], record["width"] = image_HWC.shape[:2]
        with self._lock:
            if self.full or key in self._waiting:
                self.left_out += bool(self.full)
                return
            self._waiting[key] = record, data
            self._bytes += len(data)
            if self._bytes >= AT_ONCE:
                self._append()

    def flush(self) -> None:
        """Append what waits, and take in what other processes have added."""
        with self._lock:
            self._append()
            try:
                self._read()
            except OSError as error:
                self.full = self.full or f"the disk says: {error.strerror or error}"

    def of(self, keys: Sequence[bytes]) -> CachedImages:
        """Where the images of the files with those keys stand."""
        at, sizes = np.full(len(keys), -1, np.int64), np.zeros((len(keys), 2), np.int32)
        with self._lock:
            for row, key in enumerate(keys):
                if self._is_known(key):
                    record = self._known[key]
                    at[row], sizes[row] = record["at"], (record["height"], record["width"])
        return CachedImages(self.folder / "pixels", self._inode, at, sizes)

    @property
    def size(self) -> int:
        """Bytes of pixels on the disk. Raises OSError."""
        return os.fstat(self._pixels).st_size

    def _is_whole(self, record: np.void) -> bool:
        """Whether the pixels are those that were written. A disk that cannot read them has not kept them."""
        size = 3 * int(record["height"]) * int(record["width"])
        try:
            pixels = os.pread(self._pixels, size, int(record["at"]))
        except OSError:
            return False
        return len(pixels) == size and zlib.crc32(pixels) == int(record["sum"])

    def _append(self) -> None:
        waiting, self._waiting, self._bytes = self._waiting, {}, 0
        if not waiting:
            return
        try:
            with self._locked_index() as index:
                self._read()
                new = {key: found for key, found in waiting.items() if not self._is_known(key)}
                self.had += len(waiting) - len(new)  # by another run that stores the same
                at, room = self.size, self._make_room(sum(len(data) for _, data in new.values()))
                for key, (record, data) in new.items():
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
                    self._known[key] = record
                    self._checked.add(key)
                    self.added += 1
        except OSError as error:
            self.full = f"the disk says: {error.strerror or error}"
            self.left_out += sum(key not in self._known for key in waiting)

    def _is_known(self, key: bytes) -> bool:
        """Whether the image is there, and whole, perhaps since a moment ago."""
        record = self._known.get(key)
        if record is not None and key not in self._checked and self._is_whole(record):
            self._checked.add(key)
        return key in self._checked

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
        """Take in the records that are new; of two for one file the later one counts, unless the first has been
        found to be whole. Raises OSError."""
        index = self._open_index()
        try:
            size = os.fstat(index).st_size - self._read_to
            data = os.pread(index, size, self._read_to) if size > 0 else b""
        finally:
            os.close(index)
        records = np.frombuffer(data, RECORD, count=len(data) // RECORD.itemsize)
        self._read_to += len(records) * RECORD.itemsize
        end = self.size
        for record in records:
            sides, key = int(record["height"]) * int(record["width"]), bytes(record["key"])
            if sides > 0 and int(record["at"]) + 3 * sides <= end and key not in self._checked:
                self._known[key] = record

    def _open_index(self) -> int:
        """Raises OSError, also where somebody has deleted the store and another run has made it again."""
        if _inode(os.fstat(self._opened["in-use"])) != _inode((self.folder / "in-use").stat()):
            raise OSError(errno.ESTALE, "deleted meanwhile", str(self.folder))
        return _open_file(self.folder / "index")

    @contextlib.contextmanager
    def _locked_index(self) -> Iterator[int]:
        handle = self._open_index()
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield handle
        finally:
            os.close(handle)


def _open_cache(folder: Path) -> dict[str, int]:
    """Handles of the folder, of its pixels, and of `in-use`, locked. Another process may delete the store meanwhile, as
    long as it is not locked: then it is made again."""
    for _ in range(100):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        handles: dict[str, int] = {}
        try:
            handles["folder"] = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            _require_own(handles["folder"], folder)
            with contextlib.suppress(OSError):  # some file systems know no modes
                os.fchmod(handles["folder"], 0o700)
            handles["in-use"] = _open_file(folder / "in-use")
            fcntl.flock(handles["in-use"], fcntl.LOCK_SH)
            handles["pixels"] = _open_file(folder / "pixels")
            if _inode(os.fstat(handles["in-use"])) == _inode((folder / "in-use").stat()):
                os.utime(handles["in-use"])
                return handles
        except FileNotFoundError:
            pass
        except BaseException:
            _close(handles, None)
            raise
        _close(handles, None)
    raise OSError(errno.EBUSY, "others delete it again and again", str(folder))


def _open_file(path: Path) -> int:
    """A file of a store, made if it is not there. A link is refused, and what belongs to somebody else."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        _require_own(handle, path)
    except OSError:
        os.close(handle)
        raise
    return handle


def _require_own(handle: int, path: Path) -> None:
    """What others may write could be swapped for images of their choice."""
    if os.fstat(handle).st_uid != os.geteuid():
        raise OSError(errno.EPERM, "belongs to another user", str(path))


def _close(handles: dict[str, int], pixels: Path | None) -> None:
    for handle in handles.values():
        os.close(handle)
    if pixels is not None:
        _maps.pop(pixels, None)


_maps: dict[Path, tuple[tuple[int, int], Image]] = {}


def _mapped(path: Path, inode: tuple[int, int], end: int) -> Image | None:
    """The whole file, at least `end` bytes, mapped once a process and again when it has grown; None if it is no
    longer that file, or shorter."""
    known = _maps.get(path)
    if known is None or known[0] != inode or len(known[1]) < end:
        try:
            with path.open("rb") as file:
                if _inode(os.fstat(file.fileno())) != inode:
                    return None
                known = inode, np.memmap(file, np.uint8, "r")
        except (OSError, ValueError):  # ValueError: empty
            return None
        _maps[path] = known
    return known[1] if len(known[1]) >= end else None


def _inode(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _delete_unused(folder: Path) -> bool:
    """Delete a store unless some process has it open: its three files, and the folder if that is all it held."""
    try:
        handle = os.open(folder / "in-use", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:  # another process was faster, or it is another user's
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _inode(os.fstat(handle)) != _inode((folder / "in-use").stat()):
            return False  # deleted and made again in between
        for name in ("index", "pixels", "in-use"):
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()
    except OSError:
        return not (folder / "pixels").exists()
    finally:
        os.close(handle)
    return True


def _write_all(handle: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(handle, view, at)
        view, at = view[written:], at + written
