"""An exported folder and its other formats: answers of `predict` for files of every kind, without torch."""

import io
import json
import runpy
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import polars as pl
import pytest
import torch
from PIL import Image

from classwise.data.fit import FITS
from classwise.files import folder_in_one_step
from classwise.kfold.api import Folds
from classwise.run.api import Run
from tests.helpers.drawings import drawing
from tests.helpers.scenes import MANY, command, contents, many_table, plain_table, untouched, write_config

ORIENTATION = 0x0112
CONFIG: dict[str, Any] = {
    **MANY,
    "targets": {
        **MANY["targets"],
        "label": {"column": "label", "adjust": 1.0},
        "size": {"column": "size", "type": "regression", "edges": [3, 6]},
        "rank": {"column": "relevance", "type": "ranking", "query": "query"},
    },
    "joint": {"targets": ["label", "size"]},
    "selection": {"metric": "label.macro_f1"},
    "model": {**MANY["model"], "image_size": [40, 32]},
}
# Runs the client as a user would, and then says which modules it has taken.
PROGRAM = """
import runpy, sys
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
print([name for name in ("torch", "classwise", "cv2", "onnx") if name in sys.modules])
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with targets of every type and a joint class."""
    folder = tmp_path_factory.mktemp("run")
    many_table(folder)
    command("train", write_config(folder, CONFIG), "--run", folder / "run", "--quiet").ok()
    return Run.open(folder / "run")


@pytest.fixture(scope="module")
def folder(run: Run) -> Path:
    """The run's folder, by the command."""
    out = run.path.parent / "exported"
    assert command("export", run.path, "--out", out).ok().path == out
    return out


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Drawn images of every kind that the client takes, smaller and larger than the model's size."""
    folder = tmp_path_factory.mktemp("of-all-kinds")
    sizes = [(20, 30), (40, 32), (90, 70), (333, 250), (700, 420)]
    for number, size in enumerate(sizes):
        write_kinds(folder, f"drawn-{number}", Image.fromarray(drawing(number, size)))
    return sorted(folder.iterdir())


