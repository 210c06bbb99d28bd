"""What the files of a run, or of folds, say at one moment."""

import contextlib
import json
import os
import statistics
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeGuard

from classwise.metrics.main_scores import MAIN_SCORES
from classwise.run.heartbeat import read_progress
from classwise.run.liveness import KILLED, status_of
from classwise.run.lock import lock_state

Json = dict[str, Any]
WAITING, PREPARING = "waiting", "preparing"
DONE = ("finished", "early_stopped")
GONE = ("interrupted", "failed", KILLED)
LOG_LINES = 8
LOG_BYTES = 8192  # the end of log.txt that is read
RECENT = 5  # epochs whose time says how long the next ones will take


@dataclass(frozen=True)
class Snapshot:
    """One look at a run directory. `state`: waiting, while there is nothing yet; preparing, before the first epoch; or
    as in status.json, but for `killed` and `silent`. `folds`: the runs of a folds directory, by name, and `current` the
    one that trains."""

    path: Path
    state: str
    reason: str = ""
    status: Json = field(default_factory=dict)
    history: tuple[Json, ...] = ()
    progress: Json = field(default_factory=dict)
    config: Json = field(default_factory=dict)
    log: tuple[str, ...] = ()
    folds: tuple[tuple[str, str], ...] = ()
    current: "Snapshot | None" = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in DONE or self.state in GONE

    @property
    def epochs(self) -> int:
        """The epochs that are planned; 0 where nothing says, and of a linear probe, which trains none."""
        training = _table(self.config, "training")
        if training.get("plan") == "probe":
            return 0
        return _whole(self.progress.get("epochs")) or _whole(training.get("epochs"))

    @property
    def metric(self) -> str:
        """The score that selects the best epoch, by its name in history.jsonl; empty where there is none yet."""
        best = self.status.get("best")
        name = best.get("metric") if isinstance(best, dict) else None
        name = name or _table(self.config, "selection").get("metric")
        return str(name or "")

    @property
    def share_of_epoch(self) -> float:
        """How much of the epoch that is under way is done, from 0 to 1."""
        # progress.json is up to a second old, and may still be about an epoch that the history has.
        if _whole(self.progress.get("epoch")) <= self.epochs_done:
            return 0.0
        total = _whole(self.progress.get("updates_per_epoch"))
        return min(1.0, _whole(self.progress.get("update_in_epoch")) / total) if total else 0.0

    @property
    def epochs_done(self) -> int:
        return len(self.history)

    def seconds_left(self) -> float | None:
        """How long the rest of the planned epochs will take, by the last epochs or, in the first one, by its updates;
        None where nothing is known. Early stopping may end the run before."""
        if self.state != "running" or not self.epochs:
            return None
        left = self.epochs - self.epochs_done
        seconds = [float(row["seconds"]) for row in self.history[-RECENT:] if _is_number(row.get("seconds"))]
        share = self.share_of_epoch
        if seconds:
            return max(0.0, statistics.median(seconds) * (left - share))
        spent = self.progress.get("epoch_seconds")
        if share and isinstance(spent, int | float):
            return max(0.0, float(spent) / share * (left - share))
        return None


def read_snapshot(path: Path) -> Snapshot:
    """One look at the run directory or folds directory `path`, which may not be there yet."""
    status = status_of(path)
    if status.get("kind") == "folds":
        return _of_folds(path, status)
    snapshot = Snapshot(
        path=path,
        state=WAITING,
        status=status,
        reason=str(status.get("reason") or ""),
        history=_history(path / "history.jsonl", _stamp(path / "history.jsonl")),
        progress=read_progress(path),
        config=_config(path / "config.toml"),
        log=_last_lines(path / "log.txt"),
    )
    if status:
        return replace(snapshot, state=str(status.get("state") or "unknown"))
    # Before its first checkpoint a run has a lock and nothing else.
    return replace(snapshot, state=PREPARING) if lock_state(path) == "held" else snapshot


def _of_folds(path: Path, status: Json) -> Snapshot:
    """A folds directory, and in it the run that trains."""
    entries = [entry for entry in status.get("folds") or () if isinstance(entry, dict)]
    names = [str(entry.get("folder")) for entry in entries]
    # status.json of the folds is written between two of them; their own know more.
    states = {name: str(status_of(path / name).get("state") or "") for name in names}
    folds = tuple(
        (name, states[name] or str(entry.get("state"))) for name, entry in zip(names, entries, strict=True)
    )
    running = next((name for name in names if states[name] == "running"), "")
    return Snapshot(
        path=path,
        state=str(status.get("state") or "unknown"),
        reason=str(status.get("reason") or ""),
        status=status,
        config=_config(path / "config.toml"),
        log=_last_lines(path / "log.txt"),
        folds=folds,
        current=read_snapshot(path / running) if running else None,
    )


