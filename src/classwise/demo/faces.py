"""Draws one face as a picture: vector shapes in face coordinates, placed by a pose, painted back to front.

Face coordinates are pixels at scale 1, x to the right and y down, with the origin in the middle of the face: eyes
at y = -18, the tip of the nose at 32, the mouth at 70, the chin at 122. What belongs to a person (`Look`) is the
same in every picture; what belongs to a picture (pose, light, background, the mask itself) comes from its generator.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 384, 512
KINDS = ("mask1", "mask2", "mask3", "mask4", "mask5", "incorrect_mask", "normal")

Colour = tuple[float, float, float]
Points = NDArray[np.float64]
Picture = NDArray[np.uint8]
_BITS = 4  # fractional bits of a drawn coordinate
_COARSE = 4  # soft shading is painted at a quarter of the size

DARK: Colour = (52, 36, 38)
WHITE: Colour = (250, 250, 250)
GREY: Colour = (206, 206, 210)
FABRICS: tuple[Colour, ...] = (
    (158, 205, 228), (240, 243, 245), (46, 48, 56), (244, 190, 200), (132, 196, 172), (92, 118, 176),
    (226, 205, 160), (176, 160, 212), (214, 108, 104), (196, 202, 208),
)  # fmt: skip
WALLS: tuple[Colour, ...] = (
    (214, 226, 236), (236, 222, 205), (205, 224, 208), (232, 210, 214), (198, 205, 226), (226, 226, 220),
    (150, 178, 190), (178, 150, 140), (140, 165, 140), (122, 132, 156), (243, 236, 224), (206, 184, 160),
)  # fmt: skip


@dataclass(frozen=True)
class Look:
    """What a person looks like in all their pictures. Numbers without a unit run from 0 (none) to 1 (full)."""

    skin: Colour
    hair: Colour
    clothes: Colour
    collar: str  # round | vee | shirt | hood | high
    style: str  # up | side | centre | fringe
    length: float  # of the hair: 0 cropped, 0.5 to the chin, 1 below the shoulders
    bun: bool
    volume: float
    hairline: float  # how far it has receded
    part: float  # where the hair parts, -1 (left) to 1 (right)
    grey: float
    width: float  # of the face, as a factor near 1
    jaw: float
    chin: float  # pixels below the usual
    brow: float  # thickness in pixels
    brow_height: float
    eye: float  # half the opening of an eye, in pixels
    eye_width: float
    eye_tilt: float
    spacing: float
    lash: float
    nose: float  # width, in pixels
    lips: float
    lip_red: float
    stubble: float
    earring: bool
    glasses: str  # "" | round | square
    wrinkles: float
    bags: float
    spots: float
    droop: float  # of the upper lid


@dataclass(frozen=True)
class Person:
    """One person: `gender` is male or female, `age` in years, `seed` names all their random draws."""

    id: str
    gender: str
    age: int
    look: Look


@dataclass(frozen=True)
class Canvas:
    """A picture and a pose: `place` maps face coordinates into the picture."""

    image: Picture
    matrix: Points
    origin: Points
    yaw: float

    def place(self, xy: Points, depth: float = 0.0) -> NDArray[np.int32]:
        """Points (N, 2) in face coordinates as fixed-point picture coordinates. `depth` is how many pixels a
        full turn of the head moves them: large for the nose, negative for the ears."""
        moved = (xy + (self.yaw * depth, 0.0)) @ self.matrix.T + self.origin
        return np.rint(moved * (1 << _BITS)).astype(np.int32)

    def fill(self, xy: Points, colour: Colour, depth: float = 0.0) -> None:
        cv2.fillPoly(self.image, [self.place(xy, depth)], colour, cv2.LINE_AA, _BITS)

    def line(self, xy: Points, colour: Colour, width: int = 1, depth: float = 0.0, closed: bool = False) -> None:
        cv2.polylines(self.image, [self.place(xy, depth)], closed, colour, width, cv2.LINE_AA, _BITS)

    def stroke(self, xy: Points, colour: Colour, width: float, depth: float = 0.0, ends: float = 0.15) -> None:
        """A brush stroke along an open curve, `width` pixels in its middle and `ends` of that at its ends."""
        along = np.gradient(xy, axis=0)
        normal = along[:, ::-1] * (-1.0, 1.0) / np.maximum(np.hypot(along[:, :1], along[:, 1:]), 1e-6)
        swell = ends + (1 - ends) * np.sin(np.linspace(0, np.pi, len(xy)))[:, None]
        half = normal * swell * width / 2
        self.fill(np.concatenate([xy + half, (xy - half)[::-1]]), colour, depth)

    def shade(self, outline: Points, passes: Sequence[tuple[float, list[tuple[Points, Colour]]]], depth: float) -> None:
        """Multiplies the inside of `outline` by softly blurred factors: each pass blurs by its number of pixels
        what it and the passes before it have painted."""
        tone = np.full((HEIGHT // _COARSE, WIDTH // _COARSE, 3), 128, np.uint8)
        for blur, shapes in passes:
            for xy, factor in shapes:
                colour = [128 * f for f in factor]
                cv2.fillPoly(tone, [self.place(xy, depth) // _COARSE], colour, cv2.LINE_AA, _BITS)
            tone = cv2.GaussianBlur(tone, (0, 0), blur / _COARSE)
        inside = np.zeros((HEIGHT, WIDTH), np.uint8)
        placed = self.place(outline, depth)
        cv2.fillPoly(inside, [placed], 255, cv2.LINE_8, _BITS)
        x, y, w, h = cv2.boundingRect(inside)
        tone = cv2.resize(tone, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)[y : y + h, x : x + w]
        part = self.image[y : y + h, x : x + w]
        cv2.copyTo(cv2.multiply(part, tone, scale=1 / 128), inside[y : y + h, x : x + w], part)


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """`share` of b in a."""
    return (a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share, a[2] + (b[2] - a[2]) * share)


def times(colour: Colour, factor: float) -> Colour:
    return (min(255.0, colour[0] * factor), min(255.0, colour[1] * factor), min(255.0, colour[2] * factor))


@lru_cache
def _basis(steps: int) -> Points:
    t = np.arange(steps) / steps
    return np.stack([-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2], 1) / 2


def loop(*points: tuple[float, float], steps: int = 6) -> Points:
    """A smooth closed curve through the points (Catmull-Rom)."""
    p = np.asarray(points, np.float64)
    around = np.stack([np.roll(p, 1, 0), p, np.roll(p, -1, 0), np.roll(p, -2, 0)], 1)
    return np.asarray((_basis(steps) @ around).reshape(-1, 2))


def curve(*points: tuple[float, float], steps: int = 6) -> Points:
    """A smooth open curve through the points."""
    p = np.asarray([points[0], *points, points[-1]], np.float64)
    pieces = np.stack([p[:-3], p[1:-2], p[2:-1], p[3:]], 1)
    return np.concatenate([(_basis(steps) @ pieces).reshape(-1, 2), p[-1:]])


def oval(x: float, y: float, rx: float, ry: float) -> Points:
    angle = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], 1)


def both(*half: tuple[float, float]) -> Points:
    """A closed outline from its right half, listed from top to bottom."""
    return loop(*half, *[(-x, y) for x, y in reversed(half)])


def flip(xy: Points, side: int) -> Points:
    return xy * (float(side), 1.0)
