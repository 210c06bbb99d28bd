"""What the validation rows must hold so that a metric can be computed on them."""

from pathlib import Path
from typing import Any

import pytest

from classwise.run.api import Run
from tests.helpers.refusals import says
from tests.helpers.scenes import command, draw, write_config, write_csv


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Training rows of a, b and c, and validation rows of a and, in another table, of a and b."""
    labels = {"train": "abcabcabc", "one": "aaa", "two": "abab"}
    for name, found in labels.items():
        rows = [[f"{name}/{n}.png", label] for n, label in enumerate(found)]
        for number, (path, label) in enumerate(rows):
            draw(tmp_path / path, "abc".index(label), len(name) * 100 + ord(name[0]) + number)
        write_csv(tmp_path / f"{name}.csv", ("path", "label"), rows)
    return tmp_path


def train(folder: Path, metric: str, table: str = "two.csv", **changes: Any) -> Any:
    quick = {"training__epochs": 1, "report__resamples": 20, "report__baselines": False, **changes}
    config = write_config(
        folder, data__source="train.csv", data__valid=table, selection={"metric": metric}, **quick
    )
    return command("train", config, "--run", folder / "run", "--quiet")


@pytest.mark.parametrize(
    ("metric", "table", "message"),
    [
        ("f1[c]", "two.csv", "f1[c] cannot be computed: 'label' has no validation row of 'c'"),
        ("0.5*macro_f1 + 0.5*recall[c]", "two.csv", "recall[c] cannot be computed"),
        ("roc_auc", "one.csv", "roc_auc cannot be computed: 'label' has no validation row of a second class"),
        ("ap[a]", "one.csv", "'label' has no validation row of a second class"),
        ("f1[d]", "two.csv", "label has no label 'd'; allowed: a, b, c"),
    ],
)
def test_what_no_row_can_measure_is_refused(metric: str, table: str, message: str, folder: Path) -> None:
    """Before training, by the name of the class."""
    result = train(folder, metric, table)
    assert result.code == 1
    says(result.err, "selection.metric: ", message)


@pytest.mark.parametrize(
    "metric",
    ["auc", "ap", "f1[b]", "label.recall[a]", "worst_f1", "0.7*macro_f1 + 0.3*worst_recall", "roc_auc[a]"],
)
def test_what_can_be_measured_selects(metric: str, folder: Path) -> None:
    """The run goes through to its report, and `evaluate` prints the same number."""
    result = train(folder, metric, training__epochs=2, report__baselines=True, report__resamples=20).ok()
    run = Run.open(result.path)
    assert run.status["best"]["value"] == run.metrics["value"]
    assert run.history[0]["valid"].keys() >= {run.metrics["metric"]}
    assert run.evaluate()["value"] == run.metrics["value"]
    says(command("evaluate", result.path).ok().out, run.metrics["metric"], f"{run.metrics['value']:.4f}")
    assert (result.path / "report.html").exists()
    assert run.status["baselines"]["metric"] == run.metrics["metric"]
