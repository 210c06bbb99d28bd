"""Streaming counts against scikit-learn's confusion matrix, and rows that are unlabeled, invalid or out of range."""

import json

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    cohen_kappa_score,
    confusion_matrix,
    f1_score,
    log_loss,
    mean_absolute_error,
    top_k_accuracy_score,
)
from torchmetrics.functional.classification import multiclass_calibration_error

from classwise.metrics.classification import ClassMetric, LabelMetric
from classwise.metrics.confusion import class_scores
from classwise.metrics.scores import SCORES
from classwise.model.heads import OrdinalHead

NAN, INF = float("nan"), float("inf")


def draw_rows(rows: int, classes: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random logits (rows, classes) and labels, some of them -1."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(rows, classes, generator=draw), torch.randint(-1, classes, (rows,), generator=draw)


def test_batches_equal_the_whole() -> None:
    """Any split into batches gives the same counts, those of scikit-learn on the labeled rows."""
    logits_BK, labels_B = draw_rows(500, 7, 0)
    for size in (1, 64, 333, 500):
        metric = ClassMetric(7)
        for start in range(0, 500, size):
            metric.update(logits_BK[start : start + size], labels_B[start : start + size])
        known_B = labels_B != -1
        expected = confusion_matrix(labels_B[known_B], logits_BK[known_B].argmax(1), labels=range(7))
        np.testing.assert_array_equal(metric.confusion, expected)
        assert metric.masked == int((~known_B).sum())
        assert metric.invalid == 0


def test_rows_are_true_and_columns_predicted() -> None:
    """One row of true class 0 predicted as 2 is in row 0, column 2."""
    metric = LabelMetric(3)
    metric.update(torch.tensor([2]), torch.tensor([0]))
    assert metric.confusion.tolist() == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]


def test_mean_of_batch_f1_differs_from_the_f1_of_all_rows() -> None:
    """Macro F1 averaged over batches is not the macro F1 of all rows, which the metric gives."""
    logits_BK, labels_B = draw_rows(200, 6, 1)
    logits_BK += 2 * torch.nn.functional.one_hot(labels_B.clamp(min=0), 6)
    whole = ClassMetric(6)
    by_batch = []
    for start in range(0, 200, 20):
        part = ClassMetric(6)
        rows = slice(start, start + 20)
        part.update(logits_BK[rows], labels_B[rows])
        by_batch.append(class_scores(part.confusion, list("abcdef"))["macro_f1"])
        whole.merge(part)
    known_B = labels_B != -1
    truth = f1_score(labels_B[known_B], logits_BK.argmax(1)[known_B], labels=range(6), average="macro")
    assert class_scores(whole.confusion, list("abcdef"))["macro_f1"] == pytest.approx(truth, abs=1e-12)
    assert abs(np.mean(by_batch) - truth) > 0.01


def test_logits_without_a_largest_finite_one_are_invalid() -> None:
    """NaN, +inf or -inf for every class gives no prediction; -inf for some classes does."""
    logits_BK = torch.tensor([[0, NAN, 1], [NAN, 0, 0], [INF, 0, 0], [-INF, -INF, -INF], [-INF, 2, 1]])
    metric = ClassMetric(3)
    metric.update(logits_BK, torch.tensor([0, 1, 2, 0, 1]))
    assert metric.invalid == 4
    assert metric.confusion.tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]


def test_unlabeled_rows_are_never_invalid() -> None:
    """A row without a label counts as masked and nothing else, whatever its logits."""
    metric = ClassMetric(2)
    metric.update(torch.tensor([[NAN, 0.0], [1.0, 0.0]]), torch.tensor([-1, -1]))
    assert (metric.masked, metric.invalid, metric.confusion.sum()) == (2, 0, 0)


@pytest.mark.parametrize(
    ("predicted", "label"), [(0, 3), (0, 99), (0, -2), (3, 0), (99, 0), (-2, 0), (3, -1)]
)
def test_values_outside_the_classes_are_never_counted(predicted: int, label: int) -> None:
    """A label or prediction outside the classes makes the counts raise, until the metric is reset."""
    metric = LabelMetric(3)
    metric.update(torch.tensor([predicted, 1]), torch.tensor([label, 1]))
    for read in ("confusion", "invalid", "masked"):
        with pytest.raises(ValueError, match="1 rows have a label or prediction outside -1 to 2"):
            getattr(metric, read)
    metric.reset()
    assert metric.confusion.sum() == 0


def test_merge_adds_everything() -> None:
    """Merging is the same as counting both sets; another number of classes is refused."""
    logits_BK, labels_B = draw_rows(50, 4, 2)
    logits_BK[3] = NAN
    labels_B[3] = 0
    whole, first, second = ClassMetric(4), ClassMetric(4), ClassMetric(4)
    whole.update(logits_BK, labels_B)
    first.update(logits_BK[:20], labels_B[:20])
    second.update(logits_BK[20:], labels_B[20:])
    first.merge(second)
    np.testing.assert_array_equal(first.confusion, whole.confusion)
    assert (first.invalid, first.masked) == (1, whole.masked)
    torch.testing.assert_close(first.sums, whole.sums, rtol=1e-13, atol=0)
    with pytest.raises(ValueError, match="a metric of 5 classes; this one has 4"):
        first.merge(ClassMetric(5))


