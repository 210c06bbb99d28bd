"""The submission file: the template's ids and columns, in its order, with an answer in every row. Anything else is
refused."""

import csv
import io
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from classwise.data.image_paths import find_images as find_similar_images
from classwise.data.listing import image_names
from classwise.data.sources import refuse_repeated
from classwise.data.table import full_column, read_table, rows_text, separator_of
from classwise.errors import DataError, OutputError, nearest
from classwise.model.heads import Head


@dataclass(frozen=True)
class LabelSets:
    """The possible answers of a multilabel target: any of the labels, each at most once, joined by the separator; the
    separator alone for an empty set."""

    labels: tuple[str, ...]
    separator: str

    def allows(self, text: str) -> bool:
        """Whether `text` is one of these answers."""
        if text == self.separator:
            return True
        parts = text.split(self.separator)
        return len(parts) == len(set(parts)) and set(parts) <= set(self.labels)


@dataclass(frozen=True)
class NumberRange:
    """Numbers from `low` to `high` as the possible answers; `whole`: without a fraction."""

    low: float
    high: float
    whole: bool = False

    def allows(self, text: str) -> bool:
        """Whether `text` is one of these numbers."""
        if not _is_finite(text) or not self.low <= float(text) <= self.high:
            return False
        return not self.whole or float(text).is_integer()


Possible = Sequence[str] | LabelSets | NumberRange | None
"""The possible answers in a submission: one of a list, a set of labels, a number in a range, or (None) any finite
number."""


@dataclass(frozen=True)
class Template:
    """A submission's template: its table, its id column `id`, and for each column to be filled the target that is
    written there, or `joint`. `separator`: what stands between the cells of its file, and of the submission's."""

    path: Path
    frame: pl.DataFrame
    id: str
    target_of_column: dict[str, str]
    separator: str = ","
    is_certain: bool = False  # what is written was asked for, whatever the template's own values are

    @property
    def ids(self) -> list[str]:
        """The ids, in order."""
        return [str(id) for id in self.frame[self.id].to_list()]


def read_template(path: Path, targets: Sequence[str], joint: bool, id: str | None = None) -> Template:
    """Read a template and decide what is written into which column. A single answer column takes the joint class or the
    only target; several must be named after targets (or `joint`). `id`: the id column, by default the first. Raises
    DataError, OutputError."""
    frame, id = read_form(path, id)
    answer_columns = [column for column in frame.columns if column != id]
    names = [*targets, *(["joint"] if joint else [])]
    if not answer_columns:
        raise OutputError(f"{path}: no column for the answer beside {id!r}")

    # A single column may have any name, as long as it is clear what belongs there.
    if len(answer_columns) == 1 and answer_columns[0] not in names:
        if not joint and len(targets) > 1:
            raise OutputError(
                f"{path}: the answer column {answer_columns[0]!r} could be any of the targets {', '.join(targets)};"
                " name the column as one of them, or give the run a [joint]"
            )
        return Template(path, frame, id, {answer_columns[0]: names[-1]}, separator_of(path))
    for column in answer_columns:
        if column not in names:
            raise OutputError(f"{path}: column {column!r} is no target of the run; {nearest(column, names)}")
    return Template(path, frame, id, {column: column for column in answer_columns}, separator_of(path))


def read_form(path: Path, id: str | None = None) -> tuple[pl.DataFrame, str]:
    """A template's table and its id column, by default the first. Raises DataError."""
    frame = read_table(path, keep_blank_rows=True)  # a submission has as many rows as its template
    is_given, id = id is not None, id or frame.columns[0]
    try:
        refuse_repeated(full_column(frame, id, str(path), "the template's ids"), str(path), "id")
    except DataError as error:
        unique = [name for name in frame.columns if frame[name].n_unique() == frame.height]
        if is_given or not unique:
            raise
        raise DataError(
            f"{error}; column {unique[0]!r} has another text in each row: --id {unique[0]}"
        ) from None
    return frame, id


