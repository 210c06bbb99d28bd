"""What of the config the loop and the loaders are given as plain values: device, workers, metric, fixed numbers."""

import os
from collections.abc import Mapping
from typing import Any

import torch

from classwise.compose.splits import DatasetSplits
from classwise.config.schema import Config
from classwise.distributed import SINGLE_PROCESS, Processes
from classwise.errors import ConfigError
from classwise.metrics.collection import higher_is_better, resolve_metric
from classwise.training.loop import Settings


def build_settings(config: Config, device: torch.device, processes: Processes = SINGLE_PROCESS) -> Settings:
    """The loop's fixed numbers. Raises ConfigError."""
    metric = selection_metric(config)
    t, s = config.training, config.selection
    clip = float("inf") if t.clip_norm is None else t.clip_norm
    return Settings(
        config.seed,
        t.epochs,
        metric,
        higher_is_better(metric),
        config.first_epoch,
        s.patience,
        clip,
        t.precision,
        device,
        processes,
    )


def selection_metric(config: Config, sizes: Mapping[str, int] | None = None) -> str:
    """The metric that selects, by its full name; with `sizes`, also whether that many classes have it."""
    types = {name: target.type for name, target in config.targets.items()}
    return resolve_metric(config.selection.metric, types, config.joint is not None, sizes)


def metric_targets(metric: str, splits: DatasetSplits) -> tuple[str, ...]:
    """The targets that a metric is of: one, or the parts of the joint class."""
    target = metric.rpartition(".")[0] or splits.targets[0].name
    return splits.joint if target == "joint" else (target,)


def device_of(name: str, processes: Processes = SINGLE_PROCESS) -> torch.device:
    """auto is the GPU where there is one, of several processes each its own. Raises ConfigError."""
    name = "cuda" if name == "auto" and torch.cuda.is_available() else "cpu" if name == "auto" else name
    if processes.world_size > 1 and name != "cpu":
        if name != "cuda":
            raise ConfigError(
                f"training.device: found {name!r}, but {processes.world_size} processes train; allowed: auto, cpu, cuda"
            )
        name = f"cuda:{processes.local_rank}"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"training.device: found {name!r}, allowed: auto, cpu, cuda, cuda:N") from None
    if device.type not in ("cpu", "cuda") or (device.type == "cpu" and device.index):
        raise ConfigError(f"training.device: found {name!r}, allowed: auto, cpu, cuda, cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"training.device: found {name!r}, but torch sees {torch.cuda.device_count()} GPUs")
    return device


def worker_count(workers: int | str, device: torch.device) -> int:
    """auto: on a GPU one process a core, up to 16; on a CPU a quarter of the cores, which may be none."""
    if isinstance(workers, int):
        return workers
    return min(16, core_count()) if device.type == "cuda" else min(8, core_count() // 4)


def core_count() -> int:
    """Cores for this process: those of the machine are shared by all that `torchrun` has started on it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def unless_auto(value: Any, otherwise: Any) -> Any:
    return otherwise if value == "auto" else value
