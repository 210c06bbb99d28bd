"""Likely label errors: planted ones come first, better than by the probability of the label alone; rows without a label
or probabilities do not count; the estimates of how many are wrong are near the truth."""

from typing import Any

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import average_precision_score

from classwise.datacheck import noise_model
from classwise.datacheck.label_errors import (
    FEW_ROWS,
    error_pairs,
    merge_rankings,
    rank_classes,
    rank_flags,
    rank_levels,
    rare_class_warning,
)
from classwise.datacheck.noise_model import fit_noise_model

COUNTS = (400, 200, 100, 50)


def probabilities(seed: int, share: float, pairs: bool, sharp: float = 2.0) -> tuple[Any, Any, Any]:
    """Probabilities as of an unsure model, labels with planted errors, and the true classes: of four classes, where
    class 0 is called 1, and so on, or any other."""
    rng = np.random.default_rng(seed)
    true_N = np.repeat(np.arange(4), COUNTS)
    logits_NK = sharp * np.eye(4)[true_N] + rng.normal(size=(len(true_N), 4))
    is_wrong_N = rng.random(len(true_N)) < share
    other_N = (true_N + (1 if pairs else rng.integers(1, 4, len(true_N)))) % 4
    return softmax(logits_NK, axis=1), np.where(is_wrong_N, other_N, true_N), true_N


def precision_of(ranking: Any, true_N: Any) -> float:
    return float(average_precision_score(ranking.given != true_N[ranking.rows], ranking.score))


@pytest.mark.parametrize(("pairs", "gain"), [(True, 0.05), (False, -0.02)])
def test_planted_errors_rank_as_high_as_by_self_confidence_or_higher(pairs: bool, gain: float) -> None:
    """Mean of five draws: higher where pairs of classes are confused, and no less otherwise."""
    ours, plain = [], []
    for seed in range(5):
        probabilities_NK, label_N, true_N = probabilities(seed, 0.1, pairs)
        ours.append(precision_of(rank_classes(probabilities_NK, label_N), true_N))
        own_N = probabilities_NK[np.arange(len(label_N)), label_N]
        plain.append(average_precision_score(label_N != true_N, -own_N))
    assert np.mean(ours) >= np.mean(plain) + gain


@pytest.mark.parametrize("share", [0.02, 0.1, 0.2])
@pytest.mark.parametrize("pairs", [True, False])
def test_as_many_are_wrong_as_expected(pairs: bool, share: float) -> None:
    """Of the first 30 and of all, over five draws: within a fifth of the rows."""
    for count in (30, sum(COUNTS)):
        expected, wrong = [], []
        for seed in range(5):
            probabilities_NK, label_N, true_N = probabilities(seed, share, pairs, sharp=4)
            ranking = rank_classes(probabilities_NK, label_N)
            expected.append(ranking.expected_errors(count))
            wrong.append((ranking.given != true_N[ranking.rows])[:count].sum())
        assert abs(np.mean(expected) - np.mean(wrong)) < 0.2 * min(count, 100)


def test_rows_without_errors_and_a_sure_model_expect_none() -> None:
    true_N = np.repeat(np.arange(3), 100)
    ranking = rank_classes(0.97 * np.eye(3)[true_N] + 0.01, true_N)
    assert ranking.expected_errors(300) < 3


def test_the_proposed_class_is_the_true_one() -> None:
    """Of those that are wrong, and would be visible, nearly always."""
    probabilities_NK, label_N, true_N = probabilities(0, 0.1, pairs=True, sharp=5)
    ranking = rank_classes(probabilities_NK, label_N)
    is_wrong_M = ranking.given != true_N[ranking.rows]
    assert (ranking.proposed == true_N[ranking.rows])[is_wrong_M].mean() > 0.9
    assert (ranking.proposed != ranking.given).all()


def test_pairs_of_classes_are_counted() -> None:
    """Each class is called the next one; the first pair has about 40 of its 400 rows."""
    probabilities_NK, label_N, true_N = probabilities(1, 0.1, pairs=True, sharp=5)
    first, *_ = error_pairs(rank_classes(probabilities_NK, label_N, "animal"))
    planted = ((true_N == 0) & (label_N == 1)).sum()
    assert (first.target, first.true, first.given) == ("animal", 0, 1)
    assert first.expected == pytest.approx(planted, rel=0.25)


