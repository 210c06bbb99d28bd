"""The bytes of an image file to an array of pixels: JPEG, WebP and BMP here, PNG in decode_png.py.

A file's size comes from its header and is checked before any pixel is decoded. A truncated file is refused: a half-gray
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
    """The image in the bytes of a file of this `kind`, (H, W, 3) uint8 RGB; halved down to `min_size` (height, width)
    as `read_image` describes it. Raises Unreadable for anything that is wrong with it."""
    decoders: dict[str, Callable[[bytes, int], np.ndarray]] = {
        "JPEG": lambda data, max_pixels: _decode_jpeg(data, max_pixels, min_size),
        "PNG": decode_png,
        "WebP": _decode_webp,
        "BMP": _decode_bmp,
    }
    try:
        image_HWC = decoders[kind](data, max_pixels)
        return image_HWC if min_size is None else _halve(image_HWC, min_size)
    except Unreadable as error:
        raise Unreadable(f"{kind}: {error}") from None
    except Exception as error:
        # Decoders meet hostile bytes: Pillow alone raises OSError, SyntaxError, ValueError, IndexError, struct.error,
        # zlib.error, MemoryError and more. To the caller all of them mean the same.
        raise Unreadable(f"{kind}: cut short or damaged ({error or type(error).__name__})") from error


def _halvings(size: tuple[int, ...], min_size: tuple[int, int]) -> int:
    """How often (height, width) can be halved and stay no smaller than `min_size`."""
    height, width = size[:2]
    times = 0
    while (
        times < 12
        and _halved_length(height, times + 1) >= min_size[0]
        and _halved_length(width, times + 1) >= min_size[1]
    ):
        times += 1
    return times


def _halved_length(length: int, times: int) -> int:
    """A length halved so often, rounded up each time."""
    return (length - 1 >> times) + 1


def _halve(image_HWC: np.ndarray, min_size: tuple[int, int]) -> np.ndarray:
    times = _halvings(image_HWC.shape, min_size)
    if not times:
        return image_HWC
    height, width = (_halved_length(length, times) for length in image_HWC.shape[:2])
    return resize_image(image_HWC, (height, width))


def _decode_jpeg(data: bytes, max_pixels: int, min_size: tuple[int, int] | None) -> np.ndarray:
    segments = list(_jpeg_segments(data))
    exif_blocks = (body for marker, body in segments if marker == 0xE1 and body.startswith(b"Exif\0\0"))
    orientation = exif_orientation(next(exif_blocks, b""))
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        # An unusual chroma subsampling; or damage, which Pillow finds as well.
        image_HWC = from_pillow(JpegImageFile(io.BytesIO(data)), max_pixels)
        return UPRIGHT[orientation](image_HWC)
    check_size(height, width, max_pixels)

    # The decoder can halve the image up to three times by leaving the high frequencies out. It works on the image as it
    # is stored: orientations from 5 on swap height and width.
    options: dict[str, bool | int] = {"strict": True}
    if min_size is not None:
        stored_min_size = min_size if orientation < 5 else min_size[::-1]
        times = min(3, _halvings((height, width), stored_min_size))
        if times:
            options["min_height"] = _halved_length(height, times)
            options["min_width"] = _halved_length(width, times)

    if colours in ("CMYK", "YCCK"):
        is_adobe = any(marker == 0xEE and body.startswith(b"Adobe") for marker, body in segments)
        cmyk_HWC = simplejpeg.decode_jpeg(data, "CMYK", **options)
        image_HWC = _from_cmyk(cmyk_HWC, inverted=is_adobe)
    else:
        image_HWC = simplejpeg.decode_jpeg(data, "RGB", **options)
    return UPRIGHT[orientation](image_HWC)


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(marker, body) of each segment before the first scan (ITU-T T.81, B.1.1.4); ends where there is no marker."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        if data[at + 1] == 0xFF:  # a fill byte
            at += 1
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        yield data[at + 1], data[at + 4 : at + 2 + length]
        at += 2 + length


def _from_cmyk(image_HWC: np.ndarray, inverted: bool) -> np.ndarray:
    """(H, W, 4) uint8 CMYK to RGB = (255 - ink)(255 - black) / 255. Adobe's programs store 255 - ink (`inverted`) and
    mark their files with an APP14 segment; a file without one holds the ink itself."""
    paper_HWC = image_HWC if inverted else 255 - image_HWC
    channels = [cv2.multiply(paper_HWC[..., c], paper_HWC[..., 3], scale=1 / 255) for c in range(3)]
    return np.stack(channels, axis=-1)


def _decode_webp(data: bytes, max_pixels: int) -> np.ndarray:
    if int.from_bytes(data[4:8], "little") + 8 > len(data):
        raise Unreadable("cut short: the file ends before the length that it claims")
    # Pillow allocates the canvas when it opens the file, so the size is read here first (RFC 9649, 2.5 to 2.7).
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
    # The file must be long enough for all rows of pixels.
    pixels_at, header_length = struct.unpack_from("<II", data, 10)
    bits_per_pixel = struct.unpack_from("<H", data, 24 if header_length == 12 else 28)[0]
    compression, pixels_length = struct.unpack_from("<II", data, 30) if header_length > 12 else (0, 0)
    # Run-length encoded pixels (1, 2) state their length; that of the others follows from the size.
    if compression not in (1, 2):
        pixels_length = (image.width * bits_per_pixel + 31) // 32 * 4 * image.height
    if pixels_at + pixels_length > len(data):
        raise Unreadable("cut short: the file ends before its last row of pixels")
    return from_pillow(image, max_pixels)
