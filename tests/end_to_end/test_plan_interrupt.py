"""The plan of two stages, stopped or killed anywhere: the same bytes at the end as without."""

import json
import os
import shutil
import signal
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from classwise.compose import features, first_answer
from classwise.files import json_text, sha256
from classwise.infer import feature_engine
from classwise.run import checkpoint, session, stages
from classwise.run.checkpoint import RunCheckpointer, read_checkpoint
from classwise.run.folder import RunFolder
from classwise.training.state import Progress
from tests.helpers.pretrained import probed_config
from tests.helpers.same_end import assert_same_end
from tests.helpers.scenes import Result, command, plain_table

CHANGES = {"training__ema": 0.9, "model__dropout": 0.1, "training__batch_size": 6}
STAGES = ("before the features", "features", "fits", "first answer", "mid-epoch", "between epochs", "choice")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 images and weights, and an uninterrupted run of both stages in `whole`."""
    folder = tmp_path_factory.mktemp("stages")
    plain_table(folder, 24)
    config = probed_config(folder, **CHANGES)
    command("train", config, "--run", folder / "whole", "--data.cache", "off").ok()
    assert "plan" in json.loads((folder / "whole" / "metrics.json").read_text())
    return folder


def press() -> None:
    """Ctrl-C."""
    os.kill(os.getpid(), signal.SIGINT)


def before(work: Callable[..., Any], at: Callable[..., bool] = lambda *arguments: True) -> Callable[..., Any]:
    """`work`, with Ctrl-C pressed before the call that `at` is true of."""

    def call(*arguments: Any, **options: Any) -> Any:
        if at(*arguments):
            press()
        return work(*arguments, **options)

    return call


def stop_at(stage: str, patch: pytest.MonkeyPatch) -> None:
    """Press Ctrl-C in the stage."""
    if stage == "before the features":
        patch.setattr(stages, "fit_first_answer", before(stages.fit_first_answer))
    elif stage == "features":
        patch.setattr(features, "feature_engine", before(features.feature_engine))
    elif stage == "fits":
        patch.setattr(first_answer, "fitted_head", before(first_answer.fitted_head))
    elif stage == "first answer":
        patch.setattr(RunCheckpointer, "save_first", before(RunCheckpointer.save_first))
    elif stage in ("mid-epoch", "between epochs"):
        update = {"mid-epoch": 2, "between epochs": 3}[stage]
        at = lambda progress, *rest: progress.update == update - 1  # noqa: E731
        patch.setattr(Progress, "end_update", before(Progress.end_update, at))
    elif stage == "choice":
        patch.setattr(session, "chosen_answer", before(session.chosen_answer))
    else:
        raise AssertionError(stage)


def expected(stage: str) -> tuple[int, bool]:
    """The updates of the run that was stopped there, and whether it has a first answer."""
    return {
        "before the features": (0, False),
        "features": (0, False),
        "fits": (0, True),
        "first answer": (0, True),
        "mid-epoch": (2, True),
        "between epochs": (3, True),
        "choice": (6, True),
    }[stage]


@pytest.mark.parametrize(
    ("stage", "cache"),
    [
        *((stage, "auto") for stage in STAGES),
        *((stage, "off") for stage in ("features", "first answer", "choice")),
    ],
)
def test_stopped_in_any_stage_the_run_ends_in_the_same_bytes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, cache: str
) -> None:
    """A verified checkpoint and a status that says so; a resumed run has the same checkpoints, metrics and predictions
    as one that nobody stopped."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # the features are computed in this test
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_at(stage, patch)
        stopped = command("train", folder / "classwise.toml", "--run", run, "--data.cache", cache)
    assert stopped.code == 75, stopped.err
    assert f"go on with: classwise resume {run}" in stopped.err
    status = json.loads((run / "status.json").read_text())
    updates, has_answer = expected(stage)
    assert (status["state"], status["update"]) == ("interrupted", updates)
    progress = read_checkpoint(run / "checkpoints" / "last").state["progress"]
    assert (progress["first_answer"] is not None) == has_answer
    if has_answer:
        # What one would use of it: the first answer, with its metrics.
        assert status["best"]["epoch"] == 0
        assert read_checkpoint(run / "checkpoints" / "best").epoch == 0
        assert json.loads((run / "metrics.json").read_text())["epoch"] == 0
    else:
        assert not (run / "checkpoints" / "best").exists()
    resumed = command("resume", run).ok()
    assert ("first answer after" in resumed.err) != has_answer
    assert_same_end(folder / "whole", run)


