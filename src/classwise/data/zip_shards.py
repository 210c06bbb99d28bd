"""A zip as a source: class folders in an archive, or images with one table at its top."""

import struct
import tempfile
import zipfile
import zlib
from pathlib import Path

import polars as pl

from classwise.data.shard_files import ShardFile
from classwise.data.shard_index import (
    DEFLATED,
    RAW,
    Locations,
    folder_order,
    is_visible_image,
    key_of,
    locations_array,
    plain_name,
    refuse_twice,
)
from classwise.data.table import read_table
from classwise.data.tar_shards import MEMBER
from classwise.errors import DataError

TABLE_SUFFIXES = (".csv", ".tsv")
LARGEST_TABLE = 2**30
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_ENCRYPTED = 1


def scan_zip(file: ShardFile) -> tuple[pl.DataFrame, Locations]:
    """The rows of a zip with the column MEMBER, sorted by name as those of a folder are, or those of its table; and
    where the images are. Raises DataError for an archive that is cut short, damaged or encrypted."""
    try:
        with file.open() as opened, zipfile.ZipFile(opened) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            images = [entry for entry in entries if is_visible_image(plain_name(entry.filename))]
            images.sort(key=lambda entry: folder_order(plain_name(entry.filename)))
            tables = [
                entry
                for entry in entries
                if "/" not in entry.filename and entry.filename.lower().endswith(TABLE_SUFFIXES)
            ]
            frame = _table(file, archive, tables)
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        RuntimeError,
        OSError,
        ValueError,
        zlib.error,
        struct.error,
    ) as error:
        raise DataError(f"{file.name}: no zip, or one that is cut short or damaged: {error}") from None
    _refuse_unreadable(file, images)
    names = [plain_name(entry.filename) for entry in images]
    refuse_twice(file, names)
    if frame is None:
        frame = pl.DataFrame({MEMBER: names}, schema={MEMBER: pl.String})
    return frame, _locations(images)


def _locations(images: list[zipfile.ZipInfo]) -> Locations:
    columns = [
        [entry.header_offset for entry in images],
        [entry.compress_size for entry in images],
        [entry.file_size for entry in images],
        [entry.compress_type for entry in images],
        [1] * len(images),  # of a zip: what is at AT is a header, whose length is told there
        [entry.CRC for entry in images],
    ]
    return locations_array([key_of(plain_name(entry.filename)) for entry in images], columns)


def _refuse_unreadable(file: ShardFile, images: list[zipfile.ZipInfo]) -> None:
    for entry in images:
        if entry.header_offset < 0:
            raise DataError(f"{file.name}: cut short or damaged: {entry.filename} begins before it")
        if entry.flag_bits & _ENCRYPTED:
            raise DataError(
                f"{file.name}: {entry.filename} is encrypted; allowed: archives without a password"
            )
        if entry.compress_type not in (RAW, DEFLATED):
            raise DataError(
                f"{file.name}: {entry.filename} has the compression number {entry.compress_type}; allowed: stored (0)"
                " and deflated (8)"
            )


def _table(file: ShardFile, archive: zipfile.ZipFile, tables: list[zipfile.ZipInfo]) -> pl.DataFrame | None:
    """The table at the top of an archive, None if there is none. Raises DataError if there are several."""
    if not tables:
        return None
    if len(tables) > 1:
        names = ", ".join(entry.filename for entry in tables)
        raise DataError(
            f"{file.name}: found the tables {names} in it; allowed: one; unpack it and name one of them"
        )
    (entry,) = tables
    if entry.file_size > LARGEST_TABLE:
        raise DataError(
            f"{file.name}: {entry.filename} has {entry.file_size:,} bytes; allowed: {LARGEST_TABLE:,}"
        )
    with archive.open(entry) as opened:
        data = opened.read(LARGEST_TABLE)

    # Read as any other table, under a name of ours: none of an archive becomes a path.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"table{entry.filename[-4:].lower()}"
        path.write_bytes(data)
        try:
            return read_table(path)
        except DataError as error:
            raise DataError(str(error).replace(str(path), f"{file.name}/{entry.filename}")) from None


def header_length(data: bytes) -> int:
    """How long the local header is with which these bytes begin (APPNOTE.TXT 4.3.7). Raises ValueError if there is
    none."""
    if len(data) < _LOCAL_HEADER.size or data[:4] != b"PK\3\4":
        raise ValueError("the entry is not where the archive's directory says")
    _, name_length, extra_length = _LOCAL_HEADER.unpack_from(data)
    return int(_LOCAL_HEADER.size + name_length + extra_length)


def unzipped(data: bytes, method: int, size: int, crc: int) -> bytes:
    """The first `size` bytes of an entry from those that are stored; `crc`: their checksum if they are all (-1:
    they are not). Raises ValueError for damage."""
    if method == DEFLATED:
        try:
            data = zlib.decompressobj(-15).decompress(data, size)  # never more than the directory says
        except zlib.error as error:
            raise ValueError(f"it cannot be decompressed: {error}") from None
    data = data[:size]
    if len(data) != size or (crc >= 0 and zlib.crc32(data) != crc):
        raise ValueError("its bytes do not have the checksum that the archive's directory says")
    return data
