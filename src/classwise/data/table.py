"""Tables: every cell is text, exactly as in the file, so that an id such as 000600-1 or 007 stays what it is."""

import codecs
import contextlib
import csv
import io
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from classwise.data.source_names import TABLE_SUFFIXES
from classwise.data.texts import Texts
from classwise.errors import DataError, first_line, nearest
from classwise.files import write_bytes

SUFFIXES = TABLE_SUFFIXES
SEPARATORS = (",", ";", "\t", "|")
"""What may stand between the cells of a text file."""
PLAIN_FROM = 2**20
"""Bytes of a text file that is read by polars, if it is as plain as most are."""


def read_table(path: Path, keep_blank_rows: bool = False) -> pl.DataFrame:
    """All columns as text; an empty cell is null. Rows of a text file in which all cells are empty are no rows, unless
    `keep_blank_rows`. Raises DataError for a file that is missing, empty, ragged, not UTF-8, or of another kind."""
    if path.suffix.lower() not in SUFFIXES:
        raise _wrong_suffix(path)
    if not path.is_file():
        raise DataError(f"there is no table {path}" + (" (it is a folder)" if path.is_dir() else ""))
    if path.suffix.lower() == ".parquet":
        frame = _read_parquet(path)
    elif (plain := _plain_frame(path, keep_blank_rows)) is not None:
        frame = plain
    else:
        frame = _frame(_text_rows(path)[0], path, keep_blank_rows)
    if frame.height == 0:
        raise DataError(f"{path} has no rows below its header")
    return frame


def column(frame: pl.DataFrame, name: str, where: str, key: str) -> list[str | None]:
    """The cells of one column, None where empty. `where` names the table and `key` the config key, for the message.
    Raises DataError if there is no such column."""
    return text_column(frame, name, where, key).to_list()


def text_column(frame: pl.DataFrame, name: str, where: str, key: str) -> pl.Series:
    """`column` as it is kept, without an object for each cell."""
    if name not in frame.columns:
        raise DataError(f"{where}: no column {name!r} ({key}); {nearest(name, frame.columns)}")
    return frame[name]


def full_column(frame: pl.DataFrame, name: str, where: str, key: str) -> list[str]:
    """As `column`, but an empty cell is an error that names its row (the first row below the header is 1)."""
    cells = column(frame, name, where, key)
    empty_rows = [row for row, cell in enumerate(cells, start=1) if is_empty(cell)]
    if empty_rows:
        raise DataError(f"{where}: column {name!r} ({key}) is empty in {rows_text(empty_rows)}")
    return [cell for cell in cells if cell is not None]


def full_texts(frame: pl.DataFrame, name: str, where: str, key: str) -> Texts:
    """`full_column` of many rows, without an object for each."""
    if name not in frame.columns or frame[name].null_count():
        return Texts.of(full_column(frame, name, where, key))
    texts = Texts.of_column(frame[name])
    # A text that begins with a letter or a sign is not empty; only the others are looked at.
    data = np.frombuffer(texts.data, np.uint8)
    is_unclear_N = np.diff(texts.starts) == 0
    first_n = data[texts.starts[:-1][~is_unclear_N]]
    is_unclear_N[~is_unclear_N] = (first_n <= ord(" ")) | (first_n > ord("~"))
    if any(is_empty(texts[row]) for row in np.flatnonzero(is_unclear_N).tolist()):
        full_column(frame, name, where, key)  # which says in which rows
    return texts


def is_empty(cell: str | None) -> bool:
    """Whether a cell holds nothing, or nothing but white space."""
    return cell is None or not cell.strip()


def number_cells(cells: Sequence[str | None], where: str, name: str, why: str) -> npt.NDArray[np.float64]:
    """The finite numbers of a column, (N,); NaN where a cell is empty. Raises DataError for any other cell, with its
    row, its text and `why` the column must hold numbers."""
    values_N = np.full(len(cells), math.nan)
    has_comma = has_decimal_comma(cells)
    for row, cell in enumerate(cells, start=1):
        if cell is None or is_empty(cell):
            continue
        try:
            value = float(cell.replace(",", ".") if has_comma else cell)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise DataError(f"{where}: row {row}: column {name!r}: found {cell!r}, but {why}")
        values_N[row - 1] = value
    return values_N


