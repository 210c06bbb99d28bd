"""Work on many small things in forked processes: Python runs one thread at a time, and where a thing takes less time
than handing over its lock, threads are no faster than one."""

import contextlib
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, TypeVar

from classwise.errors import WorkerError
from classwise.signals import defer_signals, end_with_parent, ignore_signals, unblock_signals

CAN_FORK = sys.platform == "linux"

Result = TypeVar("Result")
End = TypeVar("End")


class _Sent(NamedTuple):
    """What a process sends: a result, what it ends with, or the error that has ended it."""

    value: Any = None
    error: Exception | None = None


def core_count() -> int:
    """Cores that this process may use: those of the machine, divided by the processes that `torchrun` started on
    it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def results_of_forks(
    work: Callable[[int], Result],
    count: int,
    processes: int,
    end: Callable[[], End],
    take_end: Callable[[End], None],
) -> Iterator[Result]:
    """`work(0)` to `work(count - 1)`, in this order, of which each process computes every so manieth; then each calls
    `end`, and this one `take_end` with what that returns.

    The processes are forks of this one, so `work` may be a closure; what it returns is pickled. Raises what `work` has
    raised for the lowest number, and WorkerError if a process was killed.
    """
    context = multiprocessing.get_context("fork")
    started: list[Any] = []
    connections: list[Connection] = []
    try:
        for number in range(processes):
            ours, theirs = context.Pipe(duplex=False)
            connections.append(ours)
            numbers = range(number, count, processes)
            process = context.Process(target=_run, args=(theirs, numbers, work, end), daemon=True)
            # Signals are for this process, which ends the others.
            with defer_signals():
                process.start()
            started.append(process)
            theirs.close()  # else its end would not be seen here
        for number in range(count):
            yield _received(connections[number % processes], started[number % processes])
        for connection, process in zip(connections, started, strict=True):
            take_end(_received(connection, process))
    finally:
        for process in started:
            process.kill()
        for process in started:
            process.join()
        for connection in connections:
            connection.close()


def _run(connection: Connection, numbers: range, work: Callable[[int], Any], end: Callable[[], Any]) -> None:
    """What each process does."""
    ignore_signals()
    unblock_signals()
    end_with_parent()
    with contextlib.suppress(BrokenPipeError):  # the parent has ended
        try:
            for number in numbers:
                connection.send(_Sent(work(number)))
            connection.send(_Sent(end()))
        except BrokenPipeError:
            raise
        except Exception as error:
            connection.send(_Sent(error=error))


def _received(connection: Connection, process: Any) -> Any:
    """What a process sends next. Raises the error that has ended it, WorkerError if it sends no more."""
    try:
        sent: _Sent = connection.recv()
    except (EOFError, OSError):  # between two messages, or within one
        process.join()
        raise WorkerError(
            f"a process that checks images has ended (exit code {process.exitcode}); the system may have killed it"
            " since memory ran out"
        ) from None
    if sent.error is not None:
        raise sent.error
    return sent.value
