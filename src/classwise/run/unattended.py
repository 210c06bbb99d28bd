"""Runs that are trained for another purpose (a comparison, folds): whatever becomes of one, the others go on."""

import contextlib
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from classwise.compose.dataset import ReadData
from classwise.config.own_parts import digests_in
from classwise.config.schema import Config
from classwise.errors import CheckpointError, ClasswiseError, Interrupted
from classwise.run import api as run
from classwise.run.checkpoint import newest_checkpoint
from classwise.run.folder import RunFolder
from classwise.run.lock import refuse_held
from classwise.run.own_code import admit_config
from classwise.signals import STOPPING

DONE = ("finished", "early_stopped")


@dataclass(frozen=True)
class Outcome:
    """How a run ended: finished, early_stopped, interrupted or failed; `message` says why it failed."""

    state: str
    message: str = ""


def state_of(folder: Path) -> str:
    """The state in status.json; empty where no run has begun."""
    try:
        return str(RunFolder(folder).status().get("state", ""))
    except CheckpointError:
        return ""


def is_done(folder: Path) -> bool:
    """Whether the run has ended and all its results are there."""
    with contextlib.suppress(CheckpointError):
        return state_of(folder) in DONE and "value" in RunFolder(folder).metrics()
    return False


def train_or_resume(
    folder: Path, config: Config, quiet: bool = True, read: ReadData | None = None
) -> Outcome:
    """Train into `folder`, or resume from its newest good checkpoint; without one, training starts again.
    `read`: the data, where it is read already.

    Raises nothing: a run that goes wrong must not end the others.
    """
    try:
        if _can_resume(folder):
            # Its code is the user's own, as long as it is that of the config.
            admit_config(config)
            run.resume(folder, quiet=quiet, trust=tuple(set(digests_in(config).values())), read=read)
        else:
            refuse_held(folder)  # another process may be training this run
            shutil.rmtree(folder, ignore_errors=True)
            run.train(config, folder, quiet=quiet, read=read)
    except (Interrupted, KeyboardInterrupt):
        return Outcome("interrupted")
    except ClasswiseError as error:
        return Outcome("failed", str(error))
    except Exception as error:  # torch's own, a full disk, out of memory
        return Outcome("failed", f"{type(error).__name__}: {error}")
    return Outcome(state_of(folder))


def _can_resume(folder: Path) -> bool:
    if state_of(folder) in ("", *DONE):  # no run, or one that has ended and lost its results since
        return False
    with contextlib.suppress(CheckpointError):
        newest_checkpoint(folder / "checkpoints", lambda text: None)
        return True
    return False


@contextlib.contextmanager
def signal_watch() -> Iterator[Callable[[], bool]]:
    """Yields a function that says whether a signal to stop has come.

    A run that is just ending handles a signal and ignores it; the wake-up file descriptor sees it all the same.
    """
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)

    def signal_came() -> bool:
        with contextlib.suppress(BlockingIOError):
            return bool(set(reader.recv(4096)) & set(STOPPING))
        return False

    try:
        previous = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    except ValueError:  # not the main thread, which gets all signals
        yield lambda: False
        return
    try:
        yield signal_came
    finally:
        signal.set_wakeup_fd(previous)
        reader.close()
        writer.close()
