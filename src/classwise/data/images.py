"""Image files to arrays, safely: the file is opened in image_file.py and decoded in decode.py."""

from pathlib import Path

import numpy as np

from classwise.data.decode import decode
from classwise.data.image_file import Unreadable, kind_of, read_file
from classwise.errors import ImageError

MAX_PIXELS = 100_000_000


def read_image(
    path: str | Path,
    max_pixels: int = MAX_PIXELS,
    root: str | Path | None = None,
    min_size: tuple[int, int] | None = None,
) -> np.ndarray:
    """The image as (height, width, 3) uint8 RGB: contiguous, writable, upright by its EXIF orientation, transparent
    parts over white, the first frame of an animation.

    With `min_size` (height, width) the image is halved as often as it stays no smaller than that on either side; for a
    JPEG this takes less work than decoding all of it.

    Raises ImageError for anything but a whole JPEG, PNG, WebP or BMP file of at most `max_pixels` pixels; and, if
    `root` is given, for a file that is not below that folder, wherever links lead at that moment.
    """
    try:
        kind, data = read_file(path, max_pixels, root)
        image_HWC = decode(kind, data, max_pixels=max_pixels, min_size=min_size)
    except Unreadable as error:
        raise ImageError(path, str(error)) from None
    return np.require(image_HWC, np.uint8, ["C", "W"])


def decode_image(
    data: bytes, name: str, max_pixels: int = MAX_PIXELS, min_size: tuple[int, int] | None = None
) -> np.ndarray:
    """`read_image` of the bytes of a file; `name` it in messages. Raises ImageError."""
    try:
        image_HWC = decode(kind_of(data[:32]), data, max_pixels=max_pixels, min_size=min_size)
    except Unreadable as error:
        raise ImageError(name, str(error)) from None
    return np.require(image_HWC, np.uint8, ["C", "W"])


def min_image_size(size: tuple[int, int]) -> tuple[int, int]:
    """The `min_size` of `read_image` for images that are used at `size`: twice that, so that a random crop of a quarter
    of the area still has all the detail that the network can see."""
    return 2 * size[0], 2 * size[1]
