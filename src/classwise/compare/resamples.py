"""A run's score on resamples of its scored rows, from the predictions that it wrote: the same resamples for every run
that was scored on the same rows, so that differences between runs are paired.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from classwise.compare.plan import PlannedRun
from classwise.compare.stats import Values
from classwise.data.table import plain, read_table
from classwise.metrics.bootstrap import Resampling, Scorer, Weights, resampled_scores, sampling_units
from classwise.metrics.classification import ClassMetric, LabelMetric
from classwise.metrics.collection import Metric
from classwise.metrics.mean import MEAN, is_mean, mean_of, mean_parts
from classwise.metrics.multilabel import MultilabelMetric
from classwise.metrics.names import RANKED_SCORES, WORST, class_score, is_sum, split_metric, terms_of
from classwise.metrics.prior import resampling_at_prior, scores_at_prior
from classwise.metrics.regression import RegressionMetric
from classwise.metrics.rows import marginal_sums
from classwise.metrics.scores import AT_PRIOR, LABEL_SCORES, Array, is_own_metric, precision_recall_f1
from classwise.run.folder import RunFolder

RESAMPLES = 1000
SEED = 0  # of the resamples
TOLERANCE = 1e-4  # predictions are written with seven digits
FILES = {"valid": "predictions.csv", "test": "predictions-test.csv"}


def resampled_runs(
    runs: Sequence[PlannedRun], metric: str, values: Mapping[Path, float], split: str
) -> dict[Path, Values]:
    """The score (R,) on each resample by run directory, of every run that was scored on the rows of the first one.
    `values`: the score of each run on the rows themselves.

    A run is left out where its predictions do not lead to its score: rows of a ranking target without their queries,
    and label sets that are known in part. So are all where the score is of the order of all rows, or of a single label
    of several.
    """
    found: dict[Path, Values] = {}
    first_ids: list[str] = []
    for run in runs:
        predictions = plain(read_table(run.folder / FILES[split]))
        ids = predictions["id"].to_list()
        first_ids = first_ids or ids
        if ids != first_ids:
            continue
        resampled = _resampled(predictions, metric, run, split, groups=_groups_of(run, ids, split))
        if resampled is None:
            continue
        value, scores_R = resampled
        if math.isclose(value, values[run.folder], rel_tol=TOLERANCE, abs_tol=TOLERANCE):
            found[run.folder] = scores_R
    return found


def _resampled(
    predictions: pl.DataFrame, metric: str, run: PlannedRun, split: str, groups: list[str] | None
) -> tuple[float, Values] | None:
    """The score of the predictions, and on each resample (R,); None where they do not lead to it."""
    resampling_of = _mean if is_mean(metric) else _sum if is_sum(metric) else _score
    found = resampling_of(predictions, metric, run, split, groups)
    if found is None:
        return None
    value, resampling = found
    scores = resampled_scores(resampling, seed=SEED, resamples=RESAMPLES)
    return value, scores[split_metric(metric)[1].removesuffix(AT_PRIOR)]


def _score(
    predictions: pl.DataFrame, metric: str, run: PlannedRun, split: str, groups: list[str] | None
) -> tuple[float, Resampling] | None:
    """A score of one target, or of the joint class, and its resampling; None for those that have none."""
    key = split_metric(metric)[1]
    if key in RANKED_SCORES or is_own_metric(key):
        return None
    counted = _metric_of(predictions, metric, run, split)
    if counted is None:
        return None
    if class_score(key) or key in WORST:
        counts = counted.counts if isinstance(counted, ClassMetric) else counted
        return _class_score(counts, key, groups) if isinstance(counts, LabelMetric) else None
    if key.endswith(AT_PRIOR):
        scores = _scores_of(metric, run, split)
        return _at_prior(counted, key.removesuffix(AT_PRIOR), scores, groups)
    if isinstance(counted, LabelMetric) and key not in LABEL_SCORES:
        return None
    return counted.compute()[key], counted.resampling(groups)


def _class_score(counts: LabelMetric, key: str, groups: list[str] | None) -> tuple[float, Resampling] | None:
    """Precision, recall or F1 of one class, or of the worst class that has rows, and its resampling; None for scores of
    the order of all rows."""
    name, label = class_score(key) or (WORST[key], None)
    columns = ("precision", "recall", "f1")
    if name not in columns:
        return None
    true_N, predicted_N, counted_N = counts.rows()
    marginals = marginal_sums(true_N[counted_N], predicted_N[counted_N], counts.classes)

    def scorer(weights_NR: Weights) -> dict[str, Array]:
        hits_RK, support_RK, predicted_RK = marginals(weights_NR)
        scores_RK = precision_recall_f1(hits_RK, support_RK, predicted_RK)[columns.index(name)]
        if label is not None:
            return {key: scores_RK[:, counts.labels.index(label)]}
        return {key: np.where(support_RK > 0, scores_RK, np.inf).min(axis=1)}

    value = float(scorer(np.ones((int(counted_N.sum()), 1)))[key][0])
    return value, (scorer, *sampling_units(groups, counted_N))


def _mean(
    predictions: pl.DataFrame, metric: str, run: PlannedRun, split: str, groups: list[str] | None
) -> tuple[float, Resampling] | None:
    """The mean of the targets' main scores, and its resampling. A score below 0 counts 0."""
    parts = mean_parts(_metrics_of(run, split), at_prior=metric.endswith(AT_PRIOR))
    found = _scorers(predictions, list(parts), run, split, groups)
    if found is None:
        return None
    values, scorers = found

    def scorer(weights_NR: Weights) -> dict[str, Array]:
        return {MEAN: np.mean([np.maximum(score(weights_NR), 0) for score in scorers], axis=0)}

    return mean_of(dict(zip(parts, values, strict=True))), (scorer, *_all_units(predictions, groups))


