"""TIFF, GIF, AVIF and HEIC files, samples of more than 8 bits, and other numbers of channels."""

import base64
import contextlib
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from classwise.data.cache import ImageCache, cache_folder
from classwise.data.checking import check_image
from classwise.data.decode_common import UPRIGHT
from classwise.data.images import read_image, sample_facts
from classwise.data.pixel_format import ImageFacts, PixelFormat, proposed_range
from classwise.errors import ImageError

Save = Callable[..., Path]


@pytest.fixture
def tiff(tmp_path: Path) -> Save:
    """Writes samples (height, width, channels) as a TIFF file, by tifffile."""

    def save(samples: np.ndarray, **options: Any) -> Path:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.tif"
        tifffile.imwrite(path, samples, **options)
        return path

    return save


def samples(channels: int = 3, bits: int = 8, height: int = 13, width: int = 17) -> np.ndarray:
    """Noise that uses all of the bits."""
    dtype = np.uint8 if bits <= 8 else np.uint16
    noise = np.random.default_rng(channels).integers(0, 2**bits, (height, width, channels), dtype)
    noise[0, 0], noise[0, 1] = 0, 2**bits - 1
    return noise


def write_png(path: Path, samples: np.ndarray, depth: int, colour_type: int) -> None:
    """A PNG of samples (height, width, channels) as they are, every row unfiltered."""
    height, width = samples.shape[:2]
    rows = samples.astype(">u2" if depth == 16 else "u1").reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    chunks = [(b"IHDR", header), (b"IDAT", pixels), (b"IEND", b"")]
    data = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


