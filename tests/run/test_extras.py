"""What a run does beside training can neither end it nor change a bit of it; and what it says that it is doing."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from classwise.run import beginning, explained_rows, extras, heartbeat, live_report, session, tracked
from classwise.run.heartbeat import read_progress
from classwise.run.status import progress_now
from classwise.training.state import Progress
from tests.helpers.same_end import assert_same_end
from tests.helpers.scenes import command, plain_table, write_config

ALL = ("--report.live", "true", "--report.trackers", '["csv"]')


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config of three epochs, and a run of it in `plain`."""
    folder = tmp_path_factory.mktemp("extras")
    plain_table(folder, 16)
    write_config(folder, training__epochs=3)
    command("train", folder / "classwise.toml", "--run", folder / "plain").ok()
    return folder


def failing(*arguments: Any, **options: Any) -> Any:
    raise RuntimeError("a bug of an extra")


def test_extras_that_fail_end_no_run_and_change_no_bit(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them at once, each with one warning but for the sign of life, whose absence readers see."""
    monkeypatch.setattr(extras, "augmented_images", failing)
    monkeypatch.setattr(extras, "progress_now", failing)
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0)
    monkeypatch.setattr(live_report, "write_report", failing)
    monkeypatch.setattr(explained_rows, "explained_rows", failing)
    monkeypatch.setattr(tracked, "Trackers", failing)
    run = tmp_path / "run"
    said = command("train", folder / "classwise.toml", "--run", run, *ALL).ok().err
    assert_same_end(folder / "plain", run)
    assert said.count("a bug of an extra") == said.count("warning: ") == 4
    for name in (
        "report.live",
        "report.trackers",
        "the report has no augmented",
        "the report has no heat maps",
    ):
        assert f"warning: {name}" in said
    assert (run / "report.html").exists()


def test_a_report_that_fails_does_not_hide_a_stop(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*arguments: Any) -> str:
        raise KeyboardInterrupt

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(session, "write_report", failing)
        patch.setattr(session, "epoch_line", stopped)
        result = command("train", folder / "classwise.toml", "--run", run)
    assert result.code == 75
    assert "warning: the report could not be written: RuntimeError: a bug of an extra" in result.err
    assert json.loads((run / "status.json").read_text())["state"] == "interrupted"


def test_a_run_whose_last_report_fails_has_failed_and_is_resumed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(session, "write_report", failing)
        with pytest.raises(RuntimeError, match="a bug of an extra"):
            command("train", folder / "classwise.toml", "--run", run)
    assert json.loads((run / "status.json").read_text())["state"] == "failed"
    command("resume", run).ok()
    assert_same_end(folder / "plain", run)


def test_heat_maps_of_an_earlier_end_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a run that was given more epochs: they were of another model."""
    (tmp_path / "explanations.json").write_text("{}")
    monkeypatch.setattr(explained_rows, "explained_rows", lambda *arguments: None)
    nothing: Any = None
    explained_rows.write_heat_maps(
        session.RunFolder(tmp_path), nothing, nothing, nothing, outputs={}, console=nothing
    )
    assert not (tmp_path / "explanations.json").exists()


@pytest.mark.parametrize("plan", ["finetune", "probe_then_finetune"])
def test_the_scoring_of_baselines_gives_signs_of_life(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plan: str
) -> None:
    run, seen = tmp_path / "run", []
    run_baselines = beginning.run_baselines

    def watched(*arguments: Any, should_stop: Callable[[], bool], **options: Any) -> Any:
        def asked() -> bool:
            answer = should_stop()
            seen.append(read_progress(run).get("doing"))
            return answer

        return run_baselines(*arguments, should_stop=asked, **options)

    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0)
    monkeypatch.setattr(beginning, "run_baselines", watched)
    monkeypatch.setattr(beginning, "recall_baselines", lambda *arguments: None)
    command("train", folder / "classwise.toml", "--run", run, "--training.plan", plan).ok()
    assert set(seen) == {"scoring the baselines"}
    assert len(seen) > 1
    assert not (run / "progress.json").exists()


def test_baselines_change_no_bit_of_the_run(folder: Path, tmp_path: Path) -> None:
    """They are scored between two epochs: with and without them the history and the predictions are the same."""
    kept = []
    for baselines in ("true", "false"):
        run = tmp_path / baselines
        options = ("--report.baselines", baselines, "--data.cache", "off")
        command("train", folder / "classwise.toml", "--run", run, *options).ok()
        rows = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
        timed = ("seconds", "images_per_second")
        losses = [{key: row[key] for key in row if key not in timed} for row in rows]
        kept.append((losses, (run / "predictions.csv").read_bytes()))
        assert (json.loads((run / "status.json").read_text())["baselines"] is not None) == (
            baselines == "true"
        )
    assert kept[0] == kept[1]


@pytest.mark.parametrize("plan", ["finetune", "probe_then_finetune"])
def test_a_signal_while_baselines_are_scored_leaves_a_run_to_resume(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plan: str
) -> None:
    """Those that follow the first epoch or the first answer; they are scored after the resume, also if the first epoch
    was the last."""
    run = tmp_path / "run"
    run_baselines = beginning.run_baselines

    def stopped(*arguments: Any, should_stop: Callable[[], bool], **options: Any) -> Any:
        return run_baselines(*arguments, should_stop=lambda: True, **options)

    monkeypatch.setattr(beginning, "recall_baselines", lambda *arguments: None)
    with monkeypatch.context() as patch:
        patch.setattr(beginning, "run_baselines", stopped)
        options = ("--training.plan", plan)
        result = command("train", folder / "classwise.toml", "--run", run, *options)
    assert result.code == 75
    assert "stopped while the baselines were scored; go on with: classwise resume" in result.err
    command("resume", run).ok()
    assert json.loads((run / "status.json").read_text())["baselines"]["linear_probe"] is not None


def test_a_run_that_was_killed_before_its_first_checkpoint_leaves_a_folder_to_train_into(
    folder: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in (".lock", "progress.json", ".progress.json"):
        (run / name).write_text("{}")
    command("train", folder / "classwise.toml", "--run", run, "--training.epochs", 1).ok()
    assert not (run / "progress.json").exists()


@pytest.mark.parametrize(
    ("progress", "epochs", "doing"),
    [
        (Progress(), 3, "preparing"),
        (Progress(), 0, "preparing"),
        (Progress(first_answer={}), 3, "preparing"),
        (Progress(first_answer={}), 0, "computing the results"),
        (Progress(update=1, update_in_epoch=1, samples=4), 3, "training"),
        (Progress(update=4, update_in_epoch=4, samples=16), 3, "validating"),
        (Progress(epoch=1, update=4), 3, "training"),
        (Progress(epoch=2, update=8, epochs_without_improvement=1), 3, "computing the results"),
        (Progress(epoch=3, update=12), 3, "computing the results"),
    ],
)
def test_progress_says_what_the_run_does(progress: Progress, epochs: int, doing: str) -> None:
    """Also of a run that fits its heads only, and of one that has stopped early."""
    optimizer = SimpleNamespace(param_groups=[{"lr": 0.1}])
    parts: Any = SimpleNamespace(
        state=SimpleNamespace(progress=progress, optimizer=optimizer),
        settings=SimpleNamespace(epochs=epochs, patience=1, first_epoch=1),
        data=SimpleNamespace(updates_per_epoch=4),
    )
    assert progress_now(parts)["doing"] == doing
