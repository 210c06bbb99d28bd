"""Long-tailed data sets that the benchmarks train on."""

import csv
import gzip
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import longtail
from classwise.demo.fashion import LABELS, read_bundle
from classwise.errors import DataError, OutputError


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package folder in miniature: 40 training and 8 test images of 6 x 5 pixels a class, all different."""
    folder = tmp_path_factory.mktemp("package")
    rng = np.random.default_rng(5)
    for name, each in (("train", 40), ("t10k", 8)):
        labels = rng.permutation(np.repeat(np.arange(10, dtype=np.uint8), each))
        images = rng.integers(0, 256, (10 * each, 6, 5), dtype=np.uint8)
        images[:, 0, 0] = labels  # so that an image tells its own label
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            (folder / f"{name}-{kind}-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes()))
    return folder


def read_table(path: Path) -> list[tuple[np.ndarray, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return [
            (np.asarray(Image.open(path.parent / row["path"])), row["label"]) for row in csv.DictReader(file)
        ]


def counts_of(path: Path, labels: tuple[str, ...]) -> list[int]:
    found = Counter(label for _, label in read_table(path))
    assert set(found) <= set(labels)
    return [found[label] for label in labels]


def test_whole_set_is_used_where_the_package_is(package: Path, tmp_path: Path) -> None:
    """n_k = largest * imbalance ** (-k / 9), rounded, in label order; each image keeps its own label."""
    tail = longtail.fashion_long_tail(tmp_path, 10, 40, 50, seed=1, package=package)
    assert counts_of(tail.train, LABELS) == [40, 31, 24, 19, 14, 11, 9, 7, 5, 4] == list(tail.counts)
    assert counts_of(tail.test, LABELS) == [5] * 10
    for table in (tail.train, tail.test):
        for image_HW, label in read_table(table):
            assert image_HW.shape == (6, 5)
            assert LABELS[image_HW[0, 0]] == label
    assert str(package) in tail.source


def test_no_image_stands_twice(package: Path, tmp_path: Path) -> None:
    """Neither in one table nor in both."""
    for name, make in (
        ("fashion", lambda folder: longtail.fashion_long_tail(folder, 10, 40, 80, seed=1, package=package)),
        ("digits", lambda folder: longtail.digits_long_tail(folder, 20, seed=1)),
    ):
        tail = make(tmp_path / name)
        images = [image.tobytes() for table in (tail.train, tail.test) for image, _ in read_table(table)]
        assert len(set(images)) == len(images)


def test_bundled_images_stand_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without the package the bundled subset is used; its tail of six lowers the head, and that is said."""
    (tmp_path / "package").mkdir()
    tail = longtail.fashion_long_tail(tmp_path / "out", 10, 600, 100, seed=1, package=tmp_path / "package")
    expected = [round(tail.counts[0] * 10 ** (-k / 9)) for k in range(10)]
    assert counts_of(tail.train, LABELS) == expected
    available = [600, 360, 216, 130, 78, 47, 28, 17, 10, 6]
    assert all(n <= most for n, most in zip(expected, available, strict=True))
    one_more = [round((tail.counts[0] + 1) * 10 ** (-k / 9)) for k in range(10)]
    assert any(n > most for n, most in zip(one_more, available, strict=True))
    assert "instead of 600" in tail.source
    assert tail.source in capsys.readouterr().err
    known = {image.tobytes() for image in read_bundle("test")[0]}
    assert all(image.tobytes() in known for image, _ in read_table(tail.test))


def test_bundled_images_reach_an_imbalance_of_100(tmp_path: Path) -> None:
    """The subset's own imbalance can be had at its own size, or nearly: at most two images less at the head."""
    tail = longtail.fashion_long_tail(tmp_path / "out", 100, 600, 100, seed=1, package=tmp_path)
    assert tail.counts[0] >= 598
    assert tail.counts[-1] == 6


@pytest.mark.parametrize("imbalance", [1, 10, 100])
def test_digits(tmp_path: Path, imbalance: int) -> None:
    """Forty of each digit to test on; of '0' at least 134 to train on, of the others by the formula."""
    tail = longtail.digits_long_tail(tmp_path, imbalance, seed=3)
    digits = tuple("0123456789")
    head = tail.counts[0]
    assert 134 <= head <= 143
    expected = [round(head * imbalance ** (-k / 9)) for k in range(10)]
    assert counts_of(tail.train, digits) == expected == list(tail.counts)
    assert counts_of(tail.test, digits) == [40] * 10


def test_digits_keep_their_labels(tmp_path: Path) -> None:
    """Shrunk to 8 x 8 again, each written image is nearest to an image of its own class, nearly always."""
    tail = longtail.digits_long_tail(tmp_path, 100, seed=3)
    data = load_digits()
    right = []
    for image_HW, label in read_table(tail.test):
        assert image_HW.shape == (16, 16)
        small = image_HW.reshape(8, 2, 8, 2).mean((1, 3)) * (16 / 255)
        right.append(str(data.target[np.abs(data.images - small).sum((1, 2)).argmin()]) == label)
    assert np.mean(right) > 0.97


def test_seed_decides_every_byte(tmp_path: Path) -> None:
    """The same seed writes the same files; another draws other images."""
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        longtail.digits_long_tail(tmp_path / name, 100, seed)
    files = {
        name: {
            path.relative_to(tmp_path / name): path.read_bytes()
            for path in (tmp_path / name).rglob("*.*")
            if path.is_file()
        }
        for name in "abc"
    }
    assert files["a"] == files["b"]
    assert files["a"] != files["c"]


def test_what_cannot_be_drawn_is_refused(package: Path, tmp_path: Path) -> None:
    """An imbalance below one, an empty last class, an uneven or too large test set: refused by name."""
    refused = [
        (0.5, 40, 50, "imbalance = 0.5"),
        (1000, 40, 50, "the last class would have no image"),
        (10, 40, 55, "test_rows = 55"),
        (10, 40, 90, "test: .* are wanted"),
    ]
    for number, (imbalance, largest, test_rows, message) in enumerate(refused):
        folder = tmp_path / str(number)
        with pytest.raises(DataError, match=message):
            longtail.fashion_long_tail(folder, imbalance, largest, test_rows, seed=1, package=package)
        assert not folder.exists()


@pytest.mark.parametrize("name", ["train.csv", "test.csv", "images"])
def test_what_stands_there_is_kept(tmp_path: Path, name: str) -> None:
    """A table or a folder of images that exists is not written over."""
    (tmp_path / name).mkdir() if name == "images" else (tmp_path / name).write_text("mine")
    with pytest.raises(OutputError, match=f"{name} exists"):
        longtail.digits_long_tail(tmp_path, 10, seed=1)
    assert [path.name for path in tmp_path.rglob("*")] == [name]
