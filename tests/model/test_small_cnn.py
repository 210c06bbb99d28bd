"""The built-in backbone."""

import pytest
import torch
from torch import nn

from classwise.model.backbone import build_backbone
from classwise.model.small_cnn import SmallCNN, group_norm


@pytest.mark.parametrize("stem_stride", [1, 2])
@pytest.mark.parametrize("size", [(16, 16), (17, 23), (28, 28), (32, 32), (96, 72), (128, 96)])
def test_features_have_one_shape_at_every_size(size: tuple[int, int], stem_stride: int):
    """(B, num_features), finite, whatever the height and width."""
    backbone = SmallCNN(stem_stride=stem_stride).eval()
    with torch.no_grad():
        features_BF = backbone(torch.randn(2, 3, *size))
    assert features_BF.shape == (2, backbone.num_features)
    assert features_BF.isfinite().all()


def test_smallest_size_that_a_config_allows():
    """8 x 8 images leave one cell, which every cell of the grid then repeats."""
    backbone = SmallCNN(width=8).eval()
    with torch.no_grad():
        cells_BCN = backbone(torch.randn(2, 3, 8, 8)).view(2, 32, 9)
    torch.testing.assert_close(cells_BCN, cells_BCN[..., :1].expand_as(cells_BCN))


@pytest.mark.parametrize(("width", "in_channels", "grid"), [(8, 1, 1), (16, 3, 2), (24, 4, 3)])
def test_arguments_set_the_shapes(width: int, in_channels: int, grid: int):
    """num_features is 4 * width for every cell of the grid; the stem takes in_channels."""
    backbone = SmallCNN(width, in_channels, grid=grid)
    assert backbone.num_features == 4 * width * grid**2
    assert backbone(torch.randn(2, in_channels, 28, 28)).shape == (2, backbone.num_features)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, group_norm])
def test_gradients_reach_every_parameter(norm):
    """After one backward pass every parameter has a finite gradient that is not all zero."""
    torch.manual_seed(0)
    backbone = SmallCNN(width=8, norm=norm)
    backbone(torch.randn(4, 3, 28, 28)).square().sum().backward()
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("size", [(8, 8), (28, 28), (96, 72)])
def test_the_variant_with_group_norm_is_the_same_network(size: tuple[int, int]):
    """The same weights but for the norms, which have groups of 8 channels and no statistics."""
    plain = build_backbone("small_cnn", "none", size)
    grouped = build_backbone("small_cnn_gn", "none", size)
    shapes = [[tuple(p.shape) for p in found.module.parameters()] for found in (plain, grouped)]
    assert shapes[0] == shapes[1]
    assert plain.module.stem.conv.stride == grouped.module.stem.conv.stride
    norms = [module for module in grouped.module.modules() if isinstance(module, nn.GroupNorm)]
    assert [norm.num_channels // norm.num_groups for norm in norms] == [8, 8, 8, 8]
    assert not list(grouped.module.buffers())


def test_features_depend_on_positions():
    """An image and its upside-down copy give different features: the cells of the grid are not interchangeable."""
    torch.manual_seed(0)
    backbone = SmallCNN(width=8).eval()
    image_BCHW = torch.zeros(1, 3, 32, 32)
    image_BCHW[..., :8, :] = 1
    with torch.no_grad():
        cells_CHW = backbone(image_BCHW).view(32, 3, 3)
    assert (cells_CHW[:, 0] - cells_CHW[:, 2]).abs().max() > 0.01


def test_initial_weights_come_from_the_global_generator():
    """The same seed gives the same weights, another seed others."""

    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.cat([parameter.flatten() for parameter in SmallCNN(width=8).parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_bf16_and_channels_last_change_little():
    """The fast setting of the loop gives the features of plain fp32, up to bf16's three digits."""
    torch.manual_seed(0)
    backbone = SmallCNN(width=8).eval()
    images_BCHW = torch.randn(4, 3, 28, 28)
    with torch.no_grad():
        plain_BF = backbone(images_BCHW)
        backbone.to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            quick_BF = backbone(images_BCHW.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(quick_BF.float(), plain_BF, rtol=0.1, atol=0.02 * plain_BF.abs().max().item())
