"""A split that the table gives: data.split and data.fold."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from classwise.compose.dataset import prepare
from classwise.compose.splits import DatasetSplits
from classwise.config.load import absolute_paths, make_config
from classwise.console import Console
from classwise.errors import ClasswiseError, ConfigError

Row = dict[str, Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty-four different images, 00.png to 23.png."""
    for number in range(24):
        image = np.random.default_rng(number).integers(0, 255, (8, 8, 3), np.uint8)
        (tmp_path / f"{number:02}.png").write_bytes(cv2.imencode(".png", image)[1].tobytes())
    return tmp_path


def rows_with(cells: Sequence[str]) -> list[Row]:
    """Rows of two kinds in turn, with these cells in the column `part`, again and again."""
    return [
        {
            "path": f"{number:02}.png",
            "kind": "ab"[number % 2],
            "part": cells[number % len(cells)],
            "who": f"p{number // 2}",
        }
        for number in range(24)
    ]


@pytest.fixture
def splits_of(folder: Path, make_table: Callable[..., Path]) -> Callable[..., DatasetSplits]:
    """What `prepare` makes of a table of these rows."""

    def make(rows: Sequence[Row], sides: Any = None, **data: Any) -> DatasetSplits:
        make_table(folder / "samples.csv", rows)
        tree = {
            "data": {"source": "samples.csv", "workers": 0, "cache": "off", "valid": 0.25, **data},
            "targets": {"kind": {"column": "kind"}},
        }
        config = absolute_paths(make_config(tree), folder)
        return prepare(config, Console(quiet=True), use_cache=False, sides=sides)

    return make


def parts(splits: DatasetSplits) -> dict[str, list[int]]:
    """The numbers of the images of each split."""
    return {name: [int(id[:2]) for id in split.samples.ids] for name, split in splits.by_name.items()}


def test_words_for_the_parts(splits_of: Callable[..., DatasetSplits]) -> None:
    """In any case, with spaces around them; each row is where its cell says, in the order of the table."""
    found = parts(
        splits_of(rows_with([" Train", "train", "VAL", "validation", "test ", "held-out"]), split="part")
    )
    assert found == {
        "train": [n for n in range(24) if n % 6 in (0, 1)],
        "valid": [n for n in range(24) if n % 6 in (2, 3)],
        "test": [n for n in range(24) if n % 6 in (4, 5)],
    }


def test_values_that_the_config_explains(splits_of: Callable[..., DatasetSplits]) -> None:
    """Numbers mean what split_values says; rows to skip are left out, which is said."""
    values = {"0": "train", "1": "valid", "2": "skip", "": "test"}
    splits = splits_of(rows_with(["0", "0", "1", "1", "2", ""]), split="part", split_values=values)
    found = parts(splits)
    assert found["test"] == [5, 11, 17, 23]
    assert sorted(n for numbers in found.values() for n in numbers) == [n for n in range(24) if n % 6 != 4]
    assert any("4 rows left out, as column 'part' says (data.split)" in text for text in splits.warnings)


def test_what_the_column_does_not_give_is_drawn(splits_of: Callable[..., DatasetSplits]) -> None:
    """Without validation rows they are drawn from the training rows; the test stays what it is."""
    found = parts(splits_of(rows_with(["train", "train", "test"]), split="part"))
    assert found["test"] == list(range(2, 24, 3))
    assert len(found["valid"]) == 4  # a quarter of the rows that are not for the test
    assert not set(found["train"]) & set(found["valid"])
    found = parts(splits_of(rows_with(["train", "val", "train"]), split="part", test=0.25))
    assert found["valid"] == list(range(1, 24, 3))
    assert len(found["test"]) == 4


def test_a_recorded_split_is_kept(splits_of: Callable[..., DatasetSplits]) -> None:
    """A run that goes on has the same rows, whether the column gives all of them or some are drawn."""
    for cells in (["train", "val", "train"], ["train", "train", "test"]):
        first = splits_of(rows_with(cells), split="part")
        sides = [[id, name] for name, split in first.by_name.items() for id in split.samples.ids]
        assert parts(splits_of(rows_with(cells), sides=sides, split="part")) == parts(first)
    swapped = [[id, {"train": "valid", "valid": "train"}.get(name, name)] for id, name in sides]
    assert parts(splits_of(rows_with(cells), sides=swapped, split="part"))["valid"] == parts(first)["train"]


