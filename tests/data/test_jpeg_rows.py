"""A JPEG decoded as far as its crop needs gives the pixels of the whole."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg

from classwise.data import decode_jpeg
from classwise.data.augment import PRESETS, Augment, augment_geometry, rows_needed
from classwise.data.dataset import ImageDataset
from classwise.data.decode_jpeg import decode_jpeg as decode
from classwise.errors import ImageError


def photo(height: int = 147, width: int = 190) -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (height // 6, width // 6, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize("subsampling", ["444", "422", "420", "440", "411", "Gray"])
@pytest.mark.parametrize("times", [0, 1, 2, 3])
def test_the_rows_that_are_needed_are_those_of_the_whole(subsampling: str, times: int) -> None:
    """For every kind of chroma, every halving and every number of rows."""
    image = photo()[..., :1].copy() if subsampling == "Gray" else photo()
    data = simplejpeg.encode_jpeg(
        image, quality=90, colorspace="GRAY" if subsampling == "Gray" else "RGB", colorsubsampling=subsampling
    )
    min_size = ((147 - 1 >> times) + 1, (190 - 1 >> times) + 1)
    whole = decode(data, 10**6, min_size)
    shortened = 0
    for rows in range(1, len(whole) + 1):
        found = decode(data, 10**6, min_size, lambda size, rows=rows: rows)
        assert found.shape == whole.shape
        assert np.array_equal(found[:rows], whole[:rows]), rows
        upper = decode_jpeg._decode_upper_rows(data, (147, 190), times=times, rows=rows)
        shortened += upper is not None
    assert shortened > len(whole) // 3


@pytest.mark.parametrize("preset", ["light", "standard", "strong"])
@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
def test_augmentation_looks_at_no_other_rows(preset: str, fit: str) -> None:
    """Below them the image may be anything."""
    image = photo()
    for seed in range(60):
        needed = rows_needed(image.shape[:2], (56, 64), fit, PRESETS[preset], np.random.default_rng(seed))
        spoiled = image.copy()
        spoiled[needed:] = 255 - spoiled[needed:]
        one, other = (
            augment_geometry(each, (56, 64), fit, PRESETS[preset], np.random.default_rng(seed))[0]
            for each in (image, spoiled)
        )
        assert np.array_equal(one, other), seed


def test_a_training_image_is_that_of_the_whole_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In every epoch the item is the one of the decoder that knows nothing of rows."""
    path = tmp_path / "photo.jpg"
    path.write_bytes(simplejpeg.encode_jpeg(photo(), colorsubsampling="420"))
    dataset = ImageDataset([path], (100, 100), "squash", 10**8, augment=Augment(crop=0.08, ratio=4 / 3))
    found = [dataset[(epoch, 0)][0] for epoch in range(20)]  # type: ignore[index]
    monkeypatch.setattr(decode_jpeg, "_decode_upper_rows", lambda *_, **__: None)
    assert all(np.array_equal(image, dataset[(epoch, 0)][0]) for epoch, image in enumerate(found))  # type: ignore[index]


@pytest.mark.parametrize("damage", ["cut", "cut and ended"])
def test_damage_is_found_as_in_the_whole(damage: str, tmp_path: Path) -> None:
    """A file that is cut short is refused, wherever the crop is."""
    data = simplejpeg.encode_jpeg(photo(), colorsubsampling="420")
    at = data.index(b"\xff\xda") + 200
    path = tmp_path / "photo.jpg"
    spoiled = {
        "cut": data[:-300],
        "cut and ended": data[:at] + b"\xff\xd9",
        "hole": data[:at] + data[at + 600 :],
    }
    path.write_bytes(spoiled[damage])
    dataset = ImageDataset([path], (100, 100), "squash", 10**8, augment=Augment(crop=0.3))
    assert all(isinstance(dataset[(epoch, 0)], ImageError) for epoch in range(20))
