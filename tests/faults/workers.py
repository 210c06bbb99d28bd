"""Rows 7 and 10: workers give the same batches however they are started, and one that is killed, hangs or fails ends
the pass with an error that names the file."""

import contextlib
import ctypes
import gc
import hashlib
import itertools
import json
import multiprocessing
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, NoReturn, cast
from unittest import mock

import numpy as np
import torch
from torch import nn
from torch.utils.data import get_worker_info

from classwise.data.augment import PRESETS
from classwise.data.batch import Batch
from classwise.data.dataset import ImageDataset
from classwise.data.epochs import TrainingData, ValidationData
from classwise.data.images import read_image
from classwise.data.loader import Loader
from classwise.errors import ClasswiseError
from classwise.infer.predict import predict_outputs
from classwise.run.checkpoint import read_checkpoint
from classwise.training.state import Progress
from tests.faults.counting import Count, Figure
from tests.helpers.same_end import differences
from tests.helpers.scenes import PLAIN, command, draw, plain_table, write_config, write_csv

METHODS = ("fork", "spawn", "forkserver")
SIZE = (16, 16)
ROWS = 40
# Row 7: the same batches


def digest(batches: Iterable[Batch]) -> str:
    """Of images, answers and rows, in order."""
    found = hashlib.sha256()
    for batch in batches:
        found.update(batch.images.contiguous().numpy().tobytes())
        found.update(np.asarray(batch.rows).tobytes())
        for name, values in sorted(batch.targets.items()):
            found.update(name.encode() + values.numpy().tobytes())
    return found.hexdigest()


def set_of(paths: Sequence[Path], workers: int, start: str, timeout: float = 120.0) -> TrainingData:
    """Strong augmentation, classes drawn in proportion to roots, batches of 4, updates of 3."""
    rows = np.arange(len(paths))
    dataset = ImageDataset(paths, SIZE, "squash", 10**6, seed=7, augment=PRESETS["strong"])
    targets = {"class": rows % 3, "number": np.where(rows % 5 == 0, np.nan, rows / 7)}
    loader = Loader(dataset, targets, 4, workers, start=start, timeout=timeout)
    return TrainingData(loader, [f"row {row}" for row in rows], rows**2 % 3, "sqrt", 7, 3)


def validation_of(paths: Sequence[Path], workers: int, start: str, timeout: float = 120.0) -> ValidationData:
    """As validation sees them, batches of 4."""
    dataset = ImageDataset(paths, SIZE, "squash", 10**6)
    targets = {"class": np.arange(len(paths)) % 3}
    return ValidationData(Loader(dataset, targets, 4, workers, start=start, timeout=timeout))


def drawn(folder: Path, rows: int = ROWS) -> list[Path]:
    """Images that are all different."""
    paths = [folder / f"{row:03}.png" for row in range(rows)]
    for row, path in enumerate(paths):
        draw(path, row % 3, row, size=20 + row % 5)
    return paths


