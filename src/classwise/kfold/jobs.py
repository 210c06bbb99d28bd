"""Folds that are trained at the same time: how many, on which GPU, with how many cores, and what they share."""

import os
from collections.abc import Callable

import torch

from classwise.compose.dataset import ReadData, prepare
from classwise.compose.first_answer import compute_features, wants_first_answer
from classwise.compose.settings import core_count, device_of
from classwise.config.folds import Folds
from classwise.config.schema import Config
from classwise.console import Console
from classwise.distributed import SINGLE_PROCESS
from classwise.run.assembly import new_model
from classwise.run.predictor import set_threads

VISIBLE = "CUDA_VISIBLE_DEVICES"


def jobs_of(config: Config) -> int:
    """How many folds are trained at the same time; `auto`: one for each GPU, and one on a CPU, whose cores one run
    keeps busy by itself."""
    folds = config.folds or Folds()
    runs = folds.count * folds.repeats
    if folds.jobs == "auto":
        is_cuda = device_of(config.training.device, SINGLE_PROCESS).type == "cuda"
        return min(runs, torch.cuda.device_count()) if is_cuda and not _names_one(config) else 1
    return min(runs, folds.jobs)


def _names_one(config: Config) -> bool:
    """Whether the config names one GPU, such as cuda:1."""
    return ":" in config.training.device


def with_shared_cores(config: Config, jobs: int) -> Config:
    """The config of a run that has `jobs` - 1 others beside it: its share of the cores, where the config leaves threads
    and workers to `auto`. Threads change the last bits of a result, so they are decided once, for all folds."""
    if jobs == 1:
        return config
    share = max(1, core_count() // jobs)
    training, data = config.training, config.data
    if training.threads == "auto":
        training = training.model_copy(update={"threads": share})
    if data.workers == "auto":
        on_gpu = device_of(training.device, SINGLE_PROCESS).type == "cuda"
        data = data.model_copy(update={"workers": min(16, share) if on_gpu else share // 4})
    return config.model_copy(update={"training": training, "data": data})


def environments(config: Config) -> list[dict[str, str]]:
    """What the processes add to their environment, in turns: the GPU that each of them sees."""
    device = device_of(config.training.device, SINGLE_PROCESS)
    if device.type != "cuda" or _names_one(config):
        return [{}]
    given = os.environ.get(VISIBLE)
    names = given.split(",") if given else [str(number) for number in range(torch.cuda.device_count())]
    return [{VISIBLE: name} for name in names]


def share_features(config: Config, read: ReadData, console: Console, should_stop: Callable[[], bool]) -> None:
    """Compute the features of the frozen backbone, for all rows, before several processes would each do it; they find
    them on the disk. `config`: of the first fold. Raises ImageError, Interrupted, NonFiniteError."""
    if not wants_first_answer(config):
        return
    # As in the runs themselves, whose features these are: folds that are resumed have not set them yet.
    set_threads(config)
    splits = prepare(config, console, read=read)
    made = new_model(config, splits, SINGLE_PROCESS)
    device = device_of(config.training.device, SINGLE_PROCESS)
    compute_features(
        config,
        splits,
        made.model,
        heads=made.heads,
        device=device,
        console=console,
        should_stop=should_stop,
    )
