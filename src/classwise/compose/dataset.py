"""The data of a run: read, checked, split, and counted; before anything is written or built."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from classwise.compose.image_check import open_store, pictures_text, usable_rows
from classwise.config.schema import Config
from classwise.console import Console
from classwise.data.cache import PictureStore, StoredPictures
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
Answers = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Side:
    """One side of the split: its rows, their answers by target as a batch holds them (targets.py), a hash over the
    bytes of their pictures, and where these are kept decoded, if they are."""

    samples: Samples
    answers: Answers
    contents: str = ""
    stored: StoredPictures | None = None


@dataclass(frozen=True)
class DatasetSplits:
    """The data of a run, read, checked and split. `bad` are the pictures that were left out; `store` keeps the
    decoded ones, and is held open until `close`."""

    targets: tuple[Target, ...]
    joint: tuple[str, ...]
    train: Side
    valid: Side
    bad: tuple[ImageError, ...]
    warnings: tuple[str, ...]
    store: PictureStore | None = None

    def close(self) -> None:
        """Let other runs delete the decoded pictures."""
        if self.store is not None:
            self.store.close()

    @property
    def sides(self) -> tuple[Side, Side]:
        """Training and validation."""
        return self.train, self.valid

    @property
    def label_lists(self) -> dict[str, tuple[str, ...]]:
        """The label list of every target that has one."""
        return {target.name: target.labels for target in self.targets if target.labels}

    def target(self, name: str) -> Target:
        """The target of that name."""
        return next(target for target in self.targets if target.name == name)

    def class_numbers(self, side: Side) -> dict[str, Numbers]:
        """Class numbers (N,) of the targets that can be read as a class, -1 where unknown."""
        return {t.name: t.class_numbers(side.answers[t.name]) for t in self.targets if t.is_class_like}

    def classes(self, side: Side) -> Numbers | None:
        """What sampling balances: the joint class, or all class targets' labels together, -1 where one of them is
        unknown; None where no target can be read as a class."""
        numbers = self.class_numbers(side)
        names = self.joint or tuple(numbers)
        if not names:
            return None
        return joint_number([numbers[name] for name in names], [len(self.label_lists[n]) for n in names])

    def queries(self, side: Side) -> Numbers | None:
        """What batches keep whole: the query numbers of the ranking target, where there is one."""
        for target in self.targets:
            if isinstance(target, RankingTarget):
                queries: Numbers = side.answers[target.name][:, 1]
                return queries
        return None


def prepare(
    config: Config, console: Console, processes: Processes = SINGLE_PROCESS, keep: bool = True
) -> DatasetSplits:
    """Read, check and split the data; nothing is written but, with `keep`, the store of decoded pictures. Of several
    processes each checks its share of the pictures. Raises DataError, ConfigError."""
    data = config.data
    samples = processes.on_all_ranks(lambda: _source(config))
    other = None
    if isinstance(data.valid, str):
        other = processes.on_all_ranks(lambda: _valid_source(config))
    store = processes.on_all_ranks(lambda: open_store(config, samples.root, console) if keep else None)
    keys: dict[Path, bytes] = {}
    samples, bad = usable_rows(samples, config, console, processes, store, keys)
    if other is not None:
        other, bad_too = usable_rows(other, config, console, processes, store, keys)
        bad += bad_too
    counts = processes.all_gather_object(
        [0, 0, 0] if store is None else [store.added, store.had, store.left_out]
    )
    if store is not None:  # for the first process to tell
        store.added, store.had, store.left_out = (sum(column) for column in zip(*counts, strict=True))
    prepared = processes.on_all_ranks(lambda: _prepared(config, samples, other, bad))
    sides = [_with_pictures(side, keys, store) for side in prepared.sides]
    return dataclasses.replace(prepared, train=sides[0], valid=sides[1], store=store)


def _with_pictures(side: Side, keys: Mapping[Path, bytes], store: PictureStore | None) -> Side:
    own = [keys[path] for path in side.samples.paths]
    stored = None if store is None else store.of(own)
    return dataclasses.replace(side, contents=sha256(b"".join(own)), stored=stored)


def _prepared(
    config: Config, samples: Samples, other: Samples | None, bad: Sequence[ImageError]
) -> DatasetSplits:
    """Targets, answers and sides of rows whose pictures have been checked; `other` is a validation set of its own."""
    data = config.data
    targets = tuple(_target(name, config, samples) for name in config.targets)
    joint = config.joint.targets if config.joint else ()
    samples, answers = answered(targets, samples, config)
    warnings = list(samples.notes)
    if other is None:
        assert isinstance(data.valid, float)
        train, valid = _split(samples, answers, targets, data.valid, config.seed)
    else:
        other, other_answers = answered(targets, other, config)
        warnings += other.notes
        _refuse_overlap(samples, other, targets)
        train, valid = Side(samples, answers), Side(other, other_answers)
    if bad:
        warnings.append(f"{pictures_text(len(bad))} left out, since unusable (data.bad_images = skip)")
    _refuse_clashing_names(targets, bool(joint))
    prepared = DatasetSplits(targets, joint, train, valid, tuple(bad), tuple(warnings))
    return dataclasses.replace(prepared, warnings=(*warnings, *_masked(prepared), *_absent_classes(prepared)))


def answered(targets: Sequence[Target], samples: Samples, config: Config) -> tuple[Samples, Answers]:
    """The rows with an answer for some target; data.unanswered says whether others are an error or are left out."""
    if config.data.unanswered == "skip":
        answers = {target.name: target.encode(samples.frame, samples.where) for target in targets}
        known_N = np.any([target.known(answers[target.name]) for target in targets], axis=0)
        left = int((~known_N).sum())
        if left and known_N.any():
            samples = samples.take(np.flatnonzero(known_N).tolist())
            note = f"{left} rows without any answer left out (data.unanswered = skip)"
            samples = dataclasses.replace(samples, notes=(*samples.notes, note))
    return samples, encode(targets, samples)


def encode(targets: Sequence[Target], samples: Samples) -> Answers:
    """Answers by target. Raises DataError for a missing column, an unknown label, a row without any answer."""
    answers = {target.name: target.encode(samples.frame, samples.where) for target in targets}
    known_N = np.any([target.known(answers[target.name]) for target in targets], axis=0)
    if not known_N.all():
        rows = [int(i) + 1 for i in np.flatnonzero(~known_N)]
        columns = ", ".join(repr(column) for target in targets for column in target.columns)
        raise DataError(
            f"{samples.where}: no answer in {rows_text(rows)}: empty in column{'s' * (', ' in columns)} {columns}"
            ' (data.unanswered = "skip" leaves such rows out)'
        )
    return answers


def data_digest(prepared: DatasetSplits) -> str:
    """A hash over what a run learns from: both sides' ids, picture names, pictures and answers, in order."""
    sides = [
        [
            list(side.samples.ids),
            list(side.samples.names),
            side.contents,
            {name: sha256(values.tobytes()) for name, values in side.answers.items()},
        ]
        for side in (prepared.train, prepared.valid)
    ]
    return sha256(json_text(sides).encode())


