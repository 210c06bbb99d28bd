"""One real update of `training/loop.py`, recorded while the loop computes it.

Nothing of the loop is copied. It gets the arguments that it takes anyway, of which some look at what passes through:
`watch` and `should_stop` tell where the loop is, the mixing returns what it would and keeps it, and the processes (of
which there is one) keep the gradient before it is clipped. Hooks of torch on the model, the criterion and the
optimizer see the rest. See docs/decisions/0048-the-lens.md.
"""

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from classwise.data.batch import Batch, Rows
from classwise.distributed import Processes
from classwise.errors import ConfigError, Interrupted
from classwise.lens.graph import Block, graph_of, noting_blocks
from classwise.lens.weight import ChosenWeight, WeightName, chosen_weight
from classwise.losses.criterion import Criterion
from classwise.losses.normalizer import Normalizer
from classwise.run.assembly import Parts
from classwise.training import loop
from classwise.training.oom import retry_in_smaller_chunks
from classwise.training.state import TrainState

Tensors = dict[str, Tensor]
AroundUpdates = Callable[[Iterable[list[Batch]], int, int], Iterable[list[Batch]]]
"""(the updates of an epoch, the epoch, how many are done) to the updates, as `loop.train` takes it."""


@dataclass(frozen=True)
class Chunk:
    """What was computed at once: a micro-batch or a part of it. `rows` (B,) are numbers of training rows; `images` as
    the model got them; `outputs` by target, raw; `loss`: its part of the update's."""

    micro_batch_idx: int
    chunk_idx: int
    rows: Rows
    images: Tensor
    targets: Tensors
    outputs: Tensors
    loss: float


@dataclass
class Recording:
    """One update. `number` counts from 1 over the run, `epoch` from 0.

    `before` and `after`: weights and buffers of the model, and under `criterion.` those of the criterion. `gradients`:
    by parameter, before clipping; parameters without one are left out. `norm`, `clipped_norm`: of all of them, before
    and after it. `criterion`: a copy from before the step. `rates`: the learning rate of each group of parameters,
    `rates_before`: that of the heads in each update up to this one, counted from 0. `weight`: the chosen one, before
    and after the step. `stepped`: whether the optimizer took the step.
    """

    number: int
    epoch: int
    before: Tensors
    criterion: Criterion
    batches: list[Batch] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)
    normalizer: Normalizer = field(default_factory=lambda: Normalizer([]))
    graph: Block | None = None
    total: float = 0.0
    gradients: Tensors = field(default_factory=dict)
    norm: float = 0.0
    clipped_norm: float = 0.0
    rates: list[float] = field(default_factory=list)
    rates_before: dict[int, float] = field(default_factory=dict)
    weight: ChosenWeight | None = None
    stepped: bool = False
    after: Tensors = field(default_factory=dict)
    chunk_size: int = 0

    @property
    def rows(self) -> list[int]:
        """The numbers of its training rows, in order."""
        return [int(row) for chunk in self.chunks for row in chunk.rows]


def named_parameters(state: TrainState) -> dict[str, nn.Parameter]:
    """All parameters of the model and, under `criterion.`, of the criterion."""
    found = dict(state.model.named_parameters())
    return found | {f"criterion.{name}": value for name, value in state.criterion.named_parameters()}


def record_update(
    parts: Parts,
    number: int,
    replaced: Callable[[int], list[Batch]] | None = None,
    weight: WeightName | None = None,
    watch: AroundUpdates = loop.unwatched,
) -> Recording:
    """Train up to and with update `number`, counted from 1, and record that one. The parts are then as after it.

    `replaced`: returns the micro-batches to use in place of that update's, given the epoch. `weight`: the weight to
    look at (default: the weight of a layer with the largest gradient). `watch` as in `loop.train`. Raises what training
    raises, and ConfigError if the run ends before.
    """
    recorder = _Recorder(parts.state, number, weight)
    data = dataclasses.replace(parts.data, mixing=recorder.around_mixing(parts.data.mixing))
    settings = dataclasses.replace(parts.settings, processes=_RecordingProcesses(recorder))

    def train() -> str:
        return loop.train(
            parts.state,
            data,
            parts.valid,
            parts.metrics,
            settings,
            loop.NULL_CHECKPOINTER,
            should_stop=recorder.should_stop,
            watch=recorder.around_updates(watch, replaced),
        )

    try:
        outcome = retry_in_smaller_chunks(train, parts.state, data)
    except Interrupted:
        return recorder.end()
    finally:
        recorder.close()
    update = parts.state.progress.update
    raise ConfigError(
        f"--update: found {number}, but the run ends after update {update} ({outcome.replace('_', ' ')}); allowed: 1 to"
        f" {update}"
    )


