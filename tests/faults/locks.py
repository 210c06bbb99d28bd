"""Row 11: two runs in one directory. One goes on, the other says who holds it and touches nothing."""

import ctypes
import errno
import fcntl
import itertools
import os
import platform
import random
import shlex
import shutil
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from unittest.mock import patch

import classwise
from classwise.errors import OutputError
from classwise.run import folder as run_folder
from tests.faults.counting import Count, Figure
from tests.faults.forked import PATIENCE, Child, Hook, kill_group, mark, members, start, start_ranks
from tests.faults.signals import Place, counted, halfway, nothing_left, place, require, resumed
from tests.helpers.same_end import assert_same_end
from tests.helpers.scenes import contents

UPDATE = "classwise.training.state:Progress.end_update"


def wait_for(gate: str) -> None:
    """A mark, and go on the instant that the file is there."""
    mark()
    end = time.monotonic() + PATIENCE
    while not Path(gate).exists() and time.monotonic() < end:
        time.sleep(0)


def hold(gate: str) -> None:
    """A mark, and go on once the file is there: whoever trains is not done before the other has been refused."""
    mark()
    end = time.monotonic() + PATIENCE
    while not Path(gate).exists() and time.monotonic() < end:
        time.sleep(0.01)


@dataclass(frozen=True)
class Team:
    """One command in one process or several."""

    arguments: Sequence[object]
    ranks: list[Child]

    @property
    def first(self) -> Child:
        return self.ranks[0]

    def is_named_in(self, text: str) -> bool:
        """As the holder of the directory."""
        command = shlex.join(["classwise", *(str(argument) for argument in self.arguments)])
        start = f"is in use by process {self.first.pid} on {platform.node()} ({command}) since 20"
        return start in text


def begin(
    files: Path,
    world_size: int,
    arguments: Sequence[object],
    hooks: Sequence[Hook],
    sabotage: Callable[[], None] | None = None,
) -> Team:
    """The command, in `world_size` processes."""
    return Team(arguments, start_ranks(files, world_size, arguments, hooks, sabotage=sabotage))


def refused(team: Team, holder: Team) -> None:
    """Exit 1, and one line that says who holds the directory."""
    codes = [rank.wait() for rank in team.ranks]
    said = "".join(rank.said for rank in team.ranks)
    require(codes == [1] * len(codes), f"the second one's exit codes {codes}: {said}")
    require(holder.is_named_in(said), f"not named: {said}")
    require(said.count("error: ") == 1 and "Traceback" not in said, said)


def finished(team: Team, run: Path, whole: Path) -> None:
    """It has come to the end of the undisturbed run."""
    codes = [rank.wait() for rank in team.ranks]
    require(codes == [0] * len(codes), f"the first one's exit codes {codes}: {team.first.said}")
    assert_same_end(whole, run)
    nothing_left(team.ranks, run)


def at_the_same_instant(
    here: Place,
    verb: str,
    world_size: int,
    before: str = "",
    sabotage: Callable[[], None] | None = None,
) -> None:
    """Twice the same command, both let go by one file right before they look at the directory. `before`: what a
    train finds there, nothing, an `empty` folder, or a `stale` lock."""
    whole, folder = here.whole(world_size), here.next()
    run, go, gate = folder / "run", folder / "go", folder / "refused"
    prepare(here, run, before)
    if verb == "resume":
        halfway(here, folder, world_size)
    arguments = ["resume", run] if verb == "resume" else here.train(run, world_size)
    start = "classwise.run.folder:new_folder" if verb == "train" else "classwise.run.folder:RunFolder.status"
    hooks = [Hook(start, wait_for, (str(go),)), Hook(UPDATE, hold, (str(gate),))]
    teams = [begin(folder / str(i), world_size, arguments, hooks, sabotage) for i in range(2)]
    for team in teams:
        require(team.first.wait_for_marks(1, team.first.process.is_alive), team.first.said)
    go.touch()
    ready: list[object] = []
    while not ready and any(len(team.first.marks()) < 2 for team in teams):
        ready = wait([team.first.process.sentinel for team in teams], 0.02)
    gate.touch()
    if len(ready) != 1:
        for team in teams:
            kill_group(team.first.group)
    require(len(ready) == 1, f"{2 - len(ready)} go on")
    (second,) = [team for team in teams if team.first.process.sentinel in ready]
    (first,) = [team for team in teams if team is not second]
    refused(second, first)
    finished(first, run, whole)
    shutil.rmtree(folder)


def prepare(here: Place, run: Path, before: str) -> None:
    """The directory that a train finds."""
    if before:
        run.mkdir()
    if before == "stale":
        (run / ".lock").write_text('{"process": 1, "host": "gone", "command": "gone", "since": "2000"}')


