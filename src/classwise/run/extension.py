"""More epochs for a run than it was planned with: `classwise resume --epochs N`.

The run goes on as if it had been planned with N epochs; it then ends in the same bytes as such a run, wherever the
schedule has the same learning rates up to here (constant, step, plateau, restarts, and those with a length of their
own). A cosine over all epochs has not: it goes on at the rate that the longer cosine has here, which is higher than the
last one. Or the schedule begins again over the new epochs (schedule.restart_after).

What says how many epochs there are is brought up to date before anything is trained: config.toml, and the config in the
checkpoints.
"""

import dataclasses
import tomllib
from collections.abc import Sequence
from typing import Any

import numpy as np

from classwise.compose.state import schedule_from
from classwise.config.conflicts import check_conflicts
from classwise.config.load import load_config, make_config
from classwise.config.schema import Config
from classwise.console import Console
from classwise.errors import CheckpointError, ConfigError
from classwise.files import write_text
from classwise.metrics.names import higher_is_better
from classwise.optim.schedules import Schedule
from classwise.run.assembly import Parts
from classwise.run.checkpoint import Checkpoint, read_checkpoint, with_metadata, write_checkpoint
from classwise.run.folder import RunFolder
from classwise.run.own_code import portable
from classwise.run.resume_config import original_config, refuse_changed_config, with_begun_plan
from classwise.training.state import Progress

SCHEDULES = ("planned", "restart")
COMPARED_UPDATES = 1000
"""Updates at which the learning rates of two schedules are compared, evenly spaced over those that are done."""


def check_extension(epochs: int | None, schedule: str) -> None:
    """Raise ConfigError for options that no run can be extended by."""
    if schedule not in SCHEDULES:
        raise ConfigError(f"--schedule: found {schedule!r}, allowed: {', '.join(SCHEDULES)}")
    if epochs is None and schedule != "planned":
        raise ConfigError(
            f"--schedule: found {schedule!r} without --epochs, which says how many there are to be"
        )
    if epochs is not None and epochs < 1:
        raise ConfigError(f"--epochs: found {epochs}, must be 1 or more")


def config_before(config: Config, checkpoint: Checkpoint) -> Config:
    """The config that the run has been trained with until now."""
    return with_begun_plan(original_config(config, checkpoint))


def extended_config(config: Config, checkpoint: Checkpoint, epochs: int, schedule: str) -> Config:
    """The config with so many epochs. `config`: that of the run's file, whose number of epochs does not count. Raises
    ConfigError where the run cannot have them."""
    original = original_config(config, checkpoint)
    if with_begun_plan(original).plan == "probe":
        raise ConfigError(
            "--epochs: the run was made with training.plan = 'probe', which trains no epoch; to fine-tune it: a new run"
            ' with model.weights = "RUN" and training.plan = "finetune"'
        )
    done = checkpoint.epoch + bool(checkpoint.state["progress"]["update_in_epoch"])
    if epochs < done:
        raise ConfigError(
            f"--epochs: found {epochs}, but the run is in epoch {done} already; allowed: {done} or more"
        )
    tree = config.to_dict()
    tree["training"]["epochs"] = epochs
    tree["schedule"] = original.to_dict()["schedule"]
    if schedule == "restart":
        if checkpoint.state["progress"]["update_in_epoch"] or not checkpoint.epoch:
            raise ConfigError(
                "--schedule restart: the run was stopped within an epoch, and a schedule begins with one; go on to its"
                " end first"
            )
        restarts = original.schedule.restart_after or ()
        tree["schedule"]["restart_after"] = sorted({*restarts, checkpoint.epoch})
    return make_config(tree)


def extend(
    folder: RunFolder, config: Config, before: Config, checkpoint: Checkpoint, parts: Parts, console: Console
) -> None:
    """Bring what is on disk and the state to the extended `config`, and say how the schedule goes on; `before`: the
    config until now. Rank 0 alone writes."""
    progress = parts.state.progress
    stopped_early = progress.epochs_without_improvement
    _choose_again(progress, config, parts)
    if parts.settings.patience is not None and stopped_early >= parts.settings.patience:
        progress.epochs_without_improvement = 0
        console.line("it had stopped early: patience counts from here")
    for warning in check_conflicts(config):
        console.line(f"warning: {warning}")
    for line in _schedule_lines(config, before, checkpoint, parts):
        console.line(line)
    if not parts.settings.processes.is_main_process:
        return
    write_text(folder.config, portable(config).to_toml())
    status = folder.status()
    extensions = [*status.get("extended", []), {"after": progress.epoch, "to": config.training.epochs}]
    folder.write_status(status | {"extended": extensions, "kept": status.get("best")})


