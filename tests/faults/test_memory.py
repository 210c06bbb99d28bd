"""No growth over a run; the figure over 10,000 updates is made by `python -m tests.faults memory`."""

import trials


def test_a_run_does_not_grow() -> None:
    """Over 600 updates the allocator has not quite settled, so the bound is wider than the figure's."""
    found = trials.in_a_fresh_process("memory", "long_run", 600, 10, 0)
    assert found["updates"] >= 600
    assert found["slope"] < 2500
    assert found["handles"][0] == found["handles"][1]
    assert found["shared"][0] == found["shared"][1]


def test_sabotage_a_list_that_keeps_tensors() -> None:
    """4 KB an update are seen."""
    assert trials.in_a_fresh_process("memory", "long_run", 600, 10, 0, True)["slope"] > 4000
