"""One image out of a shard, by a path that goes through the file in which it lies: `shards/train-00000.tar/0001.jpg`.

Such a path is never given to the system: the shard's own is, and the rest is looked up in the shard's index (see
shard_index.py). Each process opens the shards that it reads from, and closes the least recently used.
"""

import functools
import itertools
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from classwise.data.parquet_pages import decompressed
from classwise.data.parquet_shards import parquet_locations, parquet_rows, row_of_name
from classwise.data.shard_files import ShardFile, open_file, refuse_changed
from classwise.data.shard_index import (
    AT,
    EXTRA,
    KEY,
    METHOD,
    NOTHING,
    PAGE,
    RAW,
    SIZE,
    STORED,
    WITHIN,
    Locations,
    find,
    key_of,
    remember,
    remembered_locations,
    remembered_rows,
)
from classwise.data.source_names import SHARD_SUFFIXES
from classwise.data.tar_shards import scan_tar
from classwise.data.zip_shards import header_length, scan_zip, unzipped
from classwise.files import is_address

SUFFIXES = SHARD_SUFFIXES
OPEN_SHARDS = 128
"""Shards that a process keeps open at most."""
PAGE_BYTES = 2**26
"""Of the decompressed pages of Parquet that a process keeps, since rows in order share them; the last one is kept
whatever its size."""
HEADER_BYTES = 1024
"""Read before an entry of a zip, for its local header: 30 bytes, its name, and what may come after that."""
_INSIDE = re.compile(r"(?:\.parquet|\.tar|\.zip)(?=/.)", re.IGNORECASE)


class Member(NamedTuple):
    """An image in a shard: the shard's path, and the image's name in it."""

    shard: Path
    name: str


def member_of(path: str | Path) -> Member | None:
    """The shard through which a path goes; None for any other path."""
    text = path if isinstance(path, str) else str(path)
    for match in _INSIDE.finditer(text):
        shard = text[: match.end()]
        if is_address(text) or _is_file(shard):
            return Member(_path_of(shard), text[match.end() + 1 :])
    return None


@functools.lru_cache(maxsize=1024)
def _path_of(shard: str) -> Path:
    return Path(shard)


def _is_file(path: str) -> bool:
    return path in _opened().shards or os.path.isfile(path)  # noqa: PTH113 - one look-up an image


class Pages:
    """The decompressed pages that were used last, of all shards of a process."""

    def __init__(self) -> None:
        self._pages: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: tuple[int, int]) -> bytes | None:
        """The page with this key, if it is kept."""
        with self._lock:
            if key in self._pages:
                self._pages.move_to_end(key)
            return self._pages.get(key)

    def keep(self, key: tuple[int, int], page: bytes) -> None:
        """Keep a page, and no more of the others than PAGE_BYTES allow."""
        with self._lock:
            if key in self._pages:  # another thread was faster
                return
            self._pages[key] = page
            self._bytes += len(page)
            while self._bytes > PAGE_BYTES and len(self._pages) > 1:
                _, oldest = self._pages.popitem(last=False)
                self._bytes -= len(oldest)


