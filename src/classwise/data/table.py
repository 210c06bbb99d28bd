"""Tables: every cell is text, exactly as it stands, so that an id such as 000600-1 or 007 stays what it is."""

import csv
import io
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from classwise.errors import DataError, nearest
from classwise.files import write_bytes

SUFFIXES = (".csv", ".tsv", ".parquet")


def read_table(path: Path) -> pl.DataFrame:
    """All columns as text; an empty cell is null. Raises DataError for a file that is missing, empty,
    ragged, not UTF-8, or of another kind."""
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"{path}: found {path.suffix or 'no'} suffix; a table is {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise DataError(f"there is no table {path}" + (" (it is a folder)" if path.is_dir() else ""))
    frame = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_text(path)
    if frame.height == 0:
        raise DataError(f"{path} has no rows below its header")
    return frame


def column(frame: pl.DataFrame, name: str, where: str, key: str) -> list[str | None]:
    """The cells of one column. `where` names the table and `key` the config key, for the message."""
    if name not in frame.columns:
        raise DataError(f"{where}: no column {name!r} ({key}); {nearest(name, frame.columns)}")
    return frame[name].to_list()


def full_column(frame: pl.DataFrame, name: str, where: str, key: str) -> list[str]:
    """As `column`, but an empty cell is an error that names its row (the first below the header is 1)."""
    cells = column(frame, name, where, key)
    empty = [i + 1 for i, cell in enumerate(cells) if is_empty(cell)]
    if empty:
        raise DataError(f"{where}: column {name!r} ({key}) is empty in {rows_text(empty)}")
    return [cell for cell in cells if cell is not None]


def is_empty(cell: str | None) -> bool:
    """Nothing, or nothing but white space."""
    return cell is None or not cell.strip()


def number_cells(cells: Sequence[str | None], where: str, name: str, why: str) -> npt.NDArray[np.float64]:
    """The finite numbers of a column, (N,); NaN where a cell is empty. Raises DataError for any other cell:
    it names the row, what was found and `why` it must hold numbers."""
    values_N = np.full(len(cells), math.nan)
    for i, cell in enumerate(cells):
        if cell is None or is_empty(cell):
            continue
        try:
            values_N[i] = float(cell)
        except ValueError:
            values_N[i] = math.nan
        if not math.isfinite(values_N[i]):
            raise DataError(f"{where}: row {i + 1}: column {name!r}: found {cell!r}, but {why}")
    return values_N


def rows_text(rows: Sequence[int], most: int = 5) -> str:
    """`row 3`, or `rows 3, 8, 9 and 12 more`."""
    listed = ", ".join(str(row) for row in rows[:most])
    more = f" and {len(rows) - most} more" if len(rows) > most else ""
    return f"row{'s' if len(rows) > 1 else ''} {listed}{more}"


# What a spreadsheet takes for a formula: these first characters (the full-width ones in some locales), but in a number.
_FORMULA = r"^'*[=+\-@\t\r\n＝＋－＠]"
_NUMBER = r"^[+-]?[0-9]+([.,][0-9]+)?([eE][+-]?[0-9]+)?%?$"


def neutralised(frame: pl.DataFrame) -> pl.DataFrame:
    """Text cells and names of columns that a spreadsheet would run as a formula, with an apostrophe before them, which
    makes them text (OWASP, 'CSV injection'). `plain` takes it away again, cell for cell."""
    cells = pl.selectors.string()
    danger = cells.str.contains(_FORMULA) & ~cells.str.contains(_NUMBER)
    frame = frame.with_columns(pl.when(danger).then("'" + cells).otherwise(cells).name.keep())
    return frame.rename({name: f"'{name}" for name in frame.columns if re.match(_FORMULA, name)})


def plain(frame: pl.DataFrame) -> pl.DataFrame:
    """The reverse of `neutralised`."""
    cells = pl.selectors.string()
    frame = frame.with_columns(cells.str.replace(f"^'({_FORMULA.removeprefix('^')})", "$1").name.keep())
    marked = [name for name in frame.columns if name.startswith("'") and re.match(_FORMULA, name)]
    return frame.rename({name: name[1:] for name in marked})


def write_table(frame: pl.DataFrame, path: Path, escape_formulas: bool = False) -> None:
    """Write .csv, .tsv or .parquet, whole or not at all. `escape_formulas`: text that people may open in a spreadsheet, in
    which no cell is a formula (see `neutralised`)."""
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"{path}: found {path.suffix or 'no'} suffix; a table is {', '.join(SUFFIXES)}")
    buffer = io.BytesIO()
    if escape_formulas and path.suffix.lower() != ".parquet":
        frame = neutralised(frame)
    if path.suffix.lower() == ".parquet":
        frame.write_parquet(buffer)
    else:
        frame.write_csv(buffer, separator="\t" if path.suffix.lower() == ".tsv" else ",")
    write_bytes(path, buffer.getvalue())


def _read_parquet(path: Path) -> pl.DataFrame:
    try:
        frame = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise DataError(f"{path} is not a parquet file that can be read: {_first_line(error)}") from None
    try:
        return frame.select(pl.all().cast(pl.String))
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path}: a column cannot be read as text: {_first_line(error)}") from None


def _read_text(path: Path) -> pl.DataFrame:
    """Python's csv module, since it says in which line a row is ragged, and keeps every cell as it stands."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    rows: list[list[str]] = []
    try:
        for cells in reader:
            if cells and rows and len(cells) != len(rows[0]):
                raise DataError(
                    f"{path}, line {reader.line_num}: {len(cells)} cells, but the header has {len(rows[0])}"
                )
            if cells:  # a blank line is no row
                rows.append(cells)
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}") from None
    if not rows:
        raise DataError(f"{path} is empty")
    return _frame(rows, path)


def _frame(rows: list[list[str]], path: Path) -> pl.DataFrame:
    header, body = rows[0], rows[1:]
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


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
