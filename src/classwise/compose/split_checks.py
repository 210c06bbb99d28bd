"""What is refused in the data (leakage between the splits, clashing column names), and what is warned of."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from classwise.compose.contents import content_warnings
from classwise.compose.splits import DatasetSplits, label_counts, masked_counts
from classwise.config.schema import Config
from classwise.data.label_spelling import column_warnings, spelling_warnings
from classwise.data.masked import masked_text
from classwise.data.shard_source import is_sharded
from classwise.data.sources import Samples
from classwise.data.targets import ClassTarget, MultilabelTarget, RankingTarget, Target
from classwise.errors import ConfigError, DataError
from classwise.infer.columns import probability_columns
from classwise.metrics.joint import MAX_JOINT_CLASSES, joint_labels

LISTED_CLASSES = 8  # named in a warning; more are only counted
SPLIT_NAMES = {"train": "training", "valid": "validation", "test": "test"}


def refuse_folder_columns(config: Config) -> None:
    """Raise ConfigError if a key names a column that a folder of class folders does not have: its only columns are
    `path` and `label`."""
    data = config.data
    if not Path(data.source).is_dir() or is_sharded(data.source):
        return
    allowed = {"path": ("path",), "id": (None, "path"), "group": (None,), "split": (None,), "fold": (None,)}
    for key, columns in allowed.items():
        if getattr(data, key) not in columns:
            raise ConfigError(
                f"data.{key}: found {getattr(data, key)!r}, but data.source is a folder, whose images have no"
                " such column; a table can have one"
            )


def refuse_clashing_names(targets: Sequence[Target], has_joint: bool) -> None:
    """Raise ConfigError if two columns of predictions.csv would have the same name: target `mask` with label `wear`
    has the columns mask, mask_true and mask_p_wear."""
    reserved = ["id"]
    if has_joint:
        reserved += ["joint", "joint_true", "joint_p"]
    owners = dict.fromkeys(reserved, "classwise itself")
    for target in targets:
        columns = [target.name, f"{target.name}_true"]
        columns += probability_columns(target.name, target.labels, target.type)
        for column in columns:
            if column in owners:
                raise ConfigError(
                    f"targets.{target.name}: its predictions would have a column {column!r}, as would"
                    f" {owners[column]}; choose another name for the target"
                )
        owners |= dict.fromkeys(columns, f"target {target.name!r}")


def refuse_large_joint(targets: Sequence[Target], joint: Sequence[str]) -> None:
    """Raise ConfigError if the joint class has more classes than its metrics can list."""
    sizes = [len(target.labels) for name in joint for target in targets if target.name == name]
    count = math.prod(sizes)
    if count > MAX_JOINT_CLASSES:
        factors = " x ".join(map(str, sizes))
        raise ConfigError(
            f"joint.targets: found {len(joint)} targets with {factors} = {count} joint classes; allowed: up to"
            f" {MAX_JOINT_CLASSES}, since each is scored"
        )


def refuse_overlap(
    train: Samples, valid: Samples, targets: Sequence[Target], key: str = "valid", within: bool = False
) -> None:
    """Raise DataError if an image, a group or a query is in both splits: validation, or the test, would look
    better than it is. `key`: the key of `data` that names the second. `within`: both are of the same table, whose
    images are known to differ."""
    values: dict[str, tuple[Sequence[Any], Sequence[Any]]] = {}
    # Not the ids: two tables, or two folders, may both number their rows from 0.
    if not within:
        values["image"] = (train.paths, valid.paths)
    name_of = dict(zip(map(str, valid.paths), valid.names, strict=True))  # as the table has it
    for target in targets:
        if isinstance(target, RankingTarget):
            values["query"] = (train.frame[target.query].to_list(), valid.frame[target.query].to_list())
    if train.groups is not None and valid.groups is not None:
        values["group"] = (train.groups, valid.groups)

    sides = "the test and the other rows" if key == "test" else "training and validation"
    where = "another part of it" if within else train.where
    for what, (train_values, valid_values) in values.items():
        shared = sorted({str(value) for value in train_values} & {str(value) for value in valid_values})
        if shared:
            raise DataError(
                f"{valid.where} (data.{key}): {what} {name_of.get(shared[0], shared[0])!r} is in {where} too"
                f" ({len(shared)} in all); {sides if not within else 'the parts'} must not share any"
            )


def split_warnings(splits: DatasetSplits) -> list[str]:
    """Warnings of images in several rows, and of labels that are missing: in rows, in the validation split, or of whole
    classes."""
    return [
        *content_warnings(splits),
        *_spelling(splits),
        *_masked_rows(splits),
        *_unused_separators(splits),
        *_unscored_targets(splits),
        *_absent_classes(splits),
    ]


def _spelling(splits: DatasetSplits) -> list[str]:
    """Labels and groups that are probably the same, and labels that look like missing values."""
    samples = [split.samples for split in splits.by_name.values()]
    warnings = []
    for target in splits.targets:
        separator = target.separator if isinstance(target, MultilabelTarget) else None
        is_list_of_labels = separator is not None
        is_label = isinstance(target, ClassTarget) and target.edges is None
        if isinstance(target, ClassTarget | MultilabelTarget) and (is_label or is_list_of_labels):
            cells = pl.concat([part.frame[target.columns[0]] for part in samples])
            warnings += column_warnings(target.name, cells, separator, target.unify)
    groups = Counter(group for part in samples for group in part.groups or ())
    return [*warnings, *spelling_warnings("data.group", groups, unified=False, what="groups")]


def _masked_rows(splits: DatasetSplits) -> list[str]:
    """An empty cell masks its target for that row, which may or may not be intended."""
    counts = [masked_counts(splits, split) for split in splits.by_name.values()]
    warnings = []
    for name in counts[0]:
        count = sum(counts_of_split[name] for counts_of_split in counts)
        if count:
            warnings.append(masked_text(name, count))
    return warnings


def _unused_separators(splits: DatasetSplits) -> list[str]:
    """A separator that no cell contains is probably not the table's."""
    warnings = []
    for target in splits.targets:
        if isinstance(target, MultilabelTarget) and target.separator:
            column = target.columns[0]
            cells = splits.train.samples.frame[column].drop_nulls()
            if not cells.str.contains(str(target.separator), literal=True).any():
                warnings.append(
                    f"{target.name}: no cell of {column!r} holds the separator {target.separator!r}, so each cell is"
                    f" taken for one label (targets.{target.name}.separator)"
                )
    return warnings


