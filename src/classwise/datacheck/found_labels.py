"""From out-of-fold probabilities to findings: labels that are likely wrong, ranked, and the pairs of classes
concerned."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from classwise.data.targets import Target
from classwise.datacheck.finding import INFO, WARNING, Finding
from classwise.datacheck.label_errors import (
    LabelRanking,
    error_pairs,
    merge_rankings,
    rank_classes,
    rank_flags,
    rank_levels,
    rare_class_warning,
)
from classwise.datacheck.rows import Rows

MOST_LISTED = 1_000
"""Entries of the ranking that are listed: twice as many as are expected to be wrong, and no more than these."""
LEAST_WRONG = 0.02
"""The probability of an error below which an entry is not listed, wherever it ranks."""
LIKELY = 0.5
"""The probability from which on an entry is a warning, and another label is proposed."""
PAIRS = 8


@dataclass(frozen=True)
class LabelError:
    """An entry of the ranking: the row, its target, the label that it has (of several labels, whether it has `label`)
    and what it is more likely."""

    row: int
    target: str
    label: str
    given: str
    proposed: str
    score: float
    wrong: float


@dataclass(frozen=True)
class LabelErrors:
    """All that is ranked, of which `listed` are shown, and lines about the ranking as a whole."""

    listed: tuple[LabelError, ...]
    lines: tuple[str, ...]


def rank_labels(rows: Rows, probabilities: Mapping[str, npt.NDArray[np.float64]]) -> LabelErrors:
    """Rank the labels of all targets that have `probabilities` (N, K), NaN for rows without any."""
    rankings = {
        target.name: _ranking(rows, target, probabilities[target.name])
        for target in rows.targets
        if target.name in probabilities
    }
    every = merge_rankings(list(rankings.values()))
    expected = every.expected_errors(len(every.rows))
    # The probability need not fall along the ranking, so what is listed ends where it has fallen for good.
    possible = int(np.flatnonzero(every.wrong >= LEAST_WRONG).max(initial=-1)) + 1
    count = min(possible, MOST_LISTED, math.ceil(2 * expected))
    targets = {target.name: target for target in rows.targets}
    labels = _label_of(rows)
    listed = []
    for place in range(count):
        target, label = labels[str(every.targets[place])]
        given, proposed = (
            _text(targets[target], label, int(numbers[place])) for numbers in (every.given, every.proposed)
        )
        listed.append(
            LabelError(
                row=int(every.rows[place]),
                target=target,
                label=label,
                given=given,
                proposed=proposed,
                score=float(every.score[place]),
                wrong=float(every.wrong[place]),
            )
        )
    return LabelErrors(tuple(listed), tuple(_lines(rows, rankings, every, count)))


def _ranking(rows: Rows, target: Target, probabilities_NK: npt.NDArray[np.float64]) -> LabelRanking:
    """The ranking of one target, whose name, or that of its labels, is `targets` of the entries."""
    encoded = [part.labels.get(target.name) for part in rows.parts]
    if target.type == "multilabel":
        unknown = [np.full((len(part.samples), len(target.labels)), np.nan) for part in rows.parts]
        flags = np.concatenate([u if e is None else e for e, u in zip(encoded, unknown, strict=True)])
        flags_NL = np.where(np.isnan(flags), -1, flags).astype(np.int64)
        return rank_flags(probabilities_NK, flags_NL, [f"{target.name}\0{label}" for label in target.labels])
    missing = [np.full(len(part.samples), -1) for part in rows.parts]
    label_N = np.concatenate([m if e is None else e for e, m in zip(encoded, missing, strict=True)])
    rank = rank_levels if target.type == "ordinal" else rank_classes
    return rank(probabilities_NK, label_N.astype(np.int64), target.name)


def _label_of(rows: Rows) -> dict[str, tuple[str, str]]:
    """The target and, of several labels, the label that a name in a ranking stands for."""
    found = {target.name: (target.name, "") for target in rows.targets}
    for target in rows.targets:
        if target.type == "multilabel":
            found |= {f"{target.name}\0{label}": (target.name, label) for label in target.labels}
    return found


def _text(target: Target, label: str, number: int) -> str:
    if label:
        return f"with {label!r}" if number else f"without {label!r}"
    return target.labels[number]


def _lines(rows: Rows, rankings: Mapping[str, LabelRanking], every: LabelRanking, count: int) -> list[str]:
    """How many of the listed labels are expected to be wrong, and the pairs of classes with most of them."""
    if not len(every.rows):
        return ["labels: none has a probability out of fold"]
    if not count:
        return [f"labels: none of {len(every.rows)} is likely wrong, by the probabilities out of fold"]
    expected = every.expected_errors(count)
    lines = [
        f"labels: the {count} likeliest errors of"
        f" {len(every.rows)} labels; about {expected:.1f} of them are expected to"
        " be wrong, which is an estimate from the same probabilities"
    ]
    labels = _label_of(rows)
    targets = {target.name: target for target in rows.targets}
    for name, ranking in rankings.items():
        for pair in error_pairs(ranking)[:PAIRS]:
            target, label = labels[pair.target]
            given, true = (_text(targets[target], label, number) for number in (pair.given, pair.true))
            lines.append(f"labels of {name}: {given} that should be {true}: about {pair.expected:.1f} rows")
    return lines


def label_findings(rows: Rows, errors: LabelErrors) -> list[Finding]:
    """A finding for each listed label, with what is said of rare classes."""
    return [
        _finding(rows, error, place, counts_of(rows, error.target))
        for place, error in enumerate(errors.listed, start=1)
    ]


def counts_of(rows: Rows, target: str) -> Counter[str]:
    """How many rows have each label of a target."""
    return Counter(text for text in rows.texts[target] if text is not None)


def _finding(rows: Rows, error: LabelError, place: int, counts: Mapping[str, int]) -> Finding:
    rare = None if error.label else rare_class_warning(error.given, counts[error.given])
    advice = (
        f"number {place} of the ranking: {error.target} is {error.given!r}, and may be {error.proposed!r}. By a model"
        f" that has not seen the row, the label is wrong with a probability of about {error.wrong:.2f}. Look at it"
        " before you change it"
    )
    return Finding(
        kind="label-error",
        severity=WARNING if error.wrong >= LIKELY else INFO,
        id=rows.ids[error.row],
        partner="",
        value=round(error.score, 6),
        advice=f"{advice}. {rare}" if rare else advice,
        details={
            "target": error.target,
            "given": error.given,
            "proposed": error.proposed,
            "probability_wrong": round(error.wrong, 4),
            "rank": place,
            "parts": {rows.part_of[error.row]: 1},
        },
    )
