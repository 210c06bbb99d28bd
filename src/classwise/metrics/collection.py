"""The metrics of all targets of a model and of their joint class, and the names of their scores."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from classwise.metrics.bootstrap import Groups, Resampling
from classwise.metrics.classification import ClassMetric, Device, LabelMetric
from classwise.metrics.confusion import scores_of_present
from classwise.metrics.intervals import Intervals, with_intervals
from classwise.metrics.joint import joint_labels, joint_number
from classwise.metrics.mean import is_mean, mean_of, mean_scores
from classwise.metrics.multilabel import MultilabelMetric
from classwise.metrics.names import WORST, class_score, is_sum, ranked_targets, split_metric, terms_of
from classwise.metrics.one_vs_rest import EVERY_CELL, RANKED_CELLS
from classwise.metrics.outcomes import class_outcome, outcome_dtype
from classwise.metrics.own import OwnMetric
from classwise.metrics.prior import intervals_at_prior, scores_at_prior
from classwise.metrics.ranking import RankingMetric
from classwise.metrics.regression import RegressionMetric
from classwise.metrics.rows import require_rows
from classwise.metrics.scores import AT_PRIOR, HIGHER_IS_BETTER, is_own_metric
from classwise.model.heads import Head, label_cuts

ROWS_AT_ONCE = 4096
"""Collected batches are counted when they have this many rows."""
OUTPUTS_AT_ONCE = 4_000_000
"""Or this many outputs, of all targets together."""


class Metric(Protocol):
    """The counts of one target over a whole set."""

    def update(self, decoded: Tensor, targets: Tensor, /) -> None:
        """Count one batch of decoded outputs and targets, without waiting for the device."""

    def reset(self) -> None:
        """Start again from zero."""

    @property
    def invalid(self) -> int:
        """The number of labeled rows whose decoded output is not finite."""

    def compute(self) -> dict[str, Any]:
        """The scores as in metrics.json: plain values."""

    def intervals(self, groups: Groups | None = None, seed: int = 0, resamples: int = 1000) -> Intervals:
        """The 95 % interval of every score that has one. Raises ValueError if the rows were not kept."""

    def resampling(self, groups: Groups | None = None) -> Resampling:
        """The scores of any weights of the counted rows, and the units that a bootstrap draws. Raises ValueError if the
        rows were not kept."""

    def counted_rows(self) -> npt.NDArray[np.bool_]:
        """Which rows of the updates (N,) are in the scores. Raises ValueError if the rows were not kept."""


Outputs = Mapping[str, Tensor]
Targets = Mapping[str, Tensor]
LossOf = Callable[[Outputs, Targets], Tensor]


class MetricCollection:
    """The counts of every target and of the joint class, over a whole set.

    `heads`: by target, what its outputs mean. `labels`: the label list by target, for a regression with edges the names
    of its classes; no entry for a target without classes. `joint`: the targets read as one class, the first most
    significant. `keep_rows`: store the rows, for intervals. `record`: a score by its name in `flat_scores`, whose
    `outcomes` are stored. `selected`: the metric that selects; scores of the order of all rows are then computed for
    any number of rows where it needs them, and with `only_selected` nowhere else. `priors`: class shares (K,) by
    target, and of `joint`, at which these are also scored; see `scores_at_prior`. `own`: the user's own metrics of each
    target, as the config names them (own.py).

    Batches are collected, and counted ROWS_AT_ONCE rows at a time: counting takes a dozen operations per target, which
    cost the same for one batch as for a hundred.
    """

    def __init__(
        self,
        heads: Mapping[str, Head],
        labels: Mapping[str, Sequence[str]],
        joint: Sequence[str] = (),
        device: torch.device | str = "cpu",
        keep_rows: bool = False,
        record: str = "",
        selected: str = "",
        only_selected: bool = False,
        priors: Mapping[str, Sequence[float]] | None = None,
        own: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.heads = dict(heads)
        self.priors = dict(priors or {})
        self.labels = {name: list(names) for name, names in labels.items()}
        self.joint = tuple(joint)
        self.keep_rows = keep_rows

        self.selected = selected
        self._record = record
        self._outcomes: list[Tensor] = []

        # Batches that are not counted yet.
        self._collected: list[tuple[Outputs, Targets]] = []
        self._collected_rows = 0
        self._loss_of: LossOf | None = None
        self._loss = torch.zeros((), dtype=torch.float64, device=device)

        ranked = ranked_targets(selected)
        others = 0 if only_selected else RANKED_CELLS
        self._metrics = {
            name: make_metric(
                head,
                self.labels.get(name, ()),
                device=device,
                keep_rows=keep_rows,
                ranked_cells=EVERY_CELL if ranked & {name, "" if len(self.heads) == 1 else name} else others,
            )
            for name, head in self.heads.items()
        }
        self._own = {
            name: own_metrics((own or {}).get(name, ()), name, head, self.labels.get(name, ()))
            for name, head in self.heads.items()
        }
        self._rows_at_once = min(
            ROWS_AT_ONCE, OUTPUTS_AT_ONCE // max(1, sum(head.outputs for head in self.heads.values()))
        )
        self._sizes = [self.heads[name].classes for name in self.joint]
        self._joint_metric: LabelMetric | None = None
        if joint:
            names = joint_labels(self.labels, self.joint)
            self._joint_metric = LabelMetric(len(names), device=device, keep_rows=keep_rows, labels=names)

    def reset(self, loss_of: LossOf | None = None) -> None:
        """Start again from zero. `loss_of` (outputs, targets): a loss that is a sum over rows, added up in `loss`."""
        self._loss_of = loss_of
        self._loss.zero_()
        self._collected.clear()
        self._collected_rows = 0
        self._outcomes.clear()
        for metric in self._metrics.values():
            metric.reset()
        for metrics in self._own.values():
            for own in metrics:
                own.reset()
        if self._joint_metric is not None:
            self._joint_metric.reset()

    def update(self, outputs: Outputs, targets: Targets, copy: bool = True) -> None:
        """Add one batch of any size: by target the raw outputs (B, outputs), and the targets in the form that its
        metric takes.

        `copy=False` is for a caller that does not change these tensors until they are counted. Raises ValueError, now
        or when the batch is counted, for shapes that do not fit a metric.
        """
        rows = len(next(iter(outputs.values())))
        if rows > (most := max(1, self._rows_at_once)):  # a whole set with many classes
            for start in range(0, rows, most):
                part = slice(start, start + most)
                self.update(
                    {name: outputs[name][part] for name in self.heads},
                    {name: targets[name][part] for name in self.heads},
                    copy,
                )
            return
        if copy:
            outputs = {name: outputs[name].detach().clone() for name in self.heads}
            targets = {name: targets[name].clone() for name in self.heads}
        self._collected.append((outputs, targets))
        self._collected_rows += rows
        if self._collected_rows >= self._rows_at_once:
            self._count_collected()

    def _count_collected(self) -> None:
        """Count the collected batches as one."""
        if not self._collected:
            return
        # Taken off the list first: a batch that a metric refuses is not counted again.
        batches = self._collected
        self._collected = []
        self._collected_rows = 0
        outputs = {name: torch.cat([batch[name] for batch, _ in batches]) for name in self.heads}
        targets = {name: torch.cat([batch[name] for _, batch in batches]) for name in self.heads}

        if self._loss_of is not None:
            self._loss += self._loss_of(outputs, targets)
        decoded = {name: head.decode(outputs[name]) for name, head in self.heads.items()}
        for name, metric in self._metrics.items():
            metric.update(decoded[name], targets[name])
            for own in self._own[name]:
                own.update(decoded[name], targets[name])

        # The joint class follows from the classes of its targets, predicted and true.
        if self._joint_metric is not None:
            predicted = [self.heads[name].predicted(decoded[name]) for name in self.joint]
            true = [_true_classes(self.heads[name], targets[name]) for name in self.joint]
            self._joint_metric.update(joint_number(predicted, self._sizes), joint_number(true, self._sizes))
        if self._record:
            self._outcomes.append(self._outcome(decoded, targets))

    def _outcome(self, decoded: Mapping[str, Tensor], targets: Targets) -> Tensor:
        """(B,): what each row came to, as far as the recorded score needs it."""
        name, metric = split_metric(self._record)
        if name == "joint":
            predicted = [self.heads[part].predicted(decoded[part]) for part in self.joint]
            return joint_number(predicted, self._sizes)
        name = name or next(iter(self.heads))
        head = self.heads[name]
        if head.type == "regression":
            return decoded[name] - targets[name]
        return class_outcome(metric, decoded[name], head.predicted(decoded[name]), targets[name])

    @property
    def outcomes(self) -> Tensor | None:
        """What each row came to (N,), in the order of the updates; None where nothing is recorded."""
        self._count_collected()
        if not self._outcomes:
            return None
        name, metric = split_metric(self._record)
        if name == "joint":
            dtype = outcome_dtype(metric, "joint", math.prod(self._sizes))
        else:
            head = self.heads[name or next(iter(self.heads))]
            dtype = outcome_dtype(metric, head.type, head.classes)
        return torch.cat(self._outcomes).to(dtype).cpu()

    @property
    def invalid(self) -> int:
        """The largest number, over targets, of labeled rows without a finite prediction; they are in no score."""
        self._count_collected()
        return max(metric.invalid for metric in self._metrics.values())

    @property
    def loss(self) -> Tensor:
        """The sum of `loss_of` over all rows (scalar, float64)."""
        self._count_collected()
        return self._loss

    def compute(
        self,
        groups: Groups | None = None,
        seed: int = 0,
        resamples: int = 0,
        row_weights: npt.NDArray[np.float64] | None = None,
    ) -> dict[str, dict[str, Any]]:
        """The scores of all targets by name under `targets`, and of the joint class under `joint`, as in metrics.json.

        With `resamples` > 0 each, and each of its classes, has `intervals` too, [low, high] by score, from that many
        draws, and `no_interval`, why a score has none. The sampling units are the `groups`, one for each row in the
        order of the updates, or else the rows. What has class shares in `priors` is scored at these in `at_prior`.
        `row_weights` (N,), in the order of the updates: also the scores with these weights, in `row_weighted`. Where
        classes have no row, `absent` names them, and `macro_f1_present` is the mean F1 of the others.
        Raises ValueError if the rows were not kept.
        """
        if resamples or row_weights is not None:
            require_rows(self.keep_rows)
        self._count_collected()

        def scores_of(name: str, metric: Metric) -> dict[str, Any]:
            scores = metric.compute()
            if not scores["samples"]:  # nothing was measured: an error of 0 would look perfect
                return scores | {name: None for name in scores if name in HIGHER_IS_BETTER}
            scores |= scores_of_present(scores)
            if self._own.get(name):
                scores["own"] = {own.name: own.compute() for own in self._own[name]}
            if resamples:
                scores = with_intervals(scores, metric.intervals(groups, seed, resamples))
            if shares := self.priors.get(name):
                counts = metric.counts if isinstance(metric, ClassMetric) else metric
                assert isinstance(counts, LabelMetric)
                scores["at_prior"] = scores_at_prior(counts, shares)
                if resamples:
                    intervals = intervals_at_prior(counts, shares, groups, seed=seed, resamples=resamples)
                    scores["at_prior"] = with_intervals(scores["at_prior"], intervals)
            if row_weights is not None:
                scores["row_weighted"] = row_weighted(metric, row_weights)
            return scores

        results: dict[str, Any] = {
            "targets": {name: scores_of(name, metric) for name, metric in self._metrics.items()}
        }
        if self._joint_metric is not None:
            results["joint"] = scores_of("joint", self._joint_metric)
        return results


def row_weighted(metric: Metric | LabelMetric, weights_N: npt.NDArray[np.float64]) -> dict[str, float]:
    """The scores of a metric where a row of weight 2 counts like two rows; none where the counted rows have no weight.
    `weights_N`: of all rows of the updates."""
    weights_N = weights_N[metric.counted_rows()]
    if not weights_N.sum() > 0:
        return {}
    scorer = metric.resampling()[0]
    return {name: float(value[0]) for name, value in scorer(weights_N[:, None]).items()}


def own_metrics(references: Sequence[str], target: str, head: Head, labels: Sequence[str]) -> list[OwnMetric]:
    """The user's own metrics of a target. Raises TrustError, ConfigError."""
    return [
        OwnMetric(reference, f"targets.{target}.metrics[{number}]", head, labels)
        for number, reference in enumerate(references)
    ]


