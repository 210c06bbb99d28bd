"""A comparison's runs, trained one after the other or by several processes."""

import contextlib
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from classwise.compare.plan import PlannedRun
from classwise.config.schema import Config
from classwise.run.unattended import Outcome, signal_watch, train_or_resume
from classwise.signals import STOPPING, blocked_signals, unblock_signals

POLL_SECONDS = 0.2

# The config of a run without `auto`; None while another run still measures for it.
ResolveAuto = Callable[[PlannedRun], Config | None]


def one_by_one(
    runs: Sequence[PlannedRun], resolve_auto: ResolveAuto, begins: Callable[[PlannedRun], None]
) -> Iterator[tuple[PlannedRun, Outcome]]:
    """Train in this process. Stops after a run that was interrupted, or during which a signal came.

    `begins` is called before each run."""
    with signal_watch() as signal_came:
        for planned in runs:
            begins(planned)
            try:
                config = resolve_auto(planned)
                assert config is not None, "the run that measures for the others has ended"
                outcome = train_or_resume(planned.folder, config)
            except KeyboardInterrupt:
                outcome = Outcome("interrupted")
            yield planned, outcome
            if outcome.state == "interrupted" or signal_came():
                return


@dataclass
class Worker:
    """A process, this end of the pipe to it, and the run that it is training."""

    process: BaseProcess
    pipe: "Connection[Any, Any]"
    run: PlannedRun | None = None
    stopping: bool = False  # a signal to stop has been sent


def in_processes(
    runs: Sequence[PlannedRun], resolve_auto: ResolveAuto, begins: Callable[[PlannedRun], None], jobs: int
) -> Iterator[tuple[PlannedRun, Outcome]]:
    """Train in `jobs` processes, each of which imports everything once and takes one run after the other.

    A signal is forwarded: the runs under way stop with a checkpoint, and no other is begun. A process that dies (out
    of memory, say) counts as one failed run and is replaced. `begins` is called before each run.
    """
    waiting = deque(runs)
    workers: list[Worker] = []
    with _signal_flag() as signal_came:
        try:
            workers += [_start() for _ in range(min(jobs, len(runs)))]
            while waiting or any(worker.run for worker in workers):
                if signal_came():
                    waiting.clear()
                    _stop_runs(workers)
                for worker in workers:
                    if worker.run is None:
                        _assign_run(worker, waiting=waiting, resolve_auto=resolve_auto, begins=begins)

                # A worker answers when its run has ended, or has died.
                for index, worker in _answering(workers):
                    planned, outcome = _receive(worker)
                    if outcome.state == "interrupted":
                        waiting.clear()
                    yield planned, outcome
                    if not worker.process.is_alive() and waiting:
                        workers[index] = _start()
        finally:
            _shut_down(workers)


def _start() -> Worker:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,))
    # Started now: at its own start, later, it would unblock the signals that are blocked below.
    if os.name == "posix":
        resource_tracker.ensure_running()
    # Signals stay blocked until the new process, which inherits this, can handle them: `serve` unblocks them.
    with blocked_signals():
        process.start()
    theirs.close()
    return Worker(process, ours)


def _assign_run(
    worker: Worker,
    waiting: deque[PlannedRun],
    resolve_auto: ResolveAuto,
    begins: Callable[[PlannedRun], None],
) -> None:
    """Give `worker` the first waiting run that does not depend on another run's measurement."""
    for planned in waiting:
        config = resolve_auto(planned)
        if config is not None:
            waiting.remove(planned)
            begins(planned)
            worker.run = planned
            with contextlib.suppress(OSError):  # it is dead: `_answering` finds that out
                worker.pipe.send((planned.folder, config))
            return


def _answering(workers: Sequence[Worker]) -> list[tuple[int, Worker]]:
    """The busy workers that have sent an outcome or have died, with their index; waits POLL_SECONDS at most."""
    busy = {worker.pipe: (index, worker) for index, worker in enumerate(workers) if worker.run}
    ready = wait(list(busy), timeout=POLL_SECONDS)
    return [busy[pipe] for pipe in ready if isinstance(pipe, Connection)]


def _receive(worker: Worker) -> tuple[PlannedRun, Outcome]:
    planned = worker.run
    assert planned is not None
    worker.run = None
    try:
        return planned, worker.pipe.recv()
    except (EOFError, OSError):
        worker.process.join()
        return planned, Outcome("failed", f"its process died (exit code {worker.process.exitcode})")


def _stop_runs(workers: Sequence[Worker]) -> None:
    # SIGTERM, not SIGINT: Ctrl-C in a terminal has reached them already, and a second SIGINT stops at once.
    for worker in workers:
        if worker.run and not worker.stopping and worker.process.pid and worker.process.is_alive():
            os.kill(worker.process.pid, signal.SIGTERM)
            worker.stopping = True


def _shut_down(workers: Sequence[Worker]) -> None:
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
    """A worker process: receives runs and sends their outcomes, until the pipe is closed."""
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
