"""A comparison's results: the interval of a mean stays within the values that the score can have."""

import numpy as np
import pytest

from classwise.compare.result import _within_range
from classwise.compare.stats import Estimate, Summary
from classwise.metrics.scores import HIGHER_IS_BETTER, score_range


@pytest.mark.parametrize("name", HIGHER_IS_BETTER)
def test_a_perfect_score_is_an_end_of_its_range(name: str) -> None:
    """The highest value where higher is better, else 0; no range is empty."""
    low, high = score_range(name)
    assert low < high
    assert (high if HIGHER_IS_BETTER[name] else low) == (1.0 if HIGHER_IS_BETTER[name] else 0.0)


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("macro_f1", (0.0, 1.0)),
        ("age.macro_f1_at_prior", (0.0, 1.0)),
        ("mcc", (-0.4, 1.0)),
        ("r2", (-0.4, 1.0)),
        ("log_loss", (0.0, 1.8)),
    ],
)
def test_the_interval_of_a_mean_stays_within_it(metric: str, expected: tuple[float, float]) -> None:
    """As `compare` shows it: Student's t of three runs easily reaches beyond 1."""
    row = Summary("a", score=Estimate(3, 0.7, sd=0.4, interval=(-0.4, 1.8)), difference=None)
    found = _within_range(row, metric)
    assert found.score is not None
    assert found.score.interval is not None
    np.testing.assert_allclose(found.score.interval, expected)
