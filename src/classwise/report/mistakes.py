"""The validation rows with the worst predictions, as images, by class and the rarest class first.

They are the first thing to look at: either the model misses something that a person sees at once, or the label is
wrong. Each target has a gallery of its own, since otherwise the target with the most mistakes would fill the page; and
within a gallery each class has its part, since otherwise the mistakes of the common classes would.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from classwise.report.names import short_number
from classwise.report.read import RunFiles, kind_of, listing, mapping
from classwise.report.scores import train_counts
from classwise.report.thumbnails import file_names, row_paths, thumbnails
from classwise.report.tiles import Group, Line, Tile

TILES = 72  # on the whole page
MOST_OF_CLASS = 8
LEAST_OF_CLASS = 2  # also where there are many classes: then the common ones have none
MOST_NUMBERS = 16  # of a regression, which has no classes


@dataclass(frozen=True)
class Gallery:
    """The worst mistakes of one target. `lead` says how many there are and which of them are shown."""

    target: str
    lead: str
    groups: list[Group]


@dataclass(frozen=True)
class Row:
    """A mistake before its image is read. `label`: the class that it is shown under."""

    id: str
    label: str
    lines: list[Line]


@dataclass(frozen=True)
class Mistakes:
    """A gallery before its images are read. `groups`: the title, the note and the rows of each."""

    lead: str
    groups: list[tuple[str, str, list[Row]]]


def galleries(run: RunFiles) -> list[Gallery]:
    """One gallery for each target with predictions of labeled rows, in the config's order.

    A ranking has none: the score of a single image is neither right nor wrong."""
    names = mapping(run.config.get("targets")) or mapping(run.metrics.get("targets"))
    columns = set(run.predictions.columns)
    targets = [
        name for name in names if {"id", name, f"{name}_true"} <= columns and kind_of(run, name) in WORST
    ]
    if not targets:
        return []

    # An image that is in several galleries is read once.
    most = max(1, TILES // len(targets))
    worst = {name: WORST[kind_of(run, name)](run, name, most) for name in targets}
    rows_shown = [row for mistakes in worst.values() for _, _, rows in mistakes.groups for row in rows]
    ids = list(dict.fromkeys(row.id for row in rows_shown))
    images = thumbnails(run, ids)
    files = file_names({id_: id_ for id_ in ids} | row_paths(run.split, ids))

    def tile(row: Row) -> Tile:
        return Tile(row.id, file=files[row.id], lines=row.lines, image=images[row.id])

    return [
        Gallery(
            name,
            lead=mistakes.lead,
            groups=[Group(title, note, list(map(tile, rows))) for title, note, rows in mistakes.groups],
        )
        for name, mistakes in worst.items()
    ]


def _worst_classes(run: RunFiles, target: str, most: int) -> Mistakes:
    """Of each class the most confident mistakes. Those without a probability come last; ties keep the file's order."""
    labeled, wrong, probability_N = _labeled_and_wrong(run, target)
    order = np.argsort(-np.nan_to_num(probability_N, nan=-1.0), kind="stable").tolist()
    rows = _class_rows(wrong[order], target, probability_N[order].tolist())
    rows_of_class = _label_counts(labeled[f"{target}_true"].to_list())
    which = "most confident ones"
    return _by_class(rows, rows_of_class, _train_rows(run, target), most, noun="class", which=which)


def _worst_levels(run: RunFiles, target: str, most: int) -> Mistakes:
    """Of each level the rows that are furthest off; of equally distant ones the most confident first."""
    labeled, wrong, probability_N = _labeled_and_wrong(run, target)

    # The distance is 0 where the files do not say where a level is.
    scores = mapping(mapping(run.metrics.get("targets")).get(target))
    config = mapping(mapping(run.config.get("targets")).get(target))
    levels = listing(scores.get("labels") or config.get("labels"))
    position = {str(label): k for k, label in enumerate(levels)}
    distance_N = np.array(
        [
            abs(position[truth] - position[predicted]) if {truth, predicted} <= position.keys() else 0
            for truth, predicted in wrong.select(f"{target}_true", target).rows()
        ],
        dtype=int,
    )
    order = np.lexsort((-np.nan_to_num(probability_N, nan=-1.0), -distance_N)).tolist()
    rows = _class_rows(wrong[order], target, probability_N[order].tolist())
    rows_of_class = _label_counts(labeled[f"{target}_true"].to_list())
    which = "ones that are furthest off"
    return _by_class(rows, rows_of_class, _train_rows(run, target), most, noun="level", which=which)


