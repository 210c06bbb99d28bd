"""The run directory: its name, its files, and what its status says."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from classwise.data.table import read_table, write_table
from classwise.errors import CheckpointError, OutputError
from classwise.files import make_folder, write_json, write_text


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
        write_table(frame, self.path / "predictions.csv")

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


def new_folder(name: str, wanted: Path | None) -> RunFolder:
    """Make the folder of a new run: `wanted` itself (which must be empty), or runs/NAME, runs/NAME-2, ..."""
    if wanted is not None:
        if wanted.exists() and (not wanted.is_dir() or any(wanted.iterdir())):
            raise OutputError(
                f"{wanted} exists already and is kept; name another folder, or go on with it:"
                f" classwise resume {wanted}"
            )
        make_folder(wanted)
        return RunFolder(wanted)
    for candidate in _candidates(Path("runs") / name):
        try:
            make_folder(candidate, exist_ok=False)
            return RunFolder(candidate)
        except FileExistsError:
            continue
    raise AssertionError("unreachable: there is always a next number")


def _candidates(first: Path) -> Iterable[Path]:
    yield first
    number = 2
    while True:
        yield first.with_name(f"{first.name}-{number}")
        number += 1
