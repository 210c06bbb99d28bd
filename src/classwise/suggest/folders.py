"""What the folders of a source mean: classes, parts of a split, domains, or nothing; from the paths of its images.

train/CLASS/1.jpg        parts of a split with class folders
CLASS_1.jpg, cat.1.jpg   the class in the file's name

Other trees of class folders: see class_folders.py.
"""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import polars as pl

from classwise.data.label_spelling import spelling_key
from classwise.data.listing import without_suffix
from classwise.data.sources import folder_table
from classwise.errors import DataError
from classwise.suggest.class_folders import (
    parts_beside_classes,
    parts_within_folders,
    plain_class_folders,
    repeated_folders,
)
from classwise.suggest.guess import Guess, listed
from classwise.suggest.layout import PARTS, Layout, part_of_folder, split_decision
from classwise.suggest.names import words
from classwise.suggest.not_labels import outlines_text, without_outlines

NOT_CLASSES = ("unlabeled", "unlabelled", "unsup", "unsupervised", "unsorted", "macosx")
"""Words in the names of folders whose images have no label."""
OF_CAMERAS = (
    "img", "image", "images", "dsc", "dscn", "dscf", "photo", "pic", "picture", "frame", "file", "scan", "screenshot",
    "train", "test", "val", "valid", "sample", "isic", "wp", "pxl", "dji", "cam", "im", "copy", "untitled", "video",
)  # fmt: skip
"""What cameras and programs begin the names of files with: no classes."""


PLACES = (
    "image", "images", "img", "imgs", "photo", "photos", "pictures", "part", "batch", "chunk", "data", "files",
)  # fmt: skip
"""Words of which the names of folders consist that are places of images and no classes."""
COPIES = (
    "all",
    "augmented",
    "aug",
    "cropped",
    "resized",
    "original",
    "originals",
    "raw",
    "backup",
    "old",
    "thumbnails",
)
"""Names of folders that often hold other versions of the images of the classes beside them."""


def guess_folders(source: Path) -> Guess:
    """The classes, and the split if there is one, that the folders of a source stand for. Raises DataError for folders
    that say no classes."""
    table, notes = folder_table(source, follow_links=True)
    if outlines := outlines_text(table["path"].to_list()):
        raise DataError(f"{source}: {outlines}")
    names, outlined = without_outlines(table["path"].to_list())
    layout = layout_of(names, source)
    layout.said.extend(outlined)
    labels = Counter(label for _, label, _ in layout.rows)
    if all(_is_storage(label) for label in labels):
        raise DataError(
            f"{source}: the folders {listed(sorted(labels))} are named as places of images, not as classes; a table"
            " with a column of paths and one of labels says what the images show"
        )
    if len(labels) < 2:
        found = f"only one class folder with images, {next(iter(labels))!r}" if labels else "no class folders"
        raise DataError(f"{source}: found {found}; at least two are needed")
    layout.said.extend([*_doubtful_classes(labels), *_empty_folders(source, layout)])
    return guess_of_layout(layout, source, list(notes), "the names of the folders")


def _doubtful_classes(labels: Counter[str]) -> list[str]:
    """A warning if some classes, but not all, are named as places or as copies of images."""
    doubtful = [label for label in labels if _is_storage(label) or label.casefold() in COPIES]
    if not doubtful:
        return []
    counts = ", ".join(f"{label!r} ({labels[label]} images)" for label in doubtful)
    return [
        f"warning: label: taken for a class, though named as a place or as copies of images: {counts}; move what is no"
        " class out of the folder"
    ]


def _empty_folders(source: Path, layout: Layout) -> list[str]:
    """A line on folders beside those of the classes in which there is nothing."""
    fronts = {
        (path[: path.index(f"{label}/")], label) for path, label, _ in layout.rows if f"{label}/" in path
    }
    full = {source / front / label for front, label in fronts}
    empty = [
        entry.relative_to(source).as_posix()
        for folder in sorted({source / front for front, _ in fronts})
        if folder.is_dir()
        for entry in sorted(folder.iterdir())
        if entry not in full
        and entry.is_dir()
        and not entry.name.startswith(".")
        and not any(entry.iterdir())
    ]
    return [f"no class for {listed([repr(name) for name in empty])}, without any file"] if empty else []


def _is_storage(name: str) -> bool:
    """Whether a folder is only a place of images: images_part_1, batch2, photos."""
    found = [word for word in words(name) if not word.isdecimal()]
    return any(word in PLACES for word in found) and all(word in PLACES or len(word) == 1 for word in found)