def _worst_numbers(run: RunFiles, target: str, most: int) -> Mistakes:
    """The largest errors in either direction, in the target's own unit."""
    columns = [f"{target}_true", target]
    table = run.predictions.select("id", pl.col(columns).cast(pl.Float64, strict=False))
    table = table.filter(pl.all_horizontal(pl.col(columns).is_finite()))
    errors_N = (table[target] - table[f"{target}_true"]).to_numpy()
    order = np.argsort(-np.abs(errors_N), kind="stable")[: min(most, MOST_NUMBERS)].tolist()
    rows = []
    for (id_, truth, predicted), error in zip(table[order].rows(), errors_N[order].tolist(), strict=True):
        note = f"{'−' if error < 0 else '+'}{short_number(abs(error))}"
        prediction = Line("predicted", short_number(predicted), sign="→", note=note, wrong=True)
        rows.append(Row(str(id_), label="", lines=[Line("true", short_number(truth)), prediction]))
    lead = f"The {len(order)} largest errors among {table.height:,} rows."
    return Mistakes(lead, [("", "", rows)] if rows else [])


def _worst_label_sets(run: RunFiles, target: str, most: int) -> Mistakes:
    """The rows with the most wrong labels, missed ones and false ones, each under the rarest of these."""
    separator = str(mapping(mapping(run.config.get("targets")).get(target)).get("separator") or "|")
    table = run.predictions.select("id", f"{target}_true", target).drop_nulls()
    sets = [
        (str(id_), _labels_in(truth_cell, separator), _labels_in(predicted_cell, separator))
        for id_, truth_cell, predicted_cell in table.iter_rows()
    ]
    rows_of_label = _label_counts(label for _, truth, _ in sets for label in truth)
    train = _train_rows(run, target)
    mistakes = []
    for id_, truth, predicted in sets:
        missed = [label for label in truth if label not in predicted]
        false = [label for label in predicted if label not in truth]
        if missed or false:
            rarest = min([*missed, *false], key=lambda label: (_rarity(label, rows_of_label, train), label))
            lines = [
                Line("missed", ", ".join(missed), sign="−"),
                Line("false", ", ".join(false), sign="+", wrong=True),
            ]
            row = Row(id_, label=rarest, lines=[line for line in lines if line.text])
            mistakes.append((len(missed) + len(false), row))
    rows = [row for _, row in sorted(mistakes, key=lambda mistake: -mistake[0])]
    which = "ones with the most wrong labels"
    found = _by_class(rows, rows_of_label, train, most, noun="label", which=which, labeled=len(sets))
    signs = "Each is under its rarest wrong label; − marks a missed label, + a false one."
    return Mistakes(f"{found.lead} {signs}", found.groups)


WORST: dict[str, Callable[[RunFiles, str, int], Mistakes]] = {
    "class": _worst_classes,
    "ordinal": _worst_levels,
    "regression": _worst_numbers,
    "multilabel": _worst_label_sets,
}


