"""Tables: cells are text as they stand, and what is wrong is named by file, line or row."""

import math
import os

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from classwise.data import table
from classwise.data.table import (
    column,
    full_column,
    is_empty,
    number_cells,
    read_table,
    rows_text,
    write_table,
)
from classwise.errors import DataError

SUFFIXES = (".csv", ".tsv", ".parquet")


def read(path, text: str | bytes) -> pl.DataFrame:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_table(path)


def test_every_cell_stays_text(tmp_path):
    """An id is no number: leading zeros, a dash, an exponent, a date and a truth value stay as they are."""
    ids = ["000600-1", "007", "1e5", "2024-05-01", "true", "1_000", "NaN", " 7 ", "null", "NA", "+1", "0x10"]
    frame = read(tmp_path / "t.csv", "id,age\n" + "".join(f"{id},030\n" for id in ids))
    assert frame.schema == {"id": pl.String, "age": pl.String}
    assert frame["id"].to_list() == ids
    assert frame["age"].to_list() == ["030"] * len(ids)


def test_quotes_commas_and_newlines_in_cells(tmp_path):
    """As RFC 4180 has them; either line ending, a blank line, and no newline at the end."""
    text = 'path,label\r\n"a,b.jpg","say ""hi"""\r\n\r\n"two\r\nlines.jpg",마스크 착용'
    assert read(tmp_path / "표 1.csv", text).rows() == [
        ("a,b.jpg", 'say "hi"'),
        ("two\r\nlines.jpg", "마스크 착용"),
    ]


def test_a_byte_order_mark_is_not_part_of_the_header(tmp_path):
    """Spreadsheets write one."""
    assert read(tmp_path / "t.csv", "\ufeffid,성별\n1,여\n").columns == ["id", "성별"]


def test_tabs_separate_in_tsv_only(tmp_path):
    """And a comma is a character there; the suffix may be in capitals."""
    assert read(tmp_path / "t.TSV", "a\tb\n1,5\t2\n").rows() == [("1,5", "2")]


def test_numbers_in_parquet_become_their_text(tmp_path):
    """Other programs write numbers; whole ones have no point, and a missing one is an empty cell."""
    pl.DataFrame({"id": [7, None], "x": [1.5, 2.0], "ok": [True, False], "t": ["007", ""]}).write_parquet(
        tmp_path / "t.parquet"
    )
    frame = read_table(tmp_path / "t.parquet")
    assert frame.rows() == [("7", "1.5", "true", "007"), (None, "2.0", "false", "")]
    with pytest.raises(DataError, match=r"column 't' \(k\) is empty in row 2"):
        full_column(frame, "t", "t.parquet", "k")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"t\.csv is empty"),
        ("\n\r\n", r"t\.csv is empty"),
        ("\ufeff", r"t\.csv is empty"),
        ("a,b\n", r"t\.csv has no rows below its header"),
        ("a,b\n1,2\n3\n", r"t\.csv, line 3: 1 cells, but the header has 2"),
        # The line of the file, not the row: a cell above holds a newline.
        ('a,b\n"x\ny",2\n1,2,3\n', r"t\.csv, line 4: 3 cells, but the header has 2"),
        ("a,b,a\n1,2,3\n", r"t\.csv: the header has column 'a' twice"),
        (b"a\n1\n\xb8\xb6\n", r"t\.csv is not UTF-8 text \(byte 4\); save it as UTF-8"),
        ('a\n"open\n', r"t\.csv, line 2: unexpected end of data"),
        ('a\n1\n"x"y\n', r"t\.csv, line 3: ',' expected after '\"'"),
    ],
)
def test_a_broken_table_is_refused(tmp_path, text, message):
    """The message names the file, and the line where there is one."""
    with pytest.raises(DataError, match=message):
        read(tmp_path / "t.csv", text)


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-20], lambda data: b"PAR1" + data[4:90], lambda _: b"x"]
)
def test_a_broken_parquet_file_is_refused(tmp_path, damage):
    """Cut short or no parquet at all; a column of lists or of bytes is no text either."""
    path = tmp_path / "t.parquet"
    pl.DataFrame({"a": [1, 2, 3]}).write_parquet(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"t\.parquet cannot be read as a parquet file: "):
        read_table(path)
    pl.DataFrame({"a": [b"\xff"]}).write_parquet(path)
    with pytest.raises(DataError, match=r"t\.parquet: a column cannot be read as text: "):
        read_table(path)


