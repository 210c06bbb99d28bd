"""What a submission template asks for in each of its columns: a label, its number, a probability or a rank.

One column takes the label of a target or, where its values are no labels but fractions, the probability of the
positive one of two classes. Several columns that are named as the labels take the probability of each.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from classwise.errors import OutputError, nearest
from classwise.infer.submission import NumberRange, Possible, Template, is_number
from classwise.model.heads import Head

KINDS = ("auto", "label", "index", "probability", "rank")
"""What --answer may be; `auto`: what the template's columns and values show."""

POSITIVE_WORDS = ("1", "yes", "true", "positive", "pos", "present")
"""Of two labels the one whose probability is meant, if one of them is such a word."""

PROBABILITY_WORDS = (
    "p",
    "prob",
    "probs",
    "proba",
    "probability",
    "probabilities",
    "confidence",
    "likelihood",
)
"""Words in the name of a column that asks for a probability."""

LABELED = ("class", "ordinal", "multilabel")
CLIP_LIMIT = 0.5  # probabilities are clipped to [eps, 1 - eps]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Answer:
    """What is written into a `column` of the template. `label`: whose probability or rank it is, empty for that of a
    number."""

    column: str
    target: str
    kind: str
    label: str = ""

    @property
    def key(self) -> str:
        """The column of the answers' table that holds it: the target's own for its label."""
        is_own = self.kind == "label" and not self.label
        return self.target if is_own else "\0".join((self.target, self.kind, self.label))

    def __str__(self) -> str:
        if self.kind == "label" and not self.label:
            return f"column {self.column!r}: the label of {self.target!r}"
        what = {
            "label": f"1 where the prediction is {self.label!r}, else 0",
            "index": f"the number of the label of {self.target!r}, from 0",
            "probability": f"the probability of {self.label!r}",
            "rank": f"the rank of {self.label or self.target!r} among all rows, 1 for the lowest",
        }[self.kind]
        return f"column {self.column!r}: {what}"


@dataclass(frozen=True)
class Question:
    """What a template can ask a run: its heads by target, their label lists, whether there is a joint class, and what
    separates the labels of a set in predictions (default: |)."""

    heads: Mapping[str, Head]
    labels: Mapping[str, Sequence[str]]
    joint: bool
    separators: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """What a column can be named as to take a label."""
        return [*self.heads, *(["joint"] if self.joint else [])]


def choose_answers(
    path: Path,
    frame: pl.DataFrame,
    id: str,
    question: Question,
    kind: str = "auto",
    positive: str | None = None,
) -> list[Answer]:
    """An answer for every column of the template but the `id`. `kind`: see KINDS. `positive`: the label whose
    probability or rank a single column takes. Raises OutputError where it is not clear what belongs into a column."""
    if kind not in KINDS:
        raise OutputError(f"--answer: found {kind!r}, allowed: {', '.join(KINDS)}")
    columns = [column for column in frame.columns if column != id]
    if not columns:
        raise OutputError(f"{path}: no column for the answer beside {id!r}")
    kept = _kept_as_they_are(frame, columns, question)
    columns = [column for column in columns if column not in kept]

    # Columns that are named as labels, of which every label has one.
    unnamed = [column for column in columns if column not in question.names]
    by_label = _columns_of_labels(path, unnamed, question)
    if by_label:
        return [
            _answer_of_label(path, column, *by_label[column], kind)
            if column in by_label
            else _single(path, frame, column, column, question, kind, positive)
            for column in columns
        ]

    # A single column may have any name, as long as it is clear what belongs there.
    if len(columns) == 1:
        target = columns[0] if columns[0] in question.names else _only(path, columns[0], question)
        return [_single(path, frame, columns[0], target, question, kind, positive)]
    for column in unnamed:
        raise OutputError(
            f"{path}: column {column!r} is no target of the run; {nearest(column, question.names)}. A column that is"
            " not asked for can be taken out of the template"
        )
    return [_single(path, frame, column, column, question, kind, positive) for column in columns]


def _kept_as_they_are(frame: pl.DataFrame, columns: Sequence[str], question: Question) -> list[str]:
    """Columns beside those of the targets that hold something already, such as Usage: words in every row, which are no
    answer. Columns of numbers may ask for one."""
    if not any(column in question.names for column in columns):
        return []
    labels = {label for labels in question.labels.values() for label in labels}
    known = _names_of_labels(question)
    return [
        column
        for column in columns
        if column not in question.names
        and _normal(column) not in known
        and all(
            cell and cell.strip() and not is_number(cell) and cell not in labels
            for cell in frame[column].to_list()
        )
    ]


def kept_columns_text(frame: pl.DataFrame, id: str, answers: Sequence[Answer]) -> str:
    """`column 'Usage' is kept as it is`, of columns without an answer; empty if there are none."""
    filled = {id, *(answer.column for answer in answers)}
    kept = [column for column in frame.columns if column not in filled]
    listed = ", ".join(map(repr, kept))
    return f"column{'s' * (len(kept) > 1)} {listed} {'are' if len(kept) > 1 else 'is'} kept" if kept else ""


