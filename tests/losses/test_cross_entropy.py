"""Cross entropy against torch's own, and what the normalizer adds to it."""

import pytest
import torch
import torch.nn.functional as F

from classwise.errors import ConfigError
from classwise.losses.cross_entropy import CrossEntropy


def random_case(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, float]:
    """Logits, labels with masked rows (the first one is always labeled), weights and smoothing."""
    draw = torch.Generator().manual_seed(seed)
    rows, classes = (
        int(torch.randint(1, 20, (), generator=draw)),
        int(torch.randint(2, 9, (), generator=draw)),
    )
    logits_BK = 4 * torch.randn(rows, classes, generator=draw, dtype=torch.float64)
    labels_B = torch.randint(0, classes, (rows,), generator=draw)
    labels_B[1:][torch.rand(rows - 1, generator=draw) < 0.3] = -1
    weight_K = torch.rand(classes, generator=draw, dtype=torch.float64) + 0.1 if seed % 2 else None
    return logits_BK, labels_B, weight_K, (0.0, 0.1, 0.7)[seed % 3]


@pytest.mark.parametrize("start", range(0, 200, 50))
def test_equals_torch(start: int) -> None:
    """200 random cases: value and gradient are those of torch's mean, with weights, smoothing and masks."""
    for seed in range(start, start + 50):
        logits_BK, labels_B, weight_K, smoothing = random_case(seed)
        ours_BK, theirs_BK = (logits_BK.clone().requires_grad_() for _ in range(2))
        loss = CrossEntropy(weight_K, smoothing)(ours_BK, labels_B)
        reference = F.cross_entropy(theirs_BK, labels_B, weight_K, ignore_index=-1, label_smoothing=smoothing)
        loss.backward()
        reference.backward()
        torch.testing.assert_close(loss, reference, rtol=1e-13, atol=0)
        torch.testing.assert_close(ours_BK.grad, theirs_BK.grad, rtol=1e-12, atol=1e-16)


def test_normalizer_is_the_sum_of_the_weights() -> None:
    """The normalizer adds the weights of the labeled rows, in float64, as one number."""
    labels_B = torch.tensor([0, 2, 2, -1])
    weighted = CrossEntropy(torch.tensor([1.0, 10.0, 0.5])).normalizer(labels_B)
    assert weighted.tolist() == [2.0]
    assert CrossEntropy().normalizer(labels_B).tolist() == [3.0]


def test_given_normalizer_divides_the_sum() -> None:
    """A given normalizer replaces that of the batch."""
    logits_BK, labels_B, weight_K, smoothing = random_case(5)
    loss = CrossEntropy(weight_K, smoothing)
    own = loss.normalizer(labels_B)
    torch.testing.assert_close(loss(logits_BK, labels_B, sum([own] * 4)), loss(logits_BK, labels_B) / 4)


def test_labels_in_unsigned_bytes() -> None:
    """Class 255 in unsigned bytes is a class and not the ignored label -1."""
    loss = CrossEntropy()
    labels_B = torch.tensor([255, 0], dtype=torch.uint8)
    logits_BK = torch.randn(2, 256, dtype=torch.float64)
    assert loss.normalizer(labels_B).tolist() == [2.0]
    torch.testing.assert_close(loss(logits_BK, labels_B), F.cross_entropy(logits_BK, labels_B.long()))


@pytest.mark.parametrize("weight", [[1.0, -1.0], [1.0, float("nan")], [float("inf"), 1.0], [[1.0, 1.0]]])
def test_invalid_weights_are_refused(weight: list[float]) -> None:
    """Weights that are negative, not finite or not one per class are refused; the error shows them."""
    with pytest.raises(ConfigError, match="class weights: found"):
        CrossEntropy(torch.tensor(weight))


@pytest.mark.parametrize("smoothing", [-0.1, 1.1, float("nan")])
def test_invalid_smoothing_is_refused(smoothing: float) -> None:
    """The error names the key and the range."""
    with pytest.raises(ConfigError, match=r"label_smoothing: found .*allowed: 0 to 1"):
        CrossEntropy(label_smoothing=smoothing)
