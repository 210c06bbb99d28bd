"""Many classes: the same scores and intervals from the cells that occur as from a whole matrix, in bounded memory."""

import numpy as np
import pytest
import torch

from classwise.metrics import classification, collection, intervals
from classwise.metrics.classification import ClassMetric, LabelMetric
from classwise.metrics.collection import MetricCollection
from classwise.metrics.confusion import MOST_WRITTEN_OUT, Confusion, class_scores, confusion_from_json
from classwise.model.heads import ClassHead


def drawn(rows: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that are often right, and labels, a few of them -1."""
    draw = torch.Generator().manual_seed(classes)
    labels = torch.randint(-1, classes, (rows,), generator=draw)
    logits = torch.randn(rows, classes, generator=draw)
    logits[torch.arange(rows), labels.clamp(min=0)] += 2
    return logits, labels


def counted(classes: int, monkeypatch: pytest.MonkeyPatch, limit: int) -> LabelMetric:
    """A metric that counts in a whole matrix up to `limit` classes."""
    monkeypatch.setattr(classification, "MOST_COUNTED_AT_ONCE", limit)
    metric = LabelMetric(classes, keep_rows=True)
    logits, labels = drawn(300, classes)
    predicted = logits.argmax(dim=1)
    predicted[7] = -1
    for start in range(0, 300, 77):
        metric.update(predicted[start : start + 77], labels[start : start + 77])
    return metric


def test_collected_cells_count_as_a_matrix_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Confusion, masked and invalid rows, scores and intervals are the same; merging adds up, reset empties."""
    whole, by_cells = counted(9, monkeypatch, 9), counted(9, monkeypatch, 8)
    assert whole.cells.numel() > by_cells.cells.numel() == 0
    np.testing.assert_array_equal(whole.confusion, by_cells.confusion)
    assert (whole.masked, whole.invalid) == (by_cells.masked, by_cells.invalid)
    assert whole.invalid == 1
    assert whole.compute() == by_cells.compute()
    assert whole.intervals(seed=1, resamples=50) == by_cells.intervals(seed=1, resamples=50)
    by_cells.merge(counted(9, monkeypatch, 8))
    np.testing.assert_array_equal(2 * whole.confusion, by_cells.confusion)
    by_cells.reset()
    assert by_cells.confusion.sum() == 0


def test_a_row_of_no_class_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a whole matrix."""
    monkeypatch.setattr(classification, "MOST_COUNTED_AT_ONCE", 2)
    metric = LabelMetric(3)
    metric.update(torch.tensor([1, 3]), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="1 rows have a label or prediction outside -1 to 2"):
        metric.compute()


def test_the_matrix_in_a_file() -> None:
    """Up to a number of classes the matrix, of more its cells; both are read back, anything else is not."""
    rng = np.random.default_rng(0)
    for classes in (3, MOST_WRITTEN_OUT, MOST_WRITTEN_OUT + 1):
        confusion_KK = rng.poisson(0.01, (classes, classes))
        confusion_KK[0, 1] = 3
        recorded = Confusion.of(confusion_KK).as_json()
        assert isinstance(recorded, dict) == (classes > MOST_WRITTEN_OUT)
        read = confusion_from_json(recorded, classes)
        assert read is not None
        np.testing.assert_array_equal(read.dense(), confusion_KK)
        assert confusion_from_json(recorded, classes - 1) is None
    for damaged in (
        None,
        "x",
        {"true": [0]},
        {"true": [0], "predicted": [0, 1], "count": [1]},
        [[1], [2, 3]],
    ):
        assert confusion_from_json(damaged, 2) is None
    beyond = {"true": [0], "predicted": [2], "count": [1]}
    assert confusion_from_json(beyond, 2) is None


def test_scores_of_cells_are_those_of_the_matrix() -> None:
    """`class_scores` takes either."""
    confusion_KK = np.array([[3, 1, 0], [0, 0, 0], [2, 0, 4]])
    labels = list("abc")
    assert class_scores(Confusion.of(confusion_KK), labels) == class_scores(confusion_KK, labels)


def test_intervals_in_parts_are_as_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws in several parts are other draws of the same model: the ends move by little, and no interval is missing."""
    whole = counted(5, monkeypatch, 9).intervals(seed=3, resamples=2000)
    monkeypatch.setattr(intervals, "CELLS_AT_ONCE", 5 * 300)
    parts = counted(5, monkeypatch, 9).intervals(seed=3, resamples=2000)
    assert parts.scores.keys() == whole.scores.keys()
    for name, ends in parts.scores.items():
        assert ends == pytest.approx(whole.scores[name], abs=0.02), name
    for one, other in zip(parts.classes, whole.classes, strict=True):
        assert one.scores.keys() == other.scores.keys() == {"precision", "recall", "f1"}


def test_a_whole_set_is_counted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many rows come at once: the largest part has so many outputs, and the scores are the same."""
    logits, labels = drawn(100, 20)
    whole = MetricCollection({"it": ClassHead(20)}, {"it": [str(k) for k in range(20)]})
    whole.update({"it": logits}, {"it": labels})
    expected = whole.compute()["targets"]["it"]["confusion"]
    monkeypatch.setattr(collection, "OUTPUTS_AT_ONCE", 200)
    parts = MetricCollection({"it": ClassHead(20)}, {"it": [str(k) for k in range(20)]})
    sizes = []
    plain = ClassMetric.update

    def spy(self: ClassMetric, logits_BK: torch.Tensor, labels_B: torch.Tensor) -> None:
        sizes.append(len(logits_BK))
        plain(self, logits_BK, labels_B)

    monkeypatch.setattr(ClassMetric, "update", spy)
    parts.update({"it": logits}, {"it": labels})
    assert parts.compute()["targets"]["it"]["confusion"] == expected
    assert max(sizes) == 10
    assert sum(sizes) == 100
