"""The time that one image takes in each stage of training.

The parts are those of the run itself, on a copy of its weights. Each stage is timed on its own, over a few batches of
the training rows; the median of some passes counts, after one that warms up. Whole updates of the real loop are timed
beside it, so that one sees how much of them the stages explain.
"""

import contextlib
import copy
import dataclasses
import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from classwise.bench.clock import StageClock, clocked, wait_for
from classwise.bench.hints import hints_of
from classwise.bench.result import COMPUTING, Bench, Stage
from classwise.compose.autotune import resolve_auto
from classwise.compose.checks import check_recipe
from classwise.compose.dataset import prepare
from classwise.compose.losses import build_heads
from classwise.compose.state import build_model
from classwise.config.load import load_config
from classwise.config.schema import Config
from classwise.console import Console
from classwise.data.batch import Batch, Rows
from classwise.data.cache import CachedImages
from classwise.data.dataset import ImageDataset
from classwise.data.image_file import read_file
from classwise.data.images import min_image_size, read_image
from classwise.metrics.collection import ROWS_AT_ONCE
from classwise.run.assembly import Parts, assemble
from classwise.run.own_code import admit_config
from classwise.run.predictor import preserve_torch_state, set_threads
from classwise.run.starting_weights import starting_weights
from classwise.training import loop
from classwise.training.tuning import TuningResult

BATCHES = 3
"""Batches that are looked at, at least: whole updates of an update."""
PASSES = 5
"""Times that they are gone through, after one that warms up."""
LONG = 3.0
"""Seconds after which a stage is gone through no more: large images would take minutes."""
UPDATES = 9
"""Whole updates that are timed, after three that warm up."""
OTHER = {"fp32": "bf16", "bf16": "fp32"}
"""What a precision is compared with."""
WHAT = {
    "mixing": "mixup and CutMix",
    "loss": "the criterion over all heads",
    "backward": "the gradient",
    "update": "clipping, the check that all is finite, optimizer, average",
    "metrics": "counting, in validation",
}


def bench(config: str | Path, overrides: Sequence[tuple[str, str]] = (), quiet: bool = False) -> Bench:
    """Time the stages of the run that this config makes, on its own data, model and device; nothing is written but
    the image cache. Raises what `train` raises for a bad config or bad data."""
    console = Console(quiet)
    given = load_config(Path(config), overrides)
    admit_config(given)
    with preserve_torch_state(), contextlib.closing(prepare(given, console)) as splits:
        heads = build_heads(given, splits)
        model = build_model(given, heads, starting_weights(given))
        check_recipe(given, splits, model)
        settled, device, plans = resolve_auto(given, splits, model, console)
        set_threads(settled)
        if splits.cache is not None:
            console.line(str(splits.cache))
        parts = assemble(settled, splits, copy.deepcopy(model), heads, device)
        with contextlib.closing(parts.data.loader), contextlib.closing(parts.valid.loader):
            return measure(parts, settled, tuple(TuningResult(**plan) for plan in plans), console)


def measure(parts: Parts, config: Config, plans: tuple[TuningResult, ...], console: Console) -> Bench:
    """Time the parts of a run; its weights change meanwhile. `plans`: the ways to train that were measured."""
    console.line("timing each stage ...")
    begin(parts)
    updates = first_updates(parts)
    workers = int(config.data.workers)
    stages = (*reading_stages(parts, updates, workers), *computing_stages(parts, updates))
    other = None if plans else other_precision(parts, updates)
    console.line("timing whole updates ...")
    begin(parts)
    found = Bench(
        stages=stages,
        whole=whole_updates(parts),
        workers=workers,
        threads=int(config.training.threads),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        device=str(parts.settings.device),
        precision=parts.settings.precision,
        batch=parts.data.loader.batch_size,
        plans=plans,
        other=other,
    )
    return dataclasses.replace(found, hints=tuple(hints_of(found, config)))


def begin(parts: Parts) -> None:
    """Go to the start of the first epoch that trains all of the model, if there is one."""
    state, data = parts.state, parts.data
    epoch = min(data.frozen_epochs, parts.settings.epochs - 1)
    state.progress.epoch, state.progress.update = epoch, epoch * data.updates_per_epoch
    state.criterion.set_epoch(epoch)


def first_updates(parts: Parts) -> list[list[Batch]]:
    """The epoch's first updates that hold BATCHES batches together, or all that it has."""
    found: list[list[Batch]] = []
    with contextlib.closing(_updates_of(parts, parts.state.progress.epoch)) as updates:
        for update in updates:
            found.append(update)
            if sum(map(len, found)) >= BATCHES:
                break
    return found


def reading_stages(parts: Parts, updates: Sequence[list[Batch]], workers: int) -> Iterator[Stage]:
    """The stages of a reader, one of `workers`, in this process; none where
    features have been computed once for all epochs."""
    batches = [batch for update in updates for batch in update]
    if batches[0].images.ndim != 4:
        return
    dataset = parts.data.loader.dataset
    rows = np.concatenate([batch.rows for batch in batches])
    images = [np.array(dataset.read(row)) for row in rows]
    epoch = parts.state.progress.epoch

    def change(i: int) -> np.ndarray[Any, Any]:
        return dataset.transform(images[i], epoch, int(rows[i]))[0]

    with _threads_of_a_reader(workers):
        yield from _stages_of_files(dataset, rows, images)
        yield Stage("augmenting", _each(change, len(rows)), "to size, by chance")
    finished, size = [change(i) for i in range(len(rows))], len(batches[0])
    joining = _each(lambda i: np.stack(finished[:size]), 1) / size
    yield Stage("joining", joining, "into batches")


