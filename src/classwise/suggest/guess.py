"""What a source of images seems to be, with every decision that changes what is learnt."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

_MEANINGS = {
    "train": "trained on",
    "valid": "validated on",
    "test": "scored once at the end: neither trained on nor selected by",
    "skip": "left out",
}


@dataclass
class Guess:
    """What a source seems to be: the config's [data] and [targets], comments on them, and what the user is told."""

    table: pl.DataFrame
    folders: list[Path]
    """The folders that the image paths are relative to (data.images)."""
    data: dict[str, Any]
    targets: dict[str, dict[str, Any]]
    joint: list[str] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    """Comments by dotted key, in place of the general ones."""
    source: Path | None = None
    """The file of the table; None if it has to be written."""
    image_names: Sequence[str] | None = None
    """Of shards: the images as paths relative to `root`, which go through the shards."""
    channels: int = 3
    """model.channels."""
    said: list[str] = field(default_factory=list)
    """Lines for the user: what was decided and why, and what was left out."""

    @property
    def root(self) -> Path:
        """The folder of the images, or what several have in common."""
        if len(self.folders) == 1:
            return self.folders[0]
        return Path(os.path.commonpath([folder.absolute() for folder in self.folders]))

    def decide(self, key: str, choice: str, reason: str, instead: str) -> None:
        """Tell the user of a decision, and put it behind the config's key `key`. `instead`: what to write if it is
        wrong."""
        self.said.append(f"{choice}, since {reason}; otherwise: {instead}")
        self.note(key, f"{choice}, since {reason}; otherwise: {instead}")

    def keep_test_out(self) -> None:
        """Leave the test rows of a given split out, and say how they are scored: a test is for the end, and each run
        that scores it is one more choice by it. Each value of the split gets a comment."""
        values = self.data.get("split_values") or {}
        for cell, part in values.items():
            self.note(f"data.split_values.{cell}", _MEANINGS[part])
        rows = sum(
            values.get((cell or "").strip()) == "test" for cell in self.table[self.data["split"]].to_list()
        )
        if not rows:
            return
        self.data["split_values"] = {
            cell: "skip" if part == "test" else part for cell, part in values.items()
        }
        tested = [cell for cell, part in values.items() if part == "test"]
        cells = ", ".join(f'"{cell}" = "test"' for cell in tested)
        self.notes.pop(f"data.split_values.{tested[0]}")
        self.decide(
            f"data.split_values.{tested[0]}",
            f"test: {rows} rows kept out",
            "a test that is looked at after every run is none",
            f"{cells} in data.split_values scores them once at the end of the run",
        )

    def note(self, key: str, text: str) -> None:
        """Add a comment behind the config's key."""
        self.notes[key] = f"{self.notes[key]}; {text}" if self.notes.get(key) else text


def listed(names: list[str], most: int = 5) -> str:
    """The first of these names, and how many there are more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
