"""Every image file checked once, in threads, before a run relies on it."""

import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from classwise.data.cache import ImageCache, content_key
from classwise.data.decode import decode
from classwise.data.image_file import Unreadable, read_file
from classwise.data.images import MAX_PIXELS
from classwise.errors import ImageError


@dataclass(frozen=True)
class Checked:
    """What `check_images` has found: the error of each bad file, in the order of the paths, and the `content_key` of
    each good one."""

    bad: list[ImageError]
    keys: dict[Path, bytes]


def check_image(
    path: Path,
    max_pixels: int = MAX_PIXELS,
    root: Path | None = None,
    min_size: tuple[int, int] | None = None,
    cache: ImageCache | None = None,
) -> bytes:
    """Reads a file as `read_image` does, sees to it that the store, if there is one, has its image, and returns the
    file's `content_key`. Raises ImageError."""
    try:
        kind, data = read_file(path, max_pixels, root)
        key = content_key(data)
        if cache is None:
            decode(kind, data, max_pixels, min_size)
        elif not cache.find(key):
            cache.add(key, np.require(decode(kind, data, max_pixels, min_size), np.uint8, ["C"]))
        return key
    except Unreadable as error:
        raise ImageError(path, str(error)) from None


def check_images(
    paths: Sequence[Path],
    max_pixels: int = MAX_PIXELS,
    threads: int | None = None,
    root: Path | None = None,
    progress: Callable[[Sequence[Path]], Iterable[Path]] | None = None,
    min_size: tuple[int, int] | None = None,
    cache: ImageCache | None = None,
) -> Checked:
    """Decodes every file once, in threads. With a `cache` (and `min_size` as in `read_image`) the images are kept
    there, and those that it has are not decoded.

    A path that occurs several times is read once and reported once. `threads` defaults to one a core, at
    most 16. `progress` wraps the sequence of distinct paths, as `tqdm` and `rich.progress.track` do.
    """
    distinct = list(dict.fromkeys(paths))
    threads = threads or min(16, os.cpu_count() or 1)
    shown = iter(progress(distinct) if progress else distinct)

    def found(path: Path) -> bytes | ImageError:
        try:
            return check_image(path, max_pixels, root, min_size, cache)
        except ImageError as error:
            return error

    with ThreadPoolExecutor(threads) as pool:
        # In slices: one future a file for a million files would cost more memory than the images.
        slices = (distinct[start : start + 1024] for start in range(0, len(distinct), 1024))
        results = itertools.chain.from_iterable(pool.map(found, part) for part in slices)
        by_path = dict(zip(shown, results, strict=True))
    bad = [result for result in by_path.values() if isinstance(result, ImageError)]
    return Checked(bad, {path: key for path, key in by_path.items() if isinstance(key, bytes)})
