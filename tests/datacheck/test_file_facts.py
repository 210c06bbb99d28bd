"""What is known of files without decoding them, and what a damaged file gives."""

from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import IFD, Base

from classwise.datacheck.file_facts import file_facts


def exif_of(camera: str, taken: str, orientation: int = 1) -> Image.Exif:
    exif = Image.Exif()
    exif[Base.Make], exif[Base.Model] = camera.split(" ")
    exif[Base.Orientation] = orientation
    exif[Base.DateTime] = taken
    return exif


@pytest.mark.parametrize("suffix", [".JPG", ".png", ".webp", ".tif"])
def test_a_file_tells_its_size_folder_camera_and_date(tmp_path: Path, suffix: str) -> None:
    """In every format that keeps EXIF; a photograph that lies on its side has its upright size."""
    path = tmp_path / "ward" / f"photo{suffix}"
    path.parent.mkdir()
    image = Image.fromarray(np.zeros((20, 30, 3), np.uint8))
    image.save(path, exif=exif_of("Maker Model", "2021:03:04 05:06:07", orientation=6))
    (row,) = file_facts([path]).drop("quantization").to_dicts()
    assert row == {
        "bytes": path.stat().st_size,
        "suffix": suffix.lower(),
        "folder": "ward",
        "height": 30,
        "width": 20,
        "taken": datetime(2021, 3, 4, 5, 6, 7),
        "camera": "Maker Model",
        "aspect": 20 / 30,
    }


def test_without_exif_there_is_no_date_and_no_camera(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(tmp_path / "a.png")
    (row,) = file_facts([tmp_path / "a.png"]).to_dicts()
    assert (row["height"], row["width"], row["taken"], row["camera"]) == (20, 30, None, None)


def test_the_date_of_the_photograph_goes_before_that_of_the_file(tmp_path: Path) -> None:
    exif = exif_of("Maker Model", "2022:01:01 00:00:00")
    exif.get_ifd(IFD.Exif)[Base.DateTimeOriginal] = "2021:03:04 05:06:07"
    Image.fromarray(np.zeros((2, 3), np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    assert file_facts([tmp_path / "a.jpg"])["taken"].to_list() == [datetime(2021, 3, 4, 5, 6, 7)]


def test_an_impossible_date_is_none(tmp_path: Path) -> None:
    exif = exif_of("Maker Model", "0000:00:00 00:00:00")
    Image.fromarray(np.zeros((2, 3), np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    assert file_facts([tmp_path / "a.jpg"])["taken"].to_list() == [None]


def test_the_quality_of_a_jpeg_is_known(tmp_path: Path) -> None:
    """By its tables, so that the size of the file does not matter; other formats have none."""
    for name, quality in (("a.jpg", 50), ("b.jpg", 90), ("c.png", 90)):
        Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / name, quality=quality)
    found = file_facts([tmp_path / name for name in ("a.jpg", "b.jpg", "c.png")])["quantization"].to_list()
    assert found == [pytest.approx(57.6, abs=1), pytest.approx(11.5, abs=1), None]


def test_damaged_and_missing_files_keep_their_row(tmp_path: Path) -> None:
    """What cannot be opened as an image has nulls."""
    (tmp_path / "text.jpg").write_bytes(b"no image")
    Image.fromarray(np.zeros((2, 3), np.uint8)).save(tmp_path / "a.png")
    table = file_facts([tmp_path / "text.jpg", tmp_path / "none.png", tmp_path / "a.png"])
    assert table["bytes"].to_list()[:2] == [None, None]
    assert table["width"].to_list() == [None, None, 3]


def test_no_files_give_an_empty_table() -> None:
    assert file_facts([]).height == 0