class _Recorder:
    """Takes down one update, from `begin` to `end`, and the learning rate of each before it."""

    def __init__(self, state: TrainState, number: int, weight: WeightName | None) -> None:
        self.state = state
        self._number = number
        self._weight_name = weight
        self._stack = contextlib.ExitStack()
        self._blocks: list[Block] = []
        self._recording: Recording | None = None
        self._rates: dict[int, float] = {}

    @property
    def recording(self) -> Recording:
        """What is recorded so far."""
        assert self._recording is not None
        return self._recording

    @property
    def is_on(self) -> bool:
        """Whether the loop is in the update that is recorded."""
        return self._recording is not None

    def begin(self, epoch: int) -> None:
        """From here on it is recorded; what was recorded before, in an attempt that ran out of memory, is
        forgotten."""
        state = self.state
        self.close()
        self._recording = Recording(
            number=self._number,
            epoch=epoch,
            before=tensors_of(state),
            criterion=copy.deepcopy(state.criterion),
            chunk_size=state.progress.chunk_size,
        )
        # A compiled forward pass would be another one with hooks in it.
        if state.compute is None:
            self._blocks = self._stack.enter_context(noting_blocks(state.model))
        for handle in (
            state.criterion.register_forward_hook(self._after_criterion),
            state.optimizer.register_step_pre_hook(self._before_step),
            state.optimizer.register_step_post_hook(self._after_step),
        ):
            self._stack.callback(handle.remove)

    def should_stop(self) -> bool:
        """Whether the update is over; asked after each."""
        update = self.state.progress.update
        self._rates[update - 1] = self.state.optimizer.param_groups[-1]["lr"]
        if update < self._number:
            return False
        self.close()  # the last update of an epoch may be followed by a batch of validation
        return True

    def end(self) -> Recording:
        """The recording, once the loop has returned."""
        self.recording.after = tensors_of(self.state)
        self.recording.rates_before = self._rates
        return self.recording

    def close(self) -> None:
        """Remove all hooks."""
        self._stack.close()

    def around_updates(
        self, watch: AroundUpdates, replaced: Callable[[int], list[Batch]] | None
    ) -> AroundUpdates:
        """`watch`, which begins the recording when its update comes, of the micro-batches that replace its own if there
        are some."""

        def watched(updates: Iterable[list[Batch]], epoch: int, first_update: int) -> Iterable[list[Batch]]:
            for micro_batches in watch(updates, epoch, first_update):
                is_wanted = self.state.progress.update == self._number - 1
                if is_wanted:
                    self.begin(epoch)
                yield replaced(epoch) if is_wanted and replaced is not None else micro_batches

        return watched

    def around_mixing(
        self, mixing: Callable[[list[Batch], int], list[Batch]]
    ) -> Callable[[list[Batch], int], list[Batch]]:
        """The mixing, whose result is recorded: the micro-batches as the model gets them."""

        def mixed(batches: list[Batch], update: int) -> list[Batch]:
            found = mixing(batches, update)
            if self.is_on:
                self.recording.batches = found
            return found

        return mixed

    def take_gradients(self) -> None:
        """The gradient of the whole update, before it is clipped; in fp16 without the loss scale."""
        found = {
            name: parameter.grad.detach() / self._scale
            if self._scale != 1
            else parameter.grad.detach().clone()
            for name, parameter in named_parameters(self.state).items()
            if parameter.grad is not None
        }
        self.recording.gradients = found
        self.recording.norm = norm_of(found.values())

    def take_total(self, total: Tensor) -> None:
        """The loss of the whole update."""
        self.recording.total = float(total) / self._scale

    @property
    def _scale(self) -> float:
        scaler = self.state.scaler
        return scaler.get_scale() if scaler.is_enabled() else 1.0

    def _after_criterion(self, criterion: nn.Module, given: tuple[Any, ...], loss: Tensor) -> None:
        outputs, targets, normalizer = given
        recording = self.recording
        pieces = [
            (micro_batch_idx, chunk_idx, chunk)
            for micro_batch_idx, batch in enumerate(recording.batches)
            for chunk_idx, chunk in enumerate(batch.parts(recording.chunk_size))
        ]
        micro_batch_idx, chunk_idx, chunk = pieces[len(recording.chunks)]
        if not recording.chunks:
            names = {id(parameter): name for name, parameter in named_parameters(self.state).items()}
            forward = self._blocks[0] if self._blocks else None
            recording.graph = graph_of(loss, forward, list(self.state.model.metadata.heads), names)
            recording.normalizer = normalizer
        recording.chunks.append(
            Chunk(
                micro_batch_idx=micro_batch_idx,
                chunk_idx=chunk_idx,
                rows=chunk.rows,
                images=chunk.images,
                targets=dict(targets),
                outputs={name: value.detach() for name, value in outputs.items()},
                loss=float(loss.detach()),
            )
        )

    def _before_step(self, optimizer: Any, arguments: Any, options: Any) -> None:
        """The gradient is clipped, the weights are still the old ones."""
        recording = self.recording
        named = named_parameters(self.state)
        clipped = [p.grad for p in named.values() if p.grad is not None]
        recording.clipped_norm = norm_of(clipped)
        recording.rates = [group["lr"] for group in optimizer.param_groups]
        recording.weight = chosen_weight(self._weight_name, named, recording.gradients, optimizer)

    def _after_step(self, optimizer: Any, arguments: Any, options: Any) -> None:
        recording = self.recording
        recording.stepped = True
        if recording.weight is not None:
            recording.weight.take_after(named_parameters(self.state), optimizer)


class _RecordingProcesses(Processes):
    """A process alone, which shows the recorder the sums that several would make: the loss and the gradient."""

    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def sum(self, tensor: Tensor) -> Tensor:
        """The tensor as it is."""
        if self._recorder.is_on:
            self._recorder.take_total(tensor)
        return tensor

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Nothing."""
        if self._recorder.is_on:
            self._recorder.take_gradients()


def tensors_of(state: TrainState) -> Tensors:
    """Copies of all weights and buffers of model and criterion, by name."""
    found = {name: value.detach().clone() for name, value in state.model.state_dict().items()}
    for name, value in state.criterion.state_dict().items():
        found[f"criterion.{name}"] = value.detach().clone()
    return found


def norm_of(tensors: Iterable[Tensor]) -> float:
    """The Euclidean norm of all numbers in some tensors, 0 of none."""
    norms = [torch.linalg.vector_norm(tensor.detach()).double().cpu() for tensor in tensors]
    return float(torch.linalg.vector_norm(torch.stack(norms))) if norms else 0.0
