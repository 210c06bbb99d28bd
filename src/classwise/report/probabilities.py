"""The page's section on probabilities: how often what they claim is true, and what each class gains and loses at every
threshold.

All of it comes from predictions.csv; the calibration error and the average precision are those of metrics.json."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
from markupsafe import Markup

from classwise.metrics.intervals import MIN_UNITS, share_interval
from classwise.report.charts import Bin, RecallCurve, calibration_chart, precision_recall_chart
from classwise.report.kinds import KINDS, MOST_CLASSES
from classwise.report.mistakes import probability_of_prediction
from classwise.report.names import number_text, shorten
from classwise.report.read import Json, RunFiles, joint_title, kind_of, listing, mapping, number
from classwise.report.scores import train_counts

BINS = 10
"""Of the reliability diagram, equally wide; empty ones are left out."""
RAREST = 3
"""Classes whose curve has a color of its own."""
LEGEND = 22
"""Characters of a label in the legend, beside which its average precision has to fit."""
MOST_STEPS = 32
"""Of a precision-recall curve: a class with more positive rows has as many of them, evenly spaced."""
DRAWS = 1000

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Probabilities:
    """One target. `subject`: what its probabilities are of. `error`: the calibration error, empty where metrics.json
    has none. `legend`: style and name of the highlighted curves. `curves`: how many are drawn, of `classes`."""

    title: str
    subject: str
    rows: int
    reliability: Markup
    error: str
    has_intervals: bool
    recall: Markup
    legend: list[tuple[int, str]]
    curves: int
    classes: int
    nouns: str


def probabilities(run: RunFiles) -> list[Probabilities]:
    """The joint class first, then the targets with classes or labels, as far as predictions.csv has probabilities."""
    scores = {"joint": mapping(run.metrics.get("joint")), **mapping(run.metrics.get("targets"))}
    found = []
    for name, scored in scores.items():
        kind = kind_of(run, name) if name != "joint" else "class"
        if kind in ("class", "ordinal", "multilabel"):
            part = _probabilities(run, name, kind, mapping(scored))
            if part.reliability or part.recall:
                found.append(part)
    return found


def _probabilities(run: RunFiles, name: str, kind: str, scores: Json) -> Probabilities:
    table = run.predictions
    labels = [str(label) for label in listing(scores.get("labels"))]
    labeled = table.filter(pl.col(f"{name}_true").is_not_null()) if f"{name}_true" in table.columns else None
    bins: list[Bin] = []
    curves: list[RecallCurve] = []
    if labeled is not None and labeled.height and name in labeled.columns:
        separator = _separator(run, name) if kind == "multilabel" else None
        unit_N = units(run.split, labeled["id"].to_list())
        bins = reliability_bins(*_claims(labeled, name, labels, separator), unit_N=unit_N)
        curves = _recall_curves(run, labeled, name, labels, separator, scores)
    error = number(scores.get("calibration_error"))
    title = joint_title(run) if name == "joint" else name
    subject = "a label" if kind == "multilabel" else f"the predicted {KINDS[kind].noun}"
    drawn = curves[:MOST_CLASSES]
    return Probabilities(
        title=title,
        subject=subject,
        rows=0 if labeled is None else labeled.height,
        reliability=calibration_chart(bins, f"Reliability of the probabilities of {title}", subject),
        error="" if error is None else number_text("calibration_error", error),
        has_intervals=any(one.interval is not None for one in bins),
        recall=precision_recall_chart(drawn, f"Precision against recall of each class of {title}"),
        legend=[(curve.style, curve.legend) for curve in drawn if curve.style is not None],
        curves=len(drawn),
        classes=len(labels),
        nouns=KINDS[kind].nouns,
    )


def _separator(run: RunFiles, target: str) -> str:
    return str(mapping(mapping(run.config.get("targets")).get(target)).get("separator") or "|")


def units(split: pl.DataFrame, ids: Sequence[str]) -> Ints | None:
    """The unit (N,) of each row: rows of one group, or without groups of one image, vary together. None if each row is
    its own."""
    for column in ("group", "content"):
        if {"id", column} <= set(split.columns) and split[column].null_count() < split.height:
            rows = split.filter(pl.col("id").is_in(list(ids)))
            of_id = dict(zip(rows["id"].to_list(), rows[column].to_list(), strict=True))
            # A row without a group is one of its own.
            names = [of_id.get(id_) or f"\0{place}" for place, id_ in enumerate(ids)]
            numbers = {name: place for place, name in enumerate(dict.fromkeys(names))}
            if len(numbers) < len(ids):
                return np.array([numbers[name] for name in names], dtype=np.int64)
            return None
    return None


def _claims(
    labeled: pl.DataFrame, target: str, labels: Sequence[str], separator: str | None
) -> tuple[Floats, Bools, Ints]:
    """What is claimed and what is true: the probability (M,), whether it is right (M,), and the row of each. One claim
    a row; of a multilabel target one for each row and label."""
    if separator is None:
        is_right_N = (labeled[target] == labeled[f"{target}_true"]).to_numpy()
        return probability_of_prediction(labeled, target), is_right_N, np.arange(labeled.height)
    with_column = [label for label in labels if f"{target}_p_{label}" in labeled.columns]
    if not with_column:
        return np.empty(0), np.empty(0, dtype=bool), np.empty(0, dtype=np.int64)
    p_NL = np.stack([_floats(labeled, f"{target}_p_{label}") for label in with_column], axis=1)
    true_NL = np.stack([_is_label(labeled, target, label, separator) for label in with_column], axis=1)
    return p_NL.ravel(), true_NL.ravel(), np.repeat(np.arange(labeled.height), len(with_column))


def reliability_bins(p_M: Floats, is_right_M: Bools, row_M: Ints, unit_N: Ints | None) -> list[Bin]:
    """Mean probability, share that is right and number of claims in BINS equally wide bins of the probability (Guo et
    al. 2017, section 2), with the 95% interval of the share where it is of at least MIN_UNITS rows or groups. Bins
    without a claim are left out. `unit_N`: the group of each row; None if each row is its own."""
    known_M = np.isfinite(p_M)
    p_M, is_right_M, row_M = p_M[known_M], is_right_M[known_M], row_M[known_M]
    unit_M = row_M if unit_N is None else unit_N[row_M]
    bin_M = np.minimum((p_M * BINS).astype(int), BINS - 1)
    found = []
    for number_of_bin in np.unique(bin_M).tolist():
        inside_M = bin_M == number_of_bin
        right_B = is_right_M[inside_M]
        names, unit_B = np.unique(unit_M[inside_M], return_inverse=True)
        interval = None
        if len(names) >= MIN_UNITS:
            in_groups = unit_B if len(names) < len(right_B) else None
            low, high = share_interval(right_B, in_groups, seed=number_of_bin, draws=DRAWS)
            interval = (low, high)
        found.append(Bin(float(p_M[inside_M].mean()), float(right_B.mean()), len(right_B), interval))
    return found


def _recall_curves(
    run: RunFiles,
    labeled: pl.DataFrame,
    target: str,
    labels: Sequence[str],
    separator: str | None,
    scores: Json,
) -> list[RecallCurve]:
    """Of every class with a row and a column of probabilities, the rarest first, which have a style."""
    train = {} if run.is_folds else train_counts(run, target)
    rows = map(mapping, listing(scores.get("per_class")))
    precisions = {str(row.get("label")): number(row.get("ap")) for row in rows}
    found = []
    for label in labels:
        column = f"{target}_p_{label}"
        is_label_N = _is_label(labeled, target, label, separator)
        support = int(is_label_N.sum())
        if column in labeled.columns and support:
            points, area = recall_curve(_floats(labeled, column), is_label_N)
            ap = precisions.get(label)
            found.append((train.get(label, support), support, label, points, area if ap is None else ap))
    found.sort(key=lambda one: (one[0], one[1], one[2]))
    return [
        RecallCurve(
            f"{label}: AP {ap:.3f}, {support:,} {'row' if support == 1 else 'rows'}",
            legend=f"{shorten(label, LEGEND)}, AP {ap:.3f}",
            points=points,
            style=place if place < RAREST else None,
        )
        for place, (_, support, label, points, ap) in enumerate(found)
    ]


def recall_curve(p_N: Floats, is_label_N: Bools) -> tuple[list[tuple[float, float]], float]:
    """(recall, precision) at every threshold at which recall rises, in steps as scikit-learn's average precision sums
    them; and that sum. At most MOST_STEPS of them, evenly spaced."""
    order_N = np.argsort(-np.nan_to_num(p_N, nan=-1.0), kind="stable")
    hits_N = np.cumsum(is_label_N[order_N])
    taken_N = np.arange(1, len(order_N) + 1)
    # Rows with the same probability are taken together.
    is_last_N = np.append(np.diff(p_N[order_N]) != 0, True)
    hits_T, taken_T = hits_N[is_last_N], taken_N[is_last_N]
    rises_T = np.diff(hits_T, prepend=0) > 0
    recall_S = hits_T[rises_T] / max(1, hits_N[-1])
    precision_S = hits_T[rises_T] / taken_T[rises_T]
    area = float((np.diff(recall_S, prepend=0.0) * precision_S).sum())

    if len(recall_S) > MOST_STEPS:
        kept = np.linspace(0, len(recall_S) - 1, MOST_STEPS).round().astype(int)
        recall_S, precision_S = recall_S[kept], precision_S[kept]
    points: list[tuple[float, float]] = []
    start = 0.0
    for recall, precision in zip(recall_S.tolist(), precision_S.tolist(), strict=True):
        points += [(start, precision), (recall, precision)]
        start = recall
    return points, area


def _floats(table: pl.DataFrame, column: str) -> Floats:
    return table[column].cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy()


def _is_label(table: pl.DataFrame, target: str, label: str, separator: str | None) -> Bools:
    """(N,): whether the row has the label, which is its only one without a separator."""
    truth = table[f"{target}_true"]
    if separator is None:
        return (truth == label).to_numpy()
    return np.array([label in cell.split(separator) for cell in truth.to_list()], dtype=bool)
