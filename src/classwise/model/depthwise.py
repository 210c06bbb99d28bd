"""Depthwise convolutions in bf16 on a CPU, with a backward pass that takes as long as the forward pass.

oneDNN, which torch uses there, has fast bf16 kernels for the forward pass of every depthwise convolution, but not for
two parts of the backward pass, which fall back to reference code, ten to a hundred times slower: the gradient of the
input where the stride is above 1, and the gradient of kernels larger than 3 x 3. In an EfficientNet they are nine
tenths of a training step. Both can be written with the kernels that are fast. Figures:
docs/decisions/0071-depthwise.md.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

Pair = tuple[int, int]
LARGEST_FAST_KERNEL = 3


def has_slow_backward(module: nn.Module) -> bool:
    """Whether it has a convolution whose backward pass in bf16 is slow on a CPU."""
    return any(
        isinstance(layer, nn.Conv2d)
        and _is_depthwise(layer.weight, layer.groups)
        and _is_slow(layer.weight, _pair(layer.stride), _pair(layer.dilation))
        for layer in module.modules()
    )


def fast_depthwise_backward(images: Tensor) -> contextlib.AbstractContextManager[Any]:
    """A block in which slow depthwise convolutions get the fast backward pass; their outputs are the same to the bit.
    It changes nothing but for a backward pass in bf16 on a CPU."""
    is_bf16 = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    is_needed = images.device.type == "cpu" and is_bf16 and torch.is_grad_enabled()
    if not is_needed or torch.compiler.is_compiling():
        return contextlib.nullcontext()
    return _FastBackward()


class _FastBackward(TorchFunctionMode):
    """Calls of conv2d, whoever makes them (timm's layers have their own), go through here."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """The convolution with the fast backward pass, if it has a slow one; any other function as it is."""
        if func is F.conv2d and not kwargs and len(args) == 7:
            images, weight, bias, stride, padding, dilation, groups = args
            if (
                _is_depthwise(weight, groups)
                and not isinstance(padding, str)
                and _is_slow(weight, _pair(stride), _pair(dilation))
                # The fast pass knows no border that a kernel sees nothing else of.
                and all(border < size for border, size in zip(_pair(padding), weight.shape[2:], strict=True))
            ):
                # As autocast does; the casts belong to the graph, and gradients come back in the weights' own type.
                images, weight = images.to(torch.bfloat16), weight.to(torch.bfloat16)
                bias = None if bias is None else bias.to(torch.bfloat16)
                return _DepthwiseConv2d.apply(images, weight, bias, _pair(stride), _pair(padding))
        return func(*args, **(kwargs or {}))


class _DepthwiseConv2d(torch.autograd.Function):
    """images_BCHW * weight_C1KL + bias_C -> (B, C, Y, X)."""

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair
    ) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(images, weight, bias, stride, padding, 1, len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        images, weight = ctx.saved_tensors
        of_images = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_images = _gradient_of_images(gradient, images, weight, ctx.stride, ctx.padding)
        if ctx.needs_input_grad[1]:
            of_weight = _gradient_of_weight(gradient, images, weight, ctx.stride, ctx.padding)
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum((0, 2, 3), dtype=torch.float32).to(gradient.dtype)
        return of_images, of_weight, of_bias, None, None


def _gradient_of_images(
    gradient: Tensor, images: Tensor, weight: Tensor, stride: Pair, padding: Pair
) -> Tensor:
    if stride == (1, 1):
        return _backward_by_torch(gradient, images, weight, stride, padding, of_images=True)

    # Every output spreads its gradient over the inputs under the kernel. With zeros between the outputs, as many as the
    # stride has left out, that is a plain convolution of stride 1 with the kernel turned by half a turn.
    height, width = weight.shape[2:]
    size = (*images.shape[:2], images.shape[2] + height - 1, images.shape[3] + width - 1)
    apart = torch.empty(size, dtype=gradient.dtype, memory_format=_layout(images)).zero_()
    top, left = height - 1 - padding[0], width - 1 - padding[1]
    rows, columns = gradient.shape[2:]
    below, right = top + (rows - 1) * stride[0] + 1, left + (columns - 1) * stride[1] + 1
    apart[:, :, top : below : stride[0], left : right : stride[1]] = gradient
    return F.conv2d(apart, weight.flip(2, 3), groups=len(weight))


def _gradient_of_weight(
    gradient: Tensor, images: Tensor, weight: Tensor, stride: Pair, padding: Pair
) -> Tensor:
    height, width = weight.shape[2:]
    if max(height, width) <= LARGEST_FAST_KERNEL:
        return _backward_by_torch(gradient, images, weight, stride, padding, of_images=False)

    # A large kernel is made of small ones, each of which sees images that are shifted by its place in the large one.
    # Where they overlap, both find the same numbers.
    padded = F.pad(images, (padding[1], padding[1], padding[0], padding[0])) if any(padding) else images
    small = min(height, LARGEST_FAST_KERNEL), min(width, LARGEST_FAST_KERNEL)
    rows, columns = gradient.shape[2:]
    seen = (rows - 1) * stride[0] + small[0], (columns - 1) * stride[1] + small[1]
    found = torch.empty_like(weight)
    for top in _places(height, small[0]):
        for left in _places(width, small[1]):
            shifted = padded[:, :, top : top + seen[0], left : left + seen[1]]
            kernel = (..., slice(top, top + small[0]), slice(left, left + small[1]))
            found[kernel] = _backward_by_torch(
                gradient,
                shifted.contiguous(memory_format=_layout(images)),
                weight[kernel].contiguous(),
                stride,
                padding=(0, 0),
                of_images=False,
            )
    return found


def _backward_by_torch(
    gradient: Tensor, images: Tensor, weight: Tensor, stride: Pair, padding: Pair, *, of_images: bool
) -> Tensor:
    """torch's own gradient, of the images or of the weight."""
    wanted = [of_images, not of_images, False]
    found = torch.ops.aten.convolution_backward(
        gradient, images, weight, None, stride, padding, (1, 1), False, (0, 0), len(weight), wanted
    )
    result: Tensor = found[0 if of_images else 1]
    return result


def _places(size: int, small: int) -> list[int]:
    """Where pieces of `small` begin that cover `size`, the last of which may overlap the one before."""
    return [min(start, size - small) for start in range(0, size, small)]


def _is_depthwise(weight: Tensor, groups: int) -> bool:
    return groups > 1 and weight.ndim == 4 and weight.shape[:2] == (groups, 1)


def _is_slow(weight: Tensor, stride: tuple[int, ...], dilation: tuple[int, ...]) -> bool:
    return dilation == (1, 1) and (stride != (1, 1) or max(weight.shape[2:]) > LARGEST_FAST_KERNEL)


def _pair(value: int | Sequence[int]) -> Pair:
    if isinstance(value, int):
        return value, value
    return (value[0], value[-1])


def _layout(images: Tensor) -> torch.memory_format:
    is_last = images.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if is_last else torch.contiguous_format
