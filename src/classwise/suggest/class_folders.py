"""Which level of folders the classes are, where a source is no plain tree of train, val and test.

CLASS/1.jpg              class folders, perhaps with a test beside them
CLASS/train/1.jpg        parts of a split within each class
DOMAIN/train/CLASS/1.jpg parts of a split within each domain
DOMAIN/CLASS/1.jpg       the same class folders in several folders: domains, folds
CLASS/PATIENT/1.jpg      groups of images within each class, or classes within each group
"""

import re
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from classwise.data.split_column import part_of_word
from classwise.errors import DataError
from classwise.suggest.guess import listed
from classwise.suggest.layout import Layout, part_of_folder, split_decision
from classwise.suggest.names import words

BESIDE = ("test", "testing", "test_set", "val", "valid", "validation")
"""Names of folders that are no classes where others beside them are."""
SAME = 0.75
"""Folders hold the same folders if at least this share of all pairs of an outer and an inner one exists."""
GROUPS = (
    "patient", "pat", "person", "subject", "subj", "sub", "p", "s", "case", "user", "individual", "video", "vid",
    "clip", "seq", "sequence", "session", "scene", "slide", "specimen", "animal", "site", "plot", "plate", "well",
)  # fmt: skip
"""Names, with numbers behind them, of what several images are of."""
BATCHES = ("part", "batch", "set", "chunk", "images", "day", "shard", "burst", "camera", "cam")
"""Names, with numbers behind them, that say nothing of what images show."""


def numbered_as(names: Collection[str], allowed: Collection[str]) -> bool:
    """Whether all names are one of the `allowed` words with a number behind it: patient_1, patient_2."""
    found = [re.fullmatch(r"([^\W\d_]+)[ _\-.]*\d+", name.strip()) for name in names]
    return len({match[1].casefold() if match else "" for match in found}) == 1 and all(
        match is not None and match[1].casefold() in allowed for match in found
    )


def parts_within_folders(names: list[str], source: Path) -> Layout | None:
    """CLASS/train/1.jpg or DOMAIN/train/CLASS/1.jpg: every first folder holds parts of a split. Raises DataError for
    folds that each have a training and a validation part, since an image of one is on the other side in the next."""
    deep = [name.split("/") for name in names if name.count("/") >= 2]
    parts = {(first, second): part_of_folder(second) for first, second, *_ in deep}
    if len(deep) < len(names) or not deep or any(part is None for part in parts.values()):
        return None
    if "train" not in parts.values() or len(set(parts.values())) < 2:
        return None
    part_of = [str(parts[path[0], path[1]]) for path in deep]
    seconds = sorted({second for _, second in parts})

    # Where folders within the parts recur, those are the classes of which there are more; else the first folders are.
    firsts = list(dict.fromkeys(path[0] for path in deep))
    recur = _recur_in_parts(deep)
    inner = sorted({path[2] for path in deep}) if recur else []
    if recur and _are_folds(firsts):
        raise DataError(
            f"{source}: found the folders {listed(firsts)}, each with parts of a split of its own"
            f" ({', '.join(seconds)}): folds, of which one is trained at a time; classwise init {source / firsts[0]}"
        )
    level = 2 if len(inner) > len(firsts) else 0
    rows = [(name, path[level], part) for name, path, part in zip(names, deep, part_of, strict=True)]
    decisions = [split_decision(rows, seconds)]
    if recur:
        which, classes = ("innermost", inner) if level else ("outermost", firsts)
        more = "there are more of them" if level else f"the inner ones ({listed(inner)}) are not more"
        decisions.append(
            (
                "targets.label.column",
                f"label: {len(classes)} classes, the {which} folders ({listed(classes)})",
                f"each of {listed(firsts, 4)} holds the same folders in its parts of a split, and {more}",
                f"classwise init {source / firsts[0]} takes the images of one of them, or a table says the labels",
            )
        )
    return Layout(rows, "split", decisions)


def _recur_in_parts(deep: list[list[str]]) -> bool:
    """Whether the third folders are the same in the parts of a split in several first folders, and no groups."""
    if any(len(path) < 4 for path in deep):
        return False
    firsts, thirds = {path[0] for path in deep}, {path[2] for path in deep}
    pairs = {(path[0], path[2]) for path in deep}
    is_place = numbered_as(thirds, GROUPS) or numbered_as(thirds, BATCHES)
    return (
        len(firsts) > 1
        and len(thirds) > 1
        and not is_place
        and len(pairs) >= SAME * len(firsts) * len(thirds)
    )


def _are_folds(folders: Collection[str]) -> bool:
    return all(words(folder)[:1] in (["fold"], ["cv"], ["kfold"], ["split"]) for folder in folders)


