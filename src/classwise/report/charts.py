"""The report's kinds of chart: lines over epochs, classes as dots, predicted against true numbers, and how often
predictions are right."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from markupsafe import Markup

from classwise.report import svg
from classwise.report.names import short_number, shorten
from classwise.report.svg import Axis, Point, text_width

WIDTH, HEIGHT = 360, 232
LEFT, RIGHT = 42, WIDTH - 12  # the frame inside the figure: its left and right edge
TOP, BASE = 14, HEIGHT - 34  # and its upper and lower one

MOST_STRIPS = 200  # of a line chart, each with the values at an epoch

Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Series:
    """One line of a chart. `style` n takes the page's colour and dash n."""

    name: str
    points: list[Point]
    style: int = 0


@dataclass(frozen=True)
class Bin:
    """Claims of about the same probability: their mean `p`, the share that is `right`, their `count`, and the interval
    of the share where there is one."""

    p: float
    right: float
    count: int
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class RecallCurve:
    """One class: its (recall, precision) from threshold to threshold. `style` n takes the page's color and dash n, None
    that of the many."""

    name: str
    legend: str
    points: list[Point]
    style: int | None = None


@dataclass(frozen=True)
class Dot:
    """One class in the scatter chart: `x` a count, `y` a score."""

    label: str
    x: float
    y: float


def line_chart(
    series: Sequence[Series],
    title: str,
    x_label: str,
    *,
    mark: Point | None = None,
    zero: bool = False,
    has_values: bool = False,
) -> Markup:
    """Lines over whole-numbered x (epochs). `mark` is ringed and labeled; with `zero` the y axis starts at 0; with
    `has_values` a page shows the values at an x when the pointer rests there.

    Empty where there is no point at all."""
    points = [point for line in series for point in line.points]
    if not points:
        return Markup("")
    x_axis = _epoch_axis([x for x, _ in points])
    y_axis = _value_axis([y for _, y in points], zero=zero, headroom=mark is not None)

    # Very small or large numbers share a power of ten, so that a tick's text fits beside the axis.
    power = _shared_power(y_axis.high)
    y_labels = [(at, short_number(at / 10**power)) for at in svg.ticks(y_axis.low, y_axis.high)]
    x_labels = [(at, short_number(at)) for at in _epoch_ticks(x_axis)]
    parts = [
        svg.y_grid(y_axis, (LEFT, RIGHT), y_labels),
        *_power_text(power),
        svg.x_axis(x_axis, y=BASE, labels=x_labels, title=x_label),
    ]

    # The most important line comes first in `series` and is drawn last, so that it lies on top.
    lines = [[(x_axis(x), y_axis(y)) for x, y in line.points] for line in series]
    for line, places in reversed(list(zip(series, lines, strict=True))):
        parts.append(_line(line.style, places))
    if mark:
        others = [point for places in lines[1:] for point in places]
        ring = (x_axis(mark[0]), y_axis(mark[1]))
        parts += _marked_best(mark, ring=ring, line=lines[0], others=others)
    if has_values:
        parts += _values_on_hover(series, x_axis, x_label)
    return svg.figure(WIDTH, HEIGHT, title=title, parts=parts)


def scatter_chart(dots: Sequence[Dot], title: str, x_label: str, name_lowest: int = 4) -> Markup:
    """Classes as dots: x a positive count on a logarithmic axis, y a score in [0, 1].

    The `name_lowest` lowest carry their label where there is room for it."""
    if not dots:
        return Markup("")
    fewest = min(dot.x for dot in dots)
    most = max(dot.x for dot in dots)
    x_axis = Axis(low=fewest / 1.25, high=most * 1.25, start=LEFT, end=RIGHT, log=True)
    y_axis = Axis(low=0.0, high=1.0, start=BASE, end=TOP)
    y_labels = [(at, short_number(at)) for at in (0.0, 0.25, 0.5, 0.75, 1.0)]
    x_labels = [(at, short_number(at)) for at in svg.log_ticks(x_axis.low, x_axis.high)]
    parts = [
        svg.y_grid(y_axis, (LEFT, RIGHT), y_labels),
        svg.x_axis(x_axis, y=BASE, labels=x_labels, title=x_label),
    ]
    for dot in dots:
        name = f"{dot.label}: {dot.y:.3f}, {dot.x:,.0f}"
        parts.append(svg.circle("dot", (x_axis(dot.x), y_axis(dot.y)), radius=4, title=name))
    parts += _dot_labels(dots, x_axis=x_axis, y_axis=y_axis, wanted=name_lowest)
    return svg.figure(WIDTH, HEIGHT, title=title, parts=parts)


