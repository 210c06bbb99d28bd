"""check.csv and check.json against the findings they are made from."""

import json
import random
from pathlib import Path

import pytest

from classwise.data.table import plain, read_table
from classwise.datacheck.finding import INFO, SEVERE, WARNING, Finding
from classwise.datacheck.written import Checked, counts, sorted_findings, write_check_csv, write_check_json
from tests.helpers.tables import read_csv

CHECKED = Checked(
    source="digits",
    rows={"train": 80, "valid": 20},
    done=["copies: 100 images"],
    not_done=["label errors: no --run was given"],
    versions={"classwise": "1.2.3"},
)
FINDINGS = [
    Finding("blurred", INFO, "c.png", "", 0.5, "Hardly any edge."),
    Finding(
        "near-copy", WARNING, "a.png", "b.png", 0.25, "Keep them together.", {"members": ["a.png", "b.png"]}
    ),
    Finding("label-error", WARNING, "d.png", "", 0.75, "Look at it."),
    Finding("exact-copy", SEVERE, "e.png", "f.png", None, "In training and validation."),
    Finding("exact-copy", SEVERE, "g.png", "h.png", 3.0, "In training and validation."),
    Finding("near-copy", WARNING, "i.png", "j.png", 0.5, "Keep them together."),
]
IN_ORDER = ["g.png", "e.png", "i.png", "a.png", "d.png", "c.png"]


def test_the_worst_comes_first() -> None:
    """By severity, then by the order of kinds, then by value; a finding without a value is the last of its kind."""
    assert [finding.id for finding in sorted_findings(FINDINGS)] == IN_ORDER


def test_csv_has_a_line_for_each_finding(tmp_path: Path) -> None:
    """With the columns that the contract names, and an empty cell where there is no value."""
    write_check_csv(FINDINGS, tmp_path / "check.csv")
    rows = read_csv(tmp_path / "check.csv")
    assert list(rows[0]) == ["kind", "severity", "id", "partner", "value", "advice"]
    assert [row["id"] for row in rows] == IN_ORDER
    assert [row["value"] for row in rows] == ["3.0", "", "0.5", "0.25", "0.75", "0.5"]


def test_no_cell_of_the_csv_is_a_formula(tmp_path: Path) -> None:
    """An id that a spreadsheet would run gets an apostrophe, which `plain` takes away again."""
    hostile = ["=cmd|' /C calc'!A0", "+1+1", "@SUM(A1)", "-2+3", '=HYPERLINK("http://x")']
    findings = [Finding("dark", INFO, id_, id_, 1.0, id_) for id_ in hostile]
    write_check_csv(findings, tmp_path / "check.csv")
    rows = read_csv(tmp_path / "check.csv")
    assert all(row[name].startswith("'") for row in rows for name in ("id", "partner", "advice"))
    assert sorted(plain(read_table(tmp_path / "check.csv"))["id"].to_list()) == sorted(hostile)


def test_json_has_the_summary_and_all_details(tmp_path: Path) -> None:
    """Counts, versions, what was checked and what was not, and the findings in the order of the table."""
    write_check_json(FINDINGS, CHECKED, tmp_path / "check.json")
    content = json.loads((tmp_path / "check.json").read_text(encoding="utf-8"))
    assert content["counts"]["severity"] == {"severe": 2, "warning": 3, "info": 1}
    assert content["counts"]["kind"]["near-copy"] == {"severe": 0, "warning": 2, "info": 0}
    assert content["not_checked"] == ["label errors: no --run was given"]
    assert content["versions"] == {"classwise": "1.2.3"}
    assert [finding["id"] for finding in content["findings"]] == IN_ORDER
    assert content["findings"][3]["details"] == {"members": ["a.png", "b.png"]}


def test_counts_are_of_kinds_that_were_found() -> None:
    """In the order of kinds."""
    assert list(counts(FINDINGS)) == ["exact-copy", "near-copy", "label-error", "blurred"]


def test_the_order_of_findings_makes_no_difference(tmp_path: Path) -> None:
    """The same findings give the same bytes."""
    shuffled = list(FINDINGS)
    random.Random(0).shuffle(shuffled)
    for number, findings in enumerate([FINDINGS, shuffled]):
        write_check_csv(findings, tmp_path / f"{number}.csv")
        write_check_json(findings, CHECKED, tmp_path / f"{number}.json")
    assert (tmp_path / "0.csv").read_bytes() == (tmp_path / "1.csv").read_bytes()
    assert (tmp_path / "0.json").read_bytes() == (tmp_path / "1.json").read_bytes()


def test_nothing_found_is_a_table_without_rows(tmp_path: Path) -> None:
    """And a JSON file that says what was checked."""
    write_check_csv([], tmp_path / "check.csv")
    write_check_json([], CHECKED, tmp_path / "check.json")
    assert (tmp_path / "check.csv").read_text() == "kind,severity,id,partner,value,advice\n"
    assert json.loads((tmp_path / "check.json").read_text())["checked"] == ["copies: 100 images"]


def test_names_that_are_no_utf8_are_written(tmp_path: Path) -> None:
    """With a question mark for the byte that is none."""
    findings = [Finding("unreadable", WARNING, "caf\udce9.png", "", None, "Cut short.")]
    write_check_csv(findings, tmp_path / "check.csv")
    write_check_json(findings, CHECKED, tmp_path / "check.json")
    assert read_csv(tmp_path / "check.csv")[0]["id"] == "caf?.png"
    assert "caf?.png" in (tmp_path / "check.json").read_text(encoding="utf-8")


def test_a_value_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    """Nothing is written: JSON has no such number."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_check_json([Finding("dark", INFO, "a", "", float("nan"), "")], CHECKED, tmp_path / "check.json")
    assert not (tmp_path / "check.json").exists()
