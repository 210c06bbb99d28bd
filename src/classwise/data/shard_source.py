"""Shards as a source of rows: which files a source names, and the table that they hold together."""

import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from classwise.data.listing import is_image_name
from classwise.data.parquet_shards import PATH, has_images, row_names
from classwise.data.remote import addresses
from classwise.data.shard_files import Shards
from classwise.data.shards import SUFFIXES, opened_anew
from classwise.data.source_names import PATTERN_SIGNS, is_pattern
from classwise.data.split_column import part_of_word
from classwise.data.table import full_column
from classwise.data.tar_shards import MEMBER
from classwise.data.texts import Texts
from classwise.errors import DataError
from classwise.files import address_of, is_address

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_NUMBERED = re.compile(r"^(.*?)-(\d+)-of-(\d+)$")
MOST_SHARDS = 100_000
LABEL = "label"
SHARD = "__shard__"
"""The column with each row's shard, while rows are put together."""


@dataclass(frozen=True)
class ShardRows:
    """The rows of shards. `names`: each row's image as a path relative to `root`, which goes through its shard."""

    root: Path
    names: Texts
    frame: pl.DataFrame
    shards: Shards
    notes: tuple[str, ...] = ()


def is_sharded(source: str | Path) -> bool:
    """Whether a source is shards rather than a table or a folder of images: by its suffix, by what is in a Parquet
    file, and a folder by the files directly in it. Raises DataError for a Parquet file that is damaged."""
    text = str(source)
    suffix = Path(text).suffix.lower()
    if is_address(text) or (suffix in SUFFIXES and is_pattern(text)):
        return True
    path = Path(source)
    if path.is_dir():
        return bool(_shards_in(path))
    return path.is_file() and _is_shard(path)


def _names_each(text: str) -> bool:
    """Whether a source names each of its shards, alone or by braces, so that a missing one is an error anyway."""
    if is_address(text):
        return text.startswith("http") or not any(sign in text for sign in PATTERN_SIGNS)
    return Path(text).is_file() or not (Path(text).is_dir() or any(sign in text for sign in PATTERN_SIGNS))


def _is_shard(path: Path) -> bool:
    suffix = path.suffix.lower()
    return suffix in (".tar", ".zip") or (suffix == ".parquet" and has_images(path))


def _shards_in(folder: Path) -> list[Path]:
    """The shards directly in a folder, sorted. None if there are other folders, images or tables in it: then they are
    what the folder is about, and an archive beside them may be where they came from."""
    found: list[Path] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name.lower()
                if name.startswith("."):
                    continue
                if entry.is_dir() or is_image_name(name) or name.endswith((".csv", ".tsv")):
                    return []  # at the first of perhaps a million
                if name.endswith(SUFFIXES):
                    found.append(folder / entry.name)
    except OSError:
        return []  # whoever lists it as a folder of images says why it cannot be
    return sorted(found) if all(_is_shard(path) for path in found) else []


def shard_paths(source: str | Path) -> list[Path]:
    """The shards that a source names, sorted: a file, a folder, or a pattern with `*`, `?`, `[...]` or
    `{000..011}`; all of these but a folder may be behind an address. Raises DataError if there are none, if some
    are missing, and if they are of several kinds or parts of a split."""
    paths = _named(source)
    suffixes = sorted({path.suffix.lower() for path in paths})
    if len(suffixes) > 1 or suffixes[0] not in SUFFIXES:
        found = ", ".join(suffix or "no suffix" for suffix in suffixes)
        raise DataError(f"{source}: found shards with {found}; allowed: one of {', '.join(SUFFIXES)}")
    if parts := parts_of(source):
        first = next(iter(parts.values()))
        raise DataError(
            f"{source}: found shards of {', '.join(sorted(parts))}, which are parts of a split; name those of one part,"
            f" such as {first}, and the others in data.valid and data.test"
        )
    if not _names_each(str(source)):
        _refuse_gaps(paths)
    return paths


def parts_of(source: str | Path) -> dict[str, Path]:
    """The patterns of the shards of each part of a split, where a source has shards of several by the first word of
    their names (`train-00000-of-00004.parquet`); else nothing. Raises DataError if there are no shards."""
    found: dict[str, set[Path]] = {}
    for path in _named(source):
        word, sign = re.match(r"([^-_.]*)([-_.]?)", path.name).groups()  # type: ignore[union-attr]
        part = part_of_word(word)
        if part is not None:
            pattern = f"{word}{sign}*{path.suffix}" if sign != "." else path.name
            found.setdefault(part, set()).add(path.parent / pattern)
    if len(found) < 2 or any(len(patterns) > 1 for patterns in found.values()):
        return {}
    return {part: patterns.pop() for part, patterns in found.items()}


def _named(source: str | Path) -> list[Path]:
    """The files that a source names, sorted. Raises DataError if there are none."""
    text = str(source)
    if not is_address(text) and Path(text).is_dir():
        paths = _shards_in(Path(text))
    elif not is_pattern(text):
        paths = [Path(text)]
    else:
        paths = sorted({path for one in _expanded(text) for path in _matches(one)})
    if not paths:
        raise DataError(f"{text}: no shard is named like this")
    return paths