@contextlib.contextmanager
def closed(*loaders: Loader) -> Iterator[None]:
    """Closes them, whatever happens; torch's word on machines with few cores is not for us."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create|This process .* is multi-threaded")
        try:
            yield
        finally:
            for loader in loaders:
                loader.close()


def batches_digest(paths: Sequence[Path], workers: int, start: str, epochs: int = 2) -> str:
    """Of some epochs of training, each followed by validation."""
    train, valid = set_of(paths, workers, start), validation_of(paths, workers, start)
    with closed(train.loader, valid.loader):
        passes = [
            digest(itertools.chain(itertools.chain.from_iterable(train.updates(epoch)), valid.batches()))
            for epoch in range(epochs)
        ]
    return " ".join(passes)


def workers_digest(combinations: Sequence[tuple[int, str]], epochs: int = 2) -> Count:
    """The digests of (workers, start method), each against that without workers."""
    count = Count()
    with tempfile.TemporaryDirectory() as folder:
        paths = drawn(Path(folder))
        expected = batches_digest(paths, 0, "auto", epochs)
        count.add(True, "no worker")
        for workers, start in combinations:
            found = batches_digest(paths, workers, start, epochs)
            count.add(found == expected, f"{workers} by {start}", f"{found[:16]} instead of {expected[:16]}")
    return count


def resumed_with_others(pairs: Sequence[tuple[tuple[int, str], tuple[int, str]]]) -> Count:
    """Real runs, stopped by SIGINT in their second epoch and resumed with other workers, against one that was never
    stopped and had none."""
    count = Count()
    end_update = Progress.end_update

    def press(progress: Progress, loss: float, samples: int) -> None:
        end_update(progress, loss, samples)
        if progress.update == 4:
            os.kill(os.getpid(), signal.SIGINT)

    with tempfile.TemporaryDirectory() as folder, closed():
        config = long_run(Path(folder), epochs=3)
        for number, ((before, start), (after, start_after)) in enumerate(pairs):
            run = Path(folder) / f"run {number}"
            options = ["--data.workers", before, "--data.start_method", start]
            with mock.patch.object(Progress, "end_update", press):
                stopped = command("train", config, "--run", run, *options)
            written = run / "config.toml"
            text = written.read_text().replace(f'start_method = "{start}"', f'start_method = "{start_after}"')
            written.write_text(text)
            resumed = command("resume", run, "--workers", after)
            wrong = ""
            if (stopped.code, resumed.code) != (75, 0):
                wrong = f"exit {stopped.code}, {resumed.code}: {stopped.err[-300:]} {resumed.err[-300:]}"
            if f"workers = {before}\n" not in written.read_text():
                wrong = "resume changed config.toml"
            wrong = wrong or differences(Path(folder) / "whole", run)
            count.add(not wrong, "resumed", f"{start} {before} to {start_after} {after}: {wrong}")
    return count


def digest_in_full() -> Count:
    """Ten combinations, and six resumed runs."""
    count = workers_digest(list(itertools.product((1, 2, 4), METHODS)))
    pairs = [
        ((2, "fork"), (0, "fork")),
        ((0, "auto"), (2, "forkserver")),
        ((2, "spawn"), (4, "fork")),
        ((4, "forkserver"), (1, "spawn")),
        ((1, "fork"), (2, "spawn")),
        ((2, "forkserver"), (2, "fork")),
    ]
    resumed = resumed_with_others(pairs)
    count.tried, count.held = count.tried + resumed.tried, count.held + resumed.held
    count.by += resumed.by
    count.failures += resumed.failures
    return count


# Row 10: workers that are killed, hang or fail


class Odd(Exception):  # noqa: N818 - what a library might raise
    """An exception that cannot be unpickled: it wants two arguments and passes one on."""

    def __init__(self, one: int, other: int) -> None:
        super().__init__(one)


def _raise(error: BaseException) -> NoReturn:
    raise error


def _hold() -> None:
    """Never comes back, and never lets go of the interpreter: not even the worker's other threads run."""
    re.match(r"(a+)+$", "a" * 64 + "b")


def _crash() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.string_at(0)


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


KILLED: dict[str, Callable[[], None]] = {
    "killed": _kill,
    "crashed": _crash,
    "left": lambda: os._exit(3),
    "exited": lambda: sys.exit(4),
}
STUCK: dict[str, Callable[[], None]] = {
    "asleep": lambda: time.sleep(10**6),
    "stopped": _stop,
    "spinning": _hold,
}
RAISING: dict[str, Callable[[], None]] = {
    "bug": lambda: _raise(RuntimeError("boom")),
    "memory": lambda: _raise(MemoryError()),
    "odd": lambda: _raise(Odd(1, 2)),
}
TRAPS = {**KILLED, **STUCK, **RAISING}
SAID = {
    **{"killed": "was killed by SIGKILL", "crashed": "was killed by SIGSEGV"},
    **{"left": "ended with exit code 3", "exited": "ended with exit code 4"},
    **dict.fromkeys(STUCK, "data.worker_timeout"),
    **{"bug": "RuntimeError: boom", "memory": "MemoryError", "odd": "Odd: 1"},
}


