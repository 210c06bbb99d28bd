"""From columns and features to findings about the data as a whole: shortcuts, and shift between two parts."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from classwise.data.split import merge_groups
from classwise.datacheck.features import Features
from classwise.datacheck.file_facts import file_facts
from classwise.datacheck.finding import INFO, SEVERE, WARNING, Finding
from classwise.datacheck.image_quality import QualityIssue, issue_flags
from classwise.datacheck.rows import TRAIN, Rows
from classwise.datacheck.shift import Shift, compare_sets
from classwise.datacheck.shortcuts import Shortcut, find_shortcuts, is_sorted_by_class
from classwise.errors import DataError

WORDS = {
    "bytes": "the size of the file",
    "suffix": "the format of the file",
    "folder": "the folder",
    "height": "the height of the image",
    "width": "the width of the image",
    "aspect": "the aspect of the image",
    "taken": "when it was taken (EXIF)",
    "camera": "the camera (EXIF)",
    "quantization": "the quality that JPEG files were saved with",
    "border": "the brightness of the border",
    "flat border": "whether the image has a border of one color",
    "position": "the position in the table",
}
OF_CONTENT = ("bytes", "border", "height", "width", "aspect")
"""What may follow from what the image shows: a textured surface makes a larger file."""
OF_FOLDERS = 0.8
"""The share of labels that folders have to tell to be where they were read from."""
MOST_ROWS_THAT_TELL = 10


def shortcut_findings(
    rows: Rows,
    statistics: pl.DataFrame,
    issues: Sequence[QualityIssue],
    units: Sequence[str],
    max_pixels: int,
) -> list[Finding]:
    """What tells the label of each target and should not. `statistics`: a row for each image, as `statistics_table` has
    them; `units`: which rows depend on each other, as from `dependent_units`. Numbers are no labels here."""
    own = np.flatnonzero(~rows.is_other)
    facts = file_facts([rows.paths[row] for row in own], rows.folders, max_pixels)
    flags = issue_flags(issues, len(rows))
    columns = facts.with_columns(
        statistics["border"][own],
        statistics["flat_border"][own].alias("flat border"),
        pl.Series("position", rows.places[own]),
        *(pl.Series(f"is {kind}", flags[kind].to_numpy()[own]) for kind in flags.columns),
    )
    groups = [units[row] for row in own.tolist()]
    found = []
    for target in rows.targets:
        if target.name not in rows.texts or target.type == "regression":
            continue
        labels, label_N = _numbered([rows.texts[target.name][row] for row in own])
        # Labels that were read from folders are told by them, also once some were corrected; so they are by the
        # position in a table that lists folder after folder.
        is_of_folders = _share_told_by_folders(facts, labels, label_N) >= OF_FOLDERS
        left_out = ["folder", "position"] if is_of_folders else []
        if rows.table.file is None or is_sorted_by_class(
            label_N[np.argsort(rows.places[own], kind="stable")]
        ):
            left_out.append("position")
        shortcuts = find_shortcuts(columns, label_N, groups, left_out=left_out)
        found += [shortcut_finding(target.name, labels, one) for one in shortcuts if one.is_notable]
    return found


def dependent_units(rows: Rows, group_of: Sequence[int]) -> list[str]:
    """The unit (N,) of each row: rows that share a group of the data, or are copies of each other, vary together."""
    groups: list[str] = []
    for number, part in enumerate(rows.parts):
        own = part.samples.groups or tuple(f"row {row}" for row in range(len(part.samples)))
        # A group of the data is the same one in all of its parts; another set has names of its own.
        has_own_names = part.is_other or part.samples.groups is None
        groups += [f"{number if has_own_names else ''} {name}" for name in own]
    return merge_groups(groups, [str(group) for group in group_of])


def _numbered(texts: Sequence[str | None]) -> tuple[list[str], npt.NDArray[np.int64]]:
    """The labels in order, and the number of each row's, -1 where it has none."""
    labels = sorted({text for text in texts if text is not None})
    number = {label: place for place, label in enumerate(labels)}
    return labels, np.array([-1 if text is None else number[text] for text in texts], dtype=np.int64)


