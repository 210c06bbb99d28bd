"""The training process: the loop that really runs, written to be read.

`train` holds the epochs, `train_one_epoch` the lecture's lines (train, zero_grad, criterion, backward, step), and
`evaluate` the inference process (eval, no gradients, metrics). Everything they work with is handed to them. What
production adds stands behind these names:

    settings.processes     several processes that train one model; one process alone sends nothing (distributed.py)
    NonFiniteGuard         adds up an update's gradient, clips it, and refuses one that is not finite (guard.py)
    ValidationResults      turns the outputs of all validation rows into scores (validation.py)
    retry_in_smaller_chunks    calls `train` again where memory ran out (oom.py)
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from classwise.data.batch import Batch
from classwise.data.epochs import TrainingData, ValidationData
from classwise.distributed import SINGLE_PROCESS, Processes
from classwise.errors import Interrupted, NonFiniteError
from classwise.metrics.collection import MetricCollection
from classwise.model.oom import OOMFallback
from classwise.randomness import DROPOUT, mixed_seed
from classwise.training.guard import NonFiniteGuard
from classwise.training.state import Progress, TrainState
from classwise.training.update import scaled_loss
from classwise.training.validation import ValidationResults

T = TypeVar("T")
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
Forward = Callable[[Tensor], dict[str, Tensor]]


class Checkpointer(Protocol):
    """Saves states; the loop does not know where."""

    def should_save(self, progress: Progress) -> bool:
        """Whether to save the state now, in the middle of an epoch."""

    def save(self, state: TrainState, best: bool) -> None:
        """Save the state as the last one and, if `best`, as the best one."""


class NullCheckpointer:
    """A checkpointer that saves nothing."""

    def should_save(self, progress: Progress) -> bool:
        """Never."""
        return False

    def save(self, state: TrainState, best: bool) -> None:
        """Nothing."""


NULL_CHECKPOINTER = NullCheckpointer()


@dataclass(frozen=True)
class Settings:
    """What stays fixed while training. `metric` is a name in `flat_scores`; `clip_norm` may be infinite;
    `processes` are those that train together, usually one."""

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

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """A block in the chosen precision; in fp32 it changes nothing."""
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=PRECISIONS[self.precision])

    def in_precision(self, forward: Forward) -> Forward:
        """The forward pass in the chosen precision; in fp32 it is `forward` itself."""
        if self.precision == "fp32":
            return forward

        def autocast_forward(images_BCHW: Tensor) -> dict[str, Tensor]:
            with self.autocast():
                return forward(images_BCHW)

        return autocast_forward


def never() -> bool:
    """Nobody asks the run to stop."""
    return False


def unwatched(updates: Iterable[list[Batch]], epoch: int, skipped: int) -> Iterable[list[Batch]]:
    """No progress bar."""
    return updates


def silent(row: dict[str, Any], best: bool) -> None:
    """Nobody reads the epoch's row of the history."""


def train(
    state: TrainState,
    data: TrainingData,
    valid: ValidationData,
    metrics: MetricCollection,
    settings: Settings,
    checkpointer: Checkpointer,
    should_stop: Callable[[], bool] = never,
    watch: Callable[[Iterable[list[Batch]], int, int], Iterable[list[Batch]]] = unwatched,
    report: Callable[[dict[str, Any], bool], None] = silent,
) -> str:
    """Train until the last epoch, or until the metric stops improving; returns `finished` or `early_stopped`.

    Goes on from wherever `state.progress` is, also in mid-epoch. Raises Interrupted if asked to stop, NonFiniteError
    for a loss or gradient that is not finite (both with the state saved), and OutOfMemory.
    """
    progress = state.progress
    while progress.epoch < settings.epochs and not out_of_patience(progress, settings):
        # One pass over the training rows, or the rest of one that was interrupted.
        epoch, skipped = progress.epoch, progress.update_in_epoch
        state.criterion.set_epoch(epoch)
        updates = watch(data.updates(epoch, skip=skipped), epoch, skipped)
        try:
            train_one_epoch(state, updates, data, settings, checkpointer, should_stop)
        except NonFiniteError:
            checkpointer.save(state, best=False)
            raise

        # One pass over the validation rows. Whoever asked for a stop gets it after the state is saved.
        started = time.perf_counter()
        is_whole_epoch = progress.update_in_epoch == data.updates_per_epoch
        scores = evaluate(state, valid, metrics, settings, should_stop) if is_whole_epoch else None
        if scores is None:
            checkpointer.save(state, best=False)
            raise Interrupted(f"stopped after update {progress.update}, in epoch {epoch + 1}")
        valid_seconds = time.perf_counter() - started

        # The schedule may follow the metric; the best epoch by the metric is the one whose weights are kept.
        value = scores[settings.metric]
        state.schedule.end_epoch(value, progress.update)
        row = history_row(state, scores, valid_seconds, is_frozen=epoch < data.frozen_epochs)
        best = progress.end_epoch(value, row, settings.first_epoch, settings.higher_is_better)
        checkpointer.save(state, best)
        report(row, best)
    return "early_stopped" if out_of_patience(progress, settings) else "finished"


