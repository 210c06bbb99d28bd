"""A comparison's runs, carried out one after the other or by several processes."""

import contextlib
import multiprocessing
import os
import shutil
import signal
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from classwise.compare.plan import Planned
from classwise.config.schema import Config
from classwise.errors import CheckpointError, ClasswiseError, Interrupted
from classwise.run import api as run
from classwise.run.checkpoint import newest_checkpoint
from classwise.run.folder import RunFolder
from classwise.run.lock import refuse_held
from classwise.signals import STOPPING

DONE = ("finished", "early_stopped")
Settle = Callable[[Planned], Config | None]
Ending = tuple[Planned, "Ended"]


@dataclass(frozen=True)
class Ended:
    """How a run ended: finished, early_stopped, interrupted or failed; `message` says why it failed."""

    state: str
    message: str = ""


def state_of(folder: Path) -> str:
    """What status.json says; empty where no run has begun."""
    try:
        return str(RunFolder(folder).status().get("state", ""))
    except CheckpointError:
        return ""


def is_done(folder: Path) -> bool:
    """Whether the run has ended and all its results are there."""
    with contextlib.suppress(CheckpointError):
        return state_of(folder) in DONE and "value" in RunFolder(folder).metrics()
    return False


def carry_out(folder: Path, config: Config) -> Ended:
    """Train into `folder`, or go on from its last good checkpoint; a folder without one is begun again.

    Nothing is raised: what goes wrong with one run must not end the others.
    """
    try:
        if _usable(folder):
            run.resume(folder, quiet=True)
        else:
            refuse_held(folder)  # another comparison may be at the same run
            shutil.rmtree(folder, ignore_errors=True)
            run.train(config, folder, quiet=True)
    except (Interrupted, KeyboardInterrupt):
        return Ended("interrupted")
    except ClasswiseError as error:
        return Ended("failed", str(error))
    except Exception as error:  # torch's own, a full disk, no memory
        return Ended("failed", f"{type(error).__name__}: {error}")
    return Ended(state_of(folder))


def _usable(folder: Path) -> bool:
    if state_of(folder) in ("", *DONE):  # no run, or one that has ended and lost its results since
        return False
    with contextlib.suppress(CheckpointError):
        newest_checkpoint(folder / "checkpoints", lambda text: None)
        return True
    return False


def one_by_one(
    runs: Sequence[Planned], settle: Settle, begins: Callable[[Planned], None]
) -> Iterator[Ending]:
    """In this process. Ends after a run that was interrupted, or during which a signal came."""
    with _signal_came() as asked:
        for planned in runs:
            begins(planned)
            try:
                config = settle(planned)
                assert config is not None, "the run that measures for the others has ended"
                ended = carry_out(planned.folder, config)
            except KeyboardInterrupt:
                ended = Ended("interrupted")
            yield planned, ended
            if ended.state == "interrupted" or asked():
                return


@contextlib.contextmanager
def _signal_came() -> Iterator[Callable[[], bool]]:
    """Whether a signal came, whoever handled it: a run that is just ending takes no notice of one."""
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)

    def asked() -> bool:
        with contextlib.suppress(BlockingIOError):
            return bool(set(reader.recv(4096)) & set(STOPPING))
        return False

    try:
        before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    except ValueError:  # not the main thread, which gets all signals
        yield lambda: False
        return
    try:
        yield asked
    finally:
        signal.set_wakeup_fd(before)
        reader.close()
        writer.close()


@dataclass
class Worker:
    """One process, our end of the pipe to it, and the run that it is at."""

    process: BaseProcess
    pipe: "Connection[Any, Any]"
    run: Planned | None = None
    told: bool = False  # to stop


