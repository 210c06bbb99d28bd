"""Does the time of a row stay the same with more rows and more classes, and what memory do many rows take?

    python benchmarks/growth.py [--json FILE]

Rows: classwise trains one epoch of its small network on drawn images of 8 x 8 pixels, no two alike, so that most of
the time belongs to rows: reading the table, checking and storing images, splitting, ordering, batches, counting,
writing. Time a row of a whole run (without measuring and baselines, which do not grow), the imports taken off.
Classes: time an image of classwise's loop (an epoch of a ResNet-18 at 64 x 64 with its validation, everything counted)
with 2, 18 and 1,000 classes; and time a row of the criterion and of counting alone, over bare cross entropy of as many
classes. Memory: the largest resident size of the run over 100,000 rows, and of a bare loop
over the same images in the same batches.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from classwise.data.batch import Batch
from classwise.losses.balanced_softmax import BalancedSoftmax
from classwise.losses.criterion import Criterion
from classwise.losses.normalizer import Normalizer
from classwise.metrics.collection import MetricCollection
from classwise.model.average import NoAverage
from classwise.model.classifier import build_classifier
from classwise.model.heads import ClassHead
from classwise.optim.groups import parameter_groups
from classwise.optim.optimizers import build_optimizer
from classwise.optim.schedules import build_schedule
from classwise.training import loop
from classwise.training.state import Progress, TrainState

RUN = """
import resource, sys, time
import torch, timm
torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.1)
import classwise.run.api
torch.set_num_threads(1)
started = time.perf_counter()
{body}
print(time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""
OURS = "classwise.run.api.train(sys.argv[1], sys.argv[2], quiet=True)"
# What a user would write by hand: a Dataset over the same table, and the same model.
BARE = """
import csv, cv2
import numpy as np
from torch.utils.data import DataLoader, Dataset
from classwise.model.small_cnn import SmallCNN
rows = list(csv.reader(open("rows.csv")))[1:]
class Images(Dataset):
    def __len__(self): return len(rows)
    def __getitem__(self, i):
        image = cv2.imread(rows[i][0])[:, :, ::-1].copy()
        return torch.from_numpy(image).permute(2, 0, 1), int(rows[i][1])
model = torch.nn.Sequential(SmallCNN(1), torch.nn.LazyLinear(2))
optimizer = None
for images, labels in DataLoader(Images(), 256, shuffle=True):
    out = model((images.float() - 127) / 127)
    optimizer = optimizer or torch.optim.AdamW(model.parameters(), 1e-3)
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(out, labels).backward()
    optimizer.step()
"""


def draw(folder: Path, rows: int) -> None:
    """A table of so many rows, each with a small image of its own, and its config."""
    (folder / "images").mkdir(parents=True)
    draw, names = np.random.default_rng(0), [f"images/{i}.png" for i in range(rows)]
    for name in names:
        cv2.imwrite(str(folder / name), draw.integers(0, 255, (8, 8, 3), np.uint8))
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
        board = MetricCollection({"it": ClassHead(classes)}, {"it": [str(k) for k in range(classes)]})
        found = []
        for _ in range(blocks):
            ours = bare = 0.0
            for logits, labels in batches:
                leaf = logits.clone().requires_grad_()
                started = time.perf_counter()
                criterion({"it": leaf}, {"it": labels}, Normalizer([256.0], is_row_count=True)).backward()
                board.update({"it": leaf}, {"it": labels})
                ours += time.perf_counter() - started
                leaf = logits.clone().requires_grad_()
                started = time.perf_counter()
                F.cross_entropy(leaf, labels).backward()
                bare += time.perf_counter() - started
            started = time.perf_counter()
            board.compute()
            ours += time.perf_counter() - started
            board.reset()
            found.append(ours / bare)
        ratios[classes] = statistics.median(found)
    return ratios


class ImageDataset:
    """Drawn images that stand in memory, as the loop wants its data."""

    first_micro_batch_idx = frozen_epochs = 0

    def __init__(self, classes: int, updates: int, batch: int = 32) -> None:
        draw = torch.Generator().manual_seed(0)
        self.updates_per_epoch, self.classes = updates, classes
        self.batches = []
        for i in range(updates + 2):
            images = torch.randint(0, 256, (batch, 3, 64, 64), dtype=torch.uint8, generator=draw)
            labels = torch.randint(0, classes, (batch,), generator=draw)
            images = images.contiguous(memory_format=torch.channels_last)
            rows = np.arange(i * batch, (i + 1) * batch) % (2 * batch)
            self.batches.append(Batch(images, {"it": labels}, rows, complete=True))
        self.count = batch * (updates + 2)

    def updates(self) -> Iterator[list[Batch]]:
        """One batch an update."""
        return ([batch] for batch in self.batches[2:])

    def mixing(self, window: list[Batch], update: int) -> list[Batch]:
        """Nothing is mixed."""
        return window

    def __len__(self) -> int:
        """Rows of validation."""
        return sum(map(len, self.batches[:2]))

    def rounds(self, epoch: int) -> Iterator[tuple[Batch, list[torch.Tensor]]]:
        """Two batches of validation."""
        return ((batch, [torch.from_numpy(batch.rows)]) for batch in self.batches[:2])

    def targets(self, device: torch.device) -> dict[str, torch.Tensor]:
        """The answers of validation."""
        return {"it": torch.cat([batch.targets["it"] for batch in self.batches[:2]])}


def whole_by_classes(
    counts: list[int], blocks: int, updates: int = 8, model: str = "resnet18"
) -> dict[int, float]:
    """Milliseconds an image of the loop, medians of epochs in turn."""
    epochs = {classes: loop_epoch(ImageDataset(classes, updates), model) for classes in counts}
    times: dict[int, list[float]] = {classes: [] for classes in counts}
    for block in range(blocks + 1):
        for classes, epoch in epochs.items():
            seconds = epoch()
            times[classes] += [1e3 * seconds] if block else []
    return {classes: statistics.median(found) for classes, found in times.items()}


def loop_epoch(data: ImageDataset, backbone: str) -> Callable[[], float]:
    """An epoch of classwise's loop with its validation; seconds an image."""
    device = torch.device("cpu")
    model = build_classifier(backbone, "none", (64, 64), "squash", 0.0, {"it": data.classes}, 0)
    groups = parameter_groups(model.backbone, model.heads, 1e-3, 1e-2, 1.0)
    optimizer = build_optimizer("adamw", groups, 1e-3, 1e-2)
    bases = [group["lr"] for group in optimizer.param_groups]
    schedule = build_schedule("constant", bases, data.updates_per_epoch, 10**6)
    criterion = Criterion({"it": BalancedSoftmax(torch.ones(data.classes))}, {"it": 1.0})
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    state = TrainState(model, criterion, optimizer, schedule, scaler, NoAverage(model), Progress())
    board = MetricCollection({"it": ClassHead(data.classes)}, {"it": [str(k) for k in range(data.classes)]})
    settings = loop.Settings(0, 10**6, "macro_f1", True, 1, None, math.inf, "fp32", device)

    def epoch() -> float:
        started = time.perf_counter()
        loop.train_one_epoch(state, data.updates(), data, settings)  # type: ignore[arg-type]
        loop.evaluate(state, data, board, settings)  # type: ignore[arg-type]
        return (time.perf_counter() - started) / data.count

    return epoch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--runs", type=int, default=3, help="of many rows; 0: only classes")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    torch.set_num_threads(1)
    classes = [2, 18, 1000]
    found = by_rows(arguments.rows, arguments.runs) if arguments.runs else {"us_a_row": {}}
    found |= {"classes": by_classes(classes, 9), "ms_an_image": whole_by_classes(classes, 9)}
    for count, microseconds in found["us_a_row"].items():
        print(f"{count:>9,} rows: {microseconds:8.0f} us a row")
    whole = found["ms_an_image"]
    for count, milliseconds in whole.items():
        ratio = milliseconds / whole[2]
        print(
            f"{count:>9,} classes: {milliseconds:.3f} ms an image of a ResNet-18 at 64 x 64, x {ratio:.3f};"
            f" loss and counting take {found['classes'][count]:.2f} times bare cross entropy"
        )
    if not arguments.runs:
        return
    print(
        f"memory: {found['megabytes']:.0f} MB at most, a bare loop {found['bare_megabytes']:.0f} MB: "
        f"{found['megabytes'] - found['bare_megabytes']:.0f} MB more"
    )
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