def agreement_chart(points: Sequence[Point], title: str, name: str) -> Markup:
    """A number's predictions: x the true value, y the predicted one, on one scale; on the line they are equal."""
    if not points:
        return Markup("")
    values = [value for point in points for value in point]
    margin = 0.04 * ((max(values) - min(values)) or abs(max(values)) or 1.0)
    low = min(values) - margin
    high = max(values) + margin
    x_axis = Axis(low=low, high=high, start=LEFT, end=RIGHT)
    y_axis = Axis(low=low, high=high, start=BASE, end=TOP)

    # Both axes have the same ticks and the same power of ten, which the axis title repeats for x.
    power = _shared_power(max(abs(low), abs(high)))
    labels = [(at, short_number(at / 10**power)) for at in svg.ticks(low, high)]
    x_title = f"true {shorten(name, 30)}" + (f" (×10{_superscript(power)})" if power else "")
    parts = [
        svg.y_grid(y_axis, (LEFT, RIGHT), labels),
        *_power_text(power),
        svg.x_axis(x_axis, y=BASE, labels=labels, title=x_title),
        svg.line("same", (LEFT, BASE), (RIGHT, TOP)),
        svg.cloud("cloud", [(x_axis(x), y_axis(y)) for x, y in points], radius=2.5),
    ]
    return svg.figure(WIDTH, HEIGHT, title=title, parts=parts)


def calibration_chart(bins: Sequence[Bin], title: str, subject: str) -> Markup:
    """How often a claim is right (y) against the probability that it gives (x) to `subject`, both in [0, 1]: on the
    line the two are equal. Below stand the numbers of claims, as bars. Empty without bins."""
    if not bins:
        return Markup("")
    x_axis, y_axis, grid = _unit_axes(f"probability of {subject}")
    parts = [
        *_claim_bars(bins, x_axis),
        *grid,
        svg.line("same", (LEFT, BASE), (RIGHT, TOP)),
        _line(0, [(x_axis(one.p), y_axis(one.right)) for one in bins]),
    ]
    for one in bins:
        name = f"{one.p:.1%} claimed, {one.right:.1%} right, {one.count:,} claims"
        if one.interval:
            low, high = one.interval
            name += f"\n95% interval of the share: {low:.1%} to {high:.1%}"
            ends = [(x_axis(one.p), y_axis(end)) for end in one.interval]
            parts.append(svg.line("s0 interval", *ends))
        style = "dot" if one.interval else "dot few"
        parts.append(svg.circle(style, (x_axis(one.p), y_axis(one.right)), radius=4, title=name))
    return svg.figure(WIDTH, HEIGHT, title=title, parts=parts)


def _claim_bars(bins: Sequence[Bin], x_axis: Axis) -> list[Markup]:
    """The number of claims of each bin, as bars of up to a quarter of the height."""
    most = max(one.count for one in bins)
    tallest = (BASE - TOP) / 4
    width = x_axis(0.06) - x_axis(0.0)
    bars = []
    for one in bins:
        left = x_axis(min(int(10 * one.p), 9) / 10 + 0.02)  # in the middle of its tenth
        bar = svg.box("count", (left, BASE), width, one.count / most * tallest)
        bars.append(svg.titled(f"{one.count:,} claims of about {one.p:.0%}", [bar]))
    return bars


