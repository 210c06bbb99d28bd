"""Image files to arrays, safely, and arrays to the size that a model takes.

A file is recognised by its first bytes, never by its name. Its size comes from its header and is checked
before any pixel is decoded, and a file that ends too early is refused: a half-grey image would train
without a word. The kinds and their decoders (why these: docs/decisions/0003-images.md):

    JPEG    simplejpeg, strict; Pillow where the chroma sampling is one that simplejpeg does not know
    PNG     OpenCV: Pillow cuts 16 bits to 8 and takes missing rows for black ones
    WebP    Pillow, the first frame of an animation
    BMP     Pillow

Nothing here touches the global settings of Pillow, OpenCV or `warnings`, so all of it may run in threads.
"""

import functools
import io
import itertools
import os
import stat
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.WebPImagePlugin import WebPImageFile

from classwise.data.cache import ImageCache, content_key
from classwise.errors import ImageError

MAX_PIXELS = 100_000_000
FITS = ("squash", "crop", "pad")
PAD = 128  # mid grey: next to zero after any usual normalisation, so that no edge of the padding stands out

# First bytes of files that people do hand in as images.
_OTHER_KINDS = {
    b"GIF8": "a GIF",
    b"II*\0": "a TIFF",
    b"MM\0*": "a TIFF",
    b"%PDF": "a PDF",
    b"8BPS": "a Photoshop file",
    b"PK\3\4": "a ZIP archive",
    b"\0\5\x16\7": "a macOS resource fork ('._' file)",
    b"version https://git-lfs": "a Git LFS pointer (fetch the real file with `git lfs pull`)",
    b"<": "XML or HTML text",
}


class _Unreadable(Exception):  # noqa: N818 - carries a reason to read_image and never leaves this file
    """Why the file at hand cannot be used."""


def read_image(
    path: str | Path,
    max_pixels: int = MAX_PIXELS,
    root: str | Path | None = None,
    min_size: tuple[int, int] | None = None,
) -> np.ndarray:
    """The image as (height, width, 3) uint8 RGB: contiguous, writable, upright by its EXIF orientation,
    transparent parts over white, the first frame of an animation.

    With `min_size` (height, width) it is halved as often as it stays no smaller than that on either side, which for a
    JPEG is less work than to decode all of it.

    Raises ImageError for anything but a whole JPEG, PNG, WebP or BMP file of at most `max_pixels` pixels, and for a
    file that does not lie below the folder `root`, if one is given, wherever links may lead at that moment.
    """
    try:
        kind, data = _read_file(path, max_pixels, root)
        image_HWC = _decode(kind, data, max_pixels, min_size)
    except _Unreadable as error:
        raise ImageError(path, str(error)) from None
    return np.require(image_HWC, np.uint8, ["C", "W"])


def min_image_size(size: tuple[int, int]) -> tuple[int, int]:
    """What images that are shown at `size` are halved to at most (see `read_image`): twice that, so that a random
    part of a quarter of the area is still shown with all the detail that there is."""
    return 2 * size[0], 2 * size[1]


@dataclass(frozen=True)
class Checked:
    """What `check_images` has found: the error of each bad file, in the order of the paths, and the `content_key` of
    each good one."""

    bad: list[ImageError]
    keys: dict[Path, bytes]


def check_image(
    path: Path,
    max_pixels: int = MAX_PIXELS,
    root: Path | None = None,
    min_size: tuple[int, int] | None = None,
    cache: ImageCache | None = None,
) -> bytes:
    """Reads a file as `read_image` does, sees to it that the store, if there is one, has its image, and returns the
    file's `content_key`. Raises ImageError."""
    try:
        kind, data = _read_file(path, max_pixels, root)
        key = content_key(data)
        if cache is None:
            _decode(kind, data, max_pixels, min_size)
        elif not cache.find(key):
            cache.add(key, np.require(_decode(kind, data, max_pixels, min_size), np.uint8, ["C"]))
        return key
    except _Unreadable as error:
        raise ImageError(path, str(error)) from None


