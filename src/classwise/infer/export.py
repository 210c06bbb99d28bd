"""The model as an ONNX file: images in, raw outputs by target out, everything else in its metadata."""

import contextlib
import copy
import importlib
import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from classwise.errors import ModelError
from classwise.model.classifier import Classifier
from classwise.version import __version__

INPUT = (
    "images: uint8 RGB, (batch, 3, height, width), upright as EXIF says, transparent parts over white, brought to"
    " image_size as fit says; mean and std are applied inside"
)
OUTPUTS = (
    "targets.NAME, in the order of heads: raw numbers (batch, outputs). class: log-odds of the labels, to which"
    " adjustment is added where there is one; ordinal: log-odds of P(y > k | y > k - 1); multilabel: log-odds of each"
    " label; regression: times std plus mean; ranking: the score"
)
PRECISION = "float32, whatever precision the run was trained in"
LONGEST_LINE = 300  # characters of a quoted error message


def require_packages(what: str, *packages: str) -> None:
    """Raises ModelError where one of the `packages` that `what` needs cannot be imported."""
    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ModelError(
                f"{what}: the package {package} cannot be imported ({first_line(error)});"
                ' pip install "classwise[onnx]"'
            ) from None


class _InOrder(nn.Module):
    """A model with its outputs as a tuple, in the order of the heads."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.model(images).values())


def onnx_bytes(model: Classifier, metadata: Mapping[str, Any] | None = None) -> bytes:
    """The model in float32 as an ONNX file, for any size of batch.

    Its input is `images` (see INPUT); its outputs, raw and in float32, are called `targets.NAME`, in the order of the
    heads. Values of `metadata` that are not strings are written as JSON. Raises ModelError.
    """
    require_packages("an ONNX file", "onnx", "onnxscript")
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass  # comes with onnxscript

    # A copy, so that the caller's model keeps its device and mode.
    copied = copy.deepcopy(model).cpu().float().eval()
    # Two images: with one, the exporter would treat the batch size as a constant.
    example = torch.zeros(2, 3, *model.metadata.image_size, dtype=torch.uint8)
    try:
        with silence(), torch.no_grad():
            program = torch.onnx.export(
                _InOrder(copied),
                (example,),
                input_names=["images"],
                # The prefix keeps these names unique: inside, only weights have a dot, and they begin with `model.`.
                output_names=[f"targets.{name}" for name in model.metadata.heads],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                dynamo=True,
                verbose=False,
            )
            assert program is not None
            # Removes stack traces, which show this machine's paths and differ between exports.
            ClearMetadataAndDocStringPass()(program.model)
            for key, value in (metadata or {}).items():
                text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
                program.model.metadata_props[key] = text
            data: bytes = program.model_proto.SerializeToString()
    except Exception as error:
        raise ModelError(
            f"{model.metadata.backbone} cannot be exported to ONNX: {first_line(error)}"
        ) from error
    return data


def metadata_of(model: Classifier, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Everything needed to prepare an exported model's input and to interpret its outputs; `metadata` is the
    checkpoint's."""
    properties = model.metadata.as_dict()
    return {
        "classwise": __version__,
        "input": INPUT,
        "outputs": OUTPUTS,
        "precision": PRECISION,
        **{key: properties[key] for key in ("backbone", "image_size", "fit", "mean", "std")},
        "targets": metadata["targets"],
        "heads": {name: metadata["heads"][name] for name in properties["heads"]},
        "joint": metadata["joint"],
    }


def first_line(error: BaseException) -> str:
    """The first line of an error's message, cut to LONGEST_LINE; its type where it has no message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:LONGEST_LINE]


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Hides what the exporter prints, logs and warns about, which concerns its own internals."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