@pytest.mark.parametrize("stage", ["features", "first answer", "mid-epoch"])
def test_features_of_onnx_runtime_are_the_same_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """With the engine that more images would get: it was used, and a resumed run ends in the same bytes."""
    sessions: list[Any] = []
    onnx_engine = feature_engine._onnx_engine

    def noted(model: Any) -> Any:
        sessions.append(onnx_engine(model))
        return sessions[-1]

    monkeypatch.setattr(feature_engine, "MIN_IMAGES", 1)
    monkeypatch.setattr(feature_engine, "_onnx_engine", noted)
    options = ("--data.cache", "off")
    command("train", folder / "classwise.toml", "--run", tmp_path / "whole", *options).ok()
    with monkeypatch.context() as patch:
        stop_at(stage, patch)
        stopped = command("train", folder / "classwise.toml", "--run", tmp_path / "run", *options)
    assert stopped.code == 75, stopped.err
    command("resume", tmp_path / "run").ok()
    assert len(sessions) >= 3
    assert None not in sessions
    assert_same_end(tmp_path / "whole", tmp_path / "run")


def copies_at(patch: pytest.MonkeyPatch, run: Path, copies: Path) -> list[str]:
    """Patch what a run calls so that it is copied in several moments, as a kill would leave it; returns their names,
    which are added as the moments come."""
    taken: list[str] = []

    def copy(moment: str) -> None:
        if moment not in taken:
            shutil.copytree(run, copies / moment)
            taken.append(moment)

    sync_folder, write_metrics = checkpoint.sync_folder, RunFolder.write_metrics
    write_predictions, fit = RunFolder.write_predictions, stages.fit_first_answer
    copy_checkpoint, end_update = stages.copy_checkpoint, Progress.end_update
    saves: list[str] = []

    def synced(folder: Path) -> None:
        sync_folder(folder)
        if folder.name.startswith(".staging-"):
            name = folder.name.removeprefix(".staging-")
            saves.append(name)
            copy(f"{saves.count(name)} {name}")

    def fitted(*arguments: Any, **options: Any) -> Any:
        copy("before the features")
        return fit(*arguments, **options)

    def predicted(folder: RunFolder, *arguments: Any) -> None:
        write_predictions(folder, *arguments)
        copy(f"predictions {(folder.path / 'metrics.json').exists()}")

    def measured(folder: RunFolder, metrics: dict[str, Any]) -> None:
        write_metrics(folder, metrics)
        copy(f"metrics {metrics['epoch']} {'plan' in metrics}")

    def copied(*arguments: Any) -> None:
        copy("before the copy")
        copy_checkpoint(*arguments)
        copy("after the copy")

    def ended(progress: Progress, *arguments: Any) -> None:
        end_update(progress, *arguments)
        copy(f"update {progress.update}")

    patch.setattr(checkpoint, "sync_folder", synced)
    patch.setattr(stages, "fit_first_answer", fitted)
    patch.setattr(RunFolder, "write_predictions", predicted)
    patch.setattr(RunFolder, "write_metrics", measured)
    patch.setattr(stages, "copy_checkpoint", copied)
    patch.setattr(Progress, "end_update", ended)
    return taken