def make_metric(
    head: Head,
    labels: Sequence[str],
    device: Device = "cpu",
    keep_rows: bool = False,
    ranked_cells: int = RANKED_CELLS,
) -> Metric:
    """The metric for the decoded outputs of a head; `ranked_cells` as in ClassMetric."""
    if head.type == "multilabel":
        return MultilabelMetric(labels, device, keep_rows, label_cuts(head))
    if head.type == "regression":
        return RegressionMetric(device, keep_rows)
    if head.type == "ranking":
        return RankingMetric(device, keep_rows)
    return ClassMetric(
        head.classes,
        device=device,
        keep_rows=keep_rows,
        labels=labels,
        predicted=head.predicted,
        ordinal=head.type == "ordinal",
        ranked_cells=ranked_cells,
    )


def _true_classes(head: Head, targets: Tensor) -> Tensor:
    """The true classes (B,) of one target: labels unchanged, numbers by the edges of their head; -1 where unknown."""
    return head.predicted(targets) if head.type == "regression" else targets


def flat_scores(results: Mapping[str, Any], selected: str = "") -> dict[str, float]:
    """Scores by name: `macro_f1` for a single target, else `age.mae`; `joint.macro_f1`; and the `mean` of several
    targets. Those at the class shares of selection.prior end with `_at_prior`. Of the scores of single classes, and of
    shares of several scores, only the one that is `selected`.

    `results` as from `MetricCollection.compute`. Targets without a labeled row have no scores.
    """
    targets = results["targets"]
    by_prefix = {"joint.": results["joint"]} if "joint" in results else {}
    by_prefix |= {"" if len(targets) == 1 else f"{target}.": scores for target, scores in targets.items()}
    scores_by_name = {
        f"{prefix}{name}{suffix}": value
        for prefix, scores in by_prefix.items()
        for suffix, part in (("", scores), (AT_PRIOR, scores.get("at_prior", {})))
        for name, value in part.items()
        if name in HIGHER_IS_BETTER and value is not None
    }
    scores_by_name |= {
        f"{prefix}{name}": value
        for prefix, scores in by_prefix.items()
        for name, value in scores.get("own", {}).items()
        if value is not None
    }
    scores_by_name |= mean_scores(results)
    value = score_of(results, selected) if selected and selected not in scores_by_name else None
    return scores_by_name if value is None else {**scores_by_name, selected: value}


