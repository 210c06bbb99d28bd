"""Readers refuse what they cannot read by errors of their own; names run nothing in the report or a spreadsheet."""

import contextlib
from typing import Any

import polars as pl
import pytest

from classwise.config.load import make_config
from classwise.data import table
from classwise.data.table import read_table
from classwise.errors import ConfigError, DataError
from tests.faults import formulas, hostile_report, trials
from tests.helpers.browser import CHROMIUM

TRIES = 150
READERS = ("fuzz_config", "fuzz_table", "fuzz_template", "fuzz_manifest", "fuzz_checkpoint")


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """All in one process."""
    calls = [*(["readers", name, TRIES] for name in READERS), ["formulas", "commands", 12]]
    return dict(zip([*READERS, "commands"], trials.several(calls), strict=True))


@pytest.mark.parametrize("reader", READERS)
def test_only_errors_of_our_own(found: dict[str, Any], reader: str) -> None:
    """Some of the 100,000 inputs to each; some are accepted, most refused."""
    assert found[reader]["failures"] == []
    assert found[reader]["tried"] >= TRIES
    assert found[reader]["by"]["accepted"] > 0
    assert found[reader]["by"]["refused"] > 50


@pytest.mark.full
def test_sabotage_of_the_readers() -> None:
    """Where foreign errors are let through, the same inputs find them."""
    found = trials.in_a_fresh_process("readers", "sabotaged", 250)
    assert all(found.values()), found


@pytest.mark.parametrize(
    "change",
    [
        {"targets": {"it": {"column": "x", "type": []}}},
        {"loss": {"name": "sum", "terms": None}},
        {"loss": {"name": [{}]}},
    ],
)
def test_values_of_the_wrong_type_are_errors_of_the_config(change: dict[str, Any]) -> None:
    """A list where a name should be, nothing where a list should be."""
    base = {"data": {"source": "a.csv"}, "targets": {"it": {"column": "x"}}}
    with pytest.raises(ConfigError):
        make_config({**base, **change})


def test_a_damaged_parquet_file(tmp_path: Any) -> None:
    """Its reader may panic, which is no ordinary exception."""
    path = tmp_path / "t.parquet"
    pl.DataFrame({"path": ["a"] * 50, "x": list(range(50))}).write_parquet(path)
    data = path.read_bytes()
    refused = 0
    for at in range(4, len(data), 7):
        path.write_bytes(data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :])
        with contextlib.suppress(DataError):
            read_table(path)
            continue
        refused += 1
    assert refused > 10


def test_formulas_in_tables() -> None:
    """Every third cell; and each comes back."""
    formulas.tables(3).check()


def test_formulas_through_the_commands(found: dict[str, Any]) -> None:
    """Tables for people are neutral, those for programs and submissions unchanged."""
    assert found["commands"]["failures"] == []
    assert found["commands"]["by"]["submission"] > 5


@pytest.mark.full
def test_sabotage_of_neutral_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the cells would run."""
    monkeypatch.setattr(table, "escaped", lambda frame: frame)
    count = formulas.tables(9)
    assert count.held < count.tried


needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


@needs_chromium
def test_hostile_names_in_a_report() -> None:
    """Forty of them on one page."""
    hostile_report.pages(40, 40).check()


@needs_chromium
@pytest.mark.full
@pytest.mark.parametrize(("sabotage", "holds"), [("no escaping", True), ("neither", False)])
def test_sabotage_of_the_report(sabotage: str, holds: bool) -> None:
    """Unescaped, the content security policy still stops scripts; without both they run."""
    count = hostile_report.pages(40, 40, sabotage)
    scripts = [failure for failure in count.failures if "script" in failure]
    assert bool(scripts) != holds, count.failures[:3]
