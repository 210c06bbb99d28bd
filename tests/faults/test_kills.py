"""Killed or stopped anywhere, a run ends in the bytes of one that was not; without each protection it would not."""

import trials


def test_kills_at_any_moment() -> None:
    """Some kills of small real runs; `python -m tests.faults kill-9` makes a thousand."""
    found = trials.in_a_fresh_process("kills", "kill_runs", 14)
    assert found["failures"] == []
    assert found["tried"] == found["held"] >= 14
    assert len(found["by"]) >= 4


def test_sabotage_checkpoints_in_place() -> None:
    """A kill while the only checkpoint is being written loses the run."""
    found = trials.in_a_fresh_process("kills", "kill_runs", 8, 0, "checkpoints in place", ["writing"])
    assert found["held"] < found["tried"]


def test_stops_after_two_updates() -> None:
    """One of the pairs of each config; `python -m tests.faults resume-any-update` makes all of them."""
    found = trials.in_a_fresh_process("resumes", "resume_anywhere", 1)
    assert found["failures"] == []
    assert found["tried"] == found["held"] >= 5


def test_sabotage_of_resuming() -> None:
    """Without a part of the state, or with numbers from a generator that goes on and on, the bytes differ."""
    names = ["dropout", "augmentation", "order", "average", "moments"]
    found = trials.in_a_fresh_process("resumes", "sabotaged", names)
    assert set(found) == set(names)
    for name, one in found.items():
        assert one["held"] < one["tried"], name