def in_processes(
    runs: Sequence[Planned], settle: Settle, begins: Callable[[Planned], None], jobs: int
) -> Iterator[Ending]:
    """In `jobs` processes, each of which imports everything once and takes one run after the other.

    A signal is passed on: the runs that are under way stop with a checkpoint, and no other is begun. A process
    that dies (out of memory, say) counts as one failed run, and another takes its place.
    """
    left = deque(runs)
    workers: list[Worker] = []
    with _flag() as asked:
        try:
            workers += [_start() for _ in range(min(jobs, len(runs)))]
            while left or any(worker.run for worker in workers):
                if asked():
                    left.clear()
                    _pass_on(workers)
                for worker in workers:
                    if worker.run is None:
                        _hand_out(worker, left, settle, begins)
                for index, worker in _heard(workers):
                    planned, ended = _answer(worker)
                    if ended.state == "interrupted":
                        left.clear()
                    yield planned, ended
                    if not worker.process.is_alive() and left:
                        workers[index] = _start()
        finally:
            _end(workers)


def _start() -> Worker:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,))
    resource_tracker.ensure_running()  # at its own start it would let the signals through again
    # Held back until the new process can answer: it inherits this, and `serve` lets them through.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()
    return Worker(process, ours)


def _hand_out(
    worker: Worker, left: deque[Planned], settle: Settle, begins: Callable[[Planned], None]
) -> None:
    """The first run that waits for no other's measurement."""
    for planned in left:
        config = settle(planned)
        if config is not None:
            left.remove(planned)
            begins(planned)
            worker.run = planned
            with contextlib.suppress(OSError):  # it is dead: `_heard` finds that out
                worker.pipe.send((planned.folder, config))
            return


def _heard(workers: Sequence[Worker]) -> list[tuple[int, Worker]]:
    """The busy workers that have something to say, or have died; looked at a few times a second."""
    busy = {worker.pipe: (index, worker) for index, worker in enumerate(workers) if worker.run}
    return [busy[pipe] for pipe in wait(list(busy), timeout=0.2) if isinstance(pipe, Connection)]


def _answer(worker: Worker) -> Ending:
    planned, worker.run = worker.run, None
    assert planned is not None
    try:
        return planned, worker.pipe.recv()
    except (EOFError, OSError):
        worker.process.join()
        return planned, Ended("failed", f"its process died (exit code {worker.process.exitcode})")


def _pass_on(workers: Sequence[Worker]) -> None:
    # SIGTERM, not SIGINT: Ctrl-C in a terminal has reached them already, and a second SIGINT stops at once.
    for worker in workers:
        if worker.run and not worker.told and worker.process.pid and worker.process.is_alive():
            os.kill(worker.process.pid, signal.SIGTERM)
            worker.told = True


def _end(workers: Sequence[Worker]) -> None:
    """Closing the pipe ends a process that waits; one that is still busy (an error here) is asked to stop."""
    _pass_on(workers)
    for worker in workers:
        worker.pipe.close()
    for worker in workers:
        worker.process.join()


@contextlib.contextmanager
def _flag() -> Iterator[Callable[[], bool]]:
    """Signals only raise a flag here: the processes do the stopping."""
    came: list[int] = []
    try:
        before = {number: signal.signal(number, lambda n, _: came.append(n)) for number in STOPPING}
    except ValueError:  # not the main thread
        yield lambda: False
        return
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def serve(pipe: "Connection[Any, Any]") -> None:
    """A worker process: runs come in, endings go out, until the pipe is closed."""
    busy = asked = False

    def stop(number: int, frame: object) -> None:
        # While a run trains it has handlers of its own. Before that there is nothing to save; and between runs the
        # parent, which got the signal too, hands out no other.
        nonlocal asked
        asked = True
        if busy:
            raise KeyboardInterrupt

    for number in STOPPING:
        signal.signal(number, stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    while True:
        try:
            folder, config = pipe.recv()
        except (EOFError, OSError):
            return
        ended = Ended("interrupted")
        with contextlib.suppress(KeyboardInterrupt):
            busy = True
            if not asked:
                ended = carry_out(folder, config)
            busy = False
        busy = False
        with contextlib.suppress(OSError):
            pipe.send(ended)
