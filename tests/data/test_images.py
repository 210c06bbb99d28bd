"""Reading image files: every kind right, every bad file an ImageError."""

import io
import os
import pickle
import socket
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageOps

from classwise.data.cache import content_key
from classwise.data.checking import ImageHashes, check_images
from classwise.data.fit import fit_image
from classwise.data.images import read_image
from classwise.errors import ImageError

Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Writes bytes, or a Pillow image in a format, to a file with a name that says nothing."""

    def save(content: bytes | Image.Image, format: str = "", **options: object) -> Path:
        path = tmp_path / f"그림 '{len(list(tmp_path.iterdir()))}'.txt"
        path.write_bytes(content if isinstance(content, bytes) else encoded(content, format, **options))
        return path

    return save


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    """The bytes of an image file, by Pillow."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def photo(height: int = 37, width: int = 50, channels: int = 3) -> np.ndarray:
    """A smooth image with some noise, so that JPEG and bit flips have something to work on."""
    y, x, c = np.mgrid[:height, :width, :channels]
    smooth = 128 + 80 * np.sin(x / 7 + c) * np.cos(y / 9 - c)
    return (smooth + np.random.default_rng(0).normal(0, 8, smooth.shape)).clip(0, 255).astype(np.uint8)


def png(samples: np.ndarray, depth: int, colours: int, *extra: tuple[bytes, bytes]) -> bytes:
    """A PNG by hand: `samples` (height, width, channels) at `depth` bits, `extra` chunks before the pixels."""
    height, width, _ = samples.shape
    if depth == 16:
        rows = [row.astype(">u2").tobytes() for row in samples]
    else:
        bits = np.unpackbits(samples.astype(np.uint8)[..., None], axis=-1)[..., 8 - depth :]
        rows = [np.packbits(row).tobytes() for row in bits.reshape(height, -1)]
    header = struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return png_file((b"IHDR", header), *extra, (b"IDAT", pixels), (b"IEND", b""))


def png_file(*chunks: tuple[bytes, bytes]) -> bytes:
    """The PNG signature and these chunks, with right checksums."""
    parts = [struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def over_white(rgb: np.ndarray, alpha: np.ndarray, most: int = 255) -> np.ndarray:
    """The composition's formula in float64."""
    share = alpha.astype(float)[..., None] / most
    return rgb * share + most * (1 - share)


# Right pixels.


@pytest.mark.parametrize(
    ("format", "options"),
    [("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True})],
    ids=["png", "bmp", "webp"],
)
def test_a_lossless_rgb_file_gives_its_own_pixels(
    save: Save, format: str, options: dict[str, object]
) -> None:
    """PNG, BMP and lossless WebP come back byte for byte, contiguous and writable, whatever their name."""
    image_HWC = read_image(save(Image.fromarray(photo()), format, **options))
    np.testing.assert_array_equal(image_HWC, photo())
    assert image_HWC.dtype == np.uint8
    assert image_HWC.flags.c_contiguous
    assert image_HWC.flags.writeable


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0, "quality": 95}])
def test_a_jpeg_equals_pillows_decoding(save: Save, options: dict[str, object]) -> None:
    """Two decoders of one JPEG agree within the rounding that the standard leaves open."""
    path = save(Image.fromarray(photo()), "JPEG", **options)
    difference = read_image(path).astype(int) - np.array(Image.open(path))
    assert abs(difference).max() <= 2


