"""A network in 8 bits: static quantization by ONNX Runtime, weights by channel, calibrated on images.

One scale a tensor is not enough: the channels of depthwise convolutions differ by orders of magnitude (Nagel et al.
2019, 'Data-free quantization through weight equalization and bias correction', section 3), so that per-tensor weights
change about half of the answers of a small EfficientNet.
"""

import contextlib
import logging
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from classwise.errors import ModelError, first_line
from classwise.packages import require_packages

QUANTIZED = ("Conv", "MatMul")
"""Operators that compute in 8 bits: those that take nearly all of the time. Not Gemm, which the heads are: with theirs
in 8 bits too, the answers of a network were no better than chance (docs/decisions/0053-exported-answers.md)."""

Images = npt.NDArray[np.uint8]


def int8_bytes(network: bytes, batches: Iterable[Images]) -> bytes:
    """A network of `Exportable.network_bytes` with its convolutions and products of matrices in 8 bits: weights by
    output channel, symmetric; activations by tensor, from the least to the largest value, each averaged over the
    batches. `batches`: the calibration images, (B, C, H, W) uint8. Raises ModelError."""
    require_packages("--int8", "onnx", "onnx", "onnxruntime")
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as name, _quiet():
        given, merged, made = (Path(name) / file for file in ("given.onnx", "merged.onnx", "int8.onnx"))
        given.write_bytes(network)
        try:
            # Merges batch norms into convolutions, whose weights are what is to be quantized.
            quant_pre_process(given, merged, skip_symbolic_shape=True)
            quantize_static(
                merged,
                made,
                _Reader(batches),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(QUANTIZED),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                extra_options={"CalibMovingAverage": True},
            )
            model = onnx.load(made)
        except Exception as error:
            raise ModelError(f"--int8: the network cannot be quantized: {first_line(error)}") from error
    data: bytes = model.SerializeToString(deterministic=True)
    return data


class _Reader:
    """The calibration images as ONNX Runtime asks for them."""

    def __init__(self, batches: Iterable[Images]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> dict[str, Any] | None:
        """The next batch, None at the end."""
        images = next(self._batches, None)
        return None if images is None else {"images": images}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides advice of ONNX Runtime's on its own preprocessing."""
    logger = logging.getLogger()
    level = logger.level
    try:
        logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
