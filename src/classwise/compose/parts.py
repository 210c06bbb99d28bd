"""From the config to the parts: data, model, criterion, optimizer, schedule. Only `run.py` calls this."""

import contextlib
import dataclasses
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.optim import Optimizer

from classwise.compose.dataset import DatasetSplits, Split
from classwise.compose.linear_probe import Baselines, linear_probe, most_frequent, pixel_features, probe_rows
from classwise.compose.losses import build_criterion, cosine_scales
from classwise.config import schema as cfg
from classwise.config.load import make_config
from classwise.config.schema import Config
from classwise.console import Console
from classwise.data.augment import PRESETS, Augment
from classwise.data.cache import CachedImages
from classwise.data.dataset import ImageDataset
from classwise.data.epochs import TrainingData, ValidationData
from classwise.data.loader import FeatureLoader, Loader
from classwise.data.mixing import Mixing
from classwise.data.sampling import batches_of, table_order
from classwise.data.sources import Samples
from classwise.distributed import SINGLE_PROCESS, Processes
from classwise.errors import ConfigError, DataError, ImageError
from classwise.infer.features import features_of
from classwise.losses.criterion import Criterion
from classwise.metrics.collection import MetricCollection, higher_is_better, resolve_metric
from classwise.model.average import NoAverage, WeightAverage
from classwise.model.classifier import Classifier, ModelMetadata, build_classifier
from classwise.model.heads import Head
from classwise.optim.groups import parameter_groups
from classwise.optim.optimizers import build_optimizer
from classwise.optim.schedules import Schedule, build_schedule
from classwise.randomness import WEIGHTS, torch_seed
from classwise.training.compiled import compiled, compiled_sizes
from classwise.training.loop import Settings
from classwise.training.state import Progress, TrainState
from classwise.training.tuning import FORMATS, Plan, SearchSpace, tune

