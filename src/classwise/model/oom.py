"""Forward passes without gradients that fall back to smaller chunks when memory runs out."""

from collections.abc import Callable

import torch
from torch import Tensor

from classwise.errors import ConfigError


class OOMFallback:
    """`run` (images_BCHW to outputs by name) in chunks that are halved whenever memory runs out.

    The smaller size applies to later calls too. As long as memory suffices, the result is that of `run`, bit for bit.
    """

    def __init__(self, run: Callable[[Tensor], dict[str, Tensor]]) -> None:
        self.run = run
        self.max_images = 0
        """The largest number of images at once; 0 for no limit."""

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """The outputs of all images, in order. Raises ConfigError if not even one image fits in memory."""
        # Halved outside the handler of the error: while it is handled, it holds the tensors that did not fit.
        while (outputs := self._outputs_or_none(images)) is None:
            size = min(len(images), self.max_images or len(images))
            if size <= 1:
                raise ConfigError(
                    f"model.image_size: not even one image fits in the memory of {images.device}"
                )
            self.max_images = -(-size // 2)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        return outputs

    def _outputs_or_none(self, images: Tensor) -> dict[str, Tensor] | None:
        """The outputs, or None if memory ran out."""
        try:
            if not 0 < self.max_images < len(images):
                return self.run(images)
            chunks = [self.run(chunk) for chunk in images.split(self.max_images)]
        except torch.OutOfMemoryError:
            return None
        return {name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}
