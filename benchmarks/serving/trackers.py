"""What do trackers cost an update, in the thread that trains?

    python benchmarks/serving.py trackers [--pairs 40] [--updates 2000] [--json FILE]

Epochs of updates that do nothing but what the loop counts, with trackers and without, in turns; with all four at work:
an MLflow run in a SQLite file, Weights & Biases offline, TensorBoard's event files, metrics.csv. What is sent at the
end of an epoch, with thirty scores, is part of it. Two clocks: the processor time of the training thread, which other
processes of the machine do not disturb, and the time on the wall, which also holds what waiting for Python's global
lock would cost. The medians of the differences of the pairs count.

The goal is 10 microseconds.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from classwise.console import Console
from classwise.tracking import trackers
from classwise.tracking.facts import RunFacts
from classwise.training.state import Progress

NAMES = ("csv", "tensorboard", "mlflow", "wandb")
GOAL_MICROSECONDS = 10.0
SCORES = {f"score{number}": 0.5 for number in range(30)}
Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"thread": time.thread_time, "wall": time.perf_counter}


def epoch(watched: trackers.Trackers | trackers.NoTrackers, state: Any, updates: int) -> dict[str, float]:
    """Seconds by clock of one epoch."""
    progress = state.progress
    started = {name: clock() for name, clock in CLOCKS.items()}
    items: Iterable[int] = watched.watch(range(updates), state, updates)
    for _ in items:
        progress.end_update(0.5, 32)
    row = {"epoch": progress.epoch + 1, "update": progress.update, "lr": 0.1, "train_loss": 0.5}
    row |= {"valid": SCORES, "seconds": 1.0, "images_per_second": 1.0}
    watched.report(row)
    seconds = {name: clock() - started[name] for name, clock in CLOCKS.items()}
    progress.end_epoch(None, row)
    return seconds


def measure(folder: Path, pairs: int, updates: int) -> dict[str, Any]:
    """Microseconds an update that trackers add, by clock: the median, and the quartiles of the pairs."""
    os.environ |= {"WANDB_MODE": "offline", "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    os.chdir(folder)
    run = folder / "run"
    run.mkdir()
    facts = RunFacts(
        folder=str(run), name="run", group="", parameters={}, files=[], tags={}, metric="score0", step=0
    )
    groups = [{"lr": 0.1}]
    states = [
        SimpleNamespace(progress=Progress(), optimizer=SimpleNamespace(param_groups=groups)) for _ in "ab"
    ]
    console = Console(quiet=True)
    console.log_to(folder / "log.txt")
    watched = trackers.Trackers(NAMES, facts, [], console)
    differences: dict[str, list[float]] = {name: [] for name in CLOCKS}
    try:
        for _ in range(pairs):
            with_trackers = epoch(watched, states[0], updates)
            without = epoch(trackers.NoTrackers(), states[1], updates)
            for name in CLOCKS:
                differences[name].append((with_trackers[name] - without[name]) / updates * 1e6)
            time.sleep(0.2)  # the trackers are at work while the next epoch is timed, as they are in a run
    finally:
        watched.finish("failed", None)
    return {
        "pairs": pairs,
        "updates": updates,
        "log": (folder / "log.txt").read_text(encoding="utf-8").splitlines(),
        "microseconds": {name: statistics.quantiles(values, n=4) for name, values in differences.items()},
    }


def text(record: dict[str, Any]) -> str:
    thread, wall = (record["microseconds"][name] for name in CLOCKS)
    return (
        f"trackers: {thread[1]:.2f} µs an update of the training thread's processor time (quartiles {thread[0]:.2f} to"
        f" {thread[2]:.2f}), {wall[1]:.2f} µs on the wall ({wall[0]:.2f} to {wall[2]:.2f}); goal"
        f" {GOAL_MICROSECONDS:.0f} µs; {record['pairs']} pairs of epochs of {record['updates']} updates,"
        f" {', '.join(NAMES)} at work"
    )


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--updates", type=int, default=2000)
    parser.add_argument("--json", type=Path, help="append the figures to this file")
    options = parser.parse_args(arguments)
    file = None if options.json is None else options.json.resolve()
    with tempfile.TemporaryDirectory() as folder:
        record = {"kind": "trackers"} | measure(Path(folder), options.pairs, options.updates)
        os.chdir("/")
    print("\n".join(record.pop("log")))
    print(text(record))
    if file is not None:
        with file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(record) + "\n")
    return 0 if record["microseconds"]["thread"][1] <= GOAL_MICROSECONDS else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
