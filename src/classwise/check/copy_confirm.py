"""Whether two views show the same picture: aligned, they must agree in what is fine, and everywhere.

Different pictures in the same light, or of the same kind of thing, agree in what is coarse. Here one view is laid over the
other (Evangelidis and Psarakis, 'Parametric image alignment using enhanced correlation coefficient maximization', 2008),
then predicted from it with an unknown gain, offset and blur, and what is fine and not predicted counts.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

COARSE = 32
"""Pixels of the views that are aligned first."""
COARSE_STEPS, FINE_STEPS = 12, 8
"""Of the alignment, at most."""
SMOOTH = 0.7
"""Sigma, in pixels of a view, of the blur that everything is seen with: what is finer is noise."""
FINE = 6.0
"""Sigma above which structure is light rather than detail."""
BLURS = (0.0, 1.0, 2.0)
"""Sigmas of the blurs from which the unknown one is combined."""
NOISE = 0.05
"""Variance in squared levels that counts as agreement, whatever the image."""
LEAST_OVERLAP = 0.4
"""Of a view that the other one must cover."""
BLACK, WHITE = 3, 252
"""Levels beyond which a pixel may have been cut off."""

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Agreement:
    """How well a view agrees with the other one. score: -log10 of the share of fine structure that differs; 0 where
    nothing agrees. scale: the area of the first that the second one shows, relative to its own."""

    score: float
    scale: float


NOTHING = Agreement(0.0, 1.0)


def turned_view(view_SS: NDArray[np.uint8], turn: int) -> NDArray[np.uint8]:
    """A view, turned as classwise.check.copy_candidates.TURNS says."""
    found_SS = view_SS.T if turn & 4 else view_SS
    found_SS = found_SS[::-1] if turn & 2 else found_SS
    return np.ascontiguousarray(found_SS[:, ::-1] if turn & 1 else found_SS)


def align(first_SS: Image, second_SS: Image, crop: float) -> tuple[float, NDArray[np.float32] | None]:
    """The correlation of two views at COARSE pixels after alignment, and the (2, 3) affine map from places in the second
    to those in the first, in pixels of COARSE; None where there is no alignment. `crop`: what the first shows more at
    each side, about."""
    size = (COARSE, COARSE)
    first_CC, second_CC = (
        cv2.resize(view_SS, size, interpolation=cv2.INTER_AREA) for view_SS in (first_SS, second_SS)
    )
    start = np.array([[1 - 2 * crop, 0, crop * COARSE], [0, 1 - 2 * crop, crop * COARSE]], np.float32)
    return _refined(first_CC, second_CC, start, COARSE_STEPS, 3)


def _refined(
    first: Image, second: Image, start: NDArray[np.float32], steps: int, blur: int
) -> tuple[float, NDArray[np.float32] | None]:
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, steps, 1e-3)
    try:
        correlation, map_23 = cv2.findTransformECC(
            second, first, start, cv2.MOTION_AFFINE, criteria, None, blur
        )
    except cv2.error:  # it does not converge: the two have nothing in common
        return -1.0, None
    return float(correlation), map_23


def agreement(first_SS: Image, second_SS: Image, coarse_23: NDArray[np.float32]) -> Agreement:
    """How well two views agree, from a coarse alignment (`align`) on. Whichever view is the sharper one predicts the
    other."""
    size = len(first_SS)
    start = coarse_23.copy()
    start[:, 2] *= size / COARSE
    _, map_23 = _refined(first_SS, second_SS, start, FINE_STEPS, 5)
    if map_23 is None:
        return NOTHING
    scale = abs(float(np.linalg.det(map_23[:, :2])))
    options = {"dsize": (size, size)}
    over_SS = cv2.warpAffine(
        first_SS, map_23, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE, **options
    )
    ones_SS = np.ones_like(first_SS)
    inside_SS = cv2.warpAffine(ones_SS, map_23, flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP, **options)
    inside_SS[:2] = inside_SS[-2:] = inside_SS[:, :2] = inside_SS[:, -2:] = 0
    if inside_SS.mean() < LEAST_OVERLAP:
        return NOTHING
    return Agreement(max(0.0, _score(over_SS, second_SS, inside_SS), _score(second_SS, over_SS, inside_SS)), scale)


def _score(source_SS: Image, target_SS: Image, inside_SS: Image) -> float:
    """-log10 of the share of the target's fine structure that the source does not predict."""
    is_inside_SS = inside_SS > 0
    target_SS = _blurred(target_SS, SMOOTH)
    predicted_SS = _predicted(source_SS, target_SS, inside_SS)
    missed_SS = np.where(is_inside_SS, _fine(target_SS - predicted_SS, inside_SS), 0)
    fine_SS = np.where(is_inside_SS, _fine(target_SS, inside_SS), 0)
    missed, total = float((missed_SS**2).sum()), float((fine_SS**2).sum())
    noise = NOISE * float(inside_SS.sum())
    return -float(np.log10((missed + noise) / (total + noise)))


def _predicted(source_SS: Image, target_SS: Image, inside_SS: Image) -> Image:
    """The target as a blur of the source, with a gain and an offset that changes slowly, cut off at black and white."""
    # Where the target is cut off, it says nothing about gain and blur.
    used_SS = (inside_SS > 0) & (target_SS > BLACK) & (target_SS < WHITE)
    if used_SS.mean() < 0.1:
        used_SS = inside_SS > 0
    sources = [_blurred(source_SS, float(np.hypot(SMOOTH, sigma))) for sigma in BLURS]
    parts_PB = np.stack([_fine(blurred_SS, inside_SS)[used_SS] for blurred_SS in sources], axis=1).astype(np.float64)
    wanted_P = _fine(target_SS, inside_SS)[used_SS].astype(np.float64)
    parts_PB -= parts_PB.mean(axis=0)
    gram_BB = parts_PB.T @ parts_PB + 1e-3 * len(parts_PB) * np.eye(len(BLURS))
    weights_B = np.linalg.solve(gram_BB, parts_PB.T @ (wanted_P - wanted_P.mean()))
    predicted_SS = np.sum([w * blurred_SS for w, blurred_SS in zip(weights_B, sources, strict=True)], axis=0)
    offset_SS = _slow(target_SS - predicted_SS.astype(np.float32), used_SS.astype(np.float32))
    return np.clip(predicted_SS + offset_SS, 0, 255).astype(np.float32)


def _blurred(image_SS: Image, sigma: float) -> Image:
    return cv2.GaussianBlur(image_SS, (0, 0), sigma)


def _slow(image_SS: Image, inside_SS: Image) -> Image:
    """What changes slowly, from the pixels inside alone."""
    weight_SS = np.maximum(_blurred(inside_SS, FINE), 1e-3)
    return _blurred(image_SS * inside_SS, FINE) / weight_SS


def _fine(image_SS: Image, inside_SS: Image) -> Image:
    return image_SS - _slow(image_SS, inside_SS)
