"""The validation rows with the worst predictions, as images.

They are the first thing to look at: either the model misses something that a person sees at once, or the label is
wrong. Each target has a gallery of its own, since otherwise the target with the most mistakes would fill the page.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from classwise.report.names import short_number
from classwise.report.read import RunFiles, kind_of, listing, mapping
from classwise.report.thumbnails import Thumbnail, thumbnails

TILES = 24  # on the whole page


@dataclass(frozen=True)
class Line:
    """One line under an image. `term` says to a screen reader what the line is; `sign` is shown in its place."""

    term: str
    text: str
    sign: str = ""
    note: str = ""
    wrong: bool = False


@dataclass(frozen=True)
class Tile:
    """One mistaken row: its image, and its true and predicted labels."""

    id: str
    lines: list[Line]
    image: Thumbnail


@dataclass(frozen=True)
class Gallery:
    """The worst mistakes of one target. `lead` says how many there are and which of them are shown."""

    target: str
    lead: str
    tiles: list[Tile]


@dataclass(frozen=True)
class Mistakes:
    """A gallery before its images are read: for each row its id and its lines."""

    lead: str
    rows: list[tuple[str, list[Line]]]


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
    most = TILES // min(len(targets), TILES)
    worst = {name: WORST[kind_of(run, name)](run, name, most) for name in targets}
    images = thumbnails(run, {id_ for mistakes in worst.values() for id_, _ in mistakes.rows})
    return [
        Gallery(
            name,
            lead=mistakes.lead,
            tiles=[Tile(id_, lines=lines, image=images[id_]) for id_, lines in mistakes.rows],
        )
        for name, mistakes in worst.items()
    ]


def _worst_classes(run: RunFiles, target: str, most: int) -> Mistakes:
    """The most confident mistakes. Those without a probability come last; ties keep the file's order."""
    labeled, wrong = _labeled_and_wrong(run, target)
    probability_N = probability_of_prediction(wrong, target)
    order = np.argsort(-np.nan_to_num(probability_N, nan=-1.0), kind="stable")[:most].tolist()
    lead = _lead(wrong.height, rows=labeled, shown=len(order), which="most confident ones")
    return Mistakes(lead, _class_rows(wrong, target=target, probability_N=probability_N, order=order))


def _worst_levels(run: RunFiles, target: str, most: int) -> Mistakes:
    """The rows that are furthest off in levels; of equally distant ones the most confident first."""
    labeled, wrong = _labeled_and_wrong(run, target)
    probability_N = probability_of_prediction(wrong, target)

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
    order = np.lexsort((-np.nan_to_num(probability_N, nan=-1.0), -distance_N))[:most].tolist()
    lead = _lead(wrong.height, rows=labeled, shown=len(order), which="that are furthest off")
    return Mistakes(lead, _class_rows(wrong, target=target, probability_N=probability_N, order=order))


def _worst_numbers(run: RunFiles, target: str, most: int) -> Mistakes:
    """The largest errors in either direction, in the target's own unit."""
    columns = [f"{target}_true", target]
    table = run.predictions.select("id", pl.col(columns).cast(pl.Float64, strict=False))
    table = table.filter(pl.all_horizontal(pl.col(columns).is_finite()))
    errors_N = (table[target] - table[f"{target}_true"]).to_numpy()
    order = np.argsort(-np.abs(errors_N), kind="stable")[:most].tolist()
    rows = []
    for (id_, truth, predicted), error in zip(table[order].rows(), errors_N[order].tolist(), strict=True):
        note = f"{'−' if error < 0 else '+'}{short_number(abs(error))}"
        prediction = Line("predicted", short_number(predicted), sign="→", note=note, wrong=True)
        rows.append((str(id_), [Line("true", short_number(truth)), prediction]))
    return Mistakes(f"The {len(order)} largest errors among {table.height:,} rows.", rows)


def _worst_label_sets(run: RunFiles, target: str, most: int) -> Mistakes:
    """The rows with the most wrong labels: missed ones and false ones."""
    separator = str(mapping(mapping(run.config.get("targets")).get(target)).get("separator") or "|")
    table = run.predictions.select("id", f"{target}_true", target).drop_nulls()
    mistakes = []
    for id_, truth_cell, predicted_cell in table.iter_rows():
        truth = [label for label in truth_cell.split(separator) if label]
        predicted = [label for label in predicted_cell.split(separator) if label]
        missed = [label for label in truth if label not in predicted]
        false = [label for label in predicted if label not in truth]
        if missed or false:
            lines = [
                Line("missed", ", ".join(missed), sign="−"),
                Line("false", ", ".join(false), sign="+", wrong=True),
            ]
            lines = [line for line in lines if line.text]
            mistakes.append((len(missed) + len(false), str(id_), lines))
    worst = sorted(mistakes, key=lambda mistake: -mistake[0])[:most]
    which = "with the most wrong labels"
    lead = _lead(len(mistakes), rows=table.height, shown=len(worst), which=which, are="have wrong labels")
    return Mistakes(
        f"{lead} − marks a missed label, + a false one.", [(id_, lines) for _, id_, lines in worst]
    )


WORST: dict[str, Callable[[RunFiles, str, int], Mistakes]] = {
    "class": _worst_classes,
    "ordinal": _worst_levels,
    "regression": _worst_numbers,
    "multilabel": _worst_label_sets,
}


def _lead(mistakes: int, rows: int, shown: int, which: str, are: str = "are wrong") -> str:
    """`12 of 99 predictions are wrong; shown are the 8 most confident ones.`"""
    selection = f"; shown are the {shown} {which}" if shown < mistakes else ""
    return f"{mistakes:,} of {rows:,} predictions {are}{selection}."


def _labeled_and_wrong(run: RunFiles, target: str) -> tuple[int, pl.DataFrame]:
    """The number of labeled rows, and those of them with a wrong prediction."""
    labeled = run.predictions.filter(pl.col(f"{target}_true").is_not_null())
    return labeled.height, labeled.filter(pl.col(target) != pl.col(f"{target}_true"))


def _class_rows(
    wrong: pl.DataFrame, target: str, probability_N: np.ndarray, order: Sequence[int]
) -> list[tuple[str, list[Line]]]:
    """The rows `order` of `wrong`: true label, and predicted label with its probability."""
    table = wrong.select("id", f"{target}_true", target)[list(order)].rows() if wrong.height else []
    rows = []
    for (id_, truth, predicted), probability in zip(table, probability_N[order].tolist(), strict=True):
        note = "" if np.isnan(probability) else f"{probability:.0%}"
        prediction = Line("predicted", str(predicted), sign="→", note=note, wrong=True)
        rows.append((str(id_), [Line("true", str(truth)), prediction]))
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
