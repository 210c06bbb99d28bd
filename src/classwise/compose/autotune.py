"""Every `auto` of a config replaced by a value; what decides the speed is measured on this machine."""

import dataclasses
import os
import time
from typing import Any

import torch
from torch.optim import Optimizer

from classwise.compose.budget import epochs_in_time, plan_for
from classwise.compose.checks import single_image_batch_error
from classwise.compose.loaders import augmentation, training_images
from classwise.compose.losses import build_criterion
from classwise.compose.remembered import keep_results, measuring_key, recall_results
from classwise.compose.settings import core_count, device_of, unless_auto, worker_count
from classwise.compose.splits import DatasetSplits
from classwise.compose.state import optimizer_of
from classwise.config.data import Augment
from classwise.config.load import make_config
from classwise.config.schema import Config
from classwise.console import Console
from classwise.data.memory import Memory, NoMemory
from classwise.distributed import SINGLE_PROCESS, Processes
from classwise.errors import ConfigError, ImageError
from classwise.model.classifier import Classifier
from classwise.training.tuning import FORMATS, SearchSpace, TuningResult, tune

TIMED_IMAGES = 24  # training images that are read to time one
CHUNK_PIXELS = 8 * 224 * 224
"""Of the images that a CPU computes at once where the gradient does not depend on it."""
MIN_BATCHES = 200
"""Batches that train the backbone, from which on measuring pays: it takes as long as some 40 of them."""


def resolve_auto(
    config: Config,
    splits: DatasetSplits,
    model: Classifier,
    console: Console,
    processes: Processes = SINGLE_PROCESS,
    memory: Memory | None = None,
) -> tuple[Config, torch.device, list[dict[str, Any]]]:
    """The config without any `auto`, so that it gives the same run again; this process's device; and what
    was measured, the fastest first (none if `training.precision` is given).

    With a `memory`, what was measured before is taken from it, and nothing is measured for a run so short that this
    would not pay. With several processes, rank 0 measures for all. Raises ConfigError.
    """
    device = device_of(config.training.device, processes)
    config = _with_training(
        config, {"plan": processes.from_rank_zero(lambda: plan_for(config, splits, console))}
    )

    def resolve() -> tuple[dict[str, Any], list[dict[str, Any]]]:
        chunk = _chunk(config, splits, model, device)
        results = []
        if config.training.precision == "auto" and (memory is None or _pays(config, splits, processes)):
            results = _recalled_or_measured(
                config, splits, model, device, console, processes, chunk, memory=memory or NoMemory()
            )
        elif config.training.precision == "auto":
            console.note("a short run: nothing is measured to train it faster")
        choice = results[0] if results else _without_measuring(config, device)
        resolved = _with_choice(config, choice, device)
        epochs = epochs_in_time(resolved, splits, model, device, processes.world_size, console)
        changes: dict[str, Any] = {"epochs": epochs, "minutes": None}
        if chunk is not None:
            changes["micro_batch"] = chunk
        resolved = _with_training(resolved, changes)
        return resolved.to_dict(), [dataclasses.asdict(result) for result in results]

    values, results = processes.from_rank_zero(resolve)
    return make_config(values), device, results


def _without_measuring(config: Config, device: torch.device) -> TuningResult:
    """For a config with a fixed precision, and for a short run: nothing is measured, each `auto` takes its default."""
    training = config.training
    return TuningResult(
        precision=unless_auto(training.precision, "fp32"),
        threads=unless_auto(training.threads, torch.get_num_threads()),
        workers=worker_count(config.data.workers, device),
        memory_format=unless_auto(training.memory_format, "channels_last"),
        compile=unless_auto(training.compile, False),
    )


def _with_choice(config: Config, choice: TuningResult, device: torch.device) -> Config:
    """The config with the chosen values, and with whatever else was left to defaults written out."""
    # `fused` is None if the optimizer has no such version, or if the config chooses one.
    optimizer = config.optimizer
    if choice.fused is not None:
        options = {**(optimizer.options or {}), "fused": choice.fused}
        optimizer = optimizer.model_copy(update={"options": options})

    # The preset is written out, so that another version of classwise with other presets repeats the run.
    data = config.data
    augment = Augment(preset=data.augment.preset, **dataclasses.asdict(augmentation(config)))
    data = data.model_copy(
        update={"workers": choice.workers, "augment": augment, "id": data.id or data.path},
    )

    # With several processes each has a GPU of its own, whose number does not belong in the run's config.
    device_name = str(device) if "LOCAL_RANK" not in os.environ else device.type
    training = config.training.model_copy(
        update={
            "precision": choice.precision,
            "threads": choice.threads,
            "memory_format": choice.memory_format,
            "compile": choice.compile,
            "device": device_name,
        },
    )
    return config.model_copy(update={"data": data, "training": training, "optimizer": optimizer})


