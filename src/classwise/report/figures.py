"""The page's figures as inline SVG.

Text stays text, set in the reader's own fonts: so a Korean label needs no font on the machine that drew it, the
figure follows the page into dark mode through its style classes, and the page stays small. See
docs/decisions/0004-report.md.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

WIDTH, HEIGHT = 360, 232
LEFT, RIGHT, TOP, BOTTOM = 42, 12, 14, 34
CHARACTER = 6.2  # a character's mean width at 11 px, for keeping labels apart

Point = tuple[float, float]
Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Series:
    """One line of a chart. `style` n takes the page's colour and dash n."""

    name: str
    points: list[Point]
    style: int = 0


@dataclass(frozen=True)
class Dot:
    """One class in the scatter chart."""

    label: str
    x: float
    y: float


@dataclass(frozen=True)
class Axis:
    """Maps `low`..`high` onto pixels `start`..`end`, on a logarithmic scale where `log` is set."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high = (math.log10(v) if self.log else v for v in (self.low, self.high))
        where = math.log10(value) if self.log else value
        return self.start + (where - low) / ((high - low) or 1.0) * (self.end - self.start)


def ticks(low: float, high: float, wanted: int = 5, whole: bool = False) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) inside [low, high], about `wanted` of them."""
    span = high - low
    if span <= 0:
        return [low]
    step = 10 ** math.floor(math.log10(span / wanted))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= wanted + 0.5)
    step = max(step, 1.0) if whole else step
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten inside [low, high], with 2 and 5 times them where these alone would be few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5)):
        found = [f * 10.0**p for p in powers for f in factors if low <= f * 10.0**p <= high]
        if len(found) >= 3:
            return found
    return found or [low]


def plain(value: float) -> str:
    """A tick's text: as few digits as tell the ticks apart, thousands with a comma."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def line_chart(
    series: Sequence[Series], title: str, x_label: str, *, mark: Point | None = None, zero: bool = False
) -> Markup:
    """Lines over whole-numbered x (epochs). `mark` is ringed and labelled; `zero` starts the y axis at 0.
    Empty where there is no point at all."""
    points = [point for line in series for point in line.points]
    if not points:
        return Markup("")
    x_axis, y_axis = _frame([x for x, _ in points], [y for _, y in points], zero, headroom=mark is not None)
    power = _power(y_axis.high)
    parts = [
        _grid(y_axis, [(t, plain(t / 10**power)) for t in ticks(y_axis.low, y_axis.high)], power),
        _bottom(x_axis, [(t, plain(t)) for t in _epoch_ticks(x_axis)], x_label),
        *(_line(line, x_axis, y_axis) for line in reversed(series)),  # the first line lies on top
    ]
    if mark:
        own, *others = ([(x_axis(x), y_axis(y)) for x, y in line.points] for line in series)
        place = (x_axis(mark[0]), y_axis(mark[1]))
        parts.append(_marked(mark, place, own, [point for line in others for point in line]))
    return _svg(parts, title)


def scatter_chart(dots: Sequence[Dot], title: str, x_label: str, name_lowest: int = 4) -> Markup:
    """Classes as dots: x a positive count on a logarithmic axis, y a score in [0, 1].

    The lowest `name_lowest` carry their label where there is room for it."""
    if not dots:
        return Markup("")
    low, high = min(dot.x for dot in dots), max(dot.x for dot in dots)
    x_axis = Axis(low / 1.25, high * 1.25, LEFT, WIDTH - RIGHT, log=True)
    y_axis = Axis(0.0, 1.0, HEIGHT - BOTTOM, TOP)
    parts = [
        _grid(y_axis, [(t, plain(t)) for t in (0.0, 0.25, 0.5, 0.75, 1.0)]),
        _bottom(x_axis, [(t, plain(t)) for t in log_ticks(x_axis.low, x_axis.high)], x_label),
        *(_dot(dot, x_axis, y_axis) for dot in dots),
        *_dot_labels(dots, x_axis, y_axis, name_lowest),
    ]
    return _svg(parts, title)


def agreement_chart(points: Sequence[Point], title: str, name: str) -> Markup:
    """A number's predictions: x the truth, y what was predicted, on one scale; on the line they are the same."""
    if not points:
        return Markup("")
    values = [value for point in points for value in point]
    margin = 0.04 * ((max(values) - min(values)) or abs(max(values)) or 1.0)
    low, high = min(values) - margin, max(values) + margin
    x_axis, y_axis = Axis(low, high, LEFT, WIDTH - RIGHT), Axis(low, high, HEIGHT - BOTTOM, TOP)
    power = _power(max(abs(low), abs(high)))
    labels = [(t, plain(t / 10**power)) for t in ticks(low, high)]
    ends = [f"{axis(value):.1f}" for value in (low, high) for axis in (x_axis, y_axis)]
    dot = Markup('<circle cx="{}" cy="{}" r="2.5"/>')
    dots = [dot.format(f"{x_axis(x):.1f}", f"{y_axis(y):.1f}") for x, y in points]
    parts = [
        _grid(y_axis, labels, power),
        _bottom(x_axis, labels, f"true {shorten(name, 30)}{_unit(power)}"),
        Markup('<line class="same" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(*ends),
        Markup('<g class="cloud">{}</g>').format(Markup("").join(dots)),
    ]
    return _svg(parts, title)


def _unit(power: int) -> str:
    """A power of ten that was taken out of an axis, as text: ` (×10⁴)`."""
    return f" (×10{str(power).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))})" if power else ""


def _svg(parts: Iterable[Markup], title: str) -> Markup:
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, title, Markup("").join(parts)
    )


