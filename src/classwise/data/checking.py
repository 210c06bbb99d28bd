"""Every image file checked once, in threads, before a run relies on it."""

import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from classwise.data.cache import ImageCache, content_key, pixels_key
from classwise.data.decode import decode
from classwise.data.image_file import Folders, Unreadable, read_file
from classwise.data.images import MAX_PIXELS
from classwise.data.pixel_format import RGB, ImageFacts, PixelFormat
from classwise.data.shard_files import Shards
from classwise.errors import ImageError

FILES_PER_SLICE = 1024
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
    """The result of `check_images`: the error of each bad file, in the order of the paths, and the hashes of each
    good one."""

    bad: list[ImageError]
    hashes: dict[Path, ImageHashes]


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
    progress: Callable[[Sequence[Path]], Iterable[Path]] | None = None,
    min_size: tuple[int, int] | None = None,
    cache: ImageCache | None = None,
    pixels: PixelFormat = RGB,
) -> Checked:
    """Decodes every file once, in threads. With a `cache` (for the same `min_size` and `pixels` as in `read_image`)
    the images are added to it, and those that it holds are not decoded.

    A path that occurs several times is read once and reported once. `threads` defaults to one a core, at most 16;
    to more where each waits for a server most of the time. `progress` wraps the sequence of distinct paths, as
    `tqdm` and `rich.progress.track` do."""
    distinct = list(dict.fromkeys(paths))
    is_remote = isinstance(root, Shards) and root.are_remote
    threads = threads or (REMOTE_THREADS if is_remote else min(16, os.cpu_count() or 1))
    shown = iter(progress(distinct) if progress else distinct)

    def hashes_or_error(path: Path) -> ImageHashes | ImageError:
        try:
            return check_image(path, max_pixels, root=root, min_size=min_size, cache=cache, pixels=pixels)
        except ImageError as error:
            return error

    with ThreadPoolExecutor(threads) as pool:
        # In slices: one future a file for a million files would take more memory than the images.
        starts = range(0, len(distinct), FILES_PER_SLICE)
        slices = (distinct[start : start + FILES_PER_SLICE] for start in starts)
        results = itertools.chain.from_iterable(pool.map(hashes_or_error, part) for part in slices)
        by_path = dict(zip(shown, results, strict=True))
    return Checked(
        bad=[result for result in by_path.values() if isinstance(result, ImageError)],
        hashes={path: result for path, result in by_path.items() if isinstance(result, ImageHashes)},
    )
