"""Cut points of levels and thresholds of labels that are adopted, through the commands, beside answers by hand. The
outputs of the folds for their own rows are replaced by ones that are right up to a shift."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.metrics import f1_score

import classwise
from tests.end_to_end.test_decisions import decided_again, entry
from tests.helpers.scenes import MANY, command, many_table, write_config, write_csv

FOLDS = 2
TAGS = ("x", "y", "z")
LEVELS = ("0", "1", "2", "3")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images of many targets, and folds `F` whose models say levels too high and tags too seldom."""
    folder = tmp_path_factory.mktemp("types")
    many_table(folder, 96)
    values = {**MANY, "data": {**MANY["data"], "unlabeled": "skip"}}
    values["training"] = {**MANY["training"], "epochs": 2}
    values["decision"] = {"offsets": "none"}
    command("folds", write_config(folder, values), "--folds", FOLDS, "--run", folder / "F").ok()
    table = pl.read_csv(folder / "samples.csv", infer_schema=False)
    levels, tags = (dict(table.select("path", name).rows()) for name in ("level", "tags"))
    for fold in range(FOLDS):
        split = pl.read_csv(folder / f"F/fold-{fold}/split.csv").filter(pl.col("split") == "valid")
        rng = np.random.default_rng(fold)
        level_N = np.array([int(levels[id] or 0) for id in split["id"]])
        above_NJ = level_N[:, None] > np.arange(3)
        has_NL = np.array([[tag in (tags[id] or "").split("|") for tag in TAGS] for id in split["id"]])
        path = folder / f"F/fold-{fold}/outputs.safetensors"
        kept = load_file(path)
        kept["valid/level"] = shifted(above_NJ, 2.0, rng)
        kept["valid/tags"] = shifted(has_NL, -2.0, rng)
        save_file(kept, path)
    decided_again(folder / "F", offsets="tuned")
    return folder


def shifted(is_true: np.ndarray, shift: float, rng: np.random.Generator) -> torch.Tensor:
    logits = 1.5 * (2 * is_true - 1) + shift + 0.3 * rng.normal(size=is_true.shape)
    return torch.from_numpy(logits.astype(np.float32))


@pytest.fixture(scope="module")
def predicted(planted: Path) -> pl.DataFrame:
    return classwise.Folds.open(planted / "F").predict(planted / "samples.csv", images=planted)


def levels_by_hand(table: pl.DataFrame, cuts: Any) -> list[str]:
    """The number of k with P(y > k) above the cut of k."""
    p_NK = table.select(f"level_p_{level}" for level in LEVELS).to_numpy().astype(np.float64)
    above_NJ = np.stack([p_NK[:, k + 1 :].sum(axis=1) for k in range(3)], axis=1)
    return [LEVELS[k] for k in (above_NJ > np.array(cuts)).sum(axis=1)]


def tags_by_hand(table: pl.DataFrame, cuts: Any) -> np.ndarray:
    """Whether (N, 3) the probability of each is at its threshold or above."""
    found: np.ndarray = table.select(f"tags_p_{tag}" for tag in TAGS).to_numpy() >= np.array(cuts)
    return found


def text(has_L: np.ndarray) -> str:
    return "|".join(tag for tag, has in zip(TAGS, has_L, strict=True) if has) or "|"


def test_the_planted_shifts_are_found(planted: Path) -> None:
    """Levels that are said too high have a first cut above 0.5, tags that are said too seldom thresholds below."""
    level, tags = (entry(planted / "F", name)["rule"] for name in ("level", "tags"))
    assert (level["name"], tags["name"]) == ("tuned", "tuned")
    assert level["thresholds"][0] > 0.6
    assert max(tags["thresholds"]) < 0.4


def test_predict_follows_cut_points(planted: Path, predicted: pl.DataFrame) -> None:
    cuts = entry(planted / "F", "level")["rule"]["thresholds"]
    assert predicted["level"].to_list() == levels_by_hand(predicted, cuts)
    assert predicted["level"].to_list() != levels_by_hand(predicted, [0.5] * 3)


def test_predict_follows_thresholds(planted: Path, predicted: pl.DataFrame) -> None:
    cuts = entry(planted / "F", "tags")["rule"]["thresholds"]
    assert predicted["tags"].to_list() == [text(row) for row in tags_by_hand(predicted, cuts)]
    assert predicted["tags"].to_list() != [text(row) for row in tags_by_hand(predicted, [0.5] * 3)]


def test_submit_follows_both(planted: Path, predicted: pl.DataFrame, tmp_path: Path) -> None:
    """A cell of all tags, and a column of 0 and 1 for each."""
    ids = [name.removeprefix("images/") for name in predicted["id"]]
    out = tmp_path / "s.csv"
    options = ("--images", planted / "images", "--out", out, "--force", "--answer", "label")
    whole = write_csv(tmp_path / "whole.csv", ("id", "level", "tags"), [[id, "0", "x"] for id in ids])
    command("submit", planted / "F", whole, *options).ok()
    table = pl.read_csv(out, infer_schema=False)
    assert table["level"].to_list() == predicted["level"].to_list()
    assert table["tags"].to_list() == predicted["tags"].to_list()

    names = [f"tags_{tag}" for tag in TAGS]
    single = write_csv(tmp_path / "single.csv", ("id", *names), [[id, "0", "0", "0"] for id in ids])
    command("submit", planted / "F", single, *options).ok()
    cuts = entry(planted / "F", "tags")["rule"]["thresholds"]
    assert (pl.read_csv(out).select(names).to_numpy() == tags_by_hand(predicted, cuts)).all()


def test_evaluate_scores_both(planted: Path, predicted: pl.DataFrame) -> None:
    """As scikit-learn has it of the answers of predict."""
    args = ("evaluate", planted / "F", planted / "samples.csv", "--images", planted, "--json")
    metrics = json.loads(command(*args).ok().out)["targets"]
    rows = predicted.drop_nulls("level_true")
    expected = f1_score(rows["level_true"], rows["level"], labels=LEVELS, average="macro", zero_division=0)
    assert metrics["level"]["macro_f1"] == pytest.approx(expected)
    rows = predicted.drop_nulls("tags_true")
    true, said = (
        [[tag in cell.split("|") for tag in TAGS] for cell in rows[name]] for name in ("tags_true", "tags")
    )
    assert metrics["tags"]["macro_f1"] == pytest.approx(
        f1_score(true, said, average="macro", zero_division=0)
    )
