"""training.minutes: how many epochs fit into the time that training may take on this machine."""

import copy
import math
import time
from typing import Any

import torch

from classwise.compose.losses import build_criterion
from classwise.compose.settings import build_settings, unless_auto
from classwise.compose.splits import DatasetSplits
from classwise.config.conflicts import losses_of
from classwise.config.schema import Config
from classwise.console import Console
from classwise.model.classifier import Classifier
from classwise.training.tuning import torch_threads

ROWS_TO_CHOOSE = 30
"""Fewer validation rows cannot tell whether a fine-tuned model is better than the first answer."""
TIMED_IMAGES = 8
"""Of one timed pass: enough to keep all threads busy, and soon done."""
TIMED_PASSES = 4


def plan_for(config: Config, splits: DatasetSplits, console: Console) -> str:
    """training.plan without `auto`: the config's own (see `Config.plan`), but no fine-tuning where too few rows
    validate to choose between it and the first answer: the first answer would be kept, after most of the time. Where no
    row validates, nothing is chosen, and what was asked for is trained."""
    rows = len(splits.valid.samples)
    is_undecidable = config.plan == "probe_then_finetune" and 0 < rows < ROWS_TO_CHOOSE
    if config.training.plan != "auto" or not is_undecidable:
        return config.plan
    console.line(
        f"not fine-tuned: {rows} validation rows could not show whether that is better than the first answer"
        f' ({ROWS_TO_CHOOSE} are needed); training.plan = "probe_then_finetune" tries it all the same'
    )
    return "probe"


def epochs_in_time(
    config: Config,
    splits: DatasetSplits,
    model: Classifier,
    device: torch.device,
    processes: int,
    console: Console,
) -> int:
    """training.epochs, or as many epochs as fit into training.minutes, but as many as other keys count on. The model
    does not change."""
    training = config.training
    if training.minutes is None or config.plan == "probe":
        return training.epochs
    # A CPU is busy with few images; a GPU is not.
    most = training.batch_size if device.type == "cuda" else TIMED_IMAGES
    batch_size = max(2, min(most, training.batch_size))  # batch norm needs two
    rows = len(splits.train.samples) / processes
    threads = unless_auto(training.threads, torch.get_num_threads())
    with torch_threads(threads):
        seconds = _seconds_per_image(model, splits, config, device, batch_size) * rows
    wanted = int(60 * training.minutes / seconds)
    epochs = min(training.epochs, max(least_epochs(config), wanted))
    about = f"{seconds:.0f} s" if seconds >= 1 else "under a second"
    fewer = f"{epochs} of {training.epochs} epochs" if epochs < training.epochs else f"all {epochs} epochs"
    if training.epochs == 1:
        fewer = "the one epoch"
    text = (
        f"an epoch takes about {about} here: training.minutes = {training.minutes:g} leaves time for {fewer}"
    )
    if wanted < epochs and epochs * seconds > 60 * training.minutes:
        text = (
            f"an epoch takes about {about} here: {fewer}, the fewest that the config allows, will take about"
            f" {epochs * seconds / 60:.0f} minutes instead of training.minutes = {training.minutes:g}"
        )
    console.line(text)
    return epochs


def least_epochs(config: Config) -> int:
    """What other keys count in epochs has to lie within them: with fewer the config would be refused, or class weights
    that begin late would never apply."""
    training = config.training
    first_epoch = config.selection.first_epoch
    begins: list[int] = [
        loss.weights_from_epoch for loss in _losses(config) if hasattr(loss, "weights_from_epoch")
    ]
    before_the_last: int = training.freeze_epochs + math.floor(getattr(config.schedule, "warmup_epochs", 0.0))
    begins += [epoch + 1 for epoch in config.schedule.restart_after or ()]
    return max([before_the_last + 1, first_epoch if isinstance(first_epoch, int) else 1, *begins])


def _losses(config: Config) -> list[Any]:
    """The loss sections of all targets, with the terms of sums."""
    return [loss for name in config.targets for loss in losses_of(config, name)]


def _seconds_per_image(
    model: Classifier, splits: DatasetSplits, config: Config, device: torch.device, batch_size: int
) -> float:
    """Of a forward and a backward pass in the run's precision: the fastest of a few, as other programs may have the
    machine for a moment, and fewer epochs are another model. The first pass sets things up and does not count."""
    # A copy, since a pass in training mode changes the statistics of batch norm.
    trial = copy.deepcopy(model).to(device).train()
    criterion = build_criterion(config, splits).to(device)
    rows = [row % len(splits.train.samples) for row in range(batch_size)]
    targets = {
        name: torch.from_numpy(values[rows]).to(device) for name, values in splits.train.labels.items()
    }
    forward = build_settings(config, device).in_precision(trial)
    size = (batch_size, model.metadata.channels, *model.metadata.image_size)
    images = torch.zeros(size, dtype=torch.uint8, device=device)
    taken = []
    for _ in range(1 + TIMED_PASSES):
        started = time.perf_counter()
        criterion(forward(images), targets).backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - started)
    return min(taken[1:]) / batch_size
