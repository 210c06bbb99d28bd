"""Metrics of class and ordinal targets, updated batch by batch: every score comes from counts over the whole set."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from classwise.metrics.bootstrap import (
    Groups,
    Resampling,
    Scorer,
    Weights,
    mean_intervals,
    sampling_units,
    within,
)
from classwise.metrics.confusion import Confusion, class_scores
from classwise.metrics.intervals import (
    CALIBRATION,
    EQUAL,
    MIN_MEAN_UNITS,
    MIN_UNITS,
    ONE_CLASS,
    RANKED,
    Intervals,
    confusion_intervals,
    share_interval,
    too_few,
    units_by_class,
    withheld_all,
)
from classwise.metrics.one_vs_rest import RANKED_CELLS, UNRANKED, RankedRows
from classwise.metrics.posterior import design_effects
from classwise.metrics.rows import (
    concat_rows,
    log_probabilities,
    marginal_sums,
    probability_statistics,
    probability_sums,
    require_rows,
)
from classwise.metrics.scores import (
    BINS,
    LABEL_SCORES,
    LOSS_LIMIT,
    SCORES,
    TOP,
    Array,
    as_floats,
    label_scores,
    level_scores,
    probability_scores,
)
from classwise.model.heads import ClassHead

Device = torch.device | str

MOST_COUNTED_AT_ONCE = 1000
"""Classes up to which every update is counted in the whole matrix, which then has 8 MB; of more the cells of the rows
are collected."""


class LabelMetric:
    """A confusion matrix, updated batch by batch: rows are the true class, columns the predicted one.

    An update never waits for the device: the counts stay in `cells` on `device`, which must be that of the tensors, and
    are copied to the host only when they are read. Of more than MOST_COUNTED_AT_ONCE classes the matrix is never made:
    the cell of every row is collected, and only the cells that occur are counted.

    Rows with label -1 count only in `masked`. Labeled rows with prediction -1 (no finite output, see `Head.predicted`)
    have no column: they count in `invalid` and not in `confusion`, so callers must check `invalid` before they trust a
    score. After a label or prediction outside -1 to K - 1, every result raises ValueError.

    `labels`: the names of the classes (default: their numbers). `keep_rows`: store the cell of every row, for
    `intervals`. Raises ValueError for fewer than one class.
    """

    def __init__(
        self, classes: int, device: Device = "cpu", keep_rows: bool = False, labels: Sequence[str] = ()
    ) -> None:
        if classes < 1:
            raise ValueError(f"classes: found {classes}, allowed: 1 or more")
        self.classes = classes
        self.keep_rows = keep_rows
        self.labels = list(labels) or [str(k) for k in range(classes)]
        # K + 3 rows and columns, so that nothing is counted in a wrong cell: below -1; -1; 0 to K - 1; K and above.
        self._side = classes + 3
        self._is_dense = classes <= MOST_COUNTED_AT_ONCE
        side = self._side if self._is_dense else 0
        self.cells = torch.zeros(side**2, dtype=torch.int64, device=device)
        self._collected: list[Tensor] = []
        self._rows: list[Tensor] = []

    def update(self, predicted_B: Tensor, labels_B: Tensor) -> None:
        """Count one batch: predicted classes (B,), -1 for none, and labels (B,), -1 where unknown.

        Raises ValueError for other shapes, and for labels that are not integers.
        """
        if predicted_B.ndim != 1 or predicted_B.shape != labels_B.shape or labels_B.is_floating_point():
            shapes = (
                f"predictions {tuple(predicted_B.shape)}, labels {tuple(labels_B.shape)}, {labels_B.dtype}"
            )
            raise ValueError(f"found {shapes}; allowed: both (B,), of integers")
        # Whatever is not a class goes to the outermost rows and columns.
        row_B = labels_B.long().clamp(-2, self.classes)
        column_B = predicted_B.long().clamp(-2, self.classes)
        cell_B = torch.add(column_B, row_B, alpha=self._side).add_(2 * (self._side + 1))
        if self._is_dense:
            self.cells.scatter_add_(0, cell_B, torch.ones_like(cell_B))
        else:
            self._collected.append(cell_B)
        if self.keep_rows:
            self._rows.append(cell_B)

    def merge(self, other: "LabelMetric") -> None:
        """Add the counts and the stored rows of another metric; ValueError for another number of classes."""
        if other.classes != self.classes:
            raise ValueError(f"found a metric of {other.classes} classes; this one has {self.classes}")
        self.cells = self.cells + other.cells.to(self.cells.device)
        self._collected += other._collected
        self._rows += other._rows

    def reset(self) -> None:
        """Start again from zero."""
        self.cells.zero_()
        self._collected.clear()
        self._rows.clear()

    @property
    def confusion(self) -> npt.NDArray[np.int64]:
        """Counts (K, K) of the labeled rows with a prediction: rows true, columns predicted."""
        return self.occurring.dense()

    @property
    def occurring(self) -> Confusion:
        """The cells of `confusion` that are not empty."""
        true_C, predicted_C, count_C = self._counts()
        counted_C = (true_C >= 0) & (predicted_C >= 0)
        return Confusion(
            self.classes, true=true_C[counted_C], predicted=predicted_C[counted_C], count=count_C[counted_C]
        )

    @property
    def invalid(self) -> int:
        """The number of labeled rows without a prediction: the model's output was not finite."""
        true_C, predicted_C, count_C = self._counts()
        return int(count_C[(true_C >= 0) & (predicted_C == -1)].sum())

    @property
    def masked(self) -> int:
        """The number of unlabeled rows."""
        true_C, _, count_C = self._counts()
        return int(count_C[true_C == -1].sum())

    def compute(self) -> dict[str, Any]:
        """The scores as in metrics.json: see `class_scores`."""
        return class_scores(self.occurring, self.labels)

    def intervals(
        self,
        groups: Groups | None = None,
        seed: int = 0,
        resamples: int = 1000,
        shares: Sequence[float] | None = None,
        ordinal: bool = False,
    ) -> Intervals:
        """The 95 % interval of every score that has one: see `confusion_intervals`. `groups`: one for each row of the
        updates. `shares` (K,): given class shares, of the scores of `scores_at_prior`. `ordinal`: also of the scores of
        levels.

        Raises ValueError if the rows were not kept.
        """
        true_N, predicted_N, counted_N = self.rows()
        true_N = true_N[counted_N]
        predicted_N = predicted_N[counted_N]
        units, unit_N = sampling_units(groups, counted_N)

        # Too little to say anything of any score.
        noun = "rows" if unit_N is None else "groups"
        if reason := too_few(units, MIN_UNITS, noun) or (ONE_CLASS if self.classes == 1 else ""):
            names = LABEL_SCORES if not ordinal else (*LABEL_SCORES, "mae_levels", "quadratic_kappa")
            return withheld_all(names, reason, self.classes)

        effects = None
        if unit_N is not None:
            effects = design_effects(true_N, true_N == predicted_N, unit_N, self.classes)
        return confusion_intervals(
            self.occurring,
            self.labels,
            effects=effects,
            units_K=units_by_class(true_N, unit_N, self.classes),
            noun=noun,
            seed=seed,
            draws=resamples,
            ordinal=ordinal,
            shares=shares,
        )

    def resampling(self, groups: Groups | None = None) -> Resampling:
        """The scores of any weights of the counted rows, and the units that a bootstrap draws: for the differences of
        several models on the same rows. Arguments and errors as of `intervals`."""
        true_N, predicted_N, counted_N = self.rows()
        marginals = marginal_sums(true_N[counted_N], predicted_N[counted_N], self.classes)
        units, unit_N = sampling_units(groups, counted_N)

        def scorer(weights_NR: Weights) -> dict[str, Array]:
            return label_scores(*marginals(weights_NR))

        return scorer, units, unit_N

    def counted_rows(self) -> npt.NDArray[np.bool_]:
        """Which rows of the updates (N,) are in `confusion`. Raises ValueError if the rows were not kept."""
        return self.rows()[2]

    def rows(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """For every row: the true class, the predicted class, and whether it is in `confusion`; each (N,).

        Raises ValueError if the rows were not kept.
        """
        require_rows(self.keep_rows)
        self._counts()
        # A cell is (true + 2) * side + (predicted + 2).
        row_N, column_N = divmod(concat_rows(self._rows, torch.int64), self._side)
        true_N = row_N - 2
        predicted_N = column_N - 2
        return true_N, predicted_N, (true_N >= 0) & (predicted_N >= 0)

    def _counts(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """True class, predicted class and count of every cell that is not empty, those of -1 among them; ValueError if
        a row is of no class and not of -1."""
        if self._is_dense:
            count_S = self.cells.cpu().numpy()
            cell_C = np.flatnonzero(count_S)
            count_C = count_S[cell_C]
        else:
            cell_C, count_C = np.unique(concat_rows(self._collected, torch.int64), return_counts=True)
        row_C, column_C = divmod(cell_C, self._side)
        true_C, predicted_C = row_C - 2, column_C - 2
        is_outside_C = (true_C < -1) | (true_C == self.classes)
        is_outside_C |= (predicted_C < -1) | (predicted_C == self.classes)
        if outside := int(count_C[is_outside_C].sum()):
            raise ValueError(f"{outside} rows have a label or prediction outside -1 to {self.classes - 1}")
        return true_C, predicted_C, count_C


class ClassMetric:
    """The counts of a class or ordinal target: a `LabelMetric`, sums of statistics of the probabilities, and the
    probabilities of every row for the scores of their order.

    `predicted`: from decoded outputs (B, K) to classes (B,), -1 for none (default: the largest logit). `ordinal`: the
    classes are ordered levels, and the scores include `mae_levels` and `quadratic_kappa`. `ranked_cells`: rows times
    classes up to which `roc_auc` and `average_precision` are computed. The other arguments are those of `LabelMetric`.
    """

    def __init__(
        self,
        classes: int,
        device: Device = "cpu",
        keep_rows: bool = False,
        labels: Sequence[str] = (),
        predicted: Callable[[Tensor], Tensor] | None = None,
        ordinal: bool = False,
        ranked_cells: int = RANKED_CELLS,
    ) -> None:
        self._counts = LabelMetric(classes, device=device, keep_rows=keep_rows, labels=labels)
        self._predicted = predicted or ClassHead(classes).predicted
        self._ordinal = ordinal
        self.classes = classes
        self.sums = torch.zeros(len(TOP) + 1 + BINS, dtype=torch.float64, device=device)
        self._rows: list[Tensor] = []
        self._ranked = RankedRows(ranked_cells)

    def update(self, logits_BK: Tensor, labels_B: Tensor) -> None:
        """Count one batch: logits or log-probabilities (B, K) and labels (B,), -1 where unknown.

        Raises ValueError for other shapes, and for labels that are not integers.
        """
        if logits_BK.ndim != 2 or logits_BK.shape[1] != self.classes:
            raise ValueError(f"found logits {tuple(logits_BK.shape)}; allowed: (B, {self.classes})")
        predicted_B = self._predicted(logits_BK)
        self._counts.update(predicted_B, labels_B)

        # The same rows as in the confusion matrix. Statistics of every row are made only if they are stored.
        counted_B = (labels_B >= 0) & (labels_B < self.classes) & (predicted_B >= 0)
        log_p_BK = log_probabilities(logits_BK)
        if self._counts.keep_rows:
            statistics_BS = probability_statistics(logits_BK, log_p_BK, predicted_B, labels_B, counted_B)
            self._rows.append(statistics_BS)
            self.sums += statistics_BS.sum(dim=0)
        else:
            self.sums += probability_sums(logits_BK, log_p_BK, predicted_B, labels_B, counted_B)

        # By log p, where probabilities near 1 keep their order.
        if not self._ranked.is_full:
            class_K = torch.arange(self.classes, device=labels_B.device)
            counted_BK = counted_B[:, None].expand_as(log_p_BK)
            self._ranked.update(log_p_BK.to(logits_BK.dtype), labels_B[:, None] == class_K, counted_BK)

    def merge(self, other: "ClassMetric") -> None:
        """Add the counts and the stored rows of another metric; ValueError for another number of classes."""
        self._counts.merge(other._counts)
        self.sums += other.sums.to(self.sums.device)
        self._rows += other._rows
        self._ranked.merge(other._ranked)

    def reset(self) -> None:
        """Start again from zero."""
        self._counts.reset()
        self.sums.zero_()
        self._rows.clear()
        self._ranked.reset()

    @property
    def counts(self) -> LabelMetric:
        """What is counted of the predicted classes alone."""
        return self._counts

    @property
    def confusion(self) -> npt.NDArray[np.int64]:
        """Counts (K, K) of the labeled rows with a prediction: rows true, columns predicted."""
        return self._counts.confusion

    @property
    def invalid(self) -> int:
        """The number of labeled rows without a prediction: the model's output was not finite."""
        return self._counts.invalid

    @property
    def masked(self) -> int:
        """The number of unlabeled rows."""
        return self._counts.masked

    def compute(self) -> dict[str, Any]:
        """The scores as in metrics.json: see `label_scores`, `probability_scores`, `one_vs_rest` and, for levels,
        `level_scores`. `not_computed` says why scores of the order of all rows are not there.

        Raises ValueError after a label or prediction that is not a class.
        """
        confusion = self._counts.occurring
        rows = np.asarray(confusion.count.sum())
        extra_scores = as_floats(probability_scores(self.sums.cpu().numpy(), rows, self.classes))
        ranked, columns = self._ranked_scores(has_rows=bool(rows))
        extra_scores |= ranked
        if self._ordinal:
            _, support_K, predicted_K = confusion.marginals()
            distance, square = map(np.asarray, confusion.distances())
            extra_scores |= as_floats(level_scores(support_K, predicted_K, distance, square))
        scores = class_scores(
            confusion,
            labels=self._counts.labels,
            extra_scores=extra_scores,
            type="ordinal" if self._ordinal else "class",
            class_columns=columns,
        )
        if self._ranked.is_full and self._ranked.limit:
            reason = UNRANKED.format(cells=self._ranked.cells, limit=self._ranked.limit)
            scores["not_computed"] = dict.fromkeys(("roc_auc", "average_precision"), reason)
        return scores

    def _ranked_scores(self, has_rows: bool) -> tuple[dict[str, float], dict[str, list[float | None]]]:
        """Macro averages of AUC and average precision, and the same of each class; empty where there are too many rows
        to rank. The AUC is averaged over the classes that have one: those with rows beside rows of others."""
        if self._ranked.is_full:
            return {}, {}
        found = self._ranked.compute() if has_rows else None
        if found is None:
            none: list[float | None] = [None] * self.classes
            return dict.fromkeys(("roc_auc", "average_precision"), 0.0), {"ap": none, "roc_auc": none}
        auc_K, ap_K = found
        scores = {} if np.isnan(auc_K).all() else {"roc_auc": float(np.nanmean(auc_K))}
        aucs = [None if auc != auc else auc for auc in auc_K.tolist()]  # NaN is not equal to itself
        return scores | {"average_precision": float(ap_K.mean())}, {"ap": ap_K.tolist(), "roc_auc": aucs}

    def intervals(self, groups: Groups | None = None, seed: int = 0, resamples: int = 1000) -> Intervals:
        """The 95 % interval of every score that has one: scores of predicted classes by `confusion_intervals`, top-k
        accuracies by `share_interval`, the log loss by `mean_intervals`. `groups`: one for each row of the updates.

        Raises ValueError if the rows were not kept.
        """
        # Scores of predicted classes; the calibration error never has an interval.
        found = self._counts.intervals(groups, seed, resamples, ordinal=self._ordinal)
        scores = dict(found.scores)
        withheld = dict(found.withheld) | {"calibration_error": CALIBRATION}
        if not self._ranked.is_full:
            withheld |= {"average_precision": RANKED}
            if np.count_nonzero(self._counts.occurring.support) > 1:  # else there is no AUC
                withheld |= {"roc_auc": RANKED}

        # Top-k accuracies are shares of the counted rows.
        counted_N = self._counts.rows()[2]
        units, unit_N = sampling_units(groups, counted_N)
        statistics_NS = concat_rows(self._rows, torch.float64, self.sums.shape)[counted_N]
        noun = "rows" if unit_N is None else "groups"
        reason = too_few(units, MIN_UNITS, noun)
        for column, (name, k) in enumerate(TOP.items()):
            if self.classes > k and reason:
                withheld[name] = reason
            elif self.classes > k:
                scores[name] = share_interval(statistics_NS[:, column] > 0, unit_N, seed, resamples)

        # The log loss is a mean, which may not vary.
        if reason := too_few(units, MIN_MEAN_UNITS, noun):
            withheld["log_loss"] = reason
        else:
            losses = {"log_loss": statistics_NS[:, len(TOP)]}
            ones_N = np.ones(len(statistics_NS))
            means = mean_intervals(losses, ones_N, units, unit_N, seed=seed, resamples=resamples)
            if "log_loss" in means:
                scores["log_loss"] = within(means["log_loss"], 0, LOSS_LIMIT)
            else:
                withheld["log_loss"] = EQUAL

        # In the order of metrics.json.
        order = SCORES["ordinal" if self._ordinal else "class"]
        return Intervals(
            {name: scores[name] for name in order if name in scores},
            {name: withheld[name] for name in order if name in withheld},
            found.classes,
        )

    def resampling(self, groups: Groups | None = None) -> Resampling:
        """The scores of any weights of the counted rows, and the units that a bootstrap draws: for the differences of
        several models on the same rows. Arguments and errors as of `intervals`."""
        units, unit_N = sampling_units(groups, self._counts.rows()[2])
        return self._scorer(), units, unit_N

    def counted_rows(self) -> npt.NDArray[np.bool_]:
        """Which rows of the updates (N,) are in the scores. Raises ValueError if the rows were not kept."""
        return self._counts.counted_rows()

    def _scorer(self) -> Scorer:
        """From weights (N, R) of the counted rows to every score (R,)."""
        true_N, predicted_N, counted_N = self._counts.rows()
        true_N = true_N[counted_N]
        predicted_N = predicted_N[counted_N]
        marginals = marginal_sums(true_N, predicted_N, self.classes)

        # One matrix of everything that is summed over rows, so that a resample is one product.
        steps_N = np.abs(true_N - predicted_N)[:, None]
        statistics_NS = concat_rows(self._rows, torch.float64, self.sums.shape)[counted_N]
        columns_NS = np.concatenate([statistics_NS, steps_N, steps_N**2], axis=1)

        def scorer(weights_NR: Weights) -> dict[str, Array]:
            hits_RK, support_RK, predicted_RK = marginals(weights_NR)
            sums_RS = weights_NR.T @ columns_NS
            scores = label_scores(hits_RK, support_RK, predicted_RK)
            scores |= probability_scores(sums_RS[:, :-2], support_RK.sum(axis=1), self.classes)
            if self._ordinal:
                scores |= level_scores(
                    support_RK, predicted_RK, distance=sums_RS[:, -2], square=sums_RS[:, -1]
                )
            return scores

        return scorer
