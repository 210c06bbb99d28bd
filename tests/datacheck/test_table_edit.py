"""A new table differs from its source in what was asked for, whatever the source looks like."""

import csv
import io
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from classwise.data.table import read_table
from classwise.datacheck.table_edit import add_column, edit_table

cells = st.text(st.sampled_from("ab1,;\t|\"'\n =é한"), max_size=6)
tables = st.integers(2, 4).flatmap(
    lambda width: st.lists(st.lists(cells, min_size=width, max_size=width), min_size=1, max_size=5)
)
forms = st.fixed_dictionaries(
    {
        "separator": st.sampled_from([",", "\t"]),
        "quoting": st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
        "line_end": st.sampled_from(["\n", "\r\n"]),
        "encoding": st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
        "ends": st.booleans(),
    }
)
# The folder is shared by all examples: each writes its files anew.
examples = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def write(folder: Path, rows: list[list[str]], form: dict) -> Path:
    """A table with the columns c0, c1, ..., of which the first is never empty, in one of many spellings."""
    text = io.StringIO()
    writer = csv.writer(
        text, delimiter=form["separator"], quoting=form["quoting"], lineterminator=form["line_end"]
    )
    writer.writerow([f"c{number}" for number in range(len(rows[0]))])
    writer.writerows([f"id{place}{row[0]}", *row[1:]] for place, row in enumerate(rows))
    written = text.getvalue() if form["ends"] else text.getvalue().removesuffix(form["line_end"])
    path = folder / ("table.tsv" if form["separator"] == "\t" else "table.csv")
    path.write_bytes(written.encode(form["encoding"]))
    return path


@examples
@given(tables, forms)
def test_without_changes_every_byte_stays(tmp_path: Path, rows: list[list[str]], form: dict) -> None:
    """Whatever the quotes, separators, line ends and the encoding are."""
    source = write(tmp_path, rows, form)
    out = tmp_path / f"new{source.suffix}"
    edit_table(source, out, {})
    assert out.read_bytes() == source.read_bytes()


@examples
@given(tables, forms, cells, st.randoms(use_true_random=False))
def test_one_cell_changes_alone(
    tmp_path: Path, rows: list[list[str]], form: dict, value: str, random
) -> None:
    """Read again, the table has that text there, and all else as before."""
    source = write(tmp_path, rows, form)
    out = tmp_path / f"new{source.suffix}"
    row, name = random.randrange(len(rows)), f"c{random.randrange(1, len(rows[0]))}"
    edit_table(source, out, {(row, name): value})
    wanted = read_table(source).to_dict(as_series=False)
    wanted[name][row] = value or None
    assert read_table(out).to_dict(as_series=False) == wanted


@examples
@given(tables, forms)
def test_a_new_column_is_the_last(tmp_path: Path, rows: list[list[str]], form: dict) -> None:
    """And the others are as before."""
    source = write(tmp_path, rows, form)
    out = tmp_path / f"new{source.suffix}"
    values = [f"g{place}" for place in range(len(rows))]
    add_column(source, out, "group", values)
    wanted = read_table(source).with_columns(pl.Series("group", values))
    assert read_table(out).equals(wanted)


@pytest.mark.parametrize("removed", [{0}, {1, 2}])
def test_removed_rows_are_gone(tmp_path: Path, removed: set[int]) -> None:
    """With all lines that they had."""
    source = tmp_path / "table.csv"
    source.write_text('a,b\n1,"x\ny"\n\n2,y\n3,"z\n\n"\n')
    edit_table(source, tmp_path / "new.csv", {}, removed)
    kept = [row for row in range(3) if row not in removed]
    assert read_table(tmp_path / "new.csv").equals(read_table(source)[kept])
