"""What computes a service's outputs: ONNX Runtime where it gives eager torch's numbers, else eager torch.

`predict --engine auto` measures engines over a long job; a service has to be ready at once. So there is no measurement
here: on a CPU, for models in float32, ONNX Runtime takes less time than eager torch
(docs/decisions/0054-serving.md), and the outputs of an image do not depend on the others of its batch.
"""

from collections.abc import Callable

import numpy as np
import torch

from classwise.errors import ConfigError, ModelError, first_line
from classwise.infer.engines import (
    TOLERANCES,
    Engine,
    relative_differences,
    session_engine,
    torch_engine,
)
from classwise.infer.export import onnx_bytes
from classwise.infer.quick_export import quick_model_bytes
from classwise.model.classifier import Classifier
from classwise.own_parts.reference import short
from classwise.packages import require_packages
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
        require_packages("--engine onnx", "onnx", "onnxruntime", "onnx")


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
        dtype = loop.PRECISIONS[one.precision]
        eager = torch_engine(model.to(device), device, dtype)
        is_wanted = name == "onnx" or (name == "auto" and device.type == "cpu" and one.precision == "fp32")
        if is_wanted:
            try:
                engine = _checked_onnx_engine(model, eager, dtype, is_quick=name == "auto")
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


def _checked_onnx_engine(model: Classifier, eager: Engine, dtype: torch.dtype, is_quick: bool) -> Engine:
    """ONNX Runtime, in float32, with the outputs of eager torch, in `dtype`, for images of noise. `is_quick`: only with
    the exporter that takes a second. Raises ModelError."""
    engine = _onnx_engine(model, is_quick)
    rng = np.random.Generator(np.random.Philox(key=0))
    shape = (CHECKED_IMAGES, model.metadata.channels, *model.metadata.image_size)
    images_BCHW = torch.from_numpy(rng.integers(0, 256, shape, dtype=np.uint8))
    expected = eager(images_BCHW)
    try:
        outputs = engine(images_BCHW)
    except Exception as error:  # an operator that ONNX Runtime lacks shows when it runs
        raise ModelError(f"ONNX Runtime cannot run this model: {first_line(error)}") from error
    for target, difference in relative_differences(outputs, expected).items():
        if not difference <= TOLERANCES[dtype]:  # `not <=`, since NaN is not larger either
            raise ModelError(
                f"in ONNX Runtime the outputs of target {target!r} differ from eager torch's by {difference:.2g} of the"
                f" largest; allowed: {TOLERANCES[dtype]:g}"
            )
    return engine


def _onnx_engine(model: Classifier, is_quick: bool) -> Engine:
    """A session of ONNX Runtime with torch's number of threads, which leave the others' time to those that decode the
    next images. Raises ModelError."""
    require_packages("ONNX Runtime", "onnx", "onnxruntime", "onnx")
    network = _onnx_file(model, is_quick)
    try:
        return session_engine(network, list(model.metadata.heads), torch.get_num_threads(), spins=False)
    except Exception as error:
        raise ModelError(f"ONNX Runtime cannot load this model: {first_line(error)}") from error


def _onnx_file(model: Classifier, is_quick: bool) -> bytes:
    """The model as an ONNX file, for any size of batch. Raises ModelError."""
    try:
        return quick_model_bytes(model)
    except Exception as error:  # it cannot trace this backbone, or is gone from torch
        if is_quick:
            raise ModelError(
                f"{short(model.metadata.backbone)} cannot be exported to ONNX in a moment ({first_line(error)});"
                " --engine onnx takes longer to start"
            ) from error
        return onnx_bytes(model)
