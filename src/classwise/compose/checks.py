"""What is refused before anything takes time: recipes that this data, model or number of processes cannot train."""

import numpy as np

from classwise.compose.losses import build_criterion
from classwise.compose.settings import build_settings, device_of, metric_targets, selection_metric
from classwise.compose.splits import DatasetSplits
from classwise.compose.state import optimizer_of, schedule_of
from classwise.config.schema import Config
from classwise.data.sampling import batches_of, table_order
from classwise.distributed import SINGLE_PROCESS, Processes
from classwise.errors import ConfigError, DataError
from classwise.losses.criterion import Criterion
from classwise.model.classifier import Classifier

ONE_ROW = (
    "training.batch_size: found {}, which leaves a batch of one image, and batch norm cannot normalise a single"
    " one at this image_size; choose a number that leaves none over"
)


def check_recipe(
    config: Config, splits: DatasetSplits, model: Classifier, processes: Processes = SINGLE_PROCESS
) -> None:
    """Raise the ConfigErrors of loss, optimizer, schedule and selection, before anything takes time."""
    build_settings(config, device_of(config.training.device, processes))
    sizes = {name: len(labels) for name, labels in splits.label_lists.items()}
    _refuse_unknown_metric(splits, selection_metric(config, sizes))
    _refuse_unbalanced(config, splits)
    criterion = build_criterion(config, splits)
    optimizer = optimizer_of(config, model, criterion)
    t, queries = config.training, splits.queries(splits.train)
    batches = batches_of(table_order(len(splits.train.samples), queries), t.batch_size, queries)
    window = t.accumulate * processes.world_size
    _refuse_several(config, criterion, window, processes)
    if t.micro_batch != "auto" and (not criterion.additive or queries is not None):
        raise ConfigError(
            f"training.micro_batch: found {t.micro_batch}, but soft F1 and whole queries cannot be computed in parts;"
            " allowed: auto"
        )
    if t.compile is True and queries is not None:
        raise ConfigError(
            "training.compile: found true, but batches of whole queries come in too many sizes to compile each;"
            " allowed: auto, false"
        )
    schedule_of(config, optimizer, -(-len(batches) // window))


def _refuse_several(config: Config, criterion: Criterion, window: int, processes: Processes) -> None:
    """What only one process can do, and what only several can."""
    if processes.world_size > 1 and not criterion.additive:
        raise ConfigError(
            "loss.name: soft F1 is not a sum over samples, so processes cannot share an update;"
            f" found {processes.world_size} processes, allowed: 1"
        )
    if config.training.sync_batch_norm:
        device = device_of(config.training.device, processes)
        if processes.world_size == 1 or device.type != "cuda":
            raise ConfigError(
                f"training.sync_batch_norm: found true with {processes.world_size} process"
                f"{'es' if processes.world_size > 1 else ''} on {device.type}; allowed: with several processes on GPUs"
            )


def _refuse_unbalanced(config: Config, splits: DatasetSplits) -> None:
    """Sampling by class needs rows that have a class in every target that it balances."""
    classes = splits.classes(splits.train)
    if config.data.sampling != "shuffle" and classes is not None and not (classes >= 0).any():
        names = splits.joint or tuple(splits.class_numbers(splits.train))
        raise ConfigError(
            f"data.sampling: found {config.data.sampling!r}, but no training row has an answer for all of"
            f" {', '.join(names)}; allowed: shuffle, or a [joint] of targets that are answered together"
        )


def _refuse_unknown_metric(splits: DatasetSplits, metric: str) -> None:
    """A metric over rows of which none has an answer would be 0 in every epoch."""
    names = metric_targets(metric, splits)
    known_N = np.all([splits.target(n).known(splits.valid.labels[n]) for n in names], axis=0)
    if not known_N.any():
        raise DataError(
            f"selection.metric: {metric} cannot be measured: no validation row has an answer for {' and '.join(names)}"
        )
