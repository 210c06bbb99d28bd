"""Other engines and the exported file, from trained runs with a target of every type."""

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import polars as pl
import pytest

from classwise.data.fit import fit_image
from classwise.data.images import read_image
from classwise.infer import engines
from classwise.infer.engines import Engine, Outputs
from classwise.run.api import Run
from tests.helpers.scenes import MANY, command, many_table, untouched, write_config, write_csv

RANKED: dict[str, Any] = {
    **MANY,
    "targets": {
        **MANY["targets"],
        "label": {"column": "label", "adjust": 1.0},
        "number": {"column": "size", "type": "regression", "edges": [3, 6]},
        "rank": {"column": "relevance", "type": "ranking", "query": "query"},
    },
    "joint": {"targets": ["level", "number"]},
    "model": {**MANY["model"], "image_size": [20, 16], "fit": "pad"},
}


@pytest.fixture(scope="module")
def ranked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with every type of target; its table is samples.csv, its images in images."""
    folder = tmp_path_factory.mktemp("every type")
    many_table(folder)
    command("train", write_config(folder, RANKED), "--run", folder / "run", "--quiet").ok()
    return folder


@pytest.fixture(scope="module")
def exported(ranked: Path) -> Path:
    """The run's ONNX file."""
    result = command("export", ranked / "run", "--out", ranked / "model.onnx").ok()
    assert (result.path, result.err) == (ranked / "model.onnx", "")
    return result.path


@pytest.mark.parametrize("size", [1, 3, 16])
def test_the_file_alone_gives_the_answers_of_predict(ranked: Path, exported: Path, size: int) -> None:
    """With ONNX Runtime and the metadata only; what the answers mean is written here once more, by hand."""
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    targets, heads = json.loads(metadata["targets"]), json.loads(metadata["heads"])
    height, width = json.loads(metadata["image_size"])
    predicted = Run.open(ranked / "run").predict(ranked / "images")
    paths = [ranked / "images" / name for name in predicted["id"]]
    images = np.stack([fit_image(read_image(path), (height, width), metadata["fit"]) for path in paths])
    images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    parts = [session.run(None, {"images": images[i : i + size]}) for i in range(0, len(images), size)]
    numbers = {}
    for target, name, raw in zip(
        targets, heads, (np.concatenate(part) for part in zip(*parts, strict=True)), strict=True
    ):
        assert target["name"] == name
        labels, numbers[name] = READ[heads[name]["type"]](raw, heads[name], target)
        if isinstance(labels[0], str):
            assert predicted[name].to_list() == labels
        else:
            np.testing.assert_allclose(predicted[name].to_numpy(), labels, rtol=1e-4, atol=1e-4)
    assert {head["type"] for head in heads.values()} == {
        "class",
        "ordinal",
        "multilabel",
        "regression",
        "ranking",
    }
    first, second = json.loads(metadata["joint"])
    sizes = len(heads[second]["edges"]) + 1
    assert predicted["joint"].to_list() == (numbers[first] * sizes + numbers[second]).tolist()


def _class(raw: np.ndarray, head: dict[str, Any], target: dict[str, Any]) -> tuple[list[str], np.ndarray]:
    assert head["adjustment"]
    number = (raw + np.array(head["adjustment"])).argmax(axis=1)
    return [target["labels"][k] for k in number], number


def _ordinal(raw: np.ndarray, head: dict[str, Any], target: dict[str, Any]) -> tuple[list[str], np.ndarray]:
    number = ((1 / (1 + np.exp(-raw))).cumprod(axis=1) > 0.5).sum(axis=1)
    return [target["labels"][k] for k in number], number


def _multilabel(raw: np.ndarray, head: dict[str, Any], target: dict[str, Any]) -> tuple[list[str], None]:
    rows = [[label for label, x in zip(target["labels"], row, strict=True) if x >= 0] for row in raw]
    return ["|".join(row) or "|" for row in rows], None


def _regression(
    raw: np.ndarray, head: dict[str, Any], target: dict[str, Any]
) -> tuple[list[float], np.ndarray]:
    values = raw[:, 0].astype(np.float64) * head["std"] + head["mean"]
    return values.tolist(), np.searchsorted(head["edges"] or [], values, side="right")


def _ranking(raw: np.ndarray, head: dict[str, Any], target: dict[str, Any]) -> tuple[list[float], None]:
    return raw[:, 0].tolist(), None


