"""Worker processes under watch: one that is killed, hangs or fails ends the pass with an error that names the file.

torch's DataLoader does the work. Of a worker that died or hangs it reports no more than that, at whatever line the
parent happens to be; and on closing it waits for workers that hang. Here every worker reports in shared memory which
row it is reading, the parent watches its workers itself, and ends them by SIGKILL: they have nothing to lose.
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

from classwise.data.forked import return_free_memory
from classwise.errors import WorkerError
from classwise.signals import defer_signals, end_with_parent, ignore_signals, unblock_signals

FORK_SERVER = "classwise.data.fork_server"
POLL_SECONDS = 0.2
"""Between two checks of the workers while the parent waits for a batch."""
NOT_STARTED = -(2**62)
"""In place of a row: the worker has read none yet."""
START_LIMIT = 120.0
"""Seconds until the first sign of life, at least: importing torch takes long on a busy machine."""

_HINTS = {
    "SIGKILL": "the system does that when memory runs out: fewer data.workers need less",
    "SIGBUS": "shared memory may be full: see `df /dev/shm`, and --shm-size of a container; fewer data.workers need"
    " less",
}


def start_method(setting: str) -> str:
    """How workers are started: "auto" is fork on Linux, elsewhere Python's default, which is spawn.

    A forked worker is ready at once and shares the parent's memory. A spawned one imports torch again, which takes
    seconds and hundreds of megabytes each; forkserver does so once for all. Why fork is safe here, and when it is not:
    docs/decisions/0019-workers.md.
    """
    if setting != "auto":
        return setting
    return "fork" if sys.platform == "linux" else multiprocessing.get_all_start_methods()[0]


def context_of(method: str) -> BaseContext:
    """The context that starts workers by this method. A fork server imports what they need before it forks one."""
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        # The whole program shares the server, so modules that others preload are kept.
        preloaded = getattr(forkserver._forkserver, "_preload_modules", [])
        context.set_forkserver_preload([*(name for name in preloaded if name != FORK_SERVER), FORK_SERVER])
    return context


class Heartbeat:
    """What each worker is doing, in memory that it shares with the parent: the row that it is reading, or ~row once it
    has read it; and a count that goes up with every report. A report costs less than a microsecond."""

    def __init__(self, context: BaseContext, workers: int) -> None:
        self._cells: Any = context.RawArray("q", [NOT_STARTED, 0] * workers)

    def begin(self, worker: int, row: int) -> None:
        """The worker starts to read this row."""
        self._write(worker, row)

    def end(self, worker: int, row: int) -> None:
        """The worker has finished this row."""
        self._write(worker, ~row)

    def read(self, worker: int) -> tuple[int, int]:
        """(row, count) of a worker's last report; the row is NOT_STARTED before the first."""
        return self._cells[2 * worker], self._cells[2 * worker + 1]

    def _write(self, worker: int, row: int) -> None:
        self._cells[2 * worker] = row
        self._cells[2 * worker + 1] += 1


class Watchdog:
    """Watches the workers from a thread and kills a worker that gives no sign of life for `timeout` seconds, so that a
    parent which is waiting in the middle of a worker's answer gets away as well. 0: no limit.

    Only time in which the thread itself has run counts: a process group that was stopped as a whole (Ctrl-Z, a
    suspended job) continues as if nothing had happened.
    """

    def __init__(self, workers: Sequence[Any], heartbeat: Heartbeat, timeout: float) -> None:
        self.workers = workers
        self.heartbeat = heartbeat
        self.timeout = timeout
        self.overdue: list[int] = []
        """The workers that were killed."""
        self.awaited: frozenset[int] = frozenset()
        self._times_waited = 0
        self._ended = threading.Event()
        if timeout:
            threading.Thread(target=self._watch, name="classwise-watch", daemon=True).start()

    def limit(self, row: int) -> float:
        """Seconds without a sign of life that a worker is given, by the row that it has reported."""
        return max(self.timeout, START_LIMIT) if row == NOT_STARTED else self.timeout

    @contextlib.contextmanager
    def waiting(self, workers: Iterable[int]) -> Iterator[None]:
        """While the parent waits for an answer of these workers."""
        self._times_waited += 1
        self.awaited = frozenset(workers)
        try:
            yield
        finally:
            self.awaited = frozenset()

    def end(self) -> None:
        """Stop watching."""
        self._ended.set()

    def _watch(self) -> None:
        pause = min(1.0, self.timeout / 10)
        last_signs: dict[
            int, tuple[object, float]
        ] = {}  # by worker: its last sign of life, and when it was new
        clock = 0.0  # time in which this thread has run
        last_look = time.monotonic()
        while not self._ended.wait(pause):
            # A longer pause than asked for: the whole group was stopped meanwhile.
            now = time.monotonic()
            clock += min(now - last_look, 2 * pause)
            last_look = now

            awaited, times_waited = self.awaited, self._times_waited
            silent = []
            for worker in range(len(self.workers)):
                row, count = self.heartbeat.read(worker)
                is_reading = row >= 0
                # Between two files a worker owes a sign of life only to a parent that waits for it.
                sign = (count,) if is_reading else (count, worker in awaited, times_waited)
                if last_signs.get(worker, (None, 0.0))[0] != sign:
                    last_signs[worker] = sign, clock
                elif clock - last_signs[worker][1] > self.limit(row) and (is_reading or worker in awaited):
                    silent.append(worker)
            if silent:
                # A worker that is reading holds the others up: it is the one to blame.
                self.overdue = [worker for worker in silent if self.heartbeat.read(worker)[0] >= 0] or silent
                for worker in self.overdue:
                    self.workers[worker].kill()
                return