def spring(path: str) -> None:
    """Do to this process what the file's name says, and leave word of when."""
    Path(f"{path}.sprung").write_text(f"{time.monotonic()} {os.getpid()}")
    TRAPS[Path(path).stem.split(" ")[1]]()


class Trap(type(Path())):  # type: ignore[misc]
    """The path of an image that does something to the worker which opens it. Nothing has to be patched, so it goes to
    workers of every start method."""

    def __fspath__(self) -> str:
        if get_worker_info() is not None:
            spring(str(self))
        return str(self)


class EarlyTrap(type(Path())):  # type: ignore[misc]
    """As `Trap`, but it strikes a worker that is still being started, when it is handed its paths."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpacked, (str(self), os.getpid())


def _unpacked(path: str, parent: int) -> Path:
    if os.getpid() != parent:
        spring(path)
    return Path(path)


def train_pass(data: TrainingData) -> None:
    """One epoch of training batches."""
    for _ in data.updates(0):
        pass


def valid_pass(data: ValidationData) -> None:
    """One validation."""
    for _ in data.batches():
        pass


class Mean(nn.Module):
    """A model that needs no weights."""

    metadata = SimpleNamespace(heads={"it": 1})

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """The mean of each image."""
        return {"it": images.float().mean(dim=(1, 2, 3), keepdim=False)[:, None]}


def pass_of(
    phase: str, paths: Sequence[Path], start: str, timeout: float
) -> tuple[Loader, Callable[[], None]]:
    """The loader of a phase, and one pass over it."""
    if phase == "training":
        data = set_of(paths, 2, start, timeout)
        return data.loader, lambda: train_pass(data)
    valid = validation_of(paths, 2, start, timeout)
    if phase == "validation":
        return valid.loader, lambda: valid_pass(valid)
    return valid.loader, lambda: _predict(valid.loader)


def _predict(loader: Loader) -> None:
    predict_outputs(Mean(), loader)


def failing_pass(folder: Path, phase: str, start: str, kind: str, timeout: float = 1.0) -> tuple[str, float]:
    """What did not hold (empty where all did), and the seconds until the error; of a worker that hangs, from its
    limit on."""
    paths = drawn(folder, 24)
    trap = paths[13].rename(folder / f"trap {kind} 13.png")
    paths[13] = Trap(trap)
    return _failing(paths, trap, phase, start, [str(trap), SAID[kind]], timeout if kind in STUCK else 0.0)


def failing_start(folder: Path, start: str, kind: str) -> tuple[str, float]:
    """As above, of a worker that has not yet read anything."""
    paths = drawn(folder, 8)
    trap = paths[3].rename(folder / f"trap {kind} 3.png")
    paths[3] = EarlyTrap(trap)
    said = {"killed": "was killed by SIGKILL", "bug": "ended with exit code 1"}[kind]
    return _failing(paths, trap, "training", start, [said, "it had read no file yet"], 0.0)


def _failing(
    paths: Sequence[Path], trap: Path, phase: str, start: str, said: Sequence[str], limit: float
) -> tuple[str, float]:
    sprung = Path(f"{trap}.sprung")
    loader, go = pass_of(phase, paths, start, limit or 60.0)
    before = set(multiprocessing.active_children())
    with closed(loader):
        try:
            go()
            return "no error", 0.0
        except ClasswiseError as error:
            at, pid = sprung.read_text().split()
            seconds, text = time.monotonic() - float(at) - limit, str(error)
        missing = [part for part in said if part not in text]
        if missing:
            return f"{text!r} does not say {missing}", seconds
    left = left_behind(before, [int(pid)])
    return left or ("" if seconds <= 5 else f"only after {seconds:.1f} s"), seconds


def left_behind(before: set[Any], pids: Sequence[int]) -> str:
    """Children that were not there before, and processes and shared memory of workers that should be gone."""
    gc.collect()
    children = set(multiprocessing.active_children()) - before
    alive = [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    memory = [path for pid in pids for path in Path("/dev/shm").glob(f"torch_{pid}_*")]
    return (
        f"left behind: {children or ''} {alive or ''} {memory or ''}" if children or alive or memory else ""
    )


def struck_between(folder: Path, start: str, number: int, timeout: float = 1.0) -> tuple[str, float]:
    """A worker is killed or stopped from outside while the parent has a batch in hand."""
    data = set_of(drawn(folder, 40), 2, start, timeout if number == signal.SIGSTOP else 60.0)
    before = set(multiprocessing.active_children())
    with closed(data.loader):
        windows = data.updates(0)
        next(windows)
        pids = [worker.pid for worker in cast(Any, data.loader._loader)._iterator._workers]
        os.kill(pids[0], number)
        begun = time.monotonic()
        try:
            for _ in windows:
                pass
            return "no error", 0.0
        except ClasswiseError as error:
            seconds = time.monotonic() - begun - (timeout if number == signal.SIGSTOP else 0)
            wanted = (
                f"process {pids[0]} was killed by SIGKILL"
                if number == signal.SIGKILL
                else "data.worker_timeout"
            )
            if wanted not in str(error) or str(folder) not in str(error):
                return str(error), seconds
    left = left_behind(before, pids)
    return left or ("" if seconds <= 5 else f"only after {seconds:.1f} s"), seconds


def faulty_passes(
    phases: Sequence[str] = ("training", "validation", "prediction"),
    methods: Sequence[str] = METHODS,
    kinds: Sequence[str] = tuple(TRAPS),
) -> Count:
    """Every kind of fault in every phase under every start method; and, by every start method, workers that are struck
    between two batches or before they have begun, or that hang when their parent is killed."""
    tries: list[tuple[str, str, Callable[[Path], tuple[str, float]]]] = []
    for phase, start, kind in itertools.product(phases, methods, kinds):
        group = "killed" if kind in KILLED else "stuck" if kind in STUCK else "raising"
        what = f"{kind} in {phase} under {start}"
        tries.append((group, what, partial(failing_pass, phase=phase, start=start, kind=kind)))
    for start, number in itertools.product(methods, (signal.SIGKILL, signal.SIGSTOP)):
        what = f"{number.name} under {start}"
        tries.append(("between batches", what, partial(struck_between, start=start, number=number)))
    for start, kind in itertools.product(methods, ("killed", "bug")):
        if start != "fork":  # a forked worker is there at once
            tries.append(
                ("at its start", f"{kind} under {start}", partial(failing_start, start=start, kind=kind))
            )
    tries += [("orphans", f"under {start}", partial(hanging_orphan, start=start)) for start in methods]
    count, slowest = Count(), 0.0
    for group, what, once in tries:
        with tempfile.TemporaryDirectory() as folder:
            wrong, seconds = once(Path(folder))
        slowest = max(slowest, seconds)
        count.add(not wrong, group, f"{what}: {wrong}")
    count.notes["seconds to the error, of stuck workers from their limit on, at most"] = round(slowest, 2)
    return count


# Row 10 with real commands


@dataclass(frozen=True)
class Ended:
    """A command that has ended: its exit code, its messages, and what its disturber saw."""

    code: int
    err: str
    seen: Any


def started(arguments: Sequence[object], disturb: Callable[[subprocess.Popen[str]], Any]) -> Ended:
    """`classwise ARGUMENTS` in a process group of its own; `disturb` gets it after its first epoch. All that it has
    to say does not fit into its pipe, so that it cannot be done before. One that does not end is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", "from classwise.cli import main; main()", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        pipesize=4096,
        start_new_session=True,
    )
    kill = partial(os.killpg, process.pid, signal.SIGKILL)
    watchdog = threading.Timer(180, kill)
    watchdog.start()
    stream = cast(IO[str], process.stderr)
    said, seen = [], None
    try:
        for line in iter(stream.readline, ""):
            said.append(line)
            if line.startswith("epoch  1/"):
                seen = disturb(process)
                break
        said.append(stream.read())
        return Ended(process.wait(), "".join(said), seen)
    finally:
        watchdog.cancel()
        with contextlib.suppress(ProcessLookupError):
            kill()
        process.wait()
        stream.close()