class OpenShard:
    """A shard that this process reads from. `number`: another one for each that it opens."""

    def __init__(self, file: ShardFile, kind: str, number: int, pages: Pages) -> None:
        self.file = file
        self.kind = kind
        self.number = number
        self._pages = pages
        self._locations: Locations | None = None
        self._lock = threading.Lock()

    @property
    def locations(self) -> Locations:
        """Where its images are, looked up once. Raises DataError for a shard that is damaged."""
        with self._lock:
            if self._locations is None:
                self._locations = remembered_locations(self.file)
            if self._locations is None and self.kind == ".parquet":
                self._locations = parquet_locations(self.file)
                remember(self.file, locations=self._locations)
            if self._locations is None:
                self._scan()
            assert self._locations is not None
            return self._locations

    def read_rows(self) -> pl.DataFrame:
        """Its rows as `parquet_rows`, `scan_tar` and `scan_zip` give them. Raises DataError."""
        with self._lock:
            rows = remembered_rows(self.file)
            if rows is None and self.kind == ".parquet":
                rows = parquet_rows(self.file)
                remember(self.file, rows=rows)
            return self._scan() if rows is None else rows

    def _scan(self) -> pl.DataFrame:
        """One walk through an archive tells both its rows and where they are."""
        rows, self._locations = (scan_tar if self.kind == ".tar" else scan_zip)(self.file)
        remember(self.file, self._locations, rows)
        return rows

    def size_of(self, name: str) -> int:
        """How many bytes an image has. Raises KeyError if there is none of this name, ValueError if it has no
        bytes."""
        return self.size_at(self.place_of(name))

    def size_at(self, place: Sequence[int]) -> int:
        """`size_of` what is at a place that `place_of` has found."""
        if place[METHOD] == NOTHING:
            raise ValueError("the row has no image: its bytes are null")
        return place[SIZE]

    def read(self, name: str, size: int | None = None) -> bytes:
        """An image's bytes, or the first `size` of them. Raises KeyError as `size_of`, ValueError for damaged ones,
        and DataError if the shard is cut short or has changed."""
        return self.read_at(self.place_of(name), size)

    def read_at(self, place: Sequence[int], size: int | None = None) -> bytes:
        """`read` of what is at a place that `place_of` has found."""
        wanted = place[SIZE] if size is None else min(size, place[SIZE])
        at, method = place[AT], place[METHOD]
        if self.kind == ".zip":
            crc = place[EXTRA] if wanted == place[SIZE] else -1
            return unzipped(self._zipped(at, place[STORED]), method, wanted, crc)
        if method == RAW:
            return self.file.read(at, wanted)
        page = self._page(at, place[STORED], method - PAGE, place[EXTRA])
        return page[place[WITHIN] : place[WITHIN] + wanted]

    def place_of(self, name: str) -> list[int]:
        """The column of the locations of an image. Raises KeyError if there is none of this name."""
        locations = self._locations if self._locations is not None else self.locations
        place = find(locations, row_of_name(name) if self.kind == ".parquet" else key_of(name))
        if place is None:
            raise KeyError(name)
        numbers: list[int] = place.tolist()
        return numbers

    def places_of(self, keys: npt.NDArray[np.uint64]) -> list[list[int] | None]:
        """`place_of` many images, by their keys; None where there is none."""
        locations = self.locations
        at_N = np.searchsorted(locations[KEY], keys)
        is_there_N = at_N < locations.shape[1]
        is_there_N[is_there_N] = locations[KEY][at_N[is_there_N]] == keys[is_there_N]
        columns = iter(locations[:, at_N[is_there_N]].T.tolist())
        return [next(columns) if is_there else None for is_there in is_there_N.tolist()]

    def _zipped(self, at: int, stored: int) -> bytes:
        """An entry's bytes as they are stored. How long the header before them is, it tells itself: what most need at
        the most is read at once."""
        data = self.file.read(at, min(HEADER_BYTES + stored, self.file.size - at))
        begin = header_length(data)
        if begin + stored > len(data):
            data = self.file.read(at, min(begin + stored, self.file.size - at))
        return data[begin : begin + stored]

    def _page(self, at: int, stored: int, codec: int, size: int) -> bytes:
        """A decompressed page of Parquet."""
        page = self._pages.get((self.number, at))
        if page is None:
            page = decompressed(self.file.read(at, stored), codec, size)
            self._pages.keep((self.number, at), page)
        return page


class _Opened:
    """The shards that one process has open."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.shards: OrderedDict[str, OpenShard] = OrderedDict()
        self.pages = Pages()
        self.numbers = itertools.count()
        self.lock = threading.Lock()

    def get(self, path: Path) -> OpenShard:
        key = str(path)
        with self.lock:
            shard = self.shards.get(key)
            if shard is None:
                number = next(self.numbers)
                shard = OpenShard(open_file(path), path.suffix.lower(), number, self.pages)
                self.shards[key] = shard
                while len(self.shards) > OPEN_SHARDS:
                    self.shards.popitem(last=False)  # closed with its last reader
            self.shards.move_to_end(key)
            return shard


_current = _Opened()


def _opened() -> _Opened:
    """Those of this process: a forked one opens its own, since connections and locks cannot be shared."""
    global _current
    if _current.process != os.getpid():
        _current = _Opened()
    return _current


def open_shard(path: Path, stamp: str | None = None) -> OpenShard:
    """The shard, opened when this process first needs it. `stamp`: what it has to be. Raises DataError if the shard
    is missing or has changed."""
    shard = _opened().get(path)
    if stamp is not None:
        refuse_changed(shard.file.name, stamp, shard.file.stamp)
    return shard


def opened_anew(path: Path) -> OpenShard:
    """The shard as it is now, for whoever reads its rows: one that is open from before may have changed."""
    opened = _opened()
    with opened.lock:
        opened.shards.pop(str(path), None)
    return opened.get(path)


def forget_opened() -> None:
    """Close all shards of this process."""
    global _current
    _current = _Opened()
