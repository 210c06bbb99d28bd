"""Whether two views show the same picture: aligned, they must agree in what is fine, and everywhere.

Different pictures in the same light, or of the same kind of thing, agree in what is coarse. Here one view is laid
over the other (Evangelidis and Psarakis, 'Parametric image alignment using enhanced correlation coefficient
maximization', 2008), then predicted from it with an unknown gain, offset and blur, and what is fine and not predicted
counts.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

COARSE = 32
"""Pixels of the views that are aligned first."""
COARSE_STEPS, FINE_STEPS = 8, 5
"""Of the alignment, at most."""
SMOOTH = 0.7
"""Sigma, in pixels of a view, of the blur that everything is seen with: what is finer is noise."""
FINEST = 2.0
"""Sigma of the blur that takes the finest structure away."""
SLOW = 19
"""Pixels over which what stays the same is light rather than detail."""
BLURS = (0.0, 1.0, 2.0)
"""Sigmas of the blurs from which the unknown one is combined."""
NOISE = 0.05
"""Variance in squared levels that counts as agreement, whatever the image."""
MOST_AREA, MOST_SKEW = 2.0, 0.15
"""An alignment that scales the area by more, or turns or skews by more, is not one of copies."""
LEAST_OVERLAP, LEAST_USED = 0.4, 0.1
"""Of a view that the other one must cover, and that must be neither black nor white to be of use."""
RIDGE = 1e-3
"""Added to the variances of the blurs, in squared levels, which may be nearly the same."""
BLACK, WHITE = 3, 252
"""Levels beyond which a pixel may have been cut off."""

Image = NDArray[np.float32]
Map = NDArray[np.float32]


@dataclass(frozen=True)
class Agreement:
    """How well a view agrees with the other one. score: -log10 of the share of fine structure that differs; 0 where
    nothing agrees. scale: the area of the first that the second one shows, relative to its own. is_possible: whether
    copies may be aligned so."""

    score: float
    scale: float
    is_possible: bool


def turned_view(view_SS: NDArray[np.uint8], turn: int) -> NDArray[np.uint8]:
    """A view, turned as classwise.datacheck.copy_candidates.TURNS says."""
    found_SS = view_SS.T if turn & 4 else view_SS
    found_SS = found_SS[::-1] if turn & 2 else found_SS
    return np.ascontiguousarray(found_SS[:, ::-1] if turn & 1 else found_SS)


def align(first_SS: Image, second_SS: Image, crop: float) -> Map:
    """A coarse alignment: the (2, 3) affine map from places in the second view to those in the first, in pixels of
    COARSE. `crop`: what the first shows more at each side, about."""
    size = (COARSE, COARSE)
    first_CC, second_CC = (
        cv2.resize(view_SS, size, interpolation=cv2.INTER_AREA) for view_SS in (first_SS, second_SS)
    )
    start = np.array([[1 - 2 * crop, 0, crop * COARSE], [0, 1 - 2 * crop, crop * COARSE]], np.float32)
    return _refined(first_CC, second_CC, start, COARSE_STEPS, 3)


def _refined(first: Image, second: Image, start: Map, steps: int, blur: int) -> Map:
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, steps, 1e-3)
    try:
        # It writes into the map that it is given.
        _, found = cv2.findTransformECC(second, first, start.copy(), cv2.MOTION_AFFINE, criteria, None, blur)
    except (
        cv2.error
    ):  # it does not converge, as for two that have nothing in common, or almost nothing in them
        return start
    return np.asarray(found)


def agreement(first_SS: Image, second_SS: Image, coarse: Map) -> Agreement:
    """How well two views agree, from a coarse alignment (`align`) on. The sharper one predicts the other."""
    size = len(first_SS)
    start = coarse.copy()
    start[:, 2] *= size / COARSE
    found = _refined(first_SS, second_SS, start, FINE_STEPS, 5)
    over_SS = cv2.warpAffine(
        first_SS,
        found,
        (size, size),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    inside_SS = cv2.warpAffine(
        np.ones_like(first_SS), found, (size, size), flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    )
    inside_SS[:2] = inside_SS[-2:] = inside_SS[:, :2] = inside_SS[:, -2:] = 0
    scale = abs(float(np.linalg.det(found[:, :2])))
    if inside_SS.mean() < LEAST_OVERLAP:
        return Agreement(0.0, scale, is_possible=False)
    inside = _Inside(inside_SS)
    is_sharper = _sharpness(over_SS, inside) > _sharpness(second_SS, inside)
    source_SS, target_SS = (over_SS, second_SS) if is_sharper else (second_SS, over_SS)
    score = max(0.0, _score(source_SS, target_SS, inside))
    skew = max(abs(float(found[0, 1])), abs(float(found[1, 0])))
    return Agreement(score, scale, is_possible=1 / MOST_AREA < scale < MOST_AREA and skew < MOST_SKEW)


def _sharpness(view_SS: Image, inside: "_Inside") -> float:
    """The share of the finest structure in what is fine."""
    smooth_SS = _blurred(view_SS, SMOOTH)
    finest = (smooth_SS - _blurred(view_SS, FINEST))[inside.mask_SS]
    return float((finest**2).mean() / ((inside.fine(smooth_SS)[inside.mask_SS] ** 2).mean() + NOISE))


def _score(source_SS: Image, target_SS: Image, inside: "_Inside") -> float:
    """-log10 of the share of the target's fine structure that the source does not predict."""
    target_SS = _blurred(target_SS, SMOOTH)
    missed_SS = inside.fine(target_SS - _predicted(source_SS, target_SS, inside))
    missed = float((missed_SS[inside.mask_SS] ** 2).mean())
    total = float((inside.fine(target_SS)[inside.mask_SS] ** 2).mean())
    return -float(np.log10((missed + NOISE) / (total + NOISE)))


