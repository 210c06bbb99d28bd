"""From a model's outputs to what the service answers: the numbers of `predict`, as objects."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from classwise.infer.columns import TOP
from classwise.infer.decided import DecidedHead
from classwise.metrics.confusion import MOST_WRITTEN_OUT
from classwise.metrics.joint import joint_number
from classwise.model.heads import Head, chosen_labels, probabilities
from classwise.serve.schemas import (
    ClassAnswer,
    JointAnswer,
    LabelProbability,
    LabelsAnswer,
    ScoreAnswer,
    ValueAnswer,
)

AnyTarget = ClassAnswer | LabelsAnswer | ValueAnswer | ScoreAnswer


def target_answers(head: Head, outputs: Tensor, labels: Sequence[str]) -> list[AnyTarget]:
    """The answers of one target for B rows of its outputs (B, outputs), as its head takes them."""
    decoded = head.decode(outputs)
    has_marks = isinstance(head, DecidedHead) and head.abstain
    marks: Sequence[bool | None] = [None] * len(decoded)
    if has_marks:
        assert isinstance(head, DecidedHead)
        marks = head.abstains(decoded).tolist()
    return _ANSWERS[head.type](head, decoded, labels, marks)


def _class_answers(
    head: Head, decoded_BK: Tensor, labels: Sequence[str], marks: Sequence[bool | None]
) -> list[AnyTarget]:
    class_B = head.predicted(decoded_BK).tolist()
    p_BK = _as_written(probabilities(decoded_BK, head.type))
    in_full = len(labels) <= MOST_WRITTEN_OUT
    # Of equally probable classes the first ranks higher, as for the prediction.
    top_BT = decoded_BK.sort(dim=1, descending=True, stable=True).indices[:, :TOP].tolist()
    return [
        ClassAnswer(
            type="ordinal" if head.type == "ordinal" else "class",
            label=labels[number],
            probability=p_K[number],
            probabilities=dict(zip(labels, p_K, strict=True)) if in_full else None,
            top=None if in_full else [LabelProbability(label=labels[k], probability=p_K[k]) for k in top_T],
            abstain=mark,
        )
        for number, p_K, top_T, mark in zip(class_B, p_BK, top_BT, marks, strict=True)
    ]


def _labels_answers(
    head: Head, decoded_BL: Tensor, labels: Sequence[str], marks: Sequence[bool | None]
) -> list[AnyTarget]:
    chosen_BL = chosen_labels(head, decoded_BL).tolist()
    p_BL = _as_written(probabilities(decoded_BL, head.type))
    return [
        LabelsAnswer(
            type="multilabel",
            labels=[label for label, is_chosen in zip(labels, chosen_L, strict=True) if is_chosen],
            probabilities=dict(zip(labels, p_L, strict=True)),
            abstain=mark,
        )
        for chosen_L, p_L, mark in zip(chosen_BL, p_BL, marks, strict=True)
    ]


def _value_answers(
    head: Head, decoded_B: Tensor, labels: Sequence[str], marks: Sequence[bool | None]
) -> list[AnyTarget]:
    return [ValueAnswer(type="regression", value=value) for value in decoded_B.double().tolist()]


def _score_answers(
    head: Head, decoded_B: Tensor, labels: Sequence[str], marks: Sequence[bool | None]
) -> list[AnyTarget]:
    return [ScoreAnswer(type="ranking", score=score) for score in decoded_B.tolist()]


_ANSWERS: dict[str, Callable[[Head, Tensor, Sequence[str], Sequence[bool | None]], list[AnyTarget]]] = {
    "class": _class_answers,
    "ordinal": _class_answers,
    "multilabel": _labels_answers,
    "regression": _value_answers,
    "ranking": _score_answers,
}


def joint_answers(
    joint: Sequence[str],
    heads: Mapping[str, Head],
    outputs: Mapping[str, Tensor],
    answers: Mapping[str, Sequence[AnyTarget]],
) -> list[JointAnswer]:
    """The joint class of each row; see `predictions_table`. `answers`: of all targets."""
    classes: list[npt.NDArray[np.int64]] = []
    p_BJ: list[npt.NDArray[Any]] = []
    for name in joint:
        decoded = heads[name].decode(outputs[name])
        class_B = heads[name].predicted(decoded).numpy()
        classes.append(class_B)
        if heads[name].type != "regression":
            p_BK = probabilities(decoded, heads[name].type).numpy()
            p_BJ.append(p_BK[np.arange(len(p_BK)), class_B])
    number_B = joint_number(classes, [heads[name].classes for name in joint]).tolist()
    rows = len(number_B)
    has_p = len(p_BJ) == len(joint)
    p_B = np.prod(p_BJ, axis=0).astype(np.float32).tolist() if has_p else [None] * rows
    return [
        JointAnswer(
            number=number_B[row],
            probability=p_B[row],
            abstain=_any_mark([answers[name][row] for name in joint]),
        )
        for row in range(rows)
    ]


def _any_mark(answers: Sequence[AnyTarget]) -> bool | None:
    """Whether one of them abstains; None where none could."""
    marks = [mark for answer in answers if (mark := getattr(answer, "abstain", None)) is not None]
    return any(marks) if marks else None


def _as_written(p_BK: Tensor) -> list[list[float]]:
    """Probabilities with the precision of predictions.csv."""
    rows: list[list[float]] = p_BK.numpy().astype(np.float32).tolist()
    return rows