def find_images(
    template: Template, images: Path, missing_allowed: bool = False, follow_links: bool = False
) -> list[str]:
    """The image of every id, as a path relative to `images`: the file of that name, the only one of that name with a
    suffix, or the only one that data/image_paths.py finds; below links to folders only with `follow_links`. Raises
    DataError, which lists the ids without an image; with `missing_allowed` these are files that do not exist, of the
    id's name."""
    if not images.is_dir():
        raise DataError(f"--images: there is no folder {images}")
    names = image_names(images, follow_links)
    exact = set(names)
    by_stem: dict[str, list[str]] = {}
    for name in names:
        by_stem.setdefault(name.rsplit(".", 1)[0], []).append(name)
    paths: list[str] = []
    unmatched: list[int] = []
    for row, id in enumerate(template.ids):
        candidates = [id] if id in exact else by_stem.get(id, [])
        if len(candidates) > 1:
            raise DataError(f"{template.path}: row {row + 1}: id {id!r} could be {' or '.join(candidates)}")
        if not candidates:
            unmatched.append(row)
        paths.append(candidates[0] if candidates else id)

    # As in tables: another case or suffix, zeros that are lost, a deeper folder.
    similar = find_similar_images(
        [paths[row] for row in unmatched], [images], str(template.path), follow_links
    )
    missing = [unmatched[k] for k in similar.missing]
    for row, name in zip(unmatched, similar.names, strict=True):
        paths[row] = name
    if missing and not missing_allowed:
        raise DataError(
            f"{template.path}: id {paths[missing[0]]!r} has no image in {images}; such ids are in"
            f" {rows_text([row + 1 for row in missing])}"
        )
    return paths


def possible_labels(
    heads: Mapping[str, Head],
    labels: Mapping[str, Sequence[str]],
    joint: Sequence[str] = (),
    separator: Mapping[str, str] | None = None,
) -> dict[str, Possible]:
    """The possible answers by target and, where there is one, for the joint class."""
    possible: dict[str, Possible] = {}
    for name, head in heads.items():
        if head.type in ("regression", "ranking"):
            possible[name] = None
        elif head.type == "multilabel":
            possible[name] = LabelSets(tuple(labels[name]), (separator or {}).get(name, "|"))
        else:
            possible[name] = list(labels[name])
    if joint:
        possible["joint"] = [str(k) for k in range(math.prod(heads[name].classes for name in joint))]
    return possible


def fill(template: Template, predictions: pl.DataFrame, possible: Mapping[str, Possible]) -> pl.DataFrame:
    """The template with the predictions in its answer columns.

    `predictions` has a row for every id of the template, in its order; `possible` is from `possible_labels`. Numbers
    are written with as many digits as are needed to read back the same number. Raises OutputError if the ids differ,
    if a row has no prediction, or if the template's own values show that another kind of answer is expected.
    """
    if predictions["id"].to_list() != template.ids:
        raise OutputError(f"{template.path}: the predictions' ids are not the template's, in its order")
    frame = template.frame
    for column, answer in template.target_of_column.items():
        if not template.is_certain:
            _refuse_other_kind(template, column, answer, possible[answer])
        values = _answer_texts(predictions[answer], answer)
        frame = frame.with_columns(pl.Series(column, values, dtype=pl.String))
    return frame


def with_whole_numbers(
    template: Template, predictions: pl.DataFrame, possible: Mapping[str, Possible]
) -> tuple[pl.DataFrame, dict[str, Possible], list[str]]:
    """Predictions and possible answers with labels such as `1.0` written as `1` where the template holds whole numbers,
    since tables of numbers with gaps have them with a fraction; and lines that say so."""
    written = dict(possible)
    lines: list[str] = []
    for column, answer in {} if template.is_certain else template.target_of_column.items():
        labels = possible.get(answer)
        values = [value for value in template.frame[column].to_list() if value is not None]
        if labels is None or isinstance(labels, LabelSets | NumberRange) or not values:
            continue
        are_whole = all(re.fullmatch(r"[+-]?\d+", value) for value in values)
        if not are_whole or not all(re.fullmatch(r"[+-]?\d+\.0+", label) for label in labels):
            continue
        whole = [label.split(".")[0] for label in labels]
        written[answer] = whole
        predictions = predictions.with_columns(pl.col(answer).str.replace(r"\.0+$", ""))
        lines.append(f"column {column!r}: labels as whole numbers, as the template has them ({whole[0]})")
    return predictions, written, lines