def one_after_the_other(
    here: Place, verbs: tuple[str, str], worlds: tuple[int, int], moment: random.Random
) -> None:
    """The second begins while the first is at a random place: while it sets up, or in one of its first updates."""
    whole, folder = here.whole(worlds[0]), here.next()
    run, gate = folder / "run", folder / "refused"
    if verbs[0] == "resume":
        halfway(here, folder, worlds[0])
    commands = {"train": here.train(run, worlds[0]), "resume": ["resume", run]}
    setting_up = {
        "train": [
            "classwise.run.api:assemble",
            "classwise.run.api:write_beginning",
            "classwise.run.api:say_start",
        ]
    }
    setting_up["resume"] = ["classwise.run.api:prepare", "classwise.run.api:restored_parts"]
    where = moment.choice([*setting_up[verbs[0]], UPDATE])
    call = moment.randrange(1, 9) if where == UPDATE else 1
    first = begin(folder / "0", worlds[0], commands[verbs[0]], [Hook(where, hold, (str(gate),), call)])
    require(first.first.wait_for_marks(1, first.first.process.is_alive), first.first.said)
    before = contents(run)
    second = begin(folder / "1", worlds[1], commands[verbs[1]], [])
    refused(second, first)
    require(contents(run) == before, "the second one has touched something")
    gate.touch()
    finished(first, run, whole)
    shutil.rmtree(folder)


