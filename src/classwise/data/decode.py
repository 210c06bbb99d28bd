"""The bytes of an image file to an array of pixels: JPEG, WebP and BMP here, PNG in decode_png.py.

A file's size comes from its header and is checked before any pixel is decoded. A truncated file is refused: a half-grey
image would train without a word. The kinds and their decoders (why these: docs/decisions/0003-images.md):

    JPEG    simplejpeg, strict; Pillow where the chroma subsampling is one that simplejpeg does not support
    PNG     OpenCV: Pillow cuts 16 bits to 8 and takes missing rows for black ones
    WebP    Pillow, the first frame of an animation
    BMP     Pillow

Nothing here touches the global settings of Pillow, OpenCV or `warnings`, so all of it may run in threads.
"""

import io
import struct
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import simplejpeg
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.WebPImagePlugin import WebPImageFile

from classwise.data.decode_common import UPRIGHT, check_size, exif_orientation, from_pillow
from classwise.data.decode_png import decode_png
from classwise.data.fit import resize_image
from classwise.data.image_file import Unreadable


def decode(kind: str, data: bytes, max_pixels: int, min_size: tuple[int, int] | None) -> np.ndarray:
    decoders: dict[str, Callable[[bytes, int], np.ndarray]] = {
        "JPEG": lambda data, most: _decode_jpeg(data, most, min_size),
        "PNG": decode_png,
        "WebP": _decode_webp,
        "BMP": _decode_bmp,
    }
    try:
        image_HWC = decoders[kind](data, max_pixels)
        return image_HWC if min_size is None else _halved(image_HWC, min_size)
    except Unreadable as error:
        raise Unreadable(f"{kind}: {error}") from None
    except Exception as error:
        # Decoders meet hostile bytes: Pillow alone answers with OSError, SyntaxError, ValueError, IndexError,
        # struct.error, zlib.error, MemoryError and more. To the caller all of them mean one thing.
        raise Unreadable(f"{kind}: cut short or damaged ({error or type(error).__name__})") from error


def _halvings(size: tuple[int, ...], min_size: tuple[int, int]) -> int:
    """How often both sides can be halved, rounding up, and be no smaller than `min_size`."""

    height, width = size[:2]
    times = 0
    while (
        times < 12
        and (height - 1 >> times + 1) + 1 >= min_size[0]
        and (width - 1 >> times + 1) + 1 >= min_size[1]
    ):
        times += 1
    return times


def _halved(image_HWC: np.ndarray, min_size: tuple[int, int]) -> np.ndarray:
    times = _halvings(image_HWC.shape, min_size)
    if not times:
        return image_HWC
    height, width = ((side - 1 >> times) + 1 for side in image_HWC.shape[:2])
    return resize_image(image_HWC, (height, width))


def _decode_jpeg(data: bytes, max_pixels: int, min_size: tuple[int, int] | None) -> np.ndarray:
    segments = list(_jpeg_segments(data))
    exif = (body for kind, body in segments if kind == 0xE1 and body.startswith(b"Exif\0\0"))
    orientation = exif_orientation(next(exif, b""))
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        # An unusual chroma sampling; or damage, which Pillow finds as well.
        image_HWC = from_pillow(JpegImageFile(io.BytesIO(data)), max_pixels)
    else:
        check_size(height, width, max_pixels)
        # The decoder halves three times at most, by leaving the high frequencies out.
        upright = min_size if min_size is None or orientation < 5 else min_size[::-1]
        times = 0 if upright is None else min(3, _halvings((height, width), upright))
        size = {"min_height": (height - 1 >> times) + 1, "min_width": (width - 1 >> times) + 1}
        options = {"strict": True} | (size if times else {})
        if colours in ("CMYK", "YCCK"):
            adobe = any(kind == 0xEE and body.startswith(b"Adobe") for kind, body in segments)
            image_HWC = _from_cmyk(simplejpeg.decode_jpeg(data, "CMYK", **options), inverted=adobe)
        else:
            image_HWC = simplejpeg.decode_jpeg(data, "RGB", **options)
    return UPRIGHT[orientation](image_HWC)


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(marker, body) of each segment before the first scan (ITU-T T.81, B.1.1.4); stops where it is lost."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        if data[at + 1] == 0xFF:  # a fill byte
            at += 1
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        yield data[at + 1], data[at + 4 : at + 2 + length]
        at += 2 + length


def _from_cmyk(image_HWC: np.ndarray, inverted: bool) -> np.ndarray:
    """(H, W, 4) uint8 CMYK to RGB = (255 - ink)(255 - black) / 255. Adobe's programs store 255 - ink, and
    mark their files with an APP14 segment; a file without one holds the ink itself."""
    paper_HWC = image_HWC if inverted else 255 - image_HWC
    channels = [cv2.multiply(paper_HWC[..., c], paper_HWC[..., 3], scale=1 / 255) for c in range(3)]
    return np.stack(channels, axis=-1)


def _decode_webp(data: bytes, max_pixels: int) -> np.ndarray:
    # Opening already allocates the canvas, so the size is read here first (RFC 9649, 2.5 to 2.7).
    if int.from_bytes(data[4:8], "little") + 8 > len(data):
        raise Unreadable("cut short: the file ends before the length that it claims")
    if data[12:16] == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    elif data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (int.from_bytes(data[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    check_size(height, width, max_pixels)
    image = WebPImageFile(io.BytesIO(data))
    return UPRIGHT[exif_orientation(image.info.get("exif", b""))](from_pillow(image, max_pixels))


def _decode_bmp(data: bytes, max_pixels: int) -> np.ndarray:
    image = BmpImageFile(io.BytesIO(data))
    check_size(image.height, image.width, max_pixels)
    pixels_at, header_bytes = struct.unpack_from("<II", data, 10)
    bits = struct.unpack_from("<H", data, 24 if header_bytes == 12 else 28)[0]
    compression, cached_bytes = struct.unpack_from("<II", data, 30) if header_bytes > 12 else (0, 0)
    if compression not in (1, 2):  # the run-length kinds state their length, the others follow from the size
        cached_bytes = (image.width * bits + 31) // 32 * 4 * image.height
    if pixels_at + cached_bytes > len(data):
        raise Unreadable("cut short: the file ends before its last row of pixels")
    return from_pillow(image, max_pixels)
