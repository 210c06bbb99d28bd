"""The training process: the loop that really runs, written to be read.

`train` holds the epochs, `train_one_epoch` the lecture's lines (train, zero_grad, criterion, backward, step),
`evaluate` the inference process (eval, no gradients, counting). Everything they work with is handed to them.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from classwise.data.batch import Batch
from classwise.data.epochs import TrainingData, ValidationData
from classwise.distributed import SINGLE_PROCESS, Processes
from classwise.errors import ConfigError, Interrupted, NonFiniteError, OutOfMemory
from classwise.losses.criterion import Criterion
from classwise.losses.normalizer import Normalizer, WholeUpdate, numbers
from classwise.metrics.collection import MetricCollection, flat_scores
from classwise.model.oom import OOMFallback
from classwise.randomness import DROPOUT, mixed_seed
from classwise.training.guard import NonFiniteGuard, Update, clip
from classwise.training.state import Progress, TrainState

COUNTED_AT_ONCE = 4096  # rows of validation
STEP_TOO_LARGE = (
    "optimizer.name: its step does not fit the device's memory beside the model: {}. An optimizer that keeps less, such"
    " as sgd, or a smaller model helps"
)
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Checkpointer(Protocol):
    """Where states are kept; the loop does not know how."""

    def should_save(self, progress: Progress) -> bool:
        """Whether to keep the state now, in the middle of an epoch."""

    def save(self, state: TrainState, best: bool) -> None:
        """Keep the state as the last one and, if `best`, as the best one."""


@dataclass(frozen=True)
class Settings:
    """What stays fixed while training. `metric` is a name in `flat_scores`; `clip_norm` may be infinite;
    `processes` are those that train together, mostly one."""

    seed: int
    epochs: int
    metric: str
    higher_is_better: bool
    first_epoch: int
    patience: int | None
    clip_norm: float
    precision: str
    device: torch.device
    processes: Processes = SINGLE_PROCESS

    def autocast(self) -> AbstractContextManager[Any]:
        """The forward pass in the chosen precision; in fp32 it changes nothing."""
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=PRECISIONS[self.precision])


class NullCheckpointer:
    """A checkpointer that keeps nothing."""

    def should_save(self, progress: Progress) -> bool:
        """Never."""
        return False

    def save(self, state: TrainState, best: bool) -> None:
        """Nothing."""


NULL_CHECKPOINTER = NullCheckpointer()


def never() -> bool:
    """Nobody asks the run to stop."""
    return False


def unwatched(windows: Iterable[list[Batch]], epoch: int, first: int) -> Iterable[list[Batch]]:
    """Nobody watches the windows go by."""
    return windows


def train(
    state: TrainState,
    data: TrainingData,
    valid: ValidationData,
    metrics: MetricCollection,
    settings: Settings,
    checkpointer: Checkpointer,
    should_stop: Callable[[], bool] = never,
    watch: Callable[[Iterable[list[Batch]], int, int], Iterable[list[Batch]]] = unwatched,
    say: Callable[[dict[str, Any], bool], None] = lambda row, best: None,
) -> str:
    """Train until the last epoch or until the metric stops rising; returns `finished` or `early_stopped`.

    Raises Interrupted (state kept) if asked to stop, and NonFiniteError (weights from before the step).
    """
    progress = state.progress
    while progress.epoch < settings.epochs and not _waited_enough(state, settings):
        epoch, first = progress.epoch, progress.window
        state.criterion.set_epoch(epoch)
        windows = watch(data.windows(epoch, skip=first), epoch, first)
        too_large = ""
        try:
            train_one_epoch(state, windows, data, settings, checkpointer, should_stop)
        except NonFiniteError:
            checkpointer.save(state, best=False)
            raise
        except OutOfMemory as error:
            too_large = str(error)
        except torch.OutOfMemoryError as error:  # clipping or the step, which no smaller micro-batch helps
            raise ConfigError(STEP_TOO_LARGE.format(str(error).splitlines()[0])) from error
        if too_large:  # after the error is gone, whose frames hold tensors
            _halve_micro_batch(state, data, too_large)
            continue  # with the update that did not fit: nothing of it has happened
        started = time.perf_counter()
        trained = progress.window == data.updates_per_epoch
        scores = evaluate(state, valid, metrics, settings, should_stop) if trained else None
        if scores is None:
            checkpointer.save(state, best=False)
            raise Interrupted(f"stopped after update {progress.update}, in epoch {epoch + 1}")
        state.schedule.end_epoch(scores[settings.metric], progress.update)
        row = _history_row(state, scores, time.perf_counter() - started, epoch < data.frozen_epochs)
        best = progress.end_epoch(
            scores[settings.metric], row, settings.first_epoch, settings.higher_is_better
        )
        checkpointer.save(state, best)
        say(row, best)
    return "early_stopped" if _waited_enough(state, settings) else "finished"


def train_one_epoch(
    state: TrainState,
    windows: Iterable[list[Batch]],
    data: TrainingData,
    settings: Settings,
    checkpointer: Checkpointer = NULL_CHECKPOINTER,
    should_stop: Callable[[], bool] = never,
) -> None:
    """One update for each window of micro-batches, with the gradient of one big batch over all processes."""
    model, criterion, optimizer = state.model, state.criterion, state.optimizer
    scaler, progress, processes = state.scaler, state.progress, settings.processes
    model.train()
    with NonFiniteGuard(state, data, settings.device, processes) as updates:
        for window in _timed(processes.in_lockstep(windows), updates):
            batches = data.mixing([batch.to(settings.device) for batch in window], progress.update)
            state.schedule.set(optimizer, progress.update)
            optimizer.zero_grad()
            with kept(updates.statistics) as before:
                normalizer = update_normalizer(criterion, batches, progress.micro_batch, processes)
                losses = []
                with processes.sync_errors():
                    for place, part, batch in micro_batches(batches, data.first_place, progress.micro_batch):
                        seed_dropout(settings, progress.update, place, part)
                        with settings.autocast():
                            outputs = state.outputs(batch.images)
                        loss = criterion(outputs, batch.targets, normalizer)
                        scaler.scale(loss).backward()
                        losses.append(loss.detach())
                total = processes.sum(added(losses, processes.world_size > 1))
                processes.sum_gradients(updates.parameters)
                processes.merge_statistics(model, updates.statistics, before, sum(map(bool, batches)))
            scaler.unscale_(optimizer)
            norm, rows = clip(updates.parameters, settings.clip_norm), [batch.rows for batch in batches]
            update = Update(rows, total, norm, before, processes.count(sum(map(len, rows))))
            taken = updates.check(update)  # or raises NonFiniteError
            scaler.step(optimizer)
            scaler.update()
            if taken:
                state.average.update(model)
            progress.end_update(update.loss or 0.0, update.samples)
            due, stop = processes.any(checkpointer.should_save(progress), should_stop())
            if stop:
                return
            if due:
                checkpointer.save(updates.flush(), best=False)


@torch.no_grad()
def evaluate(
    state: TrainState,
    valid: ValidationData,
    metrics: MetricCollection,
    settings: Settings,
    should_stop: Callable[[], bool] = never,
) -> dict[str, float] | None:
    """Scores over all validation rows at once, by name; `loss` is the criterion's over the whole set. None if asked
    to stop before the end.

    Several processes take the batches in turn, and each counts them all, in order: the scores are those of one.
    """
    model, criterion, processes = state.average.model, state.criterion, settings.processes
    processes.require_same_weights(model)
    model.eval()
    metrics.reset()
    outputs_of = OOMFallback(model)
    labels = valid.targets(settings.device)
    normalizer = numbers(criterion.normalizer(labels))
    loss = torch.zeros((), device=settings.device, dtype=torch.float64)
    found: list[tuple[Tensor, dict[str, Tensor]]] = []
    waiting = 0

    def count() -> None:
        """What has been found so far: many batches at once cost as much as one."""
        nonlocal loss, waiting
        rows = torch.cat([rows for rows, _ in found])
        outputs = {name: torch.cat([part[name] for _, part in found]) for name in found[0][1]}
        targets = {name: values[rows] for name, values in labels.items()}
        metrics.update(outputs, targets)
        if criterion.additive:
            loss += criterion(outputs, targets, normalizer)
        found.clear()
        waiting = 0

    for batch, everyones in processes.in_lockstep(valid.rounds(state.progress.epoch)):
        with settings.autocast():
            own = outputs_of(batch.to(settings.device).images)
        sizes = [len(rows) for rows in everyones]
        found += zip(everyones, processes.gather_outputs(own, sizes), strict=True)
        waiting += sum(sizes)
        if waiting >= COUNTED_AT_ONCE:
            count()
        if processes.any(should_stop())[0]:
            return None
    if found:
        count()
    if metrics.invalid:
        raise NonFiniteError(f"validation: {metrics.invalid} rows have no finite prediction")
    if not torch.isfinite(loss):
        raise NonFiniteError(
            f"validation: the loss is {float(loss)}; predictions are finite, but too far off"
        )
    scores = flat_scores(metrics.compute())
    return scores | ({"loss": float(loss)} if criterion.additive else {})


def micro_batches(batches: list[Batch], first_place: int, most: int) -> Iterator[tuple[int, int, Batch]]:
    """(place in the update, part, batch) of all pieces of an update's batches, of at most so many images each."""
    for place, batch in enumerate(batches, start=first_place):
        for part, piece in enumerate(batch.parts(most)):
            yield place, part, piece


