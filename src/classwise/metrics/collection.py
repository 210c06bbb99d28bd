"""All metrics of a model with several targets, and the numbers that come out of them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from classwise.errors import ConfigError, nearest
from classwise.metrics.bootstrap import Groups
from classwise.metrics.classification import ClassMetric, Device, LabelMetric, require_rows
from classwise.metrics.joint import joint_number
from classwise.metrics.multilabel import MultilabelMetric
from classwise.metrics.ranking import RankingMetric
from classwise.metrics.regression import RegressionMetric
from classwise.metrics.scores import HIGHER_IS_BETTER, LABEL_SCORES, SCORES, TOP
from classwise.model.heads import Head

ROWS_AT_ONCE = 4096


class Metric(Protocol):
    """Counts of one target over a whole set."""

    def update(self, decoded: Tensor, targets: Tensor, /) -> None:
        """Count one batch: what the head decodes, against the truth. Waits for nothing."""

    def reset(self) -> None:
        """Start again from zero."""

    @property
    def invalid(self) -> int:
        """Known rows whose decoded output is not finite."""

    def compute(self) -> dict[str, Any]:
        """As in metrics.json: plain values."""

    def intervals(
        self, groups: Groups | None = None, seed: int = 0, resamples: int = 1000
    ) -> dict[str, list[float]]:
        """The 95 % interval of every score. Raises ValueError where the rows were not kept."""


Outputs = Mapping[str, Tensor]
Targets = Mapping[str, Tensor]
LossOf = Callable[[Outputs, Targets], Tensor]


class MetricCollection:
    """Counts for every target and for the joint class, over a whole set.

    `heads`: what the outputs of each target mean. `labels`: the label list by target, of a regression with edges
    the names of its classes; none where the target has no classes. `joint`: the targets read as one class, the
    first most significant. `keep_rows`: remember the rows, for intervals.

    Batches are collected, and counted ROWS_AT_ONCE rows at a time: counting is a dozen operations a target, which cost
    the same for one batch as for a hundred.
    """

    def __init__(
        self,
        heads: Mapping[str, Head],
        labels: Mapping[str, Sequence[str]],
        joint: Sequence[str] = (),
        device: torch.device | str = "cpu",
        keep_rows: bool = False,
    ) -> None:
        self.heads = dict(heads)
        self.labels = {name: list(list_) for name, list_ in labels.items()}
        self.joint = tuple(joint)
        self.keep_rows = keep_rows
        self._sizes = [self.heads[name].classes for name in self.joint]
        self._metrics = {
            name: make_metric(head, self.labels.get(name, ()), device, keep_rows)
            for name, head in self.heads.items()
        }
        self._loss_of: LossOf | None = None
        self._loss = torch.zeros((), dtype=torch.float64, device=device)
        self._collected: list[tuple[Outputs, Targets]] = []
        self._collected_rows = 0
        self._joint_metric: LabelMetric | None = None
        if joint:
            names = joint_labels(self.labels, self.joint)
            self._joint_metric = LabelMetric(len(names), device, keep_rows, names)

    def reset(self, loss_of: LossOf | None = None) -> None:
        """Start again from zero. `loss_of` (outputs, targets): a loss that adds up over the rows, summed beside the
        scores as `loss`."""
        self._loss_of = loss_of
        self._loss.zero_()
        self._collected.clear()
        self._collected_rows = 0
        for metric in self._metrics.values():
            metric.reset()
        if self._joint_metric is not None:
            self._joint_metric.reset()

    def update(self, outputs: Outputs, targets: Targets) -> None:
        """Add one batch: by target the raw outputs (B, outputs) and the truth, as each metric takes it. Raises
        ValueError for what does not fit a target's metric, now or when it is counted."""
        self._collected.append(
            (
                {name: outputs[name].detach().clone() for name in self.heads},
                {name: targets[name].clone() for name in self.heads},
            )
        )
        self._collected_rows += len(next(iter(outputs.values())))
        if self._collected_rows >= ROWS_AT_ONCE:
            self._count()

    def _count(self) -> None:
        """Count what has been collected."""
        if not self._collected:
            return
        batches, self._collected, self._collected_rows = self._collected, [], 0
        outputs = {name: torch.cat([batch[name] for batch, _ in batches]) for name in self.heads}
        targets = {name: torch.cat([batch[name] for _, batch in batches]) for name in self.heads}
        if self._loss_of is not None:
            self._loss += self._loss_of(outputs, targets)
        decoded = {name: head.decode(outputs[name]) for name, head in self.heads.items()}
        for name, metric in self._metrics.items():
            metric.update(decoded[name], targets[name])
        if self._joint_metric is not None:
            parts = [(self.heads[name], decoded[name], targets[name]) for name in self.joint]
            self._joint_metric.update(
                joint_number([head.predicted(found) for head, found, _ in parts], self._sizes),
                joint_number([_true_classes(head, truth) for head, _, truth in parts], self._sizes),
            )

    @property
    def invalid(self) -> int:
        """Rows that some target has no finite prediction for; they are in no score."""
        self._count()
        return max(metric.invalid for metric in self._metrics.values())

    @property
    def loss(self) -> Tensor:
        """The sum of `loss_of` over all rows (scalar, float64)."""
        self._count()
        return self._loss

    def compute(
        self, groups: Groups | None = None, seed: int = 0, resamples: int = 0
    ) -> dict[str, dict[str, Any]]:
        """`targets` by name and, where there is one, `joint`: each as in metrics.json.

        With `resamples` each has `intervals` too, [low, high] by score, from so many bootstrap samples; drawn are
        `groups`, one for each row in the order of the updates, or rows. Raises ValueError where the rows were not
        kept.
        """
        if resamples:
            require_rows(self.keep_rows)
        self._count()

        def result(metric: Metric) -> dict[str, Any]:
            found = metric.compute()
            if not found["samples"]:  # nothing was measured: an error of 0 would look perfect
                return found | {name: None for name in found if name in HIGHER_IS_BETTER}
            return found | ({"intervals": metric.intervals(groups, seed, resamples)} if resamples else {})

        found: dict[str, Any] = {"targets": {name: result(metric) for name, metric in self._metrics.items()}}
        if self._joint_metric is not None:
            found["joint"] = result(self._joint_metric)
        return found


