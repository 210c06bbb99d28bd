"""Reliability and precision-recall curves against scikit-learn and plain counting."""

import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve

from classwise.metrics.intervals import MIN_UNITS
from classwise.report.page import write_report
from classwise.report.probabilities import BINS, MOST_STEPS, recall_curve, reliability_bins, units
from tests.helpers.browsed import Page
from tests.helpers.fabricated import LABELS, fabricate_run
from tests.helpers.tables import read_csv


@pytest.mark.parametrize("digits", [1, 6])
def test_average_precision_is_scikit_learns(digits: int) -> None:
    """Also where many rows have the same probability, which are then taken together."""
    rng = np.random.default_rng(3)
    truth_N = rng.random(400) < 0.2
    p_N = np.clip(rng.normal(0.3 + 0.3 * truth_N, 0.2), 0, 1).round(digits)
    assert recall_curve(p_N, truth_N)[1] == pytest.approx(average_precision_score(truth_N, p_N), abs=1e-12)


def test_every_step_is_a_point_of_scikit_learns_curve() -> None:
    """Of a class with few rows all of them, from left to right; of one with many an even choice."""
    rng = np.random.default_rng(4)
    p_N = rng.random(300)
    for positives in (5, 200):
        truth_N = np.arange(300) < positives
        points, _ = recall_curve(p_N, truth_N)
        precision_T, recall_T, _ = precision_recall_curve(truth_N, p_N)
        theirs = set(zip(recall_T.round(9).tolist(), precision_T.round(9).tolist(), strict=True))
        ends = [(round(recall, 9), round(precision, 9)) for recall, precision in points[1::2]]
        assert len(ends) == min(positives, MOST_STEPS)
        assert set(ends) <= theirs
        assert ends == sorted(ends, key=lambda point: point[0])
        assert ends[-1][0] == 1


def test_bins_are_counted_by_hand() -> None:
    """Each claim in the tenth of its probability; 1 in the last one, and unknown ones in none."""
    p_N = np.array([0.05, 0.12, 0.18, 1.0, 0.95, np.nan])
    right_N = np.array([True, False, True, True, False, True])
    bins = reliability_bins(p_N, right_N, np.arange(6), None)
    assert [(round(one.p, 6), one.right, one.count) for one in bins] == [
        (0.05, 1.0, 1),
        (0.15, 0.5, 2),
        (0.975, 0.5, 2),
    ]
    assert BINS == 10
    assert [one.interval for one in bins] == [None] * 3


def test_intervals_allow_for_groups() -> None:
    """Twenty rows of each group that agree are little more than one: the interval is wider, and none of few groups."""
    right_N = np.repeat(np.random.default_rng(5).random(40) < 0.7, 20)
    p_N = np.full(800, 0.75)
    rows = np.arange(800)
    (alone,) = reliability_bins(p_N, right_N, rows, None)
    (grouped,) = reliability_bins(p_N, right_N, rows, np.repeat(np.arange(40), 20))
    widths = [one.interval[1] - one.interval[0] for one in (alone, grouped) if one.interval]
    assert widths[1] > 2.5 * widths[0]
    (few,) = reliability_bins(p_N, right_N, rows, np.arange(800) % (MIN_UNITS - 1))
    assert few.interval is None


def test_rows_of_a_group_or_of_one_image_are_one_unit() -> None:
    """By split.csv: its groups, else its contents, else every row is its own."""
    table = {"id": ["a", "b", "c"], "group": ["x", "x", None], "content": ["1", "2", "2"]}
    split = pl.DataFrame(table)
    assert units(split, ["a", "b", "c"]).tolist() == [0, 0, 1]
    assert units(split.drop("group"), ["c", "a", "b"]).tolist() == [0, 1, 0]
    assert units(split.drop("group", "content"), ["a"]) is None


def test_the_page_shows_both_charts_of_every_target(tmp_path: Path) -> None:
    """Of a joint class the reliability alone; the rarest classes are named with the average precision."""
    run = fabricate_run(tmp_path, images=False)
    page = Page(write_report(run))
    charts = re.findall(r'aria-label="((?:Reliability|Precision)[^"]*)"', page.source)
    assert charts[0] == "Reliability of the probabilities of mask × gender × age"
    assert charts[1:] == [
        f"{what} of {target}"
        for target in LABELS
        for what in ("Reliability of the probabilities", "Precision against recall of each class")
    ]
    rows = read_csv(run / "predictions.csv")
    truth_N = np.array([row["age_true"] == ">=60" for row in rows])
    p_N = np.array([float(row["age_p_>=60"]) for row in rows])
    assert f">=60, AP {average_precision_score(truth_N, p_N):.3f}" in page.text


def test_average_precision_is_that_of_metrics_json(tmp_path: Path) -> None:
    """Where it is recorded: the page cannot disagree with the file."""
    run = fabricate_run(tmp_path, images=False)
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    metrics["targets"]["age"]["per_class"][2]["ap"] = 0.4321
    metrics["targets"]["age"]["calibration_error"] = 0.0567
    (run / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    text = Page(write_report(run)).text
    assert ">=60, AP 0.432" in text
    assert "expected calibration error 0.057" in text
