"""From the config to the state that training changes: model, optimizer, schedule, scaler and weight average."""

from typing import Any

import torch
from torch.optim import Optimizer

from classwise.compose.losses import cosine_scales
from classwise.compose.settings import unless_auto
from classwise.config.schema import Config
from classwise.data.epochs import TrainingData
from classwise.losses.criterion import Criterion
from classwise.metrics.collection import higher_is_better
from classwise.model.average import NoAverage, WeightAverage
from classwise.model.classifier import Classifier, build_classifier
from classwise.model.heads import Head
from classwise.optim.groups import parameter_groups
from classwise.optim.optimizers import build_optimizer
from classwise.optim.schedules import Schedule, build_schedule
from classwise.randomness import WEIGHTS, torch_seed
from classwise.training.compiled import compiled, compiled_sizes
from classwise.training.state import Progress, TrainState
from classwise.training.tuning import FORMATS


def build_model(config: Config, heads: dict[str, Head]) -> Classifier:
    """The model with its initial weights, on the host. Raises ModelError."""
    m = config.model
    outputs = {name: head.outputs for name, head in heads.items()}
    seed = torch_seed(config.seed, WEIGHTS)
    return build_classifier(
        *(m.backbone, m.weights, m.image_size, m.fit, m.dropout, outputs, seed, cosine_scales(config))
    )


def build_state(
    config: Config, model: Classifier, criterion: Criterion, data: TrainingData, device: torch.device
) -> TrainState:
    """Model, criterion, optimizer, schedule, scaler and average at update 0. Raises ConfigError."""
    if config.training.sync_batch_norm and data.world_size > 1:
        from timm.layers import convert_sync_batchnorm  # knows timm's own norms; torch's would skip them

        model.backbone = convert_sync_batchnorm(model.backbone)
    t = config.training
    model.to(device)
    model.arrange(FORMATS[unless_auto(t.memory_format, "channels_last")])
    criterion.to(device)
    optimizer = optimizer_of(config, model, criterion)
    schedule = schedule_of(config, optimizer, data.updates_per_epoch)
    scaler = torch.amp.GradScaler(device.type, enabled=t.precision == "fp16")
    average = NoAverage(model) if t.ema is None else WeightAverage(model, t.ema)
    progress = Progress(micro_batch=unless_auto(t.micro_batch, 0))
    sizes = compiled_sizes(t.batch_size, progress.micro_batch)
    compute = compiled(model, sizes) if t.compile is True else None
    return TrainState(model, criterion, optimizer, schedule, scaler, average, progress, compute)


def optimizer_of(config: Config, model: Classifier, criterion: Criterion) -> Optimizer:
    o = config.optimizer
    learnt = tuple(criterion.parameters())
    groups = parameter_groups(
        *(model.backbone, model.heads, o.lr, o.weight_decay, o.backbone_lr_factor, o.layer_decay, learnt),
        apart=config.training.freeze_epochs > 0,
    )
    return build_optimizer(
        o.name,
        groups,
        o.lr,
        o.weight_decay,
        momentum=o.momentum,
        nesterov=o.nesterov,
        betas=o.betas,
        eps=o.eps,
        options=o.options or {},
    )


def schedule_of(config: Config, optimizer: Optimizer, updates_per_epoch: int) -> Schedule:
    frozen = config.training.freeze_epochs
    return build_schedule(
        bases=[group["lr"] for group in optimizer.param_groups],
        updates_per_epoch=updates_per_epoch,
        epochs=config.training.epochs,
        higher_is_better=higher_is_better(config.selection.metric),
        frozen_updates=frozen * updates_per_epoch,
        **_schedule_options(config),
    )


def _schedule_options(config: Config) -> dict[str, Any]:
    options = config.schedule.model_dump()
    return options | ({"lr": config.optimizer.lr} if config.schedule.name == "onecycle" else {})
