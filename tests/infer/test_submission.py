"""The submission: the template's ids and columns, an answer in every row, or a refusal that says why."""

import csv
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from classwise.errors import DataError, OutputError
from classwise.infer.submission import (
    LabelSets,
    Possible,
    Template,
    check_submission,
    fill,
    find_images,
    possible_labels,
    read_template,
    submission_bytes,
    with_whole_numbers,
)
from classwise.model.heads import (
    ClassHead,
    Head,
    MultilabelHead,
    OrdinalHead,
    RankingHead,
    RegressionHead,
)

NAMES = {"species": ["고양이", "dog, big", 'the "cat"'], "joint": [str(k) for k in range(6)]}
ODD_IDS = ["그림 1.png", 'a "b", c', "007", "000600-1", "it's", " space "]


def write(path: Path, columns: list[str], rows: list[list[str]], separator: str = ",") -> Path:
    """A table by Python's csv module."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=separator)
        writer.writerow(columns)
        writer.writerows(rows)
    return path


def template(folder: Path, ids: list[str], value: str = "", name: str = "t.csv") -> Template:
    """A template with the columns ImageID and ans, for the only target `species`."""
    separator = "\t" if name.endswith(".tsv") else ","
    path = write(folder / name, ["ImageID", "ans"], [[id, value] for id in ids], separator)
    return read_template(path, ["species"], joint=False)


def predictions(ids: list[str], labels: list[str], column: str = "species") -> pl.DataFrame:
    """A table of predictions as far as a submission needs it."""
    return pl.DataFrame({"id": ids, column: labels})


def cycle(count: int) -> list[str]:
    """Answers in turn."""
    return [NAMES["species"][row % 3] for row in range(count)]


# Reading the template.


@pytest.mark.parametrize(
    ("targets", "joint", "columns", "wanted"),
    [
        (["species"], False, ["ImageID", "ans"], {"ans": "species"}),
        (["mask", "age"], True, ["ImageID", "ans"], {"ans": "joint"}),
        (["mask", "age"], True, ["ImageID", "age"], {"age": "age"}),
        (["mask", "age"], False, ["ImageID", "age", "mask"], {"age": "age", "mask": "mask"}),
        (["mask", "age"], True, ["ImageID", "joint", "mask"], {"joint": "joint", "mask": "mask"}),
    ],
)
def test_what_goes_into_which_column(
    targets: list[str], joint: bool, columns: list[str], wanted: dict[str, str], tmp_path: Path
) -> None:
    """The only other column takes the joint class or the only target; columns named as targets take those."""
    path = write(tmp_path / "t.csv", columns, [["a"] + [""] * (len(columns) - 1)])
    found = read_template(path, targets, joint)
    assert (found.id, found.target_of_column, found.ids) == ("ImageID", wanted, ["a"])


def test_the_id_column_may_stand_anywhere(tmp_path: Path) -> None:
    """The first column by default, another one by name; the file keeps the template's order of columns."""
    path = write(tmp_path / "t.csv", ["ans", "name"], [["", "b"], ["", "a"]])
    found = read_template(path, ["species"], joint=False, id="name")
    assert (found.ids, found.target_of_column) == (["b", "a"], {"ans": "species"})
    filled = fill(found, predictions(["b", "a"], cycle(2)), NAMES)
    assert submission_bytes(filled, found, NAMES).decode() == 'ans,name\n고양이,b\n"dog, big",a\n'


