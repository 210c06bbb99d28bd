"""Weighted sums of losses, and the criterion that joins the heads."""

import math

import pytest
import torch
from torch import nn

from classwise.errors import ConfigError
from classwise.losses.criterion import Criterion
from classwise.losses.cross_entropy import CrossEntropy
from classwise.losses.focal import Focal
from classwise.losses.regression import Huber, SquaredError
from classwise.losses.soft_f1 import SoftMacroF1
from classwise.losses.weighted_sum import WeightedSum

LOGITS_BK = torch.randn(6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
LABELS_B = torch.tensor([0, 1, 2, -1, 1, 1])
WEIGHT_K = torch.tensor([1.0, 0.25, 4.0])


def test_weighted_sum_adds_its_losses() -> None:
    """The value is the weighted sum of the losses' own means, which have different normalizers."""
    parts = [Focal(2.0, WEIGHT_K), CrossEntropy(label_smoothing=0.1)]
    loss = WeightedSum(parts, [0.7, 0.3])
    expected = 0.7 * parts[0](LOGITS_BK, LABELS_B) + 0.3 * parts[1](LOGITS_BK, LABELS_B)
    torch.testing.assert_close(loss(LOGITS_BK, LABELS_B), expected, rtol=1e-14, atol=0)
    assert loss.normalizer(LABELS_B).tolist() == [5.75, 5.0]


def test_weighted_sums_nest() -> None:
    """A sum inside a sum keeps one normalizer for each of its terms."""
    inner = WeightedSum([CrossEntropy(WEIGHT_K), Focal()], [1.0, 2.0])
    outer = WeightedSum([Focal(1.0), inner], [1.0, 0.5])
    assert (inner.terms, outer.terms) == (2, 3)
    assert outer.normalizer(LABELS_B).tolist() == [5.0, 5.75, 5.0]
    expected = Focal(1.0)(LOGITS_BK, LABELS_B) + 0.5 * inner(LOGITS_BK, LABELS_B)
    torch.testing.assert_close(outer(LOGITS_BK, LABELS_B), expected, rtol=1e-14, atol=0)


def test_one_loss_that_is_not_additive_makes_the_criterion_so() -> None:
    """Soft F1 inside a sum inside a criterion makes the criterion not additive, and refuses an update's normalizer."""
    mixed = WeightedSum([CrossEntropy(), SoftMacroF1(3)], [1.0, 1.0])
    criterion = Criterion({"a": CrossEntropy(), "b": mixed}, {"a": 1.0, "b": 1.0})
    assert WeightedSum([CrossEntropy(), Focal()], [1.0, 1.0]).additive
    assert not mixed.additive
    assert not criterion.additive
    outputs, targets = dict.fromkeys("ab", LOGITS_BK), dict.fromkeys("ab", LABELS_B)
    criterion(outputs, targets, criterion.normalizer(targets))
    with pytest.raises(ValueError, match="cannot be accumulated"):
        criterion(outputs, targets, sum([criterion.normalizer(targets)] * 2))


def test_criterion_adds_its_heads() -> None:
    """The value is the weighted sum over the heads, each divided by its own normalizer."""
    losses = {"mask": CrossEntropy(WEIGHT_K), "age": Focal()}
    criterion = Criterion(losses, {"age": 0.5, "mask": 2.0})
    outputs = {"mask": LOGITS_BK, "age": -LOGITS_BK}
    targets = {"mask": LABELS_B, "age": LABELS_B.flip(0)}
    expected = 2 * losses["mask"](LOGITS_BK, LABELS_B) + 0.5 * losses["age"](-LOGITS_BK, LABELS_B.flip(0))
    torch.testing.assert_close(criterion(outputs, targets), expected, rtol=1e-14, atol=0)
    assert criterion.normalizer(targets).tolist() == [5.75, 5.0]
    assert criterion.names == ("mask", "age")
    assert criterion.additive


def test_only_what_is_the_same_for_every_labeled_batch_is_kept() -> None:
    """Beside a head whose normalizer is the row count, one with class weights is counted anew in each batch."""
    losses = {"mask": CrossEntropy(), "age": CrossEntropy(WEIGHT_K)}
    criterion = Criterion(losses, {"mask": 1.0, "age": 1.0})
    for label, weight in enumerate(WEIGHT_K.tolist()):
        labels_B = torch.full((4,), label)
        normalizer = criterion.normalizer({"mask": labels_B, "age": labels_B}, complete=True)
        assert normalizer.tolist() == [4.0, 4 * weight]


def test_a_head_without_labels_adds_nothing() -> None:
    """A head whose rows are all unlabeled adds 0 and no gradient to a head with labels."""
    criterion = Criterion({"a": CrossEntropy(), "b": Focal()}, {"a": 1.0, "b": 1.0})
    outputs = {name: LOGITS_BK.clone().requires_grad_() for name in "ab"}
    targets = {"a": LABELS_B, "b": torch.full_like(LABELS_B, -1)}
    value = criterion(outputs, targets)
    value.backward()
    torch.testing.assert_close(value, CrossEntropy()(LOGITS_BK, LABELS_B))
    assert not outputs["b"].grad.any()


@pytest.mark.parametrize("name", ["type", "a.b", "", "나이", 'it\'s "x"', "forward"])
def test_any_text_can_name_a_head(name: str) -> None:
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
        criterion.normalizer({})
    with pytest.raises(ValueError, match=r"outputs: no entry for \['age'\]"):
        criterion({}, {"age": LABELS_B})


def test_losses_without_a_normalizer_are_refused() -> None:
    """An ordinary torch loss cannot be accumulated exactly, and is refused when the criterion is made."""
    with pytest.raises(TypeError, match="loss of head 'age': CrossEntropyLoss needs"):
        Criterion({"age": nn.CrossEntropyLoss()}, {"age": 1.0})
    with pytest.raises(TypeError, match="weighted sum of losses: CrossEntropyLoss needs"):
        WeightedSum([nn.CrossEntropyLoss()], [1.0])


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [1.0, float("nan")]])
def test_invalid_weights_of_a_sum_are_refused(weights: list[float]) -> None:
    """One finite weight >= 0 for each loss."""
    with pytest.raises(ConfigError, match="weight"):
        WeightedSum([CrossEntropy(), Focal()], weights)
    with pytest.raises(ConfigError, match="weight"):
        Criterion({"a": CrossEntropy(), "b": Focal()}, dict(zip("ab", weights, strict=False)))


