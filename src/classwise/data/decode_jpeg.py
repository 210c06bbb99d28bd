"""JPEG to pixels, by simplejpeg: strictly, halved by the decoder itself, and no further down than the rows that are
needed."""

import io
import re
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import simplejpeg
from PIL.JpegImagePlugin import JpegImageFile

from classwise.data.decode_common import (
    UPRIGHT,
    check_size,
    exif_orientation,
    from_pillow,
    halved_length,
    halvings,
)

RowsNeeded = Callable[[tuple[int, int]], int] | None
"""From the (height, width) of a decoded image: how many of its upper rows are looked at. None: all."""

CONTEXT_ROWS = 2
"""Rows below those that are needed, which the decoder looks at to make chroma of the last of them."""
MCU_ROWS = 16
_LEFT_OVER = re.compile(r"Corrupt JPEG data: \d+ extraneous bytes before marker 0xd9")


def decode_jpeg(
    data: bytes, max_pixels: int, min_size: tuple[int, int] | None, rows_needed: RowsNeeded = None
) -> np.ndarray:
    """(H, W, 3) uint8 RGB, upright, halved down to `min_size` up to three times. With `rows_needed` the rows below
    those that it gives may be undefined: they are decoded only where that costs nothing."""
    orientation = _jpeg_orientation(data)
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        # An unusual chroma subsampling; or damage, which Pillow finds as well.
        image_HWC = from_pillow(JpegImageFile(io.BytesIO(data)), max_pixels).samples_HWC
        return UPRIGHT[orientation](image_HWC)
    check_size(height, width, max_pixels)

    # The decoder can halve the image up to three times by leaving the high frequencies out. It works on the image as it
    # is stored: orientations from 5 on swap height and width.
    wanted = 0
    if min_size is not None:
        stored_min_size = min_size if orientation < 5 else min_size[::-1]
        wanted = halvings((height, width), stored_min_size)
    times = min(3, wanted)

    if colours in ("CMYK", "YCCK"):
        is_adobe = any(
            marker == 0xEE and body.startswith(b"Adobe") for marker, _, body in _jpeg_segments(data)
        )
        cmyk_HWC = simplejpeg.decode_jpeg(data, "CMYK", **_options((height, width), times))
        return UPRIGHT[orientation](_from_cmyk(cmyk_HWC, inverted=is_adobe))

    # Where nothing moves rows after the decoder, it can stop above those that nobody looks at.
    if rows_needed is not None and orientation <= 2 and wanted == times:
        rows = rows_needed((halved_length(height, times), halved_length(width, times)))
        if (upper_HWC := _decode_upper_rows(data, (height, width), times=times, rows=rows)) is not None:
            return UPRIGHT[orientation](upper_HWC)
    image_HWC = simplejpeg.decode_jpeg(data, "RGB", **_options((height, width), times))
    return UPRIGHT[orientation](image_HWC)


def _options(size: tuple[int, int], times: int) -> dict[str, bool | int]:
    """simplejpeg's, for an image of this (height, width) that is halved so often; any damage is an error."""
    if not times:
        return {"strict": True}
    min_height, min_width = (halved_length(length, times) for length in size)
    return {"strict": True, "min_height": min_height, "min_width": min_width}


def _decode_upper_rows(data: bytes, size: tuple[int, int], times: int, rows: int) -> np.ndarray | None:
    """The image of a file of this (height, width), halved so often, of which only the upper `rows` are decoded; the
    others are undefined. None where that is not possible or saves nothing, or where the file is damaged.

    The decoder is given a header with fewer rows, and stops after them. That entropy-coded data follow is then the
    first thing that it complains of, once all rows are decoded; of damage above it would complain before.
    """
    height, width = size
    kept = -(-((rows + CONTEXT_ROWS) << times) // MCU_ROWS) * MCU_ROWS
    shortened = _with_height(data, kept) if kept < height else None
    if shortened is None:
        return None
    image_HWC = np.empty((halved_length(height, times), halved_length(width, times), 3), np.uint8)
    upper_HWC = image_HWC[: halved_length(kept, times)]
    try:
        simplejpeg.decode_jpeg(shortened, "RGB", buffer=upper_HWC, **_options((kept, width), times))
    except ValueError as error:
        return image_HWC if _LEFT_OVER.fullmatch(str(error)) else None
    return None


def _with_height(data: bytes, height: int) -> bytearray | None:
    """The file with another height in its frame header (ITU-T T.81, B.2.2); None unless it is sequential, of one scan
    without restart markers, and ends as a whole file does."""
    frame_at, components, at = 0, 0, 2
    for marker, body_at, body in _jpeg_segments(data):
        if marker in (0xC0, 0xC1) and len(body) > 5:
            frame_at, components = body_at, body[5]
        elif marker == 0xDD and any(body):
            return None
        at = body_at + len(body)
    is_one_scan = data[at + 1 : at + 2] == b"\xda" and data[at + 4 : at + 5] == bytes([components])
    if not frame_at or not is_one_scan or not data.endswith(b"\xff\xd9"):
        return None
    shortened = bytearray(data)
    shortened[frame_at + 1 : frame_at + 3] = height.to_bytes(2, "big")
    return shortened


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(height, width) of the upright image in a JPEG, from its header alone; None where simplejpeg does not support
    it."""
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    return (height, width) if _jpeg_orientation(data) < 5 else (width, height)


def _jpeg_orientation(data: bytes) -> int:
    exif_blocks = (
        body for marker, _, body in _jpeg_segments(data) if marker == 0xE1 and body.startswith(b"Exif\0\0")
    )
    return exif_orientation(next(exif_blocks, b""))


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(marker, offset of the body, body) of each segment before the first scan (ITU-T T.81, B.1.1.4); ends where
    there is no marker."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        if data[at + 1] == 0xFF:  # a fill byte
            at += 1
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        yield data[at + 1], at + 4, data[at + 4 : at + 2 + length]
        at += 2 + length


def _from_cmyk(image_HWC: np.ndarray, inverted: bool) -> np.ndarray:
    """(H, W, 4) uint8 CMYK to RGB = (255 - ink)(255 - black) / 255. Adobe's programs store 255 - ink (`inverted`) and
    mark their files with an APP14 segment; a file without one holds the ink itself."""
    paper_HWC = image_HWC if inverted else 255 - image_HWC
    channels = [cv2.multiply(paper_HWC[..., c], paper_HWC[..., 3], scale=1 / 255) for c in range(3)]
    return np.stack(channels, axis=-1)
