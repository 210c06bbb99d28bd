"""Targets: the label list, and the labels as numbers, for every type."""

import json
import math

import numpy as np
import polars as pl
import pytest

from classwise.data.cells import edge_labels
from classwise.data.target_from_table import make_target
from classwise.data.targets import (
    ClassTarget,
    MultilabelTarget,
    RankingTarget,
    RegressionTarget,
    target_from_dict,
)
from classwise.errors import ConfigError, DataError


def table(**columns):
    return pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String))


def target_of(
    cells, labels=None, edges=None, type="class", separator=None, queries=None, where="t.csv", columns=None
):
    """A target of one column `c`; with `queries`, of the column `q` too."""
    frame = table(c=cells) if queries is None else table(c=cells, q=queries)
    query = None if queries is None else "q"
    return make_target("t", type, "c", columns, labels, edges, separator, query, frame, where)


def encode(target, cells, where="t.csv", queries=None):
    return target.encode(table(c=cells) if queries is None else table(c=cells, q=queries), where)


def make_flags(**columns):
    """A multilabel target of columns of 0 and 1."""
    return make_target(
        "t", "multilabel", None, list(columns), None, None, None, None, table(**columns), "t.csv"
    )


@pytest.mark.parametrize(
    ("cells", "labels"),
    [
        (["dog", "cat", "dog", "마스크"], ("cat", "dog", "마스크")),
        (["10", "9", "-1", "2.5"], ("-1", "2.5", "9", "10")),
        (["10", "9", "x"], ("10", "9", "x")),
        (["1", "1.0", "01"], ("01", "1", "1.0")),
        (["10", "9", "nan"], ("10", "9", "nan")),
        (["Nan", "1", "2", "10", "inf"], ("1", "10", "2", "Nan", "inf")),
        (["b", None, " ", "a"], ("a", "b")),
    ],
)
def test_the_order_of_labels(cells, labels):
    """Text by its characters, numbers by their value, whatever the order of the rows: the list is stable. An
    empty cell is no label."""
    for turn in range(len(cells)):
        assert target_of(cells[turn:] + cells[:turn]).labels == labels


def test_labels_are_not_made_alike():
    """Spaces, case and zeros tell labels apart, as they do in the table."""
    assert target_of(["a", "A", " a", "a "]).labels == (" a", "A", "a", "a ")


def test_fixed_labels_keep_their_order():
    """And classes without a row stay in the list: the model has a place for them."""
    target = target_of(["normal", "wear"], labels=["wear", "incorrect", "normal"])
    assert target.labels == ("wear", "incorrect", "normal")
    numbers = encode(target, ["normal", "wear", "normal"])
    assert numbers.tolist() == [2, 0, 2]
    assert numbers.dtype == np.int64


def test_a_label_list_that_the_data_contradicts():
    """The label, its rows and the nearest allowed one are named."""
    with pytest.raises(DataError) as caught:
        target_of(["wear", "weer", None, "normal", "weer"], labels=["wear", "normal"])
    assert str(caught.value) == (
        "t.csv: column 'c': label 'weer' in rows 2, 5 is not one of target 't'; did you mean 'wear'?"
    )


def test_an_unknown_label_in_a_second_table():
    """The labels are those of training; a table to validate or evaluate on cannot add one."""
    target = target_of(["남", "여"])
    assert encode(target, ["여"], "valid.csv").tolist() == [1]
    with pytest.raises(DataError, match=r"valid\.csv: column 'c': label 'x' in row 1 .*; allowed: 남, 여"):
        encode(target, ["x"], "valid.csv")


@pytest.mark.parametrize(
    ("cells", "options", "shown"),
    [
        (["a", "a", None], {}, "class only, 'a'"),
        (["b", "b"], {"labels": ["a", "b"]}, "class only, 'b'"),
        (["61", "75"], {"edges": [30, 60]}, "class only, '>=60'"),
        (["3", "3"], {"type": "ordinal"}, "class only, '3'"),
        (["3.5", "3.50", ""], {"type": "regression"}, "value only, 3.5"),
    ],
)
def test_one_class_only_is_refused(cells, options, shown):
    """There is nothing to learn, however the label list came about."""
    with pytest.raises(DataError, match=rf"column 'c' \(targets\.t\) holds one {shown}; there is nothing"):
        target_of(cells, **options)


