"""Folders and tables as people bring them, beside those of public data sets: exports of spreadsheets, trees within
trees, columns under other names."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.suggest.layouts import ABC, Layout, classes, image, images, table

CLASS2, CLASS3 = {"label": ("class", 2)}, {"label": ("class", 3)}
N = 24


def tabled(
    header: list[str],
    row: Callable[[int], list[Any]],
    name: str = "t.csv",
    separator: str = ",",
    form: str = "{}.png",
) -> Callable[[Path], Path]:
    """A table of N rows of `row`, beside a folder im/ with the images."""

    def build(folder: Path) -> Path:
        images(folder / "im", [form.format(n) for n in range(N)])
        return table(folder / name, header or None, [row(n) for n in range(N)], separator)

    return build


def split_by(header: str, *values: object) -> Callable[[Path], Path]:
    """Rows with the values of a column in turn, three of each."""
    return tabled(
        ["file", "species", header], lambda n: [f"{n}.png", ABC[n % 3], values[n // 3 % len(values)]]
    )


def text(content: str) -> Callable[[Path], Path]:
    """A table with the text as it stands."""

    def build(folder: Path) -> Path:
        images(folder / "im", [f"{n}.png" for n in range(N)])
        (folder / "t.csv").write_text(content, encoding="utf-8")
        return folder / "t.csv"

    return build


def domains_of_splits(folder: Path) -> Path:
    for first, domain in enumerate(("photo", "sketch")):
        for part, count in (("train", 6), ("test", 3)):
            classes(folder / domain / part, dict.fromkeys(ABC, count), first=100 * first + 10 * len(part))
    return folder


def conditions_in_classes(folder: Path) -> Path:
    for first, label in enumerate(("cat", "dog")):
        for part, count in (("train", 6), ("test", 3)):
            classes(folder / label / part, {"day": count, "night": count}, first=100 * first + 10 * len(part))
    return folder


def valid_and_invalid(folder: Path) -> Path:
    return classes(folder, {"invalid": 8, "unclear": 8, "valid": 8})


def folds_of_splits(folder: Path) -> Path:
    for fold in range(2):
        for part in ("train", "val"):
            classes(folder / f"fold_{fold}" / part, dict.fromkeys(ABC, 3), first=100 * fold + 10 * len(part))
    return folder


def patients(folder: Path) -> Path:
    for kind, label in enumerate(("benign", "malignant")):
        for patient in range(4):
            images(folder / label / f"patient_{kind * 4 + patient}", [f"{n}.png" for n in range(3)], (kind,))
    return folder


def classes_in_patients(folder: Path) -> Path:
    for number in range(5):
        classes(folder / f"{8863 + number}", {"0": 4, "1": 4}, first=10 * number)
    return folder


def classes_in_sites(folder: Path) -> Path:
    for number in range(4):
        classes(folder / f"site{number}", {"neg": 4, "pos": 4}, first=10 * number)
    return folder


def batches_in_classes(folder: Path) -> Path:
    for kind, label in enumerate(("cat", "dog")):
        for batch in range(3):
            images(folder / label / f"batch{batch}", [f"{n}.png" for n in range(3)], (kind,))
    return folder


def models_of_makes(folder: Path) -> Path:
    for make, models in (("audi", ("a4", "a6")), ("bmw", ("x3", "x5"))):
        classes(folder / make, dict.fromkeys(models, 4), first=len(models[0]))
    return folder


def images_beside_classes(folder: Path) -> Path:
    classes(folder, {"cat": 8, "dog": 8})
    images(folder / "test", [f"{n}.png" for n in range(50, 55)])
    return folder


def labeled_test_beside_classes(folder: Path) -> Path:
    classes(folder, {"cat": 8, "dog": 8})
    classes(folder / "test", {"cat": 3, "dog": 3}, first=40)
    return folder


def other_spelling(folder: Path) -> Path:
    classes(folder / "train", {"Cat": 8, "dog ": 8})
    classes(folder / "valid", {"cat": 4, "dog": 4}, first=40)
    return folder


def all_beside_classes(folder: Path) -> Path:
    return classes(folder, {"cat": 8, "dog": 8, "all": 16})


def empty_class(folder: Path) -> Path:
    (folder / "fox").mkdir()
    return classes(folder, {"cat": 8, "dog": 8})


def parts_in_paths(folder: Path) -> Path:
    rows = [[f"{('train', 'train', 'val', 'test')[n % 4]}/{n}.png", ABC[n // 4 % 3]] for n in range(2 * N)]
    images(folder, [row[0] for row in rows])
    return table(folder / "labels.csv", ["path", "label"], rows)


def tables_in_annotations(folder: Path) -> Path:
    for part, numbers in (("train", range(18)), ("val", range(30, 39))):
        images(folder / "images" / part, [f"{n}.png" for n in numbers])
        table(
            folder / "annotations" / f"{part}.csv",
            ["image", "label"],
            [[f"{n}.png", ABC[n % 3]] for n in numbers],
        )
    return folder


def annotations_in_json(folder: Path) -> Path:
    images(folder / "im", [f"{n}.png" for n in range(N)])
    rows = [{"file": f"{n}.png", "label": ABC[n % 3]} for n in range(N)]
    (folder / "labels.json").write_text(json.dumps({"version": 2, "annotations": rows}))
    return folder / "labels.json"


def folder_and_file(folder: Path) -> Path:
    classes(folder / "im", dict.fromkeys(ABC, 8))
    rows = [[f"{n}.png", label] for label in ABC for n in range(8)]
    return table(folder / "t.csv", ["file", "label"], rows)


def files_in_other_folders(folder: Path) -> Path:
    for number, label in enumerate(ABC):
        images(folder / "im" / f"{number}_{label}", [f"{n}.png" for n in range(8)], (number,))
    rows = [[f"{n}.png", label] for label in ABC for n in range(8)]
    return table(folder / "t.csv", ["file", "label"], rows)


def masks_beside_images(folder: Path) -> Path:
    for kind, label in enumerate(("benign", "malignant")):
        names = [f"{label} ({n}){end}.png" for n in range(8) for end in ("", "_mask")]
        images(folder / label, [*names, f"{label} (0)_mask_1.png"], (kind,))
    return folder


def folders_of_masks_in_classes(folder: Path) -> Path:
    for kind, label in enumerate(("covid", "normal")):
        for what in ("images", "masks"):
            images(folder / label / what, [f"{n}.png" for n in range(8)], (kind,))
    return folder


def in_json(content: Callable[[list[str], list[str]], Any]) -> Callable[[Path], Path]:
    """A JSON file of what is made of the names and labels of N images."""

    def build(folder: Path) -> Path:
        names, labels = [f"{n}.png" for n in range(N)], [ABC[n % 3] for n in range(N)]
        images(folder / "im", names)
        (folder / "labels.json").write_text(json.dumps(content(names, labels)))
        return folder / "labels.json"

    return build


def classes_in_names_of_parts(folder: Path) -> Path:
    for part, numbers in (("train", range(8)), ("val", range(20, 24)), ("test", range(40, 43))):
        images(folder / part, [f"{label}_{n}.png" for n in numbers for label in ("cat", "dog")], (0, 1))
    image(folder / "test" / "unknown.png")
    return folder


def table_below_data(folder: Path) -> Path:
    images(folder / "data" / "images", [f"{n}.png" for n in range(N)])
    table(
        folder / "data" / "labels" / "labels.csv",
        ["file", "label"],
        [[f"{n}.png", ABC[n % 3]] for n in range(N)],
    )
    return folder


def boxes_in_table(folder: Path) -> Path:
    images(folder / "im", [f"{n}.png" for n in range(N)])
    rows = [[f"{n}.png", ABC[(n + k) % 3], 1, 1, 4, 5] for n in range(N) for k in range(2)]
    return table(folder / "t.csv", ["filename", "class", "xmin", "ymin", "xmax", "ymax"], rows)


def a_row_for_each_label(folder: Path) -> Path:
    images(folder / "im", [f"{n}.png" for n in range(N)])
    rows = [[f"{n}.png", ABC[k]] for n in range(N) for k in range(3) if (n + k) % 2]
    return table(folder / "t.csv", ["file", "label"], rows)


def two_opinions(folder: Path) -> Path:
    images(folder / "im", [f"{n}.png" for n in range(N)])
    rows = [[f"{n}.png", f"r{k}", ABC[(n + (k and n % 3 == 0)) % 3]] for n in range(N) for k in range(2)]
    return table(folder / "t.csv", ["file", "rater", "label"], rows)


def ids_of_rows(folder: Path) -> Path:
    images(folder / "im", [f"{n}.png" for n in range(N)])
    rows = [[f"r{n}_{k}", f"{n}.png", ABC[n % 3]] for n in range(N) for k in range(2)]
    return table(folder / "t.csv", ["row_id", "image", "label"], rows)


def other_data_next_door(folder: Path) -> Path:
    images(folder / "other" / "im", [f"{n}.png" for n in range(N)])
    images(folder / "mine" / "im", [f"img_{n}.png" for n in range(N)])
    return table(folder / "mine" / "t.csv", ["id", "label"], [[n, ABC[n % 3]] for n in range(N)])


def template_of_both(folder: Path) -> Path:
    table(folder / "sample_submission.csv", ["image", "species", "height"], [["x.png", "ash", 0]])
    return tabled(["image", "species", "height"], lambda n: [f"{n}.png", ABC[n % 3], n * 1.5])(folder)


def spreadsheet_beside_images(folder: Path) -> Path:
    images(folder / "im", [f"{n}.png" for n in range(N)])
    (folder / "labels.xlsx").write_bytes(b"PK\x03\x04")
    return folder


def labels_in_matlab(folder: Path) -> Path:
    images(folder / "jpg", [f"image_{n:05}.jpg" for n in range(N)])
    (folder / "imagelabels.mat").write_bytes(b"MATLAB 5.0")
    return folder


def cells(kind: Callable[[int], str]) -> Callable[[Path], Path]:
    """A table whose column `tags` holds `kind` of each row."""
    return tabled(["image", "tags"], lambda n: [f"{n}.png", kind(n)])


def pair(n: int) -> list[str]:
    return sorted({ABC[n % 3], ABC[n // 3 % 3]})


def marked(n: int, yes: str) -> list[Any]:
    return [f"{n}.png", *(yes if k == n % 3 else "" for k in range(3))]


MULTI = {"tags": ("multilabel", 3)}
SPECIES = {"species": ("class", 3)}
BROUGHT = [
    Layout("domains, each with train and test", "", domains_of_splits, CLASS3, says=["the innermost folders", "test: 18 rows kept out"]),
    Layout("classes, each with train and test, and conditions in them", "", conditions_in_classes, CLASS2, says=["the outermost folders (cat, dog)"]),
    Layout("valid beside invalid", "", valid_and_invalid, CLASS3, {"all": 24}),
    Layout("folds, each with train and val", "", folds_of_splits, refusal="folds, of which one is trained at a time; classwise init"),
    Layout("patients in class folders", "", patients, CLASS2, {"all": 24}, {"group": "folder"}, ["the images of one are never split"]),
    Layout("classes in folders of patients", "IDC histology", classes_in_patients, CLASS2, {"all": 40}, {"group": "folder"}, ["label: 2 classes, the inner folders (0, 1)"]),
    Layout("classes in folders of sites", "", classes_in_sites, CLASS2, {"all": 32}, {"group": "folder"}, ["numbered as persons, sites and the like are"]),
    Layout("batches in class folders", "", batches_in_classes, CLASS2, {"all": 18}, {"group": None}, ["the outer folders (cat, dog)"]),
    Layout("models in folders of makes", "", models_of_makes, CLASS2, {"all": 16}, says=['column = "folder", which has the inner folders']),
    Layout("images to predict beside the classes", "", images_beside_classes, CLASS2, {"all": 16}, says=["left out 5 images of test/"]),
    Layout("a test with the classes beside them", "", labeled_test_beside_classes, CLASS2, {"train": 13}, says=["test: 6 rows kept out"]),
    Layout("classes spelled differently for validation", "", other_spelling, CLASS2, {"train": 16, "valid": 8}, says=["valid/cat/ is the class 'Cat'"]),
    Layout("copies of all images beside the classes", "", all_beside_classes, CLASS3, says=["warning: label: taken for a class, though named as a place or as copies of images: 'all' (16 images)"]),
    Layout("an empty class folder", "", empty_class, CLASS2, says=["no class for 'fox', without any file"]),
    Layout("parts of a split in the paths", "", parts_in_paths, CLASS3, {"train": 24, "valid": 12}, says=["test: 12 rows kept out", "folders named test, train, val"]),
    Layout("tables in annotations/, images beside", "", tables_in_annotations, CLASS3, {"train": 18, "valid": 9}, says=["beside the table's folder"]),
    Layout("PublicTest and PrivateTest", "FER-2013 with files", split_by("Usage", "Training", "Training", "PublicTest", "PrivateTest"), SPECIES, {"train": 12, "valid": 6}, says=["test: 6 rows kept out"]),
    Layout("tr, va, te", "", split_by("split", "tr", "tr", "va", "te"), SPECIES, {"train": 12, "valid": 6}),
    Layout("1, 2, 3", "MatConvNet's imdb", split_by("set", 1, 1, 2, 3), SPECIES, {"train": 12, "valid": 6}),
    Layout("0.0, 1.0, 2.0", "pandas", split_by("split", "0.0", "0.0", "1.0", "2.0"), SPECIES, {"train": 12, "valid": 6}),
    Layout("a split that says nothing", "", split_by("set", "A", "B"), SPECIES, {"all": N}, {"split": None}, ["warning: not used: 'set', which is named as a split"]),
    Layout("most rows are of 1, which may mean training", "", split_by("split", 1, 1, 1, 0), SPECIES, {"all": N}, {"split": None}, ["warning: not used: 'split'"]),
    Layout("codes of two letters", "", split_by("country", "tr", "va"), SPECIES, {"all": N}, {"split": None}, ["not used: country"]),
    Layout("marks and blanks, one a row", "", tabled(["image", *ABC], lambda n: marked(n, "x")), CLASS3, {"all": N}, says=["a blank cell taken for no, 'x' for yes"]),
    Layout("1 and blanks, several a row", "", tabled(["image", *ABC], lambda n: [f"{n}.png", *("1" if n >> k & 1 else "" for k in range(3))]), {"label": ("multilabel", 3)}, {"all": N}),
    Layout("lists in brackets without quotes", "", cells(lambda n: f"[{', '.join(pair(n))}]"), MULTI, {"all": N}),
    Layout("tuples", "", cells(lambda n: repr(tuple(pair(n)))), MULTI, {"all": N}),
    Layout("plus signs between labels", "", cells(lambda n: "+".join(pair(n))), MULTI, {"all": N}),
    Layout("a name with an ampersand", "", cells(lambda n: ("cat", "dog", "cat & dog")[n % 3]), {"tags": ("class", 3)}, says=["one name in a cell"]),
    Layout("label1 and label2", "", tabled(["image", "label1", "label2"], lambda n: [f"{n}.png", ABC[n % 3], ABC[n // 3 % 3]]), {"label1": ("class", 3), "label2": ("class", 3)}, says=["warning: label1, label2: targets of their own"]),
    Layout("fractions as labels", "", tabled(["image", "label"], lambda n: [f"{n}.png", n % 3 / 2]), {"label": ("regression", 0)}, says=["label: a number to predict, since it holds numbers with fractions (0.0, 0.5, 1.0)"]),
    Layout("no header, ids without suffix", "", tabled([], lambda n: [n, ABC[n % 3]]), CLASS3, {"all": N}, says=["it has no header"]),
    Layout("no header, the label first", "", tabled([], lambda n: [ABC[n % 3], n]), CLASS3, {"all": N}),
    Layout("a text file with a header", "", tabled(["file", "label"], lambda n: [f"{n}.png", ABC[n % 3]], "labels.txt", "\t"), CLASS3, {"all": N}),
    Layout("file names that recur in the folders of the labels", "", folder_and_file, CLASS3, {"all": N}, says=["column 'label' has the folders of the files in 'file'"]),
    Layout("file names that recur in other folders", "", files_in_other_folders, refusal="'0.png' is in 3 rows, and there are files of that name in im/0_ash, im/1_elm, im/2_oak"),
    Layout("masks beside the images", "BUSI", masks_beside_images, CLASS2, {"all": 16}, says=["left out 18 images that are named as outlines of others"]),
    Layout("folders of images and masks in class folders", "COVID-QU", folders_of_masks_in_classes, CLASS2, {"all": 16}, says=["left out 16 images that are named as outlines of others"]),
    Layout("three sides", "", tabled(["file", "sentiment"], lambda n: [f"{n}.png", n % 3 - 1]), {"sentiment": ("class", 3)}, {"all": N}),
    Layout("a few of -1 beside 0 and 1", "", tabled(["file", "ill"], lambda n: [f"{n}.png", -1 if n % 8 == 0 else n % 2]), {"ill": ("class", 2)}, {"all": 21}, says=["taken for unknown"]),
    Layout("a label by name in JSON", "", in_json(lambda names, labels: dict(zip(names, labels, strict=True))), CLASS3, {"all": N}),
    Layout("several labels by name in JSON", "", in_json(lambda names, labels: {name: [label, "x"] for name, label in zip(names, labels, strict=True)}), {"label": ("multilabel", 4)}, {"all": N}),
    Layout("records by name in JSON", "", in_json(lambda names, labels: {name: {"label": label, "part": "train" if n % 4 else "val"} for n, (name, label) in enumerate(zip(names, labels, strict=True))}), CLASS3, {"train": 18, "valid": 6}),
    Layout("names by label in JSON", "", in_json(lambda names, labels: {label: [n for n, own in zip(names, labels, strict=True) if own == label] for label in ABC}), CLASS3, {"all": N}),
    Layout("folds and a test in one column", "", split_by("fold", 0, 1, 2, "test"), SPECIES, {"train": 12, "valid": 6}, says=["test: 6 rows kept out"]),
    Layout("folds and -1", "", split_by("kfold", -1, 0, 1, 2), SPECIES, {"train": 18, "valid": 6}, {"valid_fold": "0"}),
    Layout("flags for validation and the test", "", tabled(["file", "species", "is_valid", "is_test"], lambda n: [f"{n}.png", ABC[n % 3], int(n // 3 % 4 == 1), int(n // 3 % 4 == 0)]), SPECIES, {"train": 12, "valid": 6}, says=["test: 6 rows kept out"]),
    Layout("a flag for each part", "", tabled(["file", "species", "train", "val", "test"], lambda n: [f"{n}.png", ABC[n % 3], *(int(n // 3 % 3 == k) for k in range(3))]), SPECIES, {"train": 9, "valid": 9}),
    Layout("classes in the names of the files of each part", "", classes_in_names_of_parts, CLASS2, {"train": 16, "valid": 8}, says=["test: 6 rows kept out", "left out 1 images of test/"]),
    Layout("a table two levels below", "", table_below_data, CLASS3, {"all": N}),
    Layout("records within JSON", "", annotations_in_json, CLASS3, {"all": N}),
    Layout("cells around the table", "Excel", text("file,label,,\n" + "".join(f"{n}.png,{ABC[n % 3]},,\n" for n in range(N)) + ",,,\n"), CLASS3, {"all": N}),
    Layout("spaces around the paths", "", text("file,label\n" + "".join(f" {n}.png ,{ABC[n % 3]}\n" for n in range(N))), CLASS3, {"all": N}, says=["by the path without white space around it"]),
    Layout("zeros that Excel took away", "", tabled(["id", "label"], lambda n: [n, ABC[n % 3]], form="{:05}.png"), CLASS3, {"all": N}, says=["by the number that the name is, such as '00000.png' for '0'"]),
    Layout("ids that became 7.0", "pandas", tabled(["id", "label"], lambda n: [f"{n}.0", ABC[n % 3]]), CLASS3, {"all": N}),
    Layout("ids of other data next door", "", other_data_next_door, refusal="column 'id' has '0', but there is no such image; images in"),
    Layout("boxes, several rows an image", "", boxes_in_table, refusal="found 48 rows for 24 images, and boxes of objects (xmin, ymin, xmax, ymax)"),
    Layout("a row for each label", "Open Images", a_row_for_each_label, {"label": ("multilabel", 3)}, {"all": N}, says=["several labels of an image (3 labels), from its rows"]),
    Layout("a row for each opinion", "", two_opinions, CLASS3, {"all": 2 * N}, {"id": "row"}, ["8 of them with different labels ('0.png': ash, elm)"]),
    Layout("ids of rows, images twice", "", ids_of_rows, CLASS3, {"all": 2 * N}, {"id": "row_id"}),
    Layout("a template that asks for all columns", "", template_of_both, {**SPECIES, "height": ("regression", 0)}, {"all": N}),
    Layout("a spreadsheet beside the images", "", spreadsheet_beside_images, refusal="labels.xlsx is not read: save it as CSV"),
    Layout("labels in MATLAB's form", "Oxford Flowers", labels_in_matlab, refusal="imagelabels.mat is not read: write its labels into a CSV file"),
]  # fmt: skip
