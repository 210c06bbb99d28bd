"""Image files to arrays, safely: the file is opened in image_file.py and decoded in decode.py."""

from pathlib import Path

import numpy as np

from classwise.data.decode import decode
from classwise.data.decode_jpeg import RowsNeeded
from classwise.data.image_file import Folders, Unreadable, kind_of, read_file
from classwise.data.pixel_format import RGB, ImageFacts, OtherChannels, PixelFormat, UnknownRange
from classwise.errors import ImageError

MAX_PIXELS = 100_000_000


def read_image(
    path: str | Path,
    max_pixels: int = MAX_PIXELS,
    root: Folders = None,
    min_size: tuple[int, int] | None = None,
    pixels: PixelFormat = RGB,
    rows_needed: RowsNeeded = None,
) -> np.ndarray:
    """The image as (height, width, 3) uint8 RGB, or as `pixels` says: contiguous, writable, upright by its EXIF
    orientation, transparent parts over white, the first frame of an animation, samples of more bits scaled to 8.

    With `min_size` (height, width) the image is halved as often as it stays no smaller than that on either side; for a
    JPEG this takes less work than decoding all of it. With `rows_needed`, a function of the (height, width) that the
    image has then, nobody looks at the rows below those that it gives, and they may be anything.

    Raises ImageError for anything but a whole file of KINDS (image_file.py) of at most `max_pixels` pixels; and, if
    `root` is given, for a file that is not below that folder (or one of several), wherever links lead at that moment.
    """
    try:
        kind, data = read_file(path, max_pixels, root)
        image_HWC, _ = decode(
            kind,
            data,
            max_pixels=max_pixels,
            min_size=min_size,
            pixels=pixels,
            rows_needed=rows_needed,
        )
    except Unreadable as error:
        raise ImageError(path, str(error)) from None
    return np.require(image_HWC, np.uint8, ["C", "W"])


def needed_channels(path: str | Path) -> int:
    """The model.channels that a file needs: 3, which also takes gray, or all that it has. Raises ImageError."""
    try:
        sample_facts(path)
    except ImageError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OtherChannels):
            cause = cause.__cause__
        if cause is None:
            raise
        return cause.found
    return 3


def sample_facts(path: str | Path, channels: int = 3) -> ImageFacts:
    """What a file holds, also where nobody has said yet which of its samples are black and white. Raises ImageError."""
    try:
        kind, data = read_file(path, MAX_PIXELS, root=None)
        return decode(
            kind, data, max_pixels=MAX_PIXELS, min_size=None, pixels=PixelFormat(channels=channels)
        )[1]
    except UnknownRange as error:
        return error.facts
    except Unreadable as error:
        raise ImageError(path, str(error)) from error


def decode_image(
    data: bytes,
    name: str,
    max_pixels: int = MAX_PIXELS,
    min_size: tuple[int, int] | None = None,
    pixels: PixelFormat = RGB,
) -> np.ndarray:
    """`read_image` of the bytes of a file; `name` it in messages. Raises ImageError."""
    try:
        image_HWC, _ = decode(
            kind_of(data[:32]), data, max_pixels=max_pixels, min_size=min_size, pixels=pixels
        )
    except Unreadable as error:
        raise ImageError(name, str(error)) from None
    return np.require(image_HWC, np.uint8, ["C", "W"])


def min_image_size(size: tuple[int, int]) -> tuple[int, int]:
    """The `min_size` of `read_image` for images that are used at `size`: twice that, so that a random crop of a quarter
    of the area still has all the detail that the network can see."""
    return 2 * size[0], 2 * size[1]
