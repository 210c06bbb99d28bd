"""What a template asks for: labels, numbers, probabilities or ranks, by its columns and its values."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from classwise.errors import OutputError
from classwise.infer.answers import Question, choose_answers, kept_columns_text, with_answers
from classwise.infer.submission import Possible, Template, fill, possible_labels, submission_bytes
from classwise.model.heads import ClassHead, Head, MultilabelHead, RegressionHead

PLANTS: dict[str, Sequence[str]] = {"plant": ("Healthy", "multiple diseases", "rust", "scab")}
BINARY: dict[str, Sequence[str]] = {"target": ("0", "1")}
PETS: dict[str, Sequence[str]] = {"pet": ("cat", "dog")}
TWO: dict[str, Sequence[str]] = {"pet": ("cat", "dog"), "tags": ("x", "y")}


def question(labels: Mapping[str, Sequence[str]], multilabel: Sequence[str] = ("tags",)) -> Question:
    heads: dict[str, Head] = {
        name: MultilabelHead(len(names)) if name in multilabel else ClassHead(len(names))
        for name, names in labels.items()
    }
    return Question(heads, labels, joint=False)


def frame(columns: Sequence[str], value: str | None, rows: int = 3) -> pl.DataFrame:
    """A template with the column `id`."""
    cells = {"id": [str(row) for row in range(rows)]} | {column: [value] * rows for column in columns}
    return pl.DataFrame(cells, schema={"id": pl.String} | dict.fromkeys(columns, pl.String))


@pytest.mark.parametrize(
    ("labels", "columns", "value", "kind", "wanted"),
    [
        (BINARY, ["target"], "0.5", "auto", [("probability", "1")]),
        (BINARY, ["target"], "0.0", "auto", [("probability", "1")]),
        (BINARY, ["target"], "0", "auto", [("label", "")]),
        (BINARY, ["target"], None, "auto", [("label", "")]),
        (BINARY, ["target"], "0", "probability", [("probability", "1")]),
        (PETS, ["is_it"], "0.5", "auto", [("probability", "dog")]),
        (PETS, ["cat"], "0.5", "auto", [("probability", "cat")]),
        (PETS, ["cat"], "0", "auto", [("probability", "cat")]),
        (PETS, ["pet"], "0", "index", [("index", "")]),
        (PETS, ["pet"], "x", "rank", [("rank", "dog")]),
        (PLANTS, ["healthy", "multiple_diseases", "rust", "scab"], "0.25", "auto", None),
        (
            PLANTS,
            ["class_scab", "class_rust", "class_healthy", "class_multiple-diseases"],
            None,
            "auto",
            None,
        ),
        (PLANTS, ["rust.prob", "scab.prob", "Healthy.prob", "multiple diseases.prob"], "0", "auto", None),
        (
            PLANTS,
            ["plant_p_rust", "plant_p_scab", "plant_p_Healthy", "plant_p_multiple diseases"],
            "",
            "auto",
            None,
        ),
    ],
)
def test_what_is_meant(
    labels: Mapping[str, Sequence[str]],
    columns: list[str],
    value: str | None,
    kind: str,
    wanted: list[tuple[str, str]] | None,
) -> None:
    """By the values of a single column, and by the names of several, up to case, signs between words and what all of
    them begin or end with."""
    answers = choose_answers(Path("t.csv"), frame(columns, value), "id", question(labels), kind)
    assert [answer.column for answer in answers] == columns
    if wanted is None:
        assert {answer.kind for answer in answers} == {"probability"}
        assert sorted(answer.label for answer in answers) == sorted(PLANTS["plant"])
        for answer in answers:
            assert answer.label.lower().split()[0] in answer.column.lower()
    else:
        assert [(answer.kind, answer.label) for answer in answers] == wanted


def test_several_targets_have_their_labels_columns() -> None:
    """Named with the target before them; a label alone could be any target's; a target's own column stays its label."""
    columns = ["pet", "tags_x", "tags_y"]
    answers = choose_answers(Path("t.csv"), frame(columns, None), "id", question(TWO))
    assert [(a.target, a.kind, a.label) for a in answers] == [
        ("pet", "label", ""),
        ("tags", "probability", "x"),
        ("tags", "probability", "y"),
    ]


@pytest.mark.parametrize(
    ("column", "value", "kind", "label"),
    [
        ("p_dog", None, "probability", "dog"),
        ("prob_cat", "0", "probability", "cat"),
        ("probability", "0", "probability", "dog"),
        ("Confidence", "0.0", "probability", "dog"),
        ("probability", "cat", "label", ""),  # the values say more than the name
        ("pet", "cat", "label", ""),
    ],
)
def test_columns_that_are_named_as_probabilities(
    column: str, value: str | None, kind: str, label: str
) -> None:
    """Also where the template holds nothing or 0; of the label in the name, else of the positive one."""
    (answer,) = choose_answers(Path("t.csv"), frame([column], value), "id", question(PETS))
    assert (answer.kind, answer.label) == (kind, label)


def test_a_target_with_such_a_name() -> None:
    """Its own column takes the label."""
    (answer,) = choose_answers(Path("t.csv"), frame(["p"], "0"), "id", question({"p": ("0", "1")}))
    assert answer.kind == "label"


def test_columns_that_hold_something_else() -> None:
    """Words in every row stay as they are."""
    form = frame(["pet"], "cat").with_columns(pl.lit("Public").alias("Usage"))
    answers = choose_answers(Path("t.csv"), form, "id", question(PETS))
    assert [answer.column for answer in answers] == ["pet"]
    assert kept_columns_text(form, "id", answers) == "column 'Usage' is kept"


@pytest.mark.parametrize("cell", ["0", None, "dog"])
def test_columns_that_may_ask_for_something(cell: str | None) -> None:
    """Numbers, blanks and labels are refused where the name is no target's."""
    form = frame(["pet"], "cat").with_columns(pl.lit(cell, dtype=pl.String).alias("Usage"))
    with pytest.raises(OutputError, match="column 'Usage' is no target of the run"):
        choose_answers(Path("t.csv"), form, "id", question(PETS))


