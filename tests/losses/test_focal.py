"""Focal loss against the paper's formula written out, and its gradient where the formula breaks down."""

import math

import pytest
import torch

from classwise.errors import ConfigError
from classwise.losses.cross_entropy import CrossEntropy
from classwise.losses.focal import Focal


def by_formula(logits: list[list[float]], labels: list[int], gamma: float, weights: list[float]) -> float:
    """Equation 5 of the paper, row by row, with the softmax's probability of the true class."""
    total = normalizer = 0.0
    for row, label in zip(logits, labels, strict=True):
        if label == -1:
            continue
        p = math.exp(row[label]) / sum(math.exp(x) for x in row)
        total += -weights[label] * (1 - p) ** gamma * math.log(p)
        normalizer += weights[label]
    return total / normalizer


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0, 2.0, 5.0])
def test_equals_the_formula(gamma: float) -> None:
    """Random batches equal the formula written out in plain Python."""
    draw = torch.Generator().manual_seed(7)
    for _ in range(20):
        logits_BK = 2 * torch.randn(9, 5, generator=draw, dtype=torch.float64)
        labels_B = torch.randint(-1, 5, (9,), generator=draw)
        labels_B[0] = 3
        weight_K = torch.rand(5, generator=draw, dtype=torch.float64) + 0.1
        expected = by_formula(logits_BK.tolist(), labels_B.tolist(), gamma, weight_K.tolist())
        assert Focal(gamma, weight_K)(logits_BK, labels_B).item() == pytest.approx(expected, rel=1e-11)


def test_gamma_zero_is_weighted_cross_entropy() -> None:
    """With gamma 0 value and gradient are those of weighted cross entropy."""
    weight_K = torch.tensor([0.5, 2.0, 1.0], dtype=torch.float64)
    labels_B = torch.tensor([0, 1, -1, 2, 1])
    first_BK = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    second_BK = first_BK.detach().clone().requires_grad_()
    Focal(0.0, weight_K)(first_BK, labels_B).backward()
    CrossEntropy(weight_K)(second_BK, labels_B).backward()
    torch.testing.assert_close(first_BK.grad, second_BK.grad, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("gamma", [0.1, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("lead", [20.0, 40.0, 200.0, -40.0, -200.0])
def test_gradient_at_certainty(gamma: float, lead: float) -> None:
    """At p near 1 and near 0 the float32 gradient is finite and that of the formula's limit.

    With q = 1 - p the derivative after the true class's logit is q^gamma (gamma p log p - q).
    """
    logits_BK = torch.tensor([[lead, 0.0]], requires_grad=True)
    Focal(gamma)(logits_BK, torch.tensor([0])).backward()
    log_p, q = -math.log1p(math.exp(-lead)), 1 / (1 + math.exp(lead))
    expected = q**gamma * (gamma * math.exp(log_p) * log_p - q)
    assert logits_BK.grad[0, 0].item() == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_a_single_class_has_no_loss() -> None:
    """With a single class p is 1 and the loss 0, with a finite gradient."""
    logits_BK = torch.randn(3, 1, requires_grad=True)
    value = Focal(2.0)(logits_BK, torch.tensor([0, 0, -1]))
    value.backward()
    assert value.item() == 0
    assert not logits_BK.grad.any()


@pytest.mark.parametrize("gamma", [-1.0, float("nan"), float("inf")])
def test_invalid_gamma_is_refused(gamma: float) -> None:
    """The error names the key and the range."""
    with pytest.raises(ConfigError, match="gamma: found"):
        Focal(gamma)
