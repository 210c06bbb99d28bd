"""The data of a run: read, checked, split, and counted; before anything is written or built."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from classwise.compose.image_check import image_count_text, open_cache, usable_rows
from classwise.config.schema import Config
from classwise.console import Console
from classwise.data.cache import CachedImages, ImageCache
from classwise.data.sources import Samples, read_source
from classwise.data.split import merge_groups, split_rows
from classwise.data.table import rows_text
from classwise.data.targets import MultilabelTarget, RankingTarget, RegressionTarget, Target, make_target
from classwise.distributed import SINGLE_PROCESS, Processes
from classwise.errors import ConfigError, DataError, ImageError
from classwise.files import json_text, sha256
from classwise.metrics.collection import joint_labels
from classwise.metrics.joint import joint_number

Numbers = npt.NDArray[np.int64]
Labels = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Split:
    """One side of the split: its rows, their answers by target as a batch holds them (targets.py), a hash over the
    bytes of their images, and where these are kept decoded, if they are."""

    samples: Samples
    labels: Labels
    contents: str = ""
    cached: CachedImages | None = None


@dataclass(frozen=True)
class DatasetSplits:
    """The data of a run, read, checked and split. `bad` are the images that were left out; `cache` keeps the
    decoded ones, and is held open until `close`."""

    targets: tuple[Target, ...]
    joint: tuple[str, ...]
    train: Split
    valid: Split
    bad: tuple[ImageError, ...]
    warnings: tuple[str, ...]
    cache: ImageCache | None = None

    def close(self) -> None:
        """Let other runs delete the decoded images."""
        if self.cache is not None:
            self.cache.close()

    @property
    def both(self) -> tuple[Split, Split]:
        """Training and validation."""
        return self.train, self.valid

    @property
    def label_lists(self) -> dict[str, tuple[str, ...]]:
        """The label list of every target that has one."""
        return {target.name: target.labels for target in self.targets if target.labels}

    def target(self, name: str) -> Target:
        """The target of that name."""
        return next(target for target in self.targets if target.name == name)

    def class_numbers(self, split: Split) -> dict[str, Numbers]:
        """Class numbers (N,) of the targets that can be read as a class, -1 where unknown."""
        return {t.name: t.class_numbers(split.labels[t.name]) for t in self.targets if t.is_class_like}

    def classes(self, split: Split) -> Numbers | None:
        """What sampling balances: the joint class, or all class targets' labels together, -1 where one of them is
        unknown; None where no target can be read as a class."""
        numbers = self.class_numbers(split)
        names = self.joint or tuple(numbers)
        if not names:
            return None
        return joint_number([numbers[name] for name in names], [len(self.label_lists[n]) for n in names])

    def queries(self, split: Split) -> Numbers | None:
        """What batches keep whole: the query numbers of the ranking target, where there is one."""
        for target in self.targets:
            if isinstance(target, RankingTarget):
                queries: Numbers = split.labels[target.name][:, 1]
                return queries
        return None


def prepare(
    config: Config, console: Console, processes: Processes = SINGLE_PROCESS, keep: bool = True
) -> DatasetSplits:
    """Read, check and split the data; nothing is written but, with `keep`, the store of decoded images. Of several
    processes each checks its share of the images. Raises DataError, ConfigError."""
    data = config.data
    samples = processes.on_all_ranks(lambda: _source(config))
    other = None
    if isinstance(data.valid, str):
        other = processes.on_all_ranks(lambda: _valid_source(config))
    cache = processes.on_all_ranks(lambda: open_cache(config, samples.root, console) if keep else None)
    keys: dict[Path, bytes] = {}
    samples, bad = usable_rows(samples, config, console, processes, cache, keys)
    if other is not None:
        other, bad_too = usable_rows(other, config, console, processes, cache, keys)
        bad += bad_too
    counts = processes.all_gather_object(
        [0, 0, 0] if cache is None else [cache.added, cache.already_there, cache.left_out]
    )
    if cache is not None:  # for the first process to tell
        cache.added, cache.already_there, cache.left_out = (sum(column) for column in zip(*counts, strict=True))
    splits = processes.on_all_ranks(lambda: _prepared(config, samples, other, bad))
    pair = [_with_images(split, keys, cache) for split in splits.both]
    return dataclasses.replace(splits, train=pair[0], valid=pair[1], cache=cache)


def _with_images(split: Split, keys: Mapping[Path, bytes], cache: ImageCache | None) -> Split:
    own = [keys[path] for path in split.samples.paths]
    cached = None if cache is None else cache.locate(own)
    return dataclasses.replace(split, contents=sha256(b"".join(own)), cached=cached)


def _prepared(
    config: Config, samples: Samples, other: Samples | None, bad: Sequence[ImageError]
) -> DatasetSplits:
    """Targets, answers and sides of rows whose images have been checked; `other` is a validation set of its own."""
    data = config.data
    targets = tuple(_target(name, config, samples) for name in config.targets)
    joint = config.joint.targets if config.joint else ()
    samples, labels = labeled_rows(targets, samples, config)
    warnings = list(samples.notes)
    if other is None:
        assert isinstance(data.valid, float)
        train, valid = _split(samples, labels, targets, data.valid, config.seed)
    else:
        other, other_labels = labeled_rows(targets, other, config)
        warnings += other.notes
        _refuse_overlap(samples, other, targets)
        train, valid = Split(samples, labels), Split(other, other_labels)
    if bad:
        warnings.append(f"{image_count_text(len(bad))} left out, since unusable (data.bad_images = skip)")
    _refuse_clashing_names(targets, bool(joint))
    splits = DatasetSplits(targets, joint, train, valid, tuple(bad), tuple(warnings))
    return dataclasses.replace(splits, warnings=(*warnings, *_masked(splits), *_absent_classes(splits)))


def labeled_rows(targets: Sequence[Target], samples: Samples, config: Config) -> tuple[Samples, Labels]:
    """The rows with an answer for some target; data.unanswered says whether others are an error or are left out."""
    if config.data.unanswered == "skip":
        labels = {target.name: target.encode(samples.frame, samples.where) for target in targets}
        known_N = np.any([target.known(labels[target.name]) for target in targets], axis=0)
        left = int((~known_N).sum())
        if left and known_N.any():
            samples = samples.take(np.flatnonzero(known_N).tolist())
            note = f"{left} rows without any answer left out (data.unanswered = skip)"
            samples = dataclasses.replace(samples, notes=(*samples.notes, note))
    return samples, encode(targets, samples)


def encode(targets: Sequence[Target], samples: Samples) -> Labels:
    """Answers by target. Raises DataError for a missing column, an unknown label, a row without any answer."""
    labels = {target.name: target.encode(samples.frame, samples.where) for target in targets}
    known_N = np.any([target.known(labels[target.name]) for target in targets], axis=0)
    if not known_N.all():
        rows = [int(i) + 1 for i in np.flatnonzero(~known_N)]
        columns = ", ".join(repr(column) for target in targets for column in target.columns)
        raise DataError(
            f"{samples.where}: no answer in {rows_text(rows)}: empty in column{'s' * (', ' in columns)} {columns}"
            ' (data.unanswered = "skip" leaves such rows out)'
        )
    return labels


def data_digest(splits: DatasetSplits) -> str:
    """A hash over what a run learns from: both sides' ids, image names, images and answers, in order."""
    pair = [
        [
            list(split.samples.ids),
            list(split.samples.names),
            split.contents,
            {name: sha256(values.tobytes()) for name, values in split.labels.items()},
        ]
        for split in (splits.train, splits.valid)
    ]
    return sha256(json_text(pair).encode())


