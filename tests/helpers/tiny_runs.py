"""Small models, drawn images and their loaders, for the tests of the loop."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from classwise.data.batch import Batch, Rows
from classwise.data.epochs import TrainingData, ValidationData
from classwise.data.loader import Loader
from classwise.losses.criterion import Criterion
from classwise.losses.cross_entropy import CrossEntropy
from classwise.metrics.collection import MetricCollection
from classwise.model.average import NoAverage, WeightAverage
from classwise.model.backbone import HALF, Backbone
from classwise.model.classifier import Classifier, ModelMetadata
from classwise.model.heads import ClassHead
from classwise.optim.groups import parameter_groups
from classwise.optim.optimizers import build_optimizer
from classwise.optim.schedules import build_schedule
from classwise.training import loop
from classwise.training.loop import Settings
from classwise.training.oom import retry_in_smaller_chunks
from classwise.training.state import Progress, TrainState

CPU = torch.device("cpu")
HEADS = {"mask": 3, "age": 4}
LABELS = {name: [f"{name} {k}" for k in range(size)] for name, size in HEADS.items()}
SETTINGS = Settings(
    seed=7,
    epochs=2,
    metric="mask.macro_f1",
    higher_is_better=True,
    first_epoch=1,
    patience=None,
    clip_norm=math.inf,
    precision="fp32",
    device=CPU,
)


class MemoryLoader(Loader):
    """Batches of drawn images, without files or workers; windows are cut by the real loader's code."""

    def __init__(self, count: int, batch_size: int, seed: int = 0, size: int = 6) -> None:
        draw = torch.Generator().manual_seed(seed)
        images_BCHW = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=draw)
        self.images = images_BCHW.contiguous(memory_format=torch.channels_last)
        self.dataset = self.images  # type: ignore[assignment]
        self.targets = {name: torch.randint(0, k, (count,), generator=draw) for name, k in HEADS.items()}
        self.batch_size = batch_size

    def batches(self, parts: Sequence[Rows], epoch: int = 0) -> Iterator[Batch]:
        for part in parts:
            yield Batch(self.images[part], {name: x[part] for name, x in self.targets.items()}, part)


def training(count: int, batch_size: int, accumulate: int = 1) -> TrainingData:
    """`count` drawn rows."""
    loader = MemoryLoader(count, batch_size)
    ids = [f"그림 {row}" for row in range(count)]
    return TrainingData(loader, ids, np.zeros(count, dtype=np.int64), "shuffle", 7, accumulate)


def validation(count: int = 11, batch_size: int = 4) -> ValidationData:
    """Other rows than the training ones."""
    return ValidationData(MemoryLoader(count, batch_size, seed=1))


def dense(dropout: float = 0.0) -> Classifier:
    """Two dense layers in float64, no batch norm: the gradient of a window can be exact."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        body = nn.Sequential(nn.Flatten(), nn.Linear(108, 9), nn.Tanh())
        return Classifier(Backbone(body, 9, HALF, HALF), metadata(dropout)).double()


def convolutional(dropout: float = 0.3) -> Classifier:
    """Convolution, batch norm and dropout in float32, laid out as real models are."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        convolutions = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3)]
        body = nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        model = Classifier(Backbone(body, 8, HALF, HALF), metadata(dropout))
        return model.to(memory_format=torch.channels_last)


def frozen(dropout: float = 0.0) -> Classifier:
    """The convolutional model in float64, with drawn running statistics that its batch norm is frozen at."""
    model = convolutional(dropout).double()
    draw = torch.Generator().manual_seed(1)
    norm = model.backbone[1]
    norm.running_mean.normal_(generator=draw)
    norm.running_var.uniform_(0.2, 3.0, generator=draw)
    model.freeze_batch_norm()
    return model


def metadata(dropout: float) -> ModelMetadata:
    """Facts of a model that no backbone's name stands for."""
    return ModelMetadata("none", (6, 6), "squash", HALF, HALF, dropout, HEADS)


