"""The page of a check in headless Chromium: what its script shows, filters and orders."""

from pathlib import Path

import pytest

from classwise.datacheck.finding import SEVERE, WARNING, Finding
from classwise.datacheck.page import PageRow, write_page
from classwise.datacheck.written import Checked
from tests.helpers.browser import Browser

MARKUP = "<img src=x onerror=alert(1)>"
CHECKED = Checked(source="tiles", rows={"train": 4, "valid": 2}, done=["copies"], not_done=[], versions={})
FINDINGS = [
    Finding("label-error", SEVERE, "a", "", 0.5, "Look at it.", {}),
    Finding("near-copy", WARNING, "b", "c", 0.7, MARKUP, {}),
    Finding("near-copy", WARNING, "d", "e", 0.9, "Within a split.", {}),
]
SPLITS = {"a": "valid", "b": "train", "c": "valid", "d": "train", "e": "train"}
LABELS = {"a": "red", "b": "red", "c": "blue", "d": "blue", "e": "blue"}


@pytest.fixture
def shown(browser: Browser, tmp_path: Path) -> Browser:
    rows = {
        id_: PageRow(id=id_, path=None, labels={"color": LABELS[id_]}, split=split)
        for id_, split in SPLITS.items()
    }
    write_page(FINDINGS, rows, CHECKED, tmp_path / "check.html", [tmp_path])
    browser.open(tmp_path / "check.html")
    return browser


def advice(browser: Browser) -> list[str]:
    """What the cards say, in their order."""
    return list(
        browser.script("[...document.querySelectorAll('.card .advice')].map((text) => text.textContent)")
    )


def choose(browser: Browser, id_: str, value: str) -> None:
    """As if somebody had chosen this option of a list."""
    browser.script(
        f"{{ const found = document.getElementById('{id_}'); found.value = '{value}';"
        " found.dispatchEvent(new Event('change')); }"
    )


def test_every_finding_has_a_card_the_worst_first(shown: Browser) -> None:
    """Its text as text, whatever it holds; the policy refuses nothing, and nothing is asked for."""
    assert advice(shown) == ["Look at it.", "Within a split.", MARKUP]
    assert shown.problems == []
    assert {url for url in shown.requests if not url.startswith(("file:", "data:"))} == set()


def test_filters_leave_what_fits_all_of_them(shown: Browser) -> None:
    """Severity, kind, class, split, and a part of the id; `0` shows all again."""
    shown.press("w")
    assert advice(shown) == ["Within a split.", MARKUP]
    choose(shown, "split", "across")
    assert advice(shown) == [MARKUP]
    assert shown.script("document.getElementById('status').textContent") == "1 of 3 findings"
    shown.press("0")
    assert len(advice(shown)) == 3
    red = shown.script("[...document.getElementById('class').options].find((o) => /red/.test(o.text)).value")
    choose(shown, "class", red)
    assert advice(shown) == ["Look at it.", MARKUP]
    shown.press("0")
    shown.press("/")
    shown.press("e")
    shown.script(
        "{ const found = document.getElementById('search'); found.value = 'E';"
        " found.dispatchEvent(new Event('input')); }"
    )
    assert advice(shown) == ["Within a split."]


def test_orders_are_by_value_and_by_id(shown: Browser) -> None:
    """The highest value first; ids from a to z."""
    choose(shown, "order", "value")
    assert advice(shown) == ["Within a split.", MARKUP, "Look at it."]
    choose(shown, "order", "id")
    assert advice(shown) == ["Look at it.", MARKUP, "Within a split."]


def test_keys_go_through_the_findings(shown: Browser) -> None:
    """j marks the first card, Enter enlarges it, an arrow goes on, Escape comes back to the one looked at last."""
    place = "document.querySelector('#large[open] #large-place')?.textContent"
    shown.press("j")
    shown.press("Enter")
    assert shown.script(place) == "Finding 1 of 3"
    shown.press("ArrowRight")
    assert shown.script(place) == "Finding 2 of 3"
    shown.press("Escape")
    assert shown.script(place) is None
    shown.wait_for("document.activeElement.dataset.position === '1'")


@pytest.mark.parametrize("width", [390, 1440])
def test_the_page_is_no_wider_than_its_window(shown: Browser, tmp_path: Path, width: int) -> None:
    """On a phone, too."""
    shown.open(tmp_path / "check.html", width=width)
    assert shown.overflow() == 0
