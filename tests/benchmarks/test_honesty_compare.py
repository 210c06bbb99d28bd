"""The quick version of the simulation of `compare`: it holds, and it would not with the test of before."""

import dataclasses

import pytest

from classwise.compare import stats
from simulations import compare, selected_epochs


def test_every_claim_holds() -> None:
    """Few data sets and wide limits."""
    claims = compare.simulate(quick=True)
    assert [claim for claim in claims if not claim.holds] == []


def test_student_over_the_seeds_calls_equal_variants_different(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a correlation between the seeds, ten of them find a difference in a fifth of the data sets or more."""
    monkeypatch.setattr(stats.Design, "correlation", property(lambda _: 0.0))
    setting = compare._settings(quick=True)[0]
    claims = compare._no_difference(setting, compare._simulated(setting, 100, seed=1), limit=10.0)
    ten = [claim for claim in claims if "10 seeds" in claim.setting]
    assert [claim.holds for claim in ten] == [False, False]
    assert all(float(claim.found.split()[0]) > 15 for claim in ten)


def test_the_seeds_alone_do_not_show_what_other_rows_would_change() -> None:
    """With a test table, leaving out the noise of the rows finds differences far too often as well."""
    setting = compare._settings(quick=True)[1]
    simulated = compare._simulated(setting, 50, seed=1)
    assert simulated.resampled is not None
    without = dataclasses.replace(simulated, resampled=0 * simulated.resampled)
    claims = compare._no_difference(setting, without, limit=10.0)
    assert not any(claim.holds for claim in claims if "10 seeds" in claim.setting)


def test_a_choice_among_epochs_is_worth_nothing_on_other_rows() -> None:
    """Scored on the rows that chose, many epochs are far ahead of few; on others they are not."""
    own, other = selected_epochs.mean_differences(100)
    assert own > 0.03
    assert abs(other) < 0.015
