"""A tracker at work, in a thread of its own: a slow or failing one holds up no other.

A tracker that fails is tried again, with all that has come since, as a server may come back: after RETRY_SECONDS, and
once more at the end. It says so once.
"""

import threading
from collections.abc import Callable

from classwise.errors import first_line
from classwise.tracking.facts import Ending, Point, RunFacts
from classwise.tracking.memory import Memory
from classwise.tracking.to_csv import open_csv
from classwise.tracking.to_mlflow import open_mlflow
from classwise.tracking.to_tensorboard import open_tensorboard
from classwise.tracking.to_wandb import open_wandb
from classwise.tracking.tracker import Kind, Tracker

KINDS = {
    "csv": Kind(open_csv, can_erase=True),
    "tensorboard": Kind(open_tensorboard, can_erase=True),
    "mlflow": Kind(open_mlflow, can_erase=False),
    "wandb": Kind(open_wandb, can_erase=False),
}
BETWEEN_SECONDS = 1.0  # points that come meanwhile are sent together
RETRY_SECONDS = 60.0
MOST_WAITING = 20_000  # points within epochs; those that end one are always kept

Say = Callable[[str, str, str], None]
"""Tells the training process (tracker, kind, text); the kind is one of: opened, failed, recovered, lost, done."""


class Lane:
    """One tracker's thread, the points that wait for it, and what it remembers in RUN/trackers."""

    def __init__(self, name: str, facts: RunFacts, memory: Memory, say: Say) -> None:
        self._name = name
        self._kind = KINDS[name]
        self._facts = facts
        self._memory = memory
        self._say = say
        self._tracker: Tracker | None = None
        self._waiting: list[Point] = []
        self._lock = threading.Lock()
        self._dropped = 0
        self._has_opened = False
        self._has_failed = False  # this and the line before are said once
        self._is_failing = False
        self._ending: Ending | None = None
        self._has_ended = threading.Event()
        self.thread = threading.Thread(target=self._work, name=name, daemon=True)

        # Points up to here are there. What a tracker cannot erase is not sent again: a resumed run computes the same.
        logged = int(memory.recall(name).get("step", 0))
        self._step = min(logged, facts.step) if self._kind.can_erase else logged

    def add(self, point: Point) -> None:
        """Let a point wait for its turn."""
        with self._lock:
            if point.ends_epoch or len(self._waiting) < MOST_WAITING:
                self._waiting.append(point)
            else:
                self._dropped += 1

    def end(self, ending: Ending) -> None:
        """Let the thread send what waits and finish."""
        self._ending = ending
        self._has_ended.set()

    def _work(self) -> None:
        pause = 0.0
        while not self._has_ended.wait(pause):
            pause = BETWEEN_SECONDS if self._tried(self._send) else RETRY_SECONDS
        if not self._tried(self._finish):
            self._say(self._name, "lost", f"{len(self._waiting)} points and the end of the run were not sent")
        elif self._dropped:
            self._say(self._name, "lost", f"{self._dropped} points within epochs, more than can wait")
        self._say(self._name, "done", "")

    def _tried(self, work: Callable[[], None]) -> bool:
        """Whether it worked. Some of these libraries raise SystemExit where they give up."""
        try:
            work()
        except (Exception, SystemExit) as error:
            if not self._has_failed:
                self._say(self._name, "failed", _text(error))
            self._has_failed = True
            self._is_failing = True
            self._tracker = None  # to be opened again: what it has written in part is then erased
            return False
        if self._is_failing:
            self._is_failing = False
            self._say(self._name, "recovered", "")
        return True

    def _send(self) -> None:
        """Send what waits; it waits on if that fails."""
        if self._tracker is None:
            memory = self._memory.recall(self._name)
            self._tracker = self._kind.open(self._facts, memory, self._step, self._remember)
            if not self._has_opened:
                self._say(self._name, "opened", self._tracker.where)
            self._has_opened = True
        with self._lock:
            points = list(self._waiting)
        new = [point for point in points if point.step > self._step]
        if new:
            self._tracker.log(new)
            self._step = new[-1].step
            self._remember(step=self._step)
        with self._lock:
            del self._waiting[: len(points)]

    def _finish(self) -> None:
        self._send()
        assert self._tracker is not None
        assert self._ending is not None
        self._tracker.finish(self._ending)

    def _remember(self, **values: object) -> None:
        self._memory.keep(self._name, **values)


def _text(error: BaseException) -> str:
    """Its type, and what it says first."""
    kind, line = type(error).__name__, first_line(error)
    return kind if line == kind else f"{kind}: {line}"
