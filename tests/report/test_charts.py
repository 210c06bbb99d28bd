"""The charts and their scales: what is drawn stands where its number says."""

import math
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classwise import report
from classwise.report import svg
from classwise.report.charts import HEIGHT, WIDTH, Dot, Series, agreement_chart, line_chart, scatter_chart
from classwise.report.names import short_number, shorten
from classwise.report.svg import fit, log_ticks, text_width, ticks

finite = st.floats(-1e6, 1e6).filter(lambda value: value == 0 or abs(value) > 1e-6)


@given(finite, st.floats(1e-6, 1e6))
def test_ticks_are_round_few_and_inside(low: float, span: float) -> None:
    """Two to seven ticks inside the axis, evenly spaced by 1, 2 or 5 times a power of ten."""
    places = ticks(low, low + span)
    assert 2 <= len(places) <= 7
    step = places[1] - places[0]
    slack = 1e-6 * (abs(low) + span)
    assert low - slack <= places[0]
    assert places[-1] <= low + span + slack
    if step > 1e-9 * abs(low):  # below that the difference itself is rounding
        mantissa = step / 10 ** math.floor(math.log10(step) + 1e-6)
        assert min(abs(mantissa - factor) for factor in (1, 2, 5, 10)) < 1e-2


@given(st.integers(1, 10**6), st.floats(1.3, 1e5))
def test_log_ticks_are_inside(low: int, ratio: float) -> None:
    """At least one tick, none outside the axis, at most one a factor of two apart."""
    places = log_ticks(float(low), low * ratio)
    assert places
    assert all(low <= tick <= low * ratio for tick in places)
    assert len(set(places)) == len(places)


@given(st.lists(st.tuples(st.integers(1, 500), finite), max_size=40), st.booleans())
def test_line_chart_draws_inside_its_frame(points: list[tuple[int, float]], zero: bool) -> None:
    """Any finite values, one point or equal values included, give well-formed SVG inside the frame."""
    line = Series("a", [(float(x), y) for x, y in sorted(points)])
    svg = line_chart([line], "title", "epoch", mark=line.points[0] if points else None, zero=zero)
    if not points:
        assert svg == ""
        return
    drawn = [path for path in ET.fromstring(svg).iter() if path.get("points")]
    for x, y in (pair.split(",") for path in drawn for pair in path.attrib["points"].split()):
        assert 0 <= float(x) <= WIDTH
        assert 0 <= float(y) <= HEIGHT


def test_line_chart_is_linear() -> None:
    """Evenly spaced values are drawn at even distances, a larger value higher up."""
    svg = line_chart([Series("a", [(1, 0.1), (2, 0.2), (3, 0.3)])], "t", "epoch")
    (places,) = re.findall(r'points="([^"]*)"', svg)
    (x1, y1), (x2, y2), (x3, y3) = (map(float, pair.split(",")) for pair in places.split())
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.11)
    assert y1 - y2 == pytest.approx(y2 - y3, abs=0.11)
    assert y1 > y2 > y3


def test_small_numbers_share_their_power_of_ten() -> None:
    """A learning rate of 1e-5 is read off ticks such as 0.5 and 1 with ×10 to the −5 at the axis."""
    texts = [
        node.text for node in ET.fromstring(line_chart([Series("", [(1, 1e-5), (2, 5e-6)])], "", "")).iter()
    ]
    assert "−5" in texts
    assert "1" in texts


def test_scatter_labels_the_lowest_and_escapes() -> None:
    """The weakest class is named beside its dot, as text whatever it holds."""
    dots = [Dot("<weak>", 5, 0.1), Dot("fine", 500, 0.9)]
    svg = scatter_chart(dots, "t", "x", name_lowest=1)
    labels = [node.text for node in ET.fromstring(svg).iter("text") if node.get("class") == "halo"]
    assert labels == ["<weak>"]


@given(st.lists(st.tuples(finite, finite), max_size=30))
def test_agreement_chart_has_one_scale(points: list[tuple[float, float]]) -> None:
    """Any finite values are drawn inside the frame; a prediction above the truth lies above the line from corner to
    corner, one below it below, an exact one on it."""
    svg = agreement_chart(points, "t", "<years>")
    if not points:
        assert svg == ""
        return
    tree = ET.fromstring(svg)
    (line,) = (node for node in tree.iter("line") if node.get("class") == "same")
    x1, y1, x2, y2 = (float(line.attrib[key]) for key in ("x1", "y1", "x2", "y2"))
    drawn = [(float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in tree.iter("circle")]
    assert len(drawn) == len(points)
    for (truth, predicted), (x, y) in zip(points, drawn, strict=True):
        assert 0 <= x <= WIDTH
        assert 0 <= y <= HEIGHT
        above = y1 + (x - x1) / (x2 - x1) * (y2 - y1) - y  # pixels over the line
        assert abs(above) <= 0.2 or (above > 0) == (predicted > truth)
        assert predicted != truth or abs(above) <= 0.2
    assert any("<years>" in (node.text or "") for node in tree.iter("text"))


def test_agreement_chart_takes_out_powers_of_ten() -> None:
    """Prices of hundreds of thousands are read off short ticks; both axes say what to multiply by."""
    svg = agreement_chart([(2e5, 3e5), (9e5, 8e5)], "t", "price")
    texts = [node.text for node in ET.fromstring(svg).iter("text")]
    assert "true price (×10⁵)" in texts
    assert "×10" in texts
    assert texts.count("8") == 2


def test_texts_of_numbers() -> None:
    """Ticks show the digits that tell them apart; long labels end in an ellipsis."""
    assert [short_number(v) for v in (0.30000000000000004, -2.0, 12000.0)] == ["0.3", "−2", "12,000"]
    assert short_number(-12345.6) == "−12,346"
    assert shorten("가" * 30, 10) == "가" * 9 + "…"
    assert shorten("short", 10) == "short"


@given(st.text(st.sampled_from("abc 가나다"), max_size=40), st.integers(20, 300))
def test_text_is_cut_to_the_room_there_is(text: str, pixels: int) -> None:
    """What fits stays whole; else its beginning stays, and it takes no more room than there is."""
    cut = fit(text, pixels)
    assert text_width(cut) <= pixels
    assert cut == text or (cut.endswith("…") and text.startswith(cut[:-1]) and text_width(text) > pixels)


def test_the_signs_of_a_shape_take_more_room() -> None:
    """× is half as wide again as a letter: a shape that is cut by the width of letters runs over its box."""
    assert text_width("3×3×3") > text_width("3x3x3")
    assert fit("112 ops · 128×1280×28×28", 156).endswith("…")


def test_a_file_has_the_pages_colours() -> None:
    """An SVG file cannot read the style sheet's variables; the colours that it writes out are the sheet's own."""
    sheet = (Path(report.__path__[0]) / "style.css").read_text(encoding="utf-8")
    colours = re.findall(r"#[0-9a-f]{3,6}\b", svg.FILE_STYLE)
    assert len(colours) > 5
    assert set(colours) <= set(re.findall(r"#[0-9a-f]{3,6}\b", sheet))