def _sum(
    predictions: pl.DataFrame, metric: str, run: PlannedRun, split: str, groups: list[str] | None
) -> tuple[float, Resampling] | None:
    """Shares of several scores, and their resampling."""
    shares, terms = zip(*terms_of(metric), strict=True)
    found = _scorers(predictions, terms, run, split, groups)
    if found is None:
        return None
    values, scorers = found

    def scorer(weights_NR: Weights) -> dict[str, Array]:
        parts = (share * score(weights_NR) for share, score in zip(shares, scorers, strict=True))
        return {metric: np.sum(list(parts), axis=0)}

    value = sum(share * value for share, value in zip(shares, values, strict=True))
    return value, (scorer, *_all_units(predictions, groups))


def _scorers(
    predictions: pl.DataFrame,
    metrics: Sequence[str],
    run: PlannedRun,
    split: str,
    groups: list[str] | None,
) -> tuple[list[float], list[Callable[[Weights], Array]]] | None:
    """The values of several scores, and functions from weights (N, R) of all rows to each of them (R,): a drawn row
    counts in every target that it has a label of. None if one of them cannot be resampled."""
    values, scorers = [], []
    for metric in metrics:
        found = _score(predictions, metric, run, split, groups)
        if found is None:
            return None
        target, key = split_metric(metric)
        name = target or next(iter(run.config.targets))
        labeled_N = predictions[f"{name}_true"].is_not_null().to_numpy()
        values.append(found[0])
        scorers.append(_of_labeled(found[1][0], labeled_N, key.removesuffix(AT_PRIOR)))
    return values, scorers


def _of_labeled(score: Scorer, labeled_N: npt.NDArray[np.bool_], key: str) -> Callable[[Weights], Array]:
    return lambda weights_NR: score(weights_NR[labeled_N])[key]


def _all_units(
    predictions: pl.DataFrame, groups: list[str] | None
) -> tuple[int, npt.NDArray[np.int64] | None]:
    """The sampling units of all rows, whether they have a label or not."""
    return sampling_units(groups, np.ones(len(predictions), dtype=bool))


def _at_prior(
    counted: Metric, key: str, scores: Mapping[str, Any], groups: list[str] | None
) -> tuple[float, Resampling]:
    """The score at the class shares of selection.prior, and its resampling. Only class targets have it."""
    counts = counted.counts if isinstance(counted, ClassMetric) else counted
    assert isinstance(counts, LabelMetric)
    shares = [float(share) for share in scores["at_prior"]["shares"].values()]
    return scores_at_prior(counts, shares)[key], resampling_at_prior(counts, shares, groups)


def _metrics_of(run: PlannedRun, split: str) -> dict[str, Any]:
    """metrics.json of the rows of a split."""
    metrics = RunFolder(run.folder).metrics()
    found: dict[str, Any] = metrics["test"] if split == "test" else metrics
    return found


