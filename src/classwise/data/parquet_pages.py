"""Where the values of a Parquet column of bytes lie in the file, so that one of them can be read without the others.

Libraries decode whole row groups: a hundred images for one. Here the pages of a column are walked once, and what is
kept is where each value begins: in the file itself, or in a page that has to be decompressed. Format: Apache
Parquet, 'File Format' (thrift definitions, 'Data Pages', 'Encodings') and Thrift's 'Compact protocol'."""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from classwise.data.shard_files import ShardFile
from classwise.errors import DataError

MAGIC = b"PAR1"
CODECS = {0: "", 1: "snappy", 2: "gzip", 4: "brotli", 6: "zstd", 7: "lz4"}
"""By Parquet's number of it: the name of a compression; 0 is none."""
LARGEST_PAGE = 2**30
"""Bytes of a page once it is decompressed; writers make pages of about a million."""
BYTE_ARRAY = 6
_REPEATED, _OPTIONAL = 2, 1
_DATA_PAGE, _DICTIONARY_PAGE, _DATA_PAGE_V2 = 0, 2, 3
_PLAIN, _DICTIONARY_ENCODINGS = 0, (2, 8)
_HEADER_BYTES = 1024
_DAMAGE = (
    KeyError,
    IndexError,
    ValueError,
    TypeError,
    struct.error,
    OverflowError,
    MemoryError,
    RecursionError,
)
"""What reading numbers that are none of a Parquet file's may end in."""

ColumnPath = tuple[str, ...]
"""The names that lead to a leaf column, from the outermost on: each of them may hold a dot."""


class Chunk(NamedTuple):
    """The values of one column in one row group: from where to where its pages go in the file, their `codec`, and the
    `kind` of the values."""

    start: int
    end: int
    codec: int
    values: int
    kind: int


@dataclass(frozen=True)
class Footer:
    """What the end of a Parquet file says: `levels` are those of each leaf column (how many of its ancestors and
    itself may be null), -1 for a repeated one; `chunks` the parts of each leaf column, by row group."""

    at: int
    rows: int
    levels: dict[ColumnPath, int]
    chunks: dict[ColumnPath, list[Chunk]]
    metadata: dict[str, bytes]


class Page(NamedTuple):
    """The values of one page of a column. `body`: the decompressed bytes in which they lie, which are those of the
    dictionary's page where there is one; `at`, `stored`, `codec`: where these come from in the file. `starts` and
    `sizes` (V,) of the values that are there, `is_there` (N,) of all."""

    body: bytes
    at: int
    stored: int
    codec: int
    starts: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    is_there: npt.NDArray[np.bool_]


def read_footer(file: ShardFile) -> Footer:
    """Raises DataError for a file that is cut short, encrypted, or no Parquet file."""
    if file.size < 12 or file.read(0, 4) != MAGIC:
        raise DataError(f"{file.name}: not a Parquet file (it does not begin with PAR1)")
    tail = file.read(file.size - 8, 8)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != MAGIC or length > file.size - 12:
        raise DataError(f"{file.name}: cut short (a Parquet file ends with PAR1); copy it again")
    try:
        tree, _ = _struct(file.read(file.size - 8 - length, length), 0)
        levels = _levels(tree[2])
        chunks: dict[ColumnPath, list[Chunk]] = {}
        for group in tree.get(4, []):
            for column in group[1]:
                _add_chunk(chunks, column, file)
        metadata = {pair[1].decode(): pair.get(2, b"") for pair in tree.get(5, [])}
    except _DAMAGE as error:
        raise DataError(f"{file.name}: its footer is damaged ({type(error).__name__}: {error})") from None
    return Footer(at=file.size - 8 - length, rows=tree[3], levels=levels, chunks=chunks, metadata=metadata)


def _add_chunk(chunks: dict[ColumnPath, list[Chunk]], column: dict[int, Any], file: ShardFile) -> None:
    """Add a column's part of a row group. Raises DataError for a part beyond the file's end."""
    facts = column[3]
    start = min(facts[9], facts.get(11) or facts[9])
    if not 0 <= start <= start + facts[7] <= file.size:
        raise DataError(f"{file.name}: its footer points beyond its end; it is cut short or damaged")
    chunk = Chunk(start=start, end=start + facts[7], codec=facts[4], values=facts[5], kind=facts[1])
    chunks.setdefault(tuple(part.decode() for part in facts[3]), []).append(chunk)


