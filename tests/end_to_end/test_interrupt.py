"""Stopping and going on: real signals to a real process, and the same bytes at the end as without them."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

import pytest
import tomli_w
import torch
from safetensors.torch import load_file

from classwise.compose import state as compose_state
from classwise.run import checkpoint
from classwise.run.checkpoint import read_checkpoint
from classwise.training.state import Progress
from tests.helpers.same_end import assert_same_end, timeless_history
from tests.helpers.scenes import (
    FORKS,
    MANY,
    PEOPLE,
    PLAIN,
    Result,
    command,
    contents,
    many_table,
    people_table,
    plain_table,
    write_config,
)

EPOCHS = 30
# The metric's name stands in every epoch line, which makes 30 of them longer than the pipe that they go into.
LONG = "a target with a long name " * 5
PIPE = 4096
MAIN = "from classwise.cli import main; main()"


@dataclass(frozen=True)
class Ended:
    """A process that has ended: its exit code and what it wrote."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config of many short epochs, and its uninterrupted run in `whole`."""
    folder = tmp_path_factory.mktemp("stop")
    plain_table(folder, 16)
    changes = {"training__epochs": EPOCHS, "schedule": {"name": "plateau", "patience": 3}}
    changes |= {"targets": {LONG: {"column": "label"}, "b": {"column": "label"}}}
    changes |= {"selection": {"metric": f"{LONG}.macro_f1"}}
    result = command("train", write_config(folder, PLAIN, **changes), "--run", folder / "whole").ok()
    assert len(result.err) > PIPE
    return folder


def disturbed(folder: Path, disturb: Callable[[int], None], *options: str) -> Ended:
    """`classwise train` in a process group of its own; `disturb` is called with its number after the first epoch.

    The process cannot outrun the test: all epoch lines together do not fit into the pipe, and nobody reads
    on before `disturb` has returned. One that does not end by itself is killed, which gives another exit code.
    """
    arguments = ["train", str(folder / "classwise.toml"), *options]
    with (folder / "stdout.txt").open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", MAIN, *arguments],
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            pipesize=PIPE,
            start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
    kill = partial(os.killpg, process.pid, signal.SIGKILL)
    watchdog = threading.Timer(180, kill)
    watchdog.start()
    stream = cast(IO[str], process.stderr)
    try:
        lines = read_until(stream, "epoch  1/")
        disturb(process.pid)
        text = "".join(lines) + stream.read()
        return Ended(process.wait(), (folder / "stdout.txt").read_text(), text)
    finally:
        watchdog.cancel()
        with contextlib.suppress(ProcessLookupError):
            kill()
        process.wait()
        stream.close()


def read_until(stream: IO[str], start: str) -> list[str]:
    """The lines up to the first that starts so."""
    lines = []
    for line in iter(stream.readline, ""):
        lines.append(line)
        if line.startswith(start):
            return lines
    raise AssertionError("the process ended without that line:\n" + "".join(lines))


@FORKS
@pytest.mark.parametrize(
    ("number", "options"),
    [
        pytest.param(signal.SIGINT, (), marks=pytest.mark.full, id="int"),
        pytest.param(signal.SIGTERM, ("--data.workers", "2"), id="term"),
    ],
)
def test_a_signal_stops_with_a_checkpoint_and_resume_ends_in_the_same_bytes(
    folder: Path, tmp_path: Path, number: int, options: tuple[str, ...]
) -> None:
    """SIGINT, and SIGTERM to a whole group with loader processes: exit 75, a verified checkpoint, and a resumed
    run that nobody can tell from an uninterrupted one."""
    run = tmp_path / "run"
    ended = disturbed(folder, lambda group: os.killpg(group, number), "--run", str(run), *options)
    assert ended.code == 75, ended.err
    assert ended.out == ""
    assert "Traceback" not in ended.err
    assert ended.err.splitlines()[-1].endswith(f"go on with: classwise resume {run}")
    assert "\r" not in ended.err
    assert "\x1b" not in ended.err
    status = json.loads((run / "status.json").read_text())
    assert status["state"] == "interrupted"
    assert 1 <= status["epoch"] < EPOCHS
    assert read_checkpoint(run / "checkpoints" / "last").update == status["update"]
    assert not [name for name in contents(run) if Path(name).name.startswith(".")]

    resumed = command("resume", run).ok()
    assert resumed.path == run
    assert f"resuming {run} after epoch {status['epoch']}, update {status['update']}" in resumed.err
    assert "warning" not in resumed.err
    assert_same_end(folder / "whole", run)