def has_decimal_comma(cells: Sequence[str | None]) -> bool:
    """Whether a column writes its numbers as `0,143`, as spreadsheets do in many countries: every cell is such a number
    or a whole one. Not if all of them could be thousands as well (`1,234`)."""
    with_comma = [cell.strip() for cell in cells if cell is not None and "," in cell]
    if not with_comma or all(re.fullmatch(_THOUSANDS, cell) for cell in with_comma):
        return False
    return all(cell is None or is_empty(cell) or re.fullmatch(_COMMA_NUMBER, cell.strip()) for cell in cells)


_COMMA_NUMBER = r"[+-]?[0-9]+(,[0-9]+)?([eE][+-]?[0-9]+)?"
_THOUSANDS = r"[+-]?[1-9][0-9]{0,2}(,[0-9]{3})+"


def rows_text(rows: Sequence[int], max_listed: int = 5) -> str:
    """`row 3`, or `rows 3, 8, 9 and 12 more`."""
    listed = ", ".join(str(row) for row in rows[:max_listed])
    more = f" and {len(rows) - max_listed} more" if len(rows) > max_listed else ""
    return f"row{'s' if len(rows) > 1 else ''} {listed}{more}"


# What a spreadsheet takes for a formula: text that begins with these characters (the full-width ones in some locales),
# unless it is a number.
_FORMULA = r"^'*[=+\-@\t\r\n＝＋－＠]"
_NUMBER = r"^[+-]?[0-9]+([.,][0-9]+)?([eE][+-]?[0-9]+)?%?$"


def escaped(frame: pl.DataFrame) -> pl.DataFrame:
    """The table with an apostrophe before every text cell and column name that a spreadsheet would run as a formula,
    which makes it text there (OWASP, 'CSV injection'). `plain` removes the apostrophes again, cell for cell."""
    cells = pl.selectors.string()
    is_formula = cells.str.contains(_FORMULA) & ~cells.str.contains(_NUMBER)
    frame = frame.with_columns(pl.when(is_formula).then("'" + cells).otherwise(cells).name.keep())
    return frame.rename({name: f"'{name}" for name in frame.columns if re.match(_FORMULA, name)})


def plain(frame: pl.DataFrame) -> pl.DataFrame:
    """The reverse of `escaped`."""
    cells = pl.selectors.string()
    frame = frame.with_columns(cells.str.replace(f"^'({_FORMULA.removeprefix('^')})", "$1").name.keep())
    escaped_names = [name for name in frame.columns if name.startswith("'") and re.match(_FORMULA, name)]
    return frame.rename({name: name[1:] for name in escaped_names})


def write_table(frame: pl.DataFrame, path: Path, escape_formulas: bool = False) -> None:
    """Write a .csv, .tsv or .parquet file, completely or not at all. `escape_formulas`: for text files that people may
    open in a spreadsheet; no cell is a formula there (see `escaped`). Raises DataError for another suffix."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise _wrong_suffix(path)
    buffer = io.BytesIO()
    if suffix == ".parquet":
        frame.write_parquet(buffer)
    else:
        text_frame = escaped(frame) if escape_formulas else frame
        text_frame.write_csv(buffer, separator="\t" if suffix == ".tsv" else ",")
    write_bytes(path, buffer.getvalue())


def _wrong_suffix(path: Path) -> DataError:
    return DataError(
        f"{path}: found {path.suffix or 'no'} suffix; allowed for a table: {', '.join(SUFFIXES)}"
    )


def _read_parquet(path: Path) -> pl.DataFrame:
    try:
        frame = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise DataError(f"{path} cannot be read as a parquet file: {first_line(error)}") from None
    try:
        return frame.select(pl.all().cast(pl.String))
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path}: a column cannot be read as text: {first_line(error)}") from None


def _plain_frame(path: Path, keep_blank_rows: bool) -> pl.DataFrame | None:
    """What `_frame` of the rows is, read by polars, which takes a tenth of the time and memory; None for a file in
    which anything could mean two things, or of which something is wrong."""
    if path.stat().st_size < PLAIN_FROM:
        return None
    data = path.read_bytes()
    separator = b"\t" if path.suffix.lower() == ".tsv" else b","
    header = data[: data.find(b"\n")]
    names = header.split(separator)
    has_signs = any(sign in data for sign in (b'"', b"\r", b"\0", b"\n\n"))
    if has_signs or data.startswith((b"sep=", b"\n", codecs.BOM_UTF8)) or len(names) < 2:
        return None
    if b"" in names or len(set(names)) < len(names) or not _are_even(data, separator, len(names)):
        return None
    try:
        frame = pl.read_csv(data, separator=separator.decode(), quote_char=None, infer_schema=False)
        frame.columns = [name.decode() for name in names]
    except (pl.exceptions.PolarsError, UnicodeDecodeError):
        return None  # the other way says what is wrong
    return frame if keep_blank_rows else frame.filter(~pl.all_horizontal(pl.all().is_null()))


def _are_even(data: bytes, separator: bytes, cells: int) -> bool:
    """Whether every line has so many cells, and none is longer than Python's csv module allows."""
    bytes_B = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(bytes_B == ord("\n"))
    if not data.endswith(b"\n"):
        ends = np.append(ends, len(data))
    before = np.searchsorted(np.flatnonzero(bytes_B == ord(separator)), ends)
    lengths = np.diff(ends, prepend=-1)
    return bool((np.diff(before, prepend=0) == cells - 1).all() and lengths.max() < csv.field_size_limit())


