"""A run that is selected by the mean of its targets, from its first epoch to its report and a comparison."""

import re
from pathlib import Path
from typing import Any

import pytest

import classwise
from classwise.compare import compare
from classwise.compare.variants import grid
from classwise.metrics.mean import NO_INTERVAL, NO_OPTIMISM
from tests.helpers.refusals import refused, says
from tests.helpers.scenes import MANY, command, many_table, write_config, write_csv

TARGETS = ("label.macro_f1", "level.macro_f1", "tags.macro_f1", "size.r2")
CHANGES: dict[str, Any] = {"selection__metric": None, "selection__first_epoch": 1, "data__test": 0.25}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four targets of four types, some labels missing; the config names no metric."""
    folder = tmp_path_factory.mktemp("mean")
    many_table(folder, 60)
    changes = {**CHANGES, "training__epochs": 3, "training__freeze_epochs": 0}
    result = command("train", write_config(folder, MANY, **changes), "--run", folder / "run").ok()
    (folder / "err.txt").write_text(result.err)
    return folder


def mean(scores: dict[str, float]) -> float:
    return sum(max(0.0, scores[name]) for name in TARGETS) / len(TARGETS)


def test_the_mean_is_the_default_and_selects(folder: Path) -> None:
    """It is in the run's config, in each epoch, in the status and the metrics, with what it is made of."""
    run = classwise.Run.open(folder / "run")
    assert 'metric = "mean"' in (folder / "run/config.toml").read_text()
    values = [row["valid"]["mean"] for row in run.history]
    assert values == pytest.approx([mean(row["valid"]) for row in run.history])
    assert run.status["best"] == {
        "metric": "mean",
        "value": max(values),
        "epoch": values.index(max(values)) + 1,
    }
    metrics = run.metrics
    assert list(metrics)[:2] == ["metric", "value"]
    assert (metrics["metric"], list(metrics["parts"])) == ("mean", list(TARGETS))
    assert metrics["value"] == pytest.approx(mean(metrics["parts"]))
    assert metrics["value"] == pytest.approx(max(values), abs=1e-6)
    assert metrics["samples"] == run.status["data"]["valid"]
    for name, value in metrics["parts"].items():
        target, _, score = name.partition(".")
        assert metrics["targets"][target][score] == value
    assert metrics["test"]["value"] == pytest.approx(mean(metrics["test"]["parts"]))


def test_what_is_not_known_of_a_mean_is_said(folder: Path) -> None:
    """No interval and no optimism, each with its reason, in the file and wherever the score is shown."""
    metrics = classwise.Run.open(folder / "run").metrics
    assert metrics["no_interval"] == {"mean": NO_INTERVAL}
    assert metrics["selection"] == {
        "epochs": 3,
        "optimism": None,
        "corrected": None,
        "reason": NO_OPTIMISM,
    }
    page = (folder / "run/report.html").read_text(encoding="utf-8")
    assert f"no confidence interval: {NO_INTERVAL}" in page
    assert NO_OPTIMISM in page
    assert NO_OPTIMISM in (folder / "err.txt").read_text()


def test_baselines_are_of_every_target(folder: Path) -> None:
    """Both are means too, and named as what they are."""
    recorded = classwise.Run.open(folder / "run").status["baselines"]
    assert (recorded["metric"], recorded["kind"]) == ("mean", "mean")
    assert 0 < recorded["most_frequent"] < recorded["linear_probe"] < 1
    line = next(line for line in (folder / "err.txt").read_text().splitlines() if line.startswith("mean: "))
    assert re.fullmatch(
        r"mean: the constant predictions 0\.\d{4}, a linear probe of each target on pixels 0\.\d{4}", line
    )


