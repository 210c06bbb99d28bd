"""From an image of any kind to what a trained model takes, for data loaders of the user's own."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from classwise.data.fit import fit_image
from classwise.data.images import MAX_PIXELS, min_image_size
from classwise.data.memory_images import ImageSource, image_of
from classwise.data.pixel_format import RGB, PixelFormat


@dataclass(frozen=True)
class ImageTransform:
    """An image, as a path, the bytes of a file, an array or an image of Pillow's, to (C, H, W) uint8 at the model's
    `size` (height, width): read and resized as `predict` does it, not augmented.

    A value without state, which the workers of a DataLoader can be given.
    """

    size: tuple[int, int]
    fit: str
    pixels: PixelFormat = RGB
    max_pixels: int = MAX_PIXELS

    def __call__(self, image: ImageSource) -> Tensor:
        """Raises ImageError for what is no image, or has more than `max_pixels` pixels."""
        name = str(image) if isinstance(image, str | Path) else "the image"
        image_HWC = image_of(image, name, self.max_pixels, min_image_size(self.size), self.pixels)
        fitted_HWC = fit_image(image_HWC, self.size, self.fit)
        return torch.from_numpy(fitted_HWC).permute(2, 0, 1).contiguous()
