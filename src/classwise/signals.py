"""How a process is asked to stop: SIGINT, SIGTERM, and SIGUSR1, the warning that Slurm gives."""

import contextlib
import signal
import threading
from collections.abc import Iterator

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class StopFlag:
    """Whether a signal has asked the process to stop.

    While a run is set up there is nothing to keep, and a signal ends it at once by KeyboardInterrupt. From
    `wait_for_updates` on it asks the loop to stop after the update that is under way; a second SIGINT stops at once.
    """

    def __init__(self) -> None:
        self._times, self._number = 0, 0  # how often it was asked to stop, and by which signal
        self._patient = False
        self._holds = 0

    def is_set(self) -> bool:
        """Whether the run has been asked to stop."""
        return self._times > 0

    def wait_for_updates(self) -> None:
        """From now on the loop asks for itself: call it right before the first checkpoint is written."""
        self._patient = True

    def ask(self, number: int, frame: object) -> None:
        """The handler of a signal."""
        if self._times and number != signal.SIGINT:
            return  # where one has stopped the set-up, another must not stop the clearing up
        self._times, self._number = self._times + 1, number
        self._stop_at_once()

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        """Nothing is stopped at once within the block, but at its end."""
        self._holds, before = self._holds + 1, self._times
        try:
            yield
        finally:
            self._holds -= 1
            if self._times > before:
                self._stop_at_once()

    def _stop_at_once(self) -> None:
        """If that is what has been asked for, and nothing holds it."""
        if not self._holds and (self._times > 1 or not self._patient):
            raise KeyboardInterrupt(self._number)


_flag: StopFlag | None = None  # of the main thread, which gets all signals


@contextlib.contextmanager
def stop_flag() -> Iterator[StopFlag]:
    """STOPPING put the flag up; handlers are put back after. In a thread beside the main one it stays down, since
    handlers belong to the main thread."""
    global _flag
    stop = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    outer, _flag = _flag, stop
    before = {number: signal.signal(number, stop.ask) for number in STOPPING}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            # None: another library's own, which Python cannot name and so cannot put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        _flag = outer


@contextlib.contextmanager
def defer_signals() -> Iterator[None]:
    """No signal ends anything within the block, but at its end. Processes that are started within never get STOPPING
    unless they let them through: a new one would die of its first signal before it can say that it ignores them."""
    in_main = threading.current_thread() is threading.main_thread()
    # Another thread may still take a signal, whose handler then runs here: that is held as well.
    with _flag.holding() if _flag is not None and in_main else contextlib.nullcontext():
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_signals() -> None:
    """For a process that is about to end, where a signal would only hide its exit code; and for loader workers, whose
    parent ends them."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
