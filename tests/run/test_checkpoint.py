"""Checkpoints: whole or not at all, every damage noticed, and nothing lost to a kill or a full disk."""

import errno
import io
import json
import os
import pickle
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import Tensor, nn

from classwise.errors import CheckpointError
from classwise.losses.criterion import Criterion
from classwise.losses.cross_entropy import CrossEntropy
from classwise.model.average import NoAverage, WeightAverage
from classwise.model.backbone import HALF, Backbone
from classwise.model.classifier import Classifier, ModelMetadata
from classwise.optim.groups import parameter_groups
from classwise.optim.optimizers import build_optimizer
from classwise.optim.schedules import build_schedule
from classwise.run import checkpoint as checkpoints
from classwise.run.checkpoint import (
    Checkpoint,
    RunCheckpointer,
    fingerprint,
    newest_checkpoint,
    read_checkpoint,
    restore,
    write_checkpoint,
)
from classwise.training.state import Progress, TrainState

FILES = ("model.safetensors", "training.safetensors", "state.json", "manifest.json")
MADE_ON = {"torch": "x", "기계": 'a "quoted" name'}


def model() -> Classifier:
    """A convolution with batch norm in channels_last, and one head; the same weights every time."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        body = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        metadata = ModelMetadata("none", (8, 8), "squash", HALF, HALF, 0.0, {"종류": 3})
        return Classifier(Backbone(body, 4, HALF, HALF), metadata).to(memory_format=torch.channels_last)


def fresh(
    optimizer: str = "adamw",
    schedule: str = "plateau",
    fp16: bool = False,
    decay: float | None = None,
    learned: bool = False,
) -> TrainState:
    """A state at update 0; `decay` is that of the average of the weights, `learned`: the target's weight is."""
    module = model()
    criterion = Criterion({"종류": CrossEntropy()}, {"종류": 1.0}, uncertainty=learned)
    average = NoAverage(module) if decay is None else WeightAverage(module, decay)
    groups = parameter_groups(module.backbone, module.heads, 0.01, 1e-2, 0.5, extra=criterion.parameters())
    built = build_optimizer(optimizer, groups, 0.01, 1e-2)
    rates = build_schedule(schedule, [group["lr"] for group in built.param_groups], 1, 10)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, enabled=fp16)
    return TrainState(module, criterion, built, rates, scaler, average)


def advance(state: TrainState, updates: int = 1, frozen: bool = False) -> TrainState:
    """So many updates on drawn images that depend on the update's number only; on features if `frozen`."""
    for _ in range(updates):
        draw = torch.Generator().manual_seed(state.progress.update)
        images_BCHW = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8, generator=draw)
        state.schedule.set(state.optimizer, state.progress.update)
        state.optimizer.zero_grad()
        with torch.no_grad():
            images = state.model.eval().features(images_BCHW) if frozen else images_BCHW
        outputs = state.model.train()(images)
        loss = state.criterion(outputs, {"종류": torch.tensor([0, 1, 2, 0])})
        loss.backward()
        state.optimizer.step()
        state.average.update(state.model)
        state.progress.end_update(loss.item(), 4)
    return state


def checkpointer(folder: Path) -> RunCheckpointer:
    """A checkpointer with some facts."""
    return RunCheckpointer(folder, {"targets": ["종류"], "model": model().metadata.as_dict()}, MADE_ON)


def saved(folder: Path, updates: int = 2, best: bool = False) -> TrainState:
    """A state after so many updates, kept in `folder`."""
    state = advance(fresh(), updates)
    checkpointer(folder).save(state, best)
    return state


def no_warning(text: str) -> None:
    """For loads in which nothing may be wrong."""
    pytest.fail(f"unexpected warning: {text}")


