"""The data of a run: read, checked and split before anything is written or built."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from classwise.compose.image_check import image_count_text, open_cache, usable_rows
from classwise.compose.labels import Labels, build_target, labeled_rows
from classwise.compose.split_checks import (
    refuse_clashing_names,
    refuse_folder_columns,
    refuse_large_joint,
    refuse_overlap,
    split_warnings,
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
    config: Config, console: Console, processes: Processes = SINGLE_PROCESS, use_cache: bool = True
) -> DatasetSplits:
    """Read, check and split the data. Nothing is written but decoded images, and these only with `use_cache`.

    Every image is read once; with several processes, each reads its share. Raises DataError, ConfigError.
    """
    samples = processes.on_all_ranks(lambda: _read_samples(config))
    valid_samples = None
    if isinstance(config.data.valid, str):
        valid_samples = processes.on_all_ranks(lambda: _read_valid_samples(config))
    cache = processes.on_all_ranks(
        lambda: open_cache(config, samples.root, console) if use_cache else None,
    )

    # Rows whose images cannot be used must be gone before the split, which the numbers of rows decide.
    keys: dict[Path, bytes] = {}
    samples, bad = usable_rows(samples, config, console, processes, cache=cache, keys=keys)
    if valid_samples is not None:
        valid_samples, bad_valid = usable_rows(
            valid_samples, config, console, processes, cache=cache, keys=keys
        )
        bad += bad_valid

    # Rank 0 reports the cache for all processes.
    counts = processes.all_gather_object(
        [0, 0, 0] if cache is None else [cache.added, cache.already_there, cache.left_out]
    )
    if cache is not None:
        cache.added, cache.already_there, cache.left_out = (
            sum(column) for column in zip(*counts, strict=True)
        )

    splits = processes.on_all_ranks(lambda: _split_data(config, samples, valid_samples, bad))
    return dataclasses.replace(
        splits,
        train=_with_images(splits.train, keys, cache),
        valid=_with_images(splits.valid, keys, cache),
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


def _read_valid_samples(config: Config) -> Samples:
    """The rows of data.valid, where it is a table or a folder."""
    data = config.data
    try:
        return read_source(
            source=Path(str(data.valid)),
            images=Path(data.images),
            path=data.path,
            id=data.id,
            group=data.group,
        )
    except DataError as error:
        # The reader names the key that usually holds a source.
        raise DataError(str(error).replace("data.source", "data.valid")) from None


def _split_data(
    config: Config, samples: Samples, valid_samples: Samples | None, bad: Sequence[ImageError]
) -> DatasetSplits:
    """Targets, labels and splits of rows whose images have been checked. `valid_samples`: the rows of a validation
    set of its own; without it, validation rows are taken from `samples`."""
    # Label lists come from the training table, so that validation cannot add a class.
    targets = tuple(build_target(name, config, samples) for name in config.targets)
    joint = config.joint.targets if config.joint else ()
    samples, labels = labeled_rows(targets, samples, config)
    warnings = list(samples.notes)

    # A share is drawn; a table of its own must share nothing with training.
    if valid_samples is None:
        assert isinstance(config.data.valid, float)
        train, valid = _random_split(samples, labels, targets, share=config.data.valid, seed=config.seed)
    else:
        valid_samples, valid_labels = labeled_rows(targets, valid_samples, config)
        warnings += valid_samples.notes
        refuse_overlap(samples, valid_samples, targets)
        train = Split(samples, labels)
        valid = Split(valid_samples, valid_labels)

    # What the user should know, and what would make predictions ambiguous.
    if bad:
        warnings.append(f"{image_count_text(len(bad))} left out, since unusable (data.bad_images = skip)")
    refuse_clashing_names(targets, has_joint=bool(joint))
    refuse_large_joint(targets, joint)
    splits = DatasetSplits(
        targets=targets,
        joint=joint,
        train=train,
        valid=valid,
        bad=tuple(bad),
        warnings=tuple(warnings),
    )
    return dataclasses.replace(splits, warnings=(*warnings, *split_warnings(splits)))


def _random_split(
    samples: Samples, labels: Labels, targets: Sequence[Target], share: float, seed: int
) -> tuple[Split, Split]:
    """Training and validation rows, stratified by the labels; groups and queries are never cut. Raises DataError."""
    strata = [stratum for target in targets for stratum in target.strata(labels[target.name])]

    # Rows that share a group or a query, also through other rows, are on the same side.
    groupings = [] if samples.groups is None else [list(samples.groups)]
    groupings += [
        [str(query) for query in labels[target.name][:, 1]]
        for target in targets
        if isinstance(target, RankingTarget)
    ]
    groups = merge_groups(*groupings) if groupings else None

    is_valid_N = split_rows(strata, groups, share, seed)
    if is_valid_N.all() or not is_valid_N.any():
        raise DataError(
            f"{samples.where}: a share of {share} of {len(samples)} rows leaves one side of the split empty"
            " (data.valid)"
        )
    train = _rows_of(samples, labels, np.flatnonzero(~is_valid_N))
    valid = _rows_of(samples, labels, np.flatnonzero(is_valid_N))
    return train, valid


def _rows_of(samples: Samples, labels: Labels, rows: np.ndarray) -> Split:
    return Split(samples.take(rows.tolist()), {name: values[rows] for name, values in labels.items()})


def _with_images(split: Split, keys: Mapping[Path, bytes], cache: ImageCache | None) -> Split:
    """The split with the digest of its images and, with a cache, the decoded images. `keys`: a hash by file."""
    image_keys = [keys[path] for path in split.samples.paths]
    cached = None if cache is None else cache.locate(image_keys)
    return dataclasses.replace(split, images_digest=sha256(b"".join(image_keys)), cached=cached)
