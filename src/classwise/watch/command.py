"""`classwise watch RUN`: look at the run directory again and again, until the run has ended."""

import os
import sys
import time
from pathlib import Path

from classwise.errors import CheckpointError, ClasswiseError, Interrupted
from classwise.watch.lines import Teller, whole_text
from classwise.watch.snapshot import DONE, Snapshot, read_snapshot

LOOK_SECONDS = 1.0  # a run writes its progress as often


def watch(path: str | Path, once: bool = False) -> None:
    """Show the run or the folds in the directory `path` until they have ended; `once`: as they are now.

    The directory may not be there yet. Returns where the run is done, or goes on after one look; raises Interrupted for
    one that was stopped, ClasswiseError for one that has failed or was killed, and CheckpointError where `path` is no
    run directory.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise CheckpointError(f"{path} is a file; a run is the folder that `train` makes")
    if once:
        snapshot = read_snapshot(path)
        if snapshot.state == "waiting":
            raise CheckpointError(f"{path}: there is no run here, and none has begun")
        if draws():
            _print_view(snapshot)
        else:
            print(whole_text(snapshot))
    else:
        snapshot = _watched_in_terminal(path) if draws() else _watched_in_lines(path)
    raise_for(snapshot)


def raise_for(snapshot: Snapshot) -> None:
    """Raise what stands for the end of the run; nothing for one that is done, or goes on."""
    if snapshot.state in DONE or not snapshot.is_over:
        return
    reason = f": {snapshot.reason}" if snapshot.reason else ""
    error = Interrupted if snapshot.state == "interrupted" else ClasswiseError
    raise error(f"{snapshot.path}: {snapshot.state}{reason}")


def draws() -> bool:
    """Whether stdout is a terminal that can redraw what it shows."""
    return sys.stdout.isatty() and "CI" not in os.environ and os.environ.get("TERM") != "dumb"


def _watched_in_lines(path: Path) -> Snapshot:
    teller = Teller()
    while True:
        snapshot = read_snapshot(path)
        for line in teller.news(snapshot, time.monotonic()):
            print(line, flush=True)
        if snapshot.is_over:
            return snapshot
        time.sleep(LOOK_SECONDS)


def _watched_in_terminal(path: Path) -> Snapshot:
    from rich.console import Console
    from rich.live import Live

    from classwise.watch.view import view_of

    console = Console()
    plain = _is_plain()

    def look() -> Snapshot:
        snapshot = read_snapshot(path)
        live.update(view_of(snapshot, console.width, console.height, plain), refresh=True)
        return snapshot

    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        snapshot = look()
        while not snapshot.is_over:
            time.sleep(LOOK_SECONDS)
            snapshot = look()
    return snapshot


def _print_view(snapshot: Snapshot) -> None:
    from rich.console import Console

    from classwise.watch.view import view_of

    console = Console()
    console.print(view_of(snapshot, console.width, console.height, _is_plain()))


def _is_plain() -> bool:
    """Whether the terminal's encoding lacks the signs that charts are drawn with."""
    try:
        "▁█╭".encode(sys.stdout.encoding or "utf-8")
    except (LookupError, UnicodeEncodeError):
        return True
    return False