def score_of(results: Mapping[str, Any], metric: str) -> float | None:
    """The score of that full name (see `resolve_metric`), or None where nothing can be measured: no labeled row, or no
    row of the class. `results` as from `MetricCollection.compute`."""
    if is_mean(metric):
        return mean_scores(results).get(metric)
    if is_sum(metric):
        parts = parts_of(results, metric)
        return None if parts is None else mean_of(parts, [share for share, _ in terms_of(metric)])
    target, score = split_metric(metric)
    targets = results["targets"]
    scores = results["joint"] if target == "joint" else targets[target or next(iter(targets))]
    if not scores["samples"]:
        return None

    # Of one class, or of the worst one: what the table of classes says of those that have rows.
    of_class = class_score(score)
    if of_class is not None or score in WORST:
        name = of_class[0] if of_class else WORST[score]
        found = [
            row[name]
            for row in scores["per_class"]
            if row["support"] and row.get(name) is not None and (not of_class or row["label"] == of_class[1])
        ]
        return float(min(found)) if found else None
    if score.endswith(AT_PRIOR):
        scores, score = scores.get("at_prior", {}), score.removesuffix(AT_PRIOR)
    value = scores.get("own", {}).get(score) if is_own_metric(score) else scores.get(score)
    return None if value is None else float(value)


def parts_of(results: Mapping[str, Any], metric: str) -> dict[str, float] | None:
    """The scores that shares are taken of, by their names; None where one of them cannot be measured."""
    values = {term: score_of(results, term) for _, term in terms_of(metric)}
    known = {term: value for term, value in values.items() if value is not None}
    return known if len(known) == len(values) else None
