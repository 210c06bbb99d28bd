"""The tables of the benchmarks: Student's t over the seeds, as their pages say."""

import numpy as np
import pytest
from scipy import stats

from over_seeds import difference, estimate


def test_the_tables_hold_students_t_over_the_seeds() -> None:
    """Mean, interval and p-value are SciPy's; of a single seed there is the mean only."""
    rng = np.random.default_rng(1)
    for seeds in (2, 3, 10):
        one, other = rng.normal(0.7, 0.1, (2, seeds)).tolist()
        own = estimate(one)
        assert own is not None
        wanted = stats.t.interval(0.95, seeds - 1, loc=np.mean(one), scale=stats.sem(one))
        assert own.interval == pytest.approx(wanted, rel=1e-9)
        gain = difference(dict(enumerate(one)), dict(enumerate(other)))
        assert gain is not None
        test = stats.ttest_rel(one, other)
        assert gain.p == pytest.approx(float(test.pvalue), rel=1e-9)
        assert gain.interval == pytest.approx(tuple(test.confidence_interval(0.95)), rel=1e-9)
    alone = estimate([0.5])
    assert alone is not None
    assert alone.interval is None
    gain = difference({1: 0.5}, {1: 0.25, 2: 0.5})
    assert gain is not None
    assert (gain.mean, gain.p, gain.interval) == (0.25, None, None)
