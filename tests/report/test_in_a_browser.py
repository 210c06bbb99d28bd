"""The report in headless Chromium: what its script does, and that it fits a phone."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from classwise.report.page import write_report
from classwise.report.thumbnails import encode
from tests.helpers.browser import Browser
from tests.helpers.fabricated import fabricate_run
from tests.helpers.fabricated_kinds import fabricate_kinds

LONG = "a label that goes on and on " * 6
WORD = "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft"
SCORES = 'table[aria-label^="Scores of each class of kind"]'


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    labels = {"kind": ["<b>bold</b>", LONG, WORD, "Blowhole", "cross_entropy"]}
    run = fabricate_run(tmp_path_factory.mktemp("browser"), people=60, epochs=3, labels=labels)
    status = json.loads((run / "status.json").read_text(encoding="utf-8"))
    status["data"]["masked"] = {"kind": {"train": 3, "valid": 1}}
    note = "kind: no label in 4 rows, which count for the other targets only"
    status["data"]["warnings"].append(note)
    (run / "status.json").write_text(json.dumps(status), encoding="utf-8")
    image = encode(np.full((80, 60, 3), 200, dtype=np.uint8)).uri
    row = {
        "id": "a.png",
        "true": LONG,
        "predicted": "Blowhole",
        "probability": 0.93,
        "image": image,
        "map": image,
    }
    maps = {"target": "kind", "label": LONG, "rows": 3, "mistakes": [row, row | {"id": "b.png"}], "hits": []}
    (run / "explanations.json").write_text(json.dumps({"classes": [maps]}), encoding="utf-8")
    return write_report(run)


def column(browser: Browser, table: str, number: int) -> list[str]:
    """The texts of a column, from top to bottom."""
    return list(
        browser.script(
            f"[...document.querySelectorAll({json.dumps(table + ' tbody tr')})]"
            f".map((row) => row.cells[{number}].firstElementChild?.textContent ?? row.cells[{number}].textContent)"
        )
    )


def test_nothing_is_refused_and_nothing_asked_for(browser: Browser, page: Path) -> None:
    """The policy lets the page's own script and images through, and there is no other request."""
    browser.open(page)
    browser.script("document.images.length")
    assert browser.problems == []
    assert [url for url in browser.requests if not url.startswith("data:")] == [page.as_uri()]


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("kinds", [False, True])
def test_the_page_is_no_wider_than_its_window(
    browser: Browser, page: Path, tmp_path: Path, width: int, kinds: bool
) -> None:
    """Also with labels that are a paragraph or one very long word, and with a target of every type."""
    if kinds:
        page = write_report(fabricate_kinds(tmp_path, people=20, epochs=2, images=False))
    browser.open(page, width=width)
    assert browser.overflow() == 0


def test_scores_of_classes_fit_a_phone(browser: Browser, page: Path) -> None:
    """The last column, the recall, is inside the window without scrolling."""
    browser.open(page, width=390)
    right = browser.script(
        f"Math.max(...[...document.querySelectorAll('{SCORES} td:last-child')]"
        ".map((cell) => cell.getBoundingClientRect().right))"
    )
    assert right <= 390


def test_heads_of_tables_are_not_broken_within_words(browser: Browser, page: Path) -> None:
    """A word of ordinary length has one line in the head of the confusion matrix and at its side."""
    browser.open(page, width=390)
    heights = browser.script(
        "[...document.querySelectorAll('.heat th bdi')].filter((name) => name.textContent === 'Blowhole')"
        ".map((name) => name.getBoundingClientRect().height / parseFloat(getComputedStyle(name).fontSize))"
    )
    assert len(heights) == 2
    assert max(heights) < 2


def test_a_click_on_a_head_sorts(browser: Browser, page: Path) -> None:
    """Upwards, downwards, and back to the order of the page; the head says which, and no other one does."""
    browser.open(page)
    head = f"{SCORES} thead th:nth-child(4) button"
    original = column(browser, SCORES, 3)
    browser.click(head)
    assert column(browser, SCORES, 3) == sorted(original, key=float)
    assert browser.script(f"document.querySelector('{SCORES} [aria-sort]').ariaSort") == "ascending"
    browser.click(head)
    assert column(browser, SCORES, 3) == sorted(original, key=float, reverse=True)
    browser.click(head)
    assert column(browser, SCORES, 3) == original
    assert browser.script(f"document.querySelectorAll('{SCORES} [aria-sort]').length") == 0


