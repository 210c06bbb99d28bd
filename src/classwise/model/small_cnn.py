"""The built-in backbone: a plain convolutional network for small images, fast on two CPU cores.

Every block is convolution, norm, ReLU. The norm is batch norm (Ioffe and Szegedy, 2015, section 3.2) or group norm (Wu
and He, 2018, section 3), which looks at one image at a time. Residual blocks and more depth were no better in equal
time (docs/log.md): with few images and little time, more epochs help more than more layers.
"""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

CHANNELS_PER_GROUP = 8  # of group norm


def group_norm(channels: int) -> nn.Module:
    """Group norm over groups of 8 channels."""
    return nn.GroupNorm(channels // CHANNELS_PER_GROUP, channels)


class ConvBlock(nn.Module):
    """images_BCHW -> (B, out_channels, H / stride, W / stride): 3 x 3 convolution, norm, ReLU."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        # No bias: batch norm subtracts the mean that a bias would add, and every norm has a bias of its own.
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)
        self.norm = norm(out_channels)

    def forward(self, features_BCHW: Tensor) -> Tensor:
        convolved: Tensor = self.norm(self.conv(features_BCHW))
        return F.relu(convolved, inplace=True)


class SmallCNN(nn.Module):
    """images_BCHW (normalized float, H and W from 8 px) -> features_BF, F = `num_features`.

    A stem of `width` channels, then three stages of width, 2 * width and 4 * width channels, each a block followed by
    max pooling, which halves height and width. At the end the feature map is averaged over the cells of a `grid` x
    `grid` raster, not over the whole image: positions help to tell classes apart when all images are framed alike
    (centered clothes, faces). `stem_stride=2` quarters the cost, for images of about 64 px and more (16 px at least).
    `norm` makes the norm of so many channels.

    Initial weights come from torch's global generator.
    """

    def __init__(
        self,
        width: int = 24,
        in_channels: int = 3,
        stem_stride: int = 1,
        grid: int = 3,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        self.stem = ConvBlock(in_channels, width, stem_stride, norm)
        self.stage1 = ConvBlock(width, width, norm=norm)
        self.stage2 = ConvBlock(width, 2 * width, norm=norm)
        self.stage3 = ConvBlock(2 * width, 4 * width, norm=norm)
        self.grid = grid
        self.num_features = 4 * width * grid * grid

    def forward(self, images_BCHW: Tensor) -> Tensor:
        maps_BCHW = self.stem(images_BCHW)
        for stage in (self.stage1, self.stage2, self.stage3):
            maps_BCHW = F.max_pool2d(stage(maps_BCHW), 2)
        return F.adaptive_avg_pool2d(maps_BCHW, self.grid).flatten(1)

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """The parameters of each layer group, in order, in the format of timm's models: stem, stages 1 to 3."""
        return {"stem": r"^stem", "stages": r"^stage(\d+)"}
