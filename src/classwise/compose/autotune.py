"""Every `auto` of a config replaced by a value: settings that matter for speed are measured on this machine."""

import dataclasses
import os
import time
from typing import Any

import torch
from torch.optim import Optimizer

from classwise.compose.checks import ONE_ROW
from classwise.compose.loaders import augmentation, training_images
from classwise.compose.losses import build_criterion
from classwise.compose.settings import core_count, device_of, unless_auto, worker_count
from classwise.compose.splits import DatasetSplits
from classwise.compose.state import optimizer_of
from classwise.config import schema as cfg
from classwise.config.load import make_config
from classwise.config.schema import Config
from classwise.console import Console
from classwise.distributed import SINGLE_PROCESS, Processes
from classwise.errors import ConfigError, ImageError
from classwise.model.classifier import Classifier
from classwise.training.tuning import FORMATS, Plan, SearchSpace, tune


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
            memory_format=unless_auto(training.memory_format, "channels_last"),
            compile=unless_auto(training.compile, False),
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


def _measured_plans(
    config: Config, splits: DatasetSplits, model: Classifier, device: torch.device, console: Console
) -> list[Plan]:
    dataset = training_images(config, splits, model.metadata)
    sample = range(0, len(dataset), max(1, len(dataset) // 24))
    started = time.perf_counter()
    read = sum(not isinstance(dataset[0, row], ImageError) for row in sample)
    seconds = (time.perf_counter() - started) / max(read, 1)
    criterion = build_criterion(config, splits)

    def trial_optimizer(trial: Classifier, fused: bool | None) -> Optimizer:
        options = {**(config.optimizer.options or {}), **({} if fused is None else {"fused": fused})}
        optimizer = config.optimizer.model_copy(update={"options": options})
        return optimizer_of(config.model_copy(update={"optimizer": optimizer}), trial, criterion)

    whole_queries = splits.queries(splits.train) is not None
    choices = _search_space(config, device, trial_optimizer(model, None), whole_queries)
    console.line("measuring which way to train this model is the fastest on this machine ...")
    size = min(
        config.training.batch_size, unless_auto(config.training.micro_batch, config.training.batch_size)
    )
    try:
        plans = tune(model, trial_optimizer, size, device, seconds, choices)
    except ValueError as error:
        if "more than 1 value per channel" in str(error):
            raise ConfigError(ONE_ROW.format(config.training.batch_size)) from error
        raise
    if not plans:
        raise ConfigError(f"model.image_size: not even one image fits the memory of {device}")
    console.line(f"fastest here: {plans[0]}")
    console.note("".join(f"slower: {plan}\n" for plan in plans[1:]).rstrip())
    return plans


def _search_space(
    config: Config, device: torch.device, optimizer: Optimizer, whole_queries: bool
) -> SearchSpace:
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
        readers = max(1, core_count() // 4)
        found = [(all_threads, 0), (max(1, all_threads - readers), readers)]
    fixed = [
        (t if given_threads == "auto" else given_threads, w if given_workers == "auto" else given_workers)
        for t, w in found
    ]
    return list(dict.fromkeys(fixed))