def _predicted(source_SS: Image, target_SS: Image, inside: "_Inside") -> Image:
    """The target as a blur of the source, with a gain and an offset that changes slowly, cut off at black and
    white."""
    # Where the target is cut off, it says nothing about gain and blur.
    used_SS = inside.mask_SS & (target_SS > BLACK) & (target_SS < WHITE)
    used = _Inside(used_SS.astype(np.float32)) if used_SS.mean() >= LEAST_USED else inside
    sources = [_blurred(source_SS, float(np.hypot(SMOOTH, sigma))) for sigma in BLURS]
    parts_BP = np.stack([inside.fine(blurred_SS)[used.mask_SS] for blurred_SS in sources]).astype(np.float64)
    parts_BP -= parts_BP.mean(axis=1, keepdims=True)
    wanted_P = inside.fine(target_SS)[used.mask_SS]
    gram_BB = parts_BP @ parts_BP.T + RIDGE * len(wanted_P) * np.eye(len(BLURS))
    weights_B = np.linalg.solve(gram_BB, parts_BP @ (wanted_P - wanted_P.mean()))
    predicted_SS = np.tensordot(weights_B.astype(np.float32), np.stack(sources), axes=1)
    return np.asarray(np.clip(predicted_SS + used.slow(target_SS - predicted_SS), 0, 255), np.float32)


class _Inside:
    """The pixels of a view that count, and what is slow and fine in them."""

    def __init__(self, inside_SS: Image) -> None:
        self.inside_SS, self.mask_SS = inside_SS, inside_SS > 0
        self.weight_SS = np.maximum(_averaged(inside_SS), 1e-3)

    def slow(self, image_SS: Image) -> Image:
        """What changes slowly, from the pixels inside alone."""
        return np.asarray(_averaged(image_SS * self.inside_SS) / self.weight_SS, np.float32)

    def fine(self, image_SS: Image) -> Image:
        """What changes faster."""
        return np.asarray(image_SS - self.slow(image_SS))


def _averaged(image_SS: Image) -> Image:
    """Twice over SLOW x SLOW pixels: nearly a Gaussian blur with a sigma of SLOW / sqrt(6), in a fraction of its
    time."""
    size = (SLOW, SLOW)
    once_SS = cv2.blur(image_SS, size, borderType=cv2.BORDER_CONSTANT)
    return np.asarray(cv2.blur(once_SS, size, borderType=cv2.BORDER_CONSTANT))


def _blurred(image_SS: Image, sigma: float) -> Image:
    return np.asarray(cv2.GaussianBlur(image_SS, (0, 0), sigma))
