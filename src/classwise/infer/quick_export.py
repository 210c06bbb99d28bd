"""ONNX files by the exporter of TorchScript, which takes one second in place of torch.export's ten."""

import contextlib
import copy
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import nn

from classwise.infer.export import TARGETS, InOrder, example_images, silence
from classwise.model.classifier import Classifier, ModelMetadata


def quick_model_bytes(model: Classifier) -> bytes:
    """`onnx_bytes` of a model by this exporter, without metadata. Raises as `quick_onnx_bytes`."""
    names = [f"{TARGETS}.{name}" for name in model.metadata.heads]
    return quick_onnx_bytes(InOrder(copy.deepcopy(model).cpu().float()), model.metadata, names)


def quick_onnx_bytes(module: nn.Module, properties: ModelMetadata, outputs: Sequence[str]) -> bytes:
    """A module that takes images (B, C, H, W) uint8 as an ONNX file with the input `images` and outputs of these names,
    for any size of batch. `properties`: of its classifier.

    Raises whatever the exporter raises: it cannot trace every backbone, and may be gone from torch one day. What it has
    traced is to be compared with eager torch by the caller.
    """
    file = io.BytesIO()
    with silence(), _silent_stdout(), torch.no_grad():
        torch.onnx.export(
            module.eval(),  # the exporter puts the mode back that it finds
            (example_images(properties),),
            file,  # type: ignore[arg-type]  # this exporter writes to open files as well
            input_names=["images"],
            output_names=list(outputs),
            dynamic_axes={name: {0: "batch"} for name in ("images", *outputs)},
            dynamo=False,
        )
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
