"""What a person sees while a command runs: lines on stderr, a progress bar on a terminal, and the lines in a log."""

import os
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
NOTE_SECONDS = 0.2  # between two looks at what a bar's note says


class Console:
    """Writes lines to stderr (unless `quiet`) and, once there is a run, to its log.txt.

    A log that cannot be written (a full disk, say) does not end a run: there is one warning, and `lost_lines` counts
    what was not written.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.started = time.monotonic()
        self.log: Path | None = None
        self.lost_lines = 0
        self._earlier: list[str] = []
        self._once: set[str] = set()

    def line(self, text: str) -> None:
        """One line, or several."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)
        if self.log is None:
            self._earlier.append(text)
        else:
            self._append(self.log, text)

    def line_once(self, text: str) -> None:
        """A line that explains one before it; nothing for an empty text, and where it has been written already."""
        if text and text not in self._once:
            self._once.add(text)
            self.line(text)

    def paragraph(self, text: str) -> None:
        """A line that may be long: on a terminal it is wrapped between words, and what follows is indented."""
        if not self.quiet and on_terminal():
            print(wrapped(text), file=sys.stderr, flush=True)
            self.note(text)
        else:
            self.line(text)

    def note(self, text: str) -> None:
        """Text for the log only."""
        if text and self.log is None:
            self._earlier.append(text)
        elif text and self.log is not None:
            self._append(self.log, text)

    def log_to(self, path: Path) -> None:
        """Write all lines to `path` from now on, beginning with the earlier ones."""
        self.log = path
        if self._earlier:
            self._append(path, "\n".join(self._earlier))
        self._earlier = []

    def _append(self, path: Path, text: str) -> None:
        try:
            size = path.stat().st_size if path.exists() else 0
            try:
                with path.open("a", encoding="utf-8") as file:
                    file.write(f"{text}\n")
            except OSError:
                # A partial line would run into the next one.
                if path.exists():
                    os.truncate(path, size)
                raise
        except OSError as error:
            if not self.lost_lines and not self.quiet:
                reason = error.strerror or error
                print(
                    f"warning: {path} cannot be written ({reason}); continuing", file=sys.stderr, flush=True
                )
            self.lost_lines += 1

    def bar(
        self,
        items: Iterable[T],
        title: str,
        total: int | None = None,
        done: int = 0,
        note: Callable[[], str] = str,
    ) -> Iterator[T]:
        """The items, with a progress bar if stderr is a terminal. `total` and `done`: how many items there are in all,
        and how many of them were done before. `note`: what is shown behind the bar, asked a few times a second."""
        if self.quiet or not on_terminal():
            yield from items
            return
        # Imported here: most commands show no bar, and should start fast.
        from rich.console import Console as Rich
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        if total is None and isinstance(items, Sized):
            total = len(items)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=Rich(stderr=True), transient=True) as progress:
            task = progress.add_task(title, total=total, completed=done, note="")
            noted = time.monotonic()
            for item in items:
                yield item
                progress.advance(task)
                if time.monotonic() - noted >= NOTE_SECONDS:
                    noted = time.monotonic()
                    progress.update(task, note=note())


def wrapped(text: str) -> str:
    """The text with each of its lines wrapped between words to the width of the terminal; what follows is indented."""
    width = max(40, shutil.get_terminal_size().columns)
    lines = [
        textwrap.wrap(line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
        for line in text.splitlines()
    ]
    return "\n".join("\n".join(parts) for parts in lines)


def on_terminal() -> bool:
    """Whether stderr is a terminal that can redraw a line."""
    return sys.stderr.isatty() and "CI" not in os.environ and os.environ.get("TERM") != "dumb"
