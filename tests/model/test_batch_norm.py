"""Which layers depend on the batch, and what is left of that once they are frozen."""

import copy

import pytest
import torch
from timm.layers import BatchNormAct2d, EvoNorm2dB0, EvoNorm2dS0, GroupNormAct
from torch import nn

from classwise.model.batch_norm import batch_norms, freezable_norms
from classwise.model.classifier import Classifier, build_classifier


def classifier(backbone: str, frozen: bool = False) -> Classifier:
    """A model for images of 32 x 32, whose running statistics are not those of the start."""
    model = build_classifier(backbone, "none", (32, 32), "squash", 0.0, {"it": 3}, seed=3)
    model(images(16, seed=9))
    if frozen:
        model.freeze_batch_norm()
    return model


def images(count: int, seed: int = 0) -> torch.Tensor:
    """Drawn images, (N, 3, 32, 32)."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=draw)


@pytest.mark.parametrize(
    ("layer", "depends"),
    [
        (nn.BatchNorm1d(4), True),
        (nn.SyncBatchNorm(4), True),
        (BatchNormAct2d(4), True),
        (EvoNorm2dB0(4), True),
        (nn.BatchNorm2d(4, track_running_stats=False), True),
        (nn.InstanceNorm2d(4, track_running_stats=True), False),
        (nn.GroupNorm(2, 4), False),
        (GroupNormAct(4, 2), False),
        (EvoNorm2dS0(4, groups=2), False),
        (nn.LayerNorm(4), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_layers_that_depend_on_the_batch(layer: nn.Module, depends: bool) -> None:
    """torch's and timm's, by whether their outputs change with the other images."""
    assert (batch_norms(nn.Sequential(layer)) == [layer]) == depends
    if isinstance(layer, nn.SyncBatchNorm | nn.BatchNorm1d | nn.LayerNorm):
        return
    first, second = (torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(k)) for k in (1, 2))
    alone, beside = layer.train()(first)[0], layer(torch.stack([first[0], second[1]]))[0]
    assert torch.allclose(alone, beside, atol=1e-6) != depends


def test_only_running_statistics_can_be_frozen() -> None:
    """A norm without them normalizes by the batch in eval mode as well."""
    norms = nn.Sequential(nn.BatchNorm2d(4), nn.BatchNorm2d(4, track_running_stats=False))
    assert batch_norms(norms) == list(norms)
    assert freezable_norms(norms) == [norms[0]]


@pytest.mark.parametrize(("backbone", "count"), [("small_cnn", 4), ("small_cnn_gn", 0), ("test_vit", 0)])
def test_layers_of_a_model(backbone: str, count: int) -> None:
    """Once frozen, no layer depends on the batch any more."""
    assert len(classifier(backbone).batch_dependent_norms) == count
    assert classifier(backbone, frozen=True).batch_dependent_norms == []


@pytest.mark.parametrize(
    ("backbone", "frozen"), [("small_cnn", True), ("test_resnet", True), ("small_cnn_gn", False)]
)
def test_an_image_does_not_depend_on_the_others(backbone: str, frozen: bool) -> None:
    """In training mode: frozen batch norm, and group norm; a single image can be trained on as well."""
    model = classifier(backbone, frozen).train()
    alone = model(images(1))["it"]
    assert torch.allclose(alone, model(images(5))["it"][:1], atol=1e-4)


def test_frozen_is_eval_mode_with_a_gradient() -> None:
    """Outputs of training are those of evaluation, no buffer moves, and every weight has a gradient."""
    model = classifier("small_cnn", frozen=True)
    before = copy.deepcopy(dict(model.named_buffers()))
    outputs = model.train()(images(6))["it"]
    outputs.square().sum().backward()
    assert all(torch.equal(before[name], value) for name, value in model.named_buffers())
    assert all(p.grad is not None and bool(p.grad.any()) for p in model.parameters())
    assert torch.equal(outputs, model.eval()(images(6))["it"])


def test_what_is_not_frozen_still_moves() -> None:
    """The comparison above can fail."""
    model = classifier("small_cnn")
    before = copy.deepcopy(dict(model.named_buffers()))
    outputs = model.train()(images(6))["it"]
    assert not torch.equal(before["backbone.stem.norm.running_mean"], model.backbone.stem.norm.running_mean)
    assert not torch.allclose(outputs, model.eval()(images(6))["it"], atol=1e-2)


def test_a_copy_is_frozen_too() -> None:
    """The fastest way to train is measured with a copy."""
    copied = copy.deepcopy(classifier("small_cnn", frozen=True)).train()
    assert not any(norm.training for norm in batch_norms(copied))
    assert copied.heads.training
