"""What the page about methods against imbalance computes itself."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from imbalance import confusions, scores_of


def test_scores_of_samples_of_the_test_rows() -> None:
    """Equal to scikit-learn's on the same rows; at other shares, with each row weighted so that its class has its
    share."""
    rng = np.random.default_rng(1)
    true_N = np.repeat(np.arange(3), 40)
    predicted_N = np.where(rng.random(120) < 0.6, true_N, rng.integers(0, 3, 120))
    rows_RN = rng.integers(0, 120, (4, 120))
    share_K = np.array([0.9, 0.09, 0.01])
    found = scores_of(confusions(true_N, predicted_N, 3, rows_RN), share_K)
    for sample, rows_N in enumerate(rows_RN):
        true, predicted = true_N[rows_N], predicted_N[rows_N]
        weights = (share_K / np.bincount(true))[true]
        expected = {
            "macro_f1": f1_score(true, predicted, average="macro"),
            "accuracy": accuracy_score(true, predicted),
            "at_shares": f1_score(true, predicted, average="macro", sample_weight=weights),
        }
        assert {score: values[sample] for score, values in found.items()} == pytest.approx(
            expected, abs=1e-12
        )