def make_metric(head: Head, labels: Sequence[str], device: Device = "cpu", keep_rows: bool = False) -> Metric:
    """The metric for what a head decodes."""
    if head.type == "multilabel":
        return MultilabelMetric(labels, device, keep_rows)
    if head.type == "regression":
        return RegressionMetric(device, keep_rows)
    if head.type == "ranking":
        return RankingMetric(device, keep_rows)
    ordinal = head.type == "ordinal"
    return ClassMetric(head.classes, device, keep_rows, labels, head.predicted, ordinal)


def _true_classes(head: Head, truth: Tensor) -> Tensor:
    """A part of the joint class: labels as they are, a number by the edges of its head; -1 where unknown."""
    return head.predicted(truth) if head.type == "regression" else truth


def joint_labels(labels: Mapping[str, Sequence[str]], joint: Sequence[str]) -> list[str]:
    """Readable names of the joint classes in the order of their numbers: `wear / male / <30`."""
    names = [""]
    for target in joint:
        names = [f"{name} / {label}" if name else label for name in names for label in labels[target]]
    return names


def flat_scores(results: Mapping[str, Any]) -> dict[str, float]:
    """Every selectable number by name: `macro_f1` for the only target, else `age.mae`, `joint.macro_f1`. Targets
    without a known row have none."""
    targets = results["targets"]
    parts = {"joint.": results["joint"]} if "joint" in results else {}
    parts |= {"" if len(targets) == 1 else f"{target}.": scores for target, scores in targets.items()}
    return {
        f"{prefix}{name}": value
        for prefix, scores in parts.items()
        for name, value in scores.items()
        if name in HIGHER_IS_BETTER and value is not None
    }


def higher_is_better(metric: str) -> bool:
    """Whether more of a metric is better; a target's name may stand before it, as in `age.mae`."""
    name = metric.rpartition(".")[2]
    if name not in HIGHER_IS_BETTER:
        raise ValueError(f"found the metric {metric!r}; {nearest(name, HIGHER_IS_BETTER)}")
    return HIGHER_IS_BETTER[name]


def resolve_metric(
    metric: str, types: Mapping[str, str], joint: bool, classes: Mapping[str, int] | None = None
) -> str:
    """The name in `flat_scores` that `selection.metric` means. Raises ConfigError.

    `types`: every target's type. `classes`: how many classes they have, where known, so that a top-k accuracy
    of k classes or fewer is refused.
    """
    target, _, name = metric.rpartition(".")
    scores = {part: _scores_of(type_, (classes or {}).get(part)) for part, type_ in types.items()}
    scores |= {"joint": LABEL_SCORES} if joint else {}
    allowed = [f"{part}.{name}" for part, names in scores.items() if name in names]
    if not allowed:
        known = list(dict.fromkeys(score for names in scores.values() for score in names))
        raise ConfigError(f"selection.metric: found {metric!r}; {nearest(name, known)}")
    if target and target not in scores:
        raise ConfigError(f"selection.metric: no target {target!r}; {nearest(metric, allowed)}")
    if not target:
        target = "joint" if joint else next(iter(types)) if len(types) == 1 else ""
    if not target:
        raise ConfigError(
            f"selection.metric: {metric!r} of which target? There are several and no [joint]; allowed:"
            f" {', '.join(allowed)}"
        )
    if name not in scores[target]:
        what = "[joint]" if target == "joint" else f"the {types[target]} target {target!r}"
        raise ConfigError(
            f"selection.metric: {name!r} is no score of {what}; allowed: {', '.join(allowed)},"
            f" or of {what}: {', '.join(scores[target])}"
        )
    return name if len(types) == 1 and target != "joint" else f"{target}.{name}"


def _scores_of(type_: str, classes: int | None) -> tuple[str, ...]:
    """The scores that a target of this type has, without the top-k accuracies that would always be 1."""
    return tuple(name for name in SCORES[type_] if classes is None or TOP.get(name, 0) < classes)