def label_counts(splits: DatasetSplits, split: Split) -> dict[str, list[int]]:
    """Rows of each label, by target (those with labels) and, where there is one, for `joint`."""
    counts = {}
    for target in splits.targets:
        labels = split.labels[target.name]
        if target.is_class_like:
            counts[target.name] = _count(target.class_numbers(labels), len(target.labels))
        elif target.labels:  # multilabel
            counts[target.name] = [int(n) for n in (labels == 1).sum(axis=0)]
    if splits.joint:
        numbers = splits.classes(split)
        assert numbers is not None
        size = len(joint_labels(splits.label_lists, splits.joint))
        counts["joint"] = _count(numbers, size)
    return counts


def masked_counts(splits: DatasetSplits, split: Split) -> dict[str, int]:
    """Rows without an answer, by target."""
    return {t.name: int((~t.known(split.labels[t.name])).sum()) for t in splits.targets}


def value_summary(splits: DatasetSplits, split: Split) -> dict[str, dict[str, float]]:
    """Least, mean and largest value of every regression target, and how many rows have one."""
    metadata = {}
    for target in splits.targets:
        if isinstance(target, RegressionTarget):
            values = split.labels[target.name]
            known = values[np.isfinite(values)]
            metadata[target.name] = {"known": len(known)} | (
                {"min": float(known.min()), "mean": float(known.mean()), "max": float(known.max())}
                if len(known)
                else {}
            )
    return metadata


