"""What is proposed and accepted is changed in a new table, and nothing else."""

import csv
from pathlib import Path

import polars as pl
import pytest

from classwise.datacheck.proposals import REMOVE, Proposal, apply_proposals, write_proposals
from classwise.errors import DataError, OutputError
from tests.helpers.tables import read_csv

TABLE = (
    b'path,label,note\r\n"a.png",cat,"one, two"\r\nb.png,"dog",\r\n'
    b'\r\n,,\r\nc.png,cat,"a ""quote"""\r\nd.png,cat,x\r\n'
)
PROPOSALS = [
    Proposal("a.png", "label", found="cat", proposed="dog", reason="a model expects dog", value=0.93),
    Proposal("b.png", "label", found="dog", proposed="cat", reason="a model expects cat", value=0.5),
    Proposal("d.png", "path", found="d.png", proposed="", reason="a copy of c.png", action=REMOVE),
]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "table.csv"
    path.write_bytes(TABLE)
    return path


def answered(path: Path, answers: dict[str, str], proposals: list[Proposal] = PROPOSALS) -> Path:
    """Proposals with a person's answers, by id."""
    write_proposals(proposals, path)
    rows = read_csv(path)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({**row, "accept": answers.get(row["id"], "")} for row in rows)
    return path


def test_proposals_wait_for_an_answer(tmp_path: Path) -> None:
    """A line for each, with an empty cell to fill in."""
    write_proposals(PROPOSALS, tmp_path / "proposals.csv")
    rows = read_csv(tmp_path / "proposals.csv")
    assert rows[0] == {
        "id": "a.png",
        "action": "relabel",
        "column": "label",
        "found": "cat",
        "proposed": "dog",
        "reason": "a model expects dog",
        "value": "0.93",
        "accept": "",
    }
    assert [row["action"] for row in rows] == ["relabel", "relabel", "remove"]


def test_answers_are_not_written_over(tmp_path: Path) -> None:
    """A file of proposals may have somebody's afternoon in it."""
    write_proposals(PROPOSALS, tmp_path / "proposals.csv")
    with pytest.raises(OutputError, match="exists already"):
        write_proposals(PROPOSALS, tmp_path / "proposals.csv")


def test_only_accepted_rows_change(tmp_path: Path, table: Path) -> None:
    """Every other byte stays: quotes, blank lines, line ends; the source as a whole."""
    proposals = answered(tmp_path / "p.csv", {"a.png": "y"})
    applied = apply_proposals(table, proposals, tmp_path / "new.csv", id_column="path")
    assert (tmp_path / "new.csv").read_bytes() == TABLE.replace(b'"a.png",cat', b'"a.png",dog')
    assert table.read_bytes() == TABLE
    assert (applied.relabeled, applied.removed, applied.not_accepted, applied.rows) == (1, 0, 2, 4)
    assert (
        applied.text == "1 row relabeled, 0 rows removed, 2 proposals not accepted; 4 rows in the new table"
    )


def test_accepted_removals_leave_the_row_out(tmp_path: Path, table: Path) -> None:
    """And a quoted cell stays quoted."""
    proposals = answered(tmp_path / "p.csv", {"b.png": "X", "d.png": "yes"})
    applied = apply_proposals(table, proposals, tmp_path / "new.csv", id_column="path")
    wanted = TABLE.replace(b'"dog"', b'"cat"').replace(b"d.png,cat,x\r\n", b"")
    assert (tmp_path / "new.csv").read_bytes() == wanted
    assert (applied.relabeled, applied.removed, applied.rows) == (1, 1, 3)


@pytest.mark.parametrize("answer", ["y", "Yes", "TRUE", "1", " x "])
def test_words_for_yes(tmp_path: Path, table: Path, answer: str) -> None:
    """As people and spreadsheets write it."""
    proposals = answered(tmp_path / "p.csv", {"a.png": answer})
    assert apply_proposals(table, proposals, tmp_path / "new.csv", id_column="path").relabeled == 1


@pytest.mark.parametrize("answer", ["maybe", "yy", "да", "2"])
def test_other_words_are_refused_by_row_and_name(tmp_path: Path, table: Path, answer: str) -> None:
    """Nothing is written then, though another row is accepted."""
    proposals = answered(tmp_path / "p.csv", {"a.png": "y", "b.png": answer})
    with pytest.raises(DataError, match=rf"row 2 \(b.png\): accept: found '{answer}'; allowed: y, yes"):
        apply_proposals(table, proposals, tmp_path / "new.csv", id_column="path")
    assert not (tmp_path / "new.csv").exists()