def update_normalizer(
    criterion: Criterion, batches: list[Batch], most: int, processes: Processes
) -> Normalizer:
    """What the losses of an update are divided by: the normalizers of all its micro-batches, in all processes."""
    # Several processes must all go the same way, and one of them may have no rows.
    if processes.world_size == 1 and criterion.counts_rows and all(batch.complete for batch in batches):
        rows = sum(len(batch) for batch in batches)  # nothing to count
        is_whole = len(batches) == 1 and not 0 < most < rows
        return (WholeUpdate if is_whole else list)([float(rows)] * criterion.terms)
    return processes.total(criterion.update_normalizer([batch.targets for batch in batches]))


def added(losses: list[Tensor], exactly: bool) -> Tensor:
    """Their sum; in float64, unless there is but one and no other process adds to it."""
    if len(losses) == 1 and not exactly:
        return losses[0]
    return torch.stack(losses).sum(dtype=torch.float64)


def seed_dropout(settings: Settings, update: int, place: int, part: int) -> None:
    """Dropout depends on (seed, update, micro-batch), so that a resumed run draws what the first one would have
    drawn, and several processes what one would have."""
    seed = mixed_seed(settings.seed, DROPOUT, update, place, part)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed takes 30 times longer: it walks all devices
    if settings.device.type == "cuda":
        torch.cuda.manual_seed(seed)


