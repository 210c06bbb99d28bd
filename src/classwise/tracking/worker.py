"""The process of the trackers: `python -m classwise.tracking.worker NAME...`, started by channel.py.

Lines of JSON come in on stdin, and go out on stdout; what the libraries print goes to stderr, which is a file in the
run directory. A run that vanishes without a word is ended as killed.
"""

import contextlib
import json
import os
import queue
import signal
import sys
import threading
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock

from classwise.tracking.facts import Ending, Message, Point, RunFacts, from_line
from classwise.tracking.lane import Lane
from classwise.tracking.memory import FOLDER, Memory

ORPHAN_SECONDS = 60.0  # for the last words of a run whose process is gone
POLL_SECONDS = 1.0


def main(names: list[str]) -> None:
    """Serve the trackers until the run ends."""
    # Ctrl-C reaches all processes of a terminal, and SIGTERM those of a job: the run itself says when it ends.
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    with contextlib.suppress(OSError, AttributeError):
        os.nice(5)  # training goes first

    # stdout is for answers only, so prints of the libraries go to stderr.
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    lock = threading.Lock()

    def say(tracker: str, kind: str, text: str) -> None:
        line = json.dumps({"tracker": tracker, "kind": kind, "text": text}).encode() + b"\n"
        with lock, contextlib.suppress(OSError):  # the run may be gone
            answers.write(line)

    messages: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(sys.stdin.buffer, messages), daemon=True).start()
    parent = os.getppid()
    facts = messages.get()
    if not isinstance(facts, RunFacts):
        return

    # Where a run was killed and is resumed at once, its last process may still be sending.
    folder = Path(facts.folder)
    with FileLock(folder / FOLDER / "lock", timeout=2 * ORPHAN_SECONDS):
        memory = Memory(folder)
        lanes = [Lane(name, facts, memory, say) for name in names]
        for lane in lanes:
            lane.thread.start()
        ending, patience = _pass_on(messages, lanes, parent)
        for lane in lanes:
            lane.end(ending)
        for lane in lanes:
            lane.thread.join(patience)
        if any(lane.thread.is_alive() for lane in lanes):
            os._exit(1)


def _read(stream: BinaryIO, messages: "queue.SimpleQueue[Message | None]") -> None:
    for line in stream:
        if line.endswith(b"\n"):  # else cut off by the end of the run's process
            messages.put(from_line(line))
    messages.put(None)


def _pass_on(
    messages: "queue.SimpleQueue[Message | None]", lanes: list[Lane], parent: int
) -> tuple[Ending, float | None]:
    """Give points to all trackers until the end; returns it, and how long they may take for it: as long as the run's
    process lets them, but for a run whose process is gone."""
    last = Point(step=0, time=0.0, values={})
    while True:
        try:
            message = messages.get(timeout=POLL_SECONDS)
        except queue.Empty:
            # Workers that read images may hold the pipe open when the run's process has died.
            message = None
            if os.getppid() == parent:
                continue
        if isinstance(message, Point):
            last = message
            for lane in lanes:
                lane.add(message)
        elif isinstance(message, Ending):
            return message, None
        else:
            return Ending("killed", step=last.step, time=last.time), ORPHAN_SECONDS


if __name__ == "__main__":
    main(sys.argv[1:])