def repeated_folders(names: list[str], source: Path) -> Layout | None:
    """DOMAIN/CLASS/1.jpg: several folders hold folders of the same names. Those of which there are more are the
    classes, unless they are numbered as groups are."""
    inner: dict[str, set[str]] = {}
    for name in names:
        first, _, rest = name.partition("/")
        if "/" not in rest:
            return None
        inner.setdefault(first, set()).add(rest.split("/")[0])
    all_inner = set().union(*inner.values()) if inner else set()
    if len(inner) < 2 or len(all_inner) < 2:
        return None
    if sum(map(len, inner.values())) < SAME * len(inner) * len(all_inner):
        return None
    firsts = list(inner)
    if numbered_as(all_inner, GROUPS) or numbered_as(all_inner, BATCHES):
        return None
    if numbered_as(firsts, GROUPS) or _are_long_numbers(firsts):
        return _classes_in_groups(names, firsts, sorted(all_inner))
    are_folds = _are_folds(firsts)
    if len(all_inner) <= len(inner) and not are_folds:
        rows = [(name, name.split("/")[0], name.split("/")[1]) for name in names]
        classes, column = firsts, "folder"
        which, other = "outer", "inner"
    else:
        rows = [(name, name.split("/")[1], name.split("/")[0]) for name in names]
        classes, column = sorted(all_inner), "fold" if are_folds else "folder"
        which, other = "inner", "outer"
    why = ", and they are named as folds" if are_folds else ""
    why = why or (", and there are more of these" if which == "inner" else "")
    decision = (
        "targets.label.column",
        f"label: {len(classes)} classes, the {which} folders ({listed(classes)})",
        f"each of {listed(firsts, 4)} holds the same folders{why}",
        f'column = "{column}", which has the {other} folders',
    )
    return Layout(rows, "fold" if are_folds else "domain", [decision])


def _are_long_numbers(folders: Collection[str]) -> bool:
    """Whether all are numbers as persons and studies have them: 8863, 10253."""
    return all(re.fullmatch(r"\d{4,}", folder) for folder in folders)


def _classes_in_groups(names: list[str], firsts: list[str], classes: list[str]) -> Layout:
    """PATIENT/CLASS/1.jpg: the images of a patient stay together."""
    rows = [(name, name.split("/")[1], name.split("/")[0]) for name in names]
    label = (
        "targets.label.column",
        f"label: {len(classes)} classes, the inner folders ({listed(classes)})",
        f"the outer ones ({listed(firsts, 3)}) are numbered as persons, sites and the like are",
        'column = "folder", which has the outer folders',
    )
    group = (
        "data.group",
        f"groups: the {len(firsts)} outer folders",
        "the images of one are probably alike, and are never split",
        "without data.group the images are split one by one",
    )
    return Layout(rows, "group", [label, group])


def parts_beside_classes(names: list[str], source: Path) -> Layout | None:
    """CLASS/1.jpg, and test/1.jpg or test/CLASS/1.jpg beside the classes: a folder for validation or the test, but none
    for training."""
    firsts = dict.fromkeys(name.split("/")[0] for name in names if "/" in name)
    part_of = {first: str(part_of_word(first)) for first in firsts if first.casefold() in BESIDE}
    classes = [first for first in firsts if first not in part_of and part_of_word(first) is None]
    if any(first.casefold() == "invalid" for first in classes):
        part_of = {first: part for first, part in part_of.items() if part == "test"}  # valid is its opposite
    if not part_of or len(classes) < 2 or len(classes) + len(part_of) < len(firsts):
        return None
    rows: list[tuple[str, str, str]] = []
    left_out: Counter[str] = Counter()
    for name in names:
        first, *inner = name.split("/")
        if first in classes:
            rows.append((name, first, "train"))
        elif len(inner) > 1 and inner[0] in classes:
            rows.append((name, inner[0], part_of[first]))
        else:
            left_out[first] += 1
    said = [
        f"left out {count} images of {first}/, which is named as a part of a split, not as a class; a table with a"
        " column of paths and one of labels makes it a class"
        for first, count in left_out.items()
    ]
    parts = {part for _, _, part in rows}
    if len(parts) == 1:
        return Layout([(name, label, "") for name, label, _ in rows], said=said)
    return Layout(rows, "split", [split_decision(rows, list(part_of))], said)


def plain_class_folders(names: list[str]) -> Layout:
    """CLASS/1.jpg: the first folders are the classes, whatever folders they hold, which is said."""
    deep = {name: name.split("/") for name in names if "/" in name}
    inner = {(path[0], path[1]) for path in deep.values() if len(path) > 2}
    firsts = {path[0] for path in deep.values()}
    if len(inner) <= len(firsts) or any(len(path) < 3 for path in deep.values()):
        return Layout([(name, path[0], "") for name, path in deep.items()])
    rows = [(name, path[0], path[1]) for name, path in deep.items()]
    seconds = {path[1] for path in deep.values()}

    # The images of a patient stay together; of other folders it is only said that they are there.
    if numbered_as(seconds, GROUPS):
        decision = (
            "data.group",
            f"groups: the {len(seconds)} inner folders ({listed(sorted(seconds))})",
            "they are numbered as persons, videos and the like are; the images of one are never split",
            "without data.group the images are split one by one",
        )
        return Layout(rows, "group", [decision])
    decision = (
        "targets.label.column",
        f"label: {len(firsts)} classes, the outer folders ({listed(sorted(firsts))})",
        f"the inner ones ({listed(sorted(seconds), 3)}) differ between them or are numbered",
        'column = "folder", which has the inner folders',
    )
    return Layout(rows, "domain", [decision])
