"""report.html again, from the files of a run or of folds. No model is needed, so torch is not imported."""

from pathlib import Path

from classwise.errors import ConfigError
from classwise.kfold.folder import is_folds
from classwise.report.page import write_report
from classwise.run.folder import RunFolder
from classwise.run.liveness import status_of
from classwise.run.own_code import Trust, admit_run


def report_again(path: str | Path, trust: Trust = ()) -> Path:
    """Write report.html again from what the directory of a run or of folds holds, and return its path. `trust` and
    errors: as of `open_run` (kfold/api.py)."""
    folder = RunFolder(Path(path))
    if is_folds(folder.path):
        refuse_trust(path, trust)
    else:
        folder.status()
        admit_run(folder.path, trust)
    return write_report(folder.path, status_of(folder.path) or None)


def refuse_trust(path: str | Path, trust: Trust) -> None:
    """Raise ConfigError for trust in folds, which have no code to trust."""
    if trust:
        raise ConfigError(f"--trust: found {trust} for the folds {path}, which have no code of your own")