def _count(numbers_N: Numbers, size: int) -> list[int]:
    counts: list[int] = np.bincount(numbers_N[numbers_N >= 0], minlength=size).tolist()
    return counts


def _target(name: str, config: Config, samples: Samples) -> Target:
    t = config.targets[name]
    return make_target(
        *(name, t.type, t.column, t.columns, t.labels, t.edges, t.separator, t.query),
        *(samples.frame, samples.where),
    )


def _refuse_columns_of_a_folder(config: Config) -> None:
    """A folder of class folders has the columns `path` and `label`, and no others that a key could name."""
    data = config.data
    allowed = {"path": ("path",), "id": (None, "path"), "group": (None,)}
    for key, known in allowed.items() if Path(data.source).is_dir() else ():
        if getattr(data, key) not in known:
            raise ConfigError(
                f"data.{key}: found {getattr(data, key)!r}, but data.source is a folder, whose images have no"
                " such column; a table can have one"
            )


def _refuse_clashing_names(targets: Sequence[Target], joint: bool) -> None:
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


def _source(config: Config) -> Samples:
    data = config.data
    _refuse_columns_of_a_folder(config)
    return read_source(Path(data.source), Path(data.images), data.path, data.id, data.group)


def _valid_source(config: Config) -> Samples:
    data = config.data
    try:
        return read_source(Path(str(data.valid)), Path(data.images), data.path, data.id, data.group)
    except DataError as error:
        raise DataError(str(error).replace("data.source", "data.valid")) from None


def _split(
    samples: Samples, labels: Labels, targets: Sequence[Target], share: float, seed: int
) -> tuple[Split, Split]:
    strata = [stratum for target in targets for stratum in target.strata(labels[target.name])]
    queries = [
        [str(query) for query in labels[target.name][:, 1]]
        for target in targets
        if isinstance(target, RankingTarget)
    ]
    parts = [*([list(samples.groups)] if samples.groups is not None else []), *queries]
    groups = merge_groups(*parts) if parts else None
    valid_N = split_rows(strata, groups, share, seed)
    if valid_N.all() or not valid_N.any():
        raise DataError(
            f"{samples.where}: a share of {share} of {len(samples)} rows leaves one side of the split empty"
            " (data.valid)"
        )
    pair = []
    for side_N in (~valid_N, valid_N):
        rows = np.flatnonzero(side_N)
        pair.append(Split(samples.take(rows.tolist()), {name: x[rows] for name, x in labels.items()}))
    return pair[0], pair[1]


def _refuse_overlap(train: Samples, valid: Samples, targets: Sequence[Target]) -> None:
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


def _masked(splits: DatasetSplits) -> list[str]:
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


def _absent_classes(splits: DatasetSplits) -> list[str]:
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
