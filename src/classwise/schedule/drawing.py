"""The learning rates of one or several runs as an SVG or PNG file, and as text for the terminal."""

import math
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from classwise.errors import OutputError
from classwise.files import refuse_existing, write_bytes, write_text
from classwise.report import svg
from classwise.report.charts import HEIGHT, LEFT, WIDTH, Series, line_chart
from classwise.schedule.rates import Rates

SUFFIXES = (".svg", ".png")
STYLES = 6  # lines that can be told apart
KEY_HEIGHT = 18
MARGIN, TITLE_HEIGHT = 14, 42
DOTS = 400  # points of a line in a drawing
ROWS = 8  # of a chart in the terminal
ASCII_FRAME = str.maketrans("┌┐└┘─│▁┤├┬┴┼", "++++-|_|||||")
SCALE = 2  # pixels of a PNG for each of the SVG


def write_drawing(rates: Sequence[Rates], path: Path, force: bool = False) -> None:
    """Write an SVG or a PNG, by the suffix of `path`. Raises OutputError for another suffix, for a file that exists,
    unless `force` is given, and for more lines than can be told apart."""
    if path.suffix.lower() not in SUFFIXES:
        raise OutputError(f"--out: found {str(path)!r}; allowed: a name that ends in {' or '.join(SUFFIXES)}")
    if len(rates) > STYLES:
        raise OutputError(
            f"--out: found {len(rates)} lines; allowed: up to {STYLES}, which can be told apart"
        )
    refuse_existing(path, force)
    drawing = drawing_of(rates)
    if path.suffix.lower() == ".svg":
        write_text(path, drawing)
    else:
        write_bytes(path, _png(drawing))


def drawing_of(rates: Sequence[Rates]) -> str:
    """All lines in one chart, as a whole SVG file; a key below it names them."""
    title = "Learning rate"
    series = [Series(line.name, thinned(line), style) for style, line in enumerate(rates)]
    chart = line_chart(series, title, "epoch", zero=True)

    # The key, and once for each config what was assumed.
    rows: list[list[Markup]] = [_key(style, line) for style, line in enumerate(rates)]
    notes = dict.fromkeys(line.note for line in rates if line.note)
    rows += [[svg.text(0, 0, note, "")] for note in notes]
    keys = [svg.moved(LEFT, HEIGHT + KEY_HEIGHT * (place + 1), row) for place, row in enumerate(rows)]
    drawing = svg.moved(MARGIN, TITLE_HEIGHT, [_inner(chart), *keys])
    height = TITLE_HEIGHT + HEIGHT + KEY_HEIGHT * (len(rows) + 1)
    heading = svg.text(MARGIN, 24, title, "title")
    return svg.file(WIDTH + 2 * MARGIN, height, title=title, parts=[heading, drawing])


def terminal_text(rates: Sequence[Rates], columns: int, plain: bool = False) -> str:
    """A chart for each config, one below the other, at most `columns` wide; `plain`: in ASCII. Of the backbone's rates,
    which have the same course, only their size is said."""
    blocks: list[str] = []
    for line in rates:
        if line.part == "backbone":
            blocks[-1] += f"\n{_heading(line)}"
        else:
            blocks.append(_terminal_chart(line, columns, plain))
    text = "\n\n".join(blocks)
    return text.translate(ASCII_FRAME) if plain else text


def _terminal_chart(line: Rates, columns: int, plain: bool) -> str:
    from uniplot import plot_to_string

    # The chart's numbers have few digits, so they are brought to between 1 and 10.
    highest = line.highest
    power = math.floor(math.log10(highest)) if highest else 0
    points = thinned(line)
    chart = plot_to_string(
        xs=[x for x, _ in points],
        ys=[lr / 10**power for _, lr in points],
        lines=True,
        width=max(20, min(60, columns - 16)),
        height=ROWS,
        y_min=0,
        y_max=highest / 10**power * 1.05 or 1,
        x_min=0,
        x_max=max(1, points[-1][0]),
        character_set="ascii" if plain else "braille",
    )
    note = f"{line.note}\n" if line.note else ""
    return f"{_heading(line)}\n{note}{chart.rstrip()}\nx: epoch; y: learning rate, x 1e{power}"


def _heading(line: Rates) -> str:
    first, last = line.points[0][1], line.points[-1][1]
    return f"{line.name}: {line.schedule}, from {first:.3g} to {last:.3g}, highest {line.highest:.3g}"


def thinned(line: Rates) -> list[tuple[float, float]]:
    """At most about DOTS points: every so many of them, and those before and after a jump."""
    points = line.points
    step = max(1, len(points) // DOTS)
    highest = line.highest
    kept = {0, len(points) - 1, *range(0, len(points), step)}
    for i in range(1, len(points)):
        if abs(points[i][1] - points[i - 1][1]) > highest / 20:
            kept |= {i - 1, i}
    return [points[i] for i in sorted(kept)]


def _key(style: int, line: Rates) -> list[Markup]:
    """A piece of the line, and its name."""
    text = svg.fit(f"{line.name}: {line.schedule}", WIDTH - LEFT - 30)
    return [svg.line(f"key s{style}", (0, -4), (18, -4)), svg.text(24, 0, text, "label")]


def _inner(figure: Markup) -> Markup:
    """What is inside the svg element of a figure."""
    return Markup(figure[figure.index(">") + 1 : figure.rindex("</svg>")])


def _png(drawing: str) -> bytes:
    """The drawing as a PNG. Raises OutputError where the package that draws it is not installed."""
    try:
        from resvg_py import svg_to_bytes
    except ImportError:
        raise OutputError('--out: a PNG needs the package resvg_py: pip install "classwise[png]"') from None
    return bytes(svg_to_bytes(svg_string=drawing, zoom=SCALE, background="white"))
