"""More epochs for a run that was planned with fewer: the same bytes as one that was not, or a word on why not."""

import json
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest

from classwise.run import session
from tests.helpers.pretrained import probed_config
from tests.helpers.refusals import refused, says
from tests.helpers.same_end import assert_same_end
from tests.helpers.scenes import (
    MANY,
    PLAIN,
    Result,
    command,
    many_table,
    plain_table,
    untouched,
    write_config,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, and a run of two epochs in `short`."""
    folder = tmp_path_factory.mktemp("extension")
    plain_table(folder)
    train(folder, "short", schedule={"name": "constant"}).ok()
    return folder


def train(folder: Path, run: str, values: dict[str, Any] = PLAIN, **changes: Any) -> Result:
    changes = {"report__resamples": 20, "report__baselines": False, **changes}
    return command("train", write_config(folder, values, **changes), "--run", folder / run)


def history(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "schedule",
    [
        {"name": "step", "step_size": 2},
        {"name": "plateau", "patience": 0, "factor": 0.5},
        {"name": "cosine", "T_max": 3.0, "warmup_epochs": 1.0},
    ],
    ids=lambda schedule: schedule["name"],
)
def test_extended_is_as_planned(schedule: dict[str, Any], tmp_path: Path) -> None:
    """Where the rates up to here are those of the longer run, the bytes at the end are, too: weights, moments, scores,
    predictions and both checkpoints."""
    plain_table(tmp_path)
    train(tmp_path, "short", schedule=schedule, training__epochs=2).ok()
    train(tmp_path, "whole", schedule=schedule, training__epochs=5).ok()
    result = command("resume", tmp_path / "short", "--epochs", 5).ok()
    says(result.err, "extended from 2 to 5 epochs", "that of a run planned with 5 epochs, up to here too")
    assert_same_end(tmp_path / "whole", tmp_path / "short")
    configs = [
        tomllib.loads((tmp_path / run / "config.toml").read_text())["training"] for run in ("whole", "short")
    ]
    assert configs[0] == configs[1]


def test_many_targets_with_averages_and_accumulation(tmp_path: Path) -> None:
    """So are those of a run with every type of target, frozen epochs, an average and accumulation, in two steps."""
    many_table(tmp_path)
    options = {"schedule": {"name": "constant"}, "selection__first_epoch": 1}
    train(tmp_path, "short", MANY, training__epochs=2, **options).ok()
    train(tmp_path, "whole", MANY, training__epochs=4, **options).ok()
    command("resume", tmp_path / "short", "--epochs", 3).ok()
    command("resume", tmp_path / "short", "--epochs", 4).ok()
    assert_same_end(tmp_path / "whole", tmp_path / "short")


def test_a_cosine_goes_on_as_the_longer_one_and_says_so(tmp_path: Path) -> None:
    """Its rates up to here are others than those of the longer run, so the end is another; nobody is left to think
    otherwise."""
    plain_table(tmp_path)
    train(tmp_path, "short").ok()
    train(tmp_path, "whole", training__epochs=4).ok()
    result = command("resume", tmp_path / "short", "--epochs", 4).ok()
    says(
        result.err,
        "the schedule (cosine) is now that of 4 epochs",
        "would end in other weights",
        "--schedule restart",
    )
    rates = [[row["lr"] for row in history(tmp_path / run)] for run in ("whole", "short")]
    assert rates[0][2:] == rates[1][2:]
    assert rates[0][:2] != rates[1][:2]
    extended = json.loads((tmp_path / "short/status.json").read_text())["extended"]
    assert extended == [{"after": 2, "to": 4}]


def test_a_schedule_that_begins_again_is_a_key(tmp_path: Path) -> None:
    """`--schedule restart` is the run that its config.toml describes, to the byte."""
    plain_table(tmp_path)
    schedule = {"name": "cosine", "warmup_epochs": 1.0}
    train(tmp_path, "short", schedule=schedule).ok()
    train(tmp_path, "whole", schedule={**schedule, "restart_after": [2]}, training__epochs=5).ok()
    result = command("resume", tmp_path / "short", "--epochs", 5, "--schedule", "restart").ok()
    says(result.err, "begins again over epochs 3 to 5 (schedule.restart_after)")
    assert_same_end(tmp_path / "whole", tmp_path / "short")
    assert tomllib.loads((tmp_path / "short/config.toml").read_text())["schedule"]["restart_after"] == [2]


def test_two_stages_go_on_from_the_fine_tuned_model(tmp_path: Path) -> None:
    """The first answer stays, and is compared again at the new end."""
    plain_table(tmp_path, 24)
    options = {"schedule": {"name": "constant"}, "selection": {"first_epoch": 1}}
    for run, epochs in {"short": 1, "whole": 3}.items():
        config = probed_config(tmp_path, training__epochs=epochs, **options)
        command("train", config, "--run", tmp_path / run).ok()
    command("resume", tmp_path / "short", "--epochs", 3).ok()
    assert_same_end(tmp_path / "whole", tmp_path / "short")
    assert "kept" not in json.loads((tmp_path / "short/status.json").read_text())


def test_an_interrupted_extension_goes_on_by_itself(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a stop the plain command goes on to the new end: what says how long the run is was written first."""
    plain_table(tmp_path)
    options = {"schedule": {"name": "constant"}, "selection__first_epoch": 1}
    train(tmp_path, "short", **options).ok()
    train(tmp_path, "whole", training__epochs=4, **options).ok()
    plain = session.loop.train

    def stopped(**options: Any) -> str:
        state = options["state"]
        return plain(**{**options, "should_stop": lambda: state.progress.epoch == 3})

    with monkeypatch.context() as patch:
        patch.setattr(session.loop, "train", stopped)
        assert command("resume", tmp_path / "short", "--epochs", 4).code == 75
    assert json.loads((tmp_path / "short/status.json").read_text())["state"] == "interrupted"
    command("resume", tmp_path / "short").ok()
    assert_same_end(tmp_path / "whole", tmp_path / "short")


def test_early_stopping_counts_anew(tmp_path: Path) -> None:
    """A run that had stopped early trains on, and says that patience counts from there."""
    plain_table(tmp_path)
    train(tmp_path, "run", training__epochs=9, selection={"patience": 1}, optimizer={"lr": 1e-12}).ok()
    epochs = len(history(tmp_path / "run"))
    assert epochs < 9
    result = command("resume", tmp_path / "run", "--epochs", epochs + 1).ok()
    says(result.err, "had stopped early: patience counts from here")
    assert len(history(tmp_path / "run")) == epochs + 1


def test_what_cannot_be_extended(folder: Path, tmp_path: Path) -> None:
    """Fewer epochs than there are, nonsense, and a run that trains none; nothing is changed then."""
    run = folder / "short"
    says(
        refused(folder, "resume", run, "--epochs", 1), "--epochs: found 1, but the run is in epoch 2 already"
    )
    says(refused(folder, "resume", run, "--epochs", 0), "--epochs: found 0, must be 1 or more")
    says(refused(folder, "resume", run, "--schedule", "restart"), "without --epochs")
    says(refused(folder, "resume", run, "--epochs", 3, "--schedule", "again"), "allowed: planned, restart")
    with untouched(folder):
        says(command("resume", run, "--epochs", 2).ok().err, "finished already, after epoch 2; nothing to do")
    plain_table(tmp_path, 24)
    probe = command(
        "train", probed_config(tmp_path, training__plan="probe"), "--run", tmp_path / "probe"
    ).ok()
    message = refused(tmp_path, "resume", probe.path, "--epochs", 2)
    says(message, "training.plan = 'probe', which trains no epoch")


@pytest.mark.parametrize(
    ("old", "new", "hint"),
    [
        (r"epochs = 2", "epochs = 7", "classwise resume .* --epochs 7"),
        (r"batch_size = 8", "batch_size = 4", "training.batch_size was 8 and is 4"),
    ],
)
def test_an_edited_config_of_a_finished_run_is_not_passed_over(
    old: str, new: str, hint: str, folder: Path, tmp_path: Path
) -> None:
    """It is an error that names the key; for the epochs also the command that obeys."""
    shutil.copytree(folder / "short", tmp_path / "run")
    path = tmp_path / "run/config.toml"
    path.write_text(re.sub(rf"(?m)^{old}$", new, path.read_text()))
    message = refused(tmp_path, "resume", tmp_path / "run")
    assert re.search(hint, message), message
