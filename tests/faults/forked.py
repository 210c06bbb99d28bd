"""Commands in processes of their own that are forked from one which has imported everything: many tries in little
time, each with its own process group, output and exit code."""

import contextlib
import importlib
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from classwise.signals import STOPPING
from tests.helpers.children import child_environment

PATIENCE = 120.0  # seconds for anything that should be over long before
_server = multiprocessing.get_context("forkserver")
# The last one takes most of the time; torch imports it with the first optimizer.
_server.set_forkserver_preload(["classwise.cli", "classwise.run.api", "torch._dynamo"])


@dataclass(frozen=True)
class Hook:
    """At the `call`-th call of `place` (`module:Class.function`, from 1), the child does `act(*arguments)` before it
    goes on; `act` is a function of a module, since it travels there."""

    place: str
    act: Callable[..., None]
    arguments: tuple[Any, ...] = ()
    call: int = 1


@dataclass(frozen=True)
class Said:
    """What a process that runs one command leaves in the folder `files`."""

    files: Path

    @property
    def code(self) -> int | None:
        """What the command returned, whatever became of the process afterwards; None if it never did."""
        with contextlib.suppress(OSError, ValueError):
            return int((self.files / "code").read_text())
        return None

    @property
    def said(self) -> str:
        """Its stderr."""
        return (self.files / "err").read_text(errors="replace")

    def marks(self) -> list[float]:
        """When it came past its marks, by the clock that all processes share."""
        with contextlib.suppress(OSError):
            return [float(line) for line in (self.files / "marks").read_text().split()]
        return []

    def wait_for_marks(
        self, count: int, alive: Callable[[], bool] | None = None, seconds: float = PATIENCE
    ) -> bool:
        """Whether it has come past so many marks; False if it ended before, or does not come that far."""
        end = time.monotonic() + seconds
        path = self.files / "marks"
        while time.monotonic() < end:
            if path.exists() and path.stat().st_size >= count * WIDTH:
                return True
            if alive is not None and not alive():
                return False
            time.sleep(0.001)
        return False


@dataclass(frozen=True)
class Child(Said):
    """A process that was forked here, and its group."""

    process: BaseProcess
    group: int
    times: list[float] = field(default_factory=list)

    @property
    def pid(self) -> int:
        """Its number."""
        assert self.process.pid
        return self.process.pid

    @property
    def ended(self) -> float:
        """When, by the clock that all processes share."""
        return self.times[0]

    def wait(self, seconds: float = PATIENCE) -> int | None:
        """Its exit code; None, and it is killed with its group, if it does not end by itself."""
        ended = wait([self.process.sentinel], seconds)
        self.times.append(time.monotonic())
        if ended:
            self.process.join()
        if self.process.exitcode is None:
            kill_group(self.group)
            self.process.join()
            return None
        return self.process.exitcode


WIDTH = 24  # bytes of a mark


