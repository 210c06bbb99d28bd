"""The training process: the lecture's order, exact gradients, and nothing that a restart could change."""

import itertools
import math
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from classwise.data.augment import PRESETS
from classwise.data.batch import Batch
from classwise.data.dataset import ImageDataset
from classwise.data.epochs import TrainingData, ValidationData
from classwise.data.fit import fit_image
from classwise.data.images import read_image
from classwise.data.loader import FeatureLoader, Loader
from classwise.errors import Interrupted, NonFiniteError
from classwise.optim.schedules import build_schedule
from classwise.run.checkpoint import RunCheckpointer, newest_checkpoint, restore
from classwise.training import loop
from classwise.training.state import TrainState
from tests.helpers.tiny_runs import (
    HEADS,
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
    moments_of,
    run,
    same,
    state_of,
    training,
    validation,
)

# The lecture.


def test_the_lectures_calls_happen_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """train once an epoch; per window zero_grad, per micro-batch criterion and backward, then one step."""
    data, calls = training(10, 2, 2), []
    state = state_of(dense(), data)
    before = torch.Tensor.backward
    record(monkeypatch, state.model, "train", calls)
    record(monkeypatch, state.optimizer, "zero_grad", calls)
    record(monkeypatch, state.criterion, "forward", calls, "criterion")
    record(monkeypatch, state.optimizer, "step", calls)

    def backward(self: Tensor, *args: Any, **options: Any) -> None:
        calls.append("backward")
        before(self, *args, **options)

    monkeypatch.setattr(torch.Tensor, "backward", backward)
    loop.train_one_epoch(state, data.updates(0), data, SETTINGS)
    two = ["zero_grad", "criterion", "backward", "criterion", "backward", "step"]
    one = ["zero_grad", "criterion", "backward", "step"]
    assert calls == ["train", *two, *two, *one]


def record(
    monkeypatch: pytest.MonkeyPatch, owner: Any, method: str, calls: list[str], name: str | None = None
) -> None:
    """Note each call of a method before it happens."""
    before = getattr(owner, method)

    def noted(*args: Any, **options: Any) -> Any:
        calls.append(name or method)
        return before(*args, **options)

    monkeypatch.setattr(owner, method, noted)


# Exact accumulation.


def epoch_of(windows: Sequence[list[Batch]], weighted: bool, optimizer: str = "sgd") -> Tensor:
    """The weights after one epoch over these windows."""
    data = training(22, 22)
    state = state_of(dense(), data, optimizer, lr=0.5, criterion=criterion_of(weighted))
    loop.train_one_epoch(state, windows, data, SETTINGS)
    assert state.progress.update == len(windows)
    return flat(state.model)


def cut(window: Batch, sizes: Sequence[int]) -> list[Batch]:
    """One batch as micro-batches of these sizes."""
    assert sum(sizes) == len(window)
    ends = list(itertools.accumulate(sizes, initial=0))
    return [
        Batch(window.images[a:b], {name: x[a:b] for name, x in window.targets.items()}, window.rows[a:b])
        for a, b in itertools.pairwise(ends)
    ]


@pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "class weights"])
@pytest.mark.parametrize(
    "sizes",
    [[11, 11], [5, 5, 5, 5, 2], [1, 9, 3, 2, 7], [1] * 22],
    ids=["equal", "short last", "unequal", "ones"],
)
def test_one_update_is_that_of_the_big_batch(sizes: list[int], weighted: bool) -> None:
    """Two heads with different weights: the weights after the update differ by at most 1e-12, relative to how
    far the update moved them."""
    (whole,) = next(training(22, 22).updates(0))
    start, wanted = flat(dense()), epoch_of([[whole]], weighted)
    found = epoch_of([cut(whole, sizes)], weighted)
    assert (found - wanted).norm() <= 1e-12 * (wanted - start).norm()
    assert (wanted - start).norm() > 1e-3


