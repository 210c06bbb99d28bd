"""The image and the page of a comparison: numbers where they belong, and hostile names harmless."""

import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest

from classwise.compare.page import write_results
from classwise.compare.result import Comparison, Result, values_of
from classwise.compare.stats import Design, Runs, summarize
from classwise.compare.text import signed

DESIGN = Design(scored=20, trained=60, rows=100, units=20, redrawn=True)
SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = [
    "base",
    "<script>alert(1)</script>",
    '" onload="alert(1)',
    "{{ 7 * 7 }}</style>]]>",
    "착용 " * 40,
    "\x1b[31mred\x00\u202e",
    "'; DROP & מרחבא",
]


class Elements(HTMLParser):
    """The elements, attributes and text that a browser would find."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: Counter[str] = Counter()
        self.attributes: Counter[str] = Counter()
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += 1
        self.attributes.update(name for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


def fabricate(
    folder: Path,
    values: Mapping[str, Mapping[int, float | None]],
    metric: str = "macro_f1",
    higher: bool = True,
) -> Comparison:
    """A comparison with these scores; None is a run that failed."""
    results = tuple(
        Result(variant, seed, folder, "finished", "", metric, value, 0.9, 3, 1.5, {"accuracy": value})
        if value is not None
        else Result(variant, seed, folder, "failed", f"{variant}: <b>no</b>", "", None, None, None, None, {})
        for variant, scores in values.items()
        for seed, value in scores.items()
    )
    runs = {variant: Runs(scores, {}) for variant, scores in values_of(results).items()}
    summary = tuple(summarize(runs, DESIGN, margin=0.01, higher=higher))
    found = Comparison(
        folder,
        metric,
        higher,
        scored="rows that <b>nobody</b> chose by",
        margin=0.01,
        results=results,
        summary=summary,
        warnings=("<i>a warning</i>",),
    )
    write_results(found)
    return found


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """Seven variants with names that want to break out, one of them with a failed run."""
    values = {
        name: {seed: 0.5 + 0.02 * i + 0.01 * ((seed * (i + 3)) % 5) for seed in range(4)}
        for i, name in enumerate(HOSTILE)
    }
    fabricate(tmp_path, {**values, HOSTILE[1]: {**values[HOSTILE[1]], 0: None}})
    return tmp_path


def test_hostile_names_stay_text(hostile: Path) -> None:
    """No element or attribute comes out of a name; the policy forbids what the page has no need of."""
    source = (hostile / "compare.html").read_text(encoding="utf-8")
    found = Elements(source)
    assert not {"script", "img", "b", "i", "iframe"} & set(found.elements)
    assert found.elements["style"] == 1
    assert not {name for name in found.attributes if name.startswith("on")}
    assert "default-src 'none'" in source
    assert not re.search(r"https?://(?!www\.w3\.org)", source)
    for name in HOSTILE[:4]:
        assert name in found.text
    assert "\x1b" not in source
    assert "\u202e" not in source


def test_the_image_is_whole_on_its_own(hostile: Path) -> None:
    """Well-formed XML with every name in it, that asks for nothing; all that is drawn lies inside."""
    root = ET.fromstring((hostile / "compare.svg").read_text(encoding="utf-8"))
    width, height = (float(root.attrib[key]) for key in ("width", "height"))
    assert {node.tag.removeprefix(SVG) for node in root.iter()} <= {
        *("svg", "style", "rect", "g", "text", "title", "line", "circle"),
    }
    titles = [node.text or "" for node in root.iter(f"{SVG}title")]
    assert any(title.startswith("<script>") for title in titles)
    for group in root.findall(f"{SVG}g"):
        left = float(re.findall(r"translate\((\d+)", group.attrib["transform"])[0])
        for circle in group.iter(f"{SVG}circle"):
            assert 0 <= left + float(circle.attrib["cx"]) <= width
            assert 0 <= float(circle.attrib["cy"]) <= height


def test_marks_stand_where_their_numbers_say(tmp_path: Path) -> None:
    """Means are drawn at even distances for even values, single runs and intervals around them, in their order."""
    fabricate(tmp_path, {n: {s: 0.2 + 0.1 * i + 0.01 * s for s in range(3)} for i, n in enumerate("abc")})
    root = ET.fromstring((tmp_path / "compare.svg").read_text(encoding="utf-8"))
    own, against = root.findall(f"{SVG}g")
    circles = [(float(c.attrib["cx"]), float(c.attrib["r"])) for c in own.iter(f"{SVG}circle")]
    means = [x for x, radius in circles if radius == 5]
    assert means[1] - means[0] == pytest.approx(means[2] - means[1], abs=0.11)
    assert means[1] - means[0] == pytest.approx(10 * (circles[1][0] - circles[0][0]), abs=1.1)
    assert len(circles) == 3 * 4
    for row in own.findall(f"{SVG}g"):
        line = row.find(f"{SVG}line")
        assert line is not None
        mean = float(row.findall(f"{SVG}circle")[-1].attrib["cx"])
        assert float(line.attrib["x1"]) < mean < float(line.attrib["x2"])
        assert mean - float(line.attrib["x1"]) == pytest.approx(float(line.attrib["x2"]) - mean, abs=0.11)
    zero = next(line for line in against.findall(f"{SVG}line") if line.attrib["class"] == "guide")
    assert all(float(c.attrib["cx"]) > float(zero.attrib["x1"]) for c in against.iter(f"{SVG}circle"))


@pytest.mark.parametrize(("higher", "style"), [(True, "p0"), (False, "p1")])
def test_the_colour_knows_which_way_is_better(tmp_path: Path, higher: bool, style: str) -> None:
    """The same clear rise is blue for a score, orange for an error; an unclear one gray, a negligible one green."""
    steps = {
        "base": [0] * 5,
        "up": [3.1, 3.2, 3.0, 3.1, 3.2],
        "noise": [1.0, -1.1, 0.9, -1.0, 0.1],
        "same": [1e-4, -1e-4, 0, 2e-4, -1e-4],
    }
    values = {name: {s: 30 + s + step for s, step in enumerate(row)} for name, row in steps.items()}
    found = fabricate(tmp_path, values, "age.mae", higher)
    root = ET.fromstring((tmp_path / "compare.svg").read_text(encoding="utf-8"))
    against = root.findall(f"{SVG}g")[1]
    assert [circle.attrib["class"] for circle in against.iter(f"{SVG}circle")] == [style, "p4", "p2"]
    assert ("higher" if higher else "lower") + " is better" in (tmp_path / "compare.html").read_text()
    assert found.table[1][:3] == ["base", "5", "32.00"]
    assert found.table[2][5] == "+3.12"
    verdicts = ["better" if higher else "worse", "undecided", "equivalent"]
    assert [row[-1] for row in found.table] == ["verdict", "", *verdicts]
    assert pl.read_csv(tmp_path / "summary.csv")["verdict"].to_list() == [None, *verdicts]


def test_the_tables_hold_every_run_and_every_variant(tmp_path: Path) -> None:
    """compare.csv has a line a run with its scores, summary.csv a line a variant with full precision."""
    found = fabricate(tmp_path, {"a": {1: 0.25, 2: 0.5}, "b": {1: 0.5, 2: None}})
    runs = pl.read_csv(tmp_path / "compare.csv")
    assert runs.columns[:8] == ["variant", "seed", "metric", "value", "valid", "epoch", "seconds", "status"]
    assert runs["valid"].to_list() == [0.9, 0.9, 0.9, None]
    assert runs["status"].to_list() == ["finished", "finished", "finished", "failed"]
    assert runs["value"].to_list() == runs["accuracy"].to_list() == [0.25, 0.5, 0.5, None]
    summary = pl.read_csv(tmp_path / "summary.csv")
    assert summary["n"].to_list() == [2, 1]
    assert summary["mean"].to_list() == [0.375, 0.5]
    assert summary["difference"].to_list() == [None, 0.25]
    assert summary["p"].to_list() == [None, None]
    assert summary["scored"].to_list() == ["rows that <b>nobody</b> chose by"] * 2
    assert found.table[0] == ["variant", "n", "mean", "sd", "95% CI", "difference"]
    page = (tmp_path / "compare.html").read_text()
    assert "3 of 4 runs done" in page
    assert "Scored: rows that &lt;b&gt;nobody" in page
    assert "on validation rows" in page


def test_one_seed_shows_means_only(tmp_path: Path) -> None:
    """No interval, no p-value, and no column for them."""
    found = fabricate(tmp_path, {"a": {1: 0.25}, "b": {1: 0.5}})
    assert found.table == [
        ["variant", "n", "mean", "difference"],
        ["a", "1", "0.250", ""],
        ["b", "1", "0.500", "+0.250"],
    ]
    assert "p is the p-value" not in (tmp_path / "compare.html").read_text()


def test_what_could_have_been_shown_is_told(tmp_path: Path) -> None:
    """In the table by difference, below it in words, and that undecided is not equal."""
    steps = {"base": [0] * 5, "noise": [1.0, -1.1, 0.9, -1.0, 0.1]}
    values = {name: {s: 30 + s + step for s, step in enumerate(row)} for name, row in steps.items()}
    found = fabricate(tmp_path, values)
    difference = found.summary[1].difference
    assert difference is not None
    assert difference.detectable is not None
    assert found.table[0][-3:] == ["detectable", "p", "verdict"]
    assert found.table[2][-3] == f"{difference.detectable:.3f}"
    assert pl.read_csv(tmp_path / "summary.csv")["detectable"][1] == difference.detectable
    page = (tmp_path / "compare.html").read_text()
    assert (
        f"A true difference of {difference.detectable:.3f} would be found in 80% of such comparisons" in page
    )
    assert "undecided does not mean equal" in page


def test_signs_are_always_written() -> None:
    """Also that of nothing."""
    assert [signed(x, 2) for x in (0.5, -0.5, 0.001, -0.001, 1234.5)] == [
        "+0.50",
        "−0.50",
        "±0.00",
        "±0.00",
        "+1,234.50",
    ]


def test_columns_line_up_in_any_script(tmp_path: Path) -> None:
    """Hangul takes two columns of a terminal each."""
    lines = fabricate(tmp_path, {"ab": {1: 0.25}, "착용": {1: 0.5}}).text().splitlines()
    assert lines[1].startswith("ab       1  0.250")
    assert lines[2].startswith("착용     1  0.500")
