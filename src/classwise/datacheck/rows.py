"""The rows that are checked: those of a config or of a source, and of the sets that it is compared with.

No image is read here, and no row is left out for its label: an image without one may be a copy of another.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from classwise.compose.dataset import image_folders, read_sources
from classwise.compose.given_split import given_parts
from classwise.compose.labels import Labels, build_target
from classwise.compose.splits import DatasetSplits
from classwise.config.load import load_config, make_config
from classwise.config.schema import Config
from classwise.data.listing import image_names
from classwise.data.sources import Samples, samples_of
from classwise.data.split_column import part_of_word
from classwise.data.table import SUFFIXES, read_table
from classwise.data.targets import MultilabelTarget, RankingTarget, Target
from classwise.errors import DataError
from classwise.suggest.config import look_at
from classwise.suggest.images_of_table import find_image_column

UNKNOWN = ""
"""The text of a label that is not known."""


@dataclass(frozen=True)
class Part:
    """Rows with the same role: `train`, `valid`, `test`, or a set of --against (`is_other`), which has its file's name.
    `labels`: of the targets whose columns it has, encoded as data/targets.py says."""

    name: str
    samples: Samples
    labels: Labels
    is_other: bool = False


@dataclass(frozen=True)
class Table:
    """Where the rows of data.source are from: a `file`, or None for a folder, whose rows are `frame`. `id_column`: the
    column with their ids; `group_column`: that of data.group."""

    frame: pl.DataFrame
    id_column: str
    file: Path | None = None
    group_column: str | None = None


@dataclass(frozen=True)
class Rows:
    """All rows, part after part. `ids` are unique: those of another set begin with its name. `part_of`, `paths`: of
    each row. `texts`: of each target, the label of each row, UNKNOWN where there is none. `is_given`: whether the data
    say which rows are for validation; otherwise all are `train`, and a split will be drawn. `config`: None without
    labels. `table`: of data.source."""

    parts: tuple[Part, ...]
    targets: tuple[Target, ...]
    config: Config | None
    ids: tuple[str, ...]
    part_of: tuple[str, ...]
    paths: tuple[Path, ...]
    texts: dict[str, tuple[str, ...]]
    is_given: bool
    table: Table
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def is_other(self) -> np.ndarray:
        """Whether each row (N,) is of a set that the data are compared with."""
        flags = [np.full(len(part.samples), part.is_other) for part in self.parts]
        return np.concatenate(flags)

    @property
    def own(self) -> Samples:
        """The rows of data.source."""
        return self.parts[0].samples

    def text(self, row: int) -> str:
        """The labels of a row, for a sentence: `'scratch'`, or `kind 'a', color 'red'` of several targets."""
        known = [(name, texts[row]) for name, texts in self.texts.items() if texts[row] != UNKNOWN]
        if len(self.texts) == 1:
            return repr(known[0][1]) if known else "no label"
        return ", ".join(f"{name} {text!r}" for name, text in known) or "no label"


def rows_of(source: Path, against: Sequence[Path], overrides: Sequence[tuple[str, str]] = ()) -> Rows:
    """The rows of a classwise.toml, a table or a folder, and of the sets `against`. A source in which no labels are
    recognized is checked without them, which the notes say. `overrides`: keys of the config, as options. Raises
    DataError, ConfigError."""
    notes: list[str] = []
    table: pl.DataFrame | None = None
    if source.suffix.lower() == ".toml":
        config: Config | None = load_config(source, overrides)
    else:
        config, table, notes = _config_of(source, overrides)
    if config is None:
        samples, column = images_alone(source)
        parts = [Part("train", samples, {})]
        targets: tuple[Target, ...] = ()
        is_given = False
        own = Table(samples.frame, column, None if source.is_dir() else source)
    else:
        config = _with_test_rows(config)
        parts, targets, is_given, own = _parts_of(config, table)
    parts += _others(against, config, parts, targets, notes)
    return _joined(parts, targets, config, is_given, own, notes)


def rows_of_splits(config: Config, splits: DatasetSplits) -> Rows:
    """The rows of a run, by the split that it trains with."""
    parts = [
        Part(name, split.samples, split.labels)
        for name, split in splits.by_name.items()
        if len(split.samples)
    ]
    own = Table(splits.train.samples.frame, config.data.id or config.data.path, None, config.data.group)
    return _joined(parts, splits.targets, config, True, own, [])


def _config_of(
    source: Path, overrides: Sequence[tuple[str, str]]
) -> tuple[Config | None, pl.DataFrame | None, list[str]]:
    """What `init` would write for a source: the config, the table where that is no file, and its lines. No config where
    it finds no labels, and why."""
    if not source.exists():
        raise DataError(f"there is no config, table or folder {source}")
    try:
        suggestion = look_at(source, hub=False)
    except DataError as error:
        return None, None, [f"checked without labels: {error}"]
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


def _parts_of(
    config: Config, table: pl.DataFrame | None
) -> tuple[list[Part], tuple[Target, ...], bool, Table]:
    """The rows of all tables of a config, by the part that the data give them; whether they give it; and
    data.source."""
    samples, tables = read_sources(config, table)
    targets = tuple(build_target(name, config, samples) for name in config.targets)
    given = given_parts(samples.frame, samples.where, config)
    roles = ["train"] * len(samples) if given is None else given
    parts = [
        Part(role, rows, _labels(targets, rows))
        for role in dict.fromkeys(["train", *roles])
        if role != "skip"
        and len(rows := samples.take([row for row, found in enumerate(roles) if found == role]))
    ]
    parts += [Part(key, table, _labels(targets, table)) for key, table in tables.items()]
    data = config.data
    source = Path(data.source)
    is_file = table is None and not source.is_dir()
    own = Table(samples.frame, data.id or data.path, source if is_file else None, data.group)
    return parts, targets, given is not None or bool(tables), own


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
    notes: list[str],
) -> list[Part]:
    """The sets that the data are compared with. A file that is of the data itself is left out, which is noted: nothing
    is its own copy."""
    files = {os.path.realpath(path) for part in own for path in part.samples.paths}
    names = [part.name for part in own]
    parts = []
    for path in against:
        samples = _other_samples(path, config)
        different = [row for row, file in enumerate(samples.paths) if os.path.realpath(file) not in files]
        if len(different) < len(samples):
            notes.append(
                f"{path}: {len(samples) - len(different)} of {len(samples)} rows are files of the data itself, which"
                " are not compared with themselves"
            )
            samples = samples.take(different)
        name = _free_name(path.name or str(path), names)
        names.append(name)
        try:
            labels = _labels(targets, samples)
        except DataError as error:
            notes.append(f"{path}: its labels are not used: {error}")
            labels = {}
        parts.append(Part(name, samples, labels, is_other=True))
    return parts


def _free_name(wanted: str, taken: Sequence[str]) -> str:
    """A name that no other part has."""
    names = [wanted, *(f"{wanted}-{number}" for number in range(2, len(taken) + 3))]
    return next(name for name in names if name not in taken)


def _other_samples(path: Path, config: Config | None) -> Samples:
    """The images of a table or folder, by the columns of the config where the table has them."""
    if path.is_dir() or config is None or path.suffix.lower() not in SUFFIXES:
        return images_alone(path)[0]
    frame = read_table(path)
    data = config.data
    if data.path not in frame.columns:
        return images_alone(path)[0]
    id = data.id if data.id in frame.columns else None
    folders = [path.parent, *image_folders(config)]
    return samples_of(
        frame, str(path), folders, path=data.path, id=id, group=None, follow_links=data.follow_links
    )


def images_alone(source: Path) -> tuple[Samples, str]:
    """Every image below a folder, or the images that a table names, without labels; and the column with their paths.
    Raises DataError where there are none."""
    if source.is_dir():
        names = image_names(source)
        if not names:
            raise DataError(
                f"{source}: found no images; allowed: a folder with images, or a table that names them"
            )
        frame = pl.DataFrame({"path": names}, schema={"path": pl.String})
        return samples_of(frame, str(source), source, path="path", id=None, group=None), "path"
    if source.suffix.lower() not in SUFFIXES:
        raise DataError(f"{source}: found {source.suffix or 'no'} suffix; a table is {', '.join(SUFFIXES)}")
    if not source.exists():
        raise DataError(f"there is no table {source}")
    frame = read_table(source)
    found = find_image_column(frame, source)
    if found.paths is not None:
        frame = frame.with_columns(pl.Series(found.column, found.paths))
    samples = samples_of(frame, str(source), found.folders, path=found.column, id=None, group=None)
    return samples, found.column


def _joined(
    parts: Sequence[Part],
    targets: tuple[Target, ...],
    config: Config | None,
    is_given: bool,
    own: Table,
    notes: Sequence[str],
) -> Rows:
    """All parts, one after the other."""
    ids: list[str] = []
    texts: dict[str, list[str]] = {
        target.name: [] for target in targets if not isinstance(target, RankingTarget)
    }
    for part in parts:
        ids += [f"{part.name}:{id}" if part.is_other else id for id in part.samples.ids]
        for target in targets:
            if target.name in texts:
                texts[target.name] += _texts(target, part)
    return Rows(
        parts=tuple(parts),
        targets=targets,
        config=config,
        ids=tuple(ids),
        part_of=tuple(part.name for part in parts for _ in part.samples.ids),
        paths=tuple(path for part in parts for path in part.samples.paths),
        texts={name: tuple(found) for name, found in texts.items()},
        is_given=is_given,
        table=own,
        notes=(*(note for part in parts for note in part.samples.notes), *notes),
    )


def _texts(target: Target, part: Part) -> list[str]:
    """The label of each row of a part as its table has it."""
    if target.name not in part.labels:
        return [UNKNOWN] * len(part.samples)
    labels = part.labels[target.name]
    return [
        label_text(target, encoded) if known else UNKNOWN
        for encoded, known in zip(labels, target.is_labeled(labels), strict=True)
    ]


def label_text(target: Target, encoded: np.ndarray) -> str:
    """An encoded label as the table has it."""
    if isinstance(target, MultilabelTarget):
        return (target.separator or "|").join(np.array(target.labels)[encoded == 1].tolist())
    if target.type == "regression":
        return f"{float(encoded):g}"
    return target.labels[int(encoded)]
