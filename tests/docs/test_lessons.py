"""The lessons in docs/lessons run, and say only what they assert."""

import ast
import re
import runpy
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers.peers import needs

ROOT = Path(__file__).parents[2]
LESSONS = sorted((ROOT / "docs" / "lessons").glob("[0-9]*.py"))
SECONDS = 60

lightning = pytest.param(
    LESSONS[-1],
    marks=[needs("pytorch_lightning", extra="lightning"), pytest.mark.filterwarnings("ignore")],
)


@dataclass(frozen=True)
class Cell:
    """A cell of a notebook in jupytext's percent format; the text of Markdown without its comment signs."""

    is_text: bool
    text: str


def cells(lesson: Path) -> list[Cell]:
    """All cells, in order."""
    found = []
    for part in re.split(r"^# %%", lesson.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        kind, _, body = part.partition("\n")
        is_text = kind.strip() == "[markdown]"
        if is_text:
            body = "\n".join(line.removeprefix("#").removeprefix(" ") for line in body.splitlines())
        found.append(Cell(is_text, body))
    return found


def numbers_of_text(text: str) -> set[float]:
    """Numbers that a text states: not those in code, in headings, in links and in references to lessons."""
    text = re.sub(r"^(    .*|#.*)$", "", text, flags=re.MULTILINE)
    text = re.sub(r"`[^`]*`|\]\([^)]*\)|\blessons? \d+( to \d+)?|\b[xy]\^\d+|\)\^\d+|\w+\^\d+", "", text)
    return {
        float(found.replace(",", "")) for found in re.findall(r"(?<![\w.])\d[\d,]*(?:\.\d+)?(?!\w)", text)
    }


def numbers_of_code(code: str) -> set[float]:
    """The literals of a cell that asserts something; none of another cell."""
    nodes = list(ast.walk(ast.parse(code)))
    if not any(isinstance(node, ast.Assert) or "assert_close" in ast.unparse(node) for node in nodes[1:]):
        return set()
    values = {node.value for node in nodes if isinstance(node, ast.Constant)}
    return {float(value) for value in values if isinstance(value, int | float)}


@pytest.mark.full
@pytest.mark.parametrize("lesson", [*LESSONS[:-1], lightning], ids=lambda lesson: lesson.stem)
def test_a_lesson_runs(lesson: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From its first cell to its last, with every claim asserted, in less than a minute of computing."""
    monkeypatch.chdir(ROOT / "docs" / "lessons")
    started = time.process_time()
    runpy.run_path(str(lesson), run_name="__main__")
    assert time.process_time() - started < SECONDS


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.stem)
def test_every_number_of_a_lesson_is_asserted(lesson: Path) -> None:
    """What its text states stands in a cell that asserts."""
    stated: set[float] = set()
    asserted: set[float] = set()
    for cell in cells(lesson):
        if cell.is_text:
            stated |= numbers_of_text(cell.text)
        else:
            asserted |= numbers_of_code(cell.text)
    assert stated - asserted == set()


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.stem)
def test_a_lesson_has_the_form_of_all(lesson: Path) -> None:
    """By hand, then the same with classwise, then an exercise and its answer, which is computed."""
    found = cells(lesson)
    text = "\n".join(cell.text for cell in found if cell.is_text)
    places = [text.find(heading) for heading in ("# ", "by hand", "## Exercise", "### Answer")]
    assert places[0] == 0
    assert -1 not in places
    assert text.find("## Exercise") < text.find("### Answer")
    answer = next(i for i, cell in enumerate(found) if cell.text.lstrip().startswith("### Answer"))
    assert "assert" in "".join(cell.text for cell in found[answer:] if not cell.is_text)


def test_the_reading_order_leads_through_the_lessons() -> None:
    """docs/reading-order.md links every lesson."""
    text = (ROOT / "docs" / "reading-order.md").read_text(encoding="utf-8")
    assert [lesson.name for lesson in LESSONS if f"(lessons/{lesson.name})" not in text] == []
    assert len(LESSONS) == 10
