"""The training process: the loop that really runs, written to be read.

`train` holds the epochs, `train_one_epoch` the lecture's lines (train, zero_grad, criterion, backward, step),
`evaluate` the inference process (eval, no gradients, counting). Everything they work with is handed to them.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from classwise.data.loader import Batch, TrainingData, ValidationData
from classwise.errors import Interrupted, NonFiniteError
from classwise.metrics.scoreboard import Scoreboard, flat_scores
from classwise.randomness import DROPOUT, torch_seed
from classwise.train.state import TrainState

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Keeper(Protocol):
    """Where states are kept; the loop does not know how."""

    def save(self, state: TrainState, best: bool) -> None:
        """Keep the state as the last one and, if `best`, as the best one."""


@dataclass(frozen=True)
class Settings:
    """What stays fixed while training. `metric` is a name in `flat_scores`; `clip_norm` may be infinite."""

    seed: int
    epochs: int
    metric: str
    higher_is_better: bool
    first_epoch: int
    patience: int | None
    clip_norm: float
    precision: str
    device: torch.device

    def autocast(self) -> AbstractContextManager[Any]:
        """The forward pass in the chosen precision; in fp32 it changes nothing."""
        dtype = PRECISIONS[self.precision]
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype != torch.float32)


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
    scoreboard: Scoreboard,
    settings: Settings,
    keeper: Keeper,
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
        try:
            train_one_epoch(state, windows, data, settings, should_stop)
        except NonFiniteError:
            keeper.save(state, best=False)
            raise
        if progress.window < data.updates_per_epoch or should_stop():
            keeper.save(state, best=False)
            raise Interrupted(f"stopped after update {progress.update}, in epoch {epoch + 1}")
        started = time.perf_counter()
        scores = evaluate(state, valid, scoreboard, settings)
        state.schedule.end_epoch(scores[settings.metric], progress.update)
        row = _history_row(state, scores, time.perf_counter() - started, epoch < data.frozen_epochs)
        best = progress.end_epoch(
            scores[settings.metric], row, settings.first_epoch, settings.higher_is_better
        )
        keeper.save(state, best)
        say(row, best)
    return "early_stopped" if _waited_enough(state, settings) else "finished"


def train_one_epoch(
    state: TrainState,
    windows: Iterable[list[Batch]],
    data: TrainingData,
    settings: Settings,
    should_stop: Callable[[], bool] = never,
) -> None:
    """One update for each window of micro-batches, with the gradient of one big batch."""
    model, criterion, optimizer = state.model, state.criterion, state.optimizer
    scaler, progress = state.scaler, state.progress
    model.train()
    for window in _timed(windows, state):
        batches = data.mixing([batch.to(settings.device) for batch in window], progress.update)
        state.schedule.set(optimizer, progress.update)
        _seed_dropout(settings, progress.update)
        optimizer.zero_grad()
        statistics = [buffer.clone() for buffer in model.buffers()]
        mass = torch.stack([criterion.mass(batch.targets) for batch in batches]).sum(0)
        total = torch.zeros((), device=settings.device, dtype=torch.float64)
        for batch in batches:
            with settings.autocast():
                outputs = model(batch.images)
            loss = criterion(outputs, batch.targets, mass)
            scaler.scale(loss).backward()
            total += loss.detach()
        scaler.unscale_(optimizer)
        norm = clip_grad_norm_(state.parameters, settings.clip_norm)
        _refuse_non_finite(total, norm, statistics, batches, data, state)
        scaler.step(optimizer)
        scaler.update()
        if norm.isfinite():  # else the scaler has skipped the step
            state.average.update(model)
        progress.end_update(float(total), sum(len(batch) for batch in batches))
        if should_stop():
            return


@torch.no_grad()
def evaluate(
    state: TrainState, valid: ValidationData, scoreboard: Scoreboard, settings: Settings
) -> dict[str, float]:
    """Scores over all validation rows at once, by name; `loss` is the criterion's over the whole set."""
    model, criterion = state.average.model, state.criterion
    model.eval()
    scoreboard.reset()
    mass = criterion.mass(valid.targets(settings.device))
    loss = torch.zeros((), device=settings.device, dtype=torch.float64)
    for batch in valid.batches(state.progress.epoch):
        batch = batch.to(settings.device)
        with settings.autocast():
            outputs = model(batch.images)
        scoreboard.update(outputs, batch.targets)
        if criterion.additive:
            loss += criterion(outputs, batch.targets, mass)
    if scoreboard.invalid:
        raise NonFiniteError(f"validation: {scoreboard.invalid} rows have no finite prediction")
    if not torch.isfinite(loss):
        raise NonFiniteError(
            f"validation: the loss is {float(loss)}; predictions are finite, but too far off"
        )
    scores = flat_scores(scoreboard.results())
    return scores | ({"loss": float(loss)} if criterion.additive else {})


def _seed_dropout(settings: Settings, update: int) -> None:
    """Dropout depends on (seed, update), so that a resumed run draws what the first one would have drawn."""
    seed = torch_seed(settings.seed, DROPOUT, update)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed takes 30 times longer: it walks all devices
    if settings.device.type == "cuda":
        torch.cuda.manual_seed(seed)


def _refuse_non_finite(
    loss: Tensor,
    norm: Tensor,
    statistics: list[Tensor],
    batches: list[Batch],
    data: TrainingData,
    state: TrainState,
) -> None:
    """Stop before the step, so that the weights from before stay, and put back batch norm's `statistics`.

    In fp16 an infinite gradient is the scaler's business: it skips the update (which is counted) and lowers its
    scale."""
    what = None
    if not torch.isfinite(loss):
        what = f"the loss is {float(loss)}"
    elif not torch.isfinite(norm):
        if state.scaler.is_enabled() and state.scaler.get_scale() > 1:
            state.progress.skipped_updates += 1
            return
        what = f"the norm of the gradient is {float(norm)}"
    if what is not None:
        for buffer, before in zip(state.model.buffers(), statistics, strict=True):
            buffer.copy_(before)
        ids = [name for batch in batches for name in data.names(batch.rows)]
        raise NonFiniteError(
            f"update {state.progress.update + 1}: {what}; the weights are those from before it. Samples:"
            f" {', '.join(ids)}"
        )


def _timed(windows: Iterable[list[Batch]], state: TrainState) -> Iterator[list[Batch]]:
    """Add the seconds that pass to the epoch's, so that an interrupted epoch keeps count."""
    started = time.perf_counter()
    for window in windows:
        try:
            yield window
        finally:  # the last update before an interruption counts as well
            now = time.perf_counter()
            state.progress.epoch_seconds += now - started
            started = now


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
    row |= {"target_weights": weights} if weights else {}
    return row | ({"skipped_updates": progress.skipped_updates} if progress.skipped_updates else {})


def _waited_enough(state: TrainState, settings: Settings) -> bool:
    progress = state.progress
    may_stop = settings.patience is not None and progress.epoch >= settings.first_epoch
    return may_stop and progress.waited >= (settings.patience or 0)
