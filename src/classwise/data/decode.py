"""The bytes of an image file to an array of pixels: JPEG, PNG and TIFF in files of their own (decode_jpeg.py and so
on), the other kinds here.

A file's size comes from its header and is checked before any pixel is decoded. A truncated file is refused: a half-gray
image would train without a word. The kinds and their decoders (why these: docs/decisions/0003-images.md):

    JPEG    simplejpeg, strict; Pillow where the chroma subsampling is one that simplejpeg does not support
    PNG     OpenCV: Pillow cuts 16 bits to 8 and takes missing rows for black ones
    TIFF    tifffile with imagecodecs: Pillow cuts 16 bits to 8, OpenCV mixes up separate planes; the first page
    WebP    Pillow, the first frame of an animation; so are GIF and AVIF
    BMP     Pillow
    HEIC    pi-heif, where it is installed

Nothing here touches the global settings of Pillow, OpenCV or `warnings`, so all of it may run in threads.
"""

import io
import struct
from collections.abc import Callable

import numpy as np
from PIL import Image
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.WebPImagePlugin import WebPImageFile

from classwise.data.decode_common import (
    check_size,
    exif_orientation,
    from_pillow,
    halved_length,
    halvings,
    upright,
)
from classwise.data.decode_jpeg import RowsNeeded, decode_jpeg
from classwise.data.decode_png import decode_png
from classwise.data.decode_tiff import decode_tiff
from classwise.data.fit import resize_image
from classwise.data.image_file import Unreadable
from classwise.data.pixel_format import RGB, ImageFacts, PixelFormat, Raster, UnknownRange, in_format


def decode(
    kind: str,
    data: bytes,
    max_pixels: int,
    min_size: tuple[int, int] | None,
    pixels: PixelFormat = RGB,
    rows_needed: RowsNeeded = None,
) -> tuple[np.ndarray, ImageFacts]:
    """The image in the bytes of a file of this `kind`, (H, W, C) uint8 as `pixels` says, halved down to `min_size`
    (height, width), as far as `rows_needed` as `read_image` describes them; and what else the file holds. Raises
    Unreadable for anything that is wrong with it, UnknownRange."""
    try:
        image_HWC, facts = in_format(
            _raster(kind, data, max_pixels, min_size, pixels, rows_needed), pixels.channels
        )
        return (image_HWC if min_size is None else _halve(image_HWC, min_size)), facts
    except UnknownRange:
        raise
    except Unreadable as error:
        raise Unreadable(f"{kind}: {error}") from error
    except Exception as error:
        # Decoders meet hostile bytes: Pillow alone raises OSError, SyntaxError, ValueError, IndexError, struct.error,
        # zlib.error, MemoryError and more. To the caller all of them mean the same.
        raise Unreadable(f"{kind}: cut short or damaged ({error or type(error).__name__})") from error


def _raster(
    kind: str,
    data: bytes,
    max_pixels: int,
    min_size: tuple[int, int] | None,
    pixels: PixelFormat,
    rows_needed: RowsNeeded,
) -> Raster:
    """The decoded file, before it has the channels that are asked for."""
    if kind == "JPEG":
        return Raster(decode_jpeg(data, max_pixels, min_size, rows_needed), has_alpha=False)
    if kind == "PNG":
        return decode_png(data, max_pixels, pixels)
    if kind == "TIFF":
        return decode_tiff(data, max_pixels, pixels)
    return _DECODERS[kind](data, max_pixels)


def _halve(image_HWC: np.ndarray, min_size: tuple[int, int]) -> np.ndarray:
    times = halvings(image_HWC.shape, min_size)
    if not times:
        return image_HWC
    height, width = (halved_length(length, times) for length in image_HWC.shape[:2])
    return resize_image(image_HWC, (height, width))


def _decode_webp(data: bytes, max_pixels: int) -> Raster:
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
    return upright(from_pillow(image, max_pixels), exif_orientation(image.info.get("exif", b"")))


def _decode_gif(data: bytes, max_pixels: int) -> Raster:
    # The size of the canvas; Pillow warns of bombs when it opens a file of more pixels than its own limit.
    width, height = (int.from_bytes(data[at : at + 2], "little") for at in (6, 8))
    check_size(height, width, min(max_pixels, Image.MAX_IMAGE_PIXELS or max_pixels))
    return from_pillow(GifImageFile(io.BytesIO(data)), max_pixels)


def _decode_avif(data: bytes, max_pixels: int) -> Raster:
    # Opening reads the header only. Pillow gives the turns that the file asks for as an EXIF orientation.
    image = AvifImageFile(io.BytesIO(data))
    return upright(from_pillow(image, max_pixels), exif_orientation(image.info.get("exif", b"")))


def _decode_heic(data: bytes, max_pixels: int) -> Raster:
    """Its turns are in the file's structure, and the decoder applies them; the EXIF orientation only repeats them."""
    try:
        import pi_heif
    except ImportError:
        raise Unreadable("its decoder is not installed: pip install 'classwise[heic]'") from None
    file = pi_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=True)
    image = file[file.primary_index]
    width, height = image.size
    check_size(height, width, max_pixels)
    samples_HWC = np.array(np.asarray(image)[:height, :width])
    samples_HWC = samples_HWC.reshape(height, width, -1)
    return Raster(samples_HWC, image.mode in ("RGBA", "LA"), ImageFacts(frames=len(file)))


def _decode_bmp(data: bytes, max_pixels: int) -> Raster:
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


_DECODERS: dict[str, Callable[[bytes, int], Raster]] = {
    "WebP": _decode_webp,
    "BMP": _decode_bmp,
    "GIF": _decode_gif,
    "AVIF": _decode_avif,
    "HEIC": _decode_heic,
}
