"""Random numbers as functions of their place."""

import itertools

import numpy as np
import pytest
import torch

from classwise import randomness
from classwise.randomness import AUGMENT, ORDER, generator, mixed_seed, torch_seed


def test_the_same_place_gives_the_same_numbers():
    """A generator has no history: asking twice gives the same draws, whatever was drawn in between."""
    first = generator(42, ORDER, 3, 7).random(5)
    generator(42, ORDER, 3, 8).random(1000)
    np.testing.assert_array_equal(generator(42, ORDER, 3, 7).random(5), first)


def test_it_is_philox_with_the_place_in_the_counter():
    """The draws are numpy's Philox with key = seed and counter = [0, stream, a, b]: a format, not a detail."""
    expected = np.random.Generator(np.random.Philox(key=5, counter=[0, AUGMENT, 11, 13])).random(4)
    np.testing.assert_array_equal(generator(5, AUGMENT, 11, 13).random(4), expected)


def test_streams_do_not_overlap():
    """Neighbouring seeds, streams and places share no draw, even a long way on."""
    places = itertools.product((0, 1), range(5), (0, 1), (0, 1))
    draws = np.concatenate([generator(*place).integers(0, 2**63, 500) for place in places])
    assert len(np.unique(draws)) == len(draws)


def test_every_use_has_its_own_number():
    """Two uses with one number would share their draws."""
    numbers = [randomness.ORDER, randomness.AUGMENT, randomness.DROPOUT, randomness.SPLIT, randomness.WEIGHTS]
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize("place", [(0, 0, 0, 0), (2**63 - 1, 4, 2**40, 2**63)])
def test_seeds_for_torch_fit(place):
    """A torch generator takes every seed, the largest ones of a config among them."""
    seed = torch_seed(*place)
    assert 0 <= seed < 2**63
    torch.Generator().manual_seed(seed)
    assert seed == torch_seed(*place)


def test_seeds_for_torch_differ_by_place():
    """Each update and each rank has its own seed."""
    seeds = {torch_seed(1, randomness.DROPOUT, update, rank) for update in range(50) for rank in range(4)}
    assert len(seeds) == 200


def test_the_global_generators_stay():
    """Neither numpy's nor torch's global generator moves."""
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    generator(1, ORDER).random(10)
    torch_seed(1, ORDER)
    np.testing.assert_array_equal(np.random.get_state()[1], before[0])
    assert torch.equal(torch.get_rng_state(), before[1])


def test_mixed_seeds_differ_by_every_number() -> None:
    """No two places share a seed, and half of the bits change from one to the next."""
    places = [(s, 2, a, b, c) for s in range(3) for a in range(40) for b in range(6) for c in range(6)]
    seeds = [mixed_seed(*place) for place in places]
    assert len(set(seeds)) == len(places)
    assert all(0 <= seed < 2**63 for seed in seeds)
    changed = [(one ^ other).bit_count() for one, other in itertools.pairwise(seeds)]
    assert 30 < sum(changed) / len(changed) < 33
