"""Draws one face: vector shapes in face coordinates, placed by a pose and painted back to front.

Face coordinates are pixels at scale 1, x to the right and y down, with the origin in the middle of the face: eyes
at y = -17, tip of the nose at 32, mouth at 72, chin at 123. What belongs to a person (`Look`) is the same in all
their images; what belongs to an image (pose, light, background, the mask) comes from its random generator.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import cv2
import numpy as np

from classwise.demo.canvas import (
    BITS,
    HEIGHT,
    WIDTH,
    Canvas,
    Colour,
    Image,
    Points,
    both_sides,
    closed_curve,
    even_outline,
    mix,
    open_curve,
    oval,
    polygon,
    times,
)

KINDS = ("mask1", "mask2", "mask3", "mask4", "mask5", "incorrect_mask", "normal")


_DARK: Colour = (52, 36, 38)
_WHITE: Colour = (250, 250, 250)
_FABRICS: tuple[Colour, ...] = (
    (158, 205, 228), (240, 243, 245), (46, 48, 56), (244, 190, 200), (132, 196, 172),
    (92, 118, 176), (226, 205, 160), (176, 160, 212), (214, 108, 104), (196, 202, 208),
)  # fmt: skip
_WALLS: tuple[Colour, ...] = (
    (214, 226, 236), (236, 222, 205), (205, 224, 208), (232, 210, 214), (198, 205, 226), (226, 226, 220),
    (150, 178, 190), (178, 150, 140), (140, 165, 140), (122, 132, 156), (243, 236, 224),
)  # fmt: skip
# Folds across a mask, by its cut: how far down (share of its height), how far bowed and how far out (pixels).
_SEAMS = {
    "pleats": ((0.3, 8, 68), (0.5, 8, 68), (0.7, 8, 60)),
    "fold": ((0.3, -8, 70), (0.62, 12, 66)),
    "cloth": (),
}


@dataclass(frozen=True)
class Look:
    """What a person looks like in all their images. Where nothing else is said, from 0 (none) to 1 (full)."""

    skin: Colour
    hair: Colour  # with its gray share already mixed in
    clothes: Colour
    collar: str  # round | vee | shirt | hood | high
    style: str  # up | side | centre | fringe
    length: float  # of the hair: 0 cropped, 0.5 to the chin, 1 below the shoulders
    bun: bool
    volume: float
    hairline: float  # how far it has receded
    part: float  # where the hair parts: -1 left to 1 right
    gray: float
    width: float  # of the face, a factor near 1
    jaw: float
    chin: float  # pixels below the usual
    brow: float  # thickness in pixels
    brow_height: float  # pixels above the usual
    eye: float  # half the height of the opening, in pixels
    eye_width: float  # half, in pixels
    eye_tilt: float  # pixels
    spacing: float  # of the eyes: half, in pixels
    lash: float
    nose: float  # half its width, in pixels
    lips: float
    lip_red: float
    stubble: float
    earring: bool
    glasses: str  # none | round | square
    wrinkles: float
    bags: float
    spots: float
    droop: float  # of the upper lid, in pixels


@dataclass(frozen=True)
class Person:
    """One person of the data set: `gender` is male or female, `age` in years."""

    id: str
    gender: str
    age: int
    look: Look


def draw_face(person: Person, kind: str, rng: np.random.Generator) -> Image:
    """An image (512, 384, 3) uint8 RGB of `person`. `kind` is one of KINDS: with a mask as it should be worn
    (mask1 to mask5), with one that leaves the nose or the mouth free, or without."""
    look, image = person.look, _background(rng)
    turn, scale, yaw = np.radians(rng.normal(0, 3.5)), rng.uniform(0.9, 1.12), rng.uniform(-1, 1)
    origin = np.array([WIDTH / 2 + rng.normal(0, 9), 238 + rng.normal(0, 10)])
    head = Canvas(image, _rotation(turn, scale), origin, yaw)
    body = Canvas(image, _rotation(turn / 4, scale), origin, yaw / 2)
    skin, outline = times(look.skin, rng.uniform(0.95, 1.04)), _outline(look)
    _back_hair(head, look)
    _body(body, look, skin)
    _ears(head, look, skin)
    head.fill(outline, skin)
    _age_marks(head, look, skin)
    _shade_face(head, look, outline, float(rng.choice([-1, 1])))
    _nose(head, look, skin)
    _mouth(head, look, skin, rng.uniform(0, 1))
    _eyes(head, look, skin, rng.uniform(-2, 2))
    if kind != "normal":
        _mask(head, look, rng, drop=0.0 if kind.startswith("mask") else float(rng.choice([44, 50, 88])))
    _glasses(head, look)
    _front_hair(head, look)
    return _light(image, rng)


def _rotation(angle: float, scale: float) -> Points:
    c, s = np.cos(angle) * scale, np.sin(angle) * scale
    return np.array([[c, -s], [s, c]])


def _background(rng: np.random.Generator) -> Image:
    """A wall between two colours, sometimes with soft lights on it."""
    wall, shift = np.array(_WALLS[rng.integers(len(_WALLS))]) * rng.uniform(0.85, 1.03), rng.normal(0, 7, 3)
    corners = np.stack([wall + shift + 10, wall + 14, wall - 16, wall - shift - 14]).reshape(2, 2, 3)
    coarse = cv2.resize(corners.clip(0, 255).astype(np.uint8), (48, 64))
    for _ in range(rng.integers(0, 5)):
        x, y, radius = rng.integers((0, 0, 3), (48, 50, 11)).tolist()
        cv2.circle(coarse, (x, y), radius, (wall * rng.uniform(0.85, 1.15)).tolist(), -1)
    return np.asarray(cv2.resize(cv2.GaussianBlur(coarse, (0, 0), 1.6), (WIDTH, HEIGHT)))


def _light(image: Image, rng: np.random.Generator) -> Image:
    """Light from one side, warmer or cooler, and a little grain, so that no two images share their pixels."""
    warm = np.array([1.0, 0.2, -1.0]) * rng.normal(0.012, 0.012)
    corners = rng.normal(1.0, 0.035, (2, 2, 1)) * rng.uniform(0.91, 1.02) + warm
    tone = cv2.resize((corners * 128).clip(0, 255).astype(np.uint8), (WIDTH, HEIGHT))
    lit = cv2.multiply(image, tone, scale=1 / 128)
    x, y = rng.integers(0, 64, 2)
    return np.asarray(cv2.add(lit, _grain()[y : y + HEIGHT, x : x + WIDTH]))


@lru_cache(maxsize=1)
def _grain() -> Image:
    """Noise to add: 5 on average, because an image has no room for negative numbers."""
    grain = np.random.default_rng(0).normal(5, 2, (HEIGHT + 64, WIDTH + 64, 1)).clip(0, 10)
    return np.repeat(np.rint(grain).astype(np.uint8), 3, axis=2)


def _outline(look: Look) -> Points:
    """From the brow to the chin: a square jaw is wider at the mouth and flatter below it."""
    j, c = look.jaw, look.chin
    half = (26, -138, 64, -116, 84, -62, 87, -12, 84, 30, 69 + 10 * j, 72 + c / 2, 38 + 14 * j, 106 + c)
    return even_outline(*half, 10 + 7 * j, 123 + c) * (look.width, 1.0)


def _body(canvas: Canvas, look: Look, skin: Colour) -> None:
    """Shoulders, neck and the shadow of the chin, and a collar around the neck."""
    broad, neck, shirt = 0.9 + 0.25 * look.jaw, 40 + 12 * look.jaw, look.clothes
    edge = times(shirt, 0.82)
    shoulders = (neck + 3, 166, neck + 34, 184, 128 * broad, 204, 170 * broad, 240, 184 * broad, 330)
    canvas.fill(even_outline(*shoulders, 182 * broad, 480, 60, 520), shirt)
    if look.collar == "hood":
        canvas.fill(oval(0, 190, neck + 44, 42), edge)
    canvas.fill(even_outline(neck, 40, neck - 2, 120, neck, 166, neck - 12, 198, 12, 212), skin)
    if look.collar == "vee":
        canvas.fill(polygon(-neck, 168, neck, 168, 0, 254), skin)
        canvas.line(polygon(-neck - 1, 166, 0, 256, neck + 1, 166), edge, 6)
    canvas.fill(even_outline(neck - 1, 96, neck - 2, 128, 26, 148, 8, 156), times(skin, 0.86))
    canvas.line(both_sides(open_curve(126, 262, 120, 310, 124, 400) * (broad, 1.0)), times(shirt, 0.84), 2)
    if look.collar == "high":
        canvas.fill(even_outline(neck + 3, 140, neck + 6, 170, neck + 16, 200, 20, 214), times(shirt, 0.93))
        canvas.line(open_curve(-neck - 1, 158, 0, 170, neck + 1, 158), edge, 2)
    elif look.collar == "shirt":
        flaps = both_sides(polygon(neck + 1, 156, neck + 22, 182, 34, 244, 0, 212, 20, 196))
        canvas.line(polygon(0, 212, 0, 420), edge, 2)
        canvas.fill(flaps, times(shirt, 1.08))
        canvas.line(flaps, edge, 1, closed=True)
    elif look.collar == "round":
        canvas.line(
            open_curve(-neck - 1, 164, -neck + 12, 199, 0, 214, neck - 12, 199, neck + 1, 164), edge, 8
        )


def _ears(canvas: Canvas, look: Look, skin: Colour) -> None:
    x = 87 * look.width
    ear = closed_curve(x - 6, -26, x + 8, -30, x + 15, -14, x + 9, 12, x + 1, 24, x - 8, 14)
    canvas.fill(both_sides(ear), times(skin, 0.94), -5)
    canvas.line(both_sides(open_curve(x + 3, -20, x + 9, -12, x + 4, 8)), times(skin, 0.78), 1, -5)
    if look.earring:
        canvas.fill(both_sides(oval(x + 4, 30, 5, 6)), (240, 208, 120), -5)


def _shade_face(canvas: Canvas, look: Look, outline: Points, side: float) -> None:
    """Light from one side, cheeks and eye sockets; stubble; with age, bags under the eyes and hollow cheeks."""
    beard, bag, hollow = 1 - 0.24 * look.stubble, 1 - 0.16 * look.bags, 1 - 0.12 * look.wrinkles
    broad = [
        (
            closed_curve(60, -120, 120, -60, 120, 60, 60, 130, 66, 60, 74, -20) * (side, 1.0),
            (0.90, 0.85, 0.82),
        ),
        (both_sides(oval(50, 32, 22, 15)), (1.03, 0.94 - 0.05 * look.lip_red, 0.93)),
        (even_outline(88, 34, 60, 52, 30, 54, 24, 60, 60, 96, 20, 130), (beard, beard, beard * 1.01)),
    ]
    fine = [
        (both_sides(oval(look.spacing, -24, 24, 13)), (0.96, 0.93, 0.92)),
        (both_sides(oval(look.spacing, 0, 18, 6)), (bag, bag * 0.98, bag)),
        (both_sides(oval(72, -62, 11, 27)), (hollow, hollow, hollow)),
        (both_sides(oval(60, 40, 11, 27)), (hollow, hollow, hollow)),
        (oval(side * 7, 14, 6, 26), (0.94, 0.91, 0.9)),
        (oval(0, 88, 16, 5), (0.94, 0.92, 0.91)),
    ]
    canvas.shade(outline, 0.0, (9.0, broad), (5.0, fine))


def _age_marks(canvas: Canvas, look: Look, skin: Colour) -> None:
    """Lines on the forehead, beside the eyes and beside the mouth, and spots."""
    line, e, x = times(skin, 1 - 0.26 * look.wrinkles), look.spacing, look.spacing + look.eye_width
    for row in range(int(3.4 * look.wrinkles + 0.4)):
        y, wide = -64 - 13 * row, 40 - 4 * row
        canvas.stroke(open_curve(-wide, y + 3, -15, y - 1, 12, y + 1, wide, y + 2), line, 3.2, 3)
    for rise in (-6, 1, 8):
        foot = open_curve(x + 5, -16 + rise / 3, x + 11, -15 + rise * 0.8, x + 17, -13 + rise * 1.5)
        canvas.stroke(both_sides(foot), line, 2.2, 5)
    canvas.stroke(both_sides(open_curve(20, 36, 31, 50, 36, 72)), line, 3.4, 8)
    canvas.stroke(
        both_sides(open_curve(e - 16, -4, e, 4, e + 17, -3)), times(skin, 1 - 0.26 * look.bags), 3.2, 6
    )
    places = ((-66, -2), (58, -52), (-52, -74), (68, 10), (-40, 24), (30, -92), (-70, -40), (48, 22))
    for spot in places[: round(8 * look.spots)]:
        canvas.fill(oval(*spot, 3.6, 3.0), mix(skin, (150, 106, 80), 0.35), 3)


def _nose(canvas: Canvas, look: Look, skin: Colour) -> None:
    w = look.nose
    canvas.fill(oval(0, 12, 4, 16), times(skin, 1.04), 10)
    canvas.stroke(both_sides(open_curve(w + 1, 22, w + 4, 30, w - 1, 36)), times(skin, 0.76), 2.6, 10)
    canvas.stroke(both_sides(open_curve(2, 39, w / 2, 36, w - 3, 37)), times(skin, 0.62), 4, 11)
    canvas.fill(oval(0, 26, 5, 4), times(skin, 1.06), 12)


def _mouth(canvas: Canvas, look: Look, skin: Colour, smile: float) -> None:
    red = mix(times(skin, 0.84), (204, 82, 90), 0.25 + 0.6 * look.lip_red)
    wide, full, y = 25 + 6 * smile, 5 + 5 * look.lips, 71 - 6 * smile
    upper = open_curve(-wide, y, -10, 72 - full, 0, 74 - full, 10, 72 - full, wide, y)
    lower = open_curve(wide, y, 12, 74 + full * 1.2, -12, 74 + full * 1.2, -wide, y)
    canvas.fill(np.concatenate([upper, lower]), red, 8)
    middle = open_curve(-wide, y, -10, 73, 10, 73, wide, y)
    if smile > 0.6:
        below = open_curve(wide * 0.86, y + 1, 0, 76 + 5 * smile, -wide * 0.86, y + 1)
        canvas.fill(np.concatenate([middle * (0.86, 1.0), below]), _WHITE, 8)
    canvas.stroke(middle, times(red, 0.62), 2.6, 8)
    canvas.stroke(open_curve(-11, 86 + full, 0, 88 + full, 11, 86 + full), times(skin, 0.87), 2.5, 8)


def _eyes(canvas: Canvas, look: Look, skin: Colour, gaze: float) -> None:
    x, w, h, tilt, droop = look.spacing, look.eye_width, look.eye, look.eye_tilt, look.droop
    inner, outer, y = (x - w, -14 + tilt), (x + w, -17 - tilt), -42 - look.brow_height
    lid = open_curve(*inner, x - w * 0.4, -18 - h, x + w * 0.45, -18 - h + 2 * droop, *outer)
    under = open_curve(*outer, x + w * 0.4, -14 + h * 0.55, x - w * 0.4, -13 + h * 0.5, *inner)
    for opening, middle in zip(both_sides(np.concatenate([lid, under])), (x + gaze, gaze - x), strict=True):
        _eyeball(canvas, opening, middle, droop)
    canvas.stroke(both_sides(under), times(skin, 0.72), 1.6, 6)
    canvas.stroke(both_sides(lid), _DARK, 2.6 + 2.2 * look.lash, 6, ends=0.5)
    if look.lash > 0.45:
        canvas.fill(both_sides(outer + polygon(0, 0, 5, -5 * look.lash, -4, -5)), _DARK, 6)
    canvas.stroke(both_sides(lid[2:-2] - (0, 5 + 2 * droop)), times(skin, 0.82), 2, 6)
    brow = open_curve(x - w - 2, y + 3, x - 4, y - 3, x + w * 0.7, y - 4, x + w + 8, y + 5)
    hair = mix(mix(look.hair, _DARK, 0.35 * (1 - look.gray)), skin, 0.15)
    canvas.stroke(both_sides(brow), hair, look.brow, 5, ends=0.3)


def _eyeball(canvas: Canvas, opening: Points, x: float, droop: float) -> None:
    """The white, iris and pupil, cut to the opening of the eye."""
    placed = canvas.place(opening, 6)
    left, top, w, h = cv2.boundingRect(placed[0] >> BITS)
    part = canvas.image[top : top + h, left : left + w]
    eye = Canvas(np.full_like(part, 246), canvas.matrix, canvas.origin - (left, top), canvas.yaw)
    eye.fill(oval(x, -17 + droop, 9.5, 9.5), (74, 48, 36), 7)
    eye.fill(oval(x, -16, 4.5, 4.5), (24, 18, 20), 7)
    eye.fill(oval(x + 3, -20, 2.4, 2.4), _WHITE, 7)
    inside = np.zeros(part.shape[:2], np.uint8)
    cv2.fillPoly(inside, eye.place(opening, 6), 255, cv2.LINE_8, BITS)
    cv2.copyTo(eye.image, inside, part)


def _mask(canvas: Canvas, look: Look, rng: np.random.Generator, drop: float) -> None:
    """A mask with its straps, `drop` pixels lower than it should sit."""
    fabric = times(_FABRICS[rng.integers(len(_FABRICS))], rng.uniform(0.93, 1.03))
    cut, dim, fold = str(rng.choice(list(_SEAMS))), 1 - 0.16 * rng.random(), times(fabric, 0.84)
    w, low, jaw, ear = 0.97 * look.width, 132 + look.chin + drop * 0.45, 4 + 9 * look.jaw, 92 * look.width
    for strap in ((74 * w, 18 + drop, ear, -16), (64 * w + jaw, 80 + drop * 0.5, ear + 2, 14)):
        canvas.stroke(both_sides(polygon(*strap)), (206, 206, 210), 3.5, 0, ends=1.0)
    high = (15, drop - 10 * (cut == "fold"), 40, 8 + drop, 78 * w, 14 + drop, 77 * w, 36 + drop * 0.7)
    shape = even_outline(*high, 63 * w + jaw, 78 + drop * 0.5, 40 * w + jaw, low - 14, 12, low)
    canvas.fill(shape, fabric, 7)
    edge, middle = closed_curve(44, -40, 110, 0, 110, 150, 30, 190, 58, 90), oval(0, drop * 0.6 + 53, 30, 26)
    canvas.shade(shape, 7, (9.0, [(both_sides(edge), (dim, dim, dim)), (middle, (1.05, 1.05, 1.05))]))
    if cut == "cloth":
        _pattern(canvas, mix(fabric, _WHITE if sum(fabric) < 480 else (90, 90, 120), 0.45), rng, drop, low)
    for share, bow, wide in _SEAMS[cut]:
        y, x = drop + (low - drop) * share, wide * w - drop * 0.12
        canvas.stroke(open_curve(-x, y, 0, y + bow, x, y), fold, 2.6, 8)
    canvas.line(shape, fold, 2, 7, closed=True)


def _pattern(canvas: Canvas, colour: Colour, rng: np.random.Generator, top: float, low: float) -> None:
    """Dots, stripes, or plain cloth with a seam in the middle."""
    choice, rows = rng.integers(3), range(int(top) + 28, int(low) - 16, 22)
    for y in rows if choice == 0 else ():
        canvas.stroke(open_curve(-56, y, 0, y + 6, 56, y), colour, 5, 8, ends=0.8)
    for y, x in product(rows, range(-44, 45, 22)) if choice == 1 else ():
        canvas.fill(oval(x, y, 4, 4), colour, 8)
    if choice == 2:
        canvas.stroke(open_curve(0, top + 4, 3, (top + low) / 2, 0, low - 4), colour, 2.6, 8)


def _glasses(canvas: Canvas, look: Look) -> None:
    if look.glasses == "none":
        return
    x, frame = look.spacing, (48.0, 44.0, 52.0) if look.glasses == "square" else (128.0, 96.0, 72.0)
    rim = closed_curve(x - 26, -36, x, -40, x + 28, -37, x + 29, -10, x + 18, 6, x - 16, 6, x - 26, -8)
    canvas.line(
        both_sides(rim if look.glasses == "square" else oval(x, -16, 27, 24)), frame, 3, 8, closed=True
    )
    canvas.line(both_sides(polygon(x + 28, -24, 90 * look.width, -20)), frame, 3, 3)
    canvas.line(open_curve(27 - x, -20, 0, -25, x - 27, -20), frame, 3, 9)


def _back_hair(canvas: Canvas, look: Look) -> None:
    """What hangs behind the neck, or a bun."""
    dark, wide, end = times(look.hair, 0.78), 98 + 10 * look.volume, 20 + 210 * look.length
    if look.bun:
        canvas.fill(oval(0, -164 - look.volume * 12, 38, 32), dark, -8)
    elif look.length > 0.25:
        canvas.fill(
            even_outline(60, -130, wide, -60, wide + 6, end / 2, wide + 2, end - 12, 56, end + 8), dark, -6
        )


def _front_hair(canvas: Canvas, look: Look) -> None:
    """The cap from the crown to the hairline, locks beside the face, and strands, some of them gray."""
    hair, wide, crown = look.hair, 90 * look.width + 6 * look.volume, -150 - 20 * look.volume
    outer = polygon(-wide, -28 + 26 * min(look.length, 0.4), -wide - 3, -66, -76, -124, -34, crown)
    canvas.fill(closed_curve(*outer.flat, *(outer[::-1] * (-1.0, 1.0)).flat, *_hairline(look)), hair, 2)
    if look.length > 0.3 and not look.bun:
        end = 20 + 200 * look.length
        lock = (60, -104, wide, -80, wide + 9, 0, wide + 10, end * 0.6, wide, end, 82, end - 14)
        canvas.fill(both_sides(closed_curve(*lock, 84, 20, 78, -44)), hair, 1)
        for x in (wide - 4, wide - 12):
            canvas.stroke(both_sides(open_curve(x, -70, x + 6, 0, x + 2, end - 22)), times(hair, 0.84), 3, 1)
    for step in range(-4, 5):
        x, y = 46 * look.part, crown + 14 + abs(step)
        strand = open_curve(x + 4 * step, y, x / 2 + 14 * step, y + 16, 18 * step, -108 - 3 * (step % 3))
        shine = mix(hair, (238, 238, 240), 0.10 + 0.5 * look.gray * (step % 2))
        canvas.stroke(strand, shine if step % 3 else times(hair, 0.85), 3.4, 2)


def _hairline(look: Look) -> tuple[float, ...]:
    """The lower edge of the front hair, from the right temple to the left one, as x, y, x, y, ..."""
    w, up, p = 78 * look.width, -16 * look.hairline, 46 * look.part
    x, y = {
        "fringe": ((54, 28, 8, -16, -54), (-58, -52, -58, -52, -58)),
        "side": ((52, p + 10, p - 10, -52), (-84 + p / 2, -112, -112, -84 - p / 2)),
        "centre": ((58, 22, 0, -22, -58), (-72, -102, -116, -102, -72)),
        "up": ((60, 28, 0, -28, -60), (-92 + up / 2, -104, -101, -104, -92 + up / 2)),
    }[look.style]
    middle = np.stack([x, np.add(y, up)], 1)
    return (w, -36, w - 3, up - 66, *middle.flat, 3 - w, up - 66, -w, -36)
