"""Frozen batch norm and group norm make an accumulated update that of one large batch; batch norm as it is does not."""

from collections.abc import Callable

import pytest
import torch

from classwise.model.backbone import HALF, Backbone
from classwise.model.classifier import Classifier
from classwise.model.small_cnn import SmallCNN, group_norm
from classwise.training import loop
from classwise.training.state import TrainState
from tests.helpers.tiny_runs import (
    SETTINGS,
    Shelf,
    convolutional,
    copy_of,
    flat,
    frozen,
    metadata,
    run,
    state_of,
    training,
)


def grouped() -> Classifier:
    """The built-in network with group norm, in float64, for images of 6 x 6 (it needs no pooling to 8 px there)."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        convolutions = SmallCNN(width=8, grid=1, norm=group_norm)
        body = torch.nn.Sequential(torch.nn.Upsample(scale_factor=2), convolutions)
        return Classifier(Backbone(body, convolutions.num_features, HALF, HALF), metadata(0.0)).double()


def normalized() -> Classifier:
    """Batch norm as it is, in float64."""
    return convolutional(0.0).double()


def after_an_epoch(
    make: Callable[[], Classifier], batch_size: int, accumulate: int, chunk_size: int = 0
) -> TrainState:
    """27 rows, 10 in an update, so that the last one is short; class weights that are far apart."""
    data = training(27, batch_size, accumulate)
    state = state_of(make(), data, lr=0.2)
    state.progress.chunk_size = chunk_size
    loop.train_one_epoch(state, data.updates(0), data, SETTINGS)
    return state


def distance(make: Callable[[], Classifier], parts: TrainState) -> float:
    """How far the weights are from those after the same epoch in whole batches, relative to how far they have come."""
    start = flat(make())
    whole = flat(after_an_epoch(make, 10, 1).model)
    return float((flat(parts.model) - whole).norm() / (whole - start).norm())


@pytest.mark.parametrize("make", [frozen, grouped])
@pytest.mark.parametrize(
    ("batch_size", "accumulate", "chunk_size"), [(5, 2, 0), (2, 5, 0), (1, 10, 0), (10, 1, 3), (5, 2, 2)]
)
def test_micro_batches_and_chunks_are_one_batch(
    make: Callable[[], Classifier], batch_size: int, accumulate: int, chunk_size: int
) -> None:
    """To 1e-9, with a short last update and class weights."""
    assert distance(make, after_an_epoch(make, batch_size, accumulate, chunk_size)) <= 1e-9


def test_batch_norm_as_it_is_is_not_exact() -> None:
    """The reason for all this, and what shows that the test above can fail."""
    assert distance(normalized, after_an_epoch(normalized, 5, 2)) > 0.01
    assert distance(normalized, after_an_epoch(normalized, 10, 1, chunk_size=5)) > 0.01


def test_frozen_statistics_stay_through_a_run() -> None:
    """Also in the average of the weights, and where memory ran out; the other weights learn."""
    data = training(20, 8, 2)
    state = state_of(frozen(0.3), data, "adamw", 0.01, decay=0.5)
    before = copy_of(state.model)
    run(state, data, SETTINGS, Shelf())
    for model in (state.model, state.average.model):
        after = copy_of(model)
        same = {name for name in before if torch.equal(before[name], after[name])}
        assert same == {
            f"backbone.1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")
        }