def train_one_epoch(
    state: TrainState,
    updates: Iterable[list[Batch]],
    data: TrainingData,
    settings: Settings,
    checkpointer: Checkpointer = NULL_CHECKPOINTER,
    should_stop: Callable[[], bool] = never,
) -> None:
    """One step of the optimizer for each list of micro-batches in `updates`, with the gradient of one big batch.

    Returns early where `should_stop` says so. Raises NonFiniteError and OutOfMemory; the update that raised has then
    changed nothing.
    """
    model, optimizer, progress = state.model, state.optimizer, state.progress
    forward = settings.in_precision(state.forward)
    criterion = scaled_loss(state.criterion, state.scaler)
    model.train()
    with NonFiniteGuard(state, data, settings.device, settings.processes, settings.clip_norm) as guard:
        for micro_batches in timed(settings.processes.in_lockstep(updates), guard):
            # The images go to the device, and may be mixed there (mixup, CutMix).
            batches = data.mixing([batch.to(settings.device) for batch in micro_batches], progress.update)

            # Gradients start from zero, at the learning rate of this update.
            state.schedule.set(optimizer, progress.update)
            optimizer.zero_grad()

            # Each chunk adds its part of the gradient: the sum over its rows, divided by the normalizer of the whole
            # update. A mean of means would be another gradient wherever sizes, weights or missing labels differ.
            with guard.accumulate(batches) as update:
                for micro_batch_idx, chunk_idx, batch in update.chunks():
                    seed_dropout(settings, progress.update, micro_batch_idx, chunk_idx)
                    outputs = forward(batch.images)
                    loss = criterion(outputs, batch.targets, update.normalizer)
                    loss.backward()
                    update.add(loss)

            # The gradient is clipped and checked; one that fp16 could not hold is skipped.
            if guard.check(update):
                optimizer.step()
                state.average.update(model)
            progress.end_update(update.loss, update.samples)

            # Between two updates is the only time to save a checkpoint, or to stop.
            should_save, stop = settings.processes.any(checkpointer.should_save(progress), should_stop())
            if stop:
                return
            if should_save:
                checkpointer.save(guard.flush(), best=False)


@torch.no_grad()
def evaluate(
    state: TrainState,
    valid: ValidationData,
    metrics: MetricCollection,
    settings: Settings,
    should_stop: Callable[[], bool] = never,
) -> dict[str, float] | None:
    """Scores over all validation rows at once, by name; `loss` is the criterion's over the whole set. None if asked
    to stop before the end. Raises NonFiniteError.

    With averaged weights, these are the ones that are evaluated. Several processes take the batches in turn, and each
    counts them all, in order: the scores are those of one process.
    """
    model = state.average.model
    settings.processes.require_same_weights(model)
    model.eval()
    forward = settings.in_precision(OOMFallback(model))
    results = ValidationResults(state.criterion, valid, metrics, settings.device, settings.processes)
    for batch, rows_by_rank in settings.processes.in_lockstep(valid.rounds(state.progress.epoch)):
        batch = batch.to(settings.device)
        outputs = forward(batch.images)
        results.update(batch, outputs, rows_by_rank)
        if settings.processes.any(should_stop())[0]:
            return None
    return results.compute()


def seed_dropout(settings: Settings, update: int, micro_batch_idx: int, chunk_idx: int) -> None:
    """Dropout depends on (seed, update, micro-batch, chunk), so that a resumed run draws what an uninterrupted one
    would have drawn, and several processes what one process would have."""
    seed = mixed_seed(settings.seed, DROPOUT, update, micro_batch_idx, chunk_idx)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed takes 30 times longer: it walks all devices
    if settings.device.type == "cuda":
        torch.cuda.manual_seed(seed)


def timed(updates: Iterable[T], guard: NonFiniteGuard) -> Iterator[T]:
    """The updates, whose seconds are added to the epoch's one by one, so that an interrupted epoch keeps count; the
    last ones are over when the device has done what it was given."""
    progress = guard.state.progress
    started = time.perf_counter()
    for update in updates:
        try:
            yield update
        finally:  # the last update before an interruption counts as well
            now = time.perf_counter()
            progress.epoch_seconds += now - started
            started = now
    guard.flush()
    progress.epoch_seconds += time.perf_counter() - started


def out_of_patience(progress: Progress, settings: Settings) -> bool:
    """Whether early stopping ends the run: as many epochs without improvement as it has patience for."""
    if settings.patience is None or progress.epoch < settings.first_epoch:
        return False
    return progress.epochs_without_improvement >= settings.patience


def history_row(
    state: TrainState, scores: dict[str, float], valid_seconds: float, is_frozen: bool
) -> dict[str, Any]:
    """The epoch's line in history.jsonl."""
    progress = state.progress
    row: dict[str, Any] = {
        "epoch": progress.epoch + 1,
        "update": progress.update,
        "lr": state.optimizer.param_groups[-1]["lr"],
        "train_loss": progress.loss_sum / progress.samples,
        "valid": scores,
        "seconds": round(progress.epoch_seconds + valid_seconds, 3),
        "images_per_second": round(progress.samples / max(progress.epoch_seconds, 1e-9), 1),
    }
    if is_frozen:
        row["frozen"] = True
    if progress.micro_batch:
        row["micro_batch"] = progress.micro_batch
    if weights := state.criterion.learned_weights():
        row["target_weights"] = weights
    if progress.skipped_updates:
        row["skipped_updates"] = progress.skipped_updates
    return row
