"""Training on all rows (`data.valid = 0`): no validation, and the model of the last epoch is the model."""

import json
from pathlib import Path
from typing import Any

import pytest

from classwise.run.checkpoint import read_checkpoint
from tests.helpers.pretrained import probed_config
from tests.helpers.refusals import refused, says
from tests.helpers.same_end import timeless_history
from tests.helpers.scenes import (
    MANY,
    PEOPLE,
    PLAIN,
    command,
    many_table,
    people_table,
    plain_table,
    write_config,
)
from tests.helpers.tables import read_csv


def read_json(file: Path) -> Any:
    return json.loads(file.read_text())


def model_bytes(run: Path, name: str) -> bytes:
    return (run / "checkpoints" / name / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 images of two classes, and a run of two epochs on all of them."""
    folder = tmp_path_factory.mktemp("all-rows")
    plain_table(folder)
    result = command("train", write_config(folder, data__valid=0), "--run", folder / "run").ok()
    (folder / "said.txt").write_text(result.err)
    return folder


def test_all_rows_train_and_the_last_epoch_is_kept(folder: Path) -> None:
    """Every row is in training, `best` is `last`, and both the start and the end say so."""
    run = folder / "run"
    assert {row["split"] for row in read_csv(run / "split.csv")} == {"train"}
    assert len(read_csv(run / "split.csv")) == 16
    assert model_bytes(run, "best") == model_bytes(run, "last")
    assert read_checkpoint(run / "checkpoints/best").epoch == 2
    says(
        (folder / "said.txt").read_text(),
        "16 training rows, which are all rows (data.valid = 0)",
        "no epoch can be selected, so the model of the last one is kept",
        "finished: the model of the last epoch, 2, is kept; there were no validation rows",
    )


def test_what_the_files_say(folder: Path) -> None:
    """No score is made up: a value of null with the reason, no predictions, and a page that opens."""
    run = folder / "run"
    metrics, status = read_json(run / "metrics.json"), read_json(run / "status.json")
    assert (metrics["value"], metrics["epoch"], metrics["samples"]) == (None, 2, 0)
    assert "there are no validation rows" in metrics["selection"]["reason"]
    assert status["best"] == {"metric": "macro_f1", "value": None, "epoch": 2}
    assert status["baselines"] is None
    assert not (run / "predictions.csv").exists()
    assert all(row["valid"] == {} and row["train_loss"] > 0 for row in timeless_history(run))
    command("report", run).ok()
    page = (run / "report.html").read_text()
    assert "trained on all rows (data.valid = 0), which leaves none to score it on" in page
    assert "No score yet" not in page


def test_the_model_is_used_as_any(folder: Path) -> None:
    """It predicts and is evaluated on a table; without one there is nothing to evaluate, which is said."""
    run = folder / "run"
    command("predict", run, folder / "samples.csv", "--out", folder / "p.csv").ok()
    assert len(read_csv(folder / "p.csv")) == 16
    says(command("evaluate", run, folder / "samples.csv").ok().out, "macro_f1", "on 16 rows")
    says(refused(folder, "evaluate", run), "was trained on all rows (data.valid = 0)", "name a labeled table")


def test_a_test_split_stays_apart(tmp_path: Path) -> None:
    """`data.test` is neither trained on nor lost: it is the headline."""
    plain_table(tmp_path, 24)
    config = write_config(tmp_path, data__valid="none", data__test=0.25)
    result = command("train", config, "--run", tmp_path / "run").ok()
    says(
        result.err,
        "18 training and 6 test rows, none for validation (data.valid = 0)",
        "the test, which selected",
    )
    metrics = read_json(tmp_path / "run/metrics.json")
    assert metrics["test"]["samples"] == 6
    assert len(read_csv(tmp_path / "run/predictions-test.csv")) == 6
    evaluated = command("evaluate", tmp_path / "run").ok()
    assert evaluated.out.startswith("test: macro_f1")
    assert "validation" not in evaluated.out


def test_a_plan_fits_and_fine_tunes_and_keeps_the_last(tmp_path: Path) -> None:
    """The first answer is fitted with a cross-validated penalty, is what there is to use meanwhile, and gives way to
    the fine-tuned model at the end; a probe ends with it."""
    plain_table(tmp_path, 24)
    config = probed_config(tmp_path, data__valid=0.0, data__augment="none")
    result = command("train", config, "--run", tmp_path / "tuned").ok()
    says(result.err, "cross-validated on 24 training rows", "the model of the last epoch, 2, is kept")
    run = tmp_path / "tuned"
    assert model_bytes(run, "best") == model_bytes(run, "last") == model_bytes(run, "finetuned")
    assert model_bytes(run, "best") != model_bytes(run, "first")
    assert "plan" not in read_json(run / "metrics.json")
    config = probed_config(tmp_path, data__valid=0.0, training__plan="probe")
    result = command("train", config, "--run", tmp_path / "probe").ok()
    says(result.err, "the fitted heads are kept")
    assert model_bytes(tmp_path / "probe", "best") == model_bytes(tmp_path / "probe", "first")


@pytest.mark.parametrize(
    ("values", "table"), [(PEOPLE, people_table), (MANY, many_table)], ids=["joint", "many"]
)
def test_every_kind_of_target(values: dict[str, Any], table: Any, tmp_path: Path) -> None:
    """A joint class and groups; every type of target with frozen epochs, an average and learned weights."""
    table(tmp_path)
    command("train", write_config(tmp_path, values, data__valid=0), "--run", tmp_path / "run").ok()
    rows = len(read_csv(tmp_path / "samples.csv"))
    assert (
        len(read_csv(tmp_path / "run/split.csv"))
        == read_json(tmp_path / "run/status.json")["data"]["train"]
        == rows
    )
    command("predict", tmp_path / "run", tmp_path / "samples.csv", "--out", tmp_path / "p.csv").ok()
    assert len(read_csv(tmp_path / "p.csv")) == rows


def test_it_is_resumed_and_extended(tmp_path: Path) -> None:
    """To the same weights as a run that was planned longer."""
    plain_table(tmp_path)
    options = {"data__valid": 0, "schedule": {"name": "constant"}}
    command("train", write_config(tmp_path, **options), "--run", tmp_path / "short").ok()
    command("train", write_config(tmp_path, **options, training__epochs=4), "--run", tmp_path / "whole").ok()
    command("resume", tmp_path / "short", "--epochs", 4).ok()
    for name in ("best", "last"):
        assert model_bytes(tmp_path / "short", name) == model_bytes(tmp_path / "whole", name)
    assert timeless_history(tmp_path / "short") == timeless_history(tmp_path / "whole")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"selection": {"patience": 1}}, "selection.patience: found 1, but data.valid is 0"),
        ({"schedule": {"name": "plateau"}}, "schedule.name: found 'plateau', but data.valid is 0"),
    ],
)
def test_what_asks_the_validation_rows_is_refused(
    changes: dict[str, Any], message: str, folder: Path
) -> None:
    """Nothing is read and then ignored."""
    config = write_config(folder, PLAIN, data__valid=0, **changes)
    says(refused(folder, "train", config, "--run", folder / "never", "--quiet"), message)


def test_a_comparison_needs_rows(folder: Path) -> None:
    """It would have nothing to score."""
    config = write_config(folder, data__valid=0)
    says(
        refused(folder, "compare", config, "--out", folder / "c", "--seeds", 1),
        "data.valid: found 0 in variant",
    )
