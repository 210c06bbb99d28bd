"""Predictions and submissions of a trained model, from what they are made of to the table or the file."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch

from classwise.config.schema import Config
from classwise.console import Console
from classwise.data.listing import image_names
from classwise.data.sources import Samples, refuse_escapes
from classwise.data.table import separator_of
from classwise.errors import DataError, OutputError
from classwise.files import write_bytes
from classwise.infer.answers import Answer, Question, choose_answers, kept_columns_text, with_answers
from classwise.infer.decided import abstention_lines, as_models_answer
from classwise.infer.submission import (
    Template,
    fill,
    find_images,
    read_form,
    submission_bytes,
    with_whole_numbers,
)
from classwise.run.fallback import fallback_outputs, fallback_text
from classwise.run.inputs import refuse_unknown_choice
from classwise.run.prediction_inputs import Source, UsableRows, rows_to_predict, usable_rows
from classwise.run.predictor import Predictor

MARKS_HINT = " (--bad-images skip predicts the others and marks these)"
GUESS_HINT = " (--bad-images skip answers the most frequent label for these)"
PROBABILITIES = ("auto", "all", "top")


@dataclass(frozen=True)
class SubmissionForm:
    """How a template is to be filled. `answer`: see infer/answers.py; `positive`: the label whose probability a single
    column takes; `clip`: how near to 0 and 1 probabilities may come; `bad_images`: error, or `skip`, where `fallback`
    is written for an image that cannot be used (default: what one would guess without it)."""

    id: str | None = None
    answer: str = "auto"
    positive: str | None = None
    clip: float | None = None
    bad_images: str = "error"
    fallback: str | None = None


def predictions_of(
    predictor: Predictor,
    config: Config,
    source: Source,
    images: str | Path | None,
    ids: Sequence[str] | None,
    engine: str,
    bad_images: str,
    probabilities: str,
    console: Console,
) -> pl.DataFrame:
    """The predictions for every row of the source, in its order. With `bad_images="skip"` there is a column `error`,
    why the image of the row could not be used, whose other cells are then empty. Raises DataError."""
    if probabilities not in PROBABILITIES:
        raise DataError(f"--probabilities: found {probabilities!r}, allowed: {', '.join(PROBABILITIES)}")
    usable = rows_to_predict(config, source, images, ids, bad_images, console)
    samples = usable.rows.samples
    outputs = predictor.outputs(
        samples, config, engine=engine, console=console, cached=usable.rows.memory, hint=MARKS_HINT
    )
    in_full = None if probabilities == "auto" else probabilities == "all"
    table = predictor.table(samples, outputs, predictor.true_labels(samples, console), in_full=in_full)
    return table if bad_images == "error" else _with_errors(table, usable)


def _with_errors(table: pl.DataFrame, usable: UsableRows) -> pl.DataFrame:
    """The table with a row for every id, in the order of the source, and the column `error` after it."""
    rows = pl.DataFrame(
        {
            "id": list(usable.all_ids),
            "error": [usable.reasons.get(id) for id in usable.all_ids],
        },
        schema={"id": pl.String, "error": pl.String},
    )
    joined = rows.join(table, on="id", how="left", maintain_order="left")
    return joined.select("id", "error", pl.exclude("id", "error"))


def submission_of(
    predictor: Predictor,
    config: Config,
    status: Callable[[], Mapping[str, Any]],
    template: Path,
    images: Path,
    out: Path,
    form: SubmissionForm,
    engine: str,
    console: Console,
) -> str:
    """Write the template with the answers to `out`; returns a note on the images that could not be used, empty if all
    could. `status`: reads status.json, which has the class shares. Raises OutputError, DataError; nothing is
    written then."""
    refuse_unknown_choice(form.bad_images)
    skips = form.bad_images == "skip"
    if form.fallback is not None and not skips:
        raise OutputError(
            "--fallback: found without --bad-images skip, so there is no row that it could be written to"
        )

    # The template alone decides which images are predicted, and in which order.
    frame, id = read_form(template, form.id)
    question = Question(predictor.heads, predictor.labels, bool(predictor.joint), predictor.separators)
    answers = choose_answers(template, frame, id, question, form.answer, form.positive)
    filled_in = Template(
        path=template,
        frame=frame,
        id=id,
        target_of_column={answer.column: answer.key for answer in answers},
        separator=separator_of(template),
        is_certain=form.answer != "auto",
    )
    follow_links = config.data.follow_links
    names = find_images(filled_in, images, missing_allowed=skips, follow_links=follow_links)
    refuse_escapes(names, images, str(template), "--images", follow_links=follow_links)
    samples = Samples(
        where=str(template),
        root=images,
        ids=tuple(filled_in.ids),
        names=tuple(names),
        groups=None,
        frame=pl.DataFrame({"id": filled_in.ids, "path": names}),
        follow_links=follow_links,
    )

    # A row for every id: what one would guess without an image stands for one that cannot be used.
    rows = usable_rows(samples, config, console) if skips else None
    good = samples if rows is None else rows.rows.samples
    outputs = predictor.outputs(good, config, engine=engine, console=console, hint=GUESS_HINT)
    in_full = any(answer.label for answer in answers) or None
    table = predictor.table(good, outputs, {}, in_full=in_full)
    if rows is not None and rows.reasons:
        # A decision is for what models say of images, not for the shares of the training rows.
        guessing = dataclasses.replace(predictor, heads=as_models_answer(predictor.heads))
        guess = fallback_outputs(guessing.heads, status(), outputs)
        bad = samples.take([row for row, id in enumerate(samples.ids) if id in rows.reasons])
        guesses = guessing.table(bad, _in_each_row(outputs, guess, len(bad)), {}, in_full=in_full)
        table = _in_order(samples.ids, table, guesses)
        said = repr(form.fallback)
        if form.fallback is None:
            said = fallback_text(guessing.heads, predictor.labels, guess)
        console.line(f"{rows.note}; their rows hold {said}")

    # A template has no place for a mark, so their number is said.
    for line in abstention_lines(table):
        console.line(line)

    # The file's bytes are read back and compared with the template before they are written.
    possible = predictor.possible_labels()
    table, possible = with_answers(filled_in, answers, table, question, possible, form.clip)
    table, possible, lines = with_whole_numbers(filled_in, table, possible)
    for line in lines:
        console.line(line)
    submission = fill(filled_in, table, possible)
    if form.fallback is not None and rows is not None:
        submission = _with_fallback(submission, filled_in, rows, form.fallback)
    write_bytes(out, submission_bytes(submission, filled_in, possible))
    _say(answers, filled_in, predictor.labels, samples, images, template, console)
    return "" if rows is None else rows.note


def _in_each_row(
    outputs: Mapping[str, torch.Tensor], guess: Mapping[str, torch.Tensor], rows: int
) -> dict[str, torch.Tensor]:
    """The guess as the outputs of so many rows, in the number format of those of the models."""
    return {name: guess[name].to(raw.dtype).expand(rows, -1) for name, raw in outputs.items()}


def _in_order(ids: Sequence[str], table: pl.DataFrame, guesses: pl.DataFrame) -> pl.DataFrame:
    """The rows of both tables in the order of the ids; columns that only one of them has are null in the other."""
    both = pl.concat([table, guesses], how="diagonal")
    return pl.DataFrame({"id": list(ids)}, schema={"id": pl.String}).join(
        both, on="id", how="left", maintain_order="left"
    )


def _with_fallback(frame: pl.DataFrame, template: Template, rows: UsableRows, fallback: str) -> pl.DataFrame:
    """The submission with the given text in every answer of the rows without an image."""
    is_bad_N = [id in rows.reasons for id in template.ids]

    def answers(cells: list[str]) -> list[str]:
        return [fallback if bad else cell for cell, bad in zip(cells, is_bad_N, strict=True)]

    return frame.with_columns(
        pl.Series(column, answers(frame[column].to_list())) for column in template.target_of_column
    )


def _stem(name: str) -> str:
    return name.rsplit(".", 1)[0]


def _zero_or_one_hint(form: Template, answers: Sequence[Answer], labels: Mapping[str, Sequence[str]]) -> str:
    """That one of two labels was written where a column of 0 may also ask for probabilities: many templates for the
    area under the ROC curve hold nothing else."""
    if form.is_certain:
        return ""
    for answer in answers:
        cells = {cell for cell in form.frame[answer.column].to_list() if cell is not None}
        has_two = len(labels.get(answer.target, ())) == 2
        if has_two and answer.kind == "label" and not answer.label and cells in ({"0"}, {"1"}):
            return (
                f"column {answer.column!r}: the label, as the template holds {cells.pop()}; --answer probability writes"
                " probabilities instead"
            )
    return ""


def _say(
    answers: Sequence[Answer],
    form: Template,
    labels: Mapping[str, Sequence[str]],
    samples: Samples,
    images: Path,
    template: Path,
    console: Console,
) -> None:
    """What was written where, if it is not simply the label; and how many rows."""
    for answer in answers:
        if answer.kind != "label" or answer.label:
            console.line(str(answer))
    if kept := kept_columns_text(form.frame, form.id, answers):
        console.line(kept)
    if hint := _zero_or_one_hint(form, answers, labels):
        console.line(hint)
    other = [
        (id, name)
        for id, name in zip(samples.ids, samples.names, strict=True)
        if id not in (name, _stem(name))
    ]
    if other:
        id, name = other[0]
        console.line(f"{len(other)} ids are written otherwise than their files, such as {id!r}: {name!r}")
    unused = len(set(image_names(images, samples.follow_links)) - set(samples.names))
    note = f"; {unused} images in {images} are not in the template" if unused else ""
    console.line(f"{len(samples)} rows, checked against {template}{note}")
