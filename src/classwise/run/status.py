"""What status.json says of a run: its data, model and environment, how far it is, and how it ended."""

import contextlib
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from classwise.compose.contents import content_counts
from classwise.compose.splits import DatasetSplits, Split, label_counts, masked_counts, value_summary
from classwise.config.schema import Config
from classwise.data.targets import RankingTarget
from classwise.errors import CheckpointError
from classwise.metrics.joint import joint_labels
from classwise.model.classifier import Classifier
from classwise.run.assembly import Parts
from classwise.run.folder import RunFolder
from classwise.run.own_code import portable_name
from classwise.training.loop import Settings, out_of_patience
from classwise.training.state import TrainState


def status_frame(
    folder: RunFolder,
    config: Config,
    splits: DatasetSplits,
    model: Classifier,
    baselines: dict[str, Any] | None,
    measured: Sequence[dict[str, Any]],
    environment: dict[str, Any],
    kept_heads: Sequence[str] = (),
) -> dict[str, Any]:
    """The entries of status.json that do not change while the run goes on. `measured`: what was measured to replace
    `auto`; `environment`: versions, device and machine; `kept_heads`: the targets whose heads are another run's. A
    resumed run keeps its entries but for `environment`."""
    environment = {**environment, "platform": sys.platform}
    with contextlib.suppress(CheckpointError):
        return folder.status() | {"environment": environment}
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": 0.0,
        "data": data_summary(splits),
        "model": model_summary(config, model),
        "baselines": baselines,
        "measured": list(measured),
        **({"kept_heads": list(kept_heads)} if kept_heads else {}),
        "environment": environment,
    }


def model_summary(config: Config, model: Classifier) -> dict[str, Any]:
    """The entry `model`."""
    return {
        "backbone": portable_name(config.model.backbone),
        "weights": config.model.weights,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "image_size": list(config.model.image_size),
    }


def data_summary(splits: DatasetSplits) -> dict[str, Any]:
    """The entry `data`: rows, labels and images of each split."""
    # Rows of each label, so that the report can show how rare a class is in each split.
    counts = {split_name: label_counts(splits, split) for split_name, split in splits.by_name.items()}
    labels = {
        name: [
            {"label": label, **{split_name: counts[split_name][name][k] for split_name in counts}}
            for k, label in enumerate(target_labels)
        ]
        for name, target_labels in splits.label_lists.items()
    }

    joint: dict[str, Any] | None = None
    if splits.joint:
        joint = {
            "labels": joint_labels(splits.label_lists, splits.joint),
            **{split_name: counts[split_name]["joint"] for split_name in counts},
        }

    # No group is in two splits, so each split is counted for itself.
    group_sets = {name: split.samples.groups for name, split in splits.by_name.items()}
    groups = None
    if all(found is not None for found in group_sets.values()):
        groups = {name: len(set(found or ())) for name, found in group_sets.items()}

    rows = {name: len(split.samples) for name, split in splits.by_name.items()}
    return {
        "rows": sum(rows.values()),
        **rows,
        "bad_images": [{"path": str(error.path), "reason": error.reason} for error in splits.bad],
        "labels": labels,
        "joint": joint,
        "values": _by_target(value_summary, splits),
        "queries": _by_target(_query_counts, splits),
        "masked": _by_target(masked_counts, splits),
        "groups": groups,
        "shared_content": content_counts(splits),
        "warnings": list(splits.warnings),
    }


def _by_target(
    count: Callable[[DatasetSplits, Split], dict[str, Any]], splits: DatasetSplits
) -> dict[str, Any]:
    """What `count` says of each target, for each split."""
    counts = {split_name: count(splits, split) for split_name, split in splits.by_name.items()}
    return {name: {split_name: counts[split_name][name] for split_name in counts} for name in counts["train"]}


def _query_counts(splits: DatasetSplits, split: Split) -> dict[str, int]:
    """Distinct queries of each ranking target."""
    return {
        target.name: len(np.unique(split.labels[target.name][:, 1]))
        for target in splits.targets
        if isinstance(target, RankingTarget)
    }


def status_now(
    frame: dict[str, Any], state: TrainState, settings: Settings, name: str, reason: str
) -> dict[str, Any]:
    """The contents of status.json: `frame`, and before it how far the run is. `name`: running, finished,
    early_stopped, interrupted or failed; `reason`: why it ended, for people."""
    progress = state.progress
    best = None
    if progress.first_answer is not None:  # which stays the best until the run ends (run/stages.py)
        best = {"metric": settings.metric, "value": progress.first_answer.get("value"), "epoch": 0}
        best = frame.get("kept") or best  # of a run that is extended, what it had ended with
    elif progress.best_epoch:
        best = {"metric": settings.metric, "value": progress.best, "epoch": progress.best_epoch}
    head = {
        "state": name,
        "reason": reason,
        "epoch": progress.epoch,
        "update": progress.update,
        "best": best,
    }
    return head | {key: value for key, value in frame.items() if key not in head}


def progress_now(parts: Parts) -> dict[str, Any]:
    """How far the run is within its epoch, for progress.json: numbers that the loop has anyway. `epoch` is the one that
    is under way, from 1; `update` those of the whole run."""
    progress, epochs = parts.state.progress, parts.settings.epochs
    per_epoch = parts.data.updates_per_epoch
    return {
        "doing": _doing(parts),
        "epoch": min(progress.epoch + 1, epochs),
        "epochs": epochs,
        "update": progress.update,
        "update_in_epoch": progress.update_in_epoch,
        "updates_per_epoch": per_epoch,
        "lr": float(parts.state.optimizer.param_groups[-1]["lr"]),
        "loss": progress.loss_sum / progress.samples if progress.samples else None,
        "epoch_seconds": round(progress.epoch_seconds, 3),
        "images_per_second": round(progress.samples / max(progress.epoch_seconds, 1e-9), 1),
    }


def _doing(parts: Parts) -> str:
    """What the run does, by what it has come to."""
    progress, settings = parts.state.progress, parts.settings
    has_begun = progress.update > 0 or progress.samples > 0
    # A run may train no epoch at all: it has its first answer then, or fits that now.
    if not has_begun and (settings.epochs > 0 or progress.first_answer is None):
        return "preparing"
    if progress.epoch >= settings.epochs or out_of_patience(progress, settings):
        return "computing the results"
    return "validating" if progress.update_in_epoch >= parts.data.updates_per_epoch else "training"


def ending_text(outcome: str, settings: Settings) -> str:
    """The reason for the end of a run that was not interrupted. `outcome`: finished or early_stopped."""
    if outcome == "early_stopped":
        moved = "risen" if settings.higher_is_better else "fallen"
        epochs = f"{settings.patience} epoch{'' if settings.patience == 1 else 's'}"
        return f"{settings.metric} has not {moved} for {epochs}"
    if not settings.epochs:
        return "the heads are fitted, and training.plan trains no epoch"
    return f"all {settings.epochs} epochs are done"