def tree(folder: Path) -> list[str]:
    """All names below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# Round trips.


def test_a_checkpoint_holds_its_four_files(tmp_path: Path) -> None:
    """`last` always, `best` where it is one; and nothing else stays behind."""
    saved(tmp_path / "c", best=True)
    assert tree(tmp_path / "c") == sorted(
        ["best", "last", *(f"{name}/{file}" for name in ("best", "last") for file in FILES)]
    )
    saved(tmp_path / "d")
    assert {name.partition("/")[0] for name in tree(tmp_path / "d")} == {"last"}


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    """Progress, facts, fingerprint and weights; `after` is told once the files are there."""
    state, told = advance(fresh(), 3), []
    kept = checkpointer(tmp_path / "c")
    kept.after = lambda given: told.append((given, (tmp_path / "c" / "best" / "manifest.json").exists()))
    kept.save(state, best=True)
    found = newest_checkpoint(tmp_path / "c", no_warning)
    assert told == [(state, True)]
    assert (found.update, found.epoch, found.folder.name) == (3, 0, "last")
    assert found.metadata == json.loads(json.dumps(kept.metadata))
    assert found.fingerprint == MADE_ON
    assert found.state["progress"] == state.progress.as_dict()
    assert all(torch.equal(found.model[key], value) for key, value in state.model.state_dict().items())


@pytest.mark.parametrize("name", ["adam", "adamw", "adamp", "sgd", "sgdp", "adafactorbv"])
@pytest.mark.parametrize("updates", [0, 3])
def test_an_optimizer_goes_on_as_if_nothing_had_happened(name: str, updates: int, tmp_path: Path) -> None:
    """State dict equal with its whole-number keys, tuples and types; and after three more updates the weights
    are those of the optimizer that was never saved, byte by byte."""
    state = advance(fresh(name), updates)
    checkpointer(tmp_path / "c").save(state, best=False)
    again = fresh(name)
    restore(again, newest_checkpoint(tmp_path / "c", no_warning))
    assert_same_tree(again.optimizer.state_dict(), state.optimizer.state_dict())
    assert again.progress == state.progress
    advance(state, 3)
    advance(again, 3)
    wanted = state.model.state_dict()
    assert all(torch.equal(value, wanted[key]) for key, value in again.model.state_dict().items())


def assert_same_tree(found: Any, wanted: Any) -> None:
    """Equal in values and in types, all the way down."""
    assert type(found) is type(wanted)
    if isinstance(wanted, dict):
        assert list(found) == list(wanted)
        for key in wanted:
            assert_same_tree(found[key], wanted[key])
    elif isinstance(wanted, list | tuple):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert_same_tree(one, other)
    elif isinstance(wanted, Tensor):
        assert torch.equal(found, wanted)
        assert found.dtype == wanted.dtype
    else:
        assert found == wanted


@pytest.mark.parametrize("optimizer", ["adamw", "sgdp"])
@pytest.mark.parametrize("frozen", [False, True], ids=["whole", "frozen"])
@pytest.mark.parametrize("updates", [0, 3])
def test_an_average_and_learned_weights_go_on_as_if_nothing_had_happened(
    updates: int, frozen: bool, optimizer: str, tmp_path: Path
) -> None:
    """The weights that learn, their average and its count, and the learned weights between targets come back; three
    more updates end in the same bytes, also where a backbone that was frozen has no moments yet."""
    state = advance(fresh(optimizer, decay=0.5, learned=True), updates, frozen)
    checkpointer(tmp_path / "c").save(state, best=False)
    again = advance(fresh(optimizer, decay=0.5, learned=True), 1)
    restore(again, newest_checkpoint(tmp_path / "c", no_warning))
    assert again.average.state_dict()["updates"] == updates
    assert_same_state(again, state)
    assert_same_tree(again.optimizer.state_dict(), state.optimizer.state_dict())
    assert (len(state.optimizer.state) > 3) == (
        updates > 0 and not frozen
    )  # the heads' two and the criterion's
    advance(state, 3)
    advance(again, 3)
    assert_same_state(again, state)


def assert_same_state(found: TrainState, wanted: TrainState) -> None:
    """Weights, average and the criterion's parameters are the same bytes."""
    for one, other in (
        (found.model, wanted.model),
        (found.average.model, wanted.average.model),
        (found.criterion, wanted.criterion),
    ):
        tensors = other.state_dict()
        assert all(torch.equal(value, tensors[key]) for key, value in one.state_dict().items())
        assert len(tensors) == len(one.state_dict())


