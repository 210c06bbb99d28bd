"""Long-tailed training sets with balanced test sets, for `benchmarks/imbalance.py`.

The k-th of ten classes, in the order of the labels, gets round(largest * imbalance ** (-k / 9)) training
images: Cui et al., 'Class-balanced loss based on effective number of samples' (CVPR 2019), section 5.1, cut
classes off exponentially in the same way.

    images/train/*.png, train.csv    path, label: the long tail, classes mixed
    images/test/*.png, test.csv      as many of every class
"""

import csv
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from sklearn.datasets import load_digits

from classwise.demo.fashion import LABELS, SPLITS, read_bundle
from classwise.errors import DataError, OutputError
from classwise.files import write_text
from make_fashion import SOURCE, Bytes, draw, read_idx

CLASSES = 10
DIGITS = tuple("0123456789")
DIGITS_TEST = 40  # images a class
DIGITS_SIDE = 16

ImageDataset = tuple[Bytes, Bytes]  # images_NHW, label numbers_N


@dataclass(frozen=True)
class LongTail:
    """What was written: the two tables, the training images of each class, and what they were drawn from."""

    train: Path
    test: Path
    counts: tuple[int, ...]
    source: str


def fashion_long_tail(
    folder: Path, imbalance: float, largest: int, test_rows: int, seed: int, package: Path = SOURCE
) -> LongTail:
    """Fashion-MNIST with `largest` images of the first class and `largest / imbalance` of the last.

    Drawn from the whole set where `package` holds the IDX files of Debian's `dataset-fashion-mnist` (6,000
    images a class), else from the bundled subset, whose own tail limits what is possible: the last class has
    six images, so an imbalance of 10 starts from some 60. There `largest` is lowered to what all classes can
    follow; standard error and `source` say so. `test_rows` is the size of the whole test set, 10 classes.
    """
    names = {"train": "train", "test": "t10k"}
    if all((package / f"{name}-images-idx3-ubyte.gz").exists() for name in names.values()):
        origin = f"all of Fashion-MNIST ({package})"
        parts = {split: _read_package(package, name) for split, name in names.items()}
    else:
        origin = "the bundled subset of Fashion-MNIST (dataset-fashion-mnist is not installed)"
        parts = {split: read_bundle(split) for split in SPLITS}
    available = np.bincount(parts["train"][1], minlength=CLASSES)
    possible = _largest_possible(available, imbalance, largest)
    if possible < largest:
        origin += (
            f", {possible} images of the largest class instead of {largest}: no more keep this imbalance"
        )
        print(f"drawn from {origin}", file=sys.stderr)
    return _write(folder, parts, _tail(imbalance, possible), _even(test_rows), LABELS, seed, origin)


def digits_long_tail(folder: Path, imbalance: float, seed: int) -> LongTail:
    """scikit-learn's 1,797 handwritten digits, 8 x 8 gray levels, enlarged to 16 x 16 pixels.

    DIGITS_TEST of each class are the test set; of the rest, as many as the imbalance allows (134 to 143 of '0').
    """
    data = load_digits()
    small_NHW = np.rint(data.images * (255 / 16)).astype(np.uint8)
    size = (DIGITS_SIDE, DIGITS_SIDE)
    images_NHW = np.stack([cv2.resize(image, size, interpolation=cv2.INTER_LINEAR) for image in small_NHW])
    whole = (images_NHW, data.target.astype(np.uint8))
    rest = np.bincount(whole[1]) - DIGITS_TEST
    counts = _tail(imbalance, _largest_possible(rest, imbalance, int(rest.max())))
    parts = {"train": whole, "test": whole}
    return _write(folder, parts, counts, [DIGITS_TEST] * CLASSES, DIGITS, seed, "scikit-learn's digits")


def _read_package(package: Path, name: str) -> ImageDataset:
    images_NHW = read_idx(package / f"{name}-images-idx3-ubyte.gz")
    return images_NHW, read_idx(package / f"{name}-labels-idx1-ubyte.gz")


def _tail(imbalance: float, largest: int) -> list[int]:
    return [round(largest * imbalance ** (-k / (CLASSES - 1))) for k in range(CLASSES)]


def _largest_possible(available_K: np.ndarray, imbalance: float, wanted: int) -> int:
    """The greatest count of the first class, up to `wanted`, that every other class can follow."""
    if imbalance < 1:
        raise DataError(f"imbalance = {imbalance}: allowed: 1 or more")
    for largest in range(wanted, 0, -1):
        counts = _tail(imbalance, largest)
        if min(counts) >= 1 and (counts <= available_K).all():
            return largest
    raise DataError(f"imbalance = {imbalance}, largest = {wanted}: the last class would have no image")


def _even(rows: int) -> list[int]:
    if rows < CLASSES or rows % CLASSES:
        raise DataError(f"test_rows = {rows}: allowed: a multiple of {CLASSES}, as many of every class")
    return [rows // CLASSES] * CLASSES


def _write(
    folder: Path,
    parts: dict[str, ImageDataset],
    train_counts: list[int],
    test_counts: list[int],
    labels: Sequence[str],
    seed: int,
    source: str,
) -> LongTail:
    for name in ("images", "train.csv", "test.csv"):
        if (folder / name).exists():
            raise OutputError(f"{folder / name} exists; give a folder without images, train.csv, test.csv")
    rng = np.random.default_rng(seed)
    taken: set[bytes] = set()  # no image stands twice, in whichever table
    for split, counts in (("test", test_counts), ("train", train_counts)):
        images_NHW, labels_N = parts[split]
        rows_R = draw(images_NHW, labels_N, counts, rng, taken)
        drawn = np.bincount(labels_N[rows_R], minlength=CLASSES).tolist()
        if drawn != counts:
            raise DataError(f"{split}: {counts} images of each class are wanted, there are {drawn}: {source}")
        _write_split(folder, split, images_NHW[rows_R], [labels[k] for k in labels_N[rows_R]])
    return LongTail(folder / "train.csv", folder / "test.csv", tuple(train_counts), source)


def _write_split(folder: Path, split: str, images_NHW: Bytes, labels: Sequence[str]) -> None:
    (folder / "images" / split).mkdir(parents=True)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("path", "label"))
    for number, (image_HW, label) in enumerate(zip(images_NHW, labels, strict=True)):
        path = f"images/{split}/{number:05d}.png"
        (folder / path).write_bytes(cv2.imencode(".png", image_HW)[1].tobytes())
        table.writerow((path, label))
    write_text(folder / f"{split}.csv", text.getvalue())