def test_rows_without_label_or_probabilities_are_not_ranked() -> None:
    """And change nothing for the others, which keep their row numbers."""
    probabilities_NK, label_N, _ = probabilities(2, 0.1, pairs=False)
    expected = rank_classes(probabilities_NK, label_N)
    more_NK = np.concatenate(
        [np.full((1, 4), np.nan), probabilities_NK[:1], np.zeros((1, 4)), probabilities_NK]
    )
    found = rank_classes(more_NK, np.concatenate([[1], [-1], [0], label_N]))
    np.testing.assert_array_equal(found.rows - 3, expected.rows)
    np.testing.assert_array_equal(found.wrong, expected.wrong)


def test_probabilities_need_not_sum_to_one() -> None:
    probabilities_NK, label_N, _ = probabilities(3, 0.1, pairs=False)
    expected, found = rank_classes(probabilities_NK, label_N), rank_classes(8 * probabilities_NK, label_N)
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_allclose(found.score, expected.score)


def test_a_far_error_ranks_before_a_near_one() -> None:
    """Two wrong labels of levels 0 to 3, one off by one and one by three; as classes, both are equally wrong."""
    true_N = np.repeat(np.arange(4), 50)
    probabilities_NK = 0.96 * np.eye(4)[true_N] + 0.01
    label_N = true_N.copy()
    label_N[0], label_N[1] = 1, 3
    levels, classes = rank_levels(probabilities_NK, label_N), rank_classes(probabilities_NK, label_N)
    assert levels.rows[:2].tolist() == [1, 0]
    assert levels.proposed[:2].tolist() == [0, 0]
    assert levels.score[0] > 2 * levels.score[1]
    assert classes.score[0] == pytest.approx(classes.score[1])


def test_labels_of_a_multilabel_target_are_ranked_one_by_one() -> None:
    """A label that is missing, and one that is too many; flags that are unknown are left out."""
    rng = np.random.default_rng(0)
    flags_NL = (rng.random((200, 3)) < (0.5, 0.3, 0.1)).astype(int)
    probabilities_NL = 0.94 * flags_NL + 0.03
    missing, too_many = np.flatnonzero(flags_NL[:, 0] == 1)[0], np.flatnonzero(flags_NL[:, 2] == 0)[0]
    flags_NL[missing, 0], flags_NL[too_many, 2] = 0, 1
    flags_NL[5, 1] = -1
    ranking = rank_flags(probabilities_NL, flags_NL, ["cat", "dog", "bird"])
    first = {(int(row), str(name)) for row, name in zip(ranking.rows[:2], ranking.targets[:2], strict=True)}
    assert first == {(missing, "cat"), (too_many, "bird")}
    assert len(ranking.rows) == 599
    assert set(ranking.given + ranking.proposed) == {1}


def test_several_targets_make_one_list() -> None:
    """A row is in it once for each target, by the same score as alone."""
    rankings = [rank_classes(*probabilities(seed, 0.1, True)[:2], f"target {seed}") for seed in range(2)]
    merged = merge_rankings(rankings)
    assert len(merged.rows) == 2 * sum(COUNTS)
    assert (np.diff(merged.score) <= 0).all()
    for ranking in rankings:
        is_of_it_M = merged.targets == ranking.targets[0]
        np.testing.assert_array_equal(merged.rows[is_of_it_M], ranking.rows)
        np.testing.assert_array_equal(merged.wrong[is_of_it_M], ranking.wrong)


