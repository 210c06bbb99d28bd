"""The quick version of the simulation of `compare`: it holds, and it would not with the test of before."""

import pytest

from simulations import compare, selected_epochs


def test_every_claim_holds() -> None:
    """Few data sets and wide limits."""
    claims = compare.simulate(quick=True)
    assert [claim for claim in claims if claim.holds is False] == []


@pytest.mark.parametrize("index", [0, 1])
def test_student_over_the_seeds_calls_equal_variants_different(index: int) -> None:
    """The test of before fails the same claims, where rows are drawn by each seed and with a test table."""
    setting = compare._settings(quick=True)[index]
    simulated = compare._simulated(setting, 50, seed=1).under("student")
    claims = compare._no_difference(setting, simulated, limit=10.0)
    assert not any(claim.holds for claim in claims if "10 seeds" in claim.setting)


def test_a_choice_among_epochs_is_worth_nothing_on_other_rows() -> None:
    """Scored on the rows that chose, many epochs are far ahead of few; on others they are not."""
    own, other = selected_epochs.mean_differences(100)
    assert own > 0.03
    assert abs(other) < 0.015
