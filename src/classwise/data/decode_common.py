"""What the decoders share: the check of the size, transparency over white, and the upright orientation."""

import struct
from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile

from classwise.data.image_file import Unreadable


def check_size(height: int, width: int, max_pixels: int) -> None:
    """Raises Unreadable for an image without pixels, and for one of more than `max_pixels`."""
    if height < 1 or width < 1:
        raise Unreadable(f"{width} × {height} pixels: an empty image")
    if height * width > max_pixels:
        raise Unreadable(f"{width:,} × {height:,} pixels; allowed: {max_pixels:,} in all (width × height)")


def from_pillow(image: ImageFile, max_pixels: int) -> np.ndarray:
    """(H, W, 3) RGB of an image that Pillow has opened but not yet decoded, over white where it is transparent."""
    check_size(image.height, image.width, max_pixels)
    image.load()
    if not image.has_transparency_data:
        return np.array(image.convert("RGB"))
    return over_white(np.asarray(image.convert("RGBA")))


def over_white(image_HWC: np.ndarray) -> np.ndarray:
    """(H, W, 4) uint8 RGBA, not premultiplied, to RGB over white, rounded to nearest."""
    image = Image.fromarray(image_HWC)
    white = Image.new("RGB", image.size, (255, 255, 255))
    white.paste(image.convert("RGB"), mask=image.getchannel("A"))
    return np.array(white)


def exif_orientation(exif: bytes) -> int:
    """The orientation, 1 to 8, in an EXIF block (EXIF 3.0, 4.6.2); 1 where there is none, or no valid one."""
    exif = exif.removeprefix(b"Exif\0\0")
    byte_order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if byte_order is None:
        return 1
    try:
        (directory_at,) = struct.unpack_from(byte_order + "I", exif, 4)
        (entries,) = struct.unpack_from(byte_order + "H", exif, directory_at)
        for entry in range(entries):
            tag, _, _, value = struct.unpack_from(byte_order + "HHIH", exif, directory_at + 2 + 12 * entry)
            if tag == 0x0112:
                return int(value) if 1 <= value <= 8 else 1
    except struct.error:  # damaged metadata says nothing about the pixels
        pass
    return 1


# By EXIF orientation: what makes the image upright.
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda image: image,
    2: lambda image: cv2.flip(image, 1),
    3: lambda image: cv2.rotate(image, cv2.ROTATE_180),
    4: lambda image: cv2.flip(image, 0),
    5: cv2.transpose,
    6: lambda image: cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE),
    7: lambda image: cv2.flip(cv2.transpose(image), -1),
    8: lambda image: cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE),
}
