"""Training-time augmentation of one image, as a function of the image and of one generator.

The steps, each with a plain number whose off value is obvious: turned by quarters, a random part of the image (Szegedy
et al., 'Going deeper with convolutions', 2015, section 6), rotated and shifted, mirrored, with changed brightness,
contrast and saturation, with a rectangle erased (Zhong et al., 'Random erasing data augmentation', AAAI 2020).
Validation calls `fit_image` and nothing else; with all parts off, training sees the very same pixels.

There are two halves. The geometry needs the image at its own size. The rest needs nothing but the pixels at the
network's size, so a GPU can do it too, with the same bytes (device_augment.py).
"""

import math
from dataclasses import dataclass, fields
from typing import NamedTuple

import cv2
import numpy as np

from classwise.data.fit import PAD, by_four_channels, fit_image, fit_view, resize_image
from classwise.errors import ConfigError

# The allowed range of each part: (lowest, highest).
_RANGES = {
    "flip": (0.0, 1.0),
    "flip_vertical": (0.0, 1.0),
    "quarter_turns": (0.0, 1.0),
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
    """How strongly a training image is changed. The defaults change nothing. Raises ConfigError for a value out of
    range."""

    flip: float = 0.0
    """Probability of a mirror image. 0 where left and right tell classes apart (text, digits, hands)."""
    flip_vertical: float = 0.0
    """Probability of a mirror image top to bottom: for images without an up and down (tissue, aerial images)."""
    quarter_turns: float = 0.0
    """Probability of a turn by 90, 180 or 270 degrees, each as likely; 0.75 makes all four directions alike."""
    crop: float = 1.0
    """Smallest share of the area that is kept. The share is uniform between it and 1; the position is uniform."""
    ratio: float = 1.0
    """Largest change of the aspect ratio: 1.25 stretches by up to 1.25 either way, at the cost of some area."""
    rotate: float = 0.0
    """Largest angle in degrees, either way."""
    translate: float = 0.0
    """Largest shift, as a share of the height and of the width."""
    brightness: float = 0.0
    """0.2 multiplies by 0.8 to 1.2."""
    contrast: float = 0.0
    """0.2 multiplies the distance from the mean gray by 0.8 to 1.2."""
    saturation: float = 0.0
    """0.2 multiplies the distance from the pixel's own gray by 0.8 to 1.2; 1 reaches a gray image."""
    erase: float = 0.0
    """Probability that a rectangle of 2 % to 40 % of the area is filled with noise."""

    def __post_init__(self) -> None:
        for part in fields(self):
            value = getattr(self, part.name)
            lowest, highest = _RANGES[part.name]
            if not lowest <= value <= highest:  # refuses NaN as well
                raise ConfigError(f"augment {part.name}: found {value}; allowed: {lowest:g} to {highest:g}")


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
    flip_vertical: float
    turn: float
    turn_count: float


class DeviceAugment(NamedTuple):
    """The second half of the augmentation of one image that has its final size. `augment_on_host` applies it, or on a
    GPU `augment_on_device` in device_augment.py. All values are exact as float64."""

    flip: float
    """1: mirrored."""
    brightness: float
    contrast: float
    saturation: float
    erase_top: float
    erase_left: float
    erase_height: float
    """0: nothing is erased."""
    erase_width: float
    noise_seed: float
    """Of the noise that fills the rectangle: a whole number below 2**32."""


def augment_image(
    image_HWC: np.ndarray, size: tuple[int, int], fit: str, augment: Augment, rng: np.random.Generator
) -> np.ndarray:
    """A (height, width, channels) uint8 image of `size`, changed at random; `fit` as in `fit_view`. Saturation can only
    be changed for three channels.

    Every random number comes from `rng`. The same numbers are drawn whatever is switched on, so that changing one part
    does not change the outcome of the others. With every part off the result is that of `fit_image`: possibly the image
    itself, not a copy.
    """
    image_HWC, device_augment = augment_geometry(image_HWC, size=size, fit=fit, augment=augment, rng=rng)
    return augment_on_host(image_HWC, device_augment)


def augment_geometry(
    image_HWC: np.ndarray, size: tuple[int, int], fit: str, augment: Augment, rng: np.random.Generator
) -> tuple[np.ndarray, DeviceAugment]:
    """The first half of `augment_image`, which needs the image at its own size; and what the second half has to do."""
    draws = _Draws(*rng.random(len(_Draws._fields)).tolist())
    erase_top, erase_left, erase_height, erase_width = 0, 0, 0, 0
    if draws.erase < augment.erase:
        erase_top, erase_left, erase_height, erase_width = _erase_box(size, draws)
    device_augment = DeviceAugment(
        flip=float(draws.flip < augment.flip),
        brightness=1 + augment.brightness * _symmetric(draws.brightness),
        contrast=1 + augment.contrast * _symmetric(draws.contrast),
        # In whole 4096ths: the sums below are then exact in float32, whatever the order of their terms.
        saturation=round(4096 * (1 + augment.saturation * _symmetric(draws.saturation))) / 4096,
        erase_top=erase_top,
        erase_left=erase_left,
        erase_height=erase_height,
        erase_width=erase_width,
        noise_seed=int(draws.erase_noise * 2**32),
    )
    # Turned before it is brought to its size, which may be another one upright than lying.
    if draws.turn < augment.quarter_turns:
        image_HWC = np.ascontiguousarray(np.rot90(image_HWC, 1 + int(3 * draws.turn_count)))
    placed_HWC = _crop_and_rotate(image_HWC, size=size, fit=fit, augment=augment, draws=draws)
    if draws.flip_vertical < augment.flip_vertical:
        placed_HWC = cv2.flip(placed_HWC, 0).reshape(placed_HWC.shape)
    return placed_HWC, device_augment


def augment_on_host(image_HWC: np.ndarray, device_augment: DeviceAugment) -> np.ndarray:
    """The image mirrored, then with changed brightness, contrast and saturation, then with a rectangle of noise (Zhong
    et al., RE-R, the best of their four fillings)."""
    if device_augment.flip:
        image_HWC = cv2.flip(image_HWC, 1).reshape(image_HWC.shape)
    image_HWC = _relight(image_HWC, device_augment)
    if device_augment.erase_height:
        top, left = int(device_augment.erase_top), int(device_augment.erase_left)
        bottom = top + int(device_augment.erase_height)
        right = left + int(device_augment.erase_width)
        # Every value of the image has a number, from which its noise is computed: no generator is needed.
        channels = image_HWC.shape[2]
        y, x, c = np.ogrid[top:bottom, left:right, :channels]
        number_HWC = ((y * image_HWC.shape[1] + x) * channels + c).astype(np.uint32)
        image_HWC = image_HWC.copy()
        image_HWC[top:bottom, left:right] = _noise(number_HWC, int(device_augment.noise_seed))
    return image_HWC


def rows_needed(
    image_size: tuple[int, int], size: tuple[int, int], fit: str, augment: Augment, rng: np.random.Generator
) -> int:
    """How many of the upper rows of an image of this (height, width) `augment_geometry` looks at, with a generator of
    the same state."""
    draws = _Draws(*rng.random(len(_Draws._fields)).tolist())
    if draws.turn < augment.quarter_turns or _is_whole(augment):
        return image_size[0]
    box = _crop_box(image_size, size=size, fit=fit, augment=augment, draws=draws)
    angle = math.radians(augment.rotate * _symmetric(draws.angle))
    part = _upright_part(box, angle, image_size)
    if part is not None:
        return int(part[0].stop)
    rows, _ = _warped_part(box, angle, size)
    return min(image_size[0], int(rows.stop))


def _is_whole(augment: Augment) -> bool:
    """Whether the image is only fitted to its size."""
    return augment.crop == augment.ratio == 1 and augment.rotate == augment.translate == 0


def _crop_and_rotate(
    image_HWC: np.ndarray, size: tuple[int, int], fit: str, augment: Augment, draws: _Draws
) -> np.ndarray:
    """Crops, rotates and shifts to `size`, in one interpolation where possible."""
    if _is_whole(augment):
        return fit_image(image_HWC, size, fit)
    height, width = image_HWC.shape[:2]
    box = _crop_box((height, width), size=size, fit=fit, augment=augment, draws=draws)
    angle = math.radians(augment.rotate * _symmetric(draws.angle))
    part = _upright_part(box, angle, (height, width))
    if part is not None:
        return resize_image(image_HWC[part], size)
    return _warp(image_HWC, box=box, angle=angle, size=size, padded=fit == "pad")


def _upright_part(
    box: tuple[float, float, float, float], angle: float, image_size: tuple[int, int]
) -> tuple[slice, slice] | None:
    """The rows and columns to cut out for the part `box`; None where it is rotated or reaches over an edge, and has to
    be warped."""
    top, left, rows, columns = round(box[0]), round(box[1]), max(1, round(box[2])), max(1, round(box[3]))
    is_inside = 0 <= top <= image_size[0] - rows and 0 <= left <= image_size[1] - columns
    return (slice(top, top + rows), slice(left, left + columns)) if angle == 0 and is_inside else None


def _warped_part(
    box: tuple[float, float, float, float], angle: float, size: tuple[int, int]
) -> tuple[slice, slice]:
    """The upright rectangle around the rotated part `box`, with what the interpolation to `size` looks at around it; it
    may end beyond the image."""
    top, left, height, width = box
    centre_y, centre_x = top + height / 2, left + width / 2
    cos, sin = math.cos(angle), math.sin(angle)
    reach_y = (abs(height * cos) + abs(width * sin)) / 2 + 2 * max(1.0, height / size[0])
    reach_x = (abs(width * cos) + abs(height * sin)) / 2 + 2 * max(1.0, width / size[1])
    return (
        slice(max(0, math.floor(centre_y - reach_y)), math.ceil(centre_y + reach_y)),
        slice(max(0, math.floor(centre_x - reach_x)), math.ceil(centre_x + reach_x)),
    )


def _crop_box(
    image_size: tuple[int, int], size: tuple[int, int], fit: str, augment: Augment, draws: _Draws
) -> tuple[float, float, float, float]:
    """(top, left, height, width) of the random part, in the image's pixels; its centre is in the image."""
    view_top, view_left, view_height, view_width = fit_view(image_size, size, fit)
    share = augment.crop + (1 - augment.crop) * draws.share
    stretch = augment.ratio ** _symmetric(draws.stretch)
    height = view_height * math.sqrt(share / stretch)
    width = view_width * math.sqrt(share * stretch)

    # A part that is longer than the image shrinks as a whole: the stretch is kept, at the cost of area.
    excess = max(1.0, height / view_height, width / view_width)
    height, width = height / excess, width / excess

    top, left = view_top, view_left
    if augment.crop < 1 or augment.ratio > 1:
        top = _crop_start(
            image_size[0], view_start=view_top, view_length=view_height, crop_length=height, draw=draws.top
        )
        left = _crop_start(
            image_size[1], view_start=view_left, view_length=view_width, crop_length=width, draw=draws.left
        )
    top += height * augment.translate * _symmetric(draws.down)
    left += width * augment.translate * _symmetric(draws.right)
    top = min(max(top, -height / 2), image_size[0] - height / 2)
    left = min(max(left, -width / 2), image_size[1] - width / 2)
    return top, left, height, width


def _crop_start(length: int, view_start: float, view_length: float, crop_length: float, draw: float) -> float:
    """Where a part begins along one axis: anywhere in the image and in the padding around it, if there is any, as long
    as the centre of the part is in the image."""
    lowest = max(min(0.0, view_start), -crop_length / 2)
    highest = min(max(length, view_start + view_length) - crop_length, length - crop_length / 2)
    return lowest + draw * (highest - lowest)


def _warp(
    image_HWC: np.ndarray,
    box: tuple[float, float, float, float],
    angle: float,
    size: tuple[int, int],
    padded: bool,
) -> np.ndarray:
    """The part `box` (top, left, height, width) of the image, rotated by `angle` (radians, about its centre), at
    `size`. Outside of the image there is padding if `padded`, and otherwise the image's reflection."""
    top, left, height, width = box
    centre_y, centre_x = top + height / 2, left + width / 2
    cos, sin = math.cos(angle), math.sin(angle)

    # The rectangle around the part is shrunk to the output's resolution first: a warp looks at two or four pixels a
    # side, and would alias where it skips the rest.
    part = _warped_part(box, angle, size)
    y, x = part[0].start, part[1].start
    patch_HWC = image_HWC[part]
    patch_height, patch_width = patch_HWC.shape[:2]
    rows = max(1, round(patch_height * min(1.0, size[0] / height)))
    columns = max(1, round(patch_width * min(1.0, size[1] / width)))

    # From an output pixel (column, row) to a pixel of the shrunken patch; centres are at whole numbers + 0.5.
    scale_y, scale_x = rows / patch_height, columns / patch_width
    step_y, step_x = height / size[0], width / size[1]
    rotation = np.array([[cos * step_x, -sin * step_y], [sin * step_x, cos * step_y]])
    origin = rotation @ [0.5 - size[1] / 2, 0.5 - size[0] / 2] + [centre_x - x, centre_y - y]
    matrix = np.column_stack([rotation, origin]) * [[scale_x], [scale_y]] - [[0, 0, 0.5], [0, 0, 0.5]]

    shrinks = rows < patch_height or columns < patch_width

    def warp(part_HWC: np.ndarray) -> np.ndarray:
        warped: np.ndarray = cv2.warpAffine(
            part_HWC,
            matrix,
            (size[1], size[0]),
            flags=cv2.WARP_INVERSE_MAP | (cv2.INTER_LINEAR if shrinks else cv2.INTER_CUBIC),
            # Not REFLECT_101: with it OpenCV 5.0 never returns from an image of one row or column.
            borderMode=cv2.BORDER_CONSTANT if padded else cv2.BORDER_REFLECT,
            borderValue=(PAD,) * 4,
        )
        return warped

    return by_four_channels(warp, resize_image(patch_HWC, (rows, columns)))


def _relight(image_HWC: np.ndarray, device_augment: DeviceAugment) -> np.ndarray:
    """Brightness, then contrast about the image's mean gray, then saturation. Gray images stay gray."""
    brightness, contrast = device_augment.brightness, device_augment.contrast
    saturation = device_augment.saturation
    if brightness != 1 or contrast != 1:
        mean = brightness * _mean_gray(image_HWC)
        levels = (np.arange(256) * brightness - mean) * contrast + mean
        shape = image_HWC.shape
        image_HWC = cv2.LUT(image_HWC, np.rint(levels.clip(0, 255)).astype(np.uint8)).reshape(shape)
    if saturation != 1:
        gray_HWC = cv2.cvtColor(cv2.cvtColor(image_HWC, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        image_HWC = cv2.addWeighted(image_HWC, saturation, gray_HWC, 1 - saturation, 0)
    return image_HWC


def _mean_gray(image_HWC: np.ndarray) -> float:
    """The mean gray of RGB; of other channels their mean. From the whole sums that device_augment.py computes."""
    if image_HWC.shape[2] != 3:
        return int(image_HWC.sum(dtype=np.int64)) / image_HWC.size
    pixels = image_HWC.shape[0] * image_HWC.shape[1]
    red, green, blue = (round(mean * pixels) for mean in cv2.mean(image_HWC)[:3])
    return float((299 * red + 587 * green + 114 * blue) / (1000 * pixels))


def _erase_box(size: tuple[int, int], draws: _Draws) -> tuple[int, int, int, int]:
    """(top, left, height, width) of the erased rectangle. One that is too long for the image is cut to fit, where the
    paper draws again: the number of draws stays the same."""
    image_height, image_width = size
    lowest, highest = _ERASE_AREA
    area = (lowest + (highest - lowest) * draws.erase_share) * image_height * image_width
    stretch = _ERASE_RATIO ** _symmetric(draws.erase_stretch)
    height = min(image_height, max(1, round(math.sqrt(area * stretch))))
    width = min(image_width, max(1, round(math.sqrt(area / stretch))))
    top = int(draws.erase_top * (image_height - height + 1))
    left = int(draws.erase_left * (image_width - width + 1))
    return top, left, height, width


def _noise(number: np.ndarray, seed: int) -> np.ndarray:
    """A byte for each number (uint32): the 32-bit finalizer of MurmurHash3, which device_augment.py computes too."""
    a, b = np.uint32(16), np.uint32(13)
    x = (number ^ np.uint32(seed)) * np.uint32(0x9E3779B1)
    x = (x ^ (x >> a)) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> b)) * np.uint32(0xC2B2AE35)
    return ((x ^ (x >> a)) & np.uint32(255)).astype(np.uint8)


def _symmetric(draw: float) -> float:
    """From [0, 1) to [-1, 1)."""
    return 2 * draw - 1