def test_the_average_is_the_model_of_the_checkpoint(tmp_path: Path) -> None:
    """model.safetensors has what is evaluated; the weights that go on learning stand with the optimizer's. Without an
    average nothing stands there twice."""
    state = advance(fresh(decay=0.9), 3)
    checkpointer(tmp_path / "c").save(state, best=False)
    found, names = newest_checkpoint(tmp_path / "c", no_warning), set(state.model.state_dict())
    averaged, own = state.average.model.state_dict(), state.model.state_dict()
    assert set(found.model) == names
    assert all(torch.equal(found.model[name], averaged[name]) for name in names)
    assert all(torch.equal(found.training[f"model.{name}"], own[name]) for name in names)
    assert not torch.equal(averaged["heads.0.weight"], own["heads.0.weight"])
    saved(tmp_path / "d")
    plain = newest_checkpoint(tmp_path / "d", no_warning)
    assert not any(name.startswith(("model.", "average.")) for name in plain.training)


@pytest.mark.parametrize("option", [{"decay": 0.9}, {"learned": True}], ids=["average", "learned weights"])
@pytest.mark.parametrize("there", [True, False], ids=["saved only", "asked for only"])
def test_an_average_or_learned_weights_are_not_lost_silently(
    option: dict[str, Any], there: bool, tmp_path: Path
) -> None:
    """Where only the checkpoint has them, or only the config, it is refused."""
    checkpointer(tmp_path / "c").save(advance(fresh(**option if there else {}), 2), best=False)
    state = fresh(**{} if there else option)
    with pytest.raises(CheckpointError, match="last belongs to another configuration"):
        restore(state, newest_checkpoint(tmp_path / "c", no_warning))


def test_moments_lie_in_memory_as_their_parameters_do(tmp_path: Path) -> None:
    """A fused step walks through memory: a moment in plain order beside a channels_last weight would pair each
    weight with another's moment."""
    saved(tmp_path / "c")
    again = fresh()
    restore(again, newest_checkpoint(tmp_path / "c", no_warning))
    weight = again.model.backbone[0].weight
    assert weight.stride() == again.optimizer.state[weight]["exp_avg"].stride()


def test_schedule_and_scaler_survive(tmp_path: Path) -> None:
    """Plateau's memory and the loss scale are part of the state."""
    state = fresh(fp16=True)
    for epoch, value in enumerate([0.5, 0.4, 0.3]):
        state.schedule.end_epoch(value, epoch + 1)
    state.scaler.load_state_dict({**state.scaler.state_dict(), "scale": 2.0, "_growth_tracker": 5})
    checkpointer(tmp_path / "c").save(state, best=False)
    again = fresh(fp16=True)
    restore(again, newest_checkpoint(tmp_path / "c", no_warning))
    assert again.schedule.state_dict() == state.schedule.state_dict() != fresh().schedule.state_dict()
    assert again.scaler.state_dict() == state.scaler.state_dict() != fresh(fp16=True).scaler.state_dict()