def guess_of_layout(layout: Layout, source: Path, notes: list[str], what: str) -> Guess:
    """The table of a layout, and the keys for it. `what`: where the labels come from."""
    folder_column = {"split": "split", "fold": "fold"}.get(layout.folder_means, "folder")
    columns: dict[str, list[str]] = {
        "path": [path for path, _, _ in layout.rows],
        "label": [label for _, label, _ in layout.rows],
    }
    if layout.folder_means:
        columns[folder_column] = [folder for _, _, folder in layout.rows]
    guess = Guess(
        table=pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String)),
        folders=[source],
        data={"path": "path"},
        targets={"label": {"column": "label"}},
        notes={"targets.label.column": "; ".join([f"column with the labels: {what}", *notes])},
        said=[*notes, *layout.said],
    )
    if layout.folder_means in ("split", "fold", "group"):
        guess.data[layout.folder_means] = folder_column
    if "test" in columns.get("split", []):
        parts = [part for part in PARTS if part in columns["split"]]
        guess.data["split_values"] = {part: part for part in parts}
    for key, choice, reason, instead in layout.decisions:
        guess.decide(key, choice, reason, instead)
    if layout.folder_means == "split":
        guess.keep_test_out()
    return guess


def layout_of(names: list[str], source: Path) -> Layout:
    """What the folders of these images mean; `names` are their paths below the source, each in a folder at least."""
    front = _shared_front(names)
    inner = [name[len(front) :] for name in names]
    said = [f"all images lie in {front}"] if front else []
    inner, dropped = _without_unlabeled(inner)
    said += dropped

    for find in (_split_of_classes, parts_within_folders, parts_beside_classes, repeated_folders):
        layout = find(inner, source / front)
        if layout is not None:
            break
    else:
        layout = plain_class_folders(inner)
    rows = [(front + name, label, folder) for name, label, folder in layout.rows]
    return replace(layout, rows=rows, said=[*said, *layout.said])


def _shared_front(names: list[str]) -> str:
    """The folders that all images share, as `data/images/`, as long as there are folders within."""
    front = ""
    while True:
        inner = [name[len(front) :] for name in names]
        firsts = {name.split("/")[0] for name in inner if "/" in name}
        if len(firsts) != 1 or any(name.count("/") < 2 for name in inner):
            return front
        front += f"{firsts.pop()}/"


def _without_unlabeled(names: list[str]) -> tuple[list[str], list[str]]:
    """The images but those of folders that are named as unlabeled, and lines that count these."""
    counts = Counter(
        name.split("/")[0]
        for name in names
        if "/" in name and set(words(name.split("/")[0])) & set(NOT_CLASSES)
    )
    kept = [name for name in names if name.split("/")[0] not in counts]
    if not kept:
        return names, []
    return kept, [
        f"left out {count} images of {folder}/, which is named as one without labels"
        for folder, count in counts.items()
    ]


def _split_of_classes(names: list[str], source: Path) -> Layout | None:
    """train/CLASS/1.jpg and the like; None where the first folders are no parts of a split."""
    firsts = dict.fromkeys(name.split("/")[0] for name in names if "/" in name)
    part_of = {first: part for first in firsts if (part := part_of_folder(first)) is not None}
    if "train" not in part_of.values():
        return None

    # A class may be called train: other folders beside it, and none that share its sub-folders.
    others = [first for first in firsts if first not in part_of]
    within = {first: _classes_in(names, first) for first in firsts}
    trained = {
        label for first, part in part_of.items() if part == "train" for label in within[first].values()
    }
    shares = any(part != "train" and trained & set(within[first].values()) for first, part in part_of.items())
    if others and not (trained and shares):
        return None
    if not trained:
        return _split_of_files(names, part_of, source)
    if len(trained) < 2:
        raise DataError(
            f"{source}: found only one class folder, {trained.pop()!r}, in the folders for training"
            f" ({', '.join(first for first, part in part_of.items() if part == 'train')}); at least two are needed"
        )

    # Rows of known classes; the images of the other folders have no label that could be learnt.
    label_of, respelled = _labels_by_spelling(trained, within, part_of)
    rows: list[tuple[str, str, str]] = []
    left_out: Counter[str] = Counter(name.split("/")[0] for name in names if name.split("/")[0] in others)
    for first, part in part_of.items():
        has_classes = any(label in label_of for label in within[first].values())
        for name in names:
            if not name.startswith(f"{first}/"):
                continue
            label = within[first].get(name)
            if label in label_of:
                rows.append((name, label_of[label], part))
            else:
                left_out[f"{first}/{label}" if label and has_classes else first] += 1
    said = [*respelled, *(_left_out_line(folder, count, part_of) for folder, count in left_out.items())]
    return Layout(rows, "split", [split_decision(rows, list(part_of))], said)


