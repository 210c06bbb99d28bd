"""The data of a run: read, checked, split, and counted; before anything is written or built."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from classwise.compose.image_check import image_count_text, open_cache, usable_rows
from classwise.compose.labels import Labels, labeled_rows, target_of
from classwise.compose.split_checks import (
    absent_class_warnings,
    masked_warnings,
    refuse_clashing_names,
    refuse_columns_of_a_folder,
    refuse_overlap,
)
from classwise.compose.splits import DatasetSplits, Split
from classwise.config.schema import Config
from classwise.console import Console
from classwise.data.cache import ImageCache
from classwise.data.sources import Samples, read_source
from classwise.data.split import merge_groups, split_rows
from classwise.data.targets import RankingTarget, Target
from classwise.distributed import SINGLE_PROCESS, Processes
from classwise.errors import DataError, ImageError
from classwise.files import sha256


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
        [0, 0, 0] if cache is None else [cache.added, cache.had, cache.left_out]
    )
    if cache is not None:  # for the first process to tell
        cache.added, cache.had, cache.left_out = (sum(column) for column in zip(*counts, strict=True))
    splits = processes.on_all_ranks(lambda: _prepared(config, samples, other, bad))
    pair = [_with_images(split, keys, cache) for split in splits.both]
    return dataclasses.replace(splits, train=pair[0], valid=pair[1], cache=cache)


def _with_images(split: Split, keys: Mapping[Path, bytes], cache: ImageCache | None) -> Split:
    own = [keys[path] for path in split.samples.paths]
    cached = None if cache is None else cache.of(own)
    return dataclasses.replace(split, contents=sha256(b"".join(own)), cached=cached)


def _prepared(
    config: Config, samples: Samples, other: Samples | None, bad: Sequence[ImageError]
) -> DatasetSplits:
    """Targets, answers and sides of rows whose images have been checked; `other` is a validation set of its own."""
    data = config.data
    targets = tuple(target_of(name, config, samples) for name in config.targets)
    joint = config.joint.targets if config.joint else ()
    samples, labels = labeled_rows(targets, samples, config)
    warnings = list(samples.notes)
    if other is None:
        assert isinstance(data.valid, float)
        train, valid = _split(samples, labels, targets, data.valid, config.seed)
    else:
        other, other_labels = labeled_rows(targets, other, config)
        warnings += other.notes
        refuse_overlap(samples, other, targets)
        train, valid = Split(samples, labels), Split(other, other_labels)
    if bad:
        warnings.append(f"{image_count_text(len(bad))} left out, since unusable (data.bad_images = skip)")
    refuse_clashing_names(targets, bool(joint))
    splits = DatasetSplits(targets, joint, train, valid, tuple(bad), tuple(warnings))
    return dataclasses.replace(
        splits, warnings=(*warnings, *masked_warnings(splits), *absent_class_warnings(splits))
    )


def _source(config: Config) -> Samples:
    data = config.data
    refuse_columns_of_a_folder(config)
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