def with_answers(
    template: Template,
    answers: Sequence[Answer],
    predictions: pl.DataFrame,
    question: Question,
    possible: Mapping[str, Possible],
    clip: float | None = None,
) -> tuple[pl.DataFrame, dict[str, Possible]]:
    """The predictions with a column for every answer's `key`, and what each may hold.

    `predictions`: with the probabilities of all classes. `clip`: probabilities are moved into [clip, 1 - clip]; where a
    class target has a column for each label, they are then divided by their sum. Raises OutputError for other clips.
    """
    if clip is not None and not 0 < clip < CLIP_LIMIT:
        raise OutputError(f"--clip: found {clip:g}, must be above 0 and below {CLIP_LIMIT:g}")
    if clip is not None and not any(answer.kind == "probability" for answer in answers):
        raise OutputError(
            f"--clip: found {clip:g}, but {template.path} gets no probabilities; allowed: with --answer probability"
        )
    columns = {
        answer.key: _values(answer, predictions, question)
        for answer in answers
        if answer.key != answer.target
    }
    if clip is not None:
        _clip(answers, columns, question, clip)
    frame = predictions.with_columns(pl.Series(key, values) for key, values in columns.items())
    ranges = {
        answer.key: _range(answer, predictions.height, question)
        for answer in answers
        if answer.key in columns
    }
    return frame, {**possible, **ranges}


def _single(
    path: Path,
    frame: pl.DataFrame,
    column: str,
    target: str,
    question: Question,
    kind: str,
    positive: str | None,
) -> Answer:
    """The answer of a column that is one target's."""
    labels = list(question.labels.get(target, ()))
    type = "joint" if target == "joint" else question.heads[target].type
    has_classes = type in ("class", "ordinal")
    values = [value for value in frame[column].to_list() if value is not None]
    own_name = "" if column == target else column
    chosen = _shown_kind(values, labels, has_classes, own_name) if kind == "auto" else kind
    if chosen == "label" or (chosen == "rank" and type in ("regression", "ranking")):
        return Answer(column, target, chosen)
    if not has_classes:
        raise OutputError(
            f"--answer: found {chosen!r}, but {target!r} is of type {type!r}; allowed for column {column!r}: label"
            + (", rank" if type in ("regression", "ranking") else "")
        )
    if chosen == "index":
        return Answer(column, target, "index")
    label = _positive_label(path, column, target, labels, positive)
    return Answer(column, target, chosen, label)


def _shown_kind(values: Sequence[str], labels: Sequence[str], has_classes: bool, column: str) -> str:
    """What the values of a template, or the name of its column, ask for; the name is empty if it is the target's."""
    if not has_classes:
        return "label"
    are_numbers = all(map(is_number, values))
    if _normal(column) in map(_normal, labels) and are_numbers:
        return "probability"  # the column of one label
    if are_numbers and set(_normal(column).split("_")) & set(PROBABILITY_WORDS):
        return "probability"
    fractions = [
        value for value in values if is_number(value) and value not in labels and not _is_whole(value)
    ]
    if fractions and all(is_number(value) and 0 <= float(value) <= 1 for value in values):
        return "probability"
    return "label"


def _positive_label(path: Path, column: str, target: str, labels: Sequence[str], positive: str | None) -> str:
    """The label whose probability a single column takes. Raises OutputError where that cannot be known."""
    if positive is not None:
        if positive not in labels:
            raise OutputError(
                f"--positive: {target!r} has no label {positive!r}; {nearest(positive, labels)}"
            )
        return positive
    bare = "_".join(word for word in _normal(column).split("_") if word not in PROBABILITY_WORDS)
    named = [label for label in labels if _normal(label) in (_normal(column), bare)]
    if named:
        return named[0]
    if len(labels) != 2:
        raise OutputError(
            f"{path}: column {column!r} asks for a probability, but {target!r} has {len(labels)} labels; allowed: a"
            " column named as each label, --positive LABEL for one of them, or --answer label"
        )
    words = [label for label in labels if _normal(label) in POSITIVE_WORDS]
    return words[0] if words else labels[1]


def _only(path: Path, column: str, question: Question) -> str:
    """The target of a single column of any name: the joint class, or the only target."""
    if not question.joint and len(question.heads) > 1:
        raise OutputError(
            f"{path}: the answer column {column!r} could be any of the targets {', '.join(question.heads)};"
            " name the column as one of them, or give the run a [joint]"
        )
    return question.names[-1]


