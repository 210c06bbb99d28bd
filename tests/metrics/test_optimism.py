"""How much too good the best of several scores is: against what theory says, and on rows that are rare or grouped."""

import numpy as np
import pytest
from sklearn.metrics import f1_score, mean_squared_error

from classwise.metrics.optimism import (
    best_epoch,
    optimism,
    resampled_class_scores,
    resampled_means,
    resampled_regression_scores,
    too_few_units,
)
from classwise.metrics.outcomes import outcome_dtype, selection_optimism

MEAN_OF_THE_LARGEST = {2: 0.5642, 10: 1.5388}  # of as many standard normal numbers (Harter 1961)


@pytest.mark.parametrize("epochs", MEAN_OF_THE_LARGEST)
def test_among_equally_good_epochs_it_is_the_mean_of_the_largest(epochs: int) -> None:
    """Scores that are noise and nothing else, with resamples that vary as much: the best one is too good by the
    expectation of the largest of so many numbers."""
    rng = np.random.default_rng(0)
    estimates = []
    for _ in range(600):
        scores = rng.normal(size=epochs)
        resampled = scores + rng.normal(size=(200, epochs))
        estimates.append(optimism(scores, resampled, best_epoch))
    assert np.mean(estimates) == pytest.approx(MEAN_OF_THE_LARGEST[epochs], abs=0.05)


def test_where_one_epoch_is_far_ahead_there_is_none() -> None:
    """The choice is the same whatever the noise, so it is not lucky."""
    rng = np.random.default_rng(0)
    scores = np.array([0.5, 0.9, 0.6])
    resampled = scores + rng.normal(0, 0.02, (2000, 3))
    assert optimism(scores, resampled, best_epoch) < 0.002


