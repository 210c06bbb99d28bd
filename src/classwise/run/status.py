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
from classwise.metrics.collection import joint_labels
from classwise.model.classifier import Classifier
from classwise.run.folder import RunFolder
from classwise.training.loop import Settings
from classwise.training.state import TrainState


def status_frame(
    folder: RunFolder,
    config: Config,
    splits: DatasetSplits,
    model: Classifier,
    baselines: dict[str, Any] | None,
    measured: Sequence[dict[str, Any]],
    environment: dict[str, Any],
) -> dict[str, Any]:
    """The entries of status.json that do not change while the run goes on. `measured`: what was measured to replace
    `auto`; `environment`: versions, device and machine. A resumed run keeps its entries but for `environment`."""
    environment = {**environment, "platform": sys.platform}
    with contextlib.suppress(CheckpointError):
        return folder.status() | {"environment": environment}
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": 0.0,
        "data": _data_summary(splits),
        "model": {
            "backbone": config.model.backbone,
            "weights": config.model.weights,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "image_size": list(config.model.image_size),
        },
        "baselines": baselines,
        "measured": list(measured),
        "environment": environment,
    }


def _data_summary(splits: DatasetSplits) -> dict[str, Any]:
    """The entry `data`: rows, labels and images of both splits."""
    # Rows of each label, so that the report can show how rare a class is on either side.
    train = splits.train
    valid = splits.valid
    train_counts = label_counts(splits, train)
    valid_counts = label_counts(splits, valid)
    labels = {
        name: [
            {"label": label, "train": train_counts[name][k], "valid": valid_counts[name][k]}
            for k, label in enumerate(target_labels)
        ]
        for name, target_labels in splits.label_lists.items()
    }

    joint = None
    if splits.joint:
        joint = {
            "labels": joint_labels(splits.label_lists, splits.joint),
            "train": train_counts["joint"],
            "valid": valid_counts["joint"],
        }

    # No group stands on both sides, so each side is counted for itself.
    groups = None
    if train.samples.groups is not None and valid.samples.groups is not None:
        groups = {"train": len(set(train.samples.groups)), "valid": len(set(valid.samples.groups))}

    return {
        "rows": len(train.samples) + len(valid.samples),
        "train": len(train.samples),
        "valid": len(valid.samples),
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
    """What `count` says of each target, for both splits."""
    train = count(splits, splits.train)
    valid = count(splits, splits.valid)
    return {name: {"train": train[name], "valid": valid[name]} for name in train}


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
    if progress.best is not None:
        best = {"metric": settings.metric, "value": progress.best, "epoch": progress.best_epoch}
    head = {
        "state": name,
        "reason": reason,
        "epoch": progress.epoch,
        "update": progress.update,
        "best": best,
    }
    return head | {key: value for key, value in frame.items() if key not in head}


def ending_text(outcome: str, settings: Settings) -> str:
    """The reason for the end of a run that was not interrupted. `outcome`: finished or early_stopped."""
    if outcome == "early_stopped":
        moved = "risen" if settings.higher_is_better else "fallen"
        epochs = f"{settings.patience} epoch{'' if settings.patience == 1 else 's'}"
        return f"{settings.metric} has not {moved} for {epochs}"
    return f"all {settings.epochs} epochs are done"