def test_no_pickle_on_the_way_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither torch.load nor any part of pickle is called on loading, and no file starts as a pickle does."""
    saved(tmp_path / "c")

    def refuse(*_: object, **__: object) -> None:
        pytest.fail("a pickle was read")

    monkeypatch.setattr(torch, "load", refuse)
    for name in ("load", "loads", "Unpickler", "_Unpickler", "_load", "_loads"):
        monkeypatch.setattr(pickle, name, refuse)
    restore(fresh(), newest_checkpoint(tmp_path / "c", no_warning))
    assert all((tmp_path / "c" / "last" / file).read_bytes()[:1] not in (b"\x80", b"P") for file in FILES)


@pytest.mark.parametrize("other", ["another optimizer", "another model", "another schedule"])
def test_another_configurations_checkpoint_is_refused(other: str, tmp_path: Path) -> None:
    """What does not fit is a CheckpointError with the folder's name, not a traceback."""
    checkpointer(tmp_path / "c").save(advance(fresh(schedule="constant"), 1), best=False)
    state = fresh("sgd" if other == "another optimizer" else "adamw")
    if other == "another optimizer":
        groups = [{"params": list(state.model.parameters())}]
        state.optimizer = build_optimizer("sgd", groups, 0.1, 0.0)
    if other == "another model":
        state.model.heads[0] = nn.Linear(4, 5)
    with pytest.raises(CheckpointError, match="last belongs to another configuration"):
        restore(state, newest_checkpoint(tmp_path / "c", no_warning))


def test_what_cannot_be_saved_is_named() -> None:
    """A thing that JSON and safetensors have no form for is refused where it stands."""
    state = fresh()
    bias = state.optimizer.param_groups[0]["params"][0]
    state.optimizer.state[bias]["draw"] = random.Random(0)
    with pytest.raises(CheckpointError, match=r"has a Random at optimizer\.state\.0\.draw"):
        checkpoints._serialize(state, {}, {})


# The order of writing.


def test_every_file_is_on_the_disk_before_the_name_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written and flushed one after the other, the manifest last; then the folder; then the renames; then the
    parent; and only then is the one before deleted."""
    saved(tmp_path / "c")
    calls, fsync, replace, rmtree = [], os.fsync, Path.replace, shutil.rmtree

    def flush(handle: int) -> None:
        path = Path(f"/proc/self/fd/{handle}").readlink()
        calls.append(f"fsync {path.relative_to(tmp_path / 'c')}")
        if path.is_file():
            assert path.stat().st_size > 0  # flushed from Python's own buffer before
        fsync(handle)

    def rename(self: Path, target: Path) -> Path:
        calls.append(f"rename {self.name} {target.name}")
        return replace(self, target)

    def delete(path: Path, *rest: Any, **options: Any) -> None:
        if path.exists():
            calls.append(f"delete {path.name}")
        rmtree(path, *rest, **options)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(Path, "replace", rename)
    monkeypatch.setattr(shutil, "rmtree", delete)
    saved(tmp_path / "c", 3)
    assert calls == [
        *(f"fsync .staging-last/{file}" for file in FILES),
        "fsync .staging-last",
        "rename last .previous-last",
        "rename .staging-last last",
        "fsync .",
        "delete .previous-last",
    ]


# Damage.


def flipped(data: bytes, bit: int) -> bytes:
    """The data with one bit the other way."""
    damaged = bytearray(data)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


@pytest.mark.parametrize("file", FILES)
def test_every_flipped_bit_is_noticed(file: str, tmp_path: Path) -> None:
    """150 random single bits in each file, and its first and its last: a CheckpointError that names the file."""
    saved(tmp_path / "c")
    path = tmp_path / "c" / "last" / file
    whole = path.read_bytes()
    bits = np.random.default_rng(0).integers(0, 8 * len(whole), 150).tolist()
    for bit in [0, 8 * len(whole) - 1, *bits]:
        path.write_bytes(flipped(whole, bit))
        with pytest.raises(CheckpointError, match=file.replace(".", r"\.")):
            read_checkpoint(path.parent)
    path.write_bytes(whole)
    read_checkpoint(path.parent)


@pytest.mark.parametrize("file", FILES)
def test_every_truncation_is_noticed(file: str, tmp_path: Path) -> None:
    """Cut to nothing, to the half, by some bytes, grown by one, or gone: named and refused."""
    saved(tmp_path / "c")
    path = tmp_path / "c" / "last" / file
    whole = path.read_bytes()
    cuts = [0, 1, len(whole) // 2, len(whole) - 2, *np.random.default_rng(1).integers(0, len(whole) - 2, 30)]
    for data in [*(whole[:cut] for cut in cuts), whole + b"x"]:
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match=file.replace(".", r"\.")):
            read_checkpoint(path.parent)
    path.unlink()
    with pytest.raises(CheckpointError, match=file.replace(".", r"\.")):
        read_checkpoint(path.parent)


@pytest.mark.parametrize(
    "text", ["[]", "[1]", "3", '"x"', "null", "{}", '{"sha256": 3}', "[" * 100_000, "\ufeff{}"]
)
def test_a_manifest_that_is_something_else_is_damaged(text: str, tmp_path: Path) -> None:
    """Whatever stands in it, the answer is a CheckpointError."""
    saved(tmp_path / "c")
    (tmp_path / "c" / "last" / "manifest.json").write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"manifest\.json is damaged"):
        read_checkpoint(tmp_path / "c" / "last")


def test_files_of_two_checkpoints_do_not_mix(tmp_path: Path) -> None:
    """A model of one save beside the state of another is noticed although each file is whole."""
    saved(tmp_path / "c", 2)
    saved(tmp_path / "d", 3)
    shutil.copy(tmp_path / "d" / "last" / "model.safetensors", tmp_path / "c" / "last" / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        read_checkpoint(tmp_path / "c" / "last")


@pytest.mark.parametrize("schema", [1, checkpoints.SCHEMA + 1])
def test_another_schema_is_refused(schema: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint of a much earlier or a later classwise says so."""
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "SCHEMA", schema)
        saved(tmp_path / "c")
    with pytest.raises(
        CheckpointError, match=f"schema {schema}, but this version of classwise reads 2 and 3"
    ):
        read_checkpoint(tmp_path / "c" / "last")


