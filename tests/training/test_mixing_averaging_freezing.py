"""What a run may add to the loop: re-weighting by the epoch, mixing, averaging, learned weights, a frozen backbone."""

import contextlib
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from classwise.data.batch import Batch
from classwise.data.epochs import TrainingData, ValidationData
from classwise.data.loader import FeatureLoader
from classwise.data.mixing import Mixing
from classwise.errors import Interrupted
from classwise.infer.features import features_of
from classwise.losses.criterion import Criterion
from classwise.losses.ldam import LDAM
from classwise.model.average import NoAverage
from classwise.model.classifier import Classifier
from classwise.run.checkpoint import RunCheckpointer, newest_checkpoint, read_checkpoint, restore
from classwise.training import loop
from classwise.training.state import TrainState
from tests.helpers.tiny_runs import (
    CPU,
    HEADS,
    SETTINGS,
    MemoryLoader,
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
    same,
    state_of,
    training,
    validation,
)

# The epoch, for losses that change with it.


def test_the_criterion_is_told_every_epoch_at_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Epoch 0 before update 0, epoch 1 before update 3; a run resumed in the middle of epoch 1 is told that first
    of all, so that the rest of the epoch has the weights that its beginning had."""
    told: list[tuple[int, int]] = []

    def fresh() -> TrainState:
        state = state_of(convolutional(), training(10, 2, 2), criterion=criterion_of(from_epoch=2))
        before = state.criterion.set_epoch
        monkeypatch.setattr(
            state.criterion, "set_epoch", lambda e: (told.append((e, state.progress.update)), before(e))
        )
        return state

    data, checkpointer = training(10, 2, 2), RunCheckpointer(tmp_path, {}, {})
    state = fresh()
    with pytest.raises(Interrupted):
        run(state, data, SETTINGS, checkpointer, should_stop=partial(has_come_to, state, 4))
    assert told == [(0, 0), (1, 3)]
    state = fresh()
    restore(state, newest_checkpoint(tmp_path, pytest.fail))
    run(state, data, SETTINGS, Shelf())
    assert told == [(0, 0), (1, 3), (1, 4)]


def test_deferred_weights_begin_with_their_epoch() -> None:
    """With weights from epoch 2 the first epoch's bytes are those without weights, the second's are not."""
    ends: list[list[Tensor]] = []
    for criterion in (criterion_of(weighted=False), criterion_of(from_epoch=2)):
        data, weights = training(10, 2, 2), []
        state = state_of(dense(), data, criterion=criterion)
        run(state, data, SETTINGS, Shelf(), report=lambda *_, w=weights, s=state: w.append(flat(s.model)))
        ends.append(weights)
    (plain, after_plain), (deferred, after_deferred) = ends
    assert torch.equal(plain, deferred)
    assert not torch.allclose(after_plain, after_deferred)


# Mixing.


def test_every_window_is_mixed_by_its_updates_number(tmp_path: Path) -> None:
    """Whole windows, the last one short, each with the number of its update, over two epochs; a resumed run goes
    on with the number that is next."""
    seen: list[tuple[int, list[int]]] = []

    def noted(window: list[Batch], update: int) -> list[Batch]:
        seen.append((update, [len(batch) for batch in window]))
        return window

    data, checkpointer = replace(training(10, 2, 2), mixing=noted), RunCheckpointer(tmp_path, {}, {})
    state = state_of(dense(), data)
    with pytest.raises(Interrupted):
        run(state, data, SETTINGS, checkpointer, should_stop=partial(has_come_to, state, 4))
    state = state_of(dense(), data)
    restore(state, newest_checkpoint(tmp_path, pytest.fail))
    run(state, data, SETTINGS, checkpointer)
    assert seen == [(update, [2] if update % 3 == 2 else [2, 2]) for update in range(6)]


def test_a_mixed_update_is_that_of_the_mixed_rows() -> None:
    """Three micro-batches of mixed images and answers step as the same mixed rows in one piece, with the mean
    weighted by the shares of the mixed answers."""
    mixing = Mixing(0.4, 0.0, 1.0, 3, HEADS)
    data = replace(training(8, 3, 3), mixing=mixing)
    (window,) = data.updates(0)
    criterion, found = criterion_of(), state_of(dense(), data, lr=0.5)
    loop.train_one_epoch(found, [window], data, SETTINGS)

    mixed = mixing(window, 0)
    wanted = state_of(dense(), data, lr=0.5)
    outputs = wanted.model(torch.cat([batch.images for batch in mixed]))
    total = torch.zeros((), dtype=torch.float64)
    for (name, loss), weight in zip(
        zip(HEADS, criterion.losses, strict=True), criterion.weights, strict=True
    ):
        shares_NK = torch.cat([batch.targets[name] for batch in mixed]).double()
        assert ((shares_NK > 0).sum(1) == 2).any()
        weighted_NK = shares_NK * loss.weight
        total += weight * -(weighted_NK * F.log_softmax(outputs[name], 1)).sum() / weighted_NK.sum()
    total.backward()
    wanted.optimizer.step()
    moved = (flat(wanted.model) - flat(dense())).norm()
    assert (flat(found.model) - flat(wanted.model)).norm() <= 1e-6 * moved  # shares are float32
    assert found.progress.loss_sum / found.progress.samples == pytest.approx(total.item(), rel=1e-6)


def test_validation_is_not_mixed() -> None:
    """Only the updates of training are asked for."""
    asked: list[int] = []
    data = replace(training(10, 2, 2), mixing=lambda window, update: asked.append(update) or window)
    state = state_of(dense(), data)
    loop.evaluate(state, validation(), board(), SETTINGS)
    run(state, data, SETTINGS, Shelf())
    assert asked == list(range(6))


# The average of the weights.


def test_the_average_is_taken_once_after_each_step() -> None:
    """It is the plain recursion over the weights after each step, with the decay's warm-up."""
    data, calls = training(10, 2, 2), []
    state = state_of(dense(), data, lr=0.5, decay=0.3)
    wanted, weights = flat(state.model), []
    state.optimizer.register_step_post_hook(
        lambda *_: (calls.append("step"), weights.append(flat(state.model)))
    )
    update = state.average.update
    state.average.update = lambda model: (calls.append("average"), update(model))  # type: ignore[method-assign]
    run(state, data, SETTINGS, Shelf())
    assert calls == ["step", "average"] * 6
    for n, after in enumerate(weights, start=1):
        decay = min(0.3, (1 + n) / (10 + n))
        wanted = decay * wanted + (1 - decay) * after
    torch.testing.assert_close(flat(state.average.model), wanted, rtol=1e-12, atol=1e-14)
    assert not torch.allclose(flat(state.average.model), flat(state.model))


