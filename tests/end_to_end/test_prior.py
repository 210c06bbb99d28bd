"""A run with selection.prior from start to end: the same predictions everywhere, and both kinds of scores."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from classwise.run.api import Run
from classwise.run.checkpoint import read_checkpoint
from classwise.signals import StopFlag
from tests.helpers.same_end import assert_same_end
from tests.helpers.scenes import PLAIN, command, draw, write_config, write_csv

LABELS = "abc"
COUNTS = (40, 16, 8)
SHARES = {"a": 0.1, "b": 0.2, "c": 0.7}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A long-tailed table, and a run for other class shares."""
    folder = tmp_path_factory.mktemp("prior")
    rows = [
        (f"images/{label}{seed:02}.png", label)
        for label, count in zip(LABELS, COUNTS, strict=True)
        for seed in range(count)
    ]
    for path, label in rows:
        draw(folder / path, LABELS.index(label), int(path[-6:-4]))
    write_csv(folder / "samples.csv", ("path", "label"), rows)
    selection = {"prior": SHARES}
    report = {"resamples": 30}
    write_config(folder, PLAIN, selection=selection, report=report, training__epochs=3)
    command("train", folder / "classwise.toml", "--run", folder / "run", "--quiet").ok()
    return folder


def test_metrics_have_both(folder: Path) -> None:
    """The plain scores of the contract, and those at the shares, which select and stand at the top."""
    metrics = Run.open(folder / "run").metrics
    target = metrics["targets"]["label"]
    at_prior = target["at_prior"]
    assert metrics["metric"] == "macro_f1_at_prior"
    assert metrics["value"] == at_prior["macro_f1"]
    assert at_prior["shares"] == pytest.approx(SHARES)
    assert at_prior["intervals"]
    assert set(at_prior["intervals"]) <= set(target["intervals"])

    # From the confusion matrix by hand: rows weighted by share / support.
    confusion = np.array(target["confusion"], dtype=float)
    weighted = confusion * (np.array([*SHARES.values()]) / confusion.sum(axis=1))[:, None]
    hits, true, predicted = np.diag(weighted), weighted.sum(axis=1), weighted.sum(axis=0)
    assert at_prior["macro_f1"] == pytest.approx((2 * hits / (true + predicted)).mean())

    values = [row["valid"]["macro_f1_at_prior"] for row in Run.open(folder / "run").history]
    assert max(values) == metrics["value"]


def test_every_command_predicts_for_the_shares(folder: Path) -> None:
    """The adjustment is in the checkpoint's head; evaluate, predict and the report follow it."""
    run = Run.open(folder / "run")
    head = read_checkpoint(run.path / "checkpoints" / "best").metadata["heads"]["label"]
    counts = [row["train"] for row in run.status["data"]["labels"]["label"]]
    expected = np.log([*SHARES.values()]) - np.log(counts)
    assert head["adjustment"] == pytest.approx(expected - expected.mean())

    assert run.evaluate()["value"] == run.metrics["value"]
    stored = pl.read_csv(run.path / "predictions.csv").sort("id")
    again = run.predict(folder / "samples.csv").filter(pl.col("id").is_in(stored["id"].to_list())).sort("id")
    assert again["label"].to_list() == stored["label"].to_list()
    for label in LABELS:
        assert again[f"label_p_{label}"].to_numpy() == pytest.approx(
            stored[f"label_p_{label}"].to_numpy(), abs=1e-5
        )
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "macro F1 at prior" in page
    assert "at the class shares of selection.prior" in page
    shown = command("evaluate", run.path).ok().out
    assert shown.startswith(f"macro_f1_at_prior {run.metrics['value']:.4f} [")
    assert "macro F1 at prior" in shown


def test_a_table_without_a_class_says_so(folder: Path) -> None:
    """`evaluate TABLE` weights the rows of that table, and names the classes that it lacks."""
    rows = [(f"images/{label}00.png", label) for label in "ab"]
    write_csv(folder / "two.csv", ("path", "label"), rows)
    found = Run.open(folder / "run").evaluate(folder / "two.csv", images=folder)
    assert found["targets"]["label"]["at_prior"]["unseen"] == ["c"]


def test_a_resumed_run_ends_in_the_same_bytes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped within an epoch and resumed, with the same heads and the same best epoch."""
    calls = itertools.count()
    with monkeypatch.context() as patched:
        patched.setattr(StopFlag, "is_set", lambda self: next(calls) > 9)
        assert command("train", folder / "classwise.toml", "--run", folder / "stopped", "--quiet").code == 75
    command("resume", folder / "stopped", "--quiet").ok()
    assert_same_end(folder / "run", folder / "stopped")


def test_the_onnx_file_has_the_adjustment(folder: Path) -> None:
    """In its metadata, as part of the head."""
    onnx = pytest.importorskip("onnx")
    command("export", folder / "run", "--out", folder / "model.onnx").ok()
    metadata: dict[str, Any] = {p.key: p.value for p in onnx.load(folder / "model.onnx").metadata_props}
    head = read_checkpoint(folder / "run" / "checkpoints" / "best").metadata["heads"]["label"]
    assert json.loads(metadata["heads"])["label"]["adjustment"] == head["adjustment"]


def test_classes_without_validation_rows_are_warned_of(folder: Path, tmp_path: Path) -> None:
    """Before anything is trained, and in status.json."""
    write_csv(tmp_path / "valid.csv", ("path", "label"), [("images/a00.png", "a"), ("images/b00.png", "b")])
    rows = [(f"images/{label}{seed:02}.png", label) for label in LABELS for seed in range(1, 8)]
    write_csv(tmp_path / "samples.csv", ("path", "label"), rows)
    write_config(
        tmp_path,
        PLAIN,
        data__valid="valid.csv",
        data__images=str(folder),
        selection={"prior": SHARES},
        training__epochs=1,
    )
    said = command("train", tmp_path / "classwise.toml", "--run", tmp_path / "run").ok().err
    line = "selection.prior: 1 classes of label, with 70.0% of the rows, have no validation row"
    assert line in said
    assert any(warning.startswith(line) for warning in Run.open(tmp_path / "run").status["data"]["warnings"])
