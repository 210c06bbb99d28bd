"""How many more images a second do two processes of torchrun train than one, with one thread each?

    python benchmarks/processes.py [--backbone NAME] [--size PX] [--blocks 3] [--json FILE]

The same run in turns (A B B A): `classwise train` in one process with one thread and two micro-batches an update, and
in two processes by torchrun with one thread and one micro-batch each, which are the same updates of the same rows. No
worker processes: each process reads its own images in its one thread, so that two cores hold two processes and no
more, and a process alone gets no help from the second core either. Images a second are those of training, from
history.jsonl, without the first epoch, which fills the image cache.

`limit` is what the machine allows: two such processes that know nothing of each other, at the same time, their images a
second added up, over those of one alone. They share memory, caches and the cores' clock, but send nothing.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reading import draw_images

CONFIG = """
[data]
source = "rows.csv"
augment = "light"
workers = 0
[targets.label]
column = "label"
[model]
backbone = "{backbone}"
weights = "none"
image_size = [{size}, {size}]
[training]
epochs = {epochs}
batch_size = {batch}
precision = "fp32"
memory_format = "channels_last"
threads = 1
[report]
baselines = false
resamples = 0
"""
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--"]


def command_of(processes: int, folder: Path, run: Path) -> list[str]:
    """One command for as many processes as share an update of two micro-batches."""
    launcher = TORCHRUN if processes == 2 else []
    accumulate = ["--training.accumulate", str(2 // processes)]
    train = ["-m", "classwise", "train", str(folder / "classwise.toml"), "--run", str(run), *accumulate]
    return [sys.executable, *launcher, *train]


def speed_of(run: Path) -> float:
    """Images a second of training, the median of the epochs after the first."""
    rows = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    return statistics.median(row["images_per_second"] for row in rows[1:])


def trained(folder: Path, commands: Sequence[int], name: str) -> list[Path]:
    """Runs that are trained at the same time, each in so many processes."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    runs = [folder / "runs" / f"{name}-{number}" for number in range(len(commands))]
    begun = [
        subprocess.Popen(
            command_of(processes, folder, run),
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for processes, run in zip(commands, runs, strict=True)
    ]
    for process in begun:
        said, _ = process.communicate()
        if process.returncode:
            raise RuntimeError(said.decode()[-2000:])
    return runs


def measure(
    backbone: str, size: int, images: int, batch: int, epochs: int, blocks: int, with_limit: bool = True
) -> dict[str, Any]:
    """Images a second of one process, of two, and of two that are alone; and paired ratios to one."""
    ways = {"one": [1], "two": [2]} | ({"limit": [1, 1]} if with_limit else {})
    speeds: dict[str, list[float]] = {way: [] for way in ways}
    losses: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        (folder / "images").mkdir()
        paths = draw_images(folder / "images", images)
        lines = [f"{path},{'abc'[number % 3]}" for number, path in enumerate(paths)]
        (folder / "rows.csv").write_text("path,label\n" + "\n".join(lines) + "\n")
        (folder / "classwise.toml").write_text(
            CONFIG.format(backbone=backbone, size=size, batch=batch, epochs=epochs)
        )
        for block in range(blocks):
            for way in list(ways)[:: -1 if block % 2 else 1]:
                runs = trained(folder, ways[way], f"{way}-{block}")
                speeds[way].append(sum(map(speed_of, runs)))
                history = (runs[0] / "history.jsonl").read_text().splitlines()
                losses[way] = [json.loads(line)["train_loss"] for line in history]
    ratios = {
        way: sorted(a / b for a, b in zip(speeds[way], speeds["one"], strict=True))
        for way in ways
        if way != "one"
    }
    return {"speed": speeds, "ratios": ratios, "losses": losses}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--images", type=int, default=800)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = measure(
        options.backbone, options.size, options.images, options.batch, options.epochs, options.blocks
    )
    print(f"{options.backbone} at {options.size}, micro-batches of {options.batch}")
    for way, speeds in found["speed"].items():
        ratios = found["ratios"].get(way)
        ratio = f"  x {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})" if ratios else ""
        print(f"{way:<6} {statistics.median(speeds):8.1f} images/s{ratio}")
    print(f"losses of the epochs: {found['losses']['one']} and {found['losses']['two']}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
