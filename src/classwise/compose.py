"""From the config to the parts: data, model, criterion, optimizer, schedule. Only `run.py` calls this."""

import dataclasses
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from classwise import config as cfg
from classwise.config import Config
from classwise.console import Console
from classwise.data.augment import PRESETS, Augment
from classwise.data.images import check_images
from classwise.data.loader import Loader, Pictures, TrainingData, ValidationData
from classwise.data.sources import Samples, read_source
from classwise.data.split import split_rows
from classwise.data.table import full_column
from classwise.data.targets import ClassTarget, class_target
from classwise.errors import ConfigError, DataError, ImageError
from classwise.files import json_text, sha256
from classwise.losses.balanced_softmax import BalancedSoftmax
from classwise.losses.class_weights import class_weights
from classwise.losses.criterion import Criterion
from classwise.losses.cross_entropy import CrossEntropy
from classwise.losses.focal import Focal
from classwise.losses.soft_f1 import SoftMacroF1
from classwise.losses.weighted_sum import WeightedSum
from classwise.metrics.joint import joint_number
from classwise.metrics.scoreboard import joint_labels, resolve_metric
from classwise.model.classifier import Classifier, ModelFacts, build_classifier
from classwise.optim.groups import parameter_groups
from classwise.optim.optimizers import build_optimizer
from classwise.optim.schedules import Schedule, build_schedule
from classwise.randomness import WEIGHTS, torch_seed
from classwise.train.loop import Settings
from classwise.train.state import TrainState
from classwise.train.tuning import Plan, fastest_plan

Numbers = npt.NDArray[np.int64]

ONE_ROW = (
    "training.batch_size: found {}, which leaves a batch of one picture, and batch norm cannot normalise a single"
    " one at this image_size; choose a number that leaves none over"
)


@dataclass(frozen=True)
class Side:
    """One side of the split: its rows and their label numbers by target."""

    samples: Samples
    labels: dict[str, Numbers]


@dataclass(frozen=True)
class Prepared:
    """The data of a run, read, checked and split. `bad` are the pictures that were left out."""

    targets: tuple[ClassTarget, ...]
    joint: tuple[str, ...]
    train: Side
    valid: Side
    bad: tuple[ImageError, ...]
    warnings: tuple[str, ...]

    @property
    def label_lists(self) -> dict[str, tuple[str, ...]]:
        """The label list of every target."""
        return {target.name: target.labels for target in self.targets}

    def classes(self, side: Side) -> Numbers:
        """What sampling balances: the joint class, the only target, or else all targets' labels together."""
        names = self.joint or tuple(side.labels)
        return joint_number([side.labels[name] for name in names], [len(self.label_lists[n]) for n in names])


def prepare(config: Config, console: Console) -> Prepared:
    """Read, check and split the data; nothing is written. Raises DataError, ConfigError."""
    data = config.data
    samples, bad = _checked(
        read_source(Path(data.source), Path(data.images), data.path, data.id, data.group), config, console
    )
    targets = tuple(_target(name, target, samples) for name, target in config.targets.items())
    joint = config.joint.targets if config.joint else ()
    labels = encode(targets, samples)
    warnings = list(samples.notes)
    if isinstance(data.valid, str):
        other, bad_too = _checked(_valid_source(config), config, console)
        bad += bad_too
        warnings += other.notes
        _refuse_overlap(samples, other)
        train, valid = Side(samples, labels), Side(other, encode(targets, other))
    else:
        train, valid = _split(samples, labels, targets, data.valid, config.seed)
    if bad:
        warnings.append(f"{_pictures(len(bad))} left out, since unusable (data.bad_images = skip)")
    _refuse_clashing_names(targets, bool(joint))
    prepared = Prepared(targets, joint, train, valid, tuple(bad), tuple(warnings))
    return dataclasses.replace(prepared, warnings=(*warnings, *_absent_classes(prepared)))


def encode(targets: Sequence[ClassTarget], samples: Samples) -> dict[str, Numbers]:
    """Label numbers by target. Raises DataError for a missing column, an empty cell, an unknown label."""
    return {
        target.name: target.encode(
            full_column(samples.frame, target.column, samples.where, f"targets.{target.name}.column"),
            samples.where,
        )
        for target in targets
    }


def data_digest(prepared: Prepared) -> str:
    """A hash over what a run learns from: both sides' ids, picture names and label numbers, in order."""
    sides = [
        [list(side.samples.ids), list(side.samples.names), {k: v.tolist() for k, v in side.labels.items()}]
        for side in (prepared.train, prepared.valid)
    ]
    return sha256(json_text(sides).encode())


