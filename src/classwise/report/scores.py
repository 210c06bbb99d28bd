"""The scores as the page shows them: an overview per type of target, then each target by itself on the validation rows.

Scores are read from `metrics.json`, and the dots of a regression from `predictions.csv`. Nothing is computed anew, so
the page cannot disagree with the files.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl
from markupsafe import Markup

from classwise.metrics.confusion import confusion_from_json
from classwise.metrics.formatting import NO_INTERVAL, short_interval
from classwise.report.charts import Dot, agreement_chart, scatter_chart
from classwise.report.confusion import (
    ConfusedPair,
    Matrix,
    confused_pairs,
    confusion_matrix,
)
from classwise.report.headline import Best, target_of
from classwise.report.kinds import KINDS, MOST_CLASSES
from classwise.report.names import (
    NUMBER_NAMES,
    SUFFIXES,
    higher_is_better,
    interval_text,
    metric_name,
    number_text,
)
from classwise.report.read import Json, RunFiles, count, ends, joint_title, kind_of, listing, mapping, number

MOST_ROWS = 300  # classes listed, of more than MOST_CLASSES in a box that scrolls
WEAKEST = 20  # of more than MOST_ROWS
PAIRS = 8
PAIRS_WITHOUT_MATRIX = 20
MOST_DOTS = 2000  # of a regression: more could not be told apart, and would make a large page
LEAST_DOTS = 6  # classes in the F1 chart: fewer are read from the table as easily

# Counts in metrics.json, which are no scores.
QUERY_COUNTS = ("queries", "queries_without_relevant")
COUNTS = ("samples", *QUERY_COUNTS, "invalid")


@dataclass(frozen=True)
class Number:
    """One score as text, with its 95% confidence interval where there is one, or the reason why there is none."""

    key: str
    name: str
    text: str
    interval: str
    no_interval: str = ""

    @property
    def lower(self) -> bool:
        """Whether lower is better."""
        return not higher_is_better(self.key)


@dataclass(frozen=True)
class ClassRow:
    """The scores of one class or label. `train` is None where the run does not record its training rows."""

    label: str
    train: int | None
    support: int
    f1: float
    precision: float
    recall: float
    ap: float | None = None
    intervals: dict[str, str] = field(default_factory=dict)  # by score; a dash where there is none
    limits: dict[str, tuple[float, float]] = field(default_factory=dict)  # the same as numbers
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class TargetScores:
    """One target, or the joint class. `classes` counts all of them; `rows` may hold only the weakest."""

    key: str
    title: str
    kind: str
    samples: int  # labeled rows; 0 where they are not recorded
    numbers: list[Number]
    classes: int = 0
    unseen: int = 0  # classes without a validation row
    rows: list[ClassRow] = field(default_factory=list)
    matrix: Matrix | None = None
    pairs: list[ConfusedPair] = field(default_factory=list)
    chart: Markup = field(default_factory=Markup)
    dots: int = 0  # in a regression's chart
    query_counts: list[tuple[str, int]] = field(default_factory=list)  # of a ranking: name and count

    @property
    def no_intervals(self) -> list[tuple[str, str]]:
        """The names of the scores without an interval, and the reason, by reason."""
        names: dict[str, list[str]] = {}
        for score in self.numbers:
            if score.no_interval:
                names.setdefault(score.no_interval, []).append(score.name)
        return [(", ".join(named), reason) for reason, named in names.items()]

    @property
    def class_reasons(self) -> str:
        """Why precision, recall or F1 of a class has no interval."""
        return " / ".join(dict.fromkeys(reason for row in self.rows for reason in row.reasons))

    @property
    def has_all_rows(self) -> bool:
        return self.classes <= MOST_ROWS

    @property
    def in_full(self) -> bool:
        return self.classes <= MOST_CLASSES

    @property
    def noun(self) -> str:
        return KINDS[self.kind].noun

    @property
    def nouns(self) -> str:
        return KINDS[self.kind].nouns

    def number(self, key: str) -> Number | None:
        return next((number for number in self.numbers if number.key == key), None)


@dataclass(frozen=True)
class Overview:
    """The targets of one type side by side. `further` are the scores that `main` leaves out."""

    title: str
    main: list[Number]
    further: list[Number]
    targets: list[TargetScores]
    headline: str  # the key of the target that the run is selected by


def all_scores(run: RunFiles) -> list[TargetScores]:
    """The joint class first, where there is one, since the run is selected by it; then the targets in order."""
    scores = []
    joint = mapping(run.metrics.get("joint"))
    if joint:
        train = joint_train_counts(run)
        scores.append(_class_scores(joint, key="joint", title=joint_title(run), kind="class", train=train))
    for name, values in mapping(run.metrics.get("targets")).items():
        scores.append(_target_scores(run, name, mapping(values)))
    return scores


def test_run(run: RunFiles) -> RunFiles:
    """The run with the scores of its test rows in place of the validation rows'; without test rows it has none."""
    return replace(run, metrics=mapping(run.metrics.get("test")), predictions=pl.DataFrame())


