"""The draws that intervals are made from: their sums, their spread, and the design effects of groups."""

import numpy as np
import pytest

from classwise.metrics.posterior import design_effects, draw_confusions, draw_labels, draw_rates, independent
from classwise.randomness import BOOTSTRAP, generator

CONFUSION = np.array([[30, 5, 0], [2, 3, 0], [0, 0, 4]])


@pytest.mark.parametrize("ordinal", [False, True])
def test_draws_add_up(ordinal: bool) -> None:
    """Predicted rows are as many as true ones, hits at most either; distances are those of whole levels."""
    ones = np.ones(3)
    drawn = draw_confusions(CONFUSION, ones, ones, seed=0, draws=500, ordinal=ordinal)
    np.testing.assert_allclose(drawn.predicted.sum(axis=1), drawn.support.sum(axis=1), rtol=1e-9)
    assert (drawn.hits >= 0).all()
    assert (drawn.hits <= drawn.support + 1e-9).all()
    assert (drawn.hits <= drawn.predicted + 1e-9).all()
    if ordinal:
        missed_R = (drawn.support - drawn.hits).sum(axis=1)
        assert (drawn.distance >= missed_R - 1e-9).all()
        assert (drawn.square <= 4 * missed_R + 1e-9).all()


def test_draws_center_on_the_counts() -> None:
    """A hundred times as many rows: hits, true and predicted rows within a few percent, and their spread with them."""
    ones = np.ones(3)
    drawn = draw_confusions(100 * CONFUSION, ones, ones, seed=0, draws=2000)
    for values, expected in (
        (drawn.hits, [30, 3, 4]),
        (drawn.support, [35, 5, 4]),
        (drawn.predicted, [32, 8, 4]),
    ):
        assert values.mean(axis=0) / 100 == pytest.approx(expected, rel=0.02)
    assert drawn.support.std(axis=0) == pytest.approx([3500**0.5, 500**0.5, 400**0.5], rel=0.1)


def test_a_class_without_rows_stays_empty() -> None:
    """It has no true row in any draw, but may be predicted; a single class is all that there is."""
    drawn = draw_confusions(np.diag([5, 0, 5]), np.ones(3), np.ones(3), seed=0, draws=100)
    assert (drawn.support[:, 1] == 0).all()
    assert (drawn.hits[:, 1] == 0).all()
    assert drawn.predicted[:, 1].max() > 0
    single = draw_confusions(np.array([[7]]), np.ones(1), np.ones(1), seed=0, draws=10)
    np.testing.assert_allclose(single.predicted, single.support)


def test_rare_classes_borrow_from_the_others() -> None:
    """Two correct rows of a class beside classes of 95 %: its rate is likelier high than beside classes of 20 %."""
    others = np.full(6, 100.0)
    near_95 = draw_rates(
        np.append(95 * others / 100, 2), np.append(5 * others / 100, 0), generator(0, BOOTSTRAP), 2000
    )
    near_20 = draw_rates(
        np.append(20 * others / 100, 2), np.append(80 * others / 100, 0), generator(0, BOOTSTRAP), 2000
    )
    assert np.median(near_95[:, -1]) > 0.93
    assert np.median(near_20[:, -1]) < 0.5


def test_design_effects_of_copies_and_of_independent_rows() -> None:
    """Copies of a row in one group are worth one row; rows put into groups at random are worth one each; hits that
    differ by group are in between."""
    rng = np.random.default_rng(0)
    true_U, is_hit_U = rng.integers(0, 2, 500), rng.random(500) < 0.7
    copies = design_effects(true_U.repeat(6), is_hit_U.repeat(6), np.arange(500).repeat(6), 2)
    for effect_K in (copies.within, copies.whole, copies.shares):
        assert effect_K == pytest.approx([6, 6], rel=0.05)

    true_N, unit_N = rng.integers(0, 2, 3000), np.arange(3000) // 6
    alone = design_effects(true_N, rng.random(3000) < 0.7, unit_N, 2)
    for effect_K in (alone.within, alone.whole, alone.shares):
        assert effect_K == pytest.approx([1, 1], abs=0.35)

    rate_U = rng.beta(1.4, 0.6, 500)  # correlation 1 / 3 within a group
    similar = design_effects(true_N, rng.random(3000) < rate_U[unit_N], unit_N, 2)
    assert similar.whole == pytest.approx([1 + 5 / 3] * 2, rel=0.1)
    assert similar.within == pytest.approx([1 + 2.5 / 3] * 2, rel=0.1)


def test_groups_that_have_every_class_fix_the_shares() -> None:
    """With as many rows of each class in each group, the shares do not vary."""
    true_N, unit_N = np.arange(300) % 3, np.arange(300) // 3
    effects = design_effects(true_N, np.ones(300, dtype=bool), unit_N, 3)
    assert effects.shares == pytest.approx([0, 0, 0], abs=1e-9)


def test_labels_center_on_the_counts() -> None:
    """Recalls and false positives of many cells, within a few percent."""
    counts_2L2 = 100 * np.array([[[60, 4], [80, 2]], [[10, 26], [6, 12]]], dtype=float)
    hits_RL, support_RL, predicted_RL = draw_labels(counts_2L2, np.ones((2, 2)), np.ones(2), 0, 2000)
    assert hits_RL.mean(axis=0) / 100 == pytest.approx([26, 12], rel=0.02)
    assert support_RL.mean(axis=0) / 100 == pytest.approx([36, 18], rel=0.02)
    assert predicted_RL.mean(axis=0) / 100 == pytest.approx([30, 14], rel=0.02)
    assert independent(2).whole.tolist() == [1, 1]
    assert independent(2).shares.tolist() == [0.6, 0.6]  # between stratified and random draws of rows