@pytest.mark.parametrize("answer", ["", "n", "No", "false", "0", "  "])
def test_nothing_happens_without_a_yes(tmp_path: Path, table: Path, answer: str) -> None:
    """Not even a copy of the table."""
    proposals = answered(tmp_path / "p.csv", dict.fromkeys(["a.png", "b.png", "d.png"], answer))
    with pytest.raises(DataError, match="none of its 3 proposals is accepted"):
        apply_proposals(table, proposals, tmp_path / "new.csv", id_column="path")
    assert not (tmp_path / "new.csv").exists()


def test_a_table_that_has_changed_is_refused(tmp_path: Path, table: Path) -> None:
    """With the row, and what it has now."""
    table.write_bytes(TABLE.replace(b'"a.png",cat', b'"a.png",cow'))
    proposals = answered(tmp_path / "p.csv", {"a.png": "y"})
    with pytest.raises(
        DataError, match=r"row 1 \(a.png\): column 'label' of .* has 'cow' in row 1.*for 'cat'"
    ):
        apply_proposals(table, proposals, tmp_path / "new.csv", id_column="path")


def test_a_row_that_is_gone_is_refused(tmp_path: Path, table: Path) -> None:
    """By its id."""
    table.write_bytes(TABLE.replace(b'"a.png"', b'"z.png"'))
    proposals = answered(tmp_path / "p.csv", {"a.png": "y"})
    with pytest.raises(DataError, match=r"row 1: .* has no row 'a.png'"):
        apply_proposals(table, proposals, tmp_path / "new.csv", id_column="path")


def test_contradicting_proposals_are_refused(tmp_path: Path, table: Path) -> None:
    """Two labels for one cell, or a label for a row that is removed as well."""
    other = Proposal("a.png", "label", found="cat", proposed="cow", reason="")
    removal = Proposal("a.png", "path", found="a.png", proposed="", reason="", action=REMOVE)
    for number, second in enumerate([other, removal]):
        proposals = answered(tmp_path / f"{number}.csv", {"a.png": "y"}, [PROPOSALS[0], second])
        with pytest.raises(DataError, match=r"rows 1 and 2 propose different things for 'a\.png'"):
            apply_proposals(table, proposals, tmp_path / "new.csv", id_column="path")


def test_the_table_itself_is_never_written(tmp_path: Path, table: Path) -> None:
    """Under no name, and with no --force; neither are the proposals."""
    proposals = answered(tmp_path / "p.csv", {"a.png": "y"})
    (tmp_path / "link.csv").symlink_to(table)
    (tmp_path / "hard.csv").hardlink_to(table)
    for out in (table, tmp_path / "link.csv", tmp_path / "hard.csv"):
        with pytest.raises(OutputError, match="is the table itself"):
            apply_proposals(table, proposals, out, id_column="path", force=True)
    with pytest.raises(OutputError, match="is the table of proposals"):
        apply_proposals(table, proposals, proposals, id_column="path", force=True)
    with pytest.raises(OutputError, match=r"found \.tsv suffix; allowed: \.csv"):
        apply_proposals(table, proposals, tmp_path / "new.tsv", id_column="path")
    assert table.read_bytes() == TABLE


def test_an_existing_file_is_kept_unless_forced(tmp_path: Path, table: Path) -> None:
    """As everywhere."""
    proposals = answered(tmp_path / "p.csv", {"a.png": "y"})
    (tmp_path / "new.csv").write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        apply_proposals(table, proposals, tmp_path / "new.csv", id_column="path")
    apply_proposals(table, proposals, tmp_path / "new.csv", id_column="path", force=True)
    assert b"dog" in (tmp_path / "new.csv").read_bytes()


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("utf-8-sig", "path;label\nb.png;x\n"),
        ("utf-16", "path\tlabel\r\nb.png\tx\r\n"),
        ("utf-8", "sep=;\r\npath;label\r\nb.png;x"),
        ("utf-8", 'path|label\n"b.png"|x\n'),
    ],
)
def test_encodings_and_separators_stay(tmp_path: Path, encoding: str, text: str) -> None:
    """A byte order mark, UTF-16 and other separators are kept, and a label that needs quotes gets them."""
    table = tmp_path / "table.csv"
    table.write_bytes(text.encode(encoding))
    change = Proposal("b.png", "label", found="x", proposed='a;|\t"b', reason="")
    proposals = answered(tmp_path / "p.csv", {"b.png": "y"}, [change])
    apply_proposals(table, proposals, tmp_path / "new.csv", id_column="path")
    wanted = text.replace("x", '"a;|\t""b"')
    assert (tmp_path / "new.csv").read_bytes() == wanted.encode(encoding)