def mark() -> None:
    """Say that this place has been reached."""
    line = f"{time.monotonic():<{WIDTH - 1}.6f}\n".encode()
    handle = os.open(os.environ["MARKS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, line)
    os.close(handle)


def start(
    files: Path,
    arguments: Sequence[object],
    hooks: Sequence[Hook] = (),
    environment: Mapping[str, str] = {},
    folder: Path | None = None,
    group: int = 0,
    sabotage: Callable[[], None] | None = None,
) -> Child:
    """Begin `classwise ARGUMENTS` in `folder`; `group` 0 is a new process group. `sabotage` is done in the child
    before it begins."""
    files.mkdir(parents=True, exist_ok=True)
    for name in ("code", "marks"):
        (files / name).unlink(missing_ok=True)
    given = [str(argument) for argument in arguments]
    process = _server.Process(
        target=_child,
        args=(files, given, tuple(hooks), dict(environment), folder or files, group, sabotage),
    )
    process.start()
    assert process.pid
    return Child(files, process, group or process.pid)


def start_ranks(
    files: Path, world_size: int, arguments: Sequence[object], hooks: Sequence[Hook] = (), **options: Any
) -> list[Child]:
    """The command in `world_size` processes of one group, with what torchrun tells its own; hooks are the first's."""
    if world_size == 1:
        return [start(files / "0", arguments, hooks, **options)]
    port = free_port()
    ranks: list[Child] = []
    for rank in range(world_size):
        environment = rank_environment(rank, world_size, port)
        own = dict(options) | {"environment": environment | dict(options.get("environment", {}))}
        group = ranks[0].group if ranks else 0
        ranks.append(start(files / str(rank), arguments, () if rank else hooks, **(own | {"group": group})))
    return ranks


def rank_environment(rank: int, world_size: int, port: int) -> dict[str, str]:
    """What torchrun tells a process on a machine of its own."""
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "LOCAL_WORLD_SIZE": world_size}
    told |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return {key: str(value) for key, value in told.items()}


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def start_program(
    files: Path,
    arguments: Sequence[object],
    hooks: Sequence[Hook] = (),
    torchrun: Sequence[str] = (),
    environment: Mapping[str, str] = {},
) -> "subprocess.Popen[bytes]":
    """The real thing: a fresh Python, or as many as torchrun starts with these options, in a session of its own.
    What each leaves is in `files`/RANK."""
    files.mkdir(parents=True)
    told = json.dumps([[h.place, f"{h.act.__module__}:{h.act.__name__}", h.arguments, h.call] for h in hooks])
    program = ["-m", "tests.faults.forked", str(files), told, *(str(argument) for argument in arguments)]
    launcher = ["-m", "torch.distributed.run", *torchrun, "--"] if torchrun else []
    with (files / "err").open("wb") as err:
        return subprocess.Popen(
            [sys.executable, *launcher, *program],
            stdout=subprocess.DEVNULL,
            stderr=err,
            start_new_session=True,
            env=child_environment(**environment),
        )


def members(group: int) -> list[int]:
    """The processes of a group that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # pid (name) state ppid pgrp ...
            state, _, pgrp = path.read_text().rpartition(")")[2].split()[:3]
            if int(pgrp) == group and state not in "ZX":
                found.append(int(path.parent.name))
    return found


def kill_group(group: int) -> None:
    """Whatever is left of it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _child(
    files: Path,
    arguments: list[str],
    hooks: tuple[Hook, ...],
    environment: dict[str, str],
    folder: Path,
    group: int,
    sabotage: Callable[[], None] | None,
) -> None:
    _join(group)
    os.environ.update(environment)
    # A fork server that started loader workers before is shared with them, and holds signals back for good.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    os.chdir(folder)
    for name, number in (("out", 1), ("err", 2)):
        handle = os.open(files / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, number)
        os.close(handle)
    if sabotage:
        sabotage()
    command(files, arguments, hooks)


def command(files: Path, arguments: list[str], hooks: Sequence[Hook]) -> None:
    """`classwise ARGUMENTS` in this process to its end, which is recorded."""
    from classwise import cli

    (files / "pid").write_text(str(os.getpid()))
    os.environ["MARKS"] = str(files / "marks")
    sys.argv = ["classwise", *arguments]
    for hook in hooks:
        _put(hook)
    try:
        cli.main(arguments)
    except SystemExit as end:
        (files / "code").write_text(str(end.code))
        raise


def _join(group: int) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return os.setpgid(0, group)
        except PermissionError:  # its first process has not made it yet
            if time.monotonic() > end:
                raise
            time.sleep(0.001)


def _put(hook: Hook) -> None:
    module, _, path = hook.place.partition(":")
    *owners, name = path.split(".")
    owner: Any = importlib.import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    original = getattr(owner, name)
    calls = 0

    def hooked(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if hook.call in (0, calls):
            hook.act(*hook.arguments)
        return original(*args, **kwargs)

    setattr(owner, name, hooked)


def _program() -> None:
    """What `start_program` has started."""
    where, told, *arguments = sys.argv[1:]
    hooks = []
    for place, act, given, call in json.loads(told):
        module, _, name = act.partition(":")
        hooks.append(Hook(place, getattr(importlib.import_module(module), name), tuple(given), call))
    files = Path(where) / os.environ.get("RANK", "0")
    files.mkdir(exist_ok=True)
    command(files, arguments, hooks)


if __name__ == "__main__":
    _program()