def test_the_schema_before_is_still_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Schema 2 has other names for three values; everything else of the two checkpoints is the same."""
    saved(tmp_path / "new", 5)
    serialize = checkpoints.json_text

    def old_names(tree: Any) -> str:
        if "progress" in tree:
            tree = dict(tree)
            metadata, progress = dict(tree.pop("metadata")), dict(tree["progress"])
            if "micro_batches_per_update" in metadata:
                metadata["window"] = metadata.pop("micro_batches_per_update")
            progress["window"] = progress.pop("update_in_epoch")
            progress["waited"] = progress.pop("epochs_without_improvement")
            progress["micro_batch"] = progress.pop("chunk_size")
            tree |= {"facts": metadata, "progress": progress}
        return serialize(tree)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "SCHEMA", 2)
        patch.setattr(checkpoints, "json_text", old_names)
        saved(tmp_path / "old", 5)
        text = (tmp_path / "old" / "last" / "state.json").read_text()
        assert '"facts"' in text
        assert '"waited"' in text
    old, new = (read_checkpoint(tmp_path / name / "last") for name in ("old", "new"))
    assert old.metadata == new.metadata
    assert old.state["progress"] == new.state["progress"]
    assert same_tensors(old.training, new.training)


def same_tensors(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """The same names and bytes."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# Falling back.


def test_the_newest_good_one_is_taken(tmp_path: Path) -> None:
    """`last` is damaged: the run goes on from `best`, and the warning names both."""
    saved(tmp_path / "c", 2, best=True)
    saved(tmp_path / "c", 5)
    assert newest_checkpoint(tmp_path / "c", no_warning).update == 5
    path = tmp_path / "c" / "last" / "training.safetensors"
    path.write_bytes(flipped(path.read_bytes(), 999))
    said: list[str] = []
    found = newest_checkpoint(tmp_path / "c", said.append)
    assert (found.folder.name, found.update) == ("best", 2)
    assert len(said) == 1
    assert "training.safetensors is damaged" in said[0]
    assert "going on from best (update 2)" in said[0]


