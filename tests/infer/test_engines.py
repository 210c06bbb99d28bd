"""Engines: the same outputs by other means, or an error; never other outputs."""

import math
import re
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from classwise.data.dataset import ImageDataset
from classwise.data.loader import Loader
from classwise.errors import ConfigError, ModelError, NonFiniteError
from classwise.infer import engines
from classwise.infer.engines import ENGINES, Engine, Outputs, check_engine, engine_of, torch_engine
from classwise.infer.predict import predict_outputs
from classwise.model.classifier import Classifier, build_classifier

CPU = torch.device("cpu")
FP32 = torch.float32


@pytest.fixture(scope="module")
def model() -> Classifier:
    """The small network with two heads, and statistics of batch norm that are not those of the start."""
    built = build_classifier("small_cnn", "none", (16, 16), "squash", 0.3, {"마스크": 3, "images": 1}, seed=0)
    with torch.no_grad():
        for seed in range(3):
            built.train()(images(8, seed))
        built.heads[0].weight.mul_(30)  # type: ignore[operator]
    return built.eval()


def images(count: int, seed: int = 9) -> Tensor:
    """Drawn images, laid out as the loader's are."""
    draw = torch.Generator().manual_seed(seed)
    drawn = torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8, generator=draw)
    return drawn.contiguous(memory_format=torch.channels_last)


def near(found: Outputs, expected: Outputs, tolerance: float = 1e-5) -> bool:
    """The same names, in order, and the same numbers but for the last digits."""
    assert list(found) == list(expected)
    return all(torch.allclose(found[k], x, rtol=tolerance, atol=tolerance) for k, x in expected.items())


def shifted(engine: Engine, by: float) -> Engine:
    """An engine that is wrong in the last row of its first batch."""

    def run(batch: Tensor) -> Outputs:
        outputs = {name: raw.clone() for name, raw in engine(batch).items()}
        outputs["images"][-1] += by
        return outputs

    return run


def test_torch_is_the_model(model: Classifier) -> None:
    """To the bit, in evaluation mode, without gradients."""
    with torch.no_grad():
        expected = model.eval()(images(5))
    found = engine_of("torch", model.train(), CPU, FP32, 1)(images(5))
    assert not model.training
    assert all(
        torch.equal(found[name], raw) and not found[name].requires_grad for name, raw in expected.items()
    )


@pytest.mark.parametrize("name", ["onnx", "compile"])
def test_another_engine_gives_the_outputs_of_torch(model: Classifier, name: str) -> None:
    """For a full batch, a short one and one image, on two layouts; the model stays as it was."""
    before = {key: value.clone() for key, value in model.state_dict().items()}
    engine, eager = engine_of(name, model, CPU, FP32, 3), torch_engine(model, CPU, FP32)
    for count in (4, 3, 1, 4):
        assert near(engine(images(count)), eager(images(count)))
        assert near(engine(images(count).contiguous()), eager(images(count)))
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_onnx_computes_in_float32_for_a_run_in_bf16(model: Classifier) -> None:
    """It is compared with what the run's precision gives, within that precision."""
    found = engine_of("onnx", model, CPU, torch.bfloat16, 1)(images(4))
    assert near(found, torch_engine(model, CPU, FP32)(images(4)))
    assert not near(found, torch_engine(model, CPU, torch.bfloat16)(images(4)))


@pytest.mark.full
def test_compiled_engines_do_not_run_into_a_limit(model: Classifier) -> None:
    """torch stops compiling the same code after some times; each engine is compiled all the same."""
    for size in range(1, 12):
        assert near(
            engine_of("compile", model, CPU, FP32, 1)(images(size)),
            torch_engine(model, CPU, FP32)(images(size)),
        )


@pytest.mark.parametrize("name", ["onnx", "compile"])
@pytest.mark.parametrize("by", [0.01, -5.0, math.nan, math.inf])
def test_an_engine_whose_outputs_differ_is_refused(
    model: Classifier, monkeypatch: pytest.MonkeyPatch, name: str, by: float
) -> None:
    """One number of one row is enough."""
    maker = {"onnx": "onnx_engine", "compile": "compiled_engine"}[name]
    eager = torch_engine(model, CPU, FP32)
    monkeypatch.setattr(engines, maker, lambda *given: shifted(eager, by))
    with pytest.raises(
        ModelError,
        match=f"--engine {name}: .* target 'images' differ from eager torch's by .* allowed: 0.001",
    ):
        engine_of(name, model, CPU, FP32, 1)(images(4))
    monkeypatch.setattr(engines, maker, lambda *given: shifted(eager, 1e-5))
    assert near(engine_of(name, model, CPU, FP32, 1)(images(4)), eager(images(4)), 2e-5)


