"""One pass over all image files, in threads: a small signature of each, for finding copies and for judging its quality.

Decoding takes most of the time, so each file is decoded once, and a large JPEG only at a fraction of its size.
"""

import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from classwise.data.decode import decode, jpeg_size
from classwise.data.fit import resize_image
from classwise.data.image_file import Folders, Unreadable, read_file
from classwise.data.images import MAX_PIXELS
from classwise.data.pixel_format import RGB, ImageFacts, PixelFormat

THUMBNAIL = 64
"""Height and width of the thumbnails, in pixels."""
DECODED = 128
"""A JPEG is decoded at a half, a quarter or an eighth of its size, but no smaller than this on either side."""
SHARPNESS_SIDE = 256
"""The longest side of the image that sharpness is measured on; a smaller one is not enlarged."""
FLAT = 6
"""Levels of gray by which the pixels of a border may differ: JPEG does not keep flat areas flat."""
LEAST_INSIDE = 0.3
"""Of each side that borders leave over; what would leave less is no border."""
GRAY = 8
"""Levels by which the colors of a gray image may differ, since JPEG stores color apart from brightness."""
FILES_PER_SLICE = 1024

Thumbnail = NDArray[np.uint8]


@dataclass(frozen=True)
class ImageStatistics:
    """What an image looks like, in numbers. Levels are those of gray, 0 to 255.

    height, width: of the whole image, upright, in pixels. mean, std, p1, p99: of its levels; the percentiles 1 and 99.
    sharpness: the variance of the Laplacian (Pech-Pacheco et al., 'Diatom autofocusing in brightfield microscopy', 2000)
    of the image with a longest side of SHARPNESS_SIDE at most. gray: whether it has no color. entropy: of the histogram
    of its levels, in bits, 0 to 8.
    """

    height: int
    width: int
    mean: float
    std: float
    p1: float
    p99: float
    sharpness: float
    gray: bool
    entropy: float


@dataclass(frozen=True)
class Signature:
    """What is known of one readable file.

    content: the SHA-256 of its bytes. kind: one of classwise.data.image_file.KINDS. thumbnail_SS: (THUMBNAIL, THUMBNAIL)
    uint8, gray, squashed, without flat borders. facts: what else the file holds.
    """

    content: bytes
    kind: str
    facts: ImageFacts
    statistics: ImageStatistics
    thumbnail_SS: Thumbnail  # noqa: N815 - a shape suffix


@dataclass(frozen=True)
class UnreadableFile:
    """Why a file cannot be used."""

    reason: str


def read_signatures(
    paths: Sequence[Path],
    root: Folders = None,
    max_pixels: int = MAX_PIXELS,
    pixels: PixelFormat = RGB,
    threads: int | None = None,
    progress: Callable[[Sequence[Path]], Iterable[Path]] | None = None,
) -> list[Signature | UnreadableFile]:
    """The signature of each file, about 5 kB, or the reason why it cannot be read, in the order of the paths.

    Files are opened and decoded as for training (classwise.data.images.read_image has the rules for `root`, `max_pixels`
    and `pixels`). `threads` defaults to one a core, at most 16. `progress` wraps the sequence of paths.
    """
    threads = threads or min(16, os.cpu_count() or 1)
    shown = iter(progress(paths) if progress else paths)

    def signature_of(path: Path) -> Signature | UnreadableFile:
        return read_signature(path, root=root, max_pixels=max_pixels, pixels=pixels)

    with ThreadPoolExecutor(threads) as pool:
        # In slices: one future a file for a million files would take more memory than the signatures.
        slices = (paths[start : start + FILES_PER_SLICE] for start in range(0, len(paths), FILES_PER_SLICE))
        found = itertools.chain.from_iterable(pool.map(signature_of, part) for part in slices)
        return [signature for _, signature in zip(shown, found, strict=True)]


