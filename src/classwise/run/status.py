"""What status.json says of a run: its data, model and environment, how far it is, and how it ended."""

import contextlib
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

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
    made_on: dict[str, Any],
) -> dict[str, Any]:
    """What in status.json does not change while the run goes on."""
    with contextlib.suppress(CheckpointError):
        known = folder.status()  # a resumed run keeps its beginning
        return known | {"environment": _environment(made_on)}
    size = sum(parameter.numel() for parameter in model.parameters())
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": 0.0,
        "data": _data_summary(splits),
        "model": {
            "backbone": config.model.backbone,
            "weights": config.model.weights,
            "parameters": size,
            "image_size": list(config.model.image_size),
        },
        "baselines": baselines,
        "measured": list(measured),
        "environment": _environment(made_on),
    }


def _data_summary(splits: DatasetSplits) -> dict[str, Any]:
    train, valid = splits.train, splits.valid
    counts = {"train": label_counts(splits, train), "valid": label_counts(splits, valid)}
    groups = None
    if train.samples.groups is not None and valid.samples.groups is not None:
        groups = {"train": len(set(train.samples.groups)), "valid": len(set(valid.samples.groups))}
    joint = None
    if splits.joint:
        names = joint_labels(splits.label_lists, splits.joint)
        joint = {"labels": names, **{split: by["joint"] for split, by in counts.items()}}
    return {
        "rows": len(train.samples) + len(valid.samples),
        "train": len(train.samples),
        "valid": len(valid.samples),
        "bad_images": [{"path": str(error.path), "reason": error.reason} for error in splits.bad],
        "labels": {
            name: [
                {"label": label, "train": counts["train"][name][k], "valid": counts["valid"][name][k]}
                for k, label in enumerate(labels)
            ]
            for name, labels in splits.label_lists.items()
        },
        "joint": joint,
        "values": _by_target(value_summary, splits),
        "queries": _by_target(_query_counts, splits),
        "masked": _by_target(masked_counts, splits),
        "groups": groups,
        "warnings": list(splits.warnings),
    }


def _by_target(
    metadata: Callable[[DatasetSplits, Split], dict[str, Any]], splits: DatasetSplits
) -> dict[str, Any]:
    """What a function says of each target, for both sides."""
    train, valid = metadata(splits, splits.train), metadata(splits, splits.valid)
    return {name: {"train": train[name], "valid": valid[name]} for name in train}


def _query_counts(splits: DatasetSplits, split: Split) -> dict[str, int]:
    return {
        target.name: len(np.unique(split.labels[target.name][:, 1]))
        for target in splits.targets
        if isinstance(target, RankingTarget)
    }


def _environment(made_on: dict[str, Any]) -> dict[str, Any]:
    return {**made_on, "platform": sys.platform}


def status_now(
    frame: dict[str, Any], state: TrainState, name: str, reason: str, settings: Settings
) -> dict[str, Any]:
    p = state.progress
    best = None
    if p.best is not None:
        best = {"metric": settings.metric, "value": p.best, "epoch": p.best_epoch}
    head = {"state": name, "reason": reason, "epoch": p.epoch, "update": p.update, "best": best}
    return head | {key: value for key, value in frame.items() if key not in head}


def ending_text(ended: str, settings: Settings) -> str:
    if ended == "early_stopped":
        moved = "risen" if settings.higher_is_better else "fallen"
        return f"{settings.metric} has not {moved} for {settings.patience} epoch{'' if settings.patience == 1 else 's'}"
    return f"all {settings.epochs} epochs are done"
