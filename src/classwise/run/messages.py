"""What a run says on the console: at its start, after each epoch, at its end."""

from typing import Any

from classwise.compose.baselines import Baselines
from classwise.compose.splits import DatasetSplits
from classwise.console import Console
from classwise.run.assembly import Parts
from classwise.run.folder import RunFolder
from classwise.training import loop


def say_start(console: Console, folder: RunFolder, splits: DatasetSplits, parts: Parts) -> None:
    """What is about to be trained on what, and what to know of the data."""
    train, valid = splits.train.samples, splits.valid.samples
    for warning in splits.warnings:
        console.line(f"warning: {warning}")
    if splits.cache is not None:
        console.line(str(splits.cache))
    grouped = ""
    if train.groups is not None and valid.groups is not None:
        grouped = (
            f"\n{len(set(train.groups))} and {len(set(valid.groups))} groups, none of them on both sides"
        )
    first = parts.settings.first_epoch
    since = f", from epoch {first} on (selection.first_epoch)" if first > 1 else ""
    console.line(
        f"{folder.path}: {len(train)} training and {len(valid)} validation rows{grouped}\n"
        f"{parts.data.updates_per_epoch} updates an epoch, {parts.settings.precision} on {parts.settings.device};"
        f" * marks the best {parts.settings.metric} so far{since}"
    )


def epoch_line(row: dict[str, Any], settings: loop.Settings, best: bool) -> str:
    width = len(str(settings.epochs))
    star = "*" if best and row["epoch"] >= settings.first_epoch else " "
    return (
        f"epoch {row['epoch']:>{width}}/{settings.epochs}  loss {row['train_loss']:.4f}"
        f"  {settings.metric} {row['valid'][settings.metric]:.4f} {star}"
        f"  lr {row['lr']:.1e}  {row['seconds']:.1f} s  {row['images_per_second']:,.0f}/s"
    )


def say_unbeaten(folder: RunFolder, value: float, higher_is_better: bool, console: Console) -> None:
    """The last line of a run that is no better than a baseline on the same split."""
    known = folder.status().get("baselines")
    if known:
        unbeaten = Baselines(**known).not_beaten_by(value, higher_is_better)
        for name, score in unbeaten.items():
            console.line(f"this run does not beat {name} on the same split: {value:.4f} against {score:.4f}")
