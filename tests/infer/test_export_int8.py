"""Networks in 8 bits: calibrated on training images, measured on validation rows, refused where they lose too much."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from classwise.errors import ModelError
from classwise.infer.export import onnx_bytes
from classwise.infer.export_int8 import int8_bytes
from classwise.model.classifier import build_classifier
from classwise.run import int8
from classwise.run.api import Run
from tests.helpers.scenes import command, plain_table, untouched, write_config


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with a fourth of 40 rows for validation."""
    folder = tmp_path_factory.mktemp("int8")
    plain_table(folder, 40)
    command("train", write_config(folder), "--run", folder / "run", "--quiet").ok()
    return Run.open(folder / "run")


def outputs(data: bytes, images: np.ndarray) -> Any:
    """By ONNX Runtime."""
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})[0]


def test_convolutions_in_8_bits_by_channel_and_heads_in_float() -> None:
    """Close to the network's outputs, whose weights differ a thousandfold between channels; the same bytes again."""
    model = build_classifier("small_cnn", "none", (16, 12), "pad", 0.0, {"a": 3}, seed=0).eval()
    first = next(weight for weight in model.parameters() if weight.ndim == 4)
    first.data[::2] *= 1e-3
    network = onnx_bytes(model)
    images = np.random.default_rng(0).integers(0, 256, (64, 3, 16, 12), dtype=np.uint8)
    data = int8_bytes(network, (images[i : i + 16] for i in range(0, 64, 16)))
    assert data == int8_bytes(network, (images[i : i + 16] for i in range(0, 64, 16)))
    types = [node.op_type for node in onnx.load_model_from_string(data).graph.node]
    assert types.count("QuantizeLinear") >= types.count("Conv") == 4
    expected, found = outputs(network, images), outputs(data, images)
    assert 0 < np.abs(found - expected).mean() < 0.1 * expected.std(axis=0).mean()


def test_what_it_costs_is_said(run: Run) -> None:
    """The selection metric before and after, the agreement, sizes and speed; the file works and says what it is."""
    out = run.path.parent / "small"
    result = command("export", run.path, "--out", out, "--int8", "--max-loss", "0.99").ok()
    cost, size = result.err.strip().splitlines()[-2:]
    assert cost.startswith("int8: macro_f1 ")
    assert " on 10 validation rows; the answers agree in " in cost
    assert cost.endswith(" % of 'label'")
    assert " MB to " in size
    assert "times the images a second, 16 at a time" in size
    model = onnx.load(out / "model.onnx")
    assert any(node.op_type == "DequantizeLinear" for node in model.graph.node)
    assert {entry.key: entry.value for entry in model.metadata_props}["precision"].startswith("int8")
    images = np.zeros((2, 50, 60, 3), np.uint8)
    session = onnxruntime.InferenceSession(out / "model.onnx", providers=["CPUExecutionProvider"])
    assert session.run(["answers.label"], {"images": images})[0].shape == (2,)


def test_nothing_is_written_where_it_loses_too_much(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """More than --max-loss; as much as that is allowed."""
    monkeypatch.setattr(int8, "_cost", lambda *_, **__: 0.02)
    with pytest.raises(
        ModelError, match=r"8 bits lose 0\.0200 .* on the validation rows; allowed: --max-loss 0\.01"
    ):
        run.export(tmp_path / "small", int8=True)
    assert not list(tmp_path.iterdir())
    run.export(tmp_path / "small.onnx", int8=True, max_loss=0.02)
    session = onnxruntime.InferenceSession(tmp_path / "small.onnx", providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["precision"].startswith("int8")
    assert json.loads(metadata["targets"])[0]["labels"] == ["a", "b"]


def test_images_that_are_gone_are_named(run: Run) -> None:
    """Calibration and measurement need them."""
    images = next(path for path in run.path.parent.iterdir() if path.is_dir() and path.name == "images")
    moved = images.rename(images.with_name("moved"))
    try:
        with untouched(run.path.parent):
            result = command("export", run.path, "--out", run.path.parent / "new", "--int8")
    finally:
        moved.rename(images)
    assert (result.code, result.out) == (1, "")
    assert "--int8 needs the images that the run was trained and validated on" in result.err
