"""The validation rows that the model got most wrong, as images.

They are the first thing to look at: either the model misses something that a person sees at once, or the label is
wrong. Found per target, so that the target with the most mistakes does not fill the page alone.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl

from classwise.report.names import short_number
from classwise.report.read import RunFiles, kind_of, listing, mapping
from classwise.report.thumbnails import Thumbnail, thumbnails

TILES = 24  # on the whole page


@dataclass(frozen=True)
class Line:
    """One line under an image: what it says (`term`, for a screen reader), the sign before it, and the text."""

    term: str
    text: str
    sign: str = ""
    note: str = ""
    wrong: bool = False


@dataclass(frozen=True)
class Tile:
    """One wrong row: the image, and what it is and was taken for."""

    id: str
    lines: list[Line]
    image: Thumbnail


@dataclass(frozen=True)
class Gallery:
    """The worst mistakes of one target. `lead` says how many there are and which are shown."""

    target: str
    lead: str
    tiles: list[Tile]


Mistakes = tuple[str, list[tuple[str, list[Line]]]]  # the lead, and by row its id and lines


def galleries(run: RunFiles) -> list[Gallery]:
    """One gallery a target that has predictions with known answers, in the config's order. A ranking has none:
    a single image's score is neither right nor wrong."""
    names = mapping(run.config.get("targets")) or mapping(run.metrics.get("targets"))
    columns = set(run.predictions.columns)
    targets = [
        name for name in names if {"id", name, f"{name}_true"} <= columns and kind_of(run, name) in WORST
    ]
    if not targets:
        return []
    most = TILES // min(len(targets), TILES)
    worst = {name: WORST[kind_of(run, name)](run, name, most) for name in targets}
    images = thumbnails(run, {id_ for _, rows in worst.values() for id_, _ in rows})
    return [
        Gallery(name, lead, [Tile(id_, lines, images[id_]) for id_, lines in rows])
        for name, (lead, rows) in worst.items()
    ]


def _classes(run: RunFiles, target: str, most: int) -> Mistakes:
    """The surest of the wrong rows. Those without a probability come last; equal ones keep the file's order."""
    known, wrong = _known_and_wrong(run, target)
    probability = _probability_of_prediction(wrong, target)
    order = np.argsort(-np.nan_to_num(probability, nan=-1.0), kind="stable")[:most]
    lead = _lead(wrong.height, known, "are wrong", len(order), "most confident")
    return lead, _class_tiles(wrong, target, probability, order)


def _levels(run: RunFiles, target: str, most: int) -> Mistakes:
    """The rows furthest off in levels; of those equally far, the surest first."""
    known, wrong = _known_and_wrong(run, target)
    probability = _probability_of_prediction(wrong, target)
    scores, config = (mapping(mapping(part.get("targets")).get(target)) for part in (run.metrics, run.config))
    place = {str(label): k for k, label in enumerate(listing(scores.get("labels") or config.get("labels")))}
    pairs = wrong.select(f"{target}_true", target).rows()
    distance = np.array(
        [abs(place[a] - place[b]) if {a, b} <= place.keys() else 0 for a, b in pairs], dtype=int
    )
    order = np.lexsort((-np.nan_to_num(probability, nan=-1.0), -distance))[:most]
    lead = _lead(wrong.height, known, "are wrong", len(order), "furthest off")
    return lead, _class_tiles(wrong, target, probability, order)


def _numbers(run: RunFiles, target: str, most: int) -> Mistakes:
    """The largest errors, either way, in the target's own unit."""
    columns = [f"{target}_true", target]
    table = run.predictions.select("id", pl.col(columns).cast(pl.Float64, strict=False))
    table = table.filter(pl.all_horizontal(pl.col(columns).is_finite()))
    errors = (table[target] - table[f"{target}_true"]).to_numpy()
    order = np.argsort(-np.abs(errors), kind="stable")[:most].tolist()
    found = []
    for (id_, truth, predicted), error in zip(table[order].rows(), errors[order].tolist(), strict=True):
        note = f"{'−' if error < 0 else '+'}{short_number(abs(error))}"
        answer = Line("predicted", short_number(predicted), "→", note, wrong=True)
        found.append((str(id_), [Line("true", short_number(truth)), answer]))
    return f"The {len(order)} largest errors among {table.height:,} rows.", found


def _label_sets(run: RunFiles, target: str, most: int) -> Mistakes:
    """The rows with the most wrong labels: those missed, and those that are not there."""
    separator = str(mapping(mapping(run.config.get("targets")).get(target)).get("separator") or "|")
    table = run.predictions.select("id", f"{target}_true", target).drop_nulls()
    found = []
    for id_, *cells in table.iter_rows():
        truth, predicted = ([label for label in cell.split(separator) if label] for cell in cells)
        missed = [label for label in truth if label not in predicted]
        false = [label for label in predicted if label not in truth]
        if missed or false:
            lines = [
                Line("missed", ", ".join(missed), "−"),
                Line("not there", ", ".join(false), "+", wrong=True),
            ]
            found.append((len(missed) + len(false), str(id_), [line for line in lines if line.text]))
    shown = sorted(found, key=lambda row: -row[0])[:most]
    lead = _lead(len(found), table.height, "have a wrong label", len(shown), "with the most")
    return f"{lead} − is a label that was missed, + one that is not there.", [row[1:] for row in shown]


WORST: dict[str, Callable[[RunFiles, str, int], Mistakes]] = {
    "class": _classes,
    "ordinal": _levels,
    "regression": _numbers,
    "multilabel": _label_sets,
}


def _lead(wrong: int, rows: int, verb: str, shown: int, which: str) -> str:
    """`12 of 99 rows are wrong; the 8 most confident.`"""
    return f"{wrong:,} of {rows:,} rows {verb}{f'; the {shown} {which}' if shown < wrong else ''}."


def _known_and_wrong(run: RunFiles, target: str) -> tuple[int, pl.DataFrame]:
    """How many rows have a known label, and those of them that are wrong."""
    known = run.predictions.filter(pl.col(f"{target}_true").is_not_null())
    return known.height, known.filter(pl.col(target) != pl.col(f"{target}_true"))


def _class_tiles(
    wrong: pl.DataFrame, target: str, probability: np.ndarray, order: np.ndarray
) -> list[tuple[str, list[Line]]]:
    rows = wrong.select("id", f"{target}_true", target)[order.tolist()].rows() if wrong.height else []
    found = []
    for (id_, truth, predicted), p in zip(rows, probability[order].tolist(), strict=True):
        note = "" if np.isnan(p) else f"{p:.0%}"
        answer = Line("predicted", str(predicted), "→", note, wrong=True)
        found.append((str(id_), [Line("true", str(truth)), answer]))
    return found


def _probability_of_prediction(table: pl.DataFrame, target: str) -> np.ndarray:
    """Each row's probability of the label that was predicted; NaN where it is not in the table."""
    predicted = table[target].to_numpy()
    probability = np.full(table.height, np.nan)
    for label in sorted(set(predicted.tolist())):
        column = f"{target}_p_{label}"
        if column in table.columns:
            values = table[column].cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy()
            here = predicted == label
            probability[here] = values[here]
    return probability
