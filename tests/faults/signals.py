"""Row 6: a signal ends a run with a checkpoint, whenever it comes and whomever it is sent to, and resume ends in the
bytes of the run that nobody disturbed."""

import itertools
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import classwise.data.workers
import classwise.signals
from classwise.distributed import Processes
from classwise.run.checkpoint import read_checkpoint
from classwise.run.folder import RunFolder
from tests.faults.counting import Count, Figure
from tests.faults.forked import (
    PATIENCE,
    Child,
    Hook,
    Said,
    free_port,
    kill_group,
    mark,
    members,
    start_program,
    start_ranks,
)
from tests.helpers.same_end import assert_same_end
from tests.helpers.scenes import PLAIN, contents, plain_table, write_config

SIGNALS = {"SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT, "SIGUSR1": signal.SIGUSR1}
WITHIN = 10.0  # seconds from the signal to the end
UPDATES = 30
TRAINING = {
    "model__dropout": 0.1,
    "training": {**PLAIN["training"], "epochs": 6, "batch_size": 4, "checkpoint_updates": 3},
    "report": {"baselines": False, "resamples": 10},
}


@dataclass
class Place:
    """A config in a folder, and for each number of processes the run that nobody disturbed."""

    folder: Path
    patience: float = PATIENCE  # seconds for a run to stop, after which it is killed
    longest: float = 0.0
    numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def config(self) -> Path:
        return self.folder / "classwise.toml"

    def whole(self, world_size: int) -> Path:
        """The run of so many processes, trained when it is first asked for."""
        run = self.folder / f"whole {world_size}"
        if not run.exists():
            ranks = start_ranks(self.folder / f"files {world_size}", world_size, self.train(run, world_size))
            assert [rank.wait() for rank in ranks] == [0] * world_size, ranks[0].said
        return run

    def train(self, run: Path, world_size: int, workers: int = 0) -> list[object]:
        """The command; several processes take smaller batches, so that there are as many updates."""
        options = {"data.workers": workers, "training.batch_size": 4 // world_size}
        given = [part for key, value in options.items() for part in (f"--{key}", value)]
        return ["train", self.config, "--run", run, *given]

    def next(self) -> Path:
        """A new folder for one try."""
        path = self.folder / f"try {next(self.numbers)}"
        path.mkdir()
        return path


@contextmanager
def place() -> Iterator[Place]:
    """Drawn images: 18 to train on in five updates an epoch, a checkpoint after every third."""
    folder = Path(tempfile.mkdtemp(prefix="classwise-signals-"))
    try:
        plain_table(folder, 24)
        write_config(folder, PLAIN, **TRAINING)
        yield Place(folder)
    finally:
        _remove(folder)


def _remove(folder: Path) -> None:
    """A process that has been killed may be in the middle of a system call that makes one more file."""
    for _ in range(50):
        with suppress(OSError):
            shutil.rmtree(folder)
            return
        time.sleep(0.1)
    shutil.rmtree(folder)


def pause(seconds: float, gate: str) -> None:
    """A mark for an update, and time for the signal; the last update waits until it has been sent."""
    mark()
    time.sleep(seconds)
    if Path(os.environ["MARKS"]).stat().st_size >= 24 * (UPDATES - 1):
        while not Path(gate).exists():
            time.sleep(0.01)


def updates(gate: Path) -> Hook:
    """As `pause` says, in every update."""
    return Hook("classwise.training.state:Progress.end_update", pause, (0.01, str(gate)), call=0)


class NotHeldError(AssertionError):
    """What did not hold."""


def require(held: bool, otherwise: str) -> None:
    """NotHeldError unless it held."""
    if not held:
        raise NotHeldError(otherwise)


def at_a_random_moment(
    here: Place,
    number: int,
    to: str,
    workers: int,
    world_size: int,
    moment: random.Random,
    sabotage: Callable[[], None] | None = None,
) -> None:
    """One try: the signal comes at a random moment of the updates. Raises NotHeldError, AssertionError."""
    whole, folder = here.whole(world_size), here.next()
    gate = folder / "sent"
    ranks = start_ranks(
        folder,
        world_size,
        here.train(folder / "run", world_size, workers),
        [updates(gate)],
        sabotage=sabotage,
    )
    update = moment.randrange(1, UPDATES - 1)
    require(
        ranks[0].wait_for_marks(update, ranks[0].process.is_alive), f"no update {update}: {ranks[0].said}"
    )
    time.sleep(moment.uniform(0, 0.02))
    sent = time.monotonic()
    if to == "group":
        os.killpg(ranks[0].group, number)
    else:
        os.kill(moment.choice(ranks).pid, number)
    gate.touch()
    stopped(here, ranks, sent, folder / "run", update - 1)
    resumed(folder, world_size, whole)
    shutil.rmtree(folder)


def stopped(here: Place, ranks: Sequence[Child], sent: float, run: Path, update: int = 0) -> None:
    """All processes end in time with 75, and leave a good checkpoint and nothing that is half done."""
    end = time.monotonic() + here.patience
    codes = [rank.wait(max(end - time.monotonic(), 0.1)) for rank in ranks]
    seconds = max(rank.ended for rank in ranks) - sent
    here.longest = max(here.longest, seconds)
    said = "\n".join(rank.said for rank in ranks)
    require(codes == [75] * len(ranks), f"exit codes {codes}: {said}")
    require("Traceback" not in said and "Exception" not in said, said)
    require(said.count("go on with: classwise resume") == 1, said)
    require(seconds < WITHIN, f"{seconds:.1f} s from the signal to the end")
    good_checkpoint(run, update)
    nothing_left(ranks, run)


def good_checkpoint(run: Path, update: int) -> None:
    """The run says that it was stopped, after so many updates at least, and its checkpoint is of then."""
    status = RunFolder(run).status()
    require(status["state"] == "interrupted", f"status {status['state']}")
    require(status["update"] >= update, f"stopped after update {status['update']}, before {update}")
    found = read_checkpoint(run / "checkpoints" / "last").update
    require(found == status["update"], f"update {status['update']}, but checkpoint of {found}")


def nothing_left(ranks: Sequence[Child], run: Path) -> None:
    """No process of theirs, no lock, no file that was being written."""
    require(not members(ranks[0].group), f"processes live on: {members(ranks[0].group)}")
    hidden = [str(path.relative_to(run)) for path in run.rglob(".*")]
    require(not hidden, f"left behind: {hidden}")


def resumed(folder: Path, world_size: int, whole: Path, *options: object) -> None:
    """The run goes on and ends in the bytes of `whole`."""
    ranks = start_ranks(folder / "resume", world_size, ["resume", folder / "run", *options])
    codes = [rank.wait() for rank in ranks]
    require(codes == [0] * world_size, f"resume: exit codes {codes}: {ranks[0].said}")
    require("warning" not in ranks[0].said, ranks[0].said)
    assert_same_end(whole, folder / "run")
    nothing_left(ranks, folder / "run")


@contextmanager
def counted(count: Count, kind: str) -> Iterator[None]:
    """One try, whatever happens in it."""
    try:
        yield
    except Exception as error:
        count.add(False, kind, f"{type(error).__name__}: {error}")
    else:
        count.add(True, kind)


def combinations() -> list[tuple[str, str, int, int]]:
    """Signal, whom it is sent to, loader workers, processes."""
    return list(itertools.product(SIGNALS, ("process", "group"), (0, 2), (1, 2)))


def random_moments(here: Place, count: Count, tries: Iterable[tuple[str, str, int, int]]) -> None:
    """One for each of the combinations given."""
    moment = random.Random(0)
    for name, to, workers, world_size in tries:
        kind = f"{name} to the {to}, {workers} workers, {world_size} process{'es' * (world_size > 1)}"
        with counted(count, kind):
            at_a_random_moment(here, SIGNALS[name], to, workers, world_size, moment)


# Sabotages: each takes one protection out, in the process that trains.


def workers_take_signals() -> None:
    """Loader workers are as a DataLoader's own are."""
    classwise.data.workers.ignore_signals = lambda: None


def everyone_for_itself() -> None:
    """Processes that train together do not tell each other that they were asked to stop."""
    Processes.any = lambda self, *flags: list(flags)


def without_sigusr1() -> None:
    """Only the usual two have a handler."""
    classwise.signals.STOPPING = (signal.SIGINT, signal.SIGTERM)


def send(*numbers: int) -> None:
    """To the whole group of this process, itself among it, one right after the other."""
    mark()
    for number in numbers:
        os.killpg(os.getpgrp(), number)


# Where a signal finds a run, and what it then leaves: the places of functions at whose calls it comes.
LOOP = {
    "validation": ["classwise.metrics.collection:MetricCollection.update"],
    "writing a checkpoint": [
        "classwise.run.checkpoint:_write_flushed",
        "classwise.run.checkpoint:sync_folder",
    ],
    "starting a worker": ["multiprocessing.process:BaseProcess.start"],
    "the first checkpoint": ["classwise.run.checkpoint:_serialize"],
}
ENDING = [
    "classwise.run.session:_write_results",
    "classwise.run.folder:RunFolder.write_metrics",
    "classwise.run.folder:RunFolder.write_predictions",
    "classwise.run.session:write_report",
]
SET_UP = [
    "classwise.run.api:prepare",
    "classwise.run.api:new_model",
    "classwise.run.api:resolve_auto",
    "classwise.run.folder:new_folder",
    "classwise.run.folder:_made",
    "classwise.run.folder:locked",
    "classwise.run.lock:_me",
    "classwise.run.api:assemble",
    "classwise.run.api:write_beginning",
    "classwise.run.folder:RunFolder.write_split",
    "classwise.run.api:say_start",
]
RESUME_SET_UP = [
    "classwise.run.folder:RunFolder.status",
    "classwise.run.folder:locked",
    "classwise.run.api:newest_checkpoint",
    "classwise.run.api:prepare",
    "classwise.run.api:restored_parts",
    "classwise.run.api:run_checkpointer",
]


def in_the_loop(here: Place, hook: Hook, workers: int, world_size: int, resume: bool = False) -> None:
    """A signal at that place, once there is something to keep: a checkpoint, 75, the same end."""
    whole, folder = here.whole(world_size), here.next()
    arguments = here.train(folder / "run", world_size, workers)
    if resume:
        halfway(here, folder, world_size)
        arguments = ["resume", folder / "run"]
    ranks = start_ranks(folder, world_size, arguments, [hook])
    ranks[0].wait()
    require(len(ranks[0].marks()) == 1, f"the place was not reached: {ranks[0].said}")
    stopped(here, ranks, ranks[0].marks()[0], folder / "run")
    resumed(folder, world_size, whole)
    shutil.rmtree(folder)


def at_the_end(here: Place, hook: Hook, workers: int, world_size: int) -> None:
    """A signal while the results are written: the run is stopped or finished, and ends the same."""
    whole, folder = here.whole(world_size), here.next()
    ranks = start_ranks(folder, world_size, here.train(folder / "run", world_size, workers), [hook])
    code = ranks[0].wait()
    require(len(ranks[0].marks()) == 1, f"the place was not reached: {ranks[0].said}")
    require(code in (0, 75), f"exit code {code}: {ranks[0].said}")
    state = RunFolder(folder / "run").status()["state"]
    require(state == {0: "finished", 75: "interrupted"}[code or 0], f"exit code {code}, but {state}")
    number = hook.arguments[0]
    for rank in ranks[1:]:  # has nothing to write, and may be on its way out or be gone
        require(rank.wait() in (0, 128 + number, -number), f"another process: {rank.wait()} {rank.said}")
    nothing_left(ranks, folder / "run")
    resumed(folder, world_size, whole)
    require((folder / "run/report.html").exists(), "no report")
    shutil.rmtree(folder)


def at_once(here: Place, call: int) -> None:
    """Two SIGINTs right before a file or folder takes its name, of a checkpoint above all."""
    whole, folder = here.whole(1), here.next()
    hook = Hook("pathlib:Path.replace", send, (signal.SIGINT, signal.SIGINT), call)
    (child,) = start_ranks(folder, 1, here.train(folder / "run", 1), [hook])
    code = child.wait()
    require(len(child.marks()) == 1, f"the place was not reached: {child.said}")
    require(code in (75, 130), f"exit code {code}: {child.said}")
    if (folder / "run").exists():
        resumed(folder, 1, whole)
    else:  # it was the first checkpoint
        require("no partial files were left" in child.said, child.said)
    shutil.rmtree(folder)


def in_the_set_up(here: Place, hook: Hook, number: int, world_size: int) -> None:
    """A signal before there is anything to keep: 128 + its number, and nothing stays."""
    folder = here.next()
    ranks = start_ranks(folder, world_size, here.train(folder / "run", world_size), [hook])
    codes = [rank.wait() for rank in ranks]
    require(len(ranks[0].marks()) == 1, f"the place was not reached: {ranks[0].said}")
    require(codes == [128 + number] * world_size, f"exit codes {codes}: {[rank.said for rank in ranks]}")
    for rank in ranks:
        said = rank.said
        require("Traceback" not in said and said.endswith("stopped; no partial files were left\n"), said)
    require(not (folder / "run").exists(), f"left: {sorted((folder / 'run').rglob('*'))}")
    require(not members(ranks[0].group), "processes live on")
    shutil.rmtree(folder)


def in_resumes_set_up(here: Place, hook: Hook, number: int, world_size: int) -> None:
    """A signal before a resumed run goes on: 128 + its number, and it is as it was."""
    whole, folder = here.whole(world_size), here.next()
    halfway(here, folder, world_size)
    before = contents(folder / "run")
    ranks = start_ranks(folder, world_size, ["resume", folder / "run"], [hook])
    codes = [rank.wait() for rank in ranks]
    require(len(ranks[0].marks()) == 1, f"the place was not reached: {ranks[0].said}")
    require(codes == [128 + number] * world_size, f"exit codes {codes}: {[rank.said for rank in ranks]}")
    require(all("Traceback" not in rank.said for rank in ranks), ranks[0].said)
    after = contents(folder / "run")
    require(
        {**after, "log.txt": b""} == {**before, "log.txt": b""},
        f"changed: {[name for name in {**before, **after} if before.get(name) != after.get(name)]}",
    )
    nothing_left(ranks, folder / "run")
    resumed(folder, world_size, whole)
    shutil.rmtree(folder)


def twice(here: Place, second: int, workers: int, world_size: int, moment: random.Random) -> None:
    """Two signals, the second while the first is being followed, at a random moment: whatever it cuts short, the
    checkpoint from before is good."""
    whole, folder = here.whole(world_size), here.next()
    gate = folder / "sent"
    ranks = start_ranks(folder, world_size, here.train(folder / "run", world_size, workers), [updates(gate)])
    update = moment.randrange(1, UPDATES - 1)
    require(
        ranks[0].wait_for_marks(update, ranks[0].process.is_alive), f"no update {update}: {ranks[0].said}"
    )
    sent = time.monotonic()
    os.killpg(ranks[0].group, signal.SIGINT)
    gate.touch()
    time.sleep(moment.uniform(0, 0.1))
    with suppress(ProcessLookupError):  # it may be over
        os.killpg(ranks[0].group, second)
    codes = [rank.wait() for rank in ranks]
    seconds = max(rank.ended for rank in ranks) - sent
    # 130: it came while status.json or the report was written. 1: another process has left an update at once.
    allowed = {75, 130, -second} | ({1} if world_size > 1 and second == signal.SIGINT else set())
    require(set(codes) <= allowed, f"exit codes {codes}: {[rank.said for rank in ranks]}")
    require(seconds < WITHIN, f"{seconds:.1f} s from the signal to the end")
    require(not members(ranks[0].group), f"processes live on: {members(ranks[0].group)}")
    resumed(folder, world_size, whole)
    shutil.rmtree(folder)


def halfway(here: Place, folder: Path, world_size: int) -> None:
    """A run that was stopped after some updates."""
    hook = Hook("classwise.training.state:Progress.end_update", send, (signal.SIGTERM,), call=8)
    ranks = start_ranks(folder / "halfway", world_size, here.train(folder / "run", world_size), [hook])
    require([rank.wait() for rank in ranks] == [75] * world_size, ranks[0].said)


def every_phase(here: Place, count: Count, part: int = 1) -> None:
    """Each place of each phase, with one and two processes; every `part`-th of them for a quick look."""
    numbers = itertools.cycle(SIGNALS.values())
    tries: list[tuple[str, Callable[[], None]]] = []
    for world_size in (1, 2):
        for (phase, places), workers in itertools.product(LOOP.items(), (0, 2)):
            for where, call in itertools.product(places, CALLS[phase]):
                if workers or phase != "starting a worker":
                    hook = Hook(where, send, (next(numbers),), call)
                    tries.append((f"during {phase}", partial(in_the_loop, here, hook, workers, world_size)))
        hook = Hook("classwise.run.checkpoint:_write_flushed", send, (next(numbers),))
        tries.append(
            ("during resume's first checkpoint", partial(in_the_loop, here, hook, 0, world_size, True))
        )
        for where, number in itertools.product(SET_UP, SIGNALS.values()):
            hook = Hook(where, send, (number,))
            tries.append(("during set-up", partial(in_the_set_up, here, hook, number, world_size)))
        for where in RESUME_SET_UP:
            number = next(numbers)
            hook = Hook(where, send, (number,))
            tries.append(
                ("during resume's set-up", partial(in_resumes_set_up, here, hook, number, world_size))
            )
        for where, workers in itertools.product(ENDING, (0, 2)):
            hook = Hook(where, send, (next(numbers),))
            tries.append(("during the last writing", partial(at_the_end, here, hook, workers, world_size)))
    renames = range(1, 41)
    tries += [("two signals right before a name is taken", partial(at_once, here, call)) for call in renames]
    for kind, work in tries[::part]:
        with counted(count, kind):
            work()


CALLS = {
    "validation": (1, 5),
    "writing a checkpoint": (6, 11, 15),
    "starting a worker": (1, 2, 3),
    "the first checkpoint": (1,),
}


def two_in_a_row(here: Place, count: Count, tries: Iterable[tuple[str, int, int]]) -> None:
    """SIGINT, and another signal soon after; with so many loader workers and processes."""
    moment = random.Random(0)
    for second, workers, world_size in tries:
        with counted(count, f"SIGINT and {second} soon after"):
            twice(here, SIGNALS[second], workers, world_size, moment)


def pairs() -> list[tuple[str, int, int]]:
    """The second signal, loader workers, processes."""
    return list(itertools.product(SIGNALS, (0, 2), (1, 2)))


def through_torchrun(here: Place, number: int, to: str, workers: int, moment: random.Random) -> None:
    """Two processes of the real torchrun, told to pass SIGUSR1 on as well. It gives each a session of its own."""
    whole, folder = here.whole(2), here.next()
    gate = folder / "sent"
    options = ["--nproc-per-node", "2", "--master-port", str(free_port())]
    options += ["--signals-to-handle", "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"]
    torchrun = start_program(
        folder / "files", here.train(folder / "run", 2, workers), [updates(gate)], torchrun=options
    )
    ranks = [Said(folder / "files" / str(rank)) for rank in range(2)]
    groups = [torchrun.pid]
    try:
        update = moment.randrange(1, UPDATES - 1)
        began = ranks[0].wait_for_marks(update, lambda: torchrun.poll() is None)
        require(began, (folder / "files/err").read_text())
        groups += [int((rank.files / "pid").read_text()) for rank in ranks]
        sent = time.monotonic()
        if to == "torchrun":
            os.kill(torchrun.pid, number)
        elif to == "torchrun's group":
            os.killpg(torchrun.pid, number)
        elif to == "one process":
            os.kill(moment.choice(groups[1:]), number)
        else:
            os.killpg(moment.choice(groups[1:]), number)
        gate.touch()
        code = torchrun.wait(PATIENCE)
        seconds = time.monotonic() - sent
    finally:
        left = [pid for group in groups for pid in members(group)]
        for group in groups:
            kill_group(group)
        torchrun.wait()
    here.longest = max(here.longest, seconds)
    require([rank.code for rank in ranks] == [75, 75], f"exit codes {[rank.code for rank in ranks]}")
    require(code == 1, f"torchrun's exit code {code}")
    require(seconds < WITHIN, f"{seconds:.1f} s from the signal to the end")
    require(not left, f"processes live on: {left}")
    good_checkpoint(folder / "run", update)
    resumed(folder, 2, whole)
    shutil.rmtree(folder)


def torchruns(here: Place, count: Count, tries: Iterable[tuple[str, str, int]]) -> None:
    """One for each combination of signal, whom it is sent to, and loader workers."""
    moment = random.Random(0)
    for name, to, workers in tries:
        with counted(count, f"{name} to {to}, {workers} workers"):
            through_torchrun(here, SIGNALS[name], to, workers, moment)


def while_workers_import(here: Place, number: int, method: str, moment: random.Random) -> None:
    """A fresh Python whose workers are fresh ones too, and import for seconds before they can ignore a signal; it
    comes to the whole group within this time."""
    whole, folder = here.whole(1), here.next()
    gate = folder / "sent"
    hooks = [Hook("classwise.training.loop:train_one_epoch", mark), updates(gate)]
    arguments = [*here.train(folder / "run", 1, 2), "--data.start_method", method]
    process = start_program(folder / "files", arguments, hooks)
    child = Said(folder / "files" / "0")
    try:
        require(child.wait_for_marks(1, lambda: process.poll() is None), (folder / "files/err").read_text())
        time.sleep(moment.uniform(0, 3))
        sent = time.monotonic()
        os.killpg(process.pid, number)
        gate.touch()
        code = process.wait(PATIENCE)
        seconds = time.monotonic() - sent
        end = time.monotonic() + PATIENCE  # a fork server notices a little later that it is needed no more
        while members(process.pid) and time.monotonic() < end:
            time.sleep(0.05)
        left = members(process.pid)
    finally:
        kill_group(process.pid)
        process.wait()
    here.longest = max(here.longest, seconds)
    said = (folder / "files/err").read_text()
    require(code == 75, f"exit code {code}: {said}")
    require("died" not in said and "Traceback" not in said, said)
    require(not left, f"processes live on: {left}")
    require(seconds < WITHIN, f"{seconds:.1f} s from the signal to the end")
    good_checkpoint(folder / "run", 1)
    resumed(folder, 1, whole, "--workers", 0)
    shutil.rmtree(folder)


def fresh_workers(here: Place, count: Count, tries: int) -> None:
    """Workers by spawn and forkserver."""
    moment = random.Random(0)
    for method, name in itertools.islice(
        itertools.cycle(itertools.product(("spawn", "forkserver"), SIGNALS)), tries
    ):
        with counted(count, f"while workers start by {method}"):
            while_workers_import(here, SIGNALS[name], method, moment)


def all_signals() -> Count:
    """Nine random moments for each combination, and every phase."""
    count = Count()
    with place() as here:
        random_moments(here, count, combinations() * 9)
        every_phase(here, count)
        two_in_a_row(here, count, pairs() * 4)
        fresh_workers(here, count, 12)
        count.notes["longest time from signal to exit"] = f"{here.longest:.1f} s"
    return count


def all_torchruns() -> Count:
    """Each combination once."""
    count = Count()
    with place() as here:
        torchruns(here, count, torchrun_combinations())
        count.notes["longest time from signal to torchrun's exit"] = f"{here.longest:.1f} s"
    return count


def torchrun_combinations() -> list[tuple[str, str, int]]:
    """Signal, whom it is sent to, loader workers of each process."""
    whom = ("torchrun", "torchrun's group", "one process", "one process's group")
    return list(itertools.product(SIGNALS, whom, (0, 2)))


FIGURES = [
    Figure(
        6,
        "signals",
        "SIGTERM, SIGINT and SIGUSR1 at a random moment of training, to a process or its group, with 0 and 2 loader"
        " workers and 1 and 2 processes: exit 75 within 10 s, a good checkpoint, nothing left running, and after"
        " `resume` the bytes of the run that nobody stopped; and in every phase of a run: before there is a"
        " checkpoint exit 128 + n and nothing is left",
        all_signals,
    ),
    Figure(
        6,
        "signals-torchrun",
        "the same with two processes of the real torchrun (told to handle SIGUSR1): to torchrun, to its group, to one"
        " process, to one process's group",
        all_torchruns,
    ),
]
