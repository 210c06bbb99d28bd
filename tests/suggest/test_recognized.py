"""What `init` recognizes, and that what it writes trains as it stands: beside the layouts, the edges of each guess."""

import tomllib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import tifffile

from classwise.compose.dataset import prepare, prepare_labels
from classwise.config.load import load_config
from classwise.config.schema import Config
from classwise.console import Console
from classwise.data.sources import read_source
from classwise.data.table import read_table
from classwise.errors import DataError
from classwise.suggest.config import init, look_at
from classwise.suggest.folders import layout_of, layout_of_file_names
from classwise.suggest.images_of_table import find_image_column
from classwise.suggest.layout import part_of_folder
from classwise.suggest.source import guess_source
from tests.suggest.layouts import ABC, classes, image, images, lines, table


def written(source: Path, out: Path) -> tuple[Config, str]:
    """The config that `init` writes, whose images can be read and split, and its text."""
    path = init(source, out, hub=False, scratch=True)
    config = load_config(path)
    prepare(config, Console(quiet=True), use_cache=False)
    return config, path.read_text(encoding="utf-8")


def said(source: Path) -> str:
    """What the user is told."""
    return "\n".join(look_at(source, hub=False, scratch=True).summary)


# Folders


@pytest.mark.parametrize(
    ("name", "part"),
    [
        *(
            ("train", "train"),
            ("Training", "train"),
            ("seg_train", "train"),
            ("trainImages", "train"),
            ("TRAIN", "train"),
        ),
        *(
            ("val", "valid"),
            ("valid", "valid"),
            ("validation", "valid"),
            ("dev", "valid"),
            ("val_images", "valid"),
        ),
        *(("test", "test"), ("test1", "test"), ("held-out", "test"), ("testing_set", "test")),
        *(("strain", None), ("contest", None), ("train_test", None), ("latest", None), ("cat", None)),
    ],
)
def test_parts_of_a_split_by_their_names(name: str, part: str | None) -> None:
    """Words in any case and with others; not within other words, nor two at once."""
    assert part_of_folder(name) == part


def test_the_test_of_a_tree_is_kept_out_until_the_config_says_otherwise(tmp_path: Path) -> None:
    """The table has its rows, and one value in the config scores them."""
    for part, count, first in (("train", 9, 0), ("dev", 4, 20), ("test", 4, 40)):
        classes(tmp_path / "data" / part, dict.fromkeys(ABC, count), first=first)
    config, text = written(tmp_path / "data", tmp_path / "out")
    assert config.data.split_values == {"train": "train", "valid": "valid", "test": "skip"}
    assert read_table(tmp_path / "out" / "samples.csv")["split"].value_counts().sort("count")[
        "count"
    ].to_list() == [12, 12, 27]
    (tmp_path / "out" / "classwise.toml").write_text(text.replace('test = "skip"', 'test = "test"'))
    splits = prepare(load_config(tmp_path / "out" / "classwise.toml"), Console(quiet=True), use_cache=False)
    assert {name: len(split.samples) for name, split in splits.by_name.items()} == {
        "train": 27,
        "valid": 12,
        "test": 12,
    }


def test_a_class_only_in_validation_is_left_out(tmp_path: Path) -> None:
    """It could not be learned; it is counted by name."""
    classes(tmp_path / "train", {"a": 4, "b": 4})
    classes(tmp_path / "val", {"a": 2, "b": 2, "c": 3}, first=10)
    assert "left out 3 images of val/c/, a class without images for training" in said(tmp_path)