def write_kinds(folder: Path, name: str, image: Image.Image) -> None:
    """One image as files of ten kinds."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    gray = image.convert("L")
    alpha = image.copy()
    alpha.putalpha(gray)
    image.save(folder / f"{name} turned.jpg", quality=85, exif=exif)
    gray.save(folder / f"{name} gray.jpg", progressive=True)
    image.save(folder / f"{name}.png")
    image.quantize(40).save(folder / f"{name} palette.png")
    alpha.save(folder / f"{name} alpha.png")
    Image.fromarray(np.asarray(gray, np.uint16) * 250 + 77).save(folder / f"{name} 16 bits.png")
    image.save(folder / f"{name}.webp", quality=70)
    alpha.save(folder / f"{name} alpha.webp", lossless=True)
    # As phones write them: with a second image behind the first; and a turn that only another program's notes ask for.
    image.save(folder / f"{name} two.jpg", format="MPO", save_all=True, append_images=[gray.convert("RGB")])
    image.save(folder / f"{name} notes.jpg", xmp=b'<x:xmpmeta tiff:Orientation="6"/>')


def answers_of(folder: Path, images: Sequence[Path]) -> list[dict[str, Any]]:
    """What client.py prints, in a process that has taken neither torch nor classwise."""
    command = [sys.executable, "-I", "-c", PROGRAM, folder / "client.py", *images]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    *lines, modules = done.stdout.splitlines()
    assert modules == "[]"
    return [json.loads(line) for line in lines]


def assert_same(table: pl.DataFrame, answers: Sequence[dict[str, Any]]) -> None:
    """The labels of every row, and its numbers to 1e-4."""
    assert len(answers) == table.height
    for row, answer in zip(table.iter_rows(named=True), answers, strict=True):
        where = answer["id"]
        assert (row["label"], row["level"], row["joint"]) == (
            answer["label"],
            answer["level"],
            answer["joint"],
        ), where
        assert row["tags"] == ("|".join(answer["tags"]) or "|"), where
        assert "joint_p" not in answer  # a number is part of the joint class
        for name in ("size", "rank"):
            assert row[name] == pytest.approx(answer[name], abs=1e-4), where
        for name in ("label", "level", "tags"):
            for label, share in answer[f"{name}_p"].items():
                assert row[f"{name}_p_{label}"] == pytest.approx(share, abs=1e-4), where


def test_the_folder_answers_as_predict_does(run: Run, folder: Path, images: list[Path]) -> None:
    """For fifty files of ten kinds, by its own client."""
    assert len(images) == 50
    assert_same(run.predict(list(map(str, images))), answers_of(folder, images))


@pytest.mark.full
@pytest.mark.parametrize("fit", [fit for fit in FITS if fit != "squash"])
def test_the_other_fits_as_well(tmp_path: Path, images: list[Path], fit: str) -> None:
    """Cropped and padded images."""
    many_table(tmp_path)
    config = write_config(tmp_path, CONFIG, model__fit=fit)
    command("train", config, "--run", tmp_path / "run", "--quiet").ok()
    command("export", tmp_path / "run", "--out", tmp_path / "out").ok()
    table = Run.open(tmp_path / "run").predict(list(map(str, images)))
    assert_same(table, answers_of(tmp_path / "out", images))


def test_the_folder_holds_no_more_than_what_is_needed(run: Run, folder: Path) -> None:
    """The same bytes again; what the file says of itself is what labels.json says; no path of this machine."""
    assert sorted(path.name for path in folder.iterdir()) == ["client.py", "labels.json", "model.onnx"]
    before = contents(folder)
    command("export", run.path, "--out", folder, "--force").ok()
    assert contents(folder) == before
    assert not [path for path in folder.parent.iterdir() if path.name.startswith(".")]
    model = onnx.load(folder / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    about = json.loads((folder / "labels.json").read_text("utf-8"))
    assert set(metadata) == set(about)
    assert json.loads(metadata["targets"]) == about["targets"]
    assert [output.name for output in model.graph.output] == about["output_names"]
    assert all(str(Path(__file__).parents[2]).encode() not in data for data in before.values())


def test_one_file_with_preprocessing_is_that_of_the_folder(run: Run, folder: Path, tmp_path: Path) -> None:
    """--preprocessing, and `run.export`."""
    run.export(tmp_path / "model.onnx", preprocessing=True)
    assert (tmp_path / "model.onnx").read_bytes() == (folder / "model.onnx").read_bytes()


def test_an_archive_gives_the_answers_with_torch_alone(run: Run, folder: Path, tmp_path: Path) -> None:
    """For images that have the model's size: those of `predict`, for any size of batch; the same bytes again."""
    out = tmp_path / "model.pt2"
    command("export", run.path, "--out", out).ok()
    data = out.read_bytes()
    run.export(out, force=True)
    assert out.read_bytes() == data
    assert str(Path(__file__).parents[2]).encode() not in data
    extra = {"labels.json": ""}
    program = torch.export.load(out, extra_files=extra)
    about = json.loads(extra["labels.json"])
    assert about["targets"] == json.loads((folder / "labels.json").read_text("utf-8"))["targets"]
    images = [drawing(number, (40, 32)) for number in range(3)]
    table = run.predict(images)
    for count in (1, 3):
        pixels = torch.from_numpy(np.stack(images[:count]).transpose(0, 3, 1, 2).copy())
        found = program.module()(pixels)
        assert list(found) == about["output_names"]
        assert found["answers.joint"].tolist() == table["joint"][:count].to_list()
        expected = table.select("label_p_a", "label_p_b", "label_p_c")[:count].to_numpy()
        np.testing.assert_allclose(found["probabilities.label"].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--out", "model.bin"], "found .bin suffix, allowed: .onnx (one ONNX file), .pt2"),
        (["--out", "new.pt2", "--preprocessing"], "--preprocessing: found --out"),
        (["--out", "new.pt2", "--int8"], "--int8: found --out"),
        (["--out", "new", "--int8", "--max-loss", "-1"], "--max-loss: found -1, allowed: 0 or more"),
        (["--out", "new", "--int8", "--max-loss", "nan"], "--max-loss: found nan, allowed: 0 or more"),
        (["--out", "new", "--max-loss", "0.1"], "--max-loss: found 0.1 without --int8"),
        (["--out", "samples", "--force"], "is a file, which no folder replaces"),
        (["--out", "exported"], "exists already; it is kept"),
        (["--out", "images", "--force"], "holds other things than an exported model, such as 00.png"),
        (["--out", "none/new"], "there is no folder"),
        (["--out", "exported/model.onnx/new"], "there is no folder"),
    ],
)
def test_what_cannot_be_meant_is_refused(run: Run, folder: Path, arguments: list[str], said: str) -> None:
    """In one line, and nothing is written."""
    here = run.path.parent
    (here / "samples").write_text("not a folder", encoding="utf-8")
    _, out, *options = arguments
    with untouched(here):
        result = command("export", run.path, "--out", here / out, *options)
    assert (result.code, result.out, result.err.count("\n")) == (1, "", 1)
    assert said in result.err


