"""Temperatures against scikit-learn's, and their nested estimates."""

import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from classwise.decision.temperature import calibration_of, fit_temperature, nested_temperature


def sure_logits(rows: int, factor: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits of three classes that are `factor` times what would be calibrated, and the classes."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 3, rows)
    seen = rng.normal(size=(rows, 3))
    seen[np.arange(rows), true] += 1.5
    return factor * 1.5 * seen, true


@pytest.mark.parametrize("factor", [0.5, 1.0, 4.0])
def test_as_scikit_learn_calibrates(factor: float) -> None:
    """The same probabilities as its temperature calibration of a classifier on the same rows."""
    features, true = sure_logits(400, 1.0)
    model = LogisticRegression().fit(features[:200], true[:200])
    model.coef_ *= factor
    rows, labels = features[200:], true[200:]
    expected = CalibratedClassifierCV(FrozenEstimator(model), method="temperature").fit(rows, labels)
    logits = model.decision_function(rows)
    scaled = logits / fit_temperature(logits, labels)
    found = np.exp(scaled - np.logaddexp.reduce(scaled, axis=1, keepdims=True))
    np.testing.assert_allclose(found, expected.predict_proba(rows), atol=1e-6)


def test_the_temperature_of_many_rows_is_the_factor() -> None:
    logits, true = sure_logits(50_000, 3.0)
    assert fit_temperature(logits, true) == pytest.approx(3.0, rel=0.02)


def test_a_temperature_of_labels_ignores_unknown_cells() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(3000, 2)) * 2
    true = (rng.random((3000, 2)) < 1 / (1 + np.exp(-logits))).astype(float)
    wrong = np.where(rng.random((3000, 2)) < 0.3, np.nan, true)
    known = ~np.isnan(wrong)
    found = fit_temperature(5 * logits, wrong)
    assert found == pytest.approx(5.0, rel=0.1)
    assert found == pytest.approx(fit_temperature(5 * logits[known][:, None], true[known][:, None]))


def test_predictions_that_are_all_right_stop_at_the_limit() -> None:
    assert fit_temperature(np.eye(3), np.arange(3)) == pytest.approx(0.02)


def test_the_log_loss_is_that_of_scikit_learn() -> None:
    logits, true = sure_logits(100, 2.0)
    scaled = logits / 2
    p = np.exp(scaled - np.logaddexp.reduce(scaled, axis=1, keepdims=True))
    assert calibration_of(logits, true, logits.argmax(axis=1), 2.0).log_loss == pytest.approx(
        log_loss(true, p, labels=range(3))
    )


def test_nested_the_rows_of_a_fold_have_no_say_in_its_temperature() -> None:
    """A fold whose labels are all wrong makes its own loss worse, and is not fitted by itself."""
    logits, true = sure_logits(300, 4.0)
    folds = np.arange(300) % 3
    found = nested_temperature(logits, true, logits.argmax(axis=1), folds, None, seed=0, resamples=200)
    by_hand = np.concatenate(
        [
            [calibration_of(logits[folds == f], true[folds == f], None, t).log_loss]
            for f in range(3)
            for t in [fit_temperature(logits[folds != f], true[folds != f])]
        ]
    )
    assert found.after.log_loss == pytest.approx(by_hand.mean())


def test_the_gain_of_overconfident_logits_is_certain() -> None:
    logits, true = sure_logits(300, 4.0)
    predicted = logits.argmax(axis=1)
    found = nested_temperature(logits, true, predicted, np.arange(300) % 3, None, seed=0, resamples=200)
    assert found.interval is not None
    assert 0 < found.interval[0] <= found.gain
    assert found.after.calibration_error is not None
    assert found.before.calibration_error is not None
    assert found.after.calibration_error < found.before.calibration_error
