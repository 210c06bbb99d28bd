"""The bundled images and what is written of them."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from classwise.demo.fashion import LABELS, pixel_baseline, read_bundle, write_fashion
from classwise.errors import OutputError
from tests.helpers.tables import read_csv


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("옷 '사진'")
    write_fashion(path)
    return path


def test_training_set_is_long_tailed():
    """The k-th class has round(600 * 0.6**k) images, 1,492 in all, the rarest 6."""
    images_NHW, labels_N = read_bundle("train")
    assert images_NHW.shape == (1492, 28, 28)
    assert np.bincount(labels_N).tolist() == [600, 360, 216, 130, 78, 47, 28, 17, 10, 6]


def test_test_set_is_balanced():
    """1,000 images, 100 of each of the ten classes."""
    images_NHW, labels_N = read_bundle("test")
    assert images_NHW.shape == (1000, 28, 28)
    assert np.bincount(labels_N).tolist() == [100] * len(LABELS)


def test_no_image_stands_twice():
    """All 2,492 images differ, so none is in both sets."""
    images = [image_HW.tobytes() for split in ("train", "test") for image_HW in read_bundle(split)[0]]
    assert len(set(images)) == len(images) == 2492


@pytest.mark.parametrize("split", ["train", "test"])
def test_written_files_hold_the_pixels_and_labels_of_the_bundle(folder: Path, split: str):
    """Read by another library (Pillow), row for row."""
    images_NHW, labels_N = read_bundle(split)
    rows = read_csv(folder / f"{split}.csv")
    assert [row["label"] for row in rows] == [LABELS[label] for label in labels_N]
    read_NHW = np.stack([np.asarray(Image.open(folder / row["path"])) for row in rows])
    np.testing.assert_array_equal(read_NHW, images_NHW)


def test_tables_name_every_file_once(folder: Path):
    """Paths are relative to the folder, unique, and leave no image out."""
    paths = [row["path"] for split in ("train", "test") for row in read_csv(folder / f"{split}.csv")]
    written = [path.relative_to(folder).as_posix() for path in folder.rglob("*.png")]
    assert sorted(paths) == sorted(written)


def test_template_asks_for_the_test_images_in_another_order(folder: Path):
    """The same ids as test.csv, shuffled, without the answers."""
    template, test = read_csv(folder / "template.csv"), read_csv(folder / "test.csv")
    ids = [row["path"] for row in template]
    assert list(template[0]) == ["path", "label"]
    assert ids != [row["path"] for row in test]
    assert Counter(ids) == Counter(row["path"] for row in test)
    assert {row["label"] for row in template} == {LABELS[0]}


def test_writing_is_deterministic(folder: Path, tmp_path: Path):
    """Two folders hold the same files with the same bytes."""
    write_fashion(tmp_path)
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert all((folder / file).read_bytes() == (tmp_path / file).read_bytes() for file in files)


@pytest.mark.parametrize("name", ["train.csv", "images"])
def test_what_stands_there_is_not_overwritten(tmp_path: Path, name: str):
    """A table or a folder of images that exists is kept, and nothing is written beside it."""
    (tmp_path / name).mkdir() if name == "images" else (tmp_path / name).write_text("mine")
    with pytest.raises(OutputError, match=f"{name} already exists"):
        write_fashion(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == [name]


def test_pixel_baseline_reads_the_tables(folder: Path):
    """The score is what the whole bundle gives (about 0.70), so chance (0.1) is far below."""
    assert 0.68 < pixel_baseline(folder) < 0.73
