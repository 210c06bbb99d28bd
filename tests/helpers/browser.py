"""A page in headless Chromium, driven through its own protocol over two pipes: keys and clicks as a person makes them.

Chromium reads commands from file descriptor 3 and writes answers to 4, as JSON that ends with a zero byte, so nothing
but the browser itself is needed.
"""

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SECONDS = 120.0
"""A browser that says nothing for so long hangs."""
KEYS = {
    "Enter": 13,
    "Escape": 27,
    "Tab": 9,
    "ArrowLeft": 37,
    "ArrowRight": 39,
    "ArrowDown": 40,
    "ArrowUp": 38,
}


class Browser:
    """One page. Of what is open, `problems`: what the browser has said about it (errors and messages of scripts, what
    could not be loaded, what its policy has refused); `requests`: the addresses that were asked for."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to_browser = to_browser
        self._from_browser = from_browser
        self._received = b""
        self._sent = 0
        self._session = ""
        self._loaded = 0
        self.problems: list[str] = []
        self.requests: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for part in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{part}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The answer to one command."""
        self._sent += 1
        message = {"id": self._sent, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to_browser, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._sent:
                assert "error" not in answer, answer
                return dict(answer["result"])

    def open(self, page: Path | str, width: int = 1440, height: int = 900, dark: bool = False) -> None:
        """Show a file, or an address, in a window of this size, and wait until it is loaded."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.problems.clear()
        self.requests.clear()
        loaded = self._loaded
        self.call("Page.navigate", url=page if isinstance(page, str) else page.resolve().as_uri())
        self._wait_for_load(after=loaded)

    def wait_for_reload(self) -> None:
        """Wait until the page has loaded itself once more."""
        self._wait_for_load(after=self._loaded)

    def _wait_for_load(self, after: int) -> None:
        while self._loaded == after:
            self._receive()

    def wait_for(self, expression: str) -> Any:
        """The value of a JavaScript expression once it is true."""
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            if value := self.script(expression):
                return value
            time.sleep(0.05)
        raise AssertionError(f"never true: {expression}; {self.problems}")

    def script(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        """A key of `KEYS`, or a character, pressed and released."""
        code = KEYS.get(key, ord(key[0].upper()))
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        pressed = {"key": key, "windowsVirtualKeyCode": code, "text": text}
        self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **pressed)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def point_at(self, selector: str) -> tuple[float, float]:
        """Move the pointer over the middle of the first element that the selector finds."""
        place = self.script(
            f"""(() => {{
              const found = document.querySelector({json.dumps(selector)});
              found.scrollIntoView({{ block: "center", behavior: "instant" }});
              const box = found.getBoundingClientRect();
              return [box.left + box.width / 2, box.top + box.height / 2];
            }})()"""
        )
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=place[0], y=place[1])
        return place[0], place[1]

    def click(self, selector: str) -> None:
        """Press the pointer's button there."""
        x, y = self.point_at(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def overflow(self) -> int:
        """By how many pixels the page is wider than its window."""
        return int(self.script("document.documentElement.scrollWidth - document.documentElement.clientWidth"))

    def screenshot(self, path: Path, whole: bool = True) -> None:
        """The page as PNG: all of it, or what the window shows."""
        options: dict[str, Any] = {"format": "png"}
        if whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            options |= {"captureBeyondViewport": True, "clip": {**size, "scale": 1}}
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", **options)["data"]))

    def _receive(self) -> dict[str, Any]:
        """The next message; events are kept for whoever asks."""
        while b"\0" not in self._received:
            assert select.select([self._from_browser], [], [], SECONDS)[0], "the browser hangs"
            data = os.read(self._from_browser, 1 << 20)
            assert data, "the browser has ended"
            self._received += data
        text, _, self._received = self._received.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        parameters = message.get("params", {})
        match message.get("method"):
            case "Page.loadEventFired":
                self._loaded += 1
            case "Runtime.exceptionThrown":
                self.problems.append(str(parameters["exceptionDetails"]))
            case "Runtime.consoleAPICalled":
                self.problems.append(str(parameters["args"]))
            case "Log.entryAdded":
                self.problems.append(str(parameters["entry"]["text"]))
            case "Network.requestWillBeSent":
                self.requests.append(str(parameters["request"]["url"])[:200])
        return message


@contextlib.contextmanager
def browsing() -> Iterator[Browser]:
    """A browser that ends with the block. A test on a machine without Chromium is skipped."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    to_browser = os.pipe()
    from_browser = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # The shell puts the pipes where Chromium expects them, whatever their numbers are here.
        command = f'exec "$@" 3<&{to_browser[0]} 4>&{from_browser[1]}'
        options = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",  # of which a container has little
            "--remote-debugging-pipe",
        ]
        process = subprocess.Popen(
            ["bash", "-c", command, "browser", CHROMIUM, *options, f"--user-data-dir={profile}"],
            pass_fds=(to_browser[0], from_browser[1]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser[0])
        os.close(from_browser[1])
        try:
            yield Browser(to_browser[1], from_browser[0])
        finally:
            process.kill()
            process.wait()
            os.close(to_browser[1])
            os.close(from_browser[0])
