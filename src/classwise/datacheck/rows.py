"""The rows that are checked: those of a config or of a source, and of the sets that it is compared with.

No image is read here, and no row is left out for its label: an image without one may be a copy of another.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from classwise.compose.dataset import image_folders, read_sources
from classwise.compose.given_split import given_parts
from classwise.compose.labels import Labels, build_target
from classwise.compose.splits import DatasetSplits
from classwise.config.load import load_config, make_config
from classwise.config.schema import Config
from classwise.data.image_file import Folders
from classwise.data.listing import image_names
from classwise.data.parquet_shards import PATH
from classwise.data.shard_files import Shards
from classwise.data.shard_source import is_sharded, read_shards
from classwise.data.sources import Samples, samples_of, samples_of_shards
from classwise.data.split_column import part_of_word
from classwise.data.table import SUFFIXES, full_column, read_table
from classwise.data.targets import MultilabelTarget, RankingTarget, Target
from classwise.errors import DataError
from classwise.suggest.config import look_at
from classwise.suggest.images_of_table import find_image_column

TRAIN, VALID = "train", "valid"


@dataclass(frozen=True)
class Part:
    """Rows with the same role: `train`, `valid`, `test`, or a set of --against (`is_other`), which has its file's name.
    `labels`: of the targets whose columns it has, encoded as data/targets.py says. `places`: the place of each row in
    its table, from 0. `is_source`: whether that is data.source; the ids of other tables get the part's name before
    them, since each table has its own. `folds`: the fold of each row, where the data give folds."""

    name: str
    samples: Samples
    labels: Labels
    places: tuple[int, ...]
    is_source: bool = True
    is_other: bool = False
    folds: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Table:
    """Where the rows of data.source are from: a `file`, or None for a folder, whose rows are `frame`. `id_column`: the
    column with their ids; `group_column`: that of data.group. `folders`: those that its images are looked for in."""

    frame: pl.DataFrame
    id_column: str
    file: Path | None = None
    group_column: str | None = None
    folders: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Rows:
    """All rows, part after part. Of each row: `ids`, which are unique; `part_of`; `side_of`, its part or, where the
    data give folds, its fold; `paths`. `texts`: of each target that has labels, the label of each row, None where it
    is not known. `is_given`: whether the data say on which side each row is; otherwise a split will be drawn among
    those of `train`. `config`: None without labels. `table`: of data.source. `not_done`: what cannot be checked, and
    why."""

    parts: tuple[Part, ...]
    targets: tuple[Target, ...]
    config: Config | None
    name: str
    ids: tuple[str, ...]
    part_of: tuple[str, ...]
    side_of: tuple[str, ...]
    paths: tuple[Path, ...]
    texts: dict[str, tuple[str | None, ...]]
    is_given: bool
    table: Table
    notes: tuple[str, ...] = ()
    not_done: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def is_other(self) -> npt.NDArray[np.bool_]:
        """Whether each row (N,) is of a set that the data are compared with."""
        return np.repeat([part.is_other for part in self.parts], [len(part.samples) for part in self.parts])

    @cached_property
    def is_source(self) -> npt.NDArray[np.bool_]:
        """Whether each row (N,) is one of data.source."""
        return np.repeat([part.is_source for part in self.parts], [len(part.samples) for part in self.parts])

    @cached_property
    def places(self) -> npt.NDArray[np.int64]:
        """The place of each row (N,) in its table."""
        return np.array([place for part in self.parts for place in part.places], dtype=np.int64)

    @cached_property
    def own_ids(self) -> tuple[str, ...]:
        """The id of each row as its own table has it."""
        return tuple(id for part in self.parts for id in part.samples.ids)

    @property
    def folders(self) -> Folders:
        """The folders outside of which no image is opened, or the shards; None where links are followed."""
        shards = [part.samples.shards for part in self.parts if part.samples.shards is not None]
        if len(shards) == len(self.parts):
            return Shards({path: stamp for one in shards for path, stamp in one.stamps.items()})
        folders: list[Path] = []
        for part in self.parts:
            allowed = part.samples.allowed_folders
            if allowed is None:
                return None
            folders += [part.samples.root] if isinstance(allowed, Shards) else allowed
        return list(dict.fromkeys(folders))

    def text(self, row: int) -> str:
        """The labels of a row, for a sentence: `'scratch'`, or `kind 'a', color 'red'` of several targets."""
        known = [(name, texts[row]) for name, texts in self.texts.items() if texts[row] is not None]
        if len(self.texts) == 1:
            return repr(known[0][1]) if known else "no label"
        return ", ".join(f"{name} {text!r}" for name, text in known) or "no label"


def rows_of(source: Path, against: Sequence[Path], overrides: Sequence[tuple[str, str]] = ()) -> Rows:
    """The rows of a classwise.toml, a table or a folder, and of the sets `against`. A source in which no labels are
    recognized is checked without them, which `not_done` says. `overrides`: keys of the config, as options. Raises
    DataError, ConfigError."""
    notes: list[str] = []
    not_done: list[str] = []
    table: pl.DataFrame | None = None
    if source.suffix.lower() == ".toml":
        config: Config | None = load_config(source, overrides)
    else:
        config, table, notes = _config_of(source, overrides, not_done)
    if config is None:
        samples, column = images_alone(source)
        parts = [Part(TRAIN, samples, {}, tuple(range(len(samples))))]
        targets: tuple[Target, ...] = ()
        is_file = not source.is_dir() and samples.shards is None
        folders = samples.folders or (samples.root,)
        own = Table(samples.frame, column, source if is_file else None, None, folders)
    else:
        config = _with_test_rows(config)
        parts, targets, own = _parts_of(config, table)
    parts += _others(against, config, parts, targets, not_done)
    name = config.name if config is not None else source.resolve().name if source.is_dir() else source.stem
    return _joined(parts, targets, config, own, name, notes, not_done)


def rows_of_splits(config: Config, splits: DatasetSplits) -> Rows:
    """The rows of a run, by the split that it trains with."""
    ids: dict[str, int] = {}
    parts = []
    for name, split in splits.by_name.items():
        if len(split.samples):
            is_table = name != TRAIN and isinstance(getattr(config.data, name), str)
            places = tuple(ids.setdefault(id, len(ids)) for id in split.samples.ids)
            parts.append(Part(name, split.samples, split.labels, places, is_source=not is_table))
    own = Table(splits.train.samples.frame, config.data.id or config.data.path, None, config.data.group)
    return _joined(parts, splits.targets, config, own, config.name, [], [])


def _config_of(
    source: Path, overrides: Sequence[tuple[str, str]], not_done: list[str]
) -> tuple[Config | None, pl.DataFrame | None, list[str]]:
    """What `init` would write for a source: the config, the table where that is no file, and its lines. No config where
    it finds no labels, and why."""
    if not source.exists() and not is_sharded(source):
        raise DataError(f"there is no config, table or folder {source}")
    try:
        suggestion = look_at(source, hub=False)
    except DataError as error:
        not_done.append(f"labels: none were recognized: {error}")
        return None, None, []
    config = make_config(suggestion.config.to_dict(), overrides, where=str(source))
    table = None if config.data.source else suggestion.guess.table
    return config, table, [*suggestion.guess.said]


def _with_test_rows(config: Config) -> Config:
    """The config with the test rows that `init` keeps out of training: a test image among the training images is what
    is looked for."""
    values = config.data.split_values
    if not values:
        return config
    found = {
        cell: "test" if part == "skip" and part_of_word(cell) == "test" else part
        for cell, part in values.items()
    }
    return config.model_copy(update={"data": config.data.model_copy(update={"split_values": found})})


def _parts_of(config: Config, table: pl.DataFrame | None) -> tuple[list[Part], tuple[Target, ...], Table]:
    """The rows of all tables of a config, by the part that the data give them; and data.source."""
    samples, tables = read_sources(config, table)
    data = config.data
    targets = tuple(build_target(name, config, samples) for name in config.targets)
    given = given_parts(samples.frame, samples.where, config)
    roles = [TRAIN] * len(samples) if given is None else given
    folds = None if data.fold is None else full_column(samples.frame, data.fold, samples.where, "data.fold")
    parts = []
    for role in dict.fromkeys([TRAIN, *roles]):
        places = [row for row, found in enumerate(roles) if found == role]
        if places and role != "skip":
            rows = samples.take(places)
            of_rows = None if folds is None else tuple(folds[row].strip() for row in places)
            parts.append(Part(role, rows, _labels(targets, rows), tuple(places), folds=of_rows))
    for key, other in tables.items():
        labels = _labels(targets, other)
        parts.append(Part(key, other, labels, tuple(range(len(other))), is_source=False))
    source = Path(data.source)
    is_file = table is None and not source.is_dir() and samples.shards is None
    own = Table(
        frame=samples.frame,
        id_column=data.id or data.path,
        file=source if is_file else None,
        group_column=data.group,
        folders=tuple(image_folders(config))
        if is_file
        else (source,)
        if table is None and samples.shards is None
        else samples.folders or (samples.root,),
    )
    return parts, targets, own


def _labels(targets: Sequence[Target], samples: Samples) -> Labels:
    """The labels of the targets whose columns the rows have."""
    columns = set(samples.frame.columns)
    return {
        target.name: target.encode(samples.frame, samples.where)
        for target in targets
        if set(target.columns) <= columns
    }


def _others(
    against: Sequence[Path],
    config: Config | None,
    own: Sequence[Part],
    targets: Sequence[Target],
    not_done: list[str],
) -> list[Part]:
    """The sets that the data are compared with. A set that holds all files of the data, such as the source itself, is
    compared without them, which is noted; of any other set, a file of the data is a leak."""
    files = {os.path.realpath(path) for part in own for path in part.samples.paths}
    names = [part.name for part in own]
    parts = []
    for path in against:
        samples = _other_samples(path, config)
        real = [os.path.realpath(file) for file in samples.paths]
        if files <= set(real):
            different = [row for row, file in enumerate(real) if file not in files]
            not_done.append(
                f"{path}: it holds all files of the data itself, which are not compared with themselves;"
                f" {len(different)} other rows are"
            )
            samples = samples.take(different)
        name = _free_name(path.name or str(path), names)
        names.append(name)
        try:
            labels = _labels(targets, samples)
        except DataError as error:
            not_done.append(f"labels of {path}: {error}")
            labels = {}
        places = tuple(range(len(samples)))
        parts.append(Part(name, samples, labels, places, is_source=False, is_other=True))
    return [part for part in parts if len(part.samples)]


def _free_name(wanted: str, taken: Sequence[str]) -> str:
    """A name that no other part has."""
    names = [wanted, *(f"{wanted}-{number}" for number in range(2, len(taken) + 3))]
    return next(name for name in names if name not in taken)


def _other_samples(path: Path, config: Config | None) -> Samples:
    """The images of a table or folder, by the columns of the config where the table has them. Raises DataError."""
    follow_links = config is not None and config.data.follow_links
    if is_sharded(path):
        return images_alone(path)[0]
    if not path.exists():
        raise DataError(f"--against: there is no table or folder {path}")
    if path.is_dir() or config is None or path.suffix.lower() not in SUFFIXES:
        return images_alone(path, follow_links)[0]
    frame = read_table(path)
    data = config.data
    if data.path not in frame.columns:
        return images_alone(path, follow_links)[0]
    id = data.id if data.id in frame.columns else None
    folders = [path.parent, *image_folders(config)]
    return samples_of(frame, str(path), folders, path=data.path, id=id, group=None, follow_links=follow_links)


def images_alone(source: Path, follow_links: bool = False) -> tuple[Samples, str]:
    """Every image below a folder or in shards, or those that a table names, without labels; and the column with their
    paths.
    Raises DataError where there are none."""
    if is_sharded(source):
        return samples_of_shards(read_shards(source), str(source), PATH, id=None, group=None), PATH
    if source.is_dir():
        names = image_names(source, follow_links)
        if not names:
            raise DataError(
                f"{source}: found no images; allowed: a folder with images, or a table that names them"
            )
        frame = pl.DataFrame({"path": names}, schema={"path": pl.String})
        samples = samples_of(
            frame, str(source), source, path="path", id=None, group=None, follow_links=follow_links
        )
        return samples, "path"
    if source.suffix.lower() not in SUFFIXES:
        raise DataError(
            f"{source}: found {source.suffix or 'no'} suffix; allowed: a folder of images, or a table"
            f" ({', '.join(SUFFIXES)})"
        )
    frame = read_table(source)
    found = find_image_column(frame, source)
    if found.paths is not None:
        frame = frame.with_columns(pl.Series(found.column, found.paths))
    samples = samples_of(
        frame,
        str(source),
        found.folders,
        path=found.column,
        id=None,
        group=None,
        follow_links=follow_links,
    )
    return samples, found.column


def _joined(
    parts: Sequence[Part],
    targets: tuple[Target, ...],
    config: Config | None,
    own: Table,
    name: str,
    notes: Sequence[str],
    not_done: Sequence[str],
) -> Rows:
    """All parts, one after the other."""
    ids = [id if part.is_source else f"{part.name}:{id}" for part in parts for id in part.samples.ids]
    texts = {
        target.name: tuple(text for part in parts for text in _texts(target, part))
        for target in targets
        if not isinstance(target, RankingTarget)
    }
    sides = [
        f"fold {part.folds[row]}" if part.folds is not None and part.name in (TRAIN, VALID) else part.name
        for part in parts
        for row in range(len(part.samples))
    ]
    return Rows(
        parts=tuple(parts),
        targets=targets,
        config=config,
        name=name,
        ids=tuple(ids),
        part_of=tuple(part.name for part in parts for _ in part.samples.ids),
        side_of=tuple(sides),
        paths=tuple(path for part in parts for path in part.samples.paths),
        texts=texts,
        is_given=any(part.name == VALID or part.folds is not None for part in parts),
        table=own,
        notes=(*(note for part in parts for note in part.samples.notes), *notes),
        not_done=tuple(not_done),
    )


def _texts(target: Target, part: Part) -> list[str | None]:
    """The label of each row of a part as its table has it."""
    if target.name not in part.labels:
        return [None] * len(part.samples)
    labels = part.labels[target.name]
    return [
        label_text(target, encoded) if known else None
        for encoded, known in zip(labels, target.is_labeled(labels), strict=True)
    ]


def label_text(target: Target, encoded: npt.NDArray[np.generic]) -> str:
    """An encoded label as the table has it; of several labels, none at all is empty."""
    if isinstance(target, MultilabelTarget):
        return (target.separator or "|").join(np.array(target.labels)[encoded == 1].tolist())
    if target.type == "regression":
        return f"{float(encoded):g}"
    return target.labels[int(encoded)]
