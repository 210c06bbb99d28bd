"""TIFF files to arrays of pixels: the first page, in every layout, depth and compression that tifffile reads."""

import io
import logging
import math
from typing import Any

import numpy as np

from classwise.data.decode_common import check_size, upright
from classwise.data.image_file import Unreadable
from classwise.data.pixel_format import ImageFacts, PixelFormat, Raster, scaled

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_JPEG = (6, 7)  # compressions whose decoder turns YCbCr into RGB
_PREMULTIPLIED, _ALPHA = 1, 2  # kinds of extra samples
_MOST_SAMPLES = 64
_MOST_PAGES = 10_000


def decode_tiff(data: bytes, max_pixels: int, pixels: PixelFormat) -> Raster:
    """The first page with all its channels, upright; or as many pages as `pixels` has channels, if each holds one of
    them (as ImageJ writes them). Raises Unreadable, UnknownRange."""
    # Imported here: few data sets have such files. What it logs about a file is in the error, if it matters.
    import tifffile

    logging.getLogger("tifffile").addHandler(logging.NullHandler())
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        check_size(page.imagelength, page.imagewidth, max_pixels)
        if page.imagedepth > 1 or page.samplesperpixel > _MOST_SAMPLES:
            raise Unreadable(
                f"{page.imagedepth} × {page.samplesperpixel} planes; allowed: {_MOST_SAMPLES} channels"
            )
        pages = _full_pages(file, page)
        frames = len(pages)
        if pixels.channels not in (1, 3) and page.samplesperpixel == 1 and frames == pixels.channels:
            frames = 1
        else:
            pages = pages[:1]
        for one in pages:
            _require_complete(one, len(data))
        samples_HWC = np.concatenate([_samples(one) for one in pages], axis=-1)
        orientation = page.tags.valueof(274, 1)

    raster = _raster(page, samples_HWC, pixels)
    raster = raster._replace(facts=raster.facts._replace(frames=frames))
    return upright(raster, orientation if orientation in range(1, 9) else 1)


def _require_complete(page: Any, length: int) -> None:
    """Every strip or tile must be there: those that are missing would be read as zeros."""
    parts = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    expected = math.prod(page.chunked)
    if len(parts) < expected:
        raise Unreadable(f"cut short or damaged: {len(parts)} of {expected} strips or tiles")
    if any(count == 0 or offset + count > length for offset, count in parts):
        raise Unreadable("cut short: the file ends before its last row of pixels")
    bits = page.imagelength * page.imagewidth * page.samplesperpixel * page.bitspersample
    if page.compression == 1 and 8 * sum(page.databytecounts) < bits:
        raise Unreadable("cut short or damaged: fewer bytes than its pixels take")


def _samples(page: Any) -> np.ndarray:
    """(H, W, samples) of the page as they are stored."""
    array: np.ndarray = page.asarray()
    order = [page.axes.index(axis) for axis in ("Y", "X", "S") if axis in page.axes]
    if len(order) != array.ndim:
        raise Unreadable(f"axes {page.axes}; allowed: height, width and channels")
    return array.transpose(order).reshape(page.imagelength, page.imagewidth, -1)


def _full_pages(file: Any, first: Any) -> list[Any]:
    """The pages that hold an image of their own, the first at any rate: thumbnails, masks and smaller copies do not."""
    others = (page.aspage() for page in file.pages[1:_MOST_PAGES])
    alike = (page for page in others if (page.shape, page.dtype) == (first.shape, first.dtype))
    return [first, *(page for page in alike if not page.is_reduced and not page.is_mask)]


def _raster(page: Any, samples_HWC: np.ndarray, pixels: PixelFormat) -> Raster:
    """The stored samples as levels of 8 bits: of gray, colours, or whatever the channels are."""
    photometric = int(page.photometric)
    count = samples_HWC.shape[2]
    extra = tuple(int(kind) for kind in page.extrasamples)
    if photometric == _PALETTE:
        return Raster(_palette_colours(page, samples_HWC), has_alpha=False)
    if photometric == _CMYK and samples_HWC.dtype == np.uint8 and count == 4:
        ink_HWC = samples_HWC.astype(np.uint16)
        rgb_HWC = ((255 - ink_HWC[..., :3]) * (255 - ink_HWC[..., 3:]) + 127) // 255
        return Raster(rgb_HWC.astype(np.uint8), has_alpha=False)
    is_rgb = photometric == _RGB or (photometric == _YCBCR and int(page.compression) in _JPEG)
    if not is_rgb and photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO):
        name = getattr(page.photometric, "name", photometric)
        raise Unreadable(
            f"colours of the kind {name}; allowed: gray, RGB, palette, CMYK of 8 bits, YCbCr of JPEG"
        )

    # Alpha, the last sample, is a share of all that its type can hold, whatever the range of the colours.
    has_alpha = bool(extra) and extra[-1] in (_PREMULTIPLIED, _ALPHA) and samples_HWC.dtype.kind == "u"
    colours = count - has_alpha
    levels_HWC, facts = _levels(samples_HWC[..., :colours], page.bitspersample, pixels)
    if photometric == _WHITE_IS_ZERO:
        levels_HWC = 255 - levels_HWC
    if has_alpha:
        alpha_HW1, _ = _levels(samples_HWC[..., colours:], page.bitspersample, PixelFormat())
        if extra[-1] == _PREMULTIPLIED:
            divisor_HW1 = np.maximum(alpha_HW1, 1).astype(np.float32)
            levels_HWC = np.rint((levels_HWC * (255 / divisor_HW1)).clip(0, 255)).astype(np.uint8)
        levels_HWC = np.concatenate([levels_HWC, alpha_HW1], axis=-1)
    return Raster(levels_HWC, has_alpha, facts)


def _levels(samples_HWC: np.ndarray, bits: int, pixels: PixelFormat) -> tuple[np.ndarray, ImageFacts]:
    """uint8 from 0 to 255, and what the file holds; up to 8 bits use all of their range."""
    if samples_HWC.dtype == bool:
        return samples_HWC * np.uint8(255), ImageFacts()
    if samples_HWC.dtype == np.uint8:
        full = 2**bits - 1
        levels = samples_HWC if full == 255 else np.rint(samples_HWC * (255 / full)).astype(np.uint8)
        return levels, ImageFacts()
    return scaled(samples_HWC, bits, pixels.value_range)


def _palette_colours(page: Any, samples_HWC: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: the colours that the samples number. Some programs write 8-bit colours where 16 bits belong."""
    colours_3N = page.colormap
    if colours_3N is None or samples_HWC.shape[2] != 1 or int(samples_HWC.max()) >= colours_3N.shape[1]:
        raise Unreadable("damaged: a palette that lacks colours")
    if colours_3N.max() >= 256:
        colours_3N = colours_3N >> 8  # programs write 8 bits times 256 or times 257
    colours_N3: np.ndarray = colours_3N.astype(np.uint8).T
    return colours_N3[samples_HWC[..., 0].astype(np.intp)]