QUICK = {"1 first", "1 best", "2 last", "1 finetuned", "2 best", "after the copy"}


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.full)])
def test_killed_at_any_moment_the_run_ends_in_the_same_bytes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: bool
) -> None:
    """Between any two checkpoints of the first answer, while one is written, in mid-epoch, and at the end before and
    after the kept checkpoint is copied."""
    copies = tmp_path / "copies"
    copies.mkdir()
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        moments = copies_at(patch, run, copies)
        command("train", folder / "classwise.toml", "--run", run).ok()
    assert_same_end(folder / "whole", run)
    assert set(moments) >= QUICK | {"before the features", "update 1", "before the copy", "1 last"}
    for moment in moments:
        killed = copies / moment
        if moment == "1 last" or (not every and moment not in QUICK):
            continue  # before its first checkpoint there is no run
        resumed = command("resume", killed).ok()
        try:
            assert_same_end(folder / "whole", killed)
        except AssertionError as error:
            raise AssertionError(f"killed at {moment!r}: {error}\n{resumed.err}") from error


def test_a_probe_that_was_stopped_goes_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the plan `probe`: before its features, and before its results."""
    options = ("--training.plan", "probe")
    command("train", folder / "classwise.toml", "--run", tmp_path / "whole", *options).ok()
    for number, stage in enumerate(("before the features", "choice")):
        run = tmp_path / f"run {number}"
        with monkeypatch.context() as patch:
            patch.setenv("XDG_CACHE_HOME", str(tmp_path / f"cache {number}"))
            stop_at(stage, patch)
            assert command("train", folder / "classwise.toml", "--run", run, *options).code == 75
        command("resume", run).ok()
        assert_same_end(tmp_path / "whole", run)


def as_older(run: Path) -> None:
    """Make a run directory one of a version without plans: no such keys in its config, none in its checkpoints."""
    values = tomllib.loads((run / "config.toml").read_text())
    _without_plans(values)
    (run / "config.toml").write_text(tomli_w.dumps(values))
    for name in ("best", "last"):
        folder = run / "checkpoints" / name
        if not folder.exists():
            continue
        state = json.loads((folder / "state.json").read_text())
        del state["progress"]["first_answer"]
        del state["metadata"]["model"]["pooling"]
        config = tomllib.loads(state["metadata"]["config"])
        _without_plans(config)
        state["metadata"]["config"] = tomli_w.dumps(config)
        manifest = json.loads((folder / "manifest.json").read_text())
        data = json.dumps(state).encode()
        manifest["files"]["state.json"] = {"size": len(data), "sha256": sha256(data)}
        del manifest["sha256"]
        signed = manifest | {"sha256": sha256(json_text(manifest).encode())}
        (folder / "state.json").write_bytes(data)
        (folder / "manifest.json").write_text(json_text(signed))


def _without_plans(config: dict[str, Any]) -> None:
    del config["training"]["plan"]
    del config["model"]["pooling"]
    config["training"].pop("minutes", None)


def test_a_run_that_is_older_than_plans_fine_tunes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its backbone has weights, so `auto` would now be two stages; it goes on as it began."""
    whole, run = tmp_path / "whole", tmp_path / "run"
    options = ("--training.plan", "finetune")
    command("train", folder / "classwise.toml", "--run", whole, *options).ok()
    with monkeypatch.context() as patch:
        stop_at("mid-epoch", patch)
        assert command("train", folder / "classwise.toml", "--run", run, *options).code == 75
    as_older(run)
    resumed: Result = command("resume", run).ok()
    assert "first answer" not in resumed.err
    for part in ("model", "training"):
        file = f"checkpoints/best/{part}.safetensors"
        assert (run / file).read_bytes() == (whole / file).read_bytes()
    assert (run / "metrics.json").read_bytes() == (whole / "metrics.json").read_bytes()
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["best", "last"]


def test_the_plan_of_a_run_does_not_change(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Edited in config.toml it is refused, by its key."""
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_at("mid-epoch", patch)
        command("train", folder / "classwise.toml", "--run", run)
    text = (run / "config.toml").read_text()
    assert 'plan = "probe_then_finetune"' in text
    (run / "config.toml").write_text(text.replace('plan = "probe_then_finetune"', 'plan = "finetune"'))
    result = command("resume", run)
    assert result.code == 1
    assert "training.plan was 'probe_then_finetune' and is 'finetune'" in result.err
