"""What choosing the best epoch does to its score: which rows' outcomes a run records, and what they say at its end."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from classwise.compose.contents import resampling_groups
from classwise.compose.prior import class_shares
from classwise.compose.settings import selection_metric
from classwise.compose.splits import DatasetSplits
from classwise.config.schema import Config
from classwise.data.sampling import table_order
from classwise.metrics.mean import NO_OPTIMISM
from classwise.metrics.names import class_score, higher_is_better, is_combined, split_metric
from classwise.metrics.outcomes import MOST_BYTES, outcome_dtype, reason_against_optimism, selection_optimism
from classwise.metrics.scores import AT_PRIOR, score_range
from classwise.training.state import TrainState

NO_VALIDATION = "there are no validation rows (data.valid = 0), so the last epoch is the model"


def recorded_metric(config: Config, splits: DatasetSplits) -> str:
    """The metric whose outcomes are recorded in every epoch that can be selected; empty if none are. They are those of
    a single one, too: the run may be extended."""
    return "" if _reason_against(config, splits) else selection_metric(config)


def selection_summary(
    config: Config, splits: DatasetSplits, state: TrainState, metrics: Mapping[str, Any]
) -> dict[str, Any]:
    """The entry `selection` of metrics.json: how many epochs the best one was chosen from, and how much too good its
    score is on the rows that chose it.

    `optimism` is positive and in the unit of the metric; `corrected` is the score without it, and `interval` the
    interval of the score moved by it. All three are None where the optimism is not estimated, and `reason` says why.
    """
    if not config.data.has_valid:
        return single_summary(config, metrics)
    history = state.progress.history[config.first_epoch - 1 :]
    name = selection_metric(config)
    summary: dict[str, Any] = {"epochs": len(history), "optimism": None, "corrected": None, "reason": None}
    if len(history) <= 1:
        return summary | _corrected(metrics, name, 0.0)
    reason = _reason_against(config, splits)
    groups = resampling_groups(splits.valid.samples, splits.targets)
    if not reason and len(state.outcomes.rows) != len(history):
        reason = "what it needs was not recorded in every epoch that could be selected"
    if not reason:
        reason = reason_against_optimism(split_metric(name)[1], *_truth(name, splits), groups)
    if reason:
        return summary | {"reason": reason}
    # Validation goes through its rows query by query, where there are queries.
    true_N, classes = _truth(name, splits)
    order_N = table_order(len(true_N), splits.queries(splits.valid))
    estimate = selection_optimism(
        metric=split_metric(name)[1],
        true_N=true_N[order_N],
        outcomes_EN=np.stack([rows.numpy() for rows in state.outcomes.rows]),
        scores_E=np.array([row["valid"][name] for row in history]),
        classes=classes,
        groups=None if groups is None else np.asarray(groups)[order_N],
        seed=config.seed,
        resamples=config.report.resamples,
        higher_is_better=higher_is_better(name),
        shares=_shares(config, splits, name),
    )
    return summary | _corrected(metrics, name, estimate)


def single_summary(config: Config, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The entry `selection` of metrics.json for a model that was not chosen among epochs."""
    summary: dict[str, Any] = {"epochs": 1, "optimism": None, "corrected": None, "reason": None}
    if metrics["value"] is None:
        return summary | {"reason": NO_VALIDATION}
    return summary | _corrected(metrics, selection_metric(config), 0.0)


def _corrected(metrics: Mapping[str, Any], name: str, estimate: float) -> dict[str, Any]:
    """The score and its interval without the optimism; a mean of targets has no interval."""
    if is_combined(name):
        return {"optimism": estimate, "corrected": metrics["value"] - estimate}
    target, score = split_metric(name)
    target = target or next(iter(metrics["targets"]))

    # An estimate must not lead to where no score can be.
    shift = -estimate if higher_is_better(name) else estimate
    lowest, _ = score_range(score.removesuffix(AT_PRIOR))
    corrected = max(lowest, metrics["value"] + shift)
    found = {"optimism": abs(metrics["value"] - corrected), "corrected": corrected}

    scores = metrics["joint"] if target == "joint" else metrics["targets"][target]
    if score.endswith(AT_PRIOR):
        scores, score = scores["at_prior"], score.removesuffix(AT_PRIOR)
    if of_class := class_score(score):
        score, label = of_class
        scores = next(row for row in scores["per_class"] if row["label"] == label)
    interval = scores.get("intervals", {}).get(score)
    return found | ({"interval": [max(lowest, end + shift) for end in interval]} if interval else {})


def _reason_against(config: Config, splits: DatasetSplits) -> str:
    """Why the optimism of the selection is not estimated; empty if it is."""
    epochs = config.training.epochs - config.first_epoch + 1
    if not config.report.resamples:
        return "report.resamples = 0"
    name = selection_metric(config)
    if is_combined(name):
        return NO_OPTIMISM
    target, score = split_metric(name)
    type = "joint" if target == "joint" else splits.target(target or splits.targets[0].name).type
    dtype = outcome_dtype(score, type, _truth(name, splits)[1])
    if dtype is None:
        return f"it is not estimated for {score} of a {type} target"
    rows = len(splits.valid.samples)
    limit = MOST_BYTES // 2**20
    if rows * epochs * dtype.itemsize > MOST_BYTES:
        return f"{rows:,} validation rows in {epochs} epochs would take more than {limit} MiB of every checkpoint"
    return ""


def _shares(config: Config, splits: DatasetSplits, name: str) -> Sequence[float] | None:
    """The class shares of a metric at the prior; None for any other."""
    if not name.endswith(AT_PRIOR):
        return None
    return class_shares(config, splits.label_lists)[split_metric(name)[0] or splits.targets[0].name]


def _truth(name: str, splits: DatasetSplits) -> tuple[np.ndarray[Any, Any], int]:
    """Of the target of a metric, the true classes (N,) and how many there are; or the values, and 0."""
    target_name = split_metric(name)[0] or splits.targets[0].name
    split = splits.valid
    if target_name == "joint":
        size = math.prod(len(splits.label_lists[part]) for part in splits.joint)
        return splits.joint_classes(split), size
    target = splits.target(target_name)
    labels = split.labels[target_name]
    if target.type in ("class", "ordinal"):
        return target.class_numbers(labels), len(target.labels)
    return labels, 0