def _levels(elements: Sequence[dict[int, Any]]) -> dict[ColumnPath, int]:
    """The levels of each leaf column; the elements are a tree in depth-first order."""
    levels: dict[ColumnPath, int] = {}

    def walk(position: int, path: ColumnPath, optional: int) -> int:
        element = elements[position]
        name = (*path, element[4].decode())
        repetition = element.get(3, 0)
        if optional >= 0:
            optional = -1 if repetition == _REPEATED else optional + (repetition == _OPTIONAL)
        position += 1
        if not element.get(5):
            levels[name] = optional
        for _ in range(element.get(5, 0)):
            position = walk(position, name, optional)
        return position

    position = 1
    for _ in range(elements[0].get(5, 0)):
        position = walk(position, (), 0)
    return levels


def pages_of(file: ShardFile, chunk: Chunk, levels: int, column: str) -> Iterator[Page]:
    """The pages of a column of bytes, in order. Raises DataError for what is damaged, and for an encoding or a
    compression in which a value cannot be found."""
    if chunk.kind != BYTE_ARRAY:
        raise DataError(
            f"{file.name}: column {column} holds no bytes, but values of another type ({chunk.kind})"
        )
    if chunk.codec not in CODECS:
        raise DataError(
            f"{file.name}: column {column} has the compression number {chunk.codec}; allowed:"
            f" {', '.join(filter(None, CODECS.values()))} and none"
        )
    dictionary: Page | None = None
    position, seen = chunk.start, 0
    while seen < chunk.values:
        header, begin = _page_header(file, position, chunk.end, column)
        stored = header[3]
        position = begin + stored
        try:
            if header[1] == _DICTIONARY_PAGE:
                dictionary = _dictionary(file, header, begin, chunk.codec)
            elif header[1] in (_DATA_PAGE, _DATA_PAGE_V2):
                page = _data_page(
                    file,
                    header,
                    begin,
                    chunk.codec,
                    levels=levels,
                    dictionary=dictionary,
                    column=column,
                    most=chunk.values - seen,
                )
                seen += len(page.is_there)
                yield page
        except _DAMAGE as error:
            raise DataError(
                f"{file.name}: a page of column {column} is damaged ({type(error).__name__}: {error})"
            ) from None


def _page_header(file: ShardFile, position: int, end: int, column: str) -> tuple[dict[int, Any], int]:
    """A page's header, and where its content begins. A header has no length of its own: statistics may make it
    long."""
    size = _HEADER_BYTES
    while position < end:
        data = file.read(position, min(size, end - position))
        try:
            header, length = _struct(data, 0)
            if position + length + header[3] <= end:
                return header, position + length
            break
        except (IndexError, struct.error):
            if position + size >= end:
                break
            size *= 8
        except (KeyError, ValueError):
            break
    raise DataError(f"{file.name}: a page of column {column} is damaged or cut short")


def _dictionary(file: ShardFile, header: dict[int, Any], begin: int, codec: int) -> Page:
    """The values of a dictionary's page, to which other pages refer by number."""
    body = decompressed(file.read(begin, header[3]), codec, header[2])
    starts, sizes = _plain(body, 0, header[7][1])
    return Page(body, begin, header[3], codec, starts, sizes, np.ones(len(starts), bool))


def _data_page(
    file: ShardFile,
    header: dict[int, Any],
    begin: int,
    codec: int,
    levels: int,
    dictionary: Page | None,
    column: str,
    most: int,
) -> Page:
    """The values of a data page of either version, `most` of them at the most; in the second one, levels lie before
    the compressed part."""
    data = file.read(begin, header[3])
    if header[1] == _DATA_PAGE_V2:
        facts = header[8]
        count, encoding = facts[1], facts[4]
        ahead = facts[5] + facts[6]
        level_data = data[facts[6] : ahead]
        codec = codec if facts.get(7, True) else 0
        body = decompressed(data[ahead:], codec, header[2] - ahead)
        begin, stored, at = begin + ahead, header[3] - ahead, 0
    else:
        facts = header[5]
        count, encoding = facts[1], facts[2]
        body = decompressed(data, codec, header[2])
        length = struct.unpack_from("<I", body)[0] if levels else -4
        level_data = body[4 : 4 + max(0, length)]
        stored, at = header[3], 4 + length
    if not 0 <= count <= most:
        raise ValueError(f"{count:,} values; the column has {most:,} more")
    is_there = np.ones(count, bool)
    if levels:
        is_there = runs(level_data, levels.bit_length(), count) == levels

    # The values themselves, or their numbers in the dictionary.
    present = int(is_there.sum())
    if encoding == _PLAIN:
        starts, sizes = _plain(body, at, present)
        return Page(body, begin, stored, codec, starts, sizes, is_there)
    if encoding in _DICTIONARY_ENCODINGS and dictionary is not None:
        numbers = runs(body[at + 1 :], body[at], present) if present else np.zeros(0, np.int64)
        return dictionary._replace(
            starts=dictionary.starts[numbers], sizes=dictionary.sizes[numbers], is_there=is_there
        )
    raise DataError(
        f"{file.name}: column {column} has the encoding number {encoding}; allowed: PLAIN (0) and dictionary (2, 8)"
    )


