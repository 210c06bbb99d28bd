"""Runs of a comparison or of folds, trained one after the other or by several processes."""

import contextlib
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from classwise.config.schema import Config
from classwise.run.unattended import Outcome, signal_watch, train_or_resume
from classwise.signals import STOPPING, blocked_signals, end_with_parent, unblock_signals

POLL_SECONDS = 0.2

Run = TypeVar("Run")
"""A run as the caller knows it."""
WorkOf = Callable[[Run], tuple[Path, Config] | None]
"""Its folder and the config to train, without `auto`; None while it has to wait for another run."""


def one_by_one(
    runs: Sequence[Run], work_of: WorkOf[Run], begins: Callable[[Run], None]
) -> Generator[tuple[Run, Outcome]]:
    """Train in this process. Stops after a run that was interrupted, or during which a signal came.

    `begins` is called before each run."""
    with signal_watch() as signal_came:
        for run in runs:
            begins(run)
            try:
                work = work_of(run)
                assert work is not None, "the run that it waited for has ended"
                outcome = train_or_resume(*work)
            except KeyboardInterrupt:
                outcome = Outcome("interrupted")
            yield run, outcome
            if outcome.state == "interrupted" or signal_came():
                return


@dataclass
class Worker(Generic[Run]):
    """A process, this end of the pipe to it, what it adds to the environment, and the run that it is training."""

    process: BaseProcess
    pipe: "Connection[Any, Any]"
    environment: Mapping[str, str] = field(default_factory=dict)
    run: Run | None = None
    stopping: bool = False  # a signal to stop has been sent


def in_processes(
    runs: Sequence[Run],
    work_of: WorkOf[Run],
    begins: Callable[[Run], None],
    jobs: int,
    environments: Sequence[Mapping[str, str]] = ({},),
) -> Generator[tuple[Run, Outcome]]:
    """Train in `jobs` processes, each of which imports everything once and takes one run after the other.

    A signal is forwarded: the runs under way stop with a checkpoint, and no other is begun. A process that dies (out
    of memory, say) counts as one failed run and is replaced. `begins` is called before each run. `environments`: what
    the processes add to their environment, in turns, such as the GPU that each of them sees. Closing the generator
    ends the processes.
    """
    waiting = deque(runs)
    workers: list[Worker[Run]] = []
    with _signal_flag() as signal_came:
        try:
            count = min(jobs, len(runs))
            workers += [_start(environments[number % len(environments)]) for number in range(count)]
            while waiting or any(worker.run for worker in workers):
                if signal_came():
                    waiting.clear()
                    _stop_runs(workers)
                for worker in workers:
                    if worker.run is None:
                        _assign_run(worker, waiting=waiting, work_of=work_of, begins=begins)

                # A worker answers when its run has ended, or has died.
                for index, worker in _answering(workers):
                    run, outcome = _receive(worker)
                    if outcome.state == "interrupted":
                        waiting.clear()
                    yield run, outcome
                    if not worker.process.is_alive() and waiting:
                        workers[index] = _start(worker.environment)
        finally:
            _shut_down(workers)


def _start(environment: Mapping[str, str]) -> Worker[Any]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,))
    # Started now: at its own start, later, it would unblock the signals that are blocked below.
    if os.name == "posix":
        resource_tracker.ensure_running()
    # Signals stay blocked until the new process, which inherits this, can handle them: `serve` unblocks them.
    with blocked_signals(), _in_environment(environment):
        process.start()
    theirs.close()
    return Worker(process, ours, environment)


@contextlib.contextmanager
def _in_environment(values: Mapping[str, str]) -> Iterator[None]:
    """Within the block the environment, which a new process takes over, has these values."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _assign_run(
    worker: Worker[Run], waiting: deque[Run], work_of: WorkOf[Run], begins: Callable[[Run], None]
) -> None:
    """Give `worker` the first waiting run that does not have to wait for another one."""
    for run in waiting:
        work = work_of(run)
        if work is not None:
            waiting.remove(run)
            begins(run)
            worker.run = run
            with contextlib.suppress(OSError):  # it is dead: `_answering` finds that out
                worker.pipe.send(work)
            return


def _answering(workers: Sequence[Worker[Run]]) -> list[tuple[int, Worker[Run]]]:
    """The busy workers that have sent an outcome or have died, with their index; waits POLL_SECONDS at most."""
    busy = {worker.pipe: (index, worker) for index, worker in enumerate(workers) if worker.run}
    ready = wait(list(busy), timeout=POLL_SECONDS)
    # Of whatever class: on Windows a pipe's end is no Connection.
    return [busy[cast("Connection[Any, Any]", pipe)] for pipe in ready]


def _receive(worker: Worker[Run]) -> tuple[Run, Outcome]:
    run = worker.run
    assert run is not None
    worker.run = None
    try:
        return run, worker.pipe.recv()
    except (EOFError, OSError):
        worker.process.join()
        return run, Outcome("failed", f"its process died (exit code {worker.process.exitcode})")


def _stop_runs(workers: Sequence[Worker[Any]]) -> None:
    # SIGTERM, not SIGINT: Ctrl-C in a terminal has reached them already, and a second SIGINT stops at once.
    for worker in workers:
        if worker.run and not worker.stopping and worker.process.pid and worker.process.is_alive():
            os.kill(worker.process.pid, signal.SIGTERM)
            worker.stopping = True


def _shut_down(workers: Sequence[Worker[Any]]) -> None:
    """Closing the pipe ends an idle process; a busy one (there was an error here) is asked to stop."""
    _stop_runs(workers)
    for worker in workers:
        worker.pipe.close()
    for worker in workers:
        worker.process.join()


@contextlib.contextmanager
def _signal_flag() -> Iterator[Callable[[], bool]]:
    """Yields a function that says whether a signal to stop has come; the signal itself stops nothing here, since the
    worker processes do the stopping."""
    signals: list[int] = []
    try:
        previous = {number: signal.signal(number, lambda n, _: signals.append(n)) for number in STOPPING}
    except ValueError:  # not the main thread
        yield lambda: False
        return
    try:
        yield lambda: bool(signals)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def serve(pipe: "Connection[Any, Any]") -> None:
    """A worker process: receives runs and sends their outcomes, until the pipe is closed or the parent has died."""
    end_with_parent()
    busy = False
    stopping = False

    def stop(number: int, frame: object) -> None:
        # While a run trains it has handlers of its own; before that there is nothing to save. Between two runs the
        # parent, which got the signal too, assigns no other.
        nonlocal stopping
        stopping = True
        if busy:
            raise KeyboardInterrupt

    for number in STOPPING:
        signal.signal(number, stop)
    unblock_signals()
    while True:
        try:
            folder, config = pipe.recv()
        except (EOFError, OSError):
            return
        outcome = Outcome("interrupted")
        with contextlib.suppress(KeyboardInterrupt):
            busy = True
            if not stopping:
                outcome = train_or_resume(folder, config)
            busy = False
        busy = False
        with contextlib.suppress(OSError):
            pipe.send(outcome)
