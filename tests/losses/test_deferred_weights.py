"""Deferred re-weighting: unweighted before an epoch, weighted from it on."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from classwise.errors import ConfigError
from classwise.losses.criterion import Criterion
from classwise.losses.cross_entropy import CrossEntropy
from classwise.losses.focal import Focal
from classwise.losses.gce import GeneralizedCrossEntropy
from classwise.losses.ldam import LDAM
from classwise.losses.weighted_sum import WeightedSum

LOGITS_BK = torch.randn(6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
LABELS_B = torch.tensor([0, 1, 2, -1, 1, 1])
WEIGHT_K = torch.tensor([1.0, 0.25, 4.0])
COUNTS_K = torch.tensor([50, 200, 5])
LOSSES: dict[str, Callable[[Tensor | None, int], nn.Module]] = {
    "cross entropy": lambda weight_K, start: CrossEntropy(weight_K, 0.1, start),
    "focal": lambda weight_K, start: Focal(2.0, weight_K, start),
    "gce": lambda weight_K, start: GeneralizedCrossEntropy(0.7, weight_K, start),
    "ldam": lambda weight_K, start: LDAM(COUNTS_K, 0.5, 3.0, weight_K, start),
}
every_loss = pytest.mark.parametrize("make", LOSSES.values(), ids=LOSSES.keys())


def same(first: nn.Module, second: nn.Module) -> bool:
    """Whether value and normalizer are the same, with hard and, where they are accepted, soft labels."""
    soft_BK = torch.full((6, 3), 0.3, dtype=torch.float64)
    targets = [LABELS_B, soft_BK] if first.soft_targets else [LABELS_B]
    return all(
        torch.equal(first(LOGITS_BK, labels), second(LOGITS_BK, labels))
        and first.normalizer(labels).tolist() == second.normalizer(labels).tolist()
        for labels in targets
    )


@every_loss
def test_weights_apply_from_their_epoch(make: Callable[[Tensor | None, int], nn.Module]) -> None:
    """With weights from epoch 4, three epochs are unweighted (also before `set_epoch`), the fourth is not."""
    loss, plain, weighted = make(WEIGHT_K, 4), make(None, 1), make(WEIGHT_K, 1)
    assert not same(plain, weighted)
    assert same(loss, plain)
    for epoch in range(3):
        loss.set_epoch(epoch)
        assert same(loss, plain)
    for epoch in (3, 4, 30):
        loss.set_epoch(epoch)
        assert same(loss, weighted)


@every_loss
def test_only_the_epoch_decides_after_a_resume(make: Callable[[Tensor | None, int], nn.Module]) -> None:
    """Only the current epoch decides: a new loss set to epoch 7 is weighted, set back to 0 it is unweighted."""
    loss = make(WEIGHT_K, 4)
    loss.set_epoch(7)
    assert same(loss, make(WEIGHT_K, 1))
    loss.set_epoch(0)
    assert same(loss, make(None, 1))


def test_sums_and_criteria_pass_the_epoch_on() -> None:
    """The epoch reaches losses inside a sum inside a criterion, next to losses that do not depend on it."""
    inner = WeightedSum([Focal(2.0, WEIGHT_K, 2), CrossEntropy()], [1.0, 0.5])
    criterion = Criterion({"a": inner, "b": CrossEntropy(WEIGHT_K, 0.0, 3)}, {"a": 1.0, "b": 1.0})
    targets = {"a": LABELS_B, "b": LABELS_B}
    normalizers = []
    for epoch in range(3):
        criterion.set_epoch(epoch)
        normalizers.append(criterion.normalizer(targets).tolist())
    assert normalizers == [[5, 5, 5], [5.75, 5, 5], [5.75, 5, 5.75]]


@every_loss
@pytest.mark.parametrize("start", [0, -3])
def test_epochs_count_from_one(make: Callable[[Tensor | None, int], nn.Module], start: int) -> None:
    """An epoch before the first one is refused by its key."""
    with pytest.raises(ConfigError, match="weights_from_epoch: found"):
        make(WEIGHT_K, start)