def test_other_folders_beside_the_parts_are_left_out(tmp_path: Path) -> None:
    """If the parts share their classes; otherwise all are classes."""
    for part in ("train", "val"):
        classes(tmp_path / "one" / part, {"a": 4, "b": 4}, first=len(part))
    classes(tmp_path / "one", {"extra": 3})
    assert "left out 3 images of extra/, which is no part of the split" in said(tmp_path / "one")
    names = [*(f"train/{n}.png" for n in range(3)), *(f"plane/{n}.png" for n in range(3))]
    assert {label for _, label, _ in layout_of(names, tmp_path).rows} == {"train", "plane"}


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["cat.1", "cat.2", "cat.3", "dog.1", "dog.2", "dog.3"], {"cat", "dog"}),
        (["a cat (1)", "a cat (2)", "a cat (3)", "big dog1", "big dog2", "big dog3"], {"a cat", "big dog"}),
        (
            [f"{label}_{n:03}" for label in ("black_bear", "brown_bear") for n in range(4)],
            {"black_bear", "brown_bear"},
        ),
        ([f"{label}{n}" for label in ("IMG_", "DSC_") for n in range(4)], set()),
        ([f"image{n}" for n in range(8)], set()),
        ([f"{label}{n}" for label in ("cat", "dog", "fox") for n in range(2)], set()),  # hardly recurring
        (
            ["beach", "tree", "dog1", "dog2", "dog3", "cat1", "cat2", "cat3"],
            set(),
        ),  # a quarter without a number
        ([f"2020_{n}" for n in range(6)] + [f"2021_{n}" for n in range(6)], set()),
    ],
)
def test_classes_in_the_names_of_files(names: list[str], labels: set[str]) -> None:
    """Names with numbers behind them, which recur and are no camera's."""
    layout = layout_of_file_names([f"{name}.jpg" for name in names])
    assert {label for _, label, _ in layout.rows} == labels if layout else not labels


def test_places_of_images_are_no_classes(tmp_path: Path) -> None:
    """images_1 and images_2 say nothing of what they show."""
    classes(tmp_path, {"images_part_1": 4, "images_part_2": 4})
    with pytest.raises(DataError, match=r"images_part_1, images_part_2 are named as places of images"):
        look_at(tmp_path, hub=False)


def test_a_config_whose_source_is_a_tree_of_parts_is_refused(tmp_path: Path) -> None:
    """A model would learn to tell train from test; the message says who makes a table of it."""
    for part in ("train", "test"):
        classes(tmp_path / part, {"a": 3, "b": 3})
    with pytest.raises(
        DataError, match=r"the folders test, train, which are parts of a split .* classwise init"
    ):
        read_source(tmp_path, tmp_path, "path", None, None)
    assert len(read_source(tmp_path / "test", tmp_path, "path", None, None)) == 6


# Tables


def test_a_table_named_for_training_comes_before_class_folders(tmp_path: Path) -> None:
    """Another one only where its labels are others than those of the folders."""
    classes(tmp_path, {"a": 4, "b": 4})
    names = [f"{label}/{n}.png" for label in "ab" for n in range(4)]
    same = table(tmp_path / "list.csv", ["path", "species"], [[name, name[0].upper()] for name in names])
    assert guess_source(tmp_path).table.columns == ["path", "label"]
    assert "not used: list.csv; classwise init" in said(tmp_path)
    same.unlink()
    table(
        tmp_path / "quality.csv",
        ["path", "quality"],
        [[name, ("good", "bad")[int(name[2]) % 2]] for name in names],
    )
    assert list(guess_source(tmp_path).targets) == ["quality"]
    (tmp_path / "quality.csv").rename(tmp_path / "train.csv")
    assert list(guess_source(tmp_path).targets) == ["quality"]


def test_images_in_two_folders(tmp_path: Path) -> None:
    """Both become data.images; a folder with the same names as the first one is not added."""
    images(tmp_path / "part_1", [f"{n}.png" for n in range(6)])
    images(tmp_path / "part_2", [f"{n}.png" for n in range(6, 12)])
    source = table(tmp_path / "t.csv", ["id", "label"], [[n, "ab"[n % 2]] for n in range(12)])
    config, text = written(source, tmp_path)
    assert config.data.images == (str(tmp_path / "part_1"), str(tmp_path / "part_2"))
    assert tomllib.loads(text)["data"]["images"] == ["part_1", "part_2"]
    images(tmp_path / "thumbnails", [f"{n}.png" for n in range(9)])
    assert find_image_column(read_table(source), source).folders == [tmp_path / "part_1", tmp_path / "part_2"]


def test_of_two_folders_with_the_same_names_the_likelier_one(tmp_path: Path) -> None:
    """Images rather than masks, and what is named as the table is."""
    for folder in ("masks", "pictures", "train"):
        images(tmp_path / folder, [f"{n}.png" for n in range(6)])
    rows = [[n, "ab"[n % 2]] for n in range(6)]
    assert find_image_column(
        read_table(table(tmp_path / "train.csv", ["id", "label"], rows)), tmp_path / "train.csv"
    ).folders == [tmp_path / "train"]
    assert find_image_column(
        read_table(table(tmp_path / "t.csv", ["id", "label"], rows)), tmp_path / "t.csv"
    ).folders == [tmp_path / "pictures"]


