"""classwise as a user calls it: `train TABLE`, which is `init` and `train` in one, and `predict`; nothing is set."""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

from sidebyside.job import Job, Marks, say

FIRST_ANSWER = re.compile(r"\s*first answer\b", re.IGNORECASE)
COMMAND = (sys.executable, "-m", "classwise")


def classwise(job: Job, marks: Marks) -> list[str]:
    """The config that `init` writes for the table, trained; `job.options` are options of `classwise train`. The seed is
    that of the split. What it decodes into its cache is new every time."""
    out = Path(job.out)
    environment = os.environ | {"XDG_CACHE_HOME": str(out / "cache")}
    run = out / "run"
    overrides = [part for option in job.options for part in _override(option)]
    train = ["train", job.train, "--run", str(run), "--seed", str(job.seed), *overrides]
    _call(train, environment, marks)
    marks.mark_whole()
    table = out / "predictions.csv"
    images = ["--images", str(job.folder)]
    _call(["predict", str(run), job.test, "--out", str(table), *images], environment)
    return predictions_of(table, job.test_paths())


def predictions_of(table: Path, paths: list[str]) -> list[str]:
    """The column `label` for each of `paths`, which are the ids."""
    with table.open(newline="", encoding="utf-8") as file:
        found = {row["id"]: row["label"] for row in csv.DictReader(file)}
    return [found[path] for path in paths]


def _override(option: str) -> tuple[str, str]:
    key, _, value = option.partition("=")
    return f"--{key}", value


def _call(arguments: list[str], environment: dict[str, str], marks: Marks | None = None) -> None:
    """Run a command; what it says is passed on, and the line of the first answer is the time of its arrival."""
    process = subprocess.Popen(
        [*COMMAND, *arguments], env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if marks is not None and FIRST_ANSWER.match(line):
            marks.mark_first()
        say(line.rstrip("\n"))
    if process.wait():
        raise RuntimeError(f"classwise {arguments[0]} ended with {process.returncode}")
