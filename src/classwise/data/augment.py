"""Training-time augmentation of one image, as a function of the image and of one generator.

The steps, each with a plain number whose off value is obvious: a random part of the image (Szegedy et al.,
'Going deeper with convolutions', 2015, section 6), turned and shifted, mirrored, in other light, with a
rectangle erased (Zhong et al., 'Random erasing data augmentation', AAAI 2020). Validation calls `fit_image`
and nothing else; with all parts off, training sees the very same pixels. Light and mirror need nothing but the
image's pixels at the network's size, so that a GPU can do them too: with the same bytes (device_augment.py).
"""

import math
from dataclasses import dataclass, fields
from typing import NamedTuple

import cv2
import numpy as np

from classwise.data.fit import PAD, fit_image, fit_view, resize_image
from classwise.errors import ConfigError

# What each part may be: (least, most).
_RANGES = {
    "flip": (0.0, 1.0),
    "crop": (0.01, 1.0),
    "ratio": (1.0, 4.0),
    "rotate": (0.0, 180.0),
    "translate": (0.0, 0.5),
    "brightness": (0.0, 1.0),
    "contrast": (0.0, 1.0),
    "saturation": (0.0, 1.0),
    "erase": (0.0, 1.0),
}
# Zhong et al., section 4.2: the erased share of the area, and its narrowest aspect ratio.
_ERASE_AREA = (0.02, 0.4)
_ERASE_RATIO = 0.3


@dataclass(frozen=True)
class Augment:
    """How strongly a training image is changed. The values given here change nothing."""

    flip: float = 0.0
    """Probability of a mirror image. 0 where left and right tell classes apart (text, digits, hands)."""
    crop: float = 1.0
    """Least share of the area that is kept; the share is uniform between it and 1, the place is uniform."""
    ratio: float = 1.0
    """Largest change of the aspect ratio: 1.25 stretches by up to 1.25 either way, at the cost of some area."""
    rotate: float = 0.0
    """Largest angle in degrees, either way."""
    translate: float = 0.0
    """Largest shift, as a share of the height and of the width."""
    brightness: float = 0.0
    """0.2 multiplies by 0.8 to 1.2."""
    contrast: float = 0.0
    """0.2 multiplies the distance from the mean grey by 0.8 to 1.2."""
    saturation: float = 0.0
    """0.2 multiplies the distance from the pixel's own grey by 0.8 to 1.2; 1 reaches a grey image."""
    erase: float = 0.0
    """Probability that a rectangle of 2 % to 40 % of the area is filled with noise."""

    def __post_init__(self) -> None:
        for part in fields(self):
            found, (min_size, most) = getattr(self, part.name), _RANGES[part.name]
            if not min_size <= found <= most:  # NaN as well
                raise ConfigError(f"augment {part.name}: found {found}; allowed: {min_size:g} to {most:g}")


PRESETS: dict[str, Augment] = {
    "none": Augment(),
    "light": Augment(flip=0.5, crop=0.8, ratio=1.1, brightness=0.1, contrast=0.1),
    "standard": Augment(
        flip=0.5, crop=0.5, ratio=1.25, rotate=10, brightness=0.2, contrast=0.2, saturation=0.2
    ),
    "strong": Augment(
        flip=0.5,
        crop=0.25,
        ratio=4 / 3,
        rotate=15,
        translate=0.05,
        brightness=0.4,
        contrast=0.4,
        saturation=0.4,
        erase=0.25,
    ),
}


class _Draws(NamedTuple):
    """One uniform number in [0, 1) per decision."""

    share: float
    stretch: float
    top: float
    left: float
    down: float
    right: float
    angle: float
    flip: float
    brightness: float
    contrast: float
    saturation: float
    erase: float
    erase_share: float
    erase_stretch: float
    erase_top: float
    erase_left: float
    erase_noise: float


class DeviceAugment(NamedTuple):
    """What is still to be done to an image that has been cut out and brought to size; `finish_image` does it, and on
    a GPU `augment_on_device` in device_augment.py. As float64 all of it is exact."""

    flip: float
    """1: mirrored."""
    brightness: float
    contrast: float
    saturation: float
    top: float
    left: float
    rows: float
    """Of the erased rectangle; 0: nothing is erased."""
    columns: float
    noise: float
    """The seed of what fills it, a whole number below 2**32."""


def augment_image(
    image_HWC: np.ndarray, size: tuple[int, int], fit: str, augment: Augment, rng: np.random.Generator
) -> np.ndarray:
    """A (height, width, 3) uint8 RGB image of `size`, changed by chance; `fit` as in `fit_view`.

    Every random number comes from `rng`. The same ones are drawn whatever is switched on, so that changing
    one part leaves the others' outcomes alone.
    With every part off the result is that of `fit_image`: possibly the image itself, not a copy.
    """
    return finish_image(*place_image(image_HWC, size, fit, augment, rng))