def _unscored_targets(splits: DatasetSplits) -> list[str]:
    return [
        f"{target.name}: no {SPLIT_NAMES[name]} row has a label, so this target cannot be scored"
        f"{' there' if name == 'test' else ''}"
        for name, split in splits.by_name.items()
        for target in splits.targets
        if name != "train" and len(split.samples) and not target.is_labeled(split.labels[target.name]).any()
    ]


def _absent_classes(splits: DatasetSplits) -> list[str]:
    """A class without a training row cannot be learned, one without a validation or test row not be scored."""
    label_lists = {name: list(labels) for name, labels in splits.label_lists.items()}
    if splits.joint:
        label_lists["joint"] = joint_labels(splits.label_lists, splits.joint)
    warnings = []
    for split_name, split in splits.by_name.items():
        if not len(split.samples):  # no validation rows are wanted
            continue
        for name, counts in label_counts(splits, split).items():
            absent = [label_lists[name][k] for k, count in enumerate(counts) if count == 0]
            if absent:
                classes = "class" if len(absent) == 1 else "classes"
                warnings.append(
                    f"{name}: {SPLIT_NAMES[split_name]} has no rows of {len(absent)} {classes}: {listed(absent)}"
                )
    return warnings


def listed(names: Sequence[str]) -> str:
    """The names, or the first of many."""
    return ", ".join(names[:LISTED_CLASSES]) + (", ..." if len(names) > LISTED_CLASSES else "")
