"""kill -9 at any moment of a run, and of the runs that resume it."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.faults import trials
from tests.faults.counting import Count, Figure
from tests.faults.trials import Board, Scene
from tests.helpers.same_end import differences

PHASES = (
    *("update", "writing", "between fsync and rename", "pruning", "validation", "status", "results"),
    "set-up",
)
# The moment between flush and rename is short, so it is aimed at more often.
AIMS = (*PHASES, "between fsync and rename", "between fsync and rename")


def kill_runs(tries: int, seed: int = 0, sabotage: str = "", phases: Sequence[str] = AIMS) -> dict[str, Any]:
    """So many runs, each killed one to three times in drawn phases before it may end; see `Count.as_dict`."""
    trials.no_core_files()
    trials.SABOTAGE[:] = [sabotage] if sabotage else []
    count, board = Count(), Board()
    folder = trials.scratch_folder()
    try:
        there = trials.scene(folder, board)
        number = 0
        while count.tried < tries:
            rng = random.Random(f"{seed} {number}")
            _trial(there, board, rng, number, count, phases)
            number += 1
        count.notes["runs"] = number
        count.notes["most kills of one run"] = 3
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return count.as_dict()


def _trial(
    there: Scene, board: Board, rng: random.Random, number: int, count: Count, phases: Sequence[str]
) -> None:
    """One run, its kills, and its end; every kill is counted by the phase in which it came."""
    run, out = there.folder / f"run {number}", there.folder / f"run {number}.txt"
    kills: list[str] = []
    for attempt in range(rng.choice((1, 1, 2, 3))):
        started = (run / "checkpoints" / "last").exists() or (run / "checkpoints" / ".previous-last").exists()
        phase = rng.choice(phases)
        at = trials.draw(rng, there.counts, phase) if attempt == 0 else rng.randint(1, 3)
        board.reset(phase, at, pause=0.004)
        arguments = (
            ["resume", run, "--quiet"] if started else ["train", there.config, "--run", run, "--quiet"]
        )
        if phase == "set-up":
            board.reset(None)
        if run.exists() and not started:
            shutil.rmtree(run)  # killed before its first checkpoint: it has to be begun anew
        child = trials.start(arguments, board, out)
        if _killed(child, board, rng, phase):
            kills.append(board.phase)
    problem = _end(there, run, board, out)
    for phase in kills:
        count.add(not problem, phase, f"run {number} after {kills}: {problem}")
    shutil.rmtree(run, ignore_errors=True)
    out.unlink(missing_ok=True)


def _killed(child: int, board: Board, rng: random.Random, phase: str) -> bool:
    """Kill the run a random moment after it has come to the phase; False if it ended before."""
    until = time.monotonic() + 60
    if phase == "set-up":
        time.sleep(rng.uniform(0, 0.15))
    else:
        while not board.arrived and time.monotonic() < until:
            if os.waitpid(child, os.WNOHANG)[0]:
                return False
        moment = time.perf_counter() + rng.uniform(0, 0.003)
        while time.perf_counter() < moment:
            pass
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:  # it has no group of its own yet
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def _end(there: Scene, run: Path, board: Board, out: Path) -> str:
    """Let the run go to its end; what is wrong with it then."""
    if not (run / "checkpoints").exists() or not any((run / "checkpoints").iterdir()):
        return _begin_anew(there, run, board, out)
    code = trials.run(["resume", run, "--quiet"], board, out)
    if code != 0:
        if _nothing_kept(run):
            return _begin_anew(there, run, board, out)
        return f"resume ended with {code}: {out.read_text()[-300:]}"
    return differences(there.whole, run)


def _nothing_kept(run: Path) -> bool:
    """Whether the run was killed before its first checkpoint was whole."""
    names = [path.name for path in (run / "checkpoints").iterdir()]
    return names == [".staging-last"]  # had it been whole, resume would have gone on from it


def _begin_anew(there: Scene, run: Path, board: Board, out: Path) -> str:
    """There is no checkpoint: resume has to say so, and another run is not disturbed."""
    if run.exists():
        if trials.run(["resume", run, "--quiet"], board, out) != 1:
            return "resume without a checkpoint did not end with 1"
        if "error: " not in out.read_text().splitlines()[-1]:
            return f"resume without a checkpoint said {out.read_text()[-200:]!r}"
        shutil.rmtree(run)
    code = trials.run(["train", there.config, "--run", run, "--quiet"], board, out)
    return f"train ended with {code}" if code != 0 else differences(there.whole, run)


def kill_commands(tries: int, seed: int = 0) -> dict[str, Any]:
    """The real command with two loader workers, killed after a random time and resumed by the real command; nothing of
    it may live on."""
    trials.no_core_files()
    count, board = Count(), Board()
    folder = trials.scratch_folder()
    try:
        there = trials.scene(folder, board, data__workers=2, training__epochs=8)
        for number in range(tries):
            rng = random.Random(f"{seed} {number}")
            problem, when = _command(there, folder / f"run {number}", rng)
            count.add(not problem, when, f"{number}: {problem}")
            shutil.rmtree(folder / f"run {number}", ignore_errors=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return count.as_dict()


def _command(there: Scene, run: Path, rng: random.Random) -> tuple[str, str]:
    begin = [sys.executable, "-m", "classwise"]
    process = subprocess.Popen(
        [*begin, "train", str(there.config), "--run", str(run), "--quiet"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    until = time.monotonic() + 60
    while not (run / "checkpoints" / "last").exists() and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(rng.uniform(0, 1.5))
    process.kill()
    when = "finished before" if process.wait() == 0 else "killed"
    left = _left_of(process.pid)
    if left:
        return f"{left} processes live on", when
    done = subprocess.run(
        [*begin, "resume", str(run), "--quiet"], capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode != 0:
        return f"resume ended with {done.returncode}: {done.stderr[-300:]}", when
    return differences(there.whole, run), when


def _left_of(session: int, seconds: float = 10.0) -> int:
    """Processes of a session that are still there after so many seconds."""
    until = time.monotonic() + seconds
    while True:
        left = 0
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                except OSError:
                    continue
                left += fields[3] == str(session) and fields[0] != "Z"
        if not left or time.monotonic() > until:
            return left
        time.sleep(0.1)


def count_of(found: dict[str, Any]) -> Count:
    """A count that has come from another process."""
    count = Count(found["tried"], found["held"], failures=found["failures"], notes=found["notes"])
    count.by.update(found["by"])
    return count


FIGURES = [
    Figure(
        2,
        "kill-9",
        "kills of a small real run and of its resumes, by the phase in which they came; the end is byte-equal",
        lambda: count_of(trials.in_a_fresh_process("kills", "kill_runs", 1000)),
    ),
    Figure(
        2,
        "kill-9-command",
        "kills of the real command with two loader workers, resumed by the real command",
        lambda: count_of(trials.in_a_fresh_process("kills", "kill_commands", 100)),
    ),
]
