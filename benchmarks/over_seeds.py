"""Means and paired differences over seeds, for scores on one and the same test set.

These are statements about the trained models on these test rows: with other training seeds, how far would the mean be
from this one? What other test and training rows would say is not in them; `classwise compare` adds that.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from classwise.compare import stats
from classwise.compare.stats import Design, Difference, Estimate, Runs

# All rows are the same for all seeds, so that only the seeds vary.
SAME_ROWS = Design(scored=1, trained=1, rows=2, units=1, redrawn=False)


def estimate(numbers: Sequence[float]) -> Estimate | None:
    """Mean, standard deviation, and Student's interval of the mean; None for no numbers."""
    return stats.estimate(_runs(dict(enumerate(numbers))), _design(len(numbers)))


def difference(scores: Mapping[int, float], baseline: Mapping[int, float]) -> Difference | None:
    """The paired t-test over the seeds that both have; None where they share none."""
    common = len(set(scores) & set(baseline))
    return stats.difference(_runs(scores), _runs(baseline), _design(common))


def _design(seeds: int) -> Design | None:
    """Of a single seed nothing shows the spread."""
    return SAME_ROWS if seeds > 1 else None


def _runs(scores: Mapping[int, float]) -> Runs:
    """Runs whose resampled scores do not vary, since the rows are these."""
    return Runs(scores, dict.fromkeys(scores, np.zeros(2)))
