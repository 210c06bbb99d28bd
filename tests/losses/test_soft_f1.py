"""Soft macro F1 against loops over rows and classes, and against the F1 that it softens."""

import math

import pytest
import torch
from sklearn.metrics import f1_score

from classwise.errors import ConfigError
from classwise.losses.normalizer import Normalizer
from classwise.losses.soft_f1 import SoftMacroF1


def by_formula(
    logits: list[list[float]], labels: list[int]
) -> tuple[float, list[tuple[float, float, float]]]:
    """1 - mean soft F1 over the classes in `labels`, and each class's TP, FP and FN."""
    counts = []
    for k in range(len(logits[0])):
        tp = fp = fn = 0.0
        for row, label in zip(logits, labels, strict=True):
            if label == -1:
                continue
            p = math.exp(row[k]) / sum(math.exp(x) for x in row)
            if label == k:
                tp += p
                fn += 1 - p
            else:
                fp += p
        counts.append((tp, fp, fn))
    scores = [2 * tp / (2 * tp + fp + fn) for k, (tp, fp, fn) in enumerate(counts) if k in labels]
    return 1 - sum(scores) / len(scores), counts


def test_equals_the_loops() -> None:
    """Random batches with unlabeled rows and absent classes equal the definition written out."""
    draw = torch.Generator().manual_seed(3)
    for _ in range(50):
        logits_BK = 3 * torch.randn(6, 5, generator=draw, dtype=torch.float64)
        labels_B = torch.randint(-1, 5, (6,), generator=draw)
        labels_B[0] = 2
        expected, counts = by_formula(logits_BK.tolist(), labels_B.tolist())
        assert any(abs(fp - fn) > 0.1 for _, fp, fn in counts)
        assert SoftMacroF1(5)(logits_BK, labels_B).item() == pytest.approx(expected, rel=1e-12)


def test_certain_predictions_give_the_hard_f1() -> None:
    """Where the probabilities are 0 and 1 the loss is 1 - macro F1 over the classes of the labels."""
    truth, predicted = [0, 0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 0, 3, 2]
    logits_BK = 1000 * torch.nn.functional.one_hot(torch.tensor(predicted), 4).double()
    expected = 1 - f1_score(truth, predicted, labels=[0, 1, 2], average="macro")
    assert SoftMacroF1(4)(logits_BK, torch.tensor(truth)).item() == pytest.approx(expected, rel=1e-12)


def test_absent_classes_do_not_shrink_the_gradient() -> None:
    """Classes without labels and without probability change neither value nor gradient."""
    small_BK = torch.tensor([[1.0, 0.3], [0.2, 0.1]], dtype=torch.float64, requires_grad=True)
    padding = torch.full((2, 6), -1000.0, dtype=torch.float64)
    large_BK = torch.cat([small_BK.detach(), padding], dim=1).requires_grad_()
    labels_B = torch.tensor([0, 1])
    small, large = SoftMacroF1(2)(small_BK, labels_B), SoftMacroF1(8)(large_BK, labels_B)
    small.backward()
    large.backward()
    torch.testing.assert_close(small, large)
    torch.testing.assert_close(small_BK.grad, large_BK.grad[:, :2])


def test_probability_for_an_absent_class_is_penalized() -> None:
    """The logit of a class without labels is pushed down."""
    logits_BK = torch.zeros(2, 3, requires_grad=True)
    SoftMacroF1(3)(logits_BK, torch.tensor([0, 1])).backward()
    assert (logits_BK.grad[:, 2] > 0).all()


def test_another_normalizer_is_refused() -> None:
    """A normalizer that differs from the batch's means accumulation, which this loss cannot do."""
    loss, logits_BK, labels_B = SoftMacroF1(3), torch.randn(4, 3), torch.tensor([0, 1, 2, -1])
    assert loss.additive is False
    own = loss.normalizer(labels_B)
    assert own.tolist() == [3.0]
    assert torch.equal(loss(logits_BK, labels_B, own), loss(logits_BK, labels_B))
    with pytest.raises(
        ValueError, match="not a sum over samples and cannot be accumulated: this batch has 3 "
    ):
        loss(logits_BK, labels_B, own + Normalizer([4.0]))


def test_other_numbers_of_classes_are_refused() -> None:
    """Logits of 18 classes for a loss of 3 are refused, and so is a loss without classes."""
    with pytest.raises(ValueError, match="18 classes; this loss was made for 3"):
        SoftMacroF1(3)(torch.zeros(2, 18), torch.tensor([0, 1]))
    with pytest.raises(ConfigError, match="classes: found 0"):
        SoftMacroF1(0)
