"""Multilabel scores against scikit-learn and torchmetrics, and unlabeled cells by plain loops."""

import json
import warnings

import numpy as np
import pytest
import sklearn.metrics as reference
import torch
from torch import Tensor
from torchmetrics.functional.classification import (
    multilabel_average_precision,
    multilabel_exact_match,
    multilabel_f1_score,
)

from classwise.metrics.multilabel import MultilabelMetric
from classwise.metrics.scores import SCORES

NAN = float("nan")


SEEDS = pytest.mark.parametrize("seeds", [range(40), pytest.param(range(40, 200), marks=pytest.mark.full)])


def drawn(seed: int, unknown: float = 0.0) -> tuple[Tensor, Tensor]:
    """Logits with ties, and targets; some labels and some rows have no true cell."""
    rng = np.random.default_rng(seed)
    rows, labels = int(rng.integers(2, 50)), int(rng.integers(1, 8))
    targets = (rng.random((rows, labels)) < rng.random(labels) * 0.7).astype(float)
    logits = np.round(rng.normal(size=(rows, labels)) + targets, 1)
    logits[logits == 0] = 0.05  # at p = 0.5 exactly float32 might go either way in a reference
    targets[rng.random((rows, labels)) < unknown] = NAN
    return torch.from_numpy(logits), torch.from_numpy(targets)


def counted(logits: Tensor, targets: Tensor, size: int = 11) -> MultilabelMetric:
    """A metric that was updated with the rows in batches."""
    metric = MultilabelMetric([f"l{k}" for k in range(logits.shape[1])], keep_rows=True)
    for part, truth in zip(logits.split(size), targets.split(size), strict=True):
        metric.update(part, truth)
    return metric


