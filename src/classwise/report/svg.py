"""SVG drawing for the report and for comparisons: axes, ticks, and the few shapes that their charts consist of.

Text stays text, set in the reader's own fonts: a Korean label needs no font on the machine that drew it, and a figure
follows its page into dark mode through its style classes. Whatever comes from data goes through markupsafe's `format`,
which escapes it. docs/decisions/0026-one-svg-module.md says why this is not a plotting library.

Coordinates are pixels of the figure's viewBox, x to the right and y down; text is 11 px high.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

Point = tuple[float, float]
Label = tuple[float, str]  # a tick: the value where it stands, and its text

TEXT_HEIGHT = 11
CHARACTER_WIDTH = 6.2  # mean width of a Latin character
SIGN_WIDTH = 9.2  # of ×, in the widest of the usual fonts

# For an SVG file, which has no page to take its colours from: the light colours of style.css as plain values, since
# many programs that show SVG know no CSS variables.
FILE_STYLE = """
svg { background: #fff; font-family: Inter, "Segoe UI", Roboto, "Noto Sans", "Noto Sans CJK KR", sans-serif; }
text { font-size: 11px; fill: #5b636d; }
.end { text-anchor: end; } .middle { text-anchor: middle; } .label, .title { fill: #1c2024; }
.halo { paint-order: stroke; stroke: #fff; stroke-width: 3px; stroke-linejoin: round; }
.title { font-size: 14px; font-weight: 600; }
.grid { stroke: #e4e0d8; } .axis { stroke: #5b636d; } .guide { stroke: #5b636d; stroke-dasharray: 2 3; }
polyline, .key { fill: none; stroke-width: 1.8; stroke-linejoin: round; } .small { font-size: 9px; }
.s0 { stroke: #0062a8; } .s1 { stroke: #c25200; } .s2 { stroke: #00795a; } .s3 { stroke: #8a4a9e; }
.s4 { stroke: #6b7480; } .s5 { stroke: #a07800; } .interval { stroke-width: 2.2; }
.p0 { fill: #0062a8; } .p1 { fill: #c25200; } .p4 { fill: #6b7480; } .run { fill-opacity: 0.6; }
"""


@dataclass(frozen=True)
class Axis:
    """Maps the values `low` to `high` onto the pixels `start` to `end`; logarithmically where `log` is set."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of `value`."""
        low = self._scaled(self.low)
        high = self._scaled(self.high)
        share = (self._scaled(value) - low) / ((high - low) or 1.0)
        return self.start + share * (self.end - self.start)

    def _scaled(self, value: float) -> float:
        return math.log10(value) if self.log else value


def ticks(low: float, high: float, wanted: int = 5, whole: bool = False) -> list[float]:
    """About `wanted` round numbers in [low, high], 1, 2 or 5 times a power of ten apart; `whole`: integers only."""
    span = high - low
    if span <= 0:
        return [low]

    # The smallest round step that does not give too many ticks.
    step = 10 ** math.floor(math.log10(span / wanted))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= wanted + 0.5)
    if whole:
        step = max(step, 1.0)

    # A tick at an end is kept although it may miss it by a rounding error.
    lowest = math.ceil(low / step - 1e-9)
    highest = math.floor(high / step + 1e-9)
    return [index * step for index in range(lowest, highest + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten in [low, high]; with multiples of them in between where there would be fewer than three."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    inside: list[float] = []
    for factors in ((1,), (1, 3), (1, 2, 5)):
        inside = [f * 10.0**p for p in powers for f in factors if low <= f * 10.0**p <= high]
        if len(inside) >= 3:
            break
    return inside or [low]


def text(x: float, y: float, content: str, style: str) -> Markup:
    """`content` with its baseline at `y`; at `x` it starts, ends (style `end`) or has its middle (`middle`)."""
    shape = Markup('<text class="{}" x="{}" y="{}">{}</text>')
    return shape.format(style, _pixels(x), _pixels(y), content)


def power_of_ten(x: float, y: float, exponent: int) -> Markup:
    """The text ×10 with a raised exponent."""
    shape = Markup('<text x="{}" y="{}">×10<tspan dy="-4" class="small">{}</tspan></text>')
    return shape.format(_pixels(x), _pixels(y), str(exponent).replace("-", "−"))


def line(style: str, start: Point, end: Point) -> Markup:
    """A straight line."""
    shape = Markup('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>')
    return shape.format(style, *map(_pixels, (*start, *end)))


def polyline(style: str, points: Iterable[Point]) -> Markup:
    """Straight lines from point to point."""
    places = " ".join(f"{_pixels(x)},{_pixels(y)}" for x, y in points)
    return Markup('<polyline class="{}" points="{}"/>').format(style, places)


def circle(style: str, centre: Point, radius: float, title: str = "") -> Markup:
    """A disc; a browser shows `title` when the pointer rests on it."""
    shape = Markup('<circle class="{}" cx="{}" cy="{}" r="{}"')
    start = shape.format(style, *map(_pixels, (*centre, radius)))
    return start + (Markup("><title>{}</title></circle>").format(title) if title else Markup("/>"))


def cloud(style: str, points: Iterable[Point], radius: float) -> Markup:
    """Many discs of one style, which is written once for all of them."""
    shape = Markup('<circle cx="{}" cy="{}" r="{}"/>')
    discs = [shape.format(*map(_pixels, (x, y, radius))) for x, y in points]
    return Markup('<g class="{}">{}</g>').format(style, Markup("").join(discs))


def box(style: str, corner: Point, width: float, height: float) -> Markup:
    """A rectangle that stands on `corner`, its lower left one."""
    shape = Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"/>')
    return shape.format(style, *map(_pixels, (corner[0], corner[1] - height, width, height)))


def strip(title: str, corner: Point, width: float, height: float) -> Markup:
    """An invisible rectangle that stands on `corner`; its title is shown when the pointer rests there."""
    return Markup('<g class="hit"><title>{}</title>{}</g>').format(title, box("", corner, width, height))


def titled(title: str, parts: Iterable[Markup]) -> Markup:
    """A group of shapes; a browser shows `title` when the pointer rests on one of them."""
    return Markup("<g><title>{}</title>{}</g>").format(title, Markup("").join(parts))


def moved(x: float, y: float, parts: Iterable[Markup]) -> Markup:
    """A group of shapes, drawn `x` to the right and `y` down."""
    shape = Markup('<g transform="translate({}, {})">{}</g>')
    return shape.format(_pixels(x), _pixels(y), Markup("").join(parts))


def x_axis(axis: Axis, y: float, labels: Sequence[Label], title: str) -> Markup:
    """A horizontal axis at height `y` with ticks, their texts, and `title` below them (31 px in all)."""
    parts = [line("axis", (axis(at), y), (axis(at), y + 4)) for at, _ in labels]
    parts += [text(axis(at), y + 16, tick, "middle") for at, tick in labels]
    parts.append(line("axis", (axis.start, y), (axis.end, y)))
    parts.append(text((axis.start + axis.end) / 2, y + 31, title, "middle"))
    return Markup("").join(parts)


def y_grid(axis: Axis, x_range: tuple[float, float], labels: Sequence[Label]) -> Markup:
    """Horizontal grid lines over the pixels `x_range`, each with its text to the left."""
    left, right = x_range
    parts = []
    for at, tick in labels:
        y = axis(at)
        parts.append(line("grid", (left, y), (right, y)))
        parts.append(text(left - 7, y + 3.8, tick, "end"))
    return Markup("").join(parts)


def figure(width: float, height: float, title: str, parts: Iterable[Markup]) -> Markup:
    """An SVG element for a page with style.css; `title` describes it to a screen reader."""
    shape = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>')
    return shape.format(_pixels(width), _pixels(height), title, Markup("").join(parts))


def file(width: float, height: float, title: str, parts: Iterable[Markup]) -> str:
    """A whole SVG file, with a white background and styles of its own."""
    return Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" viewBox="0 0 {w} {h}" role="img"'
        ' aria-label="{title}"><style>{style}</style><rect width="100%" height="100%" fill="#fff"/>{parts}</svg>\n'
    ).format(
        w=_pixels(width),
        h=_pixels(height),
        title=title,
        style=Markup(FILE_STYLE),
        parts=Markup("").join(parts),
    )


def legend_key(style: int) -> Markup:
    """A short piece of the line style `style`, for a legend."""
    shape = Markup('<svg viewBox="0 0 18 8" aria-hidden="true">{}</svg>')
    return shape.format(line(f"s{style}", (0, 4), (18, 4)))


def text_width(content: str) -> float:
    """About how many pixels wide `content` is. Hangul, Chinese and kana are about twice as wide as Latin, and the signs
    between the numbers of a shape half as wide again."""
    return sum(_character_width(char) for char in content)


def _character_width(char: str) -> float:
    if ord(char) > 0x10FF:
        return TEXT_HEIGHT
    return SIGN_WIDTH if char == "×" else CHARACTER_WIDTH


def fit(content: str, pixels: float) -> str:
    """`content` cut to about `pixels`; an ellipsis says where something was cut."""
    if text_width(content) <= pixels:
        return content
    while content and text_width(content) > pixels - TEXT_HEIGHT:
        content = content[:-1]
    return content.rstrip() + "…"


def _pixels(value: float) -> str:
    """Tenths of a pixel are as exact as an eye can tell."""
    return f"{round(value, 1):g}"
