"""Row weights: a row of weight 3 is three rows, whatever the loss, the class weights and the micro-batches."""

import math

import pytest
import torch
from torch import Tensor

from classwise.data.weighting import weighted_labels
from classwise.losses.criterion import Criterion
from classwise.losses.normalizer import Normalizer
from tests.properties.test_accumulation import CLASSES, LOSSES, OUTPUTS, random_weight

ROWS = 13
WEIGHTED = [
    (type, name)
    for type, losses in LOSSES.items()
    for name, make in losses.items()
    if make(torch.ones(CLASSES)).soft_targets
]


def labels_of(type: str, draw: torch.Generator) -> Tensor:
    """Labels of some rows, a few of them unknown."""
    unknown_B = torch.rand(ROWS, generator=draw) < 0.2
    if type in ("class", "ordinal"):
        return torch.randint(0, CLASSES, (ROWS,), generator=draw).masked_fill(unknown_B, -1)
    if type == "multilabel":
        cells_BL = torch.rand(ROWS, CLASSES, generator=draw).round().double()
        return cells_BL.masked_fill(torch.rand(ROWS, CLASSES, generator=draw) < 0.2, math.nan)
    return (3 * torch.randn(ROWS, generator=draw, dtype=torch.float64)).masked_fill(unknown_B, math.nan)


def criterion_of(type: str, name: str) -> Criterion:
    return Criterion({"it": LOSSES[type][name](random_weight(CLASSES, 1))}, {"it": 0.7}).double()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("type", "name"), WEIGHTED, ids=[name for _, name in WEIGHTED])
def test_a_weight_is_a_number_of_copies(type: str, name: str, training: bool) -> None:
    """Value and gradient are those of the table in which each row stands as often as its weight says."""
    draw = torch.Generator().manual_seed(4)
    labels = labels_of(type, draw)
    outputs = torch.randn(ROWS, OUTPUTS[type], generator=draw, dtype=torch.float64, requires_grad=True)
    weights_B = torch.tensor([3, 0, 1, 2, 1, 0, 4, 1, 1, 2, 3, 1, 5], dtype=torch.float64)
    criterion = criterion_of(type, name).train(training)

    copies = torch.repeat_interleave(torch.arange(ROWS), weights_B.long())
    expected = criterion({"it": outputs[copies]}, {"it": labels[copies]})
    (expected_gradient,) = torch.autograd.grad(expected, outputs)

    classes = CLASSES if type in ("class", "ordinal") else None
    weighted = weighted_labels(labels, weights_B, classes)
    found = criterion({"it": outputs}, {"it": weighted})
    (gradient,) = torch.autograd.grad(found, outputs)
    # Shares are in single precision, as all labels in training.
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("type", "name"), WEIGHTED, ids=[name for _, name in WEIGHTED])
def test_accumulation_is_exact(type: str, name: str) -> None:
    """Micro-batches of 6, 2 and 5 rows, divided by the normalizer of all of them."""
    draw = torch.Generator().manual_seed(5)
    labels = labels_of(type, draw)
    outputs = torch.randn(ROWS, OUTPUTS[type], generator=draw, dtype=torch.float64, requires_grad=True)
    weights_B = torch.rand(ROWS, generator=draw, dtype=torch.float64) * 3
    criterion = criterion_of(type, name)
    weighted = weighted_labels(labels, weights_B, CLASSES if type in ("class", "ordinal") else None)
    (whole,) = torch.autograd.grad(criterion({"it": outputs}, {"it": weighted}), outputs)

    sizes = [6, 2, 5]
    parts = weighted.split(sizes)
    normalizer = sum(
        (criterion.normalizer({"it": part}) for part in parts), start=Normalizer([0.0] * criterion.terms)
    )
    total = sum(
        criterion({"it": some}, {"it": part}, normalizer)
        for some, part in zip(outputs.split(sizes), parts, strict=True)
    )
    (summed,) = torch.autograd.grad(total, outputs)
    torch.testing.assert_close(summed, whole, rtol=1e-12, atol=1e-14)


def test_weights_of_1_change_nothing() -> None:
    """The same value as without weights, for every loss that takes them."""
    for type, name in WEIGHTED:
        draw = torch.Generator().manual_seed(6)
        labels = labels_of(type, draw)
        outputs = torch.randn(ROWS, OUTPUTS[type], generator=draw, dtype=torch.float64)
        classes = CLASSES if type in ("class", "ordinal") else None
        weighted = weighted_labels(labels, torch.ones(ROWS, dtype=torch.float64), classes)
        criterion = criterion_of(type, name)
        torch.testing.assert_close(
            criterion({"it": outputs}, {"it": weighted}), criterion({"it": outputs}, {"it": labels})
        )