def update_checkpoints(folder: RunFolder, metadata: dict[str, Any]) -> None:
    """Give the run's checkpoints, but `last`, which is saved anew, the metadata of the extended run."""
    for name in ("best", "finetuned", "first"):
        try:
            checkpoint = read_checkpoint(folder.checkpoints / name)
        except CheckpointError:
            continue  # there is none of that name
        write_checkpoint(folder.checkpoints, name, with_metadata(checkpoint, metadata))


def _choose_again(progress: Progress, config: Config, parts: Parts) -> None:
    """The best epoch so far as a run with so many epochs would have chosen it, which may begin to choose later; of its
    weights only those of the best and of the last epoch are there, so the best one stays if it is neither."""
    metric, first_epoch = parts.settings.metric, config.first_epoch
    again = Progress()
    for row in progress.history:
        again.end_epoch(row["valid"].get(metric), row, first_epoch, higher_is_better(metric))
    if again.best_epoch in (progress.best_epoch, progress.epoch):
        progress.best, progress.best_epoch = again.best, again.best_epoch
        progress.epochs_without_improvement = again.epochs_without_improvement

    # Outcomes are of the epochs that can be chosen.
    selectable = max(0, progress.epoch - first_epoch + 1)
    rows = parts.state.outcomes.rows
    parts.state.outcomes.rows = rows[max(0, len(rows) - selectable) :]


def _schedule_lines(config: Config, before: Config, checkpoint: Checkpoint, parts: Parts) -> list[str]:
    """What becomes of the schedule, and whether a run that was planned so would be the same."""
    epochs, done = config.training.epochs, checkpoint.epoch
    name = config.schedule.name
    head = f"extended from {before.training.epochs} to {epochs} epochs"
    if config.schedule.restart_after != before.schedule.restart_after:
        return [
            f"{head}: the schedule ({name}) begins again over epochs {done + 1} to {epochs} (schedule.restart_after)"
        ]
    updates_per_epoch = parts.data.updates_per_epoch
    schedule = parts.state.schedule
    earlier = schedule_from(before, schedule.bases, updates_per_epoch)
    if same_rates(earlier, schedule, checkpoint.update):
        return [
            f"{head}: the schedule ({name}) is that of a run planned with {epochs} epochs, up to here too"
        ]
    epochs_before = f"epochs 1 to {done}" if done > 1 else "epoch 1"
    last, following = (
        earlier.lrs(max(0, checkpoint.update - 1))[-1],
        schedule.lrs(checkpoint.update)[-1],
    )
    return [
        f"{head}: the schedule ({name}) is now that of {epochs} epochs, so the learning rate goes from {last:.1e} to"
        f" {following:.1e}; a run planned with {epochs} epochs would have had other rates in"
        f" {epochs_before}, and would end in other weights. --schedule restart begins the schedule again over the new"
        " epochs"
    ]


def same_rates(one: Schedule, other: Schedule, updates: int) -> bool:
    """Whether two schedules have the same learning rates in the first `updates`; what a plateau has seen does not
    count."""
    if not updates:
        return True
    compared: Sequence[int] = np.unique(
        np.linspace(0, updates - 1, COMPARED_UPDATES).round().astype(int)
    ).tolist()
    plain = [dataclasses.replace(schedule, plateau=None) for schedule in (one, other)]
    return all(plain[0].lrs(update) == plain[1].lrs(update) for update in compared)


def extension_hint(folder: RunFolder, checkpoint: Checkpoint, config: Config) -> str:
    """What to do where config.toml has another number of epochs than the run; else empty."""
    planned = tomllib.loads(str(checkpoint.metadata.get("config") or "")).get("training", {}).get("epochs")
    if planned in (None, config.training.epochs):
        return ""
    return f". To train another number of epochs: classwise resume {folder.path} --epochs {config.training.epochs}"


def refuse_edited_config(folder: RunFolder) -> None:
    """Raise ConfigError if the config of a run that has ended was edited since: it would not be obeyed."""
    try:
        checkpoint = read_checkpoint(folder.checkpoints / "last")
        config = load_config(folder.config)
        hint = extension_hint(folder, checkpoint, config)
        refuse_changed_config(folder.config, config, checkpoint, hint=hint)
    except CheckpointError:
        return  # nothing is asked of it any more