@pytest.mark.parametrize("type", ["class", "ordinal", "multilabel", "regression", "ranking"])
def test_a_column_without_any_answer_is_refused(type):
    """Empty cells mask rows, but not all of them."""
    with pytest.raises(DataError, match=r"t\.csv: column 'c' \(targets\.t\): every cell is empty"):
        target_of([None, " ", None], type=type, queries=["1", "1", "2"])


@pytest.mark.parametrize("type", ["class", "ordinal", "multilabel", "regression", "ranking"])
def test_a_missing_column_is_named(type):
    """The table, the key of the config and the nearest column."""
    frame = table(colour=["1", "2"], q=["1", "1"])
    with pytest.raises(
        DataError, match=r"t\.csv: no column 'color' \(targets\.t\.column\); did you mean 'col"
    ):
        make_target("t", type, "color", None, None, None, None, "q", frame, "t.csv")


def test_a_missing_column_of_several_is_named():
    """The columns of labels and the query have keys of their own."""
    frame = table(cat=["1", "0"], q=["1", "1"])
    with pytest.raises(DataError, match=r"no column 'cats' \(targets\.t\.columns\); did you mean 'cat'"):
        make_target("t", "multilabel", None, ["cat", "cats"], None, None, None, None, frame, "t.csv")
    with pytest.raises(DataError, match=r"no column 'qq' \(targets\.t\.query\); did you mean 'q'"):
        make_target("t", "ranking", "cat", None, None, None, None, "qq", frame, "t.csv")


def test_what_the_config_lacks():
    """A key that a type needs, two that exclude each other and a type that there is not are named."""
    frame = table(c=["1", "2"])
    cases = [
        ({"type": "regresion"}, r"targets\.t\.type: found 'regresion', did you mean 'regression'"),
        ({"type": "ranking"}, r"targets\.t\.query: not given"),
        ({"type": "class", "column": None}, r"targets\.t\.column: not given"),
        ({"type": "multilabel", "columns": ["c"]}, r"targets\.t\.column: not together with columns"),
        (
            {"type": "multilabel", "columns": ["c"], "column": None, "labels": ["a"]},
            r"targets\.t\.labels: not tog",
        ),
    ]
    for options, message in cases:
        given = (
            {"column": "c"} | dict.fromkeys(["columns", "labels", "edges", "separator", "query"]) | options
        )
        with pytest.raises(ConfigError, match=message):
            make_target(name="t", frame=frame, where="t.csv", **given)


@pytest.mark.parametrize("type", ["class", "ordinal"])
def test_edges_cut_from_below(type):
    """[30, 60] is <30, 30 to <60, >=60: a value on an edge belongs above it, to the last bit."""
    target = target_of(["18", "60"], edges=[30, 60], type=type)
    assert target.labels == ("<30", "30 to <60", ">=60")
    cells = [
        "-5",
        "29",
        "29.999999999999996",
        "30",
        "30.0",
        "3e1",
        " 59 ",
        "59.99999999999999",
        None,
        "60",
        "1e300",
    ]
    assert encode(target, cells).tolist() == [0, 0, 0, 1, 1, 1, 1, 1, -1, 2, 2]
    ages = np.arange(0, 100)
    expected = (ages >= 30).astype(int) + (ages >= 60)
    assert encode(target, [str(age) for age in ages]).tolist() == expected.tolist()


def test_the_competitions_old_are_those_of_exactly_sixty():
    """Ages run to 60, so the rarest class hangs on the edge being in it."""
    assert encode(target_of(["59", "60", "30"], edges=[30, 60]), ["59", "60"]).tolist() == [1, 2]


@pytest.mark.parametrize("cell", ["old", "nan", "inf", "30 years", "3,500"])
def test_edges_need_numbers(cell):
    """The row and what stands in it are named."""
    with pytest.raises(DataError) as caught:
        target_of(["20", "40", cell], edges=[30])
    assert str(caught.value) == (
        f"t.csv: row 3: column 'c': found {cell!r}, but the target is cut at [30], so it must hold numbers"
    )


def test_edges_with_labels():
    """The classes that are cut may have names of their own, and a table may hold those instead of numbers."""
    target = target_of(["20", "40"], labels=["young", "old"], edges=[30])
    assert target.labels == ("young", "old")
    assert encode(target, ["29", "30", ""]).tolist() == [0, 1, -1]
    assert encode(target, ["old", "young", None, "old"]).tolist() == [1, 0, -1, 1]
    with pytest.raises(DataError, match=r"row 1: .*found 'middle'"):
        encode(target, ["middle", "old"])