def _stamp(path: Path) -> tuple[int, int]:
    """By which a file that has changed is known."""
    with contextlib.suppress(OSError):
        found = path.stat()
        return found.st_mtime_ns, found.st_size
    return 0, 0


@lru_cache(maxsize=8)
def _history(path: Path, stamp: tuple[int, int]) -> tuple[Json, ...]:
    """The rows of history.jsonl, read again only where its `stamp` is another. It is replaced whole, so no row is ever
    partial."""
    rows = []
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for line in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):
                row = json.loads(line)
                if isinstance(row, dict) and _is_number(row.get("train_loss")):
                    rows.append(row)
    return tuple(rows)


def _config(path: Path) -> Json:
    with contextlib.suppress(OSError, ValueError):
        return tomllib.loads(path.read_text(encoding="utf-8"))
    return {}


def _last_lines(path: Path) -> tuple[str, ...]:
    """The end of log.txt, however long it is."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_BYTES))
        return tuple(file.read().decode("utf-8", errors="replace").splitlines()[-LOG_LINES:])
    return ()


def _table(tree: Json, name: str) -> Json:
    found = tree.get(name)
    return found if isinstance(found, dict) else {}


def _whole(value: Any) -> int:
    return int(value) if _is_number(value) else 0


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True)
class Line:
    """One score over the epochs. `best` is the index of its best value, None for one without a direction."""

    name: str
    values: tuple[float, ...]
    epochs: tuple[int, ...]
    best: int | None
    selects: bool = False


def lines_of(snapshot: Snapshot) -> list[Line]:
    """The losses, the score that selects, and the main score of each target, as far as the history has them; before
    the first epoch has ended, the score of the first answer."""
    rows = snapshot.history
    if not rows:
        return _first_answer(snapshot)
    found = [
        _line("loss", [row.get("train_loss") for row in rows], lowest=True),
        _line("validation loss", _scores(rows, "loss"), lowest=True),
    ]
    names = [snapshot.metric] if snapshot.metric else []
    targets = _table(snapshot.config, "targets")
    for name, target in targets.items():
        type = target.get("type", "class") if isinstance(target, dict) else "class"
        score = MAIN_SCORES.get(str(type), "")
        names.append(score if len(targets) == 1 else f"{name}.{score}")
    for name in dict.fromkeys(names):
        line = _line(name, _scores(rows, name))
        if name == snapshot.metric:
            best = snapshot.status.get("best") or {}
            epoch = best.get("epoch") if isinstance(best, dict) else None
            line = replace(
                line, selects=True, best=line.epochs.index(epoch) if epoch in line.epochs else None
            )
        found.append(line)
    return [line for line in found if line.values]


def _first_answer(snapshot: Snapshot) -> list[Line]:
    """The score of the model that a run begins with; nothing where there is none."""
    value = _table(snapshot.status, "best").get("value")
    if not _is_number(value):
        return []
    return [Line(snapshot.metric, (float(value),), (0,), best=None, selects=True)]


def _scores(rows: Sequence[Json], name: str) -> list[Any]:
    """A score of the validation rows in each epoch, None where it is not there."""
    return [_table(row, "valid").get(name) for row in rows]


def _line(name: str, values_of_epochs: Sequence[Any], lowest: bool = False) -> Line:
    pairs = enumerate(values_of_epochs, 1)
    kept = [(epoch, float(value)) for epoch, value in pairs if _is_number(value)]
    values = tuple(value for _, value in kept)
    best = None
    if values:
        best = values.index(min(values) if lowest else max(values))
    return Line(name, values, tuple(epoch for epoch, _ in kept), best)


def started_seconds(snapshot: Snapshot, now: float | None = None) -> float | None:
    """The seconds that status.json counts, and those since it was written; None where there is none."""
    counted = snapshot.status.get("seconds")
    if not isinstance(counted, int | float):
        return None
    if snapshot.state != "running":
        return float(counted)
    with contextlib.suppress(OSError):
        written = (snapshot.path / "status.json").stat().st_mtime
        return float(counted) + max(0.0, (time.time() if now is None else now) - written)
    return float(counted)
