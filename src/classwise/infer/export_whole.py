"""A file that answers as `predict` does: images of any size in, final answers out, and what it takes to use it.

Its graph has three parts: the pixels are brought to the network's size (export_fit.py), the network makes raw outputs
of them (export.py, export_mean.py), and these become labels and probabilities (export_answers.py).
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import torch
from torch import Tensor, nn

from classwise.data.images import min_image_size
from classwise.files import json_text
from classwise.infer.export import (
    TARGETS,
    example_images,
    exporting,
    module_bytes,
    program_bytes,
    set_metadata,
    without_fused_attention,
)
from classwise.infer.export_answers import Answers, described, output_names
from classwise.infer.export_fit import IMAGES, PIXELS, preparation
from classwise.infer.export_form import CLIENT_FILE, LABELS_FILE, MODEL_FILE
from classwise.infer.export_graph import merged
from classwise.model.classifier import ModelMetadata
from classwise.model.heads import Head
from classwise.own_parts.reference import short
from classwise.packages import require_packages
from classwise.version import __version__

WHOLE_INPUT = (
    "images: uint8 RGB, (batch, height, width, 3), of any one size, upright as EXIF says, transparent parts over white,"
    " samples of more than 8 bits scaled to it from value_range. A JPEG of which both sides stay at least min_size is"
    " decoded at 1/2, 1/4 or 1/8, as libjpeg does it: by the largest of these divisors for which that holds"
)
ARCHIVE_INPUT = (
    "images: uint8, (batch, channels, height, width), brought to image_size as fit says (classwise.data.fit.fit_image);"
    " mean and std are applied inside"
)
WHOLE_OUTPUTS = (
    "for each target, and for joint: answers.NAME (the number of the label; of several labels true or false for each;"
    " the value; the score), probabilities.NAME of each label (of joint: of the answer), abstains.NAME, whether the"
    " answer is less probable than decision.abstain"
)


@dataclass(frozen=True)
class Exportable:
    """What is exported. `network`: from images (B, C, H, W) uint8 to a tuple of outputs in the order of `heads`, which
    decode them; `properties`: of its classifiers; `targets`, `joint`: as the checkpoint has them; `metadata`: of the
    file with nothing but the network."""

    network: nn.Module
    properties: ModelMetadata
    heads: Mapping[str, Head]
    targets: list[dict[str, Any]]
    joint: tuple[str, ...]
    metadata: Mapping[str, Any]

    def network_bytes(self) -> bytes:
        """The network alone as an ONNX file, from images at its size to raw outputs. Raises ModelError."""
        return module_bytes(self.network, self.properties, self.metadata)

    def about(self, given: str, precision: str = "float32") -> dict[str, Any]:
        """What a file with final answers says of itself; labels.json. `given`: what its input is."""
        properties = self.properties
        about: dict[str, Any] = {
            "classwise": __version__,
            "input": given,
            "outputs": WHOLE_OUTPUTS,
            "output_names": output_names(self.heads, self.joint),
            "targets": described(self.targets, self.heads),
            "joint": list(self.joint),
            "joint_sizes": [self.heads[name].classes for name in self.joint],
            "backbone": short(properties.backbone),
            "precision": precision,
            "image_size": list(properties.image_size),
            "min_size": list(min_image_size(properties.image_size)),
            "fit": properties.fit,
            "channels": properties.channels,
            "value_range": None if properties.value_range is None else list(properties.value_range),
        }
        return about


def whole_bytes(exportable: Exportable, network: bytes, precision: str = "float32") -> bytes:
    """An ONNX file from images of any size to final answers, around a `network` as `Exportable.network_bytes` makes
    it. Raises ModelError."""
    require_packages("an ONNX file", "onnx", "onnx", "onnxscript")
    import onnx

    properties = exportable.properties
    middle = onnx.load_model_from_string(network)
    del middle.metadata_props[:]
    first = preparation(properties.channels, properties.image_size, properties.fit, middle)
    last = onnx.load_model_from_string(_answers_bytes(exportable))
    del last.opset_import[:]
    last.opset_import.extend(entry for entry in middle.opset_import if entry.domain == "")
    last.ir_version = middle.ir_version
    model = merged(first, middle, {PIXELS: IMAGES}, "network/")
    names = {f"{TARGETS}.{name}": f"{TARGETS}.{name}" for name in exportable.heads}
    model = merged(model, last, names, "answers/")
    model.graph.name = "classwise"
    model.producer_name, model.producer_version = "classwise", __version__
    set_metadata(model, dict(sorted(exportable.about(WHOLE_INPUT, precision).items())))
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def folder_files(exportable: Exportable, network: bytes, precision: str = "float32") -> dict[str, bytes]:
    """The files of a folder that is used with ONNX Runtime, NumPy and Pillow alone, by name. Raises ModelError."""
    client = files("classwise.infer").joinpath("export_client.py").read_bytes()
    return {
        MODEL_FILE: whole_bytes(exportable, network, precision),
        LABELS_FILE: json_text(exportable.about(WHOLE_INPUT, precision)).encode(),
        CLIENT_FILE: client,
    }


class _Archived(nn.Module):
    """From images at the network's size to final answers by the names of the outputs."""

    def __init__(self, exportable: Exportable) -> None:
        super().__init__()
        self.network = exportable.network
        self.answers = Answers(exportable.heads, exportable.joint)
        self.names = output_names(exportable.heads, exportable.joint)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.names, self.answers(*self.network(images)), strict=True))


def archive_bytes(exportable: Exportable) -> bytes:
    """The network with final answers as an archive of torch.export's (.pt2), for any size of batch; labels.json is in
    its extra files. Raises ModelError."""
    example = example_images(exportable.properties)
    shapes = ({0: torch.export.Dim("batch")},)

    def export(module: nn.Module) -> Any:
        return torch.export.export(module, (example,), dynamic_shapes=shapes)

    what = short(exportable.properties.backbone)
    with exporting(_Archived(exportable), f"{what} cannot be exported to an archive") as copied:
        copied.requires_grad_(False)  # for use, not for training
        program = without_fused_attention(export, copied)
        # Notes on where each node comes from: paths of this machine.
        for part in program.graph_module.modules():
            for node in getattr(part, "graph", torch.fx.Graph()).nodes:
                for key in ("stack_trace", "source_fn_stack", "nn_module_stack", "from_node"):
                    node.meta.pop(key, None)
        written = io.BytesIO()
        about = json_text(exportable.about(ARCHIVE_INPUT))
        torch.export.save(program, written, extra_files={LABELS_FILE: about})
    return written.getvalue()


def _answers_bytes(exportable: Exportable) -> bytes:
    """The last part alone, from raw outputs to final answers."""
    heads = exportable.heads
    examples = tuple(torch.zeros(2, head.outputs) for head in heads.values())
    batch = torch.export.Dim("batch")
    return program_bytes(
        Answers(heads, exportable.joint),
        examples,
        dynamic_shapes=(tuple({0: batch} for _ in examples),),
        input_names=[f"{TARGETS}.{name}" for name in heads],
        output_names=output_names(heads, exportable.joint),
        what="the answers of the targets",
    )