def test_evaluate_and_report_show_the_parts(folder: Path) -> None:
    """The headline has the mean and each target's score, the page too, with a line for each in its chart."""
    metrics = classwise.Run.open(folder / "run").metrics
    headline, note = command("evaluate", folder / "run").ok().out.splitlines()[:2]
    assert note.startswith("  [—]: no 95% interval: the targets are scored on the same rows")
    assert headline.startswith(f"test: mean {metrics['test']['value']:.4f} [—] on")
    assert all(f"{name} {value:.4f}" in headline for name, value in metrics["test"]["parts"].items())
    again = classwise.Run.open(folder / "run").evaluate(folder / "samples.csv")
    assert again["value"] == pytest.approx(mean(again["parts"]))

    page = (folder / "run/report.html").read_text(encoding="utf-8")
    assert "<strong>mean of all targets</strong>" in page
    assert "macro F1 of label</bdi>" in page
    assert "R² of size</bdi>" in page
    chart = page.split("Validation mean of all targets", 1)[1].split("</figure>", 1)[0]
    assert all(f"{name}" in chart for name in ("label", "level", "tags", "size"))


def test_with_a_prior_class_targets_are_scored_at_it(tmp_path: Path) -> None:
    """Those of other types as they are; a table of shares would be for one target and is refused."""
    many_table(tmp_path, 60)
    changes = {**CHANGES, "training__epochs": 1, "report__resamples": 0, "loss": {"name": "cross_entropy"}}
    config = write_config(tmp_path, MANY, **changes, selection__prior="balanced")
    command("train", config, "--run", tmp_path / "run", "--quiet").ok()
    metrics = classwise.Run.open(tmp_path / "run").metrics
    assert metrics["metric"] == "mean_at_prior"
    assert list(metrics["parts"]) == ["label.macro_f1_at_prior", *TARGETS[1:]]
    assert metrics["value"] == pytest.approx(sum(max(0, part) for part in metrics["parts"].values()) / 4)
    assert metrics["selection"]["corrected"] == metrics["value"]  # the only epoch was not chosen
    assert "no_interval" not in metrics  # nobody asked for intervals

    config = write_config(tmp_path, MANY, **changes, selection__prior={"a": 0.5, "b": 0.3, "c": 0.2})
    says(refused(tmp_path, "train", config, "--run", tmp_path / "r"), "selection.prior", "mean", "'balanced'")


def test_a_comparison_by_the_mean_has_intervals(tmp_path: Path) -> None:
    """The predictions lead to the mean, also on resampled rows; without a ranking target there is no warning."""
    many_table(tmp_path, 60)
    changes = {**CHANGES, "training__epochs": 2, "training__freeze_epochs": 0, "report__baselines": False}
    config = write_config(tmp_path, MANY, **changes)
    found = compare(config, grid(["optimizer.lr=0.001,0.01"]), 1, tmp_path / "out", quiet=True)
    assert found.metric == "mean"
    assert not any("resample" in warning for warning in found.warnings)
    for row in found.summary:
        assert row.score is not None
        assert row.score.interval is not None
        low, high = row.score.interval
        assert 0 <= low < row.score.mean < high <= 1


def test_a_target_without_validation_labels_is_refused(tmp_path: Path) -> None:
    """Its part of the mean could not be computed in any epoch."""
    rows = many_table(tmp_path, 24)
    header = ("path", "label", "level")
    write_csv(tmp_path / "samples.csv", header, [(row[0], row[1] or "a", row[2]) for row in rows[:16]])
    write_csv(tmp_path / "valid.csv", header, [(row[0], row[1] or "a", "") for row in rows[16:]])
    changes = {**CHANGES, "data__test": None, "data__valid": "valid.csv", "loss": {"name": "cross_entropy"}}
    targets = {name: MANY["targets"][name] for name in ("label", "level")}
    config = write_config(tmp_path, MANY, **changes, targets=targets)
    says(
        refused(tmp_path, "train", config, "--run", tmp_path / "run"),
        "selection.metric: mean cannot be computed: no validation row has a label for level",
    )
