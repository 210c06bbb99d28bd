"""The run directory: its name, its files, and what its status says."""

import contextlib
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from classwise.compose.splits import DatasetSplits
from classwise.config.schema import Config
from classwise.data.table import read_table, write_table
from classwise.distributed import Processes
from classwise.errors import CheckpointError, OutputError
from classwise.files import make_folder, write_json, write_text
from classwise.run.lock import LOCK, locked, refuse_held
from classwise.signals import defer_signals


@dataclass(frozen=True)
class RunFolder:
    """Where everything of one run lies; see the contract in the guide for what each file holds."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.toml"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def has_begun(self) -> bool:
        """Whether a checkpoint was ever written: one that is being replaced is there under another name."""
        found = self.checkpoints.iterdir() if self.checkpoints.is_dir() else ()
        return any(not path.name.startswith(".staging") for path in found)

    def status(self) -> dict[str, Any]:
        """status.json. Raises CheckpointError if this is no run's folder or the file is damaged."""
        return self._json("status.json")

    def write_status(self, status: dict[str, Any]) -> None:
        """Replace status.json in one step."""
        write_json(self.path / "status.json", status)

    def metrics(self) -> dict[str, Any]:
        """metrics.json; see `status` for the errors."""
        return self._json("metrics.json")

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        """Replace metrics.json in one step."""
        write_json(self.path / "metrics.json", metrics)

    def history(self) -> list[dict[str, Any]]:
        """history.jsonl, one dict an epoch; empty before the first epoch has ended."""
        path = self.path / "history.jsonl"
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    def write_history(self, rows: Sequence[dict[str, Any]]) -> None:
        """Replace history.jsonl in one step, so that it never says more or less than the last checkpoint."""
        lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows]
        write_text(self.path / "history.jsonl", "".join(line + "\n" for line in lines))

    def write_split(self, frame: pl.DataFrame) -> None:
        """Replace split.csv in one step."""
        write_table(frame, self.path / "split.csv")

    def split(self) -> pl.DataFrame:
        """split.csv: id, group, split, path."""
        return read_table(self.path / "split.csv")

    def write_predictions(self, frame: pl.DataFrame) -> None:
        """Replace predictions.csv in one step."""
        write_table(frame, self.path / "predictions.csv", escape_formulas=True)

    def _json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            if self.path.is_dir():
                what = f"it holds no {name}"
                if (self.path / "status.json").exists():
                    what += "; the run has not come that far"
            else:
                what = "there is no such folder"
            raise CheckpointError(f"{self.path} is not a run that can be used: {what}") from None
        except (OSError, ValueError, TypeError) as error:
            raise CheckpointError(f"{path} is damaged: {error}") from None


def split_table(splits: DatasetSplits) -> pl.DataFrame:
    parts = []
    for split, name in ((splits.train, "train"), (splits.valid, "valid")):
        s = split.samples
        groups = [None] * len(s) if s.groups is None else list(s.groups)
        columns = {"id": list(s.ids), "group": groups, "split": [name] * len(s)}
        columns["path"] = [str(path) for path in s.paths]
        parts.append(pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String)))
    return pl.concat(parts)


@contextlib.contextmanager
def new_folder(name: str, wanted: Path | None) -> Iterator[RunFolder]:
    """Make the folder of a new run and hold it until the end of the block: `wanted` itself (which must be empty), or
    runs/NAME, runs/NAME-2, ...

    A run that ends by an error before its first checkpoint has not begun: nothing of it stays.
    """
    path, is_new = _made(name, wanted)
    try:
        with locked(path):
            _require_empty(path)  # again: another run may have come and gone
            folder = RunFolder(path)
            try:
                yield folder
            except BaseException:
                if not folder.has_begun:
                    _clear(path)
                raise
    except BaseException:
        if is_new:
            with contextlib.suppress(OSError):  # somebody else has put something into it
                path.rmdir()
        raise


@contextlib.contextmanager
def new_folder_on_rank_zero(
    config: Config, run: str | Path | None, processes: Processes
) -> Iterator[RunFolder]:
    """Made and held by the first process; nothing of it stays if the run does not begin."""
    wanted = None if run is None else Path(run)
    with contextlib.ExitStack() as stack:
        with defer_signals():
            path = processes.from_rank_zero(
                lambda: str(stack.enter_context(new_folder(config.name, wanted)).path)
            )
        yield RunFolder(Path(path))


@contextlib.contextmanager
def locked_by_rank_zero(folder: RunFolder, processes: Processes) -> Iterator[None]:
    """The first process holds the run directory; all raise if somebody else does."""
    with contextlib.ExitStack() as stack:
        with defer_signals():
            processes.from_rank_zero(lambda: stack.enter_context(locked(folder.path)))
        yield


def _made(name: str, wanted: Path | None) -> tuple[Path, bool]:
    """A folder without anything in it, and whether it is new."""
    if wanted is not None:
        try:
            _require_empty(wanted)
        except OutputError:
            refuse_held(wanted)  # says more
            raise
        return wanted, _make(wanted)
    return next(path for path in _candidates(Path("runs") / name) if _make(path)), True


def _make(folder: Path) -> bool:
    """Whether it is new."""
    try:
        make_folder(folder, exist_ok=False)
    except FileExistsError:
        return False
    except OSError as error:
        raise OutputError(f"{folder} cannot be made: {error.strerror}") from None
    return True


def _require_empty(folder: Path) -> None:
    """But for a lock, which a run that is no more may have left, or which tells who holds it."""
    if folder.exists() and (not folder.is_dir() or any(entry.name != LOCK for entry in folder.iterdir())):
        raise OutputError(
            f"{folder} exists already and is kept; name another folder, or go on with it:"
            f" classwise resume {folder}"
        )


def _clear(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.name != LOCK:  # which goes with the lock itself
            entry.unlink(missing_ok=True)


def _candidates(first: Path) -> Iterable[Path]:
    yield first
    number = 2
    while True:
        yield first.with_name(f"{first.name}-{number}")
        number += 1
