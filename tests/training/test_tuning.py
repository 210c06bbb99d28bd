"""Measuring the fastest way to train leaves everything as it was, and chooses by the numbers."""

import weakref
from typing import Any
from unittest import mock

import pytest
import torch
from torch import nn

from classwise.model.backbone import HALF, Backbone
from classwise.model.classifier import Classifier, ModelMetadata
from classwise.training import tuning
from classwise.training.tuning import FORMATS, SearchSpace, TuningResult, torch_threads, tune

CPU = torch.device("cpu")


def model() -> Classifier:
    """A convolution, a batch norm and a head."""
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    metadata = ModelMetadata("none", (8, 6), "squash", HALF, HALF, 0.5, {"a": 2})
    return Classifier(Backbone(body, 4, HALF, HALF), metadata)


def optimizer_of(trial: Classifier, fused: bool | None) -> torch.optim.Optimizer:
    return torch.optim.Adam(trial.parameters(), 0.1, fused=fused)


def fastest(
    measured: Classifier, size: int, read: float, *layouts: tuple[int, int], **others: Any
) -> list[TuningResult]:
    return tune(measured, optimizer_of, size, CPU, read, SearchSpace(layouts, **others))


def test_the_model_and_the_generators_stay_as_they_were() -> None:
    """Weights, statistics, gradients, mode, torch's generator and threads: the updates are those of a copy."""
    measured = model().eval()
    before = {key: value.clone() for key, value in measured.state_dict().items()}
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    fastest(measured, 4, 0.0, (1, 0), formats=tuple(FORMATS), fused=(True, False))
    assert all(torch.equal(value, before[key]) for key, value in measured.state_dict().items())
    assert all(parameter.grad is None for parameter in measured.parameters())
    assert not measured.training
    assert measured.memory_format == torch.contiguous_format
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_every_combination_is_measured_in_its_own_threads() -> None:
    """Each precision in each layout, on uint8 images of the run's size, in so many threads."""
    measured, seen = model(), set()
    measured.register_forward_pre_hook(
        lambda _, inputs: seen.add((tuple(inputs[0].shape), inputs[0].dtype, torch.get_num_threads()))
    )
    plans = fastest(measured, 5, 0.0, (1, 1), (2, 0))
    assert seen == {((5, 3, 8, 6), torch.uint8, threads) for threads in (1, 2)}
    found = {(plan.precision, plan.threads, plan.workers) for plan in plans}
    assert found == {(precision, *layout) for precision in ("fp32", "bf16") for layout in ((1, 1), (2, 0))}
    assert [plan.seconds for plan in plans] == sorted(plan.seconds for plan in plans)


def test_the_run_s_own_batch_is_measured_where_that_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 16 images at first; where those take long, with no more."""
    for seconds, sizes in ((0.001, [16, 40]), (0.5, [16])):
        measured, seen = model(), list[int]()
        measured.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(len(inputs[0])))
        clock = iter(range(10**6))
        monkeypatch.setattr(
            tuning.time, "perf_counter", lambda clock=clock, seconds=seconds: next(clock) * seconds
        )
        (plan,) = fastest(measured, 40, 0.0, (1, 0), precisions=("fp32",))
        assert list(dict.fromkeys(seen)) == sizes
        assert plan.seconds == pytest.approx(seconds / sizes[-1])


def test_the_pace_is_the_slower_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without workers reading adds to training; with workers the slower of the two counts; the first pass, which
    fills caches, does not count, and of the others the median does."""
    passes = {"fp32": [0.01, 40.0, 4.0, 3.9], "bf16": [90.0, 5.2, 4.8, 5.6]}
    left = {precision: iter(seconds * 3) for precision, seconds in passes.items()}
    monkeypatch.setattr(
        tuning, "_one_update", lambda model, optimizer, images, precision, device: next(left[precision])
    )
    plans = fastest(model(), 4, 3.0, (1, 0), (1, 1), (1, 2))
    paces = {(plan.precision, plan.workers): plan.seconds for plan in plans}
    assert paces == {
        ("fp32", 0): 1.0 + 3.0,
        ("fp32", 1): 3.0,
        ("fp32", 2): 1.5,
        ("bf16", 0): 1.3 + 3.0,
        ("bf16", 1): 3.0,
        ("bf16", 2): 1.5,
    }
    assert (plans[0].precision, plans[0].workers) == ("fp32", 2)


