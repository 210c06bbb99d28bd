"""What the page about methods against imbalance computes itself."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score

from imbalance import f1_at_shares


def test_macro_f1_at_other_shares() -> None:
    """Equal to scikit-learn's on the test rows, each weighted so that its class has its share of the training set."""
    rng = np.random.default_rng(1)
    true_N = np.repeat(np.arange(3), 40)
    predicted_N = np.where(rng.random(120) < 0.6, true_N, rng.integers(0, 3, 120))
    counts = {"a": 800, "b": 90, "c": 8}
    weight_N = np.array([800.0, 90.0, 8.0])[true_N]
    expected = f1_score(true_N, predicted_N, average="macro", sample_weight=weight_N)
    metrics = {"labels": list(counts), "confusion": confusion_matrix(true_N, predicted_N).tolist()}
    assert f1_at_shares(metrics, counts) == pytest.approx(expected, abs=1e-12)
    assert f1_at_shares(metrics, dict.fromkeys(counts, 5)) == pytest.approx(
        f1_score(true_N, predicted_N, average="macro"), abs=1e-12
    )
