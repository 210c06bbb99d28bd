"""Which labels of a table are the run's, written as another number of the same value."""

import polars as pl

from classwise.data.targets import ClassTarget
from classwise.run.labels_by_value import with_labels_by_value


def matched(labels: tuple[str, ...], cells: list[str]) -> list[str]:
    target = ClassTarget("label", "class", "label", labels)
    frame, _ = with_labels_by_value([target], pl.DataFrame({"label": cells}), "table.csv")
    return frame["label"].to_list()


def test_the_value_says_which_label_it_is() -> None:
    assert matched(("1", "2"), ["1.0", "2", "02", "3.0"]) == ["1", "2", "2", "3.0"]


def test_long_numbers_are_not_rounded() -> None:
    """Above 2 ** 53 neighboring integers are one floating-point number."""
    labels = ("10000000000000001", "2")
    assert matched(labels, ["10000000000000000"]) == ["10000000000000000"]
    assert matched(labels, ["10000000000000001.0"]) == ["10000000000000001"]
