"""Soft labels: the loss and the normalizer of a mixture of two labels are the mixtures of those of the labels."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classwise.losses.balanced_softmax import BalancedSoftmax
from classwise.losses.corn import Corn
from classwise.losses.criterion import Criterion
from classwise.losses.cross_entropy import CrossEntropy
from classwise.losses.focal import Focal
from classwise.losses.gce import GeneralizedCrossEntropy
from classwise.losses.ldam import LDAM
from classwise.losses.logit_adjustment import LogitAdjustment
from classwise.losses.multilabel import Asymmetric, BinaryCrossEntropy, MultilabelFocal
from classwise.losses.normalizer import Normalizer
from classwise.losses.ranking import ListNet, PairwiseLogistic
from classwise.losses.regression import SquaredError
from classwise.losses.soft_f1 import SoftMacroF1
from classwise.losses.weighted_sum import WeightedSum

COUNTS_K = torch.tensor([40, 3, 0, 9])
WEIGHT_K = torch.tensor([0.2, 3.0, 1.0, 0.7], dtype=torch.float64)
OF_CLASSES: dict[str, Callable[[], nn.Module]] = {
    "cross entropy": CrossEntropy,
    "weighted, smoothed cross entropy": lambda: CrossEntropy(WEIGHT_K, 0.1),
    "focal": lambda: Focal(2.0, WEIGHT_K),
    "focal, gamma 0.5": lambda: Focal(0.5),
    "balanced softmax": lambda: BalancedSoftmax(COUNTS_K),
    "logit adjustment": lambda: LogitAdjustment(COUNTS_K, 1.5),
    "generalized cross entropy": lambda: GeneralizedCrossEntropy(0.7, WEIGHT_K),
    "corn": lambda: Corn(4),
    "sum": lambda: WeightedSum([Focal(), CrossEntropy(WEIGHT_K, 0.2)], [1.0, 0.5]),
}
OF_CELLS: dict[str, Callable[[], nn.Module]] = {
    "binary cross entropy": lambda: BinaryCrossEntropy(WEIGHT_K),
    "multilabel focal": lambda: MultilabelFocal(2.0, 0.25),
    "asymmetric": Asymmetric,
}
of_classes = pytest.mark.parametrize("make", OF_CLASSES.values(), ids=OF_CLASSES.keys())


def batch(loss: nn.Module, seed: int) -> tuple[Tensor, Tensor, Tensor, float]:
    """Outputs that fit `loss`, the labels of two sets of images, three in ten unknown, and their mixture."""
    draw = torch.Generator().manual_seed(seed)
    outputs = 2 * torch.randn(6, 3 if isinstance(loss, Corn) else 4, generator=draw, dtype=torch.float64)
    first_B, second_B = torch.randint(0, 4, (2, 6), generator=draw).masked_fill(
        torch.rand(2, 6, generator=draw) < 0.3, -1
    )
    return outputs, first_B, second_B, torch.rand((), generator=draw).item()


def shares(labels_B: Tensor) -> Tensor:
    """One-hot rows (B, 4); a row of 0 where the label is unknown."""
    return (labels_B.unsqueeze(1) == torch.arange(4)).double()


@of_classes
def test_soft_labels_give_the_mixture_of_the_losses(make: Callable[[], nn.Module]) -> None:
    """In 200 random cases sum, normalizer and gradient of lam a + (1 - lam) b are those of a and b, mixed."""
    loss = make()
    one = Normalizer([1.0] * loss.terms)
    assert loss.soft_targets
    for seed in range(200):
        outputs, first_B, second_B, lam = batch(loss, seed)
        soft_BK = lam * shares(first_B) + (1 - lam) * shares(second_B)
        normalizers = zip(loss.normalizer(first_B).tolist(), loss.normalizer(second_B).tolist(), strict=True)
        expected = [lam * first + (1 - lam) * second for first, second in normalizers]
        assert loss.normalizer(soft_BK).tolist() == pytest.approx(expected, rel=1e-12, abs=1e-14)
        soft_outputs, hard_outputs = (outputs.clone().requires_grad_() for _ in range(2))
        actual = loss(soft_outputs, soft_BK, one)
        expected = lam * loss(hard_outputs, first_B, one) + (1 - lam) * loss(hard_outputs, second_B, one)
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-14)
        actual.backward()
        expected.backward()
        torch.testing.assert_close(soft_outputs.grad, hard_outputs.grad, rtol=1e-11, atol=1e-13)


@of_classes
def test_one_hot_rows_are_hard_labels(make: Callable[[], nn.Module]) -> None:
    """Shares of 0 and 1 give the mean of hard labels, and a row of zeros is unlabeled and has no gradient."""
    loss = make()
    outputs, labels_B, _, _ = batch(loss, 3)
    outputs.requires_grad_()
    value = loss(outputs, shares(labels_B))
    torch.testing.assert_close(value, loss(outputs, labels_B), rtol=1e-13, atol=0)
    value.backward()
    assert not outputs.grad[labels_B == -1].any()


@of_classes
def test_gradient_of_soft_labels(make: Callable[[], nn.Module]) -> None:
    """The gradient in float64 equals finite differences, with partly unknown rows."""
    loss = make()
    outputs, first_B, second_B, lam = batch(loss, 5)
    soft_BK = lam * shares(first_B) + (1 - lam) * shares(second_B)
    assert torch.autograd.gradcheck(loss, (outputs.requires_grad_(), soft_BK))


@of_classes
def test_soft_labels_at_certainty(make: Callable[[], nn.Module]) -> None:
    """Certain logits, right or wrong, give finite values and gradients with soft labels in float32."""
    loss = make()
    outputs = torch.tensor([[1e4, -1e4, 0, 0], [-1e4, 1e4, 0, 0]])[:, : 3 if isinstance(loss, Corn) else 4]
    outputs.requires_grad_()
    value = loss(outputs, torch.tensor([[0.5, 0.5, 0, 0], [1.0, 0, 0, 0]]))
    value.backward()
    assert value.isfinite()
    assert outputs.grad.isfinite().all()


def test_cross_entropy_of_soft_labels_equals_torch() -> None:
    """Where every row sums to 1, torch's cross entropy of probabilities is the same, with smoothing."""
    draw = torch.Generator().manual_seed(1)
    logits_BK = torch.randn(5, 4, generator=draw, dtype=torch.float64)
    soft_BK = torch.rand(5, 4, generator=draw, dtype=torch.float64)
    soft_BK /= soft_BK.sum(dim=1, keepdim=True)
    expected = F.cross_entropy(logits_BK, soft_BK, label_smoothing=0.3)
    torch.testing.assert_close(CrossEntropy(None, 0.3)(logits_BK, soft_BK), expected, rtol=1e-13, atol=0)