def _share_told_by_folders(
    facts: pl.DataFrame, labels: Sequence[str], label_N: npt.NDArray[np.int64]
) -> float:
    """The share of the labeled rows that have the most frequent label of their folder, where each label has a folder of
    its own; else 0."""
    folders = facts["folder"].to_list()
    counts: dict[str, Counter[int]] = {}
    for folder, number in zip(folders, label_N.tolist(), strict=True):
        if number >= 0:
            counts.setdefault(folder, Counter())[number] += 1
    told = {counter.most_common(1)[0][0] for counter in counts.values()}
    if len(told) < len(labels):
        return 0.0
    return sum(max(counter.values()) for counter in counts.values()) / max(1, int((label_N >= 0).sum()))


def shortcut_finding(target: str, labels: Sequence[str], shortcut: Shortcut) -> Finding:
    """What a notable shortcut tells, of all labels or of one, whichever is more than chance; `labels` by number."""
    words = WORDS.get(shortcut.column, shortcut.column)
    label = "" if shortcut.best_class is None else repr(labels[shortcut.best_class])
    told = f", above all {label}" if label and shortcut.informedness > shortcut.strength else ""
    if shortcut.tells_all:
        claim = (
            f"tells {target}{told}: from it alone the balanced accuracy is {shortcut.balanced_accuracy:.2f}, by"
            f" guessing {shortcut.chance:.2f} (p = {shortcut.p_strength:.2g}, {shortcut.rows} rows)"
        )
    else:
        claim = (
            f"tells {label} from the other classes of {target}: from it alone, the share of its rows that are"
            f" recognized is larger by {shortcut.informedness:.2f} than that of other rows taken for it, by guessing 0"
            f" (p = {shortcut.p_class:.2g}, {shortcut.rows} rows)"
        )
    may_follow = shortcut.column in OF_CONTENT
    why = (
        " It may follow from what the images show: look at images of both ends"
        if may_follow
        else " A model can learn it in place of the content: make it equal for all classes, or split by it"
    )
    severity = WARNING if shortcut.is_strong and not may_follow else INFO
    return Finding(
        kind="shortcut",
        severity=severity,
        id="",
        partner="",
        value=round(max(shortcut.strength, shortcut.informedness), 4),
        advice=f"{words} {claim}.{why}",
        details={
            "column": shortcut.column,
            "target": target,
            "balanced_accuracy": shortcut.balanced_accuracy,
            "chance": shortcut.chance,
            "p_value": shortcut.p_value,
        },
    )


def shift_findings(rows: Rows, features: Features, units: Sequence[str]) -> tuple[list[Finding], list[str]]:
    """Whether validation, test and each other set look like the training rows, and why a set was not compared. `units`:
    as from `dependent_units`."""
    found: list[Finding] = []
    left_out: list[str] = []
    part_N = np.array(rows.part_of)[features.rows]
    train_N = part_N == TRAIN
    for name in dict.fromkeys(rows.part_of):
        other_N = part_N == name
        if name == TRAIN or not other_N.any():
            continue
        try:
            shift = compare_sets(
                features.features[train_N],
                features.features[other_N],
                [units[row] for row in features.rows[train_N]],
                [units[row] for row in features.rows[other_N]],
            )
        except DataError as error:
            left_out.append(f"shift between train and {name}: {str(error).removeprefix('shift: ')}")
            continue
        if shift.is_notable:
            found.append(_shift(rows, name, shift, features.rows[train_N], features.rows[other_N]))
    return found, left_out


def _shift(
    rows: Rows, name: str, shift: Shift, train_A: npt.NDArray[np.int64], other_B: npt.NDArray[np.int64]
) -> Finding:
    telling = [rows.ids[other_B[row]] for row in shift.rows_B[:MOST_ROWS_THAT_TELL]]
    unlike = [rows.ids[train_A[row]] for row in shift.rows_A[:MOST_ROWS_THAT_TELL]]
    low, high = shift.interval
    return Finding(
        kind="shift",
        severity=SEVERE if shift.is_strong and name == "test" else WARNING,
        id="",
        partner="",
        value=round(shift.auc, 4),
        advice=(
            f"{name} does not look like train: images are told apart with an AUC of {shift.auc:.3f} [{low:.3f},"
            f" {high:.3f}] (0.5: alike; p = {shift.p_value:.2g}). A score on other rows of train says less about it;"
            " shown are the rows that tell most. Look for another"
            " camera, time or selection, and validate on rows like these"
        ),
        details={"part": name, "interval": [low, high], "members": telling, "unlike": unlike},
    )