def overviews(run: RunFiles, scores: Sequence[TargetScores], best: Best) -> list[Overview]:
    """One table per type, in the order in which the types first occur."""
    tables = []
    for kind in dict.fromkeys(target.kind for target in scores):
        targets = [target for target in scores if target.kind == kind and target.numbers]
        if not targets:
            continue
        columns = {number.key: number for target in targets for number in target.numbers}
        main = [columns[key] for key in _main_keys(run, kind, best, list(columns))]
        # Regressions and rankings show all their scores in the target's own part.
        further = [number for number in columns.values() if number not in main] if KINDS[kind].noun else []
        tables.append(
            Overview(
                KINDS[kind].heading,
                main=main,
                further=further,
                targets=targets,
                headline=target_of(run, best.metric),
            )
        )
    return tables


def _main_keys(run: RunFiles, kind: str, best: Best, present: list[str]) -> list[str]:
    """The type's main scores that are present, led by the selected one where that is another."""
    keys = [key for key in KINDS[kind].main_scores if key in present]
    target = target_of(run, best.metric)
    is_selected_kind = bool(target) and kind_of(run, target) == kind
    if is_selected_kind and best.key not in keys:
        keys = [best.key, *keys[:2]]
    return [key for key in keys if key in present]


def train_counts(run: RunFiles, target: str) -> dict[str, int]:
    """Training rows per label of one target, as the run recorded them."""
    labels = mapping(mapping(run.status.get("data")).get("labels"))
    rows = map(mapping, listing(labels.get(target)))
    return {str(row.get("label")): count(row.get("train")) for row in rows}


def joint_train_counts(run: RunFiles) -> dict[str, int]:
    """Training rows per joint class, as the run recorded them."""
    joint = mapping(mapping(run.status.get("data")).get("joint"))
    pairs = zip(listing(joint.get("labels")), listing(joint.get("train")), strict=False)
    return {str(label): count(rows) for label, rows in pairs}


def _target_scores(run: RunFiles, name: str, scores: Json) -> TargetScores:
    kind = kind_of(run, name)
    if kind == "regression":
        return _regression_scores(run, name, scores)
    if kind == "ranking":
        return _ranking_scores(name, scores)
    return _class_scores(
        scores,
        key=name,
        title=name,
        kind=kind if kind in KINDS else "class",
        train=train_counts(run, name),
    )


def _numbers(scores: Json, kind: str) -> list[Number]:
    """The scores with a name of ours in their order, then whatever else is a number; last, where there are any, the
    same scores at the class shares of selection.prior, and with the weights of the rows."""
    parts = {suffix: mapping(scores.get(suffix.removeprefix("_"))) for suffix in SUFFIXES}
    if any(parts.values()):
        plain = {key: value for key, value in scores.items() if f"_{key}" not in SUFFIXES}
        return [
            *_numbers(plain, kind),
            *(number for suffix, part in parts.items() for number in _suffixed_numbers(part, suffix, kind)),
        ]

    intervals = mapping(scores.get("intervals"))
    withheld = mapping(scores.get("no_interval"))
    scores = {**scores, **mapping(scores.get("own"))}  # metrics of the user's own
    others = [key for key in scores if key not in NUMBER_NAMES and key not in COUNTS]
    numbers = []
    for key in [*NUMBER_NAMES, *others]:
        value = number(scores.get(key))
        if value is not None:
            interval = ends(intervals.get(key))
            numbers.append(
                Number(
                    key,
                    name=metric_name(key, kind),
                    text=number_text(key, value),
                    interval=interval_text(key, value, interval) if interval else "",
                    no_interval=str(withheld.get(key, "")),
                )
            )
    return numbers


def _suffixed_numbers(scores: Json, suffix: str, kind: str) -> list[Number]:
    """`_numbers` under names that end with a suffix."""
    suffixed: Json = {f"{key}{suffix}": scores.get(key) for key in NUMBER_NAMES if key in scores}
    for part in ("intervals", "no_interval"):
        suffixed[part] = {f"{key}{suffix}": value for key, value in mapping(scores.get(part)).items()}
    return _numbers(suffixed, kind)


