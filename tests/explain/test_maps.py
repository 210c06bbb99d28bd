"""The maps of each kind of backbone: what they add up to, who gets which method, and what stays as it is."""

import sys
from unittest import mock

import pytest
import timm
import torch
from torch import nn

from classwise.errors import ConfigError, ModelError
from classwise.explain.evidence import evidence
from classwise.explain.model import ExplainedModel
from classwise.explain.spatial import feature_maps
from classwise.infer.ensemble import as_decoded
from classwise.model.backbone import HALF, Backbone
from classwise.model.classifier import Classifier, ModelMetadata, build_classifier
from classwise.model.heads import ClassHead, RegressionHead
from tests.helpers.scenes import generators_untouched

SIZE = (64, 64)
HEADS = {"kind": ClassHead(3), "size": RegressionHead(0.0, 1.0)}
KIND = {"kind": torch.tensor([2])}


def model_of(backbone: str, pooling: str = "last", seed: int = 0) -> Classifier:
    heads = {name: head.outputs for name, head in HEADS.items()}
    return build_classifier(backbone, "none", SIZE, "squash", 0.1, heads, seed=seed, pooling=pooling)


def without_maps() -> Classifier:
    """A backbone that flattens the image at once."""
    body = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 8), nn.Tanh())
    metadata = ModelMetadata("own", SIZE, "squash", HALF, HALF, 0.0, {"kind": 3, "size": 1})
    return Classifier(Backbone(body, 8, HALF, HALF), metadata)


def explained(*models: Classifier) -> ExplainedModel:
    return ExplainedModel.of(models, [HEADS] * len(models), as_decoded(HEADS))


def images(count: int = 2) -> torch.Tensor:
    draw = torch.Generator().manual_seed(4)
    return torch.randint(0, 256, (count, 3, *SIZE), dtype=torch.uint8, generator=draw)


@pytest.mark.parametrize(
    ("backbone", "pooling", "method"),
    [
        ("small_cnn", "last", "gradcam"),
        ("test_resnet", "last", "gradcam"),
        ("test_resnet", "layers", "gradcam"),
        ("test_efficientnet", "last", "gradcam"),
        ("test_convnext", "layers", "gradcam"),
        ("test_mambaout", "last", "gradcam"),  # its maps have the channels last
        ("test_vit", "last", "attention"),
        ("test_vit", "layers", "attention"),
        ("test_vit2", "last", "attention"),
    ],
)
def test_each_backbone_has_maps(backbone: str, pooling: str, method: str) -> None:
    model = explained(model_of(backbone, pooling))
    assert model.method() == method
    for classes in (KIND, {"size": torch.tensor([0])}):
        maps_BHW = model.maps(images(), {name: k.expand(2) for name, k in classes.items()})
        assert maps_BHW.shape == (2, *SIZE)
        assert maps_BHW.dtype == torch.float32
        assert maps_BHW.min() >= 0
        assert set(maps_BHW.amax(dim=(1, 2)).tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize(("backbone", "pooling"), [("test_resnet", "last"), ("test_resnet", "layers")])
def test_the_parts_add_up_to_the_answer(backbone: str, pooling: str) -> None:
    """Map times gradient, over all places of all maps, is a linear head's output without its bias: nothing that the
    answer is made of lies outside, and no deeper map counts a part of it again."""
    model = model_of(backbone, pooling).eval().requires_grad_(False)
    classes = {"size": torch.tensor([0])}
    found = feature_maps(model, images().float(), lambda outputs: evidence(outputs, HEADS, classes))
    total_B = sum((each.values * each.gradient).sum(dim=(1, 2, 3)) for each in found)
    output_B = model(images())["size"][:, 0] - model.heads[1].bias
    torch.testing.assert_close(total_B, output_B, atol=1e-4, rtol=1e-3)


def test_a_backbone_without_maps_is_explained_by_hiding_parts() -> None:
    """By captum; the part that the only pixels with a weight lie in is found."""
    pytest.importorskip("captum")
    linear = without_maps()
    with torch.no_grad():
        layer = linear.backbone[1]
        layer.weight.zero_()
        layer.weight.view(8, 3, 64, 64)[:, :, 40:48, 8:16] = 0.05
        linear.heads[0].weight.copy_(torch.tensor([[-1.0], [0.0], [1.0]]).expand(3, 8))
    image = torch.full((1, 3, *SIZE), 128, dtype=torch.uint8)
    image[..., 40:48, 8:16] = 140
    model = explained(linear)
    assert model.method() == "occlusion"
    (map_HW,) = model.maps(image, KIND)
    assert map_HW[40:48, 8:16].min() > 0.1
    assert map_HW.sum() > 0
    assert map_HW[:24].max() < 0.01
    with pytest.raises(ConfigError, match="allowed: auto, occlusion"):
        model.method("gradcam")


def test_without_captum_the_message_says_what_to_install() -> None:
    with (
        mock.patch.dict(sys.modules, {"captum": None, "captum.attr": None}),
        pytest.raises(ModelError, match=r'pip install "classwise\[explain\]"'),
    ):
        explained(without_maps()).maps(images(1), KIND)


def test_the_map_of_several_models_is_their_mean() -> None:
    one, other = model_of("test_resnet"), model_of("test_resnet", seed=1)
    maps = [explained(each).maps(images(), {"kind": torch.tensor([1, 2])}) for each in (one, other)]
    mean_BHW = (maps[0] + maps[1]) / 2
    expected_BHW = mean_BHW / mean_BHW.amax(dim=(1, 2), keepdim=True).clamp_min(1e-30)
    torch.testing.assert_close(
        explained(one, other).maps(images(), {"kind": torch.tensor([1, 2])}), expected_BHW
    )


@pytest.mark.parametrize("backbone", ["small_cnn", "test_vit"])
def test_the_model_stays_as_it_is(backbone: str) -> None:
    """Its mode, its gradients, its precision, its fused attention and the random state; and the same again gives the
    same bytes."""
    model = model_of(backbone).to(torch.bfloat16).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with generators_untouched():
        copied = explained(model)
        maps = [copied.maps(images(), {"kind": torch.tensor([0, 1])}) for _ in range(2)]
    assert maps[0].numpy().tobytes() == maps[1].numpy().tobytes()
    assert model.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    fused = [layer.fused_attn for layer in copied.models[0].modules() if hasattr(layer, "fused_attn")]
    assert fused == [layer.fused_attn for layer in model.modules() if hasattr(layer, "fused_attn")]
    assert not any(module._forward_hooks for module in copied.models[0].modules())


def test_attention_within_windows_is_no_attention_map() -> None:
    """Its layers attend to a part of the image only, so a path through them says nothing; their maps do."""
    name = "swin_tiny_patch4_window7_224"
    body = timm.create_model(
        name, num_classes=0, img_size=64, embed_dim=12, depths=(1, 1), num_heads=(1, 2), window_size=4
    )
    metadata = ModelMetadata(name, SIZE, "squash", HALF, HALF, 0.0, {"kind": 3, "size": 1})
    model = explained(Classifier(Backbone(body, body.num_features, HALF, HALF), metadata))
    assert model.method() == "gradcam"
    assert model.maps(images(), {"kind": torch.tensor([0, 1])}).shape == (2, *SIZE)


def test_where_nothing_speaks_for_the_answer_the_map_is_empty() -> None:
    """Not noise that is scaled up: an answer that is the same for every image comes from no place of it."""
    model = model_of("test_resnet")
    with torch.no_grad():
        model.heads[1].weight.zero_()
    assert explained(model).maps(images(), {"size": torch.tensor([0, 0])}).max() == 0
