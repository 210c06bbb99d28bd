"""Streaming counts against scikit-learn's confusion matrix, and the rows that are no ordinary count."""

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, f1_score

from classwise.metrics.scores import class_scores
from classwise.metrics.tally import ClassTally, predicted_labels

NAN, INF = float("nan"), float("inf")


def draw_rows(rows: int, classes: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random logits (rows, classes) and labels, some of them -1."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(rows, classes, generator=draw), torch.randint(-1, classes, (rows,), generator=draw)


def test_batches_equal_the_whole() -> None:
    """Any cut into batches counts the same, and the same as scikit-learn on the labelled rows."""
    logits_BK, labels_B = draw_rows(500, 7, 0)
    for size in (1, 64, 333, 500):
        tally = ClassTally(7)
        for start in range(0, 500, size):
            tally.update(logits_BK[start : start + size], labels_B[start : start + size])
        known_B = labels_B != -1
        expected = confusion_matrix(labels_B[known_B], logits_BK[known_B].argmax(1), labels=range(7))
        np.testing.assert_array_equal(tally.confusion, expected)
        assert tally.masked == int((~known_B).sum())
        assert tally.invalid == 0


def test_rows_are_true_and_columns_predicted() -> None:
    """One row of truth 0 predicted as 2 stands in row 0, column 2."""
    tally = ClassTally(3)
    tally.update_labels(torch.tensor([2]), torch.tensor([0]))
    assert tally.confusion.tolist() == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]


def test_mean_of_batch_f1_is_another_number() -> None:
    """Sabotage: macro F1 averaged over batches is not the macro F1 of all rows, which the tally gives."""
    logits_BK, labels_B = draw_rows(200, 6, 1)
    logits_BK += 2 * torch.nn.functional.one_hot(labels_B.clamp(min=0), 6)
    whole = ClassTally(6)
    by_batch = []
    for start in range(0, 200, 20):
        part = ClassTally(6)
        rows = slice(start, start + 20)
        part.update(logits_BK[rows], labels_B[rows])
        by_batch.append(class_scores(part.confusion, list("abcdef"))["macro_f1"])
        whole.merge(part)
    known_B = labels_B != -1
    truth = f1_score(labels_B[known_B], logits_BK.argmax(1)[known_B], labels=range(6), average="macro")
    assert class_scores(whole.confusion, list("abcdef"))["macro_f1"] == pytest.approx(truth, abs=1e-12)
    assert abs(np.mean(by_batch) - truth) > 0.01


def test_logits_without_a_largest_finite_one_are_invalid() -> None:
    """NaN, +inf or -inf throughout is no prediction; a class switched off by -inf is."""
    logits_BK = torch.tensor([[0, NAN, 1], [NAN, 0, 0], [INF, 0, 0], [-INF, -INF, -INF], [-INF, 2, 1]])
    assert predicted_labels(logits_BK).tolist() == [-1, -1, -1, -1, 1]
    tally = ClassTally(3)
    tally.update(logits_BK, torch.tensor([0, 1, 2, 0, 1]))
    assert tally.invalid == 4
    assert tally.confusion.tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]


def test_unlabelled_rows_are_never_invalid() -> None:
    """A row without a label counts as masked and nothing else, whatever its logits are."""
    tally = ClassTally(2)
    tally.update(torch.tensor([[NAN, 0.0], [1.0, 0.0]]), torch.tensor([-1, -1]))
    assert (tally.masked, tally.invalid, tally.confusion.sum()) == (2, 0, 0)


@pytest.mark.parametrize(
    ("predicted", "label"), [(0, 3), (0, 99), (0, -2), (3, 0), (99, 0), (-2, 0), (3, -1)]
)
def test_what_is_no_class_is_never_counted_as_one(predicted: int, label: int) -> None:
    """A label or prediction outside the classes makes the counts raise, until the tally is reset."""
    tally = ClassTally(3)
    tally.update_labels(torch.tensor([predicted, 1]), torch.tensor([label, 1]))
    for read in ("confusion", "invalid", "masked"):
        with pytest.raises(ValueError, match="1 rows have a label or prediction outside -1 to 2"):
            getattr(tally, read)
    tally.reset()
    assert tally.confusion.sum() == 0


def test_merge_adds_everything() -> None:
    """Merging is the same as counting both sets; other numbers of classes are refused."""
    logits_BK, labels_B = draw_rows(50, 4, 2)
    logits_BK[3] = NAN
    labels_B[3] = 0
    whole, first, second = ClassTally(4), ClassTally(4), ClassTally(4)
    whole.update(logits_BK, labels_B)
    first.update(logits_BK[:20], labels_B[:20])
    second.update(logits_BK[20:], labels_B[20:])
    first.merge(second)
    assert torch.equal(first.cells, whole.cells)
    assert first.invalid == 1
    with pytest.raises(ValueError, match="a tally of 5 classes; this one has 4"):
        first.merge(ClassTally(5))


def test_the_matrix_is_a_copy() -> None:
    """Writing into a returned matrix, or counting on, changes no earlier answer."""
    tally = ClassTally(2)
    tally.update_labels(torch.tensor([1]), torch.tensor([1]))
    before = tally.confusion
    before[0, 0] = 100
    tally.update_labels(torch.tensor([1]), torch.tensor([1]))
    assert before[1, 1] == 1
    assert tally.confusion.tolist() == [[0, 0], [0, 2]]


def test_labels_of_any_whole_type() -> None:
    """Bytes and 32 bits count as 64 bits do, also beyond what a byte can multiply."""
    for dtype in (torch.uint8, torch.int16, torch.int32):
        tally = ClassTally(200)
        tally.update_labels(torch.tensor([150], dtype=dtype), torch.tensor([199], dtype=dtype))
        assert tally.confusion[199, 150] == 1


def test_no_rows() -> None:
    """An empty batch counts nothing."""
    tally = ClassTally(3)
    tally.update(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))
    assert tally.confusion.tolist() == [[0] * 3] * 3


def test_wrong_shapes_are_refused() -> None:
    """Nothing broadcasts: (B, 1) against (B,) would count B times B rows."""
    tally = ClassTally(3)
    with pytest.raises(ValueError, match=r"allowed: \(B, 3\)"):
        tally.update(torch.zeros(2, 18), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"allowed: \(B,\) both"):
        tally.update_labels(torch.zeros(2, 1, dtype=torch.int64), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="classes: found 0"):
        ClassTally(0)