def class_counts(prepared: Prepared, side: Side) -> dict[str, list[int]]:
    """Rows of each label, by target and, where there is one, for `joint`."""
    counts = {
        target.name: np.bincount(side.labels[target.name], minlength=len(target.labels)).tolist()
        for target in prepared.targets
    }
    if prepared.joint:
        size = len(joint_labels(prepared.label_lists, prepared.joint))
        counts["joint"] = np.bincount(prepared.classes(side), minlength=size).tolist()
    return counts


def check_pictures(paths: Sequence[Path], max_pixels: int, console: Console) -> list[ImageError]:
    """Decode every file once and return the bad ones."""
    return check_images(
        paths,
        max_pixels,
        progress=lambda items: console.bar(items, "reading pictures", total=len(set(paths))),
    )


def refuse_bad(bad: Sequence[ImageError], where: str, hint: str = "") -> None:
    """All bad files in one message."""
    if bad:
        listed = "\n".join(f"  {error}" for error in bad[:200])
        more = f"\n  ... and {len(bad) - 200} more" if len(bad) > 200 else ""
        raise DataError(f"{where}: {_pictures(len(bad))} cannot be used{hint}:\n{listed}{more}")


def device_of(name: str) -> torch.device:
    """auto is the GPU where there is one. Raises ConfigError."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
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
    return min(16, _cores()) if device.type == "cuda" else min(8, _cores() // 4)


def pictures_of(samples: Samples, facts: ModelFacts, max_pixels: int) -> Pictures:
    """Pictures as evaluation sees them."""
    return Pictures(samples.paths, facts.image_size, facts.fit, max_pixels)


def check_recipe(config: Config, prepared: Prepared, model: Classifier) -> None:
    """Raise the ConfigErrors of loss, optimizer, schedule and selection, before anything takes time."""
    build_settings(config, device_of(config.training.device))
    build_criterion(config, prepared)
    optimizer = _optimizer(config, model)
    t = config.training
    updates = -(-len(prepared.train.samples) // (t.batch_size * t.accumulate))
    _schedule(config, optimizer, updates)


def build_model(config: Config, prepared: Prepared) -> Classifier:
    """The model with its initial weights, on the host. Raises ModelError."""
    m = config.model
    heads = {target.name: len(target.labels) for target in prepared.targets}
    seed = torch_seed(config.seed, WEIGHTS)
    return build_classifier(m.backbone, m.weights, m.image_size, m.fit, m.dropout, heads, seed)


def settle(
    config: Config, prepared: Prepared, model: Classifier, console: Console
) -> tuple[Config, torch.device]:
    """Replace every `auto` by what it turns out to be, so that the resolved config gives the same run again."""
    data, training = config.data, config.training
    device = device_of(training.device)
    workers = worker_count(data.workers, device)
    precision, threads = training.precision, training.threads
    if precision == "auto":
        plan = _measured_plan(config, prepared, model, device, console)
        precision, threads, workers = plan.precision, plan.threads, plan.workers  # type: ignore[assignment]
    threads = torch.get_num_threads() if threads == "auto" else threads
    augment = cfg.Augment(preset=data.augment.preset, **dataclasses.asdict(augmentation(config)))
    new_data = {
        "workers": workers,
        "augment": augment,
        "id": data.id or data.path,
    }
    new_training = {"precision": precision, "threads": threads, "device": str(device)}
    update = {
        "data": data.model_copy(update=new_data),
        "training": training.model_copy(update=new_training),
    }
    return config.model_copy(update=update), device


def _measured_plan(
    config: Config, prepared: Prepared, model: Classifier, device: torch.device, console: Console
) -> Plan:
    pictures = _training_pictures(config, prepared, model.facts)
    sample = range(0, len(pictures), max(1, len(pictures) // 24))
    started = time.perf_counter()
    read = sum(not isinstance(pictures[0, row], ImageError) for row in sample)
    seconds = (time.perf_counter() - started) / max(read, 1)
    layouts = _layouts(config, device)
    console.line(f"measuring {2 * len(layouts)} ways to train this model on this machine ...")
    try:
        plans = fastest_plan(model, config.training.batch_size, device, seconds, layouts)
    except ValueError as error:
        if "more than 1 value per channel" in str(error):
            raise ConfigError(ONE_ROW.format(config.training.batch_size)) from error
        raise
    console.line(f"fastest here: {plans[0]}")
    console.note("".join(f"slower: {plan}\n" for plan in plans[1:]).rstrip())
    return plans[0]


def _layouts(config: Config, device: torch.device) -> list[tuple[int, int]]:
    """(threads, workers) that are worth trying: all cores in turn for reading and training, or some for each."""
    given_threads, given_workers = config.training.threads, config.data.workers
    all_threads = torch.get_num_threads()
    if device.type == "cuda":
        found = [(all_threads, worker_count("auto", device))]
    else:
        readers = max(1, _cores() // 4)
        found = [(all_threads, 0), (max(1, all_threads - readers), readers)]
    fixed = [
        (t if given_threads == "auto" else given_threads, w if given_workers == "auto" else given_workers)
        for t, w in found
    ]
    return list(dict.fromkeys(fixed))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def augmentation(config: Config) -> Augment:
    """The preset with its parts replaced by those that the config gives."""
    given = config.data.augment.model_dump(exclude={"preset"}, exclude_none=True)
    return dataclasses.replace(PRESETS[config.data.augment.preset], **given)


def build_data(
    config: Config, prepared: Prepared, facts: ModelFacts, device: torch.device
) -> tuple[TrainingData, ValidationData]:
    """The loaders of both sides."""
    data, training = config.data, config.training
    assert isinstance(data.workers, int)
    pin = device.type == "cuda"
    pictures = _training_pictures(config, prepared, facts)
    loader = Loader(pictures, prepared.train.labels, training.batch_size, data.workers, pin)
    valid = Loader(
        pictures_of(prepared.valid.samples, facts, data.max_pixels),
        prepared.valid.labels,
        training.batch_size,
        data.workers,
        pin,
    )
    classes = prepared.classes(prepared.train)
    ids = prepared.train.samples.ids
    train = TrainingData(loader, ids, classes, data.sampling, config.seed, training.accumulate)
    return train, ValidationData(valid)


def _training_pictures(config: Config, prepared: Prepared, facts: ModelFacts) -> Pictures:
    plain = pictures_of(prepared.train.samples, facts, config.data.max_pixels)
    return dataclasses.replace(plain, seed=config.seed, augment=augmentation(config))


def build_criterion(config: Config, prepared: Prepared) -> Criterion:
    """One loss a target, joined. Raises ConfigError."""
    counts = class_counts(prepared, prepared.train)
    losses = {}
    for name, target in config.targets.items():
        key = f"targets.{name}.loss" if target.loss else "loss"
        losses[name] = _loss(target.loss or config.loss, np.array(counts[name]), key)
        if not losses[name].additive and config.training.accumulate > 1:
            raise ConfigError(
                f"{key}: soft F1 is not a sum over samples, so it cannot be accumulated exactly;"
                f" training.accumulate: found {config.training.accumulate}, allowed: 1"
            )
    return Criterion(losses, {name: target.weight for name, target in config.targets.items()})


def build_state(config: Config, model: Classifier, data: TrainingData, device: torch.device) -> TrainState:
    """Model, optimizer, schedule and scaler at update 0. Raises ConfigError."""
    model.to(device)
    optimizer = _optimizer(config, model)
    schedule = _schedule(config, optimizer, data.updates_per_epoch)
    scaler = torch.amp.GradScaler(device.type, enabled=config.training.precision == "fp16")
    return TrainState(model, optimizer, schedule, scaler)


def _optimizer(config: Config, model: Classifier) -> Optimizer:
    o = config.optimizer
    groups = parameter_groups(model.backbone, model.heads, o.lr, o.weight_decay, o.backbone_lr_factor)
    return build_optimizer(
        o.name,
        groups,
        o.lr,
        o.weight_decay,
        momentum=o.momentum,
        nesterov=o.nesterov,
        betas=o.betas,
        eps=o.eps,
    )


def _schedule(config: Config, optimizer: Optimizer, updates_per_epoch: int) -> Schedule:
    return build_schedule(
        bases=[group["lr"] for group in optimizer.param_groups],
        updates_per_epoch=updates_per_epoch,
        epochs=config.training.epochs,
        higher_is_better=True,
        **_schedule_options(config),
    )


def build_settings(config: Config, device: torch.device) -> Settings:
    """The loop's fixed numbers."""
    metric = resolve_metric(config.selection.metric, list(config.targets), config.joint is not None)
    t = config.training
    clip = float("inf") if t.clip_norm is None else t.clip_norm
    s = config.selection
    return Settings(config.seed, t.epochs, metric, s.first_epoch, s.patience, clip, t.precision, device)


