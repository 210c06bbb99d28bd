"""From the config to the state that training changes: model, optimizer, schedule, loss scaler and weight average."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.optim import Optimizer

from classwise.compose.image_check import pixel_format
from classwise.compose.losses import cosine_scales
from classwise.compose.settings import selection_metric, unless_auto
from classwise.config.schema import Config
from classwise.data.epochs import TrainingData
from classwise.losses.criterion import Criterion
from classwise.metrics.names import higher_is_better
from classwise.model.average import NoAverage, WeightAverage
from classwise.model.classifier import Classifier, build_classifier
from classwise.model.heads import Head
from classwise.model.starting_weights import StartingWeights
from classwise.optim.groups import freeze_slow_layers, parameter_groups
from classwise.optim.optimizers import build_optimizer
from classwise.optim.schedules import Schedule, build_schedule
from classwise.randomness import WEIGHTS, torch_seed
from classwise.training.compiled import compiled, compiled_sizes
from classwise.training.state import Progress, TrainState
from classwise.training.tuning import FORMATS


def build_model(config: Config, heads: dict[str, Head], start: StartingWeights | None = None) -> Classifier:
    """The model with its initial weights, on the host; `start`: what the run that model.weights names has learned.
    Raises ModelError; ConfigError for layers that cannot be frozen."""
    model = config.model
    classifier = build_classifier(
        backbone=model.backbone,
        weights=model.weights if start is None else "none",
        image_size=model.image_size,
        fit=model.fit,
        dropout=model.dropout,
        heads={name: head.outputs for name, head in heads.items()},
        seed=torch_seed(config.seed, WEIGHTS),
        cosine=cosine_scales(config),
        pooling=model.pooling,
        pixels=pixel_format(config),
        mean=model.mean,
        std=model.std,
        **({} if start is None else {"prepare": start.into_backbone}),
    )
    # Already here, since the fastest way to train is measured with this model.
    freeze_norms(config, classifier)
    freeze_layers(config, classifier)
    return classifier


def freeze_norms(config: Config, model: Classifier) -> None:
    """Freeze batch norm if the config says so; harmless if it is frozen already."""
    if config.training.batch_norm == "frozen":
        model.freeze_batch_norm()


def freeze_layers(config: Config, model: Classifier) -> tuple[int, int]:
    """Do not train the layers that the config freezes; how many of how many, from the first on. Harmless if they are
    frozen already. Raises ConfigError."""
    optimizer = config.optimizer
    if not optimizer.frozen_below:
        return 0, 0
    return freeze_slow_layers(model.backbone, optimizer.layer_decay, optimizer.frozen_below)


def build_state(
    config: Config, model: Classifier, criterion: Criterion, data: TrainingData, device: torch.device
) -> TrainState:
    """All that training changes, as it is at update 0; moves `model` and `criterion` to `device`. Raises
    ConfigError."""
    training = config.training
    # A checkpoint does not know it.
    freeze_norms(config, model)
    freeze_layers(config, model)
    if training.sync_batch_norm and data.world_size > 1:
        # timm's conversion knows its own norm layers, which torch's would skip.
        from timm.layers import convert_sync_batchnorm

        model.backbone = convert_sync_batchnorm(model.backbone)

    # An optimizer takes its parameters as they are: device and memory layout come first.
    model.to(device)
    model.arrange(FORMATS[unless_auto(training.memory_format, "channels_last")])
    criterion.to(device)
    optimizer = optimizer_of(config, model, criterion)

    average = NoAverage(model) if training.ema is None else WeightAverage(model, training.ema)

    # Compiled for every size that whole batches are cut into; which these are must not depend on where a run stopped.
    progress = Progress(chunk_size=unless_auto(training.micro_batch, 0))
    compute = None
    if training.compile is True:
        compute = compiled(model, compiled_sizes(training.batch_size, progress.chunk_size))

    return TrainState(
        model=model,
        criterion=criterion,
        optimizer=optimizer,
        schedule=schedule_of(config, optimizer, data.updates_per_epoch),
        scaler=torch.amp.GradScaler(device.type, enabled=training.precision == "fp16"),
        average=average,
        progress=progress,
        compute=compute,
    )


def optimizer_of(config: Config, model: Classifier, criterion: Criterion) -> Optimizer:
    """The optimizer over the parameters of backbone, heads and, where target weights are learned, criterion. Raises
    ConfigError."""
    optimizer = config.optimizer
    if optimizer.backbone_lr_factor == 0:
        # A rate of 0 is not enough: some optimizers move weights whatever the rate is (madgrad, timm's rmsproptf).
        model.backbone.requires_grad_(False)
    groups = parameter_groups(
        backbone=model.backbone,
        heads=model.heads,
        lr=optimizer.lr,
        weight_decay=optimizer.weight_decay,
        backbone_lr_factor=optimizer.backbone_lr_factor,
        layer_decay=optimizer.layer_decay,
        extra=tuple(criterion.parameters()),
        apart=config.training.freeze_epochs > 0,
    )
    return optimizer_from(config, groups)


def optimizer_from(config: Config, groups: Sequence[Mapping[str, Any]]) -> Optimizer:
    """The optimizer of the config over parameter groups. Raises ConfigError."""
    optimizer = config.optimizer
    return build_optimizer(
        name=optimizer.name,
        groups=groups,
        lr=optimizer.lr,
        weight_decay=optimizer.weight_decay,
        momentum=optimizer.momentum,
        nesterov=optimizer.nesterov,
        betas=optimizer.betas,
        eps=optimizer.eps,
        options=optimizer.options or {},
    )


def schedule_of(config: Config, optimizer: Optimizer, updates_per_epoch: int) -> Schedule:
    """The learning rate schedule of every parameter group. Raises ConfigError."""
    return schedule_from(config, [group["lr"] for group in optimizer.param_groups], updates_per_epoch)


def schedule_from(config: Config, bases: Sequence[float], updates_per_epoch: int) -> Schedule:
    """The schedule of parameter groups with these base learning rates. Raises ConfigError."""
    options: dict[str, Any] = config.schedule.model_dump()
    if config.schedule.name == "onecycle":
        options["lr"] = config.optimizer.lr
    return build_schedule(
        bases=bases,
        updates_per_epoch=updates_per_epoch,
        epochs=config.training.epochs,
        higher_is_better=higher_is_better(selection_metric(config)),
        frozen_updates=config.training.freeze_epochs * updates_per_epoch,
        **options,
    )