def _chunk(config: Config, splits: DatasetSplits, model: Classifier, device: torch.device) -> int | None:
    """The images that training computes at once, where small chunks are only an advantage: a CPU computes them as fast,
    and holds a quarter of the memory. Where an image's outputs or the loss depend on the others, they would give
    another gradient. Only for a fine-tuned backbone, whose maps take gigabytes."""
    if config.training.micro_batch != "auto" or device.type != "cpu":
        return None
    if config.plan != "probe_then_finetune" or model.batch_dependent_norms:
        return None
    height, width = config.model.image_size
    chunk = max(1, CHUNK_PIXELS // (height * width))
    if chunk >= config.training.batch_size or splits.queries(splits.train) is not None:
        return None
    return chunk if build_criterion(config, splits).additive else None


def _with_training(config: Config, changes: dict[str, Any]) -> Config:
    """The config with some keys of [training] replaced."""
    return config.model_copy(update={"training": config.training.model_copy(update=changes)})


def _pays(config: Config, splits: DatasetSplits, processes: Processes) -> bool:
    """Whether the backbone is trained for long enough that measuring is won back."""
    training = config.training
    if config.plan == "probe":
        return False
    batches_per_epoch = len(splits.train.samples) / (training.batch_size * processes.world_size)
    return batches_per_epoch * (training.epochs - training.freeze_epochs) >= MIN_BATCHES


def _recalled_or_measured(
    config: Config,
    splits: DatasetSplits,
    model: Classifier,
    device: torch.device,
    console: Console,
    processes: Processes,
    chunk: int | None,
    memory: Memory,
) -> list[TuningResult]:
    """What was measured before under the same conditions, else what is measured now. Raises ConfigError."""
    key = measuring_key(config, splits, model, device, processes.world_size, chunk)
    results = recall_results(memory, key)
    if results:
        console.line(f"remembered as the fastest here: {results[0]}")
        return results
    results = _measured(config, splits, model, device, console, chunk)
    keep_results(memory, key, results)
    return results


def _measured(
    config: Config,
    splits: DatasetSplits,
    model: Classifier,
    device: torch.device,
    console: Console,
    chunk: int | None,
) -> list[TuningResult]:
    """What fits the device, the fastest first. Raises ConfigError if none does."""
    seconds_per_image = _read_seconds(config, splits, model)
    criterion = build_criterion(config, splits)

    def trial_optimizer(trial: Classifier, fused: bool | None) -> Optimizer:
        options = {**(config.optimizer.options or {}), **({} if fused is None else {"fused": fused})}
        optimizer = config.optimizer.model_copy(update={"options": options})
        return optimizer_of(config.model_copy(update={"optimizer": optimizer}), trial, criterion)

    has_queries = splits.queries(splits.train) is not None
    search_space = _search_space(config, device, trial_optimizer(model, None), has_queries)

    # Timed with as many images at once as training will compute: a larger batch could run out of memory.
    batch_size = config.training.batch_size
    micro_batch = min(batch_size, chunk or unless_auto(config.training.micro_batch, batch_size))

    console.line("measuring which way to train this model is the fastest on this machine ...")
    try:
        results = tune(
            model,
            trial_optimizer,
            batch_size=micro_batch,
            device=device,
            read_seconds=seconds_per_image,
            space=search_space,
        )
    except ValueError as error:
        if clearer_error := single_image_batch_error(error, config):
            raise clearer_error from error
        raise
    if not results:
        raise ConfigError(f"model.image_size: not even one image fits the memory of {device}")

    console.line(f"fastest here: {results[0]}")
    console.note("".join(f"slower: {result}\n" for result in results[1:]).rstrip())
    return results


def _read_seconds(config: Config, splits: DatasetSplits, model: Classifier) -> float:
    """Seconds to read and augment one training image in this process, the mean over some of them."""
    dataset = training_images(config, splits, model.metadata)
    # Spread over the whole set: neighboring rows often hold images of one size.
    rows = range(0, len(dataset), max(1, len(dataset) // TIMED_IMAGES))
    started = time.perf_counter()
    readable = sum(not isinstance(dataset[0, row], ImageError) for row in rows)
    return (time.perf_counter() - started) / max(readable, 1)


def _search_space(
    config: Config, device: torch.device, optimizer: Optimizer, has_queries: bool
) -> SearchSpace:
    """What the config leaves open, as far as this device can do it."""
    training = config.training
    formats = tuple(FORMATS) if training.memory_format == "auto" else (training.memory_format,)

    # On a CPU compiling takes minutes, which few runs win back; whole queries make batches of too many sizes.
    compiled: tuple[bool, ...] = (False,)
    if training.compile != "auto":
        compiled = (training.compile,)
    elif device.type == "cuda" and not has_queries:
        compiled = (False, True)

    # Only if the optimizer would be fused by default, and the config has not chosen an implementation.
    given_options = config.optimizer.options or {}
    is_fused = optimizer.defaults.get("fused") is True
    chooses_fused = is_fused and not {"fused", "foreach"} & given_options.keys()
    return SearchSpace(
        layouts=_layouts(config, device),
        formats=formats,
        compiled=compiled,
        fused=(True, False) if chooses_fused else (None,),
    )


def _layouts(config: Config, device: torch.device) -> list[tuple[int, int]]:
    """The (threads, workers) worth trying. On a CPU: all cores read and train in turn, or some do either."""
    all_threads = torch.get_num_threads()
    if device.type == "cuda":
        candidates = [(all_threads, worker_count("auto", device))]
    else:
        workers = max(1, core_count() // 4)
        candidates = [(all_threads, 0), (max(1, all_threads - workers), workers)]

    # What the config gives is fixed in each candidate, which may make two of them equal.
    layouts = [
        (unless_auto(config.training.threads, threads), unless_auto(config.data.workers, workers))
        for threads, workers in candidates
    ]
    return list(dict.fromkeys(layouts))
