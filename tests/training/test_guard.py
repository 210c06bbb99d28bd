"""The host runs ahead of the device: the same run, and nothing that is not finite gets into the weights."""

import gc
import math
import weakref
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from classwise.data.batch import Batch
from classwise.errors import ImageError, Interrupted, NonFiniteError
from classwise.losses import labels
from classwise.losses import normalizer as normalizers
from classwise.training import guard, loop
from classwise.training.state import Progress, TrainState
from tests.helpers.tiny_runs import (
    CPU,
    SETTINGS,
    Shelf,
    bytes_of,
    convolutional,
    copy_of,
    criterion_of,
    dense,
    has_come_to,
    moments_of,
    run,
    same,
    state_of,
    training,
)
from tests.helpers.waiting import Waiting


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU, where torch's fused optimizers skip a step as on a GPU."""
    monkeypatch.setattr(guard, "can_defer_check", lambda state, device: True)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("clip_norm", [math.inf, 0.1])
def test_it_is_the_same_run(optimizer: str, clip_norm: float, monkeypatch: pytest.MonkeyPatch) -> None:
    data, settings = training(22, 4, 2), replace(SETTINGS, clip_norm=clip_norm)
    ends = []
    for defers_checks in (False, True):
        monkeypatch.setattr(guard, "can_defer_check", lambda state, device: defers_checks)  # noqa: B023
        state = state_of(convolutional(), data, optimizer, 0.05, "cosine")
        assert run(state, data, settings, Shelf()) == "finished"
        ends.append(bytes_of(state))
    assert ends[0] == ends[1]


@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize("clip_norm", [math.inf, 0.1])
@pytest.mark.parametrize("last", [False, True])
def test_a_number_that_is_none_is_found_one_update_later(
    what: str, clip_norm: float, last: bool, ahead: None
) -> None:
    """The third update goes wrong: the message has its number and its samples; weights, statistics, moments and
    progress are those from before, though the fourth has begun."""
    data, settings = training(10, 2), replace(SETTINGS, clip_norm=clip_norm)
    state = state_of(convolutional(), data, "adamw", lr=0.01, schedule="cosine")
    windows = list(data.updates(0))
    loop.train_one_epoch(state, windows[:2], data, settings)
    before, moments = copy_of(state.model), moments_of(state)
    rate, loss_sum = state.optimizer.param_groups[0]["lr"], state.progress.loss_sum
    begun: list[int] = []
    state.model.register_forward_pre_hook(lambda module, inputs: begun.append(state.progress.update))
    bad = math.inf if what == "loss" else math.nan
    if what == "loss":
        state.criterion.register_forward_hook(
            lambda module, inputs, output: output * (bad if state.progress.update == 2 else 1)
        )
    else:
        state.model.heads[0].weight.register_hook(
            lambda gradient: gradient * (bad if state.progress.update == 2 else 1)
        )
    with pytest.raises(NonFiniteError) as caught:
        loop.train_one_epoch(state, windows[2:3] if last else windows[2:], data, settings)
    assert begun == ([2] if last else [2, 3])
    names = [f"그림 {row}" for row in windows[2][0].rows]
    assert str(caught.value).startswith(
        f"update 3: the {'loss' if what == 'loss' else 'norm of the gradient'} is"
    )
    assert str(caught.value).endswith("Samples: " + ", ".join(names))
    assert same(copy_of(state.model), before)
    assert same(moments_of(state), moments)
    progress = state.progress
    assert (progress.update, progress.update_in_epoch, progress.samples) == (2, 2, 4)
    assert progress.loss_sum == loss_sum
    # The rate that the run goes on with is set at its next update anyway.
    assert state.optimizer.param_groups[0]["lr"] != rate


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "adagrad"])
@pytest.mark.parametrize("bad", [0, 1, 2])
def test_every_optimizer_that_skips_leaves_its_moments_alone(optimizer: str, bad: int, ahead: None) -> None:
    """In its first step, too, in which torch's fused SGD would leave them what the memory was before."""
    data = training(10, 2)
    state, alone = (state_of(convolutional(), data, optimizer, lr=0.01) for _ in range(2))
    state.criterion.register_forward_hook(
        lambda module, inputs, output: output * (math.nan if state.progress.update == bad else 1)
    )
    windows = list(data.updates(0))
    loop.train_one_epoch(alone, windows[:bad], data, SETTINGS)
    with pytest.raises(NonFiniteError, match=f"update {bad + 1}: the loss is nan"):
        loop.train_one_epoch(state, windows, data, SETTINGS)
    assert same(copy_of(state.model), copy_of(alone.model))
    assert same(moments_of(state), moments_of(alone))


def test_parameters_that_begin_to_learn_are_waited_for_once(ahead: None) -> None:
    """After the epochs in which the backbone is frozen, its group has no moments either."""
    data = training(10, 2)
    state = state_of(convolutional(), data, "sgd", lr=0.01)
    frozen = list(state.model.backbone.parameters())
    for parameter in frozen:
        parameter.requires_grad_(False)
    loop.train_one_epoch(state, data.updates(0), data, SETTINGS)
    for parameter in frozen:
        parameter.requires_grad_(True)
    state.criterion.register_forward_hook(lambda module, inputs, output: output * math.nan)
    with pytest.raises(NonFiniteError, match="update 6: the loss is nan"):
        loop.train_one_epoch(state, data.updates(1), data, SETTINGS)
    assert not any(parameter in state.optimizer.state for parameter in frozen)