def _scores_of(metric: str, run: PlannedRun, split: str) -> dict[str, Any]:
    """The scores of the target, or the joint class, that `metric` is of, as in metrics.json."""
    name = split_metric(metric)[0] or next(iter(run.config.targets))
    scores = _metrics_of(run, split)
    found: dict[str, Any] = scores["joint"] if name == "joint" else scores["targets"][name]
    return found


def _metric_of(predictions: pl.DataFrame, metric: str, run: PlannedRun, split: str) -> Metric | None:
    """The metric of the target that `metric` is of, with all rows counted; None for a ranking target."""
    name = split_metric(metric)[0] or next(iter(run.config.targets))
    scores = _metrics_of(run, split)
    if name == "joint":
        return joint_metric(predictions, scores["joint"]["labels"])
    target = run.config.targets[name]
    labels = list(scores["targets"][name].get("labels") or ())
    return target_metric(predictions, name, target.type, labels, target.separator or "|")


def target_metric(
    predictions: pl.DataFrame, name: str, type: str, labels: Sequence[str], separator: str = "|"
) -> Metric | None:
    """The metric of a target from a table of predictions, with all rows counted; None for a ranking target, whose
    queries no table of predictions has."""
    if type == "regression":
        regression = RegressionMetric(keep_rows=True)
        columns = (predictions[column].cast(pl.Float64) for column in (name, f"{name}_true"))
        regression.update(*(torch.tensor(column.fill_null(math.nan).to_list()) for column in columns))
        return regression
    if type == "ranking":
        return None

    labels = list(labels)
    if f"{name}_p" in predictions.columns:  # of many classes only the predicted labels are known
        counted = LabelMetric(len(labels), keep_rows=True, labels=labels)
        counted.update(*(_numbers(predictions[column], labels) for column in (name, f"{name}_true")))
        return counted
    columns_NK = predictions.select(pl.col(f"{name}_p_{label}").cast(pl.Float64) for label in labels)
    p_NK = torch.tensor(columns_NK.rows(), dtype=torch.float64).clamp(1e-12, 1 - 1e-12)
    if type == "multilabel":
        multilabel = MultilabelMetric(labels, keep_rows=True)
        multilabel.update(p_NK.logit(), _label_sets(predictions[f"{name}_true"], labels, separator))
        return multilabel

    # The predicted classes are those that were written: not every head takes the most probable one.
    predicted_N = _numbers(predictions[name], labels)
    classes = ClassMetric(
        len(labels),
        keep_rows=True,
        labels=labels,
        predicted=lambda _: predicted_N,
        ordinal=type == "ordinal",
    )
    classes.update(p_NK.log(), _numbers(predictions[f"{name}_true"], labels))
    return classes


def joint_metric(predictions: pl.DataFrame, labels: Sequence[str]) -> LabelMetric:
    """The metric of the joint class from a table of predictions."""
    metric = LabelMetric(len(labels), keep_rows=True, labels=list(labels))
    columns = (predictions[column].cast(pl.Int64).fill_null(-1) for column in ("joint", "joint_true"))
    metric.update(*(torch.tensor(column.to_list()) for column in columns))
    return metric


def _numbers(names: pl.Series, labels: Sequence[str]) -> torch.Tensor:
    """Class numbers (N,), -1 where there is no label."""
    number = {label: k for k, label in enumerate(labels)}
    return torch.tensor([-1 if name is None else number[name] for name in names.to_list()])


def _label_sets(cells: pl.Series, labels: Sequence[str], separator: str) -> torch.Tensor:
    """1 and 0 by label (N, L), NaN for rows without a set."""
    flags_NL: npt.NDArray[np.float64] = np.full((len(cells), len(labels)), math.nan)
    for row, cell in enumerate(cells.to_list()):
        if cell is not None:
            flags_NL[row] = [label in cell.split(separator) for label in labels]
    return torch.from_numpy(flags_NL)


def _groups_of(run: PlannedRun, ids: Sequence[str], split: str) -> list[str] | None:
    """The group of each scored row; None where each row is its own."""
    groups = RunFolder(run.folder).groups(split, by_image=not run.config.has_ranking)
    return None if groups is None else [groups[id] for id in ids]
