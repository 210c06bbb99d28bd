"""The fast backward pass of depthwise convolutions: outputs of torch's own bytes, gradients within bf16's digits."""

import contextlib
import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classwise.model import depthwise
from classwise.model.backbone import Backbone
from classwise.model.classifier import Classifier, ModelMetadata
from classwise.model.depthwise import fast_depthwise_backward, has_slow_backward

EPSILON = 2.0**-8  # half a unit of bf16's last digit, of numbers around 1


def in_bf16(layer: nn.Module, images: Tensor, weights: Tensor | None, fast: bool) -> tuple[Tensor, ...]:
    """Output and gradients in bf16, of a sum that is weighted by `weights`."""
    images = images.clone().requires_grad_()
    layer.zero_grad()
    with (
        torch.autocast("cpu", dtype=torch.bfloat16),
        fast_depthwise_backward(images) if fast else contextlib.nullcontext(),
    ):
        output = layer(images)
    weights = torch.ones_like(output) if weights is None else weights
    output.backward(weights.to(output.dtype))
    assert images.grad is not None
    return (output.detach(), images.grad, *(p.grad.clone() for p in layer.parameters() if p.grad is not None))


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [
        (3, 2, 1),
        (3, 2, 0),
        (5, 1, 2),
        (5, 2, 2),
        (5, 3, 1),
        (7, 1, 3),
        (7, 4, 3),
        (2, 2, 0),
        (1, 2, 0),
        ((1, 7), 1, (0, 3)),
        ((5, 3), (2, 1), (2, 1)),
        ((4, 6), (1, 2), (0, 4)),
    ],
)
@pytest.mark.parametrize("size", [(9, 11), (12, 8)])
def test_outputs_are_the_same_and_gradients_as_exact_as_torchs(
    kernel: int | tuple[int, int],
    stride: int | tuple[int, int],
    padding: int | tuple[int, int],
    size: tuple[int, int],
    has_bias: bool,
    layout: torch.memory_format,
) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(16, 16, kernel, stride, padding, groups=16, bias=has_bias)
    images = torch.randn(3, 16, *size).bfloat16().float().contiguous(memory_format=layout)
    with torch.no_grad():
        layer.weight.copy_(layer.weight.bfloat16())  # so that only the arithmetic differs
    weights = torch.randn_like(layer(images)).bfloat16().float()
    slow, fast = (in_bf16(layer, images, weights, is_fast) for is_fast in (False, True))
    assert torch.equal(slow[0], fast[0])

    # Against float64, both are off by the rounding of their result, and no more.
    exact = copy.deepcopy(layer).double()
    wide = images.double().requires_grad_()
    exact(wide).backward(weights.double())
    assert wide.grad is not None
    of_parameters = [parameter.grad for parameter in exact.parameters()]
    for found, expected in zip(fast[1:], [wide.grad, *of_parameters], strict=True):
        assert expected is not None
        assert found.shape == expected.shape
        assert (found - expected).abs().max() <= EPSILON * expected.abs().max() + 1e-6


def test_only_slow_depthwise_convolutions_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    replaced = []
    apply = depthwise._DepthwiseConv2d.apply

    def counted(*args: Any) -> Tensor:
        replaced.append(args[1].shape)
        output: Tensor = apply(*args)
        return output

    monkeypatch.setattr(depthwise._DepthwiseConv2d, "apply", counted)
    layers = [
        nn.Conv2d(8, 8, 3, 1, 1, groups=8),  # fast already
        nn.Conv2d(8, 8, 5, 1, 4, dilation=2, groups=8),
        nn.Conv2d(8, 16, 5, 2, 2, groups=4),
        nn.Conv2d(8, 8, 5, 1, "same", groups=8),
        nn.Conv2d(8, 8, 3, 2, 3, groups=8),  # whose border is as wide as its kernel
        nn.Conv2d(8, 8, 5, 2, 2),
        nn.Conv2d(8, 8, 5, 2, 2, groups=8),
    ]
    for layer in layers:
        in_bf16(layer, torch.randn(2, 8, 9, 9), None, fast=True)
    assert replaced == [(8, 1, 5, 5)]
    assert [has_slow_backward(nn.Sequential(layer)) for layer in layers] == [False] * 3 + [True] * 2 + [
        False,
        True,
    ]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("has_gradient", [True, False])
def test_a_block_is_entered_only_where_it_changes_something(precision: str, has_gradient: bool) -> None:
    images = torch.zeros(1, 8, 9, 9)
    with torch.set_grad_enabled(has_gradient), torch.autocast("cpu", enabled=precision == "bf16"):
        block = fast_depthwise_backward(images)
    assert isinstance(block, contextlib.nullcontext) == (precision == "fp32" or not has_gradient)


def test_a_classifier_trains_in_bf16_through_the_fast_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    body = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 5, 2, groups=16), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    metadata = ModelMetadata("own", (16, 16), "squash", (0.5,) * 3, (0.2,) * 3, 0.0, {"label": 2})
    model = Classifier(Backbone(body, 16, (0.5,) * 3, (0.2,) * 3), metadata)
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)

    def gradient() -> list[Tensor]:
        model.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs = model(images)["label"]
        F.cross_entropy(outputs, torch.tensor([0, 1, 1, 0])).backward()
        return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]

    calls = []
    of_weight = depthwise._gradient_of_weight

    def counted(*args: Any) -> Tensor:
        calls.append(1)
        return of_weight(*args)

    monkeypatch.setattr(depthwise, "_gradient_of_weight", counted)
    fast = gradient()
    assert calls == [1]
    model._has_slow_backward = False
    for a, b in zip(fast, gradient(), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=EPSILON * float(b.abs().max()) + 1e-7)
    assert calls == [1]
