"""Labels of a table to be scored that the model has never seen: each counts as a class that is never predicted."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import torch
from torch import Tensor

from classwise.compose.split_checks import listed
from classwise.data.label_spelling import spelling_key
from classwise.data.targets import Target
from classwise.errors import DataError
from classwise.model.heads import Head, label_cuts
from classwise.run.labels_by_value import label_cells

LISTED = 3  # misspelt labels in a warning
NEVER = -1e4
"""The logit of a label that the model does not know: a probability of 0, as a finite number."""


@dataclass(frozen=True)
class UnseenLabels:
    """Targets whose label lists end with what a table holds beside them; `unseen`: these labels by target, and `rows`
    how many have one."""

    targets: tuple[Target, ...]
    unseen: dict[str, tuple[str, ...]]
    rows: dict[str, int]

    def heads(self, heads: Mapping[str, Head]) -> dict[str, Head]:
        """The heads with outputs for the further labels."""
        return {
            name: UnseenHead(head, len(self.unseen[name])) if name in self.unseen else head
            for name, head in heads.items()
        }

    @property
    def warnings(self) -> list[str]:
        """What is counted how."""
        known = {target.name: target.labels for target in self.targets}
        return [
            f"{name}: the model does not know {len(labels)} label{'s' * (len(labels) > 1)} ({listed(labels)}), so"
            f" {self.rows[name]} row{'s count as mistakes' if self.rows[name] > 1 else ' counts as a mistake'}"
            f"{_spelling_hint(labels, known[name])}"
            for name, labels in self.unseen.items()
        ]


@dataclass(frozen=True)
class UnseenHead:
    """A class or multilabel head with `unseen` further labels that it never predicts."""

    head: Head
    unseen: int

    @property
    def type(self) -> str:
        return self.head.type

    @property
    def outputs(self) -> int:
        return self.head.outputs + self.unseen

    @property
    def classes(self) -> int:
        return self.head.classes + self.unseen if self.head.classes else 0

    @property
    def label_cuts(self) -> tuple[float, ...]:
        """Those of the head, and 0 for the labels that it does not know; empty where it has none."""
        cuts = label_cuts(self.head)
        return (*cuts, *(0.0 for _ in range(self.unseen))) if cuts else ()

    def decode(self, outputs: Tensor) -> Tensor:
        """The outputs of the model are those of the labels that it knows."""
        decoded = self.head.decode(outputs)
        return torch.cat([decoded, decoded.new_full((len(decoded), self.unseen), NEVER)], dim=1)

    def predicted(self, decoded: Tensor) -> Tensor:
        return self.head.predicted(decoded[:, : -self.unseen])


def with_unseen(targets: Sequence[Target], frame: pl.DataFrame, where: str) -> UnseenLabels:
    """The targets with the labels of a table that they do not have. An ordered level cannot be put in its place, so it
    stays an error, and so does a column in which no label is known. Raises DataError."""
    found: list[Target] = []
    unseen: dict[str, tuple[str, ...]] = {}
    rows: dict[str, int] = {}
    for target in targets:
        sets = label_cells(target, frame, where)
        known = set(target.labels)
        if getattr(target, "unify", False):
            known |= _alike(known, sets)
        new = list(dict.fromkeys(label for labels in sets for label in labels if label not in known))
        if not new or not any(known & set(labels) for labels in sets):
            found.append(target)  # if no label is known, its own error says so
            continue
        if target.type == "ordinal":
            raise DataError(
                f"{where}: column {target.columns[0]!r}: found {listed(new)}, which are no levels of"
                f" {target.name!r}, so that it is not known how far off a prediction is; leave these rows out, or empty"
                " their cells"
            )
        extended: Any = dataclasses.replace(target, labels=(*target.labels, *new))  # type: ignore[type-var]
        found.append(extended)
        unseen[target.name] = tuple(new)
        rows[target.name] = sum(not known >= set(labels) for labels in sets)
    return UnseenLabels(tuple(found), unseen, rows)


def _alike(known: Collection[str], sets: Sequence[Sequence[str]]) -> set[str]:
    """The labels that are only spelled otherwise than a known one."""
    keys = {spelling_key(label) for label in known}
    return {label for labels in sets for label in labels if spelling_key(label) in keys}


def _spelling_hint(unseen: Sequence[str], labels: Sequence[str]) -> str:
    """`; 'B' may be meant as 'b'`, for labels that are only spelled differently."""
    known = {spelling_key(label): label for label in labels if label not in unseen}
    pairs = [
        f"{label!r} may be meant as {known[spelling_key(label)]!r}"
        for label in unseen
        if spelling_key(label) in known
    ]
    return f"; {', '.join(pairs[:LISTED])}" if pairs else ""


def note_unseen(metrics: dict[str, Any], unseen: UnseenLabels) -> None:
    """Add `unseen`, the labels that the model does not know, and `macro_f1_known`, the mean F1 of those that it knows,
    to the scores of each target with such labels."""
    for name, labels in unseen.unseen.items():
        scores = metrics["targets"][name]
        known = [row["f1"] for row in scores["per_class"] if row["label"] not in labels]
        scores["unseen"] = list(labels)
        scores["macro_f1_known"] = sum(known) / len(known)
