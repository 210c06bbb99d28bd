"""Forward passes without gradients, all images at once or in as many pieces as the memory needs."""

from collections.abc import Callable

import torch
from torch import Tensor

from classwise.errors import ConfigError


class OOMFallback:
    """`run` (images_BCHW to outputs by name), which is given half as many images each time that memory runs out,
    and from then on no more than that. Where it does not, this is `run`, to the bit."""

    def __init__(self, run: Callable[[Tensor], dict[str, Tensor]]) -> None:
        self.run = run
        self.most = 0
        """Images at once; 0: as many as come."""

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Outputs of all images, in order. Raises ConfigError where not even one of them fits."""
        # Halved out here: an error that is being handled holds what did not fit.
        while (found := self._found(images)) is None:
            size = min(len(images), self.most or len(images))
            if size <= 1:
                raise ConfigError(f"model.image_size: not even one image fits the memory of {images.device}")
            self.most = -(-size // 2)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        return found

    def _found(self, images: Tensor) -> dict[str, Tensor] | None:
        """None where memory has run out."""
        try:
            pieces = [self.run(piece) for piece in torch.split(images, self.most or max(1, len(images)))]
        except torch.OutOfMemoryError:
            return None
        if len(pieces) == 1:
            return pieces[0]
        return {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}
