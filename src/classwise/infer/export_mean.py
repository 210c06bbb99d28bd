"""Several models as one ONNX file: images in, the mean of what all models say of each target out."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from classwise.infer.ensemble import decoded_outputs, mean_outputs
from classwise.infer.export import metadata_of
from classwise.model.classifier import Classifier
from classwise.model.heads import Head

OUTPUTS = (
    "targets.NAME, in the order of heads: the mean of all models (batch, outputs), adjustments, mean and std of each"
    " model applied. class and ordinal: log of the probability of each label; multilabel: log-odds of each label;"
    " regression: the value; ranking: the score"
)
APPLIED = ("adjustment", "mean", "std")
"""What heads hold for decoding, which the file has done already."""


class Mean(nn.Module):
    """The mean outputs of all models as a tuple, in the order of the heads. A backbone that all share is in the graph
    once."""

    def __init__(self, models: Sequence[Classifier], heads: Sequence[Mapping[str, Head]], of: str) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)
        self.first = models[0]
        self.own_heads = list(heads)
        self.shares_backbone = all(model.backbone is models[0].backbone for model in models)
        self.of = of

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        # A model takes features in place of images.
        given = self.first.features(images) if self.shares_backbone else images
        decoded = [
            decoded_outputs(model(given), heads)
            for model, heads in zip(self.models, self.own_heads, strict=True)
        ]
        mean = mean_outputs(decoded, self.own_heads[0], self.of)
        return tuple(values.float() for values in mean.values())


def mean_metadata_of(model: Classifier, metadata: Mapping[str, Any], models: int, of: str) -> dict[str, Any]:
    """`metadata_of` for the mean of so many models, of which `model` is the first and `metadata` its checkpoint's."""
    found = metadata_of(model, metadata)
    heads = {
        name: {key: value for key, value in head.items() if key not in APPLIED}
        for name, head in found["heads"].items()
    }
    return found | {"outputs": OUTPUTS, "heads": heads, "models": models, "mean_of": of}
