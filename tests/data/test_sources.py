"""Sources: rows from a folder or a table, and paths that may not leave their folder."""

import os

import pytest

from classwise.data.listing import image_names, is_image_name
from classwise.data.sources import folder_table, read_source
from classwise.errors import DataError


def read(source, images=None, id=None, group=None):
    return read_source(source, images or source, "path", id, group)


def table_of(make_table, folder, *names, **columns):
    """A table beside `folder` with these paths, and other columns if asked for."""
    rows = [
        {"path": name, **{key: cells[i] for key, cells in columns.items()}} for i, name in enumerate(names)
    ]
    return make_table(folder.parent / "표.csv", rows)


# --- a folder of class folders -------------------------------------------------------------------------


def test_a_folder_gives_path_and_label(tmp_path, make_images):
    """The label is the class folder's name in any script; paths are relative, sorted, and ids as well."""
    names = make_images(tmp_path, {"마스크 착용": 2, 'say "hi"': 1, "a#b": 1})
    samples = read(tmp_path)
    assert samples.frame.columns == ["path", "label"]
    assert list(samples.names) == sorted(names)
    assert samples.ids == samples.names
    assert samples.frame["label"].to_list() == ["a#b", 'say "hi"', "마스크 착용", "마스크 착용"]
    assert all(path.is_file() for path in samples.paths)
    assert samples.notes == ()
    assert (samples.root, samples.groups, len(samples)) == (tmp_path, None, 4)


def test_deeper_folders_belong_to_their_class(tmp_path, make_images):
    """The class is the first folder, however the images lie below it."""
    make_images(tmp_path / "cat", {"2023/may": 1, "2024": 1})
    make_images(tmp_path, {"dog": 1})
    assert folder_table(tmp_path)[0].rows() == [
        ("cat/2023/may/000.png", "cat"),
        ("cat/2024/000.png", "cat"),
        ("dog/000.png", "dog"),
    ]


def test_what_is_left_out_is_counted(tmp_path, make_images):
    """Junk of macOS, hidden files, other files, images in no class folder: left out, and said so."""
    names = make_images(tmp_path, {"cat": 1, "dog": 1})
    for junk in ("cat/._000.png", "cat/.hidden.jpg", "dog/Thumbs.db", "notes.txt"):
        (tmp_path / junk).write_bytes(b"junk")
    (tmp_path / "loose.png").write_bytes((tmp_path / names[0]).read_bytes())
    make_images(tmp_path / ".cache", {"x": 2})
    samples = read(tmp_path)
    assert list(samples.names) == names
    assert samples.notes == (
        f"{tmp_path}: left out 2 files not named as images: 1 .db, 1 .txt (1 in ., 1 in dog)",
        f"{tmp_path}: left out 2 hidden files",
        f"{tmp_path}: left out 1 images that are in no class folder",
    )


def test_a_linked_class_folder_is_counted(tmp_path, make_images):
    """Links to folders are not followed; that is said, so that no class goes missing unseen."""
    make_images(tmp_path / "here", {"cat": 1, "dog": 1})
    make_images(tmp_path, {"elsewhere": 3})
    (tmp_path / "here" / "bird").symlink_to(tmp_path / "elsewhere")
    samples = read(tmp_path / "here")
    assert set(samples.frame["label"]) == {"cat", "dog"}
    assert samples.notes == (
        f"{tmp_path / 'here'}: left out 1 links to folders (data.follow_links = true follows them)",
    )
    followed = read_source(tmp_path / "here", tmp_path, "path", None, None, follow_links=True)
    assert followed.frame["label"].value_counts().sort("label").rows() == [
        ("bird", 3),
        ("cat", 1),
        ("dog", 1),
    ]
    assert followed.notes == ()


def test_links_that_go_round_end(tmp_path, make_images):
    """A link to the folder in which it lies is not followed for ever; it is counted instead."""
    make_images(tmp_path, {"cat": 1, "dog": 1})
    (tmp_path / "cat" / "again").symlink_to(tmp_path)
    samples = read_source(tmp_path, tmp_path, "path", None, None, follow_links=True)
    assert len(samples) == 2
    assert samples.notes == (f"{tmp_path}: left out 1 links to folders (they lead to where they lie)",)


@pytest.mark.parametrize(
    ("make", "counts"),
    [
        ([], "0 directly in it, 0 other files"),
        (["a.png", "b.png"], "2 directly in it, 0 other files"),
        (["cat/a.html", "x.txt"], "0 directly in it, 2 other files"),
    ],
)
def test_a_folder_without_class_folders_is_refused(tmp_path, make, counts):
    """The message says what was found and what a folder source looks like."""
    for name in make:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(DataError, match="one sub-folder per class") as caught:
        folder_table(tmp_path)
    assert counts in str(caught.value)