def _expanded(text: str) -> Iterator[str]:
    """A pattern without its braces: `{000..011}` counts, `{a,b}` names each."""
    match = _BRACES.search(text)
    if match is None:
        yield text
        return
    counted = _RANGE.fullmatch(match[1])
    if counted is None:
        choices: Sequence[str] = match[1].split(",")
    else:
        first, last = int(counted[1]), int(counted[2])
        if last - first >= MOST_SHARDS:
            raise DataError(f"{text}: stands for {last - first + 1:,} shards; allowed: {MOST_SHARDS:,}")
        choices = [f"{number:0{len(counted[1])}d}" for number in range(first, last + 1)]
    for choice in choices:
        yield from _expanded(text[: match.start()] + choice + text[match.end() :])


def _matches(text: str) -> list[Path]:
    """The files that a pattern without braces stands for. One without any other sign is passed on as it is, so that a
    missing shard is an error."""
    if not any(sign in text for sign in PATTERN_SIGNS):
        return [Path(text)]
    if is_address(text):
        return [Path(address) for address in addresses(address_of(text))]
    path = Path(text)
    return list(path.parent.glob(path.name))


def _refuse_gaps(paths: Sequence[Path]) -> None:
    """Raise DataError for a missing shard, where their names say how many there are (`train-00000-of-00004`), unless
    the source names each of them itself."""
    numbers: dict[tuple[str, int], set[int]] = {}
    for path in paths:
        if match := _NUMBERED.match(path.stem):
            numbers.setdefault((str(path.parent / match[1]), int(match[3])), set()).add(int(match[2]))
    for (stem, count), found in numbers.items():
        missing = [number for number in range(min(count, MOST_SHARDS)) if number not in found]
        if missing:
            raise DataError(
                f"{stem}-*: found {len(found)} of {count} shards; missing: number {', '.join(map(str, missing[:5]))}"
                f"{' and more' if len(missing) > 5 else ''}"
            )


def read_shards(source: str | Path, path: str = PATH) -> ShardRows:
    """The rows of all shards of a source, in their order. `path`: the column with the paths, for a zip with a
    table. Raises DataError for shards that are missing, cut short or damaged, and where there are no images in
    them."""
    paths = shard_paths(source)
    root = Path(os.path.commonpath([shard.parent for shard in paths]))
    stamps: dict[str, str] = {}
    frames: list[pl.DataFrame] = []
    for shard_path in paths:
        shard = opened_anew(shard_path)
        stamps[str(shard_path)] = shard.file.stamp
        rows = _with_members(shard.read_rows(), shard_path, path)
        frames.append(rows.with_columns(pl.lit(shard_path.relative_to(root).as_posix()).alias(SHARD)))
    frame = pl.concat(frames, how="diagonal")
    if not frame.height:
        raise DataError(f"{source}: found no images in it")

    # What archives of folders say of their images is where these lie.
    notes: tuple[str, ...] = ()
    if set(frame.columns) == {MEMBER, SHARD}:
        frame, notes = _of_folders(frame, str(source))
    frame, renamed = _with_paths(frame, str(source))
    names = Texts.of_column(frame[SHARD] + "/" + frame[MEMBER])
    return ShardRows(root, names, frame.drop(SHARD, MEMBER), Shards(stamps), (*notes, *renamed))


def _with_members(frame: pl.DataFrame, shard: Path, path: str) -> pl.DataFrame:
    """The rows of a shard with the column MEMBER: how each image is called in it. Raises DataError."""
    if shard.suffix.lower() == ".parquet":
        return frame.with_row_index(MEMBER).with_columns(row_names(MEMBER, PATH))
    if MEMBER in frame.columns:
        return frame
    cells = full_column(frame, path, str(shard), "data.path")
    return frame.with_columns(
        pl.Series(MEMBER, [posixpath.normpath(cell) for cell in cells], dtype=pl.String)
    )


def _of_folders(frame: pl.DataFrame, where: str) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """The rows of archives in which there is nothing but images: their folders are their labels, as those of a
    folder are. Below a folder that holds everything, the next ones are. Without any folders there are no labels."""
    parts = frame[MEMBER].str.strip_prefix("./").str.split("/")
    depth = int(parts.list.len().min() > 2 and parts.list.first().n_unique() == 1)  # type: ignore[operator]
    label = pl.when(parts.list.len() > depth + 1).then(parts.list.get(depth, null_on_oob=True))
    frame = frame.with_columns(label.alias(LABEL))
    loose = frame[LABEL].null_count()
    if loose == frame.height:
        return frame.drop(LABEL), ()
    notes = (f"{where}: left out {loose} images that are in no class folder",) if loose else ()
    return frame.filter(pl.col(LABEL).is_not_null()), notes


def _with_paths(frame: pl.DataFrame, where: str) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """The rows with a column `path` that identifies them: their own or, where it is empty or repeats, shard and
    image."""
    shard_and_image = pl.col(SHARD) + "/" + pl.col(MEMBER)
    if PATH not in frame.columns:
        own = pl.col(MEMBER) if not frame[MEMBER].is_duplicated().any() else shard_and_image
        return frame.select(own.alias(PATH), pl.all()), ()
    if not frame[PATH].null_count() and not frame[PATH].is_duplicated().any():
        return frame, ()
    note = f"{where}: its column {PATH!r} is empty or repeats itself, so rows are named by shard and number"
    return frame.with_columns(shard_and_image.alias(PATH)), (note,)
