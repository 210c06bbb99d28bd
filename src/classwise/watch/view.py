"""The view of a run in a terminal, for rich."""

from collections.abc import Sequence

from rich.box import ROUNDED
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from classwise.watch.snapshot import (
    DONE,
    PREPARING,
    WAITING,
    Line,
    Snapshot,
    lines_of,
    started_seconds,
)
from classwise.watch.words import STATE_WORDS, about, doing, duration, facts, number, sparkline

COLORS = {"running": "cyan", "finished": "green", "early_stopped": "green", "failed": "red", "killed": "red"}
MOST_LINES = 12  # scores of a run with many targets
BAR = 40
LONGEST_PATH = 40
"""Characters of the run's folder in the title."""


def view_of(snapshot: Snapshot, width: int, height: int, plain: bool = False) -> RenderableType:
    """Everything that is known of the run, for a terminal of this size. `plain`: in ASCII."""
    parts: list[RenderableType] = []
    if snapshot.reason:
        parts.append(Text(snapshot.reason, style=COLORS.get(snapshot.state, "yellow")))
    if snapshot.folds:
        parts.append(_folds(snapshot))
    if snapshot.current is not None:
        parts.append(view_of(snapshot.current, width - 4, height - len(snapshot.folds) - 8, plain))
    elif not snapshot.folds:
        parts += _run_parts(snapshot, width, plain)

    # The log takes what is left of the screen.
    used = 6 + len(parts) + len(snapshot.folds) + min(MOST_LINES, len(lines_of(snapshot)) + 2)
    rows = max(2, min(len(snapshot.log), height - used))
    if snapshot.log and snapshot.current is None:
        log = Text("\n".join(snapshot.log[-rows:]), style="dim", no_wrap=True, overflow="ellipsis")
        parts += [Text(), log]
    return Panel(
        Group(*parts), title=_title(snapshot), title_align="left", box=ROUNDED, safe_box=plain, padding=(0, 1)
    )


def _title(snapshot: Snapshot) -> Text:
    state = Text(
        STATE_WORDS.get(snapshot.state, snapshot.state),
        style=f"bold {COLORS.get(snapshot.state, 'yellow')}",
    )
    seconds = started_seconds(snapshot)
    since = f" for {duration(seconds)}" if snapshot.state == "running" and seconds else ""
    after = f" after {duration(seconds)}" if snapshot.state in DONE and seconds else ""
    # Of a long path its end: the state behind it has to fit the terminal.
    path = str(snapshot.path)
    path = path if len(path) <= LONGEST_PATH else f"...{path[3 - LONGEST_PATH :]}"
    return Text.assemble((path, "bold"), ": ", state, since, after)


def _run_parts(snapshot: Snapshot, width: int, plain: bool) -> list[RenderableType]:
    """The bars, the facts and the scores of a single run."""
    parts: list[RenderableType] = []
    if snapshot.state == PREPARING and snapshot.progress:
        parts.append(Text(doing(snapshot)))
    if snapshot.epochs and snapshot.state not in (WAITING, PREPARING):
        parts.append(_bars(snapshot))
    if snapshot.state == "running" and (found := facts(snapshot)):
        cells = [part for name, text in found for part in ((f"{name} ", "dim"), f"{text}   ")]
        parts.append(Text.assemble(*cells))
    if lines := lines_of(snapshot):
        parts += [Text(), _scores(lines, width, plain)]
    return parts


def _bars(snapshot: Snapshot) -> Table:
    """How much of the run is done, and of the epoch that is under way."""
    table = Table.grid(padding=(0, 2))
    share = snapshot.share_of_epoch if snapshot.state == "running" else 0.0
    done = min(snapshot.epochs, snapshot.epochs_done + share)
    left = snapshot.seconds_left()
    eta = f"about {about(left)} left" if left is not None else ""
    table.add_row(
        "run",
        ProgressBar(total=snapshot.epochs, completed=done, width=BAR),
        f"{snapshot.epochs_done} of {snapshot.epochs} epochs",
        eta,
    )
    if snapshot.state == "running":
        table.add_row("epoch", ProgressBar(total=1, completed=share, width=BAR), doing(snapshot), "")
    return table


def _scores(lines: Sequence[Line], width: int, plain: bool) -> Table:
    """A row for each score: its last value, its best one, and its course."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for title, side in (
        ("", "left"),
        ("last", "right"),
        ("best", "right"),
        ("in epoch", "right"),
        ("", "left"),
    ):
        table.add_column(title, justify=side, no_wrap=True, overflow="ellipsis")  # type: ignore[arg-type]
    names = max(len(line.name) for line in lines)
    chart = max(8, min(50, width - min(names, 40) - 40))
    for line in lines[:MOST_LINES]:
        best, epoch = "", ""
        if line.best is not None:
            best, epoch = number(line.values[line.best]), str(line.epochs[line.best])
        style = "bold" if line.selects else ""
        name = Text(line.name + (" *" if line.selects else ""), style=style)
        course = Text(sparkline(line.values, chart, plain), style="cyan")
        table.add_row(name, Text(number(line.values[-1]), style=style), best, epoch, course)
    if len(lines) > MOST_LINES:
        table.add_row(Text(f"and {len(lines) - MOST_LINES} more", style="dim"), "", "", "", "")
    return table


def _folds(snapshot: Snapshot) -> Table:
    """The state of each fold."""
    table = Table.grid(padding=(0, 2))
    for name, state in snapshot.folds:
        word = STATE_WORDS.get(state, state) if state != "waiting" else "waiting"
        table.add_row(name, Text(word, style=COLORS.get(state, "dim" if state == "waiting" else "yellow")))
    return table
