"""Heads: from raw outputs to decoded outputs and classes."""

import json
import math

import numpy as np
import pytest
import torch

from classwise.model.heads import (
    ClassHead,
    Head,
    MultilabelHead,
    OrdinalHead,
    RankingHead,
    RegressionHead,
    head_as_dict,
    head_from_dict,
)


def test_class_head_adds_its_adjustment_if_any() -> None:
    """Post-hoc adjustment is added to the logits, and changes the largest one."""
    logits = torch.tensor([[2.0, 1.0], [0.5, 0.4]])
    assert torch.equal(ClassHead(2).decode(logits), logits)
    adjusted = ClassHead(2, (-math.log(0.9), -math.log(0.1))).decode(logits)
    assert adjusted.argmax(dim=1).tolist() == [1, 1]
    assert ClassHead(2).predicted(logits).tolist() == [0, 0]


def test_class_head_has_no_prediction_without_a_finite_logit() -> None:
    """NaN, +inf, or -inf for every class gives -1; -inf for a single class does not."""
    nan, inf = math.nan, math.inf
    rows = torch.tensor([[nan, 1.0], [inf, 0.0], [-inf, -inf], [-inf, 3.0]])
    assert ClassHead(2).predicted(rows).tolist() == [-1, -1, -1, 1]


def test_ordinal_probabilities_are_the_products_of_the_conditionals() -> None:
    """Against a plain loop: P(y > k) is the product of the first k + 1 sigmoids, and levels are its steps."""
    rng = np.random.default_rng(1)
    for _ in range(50):
        levels = int(rng.integers(2, 7))
        outputs = rng.normal(0, 2, (4, levels - 1))
        head = OrdinalHead(levels)
        decoded = head.decode(torch.tensor(outputs))
        for row, actual in zip(outputs, decoded.exp().numpy(), strict=True):
            above = [1.0]
            for logit in row:
                above.append(above[-1] / (1 + math.exp(-logit)))
            above.append(0.0)
            expected = [above[k] - above[k + 1] for k in range(levels)]
            assert actual == pytest.approx(expected, abs=1e-12)
            assert actual.sum() == pytest.approx(1, abs=1e-12)
        median = [sum(np.cumprod(1 / (1 + np.exp(-row))) > 0.5) for row in outputs]
        assert head.predicted(decoded).tolist() == median


def test_ordinal_head_has_no_prediction_for_nan() -> None:
    """A NaN anywhere in the row gives -1."""
    head = OrdinalHead(3)
    assert head.predicted(
        head.decode(torch.tensor([[math.nan, 1.0], [1.0, math.nan], [1.0, 1.0]]))
    ).tolist() == [
        -1,
        -1,
        2,
    ]


def test_regression_head_uses_the_users_unit_and_its_edges() -> None:
    """Value = output * std + mean; the class is numpy's digitize."""
    head = RegressionHead(40.0, 10.0, (30.0, 60.0))
    decoded = head.decode(torch.tensor([[-1.0], [0.0], [2.0], [-2.0], [math.nan]]))
    assert decoded.dtype == torch.float64
    assert decoded[:4].tolist() == [30.0, 40.0, 60.0, 20.0]
    assert head.predicted(decoded).tolist() == [1, 1, 2, 0, -1]
    assert head.classes == 3
    assert RegressionHead(0.0, 1.0).classes == 0


@pytest.mark.parametrize(
    "head",
    [
        ClassHead(3),
        ClassHead(2, (0.5, 1.5)),
        OrdinalHead(4),
        MultilabelHead(5),
        RegressionHead(1.5, 2.0, (1.0,)),
        RankingHead(),
    ],
)
def test_heads_survive_json(head: Head) -> None:
    """The JSON in a checkpoint gives the same head again."""
    assert head_from_dict(json.loads(json.dumps(head_as_dict(head)))) == head


def test_heads_without_classes_refuse_to_predict_one() -> None:
    """`predicted` of a multilabel or ranking head raises ValueError."""
    for head in (MultilabelHead(2), RankingHead()):
        with pytest.raises(ValueError, match="not"):
            head.predicted(torch.zeros(1, 2))
        assert head.classes == 0