def place_image(
    image_HWC: np.ndarray, size: tuple[int, int], fit: str, augment: Augment, rng: np.random.Generator
) -> tuple[np.ndarray, DeviceAugment]:
    """The first half of `augment_image`, which needs the image in its own size, and what the second half has to
    do."""
    draws = _Draws(*rng.random(len(_Draws._fields)).tolist())
    top, left, rows, columns = _erased(size, draws) if draws.erase < augment.erase else (0, 0, 0, 0)
    finish = DeviceAugment(
        float(draws.flip < augment.flip),
        1 + augment.brightness * _either_way(draws.brightness),
        1 + augment.contrast * _either_way(draws.contrast),
        # In whole 4096ths: the sums below are then exact in float32, in whatever order they are made.
        round(4096 * (1 + augment.saturation * _either_way(draws.saturation))) / 4096,
        top,
        left,
        rows,
        columns,
        int(draws.erase_noise * 2**32),
    )
    return _place(image_HWC, size, fit, augment, draws), finish


def finish_image(image_HWC: np.ndarray, finish: DeviceAugment) -> np.ndarray:
    """Mirrored, then in other light, then with a rectangle of noise (Zhong et al., RE-R, the best of their four
    fillings)."""
    if finish.flip:
        image_HWC = cv2.flip(image_HWC, 1)
    image_HWC = _relight(image_HWC, finish)
    if finish.rows:
        top, left, rows, columns = (int(x) for x in finish[4:8])
        y, x, c = np.ogrid[top : top + rows, left : left + columns, :3]
        number_HWC = ((y * image_HWC.shape[1] + x) * 3 + c).astype(np.uint32)
        image_HWC = image_HWC.copy()
        image_HWC[top : top + rows, left : left + columns] = _noise(number_HWC, int(finish.noise))
    return image_HWC


def _place(
    image_HWC: np.ndarray, size: tuple[int, int], fit: str, augment: Augment, draws: _Draws
) -> np.ndarray:
    """Cuts out, turns and shifts, in one interpolation as far as that can be."""
    if augment.crop == augment.ratio == 1 and augment.rotate == augment.translate == 0:
        return fit_image(image_HWC, size, fit)
    height, width = image_HWC.shape[:2]
    top, left, part_height, part_width = _part((height, width), size, fit, augment, draws)
    angle = math.radians(augment.rotate * _either_way(draws.angle))
    first_row, first_column = round(top), round(left)
    rows, columns = max(1, round(part_height)), max(1, round(part_width))
    inside = 0 <= first_row <= height - rows and 0 <= first_column <= width - columns
    if angle == 0 and inside:
        part_HWC = image_HWC[first_row : first_row + rows, first_column : first_column + columns]
        return resize_image(part_HWC, size)
    return _warp(image_HWC, (top, left, part_height, part_width), angle, size, padded=fit == "pad")


def _part(
    image_size: tuple[int, int], size: tuple[int, int], fit: str, augment: Augment, draws: _Draws
) -> tuple[float, float, float, float]:
    """(top, left, height, width) of the random part, in the image's pixels; its centre is in the image."""
    top, left, height, width = fit_view(image_size, size, fit)
    share = augment.crop + (1 - augment.crop) * draws.share
    stretch = augment.ratio ** _either_way(draws.stretch)
    part_height, part_width = height * math.sqrt(share / stretch), width * math.sqrt(share * stretch)
    # A part that is longer than the image shrinks as a whole: the stretch is kept, at the cost of area.
    excess = max(1.0, part_height / height, part_width / width)
    part_height, part_width = part_height / excess, part_width / excess
    if augment.crop < 1 or augment.ratio > 1:
        top = _start(image_size[0], top, height, part_height, draws.top)
        left = _start(image_size[1], left, width, part_width, draws.left)
    top += part_height * augment.translate * _either_way(draws.down)
    left += part_width * augment.translate * _either_way(draws.right)
    return (
        min(max(top, -part_height / 2), image_size[0] - part_height / 2),
        min(max(left, -part_width / 2), image_size[1] - part_width / 2),
        part_height,
        part_width,
    )


def _start(length: int, view_start: float, view_length: float, part_length: float, draw: float) -> float:
    """Where a part begins along one axis: anywhere in the image, and in the padding around it where there
    is some, as long as its centre is in the image."""
    min_size = max(min(0.0, view_start), -part_length / 2)
    most = min(max(length, view_start + view_length) - part_length, length - part_length / 2)
    return min_size + draw * (most - min_size)


