"""What is refused and what is warned of in a split: overlaps, clashing names, absent classes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from classwise.compose.splits import DatasetSplits, label_counts, masked_counts
from classwise.config.schema import Config
from classwise.data.sources import Samples
from classwise.data.targets import MultilabelTarget, RankingTarget, Target
from classwise.errors import ConfigError, DataError
from classwise.metrics.collection import joint_labels


def refuse_columns_of_a_folder(config: Config) -> None:
    """A folder of class folders has the columns `path` and `label`, and no others that a key could name."""
    data = config.data
    allowed = {"path": ("path",), "id": (None, "path"), "group": (None,)}
    for key, known in allowed.items() if Path(data.source).is_dir() else ():
        if getattr(data, key) not in known:
            raise ConfigError(
                f"data.{key}: found {getattr(data, key)!r}, but data.source is a folder, whose images have no"
                " such column; a table can have one"
            )


def refuse_clashing_names(targets: Sequence[Target], joint: bool) -> None:
    """Predictions have columns such as mask, mask_true and mask_p_wear: no two may come out the same."""
    owners = dict.fromkeys(("id", *(("joint", "joint_true", "joint_p") if joint else ())), "classwise itself")
    for target in targets:
        own = [target.name, f"{target.name}_true", *(f"{target.name}_p_{label}" for label in target.labels)]
        for column in own:
            if column in owners:
                raise ConfigError(
                    f"targets.{target.name}: its predictions would have a column {column!r}, as would"
                    f" {owners[column]}; choose another name for the target"
                )
        owners |= dict.fromkeys(own, f"target {target.name!r}")


def refuse_overlap(train: Samples, valid: Samples, targets: Sequence[Target]) -> None:
    """A row, a group or a query on both sides would make validation look better than it is."""
    pairs: dict[str, tuple[Sequence[Any], Sequence[Any]]]
    pairs = {"id": (train.ids, valid.ids), "image": (train.paths, valid.paths)}
    for target in targets:
        if isinstance(target, RankingTarget):
            pairs["query"] = (train.frame[target.query].to_list(), valid.frame[target.query].to_list())
    if train.groups is not None and valid.groups is not None:
        pairs["group"] = (train.groups, valid.groups)
    for what, (ours, theirs) in pairs.items():
        if what == "id" and train.root != valid.root:
            continue  # two folders may well name their files alike
        both = sorted({str(one) for one in ours} & {str(one) for one in theirs})
        if both:
            raise DataError(
                f"{valid.where} (data.valid): {what} {both[0]!r} stands in {train.where} too"
                f" ({len(both)} in all); training and validation must not share any"
            )


def masked_warnings(splits: DatasetSplits) -> list[str]:
    """An empty cell masks a target for that row: counted and said."""
    counts = {
        t.name: masked_counts(splits, splits.train)[t.name] + masked_counts(splits, splits.valid)[t.name]
        for t in splits.targets
    }
    unmeasured = [
        f"{t.name}: no cell of {t.columns[0]!r} holds the separator {t.separator!r}, so each cell is taken for"
        f" one label (targets.{t.name}.separator)"
        for t in splits.targets
        if isinstance(t, MultilabelTarget) and t.separator and not _separated(t, splits)
    ]
    unmeasured += [
        f"{t.name}: no validation row has an answer, so nothing is known of how well it is learnt"
        for t in splits.targets
        if not t.known(splits.valid.labels[t.name]).any()
    ]
    return [
        f"{name}: no answer in {count} rows, which count for the other targets only"
        for name, count in counts.items()
        if count
    ] + unmeasured


def _separated(target: MultilabelTarget, splits: DatasetSplits) -> bool:
    cells = splits.train.samples.frame[target.columns[0]].drop_nulls()
    return bool(cells.str.contains(str(target.separator), literal=True).any())


def absent_class_warnings(splits: DatasetSplits) -> list[str]:
    warnings = []
    lists = {name: list(labels) for name, labels in splits.label_lists.items()}
    if splits.joint:
        lists["joint"] = joint_labels(splits.label_lists, splits.joint)
    for split, word in ((splits.train, "training"), (splits.valid, "validation")):
        for name, counts in label_counts(splits, split).items():
            absent = [lists[name][k] for k, count in enumerate(counts) if count == 0]
            if absent:
                listed = ", ".join(absent[:8]) + (", ..." if len(absent) > 8 else "")
                warnings.append(f"{name}: {word} has no rows of {len(absent)} classes: {listed}")
    return warnings
