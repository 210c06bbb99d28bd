"""Plain values that the config stands for: the device, the number of workers, the selection metric, loop settings."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from classwise.compose.splits import DatasetSplits
from classwise.config.schema import Config
from classwise.data.forked import core_count as core_count
from classwise.distributed import SINGLE_PROCESS, Processes
from classwise.errors import ConfigError
from classwise.metrics.joint import joint_labels
from classwise.metrics.mean import is_mean
from classwise.metrics.names import higher_is_better, resolve_metric, split_metric, terms_of
from classwise.metrics.scores import AT_PRIOR
from classwise.training.loop import Settings

ALLOWED_DEVICES = "auto, cpu, cuda, cuda:N"


def build_settings(config: Config, device: torch.device, processes: Processes = SINGLE_PROCESS) -> Settings:
    """What stays fixed while the loop runs. Raises ConfigError if the config names an unknown metric."""
    training = config.training
    metric = selection_metric(config)
    return Settings(
        seed=config.seed,
        epochs=0 if config.plan == "probe" else training.epochs,
        metric=metric,
        higher_is_better=higher_is_better(metric),
        first_epoch=config.first_epoch,
        patience=config.selection.patience,
        # An infinite norm clips nothing, so the loop needs no branch for it.
        clip_norm=float("inf") if training.clip_norm is None else training.clip_norm,
        precision=training.precision,
        device=device,
        processes=processes,
    )


def selection_metric(config: Config, labels: Mapping[str, Sequence[str]] | None = None) -> str:
    """The full name of the metric that selects the best epoch, such as `colour.macro_f1`; at the class shares of
    selection.prior `colour.macro_f1_at_prior`.

    With `labels` (the label list by target) the metric is also checked against the number and the names of the classes.
    Raises ConfigError.
    """
    types = {name: target.type for name, target in config.targets.items()}
    counts = None if labels is None else {name: len(names) for name, names in labels.items()}
    if labels is not None and config.joint:
        labels = {**labels, "joint": joint_labels(labels, config.joint.targets)}
    own = {name: target.metric_names for name, target in config.targets.items()}
    metric = resolve_metric(config.selection.metric, types, config.joint is not None, counts, labels, own)
    return metric if config.selection.prior in (None, "as_validation") else f"{metric}{AT_PRIOR}"


def own_metrics_of(config: Config) -> dict[str, tuple[str, ...]]:
    """The user's own metrics of each target, as the config names them."""
    return {name: target.metrics or () for name, target in config.targets.items()}


def metric_targets(metric: str, splits: DatasetSplits) -> tuple[str, ...]:
    """The targets that a metric is computed from: one; all that make up the joint class for `joint`; all for `mean`;
    those of the terms for shares."""
    if is_mean(metric):
        return tuple(target.name for target in splits.targets)
    names: list[str] = []
    for _, term in terms_of(metric):
        target = split_metric(term)[0] or splits.targets[0].name
        names += splits.joint if target == "joint" else [target]
    return tuple(dict.fromkeys(names))


def device_of(name: str, processes: Processes = SINGLE_PROCESS) -> torch.device:
    """The device of this process. `auto` is the GPU if there is one, else the CPU; with several processes each
    takes the GPU of its local rank. Raises ConfigError."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"

    # With several processes nobody can name one GPU for all of them.
    if processes.world_size > 1 and name != "cpu":
        if name != "cuda":
            raise ConfigError(
                f"training.device: found {name!r}, but {processes.world_size} processes train; allowed: auto, cpu, cuda"
            )
        name = f"cuda:{processes.local_rank}"

    # torch knows many more kinds of devices than are supported here.
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"training.device: found {name!r}, allowed: {ALLOWED_DEVICES}") from None
    if device.type == "mps":
        raise ConfigError(
            f"training.device: found {name!r}, but Apple's GPUs have no float64, in which the loss of an update is"
            f" divided and scores are counted; allowed: {ALLOWED_DEVICES}"
        )
    if device.type not in ("cpu", "cuda") or (device.type == "cpu" and device.index):
        raise ConfigError(f"training.device: found {name!r}, allowed: {ALLOWED_DEVICES}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"training.device: found {name!r}, but torch sees {torch.cuda.device_count()} GPUs")
    return device


def worker_count(workers: int | str, device: torch.device) -> int:
    """The number of loader processes. `auto`: one per core on a GPU, at most 16; on a CPU a quarter of the cores,
    at most 8, which may be 0."""
    if isinstance(workers, int):
        return workers
    return min(16, core_count()) if device.type == "cuda" else min(8, core_count() // 4)


def unless_auto(value: Any, default: Any) -> Any:
    """`value`, or `default` where the config says `auto`."""
    return default if value == "auto" else value
