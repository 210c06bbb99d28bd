"""The order of an epoch: a function of (seed, epoch), with the classes in the proportion asked for."""

import random

import numpy as np
import pytest
import torch

from classwise.data.sampling import epoch_order
from classwise.errors import ConfigError

COUNTS = np.array([600, 97, 30, 6, 1])
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(5), COUNTS))
SAMPLINGS = ("shuffle", "balanced", "sqrt")


def drawn(sampling: str, epoch: int = 0, labels: np.ndarray = LABELS, seed: int = 42) -> np.ndarray:
    return epoch_order(sampling, labels, seed, epoch)


def test_shuffle_takes_every_row_once():
    """A permutation, and not the order of the table."""
    order = drawn("shuffle")
    np.testing.assert_array_equal(np.sort(order), np.arange(len(LABELS)))
    assert (order != np.arange(len(LABELS))).mean() > 0.95


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_an_epoch_has_as_many_rows_as_the_table(sampling):
    """Whatever the sampling: so the number of updates, and the schedule, do not hang on it."""
    order = drawn(sampling)
    assert order.shape == LABELS.shape
    assert order.dtype == np.int64
    assert order.min() >= 0
    assert order.max() < len(LABELS)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_the_order_is_a_function_of_seed_and_epoch(sampling):
    """Asked again after other epochs, other tables and other generators, it is the same; another epoch or
    another seed gives another."""
    first = drawn(sampling, epoch=3)
    for other in (drawn(sampling, epoch=4), drawn(sampling, epoch=3, seed=43)):
        assert not np.array_equal(first, other)
    np.random.seed(0)
    drawn(sampling, labels=LABELS[:50])
    np.testing.assert_array_equal(drawn(sampling, epoch=3), first)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_the_global_generators_stay(sampling):
    """numpy's, Python's and torch's."""
    before = np.random.get_state()[1].copy(), random.getstate(), torch.get_rng_state()
    drawn(sampling)
    np.testing.assert_array_equal(np.random.get_state()[1], before[0])
    assert random.getstate() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])


@pytest.mark.parametrize(("sampling", "power"), [("balanced", 0.0), ("sqrt", 0.5)])
def test_classes_come_in_proportion(sampling, power):
    """Every class within one draw of its quota, in every epoch: equally often, or as the root of its count."""
    quotas = COUNTS**power / (COUNTS**power).sum() * len(LABELS)
    for epoch in range(20):
        found = np.bincount(LABELS[drawn(sampling, epoch)], minlength=5)
        assert np.abs(found - quotas).max() < 1


@pytest.mark.parametrize("sampling", ["balanced", "sqrt"])
def test_quotas_are_right_on_average(sampling):
    """The fractions of a draw fall to each class in turn: over many epochs nobody gains."""
    labels = np.repeat(np.arange(7), [9, 5, 4, 2, 1, 1, 1])
    weights = np.bincount(labels) ** (0.0 if sampling == "balanced" else 0.5)
    mean = np.mean(
        [np.bincount(labels[drawn(sampling, e, labels)], minlength=7) for e in range(2000)], axis=0
    )
    # The standard error of the mean of a draw that is up or down by less than one.
    np.testing.assert_allclose(mean, weights / weights.sum() * len(labels), atol=5 * 0.5 / 2000**0.5)


@pytest.mark.parametrize("sampling", ["balanced", "sqrt"])
def test_the_rows_of_a_class_are_used_evenly(sampling):
    """No row twice more often than another of its class, and all of them over the epochs."""
    total = np.zeros(len(LABELS))
    for epoch in range(30):
        uses = np.bincount(drawn(sampling, epoch), minlength=len(LABELS))
        for k in range(5):
            assert np.ptp(uses[k == LABELS]) <= 1
        total += uses
    assert total.min() > 0


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_classes_are_mixed(sampling):
    """The order is shuffled as a whole: no class comes in a block."""
    order = LABELS[drawn(sampling)]
    for k in range(2):
        first, second = np.array_split(order == k, 2)
        # Three standard deviations of a half's count, if the order is random.
        assert abs(int(first.sum()) - int(second.sum())) < 3 * (order == k).sum() ** 0.5 + 1


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_classes_without_rows_and_fewer_rows_than_classes(sampling):
    """A label list longer than the data, or an epoch too short for every class, is no trouble."""
    gaps = np.array([7, 0, 7, 0, 7])
    assert set(drawn(sampling, labels=gaps).tolist()) <= set(range(5))
    for epoch in range(5):
        assert len(drawn(sampling, epoch, np.arange(3))) == 3
        np.testing.assert_array_equal(np.sort(drawn(sampling, epoch, np.arange(3))), np.arange(3))


def test_another_sampling_is_refused():
    """The key, what was found, what is allowed."""
    with pytest.raises(ConfigError) as caught:
        drawn("oversample")
    assert str(caught.value) == "data.sampling: found 'oversample', allowed: shuffle, balanced, sqrt"
