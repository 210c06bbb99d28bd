"""The initial weights, and the schedule of a config."""

from collections.abc import Callable

import torch

from classwise.compose.state import schedule_of
from tests.helpers.noisy_images import KIND, Scene


def test_initial_weights_follow_from_the_seed(scene: Callable[..., Scene]) -> None:
    """The same seed the same bytes, another seed other ones; torch's own generator is left alone."""
    state = torch.get_rng_state()
    one, two, other = (scene({"kind": KIND}, seed=seed).model.state_dict() for seed in (1, 1, 2))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert not torch.equal(one["backbone.stem.conv.weight"], other["backbone.stem.conv.weight"])
    assert not torch.equal(one["heads.0.weight"], other["heads.0.weight"])


def test_the_schedule_begins_after_the_frozen_epochs(scene: Callable[..., Scene]) -> None:
    """With 5 updates an epoch and 2 frozen epochs, the base rate holds for 10 updates, and falls in the next ones."""
    config = scene({"kind": KIND}, training={"epochs": 4, "freeze_epochs": 2}).config
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=config.optimizer.lr)
    schedule = schedule_of(config, optimizer, updates_per_epoch=5)
    rates = []
    for update in range(20):
        schedule.set(optimizer, update)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates[:10] == [config.optimizer.lr] * 10
    assert rates[11] < config.optimizer.lr
