"""Reads a run directory, whatever state the run was left in.

A run may be killed between any two writes, so no file is required: without it its section is left out, and a damaged
file is named on the page.
"""

import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from classwise.data.table import plain
from classwise.errors import DataError

Json = dict[str, Any]


@dataclass(frozen=True)
class RunFiles:
    """The contents of one run directory; a missing file reads as empty. `damaged` has a message for every file that
    exists but cannot be read."""

    folder: Path
    config: Json
    config_text: str
    status: Json
    history: list[Json]
    metrics: Json
    split: pl.DataFrame
    predictions: pl.DataFrame
    log: str
    decision: Json = field(default_factory=dict)
    check: Json = field(default_factory=dict)
    augmented: Json = field(default_factory=dict)  # of folds that of the first
    explanations: list[Json] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)

    @property
    def is_folds(self) -> bool:
        """Whether this is a folds directory; its predictions are those out of fold."""
        return self.status.get("kind") == "folds"

    @property
    def name(self) -> str:
        return str(self.config.get("name") or self.folder.resolve().name)


def read_run(folder: Path, status: Mapping[str, Any] | None = None) -> RunFiles:
    """Everything that the report uses; `status`, where it is given, takes the place of status.json. Raises DataError
    where `folder` is not a run directory."""
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such run directory")
    if not (folder / "config.toml").exists() and not (folder / "status.json").exists():
        raise DataError(f"{folder}: not a run directory; it holds neither config.toml nor status.json")
    damaged: list[str] = []
    config_text = _text(folder / "config.toml")
    status = _json(folder / "status.json", damaged) if status is None else dict(status)
    is_folds = status.get("kind") == "folds"
    return RunFiles(
        folder=folder,
        config=_toml(config_text, damaged),
        config_text=config_text,
        status=status,
        history=_json_lines(folder / "history.jsonl", damaged),
        metrics=_json(folder / "metrics.json", damaged),
        split=_split_of_folds(folder, damaged) if is_folds else _table(folder / "split.csv", damaged),
        predictions=plain(_table(folder / ("oof.csv" if is_folds else "predictions.csv"), damaged)),
        log=_text(folder / "log.txt"),
        decision=_json(folder / "decision.json", damaged) if is_folds else {},
        check=_json(folder / "check.json", damaged),
        augmented=_json((folder / "fold-0" if is_folds else folder) / "augmented.json", damaged),
        explanations=_explanations(folder, is_folds, damaged),
        damaged=damaged,
    )


def _split_of_folds(folder: Path, damaged: list[str]) -> pl.DataFrame:
    """The split.csv of the first fold, in which all rows have their paths; every row validates once."""
    split = _table(folder / "fold-0" / "split.csv", damaged)
    if "split" not in split.columns:
        return split
    scored = pl.when(pl.col("split") == "test").then(pl.lit("test")).otherwise(pl.lit("valid"))
    return split.with_columns(scored.alias("split"))


def _explanations(folder: Path, is_folds: bool, damaged: list[str]) -> list[Json]:
    """The contents of explanations.json of the run, or of each fold."""
    folders = sorted(folder.glob("fold-*")) if is_folds else [folder]
    return [_json(each / "explanations.json", damaged) for each in folders]


def mapping(value: Any) -> Json:
    """`value` where it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def listing(value: Any) -> list[Any]:
    """`value` where it is a JSON array, else an empty one."""
    return value if isinstance(value, list) else []


def number(value: Any) -> float | None:
    """`value` as a finite float, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def count(value: Any) -> int:
    """`value` as a whole number; 0 where it is missing."""
    return int(number(value) or 0)


def ends(value: Any) -> tuple[float, float] | None:
    """The ends of the interval `value`, a list of two finite numbers; else None."""
    numbers = [number(end) for end in listing(value)]
    if len(numbers) != 2 or numbers[0] is None or numbers[1] is None:
        return None
    return numbers[0], numbers[1]


def kind_of(run: RunFiles, target: str) -> str:
    """A target's type; `class` where none is recorded, as for the joint class."""
    scores = mapping(mapping(run.metrics.get("targets")).get(target))
    configured = mapping(mapping(run.config.get("targets")).get(target))
    return str(scores.get("type") or configured.get("type") or "class")


def joint_title(run: RunFiles) -> str:
    """The joint class, named after its targets: `mask × gender × age`."""
    targets = listing(mapping(run.config.get("joint")).get("targets"))
    return " × ".join(str(name) for name in targets) or "joint"


def _text(path: Path) -> str:
    if not path.exists():
        return ""
    return path.read_text(encoding="utf-8", errors="replace")


def _toml(text: str, damaged: list[str]) -> Json:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        damaged.append(f"config.toml: {error}")
        return {}


def _json(path: Path, damaged: list[str]) -> Json:
    text = _text(path)
    try:
        return mapping(json.loads(text)) if text else {}
    except ValueError as error:
        damaged.append(f"{path.name}: {error}")
        return {}


def _json_lines(path: Path, damaged: list[str]) -> list[Json]:
    """One object per line. A killed run may leave an incomplete last line, which is left out and reported."""
    lines: list[Json] = []
    # Not splitlines(), which also splits at the line separators that a label may contain.
    for row, text in enumerate(_text(path).split("\n"), start=1):
        if not text.strip():
            continue
        try:
            lines.append(mapping(json.loads(text)))
        except ValueError:
            damaged.append(f"{path.name}: line {row} is not JSON and is left out")
    return lines


def _table(path: Path, damaged: list[str]) -> pl.DataFrame:
    """All columns as text, since ids such as `000600-1` and labels such as `007` are not numbers."""
    if not path.exists():
        return pl.DataFrame()
    try:
        return pl.read_csv(path, infer_schema=False)
    except pl.exceptions.PolarsError as error:
        damaged.append(f"{path.name}: {str(error).splitlines()[0]}")
        return pl.DataFrame()