def test_a_lossy_webp_equals_opencvs_decoding(save: Save) -> None:
    """Lossy WebP comes back as OpenCV reads it."""
    path = save(Image.fromarray(photo()), "WEBP", quality=60)
    expected = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR_RGB)
    np.testing.assert_array_equal(read_image(path), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_is_applied(save: Save, format: str, orientation: int) -> None:
    """Each of the eight orientations gives what Pillow's exif_transpose gives."""
    exif = Image.Exif()
    exif[0x010F] = "a maker, so that the orientation is not the first entry"
    exif[0x0112] = orientation
    options = {"lossless": True} if format == "WEBP" else {"subsampling": 0} if format == "JPEG" else {}
    path = save(Image.fromarray(photo()), format, exif=exif, **options)
    with Image.open(path) as opened:
        expected = np.array(ImageOps.exif_transpose(opened))
    assert expected.shape[:2] == ((37, 50) if orientation <= 4 else (50, 37))
    assert abs(read_image(path).astype(int) - expected).max() <= 2


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("min_size", [(128, 32), (32, 128)])
def test_a_rotated_jpeg_is_reduced_by_its_upright_size(
    save: Save, orientation: int, min_size: tuple[int, int]
) -> None:
    """`min_size` is that of the upright image: a file whose EXIF swaps height and width is decoded at the scale that
    the swapped sizes allow."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(photo(64, 256))
    found = read_image(save(stored, "JPEG", exif=exif), min_size=min_size)

    # The same bytes without EXIF, decoded at the scale for the image as it is stored, and turned by Pillow.
    is_swapped = orientation > 4
    as_stored = read_image(save(stored, "JPEG"), min_size=min_size[::-1] if is_swapped else min_size)
    turned = Image.fromarray(as_stored)
    turned.getexif()[0x0112] = orientation
    np.testing.assert_array_equal(found, np.array(ImageOps.exif_transpose(turned)))

    # Both sides are halved once where both stay large enough, else not at all.
    upright = (256, 64) if is_swapped else (64, 256)
    fits = upright[0] // 2 >= min_size[0] and upright[1] // 2 >= min_size[1]
    assert found.shape[:2] == ((upright[0] // 2, upright[1] // 2) if fits else upright)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("value", "turned"), [(6, True), (0, False), (9, False), (65535, False)])
def test_exif_in_both_byte_orders_and_with_nonsense(save: Save, order: str, value: int, turned: bool) -> None:
    """Intel and Motorola order are both read; an orientation outside 1 to 8 is no orientation."""
    magic = b"II*\0" if order == "<" else b"MM\0*"
    block = magic + struct.pack(order + "IHHHIHH", 8, 1, 0x0112, 3, 1, value, 0)
    image = read_image(save(Image.fromarray(photo()), "JPEG", exif=b"Exif\0\0" + block))
    assert (image.shape == (50, 37, 3)) == turned


@pytest.mark.parametrize(
    "exif", [b"", b"II*\0", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff", b"nonsense"]
)
def test_damaged_exif_does_not_hide_the_image(save: Save, exif: bytes) -> None:
    """A broken EXIF block says nothing about the pixels, so the image is read as it lies."""
    jpeg = encoded(Image.fromarray(photo()), "JPEG", exif=b"Exif\0\0" + exif) if exif else b""
    path = save(jpeg or encoded(Image.fromarray(photo()), "JPEG"))
    assert read_image(path).shape == (37, 50, 3)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP", "WEBP"])
def test_gray_images_have_three_equal_channels(save: Save, format: str) -> None:
    """A gray file gives its own gray in all three channels."""
    gray = photo(channels=1)[..., 0]
    options = {"lossless": True} if format == "WEBP" else {}
    image_HWC = read_image(save(Image.fromarray(gray), format, **options))
    assert (image_HWC == image_HWC[..., :1]).all()
    assert abs(image_HWC[..., 0].astype(int) - gray).max() <= (30 if format == "JPEG" else 0)


@pytest.mark.parametrize(("mode", "format"), [("RGBA", "PNG"), ("LA", "PNG"), ("RGBA", "WEBP")])
def test_transparent_parts_are_white(save: Save, mode: str, format: str) -> None:
    """Alpha is composed over white, rounded to nearest."""
    bands = photo(channels=len(mode))
    options = {"lossless": True, "exact": True} if format == "WEBP" else {}
    path = save(Image.fromarray(bands, mode) if mode == "LA" else Image.fromarray(bands), format, **options)
    rgb = np.broadcast_to(bands[..., :-1], (37, 50, 3))
    np.testing.assert_array_equal(read_image(path), np.floor(over_white(rgb, bands[..., -1]) + 0.5))


def test_a_fully_transparent_image_is_white(save: Save) -> None:
    """Whatever colour lies under full transparency, white is what is seen."""
    assert (read_image(save(Image.new("RGBA", (5, 4), (10, 200, 30, 0)), "PNG")) == 255).all()


def test_palette_images(save: Save) -> None:
    """A palette file gives the palette's colours."""
    path = save(Image.fromarray(photo()).quantize(16), "PNG")
    with Image.open(path) as opened:
        assert opened.mode == "P"
        np.testing.assert_array_equal(read_image(path), np.array(opened.convert("RGB")))


@pytest.mark.parametrize("alphas", [b"\xff\x00\x80", b"\x00"], ids=["several", "one"])
def test_palette_with_transparency(save: Save, alphas: bytes) -> None:
    """Palette entries with alpha are composed over white; entries past the list are opaque."""
    palette = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]], np.uint8)
    index = np.arange(12, dtype=np.uint8).reshape(3, 4, 1) % 4
    path = save(png(index, 2, 3, (b"PLTE", palette.tobytes()), (b"tRNS", alphas)))
    alpha = np.frombuffer(alphas.ljust(4, b"\xff"), np.uint8)
    expected = np.floor(over_white(palette, alpha) + 0.5)[index[..., 0]]
    np.testing.assert_array_equal(read_image(path), expected)


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_gray_of_every_depth_and_its_transparent_level(save: Save, depth: int) -> None:
    """Gray of 1 to 16 bits is scaled to 0 to 255; the one level named transparent becomes white."""
    most = 2**depth - 1
    levels = np.random.default_rng(1).integers(0, most + 1, (20, 11, 1)) if depth < 16 else None
    levels = np.linspace(0, most, 220).round().astype(int).reshape(20, 11, 1) if levels is None else levels
    levels[0, 0] = most // 2
    expected = np.floor(levels * 255 / most + 0.5).repeat(3, axis=-1)
    np.testing.assert_array_equal(read_image(save(png(levels, depth, 0))), expected)
    expected[(levels == most // 2)[..., 0]] = 255
    keyed = png(levels, depth, 0, (b"tRNS", struct.pack(">H", most // 2)))
    np.testing.assert_array_equal(read_image(save(keyed)), expected)


@pytest.mark.parametrize("depth", [8, 16])
def test_rgb_with_one_transparent_colour(save: Save, depth: int) -> None:
    """A transparent colour counts where all three channels have it, and in RGB order."""
    most = 2**depth - 1
    samples = np.random.default_rng(2).integers(0, most + 1, (9, 7, 3))
    samples[2, 3], samples[4, 5] = (1, 2, 3), (3, 2, 1)
    image_HWC = read_image(save(png(samples, depth, 2, (b"tRNS", struct.pack(">HHH", 1, 2, 3)))))
    expected = np.floor(samples * 255 / most + 0.5)
    expected[2, 3] = 255
    np.testing.assert_array_equal(image_HWC, expected)


@pytest.mark.parametrize("colours", [0, 2, 4, 6])
def test_16_bit_png_is_scaled_not_clipped(save: Save, colours: int) -> None:
    """All four 16-bit kinds: every value v becomes round(v / 257), and alpha is composed over white."""
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colours]
    samples = np.random.default_rng(3).integers(0, 65536, (31, 23, channels))
    image_HWC = read_image(save(png(samples, 16, colours)))
    rgb = np.broadcast_to(samples if channels in (1, 3) else samples[..., :-1], (31, 23, 3))
    if channels in (1, 3):
        np.testing.assert_array_equal(image_HWC, np.floor(rgb / 257 + 0.5))
    else:  # composed after scaling: colour, alpha and result are each rounded
        assert abs(image_HWC - over_white(rgb, samples[..., -1], 65535) / 257).max() <= 1.5


def test_every_16_bit_level_is_rounded_to_nearest(save: Save) -> None:
    """All 65,536 levels, exactly."""
    levels = np.arange(65536).reshape(256, 256, 1)
    image_HWC = read_image(save(png(levels, 16, 0)))
    np.testing.assert_array_equal(image_HWC[..., 0], (levels[..., 0] + 128) // 257)


def test_1_bit_images(save: Save) -> None:
    """Black and white files give 0 and 255."""
    bits = photo(channels=1)[..., 0] > 128
    for format in ("PNG", "BMP"):
        image_HWC = read_image(save(Image.fromarray(bits), format))
        np.testing.assert_array_equal(image_HWC[..., 1], bits * 255)


def test_bmp_of_other_depths(save: Save) -> None:
    """Palette BMP, upside-down rows and a 16-bit-a-pixel BMP come back as Pillow's and hand-made pixels."""
    palette = Image.fromarray(photo()).quantize(32)
    np.testing.assert_array_equal(read_image(save(palette, "BMP")), np.array(palette.convert("RGB")))
    head = struct.pack("<IiiHHIIiiII", 40, 2, -1, 1, 16, 0, 4, 0, 0, 0, 0)
    rows = struct.pack("<HH", 31 << 10, 31)  # five bits each: pure red, pure blue
    path = save(b"BM" + struct.pack("<IHHI", 58, 0, 0, 54) + head + rows)
    np.testing.assert_array_equal(read_image(path), [[[255, 0, 0], [0, 0, 255]]])


@pytest.mark.parametrize("kind", ["CMYK", "YCCK"])
@pytest.mark.parametrize("adobe", [True, False])
def test_cmyk_jpegs(save: Save, kind: str, adobe: bool) -> None:
    """CMYK and YCCK from Adobe's programs hold 255 - ink; without Adobe's mark the values are the ink."""
    cached = photo(48, 48, 4)
    if kind == "YCCK":
        jpeg = simplejpeg.encode_jpeg(cached, 100, "CMYK", "444")
    else:  # Pillow writes 255 minus what it is given
        jpeg = encoded(Image.fromarray(255 - cached, "CMYK"), "JPEG", quality=100, subsampling=0)
    if not adobe:
        mark = jpeg.index(b"\xff\xee\x00\x0eAdobe")
        jpeg = jpeg[:mark] + jpeg[mark + 16 :]
    image_HWC = read_image(save(jpeg))
    if kind == "YCCK" and not adobe:
        return  # four channels without a mark are CMYK by definition: no error is all there is to claim
    paper = (cached if adobe else 255 - cached).astype(float)
    assert abs(image_HWC - paper[..., :3] * paper[..., 3:] / 255).max() <= 4
    if adobe:
        expected = np.array(Image.open(io.BytesIO(jpeg)).convert("RGB")).astype(int)
        assert abs(image_HWC - expected).max() <= 2


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_the_first_frame_of_an_animation_is_read(save: Save, format: str) -> None:
    """Animated PNG and WebP give their first frame."""
    frames = [Image.fromarray(photo()), Image.new("RGB", (50, 37), "red")]
    path = save(frames[0], format, save_all=True, append_images=frames[1:], lossless=True)
    np.testing.assert_array_equal(read_image(path), photo())


def test_unusual_chroma_sampling_is_read(save: Save) -> None:
    """A JPEG whose chroma has more samples than its luma is read, by the second decoder."""
    jpeg = bytearray(encoded(Image.new("RGB", (32, 32), (200, 30, 60)), "JPEG", subsampling=0))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 14] = jpeg[frame + 17] = 0x21
    with pytest.raises(ValueError, match="subsampling"):
        simplejpeg.decode_jpeg_header(bytes(jpeg))
    assert read_image(save(bytes(jpeg))).shape == (32, 32, 3)


def test_an_interlaced_png_is_read(save: Save) -> None:
    """Adam7, by hand: seven passes, each every so many rows and columns of the image."""
    passes = [
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    ]
    rows = [row for y, x, down, across in passes for row in photo()[y::down, x::across]]
    header = struct.pack(">IIBBBBB", 50, 37, 8, 2, 0, 0, 1)
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    path = save(png_file((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b"")))
    np.testing.assert_array_equal(read_image(path), photo())


# Bad files.


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "empty file"),
        (b"GIF89a" + bytes(50), "GIF: .*empty image"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 file"),
        (b"\x93NUMPY\1\0", "a NumPy array"),
        (b"%PDF-1.7", "a PDF"),
        (b"\0\0\0\x1cftypavif", "AVIF"),
        (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41", "a video"),
        (b"<!DOCTYPE html><html>not found</html>", "HTML"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (b"\0\5\x16\7\0\2\0\0Mac OS X", "resource fork"),
        (b"id,label\n1,cat\n", "69 64 2c 6c 61 62 65 6c"),
        (b"\xff", "ff"),
    ],
)
def test_what_is_no_image_is_named(save: Save, content: bytes, found: str) -> None:
    """The message says what the file is, or how it starts, and what is allowed."""
    with pytest.raises(ImageError, match=found) as caught:
        read_image(save(content))
    is_known = found.startswith(("empty", "GIF", "AVIF"))
    assert is_known or "allowed: JPEG, PNG, TIFF, WebP, BMP, GIF, AVIF, HEIC" in str(caught.value)


def test_a_kind_that_is_not_allowed_is_refused_in_disguise(save: Save) -> None:
    """A kind that Pillow could read, but that is not allowed, is refused by its content."""
    with pytest.raises(ImageError, match="not an image of a known kind"):
        read_image(save(Image.fromarray(photo()), "PPM"))


def test_missing_files_directories_and_odd_paths(tmp_path: Path) -> None:
    """Each is an ImageError with the path in it."""
    for path in (tmp_path / "none.jpg", tmp_path, Path("a\0b.jpg"), tmp_path / ("x" * 300)):
        with pytest.raises(ImageError) as caught:
            read_image(path)
        assert caught.value.path == path


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipes_devices_and_sockets_are_refused_at_once(tmp_path: Path) -> None:
    """A pipe without a writer would wait for ever; a device might never end."""
    pipe, link = tmp_path / "pipe.jpg", tmp_path / "link.jpg"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        for path, found in [
            (pipe, "pipe"),
            (link, "pipe"),
            ("/dev/zero", "device"),
            (tmp_path / "s", "socket"),
        ]:
            with pytest.raises(ImageError, match=found):
                read_image(path)


def huge(kind: str) -> bytes:
    """A small file of each kind whose header claims an enormous image."""
    if kind == "png":
        return png_file((b"IHDR", struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)), (b"IEND", b""))
    if kind == "bmp":
        head = struct.pack("<IiiHHIIiiII", 40, 100_000, 100_000, 1, 24, 0, 0, 0, 0, 0, 0)
        return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + head + bytes(100)
    if kind == "webp":
        canvas = b"VP8X" + struct.pack("<I", 10) + bytes(4) + b"\x9f\x86\x01" + b"\x9f\x86\x01"
        return b"RIFF" + struct.pack("<I", 4 + len(canvas)) + b"WEBP" + canvas
    jpeg = bytearray(encoded(Image.fromarray(photo()), "JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 65_000, 65_000)
    return bytes(jpeg)


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "bmp"])
def test_a_claimed_size_beyond_the_limit_is_refused_before_decoding(save: Save, kind: str) -> None:
    """Billions of pixels cost neither time nor memory, and the message holds both numbers."""
    path = save(huge(kind))
    tracemalloc.start()
    started = time.process_time()
    with pytest.raises(ImageError, match=r"65,000 × 65,000|100,000 × 100,000") as caught:
        read_image(path)
    assert "100,000,000" in str(caught.value)
    assert time.process_time() - started < 5  # decoding would take minutes
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP"])
def test_the_limit_counts_pixels_exactly(save: Save, format: str) -> None:
    """An image of just as many pixels as allowed is read, one pixel fewer allowed refuses it."""
    path = save(Image.fromarray(photo()), format)
    assert read_image(path, max_pixels=37 * 50).shape == (37, 50, 3)
    with pytest.raises(ImageError, match="50 × 37"):
        read_image(path, max_pixels=37 * 50 - 1)


def test_pillows_own_bomb_limit_does_not_leak(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our limit decides, not Pillow's, whose warning would be an error in this test."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for format in ("PNG", "BMP", "WEBP", "JPEG"):
        assert (
            read_image(save(Image.new("CMYK" if format == "JPEG" else "RGB", (50, 37)), format)).any()
            is not None
        )


FILES = {
    "jpeg": encoded(Image.fromarray(photo()), "JPEG"),
    "progressive": encoded(Image.fromarray(photo()), "JPEG", progressive=True),
    "cmyk": encoded(Image.fromarray(photo(channels=4), "CMYK"), "JPEG"),
    "png": encoded(Image.fromarray(photo()), "PNG", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0"),
    "palette": encoded(Image.fromarray(photo()).quantize(16), "PNG", transparency=3),
    "16 bits": png(np.random.default_rng(4).integers(0, 65536, (20, 20, 3)), 16, 2),
    "webp": encoded(Image.fromarray(photo(channels=4)), "WEBP"),
    "lossless": encoded(Image.fromarray(photo()), "WEBP", lossless=True),
    "bmp": encoded(Image.fromarray(photo()), "BMP"),
}


@pytest.mark.parametrize("kind", FILES)
def test_every_cut_is_noticed(save: Save, kind: str) -> None:
    """A file that ends early, by one byte or by nearly all, is never an image."""
    data, path = FILES[kind], save(FILES[kind])
    read_image(path)
    cuts = {1, 2, 3, 4, 5, 8, 12, 13, 16, 100, len(data) // 2, len(data) - 20, len(data) - 1, len(data)}
    for cut in sorted(cuts):
        path.write_bytes(data[:-cut])
        with pytest.raises(ImageError):
            read_image(path)


@pytest.mark.parametrize("kind", FILES)
def test_mutated_files_are_images_or_image_errors(save: Save, kind: str) -> None:
    """Changed, inserted, deleted and cut bytes: 60 a kind, never another error, a warning or a crash."""
    rng = np.random.default_rng(5)
    path, refused = save(b""), 0
    for _ in range(60):
        data = bytearray(FILES[kind])
        for _ in range(rng.integers(1, 6)):
            # Half of the damage into the headers, where it does most.
            at = int(rng.integers(12, 80 if rng.random() < 0.5 else len(data)))
            change = rng.integers(4)
            if change == 0:
                data[at] ^= 1 << int(rng.integers(8))
            elif change == 1:
                data[at : at + 4] = rng.bytes(4)
            elif change == 2:
                del data[at : at + int(rng.integers(1, 9))]
            else:
                data[at:at] = rng.bytes(3)
        path.write_bytes(data)
        problem = image_problem(path)
        assert problem is None or problem.path == path
        refused += problem is not None
    assert refused > 0


def image_problem(path: Path) -> ImageError | None:
    """The ImageError, if there is one, of a file that is otherwise an image."""
    try:
        image_HWC = read_image(path, max_pixels=1_000_000)
    except ImageError as error:
        return error
    assert image_HWC.dtype == np.uint8
    assert image_HWC.ndim == 3
    assert image_HWC.shape[2] == 3
    return None


def test_mutated_png_chunks_with_right_checksums(save: Save) -> None:
    """Damage that the checksums cannot show reaches the decoder: still images or ImageErrors only."""
    rng = np.random.default_rng(6)
    path = save(b"")
    for _ in range(100):
        header = bytearray(struct.pack(">IIBBBBB", 50, 37, 8, int(rng.integers(7)), 0, 0, 0))
        header[int(rng.integers(3, 13))] = int(rng.integers(256)) >> int(rng.integers(8))
        pixels = bytearray(zlib.compress(bytes(rng.integers(0, 5, 151 * 37, np.uint8))))
        pixels[int(rng.integers(2, len(pixels)))] ^= int(rng.integers(2)) << int(rng.integers(8))
        extra = [(b"PLTE", rng.bytes(int(rng.integers(800)))), (b"tRNS", rng.bytes(int(rng.integers(8))))]
        chunks = [
            (b"IHDR", bytes(header)),
            *extra[: rng.integers(3)],
            (b"IDAT", bytes(pixels)),
            (b"IEND", b""),
        ]
        path.write_bytes(png_file(*chunks))
        image_problem(path)


def test_wrong_checksums_and_missing_rows_in_a_png(save: Save) -> None:
    """A PNG says itself when its bytes are not those that were written."""
    data = bytearray(png(photo(), 8, 2))
    data[data.index(b"IDAT") + 30] ^= 1
    with pytest.raises(ImageError, match="checksum in the chunk IDAT"):
        read_image(save(bytes(data)))
    header = struct.pack(">IIBBBBB", 50, 40, 8, 2, 0, 0, 0)
    short = zlib.compress(bytes(151 * 37))
    for pixels in (short, zlib.compress(bytes(151 * 40))[:-4]):
        with pytest.raises(ImageError, match="cut short"):
            read_image(save(png_file((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))))


def test_a_second_png_header_is_refused(save: Save) -> None:
    """A small first header cannot smuggle a huge second one past the limit."""
    small, large = (struct.pack(">IIBBBBB", n, n, 8, 2, 0, 0, 0) for n in (8, 60_000))
    chunks = [(b"IHDR", small), (b"IHDR", large), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")]
    with pytest.raises(ImageError, match="second header"):
        read_image(save(png_file(*chunks)))


def test_traps_in_side_chunks_are_left_alone(save: Save) -> None:
    """Exploding text, a broken animation and a broken colour profile do not touch the pixels."""
    bomb = b"Comment\0\0" + zlib.compress(bytes(50_000_000))
    extra = [(b"zTXt", bomb), (b"acTL", b"\0\0"), (b"iCCP", b"x\0\0junk"), (b"gAMA", b"")]
    np.testing.assert_array_equal(read_image(save(png(photo(), 8, 2, *extra))), photo())


def test_the_error_survives_pickling(save: Save) -> None:
    """Loader workers send their errors through a pipe."""
    with pytest.raises(ImageError) as caught:
        read_image(save(b"no image"))
    copy = pickle.loads(pickle.dumps(caught.value))
    assert str(copy) == str(caught.value)


# Checking many.


def test_check_images_returns_all_bad_files_in_order(save: Save, tmp_path: Path) -> None:
    """Every bad file once, in the order of the paths, repeated paths and all."""
    good = [save(Image.fromarray(photo()), "PNG") for _ in range(3)]
    bad = [save(b""), tmp_path / "missing.png", save(FILES["jpeg"][:-9])]
    paths = [bad[2], good[0], bad[0], good[1], bad[1], good[2], bad[0], good[0]]
    for threads in (1, 4, None):
        assert [error.path for error in check_images(paths, threads=threads).bad] == [bad[2], bad[0], bad[1]]
    found = check_images(paths)
    assert found.good_rows.tolist() == [1, 3, 5, 7]
    assert found.files[1] == found.files[7] == content_key(good[0].read_bytes())
    assert (len(check_images([]).bad), len(check_images([]).files)) == (0, 0)


def test_check_images_reads_a_repeated_path_once(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table with three targets an image costs one decoding an image."""
    read: list[Path] = []
    monkeypatch.setattr(
        "classwise.data.checking.check_image",
        lambda path, *_, **__: read.append(path) or ImageHashes(b"f", b"p"),
    )
    paths = [save(FILES["png"]), save(FILES["bmp"])]
    seen: list[int] = []

    def progress(distinct: Sequence[int]) -> Sequence[int]:
        seen.extend(distinct)
        return distinct

    check_images(paths * 3, progress=progress)
    assert sorted(read) == sorted(paths)
    assert seen == list(range(len(paths)))


def test_check_images_applies_the_limit(save: Save) -> None:
    """An image beyond the limit is among the bad ones."""
    assert len(check_images([save(FILES["png"])], max_pixels=100).bad) == 1


# Fitting to a size.


def test_fit_leaves_a_fitting_image_alone() -> None:
    """The right size already: the same object, for every fit."""
    for fit in ("squash", "crop", "pad"):
        assert fit_image(image := photo(), (37, 50), fit) is image


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (2, 3), (500, 375), (29, 28), (60_000, 2)])
@pytest.mark.parametrize("size", [(1, 1), (224, 224), (32, 7)])
def test_any_shape_fits_any_size(fit: str, shape: tuple[int, int], size: tuple[int, int]) -> None:
    """A flat image stays flat at every size; with padding, only mid gray comes on top."""
    fitted = fit_image(np.full((*shape, 3), 77, np.uint8), size, fit)
    assert fitted.shape == (*size, 3)
    assert set(np.unique(fitted)) <= ({77, 128} if fit == "pad" else {77})
    assert 77 in fitted


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
@pytest.mark.parametrize("channels", [(), (1,), (3,)])
def test_fit_keeps_type_and_channels(dtype: type, channels: tuple[int, ...]) -> None:
    """Signed 16-bit and float images, one channel or none, keep their kind."""
    image = np.full((30, 40, *channels), -5 if dtype != np.uint8 else 5, dtype)
    for fit in ("squash", "crop", "pad"):
        fitted = fit_image(image, (12, 12), fit)
        assert fitted.shape == (12, 12, *channels)
        assert fitted.dtype == dtype


def test_crop_keeps_the_middle_and_pad_keeps_all() -> None:
    """Where the size needs no scaling, both can be checked pixel for pixel."""
    image_HWC = photo(10, 20)
    np.testing.assert_array_equal(fit_image(image_HWC, (10, 10), "crop"), image_HWC[:, 5:15])
    padded = fit_image(image_HWC, (20, 20), "pad")
    np.testing.assert_array_equal(padded[5:15], image_HWC)
    assert (padded[:5] == 128).all()
    assert (padded[15:] == 128).all()


def test_height_comes_first() -> None:
    """The upper half is red: after a fit to (64, 32) the upper 32 rows are red."""
    image_HWC = np.zeros((100, 100, 3), np.uint8)
    image_HWC[:50, :, 0] = 255
    fitted = fit_image(image_HWC, (64, 32), "squash")
    assert fitted.shape == (64, 32, 3)
    assert fitted[:32, :, 0].mean() > 250
    assert fitted[32:, :, 0].mean() < 5


def test_shrinking_averages() -> None:
    """Whole ratios give block means; a one-pixel checkerboard turns gray instead of into moire."""
    image_HWC = photo(64, 96)
    means = image_HWC.reshape(16, 4, 24, 4, 3).mean(axis=(1, 3))
    assert abs(fit_image(image_HWC, (16, 24), "squash") - means).max() <= 0.51
    board = np.indices((301, 407)).sum(axis=0)[..., None].repeat(3, axis=-1) % 2 * 255
    for size in [(100, 100), (190, 170), (28, 28), (100, 500)]:
        fitted = fit_image(board.astype(np.uint8), size, "squash")
        assert abs(fitted.astype(float) - 127.5).max() <= 64, size


@pytest.mark.parametrize("size", [(224, 224), (150, 150), (100, 180), (64, 48), (375, 200)])
def test_shrinking_is_near_opencvs_area_filter(size: tuple[int, int]) -> None:
    """The fast way to shrink equals INTER_AREA, the slow one, to 40 dB and without a shift."""
    image_HWC = photo(375, 500)
    expected = cv2.resize(image_HWC, size[::-1], interpolation=cv2.INTER_AREA)
    error = ((fit_image(image_HWC, size, "squash").astype(float) - expected) ** 2).mean()
    assert 10 * np.log10(255**2 / error) > 35


def test_an_unknown_fit_is_refused() -> None:
    """A misspelt fit is an error, not a silent default."""
    with pytest.raises(ValueError, match="squash, crop, pad"):
        fit_image(photo(), (8, 8), "stretch")


def test_a_link_into_a_folder_of_nearly_the_same_name_is_outside(tmp_path: Path) -> None:
    """`images-private` begins with the path of `images`; a link within the folder itself is followed."""
    for folder in ("images", "images-private"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / folder / "real.png")
    root = tmp_path / "images"
    (root / "inside.png").symlink_to(root / "real.png")
    (root / "outside.png").symlink_to(tmp_path / "images-private" / "real.png")
    assert read_image(root / "inside.png", root=root).shape == (4, 4, 3)
    with pytest.raises(ImageError, match="outside of"):
        read_image(root / "outside.png", root=root)