def _stages_of_files(
    dataset: ImageDataset, rows: Rows, images: Sequence[np.ndarray[Any, Any]]
) -> Iterator[Stage]:
    if isinstance(dataset.cached, CachedImages) and bool((dataset.cached.at[rows] >= 0).all()):
        # To look at all of the pixels is to fetch them from the file.
        fetched = _each(lambda i: dataset.read(rows[i]).max(), len(rows))
        looked = _each(lambda i: images[i].max(), len(rows))
        yield Stage("reading", max(0.0, fetched - looked), "decoded before, from the image cache")
        return
    files = _each(lambda i: read_file(dataset.paths[rows[i]], dataset.max_pixels, dataset.root), len(rows))
    decoded = _each(lambda i: _decoded(dataset, rows[i]), len(rows))
    yield Stage("reading", files, "the bytes of the file")
    yield Stage("decoding", max(0.0, decoded - files), "to pixels: RGB, upright")


def _decoded(dataset: ImageDataset, row: int) -> Any:
    return read_image(
        dataset.paths[row], dataset.max_pixels, dataset.root, min_image_size(dataset.size), dataset.pixels
    )


@contextlib.contextmanager
def _threads_of_a_reader(workers: int) -> Iterator[None]:
    """OpenCV's threads as in a loader worker, where there are any."""
    before = cv2.getNumThreads()
    if workers:
        cv2.setNumThreads(0)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def computing_stages(parts: Parts, updates: Sequence[list[Batch]]) -> Iterator[Stage]:
    """The stages of an update on the device, one after the other and each waited for; and counting."""
    settings = parts.settings
    there = "" if parts.data.loader.dataset.augments_on_host else ", mirrored and relit there"
    what = WHAT | {"transfer": f"to {settings.device}{there}", "forward": f"in {settings.precision}"}
    rows = sum(len(batch) for update in updates for batch in update)
    spent = _staged_passes(parts, updates)
    yield from (Stage(name, 1000 * spent[name] / rows, what[name]) for name in COMPUTING if name in spent)
    yield Stage("metrics", _counting(parts, updates[0][0]), what["metrics"])


def other_precision(parts: Parts, updates: Sequence[list[Batch]]) -> tuple[str, float] | None:
    """The precision that is not used, and the milliseconds that forward and backward take in it; None where the model
    is compiled for its own, or where gradients are scaled."""
    other = OTHER.get(parts.settings.precision)
    if other is None or parts.state.compute is not None:
        return None
    settings = dataclasses.replace(parts.settings, precision=other)
    stages = computing_stages(dataclasses.replace(parts, settings=settings), updates)
    return other, sum(stage.milliseconds for stage in stages if stage.name in ("forward", "backward"))


def _staged_passes(parts: Parts, updates: Sequence[list[Batch]]) -> dict[str, float]:
    """Median seconds of each stage in a pass over all updates, by the loop that trains."""
    state = parts.state
    passes: list[dict[str, float]] = []
    progress, started = copy.deepcopy(state.progress), time.perf_counter()
    while len(passes) < 2 or (len(passes) <= PASSES and time.perf_counter() - started < LONG):
        clock = StageClock(parts.settings.device)
        with clocked(parts, clock) as timed:
            loop.train_one_epoch(timed.state, clock.updates(updates), timed.data, timed.settings)
        passes.append(clock.spent)
        state.progress = copy.deepcopy(progress)  # a schedule knows no more updates than the run has
    return {name: statistics.median(one[name] for one in passes[1:]) for name in passes[0]}


@torch.no_grad()
def _counting(parts: Parts, batch: Batch) -> float:
    """Milliseconds an image, of as many at once as validation counts."""
    device, metrics = parts.settings.device, parts.metrics
    batch = next(batch.to(device).parts(parts.state.progress.chunk_size))
    with parts.settings.autocast():
        found = parts.state.model(batch.images)
    times = -(-min(ROWS_AT_ONCE, len(parts.valid)) // len(batch))
    outputs = {name: torch.cat([raw] * times) for name, raw in found.items()}
    targets = {name: torch.cat([batch.targets[name]] * times) for name in outputs}

    def count(i: int) -> None:
        metrics.reset()
        metrics.update(outputs, targets)
        _ = metrics.invalid  # counts what was collected
        wait_for(device)

    return _each(count, 1) / (times * len(batch))


def whole_updates(parts: Parts) -> float:
    """Milliseconds an image of real updates, with the readers of the run."""
    ends: list[tuple[float, int]] = []

    def watched() -> Iterator[list[Batch]]:
        first, begun = parts.state.progress.update, time.perf_counter()
        for epoch in itertools.count(parts.state.progress.epoch):
            parts.state.progress.update = first  # a schedule knows no more updates than the run has
            for update in _updates_of(parts, epoch):
                yield update
                ends.append((time.perf_counter(), sum(len(batch) for batch in update)))
                if len(ends) > 3 and (len(ends) > UPDATES + 3 or ends[-1][0] - begun > 3 * LONG):
                    return

    loop.train_one_epoch(parts.state, watched(), parts.data, parts.settings)
    spans = [(end - begin) / rows for (begin, _), (end, rows) in itertools.pairwise(ends)]
    return 1000 * statistics.median(spans[-UPDATES:])


def _updates_of(parts: Parts, epoch: int) -> Any:
    return parts.data.updates(epoch)


def _each(work: Callable[[int], object], count: int) -> float:
    """Milliseconds of work(0), ..., work(count - 1), a piece: the median of some passes, after one that warms up."""
    passes: list[float] = []
    while len(passes) < 2 or (len(passes) <= PASSES and sum(passes) < LONG):
        started = time.perf_counter()
        for i in range(count):
            work(i)
        passes.append(time.perf_counter() - started)
    return 1000 * statistics.median(passes[1:]) / count