def test_a_name_that_is_no_text_is_refused(tmp_path, make_images):
    """Linux allows bytes that are not UTF-8: no table could hold such a path, so it is named instead."""
    make_images(tmp_path, {"cat": 1, "dog": 1})
    path = os.fsencode(tmp_path / "dog") + b"/\xb8\xb6.png"
    try:
        os.close(os.open(path, os.O_CREAT))
    except OSError:
        pytest.skip("this file system takes no such name")
    with pytest.raises(DataError, match=r"dog: the name of b'\\xb8\\xb6.png' is not UTF-8; rename it"):
        folder_table(tmp_path)


def test_names_that_are_images():
    """By suffix, in any case; the macOS junk carries an image's suffix and is none."""
    assert all(
        map(
            is_image_name,
            ["a.jpg", "x/b.JPEG", "한글.PNG", "a b.webp", "c.bmp", "d.jfif", "e.TIF", "f.tiff", "g.gif"],
        )
    )
    assert not any(
        map(is_image_name, ["._a.jpg", "x/._b.png", ".a.jpg", "a.jp2", "a.jpg.txt", "jpg", ".jpg"])
    )


def test_image_names_of_a_flat_folder(tmp_path, make_images):
    """For prediction a folder needs no classes: every image below it, always in the same order."""
    make_images(tmp_path, {"sub": 2})
    for name in ("나.png", "b.jpg", "._b.jpg", "a.txt"):
        (tmp_path / name).touch()
    assert image_names(tmp_path) == ["b.jpg", "나.png", "sub/000.png", "sub/001.png"]


# --- a table -------------------------------------------------------------------------------------------


def test_a_table_gives_ids_and_groups(tmp_path, make_images, make_table):
    """Each from its column, as text; every column of the table is kept."""
    names = make_images(tmp_path / "images", {"한 글": 2})
    table = table_of(
        make_table, tmp_path / "images", *names, code=["007", "1e5"], person=["000600-1"] * 2, extra="xy"
    )
    samples = read(table, tmp_path / "images", "code", "person")
    assert samples.names == tuple(names)
    assert samples.ids == ("007", "1e5")
    assert samples.groups == ("000600-1", "000600-1")
    assert samples.frame["extra"].to_list() == ["x", "y"]
    assert read(table, tmp_path / "images").ids == tuple(names)


def test_rows_are_taken_in_the_order_asked_for(tmp_path, make_images, make_table):
    """Names, ids, groups and all columns move together."""
    names = make_images(tmp_path / "p", {"a": 3})
    table = table_of(make_table, tmp_path / "p", *names, person="xyz", n="123")
    part = read(table, tmp_path / "p", "n", "person").take([2, 0])
    assert (part.ids, part.groups, part.names) == (("3", "1"), ("z", "x"), (names[2], names[0]))
    assert part.frame["n"].to_list() == ["3", "1"]
    assert part.paths == [tmp_path / "p" / names[2], tmp_path / "p" / names[0]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"id": "cod"}, r"no column 'cod' \(data\.id\); did you mean 'code'\?"),
        ({"group": "persn"}, r"no column 'persn' \(data\.group\); did you mean 'person'\?"),
        ({"id": "code"}, r"id '7' is in rows 1, 3; each must be unique"),
        ({"id": "gap"}, r"column 'gap' \(data\.id\) is empty in row 2"),
        ({"group": "gap"}, r"column 'gap' \(data\.group\) is empty in row 2"),
    ],
)
def test_wrong_columns_are_named(tmp_path, make_images, make_table, options, message):
    """With the config key, and the rows where rows are wrong."""
    names = make_images(tmp_path / "p", {"a": 3})
    table = table_of(make_table, tmp_path / "p", *names, code="787", person="xyz", gap=["1", "", "2"])
    with pytest.raises(DataError, match=message):
        read(table, tmp_path / "p", **options)


def test_a_path_column_that_is_missing_or_empty(tmp_path, make_table):
    """`data.path` is the key to mend."""
    table = make_table(tmp_path / "t.csv", [{"file": "a.png"}, {"file": ""}])
    with pytest.raises(DataError, match=r"no column 'path' \(data\.path\); allowed: file"):
        read(table, tmp_path)
    table = make_table(tmp_path / "t.csv", [{"path": "a.png", "b": "1"}, {"path": "", "b": "1"}])
    with pytest.raises(DataError, match=r"column 'path' \(data\.path\) is empty in row 2"):
        read(table, tmp_path)


def test_an_image_twice_is_refused(tmp_path, make_table):
    """Without an id column the path is the id; the first repeated one is shown, all are counted."""
    table = table_of(make_table, tmp_path / "p", "a.png", "b.png", "a.png", "b.png", "c.png", label="12345")
    (tmp_path / "p").mkdir()
    with pytest.raises(
        DataError, match=r"path 'a\.png' is in rows 1, 3; each must be unique; 2 duplicates in all"
    ):
        read(table, tmp_path / "p")