def test_the_fastest_is_changed_one_thing_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory format, compilation and optimizer are tried for what was the fastest so far, and kept if faster."""
    seconds = {"bf16": 5.0, "fp32": 9.0}

    def passes(trial: Any, plan: TuningResult) -> list[float]:
        found = seconds[plan.precision] * (0.5 if plan.memory_format == "contiguous" else 1)
        found *= 2 if plan.compile else 1
        return [found * (0.1 if plan.fused is False else 1) * 4] * 4

    monkeypatch.setattr(tuning._Trial, "_time_passes", passes)
    choices = {"formats": tuple(FORMATS), "compiled": (False, True), "fused": (True, False)}
    plans = fastest(model(), 4, 0.0, (1, 0), **choices)
    found = [(p.precision, p.memory_format, p.compile, p.fused, p.seconds) for p in plans]
    assert found == [
        ("bf16", "contiguous", False, False, 0.25),
        ("bf16", "contiguous", False, True, 2.5),
        ("bf16", "channels_last", False, True, 5.0),
        ("bf16", "contiguous", True, True, 5.0),
        ("fp32", "channels_last", False, True, 9.0),
    ]
    assert str(plans[0]) == "bf16, 1 thread, 0 workers, contiguous, not fused: 250.00 ms an image"
    assert str(plans[3]) == "bf16, 1 thread, 0 workers, contiguous, compiled: 5000.00 ms an image"


def test_what_does_not_fit_the_memory_is_measured_smaller() -> None:
    """Half as many images each time; with not even one there is no plan."""
    for most in (3, 0):
        measured, seen = model(), list[int]()

        def refuse(_: Any, inputs: tuple[torch.Tensor], most: int = most, seen: list[int] = seen) -> None:
            seen.append(len(inputs[0]))
            if len(inputs[0]) > most:
                raise torch.OutOfMemoryError("CUDA out of memory")

        measured.register_forward_pre_hook(refuse)
        plans = fastest(measured, 16, 0.0, (1, 0), precisions=("fp32",))
        assert bool(plans) == bool(most)
        assert list(dict.fromkeys(seen)) == ([16, 8, 4, 2] if most else [16, 8, 4, 2, 1])


def test_a_pass_that_did_not_fit_is_gone_before_the_next() -> None:
    """Else the memory that it holds would be missing, and fewer images would seem to fit than do."""
    measured, alive = model(), list[weakref.ref[torch.Tensor]]()

    def refuse(_: Any, inputs: tuple[torch.Tensor]) -> None:
        assert [reference for reference in alive if reference() is not None] == []
        alive.append(weakref.ref(inputs[0]))
        if len(inputs[0]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    measured.register_forward_pre_hook(refuse)
    with mock.patch.object(tuning, "_one_update", side_effect=one_pass):
        assert fastest(measured, 16, 0.0, (1, 0), precisions=("fp32",))
    assert len(alive) >= 4


def one_pass(model: Classifier, optimizer: Any, images: torch.Tensor, *_: Any) -> float:
    model(images.clone())
    return 1.0


def test_what_cannot_be_compiled_is_no_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Said by its absence; but an error in the model itself is the user's to see."""
    measured = model()
    monkeypatch.setattr(Classifier, "compile", lambda self, dynamic: self.register_forward_pre_hook(fail))
    plans = fastest(measured, 4, 0.0, (1, 0), precisions=("fp32",), compiled=(False, True))
    assert [plan.compile for plan in plans] == [False]
    measured.register_forward_pre_hook(fail)
    with pytest.raises(KeyError):
        fastest(measured, 4, 0.0, (1, 0))


def fail(*_: Any) -> None:
    raise KeyError


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


def test_what_is_clearly_slower_is_not_measured_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the time of another in its second and third pass: no fourth."""
    seen: list[str] = []

    def update(model: Any, optimizer: Any, images: Any, precision: str, device: Any) -> float:
        seen.append(precision)
        return 1.0 if precision == "fp32" else 2.0

    monkeypatch.setattr(tuning, "_one_update", update)
    plans = fastest(model(), 4, 0.0, (1, 0))
    assert (seen.count("fp32"), seen.count("bf16")) == (4, 3)
    assert [plan.seconds for plan in plans] == [0.25, 0.5]
