"""Rows that hold the same image, under whatever name: they are one group, never in two splits.

Not so with a ranking target: its unit is the query, and images that recur in several queries would merge these to one
group, which cannot be split.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from classwise.compose.labels import Labels
from classwise.compose.splits import DatasetSplits, Split
from classwise.data.sources import Samples
from classwise.data.split import merge_groups
from classwise.data.targets import MultilabelTarget, RankingTarget, Target
from classwise.data.texts import Texts
from classwise.errors import DataError

_RowsByContent = dict[str, list[tuple[Split, int]]]
LISTED_PAIRS = 5  # named in a message; more are only counted


def split_groups(samples: Samples, labels: Labels, targets: Sequence[Target]) -> list[str] | None:
    """The group of each row, for a split: rows that share a group, a query or their image, also through other rows.
    With a ranking target the image does not count. None if each row is its own."""
    groupings = _groupings(samples.groups, None if has_queries(targets) else samples.contents)
    groupings += [
        [str(query) for query in labels[target.name][:, 1]]
        for target in targets
        if isinstance(target, RankingTarget)
    ]
    return merge_groups(*groupings) if groupings else None


def resampling_groups(samples: Samples, targets: Sequence[Target]) -> Sequence[str] | None:
    """The group of each row, for the bootstrap: see `dependent_rows`. With a ranking target, which merges the groups
    with its queries, the image does not count."""
    return dependent_rows(samples.groups, None if has_queries(targets) else samples.contents)


def dependent_rows(groups: Sequence[str] | None, contents: Sequence[str] | None) -> Sequence[str] | None:
    """The group of each row: rows that share a group or their image vary together. None if each row is its own."""
    groupings = _groupings(groups, contents)
    return merge_groups(*groupings) if len(groupings) > 1 else next(iter(groupings), None)


def has_queries(targets: Sequence[Target]) -> bool:
    """Whether there is a ranking target."""
    return any(isinstance(target, RankingTarget) for target in targets)


def _groupings(groups: Sequence[str] | None, contents: Sequence[str] | None) -> list[Sequence[str]]:
    """The groups of the table, if it has any, and the contents, if any two rows have the same."""
    groupings = [] if groups is None else [groups]
    if contents is not None and Texts.of(contents).has_repeats:
        groupings.append(contents)
    return groupings


def largest_group_text(samples: Samples, labels: Labels, targets: Sequence[Target]) -> str:
    """For the message of a split that is impossible: the group that holds more than half of the rows, and what its rows
    share. Empty if there is none."""
    groups = split_groups(samples, labels, targets) or samples.ids
    name, size = Counter(groups).most_common(1)[0]
    if 2 * size <= len(samples):
        return ""
    members = [row for row, group in enumerate(groups) if group == name]

    # What has put them together, each by the value that most of them share.
    shared = []
    if samples.groups is not None:
        shared.append(("a group (data.group: ", samples.groups))
    if samples.contents is not None and not has_queries(targets):
        names = _names_by_content(samples)
        shared.append(("an image (", tuple(names[content] for content in samples.contents)))
    for target in targets:
        if isinstance(target, RankingTarget):
            queries = tuple(map(str, samples.frame[target.query].to_list()))
            shared.append((f"a query (targets.{target.name}.query: ", queries))
    causes = []
    for what, values in shared:
        value, count = Counter(values[row] for row in members).most_common(1)[0]
        if count > 1:
            causes.append(f"{what}{value!r} in {count} rows)")
    return f"; one group holds {size} of the {len(samples)} rows, linked by {' and '.join(causes)}"


def content_counts(splits: DatasetSplits) -> dict[str, int]:
    """The entry `shared_content` of status.json: how many `rows` hold an image that another row holds too, how many
    different `images` these are, and how many of the images have rows with different labels (`conflicts`)."""
    return _counts(splits, _rows_by_content(splits))


def _counts(splits: DatasetSplits, found: _RowsByContent) -> dict[str, int]:
    return {
        "rows": sum(map(len, found.values())),
        "images": len(found),
        "conflicts": len(_conflicts(splits, found)),
    }


def content_warnings(splits: DatasetSplits) -> list[str]:
    """Warnings of rows that hold the same image, and of those among them whose labels differ."""
    found = _rows_by_content(splits)
    counts = _counts(splits, found)
    warnings = []
    if counts["rows"]:
        warnings.append(
            f"{counts['rows']} rows hold an image that another row holds too ({counts['images']} different images);"
            f" {_unit_text(splits)}"
        )
    if conflicts := _conflicts(splits, found):
        listed = "; ".join(conflicts[:LISTED_PAIRS])
        more = f"; and {len(conflicts) - LISTED_PAIRS} more images" if len(conflicts) > LISTED_PAIRS else ""
        warnings.append(
            f"{len(conflicts)} image{'' if len(conflicts) == 1 else 's'} with contradictory labels: {listed}{more}"
        )
    return warnings


def _unit_text(splits: DatasetSplits) -> str:
    """What becomes of rows with the same image."""
    if not has_queries(splits.targets):
        return "rows with the same image are never in two splits"
    crossing = sum(len({id(split) for split, _ in rows}) > 1 for rows in _rows_by_content(splits).values())
    others = any(not isinstance(target, RankingTarget) for target in splits.targets)
    return (
        f"with a ranking target, queries are kept whole and not images: {crossing} of the images are in more than one"
        " split" + (", so the scores of the other targets may be too high" if crossing and others else "")
    )


def leak_warning(splits: DatasetSplits) -> str | None:
    """A warning of validation rows whose image is a training image too, or None. Only runs of versions that did not
    compare images have such rows, and these have no test rows. With a ranking target images may recur."""
    if has_queries(splits.targets):
        return None
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
    if train.contents is None or valid.contents is None:
        return  # images have not been read: a rehearsal
    train_names = _names_by_content(train)
    pairs = [
        f"{name!r} is {train_names[content]!r}"
        for name, content in zip(valid.names, valid.contents, strict=True)
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


def _rows_by_content(splits: DatasetSplits) -> _RowsByContent:
    """The rows of each content that more than one row has: their split, and their number there."""
    parts = list(splits.by_name.values())
    hash_N = np.concatenate([np.zeros(0, np.int64), *(_content_hashes(split) for split in parts)])
    # Few rows share an image: these alone are made into objects.
    number_N, count_N = np.unique(hash_N, return_counts=True)
    is_shared_N = np.isin(hash_N, number_N[count_N > 1])
    ends = np.cumsum([len(split.samples.contents or ()) for split in parts])
    rows: _RowsByContent = {}
    for at in np.flatnonzero(is_shared_N).tolist():
        number = int(np.searchsorted(ends, at, side="right"))
        split, row = parts[number], at - (int(ends[number - 1]) if number else 0)
        contents = split.samples.contents
        assert contents is not None
        rows.setdefault(contents[row], []).append((split, row))
    return {content: found for content, found in rows.items() if len(found) > 1}


def _content_hashes(split: Split) -> npt.NDArray[np.int64]:
    """(N,) a hash of each row's content; two that differ may have the same one."""
    return Texts.of(split.samples.contents or ()).hashes()


def _conflicts(splits: DatasetSplits, found: _RowsByContent) -> list[str]:
    """For each image whose rows have different labels, two of these rows and their labels. Relevance is left out: it
    belongs to a query and not to the image alone."""
    conflicts = []
    for rows in found.values():
        of_targets = (_conflict(target, rows) for target in splits.targets)
        texts = [text for text in of_targets if text]
        if texts:
            conflicts.append(texts[0])
    return conflicts


def _conflict(target: Target, rows: Sequence[tuple[Split, int]]) -> str:
    """The first row of `rows` whose labels differ from those of one before it, for a message; empty if none does."""
    if isinstance(target, RankingTarget):
        return ""
    labels = [(split.labels[target.name][row], _row_name(split.samples, row)) for split, row in rows]
    is_known_N = target.is_labeled(np.stack([encoded for encoded, _ in labels]))
    labeled = [found for found, known in zip(labels, is_known_N, strict=True) if known]
    for encoded, name in labeled[1:]:
        first, first_name = labeled[0]
        if _differ(first, encoded):
            texts = [_label_text(target, values) for values in (first, encoded)]
            return f"{target.name} is {texts[0]} in {first_name} and {texts[1]} in {name}"
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