def test_the_means_mean_would_be_noticed() -> None:
    """The test can fail: dividing by the number of micro-batches misses the same update by more than 1 %."""
    (whole,) = next(training(22, 22).updates(0))
    start, wanted = flat(dense()), epoch_of([[whole]], True)
    model, criterion, sizes = dense(), criterion_of(), [5, 5, 5, 5, 2]
    for batch in cut(whole, sizes):
        (criterion(model(batch.images), batch.targets) / len(sizes)).backward()
    state = state_of(model, training(22, 22), lr=0.5)
    state.optimizer.step()
    assert (flat(model) - wanted).norm() > 0.01 * (wanted - start).norm()


@pytest.mark.parametrize("optimizer", ["sgd", "adamp"])
def test_an_epoch_of_windows_is_an_epoch_of_big_batches(optimizer: str) -> None:
    """Batches of 2, three to an update, with a short last window, end where batches of 6 end."""
    small, big = training(22, 2, 3), training(22, 6)
    assert small.updates_per_epoch == big.updates_per_epoch == 4
    windows = list(small.updates(0))
    assert [[len(batch) for batch in window] for window in windows] == [[2, 2, 2]] * 3 + [[2, 2]]
    found, wanted = epoch_of(windows, True, optimizer), epoch_of(list(big.updates(0)), True, optimizer)
    assert (found - wanted).norm() <= 1e-11 * (wanted - flat(dense())).norm()


@pytest.mark.parametrize(("batch_size", "accumulate"), [(12, 1), (4, 3), (5, 3)])
def test_rows_without_a_label_do_not_count(batch_size: int, accumulate: int) -> None:
    """Some class labels are unknown, of one target or of both: in one batch and in several micro-batches, the gradient
    is that of the mean over each target's labeled rows, as torch computes it."""
    draw = torch.Generator().manual_seed(3)
    features_NF = torch.randn(12, 9, dtype=torch.float64, generator=draw)
    labels = {name: torch.randint(0, size, (12,), generator=draw) for name, size in HEADS.items()}
    labels["mask"][[1, 4, 7]] = -1
    labels["age"][[4, 8]] = -1

    features = FeatureLoader(lambda: features_NF, {name: x.numpy() for name, x in labels.items()})
    data = replace(training(12, batch_size, accumulate), features=features, frozen_epochs=1)
    state = state_of(dense(), data, criterion=criterion_of(weighted=False))
    found: list[list[Tensor]] = []
    state.optimizer.register_step_pre_hook(
        lambda *_: found.append([p.grad.clone() for p in state.model.heads.parameters()])
    )
    loop.train_one_epoch(state, data.updates(0), data, SETTINGS)

    model = dense()
    outputs = model(features_NF)
    losses = {name: F.cross_entropy(outputs[name], labels[name], ignore_index=-1) for name in HEADS}
    (losses["mask"] + 0.4 * losses["age"]).backward()
    assert len(found) == 1
    for gradient, parameter in zip(found[0], model.heads.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("count", "batch_size", "accumulate"), [(12, 2, 3), (13, 2, 3), (3, 2, 8), (8, 4, 1)]
)
def test_every_window_steps_once_and_at_its_end(count: int, batch_size: int, accumulate: int) -> None:
    """Neither a step after the first micro-batch nor a last window without one: all rows of an update have had
    their backward pass when the step comes, and no gradient is left over."""
    data = training(count, batch_size, accumulate)
    state, seen, at_step = state_of(dense(), data), [0], []
    state.model.heads[0].register_full_backward_hook(
        lambda module, inputs, outputs: seen.__setitem__(0, seen[0] + len(outputs[0]))
    )
    state.optimizer.register_step_pre_hook(lambda *_: at_step.append(seen[0]))
    loop.train_one_epoch(state, data.updates(0), data, SETTINGS)
    window = batch_size * accumulate
    assert at_step == [*range(window, count, window), count]
    assert len(at_step) == data.updates_per_epoch == state.progress.update


# Epochs: the best checkpoint, patience, history.


def scripted(monkeypatch: pytest.MonkeyPatch, f1: Sequence[float], accuracy: Sequence[float]) -> None:
    """Validation that finds these scores."""
    scores = ({"mask.macro_f1": a, "mask.accuracy": b} for a, b in zip(f1, accuracy, strict=True))
    monkeypatch.setattr(loop, "evaluate", lambda *_: next(scores))


