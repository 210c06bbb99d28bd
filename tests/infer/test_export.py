"""The ONNX file: it stands on its own, and says all that is needed to use it."""

import json
import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from classwise.errors import ModelError
from classwise.infer.export import metadata_of, onnx_bytes
from classwise.model.backbone import HALF, Backbone
from classwise.model.classifier import Classifier, ModelMetadata, build_classifier
from classwise.packages import require_packages
from classwise.version import __version__

# Names that the exporter also gives to values of its own.
NAMES = {"images": 3, "relu": 2, "마 스크": 2, "conv2d": 1, "linear": 4, "val_0": 1, "model": 2}


def model(heads: dict[str, int], cosine: dict[str, float] | None = None) -> Classifier:
    """The small network, for images that are not square."""
    return build_classifier("small_cnn", "none", (16, 12), "pad", 0.5, heads, seed=0, cosine=cosine)


def outputs(data: bytes, images: np.ndarray) -> list[Any]:
    """By ONNX Runtime, with default options."""
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return list(session.run(None, {"images": images}))


@pytest.mark.parametrize("cosine", [{}, {"relu": 5.0}], ids=["linear", "cosine"])
def test_outputs_in_the_order_of_the_heads_for_any_size_of_batch(cosine: dict[str, float]) -> None:
    """Target names that clash with the exporter's own among them; normalization is inside, dropout is off."""
    built = model(NAMES, cosine)
    data = onnx_bytes(built)
    proto = onnx.load_model_from_string(data)
    onnx.checker.check_model(proto, full_check=True)
    assert [value.name for value in proto.graph.input] == ["images"]
    assert [value.name for value in proto.graph.output] == [f"targets.{name}" for name in NAMES]
    rng = np.random.default_rng(0)
    for count in (1, 2, 3, 16):
        images = rng.integers(0, 256, (count, 3, 16, 12), dtype=np.uint8)
        with torch.no_grad():
            expected = built.eval()(torch.from_numpy(images))
        for found, raw in zip(outputs(data, images), expected.values(), strict=True):
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, raw.numpy(), rtol=1e-5, atol=1e-5)


def test_the_callers_model_and_settings_stay_as_they_were(capsys: pytest.CaptureFixture[str]) -> None:
    """Mode, type and weights; loggers, warnings and standard output; and nothing is printed."""
    built = model({"a": 2}).double().train()
    before = {key: value.clone() for key, value in built.state_dict().items()}
    levels = {name: logging.getLogger(name).level for name in ("torch.onnx", "onnxscript", "onnx_ir")}
    filters, out = list(warnings.filters), sys.stdout
    data = onnx_bytes(built)
    assert outputs(data, np.zeros((1, 3, 16, 12), np.uint8))[0].dtype == np.float32
    assert built.training
    assert all(torch.equal(before[key], value) for key, value in built.state_dict().items())
    assert levels == {name: logging.getLogger(name).level for name in levels}
    assert (list(warnings.filters), sys.stdout) == (filters, out)
    assert capsys.readouterr() == ("", "")


def test_the_same_model_gives_the_same_bytes_and_no_trace_of_the_machine() -> None:
    """The exporter's own notes hold paths of source files."""
    data = onnx_bytes(model({"a": 2}))
    assert data == onnx_bytes(model({"a": 2}))
    for trace in (b"stack_trace", b".py", str(Path(__file__).parents[2]).encode()):
        assert trace not in data


def test_metadata_says_how_to_feed_and_to_read_it() -> None:
    """Texts as they are, everything else as JSON, in any script."""
    built = model({"마스크": 2})
    targets = [{"name": "마스크", "type": "class", "labels": ["착용", 'not "so"']}]
    metadata = {
        "targets": targets,
        "heads": {"마스크": {"type": "class", "classes": 2}},
        "joint": [],
        "more": 1,
    }
    proto = onnx.load_model_from_string(onnx_bytes(built, metadata_of(built, metadata)))
    found = {entry.key: entry.value for entry in proto.metadata_props}
    assert found["classwise"] == __version__
    assert found["fit"] == "pad"
    assert "uint8 RGB" in found["input"]
    assert "mean and std are applied inside" in found["input"]
    assert "float32" in found["precision"]
    assert json.loads(found["image_size"]) == [16, 12]
    assert json.loads(found["mean"]) == json.loads(found["std"]) == list(HALF)
    assert json.loads(found["targets"]) == targets
    assert json.loads(found["heads"]) == metadata["heads"]
    assert json.loads(found["joint"]) == []
    assert "more" not in found


def test_a_model_that_cannot_be_exported_is_an_error_of_ours() -> None:
    """A backbone whose way depends on the images' values."""

    class Fickle(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            flat = images.flatten(1)
            return flat[:, :4] if float(flat.sum()) > 0 else flat[:, 4:8]

    metadata = ModelMetadata("fickle", (16, 12), "squash", HALF, HALF, 0.0, {"a": 2})
    with pytest.raises(ModelError, match=r"fickle cannot be exported to ONNX: .+"):
        onnx_bytes(Classifier(Backbone(Fickle(), 4, HALF, HALF), metadata))


def test_the_message_is_the_cause_without_colors() -> None:
    """The exporter's own message is a page of advice, in colors."""

    class Refusing(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            if torch.compiler.is_exporting():
                raise ValueError("\x1b[31mno such luck\x1b[0m\nand more")
            return images.flatten(1)[:, :4]

    metadata = ModelMetadata("refusing", (16, 12), "squash", HALF, HALF, 0.0, {"a": 2})
    with pytest.raises(ModelError, match=r"refusing cannot be exported to ONNX: no such luck$"):
        onnx_bytes(Classifier(Backbone(Refusing(), 4, HALF, HALF), metadata))


@pytest.mark.parametrize("exports", [True, False], ids=["exported", "not exported"])
def test_fused_attention_only_where_it_can_be_exported(exports: bool) -> None:
    """timm's attention has a fused way and one step by step; the caller's model keeps its own."""

    class Attention(nn.Module):
        fused_attn = True

        def forward(self, images: Tensor) -> Tensor:
            x = images.flatten(1)[:, :4]
            if not self.fused_attn:
                return x + 1
            if not exports and torch.compiler.is_exporting():
                raise RuntimeError("the fused way cannot be exported")
            return x + 2

    body = Attention()
    metadata = ModelMetadata("attention", (4, 4), "squash", HALF, HALF, 0.0, {"a": 2})
    built = Classifier(Backbone(body, 4, HALF, HALF), metadata).eval()
    images = np.zeros((2, 3, 4, 4), dtype=np.uint8)
    found = outputs(onnx_bytes(built), images)[0]
    assert body.fused_attn
    body.fused_attn = exports
    with torch.no_grad():
        np.testing.assert_allclose(found, built(torch.from_numpy(images))["a"].numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """With the command that brings it."""
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ModelError, match=rf'an ONNX file: the package {package} .*pip install "classwise\[onnx\]"'
    ):
        onnx_bytes(model({"a": 2}))
    require_packages("nothing", "onnx")