def read_signature(
    path: Path, root: Folders = None, max_pixels: int = MAX_PIXELS, pixels: PixelFormat = RGB
) -> Signature | UnreadableFile:
    """The signature of one file, as `read_signatures` gives it."""
    try:
        kind, data = read_file(path, max_pixels, root)
        size = jpeg_size(data) if kind == "JPEG" else None
        min_size = None if size is None else (DECODED, DECODED)
        image_HWC, facts = decode(kind, data, max_pixels=max_pixels, min_size=min_size, pixels=pixels)
    except Unreadable as error:
        return UnreadableFile(str(error))
    gray_HW, has_color = _to_gray(image_HWC)
    return Signature(
        content=hashlib.sha256(data).digest(),
        kind=kind,
        facts=facts,
        statistics=_statistics(gray_HW, has_color, size or gray_HW.shape[:2]),
        thumbnail_SS=thumbnail(gray_HW),
    )


def thumbnail(gray_HW: NDArray[np.uint8]) -> Thumbnail:
    """(H, W) uint8 without its flat borders, squashed to (THUMBNAIL, THUMBNAIL)."""
    return resize_image(without_borders(gray_HW), (THUMBNAIL, THUMBNAIL))


def _to_gray(image_HWC: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], bool]:
    """(H, W) levels of gray, the mean of channels that are no colors; and whether there is any color."""
    channels = image_HWC.shape[2]
    if channels == 1:
        return image_HWC[..., 0], False
    if channels != 3:
        return np.rint(image_HWC.mean(axis=2)).astype(np.uint8), True
    red_HW, green_HW, blue_HW = cv2.split(image_HWC)
    differences = [cv2.absdiff(red_HW, green_HW), cv2.absdiff(green_HW, blue_HW)]
    has_color = any(int(cv2.minMaxLoc(difference_HW)[1]) > GRAY for difference_HW in differences)
    return cv2.cvtColor(image_HWC, cv2.COLOR_RGB2GRAY), has_color


def _statistics(gray_HW: NDArray[np.uint8], has_color: bool, size: tuple[int, ...]) -> ImageStatistics:
    counts_L = np.bincount(gray_HW.ravel(), minlength=256)
    shares_L = counts_L / gray_HW.size
    levels_L = np.arange(256)
    mean = float(shares_L @ levels_L)
    p1, p99 = np.searchsorted(np.cumsum(shares_L), (0.01, 0.99 - 1e-9))
    used_L = shares_L[shares_L > 0]

    # Small enough that noise of the sensor and the size of the image do not count.
    scale = min(1.0, SHARPNESS_SIDE / max(gray_HW.shape))
    small_size = tuple(max(1, round(length * scale)) for length in gray_HW.shape)
    laplacian_HW = cv2.Laplacian(resize_image(gray_HW, (small_size[0], small_size[1])), cv2.CV_32F)
    return ImageStatistics(
        height=int(size[0]),
        width=int(size[1]),
        mean=mean,
        std=float(np.sqrt(max(0.0, shares_L @ (levels_L - mean) ** 2))),
        p1=float(p1),
        p99=float(p99),
        sharpness=float(laplacian_HW.var()),
        gray=not has_color,
        entropy=float(-(used_L * np.log2(used_L)).sum()),
    )


def without_borders(gray_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The part of (H, W) inside of flat borders of one level each; all of it where there are none.

    Objects on a flat ground lose the ground around them in the same way, whatever was cut from it or added to it.
    """
    top, bottom = _inside(gray_HW)
    left, right = _inside(gray_HW[top:bottom].T)
    return gray_HW[top:bottom, left:right]


def _inside(gray_HW: NDArray[np.uint8]) -> tuple[int, int]:
    """The first row, and the one behind the last, of what lies between flat rows at the top and at the bottom."""
    lows_H, highs_H = gray_HW.min(axis=1).astype(int), gray_HW.max(axis=1).astype(int)
    starts = []
    for order in (slice(None), slice(None, None, -1)):
        low_H, high_H = lows_H[order], highs_H[order]
        together_H = np.maximum.accumulate(high_H) - np.minimum.accumulate(low_H)
        starts.append(int(np.argmax(together_H > FLAT)) if together_H[-1] > FLAT else 0)
    top, bottom = starts[0], len(gray_HW) - starts[1]
    return (top, bottom) if bottom - top >= LEAST_INSIDE * len(gray_HW) else (0, len(gray_HW))