def workers_of(pid: int) -> list[int]:
    """The loader workers below a process, the oldest first; with a fork server they are its grandchildren."""
    parents: dict[int, list[int]] = {}
    names = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            name, rest = (path / "stat").read_text().split("(", 1)[1].rsplit(") ", 1)
            parents.setdefault(int(rest.split()[1]), []).append(int(path.name))
            names[int(path.name)] = name
    below, found = [pid], []
    while below:
        children = sorted(parents.get(below.pop(0), []))
        below += children
        found += [child for child in children if names[child].startswith("pt_data")]
    return sorted(found)


EPOCHS = 30
LONG = "a target with a long name " * 5


def long_run(folder: Path, epochs: int = EPOCHS) -> Path:
    """A config of many short epochs that say more than a pipe holds, and its uninterrupted run in `whole`."""
    folder.mkdir(exist_ok=True)
    plain_table(folder, 24)
    targets = {LONG: {"column": "label"}, "b": {"column": "label"}}
    changes = {"training__epochs": epochs, "targets": targets, "selection": {"metric": f"{LONG}.macro_f1"}}
    changes |= {"data__augment": "strong", "data__sampling": "balanced", "data__mixup": 0.4}
    changes |= {"report": {"baselines": False, "resamples": 0}}
    config = write_config(folder, PLAIN, **changes)
    command("train", config, "--run", folder / "whole").ok()
    return config


