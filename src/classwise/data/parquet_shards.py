"""Parquet shards with the bytes of images, as Hugging Face's `datasets` writes them: a column of structs with
`bytes` and `path`, and a column for everything else.

Rows become a table as any other: the images' paths are its column `path`, and a label that is the number of a class
(`ClassLabel`) becomes its name. An image is called by its row, `train-00000-of-00004.parquet/17.jpg`.
"""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from classwise.data.listing import IMAGE_SUFFIXES
from classwise.data.parquet_pages import BYTE_ARRAY, MAGIC, ColumnPath, Footer, Page, pages_of, read_footer
from classwise.data.shard_files import LocalFile, ShardFile
from classwise.data.shard_index import NOTHING, PAGE, RAW, Locations, locations_array
from classwise.errors import DataError

PATH = "path"
"""The column of the table that holds the images' paths."""


def image_column(footer: Footer) -> str | None:
    """The column that holds images: structs with bytes; None if there is none, or several."""
    found = [path[0] for path in footer.levels if len(path) == 2 and path[1] == "bytes"]
    return found[0] if len(found) == 1 else None


def has_images(path: Path) -> bool:
    """Whether a Parquet file on this machine is a shard rather than a table. Raises DataError for one that is
    damaged."""
    try:
        schema = pl.read_parquet_schema(path)  # ten times faster than a footer read here
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError):
        return image_column(read_footer(LocalFile(path))) is not None  # or what is wrong with it
    structs = [kind for kind in schema.values() if isinstance(kind, pl.Struct)]
    return sum(any(field.name == "bytes" for field in struct.fields) for struct in structs) == 1


def parquet_rows(file: ShardFile) -> pl.DataFrame:
    """The columns of a shard as text, without the bytes: `path` (unless there is a column of that name, null where an
    image has none) and all others but nested ones. Raises DataError."""
    footer = read_footer(file)
    image = _image_column(file, footer)
    others = [path[0] for path, levels in footer.levels.items() if len(path) == 1 and levels >= 0]
    frame = _plain_columns(file, footer, others)
    try:
        frame = frame.select(pl.all().cast(pl.String))
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{file.name}: a column cannot be read as text: {error}") from None
    frame = _with_class_names(frame, footer, file)
    if PATH in frame.columns:
        return frame.select(PATH, pl.exclude(PATH))
    paths = pl.Series(PATH, _texts(file, footer, (image, "path")), dtype=pl.String)
    return frame.select(paths, pl.all()) if others else paths.to_frame()


def parquet_locations(file: ShardFile) -> Locations:
    """Where the bytes of each row are; its key is its number from 0. Raises DataError."""
    footer = read_footer(file)
    column = (_image_column(file, footer), "bytes")
    parts = [_of_page(page) for page in _pages(file, footer, column)]
    columns = np.concatenate(parts, axis=1) if parts else np.zeros((6, 0), np.uint64)
    if columns.shape[1] != footer.rows:
        raise DataError(
            f"{file.name}: column {column[0]} has {columns.shape[1]} values for {footer.rows} rows; it is damaged"
        )
    return locations_array(np.arange(footer.rows, dtype=np.uint64), list(columns))


def row_names(row: str, path: str) -> pl.Expr:
    """What the images of rows are called in their shard, from the columns of their numbers and paths: `17.jpg`,
    with the suffix of the path if that is an image's."""
    suffix = pl.col(path).str.extract(r"(\.[A-Za-z]+)$").str.to_lowercase()
    is_known = suffix.is_in(IMAGE_SUFFIXES)
    return pl.col(row).cast(pl.String) + pl.when(is_known).then(suffix).otherwise(pl.lit(""))


def row_of_name(name: str) -> int:
    """The row that `row_names` has named; -1 for any other name."""
    number = name.partition(".")[0]
    return int(number) if number.isascii() and number.isdigit() and len(number) < 19 else -1


def _image_column(file: ShardFile, footer: Footer) -> str:
    image = image_column(footer)
    if image is None:
        raise DataError(f"{file.name}: found no single column of images (structs with `bytes`)")
    if footer.levels[image, "bytes"] < 0:
        raise DataError(f"{file.name}: column {image} has lists of images; allowed: one image a row")
    return image


def _pages(file: ShardFile, footer: Footer, column: ColumnPath) -> Iterator[Page]:
    for chunk in footer.chunks.get(column, []):
        yield from pages_of(file, chunk, footer.levels[column], ".".join(column))


