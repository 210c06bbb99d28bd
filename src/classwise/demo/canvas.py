"""Drawing tools for the faces: smooth outlines, and a canvas with a pose."""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 384, 512

Colour = tuple[float, float, float]
Points = NDArray[np.float64]  # (N, 2)
Image = NDArray[np.uint8]  # (HEIGHT, WIDTH, 3), RGB
BITS = 4  # fractional bits of a coordinate that is drawn
_COARSE = 4  # soft shading is painted at a quarter of the size, where a wide blur is cheap
_TURN = np.linspace(0, 2 * np.pi, 24, endpoint=False)
_CIRCLE = np.stack([np.cos(_TURN), np.sin(_TURN)], 1)


@dataclass(frozen=True)
class Canvas:
    """An image and a pose, which maps face coordinates into it. Shapes are (N, 2), or (2, N, 2) for two sides."""

    image: Image
    matrix: Points
    origin: Points
    yaw: float

    def place(self, shape: Points, depth: float) -> list[NDArray[np.int32]]:
        """Fixed-point image coordinates of each outline. `depth` is how many pixels a turn of the head moves it
        sideways: large for the nose, negative for the ears."""
        turned = self.origin + self.matrix[:, 0] * (self.yaw * depth)
        placed = np.rint((shape @ self.matrix.T + turned) * (1 << BITS)).astype(np.int32)
        return list(placed.reshape(-1, *placed.shape[-2:]))

    def fill(self, shape: Points, colour: Colour, depth: float = 0.0) -> None:
        cv2.fillPoly(self.image, self.place(shape, depth), colour, cv2.LINE_AA, BITS)

    def line(self, shape: Points, colour: Colour, width: int, depth: float = 0, closed: bool = False) -> None:
        cv2.polylines(self.image, self.place(shape, depth), closed, colour, width, cv2.LINE_AA, BITS)

    def stroke(self, shape: Points, colour: Colour, width: float, depth: float, ends: float = 0.15) -> None:
        """A brush stroke along an open curve, `width` pixels in the middle and `ends` times that at the ends."""
        along = np.diff(shape, axis=-2, append=2 * shape[..., -1:, :] - shape[..., -2:-1, :])
        across = along[..., ::-1] * (-width / 2, width / 2) / np.hypot(along[..., :1], along[..., 1:])
        across *= _swell(shape.shape[-2], ends)
        self.fill(np.concatenate([shape + across, (shape - across)[..., ::-1, :]], -2), colour, depth)

    def shade(
        self, outline: Points, depth: float, *passes: tuple[float, list[tuple[Points, Colour]]]
    ) -> None:
        """Multiplies the inside of `outline` by soft factors. Each pass paints its shapes and then blurs everything
        painted so far by that many pixels."""
        tone = np.full((HEIGHT // _COARSE, WIDTH // _COARSE, 3), 128, np.uint8)
        for blur, shapes in passes:
            for shape, factor in shapes:
                coarse = [placed // _COARSE for placed in self.place(shape, depth)]
                cv2.fillPoly(tone, coarse, times(factor, 128), cv2.LINE_8, BITS)
            tone = cv2.GaussianBlur(tone, (0, 0), blur / _COARSE)
        inside = np.zeros((HEIGHT, WIDTH), np.uint8)
        cv2.fillPoly(inside, self.place(outline, depth), 255, cv2.LINE_8, BITS)
        x, y, w, h = (np.array(cv2.boundingRect(inside)) // _COARSE + (0, 0, 2, 2)).tolist()
        tone = cv2.resize(tone[y : y + h, x : x + w], None, fx=_COARSE, fy=_COARSE)
        box = np.s_[y * _COARSE : (y + h) * _COARSE, x * _COARSE : (x + w) * _COARSE]
        cv2.copyTo(cv2.multiply(self.image[box], tone, scale=1 / 128), inside[box], self.image[box])


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """The colour `a` mixed with `share` of `b`."""
    return (a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share, a[2] + (b[2] - a[2]) * share)


def times(colour: Colour, factor: float) -> Colour:
    """A lighter or darker colour."""
    return (min(255.0, colour[0] * factor), min(255.0, colour[1] * factor), min(255.0, colour[2] * factor))


@lru_cache
def _swell(count: int, ends: float) -> Points:
    return np.asarray(ends + (1 - ends) * np.sin(np.linspace(0, np.pi, count)))[:, None]


@lru_cache
def _spline(count: int, closed: bool) -> Points:
    """The matrix that takes `count` points to a smooth curve through them (Catmull-Rom, six steps a piece)."""
    t, pieces = np.arange(6) / 6, count if closed else count - 1
    basis = np.stack([2 * t**2 - t - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2]) / 2
    matrix = np.zeros((6 * pieces + (not closed), count))
    for piece, offset in np.ndindex(pieces, 4):
        point = piece + offset - 1
        point = point % count if closed else min(max(point, 0), count - 1)
        matrix[6 * piece : 6 * piece + 6, point] += basis[offset]
    matrix[6 * pieces :, -1] = 1
    return matrix


def polygon(*xy: float) -> Points:
    return np.array(xy, np.float64).reshape(-1, 2)


def closed_curve(*xy: float) -> Points:
    """A smooth closed curve through x, y, x, y, ..."""
    return np.asarray(_spline(len(xy) // 2, True) @ polygon(*xy))


def open_curve(*xy: float) -> Points:
    """A smooth open curve through x, y, x, y, ..."""
    return np.asarray(_spline(len(xy) // 2, False) @ polygon(*xy))


def even_outline(*xy: float) -> Points:
    """A smooth outline that is even about x = 0, from its right half, top to bottom."""
    half = polygon(*xy)
    return np.asarray(_spline(len(xy), True) @ np.concatenate([half, half[::-1] * (-1.0, 1.0)]))


def oval(x: float, y: float, rx: float, ry: float) -> Points:
    return _CIRCLE * (rx, ry) + (x, y)


def both_sides(shape: Points) -> Points:
    """A shape on the right (x > 0) and its mirror image."""
    return np.stack([shape, shape * (-1.0, 1.0)])
