"""Everything about a run in training that survives a restart."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from classwise.losses.criterion import Criterion
from classwise.model.average import NoAverage, WeightAverage
from classwise.model.classifier import Classifier
from classwise.optim.schedules import Schedule


@dataclass
class Progress:
    """How far the run is. Epochs and updates are counted when they are finished.

    `update_in_epoch` counts the updates of an unfinished epoch, `loss_sum` and `samples` their losses times rows and
    their rows, so that an epoch that was interrupted ends with the numbers of one that was not. The training loss
    of an epoch is the mean of its updates' losses by rows: each is over its own normalizer, so with class weights it is
    near, but not equal to, one over the epoch's normalizer. `chunk_size`: the most images that are computed at once, 0
    for whole batches; it falls where memory runs out.
    """

    epoch: int = 0
    update: int = 0
    update_in_epoch: int = 0
    loss_sum: float = 0.0
    samples: int = 0
    skipped_updates: int = 0
    epoch_seconds: float = 0.0
    best: float | None = None
    best_epoch: int = 0
    epochs_without_improvement: int = 0
    chunk_size: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    first_answer: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "Progress":
        """What `as_dict` gave. Raises TypeError or ValueError for anything else."""
        progress = Progress(**values)
        counts = (
            "epoch",
            "update",
            "update_in_epoch",
            "samples",
            "skipped_updates",
            "best_epoch",
            "epochs_without_improvement",
        )
        # JSON knows neither whole numbers nor their size: what is read may be anything.
        for name in (*counts, "chunk_size"):
            value = getattr(progress, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
                raise ValueError(f"{name} is {value!r:.50}, not a valid count")
        for name in ("loss_sum", "epoch_seconds", *(["best"] if progress.best is not None else [])):
            value = values[name]
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"{name} is {value!r:.50}, not a number")
        if not (
            isinstance(progress.history, list) and all(isinstance(row, dict) for row in progress.history)
        ):
            raise ValueError("history is not a list of tables")
        if not (progress.first_answer is None or isinstance(progress.first_answer, dict)):
            raise ValueError("first_answer is not a table")
        return progress

    def end_update(self, loss: float, samples: int) -> None:
        """Count one update, with its loss."""
        self.update += 1
        self.update_in_epoch += 1
        self.loss_sum += loss * samples
        self.samples += samples

    def undo_update(self, samples: int) -> None:
        """Undo `end_update` with a loss of 0."""
        self.update -= 1
        self.update_in_epoch -= 1
        self.samples -= samples

    def end_epoch(
        self, value: float | None, row: dict[str, Any], first_epoch: int = 1, higher_is_better: bool = True
    ) -> bool:
        """Count one epoch; returns whether `value` is the best so far (None is beaten by any value, and so is
        everything from before `first_epoch` by that epoch: there is always a best one). Without a value, where there
        are no validation rows, the last epoch is the best."""
        self.epoch += 1
        sign = 1 if higher_is_better else -1
        better = value is None or self.best is None or sign * value > sign * self.best
        better = better or self.epoch == first_epoch > 1
        if better:
            self.best = value
            self.best_epoch = self.epoch
        self.epochs_without_improvement = 0 if better else self.epochs_without_improvement + 1
        self.update_in_epoch = 0
        self.loss_sum = 0.0
        self.samples = 0
        self.skipped_updates = 0
        self.epoch_seconds = 0.0
        self.history.append(row)
        return better


@dataclass
class EpochOutcomes:
    """What each validation row came to in every epoch that could be selected, (N,) an epoch; empty where this is not
    recorded. From it the optimism of the selection is estimated."""

    rows: list[Tensor] = field(default_factory=list)

    def add(self, epoch: int, outcomes_N: Tensor | None, first_epoch: int) -> None:
        """Keep the outcomes of an epoch, from `first_epoch` on."""
        if outcomes_N is not None and epoch >= first_epoch:
            self.rows.append(outcomes_N)

    def state_dict(self) -> dict[str, Tensor]:
        """One tensor (E, N); empty if there is nothing."""
        return {"rows": torch.stack(self.rows)} if self.rows else {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """What `state_dict` gave."""
        self.rows = list(state["rows"].unbind()) if state else []


@dataclass
class TrainState:
    """The parts that change while training: the weights, and all that decides how they change next.

    The criterion is among them, since the weights between targets may be learned; `average.model` is what is
    evaluated and saved: the average of the weights, or without averaging the model itself. `compute` is the model, or
    what a compiler has made of it: the same parameters, which no checkpoint needs to know.
    """

    model: Classifier
    criterion: Criterion
    optimizer: Optimizer
    schedule: Schedule
    scaler: torch.amp.GradScaler
    average: WeightAverage | NoAverage
    progress: Progress = field(default_factory=Progress)
    outcomes: EpochOutcomes = field(default_factory=EpochOutcomes)
    compute: Callable[[Tensor], dict[str, Tensor]] | None = None

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """The model's forward pass in training: compiled, where that was found to be faster."""
        if self.compute is None:
            return self.model(images)  # type: ignore[no-any-return]
        return self.compute(images)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Everything that the optimizer changes."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
