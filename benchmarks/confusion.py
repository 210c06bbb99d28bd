"""What does counting cost a head and batch, 64 rows and 18 classes?

    python benchmarks/confusion.py [--batches 2000] [--json FILE]

Counts the same random outputs with classwise's confusion matrix, with its MetricCollection (that, top-k, log loss and
calibration, all read at the end), with torchmetrics' macro F1 as it is by default, and by hand (argmax and a scatter
into a matrix), in turns, and checks that all four give scikit-learn's macro F1: torchmetrics' to 1e-6, since it
computes in float32, the others to 1e-12. The ratio is torchmetrics' time over that of the confusion matrix.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from sklearn.metrics import f1_score
from torch import Tensor

from classwise.metrics.classification import LabelMetric
from classwise.metrics.collection import MetricCollection
from classwise.model.heads import ClassHead

ROWS, CLASSES = 64, 18
Pairs = list[tuple[Tensor, Tensor]]


def drawn(batches: int) -> Pairs:
    """Random outputs and labels."""
    draw = torch.Generator().manual_seed(0)
    return [
        (torch.randn(ROWS, CLASSES, generator=draw), torch.randint(0, CLASSES, (ROWS,), generator=draw))
        for _ in range(batches)
    ]


def ours(pairs: Pairs) -> float:
    """classwise: everything that metrics.json says of a class target."""
    board = MetricCollection({"it": ClassHead(CLASSES)}, {"it": [str(k) for k in range(CLASSES)]})
    for logits, labels in pairs:
        board.update({"it": logits}, {"it": labels})
    return float(board.compute()["targets"]["it"]["macro_f1"])


def confusion_alone(pairs: Pairs) -> float:
    """classwise: the confusion matrix alone."""
    metric = LabelMetric(CLASSES)
    for logits, labels in pairs:
        metric.update(logits.argmax(1), labels)
    return float(metric.compute()["macro_f1"])


def by_hand(pairs: Pairs) -> float:
    """The least that a confusion matrix takes."""
    cells = torch.zeros(CLASSES**2, dtype=torch.int64)
    for logits, labels in pairs:
        cell = labels * CLASSES + logits.argmax(1)
        cells.scatter_add_(0, cell, torch.ones_like(cell))
    table = cells.view(CLASSES, CLASSES).double()
    hits = table.diagonal()
    return float((2 * hits / (table.sum(0) + table.sum(1)).clamp(min=1)).mean())


def torchmetrics_f1(pairs: Pairs) -> float:
    """torchmetrics: macro F1 alone."""
    from torchmetrics.classification import MulticlassF1Score

    metric = MulticlassF1Score(CLASSES, average="macro")
    for logits, labels in pairs:
        metric.update(logits, labels)
    return float(metric.compute())


WAYS: dict[str, Callable[[Pairs], float]] = {
    "classwise": confusion_alone,
    "classwise, all scores": ours,
    "by hand": by_hand,
    "torchmetrics F1": torchmetrics_f1,
}


def measure(batches: int, blocks: int = 9) -> dict[str, float]:
    """Microseconds a batch by way: medians over blocks in turn, and the ratio of torchmetrics to classwise."""
    pairs = drawn(batches)
    truth = torch.cat([labels for _, labels in pairs]).numpy()
    predicted = torch.cat([logits.argmax(1) for logits, _ in pairs]).numpy()
    expected = f1_score(truth, predicted, average="macro", labels=range(CLASSES), zero_division=0)
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    for block in range(blocks + 1):
        for name, way in WAYS.items():
            started = time.perf_counter()
            found = way(pairs)
            if block:  # the first warms up
                seconds[name].append(time.perf_counter() - started)
            exact = 1e-6 if "torchmetrics" in name else 1e-12  # which computes in float32
            assert abs(found - expected) < exact, (name, found, expected)
    medians = {name: 1e6 * statistics.median(times) / batches for name, times in seconds.items()}
    ratios = [b / a for a, b in zip(seconds["classwise"], seconds["torchmetrics F1"], strict=True)]
    return medians | {"ratio": statistics.median(ratios)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batches", type=int, default=2000)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(arguments.batches)
    for name in WAYS:
        print(f"{name:<22} {found[name]:7.1f} us a batch of {ROWS} rows, {CLASSES} classes")
    print(f"torchmetrics / classwise: {found['ratio']:.1f}")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