def _warp(
    image_HWC: np.ndarray,
    part: tuple[float, float, float, float],
    angle: float,
    size: tuple[int, int],
    padded: bool,
) -> np.ndarray:
    """The part of the image, turned by `angle` (radians, about the part's centre), at `size`. What lies
    outside the image is padding where the fit pads, and otherwise the image's mirror image."""
    top, left, height, width = part
    middle_y, middle_x, cos, sin = top + height / 2, left + width / 2, math.cos(angle), math.sin(angle)
    # The upright rectangle around the turned part, shrunk to the output's resolution first: a warp takes
    # two or four pixels a side, and would alias where it skips the rest.
    reach_y = (abs(height * cos) + abs(width * sin)) / 2 + 2 * max(1.0, height / size[0])
    reach_x = (abs(width * cos) + abs(height * sin)) / 2 + 2 * max(1.0, width / size[1])
    y, x = max(0, math.floor(middle_y - reach_y)), max(0, math.floor(middle_x - reach_x))
    patch_HWC = image_HWC[y : math.ceil(middle_y + reach_y), x : math.ceil(middle_x + reach_x)]
    rows = max(1, round(patch_HWC.shape[0] * min(1.0, size[0] / height)))
    columns = max(1, round(patch_HWC.shape[1] * min(1.0, size[1] / width)))
    scale_y, scale_x = rows / patch_HWC.shape[0], columns / patch_HWC.shape[1]
    # From an output pixel (column, row) to a pixel of the shrunken patch; centres are at whole numbers + 0.5.
    step_x, step_y = width / size[1], height / size[0]
    turn = np.array([[cos * step_x, -sin * step_y], [sin * step_x, cos * step_y]])
    origin = turn @ [0.5 - size[1] / 2, 0.5 - size[0] / 2] + [middle_x - x, middle_y - y]
    matrix = np.column_stack([turn, origin]) * [[scale_x], [scale_y]] - [[0, 0, 0.5], [0, 0, 0.5]]
    shrinks = rows < patch_HWC.shape[0] or columns < patch_HWC.shape[1]
    warped: np.ndarray = cv2.warpAffine(
        resize_image(patch_HWC, (rows, columns)),
        matrix,
        (size[1], size[0]),
        flags=cv2.WARP_INVERSE_MAP | (cv2.INTER_LINEAR if shrinks else cv2.INTER_CUBIC),
        # Not REFLECT_101: with it OpenCV 5.0 never comes back from an image of one row or column.
        borderMode=cv2.BORDER_CONSTANT if padded else cv2.BORDER_REFLECT,
        borderValue=(PAD, PAD, PAD),
    )
    return warped


def _relight(image_HWC: np.ndarray, finish: DeviceAugment) -> np.ndarray:
    """Brightness, then contrast about the image's mean grey, then saturation. Grey images stay grey."""
    if finish.brightness != 1 or finish.contrast != 1:
        pixels = image_HWC.shape[0] * image_HWC.shape[1]
        red, green, blue = (round(mean * pixels) for mean in cv2.mean(image_HWC)[:3])
        mean = finish.brightness * ((299 * red + 587 * green + 114 * blue) / (1000 * pixels))
        levels = (np.arange(256) * finish.brightness - mean) * finish.contrast + mean
        image_HWC = cv2.LUT(image_HWC, np.rint(levels.clip(0, 255)).astype(np.uint8))
    if finish.saturation != 1:
        grey_HWC = cv2.cvtColor(cv2.cvtColor(image_HWC, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        image_HWC = cv2.addWeighted(image_HWC, finish.saturation, grey_HWC, 1 - finish.saturation, 0)
    return image_HWC


def _erased(size: tuple[int, int], draws: _Draws) -> tuple[int, int, int, int]:
    """(top, left, rows, columns) of the erased rectangle. One that is too long for the image is cut to fit, where
    the paper draws again: the count of draws stays the same."""
    height, width = size
    min_size, most = _ERASE_AREA
    area = (min_size + (most - min_size) * draws.erase_share) * height * width
    stretch = _ERASE_RATIO ** _either_way(draws.erase_stretch)
    rows = min(height, max(1, round(math.sqrt(area * stretch))))
    columns = min(width, max(1, round(math.sqrt(area / stretch))))
    return (
        int(draws.erase_top * (height - rows + 1)),
        int(draws.erase_left * (width - columns + 1)),
        rows,
        columns,
    )


def _noise(number: np.ndarray, seed: int) -> np.ndarray:
    """A byte for each number (uint32): the end of MurmurHash3 (its 32-bit finaliser), which device_augment.py computes too."""
    a, b = np.uint32(16), np.uint32(13)
    x = (number ^ np.uint32(seed)) * np.uint32(0x9E3779B1)
    x = (x ^ (x >> a)) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> b)) * np.uint32(0xC2B2AE35)
    return ((x ^ (x >> a)) & np.uint32(255)).astype(np.uint8)


def _either_way(draw: float) -> float:
    """From [0, 1) to [-1, 1)."""
    return 2 * draw - 1
