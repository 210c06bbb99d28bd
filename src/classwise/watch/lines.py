"""The same as lines, for what is no terminal (a pipe, a file, a CI job): one whenever something has happened."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from classwise.watch.snapshot import PREPARING, Line, Snapshot, lines_of
from classwise.watch.words import STATE_WORDS, about, doing, facts, number

QUIET_SECONDS = 60.0  # after which a line says how far the epoch is


@dataclass
class Told:
    """What has been written already, of a run or of one fold."""

    state: str = ""
    epochs: int | None = None
    at: float = field(default=float("-inf"))


class Teller:
    """Says of each look at a run what is new since the one before."""

    def __init__(self) -> None:
        self._told: dict[str, Told] = {}

    def news(self, snapshot: Snapshot, now: float) -> Iterator[str]:
        """Lines without an end. `now`: seconds of a clock."""
        told = self._told.setdefault(str(snapshot.path), Told())
        newly_seen = told.epochs is None
        if snapshot.state != told.state:
            told.state, told.at = snapshot.state, now
            yield state_line(snapshot)
        for name, state in snapshot.folds:
            of_fold = self._told.setdefault(name, Told())
            if state != of_fold.state:
                of_fold.state = state
                yield f"{name}: {STATE_WORDS.get(state, state) if state != 'waiting' else state}"
        if snapshot.current is not None:
            yield from self.news(snapshot.current, now)

        # Of a run that has trained for long already, the last epoch is enough.
        begun = max(0, snapshot.epochs_done - 1) if newly_seen else told.epochs or 0
        lines = lines_of(snapshot)
        for index in range(begun, snapshot.epochs_done):
            told.at = now
            yield epoch_line(snapshot, lines, index)
        told.epochs = snapshot.epochs_done
        if snapshot.state == "running" and not snapshot.folds and now - told.at >= QUIET_SECONDS:
            told.at = now
            yield progress_line(snapshot)


def state_line(snapshot: Snapshot) -> str:
    """`runs/masks: running, epoch 3 of 12, about 4 min left`."""
    text = f"{snapshot.path}: {STATE_WORDS.get(snapshot.state, snapshot.state)}"
    if snapshot.state == PREPARING and snapshot.progress:
        text = f"{text}, {doing(snapshot)}"
    if snapshot.state == "running" and not snapshot.folds:
        text = f"{text}, {_how_far(snapshot)}"
    return f"{text}: {snapshot.reason}" if snapshot.reason else text


def progress_line(snapshot: Snapshot) -> str:
    """How far the epoch is, with what is known of it."""
    found = ", ".join(f"{name} {text}" for name, text in facts(snapshot))
    return f"{_how_far(snapshot)}; {found}" if found else _how_far(snapshot)


def epoch_line(snapshot: Snapshot, lines: Sequence[Line], index: int) -> str:
    """An epoch that has ended, by its index in the history: its losses and scores. `lines`: those of the snapshot."""
    epoch = snapshot.history[index].get("epoch", index + 1)
    parts = [f"epoch {epoch} of {snapshot.epochs}" if snapshot.epochs else f"epoch {epoch}"]
    for line in lines:
        if index + 1 in line.epochs:
            at = line.epochs.index(index + 1)
            parts.append(f"{line.name} {number(line.values[at])}")
    return "  ".join(parts)


def whole_text(snapshot: Snapshot) -> str:
    """Everything that is known, for one look."""
    parts = [state_line(snapshot)]
    parts += [
        f"{name}: {STATE_WORDS.get(state, state)}" for name, state in snapshot.folds if state != "waiting"
    ]
    if waiting := sum(state == "waiting" for _, state in snapshot.folds):
        parts.append(f"{waiting} folds waiting")
    if snapshot.current is not None:
        parts.append(whole_text(snapshot.current))
    elif snapshot.state == "running" and facts(snapshot):
        parts.append("  ".join(f"{name} {text}" for name, text in facts(snapshot)))
    for line in lines_of(snapshot):
        best = ""
        if line.best is not None:
            best = f", best {number(line.values[line.best])} in epoch {line.epochs[line.best]}"
        parts.append(f"{line.name}: {number(line.values[-1])}{best}{' (selects)' if line.selects else ''}")
    return "\n".join(parts)


def _how_far(snapshot: Snapshot) -> str:
    left = snapshot.seconds_left()
    return doing(snapshot) + (f", about {about(left)} left" if left is not None else "")
