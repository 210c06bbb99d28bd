"""The model: normalization of the images, one backbone, and one head per target."""

import contextlib
import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classwise.data.pixel_format import RGB, PixelFormat
from classwise.model.backbone import Backbone, build_backbone
from classwise.model.batch_norm import batch_norms, freezable_norms
from classwise.model.depthwise import fast_depthwise_backward, has_slow_backward
from classwise.model.layer_pooling import layer_features


@dataclass(frozen=True)
class ModelMetadata:
    """Everything needed to build the model again and to prepare its images, saved with every checkpoint, so that
    inference cannot differ from training. `image_size` is (height, width), `heads` the number of outputs by target,
    `cosine` the scale of those heads that are CosineLinear. `pooling`: `last` or `layers` (see layer_pooling.py).
    `channels`, `value_range`: see data/pixel_format.py."""

    backbone: str
    image_size: tuple[int, int]
    fit: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    dropout: float
    heads: dict[str, int]
    cosine: dict[str, float] = field(default_factory=dict)
    pooling: str = "last"
    channels: int = 3
    value_range: tuple[float, float] | None = None

    @property
    def pixels(self) -> PixelFormat:
        """What image files become before they are brought to `image_size`."""
        return PixelFormat(self.channels, self.value_range)

    def as_dict(self) -> dict[str, Any]:
        """The metadata as plain values for JSON."""
        return asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "ModelMetadata":
        """The inverse of `as_dict`."""
        lists = ("image_size", "mean", "std", "value_range")
        tuples = {key: tuple(values[key]) for key in lists if values.get(key) is not None}
        return ModelMetadata(**{**values, **tuples})


class CosineLinear(nn.Module):
    """features_BF -> scale * cos(features, weight of the class), (B, outputs): a linear layer on unit vectors, without
    bias, so that no class wins by the norm of its weights. LDAM's margins are meant for it (Cao et al. 2019, section
    3.2, after Wang et al. 2018, 'CosFace', equation 4)."""

    def __init__(self, features: int, outputs: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, features))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)  # as nn.Linear
        self.scale = scale

    def forward(self, features_BF: Tensor) -> Tensor:
        return self.scale * F.linear(F.normalize(features_BF, dim=1), F.normalize(self.weight, dim=1))