@contextlib.contextmanager
def kept(buffers: list[Tensor]) -> Iterator[list[Tensor]]:
    """What the buffers were before the block, and are again if it ends by an error."""
    before = [buffer.clone() for buffer in buffers]
    try:
        yield before
    except BaseException:
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)
        raise


def _halve_micro_batch(state: TrainState, data: TrainingData, found: str) -> None:
    """Half as many images at once from now on: with the window's normalizer, the gradient stays that of one batch."""
    size = state.progress.micro_batch or data.loader.batch_size
    if size == 1 or not state.criterion.additive or data.queries is not None:
        why = (
            "one image" if size == 1 else "a batch that cannot be computed in parts (soft F1, whole queries)"
        )
        raise ConfigError(f"training.batch_size: {why} does not fit the device's memory: {found}")
    state.progress.micro_batch = -(-size // 2)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _timed(windows: Iterable[list[Batch]], updates: NonFiniteGuard) -> Iterator[list[Batch]]:
    """Add the seconds that pass to the epoch's, so that an interrupted epoch keeps count; the last ones are over when
    the device has done what it was given."""
    started = time.perf_counter()

    def spend() -> None:
        nonlocal started
        now = time.perf_counter()
        updates.state.progress.epoch_seconds += now - started
        started = now

    for window in windows:
        try:
            yield window
        finally:  # the last update before an interruption counts as well
            spend()
    updates.flush()
    spend()


def _history_row(
    state: TrainState, scores: dict[str, float], valid_seconds: float, frozen: bool
) -> dict[str, Any]:
    progress, weights = state.progress, state.criterion.learnt_weights()
    row: dict[str, Any] = {
        "epoch": progress.epoch + 1,
        "update": progress.update,
        "lr": state.optimizer.param_groups[-1]["lr"],
        "train_loss": progress.loss_sum / progress.samples,
        "valid": scores,
        "seconds": round(progress.epoch_seconds + valid_seconds, 3),
        "images_per_second": round(progress.samples / max(progress.epoch_seconds, 1e-9), 1),
    }
    row |= {"frozen": True} if frozen else {}
    row |= {"micro_batch": progress.micro_batch} if progress.micro_batch else {}
    row |= {"target_weights": weights} if weights else {}
    return row | ({"skipped_updates": progress.skipped_updates} if progress.skipped_updates else {})


def _waited_enough(state: TrainState, settings: Settings) -> bool:
    progress = state.progress
    may_stop = settings.patience is not None and progress.epoch >= settings.first_epoch
    return may_stop and progress.epochs_without_improvement >= (settings.patience or 0)
