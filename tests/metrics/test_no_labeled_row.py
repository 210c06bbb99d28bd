"""A target without a labeled row, from the metrics to the page and the table of a comparison."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from classwise.compare.result import _scalars
from classwise.metrics.collection import MetricCollection
from classwise.metrics.scores import HIGHER_IS_BETTER, SCORES, TOP
from classwise.metrics.text import metrics_text
from classwise.model.heads import (
    ClassHead,
    Head,
    MultilabelHead,
    OrdinalHead,
    RankingHead,
    RegressionHead,
)
from classwise.report.page import write_report

NAN = float("nan")
HEADS: dict[str, Head] = {
    "sort": ClassHead(2),
    "shape": ClassHead(4),
    "wear": OrdinalHead(3),
    "tags": MultilabelHead(2),
    "years": RegressionHead(0.0, 1.0),
    "taste": RankingHead(),
}
LABELS = {"sort": ["x", "y"], "shape": list("abcd"), "wear": ["low", "mid", "high"], "tags": ["p", "q"]}
UNKNOWN = [name for name in HEADS if name != "sort"]


@pytest.fixture(scope="module")
def metrics() -> dict[str, Any]:
    """Three rows that are labeled for `sort` only; as in metrics.json, with intervals."""
    collection = MetricCollection(HEADS, LABELS, keep_rows=True)
    outputs = {name: torch.zeros(3, head.outputs) for name, head in HEADS.items()}
    targets = {
        "sort": torch.tensor([0, 1, 0]),
        "shape": torch.full((3,), -1),
        "wear": torch.full((3,), -1),
        "tags": torch.full((3, 2), NAN),
        "years": torch.full((3,), NAN, dtype=torch.float64),
        "taste": torch.tensor([[-1, 0], [-1, 0], [-1, 1]]),
    }
    collection.update(outputs, targets)
    results = collection.compute(["a", "b", "c"], resamples=20)
    accuracy = results["targets"]["sort"]["accuracy"]
    text = json.dumps(
        {"metric": "sort.accuracy", "value": accuracy, "samples": 3, **results}, allow_nan=False
    )
    return json.loads(text)


def test_every_score_of_every_type_is_null(metrics: dict[str, Any]) -> None:
    """No selectable score has a number, an interval or a reason for none; the labeled target has all of its scores."""
    for name in UNKNOWN:
        scores = metrics["targets"][name]
        actual = {key: value for key, value in scores.items() if key in HIGHER_IS_BETTER}
        classes = len(LABELS.get(name, ()))
        expected = [key for key in SCORES[HEADS[name].type] if TOP.get(key, 0) < max(classes, 1)]
        assert actual == dict.fromkeys(expected), name
        assert scores["samples"] == 0, name
        assert not {"intervals", "no_interval"} & set(scores), name
    known = metrics["targets"]["sort"]
    assert known["accuracy"] > 0
    assert known["no_interval"]["accuracy"].startswith("3 rows;")


def test_the_terminal_names_the_unlabeled_targets(metrics: dict[str, Any]) -> None:
    """One line per target instead of scores."""
    lines = metrics_text(metrics).splitlines()
    assert [f"{name}: no row with a known value" in lines for name in UNKNOWN] == [True] * len(UNKNOWN)


def test_the_page_shows_no_score(metrics: dict[str, Any], tmp_path: Path) -> None:
    """No overview of a type without a score and no row in the other one, no error of 0.000 in the targets' own parts;
    a selected score that is null is no text either."""
    types = {name: HEADS[name].type for name in HEADS}
    tables = [f'[targets.{name}]\ncolumn = "{name}"\ntype = "{type_}"\n' for name, type_ in types.items()]
    (tmp_path / "config.toml").write_text("\n".join(tables), encoding="utf-8")
    (tmp_path / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    source = write_report(tmp_path).read_text(encoding="utf-8")
    assert re.findall(r'aria-label="Overview: ([^"]*)"', source) == ["Classification"]
    overview = source.split('aria-label="Overview: Classification"', 1)[1].split("</table>", 1)[0]
    rows = re.findall(r"<tr.*?</tr>", overview.split("<tbody>", 1)[1], re.DOTALL)
    assert len(rows) == 1
    assert "sort" in rows[0]
    assert not {"MAE", "RMSE", "R²", "NDCG", "mAP"} & set(re.findall(r"<dt>([^<]*?)\s*<", source))

    without = metrics | {"metric": "years.mae", "value": None}
    (tmp_path / "metrics.json").write_text(json.dumps(without), encoding="utf-8")
    source = write_report(tmp_path).read_text(encoding="utf-8")
    assert "None" not in source
    assert "nan" not in re.sub(r"<[^>]*>", " ", source.split("<body", 1)[1]).lower().split()


def test_a_comparison_leaves_null_scores_out(metrics: dict[str, Any]) -> None:
    """The scores of a compared run contain neither 0 nor null."""
    scores = _scalars(metrics)
    assert scores["sort.accuracy"] == metrics["value"]
    assert not [name for name in scores if name.partition(".")[2] in HIGHER_IS_BETTER and name[:5] != "sort."]
    assert scores["years.samples"] == 0