def test_no_table_a_folder_and_another_kind(tmp_path):
    """Each has its own message."""
    with pytest.raises(DataError, match=r"there is no table .*none\.csv$"):
        read_table(tmp_path / "none.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match=r"there is no table .*folder\.csv \(it is a folder\)"):
        read_table(tmp_path / "folder.csv")
    for name, found in (("t.xlsx", r"\.xlsx"), ("t", "no")):
        (tmp_path / name).touch()
        with pytest.raises(
            DataError, match=rf"found {found} suffix; allowed for a table: \.csv, \.tsv, \.parquet"
        ):
            read_table(tmp_path / name)


def test_a_missing_column_comes_with_the_nearest():
    """And with the table and the config key that asks for it."""
    frame = pl.DataFrame({"gender": ["m"], "mask": ["wear"]})
    assert column(frame, "mask", "t.csv", "k") == ["wear"]
    with pytest.raises(DataError) as caught:
        column(frame, "gendre", "t.csv", "targets.x.column")
    assert str(caught.value) == "t.csv: no column 'gendre' (targets.x.column); did you mean 'gender'?"


def test_empty_cells_are_named_by_row():
    """The first row below the header is 1; blanks alone are not a label; many rows are counted."""
    frame = pl.DataFrame({"a": ["x", None, " ", "y"] + [None] * 6})
    with pytest.raises(DataError) as caught:
        full_column(frame, "a", "t.csv", "data.group")
    assert str(caught.value) == "t.csv: column 'a' (data.group) is empty in rows 2, 3, 5, 6, 7 and 3 more"
    assert full_column(frame[[0, 3]], "a", "t.csv", "k") == ["x", "y"]
    assert rows_text([3]) == "row 3"


def test_an_empty_cell_of_a_file_is_found(tmp_path):
    """From the file to the message: the row that a reader counts."""
    frame = read(tmp_path / "t.csv", "path,label\na,x\nb,\n")
    with pytest.raises(DataError, match=r"column 'label' \(k\) is empty in row 2$"):
        full_column(frame, "label", "t.csv", "k")


@pytest.mark.parametrize(
    "text",
    ["a,b,,\n1,2,,\n3,4,,\n", "a,b\n1,2\n3,4\n,\n,\n", "a;b;;\n1;2;;\n;;;\n3;4;;\n"],
)
def test_what_spreadsheets_write_around_a_table(tmp_path, text):
    """Columns without a name and rows, in which there is nothing, are no part of it."""
    assert read(tmp_path / "t.csv", text).to_dict(as_series=False) == {"a": ["1", "3"], "b": ["2", "4"]}


def test_a_column_without_a_name_that_holds_something_stays(tmp_path):
    """As the index does that pandas writes."""
    assert read(tmp_path / "t.csv", ",b\n0,x\n").columns == ["", "b"]


CELLS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5).map(lambda text: text or None)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    suffix=st.sampled_from(SUFFIXES),
    names=st.lists(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4),
        min_size=2,
        max_size=3,
        unique=True,
    ),
    rows=st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=4),
)
def test_what_is_written_is_read(tmp_path, suffix, names, rows):
    """Any text in any cell or header, in all three formats; an empty cell stays empty, in a row that is not."""
    names[0] = names[0].lstrip("\ufeff") or "x"  # a mark at the very start of a file is not part of its text
    if len(set(names)) < len(names):
        return
    rows = [row if any(row[: len(names)]) else ("x", *row[1:]) for row in rows]
    frame = pl.DataFrame(
        {name: [row[i] for row in rows] for i, name in enumerate(names)},
        schema=dict.fromkeys(names, pl.String),
    )
    write_table(frame, tmp_path / f"t{suffix}")
    assert_frame_equal(read_table(tmp_path / f"t{suffix}"), frame)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_table_is_written_whole_or_not_at_all(tmp_path, monkeypatch, suffix):
    """On a full disk the old table stays, and nothing is left over."""
    path = tmp_path / f"t{suffix}"
    old = pl.DataFrame({"a": ["old"]})
    write_table(old, path)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_table(pl.DataFrame({"a": ["new"]}), path)
    assert_frame_equal(read_table(path), old)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_another_suffix_is_not_written(tmp_path):
    """A table has one of three suffixes; nothing is made under another name."""
    with pytest.raises(DataError, match=r"found \.xlsx suffix"):
        write_table(pl.DataFrame({"a": ["1"]}), tmp_path / "t.xlsx")
    assert not list(tmp_path.iterdir())


def test_what_is_empty():
    """Nothing and white space are; a zero or a dash is not."""
    cells = [None, "", " ", "\t\n", "0", "-", " a "]
    assert [is_empty(cell) for cell in cells] == [True, True, True, True, False, False, False]


def test_cells_as_numbers():
    """Each cell's float64, NaN where it is empty."""
    found = number_cells(["1", " -2.5e3 ", None, " ", "0.1"], "t.csv", "c", "it must not be so")
    np.testing.assert_array_equal(found, np.array([1, -2500, math.nan, math.nan, 0.1]))
    assert found.dtype == np.float64


