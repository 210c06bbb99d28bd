"""The table with a column of groups, from which a split keeps copies together."""

from pathlib import Path

import polars as pl
import pytest

from classwise.data.table import read_table
from classwise.datacheck.written_groups import write_grouped_samples, write_groups
from classwise.errors import DataError, OutputError

TABLE = b'path,label,person\r\n"a.png",x,p1\r\nb.png,x,p2\r\n\r\nc.png,"y, z",p2\r\nd.png,y,p3\r\n'


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "table.csv"
    path.write_bytes(TABLE)
    return path


def test_copies_share_a_group(tmp_path: Path, table: Path) -> None:
    """Every other byte of the table stays as it is."""
    groups = {"a.png": 0, "b.png": 1, "c.png": 2, "d.png": 0}
    assert write_groups(table, tmp_path / "new.csv", groups, id_column="path") == 1
    wanted = b'path,label,person,group\r\n"a.png",x,p1,0\r\nb.png,x,p2,1\r\n\r\nc.png,"y, z",p2,2\r\nd.png,y,p3,0\r\n'
    assert (tmp_path / "new.csv").read_bytes() == wanted
    assert table.read_bytes() == TABLE


def test_groups_are_united_with_those_of_the_table(tmp_path: Path, table: Path) -> None:
    """Also through other rows: b and c are one person's, and c is a copy of d."""
    groups = {"a.png": 0, "b.png": 1, "c.png": 2, "d.png": 2}
    joined = write_groups(table, tmp_path / "new.csv", groups, id_column="path", existing="person")
    assert joined == 1
    assert read_table(tmp_path / "new.csv")["group"].to_list() == ["0", "1", "1", "1"]


def test_rows_that_were_not_looked_at_are_alone(tmp_path: Path, table: Path) -> None:
    """Rows that data.split leaves out are in the table as well; a group may be called as a row is."""
    groups = {"a.png": "b.png", "c.png": "b.png"}
    write_groups(table, tmp_path / "new.csv", groups, id_column="path")
    assert read_table(tmp_path / "new.csv")["group"].to_list() == ["0", "1", "0", "3"]


def test_a_taken_name_is_refused(tmp_path: Path, table: Path) -> None:
    """With the names that are taken; another one is used."""
    with pytest.raises(DataError, match=r"column 'person' already; allowed .* but 'path', 'label', 'person'"):
        write_groups(table, tmp_path / "new.csv", {}, id_column="path", name="person")
    write_groups(table, tmp_path / "new.csv", {}, id_column="path", name="copies")
    assert read_table(tmp_path / "new.csv").columns == ["path", "label", "person", "copies"]


def test_the_table_itself_is_never_written(tmp_path: Path, table: Path) -> None:
    """Not with --force either; an existing file only with it."""
    with pytest.raises(OutputError, match="is the table itself"):
        write_groups(table, table, {}, id_column="path", force=True)
    (tmp_path / "new.csv").write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        write_groups(table, tmp_path / "new.csv", {}, id_column="path")
    write_groups(table, tmp_path / "new.csv", {}, id_column="path", force=True)
    assert table.read_bytes() == TABLE


def test_rows_of_empty_cells_stay_rows_of_empty_cells(tmp_path: Path) -> None:
    """As spreadsheets leave them: each line has a cell more, so that the file can be read again."""
    table = tmp_path / "table.tsv"
    table.write_bytes(b"path\tlabel\na\tx\n\t\nb\ty")
    write_groups(table, tmp_path / "new.tsv", {"a": 0, "b": 0}, id_column="path")
    assert (tmp_path / "new.tsv").read_bytes() == b"path\tlabel\tgroup\na\tx\t0\n\t\t\nb\ty\t0"


def test_parquet_gets_a_column_of_text(tmp_path: Path) -> None:
    """Its other columns keep their types."""
    frame = pl.DataFrame({"path": ["a", "b"], "level": [1, 2]})
    frame.write_parquet(tmp_path / "table.parquet")
    write_groups(tmp_path / "table.parquet", tmp_path / "new.parquet", {"a": 5, "b": 5}, id_column="path")
    wanted = frame.with_columns(pl.Series("group", ["0", "0"]))
    assert pl.read_parquet(tmp_path / "new.parquet").equals(wanted)


def test_a_folder_gets_a_table(tmp_path: Path) -> None:
    """Its paths and labels, with the groups."""
    samples = pl.DataFrame({"path": ["cat/=1.png", "dog/2.png"], "label": ["cat", "dog"]})
    out = tmp_path / "samples.csv"
    assert write_grouped_samples(samples, out, {"cat/=1.png": 3, "dog/2.png": 3}) == 1
    assert out.read_text() == "path,label,group\ncat/=1.png,cat,0\ndog/2.png,dog,0\n"
    with pytest.raises(OutputError, match="exists already"):
        write_grouped_samples(samples, out, {})
    with pytest.raises(DataError, match="column 'group' already"):
        write_grouped_samples(read_table(out), tmp_path / "more.csv", {})
