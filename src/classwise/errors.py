"""The exceptions, as one tree.

ClasswiseError             a user's mistake or bad data: one short message, exit code 1
├── ConfigError            a key of the config: which key, what was found, what is allowed
├── DataError              a table, a folder, a row or a label
│   └── ImageError         one image file
├── WorkerError            a process that reads images was killed, hung or failed
├── ModelError             a backbone, its weights, or the packages that it needs
├── CheckpointError        no checkpoint, a damaged one, or one of another run
├── TrustError             a run directory with code of its own that nobody has said they trust
├── OutputError            a file that would be overwritten, or that its template contradicts
├── NonFiniteError         a loss or gradient that is not a number; training stopped before the step
├── SkippedImages          done, but without some images that cannot be used: exit code 3
├── SevereFindings         done, and severe findings are in the data: exit code 3, as asked for with --strict
├── OutOfMemory            a micro-batch that does not fit the device; training continues with smaller ones
└── Interrupted            stopped by a signal, with a checkpoint written: exit code 75
"""

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

LONGEST_LINE = 300
"""Characters of a quoted error message."""
_COLORS = re.compile(r"\x1b\[[0-9;]*m")


class ClasswiseError(Exception):
    """The root: catching it catches every error that classwise raises on purpose."""

    exit_code = 1
    reported_by_rank_zero = False  # True: rank 0 reports it for all processes


class ConfigError(ClasswiseError):
    """A key of the config is unknown, missing, out of range, or contradicts another key."""


class DataError(ClasswiseError):
    """A table, folder, row or label is not what the config says it is."""


class ImageError(DataError):
    """One image file cannot be used. `path` is the file, `reason` says why."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = Path(path)
        self.reason = reason

    def __reduce__(self) -> tuple[type["ImageError"], tuple[Path, str], dict[str, Any]]:
        # Pickle would pass one argument only, so the error could not be sent from a loader worker to the parent. The
        # third value restores the notes (`add_note`).
        return type(self), (self.path, self.reason), self.__dict__


class WorkerError(ClasswiseError):
    """A process that reads images was killed, hung or failed. The message names the file that it was reading."""


class ModelError(ClasswiseError):
    """A backbone is unknown, its weights do not fit or cannot be obtained, or a package is missing."""


class CheckpointError(ClasswiseError):
    """A checkpoint is missing, damaged, or belongs to another configuration."""


class TrustError(ClasswiseError):
    """A run directory holds code of its own whose digest was not named in --trust."""


class OutputError(ClasswiseError):
    """An output would overwrite a file, or contradicts the template that it has to follow."""


class NonFiniteError(ClasswiseError):
    """The loss or a gradient is not finite. The weights are those from before the step."""


class SkippedImages(ClasswiseError):  # noqa: N818 - not a mistake: it was asked for
    """The command is done, and its output written; images that cannot be used were skipped, as asked for."""

    exit_code = 3


class SevereFindings(ClasswiseError):  # noqa: N818 - not a mistake: it was asked for
    """A check is done, and its files written; something in the data is severe, which --strict tells the caller."""

    exit_code = 3


class OutOfMemory(ClasswiseError):  # noqa: N818 - torch's word for it
    """A micro-batch does not fit the device's memory. Weights and statistics are those from before the update."""


class Interrupted(ClasswiseError):  # noqa: N818 - not a mistake: the run was asked to stop
    """The run was stopped by a signal after writing a checkpoint."""

    exit_code = 75


def nearest(found: str, allowed: Iterable[str], count: int = 3) -> str:
    """A hint such as `did you mean 'focal'?`, or the list of allowed names if none is similar to `found`."""
    names = [str(name) for name in allowed]
    close = difflib.get_close_matches(found, names, n=count, cutoff=0.6)
    if close:
        return "did you mean " + " or ".join(repr(name) for name in close) + "?"
    listed = ", ".join(names[:20]) + (f", ... ({len(names)} in all)" if len(names) > 20 else "")
    return f"allowed: {listed}"


def first_line(error: BaseException) -> str:
    """The first line of an error's message without colors, cut to LONGEST_LINE; its type where it has no message."""
    lines = [line.strip() for line in _COLORS.sub("", str(error)).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:LONGEST_LINE]
