"""What the decoders share: the check of the size, Pillow's images as rasters, the upright orientation, and how often
an image is halved."""

import struct
from collections.abc import Callable

import cv2
import numpy as np
from PIL.ImageFile import ImageFile

from classwise.data.fit import by_four_channels
from classwise.data.image_file import Unreadable
from classwise.data.pixel_format import ImageFacts, Raster


def check_size(height: int, width: int, max_pixels: int) -> None:
    """Raises Unreadable for an image without pixels, and for one of more than `max_pixels`."""
    if height < 1 or width < 1:
        raise Unreadable(f"{width} × {height} pixels: an empty image")
    if height * width > max_pixels:
        raise Unreadable(f"{width:,} × {height:,} pixels; allowed: {max_pixels:,} in all (width × height)")


def from_pillow(image: ImageFile, max_pixels: int) -> Raster:
    """RGB or, where it is transparent, RGBA of an image that Pillow has opened but not yet decoded: its first frame."""
    check_size(image.height, image.width, max_pixels)
    image.load()
    has_alpha = bool(image.has_transparency_data)
    samples_HWC = np.array(image.convert("RGBA" if has_alpha else "RGB"))
    return Raster(samples_HWC, has_alpha, ImageFacts(frames=int(getattr(image, "n_frames", 1))))


def upright(raster: Raster, orientation: int) -> Raster:
    """The raster turned upright from an EXIF orientation, 1 to 8."""
    if orientation == 1:
        return raster
    return raster._replace(samples_HWC=by_four_channels(UPRIGHT[orientation], raster.samples_HWC))


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


MOST_HALVINGS = 12


def halvings(size: tuple[int, ...], min_size: tuple[int, int]) -> int:
    """How often (height, width) can be halved and stay no smaller than `min_size`."""
    height, width = size[:2]
    times = 0
    while (
        times < MOST_HALVINGS
        and halved_length(height, times + 1) >= min_size[0]
        and halved_length(width, times + 1) >= min_size[1]
    ):
        times += 1
    return times


def halved_length(length: int, times: int) -> int:
    """A length halved so often, rounded up each time."""
    return (length - 1 >> times) + 1


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
