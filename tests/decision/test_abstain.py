"""Abstention: what is marked, and the curve of coverage against risk."""

import numpy as np
import pytest

from classwise.decision.abstain import (
    confidence_of_class,
    confidence_of_labels,
    risk_at,
    risk_curve,
)


def test_the_surest_answers_come_last_to_be_left_out() -> None:
    """By hand: of four rows the two surest are right."""
    confidence = np.array([0.9, 0.8, 0.6, 0.5])
    wrong = np.array([0.0, 0.0, 1.0, 1.0])
    points = {point.coverage: point.risk for point in risk_curve(confidence, wrong)}
    assert points == {1.0: 0.5, 0.75: pytest.approx(1 / 3), 0.5: 0.0, 0.25: 0.0}


def test_rows_at_the_threshold_are_answered() -> None:
    point = risk_at(np.array([0.5, 0.5, 0.4]), np.array([1.0, 0.0, 0.0]), 0.5)
    assert (point.coverage, point.risk) == (pytest.approx(2 / 3), 0.5)


def test_without_an_answer_there_is_no_risk() -> None:
    point = risk_at(np.array([0.2]), np.array([1.0]), 0.5)
    assert (point.coverage, point.risk) == (0.0, 0.0)


def test_the_confidence_is_the_probability_of_the_answer() -> None:
    """Of the predicted class, which with offsets need not be the most probable one."""
    assert confidence_of_class(np.log([[0.7, 0.3]]), np.array([1])) == pytest.approx([0.3])


def test_of_several_labels_the_least_certain_counts() -> None:
    logits = np.log([[0.9 / 0.1, 0.4 / 0.6]])
    assert confidence_of_labels(logits, logits >= 0) == pytest.approx([0.6])
    assert confidence_of_labels(logits, np.array([[True, True]])) == pytest.approx([0.4])
