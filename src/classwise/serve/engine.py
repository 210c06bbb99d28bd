"""What computes a service's outputs: ONNX Runtime where it gives eager torch's numbers, else eager torch.

`predict --engine auto` measures engines over a long job; a service has to be ready at once. So there is no measurement
here: on a CPU, for models in float32, ONNX Runtime takes a third to a half of eager torch's time
(docs/decisions/0054-serving.md), and the outputs of an image do not depend on the others of its batch.
"""

import contextlib
import io
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from classwise.errors import ConfigError, ModelError
from classwise.infer.engines import TOLERANCES, Engine, torch_engine
from classwise.infer.export import first_line, onnx_bytes, require_packages, silence
from classwise.model.classifier import Classifier
from classwise.own_parts.reference import short
from classwise.run.predictor import Predictor
from classwise.training import loop

ENGINES = ("auto", "onnx", "torch")
CHECKED_IMAGES = 3
"""More than one, and another number than the export's example has: a batch size must not be baked in."""


def check_engine(name: str) -> None:
    """Raises ConfigError for an unknown engine, ModelError where its packages are missing."""
    if name not in ENGINES:
        raise ConfigError(f"--engine: found {name!r}, allowed: {', '.join(ENGINES)}")
    if name == "onnx":
        require_packages("--engine onnx", "onnxruntime", "onnx")


def service_engine(
    predictor: Predictor, name: str, device: torch.device, say: Callable[[str], None]
) -> tuple[Engine, str]:
    """The engine of all models and their views, and which one it is: `onnx` or `torch`.

    `name`: torch; onnx, or a ModelError where it cannot run the model; or auto, which takes ONNX Runtime where it can
    and says why where it cannot. On a GPU, and for models that validated in less than float32, auto takes torch: the
    numbers are to be those of `predict`.
    """
    check_engine(name)
    used: set[str] = set()

    def make(model: Classifier, one: Predictor) -> Engine:
        eager = torch_engine(model.to(device), device, loop.PRECISIONS[one.precision])
        is_wanted = name == "onnx" or (name == "auto" and device.type == "cpu" and one.precision == "fp32")
        if is_wanted:
            try:
                engine = _checked_onnx_engine(model, eager, is_quick=name == "auto")
                used.add("onnx")
                return engine
            except ModelError as error:
                if name == "onnx":
                    raise
                say(f"note: {error}; using torch")
        used.add("torch")
        return eager

    engine = predictor.engine_of_models(make)
    return engine, " and ".join(sorted(used))


def _checked_onnx_engine(model: Classifier, eager: Engine, is_quick: bool) -> Engine:
    """ONNX Runtime with the outputs of eager torch for images of noise. `is_quick`: only with the exporter that takes a
    second. Raises ModelError."""
    engine = _onnx_engine(model, is_quick)
    rng = np.random.Generator(np.random.Philox(key=0))
    shape = (CHECKED_IMAGES, model.metadata.channels, *model.metadata.image_size)
    images_BCHW = torch.from_numpy(rng.integers(0, 256, shape, dtype=np.uint8))
    expected = eager(images_BCHW)
    try:
        outputs = engine(images_BCHW)
    except Exception as error:  # an operator that ONNX Runtime lacks shows when it runs
        raise ModelError(f"ONNX Runtime cannot run this model: {first_line(error)}") from error
    for target, raw in expected.items():
        scale = max(1.0, float(raw.abs().max()))
        difference = float((outputs[target] - raw).abs().max()) / scale
        if not difference <= TOLERANCES[torch.float32]:  # `not <=`, since NaN is not larger either
            raise ModelError(
                f"in ONNX Runtime the outputs of target {target!r} differ from eager torch's by {difference:.2g} of the"
                f" largest; allowed: {TOLERANCES[torch.float32]:g}"
            )
    return engine


def _onnx_engine(model: Classifier, is_quick: bool) -> Engine:
    """A session of ONNX Runtime with torch's number of threads. Raises ModelError."""
    require_packages("ONNX Runtime", "onnxruntime", "onnx")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors only
    # Threads that spin while they wait take the time of those that decode the next images.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(
            _onnx_file(model, is_quick), options, providers=["CPUExecutionProvider"]
        )
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"ONNX Runtime cannot load this model: {first_line(error)}") from error

    def run(images_BCHW: Tensor) -> dict[str, Tensor]:
        outputs = session.run(None, {"images": np.ascontiguousarray(images_BCHW.numpy())})
        return {name: torch.from_numpy(raw) for name, raw in zip(model.metadata.heads, outputs, strict=True)}

    return run


class _InOrder(nn.Module):
    """A model with its outputs as a tuple, in the order of the heads."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.model(images).values())


def _onnx_file(model: Classifier, is_quick: bool) -> bytes:
    """The model as an ONNX file, for any size of batch. Raises ModelError."""
    example = torch.zeros(2, model.metadata.channels, *model.metadata.image_size, dtype=torch.uint8)
    file = io.BytesIO()
    names = [f"targets.{name}" for name in model.metadata.heads]
    axes: dict[str, Any] = {name: {0: "batch"} for name in ("images", *names)}
    try:
        with silence(), _silent_stdout(), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # The exporter of TorchScript takes one second, torch.export's ten; what it has traced is checked above.
            torch.onnx.export(
                _InOrder(model).eval(),
                (example,),
                file,  # type: ignore[arg-type]  # this exporter writes to open files as well
                input_names=["images"],
                output_names=names,
                dynamic_axes=axes,
                dynamo=False,
            )
    except Exception as error:  # it cannot trace this backbone, or is gone from torch
        if is_quick:
            raise ModelError(
                f"{short(model.metadata.backbone)} cannot be exported to ONNX in a moment ({first_line(error)});"
                " --engine onnx takes longer to start"
            ) from error
        return onnx_bytes(model)
    return file.getvalue()


@contextlib.contextmanager
def _silent_stdout() -> Iterator[None]:
    """Hides what the exporter's C++ prints of a graph that it cannot export, which Python's own `sys.stdout` does not
    see."""
    kept = os.dup(1)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
