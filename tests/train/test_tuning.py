"""Measuring the fastest way to train leaves everything as it was, and chooses by the numbers."""

import pytest
import torch
from torch import nn

from classwise.model.backbone import HALF, Backbone
from classwise.model.classifier import Classifier, ModelFacts
from classwise.train import tuning
from classwise.train.tuning import fastest_plan, torch_threads

CPU = torch.device("cpu")


def model() -> Classifier:
    """A convolution, a batch norm and a head."""
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    facts = ModelFacts("none", (8, 6), "squash", HALF, HALF, 0.5, {"a": 2})
    return Classifier(Backbone(body, 4, HALF, HALF), facts)


def test_the_model_and_the_generators_stay_as_they_were() -> None:
    """Weights, statistics, gradients, mode, torch's generator and threads: the passes run on a copy."""
    measured = model().eval()
    before = {key: value.clone() for key, value in measured.state_dict().items()}
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    fastest_plan(measured, 4, CPU, 0.0, [(1, 0)])
    assert all(torch.equal(value, before[key]) for key, value in measured.state_dict().items())
    assert all(parameter.grad is None for parameter in measured.parameters())
    assert not measured.training
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_every_combination_is_measured_in_its_own_threads() -> None:
    """Each precision in each layout, on uint8 pictures of the run's size, in so many threads."""
    measured, seen = model(), set()
    measured.register_forward_pre_hook(
        lambda _, inputs: seen.add((tuple(inputs[0].shape), inputs[0].dtype, torch.get_num_threads()))
    )
    plans = fastest_plan(measured, 5, CPU, 0.0, [(1, 1), (2, 0)])
    assert seen == {((5, 3, 8, 6), torch.uint8, threads) for threads in (1, 2)}
    found = {(plan.precision, plan.threads, plan.workers) for plan in plans}
    assert found == {(precision, *layout) for precision in ("fp32", "bf16") for layout in ((1, 1), (2, 0))}
    assert [plan.seconds for plan in plans] == sorted(plan.seconds for plan in plans)


def test_the_pace_is_the_slower_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without workers reading adds to training; with workers the slower of the two counts; the first pass, which
    fills caches, does not count, and of the others the median does."""
    passes = {"fp32": [0.01, 40.0, 4.0, 3.9], "bf16": [90.0, 8.0, 7.0, 8.4]}
    left = {precision: iter(seconds * 3) for precision, seconds in passes.items()}
    monkeypatch.setattr(tuning, "_one_pass", lambda model, images, precision, device: next(left[precision]))
    plans = fastest_plan(model(), 4, CPU, 3.0, [(1, 0), (1, 1), (1, 2)])
    paces = {(plan.precision, plan.workers): plan.seconds for plan in plans}
    assert paces == {
        ("fp32", 0): 1.0 + 3.0,
        ("fp32", 1): 3.0,
        ("fp32", 2): 1.5,
        ("bf16", 0): 2.0 + 3.0,
        ("bf16", 1): 3.0,
        ("bf16", 2): 2.0,
    }
    assert (plans[0].precision, plans[0].workers) == ("fp32", 2)


def test_threads_are_given_back_after_an_error() -> None:
    """Whatever happens inside, torch has as many threads as before."""
    before, inside = torch.get_num_threads(), []

    def fail() -> None:
        with torch_threads(before + 1):
            inside.append(torch.get_num_threads())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (inside, torch.get_num_threads()) == ([before + 1], before)