def test_the_average_is_what_is_evaluated_and_kept(tmp_path: Path) -> None:
    """Scores and loss are those of the averaged model, training goes on with the other one, and the checkpoint's
    model.safetensors holds the average."""
    data, seen = training(10, 2, 2), []
    state = state_of(convolutional(), data, "adamw", lr=0.05, decay=0.9)
    for name, model in (("own", state.model), ("average", state.average.model)):
        model.register_forward_pre_hook(lambda m, _, name=name: seen.append((name, m.training)))
    run(state, data, SETTINGS, RunCheckpointer(tmp_path, {}, {}))
    training_epoch, evaluation = [("own", True)] * 5, [("average", False)] * 3
    assert seen == [*training_epoch, *evaluation] * 2

    found = state.progress.history[-1]["valid"]
    by_model = []
    for model in (state.average.model, state.model):
        other = replace(state, average=NoAverage(model))
        by_model.append(loop.evaluate(other, validation(), board(), SETTINGS))
    assert found == by_model[0]
    assert found["loss"] != by_model[1]["loss"]
    average, own = copy_of(state.average.model), copy_of(state.model)
    last = read_checkpoint(tmp_path / "last").model
    assert len(last) == len(average)
    assert same({key: last[key] for key in average}, average)
    assert not same(average, own)


# Learned weights between targets.


def test_learned_weights_move_and_stand_in_history() -> None:
    """exp(-s) of each target after every epoch, said as it is kept; the s learn by the optimizer, undecayed."""
    data, said = training(10, 2, 2), []
    state = state_of(dense(), data, lr=0.05, criterion=criterion_of(uncertainty=True))
    run(state, data, SETTINGS, Shelf(), report=lambda row, best: said.append(row["target_weights"]))
    assert [row["target_weights"] for row in state.progress.history] == said
    first, last = said
    assert list(first) == list(HEADS)
    assert all(len({1.0, first[name], last[name]}) == 3 for name in HEADS)
    log_variance_H = state.criterion.log_variance
    assert log_variance_H is not None
    assert list(last.values()) == (-log_variance_H).exp().tolist()
    (group,) = [g for g in state.optimizer.param_groups if any(p is log_variance_H for p in g["params"])]
    assert group["weight_decay"] == 0.0


