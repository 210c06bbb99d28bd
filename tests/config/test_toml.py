"""TOML as text: whatever is written is read back by Python's own reader."""

import tomllib

from hypothesis import given, settings
from hypothesis import strategies as st

from classwise.config.toml import toml_text

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
LEAVES = (
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | TEXT
)
VALUES = (
    LEAVES | st.lists(LEAVES, max_size=3) | st.lists(st.dictionaries(TEXT, LEAVES, max_size=2), max_size=2)
)
TABLES = st.recursive(
    st.dictionaries(TEXT, VALUES, max_size=4),
    lambda inner: st.dictionaries(TEXT, VALUES | inner, max_size=4),
    max_leaves=6,
)


def tree_keys(values: dict, where: str = "") -> list[str]:
    """The dotted keys of all values that are no tables."""
    keys = []
    for key, value in values.items():
        keys += tree_keys(value, f"{where}{key}.") if isinstance(value, dict) else [f"{where}{key}"]
    return keys


@settings(max_examples=150, deadline=None)
@given(TABLES)
def test_any_tree_comes_back(values):
    """Keys and texts of any script, quotes and control characters, numbers to the last bit."""
    assert tomllib.loads(toml_text(values)) == values


@settings(max_examples=100, deadline=None)
@given(TABLES, TEXT)
def test_comments_change_nothing(values, comment):
    """Behind every key stands its comment, whatever text it is, and the values are the same."""
    text = toml_text(values, dict.fromkeys(tree_keys(values), comment))
    assert tomllib.loads(text) == values


def test_comments_stand_behind_their_keys():
    """A dotted key finds its line, in a table whose name has to be quoted as well."""
    values = {"seed": 1, "targets": {"성별 구분": {"column": "c", "labels": None}}}
    comments = {
        "seed": "the seed",
        "targets.성별 구분.column": "two\nlines",
        "targets.성별 구분.labels": "not given",
    }
    assert toml_text(values, comments).splitlines() == [
        "seed = 1  # the seed",
        "",
        "",
        '[targets."성별 구분"]',
        'column = "c"  # two lines',
        "# labels =    # not given",
    ]


def test_keys_without_a_value_are_left_out():
    """TOML has no null: without a comment there is nothing to show."""
    assert tomllib.loads(toml_text({"a": None, "b": [{"x": None, "y": 1}]})) == {"b": [{"y": 1}]}


def test_a_name_comes_first():
    """`name` says which of several kinds a table is, so it leads; at the top of the file the order stays."""
    text = toml_text({"seed": 1, "name": "run", "loss": {"gamma": 2.0, "name": "focal"}})
    assert text.splitlines() == ["seed = 1", 'name = "run"', "", "[loss]", 'name = "focal"', "gamma = 2.0"]


def test_lists_stay_on_one_line():
    """People edit them."""
    assert (
        toml_text({"edges": (30, 60), "labels": ['a"b', "한"]})
        == 'edges = [30, 60]\nlabels = ["a\\"b", "한"]\n'
    )