def failed_run(run: Path, wanted: str) -> str:
    """What does not hold of a training run that a worker has ended: status.json says so, and there is a checkpoint."""
    status = json.loads((run / "status.json").read_text())
    if status["state"] != "failed" or wanted not in status["reason"]:
        return f"status.json: {status['state']}, {status['reason']}"
    if read_checkpoint(run / "checkpoints" / "last").update > status["update"]:
        return "a checkpoint from later"
    return ""


def struck_run(config: Path, run: Path, start: str, number: int, which: int, timeout: float = 2.0) -> str:
    """A real run, one of whose workers is killed or stopped from outside: what did not hold. The first two workers
    are training's."""

    def strike(process: subprocess.Popen[str]) -> tuple[float, list[int]]:
        workers = workers_of(process.pid)
        os.kill(workers[which], number)
        return time.monotonic(), workers

    options = [
        "--data.cache",
        "off",
        "--data.workers",
        2,
        "--data.start_method",
        start,
        "--data.worker_timeout",
        timeout,
    ]
    ended = started(["train", config, "--run", run, *options], strike)
    if ended.seen is None:
        return ended.err[-500:]
    seconds = time.monotonic() - ended.seen[0] - (timeout if number == signal.SIGSTOP else 0)
    last = ended.err.splitlines()[-1]
    wanted = "was killed by SIGKILL" if number == signal.SIGKILL else "data.worker_timeout"
    if ended.code != 1 or not last.startswith("error: ") or "Traceback" in ended.err:
        return f"exit {ended.code}: {ended.err[-500:]}"
    if wanted not in last or str(config.parent / "images") not in last:
        return f"{last!r} does not name cause and file"
    if seconds > 10:  # with the report, and the end of Python itself
        return f"only after {seconds:.1f} s"
    wrong = failed_run(run, wanted) or left_behind(set(multiprocessing.active_children()), ended.seen[1])
    if not wrong and (resumed := command("resume", run, "--workers", 0)).code:
        return resumed.err[-500:]
    return wrong or differences(config.parent / "whole", run)


