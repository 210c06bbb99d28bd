"""Convolutional networks: how much each place of a feature map speaks for the answer.

The maps are those that the heads' features are pooled from: the last one of the network and, with the pooling
`layers`, those further down as well. At each place, what the channels are above their mean is multiplied by their
gradient there, and summed up: HiResCAM (Draelos and Carin 2020, equation 5) from the mean instead of from 0, which says
nothing in maps that are no outputs of ReLU. Grad-CAM (Selvaraju et al. 2017) takes the gradient's mean over the places,
by which what is pooled as a standard deviation, or cell by cell, is lost; and the last map alone, on which a model with
pooled layers may not rely at all. Measured beside others: docs/decisions/0057-heat-maps.md.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classwise.model.classifier import Classifier
from classwise.model.layer_pooling import pooled_features

Score = Callable[[dict[str, Tensor]], Tensor]
"""From the raw outputs of a model by target to what is explained, (B,)."""


@dataclass(frozen=True)
class FeatureMap:
    """A map of the network, and the gradient of what is explained by it, both (B, C, H, W)."""

    values: Tensor
    gradient: Tensor


def feature_maps(model: Classifier, images_BCHW: Tensor, score: Score) -> list[FeatureMap]:
    """The maps that the features of images_BCHW are pooled from, with their gradients. Empty for a backbone that has
    none. `model`: in eval mode, with parameters that need no gradient."""
    images_BCHW = model.normalized(images_BCHW)
    if model.levels:
        return _pooled_maps(model, images_BCHW, score)
    module = last_map_of(model.backbone, images_BCHW[:1])
    return [] if module is None else [_map_of_module(model, module, images_BCHW, score)]


def has_feature_maps(model: Classifier) -> bool:
    """Whether the backbone has such maps, tried with one image. `model`: in eval mode."""
    if model.levels:
        return True
    return last_map_of(model.backbone, model.normalized(blank_image(model))) is not None


def blank_image(model: Classifier) -> Tensor:
    """One image (1, C, H, W) of the size that the model takes."""
    metadata = model.metadata
    return torch.zeros(1, metadata.channels, *metadata.image_size, device=model.mean.device)


def spatial_maps(found: Sequence[FeatureMap], size: tuple[int, int]) -> Tensor:
    """maps_BHW of (height, width) `size`: what is positive in each of the maps, summed up. It is given per place of the
    image, so that maps of all sizes count by their part of the answer."""
    total_BHW = torch.zeros(len(found[0].values), *size, device=found[0].values.device)
    for each in found:
        places = each.values.shape[2] * each.values.shape[3]
        above_BCHW = each.values - each.values.mean(dim=(2, 3), keepdim=True)
        part_B1HW = places * (above_BCHW * each.gradient).sum(dim=1, keepdim=True)
        part_BHW = F.interpolate(part_B1HW, size=size, mode="bilinear", align_corners=False)[:, 0]
        total_BHW += part_BHW.clamp_min(0)
    return total_BHW


def _pooled_maps(model: Classifier, images_BCHW: Tensor, score: Score) -> list[FeatureMap]:
    """The maps of several depths. Each is a leaf: its gradient is of what is pooled from it, not of the deeper maps
    that are made of it, which would count their part twice."""
    backbone: Any = model.backbone
    with torch.no_grad():
        last, maps = backbone.forward_intermediates(images_BCHW, indices=list(model.levels))
    leaves = [map_.detach().requires_grad_() for map_ in (last, *maps)]
    features_BF = pooled_features(backbone, leaves[0], leaves[1:])
    gradients = torch.autograd.grad(score(model.outputs_of(features_BF)).sum(), leaves)
    found = [
        FeatureMap(map_BCHW.detach(), gradient)
        for map_BCHW, gradient in zip(leaves[1:], gradients[1:], strict=True)
    ]
    if leaves[0].ndim == 4:  # the last one of a transformer is a list of tokens
        layout = _channels_first(backbone)
        found.insert(0, FeatureMap(layout(leaves[0].detach()), layout(gradients[0])))
    return found


def _map_of_module(model: Classifier, module: nn.Module, images_BCHW: Tensor, score: Score) -> FeatureMap:
    """The output of a module of the backbone."""
    leaves: list[Tensor] = []

    def cut(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        leaves.append(output.detach().requires_grad_())
        return leaves[-1].clone()  # which what follows may change in place

    handle = module.register_forward_hook(cut)
    try:
        outputs = model.outputs_of(model.backbone(images_BCHW))
    finally:
        handle.remove()
    (gradient,) = torch.autograd.grad(score(outputs).sum(), leaves[-1])
    layout = _channels_first(model.backbone)
    return FeatureMap(layout(leaves[-1].detach()), layout(gradient))


def last_map_of(backbone: nn.Module, image_BCHW: Tensor) -> nn.Module | None:
    """The module whose output is the last map with more than one place before the pooling; None if there is none."""
    found: list[nn.Module] = []

    def note(module: nn.Module, _args: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and not isinstance(module, POOLINGS):
            height, width = _channels_first(backbone)(output).shape[2:]
            if height * width > 1:
                found.append(module)

    handles = [module.register_forward_hook(note) for module in backbone.modules() if module is not backbone]
    try:
        with torch.no_grad():
            backbone(image_BCHW)
    finally:
        for handle in handles:
            handle.remove()
    return found[-1] if found else None


POOLINGS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)


def _channels_first(backbone: Any) -> Callable[[Tensor], Tensor]:
    """What brings a map of the backbone to (B, C, H, W): some of timm's have the channels last, and say so."""
    if getattr(backbone, "output_fmt", None) == "NHWC":
        return lambda map_BHWC: map_BHWC.permute(0, 3, 1, 2)
    return lambda map_BCHW: map_BCHW