def _of_page(page: Page) -> np.ndarray:
    """The rows AT to EXTRA of the array of locations for one page, (6, N)."""
    count = len(page.is_there)
    is_raw = page.codec == 0
    columns = np.zeros((6, count), np.int64)
    at, stored, size, method, within, extra = columns
    method[:] = NOTHING
    there = page.is_there
    size[there] = page.sizes
    method[there] = RAW if is_raw else PAGE + page.codec
    at[there] = page.at + page.starts if is_raw else page.at
    stored[there] = page.sizes if is_raw else page.stored
    within[there] = 0 if is_raw else page.starts
    extra[there] = 0 if is_raw else len(page.body)
    return columns.astype(np.uint64)


def _texts(file: ShardFile, footer: Footer, column: ColumnPath) -> list[str | None]:
    """The cells of a column of text; all null where there is no such column, or one of another type: Arrow writes
    nothing but nulls as numbers."""
    if (
        not all(chunk.kind == BYTE_ARRAY for chunk in footer.chunks.get(column, []))
        or column not in footer.levels
    ):
        return [None] * footer.rows
    cells: list[str | None] = []
    for page in _pages(file, footer, column):
        spans = zip(page.starts.tolist(), page.sizes.tolist(), strict=True)
        texts = (page.body[start : start + size].decode(errors="replace") or None for start, size in spans)
        cells += [next(texts) if is_there else None for is_there in page.is_there.tolist()]
    return cells


def _plain_columns(file: ShardFile, footer: Footer, names: list[str]) -> pl.DataFrame:
    """These columns, read by polars, which reads no other part of a file on this machine. Raises DataError."""
    if not names:
        return pl.DataFrame()
    try:
        if isinstance(file, LocalFile):
            return pl.read_parquet(file.path, columns=names)
        with tempfile.TemporaryDirectory(prefix="classwise-") as folder:
            path = Path(folder) / "columns.parquet"
            _write_columns(file, footer, names, path)
            return pl.read_parquet(path, columns=names, memory_map=False)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise DataError(
            f"{file.name} cannot be read as a Parquet file: {str(error).splitlines()[0]}"
        ) from None


def _write_columns(file: ShardFile, footer: Footer, names: list[str], path: Path) -> None:
    """A file as large as a shard that holds nothing but its footer and these columns, which lie where they did: so
    that of a shard behind an address no image is fetched for its label."""
    with path.open("wb") as copy:
        copy.truncate(file.size)
        copy.write(MAGIC)
        for chunk in (chunk for name in names for chunk in footer.chunks.get((name,), [])):
            copy.seek(chunk.start)
            copy.write(file.read(chunk.start, chunk.end - chunk.start))
        copy.seek(footer.at)
        copy.write(file.read(footer.at, file.size - footer.at))


def _with_class_names(frame: pl.DataFrame, footer: Footer, file: ShardFile) -> pl.DataFrame:
    """The table with the names of classes in place of their numbers, where `datasets` has written these names. -1
    is no label there."""
    for column, names in class_names(footer).items():
        if column not in frame.columns:
            continue
        numbers = frame[column].drop_nulls().unique().to_list()
        unknown = [
            number
            for number in numbers
            if number != "-1" and not (number.isdigit() and int(number) < len(names))
        ]
        if unknown:
            raise DataError(
                f"{file.name}: column {column!r} holds the class number {unknown[0]}, but the file names"
                f" {len(names)} classes"
            )
        name_of = {str(number): name for number, name in enumerate(names)} | {"-1": None}
        frame = frame.with_columns(
            pl.col(column).replace_strict(name_of, return_dtype=pl.String, default=None)
        )
    return frame


def class_names(footer: Footer) -> dict[str, list[str]]:
    """The names of classes by column, as `datasets` writes them into a file: `{"info": {"features": ...}}`."""
    try:
        features = json.loads(footer.metadata.get("huggingface", b"{}")).get("info", {}).get("features", {})
    except (ValueError, AttributeError):
        return {}
    found: dict[str, list[str]] = {}
    for column, feature in features.items() if isinstance(features, dict) else ():
        names: Any = feature.get("names") if isinstance(feature, dict) else None
        if isinstance(names, list) and feature.get("_type") == "ClassLabel":
            found[column] = [str(name) for name in names]
    return found
