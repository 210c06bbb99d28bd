"""The training process: the loop that really runs, written to be read.

`train` holds the epochs, `train_one_epoch` the lines of every lecture on PyTorch (train, zero_grad, criterion,
backward, step), and `evaluate` the inference process (eval, no gradients, metrics). Everything they work with is
passed in.

An *update* is one step of the optimizer. It is made of one or more *micro-batches* (gradient accumulation); each of
these is computed whole, or in *chunks* where memory is short.

What production adds is behind these names:

    settings.processes   several processes that train one model; a single process sends nothing (distributed.py)
    NonFiniteGuard       adds up an update's gradient, clips it, and refuses one that is not finite (guard.py)
    ValidationResults    turns the outputs of all validation rows into scores (validation.py)

Where memory runs out, `train` raises OutOfMemory, and a run calls it again with smaller chunks (training/oom.py).
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
    """What stays fixed while training.

    `metric` is the score that selects the best epoch, by its name in what `evaluate` returns; from `first_epoch` on,
    which replaces whatever was best before it. `patience`: epochs without improvement until early stopping, None for
    never. `clip_norm`: the largest norm of the gradient, infinite for no clipping. `processes` are those that train
    together, usually one.
    """

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


def unwatched(updates: Iterable[list[Batch]], epoch: int, first_update: int) -> Iterable[list[Batch]]:
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

    Continues from wherever `state.progress` is, also in mid-epoch. Once `should_stop` returns True it has to stay
    True.

    Raises Interrupted if asked to stop, and NonFiniteError if a training loss or gradient is not finite, both after
    the state is saved; NonFiniteError from validation, and OutOfMemory, without saving.
    """
    progress = state.progress
    while progress.epoch < settings.epochs and not out_of_patience(progress, settings):
        # One pass over the training rows, or the rest of one that was interrupted.
        epoch = progress.epoch
        first_update = progress.update_in_epoch
        state.criterion.set_epoch(epoch)
        updates = watch(data.updates(epoch, skip=first_update), epoch, first_update)
        try:
            train_one_epoch(state, updates, data, settings, checkpointer, should_stop)
        except NonFiniteError:
            checkpointer.save(state, best=False)
            raise

        # One pass over the validation rows, unless training was stopped before the end of the epoch. A requested stop
        # happens only after the state is saved.
        started = time.perf_counter()
        is_whole_epoch = progress.update_in_epoch == data.updates_per_epoch
        scores = evaluate(state, valid, metrics, settings, should_stop) if is_whole_epoch else None
        if scores is None:
            checkpointer.save(state, best=False)
            raise Interrupted(f"stopped after update {progress.update}, in epoch {epoch + 1}")
        valid_seconds = time.perf_counter() - started

        # The schedule may follow the metric; the best epoch by the metric is the one whose weights are kept (without
        # validation rows the last). How the rows came out stays too: it tells how much of the best score is luck.
        value = scores[settings.metric] if scores else None
        if value is not None:
            state.schedule.end_epoch(value, progress.update)
        row = history_row(state, scores, valid_seconds, is_frozen=epoch < data.frozen_epochs)
        best = progress.end_epoch(value, row, settings.first_epoch, settings.higher_is_better)
        state.outcomes.add(progress.epoch, metrics.outcomes, settings.first_epoch)
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

    Exactly so unless an image's outputs depend on the others of its forward pass, as with batch norm that is not frozen
    (model/batch_norm.py).

    Returns early when `should_stop` says so. Raises NonFiniteError (of the update before, where a GPU reports late)
    and OutOfMemory; the update that it is about has then changed nothing.
    """
    model, optimizer, progress = state.model, state.optimizer, state.progress
    forward = settings.in_precision(state.forward)
    criterion = scaled_loss(state.criterion, state.scaler)
    model.train()
    state.criterion.train()
    with NonFiniteGuard(state, data, settings.device, settings.processes, settings.clip_norm) as guard:
        for micro_batches in timed(settings.processes.in_lockstep(updates), guard):
            # The images go to the device, and may be mixed there (mixup, CutMix).
            batches = data.mixing([batch.to(settings.device) for batch in micro_batches], progress.update)

            # Gradients start from zero, at the learning rate of this update.
            state.schedule.set(optimizer, progress.update)
            optimizer.zero_grad()

            # Each chunk adds its part of the gradient: the sum over its rows, divided by the normalizer of the whole
            # update. A mean of means would be another gradient wherever sizes, weights or missing labels differ. At the
            # end of the block the gradients are summed over all ranks.
            with guard.accumulate(batches) as update:
                for micro_batch_idx, chunk_idx, chunk in update.chunks():
                    seed_dropout(settings, progress.update, micro_batch_idx, chunk_idx)
                    outputs = forward(chunk.images)
                    loss = criterion(outputs, chunk.targets, update.normalizer)
                    loss.backward()
                    update.add(loss)

            # Clip the gradient, and ask whether to step: not if fp16 overflowed. A loss or gradient that is not finite
            # raises an error. On a GPU the answer may come one update late, and the device skips the step by itself.
            if guard.check(update):
                optimizer.step()
                state.average.update(model)
            progress.end_update(update.loss, update.samples)

            # Only here, between two updates, is it safe to save a checkpoint or to stop.
            should_save, stop = settings.processes.any(checkpointer.should_save(progress), should_stop())
            if stop:
                return
            if should_save:
                guard.flush()  # waits until the device has reported on this update
                checkpointer.save(state, best=False)


@torch.no_grad()
def evaluate(
    state: TrainState,
    valid: ValidationData,
    metrics: MetricCollection,
    settings: Settings,
    should_stop: Callable[[], bool] = never,
) -> dict[str, float] | None:
    """Scores over all validation rows at once, by name; `loss` is that of the whole set, where the criterion is a sum
    over rows. None if asked to stop before the end. Raises NonFiniteError.

    In each round every process computes one batch, and all count the batches of all, in order: the scores are those of
    one process. The epoch says whether the rows come as images or as features of a frozen backbone. Empty where there
    are no validation rows.
    """
    if not len(valid):
        return None if settings.processes.any(should_stop())[0] else {}
    model = state.average.model  # the averaged weights; without averaging, the model itself
    settings.processes.require_same_weights(model)
    model.eval()
    state.criterion.eval()
    forward = settings.in_precision(OOMFallback(model))
    results = ValidationResults(state.criterion, valid, metrics, settings.device, settings.processes)
    for batch, rows_by_rank in settings.processes.in_lockstep(valid.rounds(state.progress.epoch)):
        batch = batch.to(settings.device)
        outputs = forward(batch.images)
        results.update(batch, outputs, rows_by_rank)
        if settings.processes.any(should_stop())[0]:
            return None
    return results.compute()


def seed_dropout(settings: Settings, update_idx: int, micro_batch_idx: int, chunk_idx: int) -> None:
    """Dropout depends on (seed, update, micro-batch, chunk), so that a resumed run draws what an uninterrupted one
    would have drawn, and several processes what one process would have drawn."""
    seed = mixed_seed(settings.seed, DROPOUT, update_idx, micro_batch_idx, chunk_idx)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed takes 30 times longer: it walks all devices
    if settings.device.type == "cuda":
        torch.cuda.manual_seed(seed)


def timed(items: Iterable[T], guard: NonFiniteGuard) -> Iterator[T]:
    """Yields the items and adds the time of each to the epoch's seconds, so that an interrupted epoch keeps its time.
    At the end it waits until the device has reported on the last update."""
    progress = guard.state.progress
    started = time.perf_counter()
    for item in items:
        try:
            yield item
        finally:  # the last update before an interruption counts as well
            now = time.perf_counter()
            progress.epoch_seconds += now - started
            started = now
    guard.flush()
    progress.epoch_seconds += time.perf_counter() - started


def out_of_patience(progress: Progress, settings: Settings) -> bool:
    """Whether early stopping ends the run: `patience` epochs in a row have not improved on the best one."""
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
        "lr": state.optimizer.param_groups[-1]["lr"],  # that of the heads: a backbone may have a lower one
        "train_loss": progress.loss_sum
        / progress.samples,  # the mean of the updates' losses, weighted by rows
        "valid": scores,
        "seconds": round(progress.epoch_seconds + valid_seconds, 3),
        "images_per_second": round(progress.samples / max(progress.epoch_seconds, 1e-9), 1),
    }
    if is_frozen:
        row["frozen"] = True  # trained on features of the frozen backbone
    if progress.chunk_size:
        row["micro_batch"] = progress.chunk_size  # the name of the config key
    if weights := state.criterion.learned_weights():
        row["target_weights"] = weights
    if progress.skipped_updates:
        row["skipped_updates"] = progress.skipped_updates
    return row