def test_the_best_checkpoint_is_by_the_selected_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    """Macro F1 chooses where accuracy would choose otherwise; an equal value is no better one."""
    scripted(monkeypatch, [0.3, 0.2, 0.5, 0.5, 0.4], [0.1, 0.9, 0.2, 0.3, 0.95])
    data, shelf = training(4, 4), Shelf()
    state = state_of(dense(), data)
    assert run(state, data, replace(SETTINGS, epochs=5), shelf) == "finished"
    assert [best for _, _, best in shelf.saved] == [True, False, True, False, False]
    assert (state.progress.best, state.progress.best_epoch) == (0.5, 3)


@pytest.mark.parametrize("value", [0.0, 1e-9, 1.0])
def test_the_first_epoch_is_always_the_best_so_far(monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    """Even a score of 0 is saved: the best starts as None, not as a number that nothing can beat."""
    scripted(monkeypatch, [value], [0.0])
    data, shelf = training(4, 4), Shelf()
    state = state_of(dense(), data)
    assert state.progress.best is None
    run(state, data, replace(SETTINGS, epochs=1), shelf)
    assert shelf.saved == [(1, 1, True)]


def test_patience_stops_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """`patience` epochs in a row without a better value; a better one starts the count again."""
    scripted(monkeypatch, [0.3, 0.2, 0.4, 0.4, 0.1, 0.9], [0.0] * 6)
    data, shelf = training(4, 4), Shelf()
    state, settings = state_of(dense(), data), replace(SETTINGS, epochs=6, patience=2)
    assert run(state, data, settings, shelf) == "early_stopped"
    assert [epoch for epoch, _, _ in shelf.saved] == [1, 2, 3, 4, 5]
    assert run(state, data, settings, shelf) == "early_stopped"  # asked again, it does not train on
    assert state.progress.epoch == 5


def test_where_less_is_better_the_lowest_epoch_is_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    """An MAE falls, rests, rises: the lowest is kept, and two epochs without a lower one stop the run. Asked the
    other way round, the same numbers keep the highest."""
    values = [0.9, 0.5, 0.7, 0.4, 0.4, 0.8, 0.1]
    ends = {}
    for higher in (False, True):
        scores = iter({"age.mae": value} for value in values)
        monkeypatch.setattr(loop, "evaluate", lambda *_, scores=scores: next(scores))
        data, shelf = training(4, 4), Shelf()
        state = state_of(dense(), data)
        settings = replace(SETTINGS, epochs=7, patience=2, metric="age.mae", higher_is_better=higher)
        ended = run(state, data, settings, shelf)
        p = state.progress
        ends[higher] = (ended, p.best, p.best_epoch, [best for _, _, best in shelf.saved])
    assert ends[False] == ("early_stopped", 0.4, 4, [True, True, False, True, False, False])
    assert ends[True] == ("early_stopped", 0.9, 1, [True, False, False])


@pytest.mark.parametrize(
    ("higher", "reductions"), [(True, [0, 0, 0, 1, 2, 2]), (False, [0, 0, 1, 2, 2, 3])], ids=["f1", "mae"]
)
def test_plateau_follows_the_selected_metric(
    monkeypatch: pytest.MonkeyPatch, higher: bool, reductions: list[int]
) -> None:
    """The rate falls to a tenth after each epoch in which the selected metric was no better, which way round that
    may be; the accuracy beside it falls all the time and has no say."""
    scripted(monkeypatch, [0.5, 0.6, 0.55, 0.4, 0.7, 0.6], [0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    data, rates = training(8, 4), []
    state = state_of(dense(), data)
    bases = [group["lr"] for group in state.optimizer.param_groups]
    options = {"higher_is_better": higher, "factor": 0.1, "patience": 0}
    state.schedule = build_schedule("plateau", bases, data.updates_per_epoch, 6, **options)
    settings = replace(SETTINGS, epochs=6, higher_is_better=higher)
    run(state, data, settings, Shelf(), report=lambda row, _: rates.append(row["lr"]))
    assert rates == pytest.approx([bases[-1] * 0.1**n for n in reductions])


def test_history_has_a_row_for_every_epoch() -> None:
    """epoch, update, lr, train_loss, valid, seconds and images_per_second, said as they are kept."""
    data, said = training(10, 4, 2), []
    state = state_of(dense(), data, schedule="cosine")
    run(state, data, SETTINGS, Shelf(), report=lambda row, best: said.append((row, best)))
    rows = state.progress.history
    assert [row for row, _ in said] == rows
    assert [(row["epoch"], row["update"]) for row in rows] == [(1, 2), (2, 4)]
    assert rows[0]["lr"] == pytest.approx(state.schedule.lrs(1)[-1])
    wanted = {"epoch", "update", "lr", "train_loss", "valid", "seconds", "images_per_second"}
    assert all(set(row) == wanted and row["seconds"] >= 0 for row in rows)
    assert {"mask.macro_f1", "age.accuracy", "loss"} <= set(rows[0]["valid"])


def test_train_loss_is_the_mean_over_the_samples() -> None:
    """With weights that stand still it equals the mean cross entropy over all rows, to 1e-12, however the rows
    are cut into micro-batches and windows."""
    data = training(23, 3, 2)
    state = state_of(dense(), data, lr=1.0, criterion=criterion_of(False))
    state.schedule = build_schedule("constant", [0.0] * 4, data.updates_per_epoch, 2)
    run(state, data, replace(SETTINGS, epochs=1), Shelf())
    loader = data.loader
    with torch.no_grad():
        outputs = dense()(loader.images)  # type: ignore[attr-defined]
    losses = [F.cross_entropy(outputs[name], loader.targets[name]) for name in HEADS]
    wanted = float(losses[0] + 0.4 * losses[1])
    assert abs(state.progress.history[0]["train_loss"] - wanted) <= 1e-12 * wanted


def test_the_schedule_sets_every_updates_rate() -> None:
    """Each step is taken with the learning rate of its own update, backbone and heads apart."""
    data, rates = training(10, 4, 1), []
    state = state_of(dense(), data, schedule="onecycle")
    state.optimizer.register_step_pre_hook(
        lambda optimizer, *_: rates.append([group["lr"] for group in optimizer.param_groups])
    )
    run(state, data, SETTINGS, Shelf())
    assert rates == [state.schedule.lrs(update) for update in range(6)]


def test_clipping_bounds_the_whole_gradient() -> None:
    """With clip_norm the step's gradient has that norm; it is the window's gradient, not a micro-batch's."""
    data, norms = training(8, 2, 4), []
    state = state_of(dense(), data)
    state.optimizer.register_step_pre_hook(
        lambda *_: norms.append(torch.cat([p.grad.flatten() for p in state.model.parameters()]).norm().item())
    )
    loop.train_one_epoch(state, data.updates(0), data, replace(SETTINGS, clip_norm=0.01))
    assert norms == [pytest.approx(0.01, rel=1e-3)]


# Validation.


def test_validation_counts_every_row_without_gradients() -> None:
    """eval(), no gradients, each row exactly once although the last batch is short, and the loss and the scores
    of the whole set at once."""
    model, valid, modes = dense(0.5), validation(11, 4), []
    state, metrics = state_of(model.train(), training(4, 4)), board()
    model.register_forward_hook(
        lambda module, inputs, outputs: modes.append(
            (module.training, torch.is_grad_enabled(), outputs["mask"].requires_grad, len(inputs[0]))
        )
    )
    scores = loop.evaluate(state, valid, metrics, SETTINGS)
    assert modes == [(False, False, False, 4), (False, False, False, 4), (False, False, False, 3)]
    counted = metrics.compute()["targets"]["mask"]
    assert sum(row["support"] for row in counted["per_class"]) == len(valid) == 11
    loader = valid.loader
    with torch.no_grad():
        outputs = model(loader.images)  # type: ignore[attr-defined]
    wanted = state.criterion(outputs, loader.targets).item()
    assert abs(scores["loss"] - wanted) <= 1e-12 * wanted
    hits = (outputs["age"].argmax(dim=1) == loader.targets["age"]).double().mean().item()
    assert scores["age.accuracy"] == pytest.approx(hits, abs=1e-12)
    again = loop.evaluate(state, valid, metrics, SETTINGS)
    assert again == scores
    assert np.sum(metrics.compute()["targets"]["mask"]["confusion"]) == 11  # counts start again from zero


@pytest.mark.parametrize("uncertainty", [False, True])
def test_validation_loss_is_the_weighted_mean(uncertainty: bool) -> None:
    """Also where training divides by the row count, so that it has the same scale on a set with other class
    frequencies; and after a validation training divides by the row count again."""
    model, data, valid, seen = dense(), training(8, 4, 2), validation(11, 4), []
    state = state_of(model, data, criterion=criterion_of(uncertainty=uncertainty, normalize_by="rows"))
    scores = loop.evaluate(state, valid, board(), SETTINGS)
    loader = valid.loader
    with torch.no_grad():
        outputs = model.eval()(loader.images)  # type: ignore[attr-defined]
    wanted = criterion_of(uncertainty=uncertainty)(outputs, loader.targets).item()
    assert scores["loss"] == pytest.approx(wanted, rel=1e-12)
    state.criterion.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[2].tolist()))
    loop.train_one_epoch(state, data.updates(0), data, SETTINGS)
    assert seen == [[8, 8], [8, 8]]


def test_validation_leaves_no_trace_in_training() -> None:
    """A run with and one without evaluation between its epochs end in the same bytes, dropout included."""
    ends = []
    for evaluated in (True, False):
        data = training(10, 2, 2)
        state = state_of(convolutional(), data, "adamw", lr=0.01)
        for epoch in range(2):
            loop.train_one_epoch(state, data.updates(epoch), data, SETTINGS)
            if evaluated:
                loop.evaluate(state, validation(), board(), SETTINGS)
        ends.append(copy_of(state.model))
    assert same(*ends)


def test_validation_draws_no_random_number(tmp_path: Path) -> None:
    """With real image files torch's generator stands where it stood before."""
    valid, state = ValidationData(real_loader(tmp_path, 5)), state_of(dense(0.5), training(4, 4))
    before = torch.get_rng_state()
    loop.evaluate(state, valid, board(), SETTINGS)
    assert torch.equal(torch.get_rng_state(), before)


def real_loader(folder: Path, count: int, augment: str | None = None) -> Loader:
    """PNG files of 10 x 9 pixels, read by the real loader for images of 6 x 6."""
    rng, paths = np.random.default_rng(0), []
    for row in range(count):
        paths.append(folder / f"그림 {row}.png")
        _, data = cv2.imencode(".png", rng.integers(0, 256, (10, 9, 3), dtype=np.uint8))
        paths[-1].write_bytes(data.tobytes())
    dataset = ImageDataset(paths, (6, 6), "squash", 1000, 7, None if augment is None else PRESETS[augment])
    targets = {name: rng.integers(0, size, count) for name, size in HEADS.items()}
    return Loader(dataset, targets, 4, workers=0)


def test_validation_sees_the_images_as_they_are(tmp_path: Path) -> None:
    """In every epoch validation gets each file fitted to size and nothing else, while training sees it changed."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    train_loader = real_loader(tmp_path / "a", 6, "strong")
    data = TrainingData(train_loader, list("abcdef"), np.zeros(6, dtype=np.int64), "shuffle", 7, 1)
    valid = ValidationData(real_loader(tmp_path / "b", 6))
    seen: dict[bool, list[Tensor]] = {True: [], False: []}
    state = state_of(dense(), data)
    state.model.register_forward_pre_hook(lambda m, inputs: seen[m.training].append(inputs[0].clone()))
    loop.train(state, data, valid, board(), SETTINGS, Shelf())
    plain = {
        side: np.stack([fit_image(read_image(p, 1000), (6, 6), "squash") for p in loader.dataset.paths])
        for side, loader in ((True, train_loader), (False, valid.loader))
    }
    found = torch.cat(seen[False]).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(found, np.concatenate([plain[False], plain[False]]))
    trained = torch.cat(seen[True]).permute(0, 2, 3, 1).numpy()
    assert len(trained) == 12
    assert not any((image == plain[True]).all(axis=(1, 2, 3)).any() for image in trained)


def test_rows_without_a_finite_prediction_are_refused() -> None:
    """A model that has gone to NaN gets no score."""
    model = dense()
    with torch.no_grad():
        model.heads[1].bias[0] = math.nan
    with pytest.raises(NonFiniteError, match="validation: 11 rows have no finite prediction"):
        loop.evaluate(state_of(model, training(4, 4)), validation(), board(), SETTINGS)


def test_a_validation_loss_that_overflows_is_refused() -> None:
    """Predictions that are finite, but so far off that their loss is not: the epoch gets no score, and what was
    kept before it stays."""
    model = dense().float()
    with torch.no_grad():
        model.heads[0].bias.copy_(torch.tensor([3e38, -3e38, -3e38]))
    message = "validation: the loss is inf; predictions are finite"
    with pytest.raises(NonFiniteError, match=message):
        loop.evaluate(state_of(model, training(4, 4)), validation(), board(), SETTINGS)
    state, shelf = state_of(dense(), training(4, 4)), Shelf()
    state.criterion.register_forward_hook(
        lambda m, i, loss: loss if state.model.training else loss * math.inf
    )
    with pytest.raises(NonFiniteError, match=message):
        run(state, training(4, 4), SETTINGS, shelf)
    assert (shelf.saved, state.progress.epoch, state.progress.best) == ([], 0, None)


# Numbers that are none.


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_number_that_is_none_stops_before_the_step(what: str) -> None:
    """The third update goes wrong: the message has its number and its samples, and weights, batch norm's statistics,
    moments and progress are those of the two before."""
    data = training(10, 2)
    state = state_of(convolutional(), data, "adamw", lr=0.01)
    windows = list(data.updates(0))
    loop.train_one_epoch(state, windows[:2], data, SETTINGS)
    before, moments = copy_of(state.model), moments_of(state)
    if what == "loss":
        state.criterion.register_forward_hook(lambda module, inputs, output: output * math.inf)
    else:
        state.model.heads[0].weight.register_hook(lambda gradient: gradient * math.nan)
    with pytest.raises(NonFiniteError) as caught:
        loop.train_one_epoch(state, windows[2:], data, SETTINGS)
    names = [f"그림 {row}" for row in windows[2][0].rows]
    assert str(caught.value).startswith(
        f"update 3: the {'loss' if what == 'loss' else 'norm of the gradient'} is"
    )
    assert str(caught.value).endswith("Samples: " + ", ".join(names))
    assert same(copy_of(state.model), before)
    assert same(moments_of(state), moments)
    assert (state.progress.update, state.progress.samples) == (2, 4)


def test_an_infinite_gradient_in_fp16_is_the_scalers_business() -> None:
    """The update is skipped and counted and the scale halved; at a scale of 1 there is nothing left to lower."""
    data = training(4, 2)
    state = state_of(dense().float(), data, fp16=True)
    state.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    state.model.heads[0].weight.register_hook(lambda gradient: gradient * math.inf)
    before = copy_of(state.model)
    windows = list(data.updates(0))
    loop.train_one_epoch(state, windows, data, SETTINGS)
    assert same(copy_of(state.model), before)
    assert (state.progress.skipped_updates, state.progress.update, state.scaler.get_scale()) == (2, 2, 1.0)
    with pytest.raises(NonFiniteError, match="update 3: the norm of the gradient"):
        loop.train_one_epoch(state, windows, data, SETTINGS)


# Stopping and going on.


def whole_run(folder: Path, stops: Sequence[int], optimizer: str) -> TrainState:
    """Two epochs of three updates, stopped after each update of `stops` and built anew from the checkpoint."""
    data = training(10, 2, 2)

    def fresh() -> TrainState:
        return state_of(convolutional(), data, optimizer, lr=0.05, schedule="cosine")

    state = fresh()
    checkpointer = RunCheckpointer(folder, {}, {})
    for stop in stops:
        asked = partial(has_come_to, state, stop)
        with pytest.raises(Interrupted, match=f"stopped after update {stop}, in epoch {(stop + 2) // 3}"):
            run(state, data, SETTINGS, checkpointer, should_stop=asked)
        state = fresh()
        with torch.no_grad():
            for parameter in state.model.parameters():
                parameter.zero_()  # whatever the fresh state holds must not matter
        restore(state, newest_checkpoint(folder, pytest.fail))
        assert state.progress.update == stop
    assert run(state, data, SETTINGS, checkpointer) == "finished"
    return state


@pytest.mark.parametrize("optimizer", ["adamw", "sgdp"])
def test_stopped_anywhere_it_ends_in_the_same_bytes(
    optimizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after any update of a two-epoch run with dropout and batch norm, or after all of them, and resumed:
    weights, moments and history are those of the uninterrupted run."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # fifty checkpoints; the order is tested elsewhere
    wanted = bytes_of(whole_run(tmp_path / "whole", [], optimizer))
    for stop in range(1, 7):
        assert bytes_of(whole_run(tmp_path / str(stop), [stop], optimizer)) == wanted, f"stopped after {stop}"
    assert bytes_of(whole_run(tmp_path / "all", range(1, 7), optimizer)) == wanted


def test_an_interrupted_epoch_keeps_its_time(tmp_path: Path) -> None:
    """The seconds before the stop count, so images_per_second stays a speed that can be true."""
    data = training(10, 2, 2)
    state = state_of(convolutional(), data)
    with pytest.raises(Interrupted):
        run(state, data, SETTINGS, Shelf(), should_stop=lambda: True)
    assert state.progress.update_in_epoch == 1
    assert state.progress.epoch_seconds > 0


def test_dropout_is_drawn_anew_for_every_update() -> None:
    """The first updates of two epochs do not share their mask, and another seed has other masks."""
    data, features = training(2, 2), []
    state = state_of(dense(0.5), data, lr=1e-9)
    state.model.dropout.register_forward_hook(lambda module, inputs, output: features.append(output == 0))
    for seed in (7, 8):
        state.progress.update = 0
        for _ in range(2):
            windows = training(2, 2).updates(0)
            loop.train_one_epoch(state, windows, data, replace(SETTINGS, seed=seed))
            state.progress.end_epoch(0.0, {})
    drawn = {tuple(mask.flatten().tolist()) for mask in features}
    assert len(drawn) == 4


@pytest.mark.parametrize(("chunk_size", "passes"), [(0, 4), (2, 8)], ids=["whole", "in chunks"])
def test_micro_batches_of_an_update_do_not_share_their_dropout(chunk_size: int, passes: int) -> None:
    """Two updates of two micro-batches of four rows: every forward pass draws a mask of its own, also where a
    micro-batch is computed in chunks."""
    data, masks = training(16, 4, 2), []
    state = state_of(dense(0.5), data)
    state.progress.chunk_size = chunk_size
    state.model.dropout.register_forward_hook(
        lambda module, inputs, output: masks.append((output == 0).flatten().tolist())
    )
    loop.train_one_epoch(state, data.updates(0), data, SETTINGS)
    assert len(masks) == passes
    assert len({tuple(mask) for mask in masks}) == passes


# Precision.


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_every_precision_learns(precision: str) -> None:
    """The layers compute in the precision asked for, the weights stay float32, and the loss falls."""
    data, kinds = training(24, 8), set()
    settings = replace(SETTINGS, epochs=8, precision=precision, clip_norm=1.0)
    state = state_of(convolutional(0.0), data, "adamw", lr=0.02, fp16=precision == "fp16")
    state.model.backbone[0].register_forward_hook(lambda module, inputs, output: kinds.add(output.dtype))
    run(state, data, settings, Shelf())
    losses = [row["train_loss"] for row in state.progress.history]
    assert kinds == {loop.PRECISIONS[precision]}
    assert {parameter.dtype for parameter in state.model.parameters()} == {torch.float32}
    assert losses[-1] < losses[0] - 0.02
    assert state.progress.skipped_updates == 0
