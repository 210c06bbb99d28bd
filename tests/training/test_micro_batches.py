"""A batch that is computed in parts, by request or since memory ran out, is the same batch."""

import dataclasses
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from classwise.data.batch import Batch
from classwise.distributed import SINGLE_PROCESS
from classwise.errors import ConfigError, Interrupted, OutOfMemory
from classwise.losses.criterion import Criterion
from classwise.losses.soft_f1 import SoftMacroF1
from classwise.metrics.collection import MetricCollection
from classwise.model.heads import ClassHead
from classwise.model.oom import OOMFallback
from classwise.training import loop
from classwise.training.oom import retry_in_smaller_chunks
from classwise.training.state import TrainState
from tests.helpers.tiny_runs import (
    HEADS,
    LABELS,
    SETTINGS,
    Shelf,
    board,
    bytes_of,
    convolutional,
    copy_of,
    criterion_of,
    dense,
    flat,
    has_come_to,
    run,
    state_of,
    training,
    validation,
)


class Small:
    """A device with room for so many images at once: `compute` of a state."""

    def __init__(self, state: TrainState, most: int, until: int = 10**9) -> None:
        self.state, self.most, self.until = state, most, until
        self.sizes: list[int] = []
        state.compute = self

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        found = self.state.model(images)  # the statistics of the norms have changed by then
        if len(images) > self.most and self.state.progress.update < self.until:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {len(images)} GiB.\nMore.")
        self.sizes.append(len(images))
        return found


@pytest.mark.parametrize("most", [1, 2, 3, 4, 5, 7, 11, 22])
def test_the_update_does_not_depend_on_the_micro_batch(most: int) -> None:
    data = training(22, 11, 2)
    wanted, found = (state_of(dense(), data, lr=0.5) for _ in range(2))
    start = flat(wanted.model)
    found.progress.chunk_size = most
    for state in (wanted, found):
        loop.train_one_epoch(state, data.updates(0), data, SETTINGS)
    assert (flat(found.model) - flat(wanted.model)).norm() <= 1e-12 * (flat(wanted.model) - start).norm()
    assert found.progress.samples == wanted.progress.samples == 22
    assert found.progress.loss_sum == pytest.approx(wanted.progress.loss_sum, rel=1e-12)


@pytest.mark.parametrize("most", [1, 2, 3, 5, 7])
def test_the_update_does_not_depend_on_the_micro_batch_where_every_row_is_labeled(most: int) -> None:
    """The plain mean of a whole batch has a shortcut, which a part of the batch must not take."""
    data = training(11, 11)
    updates = [
        [
            dataclasses.replace(
                batch, targets={name: t.clamp(min=0) for name, t in batch.targets.items()}, complete=True
            )
            for batch in micro_batches
        ]
        for micro_batches in data.updates(0)
    ]
    wanted, found = (state_of(dense(), data, lr=0.5) for _ in range(2))
    start = flat(wanted.model)
    found.progress.chunk_size = most
    for state in (wanted, found):
        state.criterion = criterion_of(weighted=False)
        loop.train_one_epoch(state, updates, data, SETTINGS)
    assert (flat(found.model) - flat(wanted.model)).norm() <= 1e-12 * (flat(wanted.model) - start).norm()
    assert found.progress.loss_sum == pytest.approx(wanted.progress.loss_sum, rel=1e-12)