class WatchedLoader(DataLoader[Any]):
    """A DataLoader with workers under watch.

    heartbeat: where the workers report. timeout: see `Watchdog`.
    path_of_row: gives a row's file, for messages.
    make_collate: makes the function that collates batches; called whenever new workers are started.
    """

    def __init__(
        self,
        heartbeat: Heartbeat,
        timeout: float,
        path_of_row: Callable[[int], Path],
        make_collate: Callable[[], Any],
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.heartbeat = heartbeat
        self.watchdog_timeout = timeout
        self.path_of_row = path_of_row
        self.make_collate = make_collate

    def _get_iterator(self) -> Any:
        self.collate_fn = self.make_collate()
        return _WatchedWorkers(self)


class _WatchedWorkers(_MultiProcessingDataLoaderIter):
    """The workers of a pass and of all passes after it. It replaces three things in torch's iterator: how it waits for
    answers, how exceptions arrive, and how it ends."""

    def __init__(self, loader: WatchedLoader) -> None:
        self._heartbeat = loader.heartbeat
        self._path_of_row = loader.path_of_row
        self._start_method = loader.multiprocessing_context.get_start_method()
        self._watchdog: Watchdog | None = None
        self._watchdog_timeout = loader.watchdog_timeout
        # A worker would make itself a folder for sockets, and not clean up when it is killed: it inherits the parent's.
        util.get_temp_dir()
        if self._start_method == "fork":
            return_free_memory()
        try:
            # New workers start with signals blocked, until `begin_worker` runs in them. A worker from a fork server
            # takes signals until then (see fork_server.py).
            with defer_signals():
                if self._start_method != "fork" and os.name == "posix":
                    resource_tracker.ensure_running()  # unblocks signals when it starts, hence the second block
                with defer_signals():
                    super().__init__(loader)
        except BaseException as error:
            self._shutdown_workers()
            if isinstance(error, OSError):
                raise WorkerError(f"data.workers: no process could be started: {error}") from error
            raise

    def _reset(self, loader: Any, first_iter: bool = False) -> None:
        if first_iter:
            # torch would raise in the parent when a worker dies, wherever it is: in the middle of a checkpoint, say.
            _remove_worker_pids(id(self))
            self._worker_pids_set = False
            self._watchdog = Watchdog(self._workers, self._heartbeat, self._watchdog_timeout)
        super()._reset(loader, first_iter)

    def _next_data(self) -> Any:
        self._require_all_alive()
        return super()._next_data()  # type: ignore[no-untyped-call]

    def _get_data(self) -> Any:
        # At the start of a pass every worker answers once; after that, those that have been given rows.
        busy_workers = {info[0] for info in self._task_info.values() if len(info) == 1}
        assert self._watchdog is not None
        with self._watchdog.waiting(busy_workers or range(len(self._workers))):
            while True:
                self._require_all_alive()
                with contextlib.suppress(queue.Empty):
                    return self._next_answer()

    def _next_answer(self) -> Any:
        """The next answer of any worker. Raises queue.Empty after POLL_SECONDS."""
        try:
            return self._data_queue.get(timeout=POLL_SECONDS)
        except queue.Empty:
            if self._pin_memory and not self._pin_memory_thread.is_alive():
                self._require_all_alive(patience=3)
                raise WorkerError(
                    "the thread that copies batches for the GPU has ended; its message is above"
                ) from None
            raise
        except Exception as error:
            # A batch is in its worker's memory until it is fetched, and is lost when the worker dies.
            self._require_all_alive(patience=3)
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

    def _require_all_alive(self, patience: float = 0) -> None:
        """Raise WorkerError unless all workers are alive; `patience`: seconds to wait for one that is just dying."""
        overdue = self._watchdog.overdue if self._watchdog else []
        if patience and not overdue:
            ended = connection.wait([worker.sentinel for worker in self._workers], patience)
            for worker in self._workers:
                if worker.sentinel in ended:  # its pipes are closed a moment before its exit code is known
                    worker.join(patience)

        dead = [number for number, worker in enumerate(self._workers) if not worker.is_alive()]
        if overdue:
            raise WorkerError("; ".join(self._hung_text(number) for number in overdue))
        if dead:
            raise WorkerError("; ".join(self._died_text(number) for number in dead))

    def _hung_text(self, number: int) -> str:
        pid = self._workers[number].pid
        row, _ = self._heartbeat.read(number)
        assert self._watchdog is not None
        limit = f"for {self._watchdog.limit(row):g} s (data.worker_timeout)"
        if row >= 0:
            return (
                f"{self._path_of_row(row)}: worker process {pid} has not come back from reading this file {limit}, and"
                " was killed; does its disk or network share hang? Raise the limit for a slow one; 0 waits forever"
            )
        return f"worker process {pid} has given no sign of life {limit}, and was killed; {self._progress_text(row)}"

    def _died_text(self, number: int) -> str:
        worker = self._workers[number]
        row, _ = self._heartbeat.read(number)
        signal_name = _signal_name(worker.exitcode)
        how = f"was killed by {signal_name}" if signal_name else f"ended with exit code {worker.exitcode}"
        hint = _HINTS.get(signal_name, "data.workers = 0 reads without such processes")
        if row == NOT_STARTED and not signal_name and self._start_method != "fork":
            hint = (
                'its own message is above; a script that trains must do so below `if __name__ == "__main__":`, since'
                f" such processes import it (data.start_method {self._start_method!r})"
            )
        if row >= 0:
            return (
                f"{self._path_of_row(row)}: worker process {worker.pid} {how} while it read this file; {hint}"
            )
        return f"worker process {worker.pid} {how}; {self._progress_text(row)}; {hint}"

    def _progress_text(self, row: int) -> str:
        """What a worker had done that was not reading a file."""
        if row == NOT_STARTED:
            return "it had read no file yet"
        return f"it had read {self._path_of_row(~row)} and was between files"

    def _shutdown_workers(self) -> None:
        """End all workers now, whatever they are doing, and remove what they would leave behind."""
        if getattr(self, "_shutdown", True):  # True also where not even the queues could be made
            return
        self._shutdown = True
        if self._watchdog is not None:
            self._watchdog.end()
        if self._worker_pids_set:
            _remove_worker_pids(id(self))
            self._worker_pids_set = False

        for worker in self._workers:
            worker.kill()
        deadline = time.monotonic() + 5
        for worker in self._workers:
            worker.join(max(0.0, deadline - time.monotonic()))
            _remove_shared_memory(worker.pid)

        self._end_pin_memory_thread()
        for index_queue in self._index_queues:
            index_queue.cancel_join_thread()
            index_queue.close()

    def _end_pin_memory_thread(self) -> None:
        if not hasattr(self, "_pin_memory_thread"):
            return
        self._pin_memory_thread_done_event.set()
        # The thread notices at its next answer, or after five seconds: a killed worker may have left the queue locked.
        self._worker_result_queue.put((None, None))
        self._pin_memory_thread.join(10)
        self._worker_result_queue.cancel_join_thread()
        self._worker_result_queue.close()


def begin_worker() -> None:
    """Called in a worker: it ignores signals to the process group, and ends when its parent ends.

    Signals are for the parent, which ends its workers once its checkpoint is written. As to the parent's end: torch's
    workers check now and then who their parent is. A worker that hangs never does, and a worker of a fork server has
    the server for a parent; both would stay forever.
    """
    ignore_signals()
    unblock_signals()
    end_with_parent()


def _signal_name(code: int | None) -> str:
    if code is None or code >= 0:
        return ""
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


def _remove_shared_memory(pid: int | None) -> None:
    """torch unlinks a block's name at once; a worker that is killed just before leaves the block in memory."""
    for path in Path("/dev/shm").glob(f"torch_{pid}_*"):
        path.unlink(missing_ok=True)
