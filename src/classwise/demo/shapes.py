"""A drawn data set with a target of every type: coloured shapes on a noisy background, 48 x 48 pixels.

    images/0000.png, images/0001.png, ...
    samples.csv    path, scene, shapes, colour, size, area, query, relevance: a row per image, scenes mixed
    colour.csv, size.csv, area.csv    its rows where this column is not empty, for models of this target alone

    scene      group: the eight images of a scene share the colour of their background
    shapes     multilabel: which of circle, square, triangle, star, cross occur, joined by '|'; '|' alone is none
    colour     class: of the largest shape; half of the images are red, one in twenty-five is purple
    size       ordinal: tiny, small, medium, large: the radius of the largest shape
    area       regression: the percentage of the image that shapes cover
    query      ranking: the images of a scene, asked for 'much red'
    relevance  0 to 3: the percentage of the image that is red, cut at RED_CUTS

A few images contain no shape: their area is 0, and they have neither colour nor size. In addition one in twenty cells
of colour, size and area is left empty, as in real tables. Every byte is a function of (rows, seed).
"""

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from classwise.demo.canvas import BITS, Colour, Image, Points, oval, polygon
from classwise.errors import DataError, OutputError
from classwise.files import write_text

_Indices = NDArray[np.int64]

SIDE = 48
SCENE = 8  # images per scene
LEAST = 5 * SCENE  # rows; fewer make no sensible split
COLUMNS = ("path", "scene", "shapes", "colour", "size", "area", "query", "relevance")
_WITH_GAPS = ("colour", "size", "area")

# From frequent to rare, with the share of each.
KINDS = {"circle": 0.42, "square": 0.30, "triangle": 0.17, "star": 0.07, "cross": 0.04}
COLOURS = {"red": 0.50, "green": 0.24, "blue": 0.14, "yellow": 0.08, "purple": 0.04}
# Smallest and largest radius in pixels.
SIZES = {"tiny": (5.0, 6.0), "small": (7.0, 8.5), "medium": (9.5, 11.5), "large": (13.0, 16.0)}
RED_CUTS = (1.0, 6.0, 14.0)

_RGB: dict[str, Colour] = {
    "red": (214, 44, 44), "green": (46, 168, 70), "blue": (48, 86, 214), "yellow": (230, 206, 52),
    "purple": (150, 58, 186),
}  # fmt: skip
_HOW_MANY = (0.4, 0.3, 0.2, 0.1)  # shares of one to four shapes
_NO_SHAPE = 0.03  # share of images
_EMPTY = 0.05  # share of cells
_ANOTHER_COLOUR = 0.35  # share of the smaller shapes
_NOISE = 8.0  # standard deviation of a pixel, of 255


def _star() -> Points:
    turn = np.arange(10) * (np.pi / 5)
    radius = np.where(np.arange(10) % 2, 0.42, 1.0)
    return np.stack([np.sin(turn), -np.cos(turn)], 1) * radius[:, None]


# Outlines within a circle of radius 1.
_OUTLINES: dict[str, Points] = {
    "circle": oval(0, 0, 0.9, 0.9),
    "square": polygon(-0.75, -0.75, 0.75, -0.75, 0.75, 0.75, -0.75, 0.75),
    "triangle": polygon(0, -1, 0.87, 0.6, -0.87, 0.6),
    "star": _star(),
    "cross": polygon(
        -0.22, -1, 0.22, -1, 0.22, -0.22, 1, -0.22, 1, 0.22, 0.22, 0.22,
        0.22, 1, -0.22, 1, -0.22, 0.22, -1, 0.22, -1, -0.22, -0.22, -0.22,
    ),
}  # fmt: skip

# Each kind has a pattern of its own, since about thirty images of a rare kind are too few to learn its outline alone.
# A pixel is dark where this function of its coordinates is odd.
_PATTERNS: dict[str, Callable[[_Indices, _Indices], _Indices]] = {
    "circle": lambda x, y: 0 * x,
    "square": lambda x, y: x // 2,
    "triangle": lambda x, y: y // 2,
    "star": lambda x, y: x // 2 + y // 2,
    "cross": lambda x, y: x // 3 + y,
}
_CONTRAST = 0.35

