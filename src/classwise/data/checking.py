"""Every image checked once before a run relies on it, in threads or, where images are small, in processes."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from classwise.allocator import return_free_memory
from classwise.data.cache import ImageCache, content_key, pixels_key
from classwise.data.decode import decode
from classwise.data.forked import CAN_FORK, core_count, results_of_forks
from classwise.data.image_file import Folders, Unreadable, file_size, read_file, read_members
from classwise.data.images import MAX_PIXELS
from classwise.data.pixel_format import RGB, ImageFacts, PixelFormat, special_facts
from classwise.data.record_table import hex_of_bytes
from classwise.data.row_paths import RowPaths
from classwise.data.shard_checks import Decoding, keep_checks, new_records, recall_checks
from classwise.data.shard_files import Shards
from classwise.data.shard_rows import NO_KEY, RowsOfShard, rows_by_shard
from classwise.errors import ImageError

IMAGES_PER_TASK = 64
SMALL_PER_TASK = 512
TASKS_PER_SLICE = 64
PLAIN = ImageFacts()
PROBED = 8
"""Images whose size is looked at."""
SMALL_BYTES = 1024
REMOTE_THREADS = 16
"""Images that are fetched at the same time."""
FORKED_FROM = 20_000
"""Small images that are divided among processes."""
KEYS_PER_BLOCK = 8192


class ImageHashes(NamedTuple):
    """The `content_key` of an image file, and the `pixels_key` of its decoded image: files with different bytes (a
    PNG and a BMP, say) may hold the same pixels. Beside them what else the file holds."""

    file: bytes
    pixels: bytes
    facts: ImageFacts = ImageFacts()


@dataclass(frozen=True)
class Checked:
    """The result of `check_images`, of N paths: `bad` has the error of each bad file, in the order of the paths. By
    path, of which bad ones have empty hashes: `files` (N,) the `content_key` of the file and `pixels` (N,) the
    `pixels_key` of its image. `facts`: of those files that hold anything beside plain 8-bit samples."""

    bad: list[ImageError]
    files: npt.NDArray[np.bytes_]
    pixels: npt.NDArray[np.bytes_]
    facts: dict[Path, ImageFacts]

    @property
    def good_rows(self) -> npt.NDArray[np.int64]:
        """The numbers of the paths whose images can be used."""
        return np.flatnonzero(self.files != b"")


def check_image(
    path: Path,
    max_pixels: int = MAX_PIXELS,
    root: Folders = None,
    min_size: tuple[int, int] | None = None,
    cache: ImageCache | None = None,
    pixels: PixelFormat = RGB,
) -> ImageHashes:
    """Reads a file as `read_image` does, makes sure that the image cache, if there is one, has its image, and returns
    its hashes. Raises ImageError."""
    try:
        kind, data = read_file(path, max_pixels, root)
        key = content_key(data)
        found = None if cache is None else cache.find(key)
        if found is not None:
            return ImageHashes(key, *found)
        return _decoded(kind, data, key, Decoding(max_pixels, min_size, pixels), cache)
    except Unreadable as error:
        raise ImageError(path, str(error)) from None


def _decoded(kind: str, data: bytes, key: bytes, decoding: Decoding, cache: ImageCache | None) -> ImageHashes:
    """The hashes of an image that the cache, if there is one, has not: it is decoded and added. Raises Unreadable."""
    image_HWC, facts = decode(
        kind, data, max_pixels=decoding.max_pixels, min_size=decoding.min_size, pixels=decoding.pixels
    )
    image_HWC = np.require(image_HWC, np.uint8, ["C"])
    pixels_hash = pixels_key(image_HWC) if cache is None else cache.add(key, image_HWC, facts)
    return ImageHashes(key, pixels_hash, facts)


class _Task(NamedTuple):
    """Rows (n,) whose images are checked together: of one shard, whose index has them by `keys`, or of files. They
    `are_known` if they are only decoded once more for the cache."""

    rows: npt.NDArray[np.int64]
    shard: Path | None = None
    keys: npt.NDArray[np.uint64] | None = None
    are_known: bool = False


class _Found(NamedTuple):
    """What a task has found, by its rows (n,): the hashes, empty where there is an error, and by the number of a row
    in the task its error, or what its file holds beside plain samples."""

    files: npt.NDArray[np.bytes_]
    pixels: npt.NDArray[np.bytes_]
    facts: dict[int, ImageFacts]
    reasons: dict[int, str]


@dataclass(frozen=True)
class _Check:
    """How the images of `paths` are checked."""

    paths: Sequence[Path]
    decoding: Decoding
    root: Folders
    cache: ImageCache | None

    def run(self, task: _Task) -> _Found | None:
        """The result of a task; None for images that are known and only wanted by a cache that takes no more."""
        if task.are_known and self.cache is not None and self.cache.leave_out(len(task.rows)):
            return None
        count = len(task.rows)
        found = _Found(np.zeros(count, "S32"), np.zeros(count, "S16"), facts={}, reasons={})
        for number in self._of_shard(task, found) if task.shard is not None else range(count):
            self._one(int(task.rows[number]), number, found)
        return found

    def _one(self, row: int, number: int, found: _Found) -> None:
        decoding = self.decoding
        try:
            hashes = check_image(
                self.paths[row],
                decoding.max_pixels,
                root=self.root,
                min_size=decoding.min_size,
                cache=self.cache,
                pixels=decoding.pixels,
            )
        except ImageError as error:
            found.reasons[number] = error.reason
        else:
            _note(number, hashes, found)

    def _of_shard(self, task: _Task, found: _Found) -> list[int]:
        """Check images of a shard without a path of each. Returns the numbers of those with which anything is wrong:
        they are looked at again one by one, which tells what."""
        assert task.shard is not None
        assert task.keys is not None
        assert isinstance(self.root, Shards)
        members = read_members(task.shard, task.keys, self.root)
        wrong = [number for number, member in enumerate(members) if member is None]
        keys_n = np.array([b"" if member is None else content_key(member[1]) for member in members], "S32")
        is_cached_n = np.zeros(len(members), bool)
        if self.cache is not None:
            is_cached_n, records = self.cache.find_many(keys_n)
            found.files[is_cached_n], found.pixels[is_cached_n] = keys_n[is_cached_n], records["pixels_key"]
            numbers = np.flatnonzero(is_cached_n).tolist()
            found.facts.update({numbers[at]: facts for at, facts in special_facts(records).items()})
        keys = keys_n.tolist()
        for number in np.flatnonzero(~is_cached_n).tolist():
            member = members[number]
            if member is None:
                continue
            kind, data = member
            try:
                _note(number, _decoded(kind, data, keys[number], self.decoding, self.cache), found)
            except Unreadable:
                wrong.append(number)
        return sorted(wrong)


def _note(number: int, hashes: ImageHashes, found: _Found) -> None:
    found.files[number], found.pixels[number] = hashes.file, hashes.pixels
    if hashes.facts != PLAIN:
        found.facts[number] = hashes.facts


def check_images(
    paths: Sequence[Path],
    max_pixels: int = MAX_PIXELS,
    threads: int | None = None,
    root: Folders = None,
    progress: Callable[[Sequence[int]], Iterable[int]] | None = None,
    min_size: tuple[int, int] | None = None,
    cache: ImageCache | None = None,
    pixels: PixelFormat = RGB,
    remember: bool = False,
) -> Checked:
    """Decodes every file once, in threads. With a `cache` (for the same `min_size` and `pixels` as in `read_image`)
    the images are added to it, and those that it holds are not decoded.

    A path that occurs several times is read once and reported once. `threads` defaults to one a core, at most 16;
    to one for images of a few hundred bytes, many of which are divided among processes, and to more where each waits
    for a server most of the time. `progress` wraps the numbers of the distinct paths, as `tqdm` and
    `rich.progress.track` do. With `remember`, images in shards whose check is remembered are not read again, and those
    that are checked now are remembered (see shard_checks.py).
    """
    first_N = first_rows(paths)
    distinct = np.flatnonzero(first_N == np.arange(len(paths)))
    check = _Check(paths, Decoding(max_pixels, min_size, pixels), root, cache)
    result = _Result(np.zeros(len(paths), "S32"), np.zeros(len(paths), "S16"))
    shown = iter(progress(range(len(distinct))) if progress else range(len(distinct)))
    if threads is None:
        threads = _threads_for(paths, distinct, root)

    # What is remembered; of that, images are decoded again only for the cache.
    shards, parts = None, []
    if isinstance(root, Shards) and isinstance(paths, RowPaths):
        shards, parts = root, list(rows_by_shard(paths, distinct, root))
    is_known_N = np.zeros(len(paths), bool)
    is_done_N = np.zeros(len(paths), bool)
    if shards is not None and remember:
        for part in parts:
            known = recall_checks(part.shard, shards, check.decoding)
            is_known_N[part.rows] = result.take_remembered(part, known, paths)
        is_done_N[is_known_N] = _are_cached(result.files[is_known_N], cache, threads)
        _count(shown, int(is_done_N.sum()))

    # All others.
    is_open_N = np.zeros(len(paths), bool)
    is_open_N[distinct] = True
    is_open_N &= ~is_done_N
    per_task = SMALL_PER_TASK if threads == 1 else IMAGES_PER_TASK
    per_task = max(1, min(per_task, int(is_open_N.sum()) // (8 * threads)))
    tasks = list(_tasks(parts, is_open_N, is_known_N, per_task))
    for task, found in zip(tasks, _results(check, tasks, threads), strict=True):
        if found is not None:
            result.take(task, found, paths)
        _count(shown, len(task.rows))
    _count(shown, 1)  # so that a bar ends

    if shards is not None and remember:
        is_new_N = (result.files != b"") & ~is_known_N
        for part in parts:
            keep_checks(part.shard, shards, check.decoding, result.records_of(part, is_new_N, paths))
    bad = [ImageError(paths[row], result.reasons[row]) for row in sorted(result.reasons)]
    return Checked(bad, result.files[first_N], result.pixels[first_N], result.facts)


@dataclass(frozen=True)
class _Result:
    """What was found of N paths, and by the number of a path why it cannot be used."""

    files: npt.NDArray[np.bytes_]
    pixels: npt.NDArray[np.bytes_]
    facts: dict[Path, ImageFacts] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)

    def take(self, task: _Task, found: _Found, paths: Sequence[Path]) -> None:
        """Add what a task has found."""
        self.files[task.rows], self.pixels[task.rows] = found.files, found.pixels
        self.facts.update({paths[int(task.rows[number])]: facts for number, facts in found.facts.items()})
        self.reasons.update({int(task.rows[number]): reason for number, reason in found.reasons.items()})

    def take_remembered(
        self, part: RowsOfShard, records: npt.NDArray[np.void], paths: Sequence[Path]
    ) -> npt.NDArray[np.bool_]:
        """Add what is remembered of a shard; (n,) of which of its rows anything is."""
        at_n = np.searchsorted(records["key"], part.keys)
        is_known_n = at_n < len(records)
        is_known_n[is_known_n] = records["key"][at_n[is_known_n]] == part.keys[is_known_n]
        is_known_n &= part.keys != NO_KEY
        rows, found = part.rows[is_known_n], records[at_n[is_known_n]]
        self.files[rows], self.pixels[rows] = hex_of_bytes(found["file"]), hex_of_bytes(found["pixels"])
        self.facts.update({paths[int(rows[number])]: facts for number, facts in special_facts(found).items()})
        return is_known_n

    def records_of(
        self, part: RowsOfShard, is_wanted_N: npt.NDArray[np.bool_], paths: Sequence[Path]
    ) -> npt.NDArray[np.void]:
        """Records of those rows of a shard that are wanted, for `keep_checks`."""
        is_wanted_n = is_wanted_N[part.rows] & (part.keys != NO_KEY)
        rows = part.rows[is_wanted_n]
        records = new_records(part.keys[is_wanted_n], self.files[rows], self.pixels[rows])
        if self.facts:
            for number, row in enumerate(rows.tolist()):
                if (facts := self.facts.get(paths[row])) is not None:
                    for name, value in facts._asdict().items():
                        records[name][number] = value
        return records


def _tasks(
    parts: Sequence[RowsOfShard],
    is_open_N: npt.NDArray[np.bool_],
    is_known_N: npt.NDArray[np.bool_],
    per_task: int,
) -> Iterator[_Task]:
    """The open rows, those of each shard for themselves; several a task, since a hand-over takes as long as a small
    image."""
    is_left_N = is_open_N.copy()
    for part in parts:
        is_left_N[part.rows] = False
        for are_known in (False, True):
            numbers = np.flatnonzero(is_open_N[part.rows] & (is_known_N[part.rows] == are_known))
            for start in range(0, len(numbers), per_task):
                chosen = numbers[start : start + per_task]
                yield _Task(part.rows[chosen], part.shard, part.keys[chosen], are_known)
    left = np.flatnonzero(is_left_N)
    for start in range(0, len(left), per_task):
        yield _Task(left[start : start + per_task])


def _results(check: _Check, tasks: Sequence[_Task], threads: int) -> Iterator[_Found | None]:
    """What each task has found, in their order."""
    cores = core_count()
    if threads == 1 and cores > 1 and CAN_FORK and sum(len(task.rows) for task in tasks) >= FORKED_FROM:
        cache = check.cache
        return_free_memory()  # else each process would hold a copy of what this one uses again
        yield from results_of_forks(
            lambda number: check.run(tasks[number]),
            len(tasks),
            processes=cores,
            end=lambda: [] if cache is None else cache.ended(),
            take_end=lambda counts: None if cache is None else cache.add_counts(counts),
        )
        return
    with ThreadPoolExecutor(threads) as pool:
        # In slices: the results of a million files would take more memory than the images.
        for start in range(0, len(tasks), TASKS_PER_SLICE):
            yield from pool.map(check.run, tasks[start : start + TASKS_PER_SLICE])


def _are_cached(
    keys_N: npt.NDArray[np.bytes_], cache: ImageCache | None, threads: int
) -> npt.NDArray[np.bool_]:
    """(N,) of which images there is nothing left to do: those that the cache has, whose pixels are read to see that
    they are intact; all without a cache."""
    if cache is None:
        return np.ones(len(keys_N), bool)
    blocks = [keys_N[start : start + KEYS_PER_BLOCK] for start in range(0, len(keys_N), KEYS_PER_BLOCK)]
    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(lambda keys: cache.find_many(keys)[0], blocks))
    return np.concatenate([np.zeros(0, bool), *found])


def _count(shown: Iterator[int], images: int) -> None:
    """Let a bar go on by so many."""
    deque(islice(shown, images), maxlen=0)


def _threads_for(paths: Sequence[Path], distinct: npt.NDArray[np.int64], root: Folders) -> int:
    """One for small images, whose decoding takes less time than handing Python's lock from one thread to another;
    more for those behind an address; else one a core, at most 16."""
    if isinstance(root, Shards) and root.are_remote:
        return REMOTE_THREADS
    sizes = [size for row in distinct[:PROBED] if (size := file_size(paths[int(row)])) is not None]
    are_small = bool(sizes) and sum(sizes) < SMALL_BYTES * len(sizes)
    return 1 if are_small else min(16, os.cpu_count() or 1)


def first_rows(paths: Sequence[Path]) -> npt.NDArray[np.int64]:
    """(N,) of each path, the number of the first one that is equal."""
    if isinstance(paths, RowPaths):
        return paths.names.first_rows()
    firsts: dict[Path, int] = {}
    return np.array([firsts.setdefault(path, row) for row, path in enumerate(paths)], np.int64)