def state_of(
    model: Classifier,
    data: TrainingData,
    optimizer: str = "sgd",
    lr: float = 0.1,
    schedule: str = "constant",
    fp16: bool = False,
    criterion: Criterion | None = None,
    decay: float | None = None,
    **options: Any,
) -> TrainState:
    """Model, criterion (the usual one), optimizer and schedule at update 0; `decay` is that of the average."""
    criterion = criterion_of() if criterion is None else criterion
    groups = parameter_groups(
        model.backbone, model.heads, lr, 1e-2, 0.5, extra=criterion.parameters(), apart=data.frozen_epochs > 0
    )
    built = build_optimizer(optimizer, groups, lr, 1e-2, **options)
    bases = [group["lr"] for group in built.param_groups]
    frozen = data.frozen_epochs * data.updates_per_epoch
    rates = build_schedule(
        schedule, bases, data.updates_per_epoch, SETTINGS.epochs, 0.0, frozen_updates=frozen
    )
    scaler = torch.amp.GradScaler("cpu", enabled=fp16)
    average = NoAverage(model) if decay is None else WeightAverage(model, decay)
    return TrainState(model, criterion, built, rates, scaler, average)


def criterion_of(
    weighted: bool = True, from_epoch: int = 1, uncertainty: bool = False, normalize_by: str = "weights"
) -> Criterion:
    """Cross entropy for both heads, which count differently; with class weights far apart."""
    weights = {"mask": torch.tensor([0.1, 1.0, 12.0]), "age": torch.tensor([3.0, 0.2, 1.0, 7.0])}
    losses = {
        name: CrossEntropy(
            weights[name] if weighted else None, weights_from_epoch=from_epoch, normalize_by=normalize_by
        )
        for name in HEADS
    }
    return Criterion(losses, {"mask": 1.0, "age": 0.4}, uncertainty)


def board() -> MetricCollection:
    """Counts for both heads."""
    return MetricCollection({name: ClassHead(size) for name, size in HEADS.items()}, LABELS)


def flat(model: nn.Module) -> Tensor:
    """All weights in one row."""
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def copy_of(model: nn.Module) -> dict[str, Tensor]:
    """The state dict, in memory of its own."""
    return {key: value.clone() for key, value in model.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """The same bytes under the same names."""
    return list(first) == list(second) and all(torch.equal(first[key], second[key]) for key in first)


class Shelf:
    """A checkpointer that remembers (epoch, update, best) and nothing else."""

    def __init__(self) -> None:
        self.saved: list[tuple[int, int, bool]] = []

    def should_save(self, progress: Progress) -> bool:
        return False

    def save(self, state: TrainState, best: bool) -> None:
        self.saved.append((state.progress.epoch, state.progress.update, best))


def run(state: TrainState, data: TrainingData, settings: Settings, checkpointer: Any, **options: Any) -> str:
    """The whole loop with the usual parts, as a run calls it: in smaller chunks where memory runs out."""

    def train() -> str:
        return loop.train(state, data, validation(), board(), settings, checkpointer, **options)

    return retry_in_smaller_chunks(train, state, data)


def moments_of(state: TrainState) -> dict[str, Tensor]:
    """All tensors of the optimizer's state, in memory of their own."""
    return {
        f"{number} {name}": value.clone()
        for number, moments in state.optimizer.state_dict()["state"].items()
        for name, value in moments.items()
        if isinstance(value, Tensor)
    }


def has_come_to(state: TrainState, update: int) -> bool:
    """A stop flag that goes up after this update."""
    return state.progress.update >= update


def bytes_of(state: TrainState) -> tuple[Any, ...]:
    """All that a run ends with, apart from how long it took."""
    clock = ("seconds", "images_per_second")
    rows = [{k: v for k, v in row.items() if k not in clock} for row in state.progress.history]
    p = state.progress
    modules = (state.model, state.average.model, state.criterion)
    return (
        [{key: value.numpy().tobytes() for key, value in copy_of(module).items()} for module in modules],
        {key: value.numpy().tobytes() for key, value in moments_of(state).items()},
        [{k: v for k, v in group.items() if k != "params"} for group in state.optimizer.param_groups],
        rows,
        (p.epoch, p.update, p.update_in_epoch, p.best, p.best_epoch, p.epochs_without_improvement),
    )
