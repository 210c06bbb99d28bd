"""The report while a run goes on (`report.live`): the same page, written again after each epoch, reloads itself."""

import time
from datetime import UTC, datetime
from typing import Any

from classwise.console import Console
from classwise.report.page import write_report
from classwise.run.folder import RunFolder

MOST_SHARE = 0.02
"""Of the run's time, for writing pages: where a page takes long, epochs go without one."""
RELOAD_SECONDS = (5, 60)  # the least and the most


class LiveReport:
    """Writes report.html of a run of so many `epochs` that goes on; nothing at all where these are 0."""

    def __init__(self, folder: RunFolder, epochs: int, console: Console) -> None:
        self._folder = folder
        self._epochs = epochs
        self._console = console
        self._started = self._written = time.monotonic()
        self._last_cost = self._cost = 0.0
        self._pages = self._skipped = 0

    def write(self) -> None:
        """Write the page, unless the last one took so long that it is too early for another. If it cannot be written,
        a warning says so once: it is no reason to end a run."""
        started = time.monotonic()
        if not self._epochs:
            return
        if started - self._written < self._last_cost / MOST_SHARE:
            self._skipped += 1
            return
        try:
            status = self._folder.status()
            write_report(self._folder.path, status | {"live": self._live(status, started - self._written)})
        except Exception as error:  # whatever is wrong with a page, the run is worth more
            self._console.line_once(f"warning: report.live: the page could not be written: {error}")
            return
        self._written = time.monotonic()
        self._last_cost = self._written - started
        self._cost += self._last_cost
        self._pages += 1

    def say_cost(self) -> None:
        """Say what the pages have cost."""
        if self._pages:
            share = self._cost / max(1e-9, time.monotonic() - self._started)
            skipped = f"; {self._skipped} epochs went without one" if self._skipped else ""
            pages = "1 page" if self._pages == 1 else f"{self._pages} pages"
            self._console.line(
                f"report.live: {pages} in {self._cost:.1f} s, {share:.1%} of the training time{skipped}"
            )

    def _live(self, status: dict[str, Any], seconds_per_page: float) -> dict[str, Any]:
        """What the page says of the time, and when it reloads itself: about as often as it is written."""
        least, most = RELOAD_SECONDS
        return {
            "epoch": min(int(status.get("epoch", 0)) + 1, self._epochs),
            "epochs": self._epochs,
            "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
            "reload_seconds": round(min(most, max(least, seconds_per_page))),
        }