def test_copies_are_in_one_part(folder: Path, splits_of: Callable[..., DatasetSplits]) -> None:
    """An image of a later part is not trained on, under whatever name; both names are in the warning."""
    (folder / "00.png").write_bytes((folder / "02.png").read_bytes())
    (folder / "03.png").write_bytes((folder / "01.png").read_bytes())
    splits = splits_of(rows_with(["train", "val", "test", "train"]), split="part")
    found = parts(splits)
    assert 0 not in found["train"]
    assert 3 not in found["train"]
    assert {1} < set(found["valid"])
    text = next(text for text in splits.warnings if "left out of their part" in text)
    assert text.startswith("2 rows left out")
    assert "'00.png' (train) is '02.png' (test)" in text
    assert "'03.png' (train) is '01.png' (valid)" in text
    sides = [[id, name] for name, split in splits.by_name.items() for id in split.samples.ids]
    assert parts(splits_of(rows_with(["train", "val", "test", "train"]), sides=sides, split="part")) == found


@pytest.mark.parametrize(("valid_fold", "valid"), [(None, 2), ("10", 10), ("9", 9)])
def test_folds(splits_of: Callable[..., DatasetSplits], valid_fold: str | None, valid: int) -> None:
    """The rows of one fold validate, the first by number if none is named."""
    cells = ["9", "10", "2"]
    found = parts(splits_of(rows_with(cells), fold="part", valid_fold=valid_fold))
    assert found["valid"] == [n for n in range(24) if int(cells[n % 3]) == valid]
    assert len(found["train"]) == 16


@pytest.mark.parametrize(
    ("cells", "data", "says"),
    [
        (["train", "x"], {"split": "part"}, "column 'part' (data.split): found 'x' in rows 2, 4"),
        (["0", "1"], {"split": "part"}, 'data.split_values = { "0" = "train", "1" = "train" }'),
        (["train", ""], {"split": "part"}, "found '' in rows 2, 4"),
        (["val", "test"], {"split": "part"}, "no labeled row is for training (data.split)"),
        (["a"], {"fold": "part"}, "all rows are of fold 'a'"),
        (
            ["a", "b"],
            {"fold": "part", "valid_fold": "c"},
            "no row is of fold 'c' (data.valid_fold); allowed: 'a', 'b'",
        ),
        (["train", "test"], {"split": "part", "test": 0.2}, "data.test: found 0.2, but the column 'part'"),
        (["train", "val"], {"split": "part", "group": "who"}, "group 'p0' is in another part of it too"),
        (["train", "val"], {"split": "gone"}, "no column 'gone' (data.split)"),
    ],
)
def test_what_is_refused(
    splits_of: Callable[..., DatasetSplits], cells: list[str], data: Row, says: str
) -> None:
    """The key, the cell and its rows, what is allowed."""
    with pytest.raises(ClasswiseError) as caught:
        splits_of(rows_with(cells), **data)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"split": "a", "fold": "b"}, "allowed: one of them"),
        ({"split_values": {"0": "train"}}, "found without data.split"),
        ({"valid_fold": "0"}, "found without data.fold"),
        ({"split": "a", "split_values": {"0": "valid"}}, 'one of the values must mean "train"'),
        ({"fold": "a", "valid": "v.csv"}, "data.valid is a table"),
        ({"split": "a", "split_values": {"0": "training"}}, "data.split_values.0"),
    ],
)
def test_keys_that_contradict_each_other(data: Row, says: str) -> None:
    """Refused before anything is read."""
    with pytest.raises(ConfigError) as caught:
        make_config({"data": {"source": "x.csv", **data}, "targets": {"a": {"column": "a"}}})
    assert says in str(caught.value)


def test_a_table_beside_a_column(
    folder: Path, make_table: Callable[..., Path], splits_of: Callable[..., DatasetSplits]
) -> None:
    """Two sources of validation rows are one too many."""
    make_table(folder / "v.csv", rows_with(["val"])[22:])
    with pytest.raises(ClasswiseError, match=r"image '22.png' is in"):
        splits_of(rows_with(["train", "val"]), split="part", valid="v.csv")


@pytest.mark.parametrize("key", ["split", "fold"])
def test_a_column_beside_no_validation(splits_of: Callable[..., DatasetSplits], key: str) -> None:
    """data.valid = 0 contradicts a column that gives validation rows; the message names the column."""
    with pytest.raises(ConfigError, match=rf"found 0\.0, but the column 'part' \(data\.{key}\) gives"):
        splits_of(rows_with(["train", "val"]), valid=0.0, **{key: "part"})
