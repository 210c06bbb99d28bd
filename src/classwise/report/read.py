"""Reads what a run directory holds, whatever state the run was left in.

A run may be killed between any two writes, so nothing here is required: a missing file leaves its part of the
page out, and a damaged one is named on the page instead of stopping it.
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
    """The contents of one run directory. `damaged` names the files that are there but cannot be read."""

    folder: Path
    config: Json
    config_text: str
    status: Json
    history: list[Json]
    metrics: Json
    split: pl.DataFrame
    predictions: pl.DataFrame
    log: str
    damaged: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return str(self.config.get("name") or self.folder.resolve().name)


def read_run(folder: Path, status: Mapping[str, Any] | None = None) -> RunFiles:
    """Everything the report uses; `status` in place of status.json, where it is given. Raises DataError where
    `folder` is no run directory."""
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such run directory")
    if not (folder / "config.toml").exists() and not (folder / "status.json").exists():
        raise DataError(f"{folder}: not a run directory; it holds neither config.toml nor status.json")
    damaged: list[str] = []
    config_text = _text(folder / "config.toml")
    return RunFiles(
        folder=folder,
        config=_toml(config_text, damaged),
        config_text=config_text,
        status=_json(folder / "status.json", damaged) if status is None else dict(status),
        history=_json_lines(folder / "history.jsonl", damaged),
        metrics=_json(folder / "metrics.json", damaged),
        split=_table(folder / "split.csv", damaged),
        predictions=plain(_table(folder / "predictions.csv", damaged)),
        log=_text(folder / "log.txt"),
        damaged=damaged,
    )


def mapping(value: Any) -> Json:
    """`value` where it is a JSON object, else an empty one: what a missing or odd key reads as."""
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
    """`value` as a count: 0 where it is missing."""
    return int(number(value) or 0)


def ends(value: Any) -> tuple[float, float] | None:
    """`value` where it is an interval: two finite numbers, else None."""
    low, high = (number(end) for end in value) if len(listing(value)) == 2 else (None, None)
    return (low, high) if low is not None and high is not None else None


def kind_of(run: RunFiles, target: str) -> str:
    """A target's type. What is not named, the joint class among it, is a class."""
    scores = mapping(mapping(run.metrics.get("targets")).get(target))
    configured = mapping(mapping(run.config.get("targets")).get(target))
    return str(scores.get("type") or configured.get("type") or "class")


def joint_title(run: RunFiles) -> str:
    """The joint class by the targets it is made of: `mask × gender × age`."""
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
    """One object a line. A run that was killed may leave the last line half-written: it is left out."""
    lines: list[Json] = []
    # Not splitlines(), which also splits at the line separators that a label may hold.
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
