"""Images that are odd, broken or made to hurt, and mutants of good ones."""

import io
import json
import os
import random
import resource
import shutil
import socket
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from tests.faults import trials
from tests.faults.counting import Count, Figure

Pixels = npt.NDArray[np.uint8]
SECONDS, MEGABYTES = 2.0, 256
MAX_PIXELS = 4_000_000


@dataclass(frozen=True)
class Case:
    """A file's bytes (or what to put at its place), and what has to come of it: pixels within `off`, or a refusal."""

    data: bytes | Callable[[Path], None]
    expected: Pixels | None = None
    off: float = 0.0
    suffix: str = ".png"


def image(height: int = 24, width: int = 37, seed: int = 0) -> Pixels:
    """Smooth colours, so that a lossy file stays near them; no side like the other."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (4, 5, 3)).astype(np.float32)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR).round(), np.uint8)


def saved(image: Any, kind: str, **options: Any) -> bytes:
    """By Pillow."""
    out = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(out, kind, **options)
    return out.getvalue()


def over_white(image: Pixels) -> Pixels:
    """(H, W, 4) over white, by the formula."""
    alpha = image[..., 3:].astype(np.float64) / 255
    return np.asarray((image[..., :3] * alpha + 255 * (1 - alpha)).round(), np.uint8)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """Length, kind, body, checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    height: int, width: int, depth: int, colours: int, rows: bytes, *more: bytes, interlace: int = 0
) -> bytes:
    """A PNG of rows that have their filter bytes already."""
    header = struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, interlace)
    parts = [
        png_chunk(b"IHDR", header),
        *more,
        png_chunk(b"IDAT", zlib.compress(rows)),
        png_chunk(b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def exif(orientation: int) -> bytes:
    """An EXIF block with nothing but the orientation."""
    return (
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01"
        + struct.pack(">HH", orientation, 0)
        + b"\0\0\0\0"
    )


# Written out from EXIF 3.0, 4.6.2: which corner row 0 and column 0 are.
UPRIGHT: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: x.transpose(1, 0, 2)[:, ::-1],
    7: lambda x: x.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda x: x.transpose(1, 0, 2)[::-1],
}


def valid() -> Iterator[tuple[str, Case]]:
    """Files with pixels, and those pixels from the array that they were made of, or from another decoder."""
    rgb = image()
    gray = np.asarray(rgb[..., 0])
    alpha = np.dstack([rgb, np.linspace(0, 255, rgb.shape[0] * rgb.shape[1]).reshape(rgb.shape[:2])]).astype(
        np.uint8
    )
    three = lambda x: np.repeat(x[..., None], 3, axis=2)  # noqa: E731
    for level in (0, 1, 9):
        yield f"PNG, compression {level}", Case(saved(rgb, "PNG", compress_level=level), rgb)
    yield "PNG, gray", Case(saved(gray, "PNG"), three(gray))
    yield (
        "PNG, gray with alpha",
        Case(
            saved(Image.fromarray(alpha[..., [0, 3]], "LA"), "PNG"), over_white(alpha[..., [0, 0, 0, 3]]), 1
        ),
    )
    yield "PNG, alpha", Case(saved(alpha, "PNG"), over_white(alpha), 1)
    for colours in (2, 4, 16, 256):
        palette = Image.fromarray(rgb).quantize(colours)
        yield f"PNG, palette of {colours}", Case(saved(palette, "PNG"), np.array(palette.convert("RGB")))
        data = saved(palette, "PNG", transparency=bytes(range(0, colours, 1)[:colours]))
        seen = np.array(Image.open(io.BytesIO(data)).convert("RGBA"))
        yield f"PNG, palette of {colours} with alpha", Case(data, over_white(seen), 1)
    bits = Image.fromarray(gray).convert("1")
    yield "PNG, one bit", Case(saved(bits, "PNG"), three(np.array(bits.convert("L"))))
    for depth in (1, 2, 4, 8):
        values = np.arange(16).reshape(2, 8) % (1 << depth)
        packed = b"".join(b"\0" + bytes(_packed([int(v) for v in row], depth)) for row in values)
        scaled = (values.astype(int) * 255 // ((1 << depth) - 1)).astype(np.uint8)
        yield f"PNG, gray of {depth} bits", Case(png(2, 8, depth, 0, packed), three(scaled))
        keyed = np.where(values == 1, 255, scaled).astype(np.uint8)
        data = png(2, 8, depth, 0, packed, png_chunk(b"tRNS", b"\0\1"))
        yield f"PNG, gray of {depth} bits, one transparent", Case(data, three(keyed))
    wide = np.linspace(0, 65535, 24 * 37 * 3).reshape(24, 37, 3).astype(np.uint16)
    narrow = np.rint(wide / 257).astype(np.uint8)
    yield "PNG, 16 bits", Case(cv2.imencode(".png", wide[..., ::-1])[1].tobytes(), narrow, 1)
    yield (
        "PNG, 16 bits, gray",
        Case(cv2.imencode(".png", wide[..., 0])[1].tobytes(), three(narrow[..., 0]), 1),
    )
    for filter_type in range(5):
        rows = b"".join(_filtered(rgb, filter_type))
        yield f"PNG, filter {filter_type}", Case(png(*rgb.shape[:2], 8, 2, rows), rgb)
    yield (
        "PNG, text of 3 MB",
        Case(
            png(1, 1, 8, 0, b"\0\x80", png_chunk(b"tEXt", b"a\0" + b"x" * 3_000_000)),
            three(np.array([[128]], np.uint8)),
        ),
    )
    for orientation, turn in UPRIGHT.items():
        cached = {
            "PNG": ({}, 0),
            "WEBP": ({"lossless": True}, 0),
            "JPEG": ({"quality": 100, "subsampling": 0}, 6),
        }
        for kind, (options, off) in cached.items():
            data = saved(rgb, kind, exif=exif(orientation), **options)
            yield f"{kind}, EXIF {orientation}", Case(data, turn(rgb), off)
    for bad in (0, 9, 65535):
        yield (
            f"JPEG, EXIF {bad}",
            Case(saved(rgb, "JPEG", quality=100, subsampling=0, exif=exif(bad)), rgb, 6),
        )
    yield (
        "JPEG, EXIF cut short",
        Case(saved(rgb, "JPEG", quality=100, subsampling=0, exif=exif(6)[:20]), rgb, 6),
    )
    for quality in (30, 75, 95):
        for sampling in (0, 1, 2):
            for options in ({}, {"progressive": True}, {"optimize": True}):
                data = saved(rgb, "JPEG", quality=quality, subsampling=sampling, **options)
                oracle = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
                yield f"JPEG, {quality}, sampling {sampling}, {list(options)}", Case(data, oracle, 3)
    data = saved(gray, "JPEG", quality=90)
    yield "JPEG, gray", Case(data, np.array(Image.open(io.BytesIO(data)).convert("RGB")), 3)
    for restart in (1, 4):
        data = saved(rgb, "JPEG", restart_marker_blocks=restart)
        yield (
            f"JPEG, restarts {restart}",
            Case(data, np.array(Image.open(io.BytesIO(data)).convert("RGB")), 3),
        )
    cmyk = Image.fromarray(np.dstack([255 - rgb, np.full_like(gray, 40)]), "CMYK")
    data = saved(cmyk, "JPEG", quality=100, subsampling=0)
    ink = np.array(Image.open(io.BytesIO(data))).astype(np.float64)
    yield (
        "JPEG, CMYK",
        Case(data, np.rint((255 - ink[..., :3]) * (255 - ink[..., 3:]) / 255).astype(np.uint8), 4),
    )
    for quality in (0, 50, 100):
        data = saved(rgb, "WEBP", quality=quality)
        yield f"WebP, {quality}", Case(data, cv2.imdecode(np.frombuffer(data, np.uint8), 1)[..., ::-1], 4)
    yield "TIFF", Case(saved(rgb, "TIFF"), rgb)
    yield "TIFF, deflated", Case(saved(rgb, "TIFF", compression="tiff_adobe_deflate"), rgb)
    yield "GIF", Case(saved(rgb, "GIF"), np.asarray(Image.open(io.BytesIO(saved(rgb, "GIF"))).convert("RGB")))
    yield "WebP, lossless", Case(saved(rgb, "WEBP", lossless=True), rgb)
    yield "WebP, lossless, alpha", Case(saved(alpha, "WEBP", lossless=True, exact=True), over_white(alpha), 1)
    frames = [Image.fromarray(image(seed=seed)) for seed in range(3)]
    yield (
        "WebP, animated",
        Case(saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True), image(seed=0)),
    )
    yield (
        "PNG, animated",
        Case(saved(frames[0], "PNG", save_all=True, append_images=frames[1:]), image(seed=0)),
    )
    yield "BMP", Case(saved(rgb, "BMP"), rgb)
    yield "BMP, gray", Case(saved(gray, "BMP"), three(gray))
    yield "BMP, one bit", Case(saved(bits, "BMP"), three(np.array(bits.convert("L"))))
    palette = Image.fromarray(rgb).quantize(16)
    yield "BMP, palette", Case(saved(palette, "BMP"), np.array(palette.convert("RGB")))
    yield "BMP, top down", Case(_top_down(rgb), rgb)
    for height, width in ((1, 1), (1, 300), (300, 1), (2, 3), (1000, 1)):
        small = image(height, width)
        yield f"PNG of {width} x {height}", Case(saved(small, "PNG"), small)
        yield f"BMP of {width} x {height}", Case(saved(small, "BMP"), small)
    good = {
        "PNG": saved(rgb, "PNG"),
        "JPEG": saved(rgb, "JPEG", quality=100, subsampling=0),
        "WEBP": saved(rgb, "WEBP", lossless=True),
        "BMP": saved(rgb, "BMP"),
    }
    for kind, data in good.items():
        for suffix in (".jpg", ".png", ".webp", ".bmp", "", ".PNG", ".txt"):
            yield f"{kind} named {suffix}", Case(data, rgb, 6 if kind == "JPEG" else 0, suffix)
    for kind, data in good.items():
        if kind != "WEBP":
            yield (
                f"{kind} with bytes behind",
                Case(data + b"\0" * 100 + b"<script>", rgb, 6 if kind == "JPEG" else 0),
            )


def _packed(values: list[int], depth: int) -> Iterator[int]:
    each = 8 // depth
    for start in range(0, len(values), each):
        part = values[start : start + each]
        yield sum(value << (8 - depth * (i + 1)) for i, value in enumerate(part))


def _filtered(image: Pixels, kind: int) -> Iterator[bytes]:
    """PNG rows by one of its five filters (third edition, 9.2)."""
    above = np.zeros(image.shape[1] * 3, int)
    for row in image.reshape(len(image), -1).astype(int):
        left, corner = np.concatenate([[0, 0, 0], row[:-3]]), np.concatenate([[0, 0, 0], above[:-3]])
        guess = left + above - corner
        near = np.stack([abs(guess - left), abs(guess - above), abs(guess - corner)])
        paeth = np.choose(np.argmin(near, axis=0), [left, above, corner])
        base = [np.zeros_like(row), left, above, (left + above) // 2, paeth][kind]
        yield bytes([kind]) + ((row - base) % 256).astype(np.uint8).tobytes()
        above = row


def _top_down(image: Pixels) -> bytes:
    height, width = image.shape[:2]
    stride = (3 * width + 3) // 4 * 4
    rows = b"".join(row[:, ::-1].tobytes().ljust(stride, b"\0") for row in image)
    header = struct.pack("<IiiHHIIiiII", 40, width, -height, 1, 24, 0, len(rows), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(rows), 0, 0, 54) + header + rows


def refused() -> Iterator[tuple[str, Case]]:
    """What is no image, or only looks like one."""
    rgb = image()
    good = {
        "PNG": saved(rgb, "PNG"),
        "JPEG": saved(rgb, "JPEG"),
        "WebP": saved(rgb, "WEBP"),
        "BMP": saved(rgb, "BMP"),
        "TIFF": saved(rgb, "TIFF"),
        "GIF": saved(rgb, "GIF"),
        "AVIF": saved(rgb, "AVIF"),
    }
    last = {"JPEG": 3, "GIF": 8}  # what ends the file comes behind the pixels
    for kind, data in good.items():
        for share in (0.02, 0.1, 0.3, 0.5, 0.7, 0.9):
            yield f"{kind} cut to {share:.0%}", Case(data[: int(len(data) * share)])
        yield (
            f"{kind} without its last {last.get(kind, 1)} bytes",
            Case(data[: -last.get(kind, 1)]),
        )
    texts = {
        "empty": b"",
        "a NUL": b"\0",
        "text": b"no image",
        "JPEG 2000": saved(rgb, "JPEG2000"),
        "GIF's first bytes": good["GIF"][:10],
        "TIFF's first bytes": good["TIFF"][:8],
        "PDF": b"%PDF-1.7\n",
        "ZIP": b"PK\3\4" + bytes(40),
        "SVG": b"<svg onload='x'/>",
        "AVIF": b"\0\0\0\x20ftypavif" + bytes(40),
        "HEIC": b"\0\0\0\x20ftypheic" + bytes(40),
        "ICO": saved(Image.fromarray(rgb), "ICO"),
        "Photoshop": b"8BPS" + bytes(60),
        "Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
        "macOS fork": b"\0\5\x16\7" + bytes(60),
        "HTML": b"<!DOCTYPE html><script>",
        "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n",
        "PNG's first bytes": good["PNG"][:8],
        "JPEG's first bytes": good["JPEG"][:3],
        "WebP's first bytes": good["WebP"][:12],
        "BMP's first bytes": b"BM",
        "a pickle": b"\x80\x04cposix\nsystem\n(S'id'\ntR.",
    }
    for name, data in texts.items():
        yield name, Case(data)
    for height, width in ((60000, 60000), (65500, 65500), (1, 2**31 - 1), (0, 10), (10, 0)):
        yield f"PNG that claims {width} x {height}", Case(png(height, width, 8, 2, b"\0" * 100))
    yield "PNG of more pixels than are allowed", Case(saved(np.zeros((2001, 2001, 3), np.uint8), "PNG"))
    yield "JPEG that claims 65500 x 65500", Case(_jpeg_of(good["JPEG"], 65500, 65500))
    yield "JPEG that claims 0 rows", Case(_jpeg_of(good["JPEG"], 0, 100))
    yield "JPEG that claims too many rows", Case(_jpeg_of(good["JPEG"], 1900, 37))
    yield (
        "WebP that claims 16384 x 16384",
        Case(
            b"RIFF"
            + struct.pack("<I", 22)
            + b"WEBPVP8X"
            + struct.pack("<I", 10)
            + bytes(4)
            + b"\xff\x3f\0" * 2
        ),
    )
    claims = struct.pack("<HHII", 256, 4, 1, 60000) + struct.pack("<HHII", 257, 4, 1, 60000)
    yield "TIFF that claims 60000 x 60000", Case(b"II*\0" + struct.pack("<IH", 8, 2) + claims + bytes(64))
    yield "GIF that claims 65535 x 65535", Case(b"GIF89a" + b"\xff" * 4 + good["GIF"][10:])
    yield (
        "BMP that claims 30000 x 30000",
        Case(
            b"BM"
            + struct.pack("<IHHI", 54, 0, 0, 54)
            + struct.pack("<IiiHHIIiiII", 40, 30000, 30000, 1, 24, 0, 0, 0, 0, 0, 0)
        ),
    )
    yield "PNG with a palette and none there", Case(png(2, 8, 8, 3, b"\0" + bytes(8) + b"\0" + bytes(8)))
    yield (
        "PNG with a wrong checksum",
        Case(good["PNG"][:-20] + bytes([good["PNG"][-20] ^ 1]) + good["PNG"][-19:]),
    )
    yield "PNG with two headers", Case(good["PNG"][:33] + good["PNG"][8:33] + good["PNG"][33:])
    yield "PNG without rows", Case(png(500, 500, 8, 2, b""))
    places: dict[str, Callable[[Path], None]] = {
        "a folder": lambda path: path.mkdir(),
        "a named pipe": lambda path: os.mkfifo(path),
        "a socket": _socket,
        "a loose link": lambda path: path.symlink_to(path.parent / "nothing"),
        "a loop of links": lambda path: path.symlink_to(path),
        "a link to a device": lambda path: path.symlink_to("/dev/zero"),
        "a link to a folder": lambda path: path.symlink_to(path.parent),
        "a link to proc": lambda path: path.symlink_to("/proc/self/mem"),
        "nothing": lambda path: None,
    }
    for name, put in places.items():
        yield name, Case(put)


def bombs() -> Iterator[tuple[str, Case]]:
    """Small files that ask for much: read or refused, but in time and in memory."""
    rgb = image()
    rows = zlib.compress(b"\0" * 300_000_000, 9)
    yield (
        "PNG whose rows are 300 MB",
        Case(
            png(2, 2, 8, 2, b"")[: -12 - 12 - len(zlib.compress(b""))]
            + png_chunk(b"IDAT", rows)
            + png_chunk(b"IEND", b"")
        ),
    )
    profile = png_chunk(b"iCCP", b"x\0\0" + rows)
    yield "PNG with a profile of 300 MB", Case(png(1, 1, 8, 0, b"\0\x80", profile))
    text = png_chunk(b"zTXt", b"x\0\0" + rows)
    yield "PNG with a text of 300 MB", Case(png(1, 1, 8, 0, b"\0\x80", text))
    progressive = saved(np.full((1500, 1500), 128, np.uint8), "JPEG", progressive=True)
    scan = progressive.rindex(b"\xff\xda")
    yield "JPEG of 300 scans", Case(progressive[:-2] + progressive[scan:-2] * 300 + b"\xff\xd9")
    yield (
        "JPEG with 4,000 comments",
        Case(
            saved(rgb, "JPEG")[:2]
            + b"\xff\xfe\0\x20" * 1
            + bytes(30)
            + (b"\xff\xfe\0\x20" + bytes(30)) * 4000
            + saved(rgb, "JPEG")[2:]
        ),
    )
    yield "PNG of 10,000 empty chunks", Case(png(1, 1, 8, 0, b"\0\x80", *[png_chunk(b"IDAT", b"")] * 10_000))
    yield (
        "BMP with 2 billion colours",
        Case(saved(Image.fromarray(rgb).quantize(16), "BMP")[:46] + b"\xff\xff\xff\x7f" + bytes(60)),
    )


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        here = Path.cwd()
        os.chdir(path.parent)  # its name may be 107 bytes long at most
        bound.bind(path.name)
        os.chdir(here)


def _jpeg_of(data: bytes, height: int, width: int) -> bytes:
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


# Running them


def one(path: Path, case: Case | None) -> str:
    """What is wrong with reading a file; `case` None: a bomb or a mutant, which may be read or refused."""
    from classwise.data.images import read_image
    from classwise.errors import ImageError

    started = time.process_time()  # what a busy machine takes for others does not count
    try:
        found = read_image(path, MAX_PIXELS)
    except ImageError as error:
        found = None
        if str(path) not in str(error):
            return f"the message does not name the file: {error}"
        if case is not None and case.expected is not None:
            return f"refused: {error.reason}"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    seconds = time.process_time() - started
    if seconds > SECONDS:
        return f"took {seconds:.1f} s"
    if found is None:
        return ""
    if found.dtype != np.uint8 or found.ndim != 3 or found.shape[2] != 3 or found.size > 3 * MAX_PIXELS:
        return f"{found.dtype} {found.shape}"
    if case is None:
        return ""
    if case.expected is None:
        return "read, but it is no image"
    if found.shape != case.expected.shape:
        return f"{found.shape}, not {case.expected.shape}"
    off = int(np.abs(found.astype(int) - case.expected).max())
    return f"off by {off}" if off > case.off else ""


def in_a_child(work: Callable[[], list[str]], seconds: float) -> list[str] | str:
    """What `work` returns in a forked process with bounded memory, or how that ended."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        try:
            cv2.setNumThreads(0)
            size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (size + MEGABYTES * 2**20, resource.RLIM_INFINITY))
            with os.fdopen(write, "w") as out:
                json.dump(work(), out)
        finally:
            os._exit(0)
    os.close(write)
    import select

    data, until = b"", time.monotonic() + seconds
    with os.fdopen(read, "rb", buffering=0) as found:
        while select.select([found], [], [], max(0, until - time.monotonic()))[0]:
            part = found.read(1 << 16)
            if not part:
                break
            data += part
        else:
            os.kill(child, 9)
            os.waitpid(child, 0)
            return f"still at work after {seconds:.0f} s"
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        lines: list[str] = json.loads(data)
        return lines
    except ValueError:
        return f"ended with {code}"


def crafted(step: int = 1) -> dict[str, Any]:
    """All crafted files, each in a process of its own."""
    trials.no_core_files()
    count = Count()
    folder = trials.scratch_folder()
    sets = {"valid": valid(), "refused": refused(), "bombs": bombs()}
    number = 0
    for kind, cases in sets.items():
        for name, case in cases:
            number += 1
            if number % step:
                continue
            path = folder / f"{number}{case.suffix}"
            case.data(path) if callable(case.data) else path.write_bytes(case.data)
            expected = None if kind == "bombs" else case
            found = in_a_child(lambda p=path, c=expected: [one(p, c)], 10)
            problem = found if isinstance(found, str) else found[0]
            count.add(not problem, kind, f"{name}: {problem}")
    count.notes["memory for each, MB"] = MEGABYTES
    shutil.rmtree(folder, ignore_errors=True)
    return count.as_dict()


def sabotaged() -> dict[str, bool]:
    """Whether the crafted files notice that a protection has been taken out."""
    from unittest import mock

    from classwise.data import decode_jpeg, decode_png, image_file

    folder = trials.scratch_folder()

    def fails(names: tuple[str, ...], seconds: float = 10) -> bool:
        cases = [(name, case) for make in (valid, refused) for name, case in make() if name in names]
        assert len(cases) == len(names)
        for number, (_, case) in enumerate(cases):
            path = folder / f"{number}{case.suffix}"
            path.unlink(missing_ok=True)
            case.data(path) if callable(case.data) else path.write_bytes(case.data)
            found = in_a_child(lambda p=path, c=case: [one(p, c)], seconds)
            if isinstance(found, str) or found[0]:
                return True
        return False

    lenient = decode_jpeg.simplejpeg.decode_jpeg

    def not_strict(data: bytes, colours: str, strict: bool) -> Any:
        return lenient(data, colours, strict=False)

    with mock.patch.object(decode_png, "check_size"):
        no_size = fails(("PNG of more pixels than are allowed",))
    with (
        mock.patch.object(image_file, "_require_regular"),
        mock.patch.object(os, "O_NONBLOCK", 0),
    ):
        no_file = fails(("a named pipe",), 3)
    with mock.patch.object(decode_jpeg.simplejpeg, "decode_jpeg", not_strict):
        cut = fails(("JPEG cut to 70%", "JPEG cut to 90%"))
    with mock.patch.object(decode_png, "exif_orientation", return_value=1):
        turned = fails(("PNG, EXIF 6",))
    shutil.rmtree(folder, ignore_errors=True)
    return {"no size check": no_size, "no file check": no_file, "not strict": cut, "not turned": turned}


def seeds() -> list[bytes]:
    """Small good files of every kind, to be mutated."""
    small = image(12, 17)
    alpha = np.dstack([small, small[..., 0]])
    frames = [Image.fromarray(image(12, 17, seed)) for seed in range(2)]
    return [
        *(
            saved(small, "JPEG", **options)
            for options in ({}, {"progressive": True}, {"quality": 95, "subsampling": 0})
        ),
        saved(small[..., 0], "JPEG"),
        saved(Image.fromarray(np.dstack([small, small[..., 0]]), "CMYK"), "JPEG"),
        saved(small, "JPEG", exif=exif(6)),
        *(
            saved(image, "PNG")
            for image in (small, alpha, small[..., 0], Image.fromarray(small).quantize(16))
        ),
        cv2.imencode(".png", small.astype(np.uint16) * 257)[1].tobytes(),
        saved(small, "PNG", exif=exif(8)),
        saved(small, "TIFF"),
        saved(alpha, "TIFF", compression="tiff_lzw"),
        saved(Image.fromarray(small).quantize(16), "TIFF", compression="tiff_adobe_deflate"),
        saved(small, "GIF"),
        saved(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        saved(small, "AVIF"),
        saved(small, "WEBP"),
        saved(alpha, "WEBP", lossless=True),
        saved(frames[0], "WEBP", save_all=True, append_images=frames[1:]),
        *(saved(image, "BMP") for image in (small, small[..., 0], Image.fromarray(small).quantize(16))),
    ]


def mutant(rng: random.Random, good: list[bytes]) -> bytes:
    """A file with bits, bytes, numbers or stretches changed; a PNG's checksums are mended half of the time, so that
    its decoder sees them."""
    data = bytearray(rng.choice(good))
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        kind, at = rng.randrange(8), rng.randrange(len(data))
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at] = rng.choice((0, 255, 127, 128, rng.randrange(256)))
        elif kind == 2:
            data = data[: at + 1]
        elif kind == 3:
            other = rng.choice(good)
            cut = rng.randrange(len(other))
            data = data[:at] + other[cut : cut + rng.randrange(1, 200)] + data[at:]
        elif kind == 4:
            data = data[:at] + data[at + rng.randrange(1, 20) :]
        elif kind == 5:
            data = data[:at] + data[at : at + rng.randrange(1, 100)] * rng.randrange(2, 6) + data[at:]
        elif kind == 6:
            size = rng.choice((2, 4))
            data[at : at + size] = rng.choice((0, 1, 2**15 - 1, 2**16 - 1)).to_bytes(
                size, rng.choice(("big", "little"))
            )
        else:
            data[at : at + 4] = struct.pack(">I", rng.choice((0, 2**31 - 1, 2**32 - 1, 65535)))
        data = data or bytearray(b"\0")
    if data[:4] == b"\x89PNG" and rng.random() < 0.5:
        return _mended(bytes(data))
    return bytes(data)


def _mended(data: bytes) -> bytes:
    out, at = data[:8], 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if at + 12 + length > len(data):
            break
        out += png_chunk(data[at + 4 : at + 8], data[at + 8 : at + 8 + length])
        at += 12 + length
    return out + data[at:]


def mutants(tries: int, seed: int = 0, chunk: int = 500) -> dict[str, Any]:
    """So many mutants, a chunk in a process of its own; one that ends by a signal counts as that many failures."""
    trials.no_core_files()
    count = Count()
    good = seeds()
    folder = trials.scratch_folder()
    for start in range(0, tries, chunk):
        numbers = range(start, min(tries, start + chunk))

        def work(numbers: range = numbers) -> list[str]:
            from classwise.data.images import read_image
            from classwise.errors import ImageError

            path, found = folder / "mutant", []
            for number in numbers:
                path.write_bytes(mutant(random.Random(f"{seed} {number}"), good))
                problem = one(path, None)
                if not problem:
                    try:
                        read_image(path, MAX_PIXELS)
                        problem = "+"
                    except ImageError:
                        problem = "-"
                found.append(problem)
            return found

        found = in_a_child(work, 120)
        for number in numbers:
            problem = found if isinstance(found, str) else found[number - start]
            kind = {"+": "read", "-": "refused"}.get(problem, "failed")
            count.add(problem in ("+", "-"), kind, f"mutant {number}: {problem}")
    shutil.rmtree(folder, ignore_errors=True)
    return count.as_dict()


def _figure(function: str, *arguments: Any) -> Count:
    from tests.faults.kills import count_of

    return count_of(trials.in_a_fresh_process("images", function, *arguments))


FIGURES = [
    Figure(
        12,
        "images-crafted",
        "crafted files: right pixels against another decoder or the array they were made of, or refused; under 2 s and"
        " 256 MB each",
        lambda: _figure("crafted"),
    ),
    Figure(
        12,
        "images-mutants",
        "mutants of good files of every kind: read or refused, no crash, none over 2 s",
        lambda: _figure("mutants", 100_000),
    ),
]