ONE_ROW = (
    "training.batch_size: found {}, which leaves a batch of one image, and batch norm cannot normalise a single"
    " one at this image_size; choose a number that leaves none over"
)


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
    return min(16, _cores()) if device.type == "cuda" else min(8, _cores() // 4)


def evaluation_images(
    samples: Samples, metadata: ModelMetadata, max_pixels: int, cached: CachedImages | None = None
) -> ImageDataset:
    """Images as evaluation sees them."""
    return ImageDataset(
        samples.paths, metadata.image_size, metadata.fit, max_pixels, root=samples.root, cached=cached
    )


def loader_of(
    dataset: ImageDataset,
    labels: Mapping[str, npt.NDArray[Any]],
    config: Config,
    device: torch.device,
    pin_memory: bool = False,
) -> Loader:
    """Batches as the config says."""
    d = config.data
    workers = worker_count(d.workers, device)
    size = config.training.batch_size
    return Loader(dataset, labels, size, workers, pin_memory, d.start_method, d.worker_timeout)


def check_recipe(
    config: Config, splits: DatasetSplits, model: Classifier, processes: Processes = SINGLE_PROCESS
) -> None:
    """Raise the ConfigErrors of loss, optimizer, schedule and selection, before anything takes time."""
    build_settings(config, device_of(config.training.device, processes))
    sizes = {name: len(labels) for name, labels in splits.label_lists.items()}
    _refuse_unknown_metric(splits, _metric(config, sizes))
    _refuse_unbalanced(config, splits)
    criterion = build_criterion(config, splits)
    optimizer = _optimizer(config, model, criterion)
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
    _schedule(config, optimizer, -(-len(batches) // window))


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


def build_model(config: Config, heads: dict[str, Head]) -> Classifier:
    """The model with its initial weights, on the host. Raises ModelError."""
    m = config.model
    outputs = {name: head.outputs for name, head in heads.items()}
    seed = torch_seed(config.seed, WEIGHTS)
    return build_classifier(
        *(m.backbone, m.weights, m.image_size, m.fit, m.dropout, outputs, seed, cosine_scales(config))
    )


def resolve_auto(
    config: Config,
    splits: DatasetSplits,
    model: Classifier,
    console: Console,
    processes: Processes = SINGLE_PROCESS,
) -> tuple[Config, torch.device, list[dict[str, Any]]]:
    """Replace every `auto` by what it turns out to be, so that the resolved config gives the same run again. The
    first of several processes measures for all. Also the device, and the plans that were measured."""
    device = device_of(config.training.device, processes)

    def resolved() -> tuple[dict[str, Any], list[dict[str, Any]]]:
        found, plans = _resolved(config, splits, model, console, device)
        return found.to_dict(), [dataclasses.asdict(plan) for plan in plans]

    values, plans = processes.from_rank_zero(resolved)
    return make_config(values), device, plans


def _resolved(
    config: Config, splits: DatasetSplits, model: Classifier, console: Console, device: torch.device
) -> tuple[Config, list[Plan]]:
    data, training, optimizer = config.data, config.training, config.optimizer
    plans: list[Plan] = []
    if training.precision == "auto":
        plans = _measured_plans(config, splits, model, device, console)
        plan = plans[0]
        if plan.fused is not None:
            options = {**(optimizer.options or {}), "fused": plan.fused}
            optimizer = optimizer.model_copy(update={"options": options})
    else:
        threads = torch.get_num_threads() if training.threads == "auto" else training.threads
        plan = Plan(
            training.precision,
            threads,
            worker_count(data.workers, device),
            memory_format=_given(training.memory_format, "channels_last"),
            compile=_given(training.compile, False),
        )
    augment = cfg.Augment(preset=data.augment.preset, **dataclasses.asdict(augmentation(config)))
    # A process's own GPU is no fact about the run.
    name = str(device) if "LOCAL_RANK" not in os.environ else device.type
    new_data = {"workers": plan.workers, "augment": augment, "id": data.id or data.path}
    new_training = {
        "precision": plan.precision,
        "threads": plan.threads,
        "memory_format": plan.memory_format,
        "compile": plan.compile,
        "device": name,
    }
    update = {
        "data": data.model_copy(update=new_data),
        "training": training.model_copy(update=new_training),
        "optimizer": optimizer,
    }
    return config.model_copy(update=update), plans


def _given(value: Any, otherwise: Any) -> Any:
    return otherwise if value == "auto" else value


def _measured_plans(
    config: Config, splits: DatasetSplits, model: Classifier, device: torch.device, console: Console
) -> list[Plan]:
    dataset = _training_images(config, splits, model.metadata)
    sample = range(0, len(dataset), max(1, len(dataset) // 24))
    started = time.perf_counter()
    read = sum(not isinstance(dataset[0, row], ImageError) for row in sample)
    seconds = (time.perf_counter() - started) / max(read, 1)
    criterion = build_criterion(config, splits)

    def optimizer_of(trial: Classifier, fused: bool | None) -> Optimizer:
        options = {**(config.optimizer.options or {}), **({} if fused is None else {"fused": fused})}
        optimizer = config.optimizer.model_copy(update={"options": options})
        return _optimizer(config.model_copy(update={"optimizer": optimizer}), trial, criterion)

    whole_queries = splits.queries(splits.train) is not None
    choices = _choices(config, device, optimizer_of(model, None), whole_queries)
    console.line("measuring which way to train this model is the fastest on this machine ...")
    size = min(config.training.batch_size, _given(config.training.micro_batch, config.training.batch_size))
    try:
        plans = tune(model, optimizer_of, size, device, seconds, choices)
    except ValueError as error:
        if "more than 1 value per channel" in str(error):
            raise ConfigError(ONE_ROW.format(config.training.batch_size)) from error
        raise
    if not plans:
        raise ConfigError(f"model.image_size: not even one image fits the memory of {device}")
    console.line(f"fastest here: {plans[0]}")
    console.note("".join(f"slower: {plan}\n" for plan in plans[1:]).rstrip())
    return plans


def _choices(config: Config, device: torch.device, optimizer: Optimizer, whole_queries: bool) -> SearchSpace:
    t, given = config.training, config.optimizer.options or {}
    formats = tuple(FORMATS) if t.memory_format == "auto" else (t.memory_format,)
    compiled: tuple[bool, ...] = (False,)
    if t.compile != "auto":
        compiled = (t.compile,)
    elif device.type == "cuda" and not whole_queries:  # a CPU needs minutes for it, and seldom wins them back
        compiled = (False, True)
    fuses = optimizer.defaults.get("fused") is True and not {"fused", "foreach"} & given.keys()
    return SearchSpace(
        _layouts(config, device),
        formats=formats,
        compiled=compiled,
        fused=(True, False) if fuses else (None,),
    )


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
    """Cores for this process: those of the machine are shared by all that `torchrun` has started on it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def augmentation(config: Config) -> Augment:
    """The preset with its parts replaced by those that the config gives."""
    given = config.data.augment.model_dump(exclude={"preset"}, exclude_none=True)
    return dataclasses.replace(PRESETS[config.data.augment.preset], **given)


def build_data(
    config: Config,
    splits: DatasetSplits,
    model: Classifier,
    device: torch.device,
    processes: Processes = SINGLE_PROCESS,
    window: int | None = None,
) -> tuple[TrainingData, ValidationData]:
    """The loaders of both sides. `window`: the micro-batches of an update over all processes (default: as many as
    the config says for each). Raises ConfigError."""
    data, t = config.data, config.training
    pin = device.type == "cuda"
    # A GPU has time to spare for what an image's own pixels are enough for.
    dataset = dataclasses.replace(_training_images(config, splits, model.metadata), augments_on_host=not pin)
    loader = loader_of(dataset, splits.train.labels, config, device, pin)
    seen = evaluation_images(splits.valid.samples, model.metadata, data.max_pixels, splits.valid.cached)
    valid = loader_of(seen, splits.valid.labels, config, device, pin)
    plain = evaluation_images(splits.train.samples, model.metadata, data.max_pixels, splits.train.cached)
    frozen = [
        _frozen(config, model, device, p, split) for p, split in ((plain, splits.train), (seen, splits.valid))
    ]
    train = TrainingData(
        loader,
        splits.train.samples.ids,
        splits.classes(splits.train),
        data.sampling,
        config.seed,
        window or t.accumulate * processes.world_size,
        queries=splits.queries(splits.train),
        rank=processes.rank,
        world_size=processes.world_size,
        features=frozen[0],
        frozen_epochs=t.freeze_epochs,
        mixing=_mixing(config, splits, processes.rank),
    )
    return train, ValidationData(
        valid,
        splits.queries(splits.valid),
        frozen[1],
        t.freeze_epochs,
        processes.rank,
        processes.world_size,
    )


def _frozen(
    config: Config, model: Classifier, device: torch.device, dataset: ImageDataset, split: Split
) -> FeatureLoader | None:
    """Features of one side for the epochs in which the backbone is frozen, made when they are first needed."""
    if not config.training.freeze_epochs:
        return None
    pin = device.type == "cuda"
    return FeatureLoader(lambda: model_features(model, dataset, config, device), split.labels, pin)


def model_features(model: Classifier, dataset: ImageDataset, config: Config, device: torch.device) -> Tensor:
    """features_ND of images, as evaluation sees them, in the run's precision."""
    loader = loader_of(dataset, {}, config, device)
    with contextlib.closing(loader):
        return features_of(model, loader, device, build_settings(config, device).autocast())


def run_baselines(
    config: Config, splits: DatasetSplits, model: Classifier, heads: dict[str, Head], device: torch.device
) -> Baselines:
    """The most frequent answer and a balanced linear probe on the same split: what a run has to beat.

    The probe looks at features of the backbone where its weights were learnt before, else at the pixels.
    """
    labels = [
        {name: torch.from_numpy(values) for name, values in split.labels.items()}
        for split in (splits.train, splits.valid)
    ]
    metric = build_settings(config, device).metric
    # Only what the metric is of: a probe of each target would cost as much again for nothing.
    heads = {name: heads[name] for name in _names_of(metric, splits)}

    def value(outputs: Mapping[str, Tensor]) -> float:
        joint = splits.joint if metric.startswith("joint.") else ()
        board = MetricCollection(heads, splits.label_lists, joint)
        board.update(outputs, labels[1])
        target, _, score = metric.rpartition(".")
        results = board.compute()
        scores = results["joint"] if joint else results["targets"][target or splits.targets[0].name]
        return float(scores[score])

    seen = [
        evaluation_images(split.samples, model.metadata, config.data.max_pixels, split.cached)
        for split in (splits.train, splits.valid)
    ]
    pretrained, rows = config.model.weights != "none", None
    if pretrained:
        rows = probe_rows(heads, labels[0], model.feature_count)  # no more images than the probe will look at
        seen[0] = seen[0].take(rows.tolist())
        train, valid = (model_features(model.to(device), p, config, device).numpy() for p in seen)
    else:
        train, valid = pixel_features(*(_pixel_batches(p, config, device) for p in seen))
    probe = linear_probe(heads, train, labels[0], valid, standardise=pretrained, rows=rows)
    return Baselines(
        metric,
        value(most_frequent(heads, labels[0], len(splits.valid.samples))),
        value(probe.outputs),
        "features" if pretrained else "pixels",
        probe.notes,
        next(iter(heads.values())).type if len(heads) == 1 else "class",
    )


def _pixel_batches(
    dataset: ImageDataset, config: Config, device: torch.device
) -> Iterator[npt.NDArray[np.uint8]]:
    """images_BHWC of all images, in order."""
    loader = loader_of(dataset, {}, config, device)
    with contextlib.closing(loader):
        for batch in loader.batches(batches_of(np.arange(len(dataset)), loader.batch_size)):
            yield batch.images.permute(0, 2, 3, 1).numpy()


def _mixing(config: Config, splits: DatasetSplits, rank: int) -> Mixing:
    classes = {t.name: len(t.labels) for t in splits.targets if t.type in ("class", "ordinal")}
    d = config.data
    return Mixing(d.mixup, d.cutmix, d.mix_share, config.seed, classes, rank)


def _training_images(config: Config, splits: DatasetSplits, metadata: ModelMetadata) -> ImageDataset:
    plain = evaluation_images(splits.train.samples, metadata, config.data.max_pixels, splits.train.cached)
    return dataclasses.replace(plain, seed=config.seed, augment=augmentation(config))


def build_state(
    config: Config, model: Classifier, criterion: Criterion, data: TrainingData, device: torch.device
) -> TrainState:
    """Model, criterion, optimizer, schedule, scaler and average at update 0. Raises ConfigError."""
    if config.training.sync_batch_norm and data.world_size > 1:
        from timm.layers import convert_sync_batchnorm  # knows timm's own norms; torch's would skip them

        model.backbone = convert_sync_batchnorm(model.backbone)
    t = config.training
    model.to(device)
    model.arrange(FORMATS[_given(t.memory_format, "channels_last")])
    criterion.to(device)
    optimizer = _optimizer(config, model, criterion)
    schedule = _schedule(config, optimizer, data.updates_per_epoch)
    scaler = torch.amp.GradScaler(device.type, enabled=t.precision == "fp16")
    average = NoAverage(model) if t.ema is None else WeightAverage(model, t.ema)
    progress = Progress(micro_batch=_given(t.micro_batch, 0))
    sizes = compiled_sizes(t.batch_size, progress.micro_batch)
    compute = compiled(model, sizes) if t.compile is True else None
    return TrainState(model, criterion, optimizer, schedule, scaler, average, progress, compute)


def _optimizer(config: Config, model: Classifier, criterion: Criterion) -> Optimizer:
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


def _schedule(config: Config, optimizer: Optimizer, updates_per_epoch: int) -> Schedule:
    frozen = config.training.freeze_epochs
    return build_schedule(
        bases=[group["lr"] for group in optimizer.param_groups],
        updates_per_epoch=updates_per_epoch,
        epochs=config.training.epochs,
        higher_is_better=higher_is_better(config.selection.metric),
        frozen_updates=frozen * updates_per_epoch,
        **_schedule_options(config),
    )


def build_settings(config: Config, device: torch.device, processes: Processes = SINGLE_PROCESS) -> Settings:
    """The loop's fixed numbers. Raises ConfigError."""
    metric = _metric(config)
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


def _metric(config: Config, sizes: Mapping[str, int] | None = None) -> str:
    """The metric that selects, by its full name; with `sizes`, also whether that many classes have it."""
    types = {name: target.type for name, target in config.targets.items()}
    return resolve_metric(config.selection.metric, types, config.joint is not None, sizes)


def _refuse_unbalanced(config: Config, splits: DatasetSplits) -> None:
    """Sampling by class needs rows that have a class in every target that it balances."""
    classes = splits.classes(splits.train)
    if config.data.sampling != "shuffle" and classes is not None and not (classes >= 0).any():
        names = splits.joint or tuple(splits.class_numbers(splits.train))
        raise ConfigError(
            f"data.sampling: found {config.data.sampling!r}, but no training row has an answer for all of"
            f" {', '.join(names)}; allowed: shuffle, or a [joint] of targets that are answered together"
        )


def _names_of(metric: str, splits: DatasetSplits) -> tuple[str, ...]:
    """The targets that a metric is of: one, or the parts of the joint class."""
    target = metric.rpartition(".")[0] or splits.targets[0].name
    return splits.joint if target == "joint" else (target,)


def _refuse_unknown_metric(splits: DatasetSplits, metric: str) -> None:
    """A metric over rows of which none has an answer would be 0 in every epoch."""
    names = _names_of(metric, splits)
    known_N = np.all([splits.target(n).known(splits.valid.labels[n]) for n in names], axis=0)
    if not known_N.any():
        raise DataError(
            f"selection.metric: {metric} cannot be measured: no validation row has an answer for {' and '.join(names)}"
        )


def _schedule_options(config: Config) -> dict[str, Any]:
    options = config.schedule.model_dump()
    return options | ({"lr": config.optimizer.lr} if config.schedule.name == "onecycle" else {})
