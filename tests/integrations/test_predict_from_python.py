"""`predict` from Python: the same bytes give the same answer, however they are handed over."""

import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from PIL import Image

import classwise
from classwise.errors import DataError, ImageError
from tests.helpers.scenes import plain_table, write_config

PROBABILITIES = ["label_p_a", "label_p_b"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, and folds of two, in `run` and `folds`."""
    folder = tmp_path_factory.mktemp("python")
    plain_table(folder)
    quick: dict[str, Any] = {"training__epochs": 1, "report__resamples": 0, "report__baselines": False}
    classwise.train(write_config(folder, **quick), run=folder / "run", quiet=True)
    classwise.folds(write_config(folder, **quick, folds__count=2), run=folder / "folds", quiet=True)
    return folder


@pytest.fixture(scope="module")
def files(folder: Path) -> list[Path]:
    return sorted((folder / "images").iterdir())[:3]


def arrays(files: list[Path]) -> list[np.ndarray]:
    return [np.asarray(Image.open(path).convert("RGB")) for path in files]


def temporary_copy(path: Path) -> Any:
    """An open file that is no `io.IOBase`, as uploads are kept in."""
    file = tempfile.NamedTemporaryFile()  # noqa: SIM115 - whoever is given it reads it
    file.write(path.read_bytes())
    file.seek(0)
    return file


MANY: dict[str, Callable[[list[Path]], Any]] = {
    "paths": lambda files: files,
    "texts": lambda files: tuple(map(str, files)),
    "an array of texts": lambda files: np.array(list(map(str, files))),
    "an array of paths": lambda files: np.array(files, dtype=object),
    "a column of pandas": lambda files: pd.Series(list(map(str, files)), index=[7, 8, 9]),
    "a column of polars": lambda files: pl.Series(list(map(str, files))),
    "bytes": lambda files: [path.read_bytes() for path in files],
    "views of bytes": lambda files: [memoryview(path.read_bytes()) for path in files],
    "open files": lambda files: [path.open("rb") for path in files],
    "temporary files": lambda files: [temporary_copy(path) for path in files],
    "arrays": arrays,
    "views of arrays": lambda files: [array[..., ::-1].copy()[..., ::-1] for array in arrays(files)],
    "a batch": lambda files: np.stack(arrays(files)),
    "images of Pillow": lambda files: [Image.open(path) for path in files],
    "some of each": lambda files: [files[0], arrays(files)[1], files[2].read_bytes()],
    "a generator": lambda files: (path.read_bytes() for path in files),
}


@pytest.mark.parametrize("kind", MANY)
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # whoever opens a file closes it
def test_several_images(kind: str, folder: Path, files: list[Path]) -> None:
    """The probabilities of the files, in the order given, from a run; to the last bit."""
    run = classwise.Run.open(folder / "run")
    expected = run.predict(folder / "images").head(3)
    found = run.predict(MANY[kind](files))
    assert found.select(PROBABILITIES).equals(expected.select(PROBABILITIES))
    assert found["label"].to_list() == expected["label"].to_list()


@pytest.mark.parametrize("kind", ["some of each", "a batch", "a column of polars"])
def test_folds_take_the_same(kind: str, folder: Path, files: list[Path]) -> None:
    """The mean of all models."""
    folds = classwise.Folds.open(folder / "folds")
    expected = folds.predict(folder / "images").head(3)
    assert folds.predict(MANY[kind](files)).select(PROBABILITIES).equals(expected.select(PROBABILITIES))


@pytest.mark.parametrize(
    "one", [lambda path: path, str, Path.read_bytes, lambda path: arrays([path])[0], Image.open]
)
def test_one_image_is_a_table_of_one_row(one: Callable[[Path], Any], folder: Path, files: list[Path]) -> None:
    """A path, bytes, an array or an image of Pillow's, alone."""
    run = classwise.Run.open(folder / "run")
    found = run.predict(one(files[1]))
    expected = run.predict(files)[1:2]
    assert found.select(PROBABILITIES).equals(expected.select(PROBABILITIES))


@pytest.mark.parametrize("mode", ["RGBX", "RGBa", "PA", "La", "P", "1"])
def test_modes_of_pillow(mode: str, folder: Path, files: list[Path]) -> None:
    """Those that no PNG has are read as what they are converted to."""
    run = classwise.Run.open(folder / "run")
    image = Image.open(files[0]).convert("RGB")
    path_there = {"RGBa": ["RGBA"], "PA": ["P"], "La": ["LA"]}.get(mode, [])
    for step in (*path_there, mode):
        image = image.convert(step)
    alike = image.convert({"La": "LA", "RGBa": "RGBA", "PA": "RGBA"}.get(mode, "RGB"))
    found, expected = run.predict([image]), run.predict([alike])
    assert found.select(PROBABILITIES).equals(expected.select(PROBABILITIES))


def test_a_damaged_image_of_pillow(folder: Path, files: list[Path]) -> None:
    """It is opened before it is read: an error as of its file, which can be left out."""
    data = files[0].read_bytes()
    run = classwise.Run.open(folder / "run")
    with pytest.raises(ImageError, match=r"^1: Pillow's image cannot be read"):
        run.predict([files[0], Image.open(io.BytesIO(data[: len(data) // 2]))])
    damaged = Image.open(io.BytesIO(data[: len(data) // 2]))
    table = run.predict([files[0], damaged], bad_images="skip")
    assert table["label"].is_null().to_list() == [False, True]


def test_ids(folder: Path, files: list[Path]) -> None:
    """A path as given, an image in memory by its number; or what the caller says."""
    run = classwise.Run.open(folder / "run")
    given = [files[0], files[1].read_bytes(), arrays(files)[2]]
    assert run.predict(given)["id"].to_list() == [str(files[0]), "1", "2"]
    assert run.predict(given, ids=["x", "y", "z"])["id"].to_list() == ["x", "y", "z"]
    with pytest.raises(DataError, match="ids: found 1 for 3 images"):
        run.predict(given, ids=["x"])


@pytest.mark.parametrize("empty", [[], (), np.empty((0, 8, 8, 3), np.uint8), iter(())])
def test_no_image_is_refused(empty: Any, folder: Path) -> None:
    """Rather than answered by an empty table."""
    with pytest.raises(DataError, match="found no image to predict"):
        classwise.Run.open(folder / "run").predict(empty)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((8, 8, 3), np.float32), "an array of float32.*allowed: uint8"),
        (torch.zeros((3, 8, 8), dtype=torch.uint8), r"torch\.Tensor.*tensor\.permute\(1, 2, 0\)"),
        ([torch.zeros((3, 8, 8), dtype=torch.uint8)], r"torch\.Tensor.*tensor\.permute\(1, 2, 0\)"),
        (None, r"found builtins\.NoneType for an image; allowed: a path"),
        ([7], r"found builtins\.int for an image; allowed: a path"),
        (io.StringIO("0.png"), 'an open file that gives str .*; allowed: one that was opened with "rb"'),
        (np.zeros((2, 8, 8), np.uint8), r"an array of uint8 with the shape \(2, 8, 8\)"),
        (np.zeros((1, 2, 8, 8, 3), np.uint8), r"an array of uint8 with the shape \(1, 2, 8, 8, 3\)"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(image: Any, message: str, folder: Path) -> None:
    """Floats may be of 0 to 1 or 255, and a tensor's channels first: the message says what to hand over."""
    with pytest.raises((DataError, ImageError), match=message):
        classwise.Run.open(folder / "run").predict(image)
