"""A head whose answers follow a decision: a temperature for its probabilities, a rule for its predictions."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from classwise.decision.abstain import confidence_of_class, confidence_of_labels
from classwise.decision.rules import NONE, PLAIN, Rule, answers
from classwise.infer.ensemble import DecodedHead
from classwise.model.heads import Head

ABSTAIN = "_abstain"
"""Ends the name of the column that marks answers."""


@dataclass(frozen=True)
class DecidedHead(DecodedHead):
    """The probabilities are those at the `temperature`; the `rule` is of the probabilities as they were before it.
    Answers less probable than `abstain` are marked."""

    temperature: float = 1.0
    rule: Rule = PLAIN
    abstain: float = 0.0

    def decode(self, outputs: Tensor) -> Tensor:
        decoded = super().decode(outputs)
        return decoded if self.temperature == 1 else decoded / self.temperature

    def predicted(self, decoded: Tensor) -> Tensor:
        if self.rule.name == NONE:
            return self.head.predicted(decoded * self.temperature)
        log_p_BK = (decoded.double() * self.temperature).log_softmax(dim=1)
        class_B = torch.from_numpy(answers(self.type, log_p_BK.cpu().numpy(), self.rule).astype(np.int64))
        return torch.where(decoded.isfinite().any(dim=1), class_B.to(decoded.device), -1)

    @property
    def label_cuts(self) -> tuple[float, ...]:
        """The decoded logits from which on the labels of a multilabel target are predicted; empty for 0."""
        return tuple(-offset / self.temperature for offset in self.rule.offsets)

    def abstains(self, decoded: Tensor) -> Tensor:
        """Which answers (B,) have a lower probability than `abstain`."""
        values = decoded.double().cpu().numpy()
        if self.type == "multilabel":
            cuts_L = np.array(self.label_cuts or [0.0])
            confidence_B = confidence_of_labels(values, values >= cuts_L)
        else:
            confidence_B = confidence_of_class(values, self.predicted(decoded).clamp(min=0).cpu().numpy())
        return torch.from_numpy(confidence_B < self.abstain)


def decided_heads(heads: Mapping[str, Head], decisions: Mapping[str, Mapping[str, Any]]) -> dict[str, Head]:
    """The heads of an ensemble with the decisions (the other arguments of DecidedHead) of the targets that have one."""
    found: dict[str, Head] = dict(heads)
    for name, decision in decisions.items():
        head = heads[name]
        assert isinstance(head, DecodedHead)
        found[name] = dataclasses.replace(DecidedHead(head.head), **decision)
    return found


def as_models_answer(heads: Mapping[str, Head]) -> dict[str, Head]:
    """The inverse of `decided_heads`."""
    return {
        name: DecodedHead(head.head) if isinstance(head, DecidedHead) else head
        for name, head in heads.items()
    }


def with_abstentions(
    table: pl.DataFrame, outputs: Mapping[str, Tensor], heads: Mapping[str, Head], joint: Sequence[str]
) -> pl.DataFrame:
    """Predictions with a column NAME_abstain, true where the answer is less probable than its head's `abstain`, for
    each target that has one above 0; the joint class abstains where one of its targets does."""
    marks = {
        name: head.abstains(head.decode(outputs[name])).numpy()
        for name, head in heads.items()
        if isinstance(head, DecidedHead) and head.abstain
    }
    if marked := [marks[name] for name in joint if name in marks]:
        marks["joint"] = np.any(marked, axis=0)
    return table.with_columns(pl.Series(f"{name}{ABSTAIN}", mark) for name, mark in marks.items())


def abstention_lines(table: pl.DataFrame) -> list[str]:
    """How many answers are marked, in a line for each column of marks; rows without a mark (null) are no answers."""
    marked = [
        column for column in table.columns if column.endswith(ABSTAIN) and table[column].dtype == pl.Boolean
    ]
    return [
        f"{table[column].sum()} of {table[column].count()} answers of {column.removesuffix(ABSTAIN)!r} are below"
        " decision.abstain and are written all the same; `classwise predict` marks them"
        for column in marked
    ]