class Classifier(nn.Module):
    """images_BCHW uint8 in, raw outputs (B, outputs) by target out.

    The images are normalized here, on the device: a quarter of the bytes are transferred, and no caller can forget it.
    Heads are in the order of `metadata.heads`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Backbone, metadata: ModelMetadata) -> None:
        super().__init__()
        self.metadata = metadata
        self.backbone = backbone.module
        self.feature_count = backbone.features
        self.levels = backbone.levels
        self.memory_format = torch.contiguous_format
        self.has_frozen_batch_norm = False
        self._has_slow_backward = has_slow_backward(backbone.module)
        self.dropout = nn.Dropout(metadata.dropout)

        # A list, since a target may be called `type` or `keys`, which a ModuleDict refuses.
        self.heads = nn.ModuleList(
            CosineLinear(backbone.features, outputs, metadata.cosine[name])
            if name in metadata.cosine
            else nn.Linear(backbone.features, outputs)
            for name, outputs in metadata.heads.items()
        )

        # Not in the state dict: they are metadata, which is saved next to the weights in readable form.
        self.register_buffer("mean", 255 * torch.tensor(metadata.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(metadata.std).view(1, -1, 1, 1), persistent=False)

    @property
    def statistics(self) -> list[Tensor]:
        """The buffers that a forward pass in training may change: the running statistics of norms."""
        return [*self.backbone.buffers(), *self.heads.buffers()]

    @property
    def batch_dependent_norms(self) -> list[nn.Module]:
        """The layers through which an image's outputs in training depend on the other images of its forward pass."""
        frozen = freezable_norms(self) if self.has_frozen_batch_norm else []
        return [norm for norm in batch_norms(self) if norm not in frozen]

    def freeze_batch_norm(self) -> None:
        """From now on batch norm normalizes by its running statistics in training as well, and does not update them;
        its weights and biases are trained."""
        self.has_frozen_batch_norm = True
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Training mode, without batch norm where that is frozen; with `mode=False`, eval mode."""
        super().train(mode)
        for norm in freezable_norms(self) if self.has_frozen_batch_norm else ():
            norm.eval()
        return self

    def arrange(self, memory_format: torch.memory_format) -> None:
        """Use this memory layout for weights and images; outputs may differ in their last digits."""
        self.memory_format = memory_format
        # Not by `nn.Module.to`, which fails for the weights of three-dimensional convolutions, as in LambdaNetworks.
        for tensor in itertools.chain(self.parameters(), self.buffers()):
            if tensor.ndim == 4:
                tensor.data = tensor.data.to(memory_format=memory_format)

    def normalized(self, images_BCHW: Tensor) -> Tensor:
        """Images of values from 0 to 255 as the backbone takes them."""
        images_BCHW = (images_BCHW - self.mean) / self.std
        return images_BCHW.contiguous(memory_format=self.memory_format)

    def features(self, images_BCHW: Tensor) -> Tensor:
        """The backbone's features (B, F) of images_BCHW uint8."""
        images_BCHW = self.normalized(images_BCHW)
        with fast_depthwise_backward(images_BCHW) if self._has_slow_backward else contextlib.nullcontext():
            if self.levels:
                return layer_features(self.backbone, images_BCHW, self.levels)
            features_BF: Tensor = self.backbone(images_BCHW)
            return features_BF

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Raw outputs (B, outputs) by target, in float32 or wider; heads.py says what they mean.

        `images`: images (B, C, H, W) uint8, or features (B, F) that a frozen backbone computed before.
        """
        return self.outputs_of(images if images.ndim == 2 else self.features(images))

    def outputs_of(self, features_BF: Tensor) -> dict[str, Tensor]:
        """The raw outputs of `forward`, by target, of features (B, F)."""
        if features_BF.dtype.itemsize < 4:
            features_BF = features_BF.float()

        # The heads are a thousandth of the work. In bf16, numbers would be rounded to 8 bits, and scores would tie.
        with torch.autocast(features_BF.device.type, enabled=False):
            features_BF = self.dropout(features_BF)
            return {
                name: head(features_BF) for name, head in zip(self.metadata.heads, self.heads, strict=True)
            }


def share_backbone(models: Sequence[Classifier]) -> bool:
    """Whether all models have the same backbone, to the last bit, and bring images to it in the same way, as heads that
    were fitted to a frozen one have. If so, they hold it together from now on: in memory once, for inference only."""
    first = models[0]
    weights = first.backbone.state_dict()
    for model in models[1:]:
        own = model.backbone.state_dict()
        is_equal = (
            _without_heads(model.metadata) == _without_heads(first.metadata) and own.keys() == weights.keys()
        )
        if not is_equal or not all(torch.equal(own[name], tensor) for name, tensor in weights.items()):
            return False
    for model in models[1:]:
        model.backbone = first.backbone
    return True


def _without_heads(metadata: ModelMetadata) -> ModelMetadata:
    return replace(metadata, heads={}, cosine={}, dropout=0.0)


def joined_heads(models: Sequence[Classifier]) -> Classifier:
    """One model with the heads of several that share their backbone, for inference: one pass gives the outputs of all,
    by `joined_name`."""
    first = models[0]
    joined = copy.copy(first)
    joined._modules = dict(first._modules)
    joined.heads = nn.ModuleList(head for model in models for head in model.heads)
    outputs, cosine = (
        {
            joined_name(number, name): value
            for number, model in enumerate(models)
            for name, value in getattr(model.metadata, key).items()
        }
        for key in ("heads", "cosine")
    )
    joined.metadata = replace(first.metadata, heads=outputs, cosine=cosine)
    return joined.eval()


def joined_name(number: int, target: str) -> str:
    """The name of a target of one of several models, from 0."""
    return f"{number}.{target}"


def build_classifier(
    backbone: str,
    weights: str,
    image_size: tuple[int, int],
    fit: str,
    dropout: float,
    heads: dict[str, int],
    seed: int,
    cosine: Mapping[str, float] | None = None,
    pooling: str = "last",
    pixels: PixelFormat = RGB,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    prepare: Callable[[Backbone], Backbone] = lambda built: built,
) -> Classifier:
    """A new model. Its random weights are a function of `seed`; the caller's generators do not change.

    `image_size`: (height, width); `heads`: the number of outputs by target; `cosine`: the scale of those that are
    CosineLinear; `pooling` as in ModelMetadata; `pixels`: of its images; `mean`, `std`: of each channel, of pixel
    values from 0 to 1 (default: those of the backbone); `prepare`: called with the backbone, returns the one to use.
    See `build_backbone` for `backbone` and `weights`. Raises ModelError.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        built = prepare(build_backbone(backbone, weights, image_size, pooling, pixels.channels))
        metadata = ModelMetadata(
            backbone=backbone,
            image_size=image_size,
            fit=fit,
            mean=built.mean if mean is None else tuple(mean),
            std=built.std if std is None else tuple(std),
            dropout=dropout,
            heads=heads,
            cosine=dict(cosine or {}),
            pooling=pooling,
            channels=pixels.channels,
            value_range=pixels.value_range,
        )
        model = Classifier(built, metadata)
        model.arrange(torch.channels_last)
        return model


def restore_classifier(metadata: ModelMetadata, tensors: dict[str, Tensor]) -> Classifier:
    """The model of a checkpoint, with its weights and normalization, in training mode. Raises ModelError."""
    with torch.random.fork_rng(devices=[]):
        built = build_backbone(
            metadata.backbone, "none", metadata.image_size, metadata.pooling, metadata.channels
        )
        model = Classifier(built, metadata)
    model.load_state_dict(tensors)
    model.arrange(torch.channels_last)
    return model
