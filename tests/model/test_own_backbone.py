"""A backbone of the user's own: built, tried and refused."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from classwise.errors import ConfigError, ModelError
from classwise.model.backbone import build_backbone
from classwise.model.own_backbone import check_own_backbone
from tests.helpers.own_parts import guide_files, own_part

SIZE = (16, 12)
HEAD = "import numpy as np\nimport torch\nfrom torch import nn\n\n"
NET = (
    HEAD
    + """
class Part(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 8, 3)
        {init}

    def forward(self, images):
        features = self.layer(images).mean((2, 3))
        {forward}
        return features
"""
)


def net(init: str = "pass", forward: str = "pass") -> str:
    """The code of a small network with a fault."""
    return NET.format(init=init, forward=forward)


def test_features_are_found_by_a_forward_pass(tmp_path: Path) -> None:
    """And images are normalized by 0.5, as for the built-in network."""
    backbone = build_backbone(own_part(tmp_path, net()), "none", SIZE)
    assert backbone.features == 8
    assert backbone.mean == backbone.std == (0.5, 0.5, 0.5)
    assert backbone.module.training


def test_a_class_gets_the_size_and_the_channels_if_it_asks(tmp_path: Path) -> None:
    """By the names of its parameters; so does a function that returns a module."""
    code = HEAD + (
        "def Part(image_size, channels):\n"
        "    height, width = image_size\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, 5))\n"
    )
    backbone = build_backbone(own_part(tmp_path, code), "none", SIZE, channels=2)
    assert backbone.module(torch.zeros(3, 2, *SIZE)).shape == (3, 5)
    assert backbone.features == 5
    assert backbone.mean == (0.5, 0.5)


def test_weights_come_from_a_file(tmp_path: Path) -> None:
    """With the tensors of the module; pretrained ones there are none."""
    reference = own_part(tmp_path, net())
    other = build_backbone(reference, "none", SIZE).module
    save_file(other.state_dict(), tmp_path / "w.safetensors")
    loaded = build_backbone(reference, str(tmp_path / "w.safetensors"), SIZE).module
    assert torch.equal(loaded.layer.weight, other.layer.weight)
    with pytest.raises(ModelError, match=r"my_part\.py:Part is your own and has no pretrained weights"):
        build_backbone(reference, "pretrained", SIZE)


def test_it_has_no_maps_to_pool(tmp_path: Path) -> None:
    """Unless it gives them as timm's models do."""
    with pytest.raises(ModelError, match=r"my_part\.py:Part does not give the maps"):
        build_backbone(own_part(tmp_path, net()), "none", SIZE, pooling="layers")


def test_the_guides_backbone_passes(tmp_path: Path) -> None:
    """The example of docs/guide/own-parts.md, and it can be built."""
    reference = own_part(tmp_path, guide_files()["my_model.py"], "Net")
    check_own_backbone(reference, (32, 32), 3)
    assert build_backbone(reference, "none", (32, 32)).features == 64


@pytest.mark.parametrize(
    "code",
    [
        net("self.norm = nn.BatchNorm1d(8)", "features = self.norm(features)"),
        net("self.drop = nn.Dropout(0.5)", "features = self.drop(features)"),
        net(
            "self.frozen = nn.Parameter(torch.ones(8), requires_grad=False)",
            "features = features * self.frozen",
        ),
        HEAD + "def Part():\n    return nn.Sequential(nn.AvgPool2d(4), nn.Flatten())\n",
    ],
)
def test_what_can_be_trained_and_saved_passes(tmp_path: Path, code: str) -> None:
    """Batch norm, dropout, frozen parameters, and a module without any."""
    check_own_backbone(own_part(tmp_path, code), SIZE, 3)


WRONG = {
    "unused": (
        net("self.unused = nn.Linear(2, 2)"),
        r"2 of its 4 parameters get no gradient, such as 'unused\.weight'",
    ),
    "detached": (
        net(forward="features = features.detach()"),
        r"2 of its 2 parameters get no gradient.* detached",
    ),
    "dropout in eval": (
        net(forward="features = nn.functional.dropout(features)"),
        "other features the second time, in eval.*if self.training",
    ),
    "over the batch": (
        net(forward="features = features - features.mean(0)"),
        "depend on the other images of its batch, in eval",
    ),
    "no buffer": (
        net("self.shift = torch.randn(8)", "features = features + self.shift"),
        "in no nn.Parameter and no buffer",
    ),
    "numpy": (
        net("self.layer.weight.data += float(np.random.rand())"),
        "made from the same seed have other weights.*random numbers of torch alone",
    ),
    "extra state": (
        net()
        + "\n    def get_extra_state(self):\n        return 'x'\n    def set_extra_state(self, s):\n        pass\n",
        "its state_dict has a str at '_extra_state'; allowed: tensors",
    ),
    "not finite": (net(forward="features = features / 0"), "its features of drawn images are not finite"),
    "rows": (net(forward="features = features[:1]"), r"it makes \(1, 8\) of 4 images, allowed: \(4, F\)"),
}


@pytest.mark.parametrize(("code", "message"), WRONG.values(), ids=WRONG)
def test_a_backbone_that_cannot_be_trained_or_saved_is_refused(
    tmp_path: Path, code: str, message: str
) -> None:
    """With what to write instead."""
    with pytest.raises(ModelError, match=rf"^model\.backbone: my_part\.py:Part: .*{message}"):
        check_own_backbone(own_part(tmp_path, code), SIZE, 3)


UNBUILT = {
    "a map": (
        HEAD + "def Part():\n    return nn.Conv2d(3, 8, 3)\n",
        r"makes \(1, 8, 14, 10\) of one image.*\.mean\(\(2, 3\)\)",
    ),
    "no module": (
        HEAD + "def Part():\n    return 3\n",
        r"my_part\.py:Part is int, allowed: a torch\.nn\.Module",
    ),
    "fails": (
        net(forward="features.foo"),
        r"it fails on images \(1, 3, 16, 12\): AttributeError: .* \(line 14: features\.foo",
    ),
    "fails at once": (
        HEAD + "def Part():\n    return foo\n",
        r"it fails: NameError: name 'foo' .*\(line 6: return foo",
    ),
}


@pytest.mark.parametrize(("code", "message"), UNBUILT.values(), ids=UNBUILT)
def test_what_makes_no_features_cannot_be_built(tmp_path: Path, code: str, message: str) -> None:
    """With the line that fails."""
    with pytest.raises(ModelError, match=rf"^model\.backbone: .*{message}"):
        build_backbone(own_part(tmp_path, code), "none", SIZE)


def test_an_argument_that_nobody_gives_is_named(tmp_path: Path) -> None:
    """A backbone has no keys of its own in the config."""
    with pytest.raises(ConfigError, match=r"^model\.backbone\.depth: missing; Part of .* needs it"):
        build_backbone(
            own_part(tmp_path, HEAD + "class Part(nn.Module):\n    def __init__(self, depth): pass\n"),
            "none",
            SIZE,
        )


def test_a_bare_file_gets_a_hint() -> None:
    """It is taken for a name of timm otherwise."""
    with pytest.raises(
        ModelError, match=r"no backbone 'my_model\.py'; a part of your own is named FILE\.py:NAME"
    ):
        build_backbone("my_model.py", "none", SIZE)