def test_what_is_kept_is_known_to_be_finite(ahead: None) -> None:
    """Every state that is saved in the middle of an epoch has the loss of all its updates, and none is lost."""
    data, sums = training(10, 2), list[tuple[int, float]]()

    class Often(Shelf):
        def should_save(self, progress: Progress) -> bool:
            return progress.update % 2 == 1

        def save(self, state: TrainState, best: bool) -> None:
            sums.append((state.progress.update, state.progress.loss_sum))

    state = state_of(convolutional(), data, "adamw", 0.01)
    loop.train_one_epoch(state, data.updates(0), data, SETTINGS, Often())
    assert [update for update, _ in sums] == [1, 3, 5]
    for update, found in sums:
        alone = state_of(convolutional(), data, "adamw", 0.01)
        loop.train_one_epoch(alone, list(data.updates(0))[:update], data, SETTINGS)
        assert alone.progress.loss_sum == found


def test_an_error_on_the_way_to_the_next_batch_leaves_nothing_unknown(ahead: None) -> None:
    """As a stop does: the update before it counts in full; and if that one was not finite, this is the news."""
    data = training(10, 2)

    def broken() -> Iterator[Any]:
        yield from list(data.updates(0))[:2]
        raise ImageError("x.png", "is damaged")  # type: ignore[arg-type]

    whole = state_of(convolutional(), data, "adamw", 0.01)
    loop.train_one_epoch(whole, list(data.updates(0))[:2], data, SETTINGS)
    for how in ("error", "stop"):
        state = state_of(convolutional(), data, "adamw", 0.01)
        if how == "error":
            with pytest.raises(ImageError):
                loop.train_one_epoch(state, broken(), data, SETTINGS)
        else:
            with pytest.raises(Interrupted):
                run(state, data, SETTINGS, Shelf(), should_stop=lambda: has_come_to(state, 2))  # noqa: B023
        assert state.progress.loss_sum == whole.progress.loss_sum
        assert same(copy_of(state.model), copy_of(whole.model))
        assert not hasattr(state.optimizer, "found_inf")
    poisoned = state_of(convolutional(), data, "adamw", 0.01)
    poisoned.criterion.register_forward_hook(
        lambda module, inputs, output: output * (math.nan if poisoned.progress.update == 1 else 1)
    )
    with pytest.raises(NonFiniteError, match="update 2: the loss is nan"):
        loop.train_one_epoch(poisoned, broken(), data, SETTINGS)


@pytest.mark.parametrize("clip_norm", [math.inf, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_nothing_waits_for_the_device(
    clip_norm: float, weighted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No number is asked for between the first batch and the last; where the host does not run ahead, one an update."""
    data, settings = training(10, 2), replace(SETTINGS, clip_norm=clip_norm)
    # As on a GPU: normalizers are tensors there unless all rows count alike.
    for module in (labels, normalizers):
        monkeypatch.setattr(module, "is_on_host", lambda tensor: False)
    for defers_checks in (True, False):
        monkeypatch.setattr(guard, "can_defer_check", lambda state, device: defers_checks)  # noqa: B023
        criterion = criterion_of(weighted)
        state = state_of(convolutional(), data, "adamw", 0.01, criterion=criterion)
        windows = [[replace(batch, complete=True) for batch in window] for window in data.updates(0)]
        loop.train_one_epoch(state, windows, data, settings)  # whose first update makes the moments
        with Waiting() as waiting:
            loop.train_one_epoch(state, windows, data, settings)
        assert bool(waiting.found) != defers_checks, waiting.found


def test_who_may_run_ahead() -> None:
    """Only where a step can be skipped on the device, and nothing else has to be known between two updates."""
    data, cuda = training(4, 2), torch.device("cuda")
    assert guard.can_defer_check(state_of(dense().float(), data, "adamw"), cuda)
    assert not guard.can_defer_check(state_of(dense().float(), data, "adamw"), CPU)
    assert guard.can_defer_check(state_of(dense().float(), data, "sgd"), cuda)
    assert not guard.can_defer_check(state_of(dense().float(), data, "sgdp"), cuda)
    assert not guard.can_defer_check(state_of(dense().float(), data, "adamw", options={"fused": False}), cuda)
    assert not guard.can_defer_check(state_of(dense().float(), data, "adamw", fp16=True), cuda)
    assert not guard.can_defer_check(state_of(dense().float(), data, "adamw", decay=0.9), cuda)


def test_a_late_check_keeps_no_batch(ahead: None) -> None:
    """Images and losses of the update before are freed: on a GPU they would lie beside the next update's."""
    data = training(10, 2)
    state = state_of(convolutional(), data, "adamw", 0.01)
    forward, alive, batches = state.model.forward, list[int](), list[weakref.ref[Tensor]]()

    def watched(images: Tensor) -> dict[str, Tensor]:
        gc.collect()
        alive.append(sum(batch() is not None for batch in batches))
        batches.append(weakref.ref(images))
        return forward(images)

    state.model.forward = watched  # type: ignore[method-assign]
    loop.train_one_epoch(state, fresh(data.updates(0)), data, SETTINGS)
    assert alive == [0] * 5


def fresh(updates: Iterator[list[Batch]]) -> Iterator[list[Batch]]:
    """The updates with images that nobody else holds."""
    for micro_batches in updates:
        yield [replace(batch, images=batch.images.clone()) for batch in micro_batches]