def test_the_matrix_is_a_copy() -> None:
    """Writing into a returned matrix, or counting on, changes no earlier result."""
    metric = LabelMetric(2)
    metric.update(torch.tensor([1]), torch.tensor([1]))
    before = metric.confusion
    before[0, 0] = 100
    metric.update(torch.tensor([1]), torch.tensor([1]))
    assert before[1, 1] == 1
    assert metric.confusion.tolist() == [[0, 0], [0, 2]]


def test_labels_of_any_integer_type() -> None:
    """Bytes, 16 and 32 bits count as 64 bits do, also where a cell number exceeds a byte."""
    for dtype in (torch.uint8, torch.int16, torch.int32):
        metric = LabelMetric(200)
        metric.update(torch.tensor([150], dtype=dtype), torch.tensor([199], dtype=dtype))
        assert metric.confusion[199, 150] == 1


def test_no_rows() -> None:
    """An empty batch counts nothing."""
    metric = ClassMetric(3)
    metric.update(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))
    assert metric.confusion.tolist() == [[0] * 3] * 3


def test_wrong_shapes_are_refused() -> None:
    """Nothing broadcasts: (B, 1) against (B,) would count B times B rows; soft labels cannot be counted."""
    with pytest.raises(ValueError, match=r"allowed: \(B, 3\)"):
        ClassMetric(3).update(torch.zeros(2, 18), torch.tensor([0, 1]))
    for labels_B in (torch.zeros(2, 3), torch.zeros(2)):
        with pytest.raises(ValueError, match=r"allowed: both \(B,\), of integers"):
            ClassMetric(3).update(torch.zeros(2, 3), labels_B)
    with pytest.raises(ValueError, match=r"allowed: both \(B,\)"):
        LabelMetric(3).update(torch.zeros(2, 1, dtype=torch.int64), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="classes: found 0"):
        LabelMetric(0)


def test_probability_scores_equal_the_references() -> None:
    """Log loss and top-k of scikit-learn, calibration error of torchmetrics: 200 random cases, with unlabeled
    rows and rows without a prediction, in batches."""
    for seed in range(200):
        rng = np.random.default_rng(seed)
        classes, rows = int(rng.integers(2, 10)), int(rng.integers(1, 50))
        logits_BK, labels_B = draw_rows(rows, classes, seed)
        logits_BK = logits_BK.double() * float(rng.uniform(0.1, 4))
        labels_B[0] = 0
        known_B = labels_B != -1
        logits_BK[~known_B, 0] = NAN
        metric = ClassMetric(classes)
        for logits, labels in zip(logits_BK.split(7), labels_B.split(7), strict=True):
            metric.update(logits, labels)
        actual = metric.compute()
        logits, labels = logits_BK[known_B], labels_B[known_B]
        p = logits.softmax(dim=1)
        every = np.arange(classes)
        loss = log_loss(labels, p.numpy(), labels=every)
        assert actual["log_loss"] == pytest.approx(loss, abs=1e-12), seed
        error = multiclass_calibration_error(p, labels, classes, n_bins=15, norm="l1")
        assert actual["calibration_error"] == pytest.approx(float(error), abs=1e-6), seed
        for name, k in (("top3_accuracy", 3), ("top5_accuracy", 5)):
            assert (name in actual) == (classes > k)
            if classes > k:
                top = top_k_accuracy_score(labels, logits.numpy(), k=k, labels=every)
                assert actual[name] == pytest.approx(top, abs=1e-12), seed


def test_calibration_error_by_plain_loops() -> None:
    """Guo et al., equations 1 to 3, row by row, 200 random cases in float64: bins are open below and closed above, so
    that 1 is in the last."""
    for seed in range(200):
        logits_BK, labels_B = draw_rows(40, 4, seed)
        logits_BK = logits_BK.double() * (1 + seed % 4)
        logits_BK[:5] = torch.tensor([900.0, 0, 0, 0])
        metric = ClassMetric(4)
        metric.update(logits_BK, labels_B)
        actual = metric.compute()["calibration_error"]
        assert actual == pytest.approx(calibration_error(logits_BK, labels_B), abs=1e-12), seed


