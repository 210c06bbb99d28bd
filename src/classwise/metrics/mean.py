"""One number for several targets: the mean of what each target is mainly judged by.

Only scores of one kind can be averaged: higher is better, 1 is perfect and 0 is worth nothing. An error in the unit of
a column is none of these, so a regression enters with r2.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from classwise.metrics.main_scores import MAIN_SCORES
from classwise.metrics.scores import AT_PRIOR

MEAN = "mean"
"""Its name in `flat_scores` and in selection.metric; at the class shares of selection.prior `mean_at_prior`."""

NO_INTERVAL = (
    "the targets are scored on the same rows, so their scores vary together; each target has its own interval"
)
NO_INTERVAL_OF_SHARES = "it is made of several scores of the same rows, which vary together"
NO_OPTIMISM = "it is made of several scores, whose luck on the same rows is not independent"


def is_mean(metric: str) -> bool:
    """Whether a metric is the mean of all targets, at the class shares of the rows or at others."""
    return metric.removesuffix(AT_PRIOR) == MEAN


def main_score(name: str, type: str, at_prior: bool = False) -> str:
    """The full name of a target's main score: `age.r2`, or `colour.macro_f1_at_prior`."""
    return f"{name}.{MAIN_SCORES[type]}{AT_PRIOR if at_prior else ''}"


def mean_parts(results: Mapping[str, Any], at_prior: bool = False) -> dict[str, float]:
    """Each target's main score by its full name; without the targets that have no labeled row.

    `results` as from `MetricCollection.compute`. `at_prior`: at the class shares of selection.prior, for the targets
    that have such.
    """
    parts = {}
    for name, scores in results["targets"].items():
        weighted = at_prior and "at_prior" in scores
        key = MAIN_SCORES[scores["type"]]
        value = scores["at_prior"][key] if weighted else scores[key]
        if value is not None:
            parts[main_score(name, scores["type"], weighted)] = float(value)
    return parts


def mean_scores(results: Mapping[str, Any]) -> dict[str, float]:
    """`mean`, and `mean_at_prior` where there are other class shares. Empty for a single target, and where a target has
    no labeled row: the mean of the others would be another score."""
    targets = results["targets"]
    has_prior = any("at_prior" in scores for scores in targets.values())
    means = {}
    for name, at_prior in ((MEAN, False), (f"{MEAN}{AT_PRIOR}", True))[: 1 + has_prior]:
        parts = mean_parts(results, at_prior)
        if len(parts) == len(targets) > 1:
            means[name] = mean_of(parts)
    return means


def mean_of(parts: Mapping[str, float], shares: Sequence[float] = ()) -> float:
    """The mean of the targets' main scores, or of any scores with given `shares`. An r2 below 0 counts as 0, like the
    F1 of a class that is never right: it has no lower limit, and one target at its start would decide everything."""
    values = [max(0.0, value) for value in parts.values()]
    if not shares:
        return sum(values) / len(values)
    return sum(share * value for share, value in zip(shares, values, strict=True))
