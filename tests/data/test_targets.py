"""Targets: the label list, and the answers as numbers."""

import json

import numpy as np
import pytest

from classwise.data.targets import ClassTarget, class_target, edge_labels
from classwise.errors import DataError


def settle(cells, labels=None, edges=None):
    return class_target("t", "c", cells, labels, edges, "t.csv")


@pytest.mark.parametrize(
    ("cells", "labels"),
    [
        (["dog", "cat", "dog", "마스크"], ("cat", "dog", "마스크")),
        (["10", "9", "-1", "2.5"], ("-1", "2.5", "9", "10")),
        (["10", "9", "x"], ("10", "9", "x")),
        (["1", "1.0", "01"], ("01", "1", "1.0")),
        (["10", "9", "nan"], ("10", "9", "nan")),
        (["Nan", "1", "2", "10", "inf"], ("1", "10", "2", "Nan", "inf")),
    ],
)
def test_the_order_of_labels(cells, labels):
    """Text by its characters, numbers by their value, whatever the order of the rows: the list is stable."""
    for turn in range(len(cells)):
        assert settle(cells[turn:] + cells[:turn]).labels == labels


def test_labels_are_not_made_alike():
    """Spaces, case and zeros tell labels apart, as they do in the table."""
    assert settle(["a", "A", " a", "a "]).labels == (" a", "A", "a", "a ")


def test_fixed_labels_keep_their_order():
    """And classes without a row stay in the list: the model has a place for them."""
    target = settle(["normal", "wear"], labels=["wear", "incorrect", "normal"])
    assert target.labels == ("wear", "incorrect", "normal")
    numbers = target.encode(["normal", "wear", "normal"], "t.csv")
    assert numbers.tolist() == [2, 0, 2]
    assert numbers.dtype == np.int64


def test_a_label_list_that_the_data_contradicts():
    """The label, its rows and the nearest allowed one are named."""
    with pytest.raises(DataError) as caught:
        settle(["wear", "weer", "normal", "weer"], labels=["wear", "normal"])
    assert str(caught.value) == (
        "t.csv: column 'c': label 'weer' in rows 2, 4 is not one of target 't'; did you mean 'wear'?"
    )


def test_an_unknown_label_in_a_second_table():
    """The labels are those of training; a table to validate or evaluate on cannot add one."""
    target = settle(["남", "여"])
    assert target.encode(["여"], "valid.csv").tolist() == [1]
    with pytest.raises(DataError, match=r"valid\.csv: column 'c': label 'x' in row 1 .*; allowed: 남, 여"):
        target.encode(["x"], "valid.csv")


@pytest.mark.parametrize(
    ("cells", "options", "shown"),
    [
        (["a", "a"], {}, "'a'"),
        (["b", "b"], {"labels": ["a", "b"]}, "'b'"),
        (["61", "75"], {"edges": [30, 60]}, "'>=60'"),
    ],
)
def test_one_class_only_is_refused(cells, options, shown):
    """There is nothing to learn, however the label list came about."""
    with pytest.raises(DataError, match=rf"column 'c' \(targets\.t\) holds one class only, {shown}"):
        settle(cells, **options)


def test_edges_cut_from_below():
    """[30, 60] is <30, 30 to <60, >=60: a value on an edge belongs above it, to the last bit."""
    target = settle(["18", "60"], edges=[30, 60])
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
        "60",
        "1e300",
    ]
    assert target.encode(cells, "t.csv").tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 2, 2]
    ages = np.arange(0, 100)
    expected = (ages >= 30).astype(int) + (ages >= 60)
    assert target.encode([str(age) for age in ages], "t.csv").tolist() == expected.tolist()


def test_the_competitions_old_are_those_of_exactly_sixty():
    """Ages run to 60, so the rarest class hangs on the edge being in it."""
    assert settle(["59", "60", "30"], edges=[30, 60]).encode(["59", "60"], "t.csv").tolist() == [1, 2]


@pytest.mark.parametrize("cell", ["old", "", "nan", "inf", "30 years", "3,5"])
def test_edges_need_numbers(cell):
    """The row and what stands in it are named."""
    with pytest.raises(DataError) as caught:
        settle(["20", "40", cell], edges=[30])
    assert str(caught.value) == (
        f"t.csv: row 3: column 'c': found {cell!r}, but the target is cut at [30], so it must hold numbers"
    )


def test_edges_with_labels():
    """The classes that are cut may have names of their own, and a table may hold those instead of numbers."""
    target = settle(["20", "40"], labels=["young", "old"], edges=[30])
    assert target.labels == ("young", "old")
    assert target.encode(["29", "30"], "t.csv").tolist() == [0, 1]
    assert target.encode(["old", "young", "old"], "predictions.csv").tolist() == [1, 0, 1]
    with pytest.raises(DataError, match=r"row 1: .*found 'middle'"):
        target.encode(["middle", "old"], "t.csv")


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
    ],
)
def test_names_of_cut_classes(edges, labels):
    """Short where they can be, and never two alike: large or near edges keep all their digits."""
    assert edge_labels(edges) == labels


def test_a_target_travels_with_its_checkpoint():
    """As JSON and back, the edges as well: predictions need no config."""
    for target in (settle(["여", "남"]), settle(["20", "70"], edges=[30, 60.5])):
        again = ClassTarget.from_dict(json.loads(json.dumps(target.as_dict())))
        assert again == target
        assert again.as_dict()["type"] == "class"
