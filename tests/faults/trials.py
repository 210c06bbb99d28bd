"""Real runs in forked processes that know in which phase they are, and can be killed or stopped there.

A process that has everything imported forks one child a run, so that a trial takes a second and not ten. This process
itself computes nothing, so that no thread is lost in the fork; figures and tests start it as a program of its own
(`in_a_fresh_process`). Phases are noted in shared memory by wrappers put around the product's functions from outside.
"""

import contextlib
import dataclasses
import json
import mmap
import os
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.faults import sabotages
from tests.helpers.children import child_environment

PHASES = (
    *("set-up", "update", "writing", "between fsync and rename", "pruning", "status", "validation"),
    *("results", "other"),
)
COUNTS = struct.Struct(f"<{len(PHASES)}I")
PHASE, TARGET, ARRIVED, PAUSE, ORDINAL, START = 0, 1, 2, 4, 8, 16


SABOTAGE: list[str] = []
"""The name of a protection that is taken out of every child; see sabotages.py."""


class Board:
    """Shared memory between a run and whoever watches it: the phase, how often each was entered, and where the run is
    to wait a moment for its end."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, 4096)

    def reset(self, target: str | None = None, ordinal: int = 1, pause: float = 0.0) -> None:
        """Begin anew; the run pauses `pause` seconds when it enters `target` for the `ordinal`-th time."""
        self.memory[:START] = bytes(START)
        self.memory[START : START + COUNTS.size] = bytes(COUNTS.size)
        self.memory[TARGET] = 255 if target is None else PHASES.index(target)
        self.memory[PAUSE : PAUSE + 4] = struct.pack("<f", pause)
        self.memory[ORDINAL : ORDINAL + 4] = struct.pack("<I", ordinal)

    @property
    def phase(self) -> str:
        return PHASES[self.memory[PHASE]]

    @property
    def arrived(self) -> bool:
        return bool(self.memory[ARRIVED])

    @property
    def counts(self) -> dict[str, int]:
        """How often each phase was entered."""
        return dict(zip(PHASES, COUNTS.unpack_from(self.memory, START), strict=True))

    def enter(self, phase: str) -> str:
        """Called by the run; returns the phase before."""
        before, number = self.memory[PHASE], PHASES.index(phase)
        self.memory[PHASE] = number
        at = START + 4 * number
        count = struct.unpack_from("<I", self.memory, at)[0] + 1
        struct.pack_into("<I", self.memory, at, count)
        if self.memory[TARGET] == number and struct.unpack_from("<I", self.memory, ORDINAL)[0] == count:
            self.memory[ARRIVED] = 1
            until = time.perf_counter() + struct.unpack_from("<f", self.memory, PAUSE)[0]
            while time.perf_counter() < until:
                pass
        return PHASES[before]

    @contextlib.contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """The phase, and then the one before again."""
        before = self.enter(phase)
        try:
            yield
        finally:
            self.memory[PHASE] = PHASES.index(before)

    def around(self, phase: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """`work`, with the phase noted while it runs."""

        def call(*arguments: Any, **options: Any) -> Any:
            with self.during(phase):
                return work(*arguments, **options)

        return call


def watch_phases(board: Board) -> None:
    """Put the wrappers in place, in the child."""
    from classwise.run import checkpoint, session
    from classwise.run.folder import RunFolder
    from classwise.training import loop
    from classwise.training.state import Progress

    write, sync, remove, save = (
        checkpoint._write_flushed,
        checkpoint.sync_folder,
        checkpoint._remove,
        checkpoint.write_checkpoint,
    )

    def write_in_parts(path: Path, data: bytes) -> None:
        """The same bytes in three writes, so that a kill finds the file at any length."""
        with path.open("xb") as file:
            third = len(data) // 3 + 1
            for start in range(0, max(1, len(data)), third):
                board.enter("writing")
                file.write(data[start : start + third])
                file.flush()
            os.fsync(file.fileno())

    def synced(folder: Path) -> None:
        sync(folder)
        if folder.name.startswith(".staging"):
            board.enter("between fsync and rename")

    def removed(folder: Path) -> None:
        with board.during("pruning" if folder.name.startswith(".previous") else "writing"):
            shutil.rmtree(folder, ignore_errors=True)

    def saved(*arguments: Any) -> None:
        with board.during("writing"):
            save(*arguments)

    def ended(progress: Progress, *arguments: Any) -> None:
        end_update(progress, *arguments)
        board.enter("update")

    end_update = Progress.end_update
    del write, remove
    checkpoint._write_flushed = write_in_parts  # type: ignore[assignment]
    checkpoint.sync_folder = synced  # type: ignore[assignment]
    checkpoint._remove = removed
    checkpoint.write_checkpoint = saved  # type: ignore[assignment]
    loop.train_one_epoch = board.around("update", loop.train_one_epoch)  # type: ignore[assignment]
    loop.evaluate = board.around("validation", loop.evaluate)  # type: ignore[assignment]
    Progress.end_update = ended  # type: ignore[method-assign, assignment]
    RunFolder.write_status = board.around("status", RunFolder.write_status)  # type: ignore[method-assign]
    RunFolder.write_history = board.around("status", RunFolder.write_history)  # type: ignore[method-assign]
    session._write_results = board.around("results", session._write_results)  # type: ignore[assignment]
    session.write_report = board.around("results", session.write_report)  # type: ignore[assignment]


def start(
    arguments: Sequence[object], board: Board, out: Path, prepare: Callable[[], None] = lambda: None
) -> int:
    """Fork a child that runs `classwise ARGUMENTS` in a session of its own; its process number."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        os.setsid()
        handle = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        watch_phases(board)
        if SABOTAGE:
            sabotages.BY_NAME[SABOTAGE[0]]()
        prepare()
        from classwise.cli import run_command

        code = run_command([str(argument) for argument in arguments])
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def wait(child: int, seconds: float = 120.0) -> int | None:
    """The exit code (negative: the signal that ended it); None if it had to be killed after so many seconds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def run(arguments: Sequence[object], board: Board, out: Path, **options: Any) -> int | None:
    """Start and wait, undisturbed."""
    board.reset()
    return wait(start(arguments, board, out, **options))


@dataclasses.dataclass(frozen=True)
class Scene:
    """A data set with a config, its uninterrupted run, and how often that entered each phase."""

    folder: Path
    config: Path
    whole: Path
    counts: dict[str, int]


def scene(folder: Path, board: Board, **changes: Any) -> Scene:
    """Small drawn images of people, a small network, and everything on that has a state. `changes` as in
    `scenes.write_config`."""
    from tests.helpers.scenes import PEOPLE, people_table, write_config

    people_table(folder, 12)
    values = {
        "training__checkpoint_updates": 1,
        "training__threads": 1,
        "training__ema": 0.9,
        "training__epochs": 2,
        "selection__first_epoch": 1,
        "data__augment": "strong",
        "report": {"baselines": False, "resamples": 10},
        "targets__age": None,
        "joint": {"targets": ["mask", "gender"]},
        **changes,
    }
    config = write_config(folder, PEOPLE, **values)
    code = run(["train", config, "--run", folder / "whole", "--quiet"], board, folder / "whole.txt")
    assert code == 0, (folder / "whole.txt").read_text()
    return Scene(folder, config, folder / "whole", board.counts)


def prepare_process() -> None:
    """Import all that a run needs, once, before anything forks."""
    import torch

    torch.set_num_threads(1)
    import torch._dynamo  # every optimizer needs it, and it takes two seconds

    import classwise.compose.linear_probe
    import classwise.compose.state
    import classwise.report.page
    import classwise.run.api  # noqa: F401


def in_a_fresh_process(module: str, function: str, *arguments: Any, timeout: float = 3600) -> Any:
    """What `module.function(*arguments)` returns, as plain values, from a new process; `module` is one of this folder."""
    return several([(module, function, *arguments)], timeout)[0]


def several(calls: Sequence[Sequence[Any]], timeout: float = 3600) -> list[Any]:
    """What several calls (module, function, arguments ...) return, one after the other in one new process."""
    script = (
        "import importlib, json\n"
        "from tests.faults.trials import prepare_process\n"
        "prepare_process()\n"
        f"for module, function, *arguments in json.loads({json.dumps(json.dumps(calls))}):\n"
        "    found = getattr(importlib.import_module(f'tests.faults.{module}'), function)(*arguments)\n"
        "    print('FOUND' + json.dumps(found), flush=True)\n"
    )
    environment = child_environment(CI="true", PYTHONWARNINGS="ignore")
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=timeout, env=environment
    )
    lines = [line for line in found.stdout.splitlines() if line.startswith("FOUND")]
    assert len(lines) == len(calls), found.stderr[-3000:]
    return [json.loads(line.removeprefix("FOUND")) for line in lines]


def scratch_folder() -> Path:
    """In memory, where there is room: thousands of flushes would wear a disk out for nothing."""
    return Path(tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))


def draw(rng: random.Random, counts: dict[str, int], phase: str) -> int:
    """When a phase is to be hit: after a random number of its entrances."""
    return rng.randint(1, max(1, counts[phase]))


def no_core_files() -> None:
    """Thousands of kills leave nothing behind."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