@pytest.mark.parametrize(
    ("columns", "rows", "targets", "error", "message"),
    [
        (["id"], [["a"]], ["s"], OutputError, "no column for the answer beside 'id'"),
        (
            ["id", "x"],
            [["a", ""]],
            ["s", "t"],
            OutputError,
            r"'x' could be any of the targets s, t.*\[joint\]",
        ),
        (["id", "s", "tt"], [["a", "", ""]], ["s", "t"], OutputError, "column 'tt' is no target"),
        (
            ["id", "x"],
            [["a", ""], ["b", ""], ["a", ""]],
            ["s"],
            DataError,
            r"id 'a' is in rows 1, 3; .*unique",
        ),
        (["id", "x"], [["a", ""], ["", "z"]], ["s"], DataError, "column 'id' .* is empty in row 2"),
    ],
)
def test_a_template_that_cannot_be_filled(
    columns: list[str],
    rows: list[list[str]],
    targets: list[str],
    error: type[Exception],
    message: str,
    tmp_path: Path,
) -> None:
    """The message names the column or the row."""
    with pytest.raises(error, match=message):
        read_template(write(tmp_path / "t.csv", columns, rows), targets, joint=False)


def test_an_id_column_that_is_not_there(tmp_path: Path) -> None:
    """The message offers the columns that there are."""
    path = write(tmp_path / "t.csv", ["ImageID", "ans"], [["a", ""]])
    with pytest.raises(DataError, match=r"no column 'ImageId'.*'ImageID'"):
        read_template(path, ["species"], joint=False, id="ImageId")


# The images of the ids.


def test_images_are_found_by_name_or_stem(tmp_path: Path) -> None:
    """An id is the file's name, or that without the suffix; in the template's order; junk files are no images."""
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    for name in ("b.png", "a.jpg", "._a.png", "그림 1.png", "a.b.png", "sub/c.png", "a.txt"):
        (folder / name).touch()
    found = find_images(template(tmp_path, ["그림 1", "a", "b.png", "a.b", "sub/c"]), folder)
    assert found == ["그림 1.png", "a.jpg", "b.png", "a.b.png", "sub/c.png"]


def test_ids_without_an_image_are_listed(tmp_path: Path) -> None:
    """The first unknown id and the rows of all of them; an id that fits two files; no such folder."""
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a.png", "b.png", "b.jpg"):
        (folder / name).touch()
    with pytest.raises(DataError, match=r"id 'x' has no image in .*; such ids are in rows 2, 3"):
        find_images(template(tmp_path, ["a", "x", "y"]), folder)
    with pytest.raises(DataError, match=r"row 2: id 'b' could be b\.jpg or b\.png"):
        find_images(template(tmp_path, ["a", "b"]), folder)
    assert find_images(template(tmp_path, ["b.jpg"]), folder) == ["b.jpg"]
    with pytest.raises(DataError, match="--images: there is no folder"):
        find_images(template(tmp_path, ["a"]), tmp_path / "nowhere")


# Filling and writing.


@pytest.mark.parametrize("name", ["t.csv", "t.tsv"])
def test_any_id_and_any_answer_survive(name: str, tmp_path: Path) -> None:
    """Quotes, commas, Korean, leading zeros and spaces: read back by another parser, cell for cell."""
    form = template(tmp_path, ODD_IDS, name=name)
    assert form.ids == ODD_IDS
    data = submission_bytes(fill(form, predictions(ODD_IDS, cycle(6)), NAMES), form, NAMES)
    separator = "\t" if name.endswith(".tsv") else ","
    (tmp_path / "out").write_bytes(data)
    found = pl.read_csv(tmp_path / "out", separator=separator, infer_schema=False)
    assert found.rows() == list(zip(ODD_IDS, cycle(6), strict=True))
    assert found.columns == ["ImageID", "ans"]
    assert data.endswith(b"\n")
    assert b"\r" not in data


def test_several_answers(tmp_path: Path) -> None:
    """Each column gets its own target's answers; joint numbers are written as numbers."""
    path = write(tmp_path / "t.csv", ["id", "joint", "species"], [["b", "0", ""], ["a", "0", ""]])
    form = read_template(path, ["species", "mask"], joint=True)
    table = predictions(["b", "a"], cycle(2)).with_columns(joint=pl.Series([5, 3]))
    data = submission_bytes(fill(form, table, NAMES), form, NAMES)
    assert data.decode() == 'id,joint,species\nb,5,고양이\na,3,"dog, big"\n'