def test_a_damaged_best_is_said_too(tmp_path: Path) -> None:
    """The run can go on from `last`, but the best weights are lost: that is worth a warning."""
    saved(tmp_path / "c", 2, best=True)
    (tmp_path / "c" / "best" / "state.json").write_bytes(b"{}")
    said: list[str] = []
    assert newest_checkpoint(tmp_path / "c", said.append).folder.name == "last"
    assert "best/state.json is damaged" in said[0]


def test_without_a_good_one_it_refuses(tmp_path: Path) -> None:
    """An empty folder, no folder, and all damaged: never a silent fresh start."""
    with pytest.raises(CheckpointError, match=r"no usable checkpoint \(none has been written\)"):
        newest_checkpoint(tmp_path / "c", no_warning)
    saved(tmp_path / "c", best=True)
    for name in ("last", "best"):
        (tmp_path / "c" / name / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=r"no usable checkpoint \(.*last.*missing.*best.*missing"):
        newest_checkpoint(tmp_path / "c", no_warning)


# Kills.


@pytest.mark.parametrize("name", ["last", "best"])
def test_a_kill_between_the_renames_loses_nothing(name: str, tmp_path: Path) -> None:
    """The new one still has its hidden name and the old one is aside: the new one is found, by the search for the
    newest and by its own name; the next save tidies up."""
    folder = tmp_path / "c"
    saved(folder, 2, best=True)
    saved(tmp_path / "new", 3, best=True)
    (folder / name).rename(folder / f".previous-{name}")
    shutil.copytree(tmp_path / "new" / name, folder / f".staging-{name}")
    assert newest_checkpoint(folder, no_warning).update == 3
    assert read_checkpoint(folder / name).update == 3
    saved(folder, 4, best=True)
    assert {each.name for each in folder.iterdir()} == {"last", "best"}
    assert read_checkpoint(folder / name).update == 4


@pytest.mark.parametrize("name", ["last", "best"])
def test_aside_without_a_new_one_is_as_good(name: str, tmp_path: Path) -> None:
    """Only the one before is left, under its hidden name: it is used."""
    folder = tmp_path / "c"
    saved(folder, 2, best=True)
    (folder / name).rename(folder / f".previous-{name}")
    assert read_checkpoint(folder / name).update == 2
    shutil.rmtree(folder / ("best" if name == "last" else "last"))
    assert newest_checkpoint(folder, no_warning).update == 2


@pytest.mark.parametrize("files", [0, 1, 2, 3])
def test_a_kill_while_writing_leaves_the_one_before(files: int, tmp_path: Path) -> None:
    """A staging folder without its manifest counts for nothing and is worth no warning."""
    folder = tmp_path / "c"
    saved(folder, 2)
    saved(tmp_path / "new", 3)
    (folder / ".staging-last").mkdir()
    for file in FILES[:files]:
        shutil.copy(tmp_path / "new" / "last" / file, folder / ".staging-last" / file)
    assert newest_checkpoint(folder, no_warning).update == 2
    saved(folder, 3)
    assert newest_checkpoint(folder, no_warning).update == 3
    assert [each.name for each in folder.iterdir()] == ["last"]


class Kill(BaseException):
    """Stands for SIGKILL: nothing tidies up after it."""


