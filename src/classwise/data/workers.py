"""Worker processes under watch: one that is killed, hangs or fails ends the pass with an error that names the file.

torch's DataLoader does the work. What it says of a worker that died or hangs is that it did, at whatever line the
parent happens to be; and on closing it waits for workers that hang. Here every worker notes in shared memory which
row it reads, the parent looks after its workers itself, and ends them by SIGKILL: they have nothing to lose.
"""

import contextlib
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing import connection, forkserver, resource_tracker, util
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

from torch._C import _remove_worker_pids
from torch._utils import ExceptionWrapper
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from classwise.errors import WorkerError
from classwise.signals import STOPPING, defer_signals, ignore_from_now_on

FORK_SERVER = "classwise.data.fork_server"
LOOK = 0.2
"""Seconds between two looks at the workers while their batch is waited for."""
NOT_STARTED = -(2**62)
"""In place of a row, of a worker that has read none yet."""
START_LIMIT = 120.0
"""The least limit in seconds for the first sign of life: importing torch takes long on a busy machine."""

_HINTS = {
    "SIGKILL": "the system does that where memory runs out: fewer data.workers need less",
    "SIGBUS": "shared memory may be full: see `df /dev/shm`, and --shm-size of a container; fewer data.workers need"
    " less",
}


def start_method(wanted: str) -> str:
    """How workers are started: "auto" is fork on Linux, elsewhere Python's own choice, which is spawn.

    A forked worker is there at once and shares the parent's memory. One that is spawned imports torch again, which
    takes seconds and hundreds of megabytes each; forkserver does so once for all. Why fork is safe here, and when it
    is not: docs/decisions/0019-workers.md.
    """
    if wanted != "auto":
        return wanted
    return "fork" if sys.platform == "linux" else multiprocessing.get_all_start_methods()[0]


def context_of(method: str) -> BaseContext:
    """The context that starts workers so; a fork server has what they need in memory before the first is asked for."""
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        # Beside what others want there: the server is the whole program's.
        known = getattr(forkserver._forkserver, "_preload_modules", [])
        context.set_forkserver_preload([*(name for name in known if name != FORK_SERVER), FORK_SERVER])
    return context


class Heartbeat:
    """What each worker does, in memory that it shares with the parent: the row that it reads, or ~row once it has;
    and a count that goes up with every note. A note costs less than a microsecond."""

    def __init__(self, context: BaseContext, workers: int) -> None:
        self._cells: Any = context.RawArray("q", [NOT_STARTED, 0] * workers)

    def begin(self, worker: int, row: int) -> None:
        """The worker reads this row."""
        self._write(worker, row)

    def end(self, worker: int, row: int) -> None:
        """The worker has done with this row."""
        self._write(worker, ~row)

    def read(self, worker: int) -> tuple[int, int]:
        """(row, count)."""
        return self._cells[2 * worker], self._cells[2 * worker + 1]

    def _write(self, worker: int, row: int) -> None:
        self._cells[2 * worker] = row
        self._cells[2 * worker + 1] += 1


class Watchdog:
    """Looks after the workers from a thread, so that also a parent which waits in the middle of a worker's answer
    gets away: a worker without a sign of life for `timeout` seconds is killed.

    Only time in which the thread itself has run counts: a whole group that was stopped (Ctrl-Z, a suspended job) goes
    on as if nothing had been.
    """

    def __init__(self, workers: Sequence[Any], notes: Heartbeat, timeout: float) -> None:
        self.workers, self.notes, self.timeout = workers, notes, timeout
        self.overdue: list[int] = []
        self.awaited: frozenset[int] = frozenset()
        self._waits = 0
        self._ended = threading.Event()
        if timeout:
            threading.Thread(target=self._look_after, name="classwise-watch", daemon=True).start()

    def limit(self, row: int) -> float:
        """Seconds without a sign of life that a worker is given, by what it has noted."""
        return max(self.timeout, START_LIMIT) if row == NOT_STARTED else self.timeout

    @contextlib.contextmanager
    def waiting(self, workers: Iterable[int]) -> Iterator[None]:
        """While the parent waits for what these workers owe."""
        self._waits += 1
        self.awaited = frozenset(workers)
        try:
            yield
        finally:
            self.awaited = frozenset()

    def end(self) -> None:
        """No look any more."""
        self._ended.set()

    def _look_after(self) -> None:
        pause = min(1.0, self.timeout / 10)
        signs: dict[int, tuple[object, float]] = {}
        now, before = 0.0, time.monotonic()
        while not self._ended.wait(pause):
            here = time.monotonic()
            now, before = now + min(here - before, 2 * pause), here
            awaited, waits = self.awaited, self._waits
            silent = []
            for worker in range(len(self.workers)):
                row, count = self.notes.read(worker)
                # Between two files a worker owes a sign only to a parent that waits for it.
                sign = (count,) if row >= 0 else (count, worker in awaited, waits)
                if signs.get(worker, (None, 0.0))[0] != sign:
                    signs[worker] = sign, now
                elif now - signs[worker][1] > self.limit(row) and (row >= 0 or worker in awaited):
                    silent.append(worker)
            reading = [worker for worker in silent if self.notes.read(worker)[0] >= 0]
            if silent:
                # Who reads holds the others up.
                self.overdue = reading or silent
                for worker in self.overdue:
                    self.workers[worker].kill()
                return


