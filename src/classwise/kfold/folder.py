"""The folds directory: config.toml, folds.csv, a run directory for each fold, oof.parquet, oof.csv, decision.json,
metrics.json, status.json, report.html and log.txt."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from classwise.data.table import read_table, write_table
from classwise.errors import CheckpointError
from classwise.files import write_json
from classwise.run.folder import RunFolder

KIND = "folds"
"""Of status.json, by which a folds directory is told from a run."""

LAST = "last"
"""The run directory of the model that was trained on all rows."""

SOUP = "soup"
"""The run directory of the model whose weights are the mean of those of all folds."""


@dataclass(frozen=True)
class FoldsFolder:
    """The folder of all folds, and its files."""

    path: Path

    @property
    def files(self) -> RunFolder:
        """The files that a run has too: config.toml, status.json, metrics.json, report.html and log.txt."""
        return RunFolder(self.path)

    def run(self, name: str) -> RunFolder:
        """The run directory of one fold."""
        return RunFolder(self.path / name)

    @property
    def is_drawn(self) -> bool:
        """Whether the folds are drawn; from then on config.toml holds no `auto`."""
        return self.folds_csv.exists()

    @property
    def folds_csv(self) -> Path:
        return self.path / "folds.csv"

    def write_folds(self, frame: pl.DataFrame) -> None:
        """Replace folds.csv in one step."""
        write_table(frame, self.folds_csv)

    def folds(self) -> pl.DataFrame:
        """folds.csv as text: id, group, fold. Raises DataError for a damaged file."""
        return read_table(self.folds_csv)

    def write_out_of_fold(self, frame: pl.DataFrame) -> None:
        """Replace oof.csv and oof.parquet, each in one step."""
        write_table(frame, self.path / "oof.csv", escape_formulas=True)
        write_table(frame, self.path / "oof.parquet")

    def out_of_fold(self) -> pl.DataFrame:
        """oof.parquet. Raises CheckpointError where there is none, or it is damaged."""
        try:
            return pl.read_parquet(self.path / "oof.parquet")
        except FileNotFoundError:
            raise CheckpointError(f"{self.path}: no oof.parquet; not all folds are done") from None
        except (OSError, pl.exceptions.PolarsError) as error:
            raise CheckpointError(f"{self.path / 'oof.parquet'} is damaged: {error}") from None

    @property
    def decision_json(self) -> Path:
        return self.path / "decision.json"

    def write_decision(self, found: dict[str, Any]) -> None:
        """Replace decision.json in one step."""
        write_json(self.decision_json, found)

    def decision(self) -> dict[str, Any] | None:
        """decision.json; None where there is none. Raises CheckpointError where it is damaged."""
        try:
            return dict(json.loads(self.decision_json.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise CheckpointError(f"{self.decision_json} is damaged: {error}") from None

    def status(self) -> dict[str, Any]:
        """status.json. Raises CheckpointError if the folder holds no folds, or the file is damaged."""
        return self.files.status()


def is_folds(path: Path) -> bool:
    """Whether the folder is a folds directory."""
    if (path / "folds.csv").exists():
        return True
    try:
        return RunFolder(path).status().get("kind") == KIND
    except CheckpointError:
        return False


def has_begun(folder: RunFolder) -> bool:
    """Whether the folds are drawn, so that there is something to resume."""
    return FoldsFolder(folder.path).is_drawn
