"""Files in class folders that are not read: named by suffix and class, an error where images would go missing."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from classwise.data.left_out import not_predicted_notes
from classwise.data.sources import folder_table
from classwise.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of ten images each."""
    for label in "ab":
        for i in range(10):
            write(tmp_path / label / f"{i}.png")
    return tmp_path


def write(path: Path, content: bytes | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if content is not None:
        path.write_bytes(content)
        return
    with path.open("wb") as file:
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(file, "PNG")


@pytest.mark.parametrize("name", ["{}.jp2", "{}.DCM", "{}.npy", "{}", "{}.jpg_large"])
def test_a_whole_class_never_goes_missing(folder: Path, name: str) -> None:
    """Of a kind that is not read, or an image by its content under another name."""
    for i in range(3):
        write(folder / "c" / name.format(i), b"x" if "." in name and "jpg" not in name else None)
    for skip in (False, True):
        with pytest.raises(DataError, match=r"class 'c' would be left out: 3 of 23 images.*3 of 3 in 'c'"):
            folder_table(folder, skip)


def test_more_than_one_percent_is_an_error_unless_asked_for(folder: Path) -> None:
    """By suffix and class, with what to do."""
    write(folder / "a/x.jp2", b"x")
    with pytest.raises(
        DataError, match=r"more than 1% .*: 1 \.jp2 \(1 of 11 in 'a'\).*data\.bad_images = \"skip\""
    ):
        folder_table(folder)
    frame, notes = folder_table(folder, skip_lost=True)
    assert frame.height == 20
    assert notes == (f"{folder}: left out 1 file not named as images: 1 .jp2 (1 in a)",)


def test_a_single_one_of_many_is_left_out_with_a_note(folder: Path) -> None:
    """One of 101 is less than a hundredth."""
    for i in range(10, 90):
        write(folder / "a" / f"{i}.png", b"x")
    write(folder / "b/x.jp2", b"x")
    assert folder_table(folder)[1] == (f"{folder}: left out 1 file not named as images: 1 .jp2 (1 in b)",)


def test_files_beside_the_images_are_no_loss(folder: Path) -> None:
    """An annotation for every image, a table, and a folder of texts: counted, and no error."""
    for i in range(10):
        write(folder / "a" / f"{i}.xml", b"<annotation/>")
    write(folder / "labels.csv", b"BMI,label\n")
    write(folder / "docs/readme.md", b"BM is how a BMP begins")
    frame, notes = folder_table(folder)
    assert frame.height == 20
    assert notes[0] == (
        f"{folder}: left out 12 files not named as images: 10 .xml, 1 .csv, 1 .md (10 in a, 1 in ., 1 in docs)"
    )
    assert notes[1] == f"{folder}: no class for 'docs', without any image"


def test_a_class_of_one_part_of_a_split_counts_as_well(tmp_path: Path) -> None:
    """Class folders may lie in train and test."""
    for part in ("train", "test"):
        for label in "ab":
            for i in range(10):
                write(tmp_path / part / label / f"{i}.png", b"x")
    write(tmp_path / "test/c/0.jp2", b"x")
    with pytest.raises(DataError, match=r"class 'test/c' would be left out"):
        folder_table(tmp_path, skip_lost=True)


def test_what_a_folder_to_be_predicted_holds_beside_images(folder: Path) -> None:
    """By suffix; images under another name are told apart, and hidden files are nobody's concern."""
    assert not_predicted_notes(folder, [".DS_Store"]) == []
    write(folder / "notes.txt", b"text")
    Image.new("RGB", (4, 4)).save(folder / "photo.dat", format="PNG")
    (note,) = not_predicted_notes(folder, ["notes.txt", "photo.dat", ".DS_Store"])
    assert note == (
        f"{folder}: 2 files are not named as images and not predicted (1 .dat, 1 .txt); images all the same are 1 of"
        " them, such as photo.dat: name them as what they are"
    )
