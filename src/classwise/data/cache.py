"""The image cache: decoded images on the disk, so that a file is decoded once and not in every epoch of every run.

A cache is one folder. `pixels` holds images one after the other as uint8; `index` holds a record for each: a hash of
the file's bytes, the offset of its pixels, their size, their checksum and a hash of them. What is cached depends on
nothing but the file's bytes, the requested size and the versions of the decoders, and the folder's name is derived from
the latter two: a cached image is, byte for byte, what decoding would give.

Safe against kill, full disk and power cuts: pixels are written before their record; an image is used only once its
pixels have been verified by their checksum; half a record at the end is overwritten. Several processes may add images
at the same time: each locks the index while it appends. What exceeds the limit or the disk, or cannot be read back, is
decoded each time. Why it is done this way: docs/decisions/0022-cache.md.
"""

import contextlib
import dataclasses
import errno
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
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from classwise.data.cache_files import (
    close_all,
    delete_unused,
    inode_of,
    lock_file,
    open_cache,
    open_file,
    user_id,
    write_all,
)
from classwise.data.cache_verify import are_intact, byte_counts, is_intact
from classwise.data.pixel_format import FACTS_FIELDS, RGB, ImageFacts, PixelFormat, facts_of
from classwise.data.record_table import RecordTable
from classwise.files import is_address, user_cache

Image = npt.NDArray[np.uint8]
# What `index` holds of each image: `at` is the offset of its first byte in `pixels`.
RECORD = np.dtype(
    [
        ("key", "S32"),
        ("at", "<u8"),
        ("height", "<u4"),
        ("width", "<u4"),
        ("channels", "<u2"),
        ("sum", "<u4"),
        ("pixels_key", "S16"),
        *FACTS_FIELDS,
    ]
)
# And OpenCV, which is distributed under several package names.
DECODERS = ("simplejpeg", "pillow", "numpy", "tifffile", "imagecodecs")
OPTIONAL_DECODERS = ("pi-heif",)
VERSION = 5  # of what is done to an image before it is cached, and of RECORD
APPEND_IMAGES = 8192  # as many at most, however small
LOCATED_AT_ONCE = 65_536  # images
READ_AT_ONCE = 65_536  # records of the index
WRITE_BYTES = 2**20  # of several small images that are written by one call
APPEND_BYTES = 32 * 2**20  # pixels are collected in memory up to this size and then appended
RESERVE = 2 * 2**30  # bytes of the disk that are left free for other things, above all checkpoints


def default_base() -> Path:
    """The folder of all image caches, in the user's cache directory. Raises OSError as `user_cache` does."""
    return user_cache() / "pictures"


def cache_folder(
    base: Path, root: Path, min_size: tuple[int, int], max_pixels: int, pixels: PixelFormat = RGB
) -> Path:
    """The folder below `base` for this user's images below `root`, decoded by these versions of the decoders with
    `min_size`, `max_pixels` and `pixels` as in `read_image`."""
    root = root if is_address(root) else root.resolve()
    identity = repr(
        (VERSION, decoder_versions(), str(root), tuple(min_size), max_pixels, tuple(pixels), user_id())
    )
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    name = "".join(c if c.isalnum() and c.isascii() else "-" for c in root.name)[:40]
    return base / f"{name}-{min_size[0]}x{min_size[1]}-{digest}"


def decoder_versions() -> list[str]:
    """What decodes images here, each with its version."""
    versions = [f"opencv {cv2.__version__}", *(f"{n} {importlib.metadata.version(n)}" for n in DECODERS)]
    for name in OPTIONAL_DECODERS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{name} {importlib.metadata.version(name)}")
    return versions


def content_key(data: bytes) -> bytes:
    """A hash of a file's bytes, 32 hexadecimal digits: the key of its image in the cache."""
    return hashlib.blake2b(data, digest_size=16).hexdigest().encode()


def pixels_key(image_HWC: Image) -> bytes:
    """A hash of a decoded image, 16 hexadecimal digits: the same for a PNG and a BMP that hold the same pixels."""
    # Of hashlib's functions the fastest one, with and without instructions for it; nobody gains by a collision here.
    digest = hashlib.sha1(repr(image_HWC.shape).encode(), usedforsecurity=False)
    digest.update(np.ascontiguousarray(image_HWC).data)
    return digest.hexdigest()[:16].encode()


Entry = tuple[Any, ...]
"""The fields of a RECORD."""