@pytest.mark.parametrize("rank", [rank_classes, rank_levels])
@pytest.mark.parametrize(
    ("probabilities_NK", "labels"),
    [
        (np.ones((3, 1)), [0, 0, 0]),
        ([[0.9, 0.1], [0.2, 0.8]], [0, 1]),
        ([[0.9, 0.1]], [1]),
        ([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0], [0.5, 0.5, 0.0]], [0, 0, 2]),
        (np.zeros((0, 3)), []),
        ([[0.5, 0.5]], [-1]),
    ],
)
def test_tiny_inputs_are_ranked(rank: Any, probabilities_NK: Any, labels: Any) -> None:
    """One class, two rows, one row, a class with one row and no probability, and nothing."""
    ranking = rank(probabilities_NK, labels)
    assert sorted(ranking.rows) == [row for row, label in enumerate(labels) if label >= 0]
    assert np.isfinite(ranking.wrong).all()
    assert ((ranking.wrong >= 0) & (ranking.wrong <= 1)).all()
    assert error_pairs(ranking) is not None


def test_a_single_class_cannot_be_wrong() -> None:
    assert rank_classes(np.ones((3, 1)), [0, 0, 0]).expected_errors(3) == 0
    assert merge_rankings([]).expected_errors(3) == 0


@pytest.mark.parametrize(
    ("probabilities_NK", "labels", "message"),
    [
        (np.ones((3, 2)), [0, 1], r"\(3, 2\) and labels \(2,\)"),
        (np.ones(3), [0, 1, 0], r"\(3,\) and labels"),
        (np.ones((2, 2)), [0, 2], "class 2 and probabilities of 2 classes"),
        ([[-1.0, 3.0]], [0], "logits have to go through a softmax"),
    ],
)
def test_what_is_no_probability_of_these_labels_is_refused(
    probabilities_NK: Any, labels: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        rank_classes(probabilities_NK, labels)


def test_other_numbers_of_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="2 labels; allowed"):
        rank_flags(np.ones((2, 3)), np.ones((2, 3)), ["cat", "dog"])


def test_the_noise_of_drawn_labels_is_estimated() -> None:
    """Calibrated probabilities, a fifth of the labels wrong, each class called the next one: the rate within 0.02, the
    pairs within 0.05, no temperature."""
    rng = np.random.default_rng(0)
    probabilities_NK = softmax(3 * rng.normal(size=(20_000, 3)), axis=1)
    true_N = (probabilities_NK.cumsum(axis=1) < rng.random((20_000, 1))).sum(axis=1)
    label_N = np.where(rng.random(20_000) < 0.2, (true_N + 1) % 3, true_N)
    model = fit_noise_model(probabilities_NK, label_N, by_pair=True)
    assert model.error_rate == pytest.approx(0.2, abs=0.02)
    assert model.temperature == pytest.approx(1, abs=0.05)
    np.testing.assert_allclose(model.called_KK, np.roll(np.eye(3), 1, axis=1), atol=0.05)
    alike = fit_noise_model(probabilities_NK, label_N, by_pair=False)
    np.testing.assert_allclose(alike.called_KK, (1 - np.eye(3)) / 2)


def test_overconfident_probabilities_are_tempered() -> None:
    """Their logits are three times too large."""
    rng = np.random.default_rng(0)
    logits_NK = 2 * rng.normal(size=(20_000, 3))
    true_N = (softmax(logits_NK, axis=1).cumsum(axis=1) < rng.random((20_000, 1))).sum(axis=1)
    model = fit_noise_model(softmax(3 * logits_NK, axis=1), true_N, by_pair=True)
    assert model.temperature == pytest.approx(1 / 3, abs=0.03)


def test_large_sets_are_fitted_by_a_part_of_their_rows(monkeypatch: Any) -> None:
    """All are ranked, in almost the same order."""
    probabilities_NK, label_N, true_N = probabilities(4, 0.1, pairs=True, sharp=4)
    whole = precision_of(rank_classes(probabilities_NK, label_N), true_N)
    monkeypatch.setattr(noise_model, "FITTED_CELLS", 4 * 250)
    part = rank_classes(probabilities_NK, label_N)
    assert len(part.rows) == 750
    assert precision_of(part, true_N) == pytest.approx(whole, abs=0.05)


def test_a_warning_goes_with_rare_classes_only() -> None:
    assert rare_class_warning("boot", FEW_ROWS) is None
    assert "6 rows: each one that is removed takes 17 %" in str(rare_class_warning("boot", 6))
    assert "removing it loses the class" in str(rare_class_warning("boot", 1))
