"""Finished runs side by side on the same rows: scores, paired differences, and which rows changed sides."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.stats import binomtest

from classwise.compare.resamples import RESAMPLES, SEED, joint_metric, target_metric
from classwise.compare.run_rows import CommonRows, FinishedRun
from classwise.metrics.bootstrap import (
    Resampling,
    Weights,
    percentile_interval,
    resampled_scores,
    sampling_units,
)
from classwise.metrics.classification import ClassMetric, LabelMetric
from classwise.metrics.collection import Metric
from classwise.metrics.intervals import MIN_CLASS_UNITS, MIN_UNITS
from classwise.metrics.rows import marginal_sums
from classwise.metrics.scores import HIGHER_IS_BETTER, Array, precision_recall_f1

WITHOUT_INTERVAL = ("calibration_error",)
"""It is biased upwards, and on resamples even more: its intervals are withheld elsewhere too."""
CLASS_SCORES = ("precision", "recall", "f1")
JOINT = "joint"


@dataclass(frozen=True)
class Difference:
    """How much higher a run scores than the first one, with the 95 % interval of the paired bootstrap; `interval` is
    None where there are too few rows, or the score cannot be resampled."""

    value: float
    interval: tuple[float, float] | None = None

    @property
    def is_clear(self) -> bool:
        """Whether the interval lies on one side of 0."""
        return self.interval is not None and (self.interval[0] > 0 or self.interval[1] < 0)


@dataclass(frozen=True)
class ScoreRow:
    """One score of all runs, and the differences of the others from the first. `of`: the class that it is of, if any,
    and `rows` how many of these there are."""

    metric: str
    values: list[float]
    differences: list[Difference]
    of: str = ""
    rows: int | None = None

    @property
    def higher_is_better(self) -> bool:
        return HIGHER_IS_BETTER.get(self.metric, True)


@dataclass(frozen=True)
class Sides:
    """How the answers of a run compare with those of the first one, row by row: both right or wrong, `lost` (only the
    first is right) and `gained` (only this one). `p`: McNemar's exact test, None where rows come in groups, for which
    it does not hold."""

    both_right: int
    both_wrong: int
    lost: list[str]
    gained: list[str]
    p: float | None


@dataclass(frozen=True)
class TargetScores:
    """One target, or the joint class. `scores` of the target, `classes` rarest first, `sides` of each run but the
    first; `rows`: those with a label, in so many `units` (groups, or rows)."""

    name: str
    type: str
    rows: int
    units: int
    scores: list[ScoreRow]
    classes: list[ScoreRow]
    sides: list[Sides]


def target_scores(runs: Sequence[FinishedRun], common: CommonRows) -> tuple[list[TargetScores], list[str]]:
    """Every target that all runs have, and the joint class; and warnings of those that are left out."""
    found, warnings = [], []
    for name in _names(runs):
        infos = [_info(run, name) for run in runs]
        if any(info is None for info in infos):
            lacking = [run.name for run, info in zip(runs, infos, strict=True) if info is None]
            warnings.append(f"{name}: left out, since {' and '.join(lacking)} has no such target")
            continue
        known = [info for info in infos if info is not None]
        if reason := _not_comparable(known):
            warnings.append(f"{name}: left out, since {reason}")
            continue
        tables, without = _same_truth(common.tables, name)
        if without:
            which = "1 row is" if without == 1 else f"{without} rows are"
            warnings.append(f"{name}: {which} left out, whose true labels differ between the runs")
        separator = str(_target_config(runs[0], name).get("separator") or "|")
        metrics = [_metric(table, name, known[0], separator) for table in tables]
        found.append(_compared(name, known[0], metrics, tables, common))
    return found, warnings


def as_json(targets: Sequence[TargetScores]) -> dict[str, Any]:
    """Plain values by the names of the targets."""
    return {target.name: {k: v for k, v in asdict(target).items() if k != "name"} for target in targets}


def _names(runs: Sequence[FinishedRun]) -> list[str]:
    """The targets of all runs, in the order of the first one, and the joint class before them."""
    names = dict.fromkeys(name for run in runs for name in run.metrics.get("targets", {}))
    joint = [JOINT] if any(run.metrics.get("joint") for run in runs) else []
    return [*joint, *names]


def _info(run: FinishedRun, name: str) -> dict[str, Any] | None:
    """What metrics.json says of a target, or of the joint class."""
    found = run.metrics.get("joint") if name == JOINT else run.metrics.get("targets", {}).get(name)
    return found if isinstance(found, dict) else None


def _target_config(run: FinishedRun, name: str) -> Mapping[str, Any]:
    found = run.config.get("targets", {}).get(name)
    return found if isinstance(found, dict) else {}


def _not_comparable(infos: Sequence[Mapping[str, Any]]) -> str:
    """Why a target cannot be compared; empty if it can."""
    types = list(dict.fromkeys(str(info.get("type", "class")) for info in infos))
    if len(types) > 1:
        return f"its type is {' and '.join(types)}"
    if types[0] == "ranking":
        return "the predictions of a ranking target do not have its queries"
    labels = [list(info.get("labels") or ()) for info in infos]
    if any(other != labels[0] for other in labels):
        return "its labels, or their order, are not the same in all runs"
    return ""


def _same_truth(tables: Sequence[pl.DataFrame], name: str) -> tuple[list[pl.DataFrame], int]:
    """The tables without the true label of a row for which they differ, and for how many rows they do."""
    column = f"{name}_true"
    first = tables[0][column]
    same = pl.Series([True] * len(first))
    for table in tables[1:]:
        same &= first.eq_missing(table[column])
    if same.all():
        return list(tables), 0
    masked = [table.with_columns(pl.when(same).then(pl.col(column)).otherwise(None)) for table in tables]
    return masked, int((~same).sum())


def _metric(table: pl.DataFrame, name: str, info: Mapping[str, Any], separator: str) -> Metric | LabelMetric:
    if name == JOINT:
        return joint_metric(table, list(info["labels"]))
    metric = target_metric(table, name, str(info["type"]), list(info.get("labels") or ()), separator)
    assert metric is not None  # ranking targets are left out before
    return metric


def _compared(
    name: str,
    info: Mapping[str, Any],
    metrics: Sequence[Metric | LabelMetric],
    tables: Sequence[pl.DataFrame],
    common: CommonRows,
) -> TargetScores:
    """One target of all runs."""
    computed = [metric.compute() for metric in metrics]
    units, _ = sampling_units(common.groups, metrics[0].counted_rows())
    # The same rows have to be drawn for all: one without an answer counts in no score of its run.
    counted = [metric.counted_rows() for metric in metrics]
    enough = units >= MIN_UNITS and all(np.array_equal(other_N, counted[0]) for other_N in counted)
    draws = [_draws(metric.resampling(common.groups)) if enough else {} for metric in metrics]
    keys = [key for key, value in computed[0].items() if _is_score(key, value) and key in computed[-1]]
    scores = [
        ScoreRow(key, [float(found[key]) for found in computed], _differences(key, computed, draws))
        for key in keys
        if all(_is_score(key, found.get(key)) for found in computed)
    ]
    return TargetScores(
        name=name,
        type=str(info.get("type", "class")),
        rows=int(metrics[0].counted_rows().sum()),
        units=units,
        scores=scores,
        classes=_classes(metrics, computed, common.groups, enough),
        sides=_all_sides(name, tables, common) if info.get("type") != "regression" else [],
    )


def _draws(resampling: Resampling) -> dict[str, Array]:
    return resampled_scores(resampling, seed=SEED, resamples=RESAMPLES)


def _is_score(key: str, value: Any) -> bool:
    return key in HIGHER_IS_BETTER and isinstance(value, int | float) and not isinstance(value, bool)


def _differences(
    key: str, computed: Sequence[Mapping[str, Any]], draws: Sequence[Mapping[str, Array]]
) -> list[Difference]:
    """Of each run but the first. All runs are scored on the same resamples, so the difficulty of these cancels out."""
    found = []
    for values, drawn in zip(computed[1:], draws[1:], strict=True):
        value = float(values[key]) - float(computed[0][key])
        interval = None
        if key in drawn and key in draws[0] and key not in WITHOUT_INTERVAL:
            low, high = percentile_interval(drawn[key] - draws[0][key], value)
            interval = (low, high)
        found.append(Difference(value, interval))
    return found


def _classes(
    metrics: Sequence[Metric | LabelMetric],
    computed: Sequence[Mapping[str, Any]],
    groups: list[str] | None,
    enough: bool,
) -> list[ScoreRow]:
    """F1 and recall of each class, rarest first; classes without rows are left out, since they have no recall."""
    per_class = [{row["label"]: row for row in found.get("per_class", ())} for found in computed]
    counts = [metric.counts if isinstance(metric, ClassMetric) else metric for metric in metrics]
    labels = [label for label, row in per_class[0].items() if row["support"]]
    drawn: list[dict[str, Array]] = [{} for _ in metrics]
    if enough and all(isinstance(count, LabelMetric) for count in counts):
        drawn = [
            _draws(_class_resampling(count, groups)) for count in counts if isinstance(count, LabelMetric)
        ]

    rows = []
    for label in sorted(labels, key=lambda label: (per_class[0][label]["support"], label)):
        support = int(per_class[0][label]["support"])
        units = _units_of_class(metrics[0], label, groups) if isinstance(counts[0], LabelMetric) else support
        for score in ("f1", "recall"):
            values = [float(found[label][score]) for found in per_class]
            key = f"{label}\0{score}"
            flat = [{key: value} for value in values]
            of_class = drawn if units >= MIN_CLASS_UNITS else [{} for _ in drawn]
            rows.append(ScoreRow(score, values, _differences(key, flat, of_class), of=label, rows=support))
    return rows


def _units_of_class(metric: Metric | LabelMetric, label: str, groups: list[str] | None) -> int:
    """In how many rows, or groups, a class occurs."""
    counts = metric.counts if isinstance(metric, ClassMetric) else metric
    assert isinstance(counts, LabelMetric)
    true_N, _, counted_N = counts.rows()
    return sampling_units(groups, counted_N & (true_N == list(counts.labels).index(label)))[0]


def _class_resampling(counts: LabelMetric, groups: list[str] | None) -> Resampling:
    """Precision, recall and F1 of every class at any weights of the rows."""
    true_N, predicted_N, counted_N = counts.rows()
    marginals = marginal_sums(true_N[counted_N], predicted_N[counted_N], counts.classes)

    def scorer(weights_NR: Weights) -> dict[str, Array]:
        scores = precision_recall_f1(*marginals(weights_NR))
        return {
            f"{label}\0{name}": scores_RK[:, k]
            for name, scores_RK in zip(CLASS_SCORES, scores, strict=True)
            for k, label in enumerate(counts.labels)
        }

    return scorer, *sampling_units(groups, counted_N)


def _all_sides(name: str, tables: Sequence[pl.DataFrame], common: CommonRows) -> list[Sides]:
    """Which rows each run answers otherwise than the first one."""
    right = [_is_right(table, name) for table in tables]
    labeled_N = tables[0][f"{name}_true"].is_not_null().to_numpy()
    ids = np.array(common.ids, dtype=object)
    return [
        _sides(right[0], other, labeled_N, ids, is_grouped=common.groups is not None) for other in right[1:]
    ]


def _is_right(table: pl.DataFrame, name: str) -> npt.NDArray[np.bool_]:
    """Whether the answer is the true one, (N,); of several labels, whether all of them are."""
    right = table[name].cast(pl.String).eq_missing(table[f"{name}_true"].cast(pl.String))
    return np.asarray(right.to_numpy(), dtype=bool)


def _sides(
    first_N: npt.NDArray[np.bool_],
    other_N: npt.NDArray[np.bool_],
    labeled_N: npt.NDArray[np.bool_],
    ids: npt.NDArray[Any],
    is_grouped: bool,
) -> Sides:
    lost = ids[labeled_N & first_N & ~other_N].tolist()
    gained = ids[labeled_N & ~first_N & other_N].tolist()
    # McNemar 1947: under equal error rates a row that changes sides does so either way with probability 1/2.
    changed = len(lost) + len(gained)
    p = float(binomtest(len(gained), changed).pvalue) if changed and not is_grouped else None
    return Sides(
        both_right=int((labeled_N & first_N & other_N).sum()),
        both_wrong=int((labeled_N & ~first_N & ~other_N).sum()),
        lost=lost,
        gained=gained,
        p=p,
    )
