"""One pass over all image files, in threads: a small signature of each, for finding copies and for judging its
quality.

Decoding takes most of the time, so each file is decoded once, and a large JPEG only at a fraction of its size.
"""

import hashlib
import itertools
import math
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from classwise.data.decode import decode
from classwise.data.decode_jpeg import jpeg_size
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
FLAT = 10
"""Levels of gray by which pixels of a border may differ from it: JPEG does not keep flat areas flat."""
FLAT_SHARE, STEP_SHARE = 0.1, 0.8
"""Of the pixels of a row that differ by more: at most so many in a border, and at least so many beside it."""
LEAST_INSIDE = 0.3
"""Of each side that borders leave over; what would leave less is no border."""
GRAY = 8
"""Levels by which the colors of a gray image may differ, since JPEG stores color apart from brightness."""
FILES_PER_SLICE = 1024

Views = NDArray[np.uint8]


@dataclass(frozen=True)
class ImageStatistics:
    """What an image looks like, in numbers. Levels are those of gray, 0 to 255.

    height, width: of the whole image, upright, in pixels. mean, std, p1, p99: of its levels; the percentiles 1 and
    99. sharpness: the variance of the Laplacian (Pech-Pacheco et al., 'Diatom autofocusing in brightfield
    microscopy', 2000) of the image with a longest side of SHARPNESS_SIDE at most. gray: whether it has no color.
    entropy: of the histogram of its levels, in bits, 0 to 8. border: the mean level of the outermost pixels.
    flat_border: whether nearly all of them have one level. cb, cr: the mean color differences of the image (ITU-R
    BT.601), 0 for gray.
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
    border: float
    flat_border: bool
    cb: float
    cr: float


@dataclass(frozen=True)
class Signature:
    """What is known of one readable file.

    content: the SHA-256 of its bytes. kind: one of classwise.data.image_file.KINDS. views_VSS: (1 or 2, THUMBNAIL,
    THUMBNAIL) uint8, gray, as `views` makes them. facts: what else the file holds.
    """

    content: bytes
    kind: str
    facts: ImageFacts
    statistics: ImageStatistics
    views_VSS: Views  # noqa: N815 - a shape suffix


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

    Files are opened and decoded as for training (classwise.data.images.read_image has the rules for `root`,
    `max_pixels` and `pixels`). `threads` defaults to one a core, at most 16. `progress` wraps the sequence of paths.
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
        statistics=_statistics(gray_HW, has_color, size or gray_HW.shape[:2], _color_differences(image_HWC)),
        views_VSS=views(gray_HW),
    )


def views(gray_HW: NDArray[np.uint8]) -> Views:
    """(H, W) uint8 squashed to (1 or 2, THUMBNAIL, THUMBNAIL): the inside of a border all around; or, where flat
    parts at some sides may be a border or belong to the image, the whole and the inside."""
    inside_HW, is_frame = without_border(gray_HW)
    parts = [inside_HW] if is_frame or inside_HW.size == gray_HW.size else [gray_HW, inside_HW]
    return np.stack([resize_image(part_HW, (THUMBNAIL, THUMBNAIL)) for part_HW in parts])


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


def _color_differences(image_HWC: NDArray[np.uint8]) -> tuple[float, float]:
    """The means of Cb and Cr, around 0; channels that are no colors have none."""
    if image_HWC.shape[2] != 3:
        return 0.0, 0.0
    red, green, blue = image_HWC.reshape(-1, 3).mean(axis=0).tolist()
    level = 0.299 * red + 0.587 * green + 0.114 * blue
    return 0.564 * (blue - level), 0.713 * (red - level)


def _statistics(
    gray_HW: NDArray[np.uint8], has_color: bool, size: tuple[int, ...], color: tuple[float, float]
) -> ImageStatistics:
    counts_L = cv2.calcHist([gray_HW], [0], None, [256], [0, 256]).ravel().astype(np.float64)
    shares_L = counts_L / gray_HW.size
    levels_L = np.arange(256)
    mean = float(shares_L @ levels_L)
    p1, p99 = np.searchsorted(np.cumsum(shares_L), (0.01, 0.99 - 1e-9))
    used_L = shares_L[shares_L > 0]

    # The corners count once.
    edges = (gray_HW[0], gray_HW[-1], gray_HW[1:-1, 0], gray_HW[1:-1, -1])
    edge_P = np.concatenate(edges).astype(np.float64)

    # Small enough that noise of the sensor and the size of the image do not count.
    scale = min(1.0, SHARPNESS_SIDE / max(gray_HW.shape))
    small_size = tuple(max(1, round(length * scale)) for length in gray_HW.shape)
    laplacian_HW = cv2.Laplacian(resize_image(gray_HW, (small_size[0], small_size[1])), cv2.CV_32F)
    return ImageStatistics(
        height=int(size[0]),
        width=int(size[1]),
        mean=mean,
        std=math.sqrt(max(0.0, float(shares_L @ (levels_L - mean) ** 2))),
        p1=float(p1),
        p99=float(p99),
        sharpness=float(cv2.meanStdDev(laplacian_HW)[1][0, 0]) ** 2,
        gray=not has_color,
        entropy=float(-(used_L * np.log2(used_L)).sum()),
        border=float(edge_P.mean()),
        cb=color[0],
        cr=color[1],
        flat_border=bool((np.abs(edge_P - np.median(edge_P)) > FLAT).mean() <= FLAT_SHARE),
    )


def without_border(gray_HW: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], bool]:
    """The part of (H, W) inside of a border, which has one level on each side of the image that it is on, all of it
    where there is no border; and whether the border goes all around.

    The flat ground around an object is no border: what lies beside a border differs from it along nearly all its
    length.
    """
    height, width = gray_HW.shape
    # The rows from the top down and from the bottom up, the columns from the left and from the right.
    sides = (gray_HW, gray_HW[::-1], gray_HW.T, gray_HW.T[::-1])
    counts = [_flat_rows(rows_HW) for rows_HW in sides]
    rows, columns = slice(counts[0], height - counts[1]), slice(counts[2], width - counts[3])
    inside_HW = gray_HW[rows, columns]
    if inside_HW.shape[0] < LEAST_INSIDE * height or inside_HW.shape[1] < LEAST_INSIDE * width:
        return gray_HW, False
    across = (columns, columns, rows, rows)
    for rows_HW, count, part in zip(sides, counts, across, strict=True):
        if count and not _is_step(rows_HW[:, part], count):
            return gray_HW, False
    return inside_HW, all(counts)


def _flat_rows(rows_HW: NDArray[np.uint8]) -> int:
    """How many of the first rows have the level of the first one."""
    # Nearly every image has no border, which its first row tells.
    if _unlike(rows_HW[:1], rows_HW[0])[0] > FLAT_SHARE:
        return 0
    unlike_H = _unlike(rows_HW, rows_HW[0])
    return int(np.argmax(unlike_H > FLAT_SHARE)) if unlike_H.max() > FLAT_SHARE else 0


def _is_step(rows_HW: NDArray[np.uint8], count: int) -> bool:
    """Whether what comes behind the first `count` rows differs from them along nearly all its length; the first row
    of it may be half border."""
    return bool(_unlike(rows_HW[count : count + 2], rows_HW[0]).max() >= STEP_SHARE)


def _unlike(rows_HW: NDArray[np.uint8], border_W: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The share of each row's pixels that differ from the level of a border."""
    level = int(np.partition(border_W, len(border_W) // 2)[len(border_W) // 2])
    is_unlike_HW = (rows_HW > level + FLAT) | (rows_HW < level - FLAT)
    return np.asarray(is_unlike_HW.sum(axis=1) / rows_HW.shape[1])