def in_threads(here: Place) -> None:
    """Two threads of one process, let go together: the system's lock would let both in. The one that goes on comes
    to its end, though not to the same bytes: torch has one generator a process, which the other sets back."""
    folder = here.next()
    go, errors, original = threading.Barrier(2), list[BaseException](), run_folder.new_folder

    @contextmanager
    def together(*given):
        go.wait(PATIENCE)
        with original(*given) as found:
            yield found

    def train() -> None:
        try:
            options = [("data.workers", "0"), ("training.batch_size", "4")]
            classwise.train(here.config, folder / "run", options, quiet=True)
        except BaseException as error:
            errors.append(error)

    with patch("classwise.run.folder.new_folder", together):
        threads = [threading.Thread(target=train) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
    require(len(errors) == 1 and isinstance(errors[0], OutputError), f"errors: {errors}")
    holder = f"is in use by this process {os.getpid()} on {platform.node()}"
    require(holder in str(errors[0]), str(errors[0]))
    require(classwise.Run.open(folder / "run").status["state"] == "finished", "the other one has not ended")
    shutil.rmtree(folder)


def after_a_kill(here: Place, workers: int, moment: random.Random) -> bool:
    """kill -9 at a random update, and resume at once; says whether loader workers of the killed one lived on."""
    whole, folder = here.whole(1), here.next()
    hook = Hook(UPDATE, hold, (str(folder / "never"),), moment.randrange(1, 25))
    killed = start(folder / "killed", here.train(folder / "run", 1, workers), [hook])
    require(killed.wait_for_marks(1, killed.process.is_alive), killed.said)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    require((folder / "run/.lock").exists(), "the killed one had no lock")
    alive = bool(members(killed.group))
    resumed(folder, 1, whole)
    kill_group(killed.group)
    shutil.rmtree(folder)
    return alive


def raise_error() -> None:
    """Something that nobody expected."""
    raise RuntimeError("on purpose")


def after_an_error(here: Place) -> None:
    """A run that failed has let go."""
    whole, folder = here.whole(1), here.next()
    failed = start(folder / "failed", here.train(folder / "run", 1), [Hook(UPDATE, raise_error, (), 7)])
    require(failed.wait() == 1 and "on purpose" in failed.said, failed.said)
    nothing_left([failed], folder / "run")
    resumed(folder, 1, whole)
    shutil.rmtree(folder)


def while_others_read(here: Place, read: Sequence[object]) -> None:
    """A run that goes on can be looked at, and is held afterwards as before."""
    whole, folder = here.whole(1), here.next()
    run, gate = folder / "run", folder / "read"
    first = begin(folder / "0", 1, here.train(run, 1), [Hook(UPDATE, hold, (str(gate),), 12)])
    require(first.first.wait_for_marks(1, first.first.process.is_alive), first.first.said)
    given = [
        str(part).format(run=run, images=here.folder / "images", out=folder / "out.csv") for part in read
    ]
    reader = start(folder / "reader", given)
    require(reader.wait() == 0, reader.said)
    refused(begin(folder / "1", 1, ["resume", run], []), first)
    gate.touch()
    finished(first, run, whole)
    shutil.rmtree(folder)


READING = [
    ["report", "{run}"],
    ["evaluate", "{run}"],
    ["predict", "{run}", "{images}", "--out", "{out}"],
]


def in_a_bad_place(here: Place, kind: str) -> None:
    """A directory that cannot be locked is refused by name, and is as it was."""
    folder = here.next()
    run = folder / "run"
    halfway(here, folder, 1)
    sabotage, text = None, ""
    if kind == "read-only file system":
        sabotage, text = partial(make_read_only, str(run)), "/.lock: Read-only file system"
    elif kind == "no locks":
        sabotage, text = no_locks, "its file system gives no locks (No locks available)"
    elif kind == "a link":
        (folder / "victim").write_text("somebody's")
        (run / ".lock").symlink_to(folder / "victim")
        text = "/.lock: Too many levels of symbolic links"
    else:
        (run / ".lock").mkdir()
        text = "/.lock: Is a directory"
    before = contents(folder / "run")
    child = start(folder / "0", ["resume", run], sabotage=sabotage)
    require(child.wait() == 1, child.said)
    require(child.said.startswith(f"error: {run} cannot be locked: ") and text in child.said, child.said)
    require(child.said.count("\n") == 1, child.said)
    (run / ".lock").unlink() if kind == "no locks" else None
    require(contents(folder / "run") == before, "something was touched")
    require(kind != "a link" or (folder / "victim").read_text() == "somebody's", "written through a link")
    shutil.rmtree(folder)


BAD_PLACES = ["read-only file system", "no locks", "a link", "a folder"]


def no_locks() -> None:
    """A network file system without its lock daemon."""

    def lockf(*given: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    fcntl.lockf = lockf


def make_read_only(path: str) -> None:
    """For this process alone: a mount of the folder over itself. Needs to be root."""
    libc = ctypes.CDLL(None, use_errno=True)
    new_namespace, private, recursive, bind, remount, read_only = 0x20000, 1 << 18, 16384, 4096, 32, 1
    where = path.encode()
    done = [
        libc.unshare(new_namespace),
        libc.mount(b"none", b"/", None, recursive | private, None),
        libc.mount(where, where, None, bind, None),
        libc.mount(None, where, None, bind | remount | read_only, None),
    ]
    if any(done):
        raise OSError(ctypes.get_errno(), "no read-only mount", path)


def locks_do_nothing() -> None:
    """Sabotage: everybody gets every lock."""
    fcntl.lockf = lambda *given: None


RACES = [
    ("two trains at the same instant, new folder", "train", 1, ""),
    ("two trains at the same instant, empty folder", "train", 1, "empty"),
    ("two trains at the same instant, stale lock", "train", 1, "stale"),
    ("two resumes at the same instant", "resume", 1, ""),
    ("two trains of two processes at the same instant", "train", 2, ""),
    ("two resumes of two processes at the same instant", "resume", 2, ""),
]
PAIRS = [
    *itertools.product([("train", "train"), ("train", "resume"), ("resume", "resume")], [(1, 1), (2, 2)]),
    (("train", "resume"), (2, 1)),
    (("train", "resume"), (1, 2)),
]


def all_locks() -> Count:
    """Every pair of commands, in every way."""
    count, moment, alive = Count(), random.Random(0), 0
    with place() as here:
        for (kind, verb, world_size, before), times in zip(RACES, (20, 10, 10, 20, 5, 5), strict=True):
            for _ in range(times):
                with counted(count, kind):
                    at_the_same_instant(here, verb, world_size, before)
        for verbs, worlds in PAIRS * 4:
            with counted(count, f"{verbs[1]} while a {verbs[0]} goes on"):
                one_after_the_other(here, verbs, worlds, moment)
        for _ in range(10):
            with counted(count, "two threads of one process"):
                in_threads(here)
        for workers in (0, 2) * 10:
            with counted(count, "resume right after kill -9"):
                alive += after_a_kill(here, workers, moment)
        for _ in range(5):
            with counted(count, "resume after an error"):
                after_an_error(here)
        for read in READING * 2:
            with counted(count, "report, evaluate, predict while a run goes on"):
                while_others_read(here, read)
        for kind in BAD_PLACES:
            with counted(count, "a directory that cannot be locked"):
                in_a_bad_place(here, kind)
    count.notes["kills whose loader workers lived on while resume trained"] = alive
    return count


FIGURES = [
    Figure(
        11,
        "locks",
        "two runs in one directory, at the same instant or one after the other, train and resume, in processes,"
        " threads and pairs of processes: one goes on and ends as if alone (of two threads: ends), the other names its"
        " process, host, command and start, exits 1 and has touched nothing; the lock is free right after kill -9 and"
        " after an error",
        all_locks,
    )
]
