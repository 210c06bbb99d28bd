"""A trained model, or the mean of several, whose answers are explained: a copy in float32, in eval mode."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from classwise.errors import ConfigError
from classwise.explain.attention import attention_maps, is_plain_transformer
from classwise.explain.evidence import evidence, probability
from classwise.explain.occlusion import occlusion_maps
from classwise.explain.spatial import Score, feature_maps, has_feature_maps, spatial_maps
from classwise.infer.ensemble import decoded_outputs, mean_outputs
from classwise.model.classifier import Classifier
from classwise.model.heads import Head
from classwise.own_parts.reference import short

METHODS = ("auto", "gradcam", "attention", "occlusion")
AT_ONCE = 8
"""Images whose maps are computed together."""


@dataclass(frozen=True)
class ExplainedModel:
    """`models` with the `heads` of each, as they take its outputs; `answers`: the heads of the mean, as they take
    decoded outputs (infer/ensemble.py); `ensemble`: what is averaged, probabilities or logits."""

    models: tuple[Classifier, ...]
    heads: tuple[Mapping[str, Head], ...]
    answers: Mapping[str, Head]
    ensemble: str = "probabilities"

    @staticmethod
    def of(
        models: Sequence[Classifier],
        heads: Sequence[Mapping[str, Head]],
        answers: Mapping[str, Head],
        ensemble: str = "probabilities",
    ) -> "ExplainedModel":
        """With copies of the models, which stay as they are."""
        copies = [copy.deepcopy(model).float().eval().requires_grad_(False) for model in models]
        return ExplainedModel(tuple(copies), tuple(heads), answers, ensemble)

    def outputs(self, images_BCHW: Tensor) -> dict[str, Tensor]:
        """Decoded outputs (B, outputs) by target, as `answers` take them."""
        with torch.no_grad():
            decoded = [
                decoded_outputs(model(images_BCHW.to(model.mean.device)), heads)
                for model, heads in zip(self.models, self.heads, strict=True)
            ]
        found = mean_outputs(decoded, self.answers, self.ensemble)
        return {name: outputs.cpu() for name, outputs in found.items()}

    def probability(self, images_BCHW: Tensor, classes: Mapping[str, Tensor]) -> Tensor:
        """The probability (B,) of the classes of all targets named, or the value of a number."""
        return probability(self.outputs(images_BCHW), self.answers, classes)

    def method(self, wanted: str = "auto") -> str:
        """The method that is used. Raises ConfigError for one that the backbone has not the layers for."""
        if wanted not in METHODS:
            raise ConfigError(f"--method: found {wanted!r}, allowed: {', '.join(METHODS)}")
        model = self.models[0]
        possible = ["occlusion"]
        if is_plain_transformer(model):
            possible.insert(0, "attention")
        elif has_feature_maps(model):
            possible.insert(0, "gradcam")
        if wanted not in ("auto", *possible):
            raise ConfigError(
                f"--method: found {wanted!r}, for which {short(model.metadata.backbone)} has not the layers; allowed:"
                f" auto, {', '.join(possible)}"
            )
        return possible[0] if wanted == "auto" else wanted

    def maps(self, images_BCHW: Tensor, classes: Mapping[str, Tensor], method: str = "auto") -> Tensor:
        """maps_BHW in [0, 1]: where in images_BCHW (uint8) the models find what speaks for `classes` (as in
        `evidence`), 1 at each image's strongest place; 0 everywhere if nothing speaks for them. Of several models, the
        mean of their maps. `method`: one that `self.method` has allowed, or auto. Raises ModelError."""
        if method == "auto":
            method = self.method()
        parts = []
        step = 1 if method == "occlusion" else AT_ONCE  # which makes a batch out of each image
        for start in range(0, len(images_BCHW), step):
            rows = slice(start, start + step)
            own = {name: class_B.expand(len(images_BCHW))[rows] for name, class_B in classes.items()}
            maps = [
                _scaled(
                    _MAPS[method](
                        model,
                        images_BCHW[rows].to(model.mean.device),
                        partial(evidence, heads=heads, classes=own),
                    )
                )
                for model, heads in zip(self.models, self.heads, strict=True)
            ]
            parts.append(_scaled(torch.stack(maps).mean(dim=0)))
        return torch.cat(parts)


def _gradcam(model: Classifier, images_BCHW: Tensor, score: Score) -> Tensor:
    size = images_BCHW.shape[2:]
    return spatial_maps(feature_maps(model, images_BCHW, score), (size[0], size[1]))


def _attention(model: Classifier, images_BCHW: Tensor, score: Score) -> Tensor:
    maps_BHW = attention_maps(model, images_BCHW, score)
    return F.interpolate(maps_BHW[:, None], size=images_BCHW.shape[2:], mode="bilinear", align_corners=False)[
        :, 0
    ]


_MAPS = {"gradcam": _gradcam, "attention": _attention, "occlusion": occlusion_maps}


def _scaled(maps_BHW: Tensor) -> Tensor:
    """What speaks for the answer, with 1 at its largest."""
    maps_BHW = maps_BHW.float().clamp_min(0).cpu()
    return maps_BHW / maps_BHW.amax(dim=(1, 2), keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
