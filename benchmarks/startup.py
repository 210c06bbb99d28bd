"""How long does a command take before it does what it is asked for?

    python benchmarks/startup.py [--runs 7] [--against COMMIT] [--json FILE]

- `import classwise`, and the first output of the commands that need no model: `--help`, `keys`, `init`, `check` and
  `report`; and the first line of `classwise train`.
- `classwise train` with the small network on 200 drawn images up to its first update, less what a process of the same
  round takes that only imports torch and takes a step with one of its optimizers (which imports torch._dynamo): the
  least that any program with an optimizer takes. By default, the first time and again; with a run that is long enough
  to measure the fastest way to train, the first time and again; and with precision given and no baselines.

With `--against` the package of that commit and of the working tree take turns (old new, new old, ...), and the
medians of the paired ratios new / old are printed too.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).parents[1]
TORCH = """
import os, torch
weight = torch.nn.Parameter(torch.zeros(1))
weight.grad = torch.zeros(1)
torch.optim.AdamW([weight], 0.1).step()
os._exit(0)
"""
# The process ends with its first update, so that nothing after it is in the time.
FIRST_UPDATE = """
import os, sys
from classwise.training import state
def ended(*_): os._exit(0)
state.Progress.end_update = ended
from classwise.cli import main
main(sys.argv[1:])
sys.exit("there was no update")
"""
# What is asked of the command line, and the first output that counts. Outputs go into folders of their own.
COMMANDS: dict[str, tuple[str, ...]] = {
    "--help": ("--help",),
    "keys": ("keys",),
    "init": ("init", "images", "--scratch", "--out", "written-{turn}"),
    "check": ("check", "classwise.toml", "--out", "checked-{turn}"),
    "report": ("report", "run"),
    "train, first line": ("train", "classwise.toml", "--run", "never"),
}
LONG = ("--training.epochs", "60")  # 300 updates, which measuring pays for
GIVEN = ("--training.precision", "fp32", "--report.baselines", "false")
# The options of `train`, and whether this machine has seen nothing yet.
RUNS: dict[str, tuple[tuple[str, ...], bool]] = {
    "update, new": ((), True),
    "update, again": ((), False),
    "update, measuring": (LONG, True),
    "update, measured": (LONG, False),
    "update, all given": (GIVEN, False),
}


def draw(folder: Path, source: Path) -> None:
    """200 images of two classes, the config that `init` of the package in `source` writes for them from scratch, and a
    finished run."""
    for k in range(2):
        (folder / "images" / str(k)).mkdir(parents=True)
        for i in range(100):
            image = np.random.default_rng((k, i)).integers(0, 255, (48, 64, 3), np.uint8)
            cv2.imwrite(str(folder / "images" / str(k) / f"{i}.png"), image)
    environment = os.environ | {"PYTHONPATH": str(source), "XDG_CACHE_HOME": str(folder / "drawn")}
    seconds(["-m", "classwise", "init", "images", "--scratch"], folder, environment)
    options = [*GIVEN, "--training.epochs", "1", "--selection.first_epoch", "1"]
    seconds(["-m", "classwise", "train", "classwise.toml", "--run", "run", *options], folder, environment)


def seconds(arguments: list[str], folder: Path, environment: dict[str, str]) -> float:
    """One process from its start to its end."""
    started = time.perf_counter()
    command = [sys.executable, *arguments]
    subprocess.run(command, check=True, cwd=folder, capture_output=True, env=environment)
    return time.perf_counter() - started


def seconds_to_output(arguments: list[str], folder: Path, environment: dict[str, str]) -> float:
    """From the start of a command to its first output on stdout or stderr; what it does then is not waited for."""
    command = [sys.executable, "-m", "classwise", *arguments]
    started = time.perf_counter()
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
    ) as process:
        assert process.stdout is not None
        first = process.stdout.read(1)
        passed = time.perf_counter() - started
        process.kill()
    assert first, arguments
    return passed


def round_of(source: Path, folder: Path, turn: str) -> dict[str, float]:
    """Every question once, asked of the package in `source`: seconds by name."""
    cache = folder / f"cache-{source.parent.name}"
    environment = os.environ | {"PYTHONPATH": str(source), "XDG_CACHE_HOME": str(cache)}
    times = {"import classwise": seconds(["-c", "import classwise"], folder, environment)}
    for name, arguments in COMMANDS.items():
        filled = [argument.format(turn=turn) for argument in arguments]
        times[name] = seconds_to_output(filled, folder, environment)

    times["torch"] = seconds(["-c", TORCH], folder, environment)
    for number, (name, (options, is_new)) in enumerate(RUNS.items()):
        there = environment | ({"XDG_CACHE_HOME": str(folder / f"new-{turn}-{number}")} if is_new else {})
        command = ["-c", FIRST_UPDATE, "train", "classwise.toml", "--run", f"run-{turn}-{number}"]
        times[name] = seconds([*command, *options], folder, there) - times["torch"]
    return times


def measure(sources: dict[str, Path], runs: int) -> dict[str, dict[str, list[float]]]:
    """The times of all rounds, by source and name."""
    found: dict[str, dict[str, list[float]]] = {source: {} for source in sources}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw(folder, sources.get("old", sources["new"]))  # every version reads the configs of those before
        for turn in range(runs + 1):
            for source in sources if turn % 2 else reversed(sources):
                times = round_of(sources[source], folder, f"{source}-{turn}")
                if turn:  # the first compiles bytecode, and fills the caches
                    for question, value in times.items():
                        found[source].setdefault(question, []).append(value)
    return found


def report(found: dict[str, dict[str, list[float]]]) -> None:
    """A line for each question: median and slowest, and against the other commit the paired ratios."""
    for question, times in found["new"].items():
        line = f"{question:<20} median {statistics.median(times):.2f} s, slowest {max(times):.2f} s"
        if "old" in found:
            old = found["old"][question]
            ratios = sorted(b / a for a, b in zip(old, times, strict=True))
            line += (
                f"; before {statistics.median(old):.2f} s, new / old {statistics.median(ratios):.2f}"
                f" [{ratios[0]:.2f}, {ratios[-1]:.2f}]"
            )
        print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--against", metavar="COMMIT")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory() as work:
        sources = {"new": ROOT / "src"}
        old = Path(work) / "old"
        if arguments.against:
            add = ["git", "worktree", "add", "--detach", str(old), arguments.against]
            subprocess.run(add, cwd=ROOT, check=True, capture_output=True)
            sources["old"] = old / "src"
        try:
            found = measure(sources, arguments.runs)
        finally:
            if arguments.against:
                remove = ["git", "worktree", "remove", "--force", str(old)]
                subprocess.run(remove, cwd=ROOT, check=True)
    report(found)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
