"""How long does a command take before it does what it is asked for?

    python benchmarks/startup.py [--runs 7] [--json FILE]

`classwise --help`; and `classwise train` on 200 drawn pictures up to its first update, less what a process takes that
only imports torch and timm and makes an optimizer (which imports torch._dynamo), in turns: once with everything by
default (measuring the fastest way to train, scoring the baselines), once with both given or switched off.
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

IMPORTS = "import torch, timm; torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.1)"
# The process ends with its first update, so that nothing after it is in the time.
FIRST_UPDATE = """
import os, sys
from classwise.train import state
def ended(*_): os._exit(0)
state.Progress.end_update = ended
from classwise.cli import main
main(sys.argv[1:])
"""
GIVEN = ("--training.precision", "fp32", "--report.baselines", "false")


def draw(folder: Path) -> None:
    """200 pictures of two classes, and the config that `init` writes for them."""
    for k in range(2):
        (folder / "pictures" / str(k)).mkdir(parents=True)
        for i in range(100):
            image = np.random.default_rng((k, i)).integers(0, 255, (48, 64, 3), np.uint8)
            cv2.imwrite(str(folder / "pictures" / str(k) / f"{i}.png"), image)
    command = [sys.executable, "-m", "classwise", "init", "pictures"]
    subprocess.run(command, check=True, cwd=folder, capture_output=True)


def seconds(arguments: list[str], folder: Path) -> float:
    """One process from its start to its end."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, cwd=folder, capture_output=True)
    return time.perf_counter() - started


def measure(runs: int) -> dict[str, list[float]]:
    """Seconds of each run; of `train` what is left after the imports of the same round."""
    found: dict[str, list[float]] = {"--help": [], "imports": [], "train": [], "train, all given": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        draw(folder)
        for round in range(runs + 1):
            imports = seconds(["-c", IMPORTS], folder)
            train = ["-c", FIRST_UPDATE, "train", "classwise.toml", "--run"]
            default = seconds([*train, f"a{round}"], folder)
            given = seconds([*train, f"b{round}", *GIVEN], folder)
            help_ = seconds(["-m", "classwise", "--help"], folder)
            if round:  # the first compiles bytecode
                for key, value in zip(
                    found, (help_, imports, default - imports, given - imports), strict=True
                ):
                    found[key].append(value)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    found = measure(arguments.runs)
    names = {
        "--help": "classwise --help",
        "imports": "import torch, timm and an optimizer",
        "train": "classwise train to its first update, beyond that",
        "train, all given": "the same, precision given, no baselines",
    }
    for key, times in found.items():
        print(f"{names[key]:<50} median {statistics.median(times):.2f} s, slowest {max(times):.2f} s")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