class WatchedLoader(DataLoader[Any]):
    """A DataLoader with workers under watch; `describe` gives a row's file, `collate` what is to make batches in new
    workers."""

    def __init__(
        self,
        notes: Heartbeat,
        timeout: float,
        describe: Callable[[int], Path],
        collate: Callable[[], Any],
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.notes, self.watch_timeout, self.describe, self.collate = notes, timeout, describe, collate

    def _get_iterator(self) -> Any:
        self.collate_fn = self.collate()
        return _WatchedWorkers(self)


class _WatchedWorkers(_MultiProcessingDataLoaderIter):
    """The workers of a pass and of all after it. Of torch's iterator it replaces how answers are waited for, how
    exceptions arrive, and how it ends."""

    def __init__(self, loader: WatchedLoader) -> None:
        self._notes, self._describe = loader.notes, loader.describe
        self._method = loader.multiprocessing_context.get_start_method()
        self._watch: Watchdog | None = None
        self._timeout_seconds = loader.watch_timeout
        # A worker makes itself a folder for sockets and does not clean up when it is killed: it gets the parent's.
        util.get_temp_dir()
        try:
            # Until `begin_worker` in the worker. One from a fork server takes signals until then (see fork_server.py).
            with defer_signals():
                if self._method != "fork":
                    resource_tracker.ensure_running()  # lets signals through at its own start, hence two blocks
                with defer_signals():
                    super().__init__(loader)
        except BaseException as error:
            self._shutdown_workers()
            if isinstance(error, OSError):
                raise WorkerError(f"data.workers: no process could be started: {error}") from error
            raise

    def _reset(self, loader: Any, first_iter: bool = False) -> None:
        if first_iter:
            # torch would raise in the parent, wherever it is, when a worker dies: in the middle of a checkpoint, say.
            _remove_worker_pids(id(self))
            self._worker_pids_set = False
            self._watch = Watchdog(self._workers, self._notes, self._timeout_seconds)
        super()._reset(loader, first_iter)

    def _next_data(self) -> Any:
        self._require_all()
        return super()._next_data()  # type: ignore[no-untyped-call]

    def _get_data(self) -> Any:
        # At the start of a pass every worker answers once; then those who have been given rows.
        owing = {info[0] for info in self._task_info.values() if len(info) == 1}
        assert self._watch is not None
        with self._watch.waiting(owing or range(len(self._workers))):
            while True:
                self._require_all()
                with contextlib.suppress(queue.Empty):
                    return self._answer()

    def _answer(self) -> Any:
        """The next answer of any worker. Raises queue.Empty after a while."""
        try:
            return self._data_queue.get(timeout=LOOK)
        except queue.Empty:
            if self._pin_memory and not self._pin_memory_thread.is_alive():
                self._require_all(patience=3)
                raise WorkerError(
                    "the thread that copies batches for the GPU has ended; its message is above"
                ) from None
            raise
        except Exception as error:
            # A batch lies in its worker's memory until it is fetched, and goes with it.
            self._require_all(patience=3)
            raise WorkerError(
                f"what a worker has read could not be fetched: {error or type(error).__name__}"
            ) from error

    def _process_data(self, data: Any, *place: Any) -> Any:
        if isinstance(data, ExceptionWrapper):
            text = str(data.exc_msg).strip()
            hint = f"; {_HINTS['SIGBUS']}" if "shared memory" in text else ""
            error = WorkerError(f"a worker process failed: {text.splitlines()[-1]}{hint}")
            error.add_note(text)
            raise error
        return super()._process_data(data, *place)  # type: ignore[no-untyped-call]

    def _require_all(self, patience: float = 0) -> None:
        """Raise WorkerError unless all workers live."""
        overdue = self._watch.overdue if self._watch else []
        if patience and not overdue:
            ended = connection.wait([worker.sentinel for worker in self._workers], patience)
            for worker in self._workers:
                if worker.sentinel in ended:  # its pipes are closed, a moment before it can be waited for
                    worker.join(patience)
        dead = [number for number, worker in enumerate(self._workers) if not worker.is_alive()]
        if overdue:
            raise WorkerError("; ".join(self._hung(number) for number in overdue))
        if dead:
            raise WorkerError("; ".join(self._died(number) for number in dead))

    def _hung(self, number: int) -> str:
        pid, row = self._workers[number].pid, self._notes.read(number)[0]
        assert self._watch is not None
        limit = f"for {self._watch.limit(row):g} s (data.worker_timeout)"
        if row >= 0:
            return (
                f"{self._describe(row)}: worker process {pid} has not come back from reading this file {limit}, and was"
                " ended; does its disk or network share hang? A larger limit is for slow ones, 0 waits for ever"
            )
        return f"worker process {pid} has given no sign of life {limit}, and was ended; {self._done(row)}"

    def _died(self, number: int) -> str:
        worker, row = self._workers[number], self._notes.read(number)[0]
        code = worker.exitcode
        name = _signal_name(code)
        how = f"was killed by {name}" if name else f"ended with exit code {code}"
        hint = _HINTS.get(name, "data.workers = 0 reads without such processes")
        if row == NOT_STARTED and not name and self._method != "fork":
            hint = (
                'its own message is above; a script that trains must do so below `if __name__ == "__main__":`, since'
                f" such processes import it (data.start_method {self._method!r})"
            )
        if row >= 0:
            return f"{self._describe(row)}: worker process {worker.pid} {how} while it read this file; {hint}"
        return f"worker process {worker.pid} {how}; {self._done(row)}; {hint}"

    def _done(self, row: int) -> str:
        return (
            "it had read no file yet"
            if row == NOT_STARTED
            else f"it had read {self._describe(~row)} and was between files"
        )

    def _shutdown_workers(self) -> None:
        """End all workers now, whatever they do, and what they would leave behind."""
        if getattr(self, "_shutdown", True):  # True also where not even the queues could be made
            return
        self._shutdown = True
        if self._watch is not None:
            self._watch.end()
        if self._worker_pids_set:
            _remove_worker_pids(id(self))
            self._worker_pids_set = False
        for worker in self._workers:
            worker.kill()
        deadline = time.monotonic() + 5
        for worker in self._workers:
            worker.join(max(0.0, deadline - time.monotonic()))
            _remove_shared_memory(worker.pid)
        self._end_pinning()
        for index_queue in self._index_queues:
            index_queue.cancel_join_thread()
            index_queue.close()

    def _end_pinning(self) -> None:
        if not hasattr(self, "_pin_memory_thread"):
            return
        self._pin_memory_thread_done_event.set()
        # It looks up at its next answer, or after five seconds: a killed worker may have left the queue locked.
        self._worker_result_queue.put((None, None))
        self._pin_memory_thread.join(10)
        self._worker_result_queue.cancel_join_thread()
        self._worker_result_queue.close()


def begin_worker() -> None:
    """In a worker: signals to the whole group are for the parent, which ends its workers once its checkpoint is
    written; and the worker ends with it.

    torch's workers ask now and then who their parent is. One that hangs never does; and a worker of a fork server has
    that for a parent, and both would stay for ever.
    """
    ignore_from_now_on()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGKILL)


def _signal_name(code: int | None) -> str:
    if code is None or code >= 0:
        return ""
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


def _remove_shared_memory(pid: int | None) -> None:
    """torch takes a block's name away at once; a worker that is killed just before leaves the block in memory."""
    for path in Path("/dev/shm").glob(f"torch_{pid}_*"):
        path.unlink(missing_ok=True)