@pytest.mark.parametrize("cell", ["x", "nan", "inf", "1e999", "1,500", "1,5.0"])
def test_a_cell_that_is_no_finite_number(cell):
    """Table, row, column, cell and the reason that was given."""
    with pytest.raises(DataError) as caught:
        number_cells(["1", None, cell], "t.csv", "c", "it must be a number")
    assert str(caught.value) == f"t.csv: row 3: column 'c': found {cell!r}, but it must be a number"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "file;label;x\n1.png;a, b;0,5\n"),
        ("t.csv", "file\tlabel\tx\n1.png\ta, b\t0,5\n"),
        ("t.csv", "file|label|x\n1.png|a, b|0,5\n"),
        ("t.csv", "sep=;\r\nfile;label;x\r\n1.png;a, b;0,5\r\n"),
        ("t.tsv", 'file,label,x\n1.png,"a, b","0,5"\n'),
    ],
)
def test_the_separator_is_that_of_the_header(tmp_path, name, text):
    """Where the header does not have the separator of the suffix, it is looked for."""
    assert read(tmp_path / name, text).rows(named=True) == [{"file": "1.png", "label": "a, b", "x": "0,5"}]


def test_text_of_a_spreadsheet_in_utf_16(tmp_path):
    """It says so by its first bytes."""
    frame = read(tmp_path / "t.csv", "\ufefffile\t이름\n1.png\t여\n".encode("utf-16-le"))
    assert frame.rows(named=True) == [{"file": "1.png", "이름": "여"}]


def test_a_ragged_row_is_no_other_separator(tmp_path):
    """Semicolons in cells do not make a table of them."""
    with pytest.raises(DataError, match=r"t\.csv, line 3: 3 cells, but the header has 2"):
        read(tmp_path / "t.csv", "a,b\n1;2,3\n1;2,3,4\n")
    assert read(tmp_path / "t.csv", "label\na;b\nc;d\n").rows() == [("a;b",), ("c;d",)]


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["0,5", "1,25", "3", ""], [0.5, 1.25, 3.0, None]),
        (["1,234", "0,5"], [1.234, 0.5]),
        (["-1,5e3", "2"], [-1500.0, 2.0]),
    ],
)
def test_decimal_commas(cells, values):
    """Where every number of the column can be read so, and not all of them as thousands."""
    found = number_cells(cells, "t.csv", "x", "why")
    np.testing.assert_array_equal(found, [math.nan if value is None else value for value in values])


PLAIN = {
    "plain": "path,label\na.png,x\nb.png,y\n",
    "no last line break": "path,label\na.png,x\nb.png,y",
    "empty cells": "path,label,n\na.png,,\n,y,\nb.png,z,1\n",
    "blank rows": "path,label\na.png,x\n,\nb.png,y\n,\n",
    "white space": "path, label \n a.png ,\tx\n  , \n",
    "numbers and words that mean something elsewhere": "path,label\n007,NA\n1e5,null\ntrue,NaN\n,#N/A\n",
    "other scripts": "path,레이블\n사진.png,착용\né.png,ß\n",
    "line separators of Unicode": "path,label\na\u2028.png,x\x0by\nb\x85.png,\x1c\n",
    "quotes": 'path,label\n"a,b.png",x\nc.png,"say ""no"""\n',
    "one column": "path\na.png\nb.png\n",
    "semicolons": "path;label\na.png;x\nb.png;y\n",
    "a declared separator": "sep=,\npath,label\na.png,x\n",
    "blank lines": "path,label\n\na.png,x\n\n",
    "carriage returns": "path,label\r\na.png,x\r\n",
    "a byte order mark": "\ufeffpath,label\na.png,x\n",
    "a nameless column": "path,,label\na.png,,x\n",
    "a comment": "#path,label\n#a.png,x\n",
    "a row too short": "path,label,n\na.png,x\n",
    "a row too long": "path,label\na.png,x,1\n",
    "one too short and one too long": "path,label,n\na,b\nc,d,e,f\n",
    "a name twice": "path,path\na.png,x\n",
    "a header alone": "path,label\n",
    "a long cell": "path,label\na.png," + "x" * 140_000 + "\n",
}


@pytest.mark.parametrize("keep_blank_rows", [False, True])
@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
@pytest.mark.parametrize("what", PLAIN)
def test_a_large_table_is_read_as_a_small_one_is(tmp_path, monkeypatch, what, suffix, keep_blank_rows):
    """By another library, cell for cell, or with the same error."""
    path = tmp_path / f"rows{suffix}"
    path.write_bytes(PLAIN[what].replace(",", "\t" if suffix == ".tsv" else ",").encode())

    def found() -> object:
        try:
            return read_table(path, keep_blank_rows).to_dict(as_series=False)
        except DataError as error:
            return str(error)

    expected = found()
    monkeypatch.setattr(table, "PLAIN_FROM", 0)
    assert found() == expected


def test_a_large_plain_table_is_not_read_row_by_row(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "PLAIN_FROM", 0)
    monkeypatch.setattr(table, "_text_rows", None)
    (tmp_path / "rows.csv").write_text(PLAIN["empty cells"])
    assert read_table(tmp_path / "rows.csv").height == 3
