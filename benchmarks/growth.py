"""Does the time of a row stay the same with more rows and more classes, and what memory do many rows take?

    python benchmarks/growth.py [--json FILE]

Rows: classwise trains one epoch of a tiny model on features that stand in memory (training.freeze_epochs), so that only
what belongs to rows is in the time: reading the table, checking, splitting, ordering, batches, counting, writing. Time
a row of a whole run with 10,000 and 100,000 rows, the imports taken off, whose pictures are hard links to a few files.
Classes: time a row of evaluation's counting and of the criterion with 2, 18 and 1,000 classes, over the bare forward
pass and cross entropy of as many. Memory: the largest resident size of the run over 100,000 rows, and of a bare loop
over the same pictures in the same batches.
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
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from classwise.losses.balanced_softmax import BalancedSoftmax
from classwise.losses.criterion import Criterion
from classwise.metrics.scoreboard import Scoreboard
from classwise.model.heads import ClassHead

FILES = 50
RUN = """
import resource, sys, time
import torch, timm
torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.1)
import classwise.run
torch.set_num_threads(1)
started = time.perf_counter()
{body}
print(time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""
OURS = "classwise.run.train(sys.argv[1], sys.argv[2], quiet=True)"
# What a user would write by hand: a Dataset over the same table, and the same model.
BARE = """
import csv, cv2
import numpy as np
from torch.utils.data import DataLoader, Dataset
from classwise.model.small_cnn import SmallCNN
rows = list(csv.reader(open("rows.csv")))[1:]
class Pictures(Dataset):
    def __len__(self): return len(rows)
    def __getitem__(self, i):
        image = cv2.imread(rows[i][0])[:, :, ::-1].copy()
        return torch.from_numpy(image).permute(2, 0, 1), int(rows[i][1])
model = torch.nn.Sequential(SmallCNN(1), torch.nn.LazyLinear(2))
optimizer = None
for images, labels in DataLoader(Pictures(), 256, shuffle=True):
    out = model((images.float() - 127) / 127)
    optimizer = optimizer or torch.optim.AdamW(model.parameters(), 1e-3)
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(out, labels).backward()
    optimizer.step()
"""


def draw(folder: Path, rows: int) -> None:
    """A table of so many rows, whose pictures are links to a few small files, and its config."""
    (folder / "pictures").mkdir(parents=True)
    for i in range(FILES):
        image = np.random.default_rng(i).integers(0, 255, (8, 8, 3), np.uint8)
        cv2.imwrite(str(folder / f"file {i}.png"), image)
    names = [f"pictures/{i}.png" for i in range(rows)]
    for i, name in enumerate(names):
        os.link(folder / f"file {i % FILES}.png", folder / name)
    lines = [f"{name},{(i // 3) % 2}" for i, name in enumerate(names)]
    (folder / "rows.csv").write_text("path,label\n" + "\n".join(lines) + "\n")
    (folder / "classwise.toml").write_text(CONFIG)


CONFIG = """
[data]
source = "rows.csv"
augment = "none"
workers = 0
[targets.label]
column = "label"
[model]
image_size = [8, 8]
[training]
epochs = 1
batch_size = 256
precision = "fp32"
threads = 1
[report]
baselines = false
resamples = 0
"""


def one_run(folder: Path, body: str) -> tuple[float, float]:
    """Seconds beyond the imports, and the largest resident megabytes."""
    command = [sys.executable, "-c", RUN.format(body=body), "classwise.toml", f"run-{time.time_ns()}"]
    out = subprocess.run(command, check=True, cwd=folder, capture_output=True, text=True)
    seconds, megabytes = out.stdout.split()[-2:]
    return float(seconds), float(megabytes)


def by_rows(counts: list[int], runs: int) -> dict[str, Any]:
    """Microseconds a row by number of rows, medians of runs in turn; and memory of the largest."""
    with tempfile.TemporaryDirectory() as name:
        os.environ["XDG_CACHE_HOME"] = str(Path(name) / "cache")
        folders = {count: Path(name) / str(count) for count in counts}
        for count, folder in folders.items():
            draw(folder, count)
        times: dict[int, list[float]] = {count: [] for count in counts}
        memory: list[float] = []
        for _ in range(runs):
            for count, folder in folders.items():
                seconds, megabytes = one_run(folder, OURS)
                times[count].append(1e6 * seconds / count)
                memory += [megabytes] if count == max(counts) else []
        bare = one_run(folders[max(counts)], BARE)[1]
    medians = {count: statistics.median(found) for count, found in times.items()}
    return {"us_a_row": medians, "megabytes": statistics.median(memory), "bare_megabytes": bare}


def by_classes(counts: list[int], blocks: int) -> dict[int, float]:
    """Nanoseconds a row and class of criterion (there and back) and counting, over those of bare cross entropy."""
    ratios: dict[int, float] = {}
    for classes in counts:
        draws = torch.Generator().manual_seed(0)
        batches = [
            (torch.randn(256, classes, generator=draws), torch.randint(0, classes, (256,), generator=draws))
            for _ in range(20)
        ]
        criterion = Criterion({"it": BalancedSoftmax(torch.ones(classes))}, {"it": 1.0})
        board = Scoreboard({"it": ClassHead(classes)}, {"it": [str(k) for k in range(classes)]})
        found = []
        for _ in range(blocks):
            ours = bare = 0.0
            for logits, labels in batches:
                leaf = logits.clone().requires_grad_()
                started = time.perf_counter()
                criterion({"it": leaf}, {"it": labels}, [256.0]).backward()
                board.update({"it": leaf}, {"it": labels})
                ours += time.perf_counter() - started
                leaf = logits.clone().requires_grad_()
                started = time.perf_counter()
                F.cross_entropy(leaf, labels).backward()
                bare += time.perf_counter() - started
            started = time.perf_counter()
            board.results()
            ours += time.perf_counter() - started
            board.reset()
            found.append(ours / bare)
        ratios[classes] = statistics.median(found)
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    torch.set_num_threads(1)
    found = by_rows(arguments.rows, arguments.runs) | {"classes": by_classes([2, 18, 1000], 9)}
    for count, microseconds in found["us_a_row"].items():
        print(f"{count:>9,} rows: {microseconds:8.0f} us a row")
    for classes, ratio in found["classes"].items():
        print(f"{classes:>9,} classes: loss and counting take {ratio:.2f} times bare cross entropy")
    print(
        f"memory: {found['megabytes']:.0f} MB at most, a bare loop {found['bare_megabytes']:.0f} MB: "
        f"{found['megabytes'] - found['bare_megabytes']:.0f} MB more"
    )
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
