"""The simulation of docs/results/honesty.md about intervals, in its quick version."""

import pytest

from simulations.intervals import (
    GROUPED,
    SETTINGS,
    Setting,
    coverage_claims,
    label_coverage,
    mean_coverage,
    percentile_intervals,
)


@pytest.mark.parametrize(("what", "settings"), [("rows", SETTINGS), ("groups", GROUPED)])
def test_intervals_of_classes_hold(what: str, settings: list[Setting]) -> None:
    """With three rows or groups in the rarest class, on average over the settings."""
    claims = coverage_claims(what, 3, settings, sets=20, margin=3.0)
    assert len(claims) == 4
    assert [claim for claim in claims if claim.holds is False] == []


def test_percentiles_of_resampled_rows_do_not() -> None:
    """The simulation tells methods apart: the accuracy and kappa of the percentile bootstrap miss too often."""
    settings = [SETTINGS[0], SETTINGS[-1]]
    claims = coverage_claims("rows", 3, settings, sets=40, margin=3.0, intervaller=percentile_intervals)
    scores = {claim.setting.split(",")[0] for claim in claims if claim.holds is False}
    assert scores >= {"accuracy", "quadratic kappa"}


def test_intervals_of_means_and_labels_hold() -> None:
    """A log loss and reciprocal ranks over 20 rows or groups, and the F1 of labels over 30 rows."""
    for name in ("log loss", "MRR"):
        assert 0.88 <= mean_coverage(name, 20, sets=200) <= 0.99, name
    for name, share in label_coverage(30, sets=80).items():
        assert share >= 0.88, name