def _by_class(
    rows: list[Row],
    rows_of_class: Mapping[str, int],
    train: Mapping[str, int],
    most: int,
    noun: str,
    which: str,
    labeled: int | None = None,
) -> Mistakes:
    """The rows, the worst first, by class, and the rarest class first: by its training rows, where they are known.

    At most `most` in all, of each class as many as leave room for the others. `labeled`: rows that are labeled, where
    these are not the sum of `rows_of_class`."""
    by_class: dict[str, list[Row]] = {}
    for row in rows:
        by_class.setdefault(row.label, []).append(row)
    ordered = sorted(by_class, key=lambda label: (_rarity(label, rows_of_class, train), label))
    of_each = min(MOST_OF_CLASS, max(LEAST_OF_CLASS, most // max(1, len(ordered))))
    groups = []
    for label in ordered:
        shown = by_class[label][: min(of_each, most)]
        most -= len(shown)
        if shown:
            note = _group_note(by_class[label], rows_of_class, train, label, is_set=labeled is not None)
            groups.append((label, note, shown))
    total = sum(rows_of_class.values()) if labeled is None else labeled
    lead = f"{len(rows):,} of {total:,} predictions are wrong."
    if sum(len(shown) for *_, shown in groups) < len(rows):
        nouns = {"class": "classes"}.get(noun, f"{noun}s")
        of = (
            f"each {noun}"
            if len(groups) == len(ordered)
            else f"each of the {len(groups)} rarest {nouns} with any"
        )
        lead = f"{lead[:-1]}; shown are the {which} of {of}."
    return Mistakes(lead, groups)


def _group_note(
    wrong: list[Row], rows_of_class: Mapping[str, int], train: Mapping[str, int], label: str, is_set: bool
) -> str:
    """`3 of 12 wrong; 30 training rows`."""
    trained = f"; {train[label]:,} training rows" if label in train else ""
    if is_set:
        return f"{len(wrong):,} wrong; {rows_of_class.get(label, 0):,} rows have it{trained}"
    return f"{len(wrong):,} of {rows_of_class.get(label, 0):,} wrong{trained}"


def _rarity(label: str, rows_of_class: Mapping[str, int], train: Mapping[str, int]) -> int:
    return train.get(label, rows_of_class.get(label, 0))


def _labels_in(cell: str, separator: str) -> list[str]:
    return [label for label in cell.split(separator) if label]


def _label_counts(labels: Iterable[str]) -> Counter[str]:
    return Counter(map(str, labels))


def _train_rows(run: RunFiles, target: str) -> dict[str, int]:
    """Training rows by label; empty for folds, whose rows all train in turn."""
    return {} if run.is_folds else train_counts(run, target)


def _labeled_and_wrong(run: RunFiles, target: str) -> tuple[pl.DataFrame, pl.DataFrame, np.ndarray]:
    """The labeled rows, those of them with a wrong prediction, and the probability of each of the latter."""
    labeled = run.predictions.filter(pl.col(f"{target}_true").is_not_null())
    wrong = labeled.filter(pl.col(target) != pl.col(f"{target}_true"))
    return labeled, wrong, probability_of_prediction(wrong, target)


def _class_rows(wrong: pl.DataFrame, target: str, probabilities: list[float]) -> list[Row]:
    """The rows of `wrong`: true label, and predicted label with its probability."""
    table = wrong.select("id", f"{target}_true", target).rows()
    rows = []
    for (id_, truth, predicted), probability in zip(table, probabilities, strict=True):
        note = "" if np.isnan(probability) else f"{probability:.0%}"
        prediction = Line("predicted", str(predicted), sign="→", note=note, wrong=True)
        rows.append(Row(str(id_), label=str(truth), lines=[Line("true", str(truth)), prediction]))
    return rows


def probability_of_prediction(table: pl.DataFrame, target: str) -> np.ndarray:
    """(N,): each row's probability of its predicted label; NaN where the table has no column for it."""
    if f"{target}_p" in table.columns:  # of many classes
        return table[f"{target}_p"].cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy()
    predicted_N = table[target].to_numpy()
    probability_N = np.full(table.height, np.nan)
    for label in sorted(set(predicted_N.tolist())):
        column = f"{target}_p_{label}"
        if column in table.columns:
            values_N = table[column].cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy()
            is_label_N = predicted_N == label
            probability_N[is_label_N] = values_N[is_label_N]
    return probability_N