@pytest.mark.parametrize("update", [1, 4, 10])
def test_stopped_after_any_update_the_run_ends_in_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, update: int
) -> None:
    """In the middle of an epoch, at its end, before the first: dropout, augmentation, accumulation, early
    stopping and the schedule go on as if nothing had happened."""
    people_table(tmp_path, 12)
    changes = {"training__epochs": 6, "data__augment": "strong", "selection": {"patience": 4}}
    config = write_config(
        tmp_path, PEOPLE, **changes, targets__age=None, joint={"targets": ["mask", "gender"]}
    )
    command("train", config, "--run", tmp_path / "whole").ok()
    stop_after(update, config, tmp_path / "run", monkeypatch)
    command("resume", tmp_path / "run").ok()
    assert_same_end(tmp_path / "whole", tmp_path / "run")


def stop_after(update: int, config: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train and press Ctrl-C after that update."""
    count = Progress.end_update

    def press(progress: Progress, loss: float, samples: int) -> None:
        count(progress, loss, samples)
        if progress.update == update:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "end_update", press)
        assert command("train", config, "--run", run).code == 75
    assert json.loads((run / "status.json").read_text())["update"] == update


@pytest.mark.parametrize("name", ["best", "last"])
def test_killed_while_the_best_epoch_is_saved_the_run_ends_in_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """`best` is saved before `last`. A kill when all files of the new one are written, but under the hidden name:
    resume goes on from them, and brings both checkpoints to that epoch."""
    plain_table(tmp_path, 16)
    config = write_config(tmp_path, PLAIN, training__epochs=3, selection={"metric": "log_loss"})
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    sync_folder = checkpoint.sync_folder

    def copy_and_sync(folder: Path) -> None:
        """What a kill at this moment would leave of the run; of several best epochs, the last one counts."""
        if folder.name == f".staging-{name}":
            progress = json.loads((folder / "state.json").read_text())["progress"]
            if progress["best_epoch"] == progress["epoch"]:
                shutil.rmtree(killed, ignore_errors=True)
                shutil.copytree(whole, killed)
        sync_folder(folder)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "sync_folder", copy_and_sync)
        command("train", config, "--run", whole).ok()
    best_epoch = read_checkpoint(whole / "checkpoints" / "best").epoch
    assert read_checkpoint(killed / "checkpoints" / name).epoch < best_epoch  # still the one from before
    command("resume", killed).ok()
    assert_same_end(whole, killed)


# Neither LDAM nor a ranking loss can take mixed answers, so the options come in two sets.
RANKED = {"type": "ranking", "column": "relevance", "query": "query"}
SETS: dict[str, dict[str, Any]] = {
    "mixing": {"data__mixup": 0.4, "data__cutmix": 1.0, "data__mix_share": 0.9},
    "ldam": {
        "loss": {"name": "ldam", "class_weights": "inverse", "weights_from_epoch": 2},
        "targets__ranked": RANKED,
        "selection__metric": "ranked.ndcg",
    },
}


@pytest.mark.parametrize("options", SETS)
def test_with_every_option_the_bytes_are_the_same_after_any_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: str
) -> None:
    """An average of the weights, learned weights between targets of every type, weights that begin with the second
    epoch, a first epoch with a frozen backbone; and mixup with CutMix, or LDAM and whole queries. Stopped after
    each update of both epochs and resumed, the run ends in the bytes of the one that was not."""
    many_table(tmp_path)
    config = write_config(tmp_path, MANY, **SETS[options])
    said = ending(command("train", config, "--run", tmp_path / "whole"))
    rows = timeless_history(tmp_path / "whole")
    updates = json.loads((tmp_path / "whole/status.json").read_text())["update"]
    assert [row.get("frozen", False) for row in rows] == [True, False]
    targets = {*MANY["targets"], *(["ranked"] if "targets__ranked" in SETS[options] else [])}
    assert all(set(row["target_weights"]) == targets for row in rows)
    assert updates >= 4
    for update in range(1, updates + 1):
        run = tmp_path / f"run {update}"
        stop_after(update, config, run, monkeypatch)
        assert ending(command("resume", run)) == said
        assert_same_end(tmp_path / "whole", run)


def test_batch_norm_stays_frozen_in_a_resumed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint does not say so, the config does: the same end, with the statistics of the start."""
    plain_table(tmp_path, 16)
    config = write_config(tmp_path, PLAIN, training__batch_norm="frozen", training__accumulate=2)
    command("train", config, "--run", tmp_path / "whole").ok()
    stop_after(1, config, tmp_path / "run", monkeypatch)
    command("resume", tmp_path / "run").ok()
    assert_same_end(tmp_path / "whole", tmp_path / "run")
    tensors = load_file(tmp_path / "run" / "checkpoints" / "last" / "model.safetensors")
    assert not tensors["backbone.stem.norm.running_mean"].any()
    assert tensors["backbone.stem.norm.weight"].std() > 0  # which began as 1


def test_layers_stay_frozen_in_a_resumed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the config says: the weights of the slowest layers are those of the start, bit for bit, and have no state of
    the optimizer; those after them have learned. The average of the weights agrees."""
    plain_table(tmp_path, 16)
    options = {"optimizer": {"name": "adamw", "layer_decay": 0.5, "frozen_below": 0.2}, "training__ema": 0.9}
    config = write_config(tmp_path, PLAIN, **options)
    said = command("train", config, "--run", tmp_path / "whole").ok().err
    assert "fine-tuning leaves the first 2 of 4 layers as they are (optimizer.frozen_below)" in said
    stop_after(1, config, tmp_path / "run", monkeypatch)
    early = load_file(tmp_path / "run" / "checkpoints" / "last" / "model.safetensors")
    command("resume", tmp_path / "run").ok()
    assert_same_end(tmp_path / "whole", tmp_path / "run")
    late = load_file(tmp_path / "run" / "checkpoints" / "last" / "model.safetensors")
    for name, before in early.items():
        if not name.endswith("conv.weight"):
            continue
        is_frozen = name.startswith(("backbone.stem.", "backbone.stage1."))
        assert torch.equal(before, late[name]) == is_frozen


def test_what_a_run_may_be_given_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its images lie, how they are read, how often it saves: edited in config.toml, and the same end."""
    plain_table(tmp_path, 16)
    config = write_config(tmp_path, PLAIN)
    command("train", config, "--run", tmp_path / "whole").ok()
    run = tmp_path / "run"
    stop_after(1, config, run, monkeypatch)
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("images", "samples.csv"):
        shutil.copytree(tmp_path / name, moved / name) if name == "images" else shutil.copy(
            tmp_path / name, moved
        )
    values = tomllib.loads((run / "config.toml").read_text())
    values["name"] = "another"
    values["data"] |= {"source": str(moved / "samples.csv"), "images": str(moved), "cache": "off"}
    values["data"] |= {"workers": 1, "start_method": "spawn", "worker_timeout": 60.0, "cache_gigabytes": 1.0}
    values["training"] |= {"checkpoint_minutes": 0.0, "checkpoint_updates": 1}
    (run / "config.toml").write_text(tomli_w.dumps(values))
    command("resume", run).ok()
    for file in (
        "checkpoints/last/model.safetensors",
        "checkpoints/last/training.safetensors",
        "metrics.json",
    ):
        assert (run / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    assert timeless_history(run) == timeless_history(tmp_path / "whole")


def test_a_resumed_run_counts_the_seconds_from_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What status.json says a run has taken is what all of its parts have taken."""
    plain_table(tmp_path, 16)
    run = tmp_path / "run"
    stop_after(1, write_config(tmp_path, PLAIN), run, monkeypatch)
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps(status | {"seconds": 5000.0}))
    command("resume", run).ok()
    assert 5000 < json.loads((run / "status.json").read_text())["seconds"] < 6000


@pytest.mark.full  # compiling takes a minute; tests/training/test_compiled.py says quickly what is compiled
@pytest.mark.parametrize("careful", [True, False])
def test_compiled_too_the_run_ends_in_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, careful: bool
) -> None:
    """A short last batch, which the resumed process meets before it has met any other. As torch.compile is by
    default, code depends on what a process has seen before: that would move the last digits."""
    plain_table(tmp_path, 40)
    model = {"backbone": "small_cnn", "image_size": [32, 32]}
    training = {**PLAIN["training"], "compile": True, "batch_size": 12}
    config = write_config(tmp_path, PLAIN, model=model, training=training)
    if not careful:
        real = torch.compile
        monkeypatch.setattr(torch, "compile", lambda model, dynamic: real(model))
        monkeypatch.setattr(compose_state, "compiled_sizes", lambda *sizes: range(1000))
    command("train", config, "--run", tmp_path / "whole").ok()
    run = tmp_path / "run"
    stop_after(5, config, run, monkeypatch)  # in the second epoch, before its short last batch
    command("resume", run).ok()
    if careful:
        assert_same_end(tmp_path / "whole", run)
    else:
        file = "checkpoints/last/model.safetensors"
        assert (run / file).read_bytes() != (tmp_path / "whole" / file).read_bytes()


def ending(result: Result) -> list[str]:
    """What a run that succeeded says at its end: its best epoch, and the baselines that it does not beat."""
    lines = [line for line in result.ok().err.splitlines() if not line.startswith("report: ")]
    (first,) = [number for number, line in enumerate(lines) if line.startswith("finished: ")]
    return lines[first:]


def test_resuming_a_finished_run_says_so(folder: Path) -> None:
    """Nothing is trained, nothing is written, exit code 0."""
    before = contents(folder / "whole")
    result = command("resume", folder / "whole").ok()
    assert "finished already" in result.err
    assert result.path == folder / "whole"
    assert contents(folder / "whole") == before


@FORKS
@pytest.mark.parametrize("debug", [pytest.param(False, marks=pytest.mark.full), True])
def test_a_run_that_failed_says_why_and_can_go_on(folder: Path, tmp_path: Path, debug: bool) -> None:
    """Images that vanish while loader processes read them: the process ends with exit 1 (also where the error
    is still held when it does, as with --debug), status.json says why, and resume ends as if nothing had happened."""
    run, images, away = tmp_path / "run", folder / "images", folder / "away"
    # Decoded images that have been kept would do without the files.
    given = ("--run", str(run), "--data.workers", "2", "--data.cache", "off")
    options = (*given, *(["--debug"] if debug else []))
    try:
        ended = disturbed(folder, lambda _: shutil.move(images, away), *options)
    finally:
        away.rename(images)
    assert ended.code == 1, ended.err
    assert ("Traceback" in ended.err) == debug
    assert f"rror: {images}" in ended.err.splitlines()[-1]
    status = json.loads((run / "status.json").read_text())
    assert status["state"] == "failed"
    assert str(images) in status["reason"]
    command("resume", run).ok()
    assert_same_end(folder / "whole", run)
