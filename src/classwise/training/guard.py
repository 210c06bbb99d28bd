"""Skips or refuses updates whose loss or gradient is not finite: the weights from before such an update stay.

torch's fused optimizers can skip a step by themselves: they do where `optimizer.found_inf` is 1, which loss scaling
uses. With such an optimizer on a GPU the check is deferred. The host queues this update's step and the next update's
passes, and only then reads whether this step was taken; it never waits in between.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from classwise.data.batch import Batch
from classwise.data.epochs import TrainingData
from classwise.distributed import Processes
from classwise.errors import ConfigError, NonFiniteError
from classwise.model.average import NoAverage
from classwise.training.state import TrainState
from classwise.training.update import Update, restore, total_loss, update_normalizer

TOO_LARGE = (
    "optimizer.name, training.accumulate: memory ran out beside the forward and backward passes ({}). Use an optimizer"
    " with less state, such as sgd, fewer micro-batches per update, or a smaller model"
)


class NonFiniteGuard:
    """What surrounds the updates of an epoch: accumulation across processes, clipping, and the check that loss and
    gradient are finite.

    A context manager, to be entered once: at its end, whatever ends it, every check is settled.
    """

    def __init__(
        self,
        state: TrainState,
        data: TrainingData,
        device: torch.device,
        processes: Processes,
        clip_norm: float = math.inf,
    ) -> None:
        self.state = state
        self.data = data
        self.processes = processes
        self.clip_norm = clip_norm
        self.parameters = state.parameters
        self.statistics = state.model.statistics
        self.defers_checks = can_defer_check(state, device)
        self._found_inf = torch.zeros((), device=device)
        self._one = torch.ones((), device=device)
        # An update whose outcome the device has not reported yet, and how to read its report.
        self._pending: tuple[Update, Callable[[], list[float]]] | None = None
        self._has_moments = False
        self._optimizer: Any = state.optimizer  # `found_inf` is not among the attributes that types know

    def __enter__(self) -> Self:
        if self.defers_checks:
            self._optimizer.found_inf = self._found_inf  # what torch's loss scaler would set
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: object
    ) -> None:
        if self.defers_checks:
            del self._optimizer.found_inf
        if isinstance(error, torch.OutOfMemoryError):
            # Passes that do not fit raise OutOfMemory, which smaller chunks help; nothing smaller helps this.
            raise ConfigError(TOO_LARGE.format(str(error).splitlines()[0].rstrip("."))) from error
        self.flush()

    def accumulate(self, micro_batches: Sequence[Batch]) -> "Accumulation":
        """The forward and backward passes of one update run inside this block; after it, loss, gradient and batch
        norm's statistics are those of all processes. An error in one process is raised in all of them, and leaves the
        statistics as they were; too little memory raises OutOfMemory."""
        return Accumulation(self, micro_batches)

    def check(self, update: Update) -> bool:
        """Clip the gradient, and return whether the step is to be taken.

        False where fp16's gradient overflowed: the loss scale is then lowered, and batch norm's statistics stay as
        this update has left them, as with torch's own scaler. Raises NonFiniteError, of this update or, where checks
        are deferred, of the one before; everything is then as it was before that update.
        """
        scaler = self.state.scaler
        if scaler.is_enabled():
            update.total = update.total / scaler.get_scale()
            scaler.unscale_(self._optimizer)
        update.norm = clip(self.parameters, self.clip_norm)
        if self.defers_checks and self._can_skip():
            self._defer(update)
            return True
        is_finite = self._settle(update, float(update.total), self._gradient_is_finite(update))
        if self.defers_checks:
            self._found_inf.zero_()  # the step reads it
        if scaler.is_enabled():
            scaler.update()
        return is_finite

    def flush(self) -> TrainState:
        """The state, once the device has reported on every update. Raises NonFiniteError."""
        if self._pending is None:
            return self.state
        (update, read_report), self._pending = self._pending, None
        loss, is_finite = read_report()
        # The loop has counted it with a loss of 0, before the loss was known: undone here, and counted again below.
        self.state.progress.undo_update(update.samples)
        self._settle(update, loss, bool(is_finite))
        self.state.progress.end_update(loss, update.samples)
        return self.state

    def _defer(self, update: Update) -> None:
        """Let the device decide whether the step is taken, and read its decision after the next update."""
        self.flush()  # reads the report on the update before, while the device computes this one
        if update.norm is None:
            self._found_inf.zero_()
            self._look_at_gradients()
        else:
            self._found_inf.copy_(update.norm.isfinite().logical_not_())
        gradient_is_finite = self._found_inf == 0
        self._found_inf.copy_((gradient_is_finite & update.total.isfinite()).logical_not_())
        report = torch.stack([update.total.double(), gradient_is_finite.double()])
        update.free_batches()  # its images must not stay on the device beside the next update's
        self._pending = update, _to_host_async(report)

    def _can_skip(self) -> bool:
        """Whether every parameter that learns has its moments already. torch's fused SGD makes them in its first step,
        and where it skips that step, they stay uninitialized memory."""
        if not self._has_moments:
            moments = self._optimizer.state
            self._has_moments = all(
                group.get("momentum") == 0 or all(p.grad is None or p in moments for p in group["params"])
                for group in self._optimizer.param_groups
            )
        return self._has_moments

    def _gradient_is_finite(self, update: Update) -> bool:
        if update.norm is not None:
            return math.isfinite(update.norm)
        self._look_at_gradients()
        is_finite = not self._found_inf.item()
        if not is_finite:
            self._found_inf.zero_()
        return is_finite

    def _look_at_gradients(self) -> None:
        """Set `_found_inf`, which is 0, to 1 if some gradient is not finite: by the kernel of torch.amp.GradScaler with
        a scale of 1, which takes a seventh of the norm's time."""
        gradients = [gradient for p in self.parameters if (gradient := p.grad) is not None]
        if gradients:
            torch._amp_foreach_non_finite_check_and_unscale_(gradients, self._found_inf, self._one)

    def _settle(self, update: Update, loss: float, gradient_is_finite: bool) -> bool:
        """Whether the update's step is taken, now that its loss is known, which is set in `update`. Counts a skipped
        step; otherwise restores what the update has changed and raises NonFiniteError."""
        update.loss = loss if math.isfinite(loss) else 0.0  # NaN must not enter the epoch's sum
        if math.isfinite(loss) and gradient_is_finite:
            return True
        state = self.state
        if math.isfinite(loss) and state.scaler.is_enabled() and state.scaler.get_scale() > 1:
            state.progress.skipped_updates += 1  # and the scaler lowers its scale
            return False

        # Nothing of this update stays: batch norm's statistics and the learning rate go back to what they were.
        restore(self.statistics, update.statistics_before)
        state.schedule.set(state.optimizer, state.progress.update)

        # Every process names its own samples, so that the message names them all.
        names = [name for rows in update.rows for name in self.data.names(rows)]
        samples = [name for part in self.processes.all_gather_object(names) for name in part]
        what = "the norm of the gradient is not finite" if math.isfinite(loss) else f"the loss is {loss}"
        raise NonFiniteError(
            f"update {state.progress.update + 1}: {what}; the weights are those from before it. Samples:"
            f" {', '.join(samples)}"
        )


