"""The configs in examples/ run as they stand, on small data."""

import json
from pathlib import Path

import pytest

from classwise.cli import run_command
from classwise.data.table import read_table
from classwise.demo.competition import write_competition

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eighteen drawn people in the competition's tree, with the table that `init` makes of it."""
    folder = tmp_path_factory.mktemp("competition")
    write_competition(folder, people=18, processes=1)
    assert run_command(["init", str(folder), "--out", str(folder)]) == 0
    return folder


def test_the_notes_plan_goes_from_config_to_submission(tree: Path, tmp_path: Path) -> None:
    """Batch size 32, share 0.2 by person, focal plus label smoothing, AdamP, cosine, accumulation, best by joint
    macro F1, early stopping: one config, and its submission has every id of the template in order."""
    run, out = tmp_path / "run", tmp_path / "submission.csv"
    options = {
        "data.source": tree / "samples.csv",
        "data.images": tree / "train" / "images",
        "training.epochs": 2,
        "training.precision": "fp32",
    }
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    assert run_command(["train", str(EXAMPLES / "notes-plan.toml"), "--run", str(run), *words]) == 0
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["metric"] == "joint.macro_f1"
    assert len(metrics["joint"]["labels"]) == 18
    template, images = tree / "eval" / "info.csv", tree / "eval" / "images"
    assert run_command(["submit", str(run), str(template), "--images", str(images), "--out", str(out)]) == 0
    given, wanted = read_table(out), read_table(template)
    assert given.columns == wanted.columns == ["ImageID", "ans"]
    assert given["ImageID"].to_list() == wanted["ImageID"].to_list()
    assert set(given["ans"].to_list()) <= {str(k) for k in range(18)}


def test_folds_go_from_config_to_a_submission(tree: Path, tmp_path: Path) -> None:
    """Folds, decisions and mirrored views from one config; the submission has every id of the template in order."""
    folds, out = tmp_path / "folds", tmp_path / "submission.csv"
    options = {
        "data.source": tree / "samples.csv",
        "data.images": tree / "train" / "images",
        "folds.count": 2,
        "training.epochs": 2,
        "training.precision": "fp32",
        "model.image_size": "[32, 24]",
        "report.resamples": 50,
    }
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    assert run_command(["folds", str(EXAMPLES / "folds.toml"), "--run", str(folds), *words]) == 0
    metrics = json.loads((folds / "metrics.json").read_text())
    assert (metrics["metric"], metrics["inference"]["tta"]) == ("joint.macro_f1", "flip")
    assert set(json.loads((folds / "decision.json").read_text())["targets"]) == {"mask", "gender", "age"}
    template, images = tree / "eval" / "info.csv", tree / "eval" / "images"
    assert run_command(["submit", str(folds), str(template), "--images", str(images), "--out", str(out)]) == 0
    assert read_table(out)["ImageID"].to_list() == read_table(template)["ImageID"].to_list()


def test_the_notes_plan_says_what_the_notes_say() -> None:
    """Each choice of the notes' plan stands in the file."""
    from classwise.config.load import load_config

    config = load_config(EXAMPLES / "notes-plan.toml")
    assert (config.training.batch_size, config.data.valid, config.data.group) == (32, 0.2, "person")
    assert config.training.accumulate > 1
    assert config.optimizer.name == "adamp"
    assert config.schedule.name == "cosine"
    assert config.selection.metric == "macro_f1"
    assert config.selection.patience
    assert config.loss.name == "sum"
    assert [(term.name, getattr(term, "label_smoothing", 0)) for term in config.loss.terms] == [
        ("focal", 0),
        ("cross_entropy", 0.1),
    ]
