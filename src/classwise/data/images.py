"""Image files to arrays, safely: the file is opened in image_file.py and decoded in decode.py."""

from pathlib import Path

import numpy as np

from classwise.data.decode import decode
from classwise.data.image_file import Unreadable, read_file
from classwise.errors import ImageError

MAX_PIXELS = 100_000_000


def read_image(
    path: str | Path,
    max_pixels: int = MAX_PIXELS,
    root: str | Path | None = None,
    min_size: tuple[int, int] | None = None,
) -> np.ndarray:
    """The image as (height, width, 3) uint8 RGB: contiguous, writable, upright by its EXIF orientation,
    transparent parts over white, the first frame of an animation.

    With `min_size` (height, width) it is halved as often as it stays no smaller than that on either side, which for a
    JPEG is less work than to decode all of it.

    Raises ImageError for anything but a whole JPEG, PNG, WebP or BMP file of at most `max_pixels` pixels, and for a
    file that does not lie below the folder `root`, if one is given, wherever links may lead at that moment.
    """
    try:
        kind, data = read_file(path, max_pixels, root)
        image_HWC = decode(kind, data, max_pixels, min_size)
    except Unreadable as error:
        raise ImageError(path, str(error)) from None
    return np.require(image_HWC, np.uint8, ["C", "W"])


def min_image_size(size: tuple[int, int]) -> tuple[int, int]:
    """What images that are shown at `size` are halved to at most (see `read_image`): twice that, so that a random
    part of a quarter of the area is still shown with all the detail that there is."""
    return 2 * size[0], 2 * size[1]
