"""What a heat map explains: the log odds of an answer, however certain it is."""

import pytest
import torch

from classwise.explain.evidence import evidence, probability
from classwise.model.heads import ClassHead, MultilabelHead, OrdinalHead, RankingHead, RegressionHead

HEADS = {
    "mask": ClassHead(3, adjustment=(0.5, -0.2, 0.1)),
    "level": OrdinalHead(4),
    "tags": MultilabelHead(3),
    "size": RegressionHead(mean=20.0, std=3.0),
    "rank": RankingHead(),
}


def drawn(rows: int = 5, scale: float = 1.0) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    return {
        name: scale * torch.randn(rows, head.outputs, generator=draw, dtype=torch.float64)
        for name, head in HEADS.items()
    }


def log_odds(p_B: torch.Tensor) -> torch.Tensor:
    return p_B.log() - (1 - p_B).log()


@pytest.mark.parametrize(("name", "k"), [("mask", 2), ("mask", 0), ("level", 0), ("level", 3), ("tags", 1)])
def test_the_log_odds_of_a_class(name: str, k: int) -> None:
    outputs = drawn()
    decoded = HEADS[name].decode(outputs[name])
    p_BK = decoded.sigmoid() if name == "tags" else decoded.softmax(dim=1)
    classes = {name: torch.tensor([k])}
    torch.testing.assert_close(evidence(outputs, HEADS, classes), log_odds(p_BK[:, k]))
    torch.testing.assert_close(probability(outputs, HEADS, classes), p_BK[:, k])


def test_a_number_is_explained_as_it_is() -> None:
    outputs = drawn()
    zero = torch.tensor([0])
    torch.testing.assert_close(evidence(outputs, HEADS, {"size": zero}), outputs["size"][:, 0] * 3 + 20)
    torch.testing.assert_close(evidence(outputs, HEADS, {"rank": zero}), outputs["rank"][:, 0])
    with pytest.raises(ValueError, match="alone"):
        evidence(outputs, HEADS, {"size": zero, "mask": zero})


def test_the_joint_class_has_the_gradient_of_its_log_odds() -> None:
    outputs = {name: raw.requires_grad_() for name, raw in drawn().items() if name in ("mask", "level")}
    classes = {"mask": torch.tensor([1]), "level": torch.tensor([2])}
    found = torch.autograd.grad(evidence(outputs, HEADS, classes).sum(), outputs["mask"])[0]
    p_B = HEADS["mask"].decode(outputs["mask"]).softmax(dim=1)[:, 1]
    p_B = p_B * HEADS["level"].decode(outputs["level"]).softmax(dim=1)[:, 2]
    expected = torch.autograd.grad(log_odds(p_B).sum(), outputs["mask"])[0]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("names", [("mask",), ("level",), ("tags",), ("mask", "level")])
def test_a_certain_answer_still_has_a_gradient(names: tuple[str, ...]) -> None:
    """Where the probability rounds to 1, its own gradient is 0, and a map of it would be black."""
    outputs = {name: torch.full_like(raw, -60.0) for name, raw in drawn().items() if name in names}
    for name, raw in outputs.items():
        raw[:, 0] = 60.0 if name != "level" else -60.0
        raw.requires_grad_()
    classes = dict.fromkeys(names, torch.tensor([0]))
    assert probability(outputs, HEADS, classes).eq(1).all()
    gradients = torch.autograd.grad(evidence(outputs, HEADS, classes).sum(), list(outputs.values()))
    # Of a joint class, the least certain target decides.
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert max(float(gradient[:, 0].abs().min()) for gradient in gradients) > 1e-3
