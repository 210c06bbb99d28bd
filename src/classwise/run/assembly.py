"""The objects of a run, put together: at update 0, or as a checkpoint holds them."""

from dataclasses import dataclass

import torch

from classwise.compose.checks import check_recipe
from classwise.compose.loaders import build_data
from classwise.compose.losses import build_criterion, build_heads
from classwise.compose.settings import build_settings
from classwise.compose.splits import DatasetSplits
from classwise.compose.state import build_model, build_state
from classwise.config.schema import Config
from classwise.data.epochs import TrainingData, ValidationData
from classwise.distributed import SINGLE_PROCESS, Processes
from classwise.metrics.collection import MetricCollection
from classwise.model.classifier import Classifier
from classwise.model.heads import Head
from classwise.run.checkpoint import (
    Checkpoint,
    reading,
    restore,
    restored_model,
)
from classwise.training import loop
from classwise.training.state import TrainState


@dataclass(frozen=True)
class Parts:
    """The objects that the loop works with."""

    state: TrainState
    data: TrainingData
    valid: ValidationData
    heads: dict[str, Head]
    metrics: MetricCollection
    settings: loop.Settings


def new_model(
    config: Config, splits: DatasetSplits, processes: Processes
) -> tuple[dict[str, Head], Classifier]:
    heads = build_heads(config, splits)
    model = build_model(config, heads)
    check_recipe(config, splits, model, processes)  # its errors before anything is measured
    return heads, model


def assemble(
    config: Config,
    splits: DatasetSplits,
    model: Classifier,
    heads: dict[str, Head],
    device: torch.device,
    processes: Processes = SINGLE_PROCESS,
    window: int | None = None,
) -> Parts:
    """The parts of a run at update 0; `window` as in `build_data`. Raises ConfigError."""
    data, valid = build_data(config, splits, model, device, processes, window)
    return Parts(
        build_state(config, model, build_criterion(config, splits), data, device),
        data,
        valid,
        heads,
        MetricCollection(heads, splits.label_lists, splits.joint, device),
        build_settings(config, device, processes),
    )


def restored_parts(
    config: Config,
    splits: DatasetSplits,
    checkpoint: Checkpoint,
    device: torch.device,
    processes: Processes,
) -> Parts:
    """All parts as the checkpoint holds them, the window of an update too: it stays, however many share it now."""
    # From the checkpoint: neither hub nor package is asked for weights that training has replaced anyway.
    model = restored_model(checkpoint)
    heads = build_heads(config, splits)
    with reading(checkpoint):
        window = checkpoint.metadata["window"]
        if isinstance(window, bool) or not isinstance(window, int) or not 1 <= window < 2**31:
            raise ValueError(f"{window!r:.50} micro-batches in an update")
    parts = assemble(config, splits, model, heads, device, processes, window)
    restore(parts.state, checkpoint)
    return parts
