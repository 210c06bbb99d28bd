"""The chart of a comparison: every variant's mean with its runs, and every difference to the baseline variant."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from classwise.compare.stats import Summary
from classwise.compare.text import digits_for, direction, fixed, score_name, shown, signed
from classwise.report import svg
from classwise.report.names import short_number
from classwise.report.svg import Axis, text_width

WIDTH = 360  # of a panel
ROW = 40  # height of one variant
LEFT, RIGHT, TOP = 4, WIDTH - 4, 6
AXIS_HEIGHT = 36
# In the file, where the panels stand side by side under a title.
MARGIN, GAP, TITLES_HEIGHT = 20, 40, 56
BELOW = 8

# The page's colours by number.
BLUE, ORANGE, GREEN, GRAY = 0, 1, 2, 4
STYLES = {"better": BLUE, "worse": ORANGE, "equivalent": GREEN, "undecided": GRAY}


@dataclass(frozen=True)
class Row:
    """One row of a panel: a mean with its interval, and the single runs. `style` is the number of a colour."""

    label: str
    text: str
    mean: float
    interval: tuple[float, float] | None
    runs: tuple[float, ...]
    style: int


@dataclass(frozen=True)
class Panel:
    """A drawing WIDTH pixels wide and `height` high."""

    title: str
    drawing: Markup
    height: int

    @property
    def svg(self) -> Markup:
        """The drawing as an element of a page that has the report's style sheet."""
        return svg.figure(WIDTH, self.height, title=self.title, parts=[self.drawing])


def panels(
    summary: Sequence[Summary], values: dict[str, dict[int, float]], metric: str, higher: bool
) -> list[Panel]:
    """The scores, and the differences to the first variant; each only where there is one to show.

    `values`: the score by seed, by variant. `higher`: whether a higher score is better."""
    digits = digits_for(summary, metric)
    name = score_name(metric)
    drawn = []

    scores = [_score_row(row, list(values[row.variant].values()), digits) for row in summary if row.score]
    if scores:
        title = f"{name} of every run, and the mean"
        drawn.append(_panel(scores, title=title, axis_title=f"{name}, {direction(higher)}", zero=False))

    differences = [_difference_row(row, digits) for row in summary if row.difference]
    if differences:
        baseline = svg.fit(shown(summary[0].variant), 190)
        title = f"Difference in {name} from {baseline}"
        axis_title = f"difference from {baseline}"
        drawn.append(_panel(differences, title=title, axis_title=axis_title, zero=True))
    return drawn


def chart_file(drawn: Sequence[Panel], title: str) -> str:
    """The panels side by side as one SVG file."""
    width = len(drawn) * (WIDTH + GAP) + MARGIN
    height = TITLES_HEIGHT + max((panel.height for panel in drawn), default=0) + BELOW
    parts = [svg.text(MARGIN, 26, svg.fit(title, width * 0.72), "title")]
    for index, panel in enumerate(drawn):
        panel_title = svg.text(LEFT, -8, panel.title, "label")
        x = MARGIN + index * (WIDTH + GAP)
        parts.append(svg.moved(x, TITLES_HEIGHT, [panel_title, panel.drawing]))
    return svg.file(width, height, title=title, parts=parts)


def _score_row(row: Summary, runs: list[float], digits: int) -> Row:
    assert row.score is not None
    text = fixed(row.score.mean, digits)
    if row.score.interval:
        low, high = (fixed(end, digits) for end in row.score.interval)
        text += f" [{low}, {high}]"
    return Row(
        label=shown(row.variant),
        text=text,
        mean=row.score.mean,
        interval=row.score.interval,
        runs=tuple(runs),
        style=BLUE if row.difference else GRAY,
    )


def _difference_row(row: Summary, digits: int) -> Row:
    """Coloured by the verdict: blue for better, orange for worse, green for equivalent, gray for undecided."""
    difference = row.difference
    assert difference is not None
    text = signed(difference.mean, digits)
    if difference.p_holm is not None:
        text += f", {difference.verdict}"
    return Row(
        label=shown(row.variant),
        text=text,
        mean=difference.mean,
        interval=difference.interval,
        runs=(),
        style=STYLES[difference.verdict],
    )


def _panel(rows: Sequence[Row], title: str, axis_title: str, zero: bool) -> Panel:
    """The rows above one axis; `zero` draws a line there."""
    # The axis spans everything that is drawn, with a little room at both ends.
    numbers = [x for row in rows for x in (row.mean, *row.runs, *(row.interval or ()))]
    numbers += [0.0] if zero else []
    low = min(numbers)
    high = max(numbers)
    margin = 0.06 * ((high - low) or abs(high) or 1.0)
    axis = Axis(low=low - margin, high=high + margin, start=LEFT, end=RIGHT)
    base = TOP + ROW * len(rows)

    # A tick's text at the very end would stick out of the drawing.
    labels = [(at, short_number(at)) for at in svg.ticks(axis.low, axis.high)]
    inside = [
        (at, tick) for at, tick in labels if abs(axis(at) - WIDTH / 2) + text_width(tick) / 2 < WIDTH / 2
    ]
    parts = [svg.line("grid", (axis(at), TOP), (axis(at), base)) for at, _ in labels]
    parts.append(svg.x_axis(axis, y=base, labels=inside, title=axis_title))
    if zero:
        parts.append(svg.line("guide", (axis(0.0), TOP), (axis(0.0), base)))
    parts += [_draw_row(row, axis, TOP + ROW * index) for index, row in enumerate(rows)]
    return Panel(title, Markup("").join(parts), base + AXIS_HEIGHT)


def _draw_row(row: Row, axis: Axis, top: int) -> Markup:
    """Label and numbers; below them the interval and the mean; below these the single runs."""
    y = top + 25
    room = RIGHT - LEFT - text_width(row.text) - 12
    parts = [
        svg.text(LEFT, top + 14, svg.fit(row.label, room), "label strong halo"),
        svg.text(RIGHT, top + 14, row.text, "end halo"),
    ]
    if row.interval:
        low, high = row.interval
        parts.append(svg.line(f"s{row.style} interval", (axis(low), y), (axis(high), y)))
    # A single run is the mean, which is drawn anyway.
    if len(row.runs) > 1:
        parts += [svg.circle(f"p{row.style} run", (axis(value), y + 8), radius=2.2) for value in row.runs]
    parts.append(svg.circle(f"p{row.style}", (axis(row.mean), y), radius=5))
    return svg.titled(f"{row.label}: {row.text}", parts)