def levels(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """The formula of the scaling, in float64."""
    return np.rint((values.astype(np.float64) - low).clip(0, high - low) * 255 / (high - low)).astype(
        np.uint8
    )


# Layouts and depths of TIFF.


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits", "zstd"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("bits", [8, 16])
def test_tiffs_of_all_layouts_hold_their_samples(
    tiff: Save, compression: str, planar: str, bits: int
) -> None:
    """Interleaved or in planes, in strips or tiles, whatever the compression and the order of bytes."""
    image = samples(bits=bits, height=40, width=50)
    stored = image if planar == "contig" else np.moveaxis(image, -1, 0)
    expected = image if bits == 8 else levels(image, 0, 65535)
    for layout in ({"rowsperstrip": 7}, {"tile": (16, 16)}):
        for order in "<>":
            options = {
                "photometric": "rgb",
                "planarconfig": planar,
                "compression": compression,
                "byteorder": order,
            }
            np.testing.assert_array_equal(read_image(tiff(stored, **options, **layout)), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("bits", [8, 16])
def test_tiffs_are_upright(tiff: Save, orientation: int, bits: int) -> None:
    """All eight orientations, for every depth alike."""
    image = samples(bits=bits)
    path = tiff(image, photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
    expected = image if bits == 8 else levels(image, 0, 65535)
    np.testing.assert_array_equal(read_image(path), UPRIGHT[orientation](expected))


def test_gray_and_palette_tiffs(tmp_path: Path, tiff: Save) -> None:
    """White as the lowest or highest number, one bit, 12 bits in a sample of 12, and a palette."""
    gray = samples(1)[..., 0]
    np.testing.assert_array_equal(read_image(tiff(gray))[..., 1], gray)
    np.testing.assert_array_equal(read_image(tiff(gray, photometric="miniswhite"))[..., 1], 255 - gray)
    np.testing.assert_array_equal(
        read_image(tiff(gray > 99, photometric="minisblack"))[..., 2], np.where(gray > 99, 255, 0)
    )
    deep = samples(1, bits=12)[..., 0]
    np.testing.assert_array_equal(read_image(tiff(deep, bitspersample=12))[..., 0], levels(deep, 0, 4095))

    coloured = Image.fromarray(samples()).quantize(16)
    coloured.save(tmp_path / "palette.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "palette.tif"), np.asarray(coloured.convert("RGB")))


@pytest.mark.parametrize("mode", ["CMYK", "RGB", "L"])
def test_tiffs_of_other_programs(tmp_path: Path, mode: str) -> None:
    """Pillow's, as Pillow shows them; JPEG inside within its own rounding."""
    image = Image.fromarray(
        np.tile(np.linspace(0, 255, 64, dtype=np.uint8)[:, None, None], (1, 64, 3))
    ).convert(mode)
    for compression in ("raw", "tiff_lzw", "jpeg"):
        image.save(tmp_path / "x.tif", compression=compression)
        expected = np.asarray(Image.open(tmp_path / "x.tif").convert("RGB")).astype(int)
        assert np.abs(read_image(tmp_path / "x.tif") - expected).max() <= (2 if compression == "jpeg" else 1)


@pytest.mark.parametrize("kind", ["unassalpha", "assocalpha"])
@pytest.mark.parametrize("bits", [8, 16])
def test_transparent_tiffs_lie_over_white(tiff: Save, kind: str, bits: int) -> None:
    """Also where the colours have been multiplied by alpha already."""
    image, most = samples(4, bits=bits).astype(np.float64), 2**bits - 1
    share = image[..., 3:] / most
    expected = image[..., :3] * share + most * (1 - share)
    if kind == "assocalpha":
        image[..., :3] *= share
    stored = np.rint(image).astype(np.uint8 if bits == 8 else np.uint16)
    found = read_image(tiff(stored, photometric="rgb", extrasamples=[kind]))
    assert np.abs(found - expected * 255 / most).max() < 2.6  # alpha itself is rounded to 8 bits


def test_a_fourth_channel_is_counted_and_others_need_the_key(tiff: Save) -> None:
    """Near infrared behind RGB is left out and said; of two or five channels none is red."""
    image = samples(4)
    path = tiff(image, photometric="rgb", extrasamples=["unspecified"])
    np.testing.assert_array_equal(read_image(path), image[..., :3])
    assert check_image(path).facts.unused_channels == 1
    for channels in (2, 5):
        extra = ["unspecified"] * (channels - 1)
        path = tiff(samples(channels), photometric="minisblack", planarconfig="contig", extrasamples=extra)
        with pytest.raises(ImageError, match=rf"model\.channels = {channels} takes them"):
            read_image(path)


def test_pages_are_counted_and_thumbnails_are_not(tmp_path: Path) -> None:
    """A stack of three, and one image with a smaller copy behind it."""
    stack = np.stack([samples(seed) for seed in (3, 3, 3)])
    tifffile.imwrite(tmp_path / "stack.tif", stack, photometric="rgb")
    assert check_image(tmp_path / "stack.tif").facts.frames == 3
    with tifffile.TiffWriter(tmp_path / "copy.tif") as writer:
        writer.write(samples(), photometric="rgb")
        writer.write(samples()[::2, ::2], photometric="rgb", subfiletype=1)
    assert check_image(tmp_path / "copy.tif").facts.frames == 1


# Depth


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_twelve_bits_in_files_of_sixteen(tmp_path: Path, suffix: str) -> None:
    """Without the range they are nearly black; with it they use all levels, in every kind of file alike."""
    deep, path = samples(3, bits=12), tmp_path / f"x{suffix}"
    if suffix == ".png":
        path.write_bytes(cv2.imencode(".png", deep[..., ::-1])[1].tobytes())
    else:
        tifffile.imwrite(path, deep, photometric="rgb")
    assert read_image(path).max() == 16
    scaled = PixelFormat(value_range=(0, 4095))
    np.testing.assert_array_equal(read_image(path, pixels=scaled), levels(deep, 0, 4095))
    facts = check_image(path, pixels=scaled).facts
    assert (facts.kind, facts.bits, facts.lowest, facts.highest) == ("u", 16, 0, 4095)
    assert proposed_range([facts, ImageFacts()]) == (0, 4095)


def test_alpha_is_not_scaled_by_the_range(tmp_path: Path) -> None:
    """Opaque is 65535 whatever the colours use."""
    deep = np.full((4, 4, 4), 4095, np.uint16)
    deep[..., 3] = 65535
    (tmp_path / "x.png").write_bytes(cv2.imencode(".png", deep)[1].tobytes())
    assert (read_image(tmp_path / "x.png", pixels=PixelFormat(value_range=(0, 8190))) == 128).all()


def test_floats_from_0_to_1_are_levels_and_others_need_the_range(tiff: Save) -> None:
    """The message has the range that the file uses and the key."""
    shares = samples() / 255
    for dtype in (np.float16, np.float32, np.float64):
        found = read_image(tiff(shares.astype(dtype), photometric="rgb"))
        assert np.abs(found.astype(int) - samples()).max() <= (1 if dtype == np.float16 else 0)
    path = tiff((shares * 300 - 20).astype(np.float32), photometric="rgb")
    with pytest.raises(
        ImageError, match=r"floats of 32 bits from -20 to 280: .*data\.value_range = \[black, white\]"
    ):
        read_image(path)
    found = read_image(path, pixels=PixelFormat(value_range=(-20, 280)))
    assert np.abs(found.astype(int) - samples()).max() <= 1
    assert proposed_range([sample_facts(path)]) == pytest.approx((-20, 280))


def test_signed_and_32_bit_numbers_need_the_range(tiff: Save) -> None:
    """Nobody knows whether -1024 is black."""
    for dtype, low, high in ((np.int16, -1024, 3071), (np.uint32, 0, 100_000), (np.int32, -5, 5)):
        values = np.linspace(low, high, 12 * 12).reshape(12, 12).astype(dtype)
        with pytest.raises(ImageError, match=f"from {low:g} to {high:g}"):
            read_image(tiff(values))
        found = read_image(tiff(values), pixels=PixelFormat(value_range=(low, high)))
        np.testing.assert_array_equal(found[..., 0], levels(values, low, high))


def test_samples_that_are_no_numbers_are_counted(tiff: Save) -> None:
    """NaN, as maps have where they know nothing, is no level."""
    values = np.full((5, 5), 0.5, np.float32)
    values[1, 1:3] = np.nan, np.inf
    with pytest.raises(ImageError, match="2 samples are not finite"):
        read_image(tiff(values))


@pytest.mark.parametrize(
    ("highest", "bits", "expected"),
    [(65000, 16, None), (17000, 16, None), (16000, 16, 16383), (4095, 16, 4095), (900, 16, 1023), (200, 16, 255),
     (4000, 12, None), (0, 16, None)],
)  # fmt: skip
def test_the_range_of_a_set_is_proposed_by_its_brightest_image(
    highest: float, bits: int, expected: float
) -> None:
    """Only where less than a quarter of the type's range is used."""
    dark = ImageFacts("u", bits, 0, highest / 10)
    found = proposed_range([dark, ImageFacts("u", bits, 0, highest), ImageFacts()])
    assert found == (None if expected is None else (0, expected))


# Other kinds of file


def test_the_first_frame_of_a_gif_is_read(tmp_path: Path) -> None:
    """With its transparent colour over white, and the frames counted."""
    frames = [Image.fromarray(samples(seed + 2)[..., :3]).quantize(32) for seed in (1, 2, 3)]
    path = tmp_path / "x.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:], disposal=2)
    np.testing.assert_array_equal(read_image(path), np.asarray(frames[0].convert("RGB")))
    assert check_image(path).facts.frames == 3
    still = Image.fromarray(np.zeros((4, 4), np.uint8), "P")
    still.putpalette([9, 9, 9])
    still.save(path, transparency=0)
    assert (read_image(path) == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_avif_is_upright(tmp_path: Path, orientation: int) -> None:
    """OpenCV 5 leaves it as it is stored; the reference is Pillow's transposition."""
    smooth = np.zeros((24, 40, 3), np.uint8)
    smooth[:12, :20] = 200, 40, 90
    path = tmp_path / "x.avif"
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(smooth).save(path, quality=95, exif=exif)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    np.testing.assert_array_equal(read_image(path), expected)
    assert expected.shape[:2] == ((24, 40) if orientation < 5 else (40, 24))


HEIC = zlib.decompress(
    base64.b85decode(
        "c-muNV30{GsVvAy%}izhg51nBLl8SRGck>Uf$?~5YDppk1Sn>t<P<^K3<a6VB@Af5Br_);Y>0~k0}}%yh{gCCLIXiEPz(r|{NN%g"
        "Kx~njnU@CUfn-I2oK&zfpqh-bWJ3ldK}L`g*NRNAa=wDhl3WI;N=CNKf}#Q-`)OuDaz2nQ1?qKXWCjUM04tLF!0_kqj~@&S{LBeJ"
        "9TE<VJdFSUgA_1>R4{{(+%6`EM4+Um6C)#<%mRf*)@iTS&3g7galwHG1_qu6kZ?;9P&Jzi<H6#Coj^N;lk;<m@{)5ZfTFw%Y(OOp"
        "BALYnsZifKK(R)0P9n%*5)ijD2!QDS|Nq|rg#nPh01XR)g3O9ckVa+>4h|s2nOT%y0(1_8WM)AwEKV4Kes5%AW^HK$a-=egQq!Ok"
        "e90-r$>3N3+0mbyk_d{fcn!w&!it*%GJZS>S^a}ELDt~FuS!qh+2*pI+vgoz|H%GtkQ3Vyh3V~UC3Ov+7qETbe`C+d8QV6U4nEqx"
        ";M~gina^`u_bT!!x_vv?)?X&LG~eOU`!G#EKd&{nGOe!cH~_SQ4H84Xz6@GG9tQ&>qYx+%K_LZk831s-im("
    )
)
"""24 x 16 pixels, whose structure (irot) says that they are to be turned by a quarter clockwise; so does its EXIF."""


def test_a_heic_file_without_its_decoder_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The decoder is an extra, since its library is under another licence."""
    path = tmp_path / "x.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40))
    with pytest.raises(ImageError, match="HEIC: "):
        read_image(path)  # damaged
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    with pytest.raises(ImageError, match=r"not installed: pip install 'classwise\[heic\]'"):
        read_image(path)


def test_heic_is_upright_and_turned_once(tmp_path: Path) -> None:
    """The decoder turns it as its structure says; the EXIF orientation repeats that."""
    path = tmp_path / "x.heic"
    path.write_bytes(HEIC)
    found = read_image(path)
    assert found.shape == (24, 16, 3)
    upright = np.zeros((24, 16, 3))
    upright[:12, 8:], upright[12:, :8] = (200, 40, 90), (30, 160, 220)
    assert np.abs(found[3:9, 10:14] - upright[3:9, 10:14]).max() < 12
    assert np.abs(found[15:21, 2:6] - upright[15:21, 2:6]).max() < 12
    with pytest.raises(ImageError, match="24 pixels"):
        read_image(path, 100)


# Damage


@pytest.mark.parametrize("suffix", [".tif", ".gif", ".avif"])
def test_cut_files_are_refused(tmp_path: Path, suffix: str) -> None:
    """At every length, and never by another exception."""
    whole = tmp_path / f"x{suffix}"
    Image.fromarray(samples(height=30, width=40)).save(whole)
    data = whole.read_bytes()
    cut = tmp_path / f"cut{suffix}"
    for length in range(0, len(data) - 1, 1 + len(data) // 60):
        cut.write_bytes(data[:length])
        with pytest.raises(ImageError):
            read_image(cut)


@pytest.mark.parametrize("suffix", [".tif", ".gif", ".avif"])
def test_flipped_bytes_are_images_or_image_errors(tmp_path: Path, suffix: str) -> None:
    """No other exception and no warning, whatever the byte."""
    whole = tmp_path / f"x{suffix}"
    Image.fromarray(samples(height=30, width=40)).save(whole)
    data, path = whole.read_bytes(), tmp_path / f"flipped{suffix}"
    rng = np.random.default_rng(0)
    for _ in range(150):
        changed = bytearray(data)
        for at in rng.integers(0, min(400, len(data)), 2):
            changed[at] = rng.integers(256)
        path.write_bytes(changed)
        with contextlib.suppress(ImageError):
            assert read_image(path, 10**6).shape[2] == 3


def test_missing_strips_are_no_black_rows(tiff: Save) -> None:
    """tifffile fills what a sparse file leaves out with zeros."""
    path = tiff(samples(height=40), photometric="rgb", rowsperstrip=10)
    with tifffile.TiffFile(path, mode="r+") as file:
        counts = list(file.pages.first.databytecounts)
        file.pages.first.tags["StripByteCounts"].overwrite([*counts[:-1], 0])
    with pytest.raises(ImageError, match="cut short"):
        read_image(path)


def test_the_limit_holds_before_anything_is_decoded(tiff: Save, tmp_path: Path) -> None:
    """For every kind, by the size that its header claims."""
    paths = [tiff(samples(height=50, width=50), photometric="rgb")]
    for suffix in (".gif", ".avif"):
        paths.append(tmp_path / f"x{suffix}")
        Image.fromarray(samples(height=50, width=50)).save(paths[-1])
    for path in paths:
        with pytest.raises(ImageError, match="50 × 50 pixels"):
            read_image(path, 2499)
        assert read_image(path, 2500).shape == (50, 50, 3)


# Channels


@pytest.mark.parametrize("channels", [1, 2, 4, 5])
def test_other_numbers_of_channels(tiff: Save, channels: int) -> None:
    """Gray from anything; others as they are stored, and only these."""
    pixels = PixelFormat(channels)
    extra = (
        {"extrasamples": ["unspecified"] * (channels - 1), "planarconfig": "contig"} if channels > 1 else {}
    )
    image = samples(channels)
    path = tiff(image if channels > 1 else image[..., 0], photometric="minisblack", **extra)
    found = read_image(path, pixels=pixels)
    np.testing.assert_array_equal(found, image)
    assert found.flags.c_contiguous
    assert found.flags.writeable
    colours = tiff(samples(), photometric="rgb")
    if channels == 1:
        gray = cv2.cvtColor(samples(), cv2.COLOR_RGB2GRAY)[..., None]
        np.testing.assert_array_equal(read_image(colours, pixels=pixels), gray)
    else:
        with pytest.raises(ImageError, match=f"3 channels; allowed: {channels}, as model.channels says"):
            read_image(colours, pixels=pixels)


def test_pages_of_one_channel_each_are_the_channels(tiff: Save) -> None:
    """As ImageJ writes them; without the key, and for another number, they are pages."""
    image = samples(4)
    path = tiff(np.moveaxis(image, -1, 0), photometric="minisblack")
    np.testing.assert_array_equal(read_image(path, pixels=PixelFormat(4)), image)
    assert check_image(path, pixels=PixelFormat(4)).facts.frames == 1
    assert check_image(path).facts.frames == 4
    with pytest.raises(ImageError, match="1 channel; allowed: 5"):
        read_image(path, pixels=PixelFormat(5))


def test_alpha_is_a_channel_of_four(tmp_path: Path) -> None:
    """With four channels nothing is laid over white."""
    Image.fromarray(samples(4), "RGBA").save(tmp_path / "x.png")
    np.testing.assert_array_equal(read_image(tmp_path / "x.png", pixels=PixelFormat(4)), samples(4))


@pytest.mark.parametrize("depth", [8, 16])
def test_gray_and_alpha_of_a_png_are_its_two_channels(tmp_path: Path, depth: int) -> None:
    """As they are stored, not laid over white; other colour types have other numbers."""
    gray_alpha = samples(2, depth)
    write_png(tmp_path / "x.png", gray_alpha, depth, colour_type=4)
    found = read_image(tmp_path / "x.png", pixels=PixelFormat(2))
    expected = gray_alpha if depth == 8 else levels(gray_alpha, 0, 2**16 - 1)
    np.testing.assert_array_equal(found, expected)
    assert found.flags.c_contiguous
    assert found.flags.writeable


@pytest.mark.parametrize(("colour_type", "count"), [(0, 1), (2, 3), (6, 4)])
def test_a_png_of_another_number_of_channels_is_refused(tmp_path: Path, colour_type: int, count: int) -> None:
    """With the number that the file has, although gray is decoded as RGB."""
    write_png(tmp_path / "x.png", samples(count), 8, colour_type)
    with pytest.raises(ImageError, match=f"PNG: {count} channels?; allowed: 2, as model.channels says"):
        read_image(tmp_path / "x.png", pixels=PixelFormat(2))


def test_a_gray_png_with_alpha_is_still_rgb_and_rgba(tmp_path: Path) -> None:
    """Over white with three channels; with four its gray is repeated, beside PNGs that are stored as RGBA."""
    gray_alpha = samples(2)
    write_png(tmp_path / "x.png", gray_alpha, 8, colour_type=4)
    gray, alpha = gray_alpha[..., :1], gray_alpha[..., 1:]
    repeated = np.concatenate([gray, gray, gray, alpha], axis=-1)
    np.testing.assert_array_equal(read_image(tmp_path / "x.png", pixels=PixelFormat(4)), repeated)
    over_white = np.rint((gray.astype(float) * alpha + 255.0 * (255 - alpha)) / 255)
    np.testing.assert_allclose(read_image(tmp_path / "x.png"), np.repeat(over_white, 3, axis=-1), atol=1)


# The cache


def test_another_range_or_number_of_channels_never_reads_old_pixels(tmp_path: Path, tiff: Save) -> None:
    """Each has a cache of its own, which also remembers what the file holds."""
    path = tiff(samples(bits=12), photometric="rgb")
    formats = [
        PixelFormat(),
        PixelFormat(value_range=(0, 4095)),
        PixelFormat(1),
        PixelFormat(value_range=(0, 9000)),
    ]
    folders = [cache_folder(tmp_path / "kept", tmp_path, (8, 8), 10**6, pixels) for pixels in formats]
    assert len(set(folders)) == len(formats)
    for pixels, folder in zip(formats, folders, strict=True):
        expected = read_image(path, 10**6, min_size=(8, 8), pixels=pixels)
        for _ in range(2):  # filled, and found
            store = ImageCache(folder, 10**9, reserve=0)
            found = check_image(path, 10**6, min_size=(8, 8), cache=store, pixels=pixels)
            store.flush()
            np.testing.assert_array_equal(store.locate([found.file]).get(0), expected)
            assert found.facts == ImageFacts("u", 16, 0, 4095)
            store.close()
