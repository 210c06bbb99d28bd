"""Which file a cell of the path column names: as it stands, or in one of the ways in which tables differ from it."""

import unicodedata
from pathlib import Path

import pytest

from classwise.data.image_paths import find_images
from classwise.data.images import read_image
from classwise.data.sources import read_source
from classwise.errors import DataError, ImageError
from tests.helpers.scenes import draw


def folder_of(folder: Path, *names: str) -> Path:
    """A folder with an image of each name."""
    for seed, name in enumerate(names):
        draw(folder / name, 0, seed, size=8)
    return folder


def names_of(folder: Path, *cells: str) -> tuple[str, ...]:
    """The files that the cells name."""
    return find_images(cells, [folder], "t.csv").names


def test_a_path_of_a_file_stays_as_it_is(tmp_path: Path) -> None:
    """Letter by letter, with no note; also where another name would fit in another form."""
    folder = folder_of(tmp_path, "a.png", "A.PNG", "sub/1.jpg", "1.jpg", "./x.png")
    cells = ("a.png", "A.PNG", "sub/1.jpg", "1.jpg", "./x.png", "sub/../a.png")
    found = find_images(cells, [folder], "t.csv")
    assert (found.names, found.notes, found.missing) == (cells, (), ())


@pytest.mark.parametrize(
    ("file", "cell", "how"),
    [
        ("7.png", "7", "by the name without its suffix"),
        ("a.b.png", "a.b", "by the name without its suffix"),
        ("7.png", "7.jpg", "by the name without its suffix"),
        ("sub/7.PNG", "sub/7", "by the name without its suffix"),
        ("7.PNG", "7.png", "by the name in another case"),
        ("Sub/x.png", "sub/x.png", "by the name in another case"),
        ("sub/x.png", "sub\\x.png", "by a path with backslashes"),
        ("part_2/7.png", "7", "in a deeper folder"),
        ("part_2/7.png", "7.png", "in a deeper folder"),
        ("deep/train/7.png", "train\\7", "in a deeper folder"),
        (unicodedata.normalize("NFD", "é/ü.png"), "é/ü.png", "by another Unicode form of the name"),
        ("é.png", unicodedata.normalize("NFD", "é.png"), "by another Unicode form of the name"),
        ("007.png", "7", "by the number that the name is"),
        ("7.png", "007", "by the number that the name is"),
        ("7.png", "7.0", "by the number that the name is"),
        ("sub/000.jpg", "sub/0.png", "by the number that the name is"),
        ("7.png", " 7.png ", "by the path without white space around it"),
        ("7.png", " 007", "by the path without white space around it"),
        ("my image.png", "my%20image.png", "by the path without % codes"),
    ],
)
def test_other_ways_to_write_it(tmp_path: Path, file: str, cell: str, how: str) -> None:
    """The one file that fits, and a note of how it was found, with an example."""
    found = find_images([cell, "other.png"], [folder_of(tmp_path, file, "other.png")], "t.csv")
    assert found.names == (file, "other.png")
    assert found.missing == ()
    assert found.notes == (f"t.csv: 1 of 2 images were found {how}, such as {file!r} for {cell!r}",)


def test_a_number_that_two_names_are(tmp_path: Path) -> None:
    """Neither is nearer; a name that is the same but for its suffix is."""
    folder = folder_of(tmp_path, "7.png", "07.png")
    with pytest.raises(DataError, match=r"row 1: '007' could be 07\.png or 7\.png"):
        names_of(folder, "007")
    assert names_of(folder, "7", "07") == ("7.png", "07.png")


@pytest.mark.parametrize("cell", ["x7", "7a", "-7", "1e1", "7.5", ""])
def test_what_is_no_number(tmp_path: Path, cell: str) -> None:
    """Only digits are compared by their value."""
    found = find_images([cell], [folder_of(tmp_path, "7.png", "10.png")], "t.csv")
    assert found.missing == (0,)


def test_absolute_paths_inside(tmp_path: Path) -> None:
    """By their text or in reality; those outside stay what they are, for the check of escapes."""
    folder = folder_of(tmp_path / "images", "a.png", "sub/b.png")
    (tmp_path / "link").symlink_to(folder)
    cells = [f"{folder}/a.png", f"{tmp_path}/link/sub/b.png", "/etc/hostname"]
    found = find_images(cells, [folder], "t.csv")
    assert found.names == ("a.png", "sub/b.png", "/etc/hostname")
    assert found.missing == (2,)
    table = tmp_path / "t.csv"
    table.write_text("path\n" + "\n".join(cells) + "\n")
    with pytest.raises(
        DataError, match=r"row 3: the path '/etc/hostname' leaves .*an absolute path must lie inside"
    ):
        read_source(table, folder, "path", None, None)


@pytest.mark.parametrize(
    ("files", "cell", "says"),
    [
        (["7.png", "7.jpg"], "7", "'7' could be 7.jpg or 7.png"),
        (["a/7.png", "b/7.png"], "7", "'7' could be a/7.png or b/7.png"),
        (["A.png", "a.PNG"], "a.png", "'a.png' could be A.png or a.PNG"),
    ],
)
def test_what_several_files_fit_is_refused(tmp_path: Path, files: list[str], cell: str, says: str) -> None:
    """The row, the cell and the files are named; nothing is guessed."""
    with pytest.raises(DataError, match=rf"t.csv: row 2: {says}"):
        names_of(folder_of(tmp_path, *files, "other.png"), "other.png", cell)


def test_a_file_in_another_folder_is_not_the_one(tmp_path: Path) -> None:
    """Only a path that ends as the cell does: b/7.png is not a/7.png, and no file stands in for a missing one."""
    folder = folder_of(tmp_path, "b/7.png", "b/17.png", "7.txt.png")
    found = find_images(["a/7.png", "8", "7.txt"], [folder], "t.csv")
    assert found.names == ("a/7.png", "8", "7.txt.png")
    assert found.missing == (0, 1)


def test_several_folders(tmp_path: Path) -> None:
    """Names are relative to what the folders have in common; a name in two of them is refused, and a file outside of
    all of them is not read, wherever a link leads."""
    one, two = (
        folder_of(tmp_path / "p/one", "1.png", "3.png"),
        folder_of(tmp_path / "p/two", "2.png", "3.png"),
    )
    found = find_images(["1.png", "2"], [one, two], "t.csv")
    assert (found.root, found.names) == (tmp_path / "p", ("one/1.png", "two/2.png"))
    with pytest.raises(DataError, match=r"could be one/3.png or two/3.png"):
        find_images(["3.png"], [one, two], "t.csv")
    table = tmp_path / "t.csv"
    table.write_text("path\n1.png\n2.png\n")
    samples = read_source(table, [one, two], "path", None, None)
    assert samples.allowed_folders == (one, two)
    assert samples.ids == ("1.png", "2.png")
    between = folder_of(tmp_path / "p", "between.png") / "between.png"
    with pytest.raises(ImageError, match=r"is outside of .*one, .*two"):
        read_image(between, root=samples.allowed_folders)
    read_image(samples.paths[1], root=samples.allowed_folders)
    table.write_text("path\n1.png\n../between.png\n")
    with pytest.raises(DataError, match=r"leaves the folders .*one, .*two \(data.images\)"):
        read_source(table, [one, two], "path", None, None)
