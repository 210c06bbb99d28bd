"""Which image sizes a backbone of timm's takes. It is tried by a forward pass, since no attribute of its models tells:
`fixed_input_size` stands at models that take any size and at such that take one alone."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from classwise.model.layer_pooling import layer_features
from classwise.model.timm_module import import_timm

STEPS = (16, 32, 14, 28)
"""Heights and widths have to be multiples of a model's patches and strides, which are such numbers."""


def features_shape(
    module: nn.Module, image_size: tuple[int, int], levels: tuple[int, ...] = (), channels: int = 3
) -> list[int]:
    """The shape of the features of one image of (height, width); raises whatever the module raises. timm's num_features
    is not always the size of the output."""
    was_training = module.training
    module.eval()
    with torch.no_grad():
        image = torch.zeros(1, channels, *image_size)
        features: Tensor = layer_features(module, image, levels) if levels else module(image)
    module.train(was_training)
    return list(features.shape)


def options_for_size(name: str, image_size: tuple[int, int], is_fixed: bool) -> dict[str, Any]:
    """What timm.create_model needs so that its model `name` takes images of (height, width).

    `is_fixed`: fixed_input_size of its pretrained config. Most of those have to be built for the size; some take any
    size as they are, and fail once they are built for one. Raises what the model raised that was built for the size.
    """
    if not is_fixed:
        return {}
    built_for_size: dict[str, Any] = {"img_size": image_size}
    error = failure(name, image_size, built_for_size)
    if error is None:
        return built_for_size
    if failure(name, image_size, {}) is None:
        return {}
    raise error


def failure(name: str, image_size: tuple[int, int], options: dict[str, Any]) -> Exception | None:
    """What goes wrong in a model with random weights; None if it takes such images. The random state is kept."""
    with torch.random.fork_rng(devices=[]):
        try:
            features_shape(import_timm().create_model(name, num_classes=0, **options), image_size)
        except Exception as error:  # timm's models raise anything
            return error
    return None


def sizes_that_do(
    name: str, image_size: tuple[int, int], is_fixed: bool, own: tuple[int, int]
) -> list[list[int]]:
    """For an error message: a size near this one that the model takes, where there is one, and its `own`."""
    for size in _near(image_size):
        try:
            options = options_for_size(name, size, is_fixed)
        except Exception:  # not this one
            continue
        if is_fixed or failure(name, size, options) is None:
            return [list(size)] if size == own else [list(size), list(own)]
    return [list(own)]


def _near(image_size: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Sizes in multiples of usual steps: first with about the same shape, then square."""
    seen = {image_size}
    side = min(image_size)
    for height, width in (image_size, (side, side)):
        for step in STEPS:
            size = (max(step, round(height / step) * step), max(step, round(width / step) * step))
            if size not in seen:
                seen.add(size)
                yield size
