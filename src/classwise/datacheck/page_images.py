"""The images of the page of a check: each row's once, small, and all of them together within a budget."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from classwise.data.image_file import Folders
from classwise.data.images import MAX_PIXELS, read_image
from classwise.data.pixel_format import RGB, PixelFormat, shown_channels
from classwise.errors import ImageError
from classwise.report.thumbnails import LONGEST_SIDE, Thumbnail, encode

BUDGET = 25_000_000
"""Bytes of all images on a page, as text. A browser opens a page of this size within a second."""
MANY = 2_000
"""From so many rows on, images are smaller, so that more of them fit."""
SMALLER_SIDE = 96

NO_FILE = "There is no file to show."
OVER_BUDGET = "Left out to keep the page small."
_CHUNK = 128


@dataclass(frozen=True)
class PageImages:
    """`thumbnails`: one for each row asked for, in their order. `left_out`: how many there was no room for in `budget`
    bytes."""

    thumbnails: tuple[Thumbnail, ...]
    left_out: int
    budget: int


def page_images(
    paths: Sequence[Path | None],
    folders: Folders,
    pixels: PixelFormat = RGB,
    max_pixels: int = MAX_PIXELS,
    budget: int = BUDGET,
) -> PageImages:
    """The images at `paths` as data URIs of `budget` bytes in all; the first ones come first, so give the most
    important ones first. `folders`: outside of which no file is read, also through links; None allows any. `pixels`:
    the format that the images are read in; `max_pixels`: those that an image may have.

    A file that cannot be read gives the reason in place of the image."""
    side = LONGEST_SIDE if len(paths) <= MANY else SMALLER_SIDE
    make = partial(_thumbnail, folders=folders, pixels=pixels, max_pixels=max_pixels, side=side)
    thumbnails: list[Thumbnail] = []
    used = 0
    # Decoding releases the interpreter lock. By chunks, so that nothing is decoded for which there is no room.
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(paths), _CHUNK):
            for thumbnail in pool.map(make, paths[start : start + _CHUNK]):
                used += len(thumbnail.uri)
                if used > budget:
                    left_out = len(paths) - len(thumbnails)
                    thumbnails += [Thumbnail(reason=OVER_BUDGET)] * left_out
                    return PageImages(tuple(thumbnails), left_out, budget)
                thumbnails.append(thumbnail)
    return PageImages(tuple(thumbnails), 0, budget)


def _thumbnail(
    path: Path | None, folders: Folders, pixels: PixelFormat, max_pixels: int, side: int
) -> Thumbnail:
    if path is None:
        return Thumbnail(reason=NO_FILE)
    try:
        image_HWC = read_image(path, max_pixels, root=folders, min_size=(side, side), pixels=pixels)
    except ImageError as error:
        return Thumbnail(reason=error.reason)
    return encode(shown_channels(image_HWC), longest_side=side)
