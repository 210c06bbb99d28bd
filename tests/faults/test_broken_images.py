"""Odd and hostile images are read right or refused; without a protection, the same tries say so."""

from typing import Any

import pytest

from tests.faults import trials


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """All in one process."""
    calls = {"crafted": ["crafted", 4], "mutants": ["mutants", 1500]}
    results = trials.several([["images", *call] for call in calls.values()])
    return dict(zip(calls, results, strict=True))


def test_crafted_files(found: dict[str, Any]) -> None:
    """Every fourth of those that `python -m tests.faults images-crafted` tries."""
    assert found["crafted"]["failures"] == []
    assert set(found["crafted"]["by"]) == {"valid", "refused", "bombs"}


def test_mutants(found: dict[str, Any]) -> None:
    """Some of the 100,000."""
    assert found["mutants"]["failures"] == []
    assert found["mutants"]["by"]["read"] > 100
    assert found["mutants"]["by"]["refused"] > 100


@pytest.mark.full
def test_sabotages() -> None:
    """Without the check of sizes, of regular files, of cut files, of orientation: each is found."""
    without = {"no size check": True, "no file check": True, "not strict": True, "not turned": True}
    assert trials.in_a_fresh_process("images", "sabotaged") == without
