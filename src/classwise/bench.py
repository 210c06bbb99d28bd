"""What bounds a run: the time that one picture takes in each stage of training, and what would help."""

import contextlib
import copy
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from classwise.build_losses import build_heads
from classwise.compose import build_model, check_recipe, settle
from classwise.config import Config
from classwise.config_file import load_config
from classwise.console import Console
from classwise.data.augment import augment_image
from classwise.data.images import fit_image, least_size, read_image
from classwise.data.loader import Batch, Pictures
from classwise.predictor import set_threads, torch_kept
from classwise.prepare import prepare
from classwise.randomness import AUGMENT, generator
from classwise.session import Parts, assemble
from classwise.train import loop
from classwise.train.tuning import Plan

BATCHES = 3
"""Batches that are looked at: as many again beforehand, to warm up."""
READING = ("reading", "decoding", "augmenting", "joining")
COMPUTING = ("transfer", "forward", "loss", "backward", "update")


@dataclass(frozen=True)
class Stage:
    """Milliseconds that a picture takes in one stage."""

    name: str
    milliseconds: float
    what: str


@dataclass(frozen=True)
class Bench:
    """What `classwise bench` found. `whole`: milliseconds a picture of real updates, readers at work beside them;
    `plans`: the ways to train that were measured, the fastest first."""

    stages: tuple[Stage, ...]
    whole: float
    workers: int
    threads: int
    device: str
    precision: str
    plans: tuple[str, ...]
    hints: tuple[str, ...]

    def milliseconds(self, *names: str) -> float:
        """The sum of some stages."""
        return sum(stage.milliseconds for stage in self.stages if stage.name in names)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        stages = [vars(stage) for stage in self.stages]
        return {**vars(self), "stages": stages, "plans": list(self.plans), "hints": list(self.hints)}


def bench(config: str | Path, overrides: Sequence[tuple[str, str]] = (), quiet: bool = False) -> Bench:
    """Time the stages of the run that this config makes, on its own data, model and device; nothing is written but
    the store of decoded pictures. Raises what `train` raises for a bad config or bad data."""
    console = Console(quiet)
    given = load_config(Path(config), overrides)
    with torch_kept():
        prepared = prepare(given, console)
        heads = build_heads(given, prepared)
        model = build_model(given, heads)
        check_recipe(given, prepared, model)
        settled, device, plans = settle(given, prepared, model, console)
        set_threads(settled)
        parts = assemble(settled, prepared, copy.deepcopy(model), heads, device)
        with contextlib.closing(parts.data.loader), contextlib.closing(parts.valid.loader):
            console.line("timing each stage ...")
            stages = (*_reading(parts, settled), *_computing(parts))
            console.line("timing whole updates ...")
            whole = _whole(parts)
    texts = tuple(str(Plan(**plan)) for plan in plans)
    found = Bench(
        stages,
        whole,
        int(settled.data.workers),
        int(settled.training.threads),
        str(device),
        settled.training.precision,
        texts,
        (),
    )
    return Bench(**{**vars(found), "hints": tuple(_hints(found, settled))})


def _reading(parts: Parts, config: Config) -> Iterator[Stage]:
    """The stages of a reader, in this process."""
    pictures = parts.data.loader.pictures
    rows = np.arange(len(pictures))[: parts.data.loader.batch_size * BATCHES]
    stored = pictures.stored is not None and bool((pictures.stored.at[rows] >= 0).all())
    size = pictures.size
    images = [_image(pictures, int(row)) for row in rows]

    def augmented(i: int) -> Any:
        if pictures.augment is None:
            return fit_image(images[i], size, pictures.fit)
        rng = generator(pictures.seed, AUGMENT, 0, int(rows[i]))
        return augment_image(images[i], size, pictures.fit, pictures.augment, rng)

    finished = [augmented(i) for i in range(len(rows))]
    files = _each(lambda i: pictures.paths[rows[i]].read_bytes(), len(rows))
    if stored:
        # To look at all of the pixels is to fetch them from the file.
        fetched = _each(lambda i: int(pictures.read(int(rows[i])).max()), len(rows))
        looked = _each(lambda i: int(images[i].max()), len(rows))
        yield Stage("reading", max(0.0, fetched - looked), "from the store of decoded pictures")
    else:
        decoded = _each(lambda i: _decoded(pictures, int(rows[i])), len(rows))
        yield Stage("reading", files, "the bytes of the file")
        yield Stage("decoding", max(0.0, decoded - files), "to pixels, upright, RGB")
    yield Stage("augmenting", _each(augmented, len(rows)), "to the model's size, changed by chance")
    yield Stage("joining", _median(lambda: np.stack(finished)) / len(rows), "into batches")


def _image(pictures: Pictures, row: int) -> Any:
    return np.array(pictures.read(row))


def _decoded(pictures: Pictures, row: int) -> Any:
    return read_image(pictures.paths[row], pictures.max_pixels, pictures.root, least_size(pictures.size))


