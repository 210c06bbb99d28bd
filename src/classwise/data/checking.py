"""Every image file checked once, in threads, before a run relies on it."""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from classwise.data.cache import ImageCache, content_key, pixels_key
from classwise.data.decode import decode
from classwise.data.image_file import Folders, Unreadable, file_size, read_file
from classwise.data.images import MAX_PIXELS
from classwise.data.pixel_format import RGB, ImageFacts, PixelFormat
from classwise.data.row_paths import RowPaths
from classwise.data.shard_files import Shards
from classwise.errors import ImageError

IMAGES_PER_TASK = 64
TASKS_PER_SLICE = 64
PLAIN = ImageFacts()
PROBED = 8
"""Images whose size is looked at."""
SMALL_BYTES = 1024
REMOTE_THREADS = 16
"""Images that are fetched at the same time."""


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
        image_HWC, facts = decode(kind, data, max_pixels=max_pixels, min_size=min_size, pixels=pixels)
        image_HWC = np.require(image_HWC, np.uint8, ["C"])
        pixels_hash = pixels_key(image_HWC) if cache is None else cache.add(key, image_HWC, facts)
        return ImageHashes(key, pixels_hash, facts)
    except Unreadable as error:
        raise ImageError(path, str(error)) from None


def check_images(
    paths: Sequence[Path],
    max_pixels: int = MAX_PIXELS,
    threads: int | None = None,
    root: Folders = None,
    progress: Callable[[Sequence[int]], Iterable[int]] | None = None,
    min_size: tuple[int, int] | None = None,
    cache: ImageCache | None = None,
    pixels: PixelFormat = RGB,
) -> Checked:
    """Decodes every file once, in threads. With a `cache` (for the same `min_size` and `pixels` as in `read_image`)
    the images are added to it, and those that it holds are not decoded.

    A path that occurs several times is read once and reported once. `threads` defaults to one a core, at most 16;
    to one for images of a few hundred bytes, and to more where each waits for a server most of the time. `progress`
    wraps the numbers of the distinct paths, as `tqdm` and `rich.progress.track` do."""
    first_N = first_rows(paths)
    distinct = np.flatnonzero(first_N == np.arange(len(paths)))
    is_remote = isinstance(root, Shards) and root.are_remote
    if threads is None:
        threads = (
            REMOTE_THREADS if is_remote else _threads_for([paths[int(row)] for row in distinct[:PROBED]])
        )
    shown = iter(progress(range(len(distinct))) if progress else range(len(distinct)))

    def hashes_or_errors(rows: npt.NDArray[np.int64]) -> list[ImageHashes | ImageError]:
        found: list[ImageHashes | ImageError] = []
        for row in rows.tolist():
            try:
                path = paths[row]
                found.append(
                    check_image(path, max_pixels, root=root, min_size=min_size, cache=cache, pixels=pixels)
                )
            except ImageError as error:
                found.append(error)
        return found

    # Several images a task, and several tasks a thread: a hand-over takes as long as a small image.
    per_task = max(1, min(IMAGES_PER_TASK, len(distinct) // (8 * threads)))
    tasks = [distinct[start : start + per_task] for start in range(0, len(distinct), per_task)]
    bad: list[ImageError] = []
    facts: dict[Path, ImageFacts] = {}
    files_N, pixels_N = np.zeros(len(paths), "S32"), np.zeros(len(paths), "S16")
    with ThreadPoolExecutor(threads) as pool:
        # In slices: the results of a million files would take more memory than the images.
        for start in range(0, len(tasks), TASKS_PER_SLICE):
            part = tasks[start : start + TASKS_PER_SLICE]
            for rows, found in zip(part, pool.map(hashes_or_errors, part), strict=True):
                for row, result in zip(rows.tolist(), found, strict=True):
                    next(shown, None)
                    if isinstance(result, ImageError):
                        bad.append(result)
                        continue
                    files_N[row], pixels_N[row] = result.file, result.pixels
                    if result.facts != PLAIN:
                        facts[paths[row]] = result.facts
    next(shown, None)  # so that a bar ends
    return Checked(bad, files_N[first_N], pixels_N[first_N], facts)


def _threads_for(paths: Sequence[Path]) -> int:
    """One for small images, whose decoding takes less time than handing Python's lock from one thread to another;
    else one a core, at most 16. `paths`: some of the images."""
    sizes = [size for size in map(file_size, paths) if size is not None]
    are_small = bool(sizes) and sum(sizes) < SMALL_BYTES * len(sizes)
    return 1 if are_small else min(16, os.cpu_count() or 1)


def first_rows(paths: Sequence[Path]) -> npt.NDArray[np.int64]:
    """(N,) of each path, the number of the first one that is equal."""
    if isinstance(paths, RowPaths):
        return paths.names.first_rows()
    firsts: dict[Path, int] = {}
    return np.array([firsts.setdefault(path, row) for row, path in enumerate(paths)], np.int64)
