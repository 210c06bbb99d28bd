"""Metrics of a multilabel target: several independent labels per row."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from classwise.metrics.bootstrap import Groups, Resampling, Weights, sampling_units
from classwise.metrics.classification import Device
from classwise.metrics.intervals import MIN_UNITS, Intervals, too_few, withheld_all
from classwise.metrics.label_intervals import label_intervals
from classwise.metrics.one_vs_rest import one_vs_rest
from classwise.metrics.rows import concat_rows, require_rows
from classwise.metrics.scores import LOSS_LIMIT, SCORES, Array, as_floats, precision_recall_f1, ratio


class MultilabelMetric:
    """Logits and targets of every row, since average precision depends on the order of the logits over the whole set.

    An update never waits for the device. Cells whose target is NaN are unlabeled and not counted, nor are rows without
    a labeled cell. Rows with a labeled cell whose logit is not finite count in `invalid` and in no score. After a
    target other than 0, 1 and NaN, every result raises ValueError.

    `labels`: the names of the L labels. `keep_rows`: allow `intervals`. `cuts`: the logit from which on each label is
    predicted (default: 0). Raises ValueError without labels.
    """

    def __init__(
        self,
        labels: Sequence[str],
        device: Device = "cpu",
        keep_rows: bool = False,
        cuts: Sequence[float] = (),
    ) -> None:
        if not labels:
            raise ValueError("labels: found none, allowed: 1 or more")
        self.labels = list(labels)
        self.keep_rows = keep_rows
        self._cuts_L = np.array(cuts or [0.0])
        self._logits: list[Tensor] = []
        self._targets: list[Tensor] = []
        # Invalid rows, cells with an invalid target.
        self._invalid_counts = torch.zeros(2, dtype=torch.int64, device=device)

    def update(self, logits_BL: Tensor, targets_BL: Tensor) -> None:
        """Count one batch: logits (B, L) and targets (B, L) of 1, 0, or NaN where unknown.

        Raises ValueError for other shapes.
        """
        if logits_BL.shape != targets_BL.shape or logits_BL.shape[1:] != (len(self.labels),):
            shapes = f"logits {tuple(logits_BL.shape)}, targets {tuple(targets_BL.shape)}"
            raise ValueError(f"found {shapes}; allowed: both (B, {len(self.labels)})")
        labeled_BL = ~targets_BL.isnan()
        self._invalid_counts[0] += (labeled_BL & ~logits_BL.isfinite()).any(dim=1).sum()
        self._invalid_counts[1] += (labeled_BL & (targets_BL != 0) & (targets_BL != 1)).sum()
        self._logits.append(logits_BL.detach())
        self._targets.append(targets_BL)

    def reset(self) -> None:
        """Start again from zero."""
        self._invalid_counts.zero_()
        self._logits.clear()
        self._targets.clear()

    @property
    def invalid(self) -> int:
        """The number of rows with a labeled cell whose logit is not finite."""
        return int(self._invalid_counts[0])

    def compute(self) -> dict[str, Any]:
        """The scores as in metrics.json: see `multilabel_scores`. Without any row every score is 0.

        Raises ValueError after an invalid target.
        """
        # A weight of 1 for every row: the scores of the set itself, by the same code as those of the resamples.
        logits_NL, targets_NL, counted_N = self._rows()
        cells = prepare_cells(logits_NL[counted_N], targets_NL[counted_N], self._cuts_L)
        once_N1 = np.ones((len(cells.rows), 1))
        sums = cells.sums(once_N1)
        ap_RL = cells.average_precisions(once_N1)

        # One row per label for the table of labels.
        columns = [column[0].tolist() for column in (*precision_recall_f1(*sums[:3]), ap_RL)]
        auc, auc_L = _auc(logits_NL[counted_N], targets_NL[counted_N])
        columns += [auc_L, sums[1][0].astype(int).tolist()]
        keys = ("label", "precision", "recall", "f1", "ap", "roc_auc", "support")

        return {
            "type": "multilabel",
            "labels": self.labels,
            "samples": int(counted_N.sum()),
            **as_floats(multilabel_scores(*sums, ap_RL)),
            **auc,
            "per_class": [
                dict(zip(keys, row, strict=True)) for row in zip(self.labels, *columns, strict=True)
            ],
        }

    def intervals(self, groups: Groups | None = None, seed: int = 0, resamples: int = 1000) -> Intervals:
        """The 95 % interval of every score that has one: see `label_intervals`. `groups`: one for each row of the
        updates.

        Raises ValueError if the rows were not kept.
        """
        require_rows(self.keep_rows)
        logits_NL, targets_NL, counted_N = self._rows()
        units, unit_N = sampling_units(groups, counted_N)
        if reason := too_few(units, MIN_UNITS, "rows" if unit_N is None else "groups"):
            return withheld_all(SCORES["multilabel"], reason, len(self.labels))
        return label_intervals(
            logits_NL[counted_N],
            targets_NL[counted_N],
            labels=self.labels,
            units=units,
            unit_N=unit_N,
            seed=seed,
            draws=resamples,
            cuts_L=self._cuts_L,
        )

    def resampling(self, groups: Groups | None = None) -> Resampling:
        """The scores of any weights of the counted rows, and the units that a bootstrap draws: for the differences of
        several models on the same rows. Arguments and errors as of `intervals`."""
        require_rows(self.keep_rows)
        logits_NL, targets_NL, counted_N = self._rows()
        cells = prepare_cells(logits_NL[counted_N], targets_NL[counted_N], self._cuts_L)
        units, unit_N = sampling_units(groups, counted_N)

        def scorer(weights_NR: Weights) -> dict[str, Array]:
            return multilabel_scores(*cells.sums(weights_NR), cells.average_precisions(weights_NR))

        return scorer, units, unit_N

    def counted_rows(self) -> npt.NDArray[np.bool_]:
        """Which rows of the updates (N,) are in the scores. Raises ValueError if the rows were not kept."""
        require_rows(self.keep_rows)
        return self._rows()[2]

    def _rows(self) -> tuple[Array, Array, npt.NDArray[np.bool_]]:
        """Logits and targets (N, L) of all rows, and which of them count (N,)."""
        if invalid_targets := int(self._invalid_counts[1]):
            raise ValueError(f"{invalid_targets} cells have a target other than 0, 1, and NaN where unknown")
        shape = (len(self.labels),)
        logits_NL = concat_rows(self._logits, torch.float64, shape)
        targets_NL = concat_rows(self._targets, torch.float64, shape)
        labeled_NL = ~np.isnan(targets_NL)
        invalid_N = (labeled_NL & ~np.isfinite(logits_NL)).any(axis=1)
        return logits_NL, targets_NL, labeled_NL.any(axis=1) & ~invalid_N


def _auc(logits_NL: Array, targets_NL: Array) -> tuple[dict[str, float], list[float | None]]:
    """`roc_auc`, the mean over the labels that are true in some rows and not in others, if there are any; and that of
    each label, None where it has none."""
    if not len(logits_NL):
        return {"roc_auc": 0.0}, [None] * logits_NL.shape[1]
    auc_L, _ = one_vs_rest(logits_NL, targets_NL == 1, ~np.isnan(targets_NL))
    by_label = [None if auc != auc else auc for auc in auc_L.tolist()]  # NaN is not equal to itself
    return ({} if np.isnan(auc_L).all() else {"roc_auc": float(np.nanmean(auc_L))}), by_label


@dataclass(frozen=True)
class Cells:
    """What the scores need of every row: sums of `rows` by weights, and average precision by label.

    Columns of `rows` (N, 3 L + 5): L hits, L true, L predicted cells; then the F1 of the row, exact match, log loss
    summed over its labeled cells, their number, and 1.
    """

    rows: Array
    precisions: list[Callable[[Weights], Array]]

    def sums(self, weights_NR: Weights) -> tuple[Array, Array, Array, Array]:
        """Hits, true and predicted cells (R, L), and the sums of the other columns (R, 5), from weights (N, R)."""
        sums_RS = weights_NR.T @ self.rows
        labels = len(self.precisions)
        hits_RL, support_RL, predicted_RL, others_R5 = np.split(
            sums_RS, [labels, 2 * labels, 3 * labels], axis=1
        )
        return hits_RL, support_RL, predicted_RL, others_R5

    def average_precisions(self, weights_NR: Weights) -> Array:
        """The average precision of each label (R, L), from weights (N, R)."""
        return np.stack([precision(weights_NR) for precision in self.precisions], axis=1)


def prepare_cells(logits_NL: Array, targets_NL: Array, cuts_L: Array | float = 0.0) -> Cells:
    """The cells of logits and targets (N, L); a label is predicted where its logit is >= its cut, by default 0, a
    probability of 0.5."""
    # Unlabeled cells are neither true nor predicted.
    labeled_NL = ~np.isnan(targets_NL)
    true_NL = targets_NL == 1
    predicted_NL = (logits_NL >= cuts_L) & labeled_NL
    hits_NL = true_NL & predicted_NL

    # Log loss as log(1 + exp(-z)) of a true cell with logit z, and log(1 + exp(z)) of another.
    logits_NL = np.where(labeled_NL, logits_NL, 0.0)
    loss_NL = np.minimum(np.logaddexp(0, np.where(true_NL, -logits_NL, logits_NL)), LOSS_LIMIT)

    # The columns that are about whole rows.
    f1_N = ratio(2 * hits_NL.sum(axis=1), true_NL.sum(axis=1) + predicted_NL.sum(axis=1))
    exact_N = (true_NL == predicted_NL).all(axis=1)
    loss_N = (loss_NL * labeled_NL).sum(axis=1)
    others_N5 = np.stack([f1_N, exact_N, loss_N, labeled_NL.sum(axis=1), np.ones(len(f1_N))], axis=1)
    return Cells(
        np.concatenate([hits_NL, true_NL, predicted_NL, others_N5], axis=1, dtype=np.float64),
        [average_precision(*columns) for columns in zip(logits_NL.T, true_NL.T, labeled_NL.T, strict=True)],
    )


def multilabel_scores(
    hits_RL: Array, support_RL: Array, predicted_RL: Array, others_R5: Array, ap_RL: Array
) -> dict[str, Array]:
    """The scores (R,) from the sums of `Cells`.

    Micro: over all labeled cells together. Macro and `map`: the mean over all L labels, where a label without a true
    cell counts 0. `sample_f1`: the mean F1 of the rows, 0 where nothing is true or predicted. `exact_match`: the share
    of rows whose labeled cells are all correct. `log_loss`: the mean over labeled cells. All as in scikit-learn with
    zero_division=0.
    """
    macro = precision_recall_f1(hits_RL, support_RL, predicted_RL)
    micro = precision_recall_f1(*(counts.sum(axis=1) for counts in (hits_RL, support_RL, predicted_RL)))
    f1_R, exact_R, loss_R, cells_R, rows_R = others_R5.T
    return {
        "micro_f1": micro[2],
        "macro_f1": macro[2].mean(axis=1),
        "sample_f1": ratio(f1_R, rows_R),
        "micro_precision": micro[0],
        "micro_recall": micro[1],
        "macro_precision": macro[0].mean(axis=1),
        "macro_recall": macro[1].mean(axis=1),
        "exact_match": ratio(exact_R, rows_R),
        "map": ap_RL.mean(axis=1),
        "log_loss": ratio(loss_R, cells_R),
    }


def average_precision(
    scores_N: Array, true_N: npt.NDArray[np.bool_], labeled_N: npt.NDArray[np.bool_]
) -> Callable[[Weights], Array]:
    """A function from weights (N, R) to average precisions (R,): the sum over thresholds of (recall step) x precision.

    Thresholds are the distinct scores, as in scikit-learn's `average_precision_score`; 0 without a true row.
    """
    # The labeled rows, the highest score first.
    order = np.flatnonzero(labeled_N)
    order = order[np.argsort(-scores_N[order], kind="stable")]
    if not true_N[order].any():
        return lambda weights_NR: np.zeros(weights_NR.shape[1])

    # Only thresholds that a true row reaches matter, so the rows between two of them are added up as one segment.
    ties = np.flatnonzero(np.diff(scores_N[order], prepend=np.inf))
    reached = np.logical_or.reduceat(true_N[order], ties)
    ends = np.append(ties[1:], len(order))[reached]
    order = order[: ends[-1]]
    segment = np.searchsorted(ends, np.arange(len(order)), side="right")

    # Functions from weights to the weighted number of rows, and of true rows, of each segment.
    is_true = true_N[order]
    rows_of = _segment_sums(segment, order, segments=len(ends), rows=len(scores_N))
    true_rows_of = _segment_sums(segment[is_true], order[is_true], segments=len(ends), rows=len(scores_N))

    def precision(weights_NR: Weights) -> Array:
        true_SR = true_rows_of(weights_NR)
        above_SR = rows_of(weights_NR).cumsum(axis=0)
        # A resample without any row down to a threshold has no true one either: 0 / 1.
        precision_SR = true_SR.cumsum(axis=0) / np.maximum(above_SR, 1)
        return ratio((true_SR * precision_SR).sum(axis=0), true_SR.sum(axis=0))

    return precision


def _segment_sums(
    segment_M: npt.NDArray[np.int64], row_M: npt.NDArray[np.int64], segments: int, rows: int
) -> Callable[[Weights], Array]:
    """A function from weights (rows, R) to their sums (segments, R) over the rows of each segment."""
    from scipy.sparse import csr_array  # slow to import, and needed by this type of target only

    membership = csr_array((np.ones(len(row_M)), (segment_M, row_M)), shape=(segments, rows))
    return lambda weights_NR: np.asarray(membership @ weights_NR)