def expected_scores(logits: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """scikit-learn's scores without unlabeled cells."""
    predicted, p = logits >= 0, 1 / (1 + np.exp(-logits))
    actual = {}
    for average in ("micro", "macro"):
        three = reference.precision_recall_fscore_support(
            *two_columns(truth, predicted), average=average, zero_division=0, labels=range(truth.shape[1])
        )
        names = (f"{average}_{name}" for name in ("precision", "recall", "f1"))
        actual |= dict(zip(names, three[:3], strict=True))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No positive class found", category=UserWarning)
        columns = zip(truth.T, logits.T, strict=True)
        actual["map"] = np.mean([reference.average_precision_score(*column) for column in columns])
    actual["sample_f1"] = reference.f1_score(
        *two_columns(truth, predicted), average="samples", zero_division=0
    )
    actual["exact_match"] = (truth == predicted).all(axis=1).mean()
    split_columns = [column for column in zip(truth.T, logits.T, strict=True) if 0 < column[0].mean() < 1]
    if split_columns:
        actual["roc_auc"] = np.mean([reference.roc_auc_score(*column) for column in split_columns])
    actual["log_loss"] = reference.log_loss(truth.ravel(), p.ravel(), labels=[0, 1])
    return actual


def two_columns(truth: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn takes a single column for a binary target: a second one that is always empty avoids that.
    No average used here counts it."""
    if truth.shape[1] > 1:
        return truth, predicted
    empty = np.zeros_like(truth)
    return np.hstack([truth, empty]), np.hstack([predicted, empty])


@SEEDS
def test_equals_scikit_learn(seeds: range) -> None:
    """200 random cases, ties and labels that never occur among them: every score within 1e-12."""
    absent = 0
    for seed in seeds:
        logits, targets = drawn(seed)
        actual = counted(logits, targets).compute()
        expected = expected_scores(logits.numpy(), targets.numpy())
        assert set(expected) | {"roc_auc"} == set(SCORES["multilabel"])
        assert ("roc_auc" in expected) == ("roc_auc" in actual)
        for name, value in expected.items():
            assert actual[name] == pytest.approx(value, abs=1e-12), (seed, name)
        absent += not targets.any(dim=0).all()
    assert absent > 0.15 * len(seeds)


def test_equals_torchmetrics() -> None:
    """200 random cases where each label occurs: F1, exact match and mAP from logits."""
    cases = 0
    for seed in range(1000):
        logits, targets = drawn(seed)
        labels = targets.shape[1]
        if labels < 2 or not targets.any(dim=0).all():
            continue
        cases += 1
        actual, options = counted(logits, targets).compute(), {"num_labels": labels, "validate_args": False}
        truth, p = targets.long(), logits.sigmoid()
        for average in ("micro", "macro"):
            f1 = multilabel_f1_score(p, truth, average=average, **options)
            assert actual[f"{average}_f1"] == pytest.approx(float(f1), abs=1e-6), seed
        exact = multilabel_exact_match(p, truth, **options)
        assert actual["exact_match"] == pytest.approx(float(exact), abs=1e-6), seed
        # Not p: torch's sigmoid of two equal logits may differ in the last digit, which would break the tie.
        precision = multilabel_average_precision(logits / 20 + 0.5, truth, average="macro", **options)
        assert actual["map"] == pytest.approx(float(precision), abs=1e-6), seed
        if cases == 200:
            return
    pytest.fail(f"{cases} cases only")


@SEEDS
def test_unlabeled_cells_are_not_counted(seeds: range) -> None:
    """200 random cases by loops over the labeled cells, per label, per row and all together."""
    for seed in seeds:
        logits, targets = drawn(seed, unknown=0.4)
        actual = counted(logits, targets).compute()
        z, t = logits.numpy(), targets.numpy()
        rows = [[k for k in range(t.shape[1]) if not np.isnan(t[i, k])] for i in range(len(t))]
        assert actual["samples"] == sum(bool(known) for known in rows)
        f1, exact, losses = [], [], []
        for i, known in enumerate(rows):
            truth, said = [t[i, k] for k in known], [float(z[i, k] >= 0) for k in known]
            if known:
                hits = sum(a * b for a, b in zip(truth, said, strict=True))
                f1.append(2 * hits / (sum(truth) + sum(said)) if sum(truth) + sum(said) else 0.0)
                exact.append(truth == said)
            losses += [float(np.log1p(np.exp(-z[i, k] if t[i, k] else z[i, k]))) for k in known]
        for name, values in (("sample_f1", f1), ("exact_match", exact), ("log_loss", losses)):
            assert actual[name] == pytest.approx(np.mean(values) if values else 0.0, abs=1e-12), (seed, name)
        known_NL = ~np.isnan(t)
        micro = three_scores(t[known_NL], z[known_NL])
        for name, value in micro.items():
            assert actual[f"micro_{name}"] == pytest.approx(value, abs=1e-12), (seed, name)
        columns: dict[str, list[float]] = {"precision": [], "recall": [], "f1": [], "ap": []}
        for k, row in enumerate(actual["per_class"]):
            truth, scores = t[known_NL[:, k], k], z[known_NL[:, k], k]
            ap = reference.average_precision_score(truth, scores) if truth.any() else 0.0
            for name, value in (three_scores(truth, scores) | {"ap": ap}).items():
                assert row[name] == pytest.approx(value, abs=1e-12), (seed, name)
                columns[name].append(value)
            assert row["support"] == truth.sum()
        for name, values in columns.items():
            key = "map" if name == "ap" else f"macro_{name}"
            assert actual[key] == pytest.approx(np.mean(values), abs=1e-12), (seed, name)


def three_scores(truth: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    """scikit-learn's precision, recall and F1 of the positive class; 0 without cells."""
    names = ("precision", "recall", "f1")
    if not len(truth):
        return dict.fromkeys(names, 0.0)
    options = {"average": "binary", "zero_division": 0}
    actual = reference.precision_recall_fscore_support(truth == 1, logits >= 0, **options)
    return dict(zip(names, actual[:3], strict=True))


@pytest.mark.parametrize("grouped", [False, True], ids=["rows", "groups"])
def test_intervals_contain_their_scores(grouped: bool) -> None:
    """Every score but mAP has one, and so has each label; over groups of equal rows they are wider."""
    logits, targets = drawn(15, unknown=0.1)
    copies = torch.arange(len(targets)).repeat_interleave(3)
    metric = counted(logits[copies], targets[copies])
    scores, actual = metric.compute(), metric.intervals(copies.numpy() if grouped else None, resamples=300)
    assert set(actual.scores) == set(SCORES["multilabel"]) - {"map", "roc_auc"}
    assert list(actual.withheld) == ["map", "roc_auc"]
    for name, (low, high) in actual.scores.items():
        assert low <= scores[name] <= high, name
    for row, of_label in zip(scores["per_class"], actual.classes, strict=True):
        for name, (low, high) in of_label.scores.items():
            assert 0 <= low <= row[name] <= high <= 1, name
    if grouped:
        over_rows = metric.intervals(resamples=300)
        for name in ("macro_f1", "exact_match", "log_loss"):
            assert np.diff(actual.scores[name]) > 1.2 * np.diff(over_rows.scores[name]), name


def test_a_label_of_no_row_leaves_no_macro_average() -> None:
    """The reason names it."""
    logits, targets = drawn(15)
    targets[:, 1] = 0
    actual = counted(logits, targets).intervals(resamples=50)
    name = counted(logits, targets).compute()["labels"][1]
    assert actual.withheld["macro_f1"] == f"no row with {name}, counted as 0"
    assert "micro_f1" in actual.scores


def test_batches_do_not_matter() -> None:
    """Average precision depends on the order of all rows: the mean over batches is another number."""
    logits, targets = drawn(6)
    whole = counted(logits, targets, len(logits)).compute()
    assert counted(logits, targets, 1).compute() == counted(logits, targets, 7).compute() == whole
    parts = [counted(*part).compute()["map"] for part in zip(logits.split(7), targets.split(7), strict=True)]
    assert abs(np.mean(parts) - whole["map"]) > 0.01


def test_invalid_outputs_and_targets() -> None:
    """A row with a labeled cell without a finite logit is in no score; a target between 0 and 1 is refused."""
    metric = MultilabelMetric(["a", "b"])
    metric.update(
        torch.tensor([[NAN, 1.0], [NAN, 2.0], [-1.0, 3.0]]),
        torch.tensor([[1.0, 1.0], [NAN, 1.0], [0.0, 1.0]]),
    )
    assert metric.invalid == 1
    assert (metric.compute()["samples"], metric.compute()["micro_f1"]) == (2, 1.0)
    metric.update(torch.zeros(1, 2), torch.tensor([[0.3, 1.0]]))
    with pytest.raises(ValueError, match="1 cells have a target other than 0, 1"):
        metric.compute()
    metric.reset()
    assert metric.compute()["samples"] == metric.invalid == 0


def test_the_keys_of_metrics_json() -> None:
    """Plain values in the order of the scores, zeros without rows; no interval without stored rows."""
    empty = MultilabelMetric(["눈", "b"]).compute()
    assert list(empty) == ["type", "labels", "samples", *SCORES["multilabel"], "per_class"]
    assert {empty[name] for name in SCORES["multilabel"]} == {0.0}
    assert list(empty["per_class"][0]) == ["label", "precision", "recall", "f1", "ap", "roc_auc", "support"]
    assert json.loads(json.dumps(empty, allow_nan=False)) == empty
    with pytest.raises(ValueError, match="keep_rows=True"):
        MultilabelMetric(["a"]).intervals()
    with pytest.raises(ValueError, match=r"allowed: both \(B, 2\)"):
        MultilabelMetric(["a", "b"]).update(torch.zeros(3, 2), torch.zeros(3))
    with pytest.raises(ValueError, match="labels: found none"):
        MultilabelMetric([])