@pytest.mark.parametrize(
    ("labels", "columns", "value", "kind", "positive", "message"),
    [
        (
            PLANTS,
            ["healthy", "rust", "scab"],
            "0",
            "auto",
            None,
            "no column for 'multiple diseases' of 'plant'",
        ),
        (
            PLANTS,
            ["healthy", "multiple_diseases", "rsut", "scab"],
            "0",
            "auto",
            None,
            r"column 'rsut' is no label \(did you mean 'rust'\?\); no column for 'rust'",
        ),
        (
            PLANTS,
            ["healthy", "rust", "rust ", "scab", "multiple_diseases"],
            "0",
            "auto",
            None,
            "several columns for 'rust'",
        ),
        (
            PLANTS,
            ["p"],
            "0.5",
            "auto",
            None,
            "asks for a probability, but 'plant' has 4 labels; allowed: a column",
        ),
        (PLANTS, ["p"], "0.5", "auto", "moss", "--positive: 'plant' has no label 'moss'"),
        (PETS, ["a", "b"], "0", "auto", None, "column 'a' is no target of the run"),
        (PETS, ["cat", "dog"], "0", "index", None, "has a column for each label"),
        (
            PETS,
            ["p"],
            "0",
            "odds",
            None,
            "--answer: found 'odds', allowed: auto, label, index, probability, rank",
        ),
        (TWO, ["p"], "0", "auto", None, "could be any of the targets pet, tags"),
        (
            {"tags": ("x", "y")},
            ["t"],
            "0",
            "probability",
            None,
            "'tags' is of type 'multilabel'; allowed .*: label",
        ),
    ],
)
def test_what_is_not_clear_is_refused(
    labels: Mapping[str, Sequence[str]],
    columns: list[str],
    value: str,
    kind: str,
    positive: str | None,
    message: str,
) -> None:
    """By the name of the column or of the label, with what is allowed."""
    with pytest.raises(OutputError, match=message):
        choose_answers(Path("t.csv"), frame(columns, value), "id", question(labels), kind, positive)