def calibration_error(logits_BK: torch.Tensor, labels_B: torch.Tensor) -> float:
    """Of the labeled rows, with lists as bins."""
    bins: dict[int, list[tuple[float, bool]]] = {}
    for logits, label in zip(logits_BK, labels_B.tolist(), strict=True):
        confidence, predicted = logits.softmax(dim=0).max(dim=0)
        if label >= 0:
            number = next(b for b in range(1, 16) if confidence <= b / 15)
            bins.setdefault(number, []).append((float(confidence), int(predicted) == label))
    rows = sum(len(members) for members in bins.values())
    error = 0.0
    for members in bins.values():
        confidence = sum(c for c, _ in members) / len(members)
        accuracy = sum(hit for _, hit in members) / len(members)
        error += len(members) / rows * abs(accuracy - confidence)
    return error


def test_impossible_labels_have_a_finite_loss() -> None:
    """A true class with a logit of -inf has scikit-learn's finite loss, which JSON can hold."""
    metric = ClassMetric(3)
    metric.update(torch.tensor([[-INF, 2.0, 1.0]]), torch.tensor([0]))
    p = torch.tensor([[-INF, 2.0, 1.0]]).double().softmax(dim=1)
    assert metric.compute()["log_loss"] == pytest.approx(log_loss([0], p.numpy(), labels=range(3)), abs=1e-12)


def test_equal_logits_rank_in_class_order() -> None:
    """Of equal logits the first classes are the top ones, as for argmax."""
    metric = ClassMetric(5)
    metric.update(torch.zeros(5, 5), torch.arange(5))
    scores = metric.compute()
    assert (scores["accuracy"], scores["top3_accuracy"]) == (0.2, 0.6)


def test_levels_equal_scikit_learn() -> None:
    """MAE in levels and quadratic kappa of 200 random cases, the predictions by CORN's rule, some rows unlabeled; the
    class scores are those of the same predictions."""
    for seed in range(200):
        rng = np.random.default_rng(seed)
        levels, rows = int(rng.integers(2, 8)), int(rng.integers(2, 60))
        head = OrdinalHead(levels)
        outputs = torch.from_numpy(rng.normal(0, 2, (rows, levels - 1)))
        labels_B = torch.from_numpy(rng.integers(-1, levels, rows))
        labels_B[:2] = torch.tensor([0, 1])  # of one level alone kappa would not be defined
        decoded = head.decode(outputs)
        metric = ClassMetric(levels, predicted=head.predicted, ordinal=True)
        for part, labels in zip(decoded.split(9), labels_B.split(9), strict=True):
            metric.update(part, labels)
        actual, known_B = metric.compute(), labels_B != -1
        truth, predicted = labels_B[known_B].numpy(), head.predicted(decoded)[known_B].numpy()
        mae = mean_absolute_error(truth, predicted)
        assert actual["mae_levels"] == pytest.approx(mae, abs=1e-12), seed
        kappa = cohen_kappa_score(truth, predicted, labels=range(levels), weights="quadratic")
        assert actual["quadratic_kappa"] == pytest.approx(kappa, abs=1e-12), seed
        f1 = f1_score(truth, predicted, labels=range(levels), average="macro", zero_division=0)
        assert actual["macro_f1"] == pytest.approx(f1, abs=1e-12), seed
        assert (actual["type"], actual["samples"]) == ("ordinal", len(truth))


def test_the_confidence_of_a_level_is_that_of_the_predicted_level() -> None:
    """CORN's prediction is the median, which need not be the most probable level: here 1 of p = 0.4, 0.2, 0.4."""
    decoded = torch.tensor([[0.4, 0.2, 0.4]], dtype=torch.float64).log()
    metric = ClassMetric(3, predicted=OrdinalHead(3).predicted, ordinal=True)
    metric.update(decoded, torch.tensor([1]))
    scores = metric.compute()
    assert scores["confusion"][1] == [0, 1, 0]
    assert scores["calibration_error"] == pytest.approx(0.8, abs=1e-12)


def test_no_row_gives_zeros() -> None:
    """Without rows every score is 0, which JSON can hold; a single level has a kappa of 0."""
    empty = ClassMetric(7, ordinal=True).compute()
    assert {empty[name] for name in SCORES["ordinal"]} == {0.0}
    assert json.dumps(empty, allow_nan=False)
    metric = ClassMetric(3, ordinal=True)
    metric.update(torch.eye(3)[:1], torch.tensor([0]))
    assert (metric.compute()["quadratic_kappa"], metric.compute()["kappa"], metric.compute()["mcc"]) == (
        0,
        0,
        0,
    )


def test_the_keys_of_metrics_json() -> None:
    """Every score of the type is a float, before the table of classes and the matrix."""
    for ordinal, type_ in ((False, "class"), (True, "ordinal")):
        metric = ClassMetric(6, labels=list("abcdef"), ordinal=ordinal)
        metric.update(torch.eye(6), torch.arange(6))
        scores = metric.compute()
        assert list(scores) == ["type", "labels", "samples", *SCORES[type_], "per_class", "confusion"]
        assert {type(scores[name]) for name in SCORES[type_]} == {float}
        assert scores["labels"] == list("abcdef")
        assert json.loads(json.dumps(scores)) == scores
