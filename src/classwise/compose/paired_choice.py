"""Which of two models of one run to keep, by how both do on the same validation rows.

A few validation rows of a rare class decide little, and the best of several epochs flatters itself. So the fine-tuned
model has to be better on most resamples of the rows, after what the choice of its epoch has gained is taken off; where
that is not clear the first answer stays, which a cross-validation has tuned on far more rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from classwise.compose.contents import resampling_groups, split_groups
from classwise.compose.labels import Labels
from classwise.compose.prior import class_shares
from classwise.compose.settings import own_metrics_of, selection_metric
from classwise.compose.splits import DatasetSplits
from classwise.config.schema import Config
from classwise.metrics.bootstrap import percentile_interval, resampled_weights, sampling_units
from classwise.metrics.collection import MetricCollection, score_of
from classwise.metrics.names import higher_is_better
from classwise.model.heads import Head

CONFIDENCE = 0.8
"""The share of resamples on which the fine-tuned model has to be better."""
RESAMPLES = 300
MOST_ROWS = 2_000_000
"""Rows that are scored in all resamples together: of many validation rows there are fewer resamples."""


@dataclass(frozen=True)
class PairedDifference:
    """How much better the second model is than the first, in the selection metric and in its better direction:
    `difference` less `optimism`, its 95 % `interval`, and the `share` of resamples where it is above 0."""

    difference: float
    optimism: float
    interval: list[float]
    share: float

    @property
    def is_better(self) -> bool:
        """Whether the second model is to be kept."""
        return self.share >= CONFIDENCE


def paired_difference(
    config: Config,
    splits: DatasetSplits,
    heads: Mapping[str, Head],
    first: Mapping[str, Tensor],
    second: Mapping[str, Tensor],
    optimism: float,
) -> PairedDifference:
    """Compare raw outputs (N, outputs) of the validation rows by target. Rows that share a group, a query or an image
    are drawn together, the same ones for both models."""
    metric = selection_metric(config)
    sign = 1 if higher_is_better(metric) else -1
    labels = splits.valid.labels

    def difference(rows: np.ndarray, copies: np.ndarray) -> float:
        drawn = _drawn(labels, heads, rows, copies)
        scores = [_score(config, splits, heads, outputs, drawn, metric, rows) for outputs in (first, second)]
        return sign * (scores[1] - scores[0]) - optimism

    # Queries count as groups: a ranking is scored query by query.
    count = len(splits.valid.samples)
    groups = _units(splits, count)
    units, unit_N = sampling_units(groups, np.ones(count, dtype=bool))
    unit_N = np.arange(count) if unit_N is None else unit_N
    resamples = max(50, min(RESAMPLES, MOST_ROWS // max(1, count)))
    draws = [
        difference(*_drawn_rows(unit_N, weights_U))
        for weights_UR in resampled_weights(units, config.seed, resamples, rows=count)
        for weights_U in weights_UR.T.astype(np.int64)
    ]
    draws_R = np.array(draws)
    value = difference(np.arange(count), np.zeros(count, np.int64))
    return PairedDifference(
        difference=value,
        optimism=optimism,
        interval=percentile_interval(draws_R, value),
        # Of equal scores half count: a model that never differs is better on half of the resamples.
        share=float(np.mean((draws_R > 0) + 0.5 * (draws_R == 0))),
    )


def _drawn_rows(unit_N: np.ndarray, weights_U: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows of a resample that takes each unit as often as its weight, in the order of the units and their copies,
    and which copy of its unit each row is of."""
    # The rows in the order of their units: those of a unit are `sizes_U` ones from `starts_U` on.
    order_N = np.argsort(unit_N, kind="stable")
    sizes_U = np.bincount(unit_N, minlength=len(weights_U))
    starts_U = np.cumsum(sizes_U) - sizes_U

    # Each copy of a unit, and each row of a copy.
    unit_C = np.repeat(np.arange(len(weights_U)), weights_U)
    copy_C = _counted_up(weights_U)
    rows = order_N[np.repeat(starts_U[unit_C], sizes_U[unit_C]) + _counted_up(sizes_U[unit_C])]
    return rows, np.repeat(copy_C, sizes_U[unit_C])


def _counted_up(lengths: np.ndarray) -> np.ndarray:
    """0, 1, 2, ... of each length, one after the other."""
    starts = np.cumsum(lengths) - lengths
    counted: np.ndarray = np.arange(int(lengths.sum())) - np.repeat(starts, lengths)
    return counted


def _drawn(
    labels: Labels, heads: Mapping[str, Head], rows: np.ndarray, copies: np.ndarray
) -> dict[str, np.ndarray]:
    """The labels of drawn rows. A query that is drawn twice is two queries: `copies` (of each row, which one it is of
    its unit's) numbers them."""
    drawn = {name: values[rows] for name, values in labels.items()}
    for name in drawn:
        if heads[name].type == "ranking" and len(rows):
            drawn[name][:, 1] += copies * (labels[name][:, 1].max() + 1)
    return drawn


def _score(
    config: Config,
    splits: DatasetSplits,
    heads: Mapping[str, Head],
    outputs: Mapping[str, Tensor],
    labels: Mapping[str, np.ndarray],
    metric: str,
    rows: np.ndarray,
) -> float:
    """The metric over some rows, whose `labels` are given; 0 where none has one, so that both models are equal."""
    metrics = MetricCollection(
        heads,
        splits.label_lists,
        splits.joint,
        selected=metric,
        only_selected=True,
        priors=class_shares(config, splits.label_lists),
        own=own_metrics_of(config),
    )
    chosen = torch.from_numpy(rows)
    metrics.update(
        {name: raw[chosen] for name, raw in outputs.items()},
        {name: torch.from_numpy(values) for name, values in labels.items()},
        copy=False,
    )
    return score_of(metrics.compute(), metric) or 0.0


def _units(splits: DatasetSplits, count: int) -> Sequence[object] | None:
    """The sampling unit of each validation row; None where each is its own."""
    if splits.queries(splits.valid) is not None:  # a ranking is scored query by query
        return split_groups(splits.valid.samples, splits.valid.labels, splits.targets)
    return resampling_groups(splits.valid.samples, splits.targets)
