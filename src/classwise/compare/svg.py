"""A comparison as an image. Text stays text, as in `report/figures.py`; every name is escaped by markupsafe."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from classwise.compare.stats import Summary
from classwise.compare.text import ALPHA, digits_for, direction, fixed, p_text, score_name, shown, signed
from classwise.report.figures import Axis, plain, text_width, ticks

WIDTH, GAP = 360, 40
LEFT, RIGHT, TOP, BOTTOM, ROW = 4, 4, 6, 36, 40

# For the image on its own, which no page lends its colours to: plain values, so that every program draws it.
STYLE = """
svg { background: #fff; font-family: Inter, "Segoe UI", Roboto, "Noto Sans", "Noto Sans CJK KR", sans-serif; }
text { font-size: 11px; fill: #5b636d; }
.end { text-anchor: end; } .middle { text-anchor: middle; } .label, .title { fill: #1c2024; }
.halo { paint-order: stroke; stroke: #fff; stroke-width: 3px; stroke-linejoin: round; }
.title { font-size: 14px; font-weight: 600; }
.grid { stroke: #e4e0d8; } .axis { stroke: #5b636d; } .guide { stroke: #5b636d; stroke-dasharray: 2 3; }
.s0 { stroke: #0062a8; } .s1 { stroke: #c25200; } .s4 { stroke: #6b7480; }
.p0 { fill: #0062a8; } .p1 { fill: #c25200; } .p4 { fill: #6b7480; }
"""


@dataclass(frozen=True)
class Mark:
    """One row of a panel: a mean, its interval, single values. `style` n takes the page's colour n."""

    label: str
    text: str
    mean: float
    interval: tuple[float, float] | None
    points: tuple[float, ...]
    style: int


@dataclass(frozen=True)
class Panel:
    """A drawing WIDTH wide and `height` high."""

    title: str
    drawing: Markup
    height: int

    @property
    def svg(self) -> Markup:
        """The drawing for a page that has the style sheet."""
        return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
            WIDTH, self.height, self.title, self.drawing
        )


def panels(
    summary: Sequence[Summary], values: dict[str, dict[int, float]], metric: str, higher: bool
) -> list[Panel]:
    """Every variant's mean with its runs, and every difference to the first; only what there is."""
    digits, name = digits_for(summary, metric), score_name(metric)
    own = [_own_mark(row, list(values[row.variant].values()), digits) for row in summary if row.own]
    against = [_difference_mark(row, digits, higher) for row in summary if row.difference]
    found = []
    if own:
        title = f"{name} of every run, and the mean"
        found.append(_panel(own, title, f"{name}, {direction(higher)}", None))
    if against:
        first = _cut(shown(summary[0].variant), 190)
        title = f"Difference in {name} to {first}"
        found.append(_panel(against, title, f"difference to {first}", 0.0))
    return found


def chart(drawn: Sequence[Panel], title: str) -> str:
    """`drawn` side by side as one SVG file that needs nothing else."""
    width = len(drawn) * (WIDTH + GAP) + GAP // 2
    height = max((panel.height for panel in drawn), default=0) + 64
    parts = [
        Markup('<text class="title" x="20" y="26">{}</text>').format(_cut(title, width * 0.72)),
        *(
            Markup(
                '<g transform="translate({}, 56)"><text class="label" x="{}" y="-8">{}</text>{}</g>'
            ).format(20 + index * (WIDTH + GAP), LEFT, panel.title, panel.drawing)
            for index, panel in enumerate(drawn)
        ),
    ]
    return Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" viewBox="0 0 {w} {h}" role="img"'
        ' aria-label="{}"><style>{}</style><rect width="100%" height="100%" fill="#fff"/>{}</svg>\n'
    ).format(title, Markup(STYLE), Markup("").join(parts), w=width, h=height)


def _own_mark(row: Summary, numbers: list[float], digits: int) -> Mark:
    assert row.own is not None
    text = fixed(row.own.mean, digits)
    if row.own.interval:
        text += " ± " + fixed(row.own.interval[1] - row.own.mean, digits)
    style = 0 if row.difference else 4
    return Mark(shown(row.variant), text, row.own.mean, row.own.interval, tuple(numbers), style)


def _difference_mark(row: Summary, digits: int, higher: bool) -> Mark:
    d = row.difference
    assert d is not None
    clear = d.p_holm is not None and d.p_holm < ALPHA
    style = 4 if not clear else 0 if (d.mean > 0) == higher else 1
    text = signed(d.mean, digits) + ("" if d.p_holm is None else f", p {p_text(d.p_holm)}")
    return Mark(shown(row.variant), text, d.mean, d.interval, (), style)


def _panel(marks: Sequence[Mark], title: str, below: str, zero: float | None) -> Panel:
    """One row a mark: the name and the number above, interval, single values and mean below them."""
    numbers = [x for mark in marks for x in (mark.mean, *mark.points, *(mark.interval or ()))]
    numbers += [] if zero is None else [zero]
    low, high = min(numbers), max(numbers)
    pad = 0.06 * ((high - low) or abs(high) or 1.0)
    axis = Axis(low - pad, high + pad, LEFT, WIDTH - RIGHT)
    base = TOP + ROW * len(marks)
    rows = [_row(mark, axis, TOP + ROW * index) for index, mark in enumerate(marks)]
    guide = [] if zero is None else [_vertical("guide", axis(zero), base)]
    drawing = Markup("").join([_scale(axis, base, below), *guide, *rows])
    return Panel(title, drawing, base + BOTTOM)


def _scale(axis: Axis, base: int, below: str) -> Markup:
    places = ticks(axis.low, axis.high)
    grid = [_vertical("grid", axis(at), base) for at in places]
    # A number at the very end would stick out of the drawing.
    inside = [
        (at, plain(at)) for at in places if abs(axis(at) - WIDTH / 2) + text_width(plain(at)) / 2 < WIDTH / 2
    ]
    text = Markup('<text class="middle" x="{:.1f}" y="{}">{}</text>')
    numbers = [text.format(axis(at), base + 14, name.replace("-", "−")) for at, name in inside]
    line = Markup('<line class="axis" x1="{}" x2="{}" y1="{y}" y2="{y}"/>').format(
        LEFT, WIDTH - RIGHT, y=base
    )
    return Markup("").join([*grid, line, *numbers, text.format(WIDTH / 2, base + 30, below)])


def _vertical(style: str, x: float, base: int) -> Markup:
    return Markup('<line class="{}" x1="{x}" x2="{x}" y1="{}" y2="{}"/>').format(
        style, TOP, base, x=f"{x:.1f}"
    )


def _row(mark: Mark, axis: Axis, top: int) -> Markup:
    y = top + 25
    room = WIDTH - LEFT - RIGHT - text_width(mark.text) - 12
    text = Markup('<text class="{}" x="{}" y="{}">{}</text>')
    parts = [
        text.format("label strong halo", LEFT, top + 14, _cut(mark.label, room)),
        text.format("end halo", WIDTH - RIGHT, top + 14, mark.text),
    ]
    dot = Markup('<circle class="p{}" cx="{:.1f}" cy="{}" r="{}" fill-opacity="{}"/>')
    if mark.interval:
        line = Markup('<line class="s{}" stroke-width="2.2" x1="{:.1f}" x2="{:.1f}" y1="{y}" y2="{y}"/>')
        parts.append(line.format(mark.style, axis(mark.interval[0]), axis(mark.interval[1]), y=y))
    if len(mark.points) > 1:
        parts += [dot.format(mark.style, axis(value), y + 8, 2.2, 0.6) for value in mark.points]
    parts.append(dot.format(mark.style, axis(mark.mean), y, 5, 1))
    return Markup("<g><title>{}: {}</title>{}</g>").format(mark.label, mark.text, Markup("").join(parts))


def _cut(text: str, pixels: float) -> str:
    """`text` cut so that it takes about `pixels`, the last character an ellipsis then."""
    if text_width(text) <= pixels:
        return text
    while text and text_width(text) > pixels - 11:
        text = text[:-1]
    return text.rstrip() + "…"
