"""How a process is asked to stop: SIGINT, SIGTERM, SIGUSR1, which Slurm can send as a warning; SIGBREAK on Windows; and
how a worker process ends with its parent."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator

# Not every system has all of them.
STOPPING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGBREAK") if hasattr(signal, name)
)


class StopFlag:
    """Whether a signal has asked the process to stop.

    While a run is set up there is nothing to save, and a signal ends it at once by KeyboardInterrupt. After
    `wait_for_updates` a signal asks the loop to stop at the end of the current update; a second SIGINT stops at once.
    """

    def __init__(self) -> None:
        self._requests = 0  # how often the process was asked to stop
        self._number = 0  # the last signal
        self._waits_for_updates = False
        self._holds = 0  # blocks of `holding` that are entered

    def is_set(self) -> bool:
        """Whether the run has been asked to stop."""
        return self._requests > 0

    def wait_for_updates(self) -> None:
        """From now on the loop checks the flag itself. Call this right before the first checkpoint is written."""
        self._waits_for_updates = True

    def ask(self, number: int, frame: object) -> None:
        """The signal handler."""
        # After the first signal only SIGINT counts: another one must not interrupt the cleaning up.
        if self._requests and number != signal.SIGINT:
            return
        self._requests += 1
        self._number = number
        self._stop_if_due()

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        """Within the block a signal does not stop the process at once; it does so at the end of the block."""
        self._holds += 1
        requests_before = self._requests
        try:
            yield
        finally:
            self._holds -= 1
            if self._requests > requests_before:
                self._stop_if_due()

    def _stop_if_due(self) -> None:
        """Raise KeyboardInterrupt if the process has to stop at once and no block of `holding` defers it."""
        if not self._holds and (self._requests > 1 or not self._waits_for_updates):
            raise KeyboardInterrupt(self._number)


_flag: StopFlag | None = None  # of the main thread, which receives all signals


@contextlib.contextmanager
def stop_flag() -> Iterator[StopFlag]:
    """A flag that the signals STOPPING set within the block; the earlier handlers are restored at its end. In any other
    than the main thread the flag is never set, since signals are handled in the main thread."""
    global _flag
    stop = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    outer_flag = _flag
    _flag = stop
    earlier_handlers = {number: signal.signal(number, stop.ask) for number in STOPPING}
    try:
        yield stop
    finally:
        for number, handler in earlier_handlers.items():
            # None: a handler that was not installed from Python, and cannot be restored from there.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        _flag = outer_flag


@contextlib.contextmanager
def defer_signals() -> Iterator[None]:
    """Within the block no signal of STOPPING takes effect; it does at the end of the block.

    Processes that are started within the block have these signals blocked until they unblock them: otherwise a new
    process could die of a signal before it has had time to ignore it.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    # Another thread may still receive a signal, whose handler then runs in the main thread: that is deferred as well.
    hold = _flag.holding() if _flag is not None and in_main_thread else contextlib.nullcontext()
    with hold, blocked_signals():
        yield


@contextlib.contextmanager
def blocked_signals() -> Iterator[None]:
    """Within the block this thread receives no signal of STOPPING, and processes that it starts have them blocked until
    they call `unblock_signals`. Windows has no such mask: there, signals come as always."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    mask_before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask_before)


def unblock_signals() -> None:
    """Let this thread receive the signals of STOPPING again, which a process may have inherited as blocked."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)


def ignore_signals() -> None:
    """Ignore STOPPING from now on: in a process that is about to end, where a signal would only hide its exit code, and
    in loader workers, which their parent ends."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


def end_with_parent() -> None:
    """Called in a process of multiprocessing's: from now on it is killed when its parent ends, however that ends.

    A parent that is killed tells its children nothing, and they would stay, with the locks that they hold.
    """
    threading.Thread(target=_kill_after_parent, daemon=True).start()


def _kill_after_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    # On Windows SIGTERM ends a process at once.
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
