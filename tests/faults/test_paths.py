"""Nothing hostile in a run directory or a table is run or read; without the protections it would be."""

from typing import Any

import pytest

from tests.faults import trials


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """All in one process."""
    calls = {
        "runs": ["hostile_runs", 10],
        "escapes": ["escapes", 6],
        "race": ["race", 1.5],
    }
    results = trials.several([["paths", *call] for call in calls.values()])
    return dict(zip(calls, results, strict=True))


def test_hostile_runs(found: dict[str, Any]) -> None:
    """Some of those that `python -m tests.faults hostile-runs` tries, with every command."""
    assert found["runs"]["failures"] == []
    assert set(found["runs"]["by"]) == {"resume", "evaluate", "predict", "submit", "report"}


@pytest.mark.full
def test_sabotage_of_reading() -> None:
    """With torch's own files allowed, a pickle in a run directory runs."""
    found = trials.in_a_fresh_process("paths", "unpickled")
    assert found == {"the payload has run": True, "it was seen": True}


def test_path_escapes(found: dict[str, Any]) -> None:
    """Some of the paths, in every place."""
    assert found["escapes"]["failures"] == []
    assert found["escapes"]["tried"] >= 30


def test_a_link_swapped_in_a_race(found: dict[str, Any]) -> None:
    """Now it is refused, now the image inside is read, never the one outside."""
    assert found["race"]["failures"] == []
    assert found["race"]["by"]["refused"] > 50
    assert found["race"]["by"]["read"] > 50


@pytest.mark.full
def test_sabotage_of_the_race() -> None:
    """The usual check before opening loses it now and then."""
    found = trials.in_a_fresh_process("paths", "race", 5.0, True)
    assert found["held"] < found["tried"]