def _frame(xs: list[float], ys: list[float], zero: bool, headroom: bool) -> tuple[Axis, Axis]:
    low, high = (min(0.0, *ys) if zero else min(ys)), max(ys)
    span = (high - low) or abs(high) or 1.0
    low = low if zero else low - 0.06 * span
    high += (0.16 if headroom else 0.06) * span
    # A run of one epoch still needs an axis with two ends.
    last = max(xs) if max(xs) > min(xs) else min(xs) + 1
    return Axis(min(xs), last, LEFT, WIDTH - RIGHT), Axis(low, high, HEIGHT - BOTTOM, TOP)


def _epoch_ticks(axis: Axis) -> list[float]:
    """Whole numbers, the first epoch among them where it does not touch the next tick."""
    found = ticks(axis.low, axis.high, whole=True)
    return found if axis(found[0]) - axis(axis.low) < 20 else [axis.low, *found]


def _power(high: float) -> int:
    """The power of ten to take out of an axis whose numbers are very small or very large."""
    exponent = math.floor(math.log10(abs(high))) if high else 0
    return exponent if exponent < -2 or exponent > 4 else 0


def _grid(axis: Axis, labels: list[tuple[float, str]], power: int = 0) -> Markup:
    row = Markup(
        '<line class="grid" x1="{}" x2="{}" y1="{y}" y2="{y}"/><text x="{}" y="{}" class="end">{}</text>'
    )
    parts = [
        row.format(LEFT, WIDTH - RIGHT, LEFT - 7, f"{axis(at) + 3.8:.1f}", text, y=f"{axis(at):.1f}")
        for at, text in labels
    ]
    if power:
        unit = Markup('<text x="0" y="9">×10<tspan dy="-4" class="small">{}</tspan></text>')
        parts.append(unit.format(str(power).replace("-", "−")))
    return Markup("").join(parts)