def test_an_error_is_too_low() -> None:
    """Mirrored: the lowest error is chosen, and the optimism is positive again."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=10)
    resampled = scores + rng.normal(size=(500, 10))
    high = optimism(scores, resampled, best_epoch)
    low = optimism(-scores, -resampled, best_epoch, higher_is_better=False)
    assert low == high > 0.5


def test_of_equal_scores_the_first_is_taken() -> None:
    """As in training, where an epoch is the best only if it is better than all before it."""
    assert best_epoch(np.array([[0.2, 0.7, 0.7], [0.3, 0.1, 0.2]])).tolist() == [1, 0]


def drawn(rows: int = 200, epochs: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    true_N = rng.integers(0, 4, rows)
    predicted_EN = np.where(rng.random((epochs, rows)) < 0.7, true_N, rng.integers(0, 4, (epochs, rows)))
    return true_N, predicted_EN


def test_resampled_scores_are_centred_on_the_scores() -> None:
    """The mean over resamples is the score itself, as scikit-learn computes it, up to the bias of a ratio."""
    true_N, predicted_EN = drawn()
    found = resampled_class_scores("macro_f1", true_N, predicted_EN, 4, None, seed=0, resamples=2000)
    assert found.shape == (2000, 4)
    expected = [f1_score(true_N, predicted_N, average="macro") for predicted_N in predicted_EN]
    assert found.mean(axis=0) == pytest.approx(expected, abs=0.005)


def test_the_variance_is_not_too_small_where_classes_are() -> None:
    """Two rows a class: drawing two of two would show half of the variance. The accuracy of rows that are right with a
    probability of .5 has a variance of .25 / N."""
    rng = np.random.default_rng(2)
    variances = []
    for _ in range(200):
        true_N = np.repeat(np.arange(10), 2)
        predicted_EN = np.where(rng.random((1, 20)) < 0.5, true_N, (true_N + 1) % 10)
        found = resampled_class_scores("accuracy", true_N, predicted_EN, 10, None, seed=0, resamples=100)
        variances.append(found.var(ddof=1))
    assert np.mean(variances) == pytest.approx(0.25 / 20, rel=0.1)


def test_a_single_row_of_a_class_varies_like_rows_of_other_classes() -> None:
    """Its class is right in one epoch and wrong in the other. On another row it would not have to be so."""
    true_N = np.array([0] * 50 + [1])
    hits_N = np.arange(50) % 2 == 0
    predicted_EN = np.array([[*np.where(hits_N, 0, 1), 1], [*np.where(hits_N, 1, 0), 0]])
    found = resampled_class_scores("macro_recall", true_N, predicted_EN, 2, None, seed=0, resamples=400)
    # The recall of the rare class is 0 or 1 with a probability of 1/2, and half of the macro average.
    assert found.std(axis=0) == pytest.approx([0.25, 0.25], abs=0.03)


def test_the_only_group_of_a_class_varies_like_groups_of_other_classes() -> None:
    """Half of each group of ten rows is right: no group differs from another, and so would not this one."""
    true_N = np.array([0] * 200 + [1] * 10)
    groups = np.arange(210) // 10
    half_N = np.where(np.arange(210) % 2 == 0, true_N, 1 - true_N)
    found = resampled_class_scores("macro_recall", true_N, half_N[None], 2, groups, seed=0, resamples=200)
    assert found.std() < 1e-12
    # All rows of a group are right or wrong together: the recall of the class of one group is 0 or 1.
    whole_N = np.where(groups % 2 == 0, true_N, 1 - true_N)
    found = resampled_class_scores("macro_recall", true_N, whole_N[None], 2, groups, seed=0, resamples=400)
    assert found.std() == pytest.approx(0.26, abs=0.03)


def test_classes_that_differ_are_no_variance() -> None:
    """Each class is always right or always wrong, so another row of the rare one says nothing new."""
    true_N = np.array([0] * 20 + [1] * 20 + [2])
    predicted_N = np.where(true_N == 1, 0, true_N)
    found = resampled_class_scores("macro_recall", true_N, predicted_N[None], 3, None, seed=0, resamples=200)
    assert found.std() < 1e-12


def test_of_a_larger_group_as_many_rows_count() -> None:
    """The mean of ten independent rows varies less than the single row that they stand for."""
    rng = np.random.default_rng(4)
    true_N = np.array([0] * 1000 + [1])
    groups = np.arange(1001) // 10
    right_N = np.where(rng.random(1001) < 0.5, true_N, 1 - true_N)
    found = resampled_class_scores("macro_recall", true_N, right_N[None], 2, groups, seed=0, resamples=400)
    assert found.std() == pytest.approx(0.25, abs=0.03)


def test_where_there_is_too_little_to_go_by() -> None:
    """Few units in all; a class with one group that no groups of its size can stand for."""
    true_N = np.repeat([0, 1], [390, 10])
    assert too_few_units("macro_f1", true_N, 2, np.arange(400) // 10) == ""
    assert too_few_units("macro_f1", true_N, 2, np.arange(400) // 40).startswith(
        "10 validation groups of rows, and at least 40"
    )
    assert too_few_units("mse", np.zeros(39), 0, None) == "39 validation rows, and at least 40 are needed"
    assert too_few_units("mse", np.zeros(40), 0, None) == ""
    small = np.where(true_N == 1, 999, np.arange(400) // 2)
    expected = (
        "a class has a single group of 10 validation rows, and 0 groups of other classes can stand for it"
    )
    assert too_few_units("macro_f1", true_N, 2, small).startswith(expected)
    assert too_few_units("log_loss", true_N, 2, small) == ""
    # Groups of 40 classes with one each: none shows what another one would be.
    each = np.repeat(np.arange(40), 5)
    assert "0 groups of other classes" in too_few_units("accuracy", each, 40, each)


def test_groups_are_drawn_whole() -> None:
    """Ten copies of every row in one group: ten times the rows, and still as uncertain as the groups."""
    true_N, predicted_EN = drawn(100)
    groups = [f"g{row}" for row in range(100)] * 10
    arguments = (np.tile(true_N, 10), np.tile(predicted_EN, 10), 4)
    grouped = resampled_class_scores("accuracy", *arguments, groups, seed=0, resamples=1000)
    alone = resampled_class_scores("accuracy", true_N, predicted_EN, 4, None, seed=0, resamples=1000)
    rows = resampled_class_scores("accuracy", *arguments, None, seed=0, resamples=1000)
    assert grouped.std(axis=0) == pytest.approx(alone.std(axis=0), rel=0.1)
    assert rows.std(axis=0) == pytest.approx(alone.std(axis=0) / 10**0.5, rel=0.1)


def test_a_prior_weights_every_resample() -> None:
    """At the shares of the rows nothing changes; at a share of nearly 1 the score is that class's alone."""
    true_N, predicted_EN = drawn()
    shares = np.bincount(true_N) / len(true_N)
    plain = resampled_class_scores("accuracy", true_N, predicted_EN, 4, None, seed=0, resamples=50)
    same = resampled_class_scores(
        "accuracy", true_N, predicted_EN, 4, None, seed=0, resamples=50, shares=shares
    )
    assert same == pytest.approx(plain, abs=1e-12)
    first = [1 - 3e-9, 1e-9, 1e-9, 1e-9]
    one = resampled_class_scores(
        "accuracy", true_N, predicted_EN, 4, None, seed=0, resamples=2000, shares=first
    )
    recall = (predicted_EN == true_N)[:, true_N == 0].mean(axis=1)
    assert one.mean(axis=0) == pytest.approx(recall, abs=0.01)