def test_empty_sums_are_refused() -> None:
    """A sum without losses has no gradient to train with."""
    with pytest.raises(ConfigError, match="0 losses"):
        WeightedSum([], [])
    with pytest.raises(ConfigError, match="0 losses"):
        Criterion({}, {})


def test_losses_of_two_kinds_of_target_cannot_be_summed() -> None:
    """A class loss and a regression loss in one sum are a mistake."""
    with pytest.raises(ConfigError, match="losses of one kind of target"):
        WeightedSum([CrossEntropy(), Huber()], [1.0, 1.0])


NUMBERS_B = torch.tensor([0.5, math.nan, -1.0, 2.0, 0.0, 1.0], dtype=torch.float64)


def uncertain(s: list[float]) -> tuple[Criterion, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """A class head and a regression head with learned weights, their outputs and their targets."""
    criterion = Criterion(
        {"mask": CrossEntropy(WEIGHT_K), "age": SquaredError()}, {"mask": 2.0, "age": 0.5}, uncertainty=True
    ).double()
    criterion.log_variance.data = torch.tensor(s, dtype=torch.float64)
    outputs = {"mask": LOGITS_BK, "age": LOGITS_BK[:, :1]}
    return criterion, outputs, {"mask": LABELS_B, "age": NUMBERS_B}


def test_learned_weights_equal_the_paper() -> None:
    """Value and gradient are those of L / sigma^2 + log sigma, with L / (2 sigma^2) for a regression."""
    criterion, outputs, targets = uncertain([0.3, -1.2])
    value = criterion(outputs, targets)
    value.backward()
    mask, age = (
        loss(outputs[name], targets[name]).item()
        for loss, name in ((CrossEntropy(WEIGHT_K), "mask"), (SquaredError(), "age"))
    )
    sigma_mask, sigma_age = math.exp(0.15), math.exp(-0.6)
    expected = 2 * (mask / sigma_mask**2 + math.log(sigma_mask))
    expected += 0.5 * (age / (2 * sigma_age**2) + math.log(sigma_age))
    assert value.item() == pytest.approx(expected, rel=1e-12)
    slopes = [2 * (0.5 - mask * math.exp(-0.3)), 0.5 * (0.5 - age / 2 * math.exp(1.2))]
    assert criterion.log_variance.grad.tolist() == pytest.approx(slopes, rel=1e-12)


def test_learned_weights_are_a_parameter_only_with_uncertainty() -> None:
    """With them there is one parameter that starts at 0 and goes into the state; without them there is none."""
    criterion = Criterion({"a": CrossEntropy(), "b": Huber()}, {"a": 1.0, "b": 1.0}, uncertainty=True)
    assert dict(criterion.named_parameters()).keys() == {"log_variance"}
    assert criterion.log_variance.tolist() == [0.0, 0.0]
    assert "log_variance" in criterion.state_dict()
    assert not list(Criterion({"a": CrossEntropy()}, {"a": 1.0}).parameters())


def test_a_head_without_targets_keeps_its_weight() -> None:
    """The log variance of a head without labeled rows gets no gradient; those of the other heads do not change."""
    criterion, outputs, targets = uncertain([0.3, -1.2])
    criterion(outputs, targets).backward()
    before = criterion.log_variance.grad.clone()
    criterion.log_variance.grad = None
    criterion(outputs, targets | {"age": torch.full_like(NUMBERS_B, math.nan)}).backward()
    assert criterion.log_variance.grad.tolist() == [before[0].item(), 0.0]


def test_learned_weights_converge_to_the_noise() -> None:
    """For fixed outputs, descent on the log variance of a regression ends at the log of the mean squared error."""
    criterion = Criterion({"age": SquaredError()}, {"age": 1.0}, uncertainty=True).double()
    outputs, targets = {"age": LOGITS_BK[:, :1]}, {"age": NUMBERS_B}
    optimizer = torch.optim.SGD(criterion.parameters(), lr=0.5)
    for _ in range(300):
        optimizer.zero_grad()
        criterion(outputs, targets).backward()
        optimizer.step()
    expected = SquaredError()(LOGITS_BK[:, :1], NUMBERS_B).log().item()
    assert criterion.log_variance.item() == pytest.approx(expected, rel=1e-9)
