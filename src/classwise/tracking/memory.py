"""What trackers remember of a run, in its directory: the ids of its runs in their tools, and how far they have come."""

import json
import threading
from pathlib import Path
from typing import Any

from classwise.files import write_json

FOLDER = "trackers"


class Memory:
    """RUN/trackers/state.json: a table a tracker. Threads may share it."""

    def __init__(self, run: Path) -> None:
        self._path = run / FOLDER / "state.json"
        self._lock = threading.Lock()
        self._tables: dict[str, dict[str, Any]] = {}
        if self._path.exists():
            self._tables = json.loads(self._path.read_text(encoding="utf-8"))

    def recall(self, tracker: str) -> dict[str, Any]:
        """What was kept of a tracker; empty if nothing was."""
        with self._lock:
            return dict(self._tables.get(tracker, {}))

    def keep(self, tracker: str, **values: Any) -> None:
        """Keep values beside those that are kept already."""
        with self._lock:
            self._tables.setdefault(tracker, {}).update(values)
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._path, self._tables)
