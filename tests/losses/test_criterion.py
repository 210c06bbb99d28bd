"""Weighted sums of losses, and the criterion that joins the heads."""

import pytest
import torch
from torch import nn

from classwise.errors import ConfigError
from classwise.losses.criterion import Criterion
from classwise.losses.cross_entropy import CrossEntropy
from classwise.losses.focal import Focal
from classwise.losses.soft_f1 import SoftMacroF1
from classwise.losses.weighted_sum import WeightedSum

LOGITS_BK = torch.randn(6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
LABELS_B = torch.tensor([0, 1, 2, -1, 1, 1])
WEIGHT_K = torch.tensor([1.0, 0.25, 4.0])


def test_weighted_sum_adds_its_parts() -> None:
    """The value is the weighted sum of the parts' own means, which have different masses."""
    parts = [Focal(2.0, WEIGHT_K), CrossEntropy(label_smoothing=0.1)]
    loss = WeightedSum(parts, [0.7, 0.3])
    expected = 0.7 * parts[0](LOGITS_BK, LABELS_B) + 0.3 * parts[1](LOGITS_BK, LABELS_B)
    torch.testing.assert_close(loss(LOGITS_BK, LABELS_B), expected, rtol=1e-14, atol=0)
    assert loss.mass(LABELS_B).tolist() == [5.75, 5.0]


def test_weighted_sums_nest() -> None:
    """A sum inside a sum keeps one mass for each of its terms."""
    inner = WeightedSum([CrossEntropy(WEIGHT_K), Focal()], [1.0, 2.0])
    outer = WeightedSum([Focal(1.0), inner], [1.0, 0.5])
    assert (inner.terms, outer.terms) == (2, 3)
    assert outer.mass(LABELS_B).tolist() == [5.0, 5.75, 5.0]
    expected = Focal(1.0)(LOGITS_BK, LABELS_B) + 0.5 * inner(LOGITS_BK, LABELS_B)
    torch.testing.assert_close(outer(LOGITS_BK, LABELS_B), expected, rtol=1e-14, atol=0)


def test_one_part_that_is_not_additive_makes_the_whole_so() -> None:
    """Soft F1 inside a sum inside a criterion is seen from outside, and refuses a window's mass."""
    mixed = WeightedSum([CrossEntropy(), SoftMacroF1(3)], [1.0, 1.0])
    criterion = Criterion({"a": CrossEntropy(), "b": mixed}, {"a": 1.0, "b": 1.0})
    assert WeightedSum([CrossEntropy(), Focal()], [1.0, 1.0]).additive
    assert not mixed.additive
    assert not criterion.additive
    outputs, targets = dict.fromkeys("ab", LOGITS_BK), dict.fromkeys("ab", LABELS_B)
    criterion(outputs, targets, criterion.mass(targets))
    with pytest.raises(ValueError, match="cannot be accumulated"):
        criterion(outputs, targets, 2 * criterion.mass(targets))


def test_criterion_adds_its_heads() -> None:
    """The value is the weighted sum over the heads, each divided by its own mass."""
    losses = {"mask": CrossEntropy(WEIGHT_K), "age": Focal()}
    criterion = Criterion(losses, {"age": 0.5, "mask": 2.0})
    outputs = {"mask": LOGITS_BK, "age": -LOGITS_BK}
    targets = {"mask": LABELS_B, "age": LABELS_B.flip(0)}
    expected = 2 * losses["mask"](LOGITS_BK, LABELS_B) + 0.5 * losses["age"](-LOGITS_BK, LABELS_B.flip(0))
    torch.testing.assert_close(criterion(outputs, targets), expected, rtol=1e-14, atol=0)
    assert criterion.mass(targets).tolist() == [5.75, 5.0]
    assert criterion.names == ("mask", "age")
    assert criterion.additive


def test_a_head_without_labels_adds_nothing() -> None:
    """A head whose rows are all masked gives 0 and no gradient, beside one that counts."""
    criterion = Criterion({"a": CrossEntropy(), "b": Focal()}, {"a": 1.0, "b": 1.0})
    outputs = {name: LOGITS_BK.clone().requires_grad_() for name in "ab"}
    targets = {"a": LABELS_B, "b": torch.full_like(LABELS_B, -1)}
    value = criterion(outputs, targets)
    value.backward()
    torch.testing.assert_close(value, CrossEntropy()(LOGITS_BK, LABELS_B))
    assert not outputs["b"].grad.any()


@pytest.mark.parametrize("name", ["type", "a.b", "", "나이", 'it\'s "x"', "forward"])
def test_any_text_names_a_head(name: str) -> None:
    """Head names may hold any characters, also those that an nn.ModuleDict refuses."""
    criterion = Criterion({name: CrossEntropy(WEIGHT_K)}, {name: 1.0})
    assert criterion({name: LOGITS_BK}, {name: LABELS_B}).isfinite()
    assert list(criterion.state_dict()) == ["losses.0.weight"]


def test_missing_heads_are_named() -> None:
    """Outputs or targets without one of the heads raise with the head's name."""
    criterion = Criterion({"age": CrossEntropy()}, {"age": 1.0})
    with pytest.raises(ValueError, match=r"targets: no entry for \['age'\]; found \['mask'\]"):
        criterion({"age": LOGITS_BK}, {"mask": LABELS_B})
    with pytest.raises(ValueError, match=r"targets: no entry for \['age'\]"):
        criterion.mass({})
    with pytest.raises(ValueError, match=r"outputs: no entry for \['age'\]"):
        criterion({}, {"age": LABELS_B})


def test_losses_without_a_mass_are_refused() -> None:
    """An ordinary torch loss cannot be accumulated exactly, and is refused when the criterion is made."""
    with pytest.raises(TypeError, match="loss of head 'age': CrossEntropyLoss needs"):
        Criterion({"age": nn.CrossEntropyLoss()}, {"age": 1.0})
    with pytest.raises(TypeError, match="weighted sum of losses: CrossEntropyLoss needs"):
        WeightedSum([nn.CrossEntropyLoss()], [1.0])


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [1.0, float("nan")]])
def test_bad_weights_of_a_sum_are_refused(weights: list[float]) -> None:
    """One finite weight >= 0 for each loss."""
    with pytest.raises(ConfigError, match="weight"):
        WeightedSum([CrossEntropy(), Focal()], weights)
    with pytest.raises(ConfigError, match="weight"):
        Criterion({"a": CrossEntropy(), "b": Focal()}, dict(zip("ab", weights, strict=False)))


def test_empty_sums_are_refused() -> None:
    """A sum of nothing has no gradient to train with."""
    with pytest.raises(ConfigError, match="0 losses"):
        WeightedSum([], [])
    with pytest.raises(ConfigError, match="0 losses"):
        Criterion({}, {})
