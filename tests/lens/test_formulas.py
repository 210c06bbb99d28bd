"""The step that is worked out by hand is the one that the optimizer takes."""

from typing import Any

import pytest
import torch
from torch import nn

from classwise.lens.formulas import worked_out
from classwise.lens.weight import WeightName, chosen_weight
from classwise.optim.optimizers import build_optimizer

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "sgd": ("sgd", {"momentum": 0.0}),
    "sgd, weight decay": ("sgd", {"momentum": 0.0, "weight_decay": 0.1}),
    "momentum": ("sgd", {}),
    "momentum, weight decay": ("sgd", {"weight_decay": 0.1}),
    "dampening": ("sgd", {"options": {"dampening": 0.3}}),
    "nesterov": ("sgd", {"nesterov": True, "weight_decay": 0.1}),
    "adam": ("adam", {}),
    "adam, weight decay": ("adam", {"weight_decay": 0.1}),
    "amsgrad": ("adam", {"options": {"amsgrad": True}, "betas": (0.5, 0.6)}),
    "adamw": ("adamw", {"weight_decay": 0.1, "betas": (0.8, 0.95)}),
    "adamw, amsgrad": ("adamw", {"weight_decay": 0.1, "options": {"amsgrad": True}}),
    "adamp": ("adamp", {"weight_decay": 0.1}),
    "adamp, nesterov": ("adamp", {"nesterov": True, "weight_decay": 0.1}),
    "adamp, always projected": ("adamp", {"weight_decay": 0.1, "options": {"delta": 10.0}}),
    "adamp, never projected": ("adamp", {"weight_decay": 0.1, "options": {"delta": 1e-9}}),
}


def parameters() -> list[nn.Parameter]:
    """A convolution and a bias, in float64, so that nothing but the formula decides."""
    draw = torch.Generator().manual_seed(3)
    shapes = ((4, 2, 3, 3), (5,))
    return [nn.Parameter(torch.randn(shape, generator=draw, dtype=torch.float64)) for shape in shapes]


def optimizer_of(name: str, options: dict[str, Any], found: list[nn.Parameter]) -> torch.optim.Optimizer:
    options = {"weight_decay": 0.0, **options}
    groups = [{"params": found, "lr": 0.02, "weight_decay": options["weight_decay"]}]
    return build_optimizer(name, groups, lr=0.02, **options)


@pytest.mark.parametrize(("name", "options"), CASES.values(), ids=CASES)
@pytest.mark.parametrize(
    "weight", [WeightName("conv", (2, 1, 0, 2)), WeightName("bias", (3,))], ids=["conv", "bias"]
)
def test_the_formula_gives_the_new_weight(name: str, options: dict[str, Any], weight: WeightName) -> None:
    """Of four steps one after the other, to 1e-12, with clipped gradients; the last line is the new weight."""
    conv, bias = parameters()
    named = {"conv": conv, "bias": bias}
    optimizer = optimizer_of(name, options, [conv, bias])
    draw = torch.Generator().manual_seed(8)
    for _ in range(4):
        raw = {key: torch.randn(p.shape, generator=draw, dtype=torch.float64) for key, p in named.items()}
        for key, parameter in named.items():
            parameter.grad = raw[key] / 2
        chosen = chosen_weight(weight, named, raw, optimizer)
        assert chosen is not None
        assert chosen.raw_gradient == 2 * chosen.gradient
        optimizer.step()
        chosen.take_after(named, optimizer)
        worked = worked_out(optimizer, chosen)
        assert worked.new == pytest.approx(chosen.new, rel=1e-12)
        assert worked.lines[-1].result == worked.new
        assert chosen.new == named[weight.name][weight.index].item()
        assert chosen.new != chosen.old


def test_what_projection_does_is_said() -> None:
    """Projected over each output, not at all for a bias, and not where the gradient points along the weights."""
    texts = {}
    for case in ("adamp, always projected", "adamp, never projected"):
        conv, bias = parameters()
        named = {"conv": conv, "bias": bias}
        optimizer = optimizer_of(*CASES[case], [conv, bias])
        for parameter in named.values():
            parameter.grad = torch.ones_like(parameter)
        raw = {key: p.grad.clone() for key, p in named.items() if p.grad is not None}
        for key in named:
            chosen = chosen_weight(WeightName(key, None), named, raw, optimizer)
            assert chosen is not None
            texts[case, key] = " ".join(line.what for line in worked_out(optimizer, chosen).lines)
    assert "projection over each output" in texts["adamp, always projected", "conv"]
    assert "no projection" in texts["adamp, never projected", "conv"]
    assert "projection" not in texts["adamp, always projected", "bias"]


@pytest.mark.parametrize("name", ["rmsprop", "sgdp", "lion", "nadam"])
def test_other_optimizers_have_no_formula(name: str) -> None:
    """But state, old and new weight."""
    conv, bias = parameters()
    optimizer = optimizer_of(name, {}, [conv, bias])
    for parameter in (conv, bias):
        parameter.grad = torch.ones_like(parameter)
    named = {"conv": conv}
    chosen = chosen_weight(None, named, {"conv": torch.ones_like(conv)}, optimizer)
    assert chosen is not None
    optimizer.step()
    chosen.take_after(named, optimizer)
    assert worked_out(optimizer, chosen).lines == ()
    assert chosen.new != chosen.old
    assert chosen.state_after


def test_the_largest_gradient_is_the_default() -> None:
    """Over the weights of layers, by size, whatever its sign; over all parameters where no layer has a gradient."""
    conv, bias = parameters()
    optimizer = optimizer_of("sgd", {}, [conv, bias])
    conv.grad, bias.grad = torch.zeros_like(conv), torch.zeros_like(bias)
    conv.grad[1, 0, 2, 1], bias.grad[2] = -5.0, 6.0
    raw = {"conv": conv.grad.clone(), "bias": bias.grad.clone()}
    chosen = chosen_weight(None, {"conv": conv, "bias": bias}, raw, optimizer)
    assert chosen is not None
    assert chosen.title == "conv[1, 0, 2, 1]"
    assert (chosen.raw_gradient, chosen.old) == (-5.0, conv[1, 0, 2, 1].item())
    chosen = chosen_weight(None, {"conv": conv, "bias": bias}, {"bias": raw["bias"]}, optimizer)
    assert chosen is not None
    assert chosen.title == "bias[2]"


def test_projection_over_the_whole_layer() -> None:
    """Where the gradient points along the weights of each output, but in the whole is orthogonal to them."""
    conv, _ = parameters()
    optimizer = optimizer_of("adamp", {"weight_decay": 0.1}, [conv])
    squares = conv.detach().square().sum(dim=(1, 2, 3))
    factors = torch.stack([1 / squares[0], -1 / squares[1], 2 / squares[2], -2 / squares[3]])
    conv.grad = conv.detach() * factors.reshape(-1, 1, 1, 1)
    chosen = chosen_weight(WeightName("conv", (0, 1, 1, 1)), {"conv": conv}, {"conv": conv.grad}, optimizer)
    assert chosen is not None
    optimizer.step()
    chosen.take_after({"conv": conv}, optimizer)
    worked = worked_out(optimizer, chosen)
    assert "over the whole layer" in " ".join(line.what for line in worked.lines)
    assert worked.new == pytest.approx(chosen.new, rel=1e-12)