def _answer_texts(values: pl.Series, answer: str) -> list[str]:
    missing = [row for row, value in enumerate(values.to_list(), start=1) if value is None]
    if missing:
        raise OutputError(f"submission: {answer!r} has no prediction in {rows_text(missing)}")
    # NumPy's numbers keep their width: a float32 is written as 0.1, where Python's float is 0.10000000149011612.
    numbers_or_texts = values.to_numpy() if values.dtype.is_numeric() else values.to_list()
    return [str(value) for value in numbers_or_texts]


def submission_bytes(frame: pl.DataFrame, template: Template, possible: Mapping[str, Possible]) -> bytes:
    """The file's bytes; they have been read back and compared with the template. Raises OutputError."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=template.separator, lineterminator="\n")
    writer.writerow(frame.columns)
    writer.writerows(frame.rows())
    data = buffer.getvalue().encode()
    check_submission(data, template, possible)
    return data


def check_submission(data: bytes, template: Template, possible: Mapping[str, Possible]) -> None:
    """Raise OutputError unless the file has the template's separator, columns and ids in its order, and a possible
    answer in every row."""
    rows = list(csv.reader(io.StringIO(data.decode(), newline=""), delimiter=template.separator))
    if not rows or rows[0] != template.frame.columns:
        raise OutputError(f"submission: its columns are {rows[:1]}, the template's {template.frame.columns}")
    if any(len(row) != len(rows[0]) for row in rows):
        raise OutputError("submission: a row has another number of cells than the header")
    columns = {name: [row[i] for row in rows[1:]] for i, name in enumerate(rows[0])}
    if columns[template.id] != template.ids:
        raise OutputError("submission: its ids are not the template's, in its order")
    for column, answer in template.target_of_column.items():
        wrong = _foreign(columns[column], possible[answer])
        if wrong:
            raise OutputError(
                f"submission: column {column!r} holds {wrong[0]!r}, which is not a possible answer;"
                f" allowed: {_allowed(possible[answer])}"
            )


def _refuse_other_kind(template: Template, column: str, answer: str, possible: Possible) -> None:
    """Raises OutputError where the template's own values show that it expects another kind of answer."""
    values = {value for value in template.frame[column].to_list() if value is not None}
    foreign = _foreign(values, possible)
    if not foreign or isinstance(possible, NumberRange):
        return
    numbers_expected = all(is_number(value) for value in values)
    labels = possible.labels if isinstance(possible, LabelSets) else possible
    numbers_given = labels is None or all(is_number(value) for value in labels)

    # A single value is taken for a placeholder, unless it is a number where labels would be written.
    if len(values) == 1 and (numbers_given or not numbers_expected):
        return
    raise OutputError(
        f"{template.path}: column {column!r} holds {foreign[0]!r}, but {answer!r} has the answers"
        f" {_allowed(possible)}; the template expects another kind of answer, or belongs to another run (--answer"
        " label, index, probability or rank says what to write whatever the template holds)"
    )


def _foreign(values: Collection[str], possible: Possible) -> list[str]:
    """The values that are not possible answers, each once, sorted."""
    if possible is None:
        return sorted(value for value in set(values) if not _is_finite(value))
    if isinstance(possible, LabelSets | NumberRange):
        return sorted(value for value in set(values) if not possible.allows(value))
    return sorted(set(values) - set(possible))


def _allowed(possible: Possible) -> str:
    if possible is None:
        return "any finite number"
    if isinstance(possible, NumberRange):
        return f"{'whole ' * possible.whole}numbers from {possible.low:g} to {possible.high:g}"
    labels = possible.labels if isinstance(possible, LabelSets) else possible
    listed = f"{', '.join(labels[:8])}{', ...' if len(labels) > 8 else ''}"
    return f"{listed}, joined by {possible.separator!r}" if isinstance(possible, LabelSets) else listed


def _is_finite(text: str) -> bool:
    return is_number(text) and math.isfinite(float(text))


def is_number(text: str) -> bool:
    """Whether Python reads the text as a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True
