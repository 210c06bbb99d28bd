"""What a column of labels holds, by its cells alone."""

from typing import Any

import pytest

from classwise.suggest.kinds import Kind, kind_of, separator_of


def kind(cells: list[Any], column: str = "x", is_named: bool = False) -> Kind | str:
    """The kind of a column with these cells; None is an empty one."""
    return kind_of(column, [None if cell is None else str(cell) for cell in cells], is_named)


@pytest.mark.parametrize(
    ("cells", "separator"),
    [
        (["a|b", "b", "c|a"], "|"),
        (["a;b", "b;a"], ";"),
        (["red, blue", "blue", "red", "green, red"], ","),
        (["1 5 7", "5", "1 7", "2 5", "2"], " "),
        (["scab rust", "rust", "scab", "healthy"], " "),
        (["a, b", "b, a", "a, c", "c, b", "b, c"], ","),  # at several places, so they are no parts of a name
        (["Tomato, healthy", "Tomato, blight", "Potato, healthy", "Potato, blight"], None),
        (["New York, NY", "Austin, TX", "Boston, MA"], None),
        (["late blight", "early blight", "healthy"], None),
        (["red apple", "green apple", "apple", "red pear"], None),
        (["Audi S4 Sedan 2012", "Audi S5 Coupe 2012", "BMW X5 SUV 2007"], None),
        (["AC|DC", "Queen", "Abba"], None),  # one cell, whose parts do not recur
        (["a||b", "a", "b"], None),  # an empty part
        (["10 20 30 40", "11 21 31 41", "12 22 32 42"], None),  # boxes
        (["a man, standing", "a dog, on grass", "two cats"], None),
    ],
)
def test_several_labels_in_a_cell_or_a_name(cells: list[str], separator: str | None) -> None:
    """Labels recur alone and with others; the words of a name do not."""
    assert separator_of(dict.fromkeys(cells, 3))[0] == separator


def test_names_with_a_separator_are_said() -> None:
    """The alternative has the separator; spaces alone are worth no word."""
    found = kind(["Tomato, healthy", "Tomato, blight", "Potato, healthy"] * 3, is_named=True)
    assert isinstance(found, Kind)
    assert found.decisions[0][2] == 'type "multilabel" with separator ","'
    plain = kind(["late blight", "early blight"] * 3)
    assert isinstance(plain, Kind)
    assert plain.decisions == ()


@pytest.mark.parametrize(
    ("cells", "column", "is_named", "type"),
    [
        ([n // 3 for n in range(76)], "label", True, "class"),  # one of them once
        ([n // 3 for n in range(76)], "number", False, "class"),
        ([0, 1] * 6, "x", False, "class"),
        (["0.5", "0.25", "1.0", "1.5"] * 3, "x", False, "regression"),
        (["0,5", "0,25", "1", "1,5"] * 3, "x", False, "regression"),
        ([n * 7 % 90 + 5 for n in range(200)], "age", False, "regression"),
        ([20, 30, 40] * 4, "age", False, "class"),
        (list(range(1000)) * 2, "species_id", True, "class"),  # 0, 1, 2, ...: codes
        ([n * 31 for n in range(500)] * 2, "x", False, "regression"),
        (list(range(12)), "x", False, "regression"),
        ([f"species {n % 290}" for n in range(600)], "x", False, "class"),
    ],
)
def test_classes_or_a_number(cells: list[Any], column: str, is_named: bool, type: str) -> None:
    """Whole numbers that recur are classes, unless the column is named as a quantity is; others are a number."""
    found = kind(cells, column, is_named)
    assert isinstance(found, Kind)
    assert found.type == type


def test_numbers_as_classes_are_said() -> None:
    """With the alternative; two of them are hardly a quantity."""
    found = kind([0, 1, 2] * 4, "label", is_named=True)
    assert isinstance(found, Kind)
    assert found.decisions == (
        (
            "label: 3 classes with numbers as names",
            "column 'label' is named as labels are, and its 3 whole numbers recur",
            'type "regression" predicts a number',
        ),
    )
    binary = kind([0, 1] * 4, "label", is_named=True)
    assert isinstance(binary, Kind)
    assert binary.decisions == ()


@pytest.mark.parametrize(
    ("cells", "missing", "labels"),
    [
        (["a", "b", "nan", None, "NaN", " ", "a", "b"], ["nan", "NaN"], 2),
        ([0, 1, 2, -1, 0, 1], ["-1"], 3),
        ([1, 2, 3, -1, 1, 2], ["-1"], 3),
        ([-1, 1, -1, 1], [], 2),  # no and yes
        ([-1, 0, 1, -2] * 3, [], 4),  # numbers below -1: no mark
        (["none", "mild", "severe", "none"], [], 3),
        (["?", "a", "b", "a"], ["?"], 2),
        (["nan", "a", "nan", "a"], [], 2),  # else there would be one class
    ],
)
def test_unknown_labels(cells: list[Any], missing: list[str], labels: int) -> None:
    """Words for a missing value, and -1 beside codes from 0; what could be a class is one. All of it is said."""
    found = kind(cells, is_named=True)
    assert isinstance(found, Kind)
    assert (found.keys.get("missing", []), found.labels) == (missing, labels)
    said = " ".join(choice for choice, _, _ in found.decisions)
    assert all(repr(cell) in said for cell in missing)
    if "none" in cells:
        assert "'none' (2 rows) taken for a class" in said


@pytest.mark.parametrize(
    ("cells", "is_named", "why"),
    [
        (["a", "a"], True, "one value only"),
        ([None, " "], True, "it is empty"),
        (["a", "b", "c"], True, "every value occurs once"),
        (["a", "b", "c", "d", "d"], False, "4 different values in 5 rows"),
    ],
)
def test_what_is_no_target(cells: list[Any], is_named: bool, why: str) -> None:
    """The reason is for the message."""
    assert why in str(kind(cells, is_named=is_named))