class Accumulation:
    """The block of `NonFiniteGuard.accumulate`; see there.

    A class, since every update enters one: as a generator under `contextlib.contextmanager`, with the parts nested in
    it as others, it took as long as a layer of a small network.
    """

    __slots__ = ("guard", "micro_batches", "update")

    def __init__(self, guard: NonFiniteGuard, micro_batches: Sequence[Batch]) -> None:
        self.guard = guard
        self.micro_batches = micro_batches

    def __enter__(self) -> Update:
        guard = self.guard
        chunk_size = guard.state.progress.chunk_size
        self.update = Update(
            micro_batches=self.micro_batches,
            first_micro_batch_idx=guard.data.first_micro_batch_idx,
            chunk_size=chunk_size,
            normalizer=update_normalizer(
                guard.state.criterion, self.micro_batches, chunk_size, guard.processes
            ),
            statistics_before=[buffer.clone() for buffer in guard.statistics],
        )
        return self.update

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: object
    ) -> None:
        update = self.update
        guard = self.guard
        processes = guard.processes
        try:
            if error is not None or processes.world_size > 1:
                self._agree_on_error(error)
            update.total = processes.sum(total_loss(update.losses, processes.world_size > 1))
            update.samples = processes.count(sum(map(len, self.micro_batches)))
            processes.sum_gradients(guard.parameters)
            processes.merge_statistics(
                guard.state.model, guard.statistics, update.statistics_before, update.nonempty_chunks
            )
        except BaseException:
            restore(guard.statistics, update.statistics_before)
            raise

    def _agree_on_error(self, error: BaseException | None) -> None:
        """Raise the error of the block, if any, in all processes."""
        with self.guard.processes.sync_errors():
            if error is not None:
                raise error


def can_defer_check(state: TrainState, device: torch.device) -> bool:
    """Whether the host may read an update's outcome while the device computes the next one: on a GPU, where the
    optimizer skips a step that must not be taken. Not with a loss scale, which the host keeps, nor with an average of
    the weights, which has to be taken between two updates."""
    can_skip = bool(getattr(state.optimizer, "_step_supports_amp_scaling", False))
    has_average = not isinstance(state.average, NoAverage)
    return device.type == "cuda" and can_skip and not has_average and not state.scaler.is_enabled()


def clip(parameters: Sequence[nn.Parameter], max_norm: float) -> Tensor | None:
    """The norm of the gradient, which is scaled down to `max_norm` if it is larger; None for an infinite
    `max_norm`."""
    if math.isinf(max_norm):
        return None
    norm = get_total_norm([gradient for parameter in parameters if (gradient := parameter.grad) is not None])
    clip_grads_with_norm_(parameters, max_norm, norm)
    return norm


def _to_host_async(numbers: Tensor) -> Callable[[], list[float]]:
    """Send numbers to the host; the function waits for them, and not for what the device was given afterwards."""
    if numbers.device.type != "cuda":
        return numbers.tolist
    host = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
    host.copy_(numbers, non_blocking=True)
    arrived = torch.cuda.current_stream(numbers.device).record_event()

    def read() -> list[float]:
        arrived.synchronize()
        values: list[float] = host.tolist()
        return values

    return read