def _class_scores(scores: Json, key: str, title: str, kind: str, train: dict[str, int]) -> TargetScores:
    """A class, ordinal or multilabel target. Levels stay in their order; classes and labels are sorted rarest first."""
    rows = [_class_row(mapping(row), train, kind) for row in listing(scores.get("per_class"))]
    labels = [str(label) for label in listing(scores.get("labels"))] or [row.label for row in rows]
    confusion = confusion_from_json(scores.get("confusion"), len(labels))
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
        rows=ordered if len(labels) <= MOST_ROWS else _weakest(rows),
        matrix=confusion_matrix(confusion, labels) if confusion is not None and in_full else None,
        pairs=confused_pairs(confusion, labels, most=PAIRS if in_full else PAIRS_WITHOUT_MATRIX),
        chart=_f1_chart(rows, KINDS[kind].noun),
    )


def _regression_scores(run: RunFiles, name: str, scores: Json) -> TargetScores:
    points_N2 = true_and_predicted(run.predictions, name)
    drawn = points_N2[_evenly_spaced(len(points_N2))].tolist()
    title = f"Predicted against true {name}"
    return TargetScores(
        key=name,
        title=name,
        kind="regression",
        samples=count(scores.get("samples")) or len(points_N2),
        numbers=_numbers(scores, "regression"),
        chart=agreement_chart([(x, y) for x, y in drawn], title=title, name=name),
        dots=len(drawn),
    )


def _ranking_scores(name: str, scores: Json) -> TargetScores:
    return TargetScores(
        key=name,
        title=name,
        kind="ranking",
        samples=count(scores.get("samples")),
        numbers=_numbers(scores, "ranking"),
        query_counts=[(key.replace("_", " "), count(scores[key])) for key in QUERY_COUNTS if key in scores],
    )


def true_and_predicted(table: pl.DataFrame, target: str) -> np.ndarray:
    """(N, 2): the true and the predicted number of every row that has both."""
    columns = [f"{target}_true", target]
    if not set(columns) <= set(table.columns):
        return np.empty((0, 2))
    both = table.select(pl.col(columns).cast(pl.Float64, strict=False))
    return both.filter(pl.all_horizontal(pl.all().is_finite())).to_numpy()


def _evenly_spaced(rows: int) -> list[int]:
    """At most MOST_DOTS row numbers, evenly spaced over all rows: the same ones every time."""
    if rows <= MOST_DOTS:
        return list(range(rows))
    return [int(row) for row in np.linspace(0, rows - 1, MOST_DOTS).round()]


def _class_row(row: Json, train: dict[str, int], kind: str) -> ClassRow:
    label = str(row.get("label"))
    withheld = mapping(row.get("no_interval"))
    found = {key: ends(value) for key, value in mapping(row.get("intervals")).items()}
    limits = {key: interval for key, interval in found.items() if interval}
    intervals = dict.fromkeys(withheld, NO_INTERVAL)
    intervals |= {key: short_interval(interval) for key, interval in limits.items()}
    return ClassRow(
        label,
        train=train.get(label),
        support=count(row.get("support")),
        f1=number(row.get("f1")) or 0.0,
        precision=number(row.get("precision")) or 0.0,
        recall=number(row.get("recall")) or 0.0,
        ap=number(row.get("ap")) if kind == "multilabel" else None,
        intervals=intervals,
        limits=limits,
        reasons=tuple(map(str, withheld.values())),
    )


def _rarest_first(rows: list[ClassRow]) -> list[ClassRow]:
    return sorted(rows, key=lambda row: row.support if row.train is None else row.train)


def _weakest(rows: list[ClassRow]) -> list[ClassRow]:
    """Classes without validation rows come last: their F1 of 0 says nothing."""
    return sorted(rows, key=lambda row: (row.support == 0, row.f1, row.support))[:WEAKEST]


def _f1_chart(rows: list[ClassRow], noun: str) -> Markup:
    """F1 against training rows, of the classes that have validation rows and recorded training rows."""
    dots = [
        Dot(row.label, x=max(row.train, 1), y=row.f1) for row in rows if row.train is not None and row.support
    ]
    if len(dots) < LEAST_DOTS:
        return Markup("")
    return scatter_chart(dots, f"F1 of each {noun} against its training rows", "training rows (logarithmic)")