def label_counts(prepared: DatasetSplits, side: Side) -> dict[str, list[int]]:
    """Rows of each label, by target (those with labels) and, where there is one, for `joint`."""
    counts = {}
    for target in prepared.targets:
        answers = side.answers[target.name]
        if target.is_class_like:
            counts[target.name] = _count(target.class_numbers(answers), len(target.labels))
        elif target.labels:  # multilabel
            counts[target.name] = [int(n) for n in (answers == 1).sum(axis=0)]
    if prepared.joint:
        numbers = prepared.classes(side)
        assert numbers is not None
        size = len(joint_labels(prepared.label_lists, prepared.joint))
        counts["joint"] = _count(numbers, size)
    return counts


def masked_counts(prepared: DatasetSplits, side: Side) -> dict[str, int]:
    """Rows without an answer, by target."""
    return {t.name: int((~t.known(side.answers[t.name])).sum()) for t in prepared.targets}


def value_facts(prepared: DatasetSplits, side: Side) -> dict[str, dict[str, float]]:
    """Least, mean and largest value of every regression target, and how many rows have one."""
    facts = {}
    for target in prepared.targets:
        if isinstance(target, RegressionTarget):
            values = side.answers[target.name]
            known = values[np.isfinite(values)]
            facts[target.name] = {"known": len(known)} | (
                {"min": float(known.min()), "mean": float(known.mean()), "max": float(known.max())}
                if len(known)
                else {}
            )
    return facts


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
                f"data.{key}: found {getattr(data, key)!r}, but data.source is a folder, whose pictures have no"
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
    samples: Samples, answers: Answers, targets: Sequence[Target], share: float, seed: int
) -> tuple[Side, Side]:
    strata = [stratum for target in targets for stratum in target.strata(answers[target.name])]
    queries = [
        [str(query) for query in answers[target.name][:, 1]]
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
    sides = []
    for side_N in (~valid_N, valid_N):
        rows = np.flatnonzero(side_N)
        sides.append(Side(samples.take(rows.tolist()), {name: x[rows] for name, x in answers.items()}))
    return sides[0], sides[1]


def _refuse_overlap(train: Samples, valid: Samples, targets: Sequence[Target]) -> None:
    """A row, a group or a query on both sides would make validation look better than it is."""
    pairs: dict[str, tuple[Sequence[Any], Sequence[Any]]]
    pairs = {"id": (train.ids, valid.ids), "picture": (train.paths, valid.paths)}
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


def _masked(prepared: DatasetSplits) -> list[str]:
    """An empty cell masks a target for that row: counted and said."""
    counts = {
        t.name: masked_counts(prepared, prepared.train)[t.name]
        + masked_counts(prepared, prepared.valid)[t.name]
        for t in prepared.targets
    }
    unmeasured = [
        f"{t.name}: no cell of {t.columns[0]!r} holds the separator {t.separator!r}, so each cell is taken for"
        f" one label (targets.{t.name}.separator)"
        for t in prepared.targets
        if isinstance(t, MultilabelTarget) and t.separator and not _separated(t, prepared)
    ]
    unmeasured += [
        f"{t.name}: no validation row has an answer, so nothing is known of how well it is learnt"
        for t in prepared.targets
        if not t.known(prepared.valid.answers[t.name]).any()
    ]
    return [
        f"{name}: no answer in {count} rows, which count for the other targets only"
        for name, count in counts.items()
        if count
    ] + unmeasured


def _separated(target: MultilabelTarget, prepared: DatasetSplits) -> bool:
    cells = prepared.train.samples.frame[target.columns[0]].drop_nulls()
    return bool(cells.str.contains(str(target.separator), literal=True).any())


def _absent_classes(prepared: DatasetSplits) -> list[str]:
    warnings = []
    lists = {name: list(labels) for name, labels in prepared.label_lists.items()}
    if prepared.joint:
        lists["joint"] = joint_labels(prepared.label_lists, prepared.joint)
    for side, word in ((prepared.train, "training"), (prepared.valid, "validation")):
        for name, counts in label_counts(prepared, side).items():
            absent = [lists[name][k] for k, count in enumerate(counts) if count == 0]
            if absent:
                listed = ", ".join(absent[:8]) + (", ..." if len(absent) > 8 else "")
                warnings.append(f"{name}: {word} has no rows of {len(absent)} classes: {listed}")
    return warnings