def test_predictions_of_other_ids_are_refused(tmp_path: Path) -> None:
    """In another order, fewer or others: never an answer beside the wrong id."""
    form = template(tmp_path, ["a", "b", "c"])
    for ids in (["b", "a", "c"], ["a", "b"], ["a", "b", "x"]):
        with pytest.raises(OutputError, match="ids are not the template's"):
            fill(form, predictions(ids, cycle(len(ids))), NAMES)


@pytest.mark.parametrize(
    ("values", "possible"),
    [
        (["", ""], ["cat", "dog"]),
        (["?", "?"], ["cat", "dog"]),
        (["cat", "dog"], ["cat", "dog"]),
        (["cat", "cat"], ["cat", "dog"]),
        (["0", "0"], ["0", "1"]),
        (["0", "0"], ["1", "2"]),
        (["-1", "-1"], ["1", "2"]),
    ],
)
def test_placeholders_that_say_nothing(values: list[str], possible: list[str], tmp_path: Path) -> None:
    """Empty, one word in all rows, possible answers, or a number where numbers are written: filled."""
    rows = [[str(i), value] for i, value in enumerate(values)]
    form = read_template(write(tmp_path / "t.csv", ["id", "x"], rows), ["s"], joint=False)
    filled = fill(form, predictions(["0", "1"], [possible[0]] * 2, "s"), {"s": possible})
    assert filled["x"].to_list() == [possible[0]] * 2


@pytest.mark.parametrize(
    ("values", "possible"),
    [
        (["0", "0"], ["cat", "dog"]),
        (["0", "1"], ["cat", "dog"]),
        (["cat", "horse"], ["cat", "dog"]),
        (["0", "7"], ["0", "1", "2"]),
        (["0.5", "0.1"], ["0", "1"]),
    ],
)
def test_a_template_that_wants_another_kind_of_answer(
    values: list[str], possible: list[str], tmp_path: Path
) -> None:
    """Numbers where labels would be written, or several values of which one is no answer: refused with it."""
    rows = [[str(i), value] for i, value in enumerate(values)]
    form = read_template(write(tmp_path / "t.csv", ["id", "x"], rows), ["s"], joint=False)
    with pytest.raises(OutputError, match=r"column 'x' holds '.*', but 's' has the answers .* another kind"):
        fill(form, predictions(["0", "1"], [possible[0]] * 2, "s"), {"s": possible})


# Checking the bytes.


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ImageID,ans\nb,고양이\na,고양이\n", "its ids are not the template's"),
        ("ImageID,ans\na,고양이\n", "its ids are not the template's"),
        ("ImageID,ans\n", "its ids are not the template's"),
        ("ImageID,ans\na,고양이\nb,고양이\nc,고양이\n", "its ids are not the template's"),
        ("ImageID,ans\na,고양이\na,고양이\n", "its ids are not the template's"),
        ("ImageID,ans\na,고양이\nb,강아지\n", "column 'ans' holds '강아지', which is not a possible answer"),
        ("ImageID,ans\na,고양이\nb,\n", "column 'ans' holds '', which is not a possible answer"),
        ("ImageID,answer\na,고양이\nb,고양이\n", "its columns are"),
        ("ans,ImageID\n고양이,a\n고양이,b\n", "its columns are"),
        ("a,고양이\nb,고양이\n", "its columns are"),
        ("", "its columns are"),
        ("ImageID,ans\na,고양이\nb,dog, big\n", "another number of cells"),
        ("ImageID,ans\na,고양이\n\nb,고양이\n", "another number of cells"),
    ],
)
def test_a_file_that_the_template_contradicts(text: str, message: str, tmp_path: Path) -> None:
    """Reordered, missing, added and repeated ids, foreign answers, changed columns: each refused."""
    with pytest.raises(OutputError, match=message):
        check_submission(text.encode(), template(tmp_path, ["a", "b"]), NAMES)


def test_a_file_that_the_template_wants(tmp_path: Path) -> None:
    """The check lets the right file pass, as quoted as it may be."""
    form = template(tmp_path, ["a", "b"])
    check_submission('"ImageID","ans"\r\n"a","dog, big"\r\nb,고양이\r\n'.encode(), form, NAMES)


