"""Images in memory are those of files with the same pixels."""

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from classwise.data.images import read_image
from classwise.data.memory_images import MemoryImages, image_of, is_in_memory
from classwise.data.pixel_format import PixelFormat
from classwise.errors import ImageError

MANY = 10**6


def pixels(channels: int = 3, dtype: type = np.uint8, seed: int = 0) -> np.ndarray:
    shape = (40, 30, channels) if channels > 1 else (40, 30)
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype=dtype)


def file_of(array: np.ndarray, folder: Path) -> Path:
    """The PNG file of an RGB(A) or gray array."""
    path = folder / "image.png"
    if array.ndim == 3:
        array = cv2.cvtColor(array, cv2.COLOR_RGBA2BGRA if array.shape[2] == 4 else cv2.COLOR_RGB2BGR)
    path.write_bytes(cv2.imencode(".png", array)[1].tobytes())
    return path


@pytest.mark.parametrize("min_size", [None, (8, 8)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_an_array_is_as_its_file(channels: int, dtype: type, min_size: Any, tmp_path: Path) -> None:
    """Gray, RGB and RGBA, of 8 and 16 bits, also where images are halved."""
    array = pixels(channels, dtype)
    expected = read_image(file_of(array, tmp_path), min_size=min_size)
    np.testing.assert_array_equal(image_of(array, "0", MANY, min_size), expected)


@pytest.mark.parametrize("channels", [2, 6])
def test_an_array_of_other_channels(channels: int) -> None:
    """As it is, where the model takes as many; without colours it is refused."""
    array = pixels(channels)
    found = image_of(array, "0", MANY, None, PixelFormat(channels))
    np.testing.assert_array_equal(found, array)
    with pytest.raises(ImageError, match=r"or as many channels as the run's model\.channels"):
        image_of(array, "0", MANY, None)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "CMYK", "1"])
def test_an_image_of_pillow(mode: str) -> None:
    """In the modes that there are; transparent parts are white, as in a file."""
    image = Image.fromarray(pixels(4 if mode == "RGBA" else 3)).convert(mode)
    found = image_of(image, "0", MANY, None)
    assert found.shape == (40, 30, 3)
    if mode != "RGBA":
        expected = np.asarray(image.convert("RGB"))
        np.testing.assert_allclose(found, expected, atol=1)
    clear = Image.new("RGBA", (9, 9), (10, 20, 30, 0))
    assert (image_of(clear, "0", MANY, None) == 255).all()


def test_pillow_turns_by_exif(tmp_path: Path) -> None:
    """An image that was opened from a file with an orientation is upright."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels()).save(tmp_path / "turned.jpg", exif=exif, quality=100, subsampling=0)
    found = image_of(Image.open(tmp_path / "turned.jpg"), "0", MANY, None)
    assert found.shape == (30, 40, 3)
    np.testing.assert_allclose(found, read_image(tmp_path / "turned.jpg"), atol=3)


def test_bytes_and_paths(tmp_path: Path) -> None:
    """The bytes of a file of any kind, and the path of one among others."""
    path = file_of(pixels(), tmp_path)
    np.testing.assert_array_equal(image_of(path.read_bytes(), "0", MANY, None), pixels())
    np.testing.assert_array_equal(image_of(str(path), "0", MANY, None), pixels())
    buffer = io.BytesIO()
    Image.fromarray(pixels()).save(buffer, format="BMP")
    np.testing.assert_array_equal(image_of(buffer.getvalue(), "0", MANY, None), pixels())
    assert is_in_memory(path.read_bytes())
    assert not is_in_memory(str(path))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), r"an array of float32 with the shape \(4, 4, 3\); allowed: uint8"),
        (np.zeros((3, 4, 4), np.uint8)[:, :, :2], "allowed: uint8"),
        (np.zeros((0, 4, 3), np.uint8), "allowed: uint8"),
        (Image.new("F", (4, 4)), "found mode 'F', whose range is not known"),
        (b"no image", "not an image of a known kind"),
        (b"", "an empty file"),
        (7, "found int; allowed: a path, the bytes"),
    ],
)
def test_what_is_no_image(source: Any, message: str) -> None:
    """The message names the image, what was found and what is allowed."""
    with pytest.raises(ImageError, match=f"^third: .*{message}"):
        image_of(source, "third", MANY, None)


def test_a_size_that_is_too_large() -> None:
    """As for a file, before it is decoded."""
    with pytest.raises(ImageError, match="pixels"):
        image_of(pixels(), "0", 1000, None)


def test_rows_of_them() -> None:
    """Taken in any order."""
    images = MemoryImages([pixels(seed=seed) for seed in range(3)])
    taken = images.take([2, 0])
    np.testing.assert_array_equal(taken.get(0), pixels(seed=2))
    np.testing.assert_array_equal(taken.get(1), pixels(seed=0))
