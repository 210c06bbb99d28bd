"""What `train` always checks, exact copies and contradictory labels: its share of a run on 10,000 images.

    python benchmarks/check.py cheap WORK [--count 10000] [--pairs 5] [--records FILE] [--write]

The images are drawn noise, each different, and lie in the
image cache. Timed are the check itself, on the rows of the run as `train` calls it, and the whole of `classwise
train`, for one epoch of the small network at 28 x 28: the shortest run that there is."""

import contextlib
import json
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import polars as pl

from checking.options import make_parser, parse
from classwise.compose.contents import content_counts, content_warnings, split_groups
from classwise.compose.dataset import prepare
from classwise.config.load import load_config
from classwise.console import Console
from imbalance import replace_between
from sidebyside.measure import run_watched

SIZE = 28


def draw(folder: Path, count: int) -> Path:
    """A table of `count` images of ten classes, and its config."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    rows = []
    for row in range(count):
        path = images / f"{row:05}.png"
        if not path.exists():
            cv2.imwrite(str(path), rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8))
        rows.append((f"images/{path.name}", f"class {row % 10}"))
    pl.DataFrame(rows, schema=["path", "label"], orient="row").write_csv(folder / "table.csv")
    config = folder / "classwise.toml"
    config.write_text(
        f"""name = "cheap"
[data]
source = "table.csv"
[targets.label]
column = "label"
[model]
image_size = [{SIZE}, {SIZE}]
[training]
epochs = 1
[report]
baselines = false
""",
        encoding="utf-8",
    )
    return config


def timed(config: Path, pairs: int, work: Path) -> dict[str, Any]:
    """Seconds of the check and of the run, in turns."""
    checks, runs = [], []
    with contextlib.closing(prepare(load_config(config), Console(quiet=True))) as splits:
        command = [
            *shlex.split(f"{shlex.quote(sys.executable)} -m classwise"),
            "train",
            str(config),
            "--quiet",
        ]
        for number in range(pairs):
            started = time.perf_counter()
            content_counts(splits)
            content_warnings(splits)
            split_groups(splits.train.samples, splits.train.labels, splits.targets)
            checks.append(time.perf_counter() - started)
            started = time.perf_counter()
            run_watched([*command, "--run", str(work / f"run-{number}-{time.time_ns()}")], work / "log.txt")
            runs.append(time.perf_counter() - started)
    return {
        "kind": "cheap",
        "rows": len(splits.train.samples) + len(splits.valid.samples),
        "checks": checks,
        "runs": runs,
    }


def table(record: dict[str, Any]) -> str:
    share = median(check / run for check, run in zip(record["checks"], record["runs"], strict=True))
    return (
        f"{1000 * median(record['checks']):.0f} ms of {median(record['runs']):.1f} s for {record['rows']:,} images:"
        f" {share:.2%}"
        f" of a run (median of {len(record['runs'])} pairs)."
    )


def main(arguments: Sequence[str]) -> int:
    parser = make_parser("cheap", __doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--pairs", type=int, default=5)
    options = parse(parser, arguments)
    if not options.tables:
        timing = timed(draw(options.work / "cheap", options.count), options.pairs, options.work)
        with options.records.open("a", encoding="utf-8") as file:
            file.write(json.dumps(timing) + "\n")
    lines = options.records.read_text(encoding="utf-8").splitlines()
    text = table([record for record in map(json.loads, lines) if record["kind"] == "cheap"][-1])
    print(text)
    if options.write:
        replace_between("check.md", "cheap", text)
    return 0
