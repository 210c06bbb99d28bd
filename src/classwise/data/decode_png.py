"""PNG files to arrays of pixels: the chunks are checked here, the pixels are decoded by OpenCV."""

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np

from classwise.data.decode_common import check_size, exif_orientation, upright
from classwise.data.image_file import Unreadable
from classwise.data.pixel_format import ImageFacts, PixelFormat, Raster, scaled

# Chunks that determine the pixels. Text, colour profiles and animation are left out, and with them their traps for the
# decoder.
_PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_GRAY, _RGB, _PALETTE, _GRAY_ALPHA = 0, 2, 3, 4  # colour types; 6 is RGB with alpha
_TO_RGB = {1: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGBA}


class _Png(NamedTuple):
    """What a PNG's chunks say, and the file again with nothing but the chunks that determine its pixels."""

    depth: int  # bits per sample
    colour_type: int
    transparent: bytes  # the body of tRNS
    exif: bytes
    frames: int
    stripped: bytes


def decode_png(data: bytes, max_pixels: int, pixels: PixelFormat) -> Raster:
    """RGB or RGBA, upright; of an animation the image that programs without animations show. Gray, with or
    without alpha, keeps its one or two channels where `pixels` asks for another number than 1, 3 or 4. Raises
    Unreadable."""
    png = _parse_png(data, max_pixels)
    samples_HWC = cv2.imdecode(np.frombuffer(png.stripped, np.uint8), cv2.IMREAD_UNCHANGED)
    if samples_HWC is None:
        raise Unreadable("cut short or damaged")
    channels = samples_HWC.shape[2] if samples_HWC.ndim == 3 else 1
    samples_HWC = cv2.cvtColor(samples_HWC, _TO_RGB[channels])

    has_alpha = samples_HWC.shape[2] == 4
    facts = ImageFacts()
    image_HWC = samples_HWC
    if png.depth == 16:
        # Alpha is a share of 65535, whatever the range of the colours.
        image_HWC, facts = scaled(samples_HWC[..., :3], 16, pixels.value_range)
        if has_alpha:
            image_HWC = np.concatenate([image_HWC, scaled(samples_HWC[..., 3:], 16, None)[0]], axis=-1)

    # Gray and RGB images name one transparent colour, in samples of the file's own depth.
    if png.colour_type in (_GRAY, _RGB) and png.transparent:
        colour = np.array(struct.unpack(">H" if png.colour_type == _GRAY else ">HHH", png.transparent))
        decoded_colour = colour if png.depth == 16 else colour * 255 // (2**png.depth - 1)
        image_HWC[np.all(samples_HWC == decoded_colour, axis=-1)] = 255

    # The decoder repeats gray. RGBA is what four channels ask for, and files of one set are often stored as both.
    stored_channels = {_GRAY: [0], _GRAY_ALPHA: [0, 3]}.get(png.colour_type)
    if pixels.channels not in (1, 3, 4) and stored_channels is not None:
        image_HWC = np.ascontiguousarray(image_HWC[..., stored_channels])
    if png.frames > 1:
        facts = facts._replace(frames=png.frames)
    raster = Raster(image_HWC, has_alpha, facts)
    return upright(raster, exif_orientation(png.exif)) if png.exif else raster


def _parse_png(data: bytes, max_pixels: int) -> _Png:
    """Walks the chunks: all must be there, up to IEND, and the checksums of those that determine the pixels right."""
    header = b""
    transparent = b""
    exif = b""
    frames = 1
    pixel_chunks = [data[:8]]
    compressed_length = 0
    for kind, start, end in _png_chunks(data):
        body = data[start + 8 : end - 4]
        if (kind == b"IHDR") == bool(header):
            raise Unreadable(f"a chunk {kind!r} where the header should be, or a second header")
        if kind == b"IHDR":
            header = body
            width, height, depth, colour_type = struct.unpack_from(">IIBB", header)
            check_size(height, width, max_pixels)
        if kind == b"eXIf":
            exif = body
        if kind == b"acTL":
            frames = max(1, int.from_bytes(body[:4], "big"))
        if kind not in _PIXEL_CHUNKS:
            continue

        if zlib.crc32(data[start + 4 : end - 4]).to_bytes(4, "big") != data[end - 4 : end]:
            raise Unreadable(f"damaged: wrong checksum in the chunk {kind.decode()}")
        # Compressed rows are hardly ever longer than plain ones (8 bytes a pixel at most). More than twice as much is a
        # decompression bomb, which the decoder would inflate to its end.
        if kind == b"IDAT":
            compressed_length += len(body)
        if compressed_length > 2 * (8 * width + 1) * height + 2**16:
            raise Unreadable(f"{compressed_length:,} bytes of pixels, too many for {width} × {height}")

        # For gray and RGB images tRNS names one colour, which `decode_png` applies itself.
        if kind == b"tRNS":
            transparent = body
        if kind != b"tRNS" or colour_type == _PALETTE:
            pixel_chunks.append(data[start:end])
    return _Png(
        depth=depth,
        colour_type=colour_type,
        transparent=transparent,
        exif=exif,
        frames=frames,
        stripped=b"".join(pixel_chunks),
    )


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start, end) of each chunk up to and with IEND (PNG specification, third edition, 5.3)."""
    end = 8
    kind = b""
    while kind != b"IEND":
        start = end
        if start + 12 > len(data):
            raise Unreadable("cut short: the file ends before its IEND chunk")
        length, kind = struct.unpack_from(">I4s", data, start)
        end = start + 12 + length
        if end > len(data):
            raise Unreadable(f"cut short: the file ends inside its chunk {kind.decode('latin-1')}")
        yield kind, start, end
