"""The examples of each type of target train as they stand, on small data, and say what their type is scored by."""

import json
import re
from pathlib import Path

import pytest

from classwise.config.load import load_config
from classwise.config.losses import LOSSES_BY_TYPE
from classwise.demo.shapes import write_shapes
from classwise.metrics.scores import SCORES, TOP
from tests.helpers.scenes import command

EXAMPLES = Path(__file__).parents[2] / "examples"
# Each example's targets by type; what `classwise evaluate` has to say of each type.
TYPES = {
    "class": {"colour": "class"},
    "ordinal": {"size": "ordinal"},
    "multilabel": {"tags": "multilabel"},
    "regression": {"area": "regression"},
    "ranking": {"match": "ranking"},
    "all-targets": {
        **{"colour": "class", "tags": "multilabel", "size": "ordinal", "area": "regression"},
        "match": "ranking",
    },
}
SAID = {
    "class": ("macro F1", "accuracy"),
    "ordinal": ("MAE in levels", "quadratic kappa"),
    "multilabel": ("macro F1", "mAP"),
    "regression": ("MAE", "MSE", "RMSE", "R2"),
    "ranking": ("MRR", "NDCG", "MAP"),
}


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copies of the examples in a folder beside the drawn shapes, as in a checkout after `classwise demo --shapes`."""
    folder = tmp_path_factory.mktemp("checkout")
    write_shapes(folder / "classwise-shapes", rows=80)
    (folder / "examples").mkdir()
    for name in TYPES:
        text = (EXAMPLES / f"{name}.toml").read_text(encoding="utf-8")
        (folder / "examples" / f"{name}.toml").write_text(text, encoding="utf-8")
    return folder / "examples"


def test_every_example_is_run() -> None:
    """There is one for each type of target, and none that no test runs (the others have their own)."""
    assert {path.stem for path in EXAMPLES.glob("*.toml")} == {*TYPES, "notes-plan", "folds", "by-hand"}
    assert set(LOSSES_BY_TYPE) <= set(TYPES)


@pytest.mark.parametrize("name", TYPES)
def test_an_example_trains_and_is_evaluated(name: str, examples: Path, tmp_path: Path) -> None:
    """Each target has its type's scores in metrics.json, and evaluate's text names the usual ones with a value."""
    config, run = examples / f"{name}.toml", tmp_path / "run"
    small = ("--training.epochs", 1, "--training.precision", "fp32", "--model.image_size", [16, 16])
    small = (*small, "--data.workers", 0, "--report.resamples", 20)
    command("train", config, "--run", run, "--quiet", *small).ok()
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["metric"] == load_config(config).selection.metric
    assert {target: scores["type"] for target, scores in metrics["targets"].items()} == TYPES[name]
    for scores in metrics["targets"].values():
        assert {*SCORES[scores["type"]]} - {*TOP} <= set(scores)
    text = command("evaluate", run).ok().out
    for type_ in TYPES[name].values():
        for score in SAID[type_]:
            assert re.search(rf"\b{score} -?\d", text), (score, text)
