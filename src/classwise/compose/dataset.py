"""The data of a run: read, checked and split before anything is written or built."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from classwise.compose.image_check import image_count_text, open_cache, usable_rows
from classwise.compose.labels import Labels, build_target, labeled_rows
from classwise.compose.split_checks import (
    listed,
    refuse_clashing_names,
    refuse_folder_columns,
    refuse_overlap,
    split_warnings,
)
from classwise.compose.splits import DatasetSplits, Split
from classwise.config.schema import Config
from classwise.console import Console
from classwise.data.cache import ImageCache
from classwise.data.sources import Samples, read_source
from classwise.data.split import Stratum, draw_test_rows, merge_groups, split_rows
from classwise.data.targets import RankingTarget, Target
from classwise.distributed import SINGLE_PROCESS, Processes
from classwise.errors import DataError, ImageError
from classwise.files import sha256


def prepare(
    config: Config, console: Console, processes: Processes = SINGLE_PROCESS, use_cache: bool = True
) -> DatasetSplits:
    """Read, check and split the data. Nothing is written but decoded images, and these only with `use_cache`.

    Every image is read once; with several processes, each reads its share. Raises DataError, ConfigError.
    """
    samples = processes.on_all_ranks(lambda: _read_samples(config))
    tables = processes.on_all_ranks(lambda: _read_tables(config))
    cache = processes.on_all_ranks(
        lambda: open_cache(config, samples.root, console) if use_cache else None,
    )

    # Rows whose images cannot be used must be gone before the split, which the numbers of rows decide.
    keys: dict[Path, bytes] = {}
    samples, bad = usable_rows(samples, config, console, processes, cache=cache, keys=keys)
    for key, table in tables.items():
        tables[key], bad_of_table = usable_rows(table, config, console, processes, cache=cache, keys=keys)
        bad += bad_of_table

    # Rank 0 reports the cache for all processes.
    counts = processes.all_gather_object(
        [0, 0, 0] if cache is None else [cache.added, cache.already_there, cache.left_out]
    )
    if cache is not None:
        cache.added, cache.already_there, cache.left_out = (
            sum(column) for column in zip(*counts, strict=True)
        )

    splits = processes.on_all_ranks(lambda: _split_data(config, samples, tables, bad))
    return dataclasses.replace(
        splits,
        train=_with_images(splits.train, keys, cache),
        valid=_with_images(splits.valid, keys, cache),
        test=None if splits.test is None else _with_images(splits.test, keys, cache),
        cache=cache,
    )


def _read_samples(config: Config) -> Samples:
    """The rows of data.source."""
    data = config.data
    refuse_folder_columns(config)
    return read_source(
        source=Path(data.source),
        images=Path(data.images),
        path=data.path,
        id=data.id,
        group=data.group,
    )


def _read_tables(config: Config) -> dict[str, Samples]:
    """The rows of data.valid and data.test, as far as they are tables or folders."""
    return {
        key: _read_table(config, key)
        for key in ("valid", "test")
        if isinstance(getattr(config.data, key), str)
    }


def _read_table(config: Config, key: str) -> Samples:
    """The rows of data.valid or data.test (`key`), where it is a table or a folder."""
    data = config.data
    try:
        return read_source(
            source=Path(str(getattr(data, key))),
            images=Path(data.images),
            path=data.path,
            id=data.id,
            group=data.group,
        )
    except DataError as error:
        # The reader names the key that usually holds a source.
        raise DataError(str(error).replace("data.source", f"data.{key}")) from None


def _split_data(
    config: Config, samples: Samples, tables: Mapping[str, Samples], bad: Sequence[ImageError]
) -> DatasetSplits:
    """Targets, labels and splits of rows whose images have been checked. `tables`: the rows of a table of its own for
    `valid` or `test`; without it, validation and test rows are taken from `samples`."""
    # Label lists come from the training table, so that validation and test cannot add a class.
    targets = tuple(build_target(name, config, samples) for name in config.targets)
    joint = config.joint.targets if config.joint else ()
    samples, labels = labeled_rows(targets, samples, config)
    warnings = list(samples.notes)

    # A table of its own must share nothing with the others.
    own: dict[str, Split] = {}
    for key, table in tables.items():
        own[key] = Split(*labeled_rows(targets, table, config))
        warnings += own[key].samples.notes
        for other in (samples, *(split.samples for name, split in own.items() if name != key)):
            refuse_overlap(other, own[key].samples, targets, key)

    # A share is drawn: the test rows first, so that they are the same for any way to split the others.
    train = Split(samples, labels)
    valid = own.get("valid")
    test = own.get("test")
    rows = len(samples)
    if isinstance(config.data.test, float):
        train, test, untested = _draw_test(train, targets, config)
        warnings += untested
    if valid is None:
        assert isinstance(config.data.valid, float)
        share = config.data.valid * (rows / len(train.samples))  # of the rows that the test has left
        train, valid = _draw_valid(train, targets, share, config)

    # What the user should know, and what would make predictions ambiguous.
    if bad:
        warnings.append(f"{image_count_text(len(bad))} left out, since unusable (data.bad_images = skip)")
    refuse_clashing_names(targets, has_joint=bool(joint))
    splits = DatasetSplits(
        targets=targets,
        joint=joint,
        train=train,
        valid=valid,
        test=test,
        bad=tuple(bad),
        warnings=tuple(warnings),
    )
    return dataclasses.replace(splits, warnings=(*warnings, *split_warnings(splits)))


def _draw_test(split: Split, targets: Sequence[Target], config: Config) -> tuple[Split, Split, list[str]]:
    """The other rows, the test rows, and a warning for labels that are not tested; stratified by the labels, groups are
    never cut. Raises DataError."""
    samples, labels = split.samples, split.labels
    groups = _groups_of(samples, labels, targets)
    parts_left = 2 if isinstance(config.data.valid, float) else 1
    is_test_N, untested = draw_test_rows(
        _strata(labels, targets), groups, float(config.data.test or 0), config.seed, parts_left
    )
    if is_test_N.all() or not is_test_N.any():
        raise DataError(
            f"{samples.where}: a share of {config.data.test} of {len(samples)} rows leaves"
            f" {'no other rows' if is_test_N.all() else 'no row for the test'} (data.test)"
        )
    warnings = []
    if untested:
        # The least number of groups is one more than there are other parts.
        what = "row" if groups is None else "group"
        parts = "training and validation" if parts_left == 2 else "training"
        warnings.append(
            f"no test rows for {listed(untested)}: fewer than {parts_left + 1} {what}s each, which are left to {parts}"
            " (data.test)"
        )
    return (
        _rows_of(samples, labels, np.flatnonzero(~is_test_N)),
        _rows_of(samples, labels, np.flatnonzero(is_test_N)),
        warnings,
    )


def _draw_valid(split: Split, targets: Sequence[Target], share: float, config: Config) -> tuple[Split, Split]:
    """Training and validation rows, stratified by the labels; groups are never cut. Raises DataError."""
    samples, labels = split.samples, split.labels
    is_valid_N = split_rows(
        _strata(labels, targets), _groups_of(samples, labels, targets), share, config.seed
    )
    if is_valid_N.all() or not is_valid_N.any():
        raise DataError(
            f"{samples.where}: a share of {config.data.valid} of {len(samples)} rows leaves one side of the split"
            " empty (data.valid)"
        )
    return (
        _rows_of(samples, labels, np.flatnonzero(~is_valid_N)),
        _rows_of(samples, labels, np.flatnonzero(is_valid_N)),
    )


def _strata(labels: Labels, targets: Sequence[Target]) -> list[Stratum]:
    """The labels that every draw keeps in proportion."""
    return [stratum for target in targets for stratum in target.strata(labels[target.name])]


def _groups_of(samples: Samples, labels: Labels, targets: Sequence[Target]) -> list[str] | None:
    """The group of each row; None where every row is its own. Rows that share a group or a query, also through other
    rows, are in the same split."""
    groupings = [] if samples.groups is None else [list(samples.groups)]
    groupings += [
        [str(query) for query in labels[target.name][:, 1]]
        for target in targets
        if isinstance(target, RankingTarget)
    ]
    return merge_groups(*groupings) if groupings else None


def _rows_of(samples: Samples, labels: Labels, rows: np.ndarray) -> Split:
    return Split(samples.take(rows.tolist()), {name: values[rows] for name, values in labels.items()})


def _with_images(split: Split, keys: Mapping[Path, bytes], cache: ImageCache | None) -> Split:
    """The split with the digest of its images and, with a cache, the decoded images. `keys`: a hash by file."""
    image_keys = [keys[path] for path in split.samples.paths]
    cached = None if cache is None else cache.locate(image_keys)
    return dataclasses.replace(split, images_digest=sha256(b"".join(image_keys)), cached=cached)
