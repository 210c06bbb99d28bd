"""How long the 95 % intervals take: `python benchmarks/bootstrap.py [RUNS]`. Prints the median seconds of each kind.

1,000 resamples of 12,600 rows; 18 classes with all their scores, 20 labels, numbers, and queries of 10 rows.
The first is once more with 2,700 groups. Threads are torch's: the products of the resamples run on one. Processor
time is what the work takes on a machine with nothing else to do, at most: on a busy one the seconds are those of the
others, too.
"""

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from classwise.metrics.classification import ClassMetric
from classwise.metrics.multilabel import MultilabelMetric
from classwise.metrics.ranking import RankingMetric
from classwise.metrics.regression import RegressionMetric

ROWS, CLASSES, LABELS, GROUPS, THREADS = 12_600, 18, 20, 2_700, 2


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    torch.set_num_threads(THREADS)
    draw = torch.Generator().manual_seed(0)
    logits_NK = torch.randn(ROWS, CLASSES, generator=draw)
    classes = ClassMetric(CLASSES, keep_rows=True)
    classes.update(logits_NK, torch.randint(0, CLASSES, (ROWS,), generator=draw))
    many = MultilabelMetric([str(k) for k in range(LABELS)], keep_rows=True)
    many.update(logits_NK.repeat(1, 2)[:, :LABELS], (torch.rand(ROWS, LABELS, generator=draw) < 0.1).float())
    numbers = RegressionMetric(keep_rows=True)
    numbers.update(logits_NK[:, 0], logits_NK[:, 1])
    ranking = RankingMetric(keep_rows=True)
    relevance_N = torch.randint(0, 3, (ROWS,), generator=draw)
    ranking.update(logits_NK[:, 0], torch.stack([relevance_N, torch.arange(ROWS) // 10], dim=1))
    groups_N = np.random.default_rng(0).integers(0, GROUPS, ROWS)
    print(f"{torch.get_num_threads()} threads, {runs} runs")
    report(f"{CLASSES} classes", classes.intervals, runs)
    report(f"{CLASSES} classes, {GROUPS} groups", lambda: classes.intervals(groups_N), runs)
    report(f"{LABELS} labels", many.intervals, runs)
    report("numbers", numbers.intervals, runs)
    report("ranking", ranking.intervals, runs)


def report(what: str, intervals: Callable[[], object], runs: int) -> None:
    """Print the median of some runs."""
    seconds, busy = [], []
    for _ in range(runs):
        started, worked = time.perf_counter(), time.process_time()
        intervals()
        seconds.append(time.perf_counter() - started)
        busy.append(time.process_time() - worked)
    print(
        f"{what:<24} median {statistics.median(seconds):.3f} s, slowest {max(seconds):.3f} s,"
        f" {statistics.median(busy):.3f} s of processor time"
    )


if __name__ == "__main__":
    main()