def test_a_kill_at_any_call_leaves_a_good_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before each fsync, rename and deletion of a save: the state before or the new one can be resumed."""
    seen: list[int] = []
    for at in range(100):
        folder = tmp_path / str(at)
        saved(folder, 2, best=True)
        state = advance(fresh(), 3)
        left = [at]

        def killed(left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise Kill

        with monkeypatch.context() as patch:
            for owner, method in ((os, "fsync"), (Path, "replace"), (shutil, "rmtree")):
                patch.setattr(owner, method, _after(killed, getattr(owner, method)))
            try:
                checkpointer(folder).save(state, best=True)
                finished = True
            except Kill:
                finished = False
        seen.append(newest_checkpoint(folder, no_warning).update)
        assert read_checkpoint(folder / "best").update in (2, 3)
        if finished:
            break
    assert finished
    assert seen == sorted(seen)
    assert set(seen) == {2, 3}


def _after(first: Any, then: Any) -> Any:
    def both(*args: Any, **options: Any) -> Any:
        first()
        return then(*args, **options)

    return both


# Full disks.


@pytest.mark.parametrize("fails_at", range(5))
def test_a_full_disk_keeps_the_one_before(
    fails_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ENOSPC while writing or flushing any of the files: a CheckpointError that says so, the old checkpoint is
    whole, and no staging folder takes up space."""
    folder = tmp_path / "c"
    before = saved(folder, 2, best=True)
    count, fsync = [0], os.fsync

    def full(handle: int) -> None:
        count[0] += 1
        if count[0] > fails_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(CheckpointError, match=r"cannot be written: No space left on device; .* intact"):
            saved(folder, 3, best=True)
    assert {each.name for each in folder.iterdir()} == {"last", "best"}
    found = newest_checkpoint(folder, no_warning)
    assert found.update == 2
    assert all(torch.equal(found.model[key], value) for key, value in before.model.state_dict().items())


def test_a_full_disk_while_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The write itself fails after a part of the bytes: the part is deleted."""
    folder = tmp_path / "c"
    saved(folder, 2)
    opened = Path.open

    class Full(io.FileIO):
        def write(self, data: Any) -> int:
            super().write(bytes(data)[:100])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def open_full(self: Path, mode: str = "r", *rest: Any, **options: Any) -> Any:
        return Full(self, "x") if mode == "xb" else opened(self, mode, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", open_full)
        with pytest.raises(CheckpointError, match="No space left on device"):
            saved(folder, 3)
    assert [each.name for each in folder.iterdir()] == ["last"]
    assert newest_checkpoint(folder, no_warning).update == 2


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    """A file where the folder should be: a CheckpointError with its name."""
    (tmp_path / "c").write_text("in the way")
    with pytest.raises(CheckpointError, match=r"c.*cannot be written"):
        write_checkpoint(tmp_path / "c", "last", {"a": b"b"})


# The fingerprint.


def test_the_fingerprint_has_what_bytes_depend_on() -> None:
    """Versions, machine, device, threads and processes; and it is plain JSON."""
    found = fingerprint("cpu", world_size=3)
    libraries = {"torch", "numpy", "timm", "torchvision", "opencv-python-headless", "simplejpeg", "pillow"}
    assert set(found) == libraries | {"python", "machine", "device", "threads", "world_size"}
    assert (found["device"], found["world_size"], found["threads"]) == ("cpu", 3, torch.get_num_threads())
    assert json.loads(json.dumps(found)) == found


def test_the_files_are_readable_by_others(tmp_path: Path) -> None:
    """model.safetensors is what safetensors writes of the state dict, in plain order; state.json is UTF-8."""
    state = saved(tmp_path / "c")
    plain = {key: value.contiguous() for key, value in state.model.state_dict().items()}
    assert (tmp_path / "c" / "last" / "model.safetensors").read_bytes() == save(plain)
    assert "종류" in (tmp_path / "c" / "last" / "state.json").read_text(encoding="utf-8")
    assert isinstance(read_checkpoint(tmp_path / "c" / "last"), Checkpoint)


def test_a_checkpoint_within_an_epoch_is_due_after_so_many_updates(tmp_path: Path) -> None:
    """With every_updates = 3 after the third update since the last one; without it, never."""
    checkpointer = RunCheckpointer(tmp_path, {}, {}, every_updates=3)
    assert [checkpointer.should_save(Progress(update=update)) for update in (1, 2, 3)] == [False, False, True]
    assert not RunCheckpointer(tmp_path, {}, {}).should_save(Progress(update=1000))
