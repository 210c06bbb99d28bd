"""PNG files to arrays of pixels: the chunks are checked here, the pixels are decoded by OpenCV."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from classwise.data.decode_common import UPRIGHT, check_size, exif_orientation, over_white
from classwise.data.image_file import Unreadable


@dataclass(frozen=True)
class _Png:
    """What a PNG's chunks say, and the file again with the chunks that carry pixels and no other."""

    depth: int
    colours: int  # colour type: 0 grey, 2 RGB, 3 palette, 4 grey + alpha, 6 RGBA
    transparent: bytes  # tRNS
    exif: bytes
    stripped: bytes


def decode_png(data: bytes, max_pixels: int) -> np.ndarray:
    png = _parse_png(data, max_pixels)
    samples_HWC = cv2.imdecode(np.frombuffer(png.stripped, np.uint8), cv2.IMREAD_UNCHANGED)
    if samples_HWC is None:
        raise Unreadable("cut short or damaged")
    to_rgb = {1: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGBA}
    samples_HWC = cv2.cvtColor(samples_HWC, to_rgb[np.atleast_3d(samples_HWC).shape[2]])
    # 16 bits to 8: v / 257 to nearest, so that 65535 becomes 255.
    image_HWC = cv2.convertScaleAbs(samples_HWC, alpha=1 / 257) if png.depth == 16 else samples_HWC
    if image_HWC.shape[2] == 4:
        image_HWC = over_white(image_HWC)
    if png.colours in (0, 2) and png.transparent:
        # Grey and RGB images name one transparent colour, in samples of the file's own depth.
        key = np.array(struct.unpack(">H" if png.colours == 0 else ">HHH", png.transparent))
        key_scaled = key if png.depth == 16 else key * 255 // (2**png.depth - 1)
        image_HWC[np.all(samples_HWC == key_scaled, axis=-1)] = 255
    return UPRIGHT[exif_orientation(png.exif)](image_HWC)


def _parse_png(data: bytes, max_pixels: int) -> _Png:
    """Walks the chunks: every one there up to IEND, and the sums of those that carry pixels right. Text,
    colour profiles and animation are left behind, and with them their traps for the decoder."""
    header, transparent, exif, kept, packed = b"", b"", b"", [data[:8]], 0
    for kind, start, end in _png_chunks(data):
        body = data[start + 8 : end - 4]
        if (kind == b"IHDR") == bool(header):
            raise Unreadable(f"a chunk {kind!r} where the header should be, or a second header")
        if kind == b"IHDR":
            header = body
            width, height, depth, colours = struct.unpack_from(">IIBB", header)
            check_size(height, width, max_pixels)
        if kind == b"eXIf":
            exif = body
        if kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            if zlib.crc32(data[start + 4 : end - 4]).to_bytes(4, "big") != data[end - 4 : end]:
                raise Unreadable(f"damaged: wrong checksum in the chunk {kind.decode()}")
            if kind == b"tRNS":
                transparent = body
            # Packed rows are hardly ever longer than plain ones (8 bytes a pixel at most): more than twice as much
            # is a bomb, which the decoder would inflate to its end.
            packed += len(body) if kind == b"IDAT" else 0
            if packed > 2 * (8 * width + 1) * height + 2**16:
                raise Unreadable(f"{packed:,} bytes of pixels, too many for {width} × {height}")
            if kind != b"tRNS" or colours == 3:  # for grey and RGB it names one colour: see decode_png
                kept.append(data[start:end])
    return _Png(depth, colours, transparent, exif, b"".join(kept))


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start, end) of each chunk up to and with IEND (PNG specification, third edition, 5.3)."""
    at, kind = 8, b""
    while kind != b"IEND":
        if at + 12 > len(data):
            raise Unreadable("cut short: the file ends before its IEND chunk")
        length, kind = struct.unpack_from(">I4s", data, at)
        start, at = at, at + 12 + length
        if at > len(data):
            raise Unreadable(f"cut short: the file ends inside a chunk {kind!r}")
        yield kind, start, at
