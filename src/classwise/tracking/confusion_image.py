"""A confusion matrix as a PNG file, which every tracker can show: the colors are those of the report."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from classwise.files import write_bytes
from classwise.metrics.confusion import Confusion, confusion_from_json
from classwise.report import svg
from classwise.report.confusion import strength

SIDE = 600  # pixels that the cells take at the most
CELL = 44  # pixels of a cell at the most
WITH_NUMBERS = 22  # pixels of a cell from which on its count stands in it
WITH_LABELS = 12  # and from which on the classes are named
LABEL_WIDTH = 150
LEAST_WIDTH = 320  # of the image
TITLE_SCALE = 1.4  # its letters are so much larger than those that svg.fit knows, and bold
MARGIN = 16
HEAD = 62  # pixels above the names of the columns: title and caption
SCALE = 2  # device pixels, for sharp text
RIGHT = "#0062a8"
WRONG = "#c25200"


def write_confusion_images(folder: Path, metrics: Mapping[str, Any]) -> dict[str, str]:
    """Draw the confusion matrix of every target in `metrics` (metrics.json) that has one, and of the joint class;
    returns the files by `confusion/NAME`."""
    tables = dict(metrics["targets"]) | ({"joint": metrics["joint"]} if metrics.get("joint") else {})
    files = {}
    for name, scores in tables.items():
        labels = scores.get("labels") or [row["label"] for row in scores.get("per_class", ())]
        confusion = confusion_from_json(scores.get("confusion"), len(labels))
        if confusion is not None:
            path = folder / f"confusion-{name}.png"
            write_bytes(path, png(confusion_svg(name, confusion, labels)))
            files[f"confusion/{name}"] = str(path)
    return files


def png(drawing: str) -> bytes:
    """An SVG as a PNG file, with the fonts of this machine."""
    from resvg_py import svg_to_bytes

    return bytes(svg_to_bytes(svg_string=drawing, zoom=SCALE, background="white"))


def confusion_svg(name: str, confusion: Confusion, labels: Sequence[str]) -> str:
    """The matrix as an SVG file: rows true, columns predicted; a cell's color is its share of the row. Where there are
    too many classes for names and counts, the colors alone."""
    cell = min(CELL, SIDE / max(confusion.classes, 1))
    side = cell * confusion.classes
    names = [svg.fit(str(label), LABEL_WIDTH) for label in labels] if cell >= WITH_LABELS else []
    room = max((svg.text_width(text) for text in names), default=0) + 8
    left, top = MARGIN + 16 + room, HEAD + room

    width = max(left + side + MARGIN, LEAST_WIDTH)
    title = svg.fit(f"Confusion matrix: {name}", (width - 2 * MARGIN) / TITLE_SCALE)
    parts = [
        svg.text(MARGIN, 24, title, "title"),
        svg.text(MARGIN, 44, "rows: true, columns: predicted", ""),
        svg.moved(left, top, _cells(confusion, cell)),
        _frame(left, top, side),
    ]
    for index, text in enumerate(names):
        middle = (index + 0.5) * cell
        parts.append(svg.text(left - 6, top + middle + 3.8, text, "end label"))
        parts.append(_upright(left + middle + 3.8, top - 6, text))
    return svg.file(width, top + side + MARGIN, f"confusion matrix of {name}", parts)


def _cells(confusion: Confusion, cell: float) -> list[Markup]:
    """The cells that are not empty, in the order of the matrix."""
    support_K = confusion.support
    shape = Markup('<rect x="{}" y="{}" width="{}" height="{}" fill="{}" fill-opacity="{}"/>')
    number = Markup('<text class="middle" x="{}" y="{}" style="fill: {}">{}</text>')
    parts = []
    for true, predicted, count in zip(confusion.true, confusion.predicted, confusion.count, strict=True):
        shade = strength(count / support_K[true])
        x, y = (round(index * cell, 2) for index in (predicted, true))
        size = round(cell, 2)
        color = RIGHT if true == predicted else WRONG
        parts.append(shape.format(x, y, size, size, color, round(shade, 3)))
        if cell >= WITH_NUMBERS:
            ink = "#fff" if shade > 0.6 else "#1c2024"
            parts.append(number.format(round(x + cell / 2, 1), round(y + cell / 2 + 3.8, 1), ink, count))
    return parts


def _frame(left: float, top: float, side: float) -> Markup:
    shape = Markup('<rect class="grid" x="{}" y="{}" width="{}" height="{}" fill="none"/>')
    return shape.format(*(round(value, 1) for value in (left, top, side, side)))


def _upright(x: float, y: float, content: str) -> Markup:
    """Text that runs upwards from (x, y)."""
    shape = Markup('<text class="label" transform="translate({}, {}) rotate(-90)">{}</text>')
    return shape.format(round(x, 1), round(y, 1), content)
