"""How long does a command take before it does what it is asked for?

    python benchmarks/startup.py [--runs 7] [--json FILE]

`classwise --help`; the first line of `classwise train`; and `classwise train` on 200 drawn images up to its first
update, less what a process takes that only imports what that run needs (torch and timm; torch alone for the built-in
small network) and makes an optimizer (which imports torch._dynamo), in turns: with everything by default (measuring the
fastest way to train, scoring the baselines), with both given or switched off, and by default with a network of timm's.
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

OPTIMIZER = "torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.1)"
IMPORTS = {"torch": f"import torch; {OPTIMIZER}", "torch, timm": f"import torch, timm; {OPTIMIZER}"}
# The process ends with its first update, so that nothing after it is in the time.
FIRST_UPDATE = """
import os, sys
from classwise.training import state
def ended(*_): os._exit(0)
state.Progress.end_update = ended
from classwise.cli import main
main(sys.argv[1:])
"""
# What is trained: the imports that are taken off, and the options.
RUNS: dict[str, tuple[str, tuple[str, ...]]] = {
    "train": ("torch", ()),
    "train, all given": ("torch", ("--training.precision", "fp32", "--report.baselines", "false")),
    "train, ResNet-18": ("torch, timm", ("--model.backbone", "resnet18")),
}


def draw(folder: Path) -> None:
    """200 images of two classes, and the config that `init` writes for them."""
    for k in range(2):
        (folder / "images" / str(k)).mkdir(parents=True)
        for i in range(100):
            image = np.random.default_rng((k, i)).integers(0, 255, (48, 64, 3), np.uint8)
            cv2.imwrite(str(folder / "images" / str(k) / f"{i}.png"), image)
    command = [sys.executable, "-m", "classwise", "init", "images"]
    subprocess.run(command, check=True, cwd=folder, capture_output=True)


def seconds(arguments: list[str], folder: Path) -> float:
    """One process from its start to its end."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, cwd=folder, capture_output=True)
    return time.perf_counter() - started


def seconds_to_first_line(folder: Path) -> float:
    """From the start of `classwise train` to the first line on its stderr; what it was about to do is left undone."""
    command = [sys.executable, "-m", "classwise", "train", "classwise.toml", "--run", "never"]
    started = time.perf_counter()
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        passed = time.perf_counter() - started
        process.kill()
    assert "classwise.toml" in line, line
    return passed


def measure(runs: int) -> dict[str, list[float]]:
    """Seconds of each round; of `train` what is left after the imports of the same round."""
    names = ("--help", "first line", *(f"import {name}" for name in IMPORTS), *RUNS)
    found: dict[str, list[float]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        draw(folder)
        for round in range(runs + 1):
            times = {"--help": seconds(["-m", "classwise", "--help"], folder)}
            times["first line"] = seconds_to_first_line(folder)
            times |= {f"import {name}": seconds(["-c", code], folder) for name, code in IMPORTS.items()}
            for number, (name, (imports, options)) in enumerate(RUNS.items()):
                command = ["-c", FIRST_UPDATE, "train", "classwise.toml", "--run", f"{number}-{round}"]
                times[name] = seconds([*command, *options], folder) - times[f"import {imports}"]
            if round:  # the first compiles bytecode, and fills the store of images
                for name, value in times.items():
                    found[name].append(value)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    found = measure(arguments.runs)
    said = {
        "--help": "classwise --help",
        "first line": "classwise train, its first line",
        **{f"import {name}": f"import {name}, and an optimizer" for name in IMPORTS},
        "train": "classwise train to its first update, beyond torch",
        "train, all given": "the same, precision given, no baselines",
        "train, ResNet-18": "by default with a ResNet-18, beyond torch and timm",
    }
    for name, times in found.items():
        print(f"{said[name]:<52} median {statistics.median(times):.2f} s, slowest {max(times):.2f} s")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