@pytest.mark.parametrize(
    ("edges", "labels"),
    [
        ([0.5], ["<0.5", ">=0.5"]),
        ([30.0, 60.5], ["<30", "30 to <60.5", ">=60.5"]),
        ([-1, 0], ["<-1", "-1 to <0", ">=0"]),
        (
            [1000001, 1000002, 1000003],
            ["<1000001", "1000001 to <1000002", "1000002 to <1000003", ">=1000003"],
        ),
        ([0.1, 0.1 + 1e-15], ["<0.1", "0.1 to <0.100000000000001", ">=0.100000000000001"]),
        ([], ["any"]),
    ],
)
def test_names_of_cut_classes(edges, labels):
    """Short where they can be, and never two alike: large or near edges keep all their digits."""
    assert edge_labels(edges) == labels


def test_levels_are_in_order():
    """Numbers by value, text as the config says; a class target and an ordinal one number alike."""
    assert target_of(["10", "9", "2.5", None], type="ordinal").labels == ("2.5", "9", "10")
    target = target_of(["good", "bad"], labels=["bad", "fair", "good"], type="ordinal")
    assert (target.type, target.labels) == ("ordinal", ("bad", "fair", "good"))
    assert encode(target, ["good", None, "fair"]).tolist() == [2, -1, 1]


@pytest.mark.parametrize(
    ("cells", "what"),
    [(["low", "high"], "text"), (["1", "x"], "text"), (["1", "1.0", "2"], "one number written in several")],
)
def test_levels_whose_order_is_not_known(cells, what):
    """The alphabet is no order of levels, and two spellings of a number are not two levels: the key is named."""
    with pytest.raises(
        ConfigError, match=rf"targets\.t\.labels: not given, and t\.csv: column 'c' holds {what}"
    ):
        target_of(cells, type="ordinal")


def test_an_empty_cell_masks_the_row():
    """-1 for a class, NaN for numbers and labels; `is_labeled` says which rows have one."""
    for type in ("class", "ordinal"):
        encoded = encode(target := target_of(["1", "2"], type=type), ["2", None, "  ", "1"])
        assert encoded.tolist() == [1, -1, -1, 0]
        assert target.is_labeled(encoded).tolist() == [True, False, False, True]
        np.testing.assert_array_equal(target.class_numbers(encoded), encoded)
        assert target.is_class_like
    encoded = encode(target := target_of(["1", "2"], type="regression"), ["2", None, "1.5"])
    np.testing.assert_array_equal(encoded, np.array([2, math.nan, 1.5]))
    assert target.is_labeled(encoded).tolist() == [True, False, True]


def test_labels_of_one_cell():
    """Split at the separator, white space around a label aside; the separator alone means none of them."""
    cells = ["dog| cat", "|", None, "cat", " ", " | ", "dog |bird"]
    target = target_of(cells, type="multilabel")
    assert (target.type, target.labels, target.columns) == ("multilabel", ("bird", "cat", "dog"), ("c",))
    encoded = encode(target, cells)
    unknown = [math.nan] * 3
    expected = [[0, 1, 1], [0, 0, 0], unknown, [0, 1, 0], unknown, [0, 0, 0], [1, 0, 1]]
    np.testing.assert_array_equal(encoded, np.array(expected, dtype=np.float32))
    assert encoded.dtype == np.float32
    assert target.is_labeled(encoded).tolist() == [True, True, False, True, False, True, True]


@pytest.mark.parametrize("separator", [";", ", ", " ", " - "])
def test_another_separator(separator):
    """Of any characters, a space among them: alone it still means none, and nothing at all still unknown."""
    target = target_of([f"a{separator}b", "b"], type="multilabel", separator=separator)
    encoded = encode(target, [f"b{separator}a", separator, "b", None])
    np.testing.assert_array_equal(encoded[:3], np.array([[1, 1], [0, 0], [0, 1]], dtype=np.float32))
    assert np.isnan(encoded[3]).all()


def test_fixed_labels_of_one_cell():
    """Their order stays, a label without a row too; another one is an error with its row."""
    target = target_of(["a", "b|a"], labels=["b", "never", "a"], type="multilabel")
    assert encode(target, ["a|b"]).tolist() == [[1, 0, 1]]
    with pytest.raises(DataError, match=r"t\.csv: column 'c': label 'nevr' in row 2 is not .* mean 'never'"):
        encode(target, ["a", "b|nevr"])


