"""One heat map, and what it is of."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Hidden:
    """The probability of the explained label (or the value of a number) for the image as it is, `before`; with the
    fifth hidden that the map marks; and with a random fifth hidden, on average."""

    before: float
    marked: float
    random: float


@dataclass(frozen=True)
class Explanation:
    """Why a model says of the image `id` what it says of a `target` (or of `joint`, all of its targets together).

    `label`: what is explained, empty for a number; `value`: its probability, or the number. `predicted`: what the model
    says, with `top`: the most probable labels with their probabilities. `heat_map`: (H, W) float32 in [0, 1], 1 where
    the most speaks for the label; all 0 where nothing does. `image`: (H, W, C) uint8, as the model sees it.
    """

    id: str
    target: str
    label: str
    value: float
    predicted: str
    top: tuple[tuple[str, float], ...]
    method: str
    heat_map: npt.NDArray[np.float32]
    image: npt.NDArray[np.uint8]
    hidden: Hidden

    @property
    def is_number(self) -> bool:
        """Whether a value is explained rather than a label."""
        return not self.label