READ: dict[str, Any] = {
    "class": _class,
    "ordinal": _ordinal,
    "multilabel": _multilabel,
    "regression": _regression,
    "ranking": _ranking,
}


def test_export_refuses_what_it_would_lose(
    ranked: Path, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another suffix, a file that exists, a missing package, a run that is none: one line, and nothing is written."""
    with untouched(ranked):
        for out, said in (
            ("model.pt", "found .pt suffix, allowed: .onnx"),
            ("images", "exists already; it is kept"),
            ("model.onnx", "exists already; it is kept"),
            ("none/model.onnx", "there is no folder"),
        ):
            result = command("export", ranked / "run", "--out", ranked / out)
            assert (result.code, result.out, result.err.count("\n")) == (1, "", 1)
            assert said in result.err
        assert command("export", ranked / "images", "--out", ranked / "new.onnx").code == 1
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "onnx", None)
            result = command("export", ranked / "run", "--out", ranked / "new.onnx")
            assert (result.code, "classwise[onnx]" in result.err) == (1, True)
    before = exported.read_bytes()
    exported.write_bytes(b"")
    command("export", ranked / "run", "--out", exported, "--force").ok()
    assert exported.read_bytes() == before


def test_predict_and_submit_with_onnx(ranked: Path, tmp_path: Path) -> None:
    """The answers of eager torch; numbers may differ in the last digits."""
    tables = []
    for engine in ("torch", "onnx"):
        out = tmp_path / f"{engine}.parquet"
        result = command("predict", ranked / "run", ranked / "images", "--out", out, "--engine", engine).ok()
        assert result.err == ""
        tables.append(pl.read_parquet(out))
    plain, other = tables
    assert plain.columns == other.columns
    for name in plain.columns:
        if plain[name].dtype.is_float():
            np.testing.assert_allclose(plain[name].to_numpy(), other[name].to_numpy(), rtol=1e-4, atol=1e-4)
        else:
            assert plain[name].to_list() == other[name].to_list()
    template = write_csv(tmp_path / "template.csv", ("id", "ans"), [[f"{row:02}.png", 0] for row in range(9)])
    files = []
    for engine in ("torch", "onnx"):
        out = tmp_path / f"submission {engine}.csv"
        options = ("--images", ranked / "images", "--out", out, "--engine", engine)
        assert command("submit", ranked / "run", template, *options).ok().out == f"{out}\n"
        files.append(out.read_bytes())
    assert files[0] == files[1]


def test_auto_on_few_images_gives_the_bytes_of_torch(ranked: Path, tmp_path: Path) -> None:
    """It does not pay to leave eager torch there."""
    for engine in ("torch", "auto"):
        out = tmp_path / f"{engine}.csv"
        said = (
            command("predict", ranked / "run", ranked / "images", "--out", out, "--engine", engine).ok().err
        )
        assert said.startswith("--engine auto: using torch, since ") == (engine == "auto")
        assert said.count("\n") == (engine == "auto")
    assert (tmp_path / "torch.csv").read_bytes() == (tmp_path / "auto.csv").read_bytes()


def test_a_wrong_engine_writes_nothing(ranked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that there is not, and one whose outputs are others."""
    template = write_csv(tmp_path / "template.csv", ("id", "ans"), [["00.png", 0]])
    predict = ("predict", ranked / "run", ranked / "images", "--out", tmp_path / "p.csv")
    submit = ("submit", ranked / "run", template, "--images", ranked / "images", "--out", tmp_path / "s.csv")
    original = engines.onnx_engine

    def differs(*given: Any) -> Engine:
        engine = original(*given)

        def run(images: Any) -> Outputs:
            return {name: raw + 0.1 for name, raw in engine(images).items()}

        return run

    monkeypatch.setattr(engines, "onnx_engine", differs)
    with untouched(tmp_path):
        for arguments in (predict, submit):
            result = command(*arguments, "--engine", "fastest")
            assert (result.code, result.out) == (1, "")
            assert result.err == "error: --engine: found 'fastest', allowed: auto, torch, compile, onnx\n"
            result = command(*arguments, "--engine", "onnx")
            assert (result.code, result.out) == (1, "")
            assert "--engine onnx: on the first batch the outputs of target 'label' differ" in result.err
            assert math.isclose(0.1, float(result.err.split(" by ")[1].split()[0]), rel_tol=0.9)
