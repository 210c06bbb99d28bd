"""Scores at class shares other than those of the rows: what they would be where the classes come in these shares.

A row of class k counts share_k / (share of class k among the rows). Every score that is a function of the confusion
matrix follows from the weighted matrix; the recalls stay what they are, precision and F1 change. This is right where
only the shares differ, and images of a class look the same in both places (label shift: Saerens, Latinne and
Decaestecker 2002, 'Adjusting the outputs of a classifier to new a priori probabilities', section 2).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from classwise.metrics.bootstrap import Groups, Resampling, Weights, sampling_units
from classwise.metrics.classification import LabelMetric
from classwise.metrics.intervals import Intervals
from classwise.metrics.rows import marginal_sums
from classwise.metrics.scores import (
    Array,
    as_floats,
    label_scores,
    precision_recall_f1,
    ratio,
)


def scores_at_prior(metric: LabelMetric, shares: Sequence[float]) -> dict[str, Any]:
    """The entry `at_prior` of metrics.json: `shares` by label, `LABEL_SCORES`, and `per_class` at these shares.

    `shares` (K,): positive, adding up to 1. A class without a row cannot be weighted: it is in `unseen`, its F1 is 0 as
    in every macro average, and the shares of the others are meant relative to each other.
    """
    confusion = metric.occurring
    share_K = np.asarray(shares, dtype=np.float64)
    support_K = confusion.support

    # The weighted matrix adds up to 1, or to the share of the classes that have rows.
    marginals = confusion.marginals(ratio(share_K, support_K))
    columns = [column.tolist() for column in precision_recall_f1(*marginals)]
    return {
        "shares": dict(zip(metric.labels, share_K.tolist(), strict=True)),
        "unseen": [label for label, rows in zip(metric.labels, support_K, strict=True) if not rows],
        **as_floats(label_scores(*marginals)),
        "per_class": [
            {"label": label, "precision": precision, "recall": recall, "f1": f1}
            for label, precision, recall, f1 in zip(metric.labels, *columns, strict=True)
        ],
    }


def intervals_at_prior(
    metric: LabelMetric,
    shares: Sequence[float],
    groups: Groups | None = None,
    seed: int = 0,
    resamples: int = 1000,
) -> Intervals:
    """The 95 % interval of every score of `scores_at_prior` that has one: see `confusion_intervals`. The shares are
    given, not estimated. Raises ValueError if the rows were not kept."""
    return metric.intervals(groups, seed=seed, resamples=resamples, shares=shares)


def resampling_at_prior(
    metric: LabelMetric, shares: Sequence[float], groups: Groups | None = None
) -> Resampling:
    """What a bootstrap of these scores draws. Each resample is weighted to the same shares. Raises ValueError if the
    rows were not kept."""
    true_N, predicted_N, counted_N = metric.rows()
    marginals = marginal_sums(true_N[counted_N], predicted_N[counted_N], metric.classes, shares)
    units, unit_N = sampling_units(groups, counted_N)

    def scorer(weights_NR: Weights) -> dict[str, Array]:
        return label_scores(*marginals(weights_NR))

    return scorer, units, unit_N