def separator_of(path: Path) -> str:
    """What stands between the cells of a text file, as `read_table` finds it; a comma for a Parquet file. Raises
    DataError."""
    return "," if path.suffix.lower() == ".parquet" else _text_rows(path)[1]


def _text_rows(path: Path) -> tuple[list[list[str]], str]:
    """The rows of a text file and its separator: that of its suffix, unless the header does not have it. Spreadsheets
    of many countries write semicolons into a .csv."""
    text = _decoded(path)
    if not text.strip():
        raise DataError(f"{path} is empty")
    by_suffix = "\t" if path.suffix.lower() == ".tsv" else ","
    wanted, text = _declared_separator(text, by_suffix)
    try:
        rows = _rows(text, wanted, path)
    except DataError:
        if (found := _other_separator(text, wanted, path)) is None:
            raise
        return found
    found = _other_separator(text, wanted, path) if len(rows[0]) == 1 else None
    return found or (rows, wanted)


def _decoded(path: Path) -> str:
    """The file's text: UTF-8, or UTF-16 if it begins with a byte order mark, as a spreadsheet's Unicode text does."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None


def _declared_separator(text: str, by_suffix: str) -> tuple[str, str]:
    """The separator that a first line `sep=;` declares, and the text below that line; else that of the suffix."""
    first_line, _, rest = text.partition("\n")
    declared = re.fullmatch(r"sep=(.)\r?", first_line)
    return (declared[1], rest) if declared else (by_suffix, text)


def _rows(text: str, separator: str, path: Path) -> list[list[str]]:
    """Read with Python's csv module, since it tells the line of a ragged row and keeps every cell as it is."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    rows: list[list[str]] = []
    try:
        for cells in reader:
            if cells and rows and len(cells) != len(rows[0]):
                raise DataError(
                    f"{path}, line {reader.line_num}: {len(cells)} cells, but the header has {len(rows[0])}"
                )
            if cells:  # a blank line is not a row
                rows.append(cells)
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}") from None
    if not rows:
        raise DataError(f"{path} is empty")
    return rows


def _other_separator(text: str, wanted: str, path: Path) -> tuple[list[list[str]], str] | None:
    """The rows by the first other separator that the header has and every row has as often, and that separator; None if
    there is none, or if the header has the wanted one, so that only a row is wrong."""
    header = next(line for line in text.splitlines() if line.strip())
    for separator in SEPARATORS:
        if separator == wanted or header.count(separator) <= header.count(wanted):
            continue
        with contextlib.suppress(DataError):
            return _rows(text, separator, path), separator
    return None


def _frame(rows: list[list[str]], path: Path, keep_blank_rows: bool) -> pl.DataFrame:
    # Spreadsheets write cells around the table that were once used: rows and nameless columns without any text.
    kept = [k for k, name in enumerate(rows[0]) if name or any(row[k] for row in rows[1:])]
    body = [[row[k] for k in kept] for row in rows[1:] if keep_blank_rows or any(row)]
    header = [rows[0][k] for k in kept]
    if len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise DataError(f"{path}: the header has column {twice!r} twice")
    columns = zip(*body, strict=True) if body else ([] for _ in header)
    return pl.DataFrame(
        {
            name: pl.Series(name, [cell if cell != "" else None for cell in cells], dtype=pl.String)
            for name, cells in zip(header, columns, strict=True)
        }
    )
