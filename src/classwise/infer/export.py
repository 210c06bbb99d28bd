"""The model as an ONNX file: images in, raw outputs by target out, everything else in its metadata."""

import contextlib
import copy
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from classwise.errors import ModelError, first_line
from classwise.model.classifier import Classifier, ModelMetadata
from classwise.own_parts.reference import short
from classwise.packages import require_packages
from classwise.version import __version__

INPUT = (
    "images: uint8 RGB, or as many channels as `channels` says, (batch, channels, height, width), upright as EXIF says,"
    " transparent parts over white, samples of more than 8 bits scaled to it from value_range, brought to image_size as"
    " fit says; mean and std are applied inside"
)
OUTPUTS = (
    "targets.NAME, in the order of heads: raw numbers (batch, outputs). class: log-odds of the labels, to which"
    " adjustment is added where there is one; ordinal: log-odds of P(y > k | y > k - 1); multilabel: log-odds of each"
    " label; regression: times std plus mean; ranking: the score"
)
PRECISION = "float32, whatever precision the run was trained in"
TARGETS = "targets"
"""Begins the names of raw outputs."""
_PREPARATION = ("backbone", "image_size", "fit", "channels", "value_range", "mean", "std")


class InOrder(nn.Module):
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
    return module_bytes(InOrder(model), model.metadata, metadata)


def module_bytes(
    module: nn.Module, properties: ModelMetadata, metadata: Mapping[str, Any] | None = None
) -> bytes:
    """A module that makes a tuple of outputs, in the order of the heads, out of images, as an ONNX file; see
    `onnx_bytes`. `properties`: of the classifiers in it."""
    # The prefix keeps these names unique: inside, only weights have a dot, and they begin with `model.`.
    names = [f"{TARGETS}.{name}" for name in properties.heads]
    example = example_images(properties)
    shapes = ({0: torch.export.Dim("batch")},)
    return program_bytes(
        module, (example,), shapes, ["images"], names, what=short(properties.backbone), metadata=metadata
    )


def example_images(properties: ModelMetadata) -> Tensor:
    """Images for an exporter: two, since with one it would treat the batch size as a constant."""
    return torch.zeros(2, properties.channels, *properties.image_size, dtype=torch.uint8)


def program_bytes(
    module: nn.Module,
    examples: tuple[Tensor, ...],
    dynamic_shapes: tuple[Any, ...],
    input_names: Sequence[str],
    output_names: Sequence[str],
    what: str,
    metadata: Mapping[str, Any] | None = None,
) -> bytes:
    """A module in float32 and in eval mode as an ONNX file; the caller's stays as it is. `what`: its name in the
    message. Raises ModelError."""
    require_packages("an ONNX file", "onnx", "onnx", "onnxscript")
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass  # comes with onnxscript

    def export(copied: nn.Module) -> Any:
        return torch.onnx.export(
            copied,
            examples,
            input_names=list(input_names),
            output_names=list(output_names),
            dynamic_shapes=dynamic_shapes,
            dynamo=True,
            verbose=False,
            custom_translation_table={torch.ops.aten.log_sigmoid.default: _log_sigmoid},
        )

    with exporting(module, f"{what} cannot be exported to ONNX") as copied:
        program = without_fused_attention(export, copied)
        # Removes stack traces, which show this machine's paths and differ between exports.
        ClearMetadataAndDocStringPass()(program.model)
        for key, value in (metadata or {}).items():
            program.model.metadata_props[key] = _metadata_text(value)
        data: bytes = program.model_proto.SerializeToString()
    return data


def with_metadata(network: bytes, metadata: Mapping[str, Any]) -> bytes:
    """An ONNX file with these metadata in place of its own; values that are not strings are written as JSON."""
    import onnx

    model = onnx.load_model_from_string(network)
    set_metadata(model, metadata)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def set_metadata(model: Any, metadata: Mapping[str, Any]) -> None:
    """`with_metadata` of a loaded ONNX model, in place."""
    del model.metadata_props[:]
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=_metadata_text(value))


def _metadata_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@contextlib.contextmanager
def exporting(module: nn.Module, failure: str) -> Iterator[nn.Module]:
    """A copy of the module on the CPU, in float32 and in eval mode; what an exporter prints in the block is hidden, and
    what it raises becomes a ModelError that begins with `failure`."""
    # A copy, so that the caller's model keeps its device and mode.
    copied = copy.deepcopy(module).cpu().float().eval()
    try:
        with silence(), torch.no_grad():
            yield copied
    except Exception as error:
        raise ModelError(f"{failure}: {first_line(_cause(error))}") from error


def without_fused_attention(export: Callable[[nn.Module], Any], module: nn.Module) -> Any:
    """What `export` makes of a module; if its fused attention cannot be exported, with the attention step by step,
    which gives the same outputs but for rounding."""
    fused: list[Any] = [part for part in module.modules() if getattr(part, "fused_attn", False) is True]
    try:
        return export(module)
    except Exception:
        if not fused:
            raise
        for part in fused:
            part.fused_attn = False
        return export(module)


def _log_sigmoid(x: Any) -> Any:
    """log(sigmoid(x)) in ONNX's operators. The exporter's own, Log(Sigmoid(x)), is infinite from -18 on in ONNX
    Runtime, which has no Softplus in float64."""
    from onnxscript import opset18

    op: Any = opset18  # its types do not know values of a type that is found out later
    zero, one = (op.CastLike(op.Constant(value_float=value), x) for value in (0.0, 1.0))
    return op.Sub(op.Min(x, zero), op.Log(op.Add(one, op.Exp(op.Neg(op.Abs(x))))))


def _cause(error: BaseException) -> BaseException:
    """What an error of the exporter was raised from, which says what is wrong; its own message is a page of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def metadata_of(model: Classifier, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Everything needed to prepare an exported model's input and to interpret its outputs; `metadata` is the
    checkpoint's."""
    properties = model.metadata.as_dict()
    return {
        "classwise": __version__,
        "input": INPUT,
        "outputs": OUTPUTS,
        "precision": PRECISION,
        **{key: properties[key] for key in _PREPARATION},
        "targets": metadata["targets"],
        "heads": {name: metadata["heads"][name] for name in properties["heads"]},
        "joint": metadata["joint"],
    }


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