def test_auto_stays_with_torch_where_little_is_to_be_done(
    model: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bits of eager torch; nothing else is made."""

    def refuse(*given: Any) -> Engine:
        raise AssertionError("made")

    monkeypatch.setattr(engines, "onnx_engine", refuse)
    monkeypatch.setattr(engines, "compiled_engine", refuse)
    said: list[str] = []
    engine, eager = engine_of("auto", model, CPU, FP32, 3, said.append), torch_engine(model, CPU, FP32)
    for count in (4, 4, 2):
        found, expected = engine(images(count)), eager(images(count))
        assert all(torch.equal(found[name], raw) for name, raw in expected.items())
    assert len(said) == 1
    assert re.fullmatch(
        r"--engine auto: using torch, since \d+\.\d s of work are not worth setting up another engine",
        said[0],
    )


@pytest.mark.parametrize("fastest", ["torch", "onnx", "compile"])
def test_auto_takes_the_fastest(model: Classifier, monkeypatch: pytest.MonkeyPatch, fastest: str) -> None:
    """Whichever that is; it measures once, at the size of the first batch, and says what it found."""
    eager, used, measured = torch_engine(model, CPU, FP32), [], []

    def made(name: str) -> Engine:
        def run(batch: Tensor) -> Outputs:
            used.append(name)
            return eager(batch)

        return run

    def seconds(candidates: dict[str, Engine], batch: Tensor) -> dict[str, float]:
        measured.append((list(candidates), len(batch)))
        return {name: 1.0 if name == fastest else 2.0 for name in candidates}

    monkeypatch.setattr(engines, "onnx_engine", lambda *given: made("onnx"))
    monkeypatch.setattr(engines, "compiled_engine", lambda *given: made("compile"))
    monkeypatch.setattr(engines, "median_seconds", seconds)
    monkeypatch.setattr(engines, "SETUP_SECONDS", {"onnx": 0.0, "compile": 0.0})
    said: list[str] = []
    engine = engine_of("auto", model, CPU, FP32, 1000, said.append)
    engine(images(4))
    assert measured == [(["torch"], 4), (["torch", "onnx", "compile"], 4)]
    used.clear()
    engine(images(2))
    assert used == ([] if fastest == "torch" else [fastest])
    assert len(measured) == 2
    assert said == [f"--engine auto: {fastest} is the fastest for batches of 4 ({shown(fastest)})"]


def shown(fastest: str) -> str:
    """What is said of the times."""
    return ", ".join(
        f"{name} {1000 if name == fastest else 2000}.0 ms" for name in ("torch", "onnx", "compile")
    )


def test_auto_passes_over_what_differs_or_cannot_be_had(
    model: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And says why."""
    eager, said = torch_engine(model, CPU, FP32), []
    monkeypatch.setattr(engines, "SETUP_SECONDS", {"onnx": 0.0, "compile": 0.0})
    monkeypatch.setattr(engines, "compiled_engine", lambda *given: shifted(eager, 1.0))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    found = engine_of("auto", model, CPU, FP32, 9, said.append)(images(4))
    assert all(torch.equal(found[name], raw) for name, raw in eager(images(4)).items())
    assert said[2:] == ["--engine auto: using torch, since no other engine is available"]
    assert said[0].startswith("note: --engine onnx: the package onnxruntime cannot be imported")
    assert said[1].startswith("note: --engine compile: on the first batch")


@pytest.mark.parametrize(("batches", "passes"), [(1, 1), (10**7, 11)])
def test_little_work_is_done_at_once(
    model: Classifier, monkeypatch: pytest.MonkeyPatch, batches: int, passes: int
) -> None:
    """Where all of it takes less time than another engine's start, nothing is measured first."""
    count: list[int] = []
    monkeypatch.setattr(engines, "TIMING_SECONDS", 0.0)  # five rounds of two passes
    monkeypatch.setattr(engines, "_checked", fail)
    model.register_forward_pre_hook(lambda _, inputs: count.append(len(inputs[0])))
    engine_of("auto", model, CPU, FP32, batches)(images(4))
    assert len(count) == passes


def fail(*_: Any, **__: Any) -> None:
    raise ModelError("none")


def test_candidates_run_in_turns() -> None:
    """So that a neighbor's load falls on all; at least five turns, in each an untimed pass first."""
    seen: list[str] = []

    def engine(name: str) -> Engine:
        return lambda batch: seen.append(name) or {}  # type: ignore[func-returns-value]

    medians = engines.median_seconds({"a": engine("a"), "b": engine("b")}, images(1))
    assert list(medians) == ["a", "b"]
    assert seen == ["a", "a", "b", "b"] * (len(seen) // 4)
    assert len(seen) >= 20


def test_an_unknown_engine_is_refused_by_name() -> None:
    """What was found, and what is allowed."""
    for name in ENGINES:
        check_engine(name)
    with pytest.raises(ConfigError, match="--engine: found 'tensorrt', allowed: auto, torch, compile, onnx"):
        check_engine("tensorrt")


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """With the command that brings it; the other engines need none."""
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ModelError, match=rf'--engine onnx: the package {package} .*pip install "classwise\[onnx\]"'
    ):
        check_engine("onnx")
    for name in ("auto", "torch", "compile"):
        check_engine(name)


def test_a_compiler_that_fails_is_an_error_of_ours(
    model: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first line, and which option asked for it."""

    def fails(*given: Any, **options: Any) -> Any:
        def run(batch: Tensor) -> Outputs:
            raise RuntimeError("\nno C++ compiler\nand much more")

        return run

    monkeypatch.setattr(torch, "compile", fails)
    with pytest.raises(ModelError, match=r"--engine compile: torch.compile fails here: no C\+\+ compiler$"):
        engine_of("compile", model, CPU, FP32, 1)(images(2))


@pytest.mark.parametrize("name", ["onnx", "auto"])
def test_outputs_that_are_not_finite_are_refused_as_ever(name: str, tmp_path: Path) -> None:
    """There is nothing to compare with, and nothing to hide."""
    broken = build_classifier("small_cnn", "none", (16, 16), "squash", 0.0, {"type": 2}, seed=0)
    with torch.no_grad():
        broken.heads[0].bias[0] = math.nan  # type: ignore[index]
    path = tmp_path / "0.png"
    path.write_bytes(cv2.imencode(".png", np.zeros((16, 16, 3), dtype=np.uint8))[1].tobytes())
    loader = Loader(ImageDataset([path] * 3, (16, 16), "squash", 1000), {}, 2, workers=0)
    with pytest.raises(NonFiniteError, match="target 'type': 3 of 3 rows"):
        predict_outputs(engine_of(name, broken, CPU, FP32, 2), loader)
