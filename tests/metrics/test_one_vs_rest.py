"""AUC and average precision against scikit-learn, and what becomes of them where there are too many rows to rank."""

import numpy as np
import pytest
import torch
from sklearn import metrics as reference

from classwise.metrics.classification import ClassMetric
from classwise.metrics.collection import MetricCollection, flat_scores, score_of
from classwise.metrics.one_vs_rest import RankedRows, one_vs_rest
from classwise.model.heads import ClassHead, OrdinalHead


def drawn(rows: int, classes: int, seed: int, ties: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (rows, classes) in float64, each row twice with `ties`, and labels, some of them -1."""
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, classes, generator=draw, dtype=torch.float64)
    labels = torch.randint(-1, classes, (rows,), generator=draw)
    return (logits[: rows // 2].repeat(2, 1) if ties else logits), labels


@pytest.mark.parametrize("seed", range(20))
def test_columns_equal_scikit_learn(seed: int) -> None:
    """With and without ties, and with cells that do not count."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(60, 4)).round(seed % 3)
    true = rng.random((60, 4)) < 0.3
    counted = rng.random((60, 4)) < 0.8
    auc, ap = one_vs_rest(scores, true, counted)
    for k in range(4):
        rows = counted[:, k]
        assert auc[k] == pytest.approx(reference.roc_auc_score(true[rows, k], scores[rows, k]), abs=1e-12)
        expected = reference.average_precision_score(true[rows, k], scores[rows, k])
        assert ap[k] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("classes", [2, 5])
def test_macro_equals_scikit_learn(classes: int, ties: bool) -> None:
    """One against rest, over batches; unlabeled rows take no part. Two classes have one AUC."""
    logits, labels = drawn(200, classes, 3, ties)
    metric = ClassMetric(classes)
    for start in range(0, 200, 33):
        metric.update(logits[start : start + 33], labels[start : start + 33])
    scores = metric.compute()
    known = labels >= 0
    p = logits[known].softmax(dim=1).numpy()
    one_hot = np.eye(classes)[labels[known]]
    auc = reference.roc_auc_score(one_hot, p, average="macro")
    assert scores["roc_auc"] == pytest.approx(auc, abs=1e-12)
    expected = reference.average_precision_score(one_hot, p, average="macro")
    assert scores["average_precision"] == pytest.approx(expected, abs=1e-12)
    for k, row in enumerate(scores["per_class"]):
        assert row["ap"] == pytest.approx(
            reference.average_precision_score(one_hot[:, k], p[:, k]), abs=1e-12
        )
    if classes == 2:
        assert scores["per_class"][0]["roc_auc"] == pytest.approx(scores["per_class"][1]["roc_auc"])


def test_an_absent_class_has_no_auc_and_an_average_precision_of_0() -> None:
    """The AUC is averaged over the classes that have one, as balanced accuracy; average precision over all, as F1."""
    logits, labels = drawn(50, 3, 1)
    labels[labels == 2] = 0
    metric = ClassMetric(3)
    metric.update(logits, labels)
    scores = metric.compute()
    rows = scores["per_class"]
    assert rows[2]["roc_auc"] is None
    assert rows[2]["ap"] == 0
    assert scores["roc_auc"] == pytest.approx((rows[0]["roc_auc"] + rows[1]["roc_auc"]) / 2)
    assert scores["average_precision"] == pytest.approx((rows[0]["ap"] + rows[1]["ap"]) / 3)


def test_rows_of_one_class_have_no_auc() -> None:
    """No number is better than a made-up one; the average precision is known."""
    metric = ClassMetric(2)
    metric.update(torch.randn(9, 2), torch.ones(9, dtype=torch.int64))
    scores = metric.compute()
    assert "roc_auc" not in scores
    assert scores["average_precision"] == 0.5
    assert score_of({"targets": {"it": scores}}, "roc_auc") is None


def test_confident_predictions_keep_their_order() -> None:
    """Probabilities that are all 1 in float32 are not ties."""
    logits = torch.tensor([[0.0, 30.0], [0.0, 40.0], [0.0, 35.0], [0.0, 50.0]])
    metric = ClassMetric(2)
    metric.update(logits, torch.tensor([0, 1, 0, 1]))
    assert metric.compute()["roc_auc"] == 1.0


def test_too_many_scores_are_not_ranked_unless_asked_for() -> None:
    """What is missing is said, with the reason, and costs no memory; the metric that selects is always computed."""
    logits, labels = drawn(40, 4, 2)
    small = ClassMetric(4, ranked_cells=159)
    small.update(logits, labels)
    scores = small.compute()
    assert "roc_auc" not in scores
    assert scores["not_computed"].keys() == {"roc_auc", "average_precision"}
    assert "160 scores" in scores["not_computed"]["roc_auc"]
    whole = MetricCollection({"it": ClassHead(4)}, {"it": list("abcd")}, selected="ap[b]")
    whole.update({"it": logits}, {"it": labels})
    results = whole.compute()
    assert flat_scores(results, "ap[b]")["ap[b]"] == results["targets"]["it"]["per_class"][1]["ap"]
    assert "not_computed" not in results["targets"]["it"]


def test_ranked_rows_of_several_processes_add_up() -> None:
    """Merged ones give what one would, and one that was full stays full."""
    logits, labels = drawn(30, 3, 5)
    parts = [ClassMetric(3), ClassMetric(3)]
    parts[0].update(logits[:11], labels[:11])
    parts[1].update(logits[11:], labels[11:])
    whole = ClassMetric(3)
    whole.update(logits, labels)
    parts[0].merge(parts[1])
    assert parts[0].compute() == whole.compute()
    full = RankedRows(limit=2)
    full.update(*(torch.ones(1, 3) > 0 for _ in range(3)))
    kept = RankedRows(limit=20)
    kept.merge(full)
    assert kept.cells == 3


def test_levels_are_ranked_by_their_probabilities() -> None:
    """An ordinal target has the same scores, of the probabilities of its levels."""
    draw = torch.Generator().manual_seed(0)
    raw = torch.randn(80, 3, generator=draw, dtype=torch.float64)
    labels = torch.randint(0, 4, (80,), generator=draw)
    head = OrdinalHead(4)
    metric = ClassMetric(4, predicted=head.predicted, ordinal=True)
    metric.update(head.decode(raw), labels)
    p = head.decode(raw).softmax(dim=1).numpy()
    expected = reference.roc_auc_score(np.eye(4)[labels], p, average="macro")
    assert metric.compute()["roc_auc"] == pytest.approx(expected, abs=1e-12)