def test_cells_with_line_breaks_stay(tmp_path: Path) -> None:
    """A row may be several lines of the file."""
    table = tmp_path / "table.csv"
    table.write_bytes(b'note,path,label\n"two\nlines",a.png,x\n"more\n\nlines, too",b.png,x\n')
    change = Proposal("b.png", "label", found="x", proposed="y", reason="")
    proposals = answered(tmp_path / "p.csv", {"b.png": "y"}, [change])
    apply_proposals(table, proposals, tmp_path / "new.csv", id_column="path")
    assert (tmp_path / "new.csv").read_bytes() == table.read_bytes().replace(b"b.png,x", b"b.png,y")


def test_formulas_survive_the_way_through_a_spreadsheet(tmp_path: Path) -> None:
    """Ids and labels that would be formulas are escaped in the proposals, and themselves in the new table."""
    table = tmp_path / "table.csv"
    table.write_text("path,label\n=a.png,-old\n'=b.png,x\n")
    changes = [
        Proposal("=a.png", "label", found="-old", proposed="@new", reason=""),
        Proposal("'=b.png", "label", found="x", proposed="+y", reason=""),
    ]
    path = tmp_path / "p.csv"
    write_proposals(changes, path)
    assert [row["id"] for row in read_csv(path)] == ["'=a.png", "''=b.png"]
    path.unlink()
    proposals = answered(path, {"'=a.png": "y", "''=b.png": "y"}, changes)
    apply_proposals(table, proposals, tmp_path / "new.csv", id_column="path")
    assert (tmp_path / "new.csv").read_text() == "path,label\n=a.png,@new\n'=b.png,+y\n"


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    """A new label has the column's type, and one that cannot have it is refused."""
    table = tmp_path / "table.parquet"
    frame = pl.DataFrame({"path": ["a", "b", "c"], "level": [1, 2, 3], "size": [0.5, None, 2.5]})
    frame.write_parquet(table)
    change = Proposal("b", "level", found="2", proposed="7", reason="")
    removal = Proposal("a", "path", found="a", proposed="", reason="", action=REMOVE)
    proposals = answered(tmp_path / "p.csv", {"a": "y", "b": "y"}, [change, removal])
    apply_proposals(table, proposals, tmp_path / "new.parquet", id_column="path")
    wanted = pl.DataFrame({"path": ["b", "c"], "level": [7, 3], "size": [None, 2.5]})
    assert pl.read_parquet(tmp_path / "new.parquet").equals(wanted)
    word = Proposal("b", "level", found="2", proposed="high", reason="")
    proposals = answered(tmp_path / "q.csv", {"b": "y"}, [word])
    with pytest.raises(DataError, match=r"column 'level' holds Int64; found 'high' for row 2"):
        apply_proposals(table, proposals, tmp_path / "other.parquet", id_column="path")


def test_a_row_that_the_table_repeats_is_changed_everywhere(tmp_path: Path) -> None:
    """Rows that repeat another one in every column are one row to classwise."""
    table = tmp_path / "table.csv"
    table.write_text("path,label\na.png,cat\nb.png,cat\na.png,cat\n")
    proposals = answered(tmp_path / "p.csv", {"a.png": "y"}, PROPOSALS[:1])
    apply_proposals(table, proposals, tmp_path / "new.csv", id_column="path")
    assert (tmp_path / "new.csv").read_text() == "path,label\na.png,dog\nb.png,cat\na.png,dog\n"


def test_not_all_rows_can_be_removed(tmp_path: Path) -> None:
    """A table without rows would be none."""
    table = tmp_path / "table.csv"
    table.write_text("path,label\nd.png,cat\n")
    proposals = answered(tmp_path / "p.csv", {"d.png": "y"}, PROPOSALS[2:])
    with pytest.raises(DataError, match="all 1 rows"):
        apply_proposals(table, proposals, tmp_path / "new.csv", id_column="path")


@pytest.mark.parametrize(
    ("name", "cell", "message"),
    [
        ("action", "delete", "action: found 'delete', allowed: relabel, remove"),
        ("proposed", "", "proposed: found '', allowed: a label for relabel"),
        ("column", "labell", "no column 'labell'"),
    ],
)
def test_edited_proposals_are_looked_at(
    tmp_path: Path, table: Path, name: str, cell: str, message: str
) -> None:
    """A person may have changed more than the answers."""
    proposals = answered(tmp_path / "p.csv", {"a.png": "y"})
    rows = read_csv(proposals)
    rows[0][name] = cell
    with proposals.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0], delimiter=";")
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(DataError, match=message):
        apply_proposals(table, proposals, tmp_path / "new.csv", id_column="path")


def test_a_proposal_is_one_of_two_actions() -> None:
    """And a removal proposes no label."""
    with pytest.raises(ValueError, match="allowed: relabel, remove"):
        Proposal("a", "label", found="x", proposed="y", reason="", action="delete")
    with pytest.raises(ValueError, match="for the action remove"):
        Proposal("a", "label", found="x", proposed="y", reason="", action=REMOVE)
