"""The bundled images: a long-tailed subset of Fashion-MNIST, written out as a user would have it.

1,492 training images of 28 x 28, round(600 * 0.6**k) of the k-th class: 600 T-shirts down to 6 ankle boots; and
a balanced test set of 1,000. Data by Xiao, Rasul and Vollgraf, 'Fashion-MNIST' (2017), MIT licence (the text is in
fashion.LICENSE); `benchmarks/make_fashion.py` made the bundle.
"""

import csv
import io
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from classwise.errors import OutputError
from classwise.files import write_text

LABELS = (
    "T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
"""In the order of the data set, which is also that from frequent to rare."""

SPLITS = ("train", "test")
_BUNDLE = Path(__file__).with_name("fashion.npz")
_TEMPLATE_SEED = 7


def read_bundle(split: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """(images_NHW, label numbers_N) of `train` or `test`."""
    with np.load(_BUNDLE, allow_pickle=False) as bundle:
        return bundle[f"{split}_images"], bundle[f"{split}_labels"]


def write_fashion(folder: Path) -> None:
    """Write images and tables into `folder`, the same every time; paths in the tables are relative to it.

    images/train/*.png, train.csv; images/test/*.png, test.csv; template.csv: the paths of test.csv in another
    order, with the first label in every row as a placeholder. Raises OutputError, before anything is written, if one of
    these already exists.
    """
    names = ["images", *(f"{split}.csv" for split in SPLITS), "template.csv"]
    for name in names:
        if (folder / name).exists():
            raise OutputError(f"{folder / name} already exists; name a folder without {', '.join(names)}")
    tables = {split: _write_images(folder, split) for split in SPLITS}
    for split, rows in tables.items():
        write_text(folder / f"{split}.csv", _table(rows))
    order = np.random.default_rng(_TEMPLATE_SEED).permutation(len(tables["test"]))
    write_text(folder / "template.csv", _table((tables["test"][row][0], LABELS[0]) for row in order))


def _write_images(folder: Path, split: str) -> list[tuple[str, str]]:
    """Writes the images of one split; returns (path, label) of each."""
    (folder / "images" / split).mkdir(parents=True)
    rows = []
    for number, (image_HW, label) in enumerate(zip(*read_bundle(split), strict=True)):
        path = f"images/{split}/{number:04d}.png"
        # Encoded in memory: OpenCV's own writer fails on folders in another script on some systems.
        _, png = cv2.imencode(".png", image_HW)
        (folder / path).write_bytes(png.tobytes())
        rows.append((path, LABELS[label]))
    return rows


def _table(rows: Iterable[tuple[str, str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("path", "label"), *rows])
    return text.getvalue()


def pixel_baseline(folder: Path) -> float:
    """Macro F1 on test.csv of logistic regression on the pixels, with classes weighted by 1 / count.

    scikit-learn's, with its default regularization (C = 1) and pixels in [0, 1]. It is fitted on all rows of train.csv,
    also on those that a run holds out for validation.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # a dependency of scikit-learn

    train_ND, labels_N = _read_pixels(folder, "train")
    test_MD, truth_M = _read_pixels(folder, "test")
    model = LogisticRegression(class_weight="balanced", max_iter=2000)
    # On products this small, threads that wait for each other made it 40 times slower on a busy machine.
    with threadpool_limits(1):
        predicted_M = model.fit(train_ND, labels_N).predict(test_MD)
    score = f1_score(truth_M, predicted_M, labels=LABELS, average="macro", zero_division=0)
    return float(score)


def _read_pixels(folder: Path, split: str) -> tuple[NDArray[np.float32], list[str]]:
    with (folder / f"{split}.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    images = [_read_gray(folder / row["path"]).ravel() for row in rows]
    return np.stack(images).astype(np.float32) / np.float32(255), [row["label"] for row in rows]


def _read_gray(path: Path) -> NDArray[np.uint8]:
    return np.asarray(cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_GRAYSCALE), np.uint8)
