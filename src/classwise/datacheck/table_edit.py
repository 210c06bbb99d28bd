"""New tables out of existing ones, with nothing changed but what is asked for.

A text file keeps every other byte: its encoding and byte order mark, its separator and line ends, the quotes of its
other cells, its blank lines. A Parquet file keeps its columns, their types and its rows. The source itself is never
written to.
"""

import codecs
import csv
import io
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from classwise.data.table import rows_text, separator_of
from classwise.errors import DataError, OutputError
from classwise.files import refuse_existing, write_bytes

_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


def refuse_output(source: Path, out: Path, force: bool) -> None:
    """Raise OutputError if `out` is the table `source` itself, under whatever name, or another kind of file; if it
    exists and not `force`; or if no file can be made there."""
    if out.exists() and out.samefile(source):
        raise OutputError(f"{out} is the table itself, which is never changed; name another file")
    if out.suffix.lower() != source.suffix.lower():
        raise OutputError(
            f"{out}: found {out.suffix or 'no'} suffix; allowed: {source.suffix}, as {source.name} has it"
        )
    refuse_existing(out, force)


def edit_table(
    source: Path, out: Path, cells: Mapping[tuple[int, str], str], removed: Collection[int] = ()
) -> None:
    """Write the table `source` to `out` with other `cells`, each by its row and column, and without the rows `removed`.

    Rows are those of `read_table(source)`, from 0. Raises DataError for a table that cannot be read, and for a text
    that does not fit the type of its column in a Parquet file."""
    if source.suffix.lower() == ".parquet":
        data = _edited_parquet(source, cells, set(removed))
    else:
        data = _edited_text(_read_text(source), cells, set(removed))
    write_bytes(out, data)


def add_column(source: Path, out: Path, name: str, values: Sequence[str]) -> None:
    """Write the table `source` to `out` with one more column, the last; `values`: its cells, for each row of
    `read_table(source)`. Raises DataError for a table that cannot be read."""
    if source.suffix.lower() == ".parquet":
        buffer = io.BytesIO()
        frame = pl.read_parquet(source)
        frame.with_columns(pl.Series(name, values, dtype=pl.String)).write_parquet(buffer)
        data = buffer.getvalue()
    else:
        data = _text_with_column(_read_text(source), name, values)
    write_bytes(out, data)


@dataclass(frozen=True)
class _Text:
    """A text table as its file has it.

    records: the whole text in pieces, each a line or, where a cell has line breaks, several. header: the place of the
    header in `records`; rows: the places of the rows that `read_table` gives, in its order."""

    mark: bytes
    encoding: str
    separator: str
    records: tuple[str, ...]
    header: int
    rows: tuple[int, ...]

    def encoded(self, records: Sequence[str]) -> bytes:
        """The bytes of a file like this one with other records."""
        return self.mark + "".join(records).encode(self.encoding)


def _read_text(path: Path) -> _Text:
    separator = separator_of(path)
    data = path.read_bytes()
    mark = next((mark for mark in _MARKS if data.startswith(mark)), b"")
    encoding = _MARKS.get(mark, "utf-8")
    text = data[len(mark) :].decode(encoding)

    # A line `sep=;` before the header is no row.
    declared = re.match(r"sep=.\r?\n", text)
    first_line = declared[0] if declared else ""
    records = [first_line]
    places: list[int] = []
    lines = list(io.StringIO(text[len(first_line) :], newline=""))
    reader = csv.reader(lines, delimiter=separator, strict=True)
    start = 0
    for cells in reader:
        # As read_table counts: neither a blank line is a row, nor one in which all cells are empty.
        if cells and (any(cells) or not places):
            places.append(len(records))
        records.append("".join(lines[start : reader.line_num]))
        start = reader.line_num
    return _Text(
        mark=mark,
        encoding=encoding,
        separator=separator,
        records=tuple(records),
        header=places[0],
        rows=tuple(places[1:]),
    )


def _edited_text(table: _Text, cells: Mapping[tuple[int, str], str], removed: set[int]) -> bytes:
    names = next(csv.reader([table.records[table.header]], delimiter=table.separator))
    records = list(table.records)
    for (row, column), value in cells.items():
        place = table.rows[row]
        parts, ending = _raw_cells(records[place], table.separator)
        position = names.index(column)
        was_quoted = parts[position].startswith('"')
        parts[position] = _raw(value, table.separator, quoted=was_quoted)
        records[place] = table.separator.join(parts) + ending
    removed_places = {table.rows[row] for row in removed}
    return table.encoded([record for place, record in enumerate(records) if place not in removed_places])


def _text_with_column(table: _Text, name: str, values: Sequence[str]) -> bytes:
    cells = dict(zip((table.header, *table.rows), (name, *values), strict=True))
    records = []
    for place, record in enumerate(table.records):
        body = record.rstrip("\r\n")
        # A blank line stays one; a row of empty cells gets one more.
        if place in cells or (body and place > table.header):
            raw = _raw(cells.get(place, ""), table.separator, quoted=False)
            record = body + table.separator + raw + record[len(body) :]
        records.append(record)
    return table.encoded(records)


def _raw_cells(record: str, separator: str) -> tuple[list[str], str]:
    """The cells of a record as they are written, quotes and all, and its line end."""
    cell = re.compile(rf'"(?:[^"]|"")*"|[^{re.escape(separator)}\r\n]*')
    parts = []
    position = 0
    while (match := cell.match(record, position)) is not None:
        parts.append(match[0])
        position = match.end()
        if record[position : position + 1] != separator:
            break
        position += 1
    return parts, record[position:]


def _raw(value: str, separator: str, quoted: bool) -> str:
    """A cell as it is written: in quotes if it needs them, or if they are wanted."""
    if quoted or re.search(rf'[{re.escape(separator)}"\r\n]', value):
        return '"' + value.replace('"', '""') + '"'
    return value


def _edited_parquet(source: Path, cells: Mapping[tuple[int, str], str], removed: set[int]) -> bytes:
    frame = pl.read_parquet(source)
    by_column: dict[str, dict[int, str]] = {}
    for (row, column), value in cells.items():
        by_column.setdefault(column, {})[row] = value
    for column, values in by_column.items():
        old = frame[column]
        texts = pl.Series(column, [values.get(row) for row in range(frame.height)], dtype=pl.String)
        try:
            new = texts.cast(old.dtype)
        except pl.exceptions.PolarsError:
            rows = rows_text([row + 1 for row in sorted(values)])
            raise DataError(
                f"{source}: column {column!r} holds {old.dtype}; found {min(values.values())!r} for {rows},"
                " which is none"
            ) from None
        frame = frame.with_columns(new.zip_with(texts.is_not_null(), old))
    kept = [row not in removed for row in range(frame.height)]
    buffer = io.BytesIO()
    frame.filter(pl.Series(kept, dtype=pl.Boolean)).write_parquet(buffer)
    return buffer.getvalue()