# Answers of other types: numbers, and several labels.

TAGS = LabelSets(("a", "b c", "d"), "|")


def filled(values: pl.Series, possible: Possible, folder: Path, cells: list[str] | None = None) -> bytes:
    """The file of a template whose only answer column takes `values`."""
    ids = [str(row) for row in range(len(values))]
    rows = [[id, cell] for id, cell in zip(ids, cells or [""] * len(ids), strict=True)]
    form = read_template(write(folder / "t.csv", ["id", "x"], rows), ["s"], joint=False)
    frame = fill(form, pl.DataFrame({"id": ids, "s": values}), {"s": possible})
    return submission_bytes(frame, form, {"s": possible})


def test_every_kind_of_head_has_its_answers() -> None:
    """Labels of classes and levels; sets with the target's own separator; any number; the joint class's numbers."""
    heads: dict[str, Head] = {
        "c": ClassHead(2),
        "o": OrdinalHead(3),
        "m": MultilabelHead(2),
        "n": MultilabelHead(2),
        "v": RegressionHead(0.0, 1.0, edges=(1.0, 2.0, 3.0)),
        "r": RankingHead(),
    }
    labels = {"c": ("x", "y"), "o": ("1", "2", "3"), "m": ("a", "b"), "n": ("a", "b")}
    assert possible_labels(heads, labels, ("c", "v", "o"), {"n": ";"}) == {
        "c": ["x", "y"],
        "o": ["1", "2", "3"],
        "m": LabelSets(("a", "b"), "|"),
        "n": LabelSets(("a", "b"), ";"),
        "v": None,
        "r": None,
        "joint": [str(k) for k in range(2 * 4 * 3)],
    }
    assert "joint" not in possible_labels({"c": ClassHead(2)}, labels)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_numbers_come_back_bit_for_bit(dtype: type, tmp_path: Path) -> None:
    """200 drawn numbers of all sizes are read back as they were, and no longer than they need to be."""
    draw = np.random.default_rng(0)
    values = (draw.standard_normal(200) * 10.0 ** draw.integers(-30, 30, 200)).astype(dtype)
    values[:2] = 0.1, 33
    data = filled(pl.Series(values), None, tmp_path)
    texts = [row[1] for row in csv.reader(data.decode().splitlines())][1:]
    np.testing.assert_array_equal(np.array([dtype(text) for text in texts]), values)
    assert texts[:2] == ["0.1", "33.0"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_no_answer(value: float, tmp_path: Path) -> None:
    """It is never written."""
    with pytest.raises(
        OutputError, match=r"column 'x' holds '.*', which is not a possible answer; allowed: any finite"
    ):
        filled(pl.Series([0.0, value]), None, tmp_path)


def test_a_row_without_a_prediction_is_refused(tmp_path: Path) -> None:
    """Not written as `None`, which might even be a label; for every kind of answer."""
    labels: list[tuple[pl.Series, Possible]] = [
        (pl.Series(["a", None, None]), ["a", "None"]),
        (pl.Series([0.5, None, None]), None),
        (pl.Series(["a|d", None, None]), TAGS),
    ]
    for values, possible in labels:
        with pytest.raises(OutputError, match="'s' has no prediction in rows 2, 3"):
            filled(values, possible, tmp_path)


def test_sets_of_labels_are_written_as_they_are(tmp_path: Path) -> None:
    """One, several, none; the cells are what the table of predictions holds."""
    data = filled(pl.Series(["a", "a|b c|d", "|"]), TAGS, tmp_path)
    assert data.decode() == "id,x\n0,a\n1,a|b c|d\n2,|\n"


@pytest.mark.parametrize("text", ["", "a|e", "a|", "|a", "a|a", "||", "a,d", "b"])
def test_a_set_with_a_foreign_part_is_no_answer(text: str, tmp_path: Path) -> None:
    """Unknown labels, empty parts, a label twice, another separator."""
    with pytest.raises(
        OutputError, match=r"column 'x' holds .* not a possible answer; allowed: a, b c, d, joined by '\|'"
    ):
        filled(pl.Series(["a", text]), TAGS, tmp_path)


@pytest.mark.parametrize(
    ("cells", "possible"),
    [
        (["0", "0"], None),
        (["0.5", "-1e3"], None),
        (["?", "?"], None),
        (["nan", "nan"], None),
        (["|", "|"], TAGS),
        (["a", "d|a"], TAGS),
        (["tags here", "tags here"], TAGS),
        (["0", "0"], LabelSets(("1", "2"), " ")),
    ],
)
def test_placeholders_of_the_other_kinds(cells: list[str], possible: Possible, tmp_path: Path) -> None:
    """Possible answers, one word in all rows, or a number where numbers are written: filled."""
    values = pl.Series([1.5, 2.5]) if possible is None else pl.Series([possible.labels[0]] * 2)
    wanted = [str(value) for value in values.to_list()]
    found = csv.reader(filled(values, possible, tmp_path, cells).decode().splitlines())
    assert [row[1] for row in found][1:] == wanted


@pytest.mark.parametrize(
    ("cells", "possible", "allowed"),
    [
        (["cat", "dog"], None, "any finite number"),
        (["0.5", "?"], None, "any finite number"),
        (["1", "nan"], None, "any finite number"),
        (["0", "0"], TAGS, "a, b c, d, joined by '|'"),
        (["a;d", "d"], TAGS, "a, b c, d, joined by '|'"),
    ],
)
def test_a_template_that_wants_other_than_numbers_or_sets(
    cells: list[str], possible: Possible, allowed: str, tmp_path: Path
) -> None:
    """Labels where numbers would be written, numbers where labels would be, another separator: refused."""
    values = pl.Series([1.5, 2.5]) if possible is None else pl.Series(["a", "d"])
    with pytest.raises(OutputError) as raised:
        filled(values, possible, tmp_path, cells)
    assert f"'s' has the answers {allowed}; the template expects another kind" in str(raised.value)


@pytest.mark.parametrize(
    ("id", "file"),
    [("7", "007.png"), ("a.PNG", "a.png"), ("deep", "below/deep.jpg"), ("x%20y.png", "x y.png")],
)
def test_ids_that_are_written_otherwise_than_their_files(tmp_path: Path, id: str, file: str) -> None:
    """As cells of a table's column of paths are: the one file that fits."""
    for name in (file, "other.png"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).touch()
    ids = ["other", id]
    assert find_images(template(tmp_path, ids), tmp_path / "images") == ["other.png", file]


def test_the_first_column_holds_no_ids(tmp_path: Path) -> None:
    """Ids are unique; the message names the column that is."""
    path = write(tmp_path / "t.csv", ["ans", "ImageID"], [["x", "1"], ["x", "2"]])
    with pytest.raises(DataError, match=r"column 'ImageID' has another text in each row: --id ImageID"):
        read_template(path, ["species"], joint=False)
    assert read_template(path, ["species"], joint=False, id="ImageID").ids == ["1", "2"]


@pytest.mark.parametrize(
    ("labels", "value", "wanted"),
    [
        (["0.0", "1.0"], "0", ["0", "1"]),
        (["0.0", "1.0"], "0.0", ["0.0", "1.0"]),
        (["0.0", "0.5"], "0", ["0.0", "0.5"]),
        (["0.0", "1.0"], "", ["0.0", "1.0"]),
        (["0", "1"], "0", ["0", "1"]),
    ],
)
def test_labels_with_a_fraction_of_0(
    tmp_path: Path, labels: list[str], value: str, wanted: list[str]
) -> None:
    """They are whole numbers where the template's values are, and only there."""
    form = template(tmp_path, ["a", "b"], value)
    found, possible, lines = with_whole_numbers(form, predictions(["a", "b"], labels), {"species": labels})
    assert found["species"].to_list() == wanted
    assert possible == {"species": wanted}
    assert bool(lines) == (wanted != labels)
