"""The fastest way to get a backbone's features here, without a measurement.

On a CPU, ONNX Runtime computes the features of a convolutional network in a third to a half of eager torch's time
(docs/decisions/0039-first-answer.md). Which one is used follows from the device, the number of images and the packages
at hand, never from a clock: the features of a run that is killed and resumed are the same to the last bit.
"""

import contextlib
import io
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from classwise.infer.export import silence
from classwise.model.classifier import Classifier
from classwise.model.oom import OOMFallback

FeatureEngine = Callable[[Tensor], Tensor]
"""images_BCHW (uint8, on the host) in; features_BF (float32, on the host) out."""
MIN_IMAGES = 100
"""Fewer images are computed before ONNX Runtime is set up."""
TOLERANCE = 1e-3
"""The largest difference from eager torch, relative to the largest feature (to 1, where that is smaller)."""


class _Features(nn.Module):
    """A model that ends at its features."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model.features(images)


def feature_engine(
    model: Classifier,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[Any]],
    images: int,
    is_float32: bool,
) -> FeatureEngine:
    """An engine for so many images. ONNX Runtime on a CPU, if the features are to be in float32, and only if its
    features of the first batch are eager torch's; otherwise eager torch. The model is put into eval mode."""
    model.eval()
    eager = _eager_engine(model, device, autocast)
    if device.type != "cpu" or not is_float32 or images < MIN_IMAGES:
        return eager
    chosen: list[FeatureEngine] = []

    def run(images_BCHW: Tensor) -> Tensor:
        # Decided by the first batch: a backbone that cannot be exported, or whose export differs, is no error.
        if not chosen:
            fast = _onnx_engine(model)
            chosen.append(fast if fast is not None and _agree(fast, eager, images_BCHW[:2]) else eager)
        return chosen[0](images_BCHW)

    return run


def _eager_engine(
    model: Classifier, device: torch.device, autocast: Callable[[], AbstractContextManager[Any]]
) -> FeatureEngine:
    forward = OOMFallback(lambda images: {"": model.features(images)})

    def run(images_BCHW: Tensor) -> Tensor:
        with torch.no_grad(), autocast():
            return forward(images_BCHW.to(device, non_blocking=True))[""].float().cpu()

    return run


def _onnx_engine(model: Classifier) -> FeatureEngine | None:
    """ONNX Runtime with torch's number of threads; None if a package is missing or the backbone cannot be exported."""
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors only
    # Threads that spin while they wait take the time of whatever else the machine does.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(_onnx_file(model), options, providers=["CPUExecutionProvider"])
    except Exception:
        return None

    def run(images_BCHW: Tensor) -> Tensor:
        (features_BF,) = session.run(None, {"images": np.ascontiguousarray(images_BCHW.numpy())})
        return torch.from_numpy(features_BF)

    return run


def _onnx_file(model: Classifier) -> bytes:
    """The backbone up to its features as an ONNX file, for any size of batch."""
    example = torch.zeros(2, model.metadata.channels, *model.metadata.image_size, dtype=torch.uint8)
    file = io.BytesIO()
    with silence(), torch.no_grad(), contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        # The exporter of TorchScript takes one second, torch.export's ten: as long as the features of 500 images. Where
        # it is gone, or cannot trace the backbone, eager torch computes the features.
        torch.onnx.export(
            _Features(model).eval(),  # the exporter puts the mode back that it finds
            (example,),
            file,  # type: ignore[arg-type]  # this exporter writes to open files as well
            input_names=["images"],
            output_names=["features"],
            dynamic_axes={"images": {0: "batch"}, "features": {0: "batch"}},
            dynamo=False,
        )
    return file.getvalue()


def _agree(fast: FeatureEngine, eager: FeatureEngine, images_BCHW: Tensor) -> bool:
    """Whether both give the same features, up to the order of summation."""
    expected = eager(images_BCHW)
    scale = max(1.0, float(expected.abs().max()))
    try:
        difference = float((fast(images_BCHW) - expected).abs().max()) / scale
    except Exception:  # an operator that ONNX Runtime lacks shows when it runs
        return False
    return difference <= TOLERANCE  # False for NaN
