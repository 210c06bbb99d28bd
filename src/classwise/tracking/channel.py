"""The training process's end of the pipe to the trackers' process: sending never waits, and never raises."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from classwise.tracking.facts import Message, to_line

MOST_QUEUED = 10_000
POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Answer:
    """What a tracker has to say; `kind` as in lane.py."""

    tracker: str
    kind: str
    text: str


class Channel:
    """The process of the trackers, a bounded queue of messages to it, and its answers so far.

    Two threads move them: they wait in system calls, and take no time from training.
    """

    def __init__(self, names: Sequence[str], log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self.lost = 0
        self.answers: deque[Answer] = deque()
        self._messages: queue.Queue[Message | None] = queue.Queue(MOST_QUEUED)
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                # -P: a file of the current folder must not stand in for a module.
                [sys.executable, "-P", "-W", "ignore", "-m", "classwise.tracking.worker", *names],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,  # nothing is left in a buffer of ours, where the process has died
                env=_environment(),
                start_new_session=True,  # Ctrl-C in a terminal is for the run
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        threading.Thread(target=self._write, args=(self._process.stdin,), daemon=True).start()
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()

    def send(self, message: Message) -> None:
        """Queue a message; where the queue is full it is lost, and counted."""
        try:
            self._messages.put_nowait(message)
        except queue.Full:
            self.lost += 1

    def wait(self, seconds: float) -> bool:
        """Whether the process has done all that was sent, waiting `seconds` for it at the most. Nothing can be sent any
        more."""
        deadline = time.monotonic() + seconds
        with contextlib.suppress(queue.Full):
            self._messages.put_nowait(None)
        # Polled, so that a signal can end the waiting on every system.
        while self._process.poll() is None and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        return self._process.poll() is not None

    def close(self) -> None:
        """End the process, if it has not come to its own end; all its answers are there afterwards."""
        self._kill()
        self._reader.join(timeout=1.0)

    def _kill(self) -> None:
        """End the process at once, and those that it has started; nothing if it has ended."""
        if self._process.poll() is not None:
            return
        if hasattr(os, "killpg"):
            os.killpg(self._process.pid, signal.SIGKILL)
        else:
            self._process.kill()
        self._process.wait()

    def _write(self, pipe: IO[bytes]) -> None:
        # Where the process has died, the rest stays in the queue: `close` finds that out.
        with contextlib.closing(pipe), contextlib.suppress(OSError):
            while (message := self._messages.get()) is not None:
                line = memoryview(to_line(message))
                while line:
                    line = line[pipe.write(line) :]

    def _read(self, pipe: IO[bytes]) -> None:
        for line in pipe:
            with contextlib.suppress(ValueError, TypeError):  # cut off, where the process was killed
                self.answers.append(Answer(**json.loads(line)))
        pipe.close()


def _environment() -> dict[str, str]:
    """The process finds classwise where this one does; libraries that could be told twice to use many threads use
    one."""
    package = str(Path(__file__).resolve().parents[2])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
    }