def test_other_data_beside_the_tables_folder(tmp_path: Path) -> None:
    """Files next door that are named like the table's ids come after the files that lie beside the table."""
    images(tmp_path / "other", [f"{number}.png" for number in range(12)])
    images(tmp_path / "mine", [f"img_{number}.jpg" for number in range(12)])
    rows = [[number, f"img_{number}.jpg", ABC[number % 3]] for number in range(12)]
    path = table(tmp_path / "mine/metadata.csv", ["img_id", "img_filename", "label"], rows)
    found = find_image_column(read_table(path), path)
    assert (found.column, found.folders, found.missing) == ("img_filename", [tmp_path / "mine"], ())


def test_labels_that_are_names_of_images_too(tmp_path: Path) -> None:
    """A column of few numbers is not that of the images, though there are files 0.png and 1.png."""
    images(tmp_path / "im", [f"{n}.png" for n in range(12)])
    source = table(tmp_path / "t.csv", ["label", "number"], [[n % 2, n] for n in range(12)])
    guess = guess_source(source)
    assert guess.data["path"] == "number"
    assert list(guess.targets) == ["label"]


@pytest.mark.parametrize(
    ("column", "cells", "values"),
    [
        ("split", ["train", "val"], None),
        ("Subset", ["Train", "Validation"], None),
        ("part", ["train", "dev"], None),  # words that say enough
        ("is_valid", ["True", "False"], {"True": "valid", "False": "train"}),
        ("is_train", ["1", "0"], {"1": "train", "0": "skip"}),  # the others are a test
        ("split", ["0", "1", "2"], {"0": "train", "1": "valid", "2": "skip"}),
        ("split", ["train", "val", "extra"], {"train": "train", "val": "valid", "extra": "skip"}),
        ("split", ["a", "b"], "none"),
        ("split", ["train", "train"], "none"),
        ("kind", ["0", "1"], "none"),
        ("vehicle", ["train", "plane"], "none"),
    ],
)
def test_columns_of_parts(tmp_path: Path, column: str, cells: list[str], values: object) -> None:
    """By the name and the values; a column that says no parts is not taken for one."""
    images(tmp_path / "im", [f"{n}.png" for n in range(24)])
    rows = [[f"{n}.png", ABC[n // 3 % 3], cells[n % len(cells)]] for n in range(24)]
    guess = guess_source(table(tmp_path / "t.csv", ["file", "species", column], rows))
    assert guess.data.get("split") == (None if values == "none" else column)
    if values != "none":
        assert guess.data.get("split_values") == values
        assert list(guess.targets) == ["species"]


def test_groups_that_a_given_split_cuts_are_given_up(tmp_path: Path) -> None:
    """They could not be kept whole; it is said."""
    images(tmp_path / "im", [f"{n}.png" for n in range(24)])
    rows = [[f"{n}.png", ABC[n % 3], f"p{n // 4}", ("train", "val")[n // 2 % 2]] for n in range(24)]
    source = table(tmp_path / "t.csv", ["file", "species", "patient", "split"], rows)
    config, _ = written(source, tmp_path / "out")
    assert config.data.group is None
    assert "not used: 'patient', which looks like groups" in said(source)


def test_tables_of_the_parts_must_fit(tmp_path: Path) -> None:
    """Rows that are for training as well, other labels and templates are no validation; each is said."""
    images(tmp_path / "im", [f"{n}.png" for n in range(30)])
    rows = [[f"{n}.png", ABC[n % 3]] for n in range(30)]
    source = table(tmp_path / "train.csv", ["file", "label"], rows[:18])
    table(tmp_path / "val.csv", ["file", "label"], rows[16:24])
    assert "not used: val.csv, since 2 of its 8 images are in train.csv too" in said(source)
    table(tmp_path / "val.csv", ["file", "label"], [[name, "fir"] for name, _ in rows[18:24]])
    assert "not used: val.csv, since it has labels that the training table has not (fir)" in said(source)
    table(tmp_path / "val.csv", ["file", "label"], [[name, "ash"] for name, _ in rows[18:24]])
    assert "not used: val.csv, since its labels are all the same" in said(source)
    table(tmp_path / "val.csv", ["file", "label"], rows[18:24])
    config, text = written(source, tmp_path / "out")
    assert config.data.valid == str(tmp_path / "val.csv")
    assert tomllib.loads(text)["data"]["valid"] == "../val.csv"


def test_a_template_says_what_is_asked_for(tmp_path: Path) -> None:
    """Its columns are the targets, whatever the other ones look like."""
    images(tmp_path / "im", [f"{n}.png" for n in range(24)])
    rows = [[f"{n}.png", ABC[n % 3], ("male", "female")[n % 2], 20 + n] for n in range(24)]
    source = table(tmp_path / "train.csv", ["file", "species", "sex", "weight_kg"], rows)
    assert list(guess_source(source).targets) == ["species"]
    table(tmp_path / "sample_submission.csv", ["file", "weight_kg"], [["x.png", 0]])
    assert guess_source(source).targets == {"weight_kg": {"column": "weight_kg", "type": "regression"}}
    assert "asked for: weight_kg, as in sample_submission.csv" in said(source)


def test_one_column_a_class_only_where_exactly_one_is_yes(tmp_path: Path) -> None:
    """One row with two of them makes labels of their own; a flag beside them is another target."""
    images(tmp_path / "im", [f"{n}.png" for n in range(24)])
    rows = [[f"{n}.png", *(int(k == n % 3) for k in range(3)), int(n % 5 == 0)] for n in range(24)]
    config, _ = written(table(tmp_path / "t.csv", ["file", *ABC, "blurred"], rows), tmp_path / "one")
    assert config.targets["label"].type == "class"
    assert config.targets["label"].columns == ABC
    rows[4][1] = 1
    config, text = written(table(tmp_path / "t.csv", ["file", *ABC, "blurred"], rows), tmp_path / "two")
    assert config.targets["label"].type == "multilabel"
    assert "1 rows have several of these columns at yes" not in text  # blurred counts, too
    assert "any number of 4 labels" in text


def test_missing_images_are_left_out_and_counted(tmp_path: Path) -> None:
    """But no whole class is: that is an error which names it."""
    images(tmp_path / "im", [f"{n}.png" for n in range(20)])
    rows = [[f"{n}.png", "ab"[n % 2]] for n in range(23)]
    source = table(tmp_path / "t.csv", ["file", "label"], rows)
    config, _ = written(source, tmp_path / "out")
    assert config.data.bad_images == "skip"
    assert "3 of 23 rows name images that are not there, such as '20.png'" in said(source)
    table(source, ["file", "label"], [*rows, ["24.png", "gone"]])
    with pytest.raises(DataError, match="and no image is there of gone; add the images"):
        look_at(source, hub=False)


# What `train` would refuse


def test_a_small_table_validates_on_a_larger_fraction(tmp_path: Path) -> None:
    """A tenth of eight rows would be none."""
    images(tmp_path / "im", [f"{n}.png" for n in range(4)])
    source = table(tmp_path / "t.csv", ["file", "height"], [[f"{n}.png", n + 0.5] for n in range(4)])
    config, text = written(source, tmp_path / "out")
    assert config.data.valid == 0.5
    assert "fraction of the rows to validate on: 0.5, since 0.2 of 4 rows would be none" in text


def test_groups_that_cannot_be_split(tmp_path: Path) -> None:
    """Each site has a class of its own, so that no site can validate: rows are split one by one, with a warning."""
    images(tmp_path / "im", [f"{n}.png" for n in range(24)])
    rows = [[f"{n}.png", ABC[n % 3], f"site {n % 3}"] for n in range(24)]
    source = table(tmp_path / "t.csv", ["file", "species", "site"], rows)
    config, text = written(source, tmp_path / "out")
    assert config.data.group is None
    assert "warning: column 'site' looks like groups, but such groups cannot be split" in said(source)
    assert "group = " not in text.replace("# group =", "")


def test_nothing_is_written_if_training_would_be_refused(tmp_path: Path) -> None:
    """A row of each class leaves none to validate on: the message is that of `train`."""
    with pytest.raises(DataError, match="leaves one side of the split empty"):
        init(classes(tmp_path / "c", {"a": 1, "b": 1}), tmp_path / "out", hub=False)
    assert not (tmp_path / "out").exists()


# Links, names of labels, and what is no image


def test_links_within_the_folder_need_no_key(tmp_path: Path) -> None:
    """Only those that lead out do, and these are said to be followed."""
    classes(tmp_path / "a", {"x": 3, "y": 3})
    (tmp_path / "a" / "x" / "again.png").symlink_to(tmp_path / "a" / "x" / "0.png")
    assert not load_config(init(tmp_path / "a", tmp_path / "one", hub=False, scratch=True)).data.follow_links
    image(tmp_path / "elsewhere.png", 1, 99)
    (tmp_path / "a" / "y" / "out.png").symlink_to(tmp_path / "elsewhere.png")
    config, text = written(tmp_path / "a", tmp_path / "two")
    assert config.data.follow_links
    assert "links: 1 of 8 images are reached through links, such as 'y/out.png'" in text


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("classes.txt", "ash\nelm\noak\n", "0 = ash, 1 = elm, 2 = oak"),
        ("label_map.json", '{"ash": 0, "elm": 1, "oak": 2}', "0 = ash, 1 = elm, 2 = oak"),
        ("id2label.json", '{"0": "ash", "1": "elm", "2": "oak"}', "0 = ash, 1 = elm, 2 = oak"),
        ("class_names.csv", "class,name\n0,ash\n1,elm\n2,oak\n", "0 = ash, 1 = elm, 2 = oak"),
        ("labels.txt", "0 ash tree\n1 elm tree\n2 oak tree\n", "0 = ash tree"),
        ("data.yaml", "nc: 3\nnames: [ash, elm, oak]\ntrain: images/train", "0 = ash, 1 = elm, 2 = oak"),
        ("data.yml", "names:\n  0: ash\n  1: 'no'\n  2: on\n", "0 = ash, 1 = no, 2 = on"),
        ("classes.yaml", "- ash\n- elm\n- oak\n", "0 = ash, 1 = elm, 2 = oak"),
        ("classes.yaml", "ash: 0\nelm: 1\noak: 2\n", "0 = ash, 1 = elm, 2 = oak"),
        (
            "config.json",
            '{"x": 1, "id2label": {"0": "ash", "1": "elm", "2": "oak"}}',
            "0 = ash, 1 = elm, 2 = oak",
        ),
        (
            "set.yaml",
            "categories:\n- {id: 0, name: ash}\n- {id: 1, name: elm}\n- {id: 2, name: oak}",
            "0 = ash",
        ),
        ("data.yaml", "names: [ash, elm]", ""),  # too few
        ("data.yaml", "names: [ash, elm, oak", ""),  # damaged
        ("data.yaml", "names: " + "[" * 5000, ""),  # too deep
        ("data.yaml", "a: [ash, elm, oak]", ""),  # not named as names of classes
        ("classes.txt", "ash\nelm\n", ""),  # too few
        ("notes.txt", "ash\nelm\noak\n", ""),  # not named as names of classes
        ("prices.json", '{"0": 3, "1": 4, "2": 5}', ""),  # no words
    ],
)
def test_names_of_labels(tmp_path: Path, name: str, text: str, line: str) -> None:
    """Told, and written as a comment; the labels stay as the data have them."""
    classes(tmp_path / "data", {"0": 4, "1": 4, "2": 4})
    lines(tmp_path / "data" / name, [text.rstrip()])
    config, written_text = written(tmp_path / "data", tmp_path / "out")
    assert config.targets["label"].labels is None
    assert (line in said(tmp_path / "data")) if line else "names the labels" not in written_text
    assert line in written_text


# Several files that are one table


def test_a_list_for_each_class(tmp_path: Path) -> None:
    """The names of the lists are the labels."""
    source = tmp_path / "data"
    names = [f"images/{number}.png" for number in range(12)]
    images(source, names)
    for kind, label in enumerate(["cats", "dogs", "owls"]):
        lines(source / f"{label}.txt", names[kind::3])
    config, text = written(source, tmp_path / "out")
    assert config.targets["label"].type == "class"
    assert (
        "samples.csv is written, since cats.txt, dogs.txt, owls.txt each list the images of one class"
        in said(source)
    )
    rows = pl.read_csv(tmp_path / "out" / "samples.csv")
    assert set(zip(rows["path"], rows["label"], strict=True)) == {
        (name, ["cats", "dogs", "owls"][number % 3]) for number, name in enumerate(names)
    }
    assert text


def test_an_image_in_several_lists_has_several_labels(tmp_path: Path) -> None:
    """A multilabel target, rather than one of the lists."""
    source = tmp_path / "data"
    names = [f"images/{number}.png" for number in range(12)]
    images(source, names)
    lines(source / "indoor.txt", names[:8])
    lines(source / "dark.txt", names[4:])
    config, _ = written(source, tmp_path / "out")
    assert config.targets["label"].type == "multilabel"


def test_numbered_lists_name_no_classes(tmp_path: Path) -> None:
    """Said plainly: nothing is learned from the names of parts."""
    images(tmp_path, [f"{number}.png" for number in range(12)])
    lines(tmp_path / "list_1.txt", [f"{number}.png" for number in range(6)])
    lines(tmp_path / "list_2.txt", [f"{number}.png" for number in range(6, 12)])
    with pytest.raises(DataError, match=r"numbered lists list_1.txt, list_2.txt, .* but no labels"):
        said(tmp_path)


def numbered(source: Path, at: Sequence[slice], columns: Sequence[str] = ("path", "label")) -> list[Path]:
    """train_1.csv and so on, with these of 24 rows."""
    names = [f"images/{number}.png" for number in range(24)]
    images(source, names)
    rows = [[name, "abc"[number % 3]] for number, name in enumerate(names)]
    return [
        table(source / f"train_{number}.csv", columns, rows[part]) for number, part in enumerate(at, start=1)
    ]


def test_numbered_parts_of_a_table_are_one(tmp_path: Path) -> None:
    """All rows are used, and a table of another part is one of the split, or named."""
    source = tmp_path / "data"
    numbered(source, [slice(10), slice(10, 24)])
    table(source / "val_1.csv", ("path", "label"), [["images/0.png", "a"]])
    config, _ = written(source, tmp_path / "out")
    assert pl.read_csv(config.data.source).height == 24
    line = "2 numbered tables with the same columns are one: 10 rows of train_1.csv, 14 rows of train_2.csv"
    assert line in said(source)
    assert "not used: val_1.csv" in said(source)


def test_a_row_that_is_in_two_parts_is_dropped_and_counted(tmp_path: Path) -> None:
    """One row copied by mistake is no reason to refuse the folder."""
    source = tmp_path / "photos"
    numbered(source, [slice(11), slice(10, 24)])
    guess = guess_source(source)
    assert guess.table.height == 24
    line = "samples.csv: left out a row that repeats another one"
    assert any(line in said for said in guess.said), guess.said


def test_numbered_tables_that_are_no_parts(tmp_path: Path) -> None:
    """Folds share rows, which is refused with what to do; one with other columns is another table, and said."""
    first, second = numbered(tmp_path, [slice(16), slice(8, 24)])
    with pytest.raises(DataError, match=r"8 rows of train_2.csv are in train_1.csv too.*data\.fold"):
        said(tmp_path)
    table(second, ("path", "other"), [["images/20.png", "a"]])
    assert "not used: train_2.csv" in said(tmp_path)
    assert "train_1.csv alone, as named; with train_2.csv it may be one table" in said(first)


# Few validation rows


@pytest.mark.parametrize(
    ("counts", "line"),
    [
        ({"ash": 40, "elm": 40}, "validation has only 16 rows, so one image"),
        ({"ash": 100, "elm": 60, "oak": 2}, "validation has few rows, 1 of oak, so one image"),
        (
            {"ash": 40, "elm": 40, "oak": 1},
            "validation has only 16 rows, 0 of oak, so one image",
        ),
        ({"ash": 90, "elm": 80}, ""),
    ],
)
def test_few_validation_rows_are_warned_of(tmp_path: Path, counts: dict[str, int], line: str) -> None:
    """With what helps."""
    found = said(classes(tmp_path, counts))
    assert (f"warning: {line}" in found) == bool(line)
    assert ("data.valid = 0.3 in place of 0.2 sets more aside" in found) == bool(line)
    assert ("`classwise folds`" in found) == bool(line)
    assert ("validation has" in found) == bool(line)


def test_few_validation_rows_of_a_given_split(tmp_path: Path) -> None:
    """No share is to be had there."""
    for part, count in (("train", 12), ("val", 5)):
        classes(tmp_path / part, {"ash": count, "elm": count}, first=100 * count)
    found = said(tmp_path)
    assert "warning: validation has only 10 rows" in found
    assert "sets more aside" not in found


def test_rows_of_each_class_are_listed_the_rarest_first(tmp_path: Path) -> None:
    """Of many classes, the rarest and the most frequent one."""
    assert "label, rows of each class: oak 3, elm 20, ash 100\n" in said(
        classes(tmp_path / "few", {"ash": 100, "elm": 20, "oak": 3})
    )
    many = said(classes(tmp_path / "many", {f"c{k:02d}": 20 - k for k in range(15)}))
    assert "label, rows of each class: c14 6, c13 7, " in many
    assert ", c04 16, ... (3 classes more), c00 20\n" in many


# Several columns that could be targets


def test_each_target_beside_others_has_a_reason_and_an_alternative(tmp_path: Path) -> None:
    """Values that recur may as well say where an image comes from: a line and a comment for each such column."""
    cells = [[f"{row}.png", "ab"[row % 2], f"studio {row % 5}"] for row in range(20)]
    images(tmp_path, [row[0] for row in cells])
    source = table(tmp_path / "mine.csv", ("image", "kind", "place_taken"), cells)
    found = said(source)
    reason = "- place_taken: a target of 5 classes, since its values recur in 20 rows; otherwise: "
    assert reason + "without [targets.place_taken] it is not learned" in found
    assert 'group = "place_taken" in [data]' in found
    assert "- kind: a target of 2 classes, since" in found
    assert reason[2:] in written(source, tmp_path / "out")[1]


def test_a_photographer_is_a_group(tmp_path: Path) -> None:
    """As a person or a camera is, which a line says."""
    cells = [[f"{row}.png", "ab"[row % 2], f"p{row // 2 % 8}"] for row in range(40)]
    images(tmp_path, [row[0] for row in cells])
    config, _ = written(
        table(tmp_path / "mine.csv", ("image", "kind", "Photographer"), cells), tmp_path / "o"
    )
    assert (config.data.group, list(config.targets)) == ("Photographer", ["kind"])
    assert "- data.group: column of groups, as its name says" in said(tmp_path / "mine.csv")


# What the images are


@pytest.mark.parametrize("channels", [2, 6])
def test_channels_that_are_no_colours(tmp_path: Path, channels: int) -> None:
    """model.channels is proposed, with its reason, and the range of their samples is read with it."""
    for kind, label in enumerate("ab"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(4):
            levels = np.full((8, 8, channels), 1000 * kind + number, np.uint16)
            tifffile.imwrite(
                tmp_path / "data" / label / f"{number}.tif",
                levels,
                photometric="minisblack",
                planarconfig="contig",
            )
    config, text = written(tmp_path / "data", tmp_path / "out")
    assert config.model.channels == channels
    assert config.data.value_range == (0.0, 1023.0)
    assert f"images of {channels} channels, since they are neither gray nor red, green and blue" in text


def test_why_no_image_can_be_read(tmp_path: Path) -> None:
    """The first one's reason is in the message."""
    for label in "ab":
        for number in range(3):
            (tmp_path / label).mkdir(exist_ok=True)
            (tmp_path / label / f"{number}.png").write_bytes(b"")
    with pytest.raises(
        DataError, match=r"none of the images that were tried can be read, such as 0\.png: an empty"
    ):
        look_at(tmp_path, hub=False)


def test_blank_cells_for_no_are_trained_on(tmp_path: Path) -> None:
    """The flags of the config are those of the cells, and every row has its class."""
    images(tmp_path / "im", [f"{n}.png" for n in range(24)])
    rows = [[f"{n}.png", *("x" if k == n % 3 else "" for k in range(3))] for n in range(24)]
    config, _ = written(table(tmp_path / "t.csv", ["file", *ABC], rows), tmp_path / "out")
    assert config.targets["label"].flags == ("", "x")
    splits = prepare_labels(config)
    labels = {
        id: int(number)
        for split in splits.by_name.values()
        for id, number in zip(split.samples.ids, split.labels["label"], strict=True)
    }
    assert labels == {f"{n}.png": n % 3 for n in range(24)}