def _schedule_options(config: Config) -> dict[str, Any]:
    options = config.schedule.model_dump()
    return options | ({"lr": config.optimizer.lr} if config.schedule.name == "onecycle" else {})


def _pictures(count: int) -> str:
    return f"{count} picture{'' if count == 1 else 's'}"


def _checked(samples: Samples, config: Config, console: Console) -> tuple[Samples, list[ImageError]]:
    bad = check_pictures(samples.paths, config.data.max_pixels, console)
    if not bad:
        return samples, []
    if config.data.bad_images == "error":
        refuse_bad(bad, samples.where, ' (data.bad_images = "skip" leaves such rows out)')
    unusable = {error.path for error in bad}
    good = [row for row, path in enumerate(samples.paths) if path not in unusable]
    if not good:
        raise DataError(
            f"{samples.where}: not one of its {len(samples)} pictures can be used, such as {bad[0]}"
        )
    return samples.take(good), bad


def _target(name: str, target: cfg.Target, samples: Samples) -> ClassTarget:
    cells = full_column(samples.frame, target.column, samples.where, f"targets.{name}.column")
    return class_target(name, target.column, cells, target.labels, target.edges, samples.where)


def _refuse_clashing_names(targets: Sequence[ClassTarget], joint: bool) -> None:
    """Predictions have columns such as mask, mask_true and mask_p_wear: no two may come out the same."""
    owners = dict.fromkeys(("id", *(("joint", "joint_true", "joint_p") if joint else ())), "classwise itself")
    for target in targets:
        own = [target.name, f"{target.name}_true", *(f"{target.name}_p_{label}" for label in target.labels)]
        for column in own:
            if column in owners:
                raise ConfigError(
                    f"targets.{target.name}: its predictions would have a column {column!r}, as would"
                    f" {owners[column]}; choose another name for the target"
                )
        owners |= dict.fromkeys(own, f"target {target.name!r}")


