"""The last model of folds (folds.last): trained on all labeled rows, for as many epochs as the folds took on average.

It is a run like any other, beside those of the folds, and no part of their mean.
"""

import math
from collections.abc import Sequence

import numpy as np

from classwise.compose.budget import least_epochs
from classwise.compose.dataset import ReadData
from classwise.config.folds import Folds
from classwise.config.inference import Inference
from classwise.config.schedules import Schedule
from classwise.config.schema import Config, Selection
from classwise.console import Console
from classwise.errors import ClasswiseError, ConfigError
from classwise.kfold.folder import LAST, FoldsFolder
from classwise.kfold.plan import fold_runs
from classwise.run.unattended import is_done, state_of, train_or_resume


def wants_last(config: Config) -> bool:
    """Whether the config of folds asks for the model."""
    return config.folds is not None and config.folds.last


def check_last(config: Config) -> None:
    """Raise ConfigError where the model could not be trained, which should come out before the folds are."""
    if wants_last(config) and config.schedule.name == "plateau":
        raise ConfigError(
            "folds.last: found true, but schedule.name is 'plateau', and the last model has no validation rows whose"
            " score could stop rising; allowed: any other schedule"
        )


def train_last(folder: FoldsFolder, config: Config, read: ReadData, console: Console, quiet: bool) -> None:
    """Train it into `last`, or go on with it; the folds are done. Raises KeyboardInterrupt after a signal,
    ClasswiseError if it fails."""
    path = folder.path / LAST
    if not wants_last(config) or is_done(path):
        return
    epochs = [int(folder.run(run.name).metrics()["epoch"]) for run in fold_runs(config)]
    one = last_config(config, epochs)
    verb = "going on with" if state_of(path) else "training"
    length = "the first answer" if one.training.plan == "probe" else f"{one.training.epochs} epochs"
    console.line(f"{verb} {LAST}: all rows, {length}; the folds took {', '.join(map(str, epochs))} epochs")
    outcome = train_or_resume(path, one, quiet=quiet, read=read)
    if outcome.state == "interrupted":
        raise KeyboardInterrupt
    if outcome.state == "failed":
        raise ClasswiseError(
            f"{folder.path}: all folds are done, but {LAST} failed: {outcome.message}. Once the cause is gone, go on"
            f" with: classwise resume {folder.path}"
        )


def last_config(config: Config, epochs: Sequence[int]) -> Config:
    """What it trains; `classwise train` with it gives the same run. `epochs`: of the model that each fold kept, 0 for a
    first answer. Their mean is rounded, and raised to the fewest epochs that the other keys allow."""
    assert config.folds is not None
    mean = int(np.mean(epochs) + 0.5)
    training = config.training.model_copy(update={"minutes": None})
    if mean == 0:  # the folds have kept their first answers
        training = training.model_copy(update={"plan": "probe"})
    else:
        mean = max(mean, _fewest_epochs(config))
        training = training.model_copy(
            update={"epochs": mean, "freeze_epochs": min(mean, training.freeze_epochs)}
        )
    seed = config.seed if config.folds.seed is None else config.folds.seed
    return config.model_copy(
        update={
            "data": config.data.model_copy(update={"valid": 0.0, "fold": None}),
            "training": training,
            "schedule": _schedule_within(config, training.epochs),
            "selection": _selection(config),
            "folds": Folds(count=config.folds.count, seed=seed, last=True),
            "inference": Inference(),
            "decision": None,  # its single model has no out-of-fold rows to fit one on
        }
    )


def _fewest_epochs(config: Config) -> int:
    """The fewest epochs that the keys of the last model allow, which are at most those of the folds."""
    training = config.training
    # A backbone that stays frozen to the end of the folds does so here too, and asks for no epoch after it.
    frozen = training.freeze_epochs if training.freeze_epochs < training.epochs else 0
    kept = {
        "training": training.model_copy(update={"freeze_epochs": frozen}),
        "schedule": _schedule_within(config, 1),
        "selection": _selection(config),
    }
    return min(training.epochs, least_epochs(config.model_copy(update=kept)))


def _schedule_within(config: Config, epochs: int) -> Schedule:
    """The schedule without restarts that come too late for so few epochs: no epoch would follow on their warm-up."""
    schedule = config.schedule
    if schedule.restart_after is None:
        return schedule
    warmup = math.floor(schedule.warmup_epochs)
    kept = tuple(epoch for epoch in schedule.restart_after if epoch + warmup < epochs)
    return schedule.model_copy(update={"restart_after": kept or None})


def _selection(config: Config) -> Selection:
    """Without what chooses between epochs, of which the last one is kept."""
    return Selection(**config.selection.model_dump(exclude={"first_epoch", "patience"}))