def _columns_of_labels(path: Path, columns: Sequence[str], question: Question) -> dict[str, tuple[str, str]]:
    """Target and label of each column, if the columns are named as labels, up to case, spaces and something that all
    have before or after them. Empty if none is; a single column is one only of a multilabel target, since that of a
    class may be named after the positive one. Raises OutputError, by name, for columns that are no label while others
    are, and for labels without a column."""
    known = _names_of_labels(question)
    normal = [_normal(column) for column in columns]
    if len(columns) == 1:
        target, label = known.get(normal[0], ("", ""))
        is_cell = bool(target) and question.heads[target].type == "multilabel"
        return {columns[0]: (target, label)} if is_cell else {}
    if columns and not any(name in known for name in normal):
        normal = _trimmed(normal)
    found = {column: known[name] for column, name in zip(columns, normal, strict=True) if name in known}
    if not found:
        return {}

    # Some are labels, so all must be, and each label has one column.
    labels = [label for _, label in dict.fromkeys(known.values())]
    problems = [
        f"column {column!r} is no label ({nearest(column, labels)})"
        for column in columns
        if column not in found
    ]
    for target in dict.fromkeys(target for target, _ in found.values()):
        there = [label for of, label in found.values() if of == target]
        missing = [label for label in question.labels[target] if label not in there]
        twice = [label for label in dict.fromkeys(there) if there.count(label) > 1]
        problems += [f"no column for {', '.join(map(repr, missing))} of {target!r}"] if missing else []
        problems += [f"several columns for {', '.join(map(repr, twice))} of {target!r}"] if twice else []
    if problems:
        raise OutputError(f"{path}: the columns do not match the labels: {'; '.join(problems)}")
    return found


def _names_of_labels(question: Question) -> dict[str, tuple[str, str]]:
    """Target and label by the names that a column of the label may have: alone where there is one target, and with the
    target's before it."""
    listed = {
        name: labels for name, labels in question.labels.items() if question.heads[name].type in LABELED
    }
    known: dict[str, tuple[str, str]] = {}
    for target, labels in listed.items():
        for label in labels:
            names = [f"{target}_{label}", f"{target}_p_{label}", *([label] if len(listed) == 1 else [])]
            for name in names:
                known.setdefault(_normal(name), (target, label))
    return known


def _answer_of_label(path: Path, column: str, target: str, label: str, kind: str) -> Answer:
    if kind == "index":
        raise OutputError(
            f"--answer: found 'index', but {path} has a column for each label; allowed: probability, label"
            " (1 or 0), rank"
        )
    return Answer(column, target, "probability" if kind == "auto" else kind, label)


def _values(answer: Answer, predictions: pl.DataFrame, question: Question) -> npt.NDArray[np.float64]:
    """The numbers of an answer (N,)."""
    if answer.kind == "index":
        number_of = {label: k for k, label in enumerate(question.labels[answer.target])}
        return np.array([number_of[label] for label in predictions[answer.target].to_list()], dtype=np.int64)
    if answer.kind == "label":
        if question.heads[answer.target].type == "multilabel":
            separator = question.separators.get(answer.target, "|")
            sets = predictions[answer.target].to_list()
            return np.array([answer.label in cell.split(separator) for cell in sets], dtype=np.int64)
        return (predictions[answer.target] == answer.label).to_numpy().astype(np.int64)
    numbers = _probability(answer, predictions) if answer.label else predictions[answer.target].to_numpy()
    return numbers if answer.kind == "probability" else _ranks(numbers)


def _probability(answer: Answer, predictions: pl.DataFrame) -> Floats:
    return predictions[f"{answer.target}_p_{answer.label}"].to_numpy().astype(np.float64)


def _ranks(numbers_N: Floats) -> Floats:
    """From 1 for the lowest; equal numbers get the mean of their ranks."""
    ranks: Floats = pl.Series(numbers_N).rank("average").to_numpy()
    return ranks


def _clip(answers: Sequence[Answer], columns: dict[str, Floats], question: Question, clip: float) -> None:
    """Move the probabilities into [clip, 1 - clip]."""
    by_target: dict[str, list[str]] = {}
    for answer in answers:
        if answer.kind == "probability":
            columns[answer.key] = columns[answer.key].clip(clip, 1 - clip)
            by_target.setdefault(answer.target, []).append(answer.key)
    for target, keys in by_target.items():
        if question.heads[target].type != "multilabel" and len(keys) == len(question.labels[target]):
            total = np.sum([columns[key] for key in keys], axis=0)
            for key in keys:
                columns[key] = columns[key] / total


def _range(answer: Answer, rows: int, question: Question) -> NumberRange:
    """What the numbers of an answer can be."""
    if answer.kind == "index":
        return NumberRange(0, len(question.labels[answer.target]) - 1, whole=True)
    if answer.kind == "rank":
        return NumberRange(1, rows)
    return NumberRange(0, 1, whole=answer.kind == "label")


def _normal(text: str) -> str:
    """A name as far as it counts: without case, and with one sign for spaces, hyphens and underscores."""
    return re.sub(r"[\s_-]+", "_", unicodedata.normalize("NFC", text).strip().casefold())


def _trimmed(names: Sequence[str]) -> list[str]:
    """The names without what all of them begin and end with, up to a sign between words."""

    def common(texts: Sequence[str]) -> int:
        shortest = min(map(len, texts))
        same = next((i for i in range(shortest) if len({text[i] for text in texts}) > 1), shortest)
        return max(texts[0].rfind(sign, 0, same) + 1 for sign in "_.")

    start = common(names)
    end = common([name[::-1] for name in names])
    return [name[start : len(name) - end] for name in names]


def _is_whole(text: str) -> bool:
    """Whether a number is written as a whole one: `0`, not `0.0`."""
    return re.fullmatch(r"[+-]?\d+", text.strip()) is not None
