"""A whole epoch of a real model: how much slower is the loop than one written by hand?

    python benchmarks/epoch.py [--backbone resnet18] [--size 64] [--blocks 7] [--json FILE]

Training and validation of the same model, from the same images (decoded in memory, cropped and mirrored by the
same code in the same process), in batches of 32, fp32, one thread: by hand (zero_grad, forward, cross entropy,
backward, step; argmax and a confusion matrix), and by `train_one_epoch` and `evaluate` as `classwise train` runs
them. Alternating blocks in one process; the figure is the median of paired ratios, beside that of by hand against
by hand.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from classwise.data.augment import PRESETS, augment_image
from classwise.data.dataset import ImageDataset
from classwise.data.decode_jpeg import RowsNeeded
from classwise.data.epochs import TrainingData, ValidationData
from classwise.data.fit import fit_image
from classwise.data.loader import Loader
from classwise.losses.criterion import Criterion
from classwise.losses.cross_entropy import CrossEntropy
from classwise.metrics.collection import MetricCollection
from classwise.model.average import NoAverage
from classwise.model.classifier import Classifier, build_classifier
from classwise.model.heads import ClassHead
from classwise.optim.optimizers import build_optimizer
from classwise.optim.schedules import build_schedule
from classwise.randomness import AUGMENT, generator
from classwise.training import loop
from classwise.training.state import TrainState

CLASSES, BATCH = 8, 32
CPU = torch.device("cpu")


class InMemory(ImageDataset):
    """Images that stand in memory, as a store gives them."""

    def read(self, row: int, rows_needed: RowsNeeded = None) -> Any:
        return IMAGES[row]


IMAGES: list[Any] = []


def draw(count: int, size: int) -> Any:
    rng = np.random.default_rng(0)
    IMAGES[:] = [rng.integers(0, 256, (2 * size, 2 * size, 3), dtype=np.uint8) for _ in range(count)]
    return rng.integers(0, CLASSES, count)


def new_model(backbone: str, size: int) -> Classifier:
    return build_classifier(backbone, "none", (size, size), "squash", 0.0, {"it": CLASSES}, 0)


def new_optimizer(model: Classifier) -> torch.optim.Optimizer:
    return build_optimizer("adamw", [{"params": list(model.parameters())}], 1e-3, 1e-2)


def by_hand(backbone: str, size: int, labels: Any, train: int) -> Callable[[], None]:
    model = new_model(backbone, size)
    optimizer = new_optimizer(model)
    targets = torch.from_numpy(labels)

    def batch_of(rows: Any, augment: bool) -> torch.Tensor:
        images = [
            augment_image(
                IMAGES[row], (size, size), "squash", PRESETS["light"], generator(0, AUGMENT, 0, int(row))
            )
            if augment
            else fit_image(IMAGES[row], (size, size), "squash")
            for row in rows
        ]
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)

    def epoch() -> None:
        model.train()
        order = np.random.permutation(train)
        for at in range(0, train, BATCH):
            rows = order[at : at + BATCH]
            images = batch_of(rows, True)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images)["it"], targets[rows])
            loss.backward()
            optimizer.step()
        model.eval()
        cells = torch.zeros(CLASSES**2, dtype=torch.int64)
        with torch.no_grad():
            for at in range(train, len(labels), BATCH):
                rows = np.arange(at, min(at + BATCH, len(labels)))
                predicted = model(batch_of(rows, False))["it"].argmax(1)
                cell = targets[rows] * CLASSES + predicted
                cells.scatter_add_(0, cell, torch.ones_like(cell))

    return epoch


def by_classwise(backbone: str, size: int, labels: Any, train: int) -> Callable[[], None]:
    model = new_model(backbone, size)
    optimizer = new_optimizer(model)
    paths = [Path(str(row)) for row in range(len(labels))]

    def loader(first: int, last: int, augment: Any) -> Loader:
        class Part(InMemory):
            def read(self, row: int, rows_needed: RowsNeeded = None) -> Any:
                return IMAGES[first + row]

        images = Part(paths[first:last], (size, size), "squash", 10**8, 0, augment)
        return Loader(images, {"it": labels[first:last]}, BATCH, 0)

    data = TrainingData(
        loader(0, train, PRESETS["light"]), [str(p) for p in paths[:train]], None, "shuffle", 0, 1
    )
    valid = ValidationData(loader(train, len(labels), None))
    state = TrainState(
        model,
        Criterion({"it": CrossEntropy()}, {"it": 1.0}),
        optimizer,
        build_schedule("constant", [1e-3], data.updates_per_epoch, 10**6, 0.0),
        torch.amp.GradScaler("cpu", enabled=False),
        NoAverage(model),
    )
    board = MetricCollection({"it": ClassHead(CLASSES)}, {"it": [str(k) for k in range(CLASSES)]})
    settings = loop.Settings(0, 10**6, "macro_f1", True, 1, None, math.inf, "fp32", CPU)

    def epoch() -> None:
        loop.train_one_epoch(state, data.updates(state.progress.epoch), data, settings)
        scores = loop.evaluate(state, valid, board, settings)
        assert scores is not None
        state.progress.end_epoch(scores["macro_f1"], {})

    return epoch


def measure(backbone: str, size: int, train: int, blocks: int) -> dict[str, Any]:
    """Seconds of an epoch by hand, and paired ratios to it."""
    labels = draw(train + train // 4, size)
    hand = by_hand(backbone, size, labels, train)
    others = {
        "classwise": by_classwise(backbone, size, labels, train),
        "by hand (again)": by_hand(backbone, size, labels, train),
    }
    found: dict[str, list[float]] = {name: [] for name in others}
    seconds: list[float] = []
    for block in range(blocks + 1):
        for name, other in others.items():
            times = []
            for epoch in (hand, other, hand):
                started = time.perf_counter()
                epoch()
                times.append(time.perf_counter() - started)
            if block:  # the first warms up
                found[name].append(2 * times[1] / (times[0] + times[2]))
                seconds += [times[0], times[2]]
    return {"seconds": statistics.median(seconds), "ratios": {name: sorted(r) for name, r in found.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--images", type=int, default=320)
    parser.add_argument("--blocks", type=int, default=7)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(arguments.backbone, arguments.size, arguments.images, arguments.blocks)
    print(f"{arguments.backbone} at {arguments.size}: {found['seconds']:.2f} s an epoch by hand")
    for name, ratios in found["ratios"].items():
        print(f"{name:<16} x {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
