"""`folds.last`: a model on all rows beside those of the folds, through the commands."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from classwise.config.load import load_config
from classwise.kfold import last
from classwise.run.unattended import Outcome
from tests.helpers.browsed import Page
from tests.helpers.children import child_environment
from tests.helpers.scenes import PLAIN, command, people_table, write_config

CONFIG: dict[str, Any] = {
    **PLAIN,
    "data": {**PLAIN["data"], "group": "사람", "test": 0.2},
    "targets": {"mask": {"column": "mask"}},
    "training": {**PLAIN["training"], "epochs": 4},
    "selection": {"first_epoch": 1},
    "report": {"resamples": 20},
    "folds": {"count": 2, "last": True},
}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the images, the config, and the folds in `F`."""
    folder = tmp_path_factory.mktemp("last")
    people_table(folder)
    command("folds", write_config(folder, CONFIG), "--run", folder / "F", "--quiet").ok()
    return folder


def split_of(run: Path) -> dict[str, set[str]]:
    split = pl.read_csv(run / "split.csv")
    return {name: set(split.filter(pl.col("split") == name)["id"]) for name in ("train", "valid", "test")}


def weights(run: Path) -> bytes:
    (file,) = (run / "checkpoints/best").rglob("model.safetensors")
    return file.read_bytes()


def test_it_is_trained_on_the_rows_of_all_folds(here: Path) -> None:
    """The test rows stay those of the folds."""
    last, fold = split_of(here / "F/last"), split_of(here / "F/fold-0")
    assert last["train"] == fold["train"] | fold["valid"]
    assert last["test"] == fold["test"]
    assert not last["valid"]
    assert fold["test"]


def test_it_takes_the_mean_number_of_epochs(here: Path) -> None:
    epochs = [entry["epoch"] for entry in json.loads((here / "F/metrics.json").read_text())["per_fold"]]
    assert load_config(here / "F/last/config.toml").training.epochs == int(np.mean(epochs) + 0.5)
    assert json.loads((here / "F/status.json").read_text())["last"] == "finished"


def test_it_is_a_run_like_any_other(here: Path, tmp_path: Path) -> None:
    """Trained by itself, it is the same; and it is no part of the ensemble."""
    command("train", here / "F/last/config.toml", "--run", tmp_path / "again", "--quiet").ok()
    images = (here / "samples.csv", "--images", here)
    tables = [
        pl.read_csv(command("predict", run, *images).ok().out.encode())
        for run in (here / "F/last", tmp_path / "again", here / "F/fold-0", here / "F/fold-1", here / "F")
    ]
    assert tables[0].equals(tables[1])
    mean = np.mean([table["mask_p_착용"].to_numpy() for table in tables[2:4]], axis=0)
    np.testing.assert_allclose(tables[4]["mask_p_착용"].to_numpy(), mean, rtol=1e-4)
    assert weights(here / "F/last") == weights(tmp_path / "again")


def test_folds_that_are_done_get_it_later(here: Path, tmp_path: Path) -> None:
    """By config.toml and resume; nothing else is trained again."""
    run = tmp_path / "F"
    command("folds", here / "classwise.toml", "--folds.last", "false", "--run", run, "--quiet").ok()
    assert not (run / "last").exists()
    before = weights(run / "fold-0")
    config = run / "config.toml"
    config.write_text(config.read_text().replace("last = false", "last = true"))
    said = command("resume", run).ok().err
    assert "training last: all rows" in said
    assert "training fold" not in said
    assert weights(run / "fold-0") == before
    assert weights(run / "last") == weights(here / "F/last")
    assert "finished already" in command("resume", run).ok().err


def test_killed_and_resumed_it_is_the_same(here: Path, tmp_path: Path) -> None:
    run = tmp_path / "F"
    arguments = ["folds", str(here / "classwise.toml"), "--run", str(run), "--quiet"]
    process = subprocess.Popen(
        [sys.executable, "-m", "classwise", *arguments], env=child_environment(), stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 300
    while not (run / "last/status.json").exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    command("resume", run, "--quiet").ok()
    assert weights(run / "last") == weights(here / "F/last")
    assert (run / "oof.parquet").read_bytes() == (here / "F/oof.parquet").read_bytes()


def test_if_it_fails_the_folds_have_their_report(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are done and scored, whatever keeps the last model from being trained."""
    run = tmp_path / "F"
    monkeypatch.setattr(last, "train_or_resume", lambda *_, **__: Outcome("failed", "the disk is full"))
    found = command("folds", here / "classwise.toml", "--run", run, "--quiet")
    assert found.code == 1
    assert "all folds are done, but last failed: the disk is full" in found.err
    page = Page(run / "report.html")
    scores = page.tables[page.table_names.index("Score of each fold")]
    assert len(scores[1:]) == 2


def test_a_schedule_that_needs_scores_is_refused_at_once(here: Path, tmp_path: Path) -> None:
    found = command("folds", here / "classwise.toml", "--schedule.name", "plateau", "--run", tmp_path / "F")
    assert found.code == 1
    assert "folds.last: found true" in found.err
    assert not (tmp_path / "F").exists()
