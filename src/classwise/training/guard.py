"""No step is taken with a loss or a gradient that is not finite: the weights from before it stay.

Where the optimizer can skip a step by itself, on the word of the device (torch's fused ones can, for loss scaling), the
host does not wait for that word: it hands the device the step and the next update's forward and backward passes, and
asks only then what came of this one. The device always has something to do.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from classwise.data.batch import Rows
from classwise.data.epochs import TrainingData
from classwise.distributed import Processes
from classwise.errors import NonFiniteError
from classwise.model.average import NoAverage
from classwise.training.state import TrainState


@dataclass
class Update:
    """What an update has come to before its step, on the device: the loss, and the gradient's norm where it is clipped.
    `rows` are those of this process's micro-batches, `samples` how many there are in all processes; `before`: the
    running statistics from before it. `loss` is None until the device has told it."""

    rows: Sequence[Rows]
    total: Tensor
    norm: Tensor | None
    before: Sequence[Tensor]
    samples: int
    loss: float | None = None


def clip(parameters: Sequence[nn.Parameter], most: float) -> Tensor | None:
    """The norm of the gradient, which is then scaled down to `most` if it is larger; None where that is infinite."""
    if math.isinf(most):
        return None
    norm = get_total_norm([gradient for parameter in parameters if (gradient := parameter.grad) is not None])
    clip_grads_with_norm_(parameters, most, norm)
    return norm


def can_defer_check(state: TrainState, device: torch.device) -> bool:
    """Whether the host may learn of an update while the device computes the next one: on a GPU, where a step that must
    not be taken is skipped there. Not with a loss scale, which is the host's business, nor with an average of the
    weights, which has to be taken between two updates."""
    skips = bool(getattr(state.optimizer, "_step_supports_amp_scaling", False))
    averages = not isinstance(state.average, NoAverage)
    return device.type == "cuda" and skips and not averages and not state.scaler.is_enabled()


class NonFiniteGuard:
    """The updates of an epoch, each refused if its loss or gradient is not finite. A context: at its end, whatever ends
    it, nothing is left unknown."""

    def __init__(
        self, state: TrainState, data: TrainingData, device: torch.device, processes: Processes
    ) -> None:
        self.state, self.data, self.processes = state, data, processes
        self.parameters, self.statistics = state.parameters, state.model.statistics
        self.defers_checks = can_defer_check(state, device)
        self._found, self._one = torch.zeros((), device=device), torch.ones((), device=device)
        self._unknown: tuple[Update, Callable[[], list[float]]] | None = None
        self._has_moments = False

    def __enter__(self) -> "NonFiniteGuard":
        if self.defers_checks:
            self._optimizer.found_inf = self._found  # what torch's loss scaler would set
        return self

    def __exit__(self, *error: object) -> None:
        if self.defers_checks:
            del self._optimizer.found_inf
        self.flush()

    def check(self, update: Update) -> bool:
        """Whether the step is to be taken: in fp16 the loss scaler skips it where the gradient is infinite. Raises
        NonFiniteError, of this update or of the one before; it is then as if that had not been."""
        if not (self.defers_checks and self._can_skip()):
            taken = self._is_taken(update, float(update.total), self._is_finite(update))
            if self.defers_checks:
                self._found.zero_()  # the step looks at it
            return taken
        self.flush()  # while the device has this one's passes to do
        if update.norm is None:
            self._look_at_gradients()
        else:
            self._found.copy_(update.norm.isfinite().logical_not_())
        finite = self._found == 0
        self._found.copy_((finite & update.total.isfinite()).logical_not_())
        self._unknown = update, _sent(torch.stack([update.total.double(), finite.double()]))
        return True

    def flush(self) -> TrainState:
        """The state, once the device has told everything. Raises NonFiniteError."""
        if self._unknown is None:
            return self.state
        (update, told), self._unknown = self._unknown, None
        loss, finite = told()
        self.state.progress.undo_update(update.samples)  # it was counted with a loss of 0
        self._is_taken(update, loss, bool(finite))
        self.state.progress.end_update(loss, update.samples)
        return self.state

    @property
    def _optimizer(self) -> Any:
        return self.state.optimizer

    def _can_skip(self) -> bool:
        """Whether every parameter that learns has its moments already. torch's fused SGD makes them in its first step,
        and where it skips that, they stay what the memory was before."""
        if not self._has_moments:
            known = self._optimizer.state
            self._has_moments = all(
                group.get("momentum") == 0 or all(p.grad is None or p in known for p in group["params"])
                for group in self._optimizer.param_groups
            )
        return self._has_moments

    def _is_finite(self, update: Update) -> bool:
        if update.norm is not None:
            return math.isfinite(update.norm)
        self._look_at_gradients()
        return not self._found.item()

    def _look_at_gradients(self) -> None:
        """Set `_found` to 1 where some number is not finite, else to 0: in one pass over all of them, which takes a
        seventh of the norm's time; that of torch.amp.GradScaler, with a scale of 1."""
        self._found.zero_()
        gradients = [gradient for p in self.parameters if (gradient := p.grad) is not None]
        if gradients:
            torch._amp_foreach_non_finite_check_and_unscale_(gradients, self._found, self._one)

    def _is_taken(self, update: Update, loss: float, finite: bool) -> bool:
        update.loss = loss
        if math.isfinite(loss) and finite:
            return True
        state = self.state
        if math.isfinite(loss) and state.scaler.is_enabled() and state.scaler.get_scale() > 1:
            state.progress.skipped_updates += 1  # and the scaler lowers its scale
            return False
        for buffer, value in zip(self.statistics, update.before, strict=True):
            buffer.copy_(value)
        state.schedule.set(state.optimizer, state.progress.update)
        what = "the norm of the gradient is not finite" if math.isfinite(loss) else f"the loss is {loss}"
        own = [name for rows in update.rows for name in self.data.names(rows)]
        ids = [name for names in self.processes.all_gather_object(own) for name in names]
        raise NonFiniteError(
            f"update {state.progress.update + 1}: {what}; the weights are those from before it. Samples:"
            f" {', '.join(ids)}"
        )


def _sent(numbers: Tensor) -> Callable[[], list[float]]:
    """Send numbers to the host; the function waits for them, and not for what the device was given afterwards."""
    if numbers.device.type != "cuda":
        return numbers.tolist
    host = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
    host.copy_(numbers, non_blocking=True)
    arrived = torch.cuda.current_stream(numbers.device).record_event()

    def told() -> list[float]:
        arrived.synchronize()
        found: list[float] = host.tolist()
        return found

    return told
