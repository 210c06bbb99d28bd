"""The fastest way to get a backbone's features here, without a measurement.

On a CPU, ONNX Runtime computes the features of a convolutional network in a third to a half of eager torch's time
(docs/decisions/0039-first-answer.md). Which one is used follows from the device, the number of images and the packages
at hand, never from a clock: the features of a run that is killed and resumed are the same to the last bit.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from classwise.infer.engines import session_engine
from classwise.infer.quick_export import quick_onnx_bytes
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
        # torch.export's exporter takes as long as the features of 500 images.
        network = quick_onnx_bytes(_Features(model), model.metadata, ["features"])
        engine = session_engine(network, ["features"], torch.get_num_threads(), spins=False)
    except Exception:
        return None
    return lambda images_BCHW: engine(images_BCHW)["features"]


def _agree(fast: FeatureEngine, eager: FeatureEngine, images_BCHW: Tensor) -> bool:
    """Whether both give the same features, up to the order of summation."""
    expected = eager(images_BCHW)
    scale = max(1.0, float(expected.abs().max()))
    try:
        difference = float((fast(images_BCHW) - expected).abs().max()) / scale
    except Exception:  # an operator that ONNX Runtime lacks shows when it runs
        return False
    return difference <= TOLERANCE  # False for NaN
