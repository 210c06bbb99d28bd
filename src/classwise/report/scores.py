"""The validation scores as the page shows them: a table a type of target, then each target by itself.

Scores are read off `metrics.json`, and the dots of a regression off `predictions.csv`; nothing is computed anew,
so the page cannot disagree with the files.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from markupsafe import Markup

from classwise.report.charts import Dot, agreement_chart, scatter_chart
from classwise.report.confusion import Matrix, Pair, confused_pairs, confusion_counts, confusion_matrix
from classwise.report.headline import Best, target_of
from classwise.report.names import NUMBER_NAMES, higher_is_better, interval_text, metric_name, number_text
from classwise.report.read import Json, RunFiles, count, ends, joint_title, kind_of, listing, mapping, number

MOST_CLASSES = 40  # in full; with more, the weakest ones and the confused pairs stand for them
WEAKEST = 20
PAIRS = 8
PAIRS_WITHOUT_MATRIX = 20
MOST_DOTS = 2000  # of a regression: more cannot be told apart, and make a large page

# A type's heading, what its parts are called, and the scores that stand in its overview: as many as a phone shows.
KINDS = {
    "class": ("Classes", "class", "classes", ("macro_f1", "balanced_accuracy", "accuracy")),
    "ordinal": ("Ordered classes", "level", "levels", ("macro_f1", "mae_levels", "quadratic_kappa")),
    "multilabel": ("Labels", "label", "labels", ("macro_f1", "map", "exact_match")),
    "regression": ("Numbers", "", "", ("mae", "rmse", "r2")),
    "ranking": ("Rankings", "", "", ("ndcg", "mrr", "map")),
}
# Counts that stand among the scores.
COUNTS = ("samples", "queries", "queries_without_relevant", "invalid")


@dataclass(frozen=True)
class Number:
    """One score as text, with its 95 % interval where there is one."""

    key: str
    name: str
    text: str
    interval: str

    @property
    def lower(self) -> bool:
        return not higher_is_better(self.key)


@dataclass(frozen=True)
class ClassRow:
    """One class's or label's scores. `train` is None where the run does not record the training rows."""

    label: str
    train: int | None
    support: int
    f1: float
    precision: float
    recall: float
    ap: float | None = None


@dataclass(frozen=True)
class TargetScores:
    """One target, or the joint class. `classes` counts all of them, `rows` may hold the weakest only."""

    key: str
    title: str
    kind: str
    samples: int  # rows with a known answer; 0 where they are not recorded
    numbers: list[Number]
    classes: int = 0
    unseen: int = 0  # classes without a validation row
    rows: list[ClassRow] = field(default_factory=list)
    matrix: Matrix | None = None
    pairs: list[Pair] = field(default_factory=list)
    chart: Markup = field(default_factory=Markup)
    dots: int = 0  # in a regression's chart
    facts: list[tuple[str, int]] = field(default_factory=list)  # counts beside a ranking's scores

    @property
    def in_full(self) -> bool:
        return self.classes <= MOST_CLASSES

    @property
    def noun(self) -> str:
        return KINDS[self.kind][1]

    @property
    def nouns(self) -> str:
        return KINDS[self.kind][2]

    def number(self, key: str) -> Number | None:
        return next((found for found in self.numbers if found.key == key), None)


@dataclass(frozen=True)
class Overview:
    """The targets of one type side by side. `further` are the scores that `main` leaves out."""

    title: str
    main: list[Number]
    further: list[Number]
    targets: list[TargetScores]
    headline: str  # the key of the target that the run is ranked by


def all_scores(run: RunFiles) -> list[TargetScores]:
    """The joint class first, where there is one: it is what the run is ranked by. Then the targets in order."""
    found = []
    joint = mapping(run.metrics.get("joint"))
    if joint:
        found.append(_class_scores(joint, "joint", joint_title(run), "class", joint_train_counts(run)))
    for name, scores in mapping(run.metrics.get("targets")).items():
        found.append(_target_scores(run, name, mapping(scores)))
    return found


def overviews(run: RunFiles, scores: Sequence[TargetScores], best: Best) -> list[Overview]:
    """One table a type, in the order in which the types first come."""
    tables = []
    for kind in dict.fromkeys(target.kind for target in scores):
        targets = [target for target in scores if target.kind == kind and target.numbers]
        columns = {number.key: number for target in targets for number in target.numbers}
        main = [columns[key] for key in _main(run, kind, best, [*columns]) if key in columns]
        # The other types show all their scores in the target's own part.
        rest = [columns[key] for key in columns if columns[key] not in main] if KINDS[kind][1] else []
        if targets:
            tables.append(Overview(KINDS[kind][0], main, rest, targets, target_of(run, best.metric)))
    return tables


def _main(run: RunFiles, kind: str, best: Best, present: list[str]) -> list[str]:
    """The type's main scores, the selected one before them where it is another."""
    usual = [key for key in KINDS[kind][3] if key in present]
    mine = kind_of(run, target_of(run, best.metric)) == kind
    return usual if best.key in usual or not mine else [best.key, *usual[:2]]


def train_counts(run: RunFiles, target: str) -> dict[str, int]:
    """Training rows per label of one target, as the run recorded them."""
    labels = mapping(mapping(run.status.get("data")).get("labels"))
    return {
        str(row.get("label")): count(row.get("train")) for row in map(mapping, listing(labels.get(target)))
    }


