"""Killed or stopped anywhere, a run ends in the bytes of one that was not, and needs no more memory at its end;
without each protection it would not."""

from typing import Any

import pytest

from tests.faults import trials

PROTECTIONS = ["dropout", "augmentation", "order", "average", "moments"]


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """All in one process."""
    calls = {
        "kills": ["kills", "kill_runs", 12],
        "in place": ["kills", "kill_runs", 6, 0, "checkpoints in place", ["writing"]],
        "stops": ["resumes", "resume_anywhere", 1],
        "sabotaged": ["resumes", "sabotaged", PROTECTIONS],
    }
    return dict(zip(calls, trials.several(list(calls.values())), strict=True))


def test_kills_at_any_moment(found: dict[str, Any]) -> None:
    """Some kills of small real runs; `python -m tests.faults kill-9` makes a thousand."""
    assert found["kills"]["failures"] == []
    assert found["kills"]["tried"] >= 12
    assert len(found["kills"]["by"]) >= 4


def test_sabotage_checkpoints_in_place(found: dict[str, Any]) -> None:
    """A kill while the only checkpoint is being written loses the run."""
    assert found["in place"]["held"] < found["in place"]["tried"]


def test_stops_after_two_updates(found: dict[str, Any]) -> None:
    """One of the pairs of each config; `python -m tests.faults resume-any-update` makes all of them."""
    assert found["stops"]["failures"] == []
    assert found["stops"]["tried"] >= 5


@pytest.mark.parametrize("protection", PROTECTIONS)
def test_sabotage_of_resuming(found: dict[str, Any], protection: str) -> None:
    """Without a part of the state, or with numbers from a generator that goes on and on, the bytes differ."""
    one = found["sabotaged"][protection]
    assert one["held"] < one["tried"]


def test_a_run_does_not_grow() -> None:
    """Over 400 updates the allocator has not settled, so the bound is wider than that of the figure; a list that
    keeps a page of 4 KB an update breaks it."""
    calls = [["memory", "long_run", 400, 10, 0], ["memory", "long_run", 400, 10, 0, True]]
    plain, leaking = trials.several(calls)
    assert plain["updates"] >= 400
    bound = 3000
    assert plain["slope"] < bound
    assert plain["handles"][0] == plain["handles"][1]
    assert plain["shared"][0] == plain["shared"][1]
    assert leaking["slope"] > bound
