"""The data of a run: read, checked and split before anything is written or built."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from classwise.compose.contents import (
    largest_group_text,
    leak_warning,
    refuse_shared_content,
    split_groups,
)
from classwise.compose.given_split import given_parts, refuse_given_twice, rows_of, split_by_column
from classwise.compose.image_check import open_cache, usable_rows
from classwise.compose.image_facts import image_warnings
from classwise.compose.labels import Labels, build_target, labeled_rows, refuse_missing_columns
from classwise.compose.row_weights import score_weights, with_row_weights
from classwise.compose.split_checks import (
    listed,
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
from classwise.data.folds import draw_folds
from classwise.data.pixel_format import ImageFacts
from classwise.data.sources import Samples, read_source, samples_of
from classwise.data.split import Stratum, draw_test_rows, labels_of_one_group, split_rows
from classwise.data.targets import Target
from classwise.distributed import SINGLE_PROCESS, Processes
from classwise.errors import DataError, ImageError
from classwise.files import sha256


@dataclass(frozen=True)
class ReadData:
    """The rows of data.source and of tables of their own, each image read once: `bad` are those that cannot be used,
    `facts` what files hold beside plain samples. `cache` holds the decoded images, and is locked until `close`."""

    samples: Samples
    tables: dict[str, Samples]
    bad: tuple[ImageError, ...]
    facts: dict[Path, ImageFacts]
    cache: ImageCache | None

    def close(self) -> None:
        """Unlock the image cache, so that other runs may delete from it."""
        if self.cache is not None:
            self.cache.close()


def read_data(
    config: Config, console: Console, processes: Processes = SINGLE_PROCESS, use_cache: bool = True
) -> ReadData:
    """Read the tables and every image. Nothing is written but decoded images, and these only with `use_cache`.

    With several processes, each reads its share of the images. Raises DataError, ConfigError.
    """
    samples = processes.on_all_ranks(lambda: _read_samples(config))
    tables = processes.on_all_ranks(lambda: _read_tables(config))
    processes.on_all_ranks(lambda: refuse_missing_columns(config, [samples, *tables.values()]))
    cache = processes.on_all_ranks(
        lambda: open_cache(config, samples.root, console) if use_cache else None,
    )

    # Rows whose images cannot be used must be gone before the split, which the numbers of rows decide.
    facts: dict[Path, ImageFacts] = {}
    samples, bad = usable_rows(samples, config, console, processes, cache=cache, facts=facts)
    for key, table in tables.items():
        tables[key], bad_of_table = usable_rows(table, config, console, processes, cache=cache, facts=facts)
        bad += bad_of_table

    # Rank 0 reports the cache for all processes.
    counts = processes.all_gather_object(
        [0, 0, 0] if cache is None else [cache.added, cache.already_there, cache.left_out]
    )
    if cache is not None:
        cache.added, cache.already_there, cache.left_out = (
            sum(column) for column in zip(*counts, strict=True)
        )
    return ReadData(samples, tables, tuple(bad), facts, cache)


def prepare(
    config: Config,
    console: Console,
    processes: Processes = SINGLE_PROCESS,
    use_cache: bool = True,
    sides: Sequence[Sequence[str]] | None = None,
    read: ReadData | None = None,
) -> DatasetSplits:
    """Read, check and split the data. Nothing is written but decoded images, and these only with `use_cache`.

    `sides`: the id of every row of a run that exists, and the name of the split that it is in. They are used in place
    of a new draw if the ids are those of the data. `read`: the data, where it is read already; its cache stays its
    owner's to close, so the splits have none. Raises DataError, ConfigError.
    """
    shared = read is not None
    read = read or read_data(config, console, processes, use_cache)
    splits = processes.on_all_ranks(lambda: _split_data(config, read.samples, read.tables, read.bad, sides))
    for scored in (splits.valid, splits.test):
        if scored is not None:
            score_weights(config, scored.samples)  # refused now, not at the end of the training
    if sides is not None and (warning := leak_warning(splits)):
        console.line(f"warning: {warning}")
    cache = read.cache
    located = dataclasses.replace(
        splits,
        warnings=(*splits.warnings, *image_warnings(read.facts, config)),
        train=with_row_weights(config, _with_images(splits.train, cache)),
        valid=_with_images(splits.valid, cache),
        test=None if splits.test is None else _with_images(splits.test, cache),
        cache=None if shared else cache,
    )
    if cache is not None and not shared:
        cache.forget()  # the splits know where their images are
    return located


def prepare_labels(config: Config, table: pl.DataFrame | None = None) -> DatasetSplits:
    """What `prepare` makes of the rows, their labels and the split, without reading an image: what it refuses, and its
    warnings. `table`: the rows of data.source, if they are not written yet. Rows without a file are left out where
    data.bad_images says so. Raises DataError, ConfigError."""
    samples = _read_samples(config, table)
    tables = _read_tables(config)
    if config.data.bad_images == "skip":
        samples = _with_files(samples)
        tables = {key: _with_files(rows) for key, rows in tables.items()}
    return _split_data(config, samples, tables, bad=(), sides=None)


def _with_files(samples: Samples) -> Samples:
    """The rows whose images are files, or in shards. Raises DataError if there are none."""
    if samples.shards is not None:
        return samples
    rows = [row for row, path in enumerate(samples.paths) if path.is_file()]
    if not rows:
        raise DataError(f"{samples.where}: not one of its {len(samples)} images is there")
    return samples.take(rows) if len(rows) < len(samples) else samples


def read_sources(config: Config, table: pl.DataFrame | None = None) -> tuple[Samples, dict[str, Samples]]:
    """The rows of data.source, or of `table` in its place, and those of data.valid and data.test as far as they are
    tables; no image is read. Raises DataError."""
    return _read_samples(config, table), _read_tables(config)


def image_folders(config: Config) -> list[Path]:
    """The folders of data.images, in which the images of tables are looked for."""
    images = config.data.images
    return [Path(images)] if isinstance(images, str) else [Path(folder) for folder in images]


def _read_samples(config: Config, table: pl.DataFrame | None = None) -> Samples:
    """The rows of data.source, or of `table` in its place, without those that data.split leaves out."""
    data = config.data
    columns: dict[str, Any] = {"path": data.path, "id": data.id, "group": data.group}
    if table is None:
        refuse_folder_columns(config)
        samples = read_source(
            Path(data.source),
            image_folders(config),
            **columns,
            skip_lost=data.bad_images == "skip",
            follow_links=data.follow_links,
        )
    else:
        where = data.source or "samples.csv"
        samples = samples_of(table, where, image_folders(config), **columns, follow_links=data.follow_links)
    parts = given_parts(samples.frame, samples.where, config)
    used = [row for row, part in enumerate(parts or ()) if part != "skip"]
    if parts is None or len(used) == len(samples):
        return samples
    note = f"{len(samples) - len(used)} rows left out, as column {data.split!r} says (data.split)"
    return dataclasses.replace(samples.take(used), notes=(*samples.notes, note))


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
            images=image_folders(config),
            path=data.path,
            id=data.id,
            group=data.group,
            skip_lost=data.bad_images == "skip",
            follow_links=data.follow_links,
        )
    except DataError as error:
        # The reader names the key that usually holds a source.
        raise DataError(str(error).replace("data.source", f"data.{key}")) from None


def _split_data(
    config: Config,
    samples: Samples,
    tables: Mapping[str, Samples],
    bad: Sequence[ImageError],
    sides: Sequence[Sequence[str]] | None,
) -> DatasetSplits:
    """Targets, labels and splits of rows whose images have been checked. `tables`: the rows of a table of its own for
    `valid` or `test`; without it, validation and test rows are taken from `samples`, as `sides` says or by a draw."""
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
            refuse_shared_content(other, own[key].samples, key)

    # Rows whose part the table gives. A share is drawn, once for a run: its split stays what it was, even if this
    # version would draw another.
    rest = Split(samples, labels)
    rest, given, notes = split_by_column(rest, config, targets)
    refuse_given_twice(given, own, config)
    own |= given
    warnings += notes
    side_of = {id: name for id, name in sides or () if name not in own}
    if len(side_of) == len(rest.samples) and side_of.keys() == set(rest.samples.ids):
        own |= _recorded(rest, side_of, has_own_valid="valid" in own)
    else:
        drawn, untested = _draw(rest, own, targets, config)
        own |= drawn
        warnings += untested

    # What the user should know, and what would make predictions ambiguous.
    refuse_clashing_names(targets, has_joint=bool(joint))
    refuse_large_joint(targets, joint)
    splits = DatasetSplits(
        targets=targets,
        joint=joint,
        train=own["train"],
        valid=own["valid"],
        test=own.get("test"),
        bad=tuple(bad),
        warnings=tuple(warnings),
    )
    return dataclasses.replace(splits, warnings=(*warnings, *split_warnings(splits)))


def _recorded(split: Split, side_of: Mapping[str, str], has_own_valid: bool) -> dict[str, Split]:
    """The splits by name, as the run at hand has recorded them by id; validation may have no rows, unless it has its
    own."""
    names = np.array([side_of[id] for id in split.samples.ids])
    without_rows = [] if has_own_valid else ["valid"]
    return {
        name: rows_of(split.samples, split.labels, np.flatnonzero(names == name))
        for name in dict.fromkeys(["train", *without_rows, *names.tolist()])
    }


def _draw(
    split: Split, own: Mapping[str, Split], targets: Sequence[Target], config: Config
) -> tuple[dict[str, Split], list[str]]:
    """The splits that have no table of their own, by name, and warnings. The test rows are drawn first, so that they
    are the same for any way to split the others. Raises DataError."""
    drawn = {"train": split}
    warnings: list[str] = []
    if isinstance(config.data.test, float):
        drawn["train"], drawn["test"], warnings = _draw_test(split, targets, config)
    if not config.data.has_valid:
        rest = drawn["train"]
        drawn["valid"] = rows_of(rest.samples, rest.labels, np.arange(0))
    elif "valid" not in own and config.fold is not None:
        drawn["train"], drawn["valid"] = _draw_fold(drawn["train"], targets, config)
    elif "valid" not in own:
        assert isinstance(config.data.valid, float)
        rest = drawn["train"]
        share = config.data.valid * (
            len(split.samples) / len(rest.samples)
        )  # of the rows that the test has left
        drawn["train"], drawn["valid"], unvalidated = _draw_valid(rest, targets, share, config)
        warnings += unvalidated
    return drawn, warnings


def _draw_test(split: Split, targets: Sequence[Target], config: Config) -> tuple[Split, Split, list[str]]:
    """The other rows, the test rows, and a warning for labels that are not tested; stratified by the labels, groups are
    never cut. Raises DataError."""
    samples, labels = split.samples, split.labels
    groups = split_groups(samples, labels, targets)
    is_drawn = isinstance(config.data.valid, float) and config.data.has_valid
    parts_left = 2 if is_drawn or config.is_on_all_folds else 1
    is_test_N, untested = draw_test_rows(
        _strata(labels, targets),
        groups,
        share=float(config.data.test or 0),
        seed=config.split_seed,
        parts_left=parts_left,
        ids=samples.ids,
    )
    if is_test_N.all() or not is_test_N.any():
        raise DataError(
            f"{samples.where}: a share of {config.data.test} of {len(samples)} rows leaves"
            f" {'no other rows' if is_test_N.all() else 'no row for the test'} (data.test)"
            f"{largest_group_text(samples, labels, targets)}"
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
        rows_of(samples, labels, np.flatnonzero(~is_test_N)),
        rows_of(samples, labels, np.flatnonzero(is_test_N)),
        warnings,
    )


def _draw_valid(
    split: Split, targets: Sequence[Target], share: float, config: Config
) -> tuple[Split, Split, list[str]]:
    """Training and validation rows, stratified by the labels, and a warning for labels that are not validated; groups
    are never cut. Raises DataError."""
    samples, labels = split.samples, split.labels
    strata = _strata(labels, targets)
    groups = split_groups(samples, labels, targets)
    is_valid_N = split_rows(strata, groups, share=share, seed=config.seed, ids=samples.ids)
    single = labels_of_one_group(strata, groups)
    what = "row" if groups is None else "group"
    if is_valid_N.all() or not is_valid_N.any():
        only = f"; only one {what} holds {listed(single)}, which has to stay in training" if single else ""
        raise DataError(
            f"{samples.where}: a share of {config.data.valid} of {len(samples)} rows leaves one side of the split"
            f" empty (data.valid){only}{largest_group_text(samples, labels, targets)}"
        )
    warnings = []
    if single:
        same_image = " (rows with the same image are one group)" if groups is not None else ""
        warnings.append(
            f"no validation rows for {listed(single)}: only one {what} each{same_image}, which is trained on; so they"
            " count as F1 0 in the macro F1 of the validation rows, until there are more or data.valid is a table"
        )
    return (
        rows_of(samples, labels, np.flatnonzero(~is_valid_N)),
        rows_of(samples, labels, np.flatnonzero(is_valid_N)),
        warnings,
    )


def _draw_fold(split: Split, targets: Sequence[Target], config: Config) -> tuple[Split, Split]:
    """The rows of all other folds, and those of the fold that is for validation. Raises DataError for more folds than
    groups."""
    samples, labels = split.samples, split.labels
    assert config.folds is not None
    groups = split_groups(samples, labels, targets)
    count = len(samples) if groups is None else len(set(groups))
    if count < config.folds.count:
        what = "rows" if groups is None else "groups"
        raise DataError(
            f"{samples.where}: found {count} {what} for {config.folds.count} folds (folds.count); allowed: 2 to {count}"
            f"{largest_group_text(samples, labels, targets)}"
        )
    fold_N = draw_folds(
        _strata(labels, targets),
        groups,
        count=config.folds.count,
        seed=config.split_seed,
        ids=samples.ids,
    )
    is_valid_N = fold_N == config.folds.fold
    return (
        rows_of(samples, labels, np.flatnonzero(~is_valid_N)),
        rows_of(samples, labels, np.flatnonzero(is_valid_N)),
    )


def _strata(labels: Labels, targets: Sequence[Target]) -> list[Stratum]:
    """The labels that every draw keeps in proportion."""
    return [stratum for target in targets for stratum in target.strata(labels[target.name])]


def _with_images(split: Split, cache: ImageCache | None) -> Split:
    """The split with the digest of its images and, with a cache, the decoded images; nobody needs the hash of each file
    any more."""
    files = split.samples.files
    assert files is not None
    cached = None if cache is None else cache.locate(files)
    return dataclasses.replace(
        split,
        samples=dataclasses.replace(split.samples, files=None),
        images_digest=sha256(files.tobytes()),
        cached=cached,
    )