def _computing(parts: Parts) -> Iterator[Stage]:
    """The stages of an update, one after the other, each waited for."""
    state, settings, data = parts.state, parts.settings, parts.data
    device = settings.device
    windows = _first_windows(parts)
    batches = [batch for window in windows for batch in window]
    rows = sum(len(batch) for batch in batches)
    times: dict[str, list[float]] = {name: [] for name in (*COMPUTING, "metrics")}
    state.model.train()
    for _ in range(2 * BATCHES):
        clock = _Clock(device, times)
        for number, window in enumerate(windows):
            with clock.stage("transfer"):
                moved = [batch.to(device) for batch in window]
            mixed = data.mixing(moved, number)
            state.optimizer.zero_grad()
            mass = state.criterion.window_mass([batch.targets for batch in mixed])
            for batch in mixed:
                with clock.stage("forward"), settings.autocast():
                    outputs = state.outputs(batch.images)
                with clock.stage("loss"):
                    loss = state.criterion(outputs, batch.targets, mass)
                with clock.stage("backward"):
                    torch.autograd.backward(state.scaler.scale(loss))
            with clock.stage("update"):
                _update(parts)
            own = {name: raw.detach() for name, raw in outputs.items()}
            with clock.stage("metrics"):
                _count(parts, own, moved[-1].targets)
        clock.end_pass()
    what = {
        "transfer": f"to {device}",
        "forward": f"in {settings.precision}",
        "loss": "the criterion over all heads",
        "backward": "the gradient",
        "update": "clipping, the optimizer's step, the average of the weights",
        "metrics": "counting a validated picture",
    }
    for name, found in times.items():
        counted = rows if name != "metrics" else sum(len(window[-1]) for window in windows)
        yield Stage(name, 1000 * statistics.median(found[BATCHES:]) / counted, what[name])


def _update(parts: Parts) -> None:
    state = parts.state
    state.scaler.unscale_(state.optimizer)
    torch.nn.utils.clip_grad_norm_(state.parameters, parts.settings.clip_norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.average.update(state.model)


def _count(parts: Parts, outputs: dict[str, torch.Tensor], targets: dict[str, torch.Tensor]) -> None:
    parts.scoreboard.reset()
    parts.scoreboard.update(outputs, targets)
    _ = parts.scoreboard.invalid


class _Clock:
    """Seconds of the stages of one pass, added to `times` at its end."""

    def __init__(self, device: torch.device, times: dict[str, list[float]]) -> None:
        self.device, self.times = device, times
        self.spent = dict.fromkeys(times, 0.0)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """The block is this stage's; what the device has still to do is waited for."""
        started = time.perf_counter()
        yield
        _wait(self.device)
        self.spent[name] += time.perf_counter() - started

    def end_pass(self) -> None:
        """One more figure for each stage."""
        for name, seconds in self.spent.items():
            self.times[name].append(seconds)


def _first_windows(parts: Parts) -> list[list[Batch]]:
    """The windows of some batches, with what they hold read already."""
    found: list[list[Batch]] = []
    windows = parts.data.windows(0)
    for window in windows:
        found.append(window)
        if sum(len(window) for window in found) >= BATCHES:
            break
    windows.close()  # type: ignore[attr-defined]
    return found


def _whole(parts: Parts) -> float:
    """Milliseconds a picture of real updates, with the readers of the run."""
    seen: list[tuple[float, int]] = []

    def watched(windows: Any) -> Iterator[list[Batch]]:
        for window in windows:
            yield window
            seen.append((time.perf_counter(), sum(len(batch) for batch in window)))
            if len(seen) > 3 * BATCHES:
                return

    parts.state.criterion.set_epoch(0)
    loop.train_one_epoch(parts.state, watched(parts.data.windows(0)), parts.data, parts.settings)
    _wait(parts.settings.device)
    first = min(BATCHES, len(seen) - 1) if len(seen) > 1 else 0
    spans = [
        (later - before) / rows
        for (before, _), (later, rows) in zip(seen[first:], seen[first + 1 :], strict=False)
    ]
    return 1000 * statistics.median(spans) if spans else 0.0


def _each(work: Callable[[int], Any], count: int) -> float:
    """Median milliseconds over all pictures, after one pass to warm up."""
    times = []
    for turn in range(2):
        for i in range(count):
            started = time.perf_counter()
            work(i)
            if turn:
                times.append(time.perf_counter() - started)
    return 1000 * statistics.median(times)


def _median(work: Callable[[], Any]) -> float:
    """Median milliseconds of some passes, after one to warm up."""
    return statistics.median(_each(lambda _: work(), 1) for _ in range(2 * BATCHES))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _hints(found: Bench, config: Config) -> Iterator[str]:
    """What would help, from the numbers alone."""
    reading, computing = found.milliseconds(*READING), found.milliseconds(*COMPUTING)
    pace = reading / found.workers if found.workers else 0.0
    if found.workers == 0 and reading > 0.15 * computing:
        yield (
            f"reading takes {reading:.2f} ms and computing {computing:.2f} ms, one after the other:"
            " data.workers = 1 or more reads while the model computes, where there is a core for it"
        )
    elif pace > 1.05 * computing:
        yield (
            f"the readers set the pace ({reading:.2f} ms a picture over {found.workers} workers, the model needs"
            f" {computing:.2f}): more data.workers, or less augmentation"
        )
    decoding = found.milliseconds("decoding")
    if decoding > 0.2 * reading:
        where = "is off" if config.data.cache == "off" else "does not hold all of them (data.cache_gigabytes)"
        yield f"decoding takes {decoding:.2f} ms a picture in every epoch: the cache {where}"
    if found.milliseconds("update") > 0.2 * computing:
        yield (
            "the update is a large part: a larger training.batch_size, or training.accumulate, makes fewer of them"
        )
    if found.milliseconds("forward", "backward") > 0.7 * max(computing, pace):
        height, width = config.model.image_size
        yield (
            f"the model itself is most of it: a smaller model.image_size than {height} x {width} costs in proportion"
            " to its area, another backbone as it is built"
        )
    if config.training.precision == found.precision and not found.plans:
        yield 'training.precision = "auto" measures whether another precision or memory format is faster here'