# What `classwise demo --shapes` trains: one model with five targets.
SHAPES: dict[str, Any] = {
    "name": "shapes",
    "data": {
        "source": "samples.csv",
        "group": "scene",
        # Neither crops nor shifts, which would change the size and the area in the table.
        "augment": {"preset": "none", "flip": 0.5, "brightness": 0.1},
    },
    "targets": {
        "colour": {"column": "colour", "labels": list(COLOURS), "loss": {"name": "balanced_softmax"}},
        "tags": {
            "column": "shapes", "type": "multilabel", "separator": "|", "labels": list(KINDS),
            # The asymmetric loss down-weights easy labels, which makes it far smaller than the others.
            "weight": 25.0, "loss": {"name": "asymmetric"},
        },
        "size": {"column": "size", "type": "ordinal", "labels": list(SIZES), "loss": {"name": "corn"}},
        "area": {"column": "area", "type": "regression", "loss": {"name": "smooth_l1"}},
        "match": {"column": "relevance", "type": "ranking", "query": "query", "loss": {"name": "listnet"}},
    },
    "model": {"backbone": "small_cnn", "image_size": [SIDE, SIDE]},
    "optimizer": {"name": "adamw", "lr": 4e-3, "weight_decay": 0.05},
    "schedule": {"name": "onecycle", "pct_start": 0.2},
    "training": {"epochs": 16, "batch_size": 16, "clip_norm": 5.0},
    "selection": {"metric": "colour.macro_f1", "first_epoch": 12},
}  # fmt: skip


@dataclass(frozen=True)
class _Shape:
    kind: str
    colour: str
    radius: float
    x: float
    y: float


def write_shapes(folder: Path, rows: int = 600, seed: int = 0) -> None:
    """Write `rows` images and the tables into `folder`; paths in the tables are relative to it.

    Raises DataError for fewer than LEAST rows, and OutputError, before anything is written, if one of these already
    exists.
    """
    if rows < LEAST:
        raise DataError(f"rows = {rows}: allowed: at least {LEAST}, five scenes of {SCENE} images")
    names = ["images", "samples.csv", *(f"{column}.csv" for column in _WITH_GAPS)]
    for name in names:
        if (folder / name).exists():
            raise OutputError(f"{folder / name} already exists; name a folder without {', '.join(names)}")
    (folder / "images").mkdir(parents=True)
    table = _draw_rows(folder, rows, seed)
    _leave_empty(table, np.random.default_rng([seed, 3]))
    write_text(folder / "samples.csv", _csv(table))
    for column in _WITH_GAPS:
        write_text(folder / f"{column}.csv", _csv([row for row in table if row[column]]))