def _valid_source(config: Config) -> Samples:
    data = config.data
    try:
        return read_source(Path(str(data.valid)), Path(data.images), data.path, data.id, data.group)
    except DataError as error:
        raise DataError(str(error).replace("data.source", "data.valid")) from None


def _split(
    samples: Samples, labels: dict[str, Numbers], targets: Sequence[ClassTarget], share: float, seed: int
) -> tuple[Side, Side]:
    names = {target.name: target.labels for target in targets}
    valid_N = split_rows(labels, names, samples.groups, share, seed)
    if valid_N.all() or not valid_N.any():
        raise DataError(
            f"{samples.where}: a share of {share} of {len(samples)} rows leaves one side of the split empty"
            " (data.valid)"
        )
    sides = []
    for side_N in (~valid_N, valid_N):
        rows = np.flatnonzero(side_N)
        part = {name: numbers[rows] for name, numbers in labels.items()}
        sides.append(Side(samples.take(rows.tolist()), part))
    return sides[0], sides[1]


def _refuse_overlap(train: Samples, valid: Samples) -> None:
    """A row or a group on both sides would make validation look better than it is."""
    pairs = {"id": (train.ids, valid.ids), "picture": (train.paths, valid.paths)}
    if train.groups is not None and valid.groups is not None:
        pairs["group"] = (train.groups, valid.groups)
    for what, (ours, theirs) in pairs.items():
        if what == "id" and train.root != valid.root:
            continue  # two folders may well name their files alike
        both = sorted({str(one) for one in ours} & {str(one) for one in theirs})
        if both:
            raise DataError(
                f"{valid.where} (data.valid): {what} {both[0]!r} stands in {train.where} too"
                f" ({len(both)} in all); training and validation must not share any"
            )


def _absent_classes(prepared: Prepared) -> list[str]:
    warnings = []
    lists = {name: list(labels) for name, labels in prepared.label_lists.items()}
    if prepared.joint:
        lists["joint"] = joint_labels(prepared.label_lists, prepared.joint)
    for side, word in ((prepared.train, "training"), (prepared.valid, "validation")):
        for name, counts in class_counts(prepared, side).items():
            absent = [lists[name][k] for k, count in enumerate(counts) if count == 0]
            if absent:
                listed = ", ".join(absent[:8]) + (", ..." if len(absent) > 8 else "")
                warnings.append(f"{name}: {word} has no rows of {len(absent)} classes: {listed}")
    return warnings


def _loss(loss: Any, counts_K: Numbers, key: str) -> Any:
    """A loss module from its section of the config."""
    if isinstance(loss, cfg.WeightedSum):
        parts: list[nn.Module] = [
            _loss(term, counts_K, f"{key}.terms[{i}]") for i, term in enumerate(loss.terms)
        ]
        return WeightedSum(parts, [term.weight for term in loss.terms])
    return _LOSSES[loss.name](loss, counts_K, key)


def _weights(loss: Any, counts_K: Numbers, key: str) -> Tensor | None:
    try:
        return class_weights(loss.class_weights, counts_K)
    except ConfigError as error:
        raise ConfigError(f"{key}.class_weights: {error}") from None


_LOSSES: dict[str, Any] = {
    "cross_entropy": lambda loss, counts, key: CrossEntropy(
        _weights(loss, counts, key), loss.label_smoothing
    ),
    "focal": lambda loss, counts, key: Focal(loss.gamma, _weights(loss, counts, key)),
    "balanced_softmax": lambda loss, counts, key: BalancedSoftmax(torch.from_numpy(counts)),
    "soft_f1": lambda loss, counts, key: SoftMacroF1(len(counts)),
}