def test_parts_are_nearly_equal_and_hold_every_row_once() -> None:
    (batch,) = next(training(22, 22).updates(0))
    for most in range(1, 25):
        parts = list(batch.parts(most))
        sizes = [len(part) for part in parts]
        assert max(sizes) <= most
        assert max(sizes) - min(sizes) <= 1
        assert len(parts) == -(-22 // most)
        np.testing.assert_array_equal(np.concatenate([part.rows for part in parts]), batch.rows)
        assert torch.equal(torch.cat([part.images for part in parts]), batch.images)
        for name, values in batch.targets.items():
            assert torch.equal(torch.cat([part.targets[name] for part in parts]), values)
    (whole,) = batch.parts(0)
    assert whole is batch
    nobodys = Batch(batch.images, batch.targets, batch.rows[:0])
    assert [len(part) for part in nobodys.parts(5)] == [0] * 5


def test_a_batch_that_does_not_fit_is_halved_and_the_run_is_that_of_the_half() -> None:
    """Weights, moments, statistics of the norms, dropout, history: all as if it had been asked for."""
    data = training(20, 8, 2)
    wanted, found = (state_of(convolutional(), data, "adamw", 0.01) for _ in range(2))
    wanted.progress.chunk_size = 2
    small = Small(found, 3)
    for state in (wanted, found):
        assert run(state, data, SETTINGS, Shelf()) == "finished"
    assert found.progress.chunk_size == 2
    assert max(small.sizes) == 2
    assert found.progress.history[0]["micro_batch"] == 2
    assert bytes_of(wanted) == bytes_of(found)


def test_each_halving_is_reported() -> None:
    """With the new size, once for each time that memory ran out."""
    data = training(20, 8, 2)
    state = state_of(dense(), data)
    small, sizes = Small(state, 2), list[int]()

    def train() -> str:
        return loop.train(state, data, validation(), board(), SETTINGS, Shelf())

    assert retry_in_smaller_chunks(train, state, data, sizes.append) == "finished"
    assert sizes == [4, 2]
    assert max(small.sizes) == 2


def test_memory_that_runs_out_later_changes_nothing_before() -> None:
    """In the second epoch's second update: that update is done again, from its start."""
    data = training(20, 8)
    state = state_of(convolutional(), data, "adamw", 0.01)
    small, seen = Small(state, 99), list[tuple[int, dict[str, Tensor]]]()

    class Watching(Shelf):
        def should_save(self, progress: Any) -> bool:
            seen.append((progress.update, copy_of(state.model)))
            small.most = 4 if progress.update == data.updates_per_epoch + 1 else 99
            return False

    run(state, data, SETTINGS, Watching())
    assert [update for update, _ in seen] == list(range(1, 2 * data.updates_per_epoch + 1))
    assert state.progress.chunk_size == 4
    assert "micro_batch" not in state.progress.history[0]
    undisturbed = state_of(convolutional(), data, "adamw", 0.01)
    loop.train_one_epoch(undisturbed, data.updates(0), data, SETTINGS)
    before = dict(seen)[data.updates_per_epoch]
    assert all(torch.equal(value, before[key]) for key, value in copy_of(undisturbed.model).items())


def test_a_stopped_run_goes_on_with_the_size_that_fitted() -> None:
    data = training(20, 8, 2)
    whole, stopped = (state_of(convolutional(), data, "adamw", 0.01) for _ in range(2))
    Small(whole, 3)
    Small(stopped, 3)
    run(whole, data, SETTINGS, Shelf())
    with pytest.raises(Interrupted):
        run(stopped, data, SETTINGS, Shelf(), should_stop=lambda: has_come_to(stopped, 1))
    resumed = state_of(convolutional(), data, "adamw", 0.01)
    resumed.model.load_state_dict(stopped.model.state_dict())
    resumed.optimizer.load_state_dict(stopped.optimizer.state_dict())
    resumed.progress = type(stopped.progress).from_dict(stopped.progress.as_dict())
    assert resumed.progress.chunk_size == 2
    small = Small(resumed, 3)
    run(resumed, data, SETTINGS, Shelf())
    assert max(small.sizes) == 2
    assert bytes_of(whole) == bytes_of(resumed)


def test_where_one_image_does_not_fit_it_is_said() -> None:
    data = training(6, 4)
    state = state_of(dense(), data)
    Small(state, 0)
    with pytest.raises(
        ConfigError, match=r"^training.batch_size: one image does not fit .*: CUDA out of memory"
    ):
        run(state, data, SETTINGS, Shelf())
    assert state.progress.update == 0


def test_what_cannot_be_computed_in_parts_is_refused() -> None:
    """Soft F1 is not a sum over samples; a ranking compares the rows of a query."""
    data = training(6, 4)
    soft = Criterion({"mask": SoftMacroF1(3), "age": SoftMacroF1(4)}, {"mask": 1.0, "age": 1.0})
    queries = dataclasses.replace(data, queries=np.zeros(6, np.int64))
    for given, criterion in ((data, soft), (queries, criterion_of())):
        state = state_of(dense(), data, criterion=criterion)
        Small(state, 2)
        with pytest.raises(
            ConfigError, match=r"a batch that cannot be computed in parts \(soft F1, whole queries\)"
        ):
            run(state, given, SETTINGS, Shelf())


def test_an_error_that_is_none_of_memory_is_left_alone() -> None:
    with pytest.raises(KeyError), SINGLE_PROCESS.sync_errors():
        raise KeyError
    with pytest.raises(OutOfMemory) as caught, SINGLE_PROCESS.sync_errors():
        raise torch.OutOfMemoryError("out\nof memory")
    assert str(caught.value) == "out"


def test_memory_that_runs_out_in_validation_is_not_blamed_on_the_optimizer() -> None:
    """Outside of the model's forward pass, which is halved: torch's own error comes through."""
    data = training(20, 8)
    state = state_of(convolutional(), data, "adamw", 0.01)

    class Full(MetricCollection):
        def update(self, *arguments: Any, **options: Any) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB.")

    full = Full({name: ClassHead(size) for name, size in HEADS.items()}, LABELS)

    def train() -> str:
        return loop.train(state, data, validation(), full, SETTINGS, Shelf())

    with pytest.raises(torch.OutOfMemoryError):
        retry_in_smaller_chunks(train, state, data)


def test_a_step_that_does_not_fit_is_an_error_of_ours() -> None:
    """Smaller micro-batches do not help the optimizer, whose moments are as large as the model."""
    data = training(20, 8)
    state = state_of(convolutional(), data, "adamw", 0.01)

    def step(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB.\nMore.")

    state.optimizer.step = step  # type: ignore[method-assign]
    with pytest.raises(
        ConfigError, match=r"optimizer\.name, .* Tried to allocate 3 GiB\)\. Use an optimizer"
    ):
        run(state, data, SETTINGS, Shelf())


def limited(model: torch.nn.Module, most: int) -> list[int]:
    """The model runs out of memory with more images than that at once; the sizes it was given, and whether what did
    not fit was gone by then."""
    sizes: list[int] = []
    alive: list[weakref.ref[Tensor]] = []

    def refuse(_: Any, inputs: tuple[Tensor]) -> None:
        assert all(reference() is None for reference in alive)
        sizes.append(len(inputs[0]))
        if len(inputs[0]) > most:
            held = torch.zeros(10)
            alive.append(weakref.ref(held))
            raise torch.OutOfMemoryError("CUDA out of memory.")

    model.register_forward_pre_hook(refuse)
    return sizes


def test_validation_that_does_not_fit_goes_on_in_pieces() -> None:
    """The same outputs, every row once; and no further attempt with as many as did not fit."""
    model = convolutional().eval()
    images = torch.randint(0, 256, (11, 3, 8, 6), dtype=torch.uint8)
    with torch.no_grad():
        wanted = model(images)
        sizes = limited(model, 3)
        fitting = OOMFallback(model)
        for _ in range(2):
            found = fitting(images)
            assert all(torch.allclose(found[name], raw, atol=1e-6) for name, raw in wanted.items())
            assert {name: raw.shape for name, raw in found.items()} == {n: r.shape for n, r in wanted.items()}
    assert sizes == [11, 6, *[3, 3, 3, 2] * 2]


def test_what_fits_is_computed_at_once() -> None:
    model = convolutional().eval()
    images, sizes = torch.randint(0, 256, (11, 3, 8, 6), dtype=torch.uint8), limited(model, 11)
    with torch.no_grad():
        found, wanted = OOMFallback(model)(images), model(images)
    assert all(torch.equal(found[name], raw) for name, raw in wanted.items())
    assert sizes == [11, 11]
    limited(model, 0)
    with pytest.raises(ConfigError, match="not even one image fits in the memory of cpu"):
        OOMFallback(model)(images)


def test_a_run_whose_validation_does_not_fit_ends() -> None:
    data = training(20, 8)
    wanted, found = (state_of(convolutional(), data, "adamw", 0.01) for _ in range(2))
    run(wanted, data, SETTINGS, Shelf())
    found.compute = found.model.forward  # training fits
    sizes = limited(found.model, 2)
    assert run(found, data, SETTINGS, Shelf()) == "finished"
    assert sizes.count(4) == 2  # once in each epoch's validation
    assert max(sizes) == 4
    assert torch.equal(flat(found.model), flat(wanted.model))
    for row, other in zip(found.progress.history, wanted.progress.history, strict=True):
        assert row["valid"] == pytest.approx(other["valid"], abs=1e-5)