@dataclass(frozen=True)
class CachedImages:
    """Where the pixels of N images are. It is sent to loader workers; the file is mapped when it is first used.

    pixels: the file; inode: its (device, inode) numbers, so that a file put in its place meanwhile is not read.
    at: (N,) the offset of each image's first byte, -1 if it is not cached. sizes: (N, 3) height, width and channels.
    """

    pixels: Path
    inode: tuple[int, int]
    at: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int32]

    def get(self, row: int) -> Image | None:
        """(height, width, channels), read-only; None if the image is not cached, or is no longer."""
        at = int(self.at[row])
        if at < 0:
            return None
        height, width, channels = self.sizes[row].tolist()
        end = at + height * width * channels
        mapped = _mapped(self.pixels, self.inode, end)
        return None if mapped is None else mapped[at:end].reshape(height, width, channels)

    def take(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> "CachedImages":
        """Those of these rows only, in this order."""
        return dataclasses.replace(self, at=self.at[rows], sizes=self.sizes[rows])

    def with_images(self, more: "CachedImages") -> "CachedImages":
        """These, and after them others of the same cache."""
        assert (self.pixels, self.inode) == (more.pixels, more.inode)
        at, sizes = np.concatenate([self.at, more.at]), np.concatenate([self.sizes, more.sizes])
        return dataclasses.replace(self, at=at, sizes=sizes)


class ImageCache:
    """A cache in which images are looked up and to which they are added, by any number of threads and processes.

    limit: bytes that all caches below the same base may take together. The least recently used of the others are
    deleted to make room, unless a run has them open.
    reserve: bytes of the disk to leave free.

    The folder is private to its user. Raises OSError if it cannot be made or read, or belongs to somebody else.
    """

    def __init__(self, folder: Path, limit: int, reserve: int = RESERVE) -> None:
        self.folder, self.limit, self.reserve = folder, limit, reserve
        self.full = ""
        """Why nothing more is cached; empty while there is room."""
        self.added = 0
        self.already_there = 0
        self.left_out = 0
        # As far as the index has been read; verified are those whose pixels agree with their checksum.
        self._records = RecordTable(RECORD)
        self._pending: dict[bytes, tuple[Entry, bytes]] = {}  # by key: record and pixels, not yet appended
        self._pending_bytes = 0
        self._index_read_to = 0
        self._counted_by_forks = 0  # images that forked processes have counted and this one has not read yet
        self._lock = threading.Lock()
        # While `in-use` is locked, no other process deletes the cache (see `_make_room`).
        self._opened = open_cache(folder)
        self._pixels = self._opened["pixels"]
        self._inode = inode_of(os.fstat(self._pixels))
        self._closed = weakref.finalize(self, _close, self._opened, folder / "pixels")
        self._read_index()

    def __str__(self) -> str:
        text = f"images: {self.added} decoded and kept"
        if self.already_there:
            text += f", {self.already_there} were there already"
        if self.left_out:
            text += f"; {self.left_out} not kept, since {self.full}"
        with contextlib.suppress(OSError):
            text += f"; {self.size / 1e6:,.1f} MB in {self.folder}"
        return text

    def close(self) -> None:
        """Allow others to delete the cache from now on; images that are mapped stay readable. May be called twice."""
        self._pixels = -1  # the handle's number will soon be another file's
        self._closed()

    def find(self, key: bytes) -> tuple[bytes, ImageFacts] | None:
        """The `pixels_key` of the image of the file with this `content_key`, and what else that file holds; None unless
        it is cached, and its pixels are intact."""
        with self._lock:
            record = self._records.get(key)
            if record is None:
                entry, _ = self._pending.get(key, (None, b""))
                return None if entry is None else _known_of(np.array([entry], RECORD)[0])
            if self._records.is_verified(key):
                return _known_of(record)

        # Outside of the lock: reading the pixels takes long, and other threads can verify others meanwhile.
        is_whole = is_intact(self._pixels, record)
        with self._lock:
            if not self._records.is_verified(key):  # otherwise another thread was faster
                if is_whole:
                    self._records.verify(key)
                    self.already_there += 1
                else:
                    self._records.drop(key)
        return _known_of(record) if is_whole else None

    def add(self, key: bytes, image_HWC: Image, facts: ImageFacts = ImageFacts()) -> bytes:  # noqa: B008 - immutable
        """Cache an image that `find` did not find, if there is room, and return its `pixels_key`. It is in the file
        after `flush`."""
        data = image_HWC.tobytes()
        pixels = pixels_key(image_HWC)
        entry = (key, 0, *image_HWC.shape, zlib.crc32(data), pixels, *facts)
        with self._lock:
            if self.full or key in self._pending:
                self.left_out += bool(self.full)
                return pixels
            self._pending[key] = entry, data
            self._pending_bytes += len(data)
            if self._pending_bytes >= APPEND_BYTES or len(self._pending) >= APPEND_IMAGES:
                self._append()
        return pixels

    def flush(self) -> None:
        """Append the images that are still in memory, and read the records that other processes have added."""
        with self._lock:
            self._append()
            try:
                self._read_index()
            except OSError as error:
                self.full = self.full or f"the disk says: {error.strerror or error}"

    def find_many(self, keys_N: npt.NDArray[np.bytes_]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.void]]:
        """`find` of many: (N,) which of the images are in the files and intact, and the records of those."""
        with self._lock:
            unread, records = self._unread(keys_N)
        are_whole = are_intact(self._pixels, records)  # outside of the lock, as in `find`
        with self._lock:
            self._note_read(unread, are_whole)
            number_N = self._verified_numbers(keys_N)
            is_found_N = number_N >= 0
            return is_found_N, self._records.records_of(number_N[is_found_N])

    def locate(self, keys: Sequence[bytes] | npt.NDArray[np.bytes_]) -> CachedImages:
        """Where the images of the files with these keys are; each is verified first."""
        keys = np.asarray(keys, RECORD["key"])
        at = np.full(len(keys), -1, np.int64)
        sizes = np.zeros((len(keys), 3), np.int32)
        for first in range(0, len(keys), LOCATED_AT_ONCE):
            is_found, records = self.find_many(keys[first : first + LOCATED_AT_ONCE])
            rows = first + np.flatnonzero(is_found)
            at[rows] = records["at"]
            for column, name in enumerate(("height", "width", "channels")):
                sizes[rows, column] = records[name]
        return CachedImages(self.folder / "pixels", self._inode, at, sizes)

    def leave_out(self, images: int) -> bool:
        """Whether nothing more is cached; then so many images more are counted that are not kept."""
        with self._lock:
            self.left_out += images if self.full else 0
            return bool(self.full)

    def ended(self) -> list[Any]:
        """In a forked process: append what is still in memory, and return what `add_counts` takes in its parent."""
        with self._lock:
            self._append()
        return [self.added, self.already_there, self.left_out, self.full]

    def add_counts(self, counts: list[Any]) -> None:
        """Count what a forked process has done, as `ended` has returned it."""
        added, already_there, left_out, full = counts
        self.added += added
        self.already_there += already_there
        self.left_out += left_out
        self.full = self.full or full
        self._counted_by_forks += added + already_there

    def forget(self) -> None:
        """Free the memory of all records, of which a million take a hundred megabytes. No image is looked up or added
        any more."""
        with self._lock:
            self._records = RecordTable(RECORD)

    @property
    def size(self) -> int:
        """Bytes of pixels on the disk. Raises OSError."""
        return os.fstat(self._pixels).st_size

    def _unread(self, keys_N: npt.NDArray[np.bytes_]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.void]]:
        """The numbers of the records with these keys whose pixels have not been read yet, and the records."""
        number_N = self._records.numbers_of(keys_N)
        unread = np.unique(number_N[number_N >= 0])
        unread = unread[~self._records.are_verified(unread)]
        return unread, self._records.records_of(unread)

    def _note_read(self, number_N: npt.NDArray[np.int64], is_whole_N: npt.NDArray[np.bool_]) -> None:
        """Remember what reading the pixels of these has shown, unless another thread was faster."""
        is_new_N = ~self._records.are_verified(number_N)
        self._records.verify_many(number_N[is_new_N & is_whole_N])
        self._records.drop_many(number_N[is_new_N & ~is_whole_N])
        count = int((is_new_N & is_whole_N).sum())
        by_forks = min(count, self._counted_by_forks)
        self._counted_by_forks -= by_forks
        self.already_there += count - by_forks

    def _verified_numbers(self, keys_N: npt.NDArray[np.bytes_]) -> npt.NDArray[np.int64]:
        """(N,) the numbers of the records of images that are known to be intact, others -1."""
        number_N = self._records.numbers_of(keys_N)
        number_N[~self._records.are_verified(number_N)] = -1
        return number_N

    def _append(self) -> None:
        """Append the pending images to the files, as far as there is room."""
        pending = self._pending
        self._pending = {}
        self._pending_bytes = 0
        if not pending:
            return
        try:
            with self._locked_index() as index:
                # Another run may have cached some of the same images meanwhile.
                self._read_index()
                new = self._not_there(pending)

                room = self._make_room(sum(len(data) for _, data in new))
                fitting: list[tuple[Entry, bytes]] = []
                for entry, data in new:
                    if len(data) > room:
                        limit = f"they may take {self.limit / 1e9:g} GB (data.cache_gigabytes)"
                        self.full = self.full or limit
                        self.left_out += 1
                        continue
                    room -= len(data)
                    fitting.append((entry, data))
                for batch in _batches(fitting):
                    self._write(batch, index)
        except OSError as error:
            self.full = f"the disk says: {error.strerror or error}"
            self.left_out += sum(key not in self._records for key in pending)

    def _not_there(self, pending: dict[bytes, tuple[Entry, bytes]]) -> list[tuple[Entry, bytes]]:
        """The pending images that no other process has cached meanwhile; the others are counted as there."""
        there_before = self.already_there
        keys = np.array(list(pending), RECORD["key"])
        unread, records = self._unread(keys)
        self._note_read(unread, are_intact(self._pixels, records))
        number_N = self._verified_numbers(keys)
        self.already_there = there_before + int((number_N >= 0).sum())
        return [
            image for image, number in zip(pending.values(), number_N.tolist(), strict=True) if number < 0
        ]

    def _write(self, images: Sequence[tuple[Entry, bytes]], index: int) -> None:
        """Append images, each with its record and pixels, by two calls however small they are. Raises OSError."""
        records = np.empty(len(images), RECORD)
        for name, column in zip(
            RECORD.names or (), zip(*(entry for entry, _ in images), strict=True), strict=True
        ):
            records[name] = column  # twice as fast as the tuples themselves
        begin = self.size
        sizes = np.array([len(data) for _, data in images])
        records["at"] = begin + np.cumsum(sizes) - sizes
        # The pixels first: a record without its pixels would be wrong, the reverse only wastes space.
        write_all(self._pixels, b"".join(data for _, data in images), begin)
        whole_records = os.fstat(index).st_size // RECORD.itemsize
        write_all(index, records.tobytes(), whole_records * RECORD.itemsize)
        self._records.put(records)
        self._records.verify_many(self._records.numbers_of(records["key"]))
        self.added += len(images)

    def _make_room(self, wanted: int) -> int:
        """Bytes that may be added now; if `wanted` is more, other caches are deleted first."""
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
            taken -= size if delete_unused(folder) else 0
        free = shutil.disk_usage(self.folder).free - self.reserve
        if free < min(wanted, self.limit - taken):
            self.full = f"{self.reserve / 1e9:.1f} GB of the disk are left free for other things"
        return min(self.limit - taken, free)

    def _read_index(self) -> None:
        """Read the records that are new. Of two records with the same key the later one counts, unless the image of the
        first has been verified. Raises OSError."""
        index = self._open_index()
        try:
            count = (os.fstat(index).st_size - self._index_read_to) // RECORD.itemsize
            self._records.reserve(count)
            for first in range(0, count, READ_AT_ONCE):
                wanted = min(READ_AT_ONCE, count - first) * RECORD.itemsize
                data = os.pread(index, wanted, self._index_read_to)
                records = np.frombuffer(data, RECORD, count=len(data) // RECORD.itemsize)
                self._index_read_to += len(records) * RECORD.itemsize

                # A record that points beyond the file, after a power cut, say, is ignored.
                sizes = byte_counts(records)
                is_whole = (sizes > 0) & (records["at"] + sizes <= self.size)
                self._records.add_read(records[is_whole])
        finally:
            os.close(index)

    def _open_index(self) -> int:
        """Raises OSError; also if the cache was deleted and another run has made it again."""
        if inode_of(os.fstat(self._opened["in-use"])) != inode_of((self.folder / "in-use").stat()):
            raise OSError(errno.ESTALE, "deleted meanwhile", str(self.folder))
        return open_file(self.folder / "index")

    @contextlib.contextmanager
    def _locked_index(self) -> Iterator[int]:
        handle = self._open_index()
        try:
            lock_file(handle)
            yield handle
        finally:
            os.close(handle)


def _batches(
    images: Sequence[tuple[Entry, bytes]],
) -> Iterator[Sequence[tuple[Entry, bytes]]]:
    """The images in their order, as many at once as have WRITE_BYTES of pixels."""
    first = size = 0
    for number, (_, data) in enumerate(images, start=1):
        size += len(data)
        if size >= WRITE_BYTES or number == len(images):
            yield images[first:number]
            first, size = number, 0


def _known_of(record: np.void) -> tuple[bytes, ImageFacts]:
    """The hash of the image's pixels, and what else its file holds."""
    return bytes(record["pixels_key"]), facts_of(record)


def _close(handles: dict[str, int], pixels: Path) -> None:
    close_all(handles)
    _maps.pop(pixels, None)


# The mapped files of this process: by path, the file's inode and its bytes.
_maps: dict[Path, tuple[tuple[int, int], Image]] = {}


def _mapped(path: Path, inode: tuple[int, int], end: int) -> Image | None:
    """The whole file, at least `end` bytes, mapped once a process and again when it has grown; None if it is shorter,
    or no longer the file with this `inode`."""
    mapping = _maps.get(path)
    if mapping is None or mapping[0] != inode or len(mapping[1]) < end:
        try:
            with path.open("rb") as file:
                if inode_of(os.fstat(file.fileno())) != inode:
                    return None
                mapping = inode, np.memmap(file, np.uint8, "r")
        except (OSError, ValueError):  # ValueError: an empty file
            return None
        _maps[path] = mapping
    return mapping[1] if len(mapping[1]) >= end else None