def test_keys_sort_too(browser: Browser, page: Path) -> None:
    """Enter on a head that has the focus; labels sort as text."""
    browser.open(page)
    browser.script(f"document.querySelector('{SCORES} thead th:first-child button').focus()")
    browser.press("Enter")
    labels = column(browser, SCORES, 0)
    assert labels[0] == "<b>bold</b>"
    assert labels[-1] == WORD


def test_values_stand_beside_the_pointer(browser: Browser, page: Path) -> None:
    """Of a cell of the confusion matrix, and of an epoch of a curve; Escape takes them away."""
    browser.open(page)
    browser.point_at(".heat td.ok")
    shown = "document.querySelector('.tip:not([hidden])')?.textContent"
    assert " of " in browser.script(shown)
    browser.press("Escape")
    assert browser.script(shown) is None
    browser.point_at(".hit rect")
    assert browser.script(shown).startswith("epoch 1\ntraining: ")


def test_an_image_is_enlarged_by_a_click_and_by_a_key(browser: Browser, page: Path) -> None:
    """Arrow keys go on to the next one, Escape closes, and the focus is then on the one looked at last."""
    browser.open(page)
    opened = "document.querySelector('dialog[open] .id')?.textContent"
    ids = browser.script("[...document.querySelectorAll('#mistakes li')].map((tile) => tile.dataset.name)")
    browser.click("#mistakes .enlarge")
    assert browser.script(opened) == ids[0]
    browser.press("ArrowRight")
    assert browser.script(opened) == ids[1]
    browser.press("Escape")
    assert browser.script(opened) is None
    browser.wait_for(f"document.activeElement.closest('li')?.dataset.name === {json.dumps(ids[1])}")
    browser.press("Enter")
    assert browser.script(opened) == ids[1]


@pytest.mark.parametrize("width", [390, 1440])
def test_a_heat_map_is_enlarged_with_its_image(browser: Browser, page: Path, width: int) -> None:
    """Both within the window, and no part of them cut off."""
    browser.open(page, width=width)
    browser.click("#explanations .enlarge")
    assert browser.script("document.querySelector('dialog[open] .id').textContent") == "a.png"
    boxes = browser.script(
        "[...document.querySelectorAll('dialog[open] img')].map((image) => image.getBoundingClientRect().toJSON())"
    )
    assert len(boxes) == 2
    assert all(0 <= box["left"] < box["right"] <= width and box["bottom"] <= 900 for box in boxes)
    small = browser.script("document.querySelector('#explanations .enlarge img').offsetWidth")
    assert min(box["width"] for box in boxes) > 1.5 * small


def test_without_its_script_the_page_has_all_of_it(browser: Browser, page: Path) -> None:
    """Same tables and images, no dead buttons; a click on an image enlarges it in its place."""
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(page)
        counts = browser.script(
            "['.sortable', '.heat', 'button'].map((s) => document.querySelectorAll(s).length)"
        )
        assert counts[0] >= 2
        assert counts[1:] == [1, 0]
        width = "document.querySelector('#mistakes li').offsetWidth"
        before = browser.script(width)
        browser.click("#mistakes .enlarge")
        assert browser.script(width) > 2 * before
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


def test_missing_labels_are_a_note(browser: Browser, page: Path) -> None:
    """Rows without a label for a target are often meant so: they are not among the warnings."""
    browser.open(page)
    assert "no label in 4 rows" in browser.script("document.querySelector('header').textContent")
    assert "no label in 4 rows" not in browser.script("document.querySelector('.warnings').textContent")


def test_heads_of_sections_are_in_order(browser: Browser, page: Path) -> None:
    """No level is left out on the way down."""
    browser.open(page)
    levels = browser.script(
        "[...document.querySelectorAll('h1, h2, h3, h4')].map((head) => Number(head.tagName[1]))"
    )
    assert levels[0] == 1
    assert all(below - above <= 1 for above, below in itertools.pairwise(levels))
    assert browser.script("document.querySelectorAll('th:not([scope])').length") == 0
