"""What processes send each other, here between one and its twin; tests/faults starts real ones."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from classwise import collectives
from classwise.distributed import Processes


@pytest.fixture(autouse=True)
def twins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes of which both compute the same."""

    def gather_from_both(tensor: Tensor) -> list[Tensor]:
        return [tensor, tensor.clone()]

    monkeypatch.setattr(collectives, "_all_gather", gather_from_both)


def merged(model: nn.Module, used: bool) -> dict[str, Any]:
    """The buffers after the merge, where this process has called the model once, or not."""
    buffers = list(model.buffers())
    before = [buffer.clone() for buffer in buffers]
    if used:
        model(torch.randn(6, 4, generator=torch.Generator().manual_seed(1)))
    Processes(rank=0, world_size=2).merge_statistics(model, buffers, before, batches=1)
    return dict(model.named_buffers())


def norm_with_statistics() -> nn.Module:
    """A batch norm that has seen something, in numbers that rounding would change."""
    model = nn.Sequential(nn.BatchNorm1d(4))
    for seed in range(3):
        model(torch.randn(5, 4, generator=torch.Generator().manual_seed(seed)))
    return model


def test_merged_statistics_are_those_of_two_batches_in_turn() -> None:
    model = norm_with_statistics()
    wanted = copy.deepcopy(model)
    for _ in range(2):
        wanted(torch.randn(6, 4, generator=torch.Generator().manual_seed(1)))
    found = merged(model, used=True)
    for name, value in wanted.named_buffers():
        assert torch.allclose(found[name], value, atol=1e-6), name


def test_statistics_of_a_norm_that_saw_nothing_keep_their_bytes() -> None:
    """Frozen batch norm, and a backbone that is not called while it is frozen."""
    model = norm_with_statistics()
    wanted = copy.deepcopy(dict(model.named_buffers()))
    found = merged(model, used=False)
    assert all(torch.equal(found[name], value) for name, value in wanted.items())

    model.eval()
    found = merged(model, used=True)
    assert all(torch.equal(found[name], value) for name, value in wanted.items())
