"""Recipes that cannot be trained are refused here, before anything takes time."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from classwise.compose.losses import build_criterion, build_heads, check_own_losses
from classwise.compose.settings import build_settings, device_of, metric_targets, selection_metric
from classwise.compose.split_checks import SPLIT_NAMES
from classwise.compose.splits import DatasetSplits, label_counts
from classwise.compose.state import optimizer_from, optimizer_of, schedule_of
from classwise.config.schema import Config
from classwise.data.own_augment import OwnAugment, check_own_augment
from classwise.data.sampling import batches_of, table_order
from classwise.distributed import SINGLE_PROCESS, Processes
from classwise.errors import ConfigError, DataError
from classwise.losses.criterion import Criterion
from classwise.metrics.joint import joint_labels
from classwise.metrics.mean import is_mean
from classwise.metrics.names import ALIASES, RANKED_OF_CLASS, WORST, class_score, split_metric, terms_of
from classwise.metrics.own import check_own_metric
from classwise.metrics.scores import HIGHER_IS_BETTER
from classwise.model.batch_norm import freezable_norms
from classwise.model.classifier import Classifier
from classwise.model.own_backbone import check_own_backbone
from classwise.optim.own import check_own_optimizer
from classwise.own_parts.reference import is_own

TAKEN_NAMES = (*HIGHER_IS_BETTER, *ALIASES, *WORST, "loss")
"""Names that no metric of the user's own can have."""


def check_recipe(
    config: Config, splits: DatasetSplits, model: Classifier, processes: Processes = SINGLE_PROCESS
) -> None:
    """Build what the recipe names, once and for nothing, so that its errors come first: loss, optimizer, schedule,
    selection and sampling. Raises ConfigError, or DataError if no validation or test row can be
    scored."""
    build_settings(config, device_of(config.training.device, processes))
    _refuse_unscored_metric(splits, selection_metric(config, splits.label_lists))
    _refuse_unbalanced_sampling(config, splits)
    _refuse_nothing_to_freeze(config, model)

    _check_own_parts(config, splits, model)
    criterion = build_criterion(config, splits)
    optimizer = optimizer_of(config, model, criterion)
    _refuse_process_count(config, criterion, processes)
    _refuse_fixed_sizes(config, criterion, has_queries=splits.queries(splits.train) is not None)

    _refuse_lone_image(_batch_sizes(config, splits), config, model)

    # Some schedules ask for more updates than a short run has.
    schedule_of(config, optimizer, updates_per_epoch(config, splits, processes))


def _check_own_parts(config: Config, splits: DatasetSplits, model: Classifier) -> None:
    """Each part of the user's own is tried on a few drawn rows. Raises ConfigError, ModelError."""
    if is_own(config.model.backbone):
        check_own_backbone(config.model.backbone, config.model.image_size, config.model.channels)
    if is_own(config.data.augment.preset):
        own = OwnAugment.of(config.data.augment.preset)
        check_own_augment(own, config.model.image_size, config.model.channels)
    if is_own(config.optimizer.name):
        check_own_optimizer(config.optimizer.name, lambda groups: optimizer_from(config, groups))
    check_own_losses(config, splits, model.metadata.heads)
    for name, head in build_heads(config, splits).items():
        for number, reference in enumerate(config.targets[name].metrics or ()):
            key = f"targets.{name}.metrics[{number}]"
            check_own_metric(reference, key, head, splits.label_lists.get(name, ()), taken=TAKEN_NAMES)


