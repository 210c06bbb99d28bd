"""Features from several depths of a backbone: what a layer saw on average, and how much that varies over the image.

The last layer of an ImageNet network says what object an image shows. Cracks, textures and stains are seen further
down: Evci et al. 2022 ('Head2Toe') find that a linear model on layers of all depths is as good as fine-tuning on many
small data sets. The standard deviation over the image, beside the mean, tells a small defect from a faint pattern
everywhere.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from classwise.errors import ModelError

LEVELS = 3
"""Of a network that halves the image step by step, the last so many sizes are pooled, as far as there are."""
EPSILON = 1e-6  # keeps the gradient of a square root finite where a map is constant


def pooled_levels(backbone: nn.Module, name: str) -> tuple[int, ...]:
    """The levels whose maps are pooled, as `forward_intermediates` counts them.

    Raises ModelError for a backbone that does not give its intermediate maps.
    """
    # timm lists the maps of a network that has them, each with the factor by which it is smaller than the image.
    reductions = _reductions(backbone)
    if not reductions or not hasattr(backbone, "forward_intermediates"):
        raise ModelError(
            f'model.pooling: found "layers", but {name} does not give the maps of its layers; allowed: "last"'
        )
    depth = len(reductions)
    if len(set(reductions)) > 1:
        return tuple(range(max(0, depth - LEVELS), depth))
    # The layers of a plain transformer all have the same size: halfway, at three quarters, and the last.
    return tuple(sorted({depth // 2, 3 * depth // 4, depth - 1}))


def layer_features(backbone: Any, images_BCHW: Tensor, levels: tuple[int, ...]) -> Tensor:
    """features_BF of `pooled_features`, with the maps at `levels`."""
    last, maps = backbone.forward_intermediates(images_BCHW, indices=list(levels))
    return pooled_features(backbone, last, maps)


def pooled_features(backbone: Any, last: Tensor, maps: Sequence[Tensor]) -> Tensor:
    """features_BF: the backbone's own features, made of its `last` map, then mean and standard deviation of each
    channel of the `maps` (B, C, H, W). In float32, also under autocast: the variance is a small difference of large
    numbers."""
    features = [backbone.forward_head(last, pre_logits=True).float()]
    with torch.autocast(last.device.type, enabled=False):
        for map_BCHW in maps:
            flat_BCP = map_BCHW.float().flatten(2)
            features += [flat_BCP.mean(2), (flat_BCP.var(2, correction=0) + EPSILON).sqrt()]
    return torch.cat(features, dim=1)


def _reductions(backbone: Any) -> list[int]:
    """By which factor each level is smaller than the image; empty if the backbone does not say."""
    info = getattr(backbone, "feature_info", None) or []
    entries = getattr(info, "info", info)
    return [int(entry["reduction"]) for entry in entries]
