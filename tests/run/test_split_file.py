"""split.csv read back: the split of every row, and which rows vary together."""

from pathlib import Path

import polars as pl
import pytest

from classwise.errors import DataError
from classwise.run.folder import RunFolder

IDS = ["a", "b", "c", "d", "e"]


def folder_of(path: Path, groups: list[str] | None, contents: list[str] | None) -> RunFolder:
    """A run directory with four validation rows and a training row."""
    columns: dict[str, list[str] | list[None]] = {
        "id": IDS,
        "group": [None] * len(IDS) if groups is None else groups,
        "split": ["valid"] * 4 + ["train"],
        "path": IDS,
    }
    if contents is not None:
        columns["content"] = contents
    folder = RunFolder(path)
    folder.write_split(pl.DataFrame(columns))
    return folder


@pytest.mark.parametrize(
    ("groups", "contents", "together"),
    [
        (None, ["1", "2", "3", "4", "1"], None),
        (None, None, None),
        (None, ["1", "2", "1", "4", "5"], [{"a", "c"}, {"b"}, {"d"}]),
        (["p", "p", "q", "q", "r"], None, [{"a", "b"}, {"c", "d"}]),
        (["p", "p", "q", "r", "s"], ["1", "2", "3", "2", "5"], [{"a", "b", "d"}, {"c"}]),
    ],
)
def test_rows_with_the_same_image_vary_together(
    tmp_path: Path, groups: list[str] | None, contents: list[str] | None, together: list[set[str]] | None
) -> None:
    """With the groups of the table and without, and in a run of a version that recorded no contents; a copy in another
    split does not count."""
    found = folder_of(tmp_path, groups, contents).groups("valid")
    if found is None or together is None:
        assert found == together
    else:
        assert [
            {id for id in found if found[id] == name} for name in dict.fromkeys(found.values())
        ] == together


def test_images_that_recur_in_queries_make_no_groups(tmp_path: Path) -> None:
    """The unit of a ranking target is the query; the groups of the table count all the same."""
    contents = ["1", "2", "1", "4", "5"]
    assert folder_of(tmp_path, None, contents).groups("valid", by_image=False) is None
    found = folder_of(tmp_path, ["p", "p", "q", "r", "s"], contents).groups("valid", by_image=False)
    assert list((found or {}).values()) == ["p", "p", "q", "r"]


def test_the_split_of_every_row(tmp_path: Path) -> None:
    """By id, in order; an empty cell is named."""
    folder = folder_of(tmp_path, None, None)
    assert folder.sides() == [[id, "train" if id == "e" else "valid"] for id in IDS]
    (tmp_path / "split.csv").write_text("id,group,split,path\na,,train,a\nb,,,b\n")
    with pytest.raises(DataError, match=r"split\.csv: column 'split' .* is empty in row 2"):
        folder.sides()