def test_fixed_weights_are_not_said() -> None:
    """Nothing to learn, nothing in history."""
    data = training(4, 4)
    state = state_of(dense(), data)
    run(state, data, SETTINGS, Shelf())
    assert all("target_weights" not in row for row in state.progress.history)


def test_a_step_of_learned_weights_is_that_of_the_big_batch() -> None:
    """Five micro-batches move weights and s as one batch does, to 1e-12 of the way."""
    ends = []
    for batch_size, accumulate in ((22, 1), (5, 5)):
        data = training(22, batch_size, accumulate)
        state = state_of(dense(), data, lr=0.5, criterion=criterion_of(uncertainty=True).double())
        loop.train_one_epoch(state, data.updates(0), data, SETTINGS)
        assert state.progress.update == 1
        ends.append(torch.cat([flat(state.model), flat(state.criterion)]))
    start = torch.cat([flat(dense()), torch.zeros(2)])
    assert (ends[0] - ends[1]).norm() <= 1e-12 * (ends[0] - start).norm()
    assert (ends[0][-2:].abs() > 1e-3).all()


# A frozen backbone.


def frozen(
    model: Classifier, data: TrainingData, valid: ValidationData, epochs: int, computed: list[str]
) -> tuple[TrainingData, ValidationData]:
    """The same rows with features for the first epochs; `computed` notes each time that they are made."""

    def loader_of(side: str, loader: MemoryLoader) -> FeatureLoader:
        def compute() -> Tensor:
            computed.append(side)
            return features_of(model, loader, CPU, contextlib.nullcontext())

        return FeatureLoader(compute, {name: x.numpy() for name, x in loader.targets.items()})

    return (
        replace(data, features=loader_of("train", data.loader), frozen_epochs=epochs),  # type: ignore[arg-type]
        replace(valid, features=loader_of("valid", valid.loader), frozen_epochs=epochs),  # type: ignore[arg-type]
    )


