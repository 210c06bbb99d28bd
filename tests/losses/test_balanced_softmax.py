"""Balanced softmax against the paper's equation written out."""

import math

import pytest
import torch
import torch.nn.functional as F

from classwise.errors import ConfigError
from classwise.losses.balanced_softmax import BalancedSoftmax


def test_equals_the_equation() -> None:
    """The loss is -log(n_y e^z_y / sum n_k e^z_k), averaged over the labeled rows."""
    counts = [600, 47, 6]
    logits = torch.randn(8, 3, dtype=torch.float64)
    labels = [0, 1, 2, -1, 2, 0, -1, 1]
    rows = []
    for row, label in zip(logits.tolist(), labels, strict=True):
        if label != -1:
            scaled = [n * math.exp(z) for n, z in zip(counts, row, strict=True)]
            rows.append(-math.log(scaled[label] / sum(scaled)))
    actual = BalancedSoftmax(torch.tensor(counts))(logits, torch.tensor(labels))
    assert actual.item() == pytest.approx(sum(rows) / len(rows), rel=1e-12)


def test_equal_counts_give_cross_entropy() -> None:
    """With balanced classes it is plain cross entropy."""
    logits_BK, labels_B = torch.randn(5, 4, dtype=torch.float64), torch.tensor([0, 3, 2, 1, 1])
    actual = BalancedSoftmax(torch.tensor([9, 9, 9, 9]))(logits_BK, labels_B)
    torch.testing.assert_close(actual, F.cross_entropy(logits_BK, labels_B))


def test_a_class_without_rows_counts_as_one() -> None:
    """An absent class stays in the softmax: the loss is finite, and its logit is pushed down."""
    logits_BK = torch.zeros(2, 3, requires_grad=True)
    loss = BalancedSoftmax(torch.tensor([5, 0, 2]))
    assert torch.equal(loss.log_prior, BalancedSoftmax(torch.tensor([5, 1, 2])).log_prior)
    loss(logits_BK, torch.tensor([0, 2])).backward()
    assert (logits_BK.grad[:, 1] > 0).all()


@pytest.mark.parametrize("counts", [[0, 0], [3, -1], [[1, 2]], [1.0, float("nan")]])
def test_invalid_counts_are_refused(counts: list[float]) -> None:
    """Counts that are negative, not finite, all 0 or not one per class are refused."""
    with pytest.raises(ConfigError, match="counts: found"):
        BalancedSoftmax(torch.tensor(counts))