def check_images(
    paths: Sequence[Path],
    max_pixels: int = MAX_PIXELS,
    threads: int | None = None,
    root: Path | None = None,
    progress: Callable[[Sequence[Path]], Iterable[Path]] | None = None,
    min_size: tuple[int, int] | None = None,
    cache: ImageCache | None = None,
) -> Checked:
    """Decodes every file once, in threads. With a `cache` (and `min_size` as in `read_image`) the images are kept
    there, and those that it has are not decoded.

    A path that occurs several times is read once and reported once. `threads` defaults to one a core, at
    most 16. `progress` wraps the sequence of distinct paths, as `tqdm` and `rich.progress.track` do.
    """
    distinct = list(dict.fromkeys(paths))
    threads = threads or min(16, os.cpu_count() or 1)
    shown = iter(progress(distinct) if progress else distinct)

    def found(path: Path) -> bytes | ImageError:
        try:
            return check_image(path, max_pixels, root, min_size, cache)
        except ImageError as error:
            return error

    with ThreadPoolExecutor(threads) as pool:
        # In slices: one future a file for a million files would cost more memory than the images.
        slices = (distinct[start : start + 1024] for start in range(0, len(distinct), 1024))
        results = itertools.chain.from_iterable(pool.map(found, part) for part in slices)
        by_path = dict(zip(shown, results, strict=True))
    bad = [result for result in by_path.values() if isinstance(result, ImageError)]
    return Checked(bad, {path: key for path, key in by_path.items() if isinstance(key, bytes)})