def test_a_row_that_is_repeated_exactly_counts_once(tmp_path, make_images, make_table):
    """It is left out, and a note says how many are; a row that differs in one column is another one."""
    names = make_images(tmp_path / "p", {"a": 2})
    table = table_of(make_table, tmp_path / "p", names[1], names[0], names[1], names[1], label="xyxx")
    samples = read(table, tmp_path / "p")
    assert samples.names == (names[1], names[0])
    assert samples.notes == (f"{table}: left out 2 rows that repeat another one in every column",)


def test_missing_places_are_named(tmp_path, make_table):
    """The source or the image folder is not there: which key, and where it was looked for."""
    with pytest.raises(DataError, match=r"data\.source: there is no table or folder .*none\.csv"):
        read(tmp_path / "none.csv", tmp_path)
    with pytest.raises(DataError, match=r"data\.images: there is no folder .*none"):
        read(make_table(tmp_path / "t.csv", [{"path": "a"}]), tmp_path / "none")


# --- paths that leave ----------------------------------------------------------------------------------


@pytest.fixture
def places(tmp_path):
    """An image folder with links inside and out of it, and a folder whose name begins the same."""
    for name in ("images/sub", "images2", "other/deep"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("images/a.png", "images/sub/b.png", "images2/c.png", "other/d.png", "other/deep/e.png"):
        (tmp_path / name).touch()
    (tmp_path / "images/file_out.png").symlink_to(tmp_path / "other/d.png")
    (tmp_path / "images/folder_out").symlink_to(tmp_path / "other")
    (tmp_path / "images/hop.png").symlink_to(tmp_path / "images/file_out.png")
    (tmp_path / "images/file_in.png").symlink_to(tmp_path / "images/sub/b.png")
    (tmp_path / "images/folder_in").symlink_to(tmp_path / "images/sub")
    (tmp_path / "images/loop.png").symlink_to(tmp_path / "images/loop.png")
    (tmp_path / "linked").symlink_to(tmp_path / "images")
    return tmp_path


LEAVING = [
    "/etc/passwd",
    "../other/d.png",
    "sub/../../other/d.png",
    "..",
    "sub/..",
    "../images2/c.png",
    "file_out.png",
    "sub/../file_out.png",
    "hop.png",
    "folder_out/d.png",
    "folder_out/deep/e.png",
    "folder_out/deep/..",
    "folder_in/../../other/d.png",
    "no_such_folder/../../other/d.png",
    "./../other//d.png",
    "a\0.png",
]


@pytest.mark.parametrize("name", LEAVING)
@pytest.mark.parametrize("root", ["images", "linked"])
def test_a_path_that_leaves_is_refused(places, make_table, root, name):
    """By its text or through a link, before anything is read; the row and the key are named."""
    table = table_of(make_table, places / root, "a.png", name)
    with pytest.raises(DataError) as caught:
        read(table, places / root)
    assert f"row 2: the path {name!r} leaves the folder {places / root} (data.images)" in str(caught.value)
    assert "in all" not in str(caught.value)


def test_links_out_are_followed_if_the_config_says_so(places, make_table):
    """The text of a path has to stay inside even then; without the key, the message names it."""
    table = table_of(make_table, places / "images", "file_out.png", "folder_out/d.png", "hop.png")
    with pytest.raises(DataError, match=r"if you trust its target: data.follow_links = true; 3 such rows"):
        read(table, places / "images")
    samples = read_source(table, places / "images", "path", None, None, follow_links=True)
    assert samples.names == ("file_out.png", "folder_out/d.png", "hop.png")
    assert samples.allowed_folders is None
    table = table_of(make_table, places / "images", "../other/d.png")
    with pytest.raises(DataError, match="paths are relative to it and stay inside"):
        read_source(table, places / "images", "path", None, None, follow_links=True)


def test_all_leaving_paths_are_counted(places, make_table):
    """The first is shown."""
    table = table_of(make_table, places / "images", "a.png", *LEAVING[:4])
    with pytest.raises(DataError, match=r"row 2: the path '/etc/passwd' .*; 4 such rows in all"):
        read(table, places / "images")


@pytest.mark.parametrize("root", ["images", "linked"])
def test_paths_that_stay_are_taken(places, make_table, root):
    """`..` and links that end inside, a folder that is a link itself, and names that only look odd."""
    names = [
        "a.png",
        "sub/b.png",
        "sub/../a.png",
        "file_in.png",
        "folder_in/b.png",
        "./sub//b.png",
        "loop.png",
    ]
    names += ["...png", "..a/b.png", "~/a.png", "not there.png", "a" * 300 + ".png"]
    samples = read(table_of(make_table, places / root, *names), places / root)
    assert list(samples.names) == names


def test_a_linked_image_in_a_class_folder_may_not_leave(tmp_path, make_images):
    """A folder source is held to the same rule as a table."""
    make_images(tmp_path / "in", {"cat": 1, "dog": 1})
    make_images(tmp_path / "out", {"x": 1})
    (tmp_path / "in/cat/y.png").symlink_to(tmp_path / "out/x/000.png")
    with pytest.raises(DataError, match=r"row 2: the path 'cat/y\.png' leaves the folder"):
        read(tmp_path / "in")
