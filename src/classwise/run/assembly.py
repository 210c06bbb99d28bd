"""The objects of a run, put together: as they are at update 0, or as a checkpoint holds them."""

from dataclasses import dataclass

import torch

from classwise.compose.checks import check_recipe
from classwise.compose.first_answer import wants_first_answer
from classwise.compose.loaders import build_data
from classwise.compose.losses import build_criterion, build_heads
from classwise.compose.prior import class_shares
from classwise.compose.selection import recorded_metric
from classwise.compose.settings import build_settings, own_metrics_of, selection_metric
from classwise.compose.splits import DatasetSplits
from classwise.compose.state import build_model, build_state, freeze_layers
from classwise.config.schema import Config
from classwise.data.epochs import TrainingData, ValidationData
from classwise.distributed import SINGLE_PROCESS, Processes
from classwise.metrics.collection import MetricCollection
from classwise.model.classifier import Classifier
from classwise.model.heads import Head
from classwise.run.checkpoint import Checkpoint, reading, restore, restored_model
from classwise.run.starting_weights import starting_weights
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


@dataclass(frozen=True)
class NewModel:
    """The heads and the model with its initial weights. Of a model that starts from another run, `notes` on what does,
    and the targets whose heads are `kept` as they are."""

    heads: dict[str, Head]
    model: Classifier
    notes: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()


def new_model(config: Config, splits: DatasetSplits, processes: Processes) -> NewModel:
    """The model as the config says, once the recipe is known to work. Raises ConfigError, DataError, ModelError."""
    heads = build_heads(config, splits)
    start = starting_weights(config)
    model = build_model(config, heads, start)
    notes: list[str] = []
    kept: list[str] = []
    if start is not None:
        notes, kept = start.into_heads(model, heads, splits.label_lists, fits=wants_first_answer(config))
        notes = [f"the backbone goes on from the best weights of {start.where}", *notes]
    frozen, layers = freeze_layers(config, model)
    if frozen and config.plan != "probe":
        notes.append(
            f"fine-tuning leaves the first {frozen} of {layers} layers as they are (optimizer.frozen_below)"
        )
    check_recipe(config, splits, model, processes)
    return NewModel(heads, model, notes=tuple(notes), kept=tuple(kept))


def assemble(
    config: Config,
    splits: DatasetSplits,
    model: Classifier,
    heads: dict[str, Head],
    device: torch.device,
    processes: Processes = SINGLE_PROCESS,
    micro_batches_per_update: int | None = None,
) -> Parts:
    """The parts of a run at update 0; `micro_batches_per_update` as in `build_data`. Raises ConfigError."""
    data, valid = build_data(
        config,
        splits=splits,
        model=model,
        device=device,
        processes=processes,
        micro_batches_per_update=micro_batches_per_update,
    )
    return Parts(
        state=build_state(
            config,
            model=model,
            criterion=build_criterion(config, splits),
            data=data,
            device=device,
        ),
        data=data,
        valid=valid,
        heads=heads,
        metrics=MetricCollection(
            heads,
            labels=splits.label_lists,
            joint=splits.joint,
            device=device,
            record=recorded_metric(config, splits),
            selected=selection_metric(config),
            priors=class_shares(config, splits.label_lists),
            own=own_metrics_of(config),
        ),
        settings=build_settings(config, device, processes),
    )


def restored_parts(
    config: Config,
    splits: DatasetSplits,
    checkpoint: Checkpoint,
    device: torch.device,
    processes: Processes,
) -> Parts:
    """All parts as the checkpoint holds them. Raises CheckpointError if it does not fit the config."""
    # Built from the checkpoint, so that no pretrained weights are downloaded only to be replaced.
    model = restored_model(checkpoint)

    # An update keeps its size, however many processes share it now.
    with reading(checkpoint):
        micro_batches = checkpoint.metadata["micro_batches_per_update"]
        is_count = isinstance(micro_batches, int) and not isinstance(micro_batches, bool)
        if not is_count or not 1 <= micro_batches < 2**31:
            raise ValueError(f"{micro_batches!r:.50} micro-batches in an update")

    parts = assemble(
        config,
        splits=splits,
        model=model,
        heads=build_heads(config, splits),
        device=device,
        processes=processes,
        micro_batches_per_update=micro_batches,
    )
    restore(parts.state, checkpoint)
    return parts
