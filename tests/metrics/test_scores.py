"""Scores against scikit-learn on the rows themselves."""

import json
import warnings

import numpy as np
import pytest
import sklearn
import sklearn.metrics as reference
from sklearn.exceptions import UndefinedMetricWarning

from classwise.metrics.confusion import class_scores, scores_of_present
from classwise.metrics.scores import (
    HIGHER_IS_BETTER,
    LABEL_SCORES,
    SCORES,
    confusion_marginals,
    label_scores,
)

KEYS = ["type", "labels", "samples", *LABEL_SCORES, "per_class", "confusion"]


def expected_scores(truth: np.ndarray, predicted: np.ndarray, classes: int) -> dict[str, float]:
    """scikit-learn's scores over the whole label list, with absent classes as 0."""
    whole = {"labels": range(classes), "zero_division": 0}
    with warnings.catch_warnings(), sklearn.config_context(skip_parameter_validation=True):
        # Warnings of balanced_accuracy_score where a predicted class never occurs, and where only one class occurs
        # at all: both are part of what is tested.
        for message in ("y_pred contains classes not in y_true", "A single label was found in 'y_true'"):
            warnings.filterwarnings("ignore", message=message, category=UserWarning)
        # Kappa is not defined where truth and prediction are one same class; ours is 0 then.
        warnings.filterwarnings("ignore", category=UndefinedMetricWarning)
        macro = reference.precision_recall_fscore_support(truth, predicted, average="macro", **whole)
        weighted = reference.precision_recall_fscore_support(truth, predicted, average="weighted", **whole)
        kappa = reference.cohen_kappa_score(truth, predicted, labels=range(classes))
        return {
            "accuracy": reference.accuracy_score(truth, predicted),
            "balanced_accuracy": reference.balanced_accuracy_score(truth, predicted),
            "macro_f1": reference.f1_score(truth, predicted, average="macro", **whole),
            "macro_precision": macro[0],
            "macro_recall": macro[1],
            "micro_f1": reference.f1_score(truth, predicted, average="micro", **whole),
            "weighted_f1": reference.f1_score(truth, predicted, average="weighted", **whole),
            "weighted_precision": weighted[0],
            "weighted_recall": weighted[1],
            "mcc": reference.matthews_corrcoef(truth, predicted),
            "kappa": np.nan_to_num(kappa),
        }