def parts_of(model: Classifier) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The backbone's tensors (weights and batch norm's statistics) and those of the heads."""
    tensors = copy_of(model)
    backbone = {name for name in tensors if name.startswith("backbone.")}
    return {n: tensors[n] for n in backbone}, {n: tensors[n] for n in tensors if n not in backbone}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "adamp"])
def test_a_frozen_backbone_stands_still(optimizer: str) -> None:
    """Two frozen epochs of four: every weight and statistic of the backbone stays to the bit (weight decay or not)
    while the heads move, features are made once for each side, and then everything moves."""
    computed: list[str] = []
    model = convolutional()
    data, valid = frozen(model, training(10, 2, 2), validation(), 2, computed)
    state = state_of(model, data, optimizer, lr=0.05)
    ends = [parts_of(model)]
    settings = replace(SETTINGS, epochs=4)
    loop.train(
        *(state, data, valid, board(), settings, Shelf()),
        report=lambda *_: ends.append(parts_of(model)),
    )
    for (backbone, heads), (backbone_after, heads_after), still in zip(
        ends, ends[1:], (True, True, False, False), strict=False
    ):
        assert not any(torch.equal(heads[name], heads_after[name]) for name in heads)
        # What a batch norm does, no bias before it can change: it need not move.
        names = [name for name in backbone if still or name != "backbone.0.bias"]
        equal = {torch.equal(backbone[name], backbone_after[name]) for name in names}
        assert equal == {still}
    assert len(ends) == 5
    assert any("running_mean" in name for name in ends[0][0])
    assert computed == ["train", "valid"]
    assert [row.get("frozen", False) for row in state.progress.history] == [True, True, False, False]
    assert data.features is not None
    assert data.features._features_ND is None  # they are not needed any more


def test_frozen_epochs_learn_what_whole_passes_would() -> None:
    """On features the heads learn and are scored as on a backbone in eval mode, and their dropout is drawn."""
    model, modes = convolutional(dropout=0.3), []
    data, valid = frozen(model, training(10, 2, 2), validation(), 2, [])
    state = state_of(model, data, lr=0.05)
    model.dropout.register_forward_hook(
        lambda m, inputs, output: modes.append((m.training, bool((output == 0).any())))
    )
    loop.train(state, data, valid, board(), replace(SETTINGS, epochs=1), Shelf())
    assert [training for training, _ in modes] == [True] * 5 + [False] * 3
    assert any(dropped for training, dropped in modes if training)

    plain = convolutional(dropout=0.3)
    plain.backbone.requires_grad_(False).eval()
    plain.train = lambda mode=True: plain.dropout.train(mode)  # type: ignore[method-assign, assignment]
    by_passes, whole = state_of(plain, data, lr=0.05), training(10, 2, 2)
    loop.train(by_passes, whole, validation(), board(), replace(SETTINGS, epochs=1), Shelf())
    torch.testing.assert_close(flat(model.heads), flat(plain.heads))
    found, wanted = (s.progress.history[0]["valid"] for s in (state, by_passes))
    assert found == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(("stop", "wanted"), [(1, ["train", "valid"]), (3, []), (4, [])])
def test_a_resumed_run_makes_features_only_where_it_needs_them(
    stop: int, wanted: list[str], tmp_path: Path
) -> None:
    """One frozen epoch of three updates: stopped inside, both sides are made again; later, none."""
    for resumed in (False, True):
        computed: list[str] = []
        model = convolutional()
        data, valid = frozen(model, training(10, 2, 2), validation(), 1, computed)
        state = state_of(model, data, "adamw", lr=0.05)
        parts = (state, data, valid, board(), SETTINGS, RunCheckpointer(tmp_path, {}, {}))
        if resumed:
            restore(state, newest_checkpoint(tmp_path, pytest.fail))
            loop.train(*parts)
        else:
            with pytest.raises(Interrupted):
                loop.train(*parts, partial(has_come_to, state, stop))
    # Stopped with the epoch's last update the first run has not validated yet.
    assert computed == (["valid"] if stop == 3 else wanted)


# All of it at once.


def everything(mixing: bool) -> tuple[TrainState, TrainingData, ValidationData]:
    """Averaging, learned weights, one frozen epoch, weights from epoch 2; with mixup and CutMix, or with LDAM."""
    model = convolutional()
    rows = training(14, 2, 2)
    if mixing:
        rows, criterion = replace(rows, mixing=Mixing(0.4, 1.0, 0.9, 7, HEADS)), criterion_of(True, 2, True)
    else:
        counts = {name: torch.arange(1, size + 1) for name, size in HEADS.items()}
        losses = {name: LDAM(n, 0.5, 2.0, 1 / n.double(), 2) for name, n in counts.items()}
        criterion = Criterion(losses, dict.fromkeys(HEADS, 1.0), uncertainty=True)
    data, valid = frozen(model, rows, validation(), 1, [])
    return state_of(model, data, "adamw", 0.05, "cosine", criterion=criterion, decay=0.8), data, valid


def whole_run(folder: Path, stops: Sequence[int], mixing: bool) -> TrainState:
    """Two epochs of four updates, stopped after each update of `stops` and built anew from the checkpoint."""
    checkpointer = RunCheckpointer(folder, {}, {})
    state, data, valid = everything(mixing)
    for stop in stops:
        with pytest.raises(Interrupted, match=f"stopped after update {stop}, in epoch {(stop + 3) // 4}"):
            loop.train(
                state,
                data,
                valid,
                board(),
                SETTINGS,
                checkpointer,
                should_stop=partial(has_come_to, state, stop),
            )
        state, data, valid = everything(mixing)
        with torch.no_grad():  # whatever the fresh state holds must not matter
            for module in (state.model, state.average.model, state.criterion):
                for parameter in module.parameters():
                    parameter.zero_()
        restore(state, newest_checkpoint(folder, pytest.fail))
        assert state.progress.update == stop
    assert loop.train(state, data, valid, board(), SETTINGS, checkpointer) == "finished"
    return state


@pytest.mark.parametrize("mixing", [True, False], ids=["mixing", "ldam"])
def test_stopped_anywhere_with_all_of_it_the_bytes_are_the_same(
    mixing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after any update, inside the frozen epoch, between the two or after it, or after all of them: weights,
    average, learned weights, moments, history and checkpoints are those of the uninterrupted run."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # fifty checkpoints; the order is tested elsewhere
    wanted = bytes_of(whole_run(tmp_path / "whole", [], mixing))
    files = [f"{name}/{part}.safetensors" for name in ("best", "last") for part in ("model", "training")]
    for stops in (*([stop] for stop in range(1, 9)), range(1, 9)):
        folder = tmp_path / f"{len(stops)} from {stops[0]}"
        assert bytes_of(whole_run(folder, stops, mixing)) == wanted, f"stopped after {list(stops)}"
        for file in files:
            assert (folder / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), (file, stops)
