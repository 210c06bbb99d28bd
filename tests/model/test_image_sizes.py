"""Which image sizes timm's backbones take, and what the message says about those that they do not."""

import pytest
import torch

from classwise.errors import ModelError
from classwise.model.backbone import build_backbone
from classwise.model.image_sizes import options_for_size


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("test_vit", {"img_size": (96, 128)}),  # positions for this size
        ("crossvit_tiny_240", {}),  # scales images itself, and fails once it is built for a size
        ("mvitv2_tiny", {}),  # can be built for square images only, and takes others
    ],
)
def test_a_model_is_built_for_the_size_where_that_works(name: str, options: dict[str, object]) -> None:
    """timm flags all of these as of a fixed input size."""
    assert options_for_size(name, (96, 128), is_fixed=True) == options


def test_trying_draws_no_random_numbers() -> None:
    """The weights that are drawn afterwards are those of a model that was not tried."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(3)
        before = torch.get_rng_state()
        options_for_size("test_vit", (96, 128), is_fixed=True)
        assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["crossvit_tiny_240", "mvitv2_tiny"])
def test_such_a_backbone_takes_images_that_are_not_square(name: str) -> None:
    """Features for every image, which depend on it."""
    backbone = build_backbone(name, "none", (64, 96))
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = backbone.module.eval()(images)
    assert features.shape == (2, backbone.features)
    assert not torch.equal(features[0], features[1])


@pytest.mark.parametrize(
    ("name", "size", "allowed"),
    [
        ("nest_tiny", (96, 128), "[96, 96] and [224, 224]"),  # square images only
        ("convit_tiny", (96, 128), "[96, 96] and [224, 224]"),
        ("efficientformer_l1", (96, 128), "[224, 224]"),  # its own size only
        ("test_vit", (8, 8), "[16, 16] and [160, 160]"),  # patches of 16 px
    ],
)
def test_the_message_names_sizes_that_do(name: str, size: tuple[int, int], allowed: str) -> None:
    """One near the size that was asked for, where there is one, and the model's own; both can be built."""
    with pytest.raises(ModelError) as caught:
        build_backbone(name, "none", size)
    message = str(caught.value)
    assert message.startswith(f"model.image_size: {name} cannot take images of {list(size)}: ")
    assert message.endswith(f"allowed are, for instance, {allowed}")
    for text in allowed.split(" and "):
        height, width = map(int, text.strip("[]").split(", "))
        assert build_backbone(name, "none", (height, width)).features > 0