@pytest.mark.parametrize("make", OF_CELLS.values(), ids=OF_CELLS.keys())
def test_mixed_cells_give_the_mixture_of_the_losses(make: Callable[[], nn.Module]) -> None:
    """In 200 random cases a cell between 0 and 1 has the mixture of both losses; if one is unknown, so is it."""
    loss = make()
    draw = torch.Generator().manual_seed(2)
    for _ in range(200):
        logits_BL = 2 * torch.randn(3, 4, generator=draw, dtype=torch.float64)
        first_BL, second_BL = torch.randint(0, 2, (2, 3, 4), generator=draw).double()
        unlabeled_BL = torch.rand(3, 4, generator=draw) < 0.3
        lam = torch.rand((), generator=draw).item()
        parts = [cells.masked_fill(unlabeled_BL, math.nan) for cells in (first_BL, second_BL)]
        mixed_BL = lam * parts[0] + (1 - lam) * second_BL
        expected = lam * loss(logits_BL, parts[0]) + (1 - lam) * loss(logits_BL, parts[1])
        torch.testing.assert_close(loss(logits_BL, mixed_BL), expected, rtol=1e-12, atol=1e-14)
        assert loss.normalizer(mixed_BL).tolist() == [float((~unlabeled_BL).sum())]


def test_which_losses_accept_soft_targets() -> None:
    """`soft_targets` says so; a sum or a criterion accepts them if all of its losses do."""
    hard = [LDAM(COUNTS_K), SoftMacroF1(4), PairwiseLogistic(), ListNet()]
    assert [loss.soft_targets for loss in hard] == [False] * 4
    assert SquaredError().soft_targets
    mixed = WeightedSum([CrossEntropy(), LDAM(COUNTS_K)], [1.0, 1.0])
    assert not mixed.soft_targets
    assert Criterion({"a": CrossEntropy()}, {"a": 1.0}).soft_targets
    assert not Criterion({"a": CrossEntropy(), "b": mixed}, {"a": 1.0, "b": 1.0}).soft_targets


@pytest.mark.parametrize("make", [lambda: LDAM(COUNTS_K), lambda: SoftMacroF1(4)])
def test_hard_label_losses_refuse_soft_ones(make: Callable[[], nn.Module]) -> None:
    """A loss that is not linear in the labels refuses shares instead of misreading them."""
    with pytest.raises(ValueError, match=r"labels \(B,\) of integers, -1 where unknown$"):
        make()(torch.zeros(2, 4), torch.full((2, 4), 0.25))


@of_classes
def test_soft_labels_of_other_shapes_are_refused(make: Callable[[], nn.Module]) -> None:
    """Shares of another number of classes, and integers in the shape of shares, are refused."""
    loss = make()
    outputs = batch(loss, 0)[0]
    for labels in (torch.zeros(6, 5), torch.zeros(6, 4, dtype=torch.long)):
        with pytest.raises(ValueError, match=r"soft labels (\(B, |of 5 classes)"):
            loss(outputs, labels)