def decompressed(data: bytes, codec: int, size: int) -> bytes:
    """The bytes of a page that has `size` of them once it is decompressed. Raises ValueError for any other number."""
    if not 0 <= size <= LARGEST_PAGE:
        raise ValueError(f"{size:,} bytes; allowed: {LARGEST_PAGE:,}")
    result = data
    if codec and size:
        import imagecodecs  # which every other run can do without

        try:
            result = getattr(imagecodecs, f"{CODECS[codec]}_decode")(data, out=size)
        except Exception as error:  # each of the libraries has an exception of its own
            raise ValueError(f"it cannot be decompressed: {error}") from None
    if len(result) != size:
        raise ValueError(f"found {len(result)} bytes in place of {size}")
    return bytes(result)


def _plain(body: bytes, at: int, count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where `count` values begin that lie one after the other, each behind its length, and these lengths."""
    if not 0 <= count <= len(body) // 4:
        raise ValueError(f"{count:,} values in {len(body):,} bytes")
    starts, sizes = np.empty(count, np.int64), np.empty(count, np.int64)
    unpack = struct.Struct("<I").unpack_from
    for number in range(count):
        (size,) = unpack(body, at)
        starts[number], sizes[number] = at + 4, size
        at += 4 + size
    if at > len(body):
        raise ValueError("a value goes beyond the page")
    return starts, sizes


def runs(data: bytes, width: int, count: int) -> npt.NDArray[np.int64]:
    """`count` numbers of `width` bits in Parquet's hybrid of runs and packed bits. Raises IndexError, ValueError."""
    numbers = np.zeros(count, np.int64)
    if not width:
        return numbers
    position = done = 0
    while done < count:
        header, position = _varint(data, position)
        if header & 1:
            length = (header >> 1) * width
            bits = np.unpackbits(np.frombuffer(data, np.uint8, length, position), bitorder="little")
            found = bits.reshape(-1, width).astype(np.int64) @ (1 << np.arange(width, dtype=np.int64))
            position += length
        else:
            length = -(-width // 8)
            value = int.from_bytes(data[position : position + length], "little")
            found = np.full(min(header >> 1, count - done), value, np.int64)
            position += length
        taken = min(len(found), count - done)
        if not taken:
            raise ValueError("an empty run")
        numbers[done : done + taken] = found[:taken]
        done += taken
    return numbers


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7
        if shift > 70:
            raise ValueError("a number is too long")


def _struct(data: bytes, position: int) -> tuple[dict[int, Any], int]:
    """A Thrift struct in the compact protocol as a dict from field number to value, and where it ends."""
    values: dict[int, Any] = {}
    field = 0
    while True:
        head = data[position]
        position += 1
        if head == 0:
            return values, position
        if head >> 4:
            field += head >> 4
        else:
            number, position = _varint(data, position)
            field = (number >> 1) ^ -(number & 1)
        kind = head & 15
        if kind in (1, 2):
            values[field] = kind == 1
        else:
            values[field], position = _value(data, position, kind)


def _value(data: bytes, position: int, kind: int) -> tuple[Any, int]:
    """One value of a Thrift struct, list or map."""
    if kind in (1, 2, 3):  # a byte; in a list also true or false
        return data[position], position + 1
    if kind in (4, 5, 6):
        number, position = _varint(data, position)
        return (number >> 1) ^ -(number & 1), position
    if kind == 7:
        return struct.unpack_from("<d", data, position)[0], position + 8
    if kind == 8:
        length, position = _varint(data, position)
        if position + length > len(data):
            raise IndexError("text beyond the end")
        return data[position : position + length], position + length
    if kind in (9, 10):
        return _list(data, position)
    if kind == 12:
        return _struct(data, position)
    raise ValueError(f"Thrift's type {kind} is not used in Parquet")


def _list(data: bytes, position: int) -> tuple[list[Any], int]:
    head = data[position]
    position += 1
    count = head >> 4
    if count == 15:
        count, position = _varint(data, position)
    if count > len(data) - position:
        raise IndexError("a list beyond the end")
    items = []
    for _ in range(count):
        item, position = _value(data, position, head & 15)
        items.append(item)
    return items, position
