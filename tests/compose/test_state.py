"""The initial weights."""

from collections.abc import Callable

import torch

from tests.helpers.noisy_images import KIND, Scene


def test_initial_weights_follow_from_the_seed(scene: Callable[..., Scene]) -> None:
    """The same seed the same bytes, another seed other ones; torch's own generator is left alone."""
    state = torch.get_rng_state()
    one, two, other = (scene({"kind": KIND}, seed=seed).model.state_dict() for seed in (1, 1, 2))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert not torch.equal(one["backbone.stem.conv.weight"], other["backbone.stem.conv.weight"])
    assert not torch.equal(one["heads.0.weight"], other["heads.0.weight"])
