"""A run's sign of life: `progress.json`, which says how far it is within its epoch.

The run itself writes it, at most once a second, where it asks anyway whether to stop: after every update, and after
every batch of a validation. There is no thread, so what is written is what the loop has come to, and loader workers may
be forked. The file is gone once the run has ended, however it ended; what a kill leaves behind tells when the run was
last alive.
"""

import contextlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PROGRESS = "progress.json"
STAGED = ".progress.json"
PROGRESS_FILES = (PROGRESS, STAGED)
BEAT_SECONDS = 1.0


@contextlib.contextmanager
def signs_of_life(
    folder: Path, facts: Callable[[], dict[str, Any]], should_stop: Callable[[], bool]
) -> Iterator[Callable[[], bool]]:
    """`should_stop` for the block, which writes progress.json whenever it is asked and a beat is due; `facts` as of
    `Heartbeat`."""
    heartbeat = Heartbeat(folder, facts)
    try:
        yield heartbeat.beating(should_stop)
    finally:
        heartbeat.end()


class Heartbeat:
    """Writes `progress.json` into a run directory. `facts` gives its contents but for time, process and host."""

    def __init__(self, folder: Path, facts: Callable[[], dict[str, Any]]) -> None:
        self._path = folder / PROGRESS
        self._staged = folder / STAGED
        self._facts = facts
        self._next = time.monotonic() + BEAT_SECONDS  # what takes less has no need of it
        self.end()  # a kill may have left one, of a time that is over

    def beating(self, should_stop: Callable[[], bool]) -> Callable[[], bool]:
        """`should_stop`, which also writes the file whenever it is due."""

        def asked() -> bool:
            if time.monotonic() >= self._next:
                self._write()
                self._next = time.monotonic() + BEAT_SECONDS
            return should_stop()

        return asked

    def end(self) -> None:
        """Remove the file: status.json says how the run has ended."""
        for path in (self._path, self._staged):
            with contextlib.suppress(OSError):
                path.unlink()

    def _write(self) -> None:
        # Nothing is flushed to the disk: after a power cut nobody needs it. Neither a full disk nor anything else that
        # is wrong with a beat is a reason to stop a run; that there is none is what readers see.
        with contextlib.suppress(Exception):
            head = {
                "time": datetime.now(UTC).isoformat(timespec="seconds"),
                "process": os.getpid(),
                "host": platform.node(),
            }
            text = json.dumps(head | self._facts() | {"memory": memory_used()}, indent=1, allow_nan=False)
            self._staged.write_text(text + "\n", encoding="utf-8")
            self._staged.replace(self._path)


def read_progress(folder: Path) -> dict[str, Any]:
    """The contents of progress.json; empty where there is none, or it cannot be read."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    return {}


def memory_used() -> dict[str, int]:
    """Bytes of memory that this process has in use: `process`, where the system says so, and `gpu`, of the current
    device."""
    found = {}
    with contextlib.suppress(OSError, ValueError, IndexError):
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        found["process"] = pages * os.sysconf("SC_PAGE_SIZE")
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        found["gpu"] = int(torch.cuda.memory_reserved())
    return found