def test_numbers_and_means_of_rows() -> None:
    """Errors of a regression, and statistics whose mean is the score."""
    rng = np.random.default_rng(3)
    true_N, error_EN = rng.normal(size=300), rng.normal(size=(3, 300))
    found = resampled_regression_scores("mse", true_N, error_EN, None, seed=0, resamples=2000)
    expected = [mean_squared_error(true_N, true_N + error_N) for error_N in error_EN]
    assert found.mean(axis=0) == pytest.approx(expected, abs=0.02)
    assert found.std(axis=0) == pytest.approx((error_EN**2).std(axis=1) / 300**0.5, rel=0.1)
    means = resampled_means(error_EN**2, None, seed=0, resamples=2000)
    assert means == pytest.approx(found, abs=1e-12)


def test_rows_without_a_label_count_for_nothing() -> None:
    """They are recorded with the others, and left out here."""
    true_N, predicted_EN = drawn()
    scores_E = np.array([0.5, 0.6, 0.55, 0.58])
    some_N = np.arange(200) % 3 > 0

    def estimate(true: np.ndarray, predicted: np.ndarray) -> float:
        return selection_optimism(
            "macro_f1", true, predicted, scores_E, 4, None, seed=0, resamples=100, higher_is_better=True
        )

    masked = estimate(np.where(some_N, true_N, -1), predicted_EN)
    assert masked == estimate(true_N[some_N], predicted_EN[:, some_N]) > 0


@pytest.mark.parametrize(
    ("metric", "type", "classes", "bytes"),
    [
        ("macro_f1", "class", 10, 1),
        ("accuracy", "joint", 18, 1),
        ("macro_f1_at_prior", "class", 256, 1),
        ("kappa", "class", 257, 2),
        ("macro_f1", "joint", 40_000, 4),
        ("quadratic_kappa", "ordinal", 5, 1),
        ("log_loss", "class", 10, 4),
        ("rmse", "regression", 0, 4),
        ("calibration_error", "class", 10, None),
        ("map", "multilabel", 5, None),
        ("ndcg", "ranking", 0, None),
    ],
)
def test_a_row_takes_few_bytes(metric: str, type: str, classes: int, bytes: int | None) -> None:
    """None where the score is no function of what could be kept in so little room."""
    dtype = outcome_dtype(metric, type, classes)
    assert (None if dtype is None else dtype.itemsize) == bytes