def precision_recall_chart(curves: Sequence[RecallCurve], title: str) -> Markup:
    """Precision (y) against recall (x) of classes one by one. Those with a style lie above the others."""
    if not curves:
        return Markup("")
    x_axis, y_axis, parts = _unit_axes("recall")
    for curve in reversed(curves):
        places = [(x_axis(recall), y_axis(precision)) for recall, precision in curve.points]
        style = "other" if curve.style is None else f"s{curve.style}"
        parts.append(svg.titled(curve.name, [svg.polyline("reach", places), svg.polyline(style, places)]))
    return svg.figure(WIDTH, HEIGHT, title=title, parts=parts)


def _unit_axes(x_title: str) -> tuple[Axis, Axis, list[Markup]]:
    """Axes from 0 to 1 for both directions, and their drawing."""
    x_axis = Axis(low=0.0, high=1.0, start=LEFT, end=RIGHT)
    y_axis = Axis(low=0.0, high=1.0, start=BASE, end=TOP)
    labels = [(at, short_number(at)) for at in (0.0, 0.25, 0.5, 0.75, 1.0)]
    y_grid = svg.y_grid(y_axis, (LEFT, RIGHT), labels)
    return x_axis, y_axis, [y_grid, svg.x_axis(x_axis, y=BASE, labels=labels, title=x_title)]


def risk_chart(points: Sequence[tuple[float, float, float]], title: str) -> Markup:
    """The share of wrong answers (y, from 0) against the share of rows that are answered (x), the surest first; of each
    point (threshold, coverage, risk)."""
    x_axis = Axis(low=0.0, high=1.0, start=LEFT, end=RIGHT)
    y_axis = Axis(low=0.0, high=max(0.05, *(risk for _, _, risk in points)), start=BASE, end=TOP)
    x_labels = [(at, short_number(at)) for at in (0.0, 0.25, 0.5, 0.75, 1.0)]
    y_labels = [(at, short_number(round(at, 3))) for at in (0.0, y_axis.high / 2, y_axis.high)]
    places = [(x_axis(coverage), y_axis(risk)) for _, coverage, risk in points]
    parts = [
        svg.y_grid(y_axis, (LEFT, RIGHT), y_labels),
        svg.x_axis(x_axis, y=BASE, labels=x_labels, title="share of rows that are answered"),
        _line(0, places),
    ]
    for place, (threshold, coverage, risk) in zip(places, points, strict=True):
        name = f"from {threshold:.3f} on: {coverage:.1%} answered, {risk:.1%} of them wrong"
        parts.append(svg.circle("dot", place, radius=4, title=name))
    return svg.figure(WIDTH, HEIGHT, title=title, parts=parts)


