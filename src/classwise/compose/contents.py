"""Rows that hold the same image, under whatever name: they are one group, never in two splits."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from classwise.compose.labels import Labels
from classwise.compose.splits import DatasetSplits, Split
from classwise.data.sources import Samples
from classwise.data.split import merge_groups
from classwise.data.targets import MultilabelTarget, RankingTarget, Target
from classwise.errors import DataError

LISTED_PAIRS = 5  # named in a message; more are only counted


def split_groups(samples: Samples, labels: Labels, targets: Sequence[Target]) -> list[str] | None:
    """The group of each row, for a split: rows that share a group, a query or their image, also through other rows.
    None if each row is its own."""
    groupings = _groupings(samples.groups, samples.contents)
    groupings += [
        [str(query) for query in labels[target.name][:, 1]]
        for target in targets
        if isinstance(target, RankingTarget)
    ]
    return merge_groups(*groupings) if groupings else None


def resampling_groups(samples: Samples) -> Sequence[str] | None:
    """The group of each row, for the bootstrap: see `dependent_rows`."""
    return dependent_rows(samples.groups, samples.contents)


def dependent_rows(groups: Sequence[str] | None, contents: Sequence[str] | None) -> Sequence[str] | None:
    """The group of each row: rows that share a group or their image vary together. None if each row is its own."""
    groupings = _groupings(groups, contents)
    return merge_groups(*groupings) if len(groupings) > 1 else next(iter(groupings), None)


def _groupings(groups: Sequence[str] | None, contents: Sequence[str] | None) -> list[Sequence[str]]:
    """The groups of the table, if it has any, and the contents, if any two rows have the same."""
    groupings = [] if groups is None else [groups]
    if contents is not None and len(set(contents)) < len(contents):
        groupings.append(contents)
    return groupings


def content_counts(splits: DatasetSplits) -> dict[str, int]:
    """The entry `shared_content` of status.json: how many `rows` hold an image that another row holds too, how many
    different `images` these are, and how many of the images have rows with different labels (`conflicts`)."""
    by_split = [_rows_by_content(split.samples) for split in splits.by_name.values()]
    return {
        "rows": sum(len(rows) for found in by_split for rows in found.values()),
        "images": sum(len(found) for found in by_split),
        "conflicts": len(_conflicts(splits)),
    }


def content_warnings(splits: DatasetSplits) -> list[str]:
    """Warnings of rows that hold the same image, and of those among them whose labels differ."""
    counts = content_counts(splits)
    warnings = []
    if counts["rows"]:
        warnings.append(
            f"{counts['rows']} rows hold an image that another row holds too ({counts['images']} different images);"
            " rows with the same image are never in two splits"
        )
    if conflicts := _conflicts(splits):
        listed = "; ".join(conflicts[:LISTED_PAIRS])
        more = f"; and {len(conflicts) - LISTED_PAIRS} more images" if len(conflicts) > LISTED_PAIRS else ""
        warnings.append(
            f"{len(conflicts)} image{'' if len(conflicts) == 1 else 's'} with contradictory labels: {listed}{more}"
        )
    return warnings


def leak_warning(splits: DatasetSplits) -> str | None:
    """A warning of validation rows whose image is a training image too, or None. Only runs of versions that did not
    compare images have such rows, and these have no test rows."""
    valid = splits.valid.samples
    trained = set(splits.train.samples.contents or ())
    leaked = sum(content in trained for content in valid.contents or ())
    if not leaked:
        return None
    return (
        f"{leaked} of {len(valid)} validation rows hold an image that was trained on, so the scores are too high; the"
        " run was split by a version that did not compare images: train a new one"
    )


def refuse_shared_content(train: Samples, valid: Samples, key: str) -> None:
    """Raise DataError with the pairs of rows if an image of `valid` is one of `train`, under whatever name. `key`: the
    key of `data` that names the second."""
    train_names = _names_by_content(train)
    pairs = [
        f"{name!r} is {train_names[content]!r}"
        for name, content in zip(valid.names, valid.contents or (), strict=True)
        if content in train_names
    ]
    if pairs:
        what = "training and validation" if key == "valid" else "the test and the other rows"
        listed = ", ".join(pairs[:LISTED_PAIRS])
        more = f" and {len(pairs) - LISTED_PAIRS} more" if len(pairs) > LISTED_PAIRS else ""
        raise DataError(
            f"{valid.where} (data.{key}): {len(pairs)} of {len(valid)} rows hold an image that is in {train.where} too,"
            f" pixel for pixel: {listed}{more}; {what} must not share any"
        )


def _names_by_content(samples: Samples) -> dict[str, str]:
    """By content, the name of its first row."""
    names: dict[str, str] = {}
    for name, content in zip(samples.names, samples.contents or (), strict=True):
        names.setdefault(content, name)
    return names


def _rows_by_content(samples: Samples) -> dict[str, list[int]]:
    """The rows of each content that more than one row has."""
    rows: dict[str, list[int]] = {}
    for row, content in enumerate(samples.contents or ()):
        rows.setdefault(content, []).append(row)
    return {content: found for content, found in rows.items() if len(found) > 1}


def _conflicts(splits: DatasetSplits) -> list[str]:
    """For each image whose rows have different labels, two of these rows and their labels. Relevance is left out: it
    belongs to a query and not to the image alone."""
    conflicts = []
    for split in splits.by_name.values():
        for rows in _rows_by_content(split.samples).values():
            found = (_conflict(target, split, rows) for target in splits.targets)
            texts = [text for text in found if text]
            if texts:
                conflicts.append(texts[0])
    return conflicts


def _conflict(target: Target, split: Split, rows: Sequence[int]) -> str:
    """The first row of `rows` whose labels differ from those of one before it, for a message; empty if none does."""
    if isinstance(target, RankingTarget):
        return ""
    labels = split.labels[target.name]
    labeled = [row for row, known in zip(rows, target.is_labeled(labels[rows]), strict=True) if known]
    for row in labeled[1:]:
        first = labeled[0]
        if _differ(labels[first], labels[row]):
            names = [_row_name(split.samples, number) for number in (first, row)]
            texts = [_label_text(target, labels[number]) for number in (first, row)]
            return f"{target.name} is {texts[0]} in {names[0]} and {texts[1]} in {names[1]}"
    return ""


def _differ(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> bool:
    """Whether two encoded labels differ where both are known."""
    known = ~(np.isnan(first) | np.isnan(second))
    return bool((known & (first != second)).any())


def _label_text(target: Target, encoded: npt.NDArray[Any]) -> str:
    """An encoded label as the table has it."""
    if isinstance(target, MultilabelTarget):
        return repr((target.separator or "|").join(np.array(target.labels)[encoded == 1].tolist()))
    if target.type == "regression":
        return str(float(encoded))
    return repr(target.labels[int(encoded)])


def _row_name(samples: Samples, row: int) -> str:
    """A row by its id, and by its path where that is another."""
    id, name = samples.ids[row], samples.names[row]
    return repr(id) if id == name else f"{id!r} ({name})"
