"""Whether a run that its status.json calls running still is: a killed process cannot say that it has ended.

Two things tell. The lock on the run directory, which the system releases when the process ends, is certain on the
machine that the run is on. Of a run on another machine, seen on a shared disk or in a copy, there are only the times at
which it last wrote something. Nothing here changes the run directory, and nothing imports torch.
"""

import contextlib
import json
import platform
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from classwise.run.heartbeat import PROGRESS, read_progress
from classwise.run.lock import LOCK, lock_holder, lock_state

SILENT_SECONDS = 300.0
"""Without a sign of life for so long, a run on another machine is called silent. A healthy one writes nothing during a
single update, while a linear probe is fitted, and while the features of a frozen backbone are computed."""
RUNNING, KILLED, SILENT = "running", "killed", "silent"
WRITTEN = (PROGRESS, "status.json", "history.jsonl", "log.txt", LOCK)


def true_status(folder: Path, status: Mapping[str, Any], now: float | None = None) -> dict[str, Any]:
    """`status`, as status.json has it, with the `state` and `reason` that are true now.

    A run that says it is running and is not becomes `killed`, where its lock is known to be free; `silent`, where
    nothing but the silence tells. One that was stopped and is being resumed is running. `now`: seconds since 1970, by
    default the present.
    """
    found = dict(status)
    if found.get("state") not in (RUNNING, "interrupted", "failed"):
        return found
    lock = lock_state(folder)
    if found["state"] != RUNNING:
        if lock == "held":
            found |= {"state": RUNNING, "reason": "being resumed"}
        return found
    if lock == "held":
        return found

    # The run may have ended between the two looks: it says so before it lets the lock go.
    with contextlib.suppress(OSError, ValueError):
        later = json.loads((folder / "status.json").read_text(encoding="utf-8"))
        if isinstance(later, dict) and later.get("state") != RUNNING:
            return found | later
    silent_for = seconds_silent(folder, now)
    if lock == "free" and host_of(folder) in ("", platform.node()):
        when = f" (last sign of life {age_text(silent_for)} ago)" if silent_for is not None else ""
        reason = (
            f"its process is gone{when} and could not say why: killed, or short of memory, or a power cut"
        )
        return found | {"state": KILLED, "reason": f"{reason}; go on with: classwise resume {folder}"}
    if silent_for is not None and silent_for >= SILENT_SECONDS:
        where = f" on {host_of(folder)}" if host_of(folder) else ""
        return found | {
            "state": SILENT,
            "reason": f"no sign of life{where} for {age_text(silent_for)}: killed, or cut off from this disk",
        }
    return found


def status_of(folder: Path) -> dict[str, Any]:
    """`true_status` of a run directory's status.json; empty where there is none that can be read."""
    with contextlib.suppress(OSError, ValueError):
        status = json.loads((folder / "status.json").read_text(encoding="utf-8"))
        return true_status(folder, status) if isinstance(status, dict) else {}
    return {}


def host_of(folder: Path) -> str:
    """The machine that the run is on, or was; empty where nothing says so."""
    return str(lock_holder(folder).get("host") or read_progress(folder).get("host") or "")


def seconds_silent(folder: Path, now: float | None = None) -> float | None:
    """How long ago the run last wrote something; None where it has left no file. By the time in progress.json, which a
    copy keeps, or else by the newest of its files."""
    now = time.time() if now is None else now
    with contextlib.suppress(KeyError, ValueError, TypeError):
        said = datetime.fromisoformat(read_progress(folder)["time"]).timestamp()
        return max(0.0, now - said)
    times = []
    for name in WRITTEN:
        with contextlib.suppress(OSError):
            times.append((folder / name).stat().st_mtime)
    return max(0.0, now - max(times)) if times else None


def age_text(seconds: float) -> str:
    """`40 s`, `7 min`, `3 h`, `2 days`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 2 * 86400 else f"{seconds / 86400:.0f} days"


def ending_note(status: Mapping[str, Any]) -> str:
    """What to know before using the model of a run that is not done; empty for one that is. `status`: the true one."""
    state = str(status.get("state", ""))
    if state in ("finished", "early_stopped", ""):
        return ""
    what = {RUNNING: "is still running", SILENT: "may have been killed"}.get(state, f"was {state}")
    what = "has failed" if state == "failed" else what
    return f"note: the run {what}, after epoch {status.get('epoch', 0)}; its best checkpoint so far is used"