def test_the_client_refuses_what_pillow_would_change(folder: Path, tmp_path: Path) -> None:
    """A CMYK JPEG: its colors would not be those that the model was trained on."""
    Image.fromarray(drawing(0)).convert("CMYK").save(tmp_path / "cmyk.jpg")
    command = [sys.executable, "-I", str(folder / "client.py"), str(tmp_path / "cmyk.jpg")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "convert it to RGB of 8 bits first" in done.stderr


def test_a_folder_with_anything_else_is_kept(run: Run, folder: Path, tmp_path: Path) -> None:
    """Notes beside the model would be lost with it; what Python has made of the client would not be missed."""
    out = tmp_path / "model"
    shutil.copytree(folder, out)
    (out / "notes.txt").write_text("what the labels mean", encoding="utf-8")
    with untouched(out):
        result = command("export", run.path, "--out", out, "--force")
    assert (result.code, result.out) == (1, "")
    assert "other things than an exported model, such as notes.txt" in result.err
    (out / "notes.txt").unlink()
    (out / "__pycache__").mkdir()
    command("export", run.path, "--out", out, "--force").ok()
    assert contents(out) == contents(folder)


def test_a_folder_that_cannot_be_replaced_stays(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error between the two renamings loses neither."""
    out = tmp_path / "model"
    shutil.copytree(folder, out)
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if self.name.startswith(".writing"):
            raise PermissionError("in use by another program")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(PermissionError), folder_in_one_step(out) as new:
        (new / "model.onnx").write_bytes(b"")
    assert contents(out) == contents(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_the_client_refuses_outputs_that_are_not_finite(folder: Path) -> None:
    """The number of the label is -1 then, which must not become the last label."""
    client = runpy.run_path(str(folder / "client.py"))
    session = client["session"]()

    class Broken:
        def run(self, names: list[str], inputs: dict[str, Any]) -> list[np.ndarray]:
            outputs = session.run(names, inputs)
            return [values * np.nan if values.dtype == np.float32 else values for values in outputs]

    image = io.BytesIO()
    Image.fromarray(drawing(0)).save(image, "PNG")
    assert client["answer"](image)["label"] in ("a", "b", "c")
    client["answer"].__globals__["session"] = Broken
    with pytest.raises(ValueError, match="not finite numbers"):
        client["answer"](image)


def test_the_folder_of_folds_has_their_decision(tmp_path: Path) -> None:
    """The mean of two models, their temperature and which answers are too improbable, as `predict` gives them."""
    plain_table(tmp_path, 24)
    decision = {"decision__abstain": 0.6, "decision__temperature": "auto"}
    config = write_config(tmp_path, report__resamples=0, training__epochs=1, **decision)
    command("folds", config, "--folds", 2, "--run", tmp_path / "F").ok()
    result = command("export", tmp_path / "F", "--out", tmp_path / "exported").ok()
    assert "abstain" in result.err
    files = sorted((tmp_path / "images").iterdir())
    table = Folds.open(tmp_path / "F").predict(list(map(str, files)))
    answers = answers_of(tmp_path / "exported", files)
    for row, answer in zip(table.iter_rows(named=True), answers, strict=True):
        assert (row["label"], row["label_abstain"]) == (answer["label"], answer["label_abstain"])
        for label in "ab":
            assert row[f"label_p_{label}"] == pytest.approx(answer["label_p"][label], abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "said"), [((), "usage: python client.py IMAGE..."), (("none.png",), "No such file")]
)
def test_the_client_says_in_one_line_what_is_wrong(
    folder: Path, arguments: tuple[str, ...], said: str
) -> None:
    """No image, and one that is not there."""
    command = [sys.executable, "-I", str(folder / "client.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert said in done.stderr