@pytest.mark.parametrize(
    ("cell", "what"),
    [("a|b|a", "label 'a' twice"), ("a||b", "a separator without a label"), ("a|", "a separator without")],
)
def test_a_cell_of_labels_that_cannot_be_read(cell, what):
    """A label twice or none beside a separator is more likely a slip than meant: row and cell are named."""
    with pytest.raises(DataError) as caught:
        target_of(["a", "b", cell], type="multilabel")
    assert str(caught.value).startswith(f"t.csv: row 3: column 'c': found {cell!r}, with {what}")


def test_labels_in_columns_of_their_own():
    """0 and 1 in the ways that tables write them; each cell may be unknown alone."""
    target = make_flags(cat=["1", "0", None, "1.0"], dog=["true", "FALSE", "0", ""])
    assert (target.labels, target.columns) == (("cat", "dog"), ("cat", "dog"))
    encoded = target.encode(table(dog=["0", None, None], cat=["true", " 1 ", ""]), "t.csv")
    nan = math.nan
    np.testing.assert_array_equal(encoded, np.array([[1, 0], [1, nan], [nan, nan]], dtype=np.float32))
    assert target.is_labeled(encoded).tolist() == [True, True, False]
    with pytest.raises(
        DataError, match=r"t\.csv: row 2: column 'dog': found '2'; allowed .* 0, 1, false, true"
    ):
        make_flags(cat=["1", "0"], dog=["1", "2"])


def test_labels_that_tell_nothing_apart():
    """Every row with the same labels: nothing to learn."""
    with pytest.raises(DataError, match=r"column 'c' \(targets\.t\): every label is in all rows or in none"):
        target_of(["a|b", "b|a", None], type="multilabel")
    with pytest.raises(DataError, match=r"columns 'x', 'y' \(targets\.t\): every label"):
        make_flags(x=["1", "1"], y=["0", None])


def test_numbers_in_the_columns_unit():
    """float64, every bit of what the cell says."""
    target = target_of(["1", "2"], type="regression")
    encoded = encode(target, ["0.1", "-3e5", " 7 "])
    assert encoded.tolist() == [0.1, -3e5, 7.0]
    assert encoded.dtype == np.float64
    assert (target.labels, target.is_class_like) == ((), False)
    with pytest.raises(ValueError, match="has no classes"):
        target.class_numbers(encoded)


@pytest.mark.parametrize("cell", ["tall", "nan", "-inf", "1,500", "5 m"])
@pytest.mark.parametrize("type", ["regression", "ranking"])
def test_what_is_no_number(cell, type):
    """The row, the cell and what is allowed."""
    with pytest.raises(DataError, match=rf"t\.csv: row 3: column 'c': found '{cell}', but .*must"):
        target_of(["1", "2", cell], type=type, queries=["1", "1", "1"])


def test_a_number_with_edges_has_a_class():
    """As a class target cut at the same edges; unknown stays unknown."""
    cells = ["29.9", "30", None, "75"]
    target = target_of(cells, edges=[30, 60], type="regression")
    assert (target.labels, target.is_class_like) == (("<30", "30 to <60", ">=60"), True)
    numbers = target.class_numbers(encode(target, cells))
    assert numbers.tolist() == encode(target_of(cells, edges=[30, 60]), cells).tolist() == [0, 1, -1, 2]
    assert numbers.dtype == np.int64
    named = target_of(cells, edges=[30], labels=["young", "old"], type="regression")
    assert named.labels == ("young", "old")


def test_relevance_and_queries():
    """Whole numbers, and a number for each query in the order in which they come."""
    target = target_of(["0", "2", "1"], type="ranking", queries=["x", "x", "y"])
    encoded = encode(target, ["2", None, "0.0", "1"], queries=["b", "a", "b", "c"])
    assert encoded.tolist() == [[2, 0], [-1, 1], [0, 0], [1, 2]]
    assert encoded.dtype == np.int64
    assert target.is_labeled(encoded).tolist() == [True, False, True, True]
    assert (target.columns, target.labels, target.is_class_like) == (("c", "q"), (), False)


@pytest.mark.parametrize("cell", ["-1", "0.5", "1e300"])
def test_relevance_is_a_whole_number(cell):
    """Neither negative, nor a fraction, nor too large to be exact."""
    with pytest.raises(
        DataError, match=rf"t\.csv: row 2: column 'c': found '{cell}', .*whole number: 0, 1, 2"
    ):
        target_of(["1", cell], type="ranking", queries=["1", "1"])


