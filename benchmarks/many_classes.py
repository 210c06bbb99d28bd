"""What a run with very many classes writes, and how much memory it takes.

    python benchmarks/many_classes.py [--classes 10000] [--rows 10000] [--max-megabytes 20] [--max-memory 1.0]
                                      [--command "COMMAND"]

Draws two tables of tiny images (one row of each class in training, `rows` in validation), trains one epoch of the
small network with everything that a run does by default (baselines, intervals, report), and prints the size of each
file of the run directory but the checkpoints, whose size is that of the weights, and the peak memory beside that of
the same run with ten classes. Exits 1 where the files take more than `--max-megabytes`, or the memory exceeds that of
ten classes, and of the larger model and its training, by more than `--max-memory` GB. `--command`: another build of
classwise, to compare with.
"""

import argparse
import csv
import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

CONFIG = """
name = "x"
[data]
source = "train.csv"
valid = "valid.csv"
images = "images"
augment = "none"
workers = 0
cache = "off"
[targets.label]
column = "label"
[model]
image_size = [8, 8]
[training]
epochs = 1
precision = "fp32"
threads = 1
"""
COPIES = 3  # of the weights while training: the moments of the optimizer and the gradient


def main() -> int:
    """Measure, print, compare with the limits."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--classes", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--max-megabytes", type=float, default=20.0)
    parser.add_argument("--max-memory", type=float, default=1.0)
    parser.add_argument("--command", default=f"{shlex.quote(sys.executable)} -m classwise")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as few, tempfile.TemporaryDirectory() as many:
        small = trained(Path(few), 10, 100, options.command)
        run = trained(Path(many), options.classes, options.rows, options.command)
        sizes = file_sizes(Path(many) / "runs/x")
        weights = (Path(many) / "runs/x/checkpoints/last/model.safetensors").stat().st_size / 1e9

    for name, size in sizes.items():
        print(f"{name:20} {size / 1e6:9.2f} MB")
    total = sum(sizes.values()) / 1e6
    beyond = run - small - (1 + COPIES) * weights
    print(f"{'all':20} {total:9.2f} MB (allowed: {options.max_megabytes:g})")
    print(f"peak memory {run:.2f} GB; with ten classes {small:.2f} GB")
    print(f"the larger model and its training {(1 + COPIES) * weights:.2f} GB")
    print(f"beyond these {beyond:.2f} GB (allowed: {options.max_memory:g})")
    return int(total > options.max_megabytes or beyond > options.max_memory)


def trained(folder: Path, classes: int, rows: int, command: str) -> float:
    """Train on drawn images; returns the peak memory in GB."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    for name, count in (("train", max(classes, rows)), ("valid", rows)):
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["path", "label"])
            for row in range(count):
                image = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                cv2.imwrite(str(folder / f"images/{name}{row}.png"), image)
                table.writerow([f"{name}{row}.png", f"species_{row % classes:05d}"])
    (folder / "c.toml").write_text(CONFIG, encoding="utf-8")
    # A shell in between would be the child that is measured.
    code = (
        "import json, resource, subprocess, sys; done = subprocess.run(json.loads(sys.argv[1]));"
        " print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(done.returncode)"
    )
    arguments = [*shlex.split(command), "train", "c.toml", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(arguments)],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return int(done.stdout.split()[-1]) * 1024 / 1e9


def file_sizes(run: Path) -> dict[str, int]:
    """The files of the run directory but the checkpoints' tensors."""
    files = [path for path in sorted(run.rglob("*")) if path.is_file() and path.suffix != ".safetensors"]
    return {str(path.relative_to(run)): path.stat().st_size for path in files}


if __name__ == "__main__":
    sys.exit(main())
