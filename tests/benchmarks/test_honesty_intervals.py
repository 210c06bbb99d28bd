"""The simulation of docs/results/honesty.md about intervals, in its quick version."""

import pytest

from simulations.intervals import GROUPED, SETTINGS, coverage_claims, mean_claims, percentile_intervals


@pytest.mark.parametrize(("what", "settings"), [("rows", SETTINGS), ("groups", GROUPED)])
def test_intervals_of_classes_hold(what: str, settings: list) -> None:
    """With three rows or groups in the rarest class, on average over the settings."""
    claims = coverage_claims(what, 3, settings, sets=20, margin=3.0)
    assert len(claims) == 4
    assert [claim for claim in claims if not claim.holds] == []


def test_percentiles_of_resampled_rows_do_not() -> None:
    """The simulation tells methods apart: the accuracy and kappa of the percentile bootstrap miss too often."""
    claims = coverage_claims(
        "rows", 3, SETTINGS[:1] + SETTINGS[-1:], sets=40, margin=3.0, intervaller=percentile_intervals
    )
    assert {claim.setting.split(",")[0] for claim in claims if not claim.holds} >= {
        "accuracy",
        "quadratic kappa",
    }


def test_intervals_of_means_and_labels_hold() -> None:
    """Log loss, errors and ranking scores over 20 rows or groups, and the F1 of labels."""
    assert [claim for claim in mean_claims(quick=True) if not claim.holds] == []