def test_every_row_has_a_query():
    """Also one whose relevance is unknown: its rows are named."""
    with pytest.raises(DataError, match=r"t\.csv: column 'q' \(targets\.t\.query\) is empty in rows 2, 3"):
        target_of(["1", None, "0"], type="ranking", queries=["x", None, " "])


def test_queries_without_an_order():
    """Where every query's images are equally relevant, there is nothing to rank."""
    with pytest.raises(DataError, match="no query has two different relevances"):
        target_of(["1", "1", "0", None], type="ranking", queries=["x", "x", "y", "y"])


def test_strata_of_classes():
    """A class or ordinal target is its own stratum; a multilabel one has one for the rows of each label."""
    for type in ("class", "ordinal"):
        (stratum,) = (target := target_of(["1", "2"], type=type)).strata(encode(target, ["2", None, "1"]))
        assert (stratum.name, stratum.numbers.tolist(), stratum.labels) == ("t", [1, -1, 0], ("1", "2"))
        assert stratum.required
    target = target_of(["a|b", "b"], type="multilabel")
    strata = target.strata(encode(target, ["a", None, "|", "b|a"]))
    assert [(s.name, s.numbers.tolist(), s.labels) for s in strata] == [
        ("t", [0, -1, -1, 0], ("a",)),
        ("t", [-1, -1, -1, 0], ("b",)),
    ]
    assert all(s.required for s in strata)


def test_strata_of_numbers():
    """Ten bins with as many rows each, every value its own bin where there are few, or the classes of the edges;
    nothing is required."""
    values = np.random.default_rng(0).permutation(np.arange(200) ** 2).astype(float)
    target = target_of(["1", "2"], type="regression")
    (stratum,) = target.strata(np.append(values, math.nan))
    assert np.bincount(stratum.numbers[:-1]).tolist() == [20] * 10
    assert stratum.numbers[-1] == -1
    assert len(stratum.labels) == 10
    assert (np.diff(stratum.numbers[:-1][np.argsort(values)]) >= 0).all()
    (few,) = target.strata(np.array([5.0, 1.0, math.nan, 5.0, 2.0]))
    assert few.numbers.tolist() == [2, 0, -1, 2, 1]
    (one,) = target.strata(np.array([5.0, math.nan, 5.0]))
    assert (one.numbers.tolist(), one.labels) == ([0, -1, 0], ["any"])
    (cut,) = target_of(["1", "50"], edges=[30], type="regression").strata(np.array([31.0, math.nan, 1.0]))
    assert (cut.numbers.tolist(), tuple(cut.labels)) == ([1, -1, 0], ("<30", ">=30"))
    assert not any(s.required for s in (stratum, few, one, cut))


def test_strata_of_relevance():
    """The grades, whatever the queries; nothing is required."""
    target = target_of(["1", "0"], type="ranking", queries=["x", "x"])
    (stratum,) = target.strata(np.array([[2, 0], [-1, 0], [0, 1], [7, 1], [2, 1]]))
    assert stratum.numbers.tolist() == [1, -1, 0, 2, 1]
    assert not stratum.required


def test_targets_without_classes():
    """Asking for a class where there is none is an error, not a guess."""
    several = target_of(["a|b", "b"], type="multilabel")
    ranking = target_of(["1", "0"], type="ranking", queries=["x", "x"])
    for target, encoded in (
        (several, encode(several, ["a"])),
        (ranking, encode(ranking, ["1"], queries=["x"])),
    ):
        assert not target.is_class_like
        with pytest.raises(ValueError, match=f"is a {target.type} and has no classes"):
            target.class_numbers(encoded)


def test_a_target_travels_with_its_checkpoint():
    """As JSON and back, the edges as well: predictions need no config."""
    for target, kind in (
        (target_of(["여", "남"]), ClassTarget),
        (target_of(["20", "70"], edges=[30, 60.5]), ClassTarget),
        (target_of(["20", "70"], type="ordinal"), ClassTarget),
        (target_of(["a;b", "b"], type="multilabel", separator=";"), MultilabelTarget),
        (make_flags(cat=["1", "0"], dog=["0", "1"]), MultilabelTarget),
        (target_of(["20", "70"], type="regression"), RegressionTarget),
        (target_of(["20", "70"], type="regression", edges=[30.5]), RegressionTarget),
        (target_of(["1", "0"], type="ranking", queries=["x", "x"]), RankingTarget),
    ):
        again = target_from_dict(json.loads(json.dumps(target.as_dict())))
        assert type(again) is kind
        assert again == target
        assert target_from_dict(target.as_dict()) == target
        assert again.as_dict()["type"] == target.type


