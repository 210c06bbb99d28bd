"""Scores in the terminal."""

import itertools

import numpy as np
import pytest
import torch

from classwise.metrics.collection import MetricCollection, flat_scores
from classwise.metrics.formatting import cut, display_width, score_text, short_interval
from classwise.metrics.scores import SCORES
from classwise.metrics.text import SHOWN, metrics_text
from classwise.model.heads import ClassHead, Head, MultilabelHead, OrdinalHead, RankingHead, RegressionHead

HEADS: dict[str, Head] = {
    "mask": ClassHead(7),
    "나이": OrdinalHead(3),
    "price": RegressionHead(mean=1000.0, std=300.0),
    "things": MultilabelHead(2),
    "taste": RankingHead(),
}
LABELS = {
    "mask": ["wear", "마스크 없음", *"cdefg"],
    "나이": ["어린이", "b", "c"],
    "things": ["hat", "glasses"],
}
NAN = float("nan")


def metrics(intervals: bool, metric: str = "joint.macro_f1", known: bool = True) -> dict:
    """Metrics as in metrics.json, of one target of each type."""
    draw = torch.Generator().manual_seed(0)
    collection = MetricCollection(HEADS, LABELS, ("mask", "나이"), keep_rows=True)
    outputs = {name: torch.randn(60, head.outputs, generator=draw) for name, head in HEADS.items()}
    targets = {
        "mask": torch.arange(60) % 7,
        "나이": torch.arange(60) % 3,
        "price": torch.linspace(500, 1500, 60, dtype=torch.float64) if known else torch.full((60,), NAN),
        "things": torch.randint(0, 2, (60, 2), generator=draw).float(),
        "taste": torch.stack([torch.arange(60) % 4 * (torch.arange(60) >= 6), torch.arange(60) // 6], dim=1),
    }
    collection.update(outputs, targets)
    results = collection.compute(resamples=100 if intervals else 0)
    return {"metric": metric, "value": flat_scores(results)[metric], "samples": 60, **results}


@pytest.mark.parametrize("intervals", [False, True])
def test_it_fits_80_columns(intervals: bool) -> None:
    """No line is wider, for labels in any script and with every interval."""
    text = metrics_text(metrics(intervals))
    assert max(display_width(line) for line in text.splitlines()) <= 80
    assert not any(line != line.rstrip() for line in text.splitlines())


def test_lines_are_filled_up_to_80_columns() -> None:
    """Whatever the length of a target's name, its lines have at most 80 columns, and none breaks where the next score
    would still have fitted."""
    actual, longest = metrics(intervals=True), 0
    for length in range(1, 40):
        name = "n" * length
        shown = {**actual, "metric": f"{name}.macro_f1", "targets": {name: actual["targets"]["나이"]}}
        lines = metrics_text(shown).splitlines()
        start = next(i for i, line in enumerate(lines) if line.startswith(f"{name}: "))
        block = lines[start : next(i for i, line in enumerate(lines) if "precision" in line)]
        assert len(block) > 1
        assert max(map(len, block)) <= 80
        for line, following in itertools.pairwise(block):
            score = following.strip().split("],")[0].removesuffix("]") + "],"
            assert len(f"{line} {score}") > 80, line
        longest = max(longest, *map(len, block))
    assert longest == 80


def test_every_shown_score_has_its_interval() -> None:
    """The scores of metrics.json for every type, under their display names: with the interval, or a dash and the reason
    below."""
    actual = metrics(intervals=True)
    text = " ".join(metrics_text(actual).split())
    for name, scores in (*actual["targets"].items(), ("joint", actual["joint"])):
        assert f"{name}: " in text
        shown = [key for key in SHOWN[scores["type"]] if key in scores]
        assert len(shown) >= 4
        for key in shown:
            reason = scores.get("no_interval", {}).get(key)
            value = score_text(key, scores[key], scores["intervals"].get(key), withheld=reason is not None)
            assert f"{SHOWN[scores['type']][key]} {value}" in text
            assert reason is None or (value.endswith(" [—]") and f": {reason}" in text)
    value = score_text("macro_f1", actual["value"], actual["joint"]["intervals"]["macro_f1"])
    assert text.startswith(f"joint.macro_f1 {value} on 60 rows")


def test_scores_at_the_prior_have_dashes_and_reasons_too() -> None:
    """A class without a row leaves the macro F1 without an interval at either shares; the reason is given once."""
    collection = MetricCollection(
        {"a": ClassHead(3)}, {"a": ["x", "y", "z"]}, keep_rows=True, priors={"a": (0.2, 0.3, 0.5)}
    )
    collection.update({"a": torch.eye(3).repeat(8, 1)}, {"a": torch.tensor([0, 1, 0] * 8)})
    results = collection.compute(resamples=100)
    at_prior = results["targets"]["a"]["at_prior"]
    shown = {"metric": "macro_f1_at_prior", "value": at_prior["macro_f1"], "samples": 24, **results}
    text = " ".join(metrics_text(shown).split())
    assert f"macro F1 at prior {at_prior['macro_f1']:.4f} [—]," in text
    assert "no interval for macro F1, macro F1 at prior: no row of z, counted as 0" in text
    low, high = at_prior["intervals"]["accuracy"]
    assert f"accuracy at prior {at_prior['accuracy']:.4f} [{low:.3f}, {high:.3f}]" in text

    # A reason that only the scores at the prior have is given as well.
    del results["targets"]["a"]["no_interval"]["macro_f1"]
    text = " ".join(metrics_text({**shown, **results}).split())
    assert "no interval for macro F1 at prior: no row of z, counted as 0" in text


def test_only_scores_that_exist_are_shown() -> None:
    """Each shown name is a score of its type, and no type is missing."""
    assert {type_: set(names) - set(SCORES[type_]) for type_, names in SHOWN.items()} == {
        type_: set() for type_ in SCORES
    }


def test_format_of_values() -> None:
    """Shares with four decimals, their intervals with three; values in a unit with four significant digits."""
    assert score_text("macro_f1", 0.75123) == "0.7512"
    assert score_text("macro_f1", 0.75123, [0.71004, 0.79]) == "0.7512 [0.710, 0.790]"
    assert score_text("mae", 4213.49, [4000.2, 4400.0]) == "4213 [4000, 4400]"
    assert score_text("mae", 0.0012344) == "0.001234"
    assert score_text("rmse", 31.0, [30.0, 32.5]) == "31.00 [30.00, 32.50]"


def class_metrics(labels: list[str], rows: int) -> dict:
    """Metrics as in metrics.json, of a target whose rows are all in the first class."""
    collection = MetricCollection({"a": ClassHead(len(labels))}, {"a": labels})
    collection.update({"a": torch.eye(len(labels))[[0] * rows]}, {"a": torch.zeros(rows, dtype=torch.int64)})
    results = collection.compute()
    return {"metric": "macro_f1", "value": flat_scores(results)["macro_f1"], "samples": rows, **results}


@pytest.mark.parametrize("letter", ["b", "한"])
@pytest.mark.parametrize("rows", [3, 1_234_567])
def test_labels_are_cut_where_they_do_not_fit(letter: str, rows: int) -> None:
    """A long label ends in `…`, and the table is aligned within 80 columns, also with a large number of rows."""
    table = metrics_text(class_metrics([letter * 60, "short"], rows)).splitlines()[-3:]
    assert {78, 79, 80} >= {display_width(line) for line in table}
    assert len({display_width(line) for line in table}) == 1
    label = table[1].split()[0]
    assert label == letter * (len(label) - 1) + "…"
    assert table[1].split()[-1] == str(rows)
    assert table[2].split()[0] == "short"


def test_cut_labels() -> None:
    """A label that just fits is not cut; a wide character that would not fit entirely is dropped."""
    assert cut("abcdef", 6) == "abcdef"
    assert cut("abcdefg", 6) == "abcde…"
    assert cut("한국어", 6) == "한국어"
    assert cut("한국어말", 6) == "한국…"
    assert cut("a한국어", 6) == "a한국…"


def test_the_lines_of_the_classes() -> None:
    """Labels in any script, with aligned columns; a multilabel target has average precisions too."""
    lines = metrics_text(metrics(intervals=False)).splitlines()
    start = next(i for i, line in enumerate(lines) if "precision" in line)
    table = lines[start : start + 8]
    assert len({display_width(line) for line in table}) == 1
    assert table[2].startswith("  마스크 없음  ")
    assert table[1].split() == ["wear", *(f"{x:.4f}" for x in per_class(0)), "9"]
    assert any(line.split() == ["precision", "recall", "f1", "AP", "rows"] for line in lines)


def test_the_intervals_of_the_classes() -> None:
    """Each beside its score, in aligned columns; a dash where there is none, and the reason below."""
    actual = metrics(intervals=True)
    actual["joint"]["per_class"][0] |= {"intervals": {}, "no_interval": {"f1": "2 rows; too few"}}
    lines = metrics_text(actual).splitlines()
    start = next(i for i, line in enumerate(lines) if "precision" in line)
    table = lines[start : start + 8]
    assert len({display_width(line) for line in table}) == 1
    low, high = actual["targets"]["mask"]["per_class"][0]["intervals"]["recall"]
    assert f"{per_class(0)[1]:.3f} {short_interval([low, high])}" in table[1]
    assert short_interval([0.514, 1.0]) == "[.51, 1.0]"
    joint = lines[next(i for i, line in enumerate(lines) if line.startswith("joint: ")) :]
    row = next(line for line in joint if line.startswith("  wear / 어린이"))
    assert row.count("—") == 3
    assert "2 rows; too few" in " ".join(joint)


def per_class(row: int) -> np.ndarray:
    """Precision, recall and F1 of a class of the first target."""
    scores = metrics(intervals=False)["targets"]["mask"]["per_class"][row]
    return np.array([scores[name] for name in ("precision", "recall", "f1")])


def test_queries_and_targets_without_scores() -> None:
    """A ranking shows its number of queries; a target without a labeled row says so and shows no zeros."""
    text = metrics_text(metrics(intervals=False, known=False))
    assert "9 queries, 1 more without a relevant row" in " ".join(text.split())
    assert "price: no row with a known value" in text
    assert "MAE 0" not in text


def test_the_only_target_needs_no_name() -> None:
    """The headline finds the interval of `macro_f1` where there is one target and no joint class."""
    collection = MetricCollection({"a": ClassHead(2)}, {"a": ["x", "y"]}, keep_rows=True)
    collection.update({"a": torch.eye(2).repeat(9, 1)}, {"a": torch.tensor([0, 1, 1] * 6)})
    results = collection.compute(resamples=100)
    low, high = results["targets"]["a"]["intervals"]["macro_f1"]
    value = results["targets"]["a"]["macro_f1"]
    text = metrics_text({"metric": "macro_f1", "value": value, "samples": 18, **results})
    assert text.splitlines()[0] == f"macro_f1 {value:.4f} [{low:.3f}, {high:.3f}] on 18 rows"
