"""Labels that are probably the same class, or no class: warned of with counts, and made one by data.unify_labels."""

import numpy as np
import polars as pl
import pytest

from classwise.data.label_spelling import column_warnings, spelling_key, spelling_warnings, unified_labels
from classwise.data.target_from_table import make_target
from classwise.data.targets import Target, target_from_dict
from classwise.errors import ConfigError, DataError

CAFE = "caf\u00e9", "cafe\u0301"  # composed, and decomposed


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("cat", "cat "),
        ("cat", "\u00a0Cat"),  # a no-break space
        ("ice cream", "ice  cream"),
        CAFE,
        ("straße", "STRASSE"),
        ("abc", "\uff41\uff42\uff43"),  # full-width letters
        ("cat", "\ufeffcat\u200b"),  # a byte-order mark and a zero-width space
        ("1", "1.0"),
        ("1", " 01"),
    ],
)
def test_labels_that_are_alike(first: str, second: str) -> None:
    """White space, case, Unicode form and the way a number is written make no other class."""
    assert spelling_key(first) == spelling_key(second)


@pytest.mark.parametrize(
    ("first", "second"), [("cat", "cats"), ("a_b", "a-b"), ("1", "-1"), ("é", "e"), ("1", "1_0")]
)
def test_labels_that_are_not_alike(first: str, second: str) -> None:
    """Other characters are another class."""
    assert spelling_key(first) != spelling_key(second)


def test_the_most_frequent_spelling_is_the_label() -> None:
    """Without white space around it; of equally frequent ones the first by its characters."""
    assert unified_labels({"cat": 2, "Cat ": 5, "dog": 1, "Dog": 1}) == {"Cat", "Dog"}


def test_warnings_count_rows_and_name_the_key() -> None:
    """One line for what is alike, one for what looks like a missing value; none for other labels."""
    cells = ["cat"] * 3 + ["cat "] * 2 + ["NaN", "n/a", None, "", "dog"]
    alike, missing = column_warnings("label", cells, separator=None)
    assert "'cat' (3 rows), 'cat ' (2 rows)" in alike
    assert "data.unify_labels = true" in alike
    assert "'NaN' (1 row)" in missing
    assert "'n/a' (1 row)" in missing
    assert not column_warnings("label", ["cat", "dog", "-1"], separator=None)
    assert column_warnings("label", cells, separator=None, unified=True) == [missing]


def test_labels_of_a_list_are_compared_one_by_one() -> None:
    """The cells of a multilabel column are split first."""
    (warning,) = column_warnings("tags", ["red|Big", "big|red", "|"], separator="|")
    assert "'Big' (1 row), 'big' (1 row)" in warning
    assert "red" not in warning


def test_groups_that_are_alike_may_leak() -> None:
    """A person written in two ways could be on both sides of the split."""
    (warning,) = spelling_warnings("data.group", {"p1": 2, "P1": 1, "nan": 1}, unified=False, what="groups")
    assert "both sides of the split" in warning


def target_of(frame: pl.DataFrame, unify: bool, **keys: object) -> Target:
    given = {
        "type": "class",
        "column": "label",
        "columns": None,
        "labels": None,
        "edges": None,
        "separator": None,
    }
    return make_target(
        "label",
        **(given | keys),
        query=None,
        frame=frame,
        where="t.csv",
        unify=unify,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("type", ["class", "ordinal"])
def test_unified_labels_are_one_class_in_every_table(type: str) -> None:
    """Also in a table whose spellings the first one did not have, and after a round trip through a checkpoint."""
    frame = pl.DataFrame({"label": ["1", "1.0", "2", " 2", "2"]})
    target = target_of(frame, unify=True, type=type)
    assert target.labels == ("1", "2")
    assert target.encode(frame, "t.csv").tolist() == [0, 0, 1, 1, 1]
    restored = target_from_dict(target.as_dict())
    assert restored.encode(pl.DataFrame({"label": ["02", None, "1 "]}), "valid.csv").tolist() == [1, -1, 0]


def test_unified_labels_in_one_cell_are_one_label() -> None:
    """`red|Red` says red once."""
    frame = pl.DataFrame({"label": ["red|Red", "blue", "red", "|"]})
    target = target_of(frame, unify=True, type="multilabel", separator="|")
    assert target.labels == ("blue", "red")
    np.testing.assert_array_equal(target.encode(frame, "t.csv"), [[0, 1], [1, 0], [0, 1], [0, 0]])


def test_as_written_a_known_label_in_another_spelling_is_refused_with_the_key_that_takes_it() -> None:
    """A validation table may be written by another program than the training table."""
    target = target_of(pl.DataFrame({"label": ["cat", "dog"]}), unify=False)
    with pytest.raises(DataError, match=r"label 'Cat' in row 1 .* data\.unify_labels = true"):
        target.encode(pl.DataFrame({"label": ["Cat", "dog"]}), "valid.csv")
    with pytest.raises(DataError) as error:
        target.encode(pl.DataFrame({"label": ["bird", "dog"]}), "valid.csv")
    assert "unify" not in str(error.value)


def test_a_list_of_labels_must_not_hold_one_twice() -> None:
    """The config's own list, in which two spellings would be one class."""
    frame = pl.DataFrame({"label": ["cat", "dog"]})
    with pytest.raises(ConfigError, match=r"targets\.label\.labels: found 'cat' and 'Cat'"):
        target_of(frame, unify=True, labels=["cat", "Cat", "dog"])
    assert target_of(frame, unify=False, labels=["cat", "Cat", "dog"]).labels == ("cat", "Cat", "dog")