def _values_on_hover(series: Sequence[Series], x_axis: Axis, x_label: str) -> list[Markup]:
    """For each x a strip over the height of the chart whose title has the values there; of many every n-th."""
    values: dict[float, list[str]] = {}
    for line in series:
        for x, y in line.points:
            values.setdefault(x, []).append(f"{line.name}: {short_number(y)}")
    xs = sorted(values)
    xs = xs[:: -(-len(xs) // MOST_STRIPS)]
    places = [x_axis(x) for x in xs]
    middles = [(left + right) / 2 for left, right in pairwise(places)]
    edges = [LEFT - 6.0, *middles, RIGHT + 6.0]
    strips = []
    for x, (left, right) in zip(xs, pairwise(edges), strict=True):
        name = "\n".join([f"{x_label} {x:.0f}", *values[x]])
        strips.append(svg.strip(name, (left, BASE), right - left, BASE - TOP))
    return strips


def _epoch_axis(xs: list[float]) -> Axis:
    # A run of one epoch still needs an axis with two ends; its point stands in the middle.
    beside = 0.0 if max(xs) > min(xs) else 0.5
    return Axis(low=min(xs) - beside, high=max(xs) + beside, start=LEFT, end=RIGHT)


def _value_axis(ys: list[float], zero: bool, headroom: bool) -> Axis:
    """`headroom` leaves space above the highest value for a text."""
    low = min(0.0, *ys) if zero else min(ys)
    high = max(ys)
    span = (high - low) or abs(high) or 1.0
    if not zero:
        low -= 0.06 * span
    high += (0.16 if headroom else 0.06) * span
    return Axis(low=low, high=high, start=BASE, end=TOP)


def _epoch_ticks(axis: Axis) -> list[float]:
    """Whole numbers, the first epoch among them where it does not touch the next tick."""
    whole = svg.ticks(axis.low, axis.high, whole=True)
    if axis.low % 1:
        return whole  # of a single epoch
    return whole if axis(whole[0]) - axis(axis.low) < 20 else [axis.low, *whole]


def _shared_power(high: float) -> int:
    """The power of ten to take out of an axis whose numbers are very small or very large; else 0."""
    exponent = math.floor(math.log10(abs(high))) if high else 0
    return exponent if exponent < -2 or exponent > 4 else 0


def _power_text(power: int) -> list[Markup]:
    """What the numbers at the y axis are to be multiplied by, above it."""
    return [svg.power_of_ten(0, 9, power)] if power else []


def _superscript(power: int) -> str:
    return str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _line(style: int, places: Sequence[Point]) -> Markup:
    """A line through the pixels `places`; a single point has no line and becomes a dot."""
    if len(places) == 1:
        return svg.circle(f"p{style}", places[0], radius=3)
    return svg.polyline(f"s{style}", places)


def _marked_best(mark: Point, ring: Point, line: Sequence[Point], others: Sequence[Point]) -> list[Markup]:
    """A ring at the pixel `ring` around the best point `mark` (epoch, value), and its value beside its own line:
    above it, or below where another line runs above."""
    x, y = ring
    value = f"{mark[1]:.3f}" if 1e-3 <= abs(mark[1]) < 1000 or not mark[1] else short_number(mark[1])
    content = f"{value} in epoch {mark[0]:.0f}"

    # In the right half the text ends at the ring, so that it stays inside the figure.
    if x > WIDTH / 2:
        anchor = "end"
        left = x - text_width(content)
        right = x + 6
    else:
        anchor = "start"
        left = x - 6
        right = x + text_width(content)

    # The text must clear its own line over its whole width: also between two epochs.
    beside = [b for a, b in line if left <= a <= right]
    beside += np.interp([left, x, right], [a for a, _ in line], [b for _, b in line]).tolist()
    crowded = any(left <= a <= right and y - 26 < b < y for a, b in others)
    baseline = min(max(beside) + 16, BASE - 4) if crowded else min(beside) - 9
    return [
        svg.line("guide", (x, y), (x, BASE)),
        svg.circle("best", ring, radius=4),
        svg.text(
            right if anchor == "end" else left, baseline, content=content, style=f"halo {anchor} strong"
        ),
    ]


def _dot_labels(dots: Sequence[Dot], x_axis: Axis, y_axis: Axis, wanted: int) -> list[Markup]:
    """The labels of the `wanted` lowest dots, as far as they overlap neither a dot nor each other."""
    taken = [_box(x_axis(dot.x) - 4, y_axis(dot.y) + 4, width=8, height=8) for dot in dots]
    parts: list[Markup] = []
    for dot in sorted(dots, key=lambda dot: (dot.y, dot.x))[:wanted]:
        label = shorten(dot.label, 24)
        box = _free_box((x_axis(dot.x), y_axis(dot.y)), text_width(label), taken)
        if box:
            taken.append(box)
            left, _, _, bottom = box
            parts.append(svg.text(left, bottom, content=label, style="halo"))
    return parts


def _free_box(dot: Point, width: float, taken: Sequence[Box]) -> Box | None:
    """Where a label finds room beside, below or above the dot; None where it does not."""
    x, y = dot
    places = [(x + 8, y + 4), (x - 8 - width, y + 4), (x - width / 2, y + 17), (x - width / 2, y - 9)]
    for left, baseline in places:
        box = _box(left, baseline, width=width, height=svg.TEXT_HEIGHT)
        inside = left > LEFT and left + width < WIDTH and TOP < baseline < BASE - 2
        if inside and not any(_overlap(box, other) for other in taken):
            return box
    return None


def _box(left: float, bottom: float, width: float, height: float) -> Box:
    return left, bottom - height, left + width, bottom


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
