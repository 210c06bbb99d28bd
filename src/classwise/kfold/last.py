"""The last model of folds (folds.last): trained on all labeled rows, for as many epochs as the folds took on average.

It is a run like any other, beside those of the folds, and no part of their mean.
"""

from collections.abc import Sequence

import numpy as np

from classwise.compose.dataset import ReadData
from classwise.config.conflicts import losses_of
from classwise.config.folds import Folds
from classwise.config.inference import Inference
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
    first answer. Their mean is rounded, but class weights that begin later are waited for."""
    assert config.folds is not None
    mean = int(np.mean(epochs) + 0.5)
    training = config.training.model_copy(update={"minutes": None})
    if mean == 0:  # the folds have kept their first answers
        training = training.model_copy(update={"plan": "probe"})
    else:
        begins = [
            getattr(loss, "weights_from_epoch", 1)
            for name in config.targets
            for loss in losses_of(config, name)
        ]
        mean = max(mean, *begins)
        training = training.model_copy(
            update={"epochs": mean, "freeze_epochs": min(mean, training.freeze_epochs)}
        )
    schedule = config.schedule
    if schedule.restart_after is not None:
        kept = tuple(epoch for epoch in schedule.restart_after if epoch < training.epochs)
        schedule = schedule.model_copy(update={"restart_after": kept or None})
    seed = config.seed if config.folds.seed is None else config.folds.seed
    return config.model_copy(
        update={
            "data": config.data.model_copy(update={"valid": 0.0, "fold": None}),
            "training": training,
            "schedule": schedule,
            "selection": Selection(**config.selection.model_dump(exclude={"first_epoch", "patience"})),
            "folds": Folds(count=config.folds.count, seed=seed, last=True),
            "inference": Inference(),
        }
    )