def written(
    columns: Sequence[str],
    labels: Mapping[str, Sequence[str]],
    predictions: Mapping[str, Sequence[float | str]],
    kind: str = "auto",
    value: str | None = None,
    clip: float | None = None,
) -> list[list[str]]:
    """The cells of the submission, row by row, without the ids."""
    asked = question(labels)
    form = frame(columns, value)
    answers = choose_answers(Path("t.csv"), form, "id", asked, kind)
    template = Template(
        Path("t.csv"), form, "id", {a.column: a.key for a in answers}, is_certain=kind != "auto"
    )
    table = pl.DataFrame({"id": ["0", "1", "2"], **predictions})
    possible: dict[str, Possible] = possible_labels(asked.heads, asked.labels)
    table, possible = with_answers(template, answers, table, asked, possible, clip)
    data = submission_bytes(fill(template, table, possible), template, possible).decode()
    return [line.split(",")[1:] for line in data.splitlines()[1:]]


PET_ROWS: dict[str, Sequence[float | str]] = {
    "pet": ["dog", "cat", "dog"],
    "pet_p_cat": [0.25, 1.0, 0.25],
    "pet_p_dog": [0.75, 0.0, 0.75],
}


@pytest.mark.parametrize(
    ("columns", "kind", "wanted"),
    [
        (["dog"], "probability", [["0.75"], ["0.0"], ["0.75"]]),
        (["cat", "dog"], "probability", [["0.25", "0.75"], ["1.0", "0.0"], ["0.25", "0.75"]]),
        (["dog", "cat"], "label", [["1", "0"], ["0", "1"], ["1", "0"]]),
        (["pet"], "label", [["dog"], ["cat"], ["dog"]]),
        (["pet"], "index", [["1"], ["0"], ["1"]]),
        (["pet"], "rank", [["2.5"], ["1.0"], ["2.5"]]),
    ],
)
def test_what_is_written(columns: list[str], kind: str, wanted: list[list[str]]) -> None:
    """Each kind of answer, checked by the file's own check."""
    assert written(columns, PETS, PET_ROWS, kind) == wanted


def test_probabilities_are_clipped() -> None:
    """A single column lies within the limits; columns of all labels add up to 1 again; those of a set need not."""
    assert written(["dog"], PETS, PET_ROWS, "probability", clip=0.1) == [["0.75"], ["0.1"], ["0.75"]]
    rows = np.array(written(["cat", "dog"], PETS, PET_ROWS, clip=0.1), dtype=float)
    np.testing.assert_allclose(rows.sum(axis=1), 1, atol=1e-12)
    assert rows[1].tolist() == pytest.approx([0.9, 0.1])
    tags = {"tags": ["x"] * 3, "tags_p_x": [1.0, 0.5, 0.0], "tags_p_y": [1.0, 1.0, 0.2]}
    clipped = written(["x", "y"], {"tags": ("x", "y")}, tags, clip=0.01)
    assert clipped == [["0.99", "0.99"], ["0.5", "0.99"], ["0.01", "0.2"]]


@pytest.mark.parametrize(
    ("kind", "clip", "message"),
    [
        ("probability", 0.5, "--clip: found 0.5, must be above 0 and below 0.5"),
        ("label", 0.1, "gets no probabilities"),
    ],
)
def test_a_clip_that_makes_no_sense(kind: str, clip: float, message: str) -> None:
    """It is refused rather than ignored."""
    with pytest.raises(OutputError, match=message):
        written(["pet"], PETS, PET_ROWS, kind, clip=clip)


def test_numbers_are_ranked_too() -> None:
    """A regression has no label to rank."""
    asked = Question({"age": RegressionHead(0.0, 1.0)}, {}, joint=False)
    form = frame(["age"], None)
    (answer,) = choose_answers(Path("t.csv"), form, "id", asked, "rank")
    template = Template(Path("t.csv"), form, "id", {answer.column: answer.key}, is_certain=True)
    table = pl.DataFrame({"id": ["0", "1", "2"], "age": [30.5, 2.0, 80.0]})
    table, possible = with_answers(template, [answer], table, asked, {"age": None})
    assert fill(template, table, possible)["age"].to_list() == ["2.0", "1.0", "3.0"]