def updates_per_epoch(config: Config, splits: DatasetSplits, processes: Processes = SINGLE_PROCESS) -> int:
    """How many updates an epoch has, of which the last may be short."""
    batch_count = len(_batch_sizes(config, splits))
    return -(-batch_count // (config.training.accumulate * processes.world_size))


def _batch_sizes(config: Config, splits: DatasetSplits) -> list[int]:
    """How many rows each batch of an epoch has."""
    queries = splits.queries(splits.train)
    order = table_order(len(splits.train.samples), queries)
    return [len(batch) for batch in batches_of(order, config.training.batch_size, queries)]


def _refuse_lone_image(batch_sizes: Sequence[int], config: Config, model: Classifier) -> None:
    """A last batch, or chunk, of a single image that batch norm cannot take is known from the numbers of rows. Where
    queries are kept whole, the order of an epoch may still bring one that is not found here."""
    training = config.training
    trains_backbone = config.plan != "probe" and training.freeze_epochs < training.epochs
    if not trains_backbone or not model.batch_dependent_norms:
        return
    chunk_size = training.micro_batch if isinstance(training.micro_batch, int) else max(batch_sizes)
    has_lone_image = any(size // -(-size // chunk_size) == 1 for size in batch_sizes)
    if not has_lone_image or _takes_single_image(model, frozen=training.batch_norm == "frozen"):
        return

    cannot = "batch norm cannot normalize a single image at this image_size"
    if chunk_size < max(batch_sizes):
        raise ConfigError(
            f"training.micro_batch: found {chunk_size}, which leaves a single image to be computed alone, and {cannot};"
            " allowed here: auto, or a larger number"
        )
    rows = sum(batch_sizes)
    fitting = [size for size in range(2, rows + 1) if rows % size != 1]
    nearest_size = min(fitting, key=lambda size: abs(size - training.batch_size), default=None)
    advice = "more training rows are needed" if nearest_size is None else f"try {nearest_size}"
    raise ConfigError(
        f"training.batch_size: found {training.batch_size}, which leaves a last batch of a single image of {rows}, and"
        f" {cannot}; {advice}"
    )


def _takes_single_image(model: Classifier, frozen: bool) -> bool:
    """Whether one image alone can be trained on: tried on a copy, whose running statistics nobody needs."""
    copied = copy.deepcopy(model).train()
    if frozen:
        copied.freeze_batch_norm()
    channels = copied.mean.shape[1]
    image_BCHW = torch.zeros(1, channels, *copied.metadata.image_size, dtype=torch.uint8)
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            copied(image_BCHW.to(copied.mean.device))
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        return False
    return True


def single_image_batch_error(error: BaseException, config: Config) -> ConfigError | None:
    """What to raise in place of torch's error that batch norm cannot normalize a single value per channel; None for
    any other error."""
    if "more than 1 value per channel" not in str(error):
        return None
    return ConfigError(
        f"training.batch_size: found {config.training.batch_size}, which leaves a last batch of a single image, and"
        " batch norm cannot normalize a single image at this image_size; choose a batch size that leaves no single"
        " image over"
    )


def _refuse_unscored_metric(splits: DatasetSplits, metric: str) -> None:
    """A metric over rows without labels would be 0 in every epoch."""
    # A joint class needs rows with all its labels; a mean needs rows of each target, which may be different ones.
    terms = [term for _, term in terms_of(metric)]
    together = [metric_targets(term, splits) for term in terms]
    if is_mean(metric):
        together = [(name,) for name in metric_targets(metric, splits)]
    for split_name, split in splits.by_name.items():
        for parts in together:
            labeled_N = np.all([splits.target(name).is_labeled(split.labels[name]) for name in parts], axis=0)
            if split_name != "train" and len(split.samples) and not labeled_N.any():
                raise DataError(
                    f"selection.metric: {metric} cannot be computed: no {SPLIT_NAMES[split_name]} row has a label for"
                    f" {' and '.join(parts)}"
                )
    for term in terms:
        _refuse_unscored_class(splits, term)


def _refuse_unscored_class(splits: DatasetSplits, term: str) -> None:
    """A score of one class needs rows of it, and an AUC rows of two classes."""
    target, score = split_metric(term)
    target = target or splits.targets[0].name
    of_class = class_score(score)
    if of_class is None and score != "roc_auc":
        return
    for split_name, split in splits.by_name.items():
        if split_name == "train" or not len(split.samples):
            continue
        counts = label_counts(splits, split)[target]
        labels = (
            joint_labels(splits.label_lists, splits.joint)
            if target == "joint"
            else splits.label_lists[target]
        )
        where = (
            f"selection.metric: {term} cannot be computed: {target!r} has no {SPLIT_NAMES[split_name]} row of"
        )
        if of_class and not counts[labels.index(of_class[1])]:
            raise DataError(f"{where} {of_class[1]!r}")
        # The cells of a multilabel target are rows of the label or of none.
        is_multilabel = target != "joint" and splits.target(target).type == "multilabel"
        ranks = of_class is None or of_class[0] in RANKED_OF_CLASS
        if ranks and not is_multilabel and sum(count > 0 for count in counts) < 2:
            raise DataError(f"{where} a second class")


def _refuse_unbalanced_sampling(config: Config, splits: DatasetSplits) -> None:
    """Sampling by class needs rows with a label for every target that it balances."""
    classes = splits.classes(splits.train)
    if config.data.sampling != "shuffle" and classes is not None and not (classes >= 0).any():
        names = splits.joint or tuple(splits.class_numbers(splits.train))
        raise ConfigError(
            f"data.sampling: found {config.data.sampling!r}, but no training row has a label for all of"
            f" {', '.join(names)}; allowed: shuffle, or a [joint] of targets that are labeled together"
        )


def _refuse_nothing_to_freeze(config: Config, model: Classifier) -> None:
    """A key without effect, which only the model can tell."""
    if config.training.batch_norm == "frozen" and not freezable_norms(model):
        raise ConfigError(
            f"training.batch_norm: found 'frozen', but {config.model.backbone} has no batch norm, so its gradients are"
            ' exact as they are; allowed: "micro_batch", the default'
        )


def _refuse_process_count(config: Config, criterion: Criterion, processes: Processes) -> None:
    """What only a single process can do, and what only several processes can."""
    world_size = processes.world_size
    if world_size > 1 and not criterion.additive:
        raise ConfigError(
            "loss.name: soft F1 is not a sum over samples, so several processes cannot share an update;"
            f" found {world_size} processes, allowed: 1"
        )
    if config.training.sync_batch_norm:
        device = device_of(config.training.device, processes)
        if world_size == 1 or device.type != "cuda":
            raise ConfigError(
                f"training.sync_batch_norm: found true with {world_size} process{'es' if world_size > 1 else ''} on"
                f" {device.type}; allowed: with several processes on GPUs"
            )


def _refuse_fixed_sizes(config: Config, criterion: Criterion, has_queries: bool) -> None:
    """Options that rely on batches that can be cut, or that all have the same size."""
    training: Any = config.training
    if training.micro_batch != "auto" and (not criterion.additive or has_queries):
        raise ConfigError(
            f"training.micro_batch: found {training.micro_batch}, but neither soft F1 nor a ranking loss can be"
            " computed on parts of a batch; allowed: auto"
        )
    if training.compile is True and has_queries:
        raise ConfigError(
            "training.compile: found true, but batches of whole queries come in too many sizes to compile for each;"
            " allowed: auto, false"
        )
