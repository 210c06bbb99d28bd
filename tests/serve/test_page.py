"""The page to drop images on, in a browser."""

import base64
import json
import re

import pytest

from classwise.serve.model import ServedModel
from tests.helpers.browser import Browser
from tests.helpers.served import LIMITS, Running, drawn, running

DROP = """(() => {
  const data = new DataTransfer();
  for (const [name, text] of FILES) {
    data.items.add(new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], name, { type: "image/png" }));
  }
  document.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
})()"""
PASTE = DROP.replace(
    'new DragEvent("drop", { dataTransfer: data,', 'new ClipboardEvent("paste", { clipboardData: data,'
)
READY = "document.getElementById('facts')?.textContent"
STATUS = "document.getElementById('status').textContent"


def act(browser: Browser, script: str, *files: tuple[str, bytes]) -> None:
    """Drop or paste files on the page."""
    listed = [[name, base64.b64encode(data).decode()] for name, data in files]
    browser.script(script.replace("FILES", json.dumps(listed)))


def cards(browser: Browser) -> list[str]:
    """The text of each answer on the page, in order."""
    found = browser.script("[...document.querySelectorAll('.answer')].map((card) => card.innerText)")
    assert isinstance(found, list)
    return found


def test_dropped_images_are_answered_on_the_page(model: ServedModel, browser: Browser) -> None:
    """Also one that is none, and one whose name is HTML; nothing is loaded from elsewhere, and no script fails."""
    name = '<img src=x onerror="document.title=1">.png'
    with running(model) as service:
        browser.open(f"http://127.0.0.1:{service.port}/")
        browser.wait_for(READY)
        assert browser.script("document.getElementById('model').textContent") == "run"
        act(browser, DROP, ("first.png", drawn(1)), (name, drawn(2)), ("none.png", b"no image"))
        browser.wait_for(f"{STATUS} === '2 of 3 images answered, 1 could not be used'")
        expected = [service.predict(("", drawn(seed))).json()["images"][0]["targets"] for seed in (1, 2)]
        first, second, none = cards(browser)
        assert browser.script("document.title") != "1"

        act(browser, PASTE, ("pasted.png", drawn(3)))
        browser.wait_for(f"{STATUS}.startsWith('3 of 4 images answered, 1')")
        act(browser, DROP, ("large.png", bytes(LIMITS.max_bytes + 1)))
        browser.wait_for(f"{STATUS} === '3 of 5 images answered, 2 could not be used'")
        assert "at most 300,000 are taken" in cards(browser)[0]
        assert "pasted.png" in cards(browser)[1]
        browser.script("document.getElementById('clear').click()")
        assert cards(browser) == []
        addresses = browser.script("performance.getEntriesByType('resource').map((entry) => entry.name)")

    assert "first.png" in first
    assert name in second
    for text, targets in ((first, expected[0]), (second, expected[1])):
        lines = [line for line in text.splitlines() if line.strip()]
        assert lines[lines.index("label") + 1].split()[0] == targets["label"]["label"]
        for probability in targets["label"]["probabilities"].values():
            assert f"{100 * probability:.1f}%" in text or probability < 0.001
        assert re.search(r"trained on \d+", text)
    assert "not an image" in none
    assert all(address.startswith((f"http://127.0.0.1:{service.port}/", "blob:")) for address in addresses)
    # A refused image is a line of the console; nothing else is.
    assert all("422" in problem for problem in browser.problems), browser.problems


@pytest.mark.parametrize("width", [390, 1440])
def test_nothing_is_wider_than_the_window(model: ServedModel, browser: Browser, width: int) -> None:
    with running(model) as service:
        browser.open(f"http://127.0.0.1:{service.port}/", width=width)
        browser.wait_for(READY)
        act(browser, DROP, ("a" * 200 + ".png", drawn(1)))
        browser.wait_for(f"{STATUS}.startsWith('1 of 1')")
        assert browser.overflow() == 0


def test_the_page_asks_for_nothing_from_elsewhere(model: ServedModel) -> None:
    with running(model) as service:
        for path in ("/", "/page.js", "/page.css"):
            response = service.client.get(path)
            assert response.status_code == 200
            refuse_foreign(response.text, service)
            policy = response.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy


def refuse_foreign(text: str, service: Running) -> None:
    """No address but the service's own."""
    assert not re.search(r"(https?:)?//[\w.-]+\.\w", text)
    assert "eval(" not in text
    assert "innerHTML" not in text
