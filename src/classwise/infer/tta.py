"""Test-time augmentation: the model sees several views of each image, and the mean of its probabilities is the
prediction; of numbers and of the scores of a ranking, the mean itself.

    none         the image
    flip         the image, its mirror image (left to right)
    flip+scale   the image, its mirror image, and the same two of its enlarged middle

A view is a function of the pixels that the model would see, and of one image alone, so that predictions depend neither
on the size of batches nor on the number of workers. Means are taken as those of several models are, in the order above
(ensemble.py).
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from classwise.data.fit import resize_image
from classwise.infer.engines import Engine
from classwise.infer.ensemble import decoded_outputs, mean_outputs
from classwise.model.heads import Head

View = Callable[[Tensor], Tensor]
"""images_BCHW (uint8, on the host) in and out, of the same size."""

MARGIN = 1 / 16
"""The share of the height and of the width that `enlarged` cuts off at each side, which leaves about 7/8 of both."""


def unchanged(images_BCHW: Tensor) -> Tensor:
    """The images as they are."""
    return images_BCHW


def mirrored(images_BCHW: Tensor) -> Tensor:
    """The mirror images, left to right."""
    return images_BCHW.flip(3)


def enlarged(images_BCHW: Tensor) -> Tensor:
    """The middle of the images at their full size. At least one pixel is cut off at each side."""
    height, width = images_BCHW.shape[2:]
    top, left = max(1, round(height * MARGIN)), max(1, round(width * MARGIN))
    middle_BHWC = images_BCHW[:, :, top : height - top, left : width - left].permute(0, 2, 3, 1).numpy()
    # One image after the other, by the same function that brings images to the model's size.
    resized = [resize_image(np.ascontiguousarray(image_HWC), (height, width)) for image_HWC in middle_BHWC]
    return torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).contiguous()


def enlarged_mirrored(images_BCHW: Tensor) -> Tensor:
    """The mirror images of `enlarged`."""
    return mirrored(enlarged(images_BCHW))


VIEWS: dict[str, tuple[View, ...]] = {
    "none": (unchanged,),
    "flip": (unchanged, mirrored),
    "flip+scale": (unchanged, mirrored, enlarged, enlarged_mirrored),
}


def tta_engine(engine: Engine, heads: Mapping[str, Head], tta: str) -> Engine:
    """An engine whose outputs are the means over the views of `tta`, as a `DecodedHead` takes them; of a single view,
    the given engine. `heads`: of its model."""
    views = VIEWS[tta]
    if len(views) == 1:
        return engine

    def run(images_BCHW: Tensor) -> dict[str, Tensor]:
        decoded = [decoded_outputs(engine(view(images_BCHW)), heads) for view in views]
        return mean_outputs(decoded, heads)

    return run