def _read_file(path: str | Path, max_pixels: int, root: str | Path | None) -> tuple[str, bytes]:
    """The file's kind and its bytes. A pipe or a device is refused before it is opened, a file outside of `root`
    before a byte of it is read."""
    try:
        _require_regular(Path(path).stat().st_mode)
        # Between the two lines a file can be swapped for a pipe, whose opening would wait for a writer.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(path, flags), "rb") as file:
            status = os.fstat(file.fileno())
            _require_regular(status.st_mode)
            if root is not None:
                _require_below(str(root), path, file.fileno())
            start = file.read(32)
            kind = _kind(start)
            # The most that pixels take is 8 bytes (16 bits, four channels); the rest is metadata.
            if status.st_size > 8 * max_pixels + 2**26:
                raise _Unreadable(f"{status.st_size:,} bytes, too many for an image of {max_pixels:,} pixels")
            return kind, start + file.read()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise _Unreadable(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _require_regular(mode: int) -> None:
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
        raise _Unreadable(f"not a file but {kinds.get(stat.S_IFMT(mode), 'a device')}")


def _require_below(root: str, path: str | Path, handle: int) -> None:
    """Where the open file really lies: a check of its name could be true before it is opened and false after."""
    try:
        real = os.readlink(f"/proc/self/fd/{handle}")  # noqa: PTH115 - it is no path of a file
    except OSError:  # not Linux: the name has to do
        real = os.path.realpath(path)
    if not real.startswith(_real_folder(root)):
        raise _Unreadable(f"lies outside of {root}, to which a link leads")


@functools.lru_cache(maxsize=64)
def _real_folder(root: str) -> str:
    return os.path.realpath(root).rstrip(os.sep) + os.sep


def _kind(start: bytes) -> str:
    if start.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        return "WebP"
    if start.startswith(b"BM"):
        return "BMP"
    if not start:
        raise _Unreadable("an empty file")
    raise _Unreadable(f"{_other_kind(start)}; allowed: JPEG, PNG, WebP, BMP")


def _other_kind(start: bytes) -> str:
    if start[4:8] == b"ftyp":
        return "an AVIF, HEIC or video file"
    found = (name for magic, name in _OTHER_KINDS.items() if start.lstrip().startswith(magic))
    return next(found, f"no image that is known here (it starts with the bytes {start[:8].hex(' ')})")


def _decode(kind: str, data: bytes, max_pixels: int, min_size: tuple[int, int] | None) -> np.ndarray:
    decoders: dict[str, Callable[[bytes, int], np.ndarray]] = {
        "JPEG": lambda data, most: _decode_jpeg(data, most, min_size),
        "PNG": _decode_png,
        "WebP": _decode_webp,
        "BMP": _decode_bmp,
    }
    try:
        image_HWC = decoders[kind](data, max_pixels)
        return image_HWC if min_size is None else _halved(image_HWC, min_size)
    except _Unreadable as error:
        raise _Unreadable(f"{kind}: {error}") from None
    except Exception as error:
        # Decoders meet hostile bytes: Pillow alone answers with OSError, SyntaxError, ValueError, IndexError,
        # struct.error, zlib.error, MemoryError and more. To the caller all of them mean one thing.
        raise _Unreadable(f"{kind}: cut short or damaged ({error or type(error).__name__})") from error


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


def _check_size(height: int, width: int, max_pixels: int) -> None:
    if height < 1 or width < 1:
        raise _Unreadable(f"{width} × {height} pixels: nothing to see")
    if height * width > max_pixels:
        raise _Unreadable(f"{width:,} × {height:,} pixels; allowed: {max_pixels:,} in all (width × height)")


def _from_pillow(image: ImageFile, max_pixels: int) -> np.ndarray:
    """RGB of an image that Pillow has opened but not yet decoded, over white where it is transparent."""
    _check_size(image.height, image.width, max_pixels)
    image.load()
    if not image.has_transparency_data:
        return np.array(image.convert("RGB"))
    return _over_white(np.asarray(image.convert("RGBA")))


def _over_white(image_HWC: np.ndarray) -> np.ndarray:
    """(H, W, 4) uint8 RGBA, not premultiplied, to RGB over white, rounded to nearest."""
    image = Image.fromarray(image_HWC)
    white = Image.new("RGB", image.size, (255, 255, 255))
    white.paste(image.convert("RGB"), mask=image.getchannel("A"))
    return np.array(white)


def _decode_jpeg(data: bytes, max_pixels: int, min_size: tuple[int, int] | None) -> np.ndarray:
    segments = list(_jpeg_segments(data))
    exif = (body for kind, body in segments if kind == 0xE1 and body.startswith(b"Exif\0\0"))
    orientation = _orientation(next(exif, b""))
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        # An unusual chroma sampling; or damage, which Pillow finds as well.
        image_HWC = _from_pillow(JpegImageFile(io.BytesIO(data)), max_pixels)
    else:
        _check_size(height, width, max_pixels)
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
    return _UPRIGHT[orientation](image_HWC)


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


@dataclass(frozen=True)
class _Png:
    """What a PNG's chunks say, and the file again with the chunks that carry pixels and no other."""

    depth: int
    colours: int  # colour type: 0 grey, 2 RGB, 3 palette, 4 grey + alpha, 6 RGBA
    transparent: bytes  # tRNS
    exif: bytes
    stripped: bytes


def _decode_png(data: bytes, max_pixels: int) -> np.ndarray:
    png = _parse_png(data, max_pixels)
    samples_HWC = cv2.imdecode(np.frombuffer(png.stripped, np.uint8), cv2.IMREAD_UNCHANGED)
    if samples_HWC is None:
        raise _Unreadable("cut short or damaged")
    to_rgb = {1: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGBA}
    samples_HWC = cv2.cvtColor(samples_HWC, to_rgb[np.atleast_3d(samples_HWC).shape[2]])
    # 16 bits to 8: v / 257 to nearest, so that 65535 becomes 255.
    image_HWC = cv2.convertScaleAbs(samples_HWC, alpha=1 / 257) if png.depth == 16 else samples_HWC
    if image_HWC.shape[2] == 4:
        image_HWC = _over_white(image_HWC)
    if png.colours in (0, 2) and png.transparent:
        # Grey and RGB images name one transparent colour, in samples of the file's own depth.
        key = np.array(struct.unpack(">H" if png.colours == 0 else ">HHH", png.transparent))
        key_scaled = key if png.depth == 16 else key * 255 // (2**png.depth - 1)
        image_HWC[np.all(samples_HWC == key_scaled, axis=-1)] = 255
    return _UPRIGHT[_orientation(png.exif)](image_HWC)


def _parse_png(data: bytes, max_pixels: int) -> _Png:
    """Walks the chunks: every one there up to IEND, and the sums of those that carry pixels right. Text,
    colour profiles and animation are left behind, and with them their traps for the decoder."""
    header, transparent, exif, kept, packed = b"", b"", b"", [data[:8]], 0
    for kind, start, end in _png_chunks(data):
        body = data[start + 8 : end - 4]
        if (kind == b"IHDR") == bool(header):
            raise _Unreadable(f"a chunk {kind!r} where the header should be, or a second header")
        if kind == b"IHDR":
            header = body
            width, height, depth, colours = struct.unpack_from(">IIBB", header)
            _check_size(height, width, max_pixels)
        if kind == b"eXIf":
            exif = body
        if kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            if zlib.crc32(data[start + 4 : end - 4]).to_bytes(4, "big") != data[end - 4 : end]:
                raise _Unreadable(f"damaged: wrong checksum in the chunk {kind.decode()}")
            if kind == b"tRNS":
                transparent = body
            # Packed rows are hardly ever longer than plain ones (8 bytes a pixel at most): more than twice as much
            # is a bomb, which the decoder would inflate to its end.
            packed += len(body) if kind == b"IDAT" else 0
            if packed > 2 * (8 * width + 1) * height + 2**16:
                raise _Unreadable(f"{packed:,} bytes of pixels, too many for {width} × {height}")
            if kind != b"tRNS" or colours == 3:  # for grey and RGB it names one colour: see _decode_png
                kept.append(data[start:end])
    return _Png(depth, colours, transparent, exif, b"".join(kept))


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start, end) of each chunk up to and with IEND (PNG specification, third edition, 5.3)."""
    at, kind = 8, b""
    while kind != b"IEND":
        if at + 12 > len(data):
            raise _Unreadable("cut short: the file ends before its IEND chunk")
        length, kind = struct.unpack_from(">I4s", data, at)
        start, at = at, at + 12 + length
        if at > len(data):
            raise _Unreadable(f"cut short: the file ends inside a chunk {kind!r}")
        yield kind, start, at


def _decode_webp(data: bytes, max_pixels: int) -> np.ndarray:
    # Opening already allocates the canvas, so the size is read here first (RFC 9649, 2.5 to 2.7).
    if int.from_bytes(data[4:8], "little") + 8 > len(data):
        raise _Unreadable("cut short: the file ends before the length that it claims")
    if data[12:16] == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    elif data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (int.from_bytes(data[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    _check_size(height, width, max_pixels)
    image = WebPImageFile(io.BytesIO(data))
    return _UPRIGHT[_orientation(image.info.get("exif", b""))](_from_pillow(image, max_pixels))


def _decode_bmp(data: bytes, max_pixels: int) -> np.ndarray:
    image = BmpImageFile(io.BytesIO(data))
    _check_size(image.height, image.width, max_pixels)
    pixels_at, header_bytes = struct.unpack_from("<II", data, 10)
    bits = struct.unpack_from("<H", data, 24 if header_bytes == 12 else 28)[0]
    compression, cached_bytes = struct.unpack_from("<II", data, 30) if header_bytes > 12 else (0, 0)
    if compression not in (1, 2):  # the run-length kinds state their length, the others follow from the size
        cached_bytes = (image.width * bits + 31) // 32 * 4 * image.height
    if pixels_at + cached_bytes > len(data):
        raise _Unreadable("cut short: the file ends before its last row of pixels")
    return _from_pillow(image, max_pixels)


def _orientation(exif: bytes) -> int:
    """The orientation, 1 to 8, of an EXIF block; 1 where it says nothing that makes sense. EXIF 3.0, 4.6.2."""
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 1
    try:
        (at,) = struct.unpack_from(order + "I", exif, 4)
        (entries,) = struct.unpack_from(order + "H", exif, at)
        for entry in range(entries):
            tag, _, _, value = struct.unpack_from(order + "HHIH", exif, at + 2 + 12 * entry)
            if tag == 0x0112:
                return int(value) if 1 <= value <= 8 else 1
    except struct.error:  # damaged metadata says nothing about the pixels
        pass
    return 1


_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda image: image,
    2: lambda image: cv2.flip(image, 1),
    3: lambda image: cv2.rotate(image, cv2.ROTATE_180),
    4: lambda image: cv2.flip(image, 0),
    5: cv2.transpose,
    6: lambda image: cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE),
    7: lambda image: cv2.flip(cv2.transpose(image), -1),
    8: lambda image: cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE),
}


def fit_view(
    image_size: tuple[int, int], size: tuple[int, int], fit: str
) -> tuple[float, float, float, float]:
    """(top, left, height, width): the part of an image, in its own pixels, that fills an output of `size`.

    `fit` "squash" takes the whole and gives the aspect ratio up; "crop" keeps the ratio and takes the largest
    centred part; "pad" keeps it and takes the smallest part that holds the whole, reaching over its edges.
    """
    height, width = image_size
    if fit == "squash":
        return 0.0, 0.0, float(height), float(width)
    if fit not in FITS:
        raise ValueError(f"fit: found {fit!r}; allowed: {', '.join(FITS)}")
    scales = size[0] / height, size[1] / width
    scale = max(scales) if fit == "crop" else min(scales)
    view_height, view_width = size[0] / scale, size[1] / scale
    return (height - view_height) / 2, (width - view_width) / 2, view_height, view_width


def fit_image(image_HWC: np.ndarray, size: tuple[int, int], fit: str) -> np.ndarray:
    """The image at `size` (height, width), padded with mid grey where `fit` is "pad" (see `fit_view`).
    An image that has the size already is returned as it is, without a copy."""
    height, width = image_HWC.shape[:2]
    if (height, width) == tuple(size):
        return image_HWC
    _, _, view_height, view_width = fit_view((height, width), size, fit)
    if fit == "pad":
        inner = (max(1, round(size[0] * height / view_height)), max(1, round(size[1] * width / view_width)))
        top, left = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
        padded_HWC = np.full((*size, *image_HWC.shape[2:]), PAD, image_HWC.dtype)
        padded_HWC[top : top + inner[0], left : left + inner[1]] = resize_image(image_HWC, inner)
        return padded_HWC
    rows, columns = max(1, round(view_height)), max(1, round(view_width))
    top, left = (height - rows) // 2, (width - columns) // 2
    return resize_image(image_HWC[top : top + rows, left : left + columns], size)


def resize_image(image_HWC: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes without aliasing: each axis that shrinks is averaged first, then the others grow (bicubic)."""
    height, width = min(image_HWC.shape[0], size[0]), min(image_HWC.shape[1], size[1])
    resized = image_HWC
    if (height, width) != resized.shape[:2]:
        # Linear to the nearest whole multiple, then exact means over whole blocks: as close to an ideal
        # filter as INTER_AREA at the ratio itself, in a third of the time (docs/decisions/0003-images.md).
        down = max(1, int(resized.shape[0] / height + 0.5))
        across = max(1, int(resized.shape[1] / width + 0.5))
        if (height * down, width * across) != resized.shape[:2]:
            resized = cv2.resize(resized, (width * across, height * down), interpolation=cv2.INTER_LINEAR)
        # The linear mean of two neighbours is that of a block of two, in a third of the time.
        means = cv2.INTER_LINEAR if max(down, across) == 2 else cv2.INTER_AREA
        if (height, width) != resized.shape[:2]:
            resized = cv2.resize(resized, (width, height), interpolation=means)
    if (height, width) != size:
        resized = cv2.resize(resized, (size[1], size[0]), interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(resized.reshape(*size, *image_HWC.shape[2:]))
