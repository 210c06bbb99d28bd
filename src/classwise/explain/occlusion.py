"""Any backbone: what happens to the answer where a part of the image is hidden (Zeiler and Fergus 2014), by captum."""

import torch
from torch import Tensor

from classwise.explain.spatial import Score
from classwise.model.classifier import Classifier
from classwise.packages import require_packages

WINDOWS = 7
"""Windows that lie side by side along each axis; with those half a window further, there are nearly twice as many."""
AT_ONCE = 16


def occlusion_maps(model: Classifier, images_BCHW: Tensor, score: Score) -> Tensor:
    """maps_BHW of one image (B = 1): by how much the answer falls where a window is hidden by the image's mean color,
    on average over the windows that a pixel is in. Costs about 170 forward passes. Raises ModelError where captum is
    missing."""
    require_packages("heat maps by occlusion", "explain", "captum")
    from captum.attr import Occlusion

    images_BCHW = images_BCHW.float()
    channels, *size = images_BCHW.shape[1:]
    window = tuple(max(1, side // WINDOWS) for side in size)
    with torch.no_grad():
        maps_BCHW: Tensor = Occlusion(lambda images: score(model(images))).attribute(
            images_BCHW,
            sliding_window_shapes=(channels, *window),
            strides=(channels, *(max(1, side // 2) for side in window)),
            baselines=images_BCHW.mean(dim=(2, 3), keepdim=True).expand_as(images_BCHW),
            perturbations_per_eval=AT_ONCE,
        )
    return maps_BCHW[:, 0]