def joint_train_counts(run: RunFiles) -> dict[str, int]:
    joint = mapping(mapping(run.status.get("data")).get("joint"))
    pairs = zip(listing(joint.get("labels")), listing(joint.get("train")), strict=False)
    return {str(label): count(rows) for label, rows in pairs}


def _target_scores(run: RunFiles, name: str, scores: Json) -> TargetScores:
    kind = kind_of(run, name)
    if kind == "regression":
        return _regression_scores(run, name, scores)
    if kind == "ranking":
        return _ranking_scores(name, scores)
    return _class_scores(scores, name, name, kind if kind in KINDS else "class", train_counts(run, name))


def _numbers(scores: Json, kind: str) -> list[Number]:
    """Ours in their order, then whatever else is a number."""
    intervals = mapping(scores.get("intervals"))
    others = [key for key in scores if key not in NUMBER_NAMES and key not in COUNTS]
    found = []
    for key in [*NUMBER_NAMES, *others]:
        if (value := number(scores.get(key))) is not None:
            span = ends(intervals.get(key))
            text = interval_text(key, value, span) if span else ""
            found.append(Number(key, metric_name(key, kind), number_text(key, value), text))
    return found


def _class_scores(scores: Json, key: str, title: str, kind: str, train: dict[str, int]) -> TargetScores:
    """A class, ordinal or multilabel target. Levels stay in their order, classes stand rarest first."""
    rows = [_class_row(mapping(row), train) for row in listing(scores.get("per_class"))]
    labels = [str(label) for label in listing(scores.get("labels"))] or [row.label for row in rows]
    confusion = confusion_counts(scores.get("confusion"), len(labels))
    in_full = len(labels) <= MOST_CLASSES
    ordered = rows if kind == "ordinal" else _rarest_first(rows)
    return TargetScores(
        key=key,
        title=title,
        kind=kind,
        samples=count(scores.get("samples")),
        classes=len(labels),
        unseen=sum(row.support == 0 for row in rows),
        numbers=_numbers(scores, kind),
        rows=ordered if in_full else _weakest(rows),
        matrix=confusion_matrix(confusion, labels) if confusion is not None and in_full else None,
        pairs=confused_pairs(confusion, labels, PAIRS if in_full else PAIRS_WITHOUT_MATRIX),
        chart=_f1_chart(rows, KINDS[kind][1]),
    )


def _regression_scores(run: RunFiles, name: str, scores: Json) -> TargetScores:
    points = labels(run.predictions, name)
    shown = points[_spread(len(points))]
    chart = agreement_chart([(float(x), float(y)) for x, y in shown], f"Predicted against true {name}", name)
    numbers = _numbers(scores, "regression")
    samples = count(scores.get("samples")) or len(points)
    return TargetScores(name, name, "regression", samples, numbers, chart=chart, dots=len(shown))


def _ranking_scores(name: str, scores: Json) -> TargetScores:
    facts = [(key.replace("_", " "), count(scores[key])) for key in COUNTS[1:3] if key in scores]
    numbers = _numbers(scores, "ranking")
    return TargetScores(name, name, "ranking", count(scores.get("samples")), numbers, facts=facts)


def labels(table: pl.DataFrame, target: str) -> np.ndarray:
    """(N, 2): the true and the predicted number of every row that has both."""
    columns = [f"{target}_true", target]
    if not set(columns) <= set(table.columns):
        return np.empty((0, 2))
    both = table.select(pl.col(columns).cast(pl.Float64, strict=False))
    return both.filter(pl.all_horizontal(pl.all().is_finite())).to_numpy()


def _spread(rows: int) -> list[int]:
    """At most MOST_DOTS row numbers, evenly over all rows: the same ones every time."""
    return (
        np.linspace(0, rows - 1, MOST_DOTS).round().astype(int).tolist()
        if rows > MOST_DOTS
        else [*range(rows)]
    )


def _class_row(row: Json, train: dict[str, int]) -> ClassRow:
    label = str(row.get("label"))
    f1, precision, recall = (number(row.get(key)) or 0.0 for key in ("f1", "precision", "recall"))
    ap = number(row.get("ap"))
    return ClassRow(label, train.get(label), count(row.get("support")), f1, precision, recall, ap)


def _rarest_first(rows: list[ClassRow]) -> list[ClassRow]:
    return sorted(rows, key=lambda row: row.support if row.train is None else row.train)


def _weakest(rows: list[ClassRow]) -> list[ClassRow]:
    """Of the classes that were validated at all; the others have no score to be weak in."""
    return sorted(rows, key=lambda row: (row.support == 0, row.f1, row.support))[:WEAKEST]


def _f1_chart(rows: list[ClassRow], noun: str) -> Markup:
    """F1 against training rows, from six classes up: fewer are read off the table as easily. A class without
    validation rows has no score to show."""
    dots = [
        Dot(row.label, max(row.train, 1), row.f1) for row in rows if row.train is not None and row.support
    ]
    if len(dots) < 6:
        return Markup("")
    return scatter_chart(dots, f"F1 of each {noun} against its training rows", "training rows (logarithmic)")