def _labels_by_spelling(
    trained: set[str], within: dict[str, dict[str, str]], part_of: dict[str, str]
) -> tuple[dict[str, str], list[str]]:
    """The class of each folder name: one in another part that differs from a class only in case, white space or Unicode
    form is that class, as systems write names in different ways; and lines that say so."""
    keys = Counter(map(spelling_key, trained))
    by_key = {spelling_key(label): label for label in trained if keys[spelling_key(label)] == 1}
    label_of = {label: label for label in trained}
    said = []
    for first in part_of:
        for label in dict.fromkeys(within[first].values()):
            same = by_key.get(spelling_key(label))
            if label not in label_of and same is not None:
                label_of[label] = same
                said.append(f"{first}/{label}/ is the class {same!r}, which is only spelled differently")
    return label_of, said


def _classes_in(names: list[str], first: str) -> dict[str, str]:
    """By image of a first folder, the folder below it: without a folder in between that holds all of them and is named
    as a part itself (seg_train/seg_train/CLASS)."""
    inner = {name: name[len(first) + 1 :].split("/") for name in names if name.startswith(f"{first}/")}
    while inner and all(len(parts) > 2 for parts in inner.values()):
        seconds = {parts[0] for parts in inner.values()}
        if len(seconds) > 1 or (part_of_folder(next(iter(seconds))) is None and _is_class_level(inner)):
            break
        inner = {name: parts[1:] for name, parts in inner.items()}
    return {name: parts[0] for name, parts in inner.items() if len(parts) > 1}


def _is_class_level(inner: dict[str, list[str]]) -> bool:
    """Whether the second folders would be one class only."""
    return len({parts[1] for parts in inner.values()}) < 2


def _left_out_line(folder: str, count: int, part_of: dict[str, str]) -> str:
    first = folder.split("/")[0]
    if first in part_of and "/" not in folder:
        return f"left out {count} images of {folder}/, which has no folders of the classes; predict them with the run"
    if first in part_of:
        return f"left out {count} images of {folder}/, a class without images for training"
    return f"left out {count} images of {folder}/, which is no part of the split"


def _split_of_files(names: list[str], part_of: dict[str, str], source: Path) -> Layout:
    """train/cat.1.jpg: parts without folders in them, whose files may say their classes. Raises DataError if not."""
    trained = [first for first, part in part_of.items() if part == "train"]
    in_training = [name for name in names if name.split("/")[0] in trained]
    layout = layout_of_file_names(in_training)
    if layout is None:
        raise DataError(
            f"{source}: found the folders {', '.join(part_of)}, which are parts of a split, but no folders of classes"
            " in them and no table of labels beside them; a source has a folder for each class, or a table with a"
            " column of paths and one of labels"
        )
    # Files of the other parts have these classes in their names, or none.
    known = {label for _, label, _ in layout.rows}
    rows = [(name, label, "train") for name, label, _ in layout.rows]
    rest: Counter[str] = Counter()
    for name in names:
        first = name.split("/")[0]
        label = None if first in trained else _label_of_file(name)
        if label in known:
            rows.append((name, str(label), part_of[first]))
        elif first not in trained:
            rest[first] += 1
    said = [*layout.said, *(_left_out_line(folder, count, part_of) for folder, count in rest.items())]
    if len(rows) == len(layout.rows):
        return replace(layout, said=said)
    decisions = [*layout.decisions, split_decision(rows, list(part_of))]
    return Layout(rows, "split", decisions, said)


def _label_of_file(name: str) -> str | None:
    """cat of cat.1.jpg, and of sub/cat_001.png."""
    match = re.fullmatch(r"(.*?[^\W\d_].*?)[ ._\-]*\(?\d+\)?", without_suffix(name.rsplit("/", 1)[-1]))
    return match[1].rstrip(" ._-") if match is not None else None


def layout_of_file_names(names: list[str]) -> Layout | None:
    """The class of each file from its name: cat.1.jpg, Abyssinian_100.jpg; None where names say none."""
    labels = {name: label for name in names if (label := _label_of_file(name)) is not None}
    counts = Counter(labels.values())
    is_class = len(counts) >= 2 and min(counts.values()) >= 2 and 3 * len(counts) <= len(names)
    of_camera = any(
        set(words(label)) & set(OF_CAMERAS) or not re.search(r"[^\W\d_]{2}", label) for label in counts
    )
    if not is_class or of_camera or len(labels) < 0.95 * len(names):
        return None
    said = (
        []
        if len(labels) == len(names)
        else [f"left out {len(names) - len(labels)} images without a number in the name"]
    )
    example = next(iter(labels))
    decision = (
        "targets.label.column",
        f"label: {len(counts)} classes ({listed(sorted(counts))}) from the names of the files",
        f"they are names with numbers behind them ({example} is {labels[example]!r})",
        "a table with a column of paths and one of labels",
    )
    return Layout([(name, label, "") for name, label in labels.items()], decisions=[decision], said=said)
