"""Images that are handed over in memory: arrays, Pillow's images and the bytes of files, read as files are.

An array or an image of Pillow's is written as a PNG and read back, so that transparency, 16 bits and reduction are
those of a file with the same pixels.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from classwise.data.images import decode_image, read_image
from classwise.data.pixel_format import RGB, PixelFormat
from classwise.errors import ImageError

CONVERTED_MODES = {
    **dict.fromkeys(("CMYK", "YCbCr", "LAB", "HSV", "RGBX"), "RGB"),
    **dict.fromkeys(("PA", "RGBa"), "RGBA"),
    "La": "LA",
}
"""Modes of Pillow that no PNG has, and those that they are converted to."""
UNKNOWN_MODES = ("F", "I")
"""Modes without a known range."""

InMemory = bytes | bytearray | memoryview | npt.NDArray[Any] | Image.Image
ImageSource = str | Path | InMemory


@dataclass(frozen=True)
class MemoryImages:
    """Decoded images by row, as the dataset takes them from the image cache."""

    images: Sequence[npt.NDArray[np.uint8]]

    def get(self, row: int) -> npt.NDArray[np.uint8]:
        """The image of a row, (H, W, C) uint8."""
        return self.images[row]

    def take(self, rows: Sequence[int]) -> "MemoryImages":
        """These rows only, in this order."""
        return MemoryImages([self.images[row] for row in rows])


def is_in_memory(source: Any) -> bool:
    """Whether this is an image itself rather than the path of one."""
    return isinstance(source, bytes | bytearray | memoryview | np.ndarray | Image.Image)


def image_of(
    source: ImageSource,
    name: str,
    max_pixels: int,
    min_size: tuple[int, int] | None,
    pixels: PixelFormat = RGB,
) -> npt.NDArray[np.uint8]:
    """The image as (H, W, C) uint8, as `read_image` gives it for a file; `name` it in messages. Raises ImageError for
    what is no image."""
    if isinstance(source, str | Path):
        return read_image(source, max_pixels, min_size=min_size, pixels=pixels)
    return decode_image(file_bytes(source, name, pixels), name, max_pixels, min_size, pixels)


def file_bytes(source: InMemory, name: str, pixels: PixelFormat = RGB) -> bytes:
    """An image in memory as the bytes of a file that holds the same; those of a file as they are. Raises ImageError."""
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    if isinstance(source, np.ndarray) and _has_other_channels(source, pixels):
        return _tiff_bytes(source)
    return _png_bytes(source, name)


def _has_other_channels(array: npt.NDArray[Any], pixels: PixelFormat) -> bool:
    """Whether this is an array of as many channels as the model takes, which are no colours."""
    is_image = array.ndim == 3 and array.dtype in (np.uint8, np.uint16) and 0 not in array.shape
    return is_image and array.shape[-1] == pixels.channels and pixels.channels not in (1, 3, 4)


def _tiff_bytes(array: npt.NDArray[Any]) -> bytes:
    """(H, W, C) as the bytes of a TIFF file with C channels."""
    import tifffile  # as in decode_tiff.py

    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, photometric="minisblack", planarconfig="contig")
    return buffer.getvalue()


def _png_bytes(source: Any, name: str) -> bytes:
    """An array or an image of Pillow's as the bytes of a PNG file. Raises ImageError."""
    if isinstance(source, np.ndarray):
        return _array_bytes(source, name)
    if not isinstance(source, Image.Image):
        raise ImageError(
            name,
            f"found {type(source).__name__}; allowed: a path, the bytes of a file, an array (H, W, 3) of uint8, or an"
            " image of Pillow's",
        )
    if source.mode in UNKNOWN_MODES:
        raise ImageError(
            name, f"found mode {source.mode!r}, whose range is not known; convert it to 8 bits first"
        )
    buffer = io.BytesIO()
    try:
        image = ImageOps.exif_transpose(source)
        if image.mode in CONVERTED_MODES:
            image = image.convert(CONVERTED_MODES[image.mode])
        image.save(buffer, format="PNG", compress_level=1)
    except Exception as error:
        # An opened file is read only now, and Pillow raises nearly anything for a damaged one (see decode.py).
        raise ImageError(
            name, f"Pillow's image cannot be read or written as a PNG ({error or type(error).__name__})"
        ) from error
    return buffer.getvalue()


def _array_bytes(array: npt.NDArray[Any], name: str) -> bytes:
    """(H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA of uint8 or uint16. Raises ImageError."""
    channels = 1 if array.ndim == 2 else array.shape[-1] if array.ndim == 3 else 0
    if array.dtype not in (np.uint8, np.uint16) or channels not in (1, 3, 4) or 0 in array.shape:
        raise ImageError(
            name,
            f"found an array of {array.dtype} with the shape {array.shape}; allowed: uint8 (0 to 255) or uint16, (H, W)"
            " gray, (H, W, 3) RGB, (H, W, 4) RGBA, or as many channels as the run's model.channels",
        )
    # OpenCV's channels are blue, green, red.
    if channels == 3:
        array = cv2.cvtColor(array, cv2.COLOR_RGB2BGR)
    elif channels == 4:
        array = cv2.cvtColor(array, cv2.COLOR_RGBA2BGRA)
    encoded, data = cv2.imencode(".png", np.ascontiguousarray(array), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not encoded:
        raise ImageError(name, "cannot be encoded")
    return data.tobytes()