# One column for each class, and cells that the config explains


def one_hot(flags=None, missing=(), **columns):
    """A class target of columns of 0 and 1, and its table."""
    frame = table(**columns)
    names = list(columns)
    target = make_target(
        "t", "class", None, names, None, None, None, None, frame, "t.csv", missing=missing, flags=flags
    )
    return target, frame


def test_one_column_for_each_class():
    """The class of a row is the column that is 1; the columns are the labels, without spaces around them."""
    frame = table(**{"cat": ["1", "0", "0.0"], " dog": ["0", "1", "0"], "fox": ["0", " 0", "TRUE"]})
    target = make_target("t", "class", None, frame.columns, None, None, None, None, frame, "t.csv")
    assert target.labels == ("cat", "dog", "fox")
    assert target.columns == ("cat", " dog", "fox")
    assert target.encode(frame, "t.csv").tolist() == [0, 1, 2]
    assert target_from_dict(json.loads(json.dumps(target.as_dict()))) == target


def test_an_unknown_column_of_a_class():
    """Where one column is 1 the class is known; where none is, and one is empty, it is not."""
    target, frame = one_hot(a=["1", "0", "0", "1"], b=["", "1", "", "x"], missing=("x",))
    assert target.encode(frame, "t.csv").tolist() == [0, 1, -1, 0]


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"a": ["1", "1"], "b": ["0", "1"]}, "row 2: of the columns of target 't' .*, 'a' and 'b' is yes"),
        ({"a": ["1", "0", "0"], "b": ["0", "0", "1"]}, "row 2: .*, none is yes; .* exactly one"),
        ({"a": ["1", "0"], "b": ["0", "2"]}, "row 2: column 'b': found '2'; allowed .*flags = "),
        ({"a": ["1", "1"], "b": ["0", "0"]}, "holds one class only, 'a'"),
    ],
)
def test_columns_that_are_no_class(columns, says):
    """Several or none at once: the row is named, and the type for it."""
    with pytest.raises(DataError, match=says):
        one_hot(**columns)


def test_other_words_for_no_and_yes():
    """-1 and 1, N and Y: what the config names, in any case, and nothing else."""
    target, frame = one_hot(flags=("-1", "1"), a=["-1", "1"], b=["1", "-1"])
    assert target.encode(frame, "t.csv").tolist() == [1, 0]
    frame = table(a=["Y", "n"], b=["y", ""])
    target = make_target(
        "t", "multilabel", None, ["a", "b"], None, None, None, None, frame, "t.csv", flags=("N", "Y")
    )
    np.testing.assert_array_equal(target.encode(frame, "t.csv"), [[1, 1], [0, math.nan]])
    with pytest.raises(
        DataError, match=r"column 'a': found '1'; allowed for a label of target 't': '-1' and '2'"
    ):
        one_hot(flags=("-1", "2"), a=["-1", "1"], b=["2", "-1"])


@pytest.mark.parametrize(
    ("type", "cells", "encoded"),
    [
        ("class", ["1", "0", "-1", " nan", "0"], [1, 0, -1, -1, 0]),
        ("ordinal", ["1", "0", "-1", "nan ", "0"], [1, 0, -1, -1, 0]),
        ("regression", ["1.5", "0", "-1", "nan", ""], [1.5, 0, math.nan, math.nan, math.nan]),
    ],
)
def test_cells_that_mean_an_unknown_label(type, cells, encoded):
    """As empty as an empty cell, and no label of the list; also in another table."""
    frame = table(c=cells)
    target = make_target("t", type, "c", *5 * [None], frame, "t.csv", missing=("-1", "nan"))
    np.testing.assert_array_equal(target.encode(frame, "other.csv"), encoded)
    assert target.labels == (() if type == "regression" else ("0", "1"))
    assert target_from_dict(json.loads(json.dumps(target.as_dict()))) == target


def test_cells_that_mean_none_of_the_labels():
    """Not unknown, but without a label: an empty cell, if it is listed."""
    frame = table(c=["a|b", None, "No Finding", "b", "?"])
    target = make_target(
        "t", "multilabel", "c", *5 * [None], frame, "t.csv", missing=("?",), none=("", "No Finding")
    )
    assert target.labels == ("a", "b")
    expected = [[1, 1], [0, 0], [0, 0], [0, 1], [math.nan] * 2]
    np.testing.assert_array_equal(target.encode(frame, "t.csv"), expected)