def _bottom(axis: Axis, labels: list[tuple[float, str]], title: str) -> Markup:
    base = HEIGHT - BOTTOM
    tick = Markup(
        '<line class="axis" x1="{x}" x2="{x}" y1="{}" y2="{}"/><text x="{x}" y="{}" class="middle">{}</text>'
    )
    parts = [tick.format(base, base + 4, base + 16, text, x=f"{axis(at):.1f}") for at, text in labels]
    parts.append(
        Markup('<line class="axis" x1="{}" x2="{}" y1="{y}" y2="{y}"/>').format(LEFT, WIDTH - RIGHT, y=base)
    )
    name = Markup('<text x="{}" y="{}" class="middle name">{}</text>')
    parts.append(name.format((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 3, title))
    return Markup("").join(parts)


def _line(line: Series, x_axis: Axis, y_axis: Axis) -> Markup:
    places = [f"{x_axis(x):.1f},{y_axis(y):.1f}" for x, y in line.points]
    if len(places) == 1:
        x, y = places[0].split(",")
        return Markup('<circle class="p{}" cx="{}" cy="{}" r="3"/>').format(line.style, x, y)
    return Markup('<polyline class="s{}" points="{}"/>').format(line.style, " ".join(places))


def _marked(mark: Point, place: Point, own: Sequence[Point], others: Sequence[Point]) -> Markup:
    """A ring on the best point (at pixel `place`) and its value: above its line, or below where another runs above."""
    x, y = place
    value = f"{mark[1]:.3f}" if 1e-3 <= abs(mark[1]) < 1000 or not mark[1] else plain(mark[1])
    text, end = f"{value} in epoch {mark[0]:.0f}", x > WIDTH / 2
    left, right = (x - text_width(text), x + 6) if end else (x - 6, x + text_width(text))
    beside = [b for a, b in own if left <= a <= right]
    beside += np.interp([left, x, right], [a for a, _ in own], [b for _, b in own]).tolist()
    crowded = any(left <= a <= right and y - 26 < b < y for a, b in others)
    base = min(max(beside) + 16, HEIGHT - BOTTOM - 4) if crowded else min(beside) - 9
    shape = Markup(
        '<line class="guide" x1="{x}" x2="{x}" y1="{y}" y2="{}"/><circle class="best" cx="{x}" cy="{y}" r="4"/>'
        '<text class="halo {} strong" x="{:.1f}" y="{:.1f}">{}</text>'
    )
    side, at = ("end", right) if end else ("start", left)
    return shape.format(HEIGHT - BOTTOM, side, at, base, text, x=f"{x:.1f}", y=f"{y:.1f}")


def _dot(dot: Dot, x_axis: Axis, y_axis: Axis) -> Markup:
    shape = Markup('<circle class="dot" cx="{}" cy="{}" r="4"><title>{}: {:.3f}, {:,.0f}</title></circle>')
    return shape.format(f"{x_axis(dot.x):.1f}", f"{y_axis(dot.y):.1f}", escape(dot.label), dot.y, dot.x)


def _dot_labels(dots: Sequence[Dot], x_axis: Axis, y_axis: Axis, wanted: int) -> list[Markup]:
    taken = [_box(x_axis(dot.x) - 4, y_axis(dot.y) + 4, 8, 8) for dot in dots]
    parts: list[Markup] = []
    for dot in sorted(dots, key=lambda dot: (dot.y, dot.x))[:wanted]:
        text = shorten(dot.label, 24)
        box = _free_box(x_axis(dot.x), y_axis(dot.y), text_width(text), taken)
        if box:
            taken.append(box)
            parts.append(
                Markup('<text class="halo" x="{:.1f}" y="{:.1f}">{}</text>').format(box[0], box[3], text)
            )
    return parts


def _free_box(x: float, y: float, width: float, taken: Sequence[Box]) -> Box | None:
    """Where a label finds room beside, above or below the point (x, y): None where it does not."""
    places = [(x + 8, y + 4), (x - 8 - width, y + 4), (x - width / 2, y + 17), (x - width / 2, y - 9)]
    for left, base in places:
        box = _box(left, base, width)
        inside = left > LEFT and left + width < WIDTH and TOP < base < HEIGHT - BOTTOM - 2
        if inside and not any(_overlap(box, other) for other in taken):
            return box
    return None


def _box(left: float, base: float, width: float, height: float = 11) -> Box:
    return left, base - height, left + width, base


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def text_width(text: str) -> float:
    """About how many pixels `text` takes at 11 px: Hangul, Chinese and kana are about twice as wide."""
    return sum(11.0 if ord(char) > 0x10FF else CHARACTER for char in text)


def shorten(text: str, longest: int) -> str:
    """`text` cut to `longest` characters, the last one an ellipsis where something was cut."""
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"