def counted(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """The confusion matrix: rows true, columns predicted."""
    confusion = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(confusion, (truth, predicted), 1)
    return confusion


def random_rows(seed: int) -> tuple[np.ndarray, np.ndarray, int]:
    """True and predicted classes, in most cases with classes absent from one or both of them."""
    rng = np.random.default_rng(seed)
    classes, rows = int(rng.integers(2, 19)), int(rng.integers(1, 60))
    used = rng.choice(classes, size=int(rng.integers(1, classes + 1)), replace=False)
    truth = rng.choice(used, size=rows)
    guesses = rng.integers(0, classes, size=rows) if seed % 2 else rng.choice(used, size=rows)
    return truth, np.where(rng.random(rows) < rng.random(), truth, guesses), classes


@pytest.mark.parametrize("seeds", [range(50), pytest.param(range(50, 1000), marks=pytest.mark.full)])
def test_equals_scikit_learn(seeds: range) -> None:
    """1,000 random cases, many with absent classes: every score within 1e-12."""
    absent = 0
    for seed in seeds:
        truth, predicted, classes = random_rows(seed)
        confusion = counted(truth, predicted, classes)
        absent += not confusion.sum(axis=1).all()
        actual = class_scores(confusion, [str(k) for k in range(classes)])
        expected = expected_scores(truth, predicted, classes)
        assert set(expected) == set(LABEL_SCORES)
        for name, value in expected.items():
            assert actual[name] == pytest.approx(value, abs=1e-12), (seed, name)
    assert absent > 0.4 * len(seeds)


def test_per_class_equals_scikit_learn() -> None:
    """Precision, recall, F1 and support of each class, absent ones as 0."""
    truth, predicted, classes = random_rows(17)
    rows = reference.precision_recall_fscore_support(truth, predicted, labels=range(classes), zero_division=0)
    actual = class_scores(counted(truth, predicted, classes), [f"c{k}" for k in range(classes)])
    assert [row["label"] for row in actual["per_class"]] == [f"c{k}" for k in range(classes)]
    for name, column in zip(("precision", "recall", "f1", "support"), rows, strict=True):
        assert [row[name] for row in actual["per_class"]] == pytest.approx(column.tolist(), abs=1e-12)


def test_absent_classes_count_as_zero() -> None:
    """Two perfect classes of four: macro F1 is a half over the label list, balanced accuracy 1."""
    actual = class_scores(np.diag([3, 0, 2, 0]), ["a", "b", "c", "d"])
    assert (actual["macro_f1"], actual["balanced_accuracy"], actual["accuracy"]) == (0.5, 1.0, 1.0)


def test_the_mean_of_the_classes_with_rows_is_scikit_learns_over_these() -> None:
    """What a macro F1 is over the labels that occur, and which do not; nothing to add where all do, or none does."""
    truth, predicted = np.array([0, 0, 2, 2, 2]), np.array([0, 2, 2, 1, 2])
    found = scores_of_present(class_scores(counted(truth, predicted, 4), ["a", "b", "c", "d"]))
    assert found["absent"] == ["b", "d"]
    assert found["macro_f1_present"] == pytest.approx(
        reference.f1_score(truth, predicted, labels=[0, 2], average="macro"), abs=1e-12
    )
    assert scores_of_present(class_scores(np.eye(2, dtype=np.int64), ["a", "b"])) == {}
    assert scores_of_present(class_scores(np.zeros((2, 2), dtype=np.int64), ["a", "b"])) == {}


def test_keys_and_plain_types() -> None:
    """The keys of metrics.json in their order, of types that survive JSON, with labels in any script."""
    actual = class_scores(np.array([[2, 1], [0, 3]], dtype=np.int64), ["마스크", 'it\'s "b"'])
    assert list(actual) == KEYS
    assert list(actual["per_class"][0]) == ["label", "precision", "recall", "f1", "support"]
    assert json.loads(json.dumps(actual)) == actual
    assert actual["confusion"] == [[2, 1], [0, 3]]
    assert {type(actual[name]) for name in LABEL_SCORES} == {float}
    assert {type(row["support"]) for row in actual["per_class"]} == {int}
    assert actual["type"] == "class"
    assert actual["labels"] == ["마스크", 'it\'s "b"']


def test_nothing_counted_is_zero() -> None:
    """Without any row all scores are 0: no NaN, which JSON cannot hold, and no warning."""
    actual = class_scores(np.zeros((3, 3), dtype=np.int64), ["a", "b", "c"])
    assert {actual[name] for name in LABEL_SCORES} == {0.0}
    assert json.dumps(actual, allow_nan=False)


def test_every_float_is_a_selectable_score() -> None:
    """Every float of a class target is a selectable score, and every score of every type has a direction."""
    actual = class_scores(np.eye(2, dtype=np.int64), ["a", "b"])
    assert tuple(name for name, value in actual.items() if isinstance(value, float)) == LABEL_SCORES
    assert {name for names in SCORES.values() for name in names} | {"mean"} == set(HIGHER_IS_BETTER)
    errors = {"log_loss", "calibration_error", "mae_levels", "mae", "mse", "rmse"}
    assert {name for name, higher in HIGHER_IS_BETTER.items() if not higher} == errors


def test_a_stack_of_matrices_is_scored_like_single_ones() -> None:
    """(R, K, K) gives (R,): the numbers of each matrix on its own, bit by bit."""
    rng = np.random.default_rng(0)
    stack_RKK = rng.integers(0, 9, (30, 5, 5)) * (rng.random((30, 5, 1)) < 0.7)
    actual = label_scores(*confusion_marginals(stack_RKK.astype(np.float64)))
    for i, confusion in enumerate(stack_RKK):
        alone = class_scores(confusion, list("abcde"))
        assert {name: values[i] for name, values in actual.items()} == {name: alone[name] for name in actual}


@pytest.mark.parametrize(
    ("confusion", "labels"),
    [
        (np.zeros((2, 3), dtype=int), ["a", "b"]),
        (np.eye(3, dtype=int), ["a", "b"]),
        (np.eye(2), ["a", "b"]),
        (-np.eye(2, dtype=int), ["a", "b"]),
        (np.zeros((0, 0), dtype=int), []),
    ],
)
def test_invalid_confusion_matrices_are_refused(confusion: np.ndarray, labels: list[str]) -> None:
    """Not square, not of the number of labels, or not counts."""
    with pytest.raises(ValueError, match="found a confusion matrix of"):
        class_scores(confusion, labels)