def orphans_of(config: Path, run: Path, start: str, group: bool) -> str:
    """A run, or its whole group, is killed while its workers work: none of them stays."""

    def strike(process: subprocess.Popen[str]) -> list[int]:
        workers = workers_of(process.pid)
        (os.killpg if group else os.kill)(process.pid, signal.SIGKILL)
        return workers

    options = ["--data.cache", "off", "--data.workers", 2, "--data.start_method", start]
    ended = started(["train", config, "--run", run, *options], strike)
    return still_there(ended.seen) if ended.seen else ended.err[-500:]


def hanging_orphan(folder: Path, start: str, patience: float = 10.0) -> tuple[str, float]:
    """A process is killed while one of its workers hangs in a file: it goes as well."""
    paths = drawn(folder, 12)
    trap = paths[3].rename(folder / "trap asleep 3.png")
    paths[3] = Trap(trap)
    # Not a fork: of its parent's fork server it would know nothing.
    parent = multiprocessing.get_context("fork" if start == "fork" else "spawn").Process(
        target=_hang, args=(paths, start)
    )
    parent.start()
    pid = sprung_in(trap, parent)
    parent.kill()
    parent.join()
    begun = time.monotonic()
    wrong = still_there([pid], patience)
    return wrong, time.monotonic() - begun


def sprung_in(trap: Path, parent: Any) -> int:
    """The worker below `parent` that went into the trap, once it has."""
    sprung, deadline = Path(f"{trap}.sprung"), time.monotonic() + 120
    while not (sprung.exists() and sprung.read_text()):
        assert time.monotonic() < deadline, "never got that far"
        assert parent.is_alive(), "ended before"
        time.sleep(0.02)
    return int(sprung.read_text().split()[1])


def _hang(paths: Sequence[Path], start: str) -> None:
    data = set_of(paths, 1, start, 0)
    with closed(data.loader):
        train_pass(data)


def still_there(pids: Sequence[int], patience: float = 10.0) -> str:
    """Which of the processes are there after a while."""
    deadline = time.monotonic() + patience
    while left := [pid for pid in pids if Path(f"/proc/{pid}").exists()]:
        if time.monotonic() > deadline:
            return f"still there: {left}"
        time.sleep(0.02)
    return ""


COMMANDS = ("train", "validate", "baselines", "evaluate", "predict", "submit")


