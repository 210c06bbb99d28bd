"""The engine of features: ONNX Runtime where it gives eager torch's features, and nothing of the model changes."""

import contextlib
import io
import sys
import time
from typing import Any

import pytest
import torch
from torch import Tensor

from classwise.infer import feature_engine as module
from classwise.infer.feature_engine import MIN_IMAGES, FeatureEngine, feature_engine
from classwise.infer.quick_export import quick_onnx_bytes
from classwise.model.classifier import Classifier, build_classifier
from tests.helpers.tiny_runs import CPU, copy_of, same

SIZE = (32, 32)


def built(backbone: str = "test_resnet", pooling: str = "last", training: bool = False) -> Classifier:
    """A tiny model whose statistics of batch norm are not those of the start."""
    model = build_classifier(backbone, "none", SIZE, "squash", 0.5, {"kind": 3}, seed=0, pooling=pooling)
    with torch.no_grad():
        for seed in range(3):
            model.train()(drawn(8, seed))
    return model.train(training)


def drawn(count: int, seed: int = 9) -> Tensor:
    """Images as the loader gives them."""
    draw = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, *SIZE), dtype=torch.uint8, generator=draw)
    return images.contiguous(memory_format=torch.channels_last)


def engine_of(model: Classifier, images: int = MIN_IMAGES, is_float32: bool = True) -> FeatureEngine:
    return feature_engine(model, CPU, contextlib.nullcontext, images=images, is_float32=is_float32)


def eager(model: Classifier, images: Tensor) -> Tensor:
    with torch.no_grad():
        return model.eval().features(images)


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every session of ONNX Runtime that is made, and the images of each of its batches."""
    onnxruntime = pytest.importorskip("onnxruntime")
    made: list[Any] = []

    class Session(onnxruntime.InferenceSession):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.batches: list[int] = []
            made.append(self)

        def run(self, names: Any, inputs: Any, *rest: Any) -> Any:
            self.batches.append(len(inputs["images"]))
            return super().run(names, inputs, *rest)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    return made


@pytest.mark.parametrize(("backbone", "pooling"), [("test_resnet", "layers"), ("test_vit", "last")])
def test_onnx_runtime_gives_the_features_of_eager_torch(
    sessions: list[Any], backbone: str, pooling: str
) -> None:
    """For batches of any size, and also mirrored, which has another layout."""
    model = built(backbone, pooling)
    engine = engine_of(model)
    for images in (drawn(5), drawn(1), drawn(4).flip(3)):
        found = engine(images)
        assert found.dtype == torch.float32
        assert torch.allclose(found, eager(model, images), rtol=1e-4, atol=1e-4)
    (session,) = sessions  # exported once
    assert session.batches == [2, 5, 1, 4]  # the first two images are compared


@pytest.mark.parametrize("training", [True, False])
def test_the_model_does_not_change(sessions: list[Any], training: bool) -> None:
    """The exporter may not leave it in training mode: eager torch after it would use and move the statistics."""
    model = built(training=training)
    before = copy_of(model)
    engine = engine_of(model)
    engine(drawn(4))
    assert not model.training
    assert not any(child.training for child in model.modules())
    engine(drawn(4, seed=3))
    assert same(copy_of(model), before)
    assert sessions


def test_eager_features_are_in_eval_mode(sessions: list[Any]) -> None:
    """Of a model in training mode as well: nothing moves, and no image depends on the others."""
    model = built(training=True)
    before = copy_of(model)
    engine = engine_of(model, images=MIN_IMAGES - 1)
    together = engine(drawn(6))
    assert torch.allclose(together[:1], engine(drawn(6)[:1]), atol=1e-5)
    assert same(copy_of(model), before)
    assert not together.requires_grad
    assert sessions == []


def test_few_images_and_other_precisions_are_computed_by_torch(sessions: list[Any]) -> None:
    """An export takes as long as the features of some hundred images, and is in float32."""
    model = built()
    for engine in (engine_of(model, images=MIN_IMAGES - 1), engine_of(model, is_float32=False)):
        assert torch.equal(engine(drawn(3)), eager(model, drawn(3)))
    assert sessions == []


def test_without_onnx_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing package is no error: torch computes the features."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    model = built()
    assert torch.equal(engine_of(model)(drawn(3)), eager(model, drawn(3)))


def test_a_backbone_that_cannot_be_exported(monkeypatch: pytest.MonkeyPatch, sessions: list[Any]) -> None:
    """Nor is an exporter that fails."""

    def failing(*arguments: Any, **options: Any) -> None:
        raise torch.onnx.errors.UnsupportedOperatorError("aten::new", 18, 19)

    monkeypatch.setattr(torch.onnx, "export", failing)
    model = built()
    assert torch.equal(engine_of(model)(drawn(3)), eager(model, drawn(3)))
    assert not model.training
    assert sessions == []


@pytest.mark.parametrize("kind", ["shifted", "nan", "fails"])
def test_other_features_are_not_used(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """An export that differs, gives numbers that are not finite or fails when it runs is left alone."""

    def wrong(model: Classifier) -> FeatureEngine:
        def run(images: Tensor) -> Tensor:
            if kind == "fails":
                raise RuntimeError("an operator that is not implemented")
            return eager(model, images) + (0.1 if kind == "shifted" else float("nan"))

        return run

    monkeypatch.setattr(module, "_onnx_engine", wrong)
    model = built()
    engine = engine_of(model)
    for images in (drawn(3), drawn(4)):
        assert torch.equal(engine(images), eager(model, images))


def test_the_choice_asks_no_clock(monkeypatch: pytest.MonkeyPatch, sessions: list[Any]) -> None:
    """Of two runs the features are the same bytes, however slow ONNX Runtime is on that day: it is used without a look
    at how long it takes."""
    run = Leaping()
    monkeypatch.setattr(time, "perf_counter", run)
    monkeypatch.setattr(time, "monotonic", run)
    model = built()
    slow, fast = engine_of(model)(drawn(3)), engine_of(model)(drawn(3))
    assert torch.equal(slow, fast)
    assert [session.batches for session in sessions] == [[2, 3], [2, 3]]


class Leaping:
    """A clock on which every second call is an hour after the one before, and every third the same."""

    def __init__(self) -> None:
        self.calls = 0
        self.now = 0.0

    def __call__(self) -> float:
        self.calls += 1
        self.now += 3600.0 * (self.calls % 3)
        return self.now


def test_the_file_is_for_any_number_of_images() -> None:
    """The batch is an axis without a fixed size; the image is not."""
    onnx = pytest.importorskip("onnx")
    model = built()
    file = onnx.load(io.BytesIO(quick_onnx_bytes(module._Features(model), model.metadata, ["features"])))
    (given,) = file.graph.input
    sides = [dimension.dim_param or dimension.dim_value for dimension in given.type.tensor_type.shape.dim]
    assert sides == ["batch", 3, *SIZE]
