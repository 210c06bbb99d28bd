"""The out-of-fold table, and what is said of folds that lack something."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from classwise.compose.splits import Split
from classwise.data.sources import Samples
from classwise.data.targets import ClassTarget
from classwise.kfold.out_of_fold import fold_warnings, out_of_fold, spread_of

IDS = ["a", "b", "c", "d", "e"]


def split(*ids: str) -> Split:
    """The rows of one fold; the label of a row is the place of its id in the alphabet."""
    samples = Samples(
        where="t.csv", root=Path(), ids=ids, names=ids, groups=None, frame=pl.DataFrame({"id": list(ids)})
    )
    return Split(samples, {"kind": np.array([IDS.index(id) for id in ids])})


def outputs(*ids: str) -> dict[str, torch.Tensor]:
    return {"kind": torch.tensor([[float(IDS.index(id))] for id in ids])}


def test_rows_labels_folds_and_outputs_are_in_the_order_of_the_table() -> None:
    parts = [("d", "b"), ("e",), ("a", "c")]
    rows = out_of_fold(IDS, [split(*part) for part in parts], [outputs(*part) for part in parts])
    assert list(rows.samples.ids) == IDS
    assert rows.samples.frame["id"].to_list() == IDS
    assert rows.labels["kind"].tolist() == rows.outputs["kind"][:, 0].tolist() == [0, 1, 2, 3, 4]
    assert rows.folds.tolist() == [2, 0, 2, 0, 1]


def test_a_row_in_two_folds_is_refused() -> None:
    with pytest.raises(ValueError, match="3 rows out of fold"):
        out_of_fold(IDS, [split("a", "b"), split("b")], [outputs("a", "b"), outputs("b")])


def test_rows_that_are_for_the_test_are_left_out() -> None:
    rows = out_of_fold(IDS, [split("c"), split("a")], [outputs("c"), outputs("a")])
    assert list(rows.samples.ids) == ["a", "c"]


def warnings(labels: list[int], folds: list[int], groups: list[str] | None = None) -> list[str]:
    target = ClassTarget(name="kind", type="class", labels=("cat", "dog", "eel"), column="kind")
    return fold_warnings(
        [target], {"kind": np.array(labels)}, np.array(folds), groups or list("abcdefgh")[: len(folds)]
    )


def test_folds_that_lack_a_class_are_named() -> None:
    found = warnings([0, 0, 0, 1, 1, 1, 2, 2], [0, 1, 2, 0, 1, 2, 0, 1])
    assert found == ["fold 2 has no rows of kind=eel (2 groups)"]


def test_a_class_in_one_fold_is_never_seen_by_the_model_that_predicts_it() -> None:
    found = warnings([0, 0, 0, 1, 1, 1, 2, 2], [0, 1, 2, 0, 1, 2, 1, 1], list("abcdefgg"))
    assert found == [
        "all rows of kind=eel (1 group) are in fold 1, so the model that predicts them has never seen one"
    ]


def test_a_target_without_a_label_in_a_fold_is_named() -> None:
    found = warnings([0, 0, 1, 1, -1, -1], [0, 1, 0, 1, 2, 2])
    assert found[0] == "fold 2 has no label of 'kind', so it is not scored there"


def test_folds_that_lack_nothing_are_not_spoken_of() -> None:
    assert warnings([0, 1, 2, 0, 1, 2], [0, 0, 0, 1, 1, 1]) == []


def test_the_spread_of_the_folds_is_that_of_a_sample() -> None:
    assert spread_of([1.0, 2.0, 4.0]) == pytest.approx(
        {"mean": 7 / 3, "std": np.std([1, 2, 4], ddof=1), "lowest": 1.0, "highest": 4.0}
    )


def test_a_single_fold_has_no_spread() -> None:
    assert spread_of([1.0]) is None