def failing_command(config: Path, run: Path, what: str, kind: str) -> str:
    """A command in this process, whose forked workers meet a fault at one file: what did not hold."""
    folder, valid = config.parent, config.parent / "whole" / "split.csv"
    rows = [line.split(",") for line in valid.read_text().splitlines()[1:]]
    trap = Path(next(row[3] for row in rows if row[2] == ("train" if what == "train" else "valid")))
    armed = folder / f"trap {kind} armed"

    def read(path: Path, *rest: Any, **options: Any) -> np.ndarray:
        if path == trap and get_worker_info() is not None and armed.exists():
            armed.unlink()
            spring(str(armed))
        return read_image(path, *rest, **options)

    def count(progress: Progress, loss: float, samples: int) -> None:
        end_update(progress, loss, samples)
        if progress.update == 5:
            armed.touch()

    end_update = Progress.end_update
    # Decoded images that are kept would not be read again.
    options = ["--data.worker_timeout", 1, "--data.workers", 2, "--data.cache", "off"]
    arguments: list[object] = ["train", config, "--run", run, *options]
    if what == "baselines":
        arguments += ["--report.baselines", "true"]
    if what in ("evaluate", "predict", "submit"):
        shutil.copytree(folder / "whole", run)
        text = (run / "config.toml").read_text()
        changes = {
            "workers = 0": "workers = 2",
            "worker_timeout = 120.0": "worker_timeout = 1.0",
            'cache = "auto"': 'cache = "off"',
        }
        for old, new in changes.items():
            text = text.replace(old, new)
        (run / "config.toml").write_text(text)
        arguments = [what, run]
        if what == "predict":
            arguments += [folder / "images", "--out", folder / "out.csv"]
        if what == "submit":
            names = [path.name for path in sorted((folder / "images").iterdir())]
            header = ("path", LONG, "b")
            template = write_csv(folder / "template.csv", header, [[name, "", ""] for name in names])
            arguments += [template, "--images", folder / "images", "--out", folder / "out.csv"]
    armed.unlink(missing_ok=True)
    if what not in ("train", "validate"):
        armed.touch()
    before = set(multiprocessing.active_children())
    with (
        closed(),
        mock.patch("classwise.data.dataset.read_image", read),
        mock.patch.object(Progress, "end_update", count),
    ):
        result = command(*arguments)
    at, pid = Path(f"{armed}.sprung").read_text().split()
    seconds = time.monotonic() - float(at) - (1 if kind in STUCK else 0)
    last = result.err.splitlines()[-1]
    if result.code != 1 or not last.startswith(f"error: {trap}: ") or SAID[kind] not in last:
        return f"exit {result.code}: {result.err[-500:]}"
    if seconds > 5:
        return f"only after {seconds:.1f} s"
    if left := left_behind(before, [int(pid)]):
        return left
    if what == "baselines":
        return "a run without a beginning" if run.exists() else ""
    if what not in ("train", "validate"):
        return "a file was written" if (folder / "out.csv").exists() else ""
    wrong = failed_run(run, SAID[kind])
    if not wrong and (resumed := command("resume", run, "--workers", 0)).code:
        return resumed.err[-500:]
    return wrong or differences(folder / "whole", run)


def faulty_commands(
    commands: Sequence[str] = COMMANDS,
    kinds: Sequence[str] = ("killed", "asleep", "bug"),
    methods: Sequence[str] = METHODS,
) -> Count:
    """Commands whose workers meet a fault; real runs with workers struck from outside, by every start method; and
    runs that are killed themselves."""
    count = Count()
    with tempfile.TemporaryDirectory() as folder:
        config = long_run(Path(folder) / "short", epochs=3) if commands else Path()
        numbers = itertools.count()
        for what, kind in itertools.product(commands, kinds):
            wrong = failing_command(config, Path(folder) / f"run {next(numbers)}", what, kind)
            count.add(not wrong, what, f"{kind}: {wrong}")
        config = long_run(Path(folder) / "long") if methods else Path()
        for start, number, which in itertools.product(methods, (signal.SIGKILL, signal.SIGSTOP), (0, 2)):
            wrong = struck_run(config, Path(folder) / f"run {next(numbers)}", start, number, which)
            count.add(not wrong, f"{number.name} from outside", f"worker {which} under {start}: {wrong}")
        for start, group in itertools.product(methods, (False, True)):
            wrong = orphans_of(config, Path(folder) / f"run {next(numbers)}", start, group)
            count.add(not wrong, "run killed", f"{'its group' if group else 'alone'} under {start}: {wrong}")
    return count


FIGURES = [
    Figure(
        7,
        "workers-digest",
        "0, 1, 2, 4 workers by fork, spawn, forkserver: one digest of two epochs of strongly augmented training"
        " batches drawn by class and of validation; real runs resumed with other workers end in the same bytes",
        digest_in_full,
    ),
    Figure(
        10,
        "workers-faulty",
        "a worker is killed, crashes, leaves, sleeps, is stopped, spins or raises (reading, between batches, at its"
        " start; training, validation, prediction; fork, spawn, forkserver): within 5 s, or 5 s from its limit on, an"
        " error that names the file; nothing stays behind",
        faulty_passes,
    ),
    Figure(
        10,
        "workers-faulty-commands",
        "train, evaluate, predict, submit with such workers, and real runs by every start method with a worker struck"
        " from outside: exit 1, the file named, status failed, resume ends in the same bytes; no worker outlives a"
        " run that is killed",
        faulty_commands,
    ),
]
