"""What a trainer's process is given and what it answers; imported by that process, so nothing heavy is here."""

import csv
import json
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

BATCH = 32
WORKERS = 2


@dataclass(frozen=True)
class Job:
    """One trainer on one split. Paths are texts, since a job travels as JSON."""

    trainer: str
    train: str  # a table: path, label and what else the data set has
    test: str  # a table: path
    weights: str  # a .safetensors file of timm's tensors
    size: int  # height and width that the peers resize to
    epochs: int
    seed: int
    out: str  # an empty folder for what the trainer writes
    options: tuple[str, ...]  # classwise's: KEY=VALUE
    started: float  # seconds since the epoch, when the process was started

    @property
    def folder(self) -> Path:
        """What paths in the tables are relative to."""
        return Path(self.train).parent

    def train_rows(self) -> list[tuple[str, str]]:
        """(path, label) of the training rows."""
        return [(row["path"], row["label"]) for row in _read(self.train)]

    def test_paths(self) -> list[str]:
        return [row["path"] for row in _read(self.test)]

    def labels(self) -> list[str]:
        """Of the training rows, sorted: the classes by number."""
        return sorted({label for _, label in self.train_rows()})


@dataclass
class Marks:
    """Seconds since the start of the process: until the first scored model that can be used, and until training is
    over and its model is chosen. `first` is None where nothing says so."""

    started: float
    first: float | None = None
    whole: float | None = None

    def mark_first(self) -> None:
        """Only the first call counts."""
        if self.first is None:
            self.first = time.time() - self.started

    def mark_whole(self) -> None:
        self.whole = time.time() - self.started


@dataclass(frozen=True)
class Answer:
    """What comes back: the times, and a label for each test row."""

    first: float | None
    whole: float
    predictions: list[str] = field(default_factory=list)


def write_job(job: Job, path: Path) -> None:
    path.write_text(json.dumps(asdict(job)), encoding="utf-8")


def read_job(path: Path) -> Job:
    values = json.loads(path.read_text(encoding="utf-8"))
    return Job(**values | {"options": tuple(values["options"])})


def write_answer(marks: Marks, predictions: list[str], path: Path) -> None:
    assert marks.whole is not None, "a trainer marks when it is done"
    path.write_text(json.dumps(asdict(Answer(marks.first, marks.whole, predictions))), encoding="utf-8")


def read_answer(path: Path) -> Answer:
    return Answer(**json.loads(path.read_text(encoding="utf-8")))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _read(path: str) -> list[dict[str, str]]:
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