def _draw_rows(folder: Path, rows: int, seed: int) -> list[dict[str, str]]:
    """Write every image; returns its rows of the table, before any cell is emptied."""
    plan = np.random.default_rng([seed, 0])
    scene_of_row = plan.permutation(np.arange(rows) // SCENE).tolist()
    colour_of_row = _in_proportion(COLOURS, rows, plan)
    size_of_row = plan.permutation(np.resize(list(SIZES), rows)).tolist()
    shapeless = set(plan.choice(rows, max(1, round(_NO_SHAPE * rows)), replace=False).tolist())
    table = []
    for row, (scene, colour, size) in enumerate(zip(scene_of_row, colour_of_row, size_of_row, strict=True)):
        rng = np.random.default_rng([seed, 1, row])
        shapes = [] if row in shapeless else _arrange(colour, size, rng)
        image, covered = _paint(shapes, _ground(seed, scene), rng)
        path = f"images/{row:04d}.png"
        # Encoded in memory: OpenCV's own writer fails on folders in another script on some systems.
        (folder / path).write_bytes(cv2.imencode(".png", image[:, :, ::-1])[1].tobytes())
        labels = _answers(shapes, size, covered)
        table.append({"path": path, "scene": f"scene-{scene:03d}", "query": f"red-{scene:03d}", **labels})
    return table


def _in_proportion(shares: dict[str, float], rows: int, rng: np.random.Generator) -> list[str]:
    """`rows` names in random order, in exactly these shares, so that no rare one is missing by chance."""
    ends = np.cumsum(list(shares.values()))
    places = np.searchsorted(ends, rng.permutation((np.arange(rows) + 0.5) / rows))
    return [list(shares)[place] for place in places]


def _ground(seed: int, scene: int) -> NDArray[np.float64]:
    """A slightly tinted gray, never confused with the shapes' colours."""
    rng = np.random.default_rng([seed, 2, scene])
    return rng.uniform(85, 175) + rng.uniform(-18, 18, 3)


def _arrange(colour: str, size: str, rng: np.random.Generator) -> list[_Shape]:
    """One to four shapes that do not touch, the largest first; one without room is left out."""
    shapes: list[_Shape] = []
    largest = rng.uniform(*SIZES[size])
    for number in range(rng.choice(4, p=_HOW_MANY) + 1):
        kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
        another = bool(number) and rng.random() < _ANOTHER_COLOUR
        tone = str(rng.choice(list(COLOURS))) if another else colour
        radius = largest if number == 0 else rng.uniform(0.65, 0.85) * largest
        for x, y in rng.uniform(radius + 1, SIDE - radius - 1, (20, 2)):
            if all(np.hypot(x - other.x, y - other.y) > radius + other.radius + 1 for other in shapes):
                shapes.append(_Shape(kind, tone, radius, float(x), float(y)))
                break
    return shapes


def _paint(
    shapes: list[_Shape], ground: NDArray[np.float64], rng: np.random.Generator
) -> tuple[Image, dict[str, float]]:
    """The image, and the percentage of it that each colour covers."""
    image = np.tile(ground, (SIDE, SIDE, 1)) + np.linspace(-8, 8, SIDE)[:, None, None]
    covered: dict[str, float] = {}
    for shape in shapes:
        mask = _mask(shape, rng.uniform(-0.15, 0.15))
        tone = np.array(_RGB[shape.colour]) + rng.uniform(-14, 14, 3)
        image += mask[:, :, None] * (_pattern(shape.kind) * tone - image)
        covered[shape.colour] = covered.get(shape.colour, 0.0) + 100 * float(mask.mean())
    image += rng.normal(0, _NOISE, image.shape)
    return np.rint(image).clip(0, 255).astype(np.uint8), covered


def _pattern(kind: str) -> NDArray[np.float64]:
    """(SIDE, SIDE, 1): factors about 1."""
    y, x = np.indices((SIDE, SIDE, 1))[:2]
    return np.asarray(1 + _CONTRAST * (0.5 - _PATTERNS[kind](x, y) % 2), np.float64)


def _mask(shape: _Shape, angle: float) -> NDArray[np.float64]:
    """(SIDE, SIDE), 0 to 1: how much of each pixel the turned shape covers."""
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    outline = _OUTLINES[shape.kind] @ turn * shape.radius + (shape.x, shape.y)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    cv2.fillPoly(mask, [np.rint(outline * (1 << BITS)).astype(np.int32)], 255, cv2.LINE_AA, BITS)
    return mask / 255.0


def _answers(shapes: list[_Shape], size: str, covered: dict[str, float]) -> dict[str, str]:
    drawn = {shape.kind for shape in shapes}
    return {
        "shapes": "|".join(kind for kind in KINDS if kind in drawn) or "|",
        "colour": shapes[0].colour if shapes else "",
        "size": size if shapes else "",
        "area": f"{sum(covered.values()):.1f}",
        "relevance": str(int(np.searchsorted(RED_CUTS, covered.get("red", 0.0), side="right"))),
    }


def _leave_empty(table: list[dict[str, str]], rng: np.random.Generator) -> None:
    for column in _WITH_GAPS:
        filled = [row for row in table if row[column]]
        for number in rng.choice(len(filled), round(_EMPTY * len(filled)), replace=False):
            filled[number][column] = ""


def _csv(table: list[dict[str, str]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue()
