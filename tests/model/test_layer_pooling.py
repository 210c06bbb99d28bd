"""Features of several layers: what the maps hold by hand, the same ones from checkpoints, ONNX files and autocast."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from classwise.errors import ModelError
from classwise.infer.export import onnx_bytes
from classwise.model.backbone import build_backbone
from classwise.model.classifier import Classifier, ModelMetadata, build_classifier, restore_classifier
from classwise.model.layer_pooling import EPSILON, layer_features, pooled_levels

SIZE = (32, 32)


def built(backbone: str = "test_resnet", pooling: str = "layers", **options: Any) -> Classifier:
    """A tiny model with one head of three outputs, in eval mode."""
    return build_classifier(
        backbone, "none", SIZE, "squash", 0.0, {"kind": 3}, seed=0, pooling=pooling, **options
    ).eval()


def drawn(count: int = 4, seed: int = 1) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, *SIZE), dtype=torch.uint8, generator=draw)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet"])
def test_mean_and_deviation_of_the_maps(backbone: str) -> None:
    """After the features of the last layer come, for each pooled level, the mean over the map of each channel and its
    standard deviation, as numpy computes them from what timm gives."""
    model = built(backbone)
    images = (drawn() - model.mean) / model.std
    with torch.no_grad():
        found = model.features(drawn()).numpy()
        maps = model.backbone.forward_intermediates(images, intermediates_only=True)
        last = built(backbone, "last").features(drawn()).numpy()
    expected = [last]
    for level in model.levels:
        map_BCP = maps[level].flatten(2).double().numpy()
        expected += [map_BCP.mean(axis=2), np.sqrt(map_BCP.var(axis=2) + EPSILON)]
    assert found == pytest.approx(np.concatenate(expected, axis=1), abs=1e-4)
    assert found.shape == (4, model.feature_count)


def test_which_levels_are_pooled() -> None:
    """The last three sizes of a network that halves the image; of a plain transformer half its depth, three quarters,
    and the last."""

    class Listed(torch.nn.Module):
        def __init__(self, reductions: list[int]) -> None:
            super().__init__()
            self.feature_info = [{"reduction": reduction} for reduction in reductions]

        def forward_intermediates(self) -> None: ...

    assert pooled_levels(Listed([2, 4, 8, 16, 32]), "x") == (2, 3, 4)
    assert pooled_levels(Listed([8, 16]), "x") == (0, 1)
    assert pooled_levels(Listed([16] * 12), "x") == (6, 9, 11)
    assert pooled_levels(Listed([16]), "x") == (0,)


def test_a_backbone_without_maps_is_refused() -> None:
    """With the key, what was found and what is allowed; for built-in ones as well."""
    with pytest.raises(
        ModelError, match=r'model\.pooling: found "layers", but small_cnn .*; allowed: "last"'
    ):
        build_backbone("small_cnn", "none", SIZE, "layers")
    with pytest.raises(ModelError, match=r"model\.pooling"):
        pooled_levels(torch.nn.Flatten(), "x")


def test_float32_under_autocast() -> None:
    """Small deviations beside large means survive: in bfloat16 the squares would be rounded to 8 bits."""

    class Faint(torch.nn.Module):
        """A map of 100 that varies by 0.1, in the precision of its input, and features of two."""

        def forward_intermediates(self, images: Tensor, indices: list[int]) -> tuple[Tensor, list[Tensor]]:
            return images[:, :2], [images]

        def forward_head(self, last: Tensor, pre_logits: bool) -> Tensor:
            return (last.flatten(2) @ torch.ones(last[0, 0].numel(), 1)).squeeze(2)

    images = torch.full((1, 3, 8, 8), 100.0)
    images[:, :, ::2] += 0.2
    with torch.autocast("cpu", torch.bfloat16):
        features = layer_features(Faint(), images, (0,))
    assert features.dtype == torch.float32
    assert features[0, 2:5] == pytest.approx(images.mean(dim=(2, 3))[0], rel=1e-5)
    assert features[0, 5:] == pytest.approx(torch.full((3,), (0.01 + EPSILON) ** 0.5), rel=1e-2)


def test_a_real_backbone_under_autocast() -> None:
    """Near the features of float32, and float32 themselves."""
    model = built()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = model.features(drawn())
    with torch.no_grad():
        expected = model.features(drawn())
    assert found.dtype == torch.float32
    assert torch.allclose(found, expected, rtol=0.1, atol=0.1)


def test_the_gradient_of_a_constant_image_is_finite() -> None:
    """The square root of a variance of 0 has an infinite slope."""
    model = built()
    flat = torch.full((2, 3, *SIZE), 128, dtype=torch.uint8)
    model.features(flat).sum().backward()
    gradients = [parameter.grad for parameter in model.backbone.parameters() if parameter.grad is not None]
    assert gradients
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)

    # With maps that do not vary at all, as the borders make those of a convolution.
    maps = torch.ones(2, 3, 4, 4, requires_grad=True)

    class Constant(torch.nn.Module):
        def forward_intermediates(self, images: Tensor, indices: list[int]) -> tuple[Tensor, list[Tensor]]:
            return images, [images]

        def forward_head(self, last: Tensor, pre_logits: bool) -> Tensor:
            return last.mean(dim=(2, 3))

    layer_features(Constant(), maps, (0,)).sum().backward()
    assert maps.grad is not None
    assert bool(maps.grad.isfinite().all())


def test_a_checkpoint_holds_the_pooling() -> None:
    """The model that is built again from metadata and weights gives the same outputs; metadata that is older than the
    pooling is of a model that pools nothing."""
    model = built()
    values = json.loads(json.dumps(model.metadata.as_dict()))
    assert values["pooling"] == "layers"
    again = restore_classifier(ModelMetadata.from_dict(values), model.state_dict()).eval()
    with torch.no_grad():
        assert torch.equal(again(drawn())["kind"], model(drawn())["kind"])

    plain = built(pooling="last")
    old = plain.metadata.as_dict()
    del old["pooling"]
    restored = restore_classifier(ModelMetadata.from_dict(old), plain.state_dict()).eval()
    assert restored.metadata.pooling == "last"
    assert restored.levels == ()
    with torch.no_grad():
        assert torch.equal(restored(drawn())["kind"], plain(drawn())["kind"])


@pytest.mark.full  # the exporter takes half a minute on a busy machine
@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
def test_an_onnx_file_pools_the_same_layers(backbone: str, tmp_path: Path) -> None:
    """The outputs of the exported model are those of eager torch, for another number of images than the example's."""
    onnxruntime = pytest.importorskip("onnxruntime")
    model = built(backbone)
    session = onnxruntime.InferenceSession(onnx_bytes(model, {}), providers=["CPUExecutionProvider"])
    for count in (1, 5):
        (found,) = session.run(
            None, {session.get_inputs()[0].name: np.ascontiguousarray(drawn(count).numpy())}
        )
        with torch.no_grad():
            assert found == pytest.approx(model(drawn(count))["kind"].numpy(), abs=1e-4)
