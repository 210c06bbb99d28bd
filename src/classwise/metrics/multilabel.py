"""Scores of several independent labels a row."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from classwise.metrics.bootstrap import Groups, Weights, bootstrap_intervals, sampling_units
from classwise.metrics.classification import Device, gathered, require_rows
from classwise.metrics.scores import LOSS_LIMIT, Array, plain, precision_recall_f1, ratio


class MultilabelMetric:
    """Logits and truth of every row, since average precision is about their order over the whole set.

    An update waits for nothing. Cells whose truth is NaN count nowhere, rows without a known cell neither. Rows
    with a known cell whose logit is not finite stand in `invalid` and in no score. A truth other than 0, 1 and NaN
    makes every count raise ValueError.
    """

    def __init__(self, labels: Sequence[str], device: Device = "cpu", keep_rows: bool = False) -> None:
        if not labels:
            raise ValueError("labels: found none, allowed: 1 or more")
        self.labels = list(labels)
        self.keep_rows = keep_rows
        self._logits: list[Tensor] = []
        self._targets: list[Tensor] = []
        self._bad = torch.zeros(2, dtype=torch.int64, device=device)  # invalid rows, stray cells

    def update(self, logits_BL: Tensor, targets_BL: Tensor) -> None:
        """Count one batch: logits (B, L) against targets (B, L): 1, 0, or NaN where unknown."""
        if logits_BL.shape != targets_BL.shape or logits_BL.shape[1:] != (len(self.labels),):
            shapes = f"logits {tuple(logits_BL.shape)}, targets {tuple(targets_BL.shape)}"
            raise ValueError(f"found {shapes}; allowed: (B, {len(self.labels)}) both")
        known_BL = ~targets_BL.isnan()
        self._bad[0] += (known_BL & ~logits_BL.isfinite()).any(dim=1).sum()
        self._bad[1] += (known_BL & (targets_BL != 0) & (targets_BL != 1)).sum()
        self._logits.append(logits_BL.detach())
        self._targets.append(targets_BL)

    def reset(self) -> None:
        """Start again from zero."""
        self._bad.zero_()
        self._logits.clear()
        self._targets.clear()

    @property
    def invalid(self) -> int:
        """Rows with a known cell whose logit is not finite."""
        return int(self._bad[0])

    def compute(self) -> dict[str, Any]:
        """As in metrics.json: see `multilabel_scores`. Without any row every score is 0."""
        logits_NL, targets_NL, counted_N = self._rows()
        cells = prepared_cells(logits_NL[counted_N], targets_NL[counted_N])
        once = np.ones((len(cells.rows), 1))
        sums, ap_RL = cells.sums(once), cells.average_precisions(once)
        columns = [column[0].tolist() for column in (*precision_recall_f1(*sums[:3]), ap_RL)]
        columns.append(sums[1][0].astype(int).tolist())
        keys = ("label", "precision", "recall", "f1", "ap", "support")
        return {
            "type": "multilabel",
            "labels": self.labels,
            "samples": int(counted_N.sum()),
            **plain(multilabel_scores(*sums, ap_RL)),
            "per_class": [
                dict(zip(keys, row, strict=True)) for row in zip(self.labels, *columns, strict=True)
            ],
        }

    def intervals(
        self, groups: Groups | None = None, seed: int = 0, resamples: int = 1000
    ) -> dict[str, list[float]]:
        """The 95 % interval of every score: see `bootstrap_intervals`. `groups`: one for each row counted."""
        require_rows(self.keep_rows)
        logits_NL, targets_NL, counted_N = self._rows()
        cells = prepared_cells(logits_NL[counted_N], targets_NL[counted_N])
        units, unit_N = sampling_units(groups, counted_N)
        return bootstrap_intervals(
            lambda w: multilabel_scores(*cells.sums(w), cells.average_precisions(w)),
            units,
            unit_N,
            seed,
            resamples,
        )

    def _rows(self) -> tuple[Array, Array, npt.NDArray[np.bool_]]:
        """Logits and targets (N, L) of all rows, and which of them count (N,)."""
        if stray := int(self._bad[1]):
            raise ValueError(f"{stray} cells have a truth other than 0 and 1, and NaN where unknown")
        shape = (len(self.labels),)
        logits_NL = gathered(self._logits, torch.float64, shape)
        targets_NL = gathered(self._targets, torch.float64, shape)
        known_NL = ~np.isnan(targets_NL)
        invalid_N = (known_NL & ~np.isfinite(logits_NL)).any(axis=1)
        return logits_NL, targets_NL, known_NL.any(axis=1) & ~invalid_N


@dataclass(frozen=True)
class Cells:
    """What the scores need of every row: sums of `rows` by weights, and average precision by label.

    Columns of `rows` (N, 3 L + 5): L hits, L true, L predicted cells; then F1 of the row, exact match, log loss
    summed over its known cells, their number, and 1.
    """

    rows: Array
    precisions: list[Callable[[Weights], Array]]

    def sums(self, weights_NR: Weights) -> tuple[Array, Array, Array, Array]:
        """Hits, true and predicted cells (R, L), and the sums of the other columns (R, 5)."""
        sums_RS = weights_NR.T @ self.rows
        labels = len(self.precisions)
        hits, support, predicted, rest = np.split(sums_RS, [labels, 2 * labels, 3 * labels], axis=1)
        return hits, support, predicted, rest

    def average_precisions(self, weights_NR: Weights) -> Array:
        """(R, L)."""
        return np.stack([precision(weights_NR) for precision in self.precisions], axis=1)


def prepared_cells(logits_NL: Array, targets_NL: Array) -> Cells:
    """From logits and targets (N, L); a label is predicted where its probability is >= 0.5, its logit >= 0."""
    known_NL = ~np.isnan(targets_NL)
    true_NL, predicted_NL = targets_NL == 1, (logits_NL >= 0) & known_NL
    hits_NL = true_NL & predicted_NL
    logits_NL = np.where(known_NL, logits_NL, 0.0)
    loss_NL = np.minimum(np.logaddexp(0, np.where(true_NL, -logits_NL, logits_NL)), LOSS_LIMIT)
    f1_N = ratio(2 * hits_NL.sum(axis=1), true_NL.sum(axis=1) + predicted_NL.sum(axis=1))
    exact_N = (true_NL == predicted_NL).all(axis=1)
    summed = [(loss_NL * known_NL).sum(axis=1), known_NL.sum(axis=1)]
    others_N5 = np.stack([f1_N, exact_N, *summed, np.ones(len(f1_N))], axis=1)
    return Cells(
        np.concatenate([hits_NL, true_NL, predicted_NL, others_N5], axis=1, dtype=np.float64),
        [average_precision(*columns) for columns in zip(logits_NL.T, true_NL.T, known_NL.T, strict=True)],
    )


def multilabel_scores(
    hits_RL: Array, support_RL: Array, predicted_RL: Array, rest_R5: Array, ap_RL: Array
) -> dict[str, Array]:
    """The scores (R,) of `Cells`' sums.

    Micro: over all known cells together. Macro and `map`: the mean over all L labels, where a label without a true
    cell counts 0. `sample_f1`: the mean of each row's F1, 0 where nothing is true or predicted. `exact_match`: rows
    whose known cells are all right. `log_loss`: the mean over known cells. All as in scikit-learn with
    zero_division=0.
    """
    macro = precision_recall_f1(hits_RL, support_RL, predicted_RL)
    micro = precision_recall_f1(*(counts.sum(axis=1) for counts in (hits_RL, support_RL, predicted_RL)))
    f1_R, exact_R, loss_R, cells_R, rows_R = rest_R5.T
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
    scores_N: Array, true_N: npt.NDArray[np.bool_], known_N: npt.NDArray[np.bool_]
) -> Callable[[Weights], Array]:
    """A function from weights (N, R) to average precisions (R,): sum over thresholds of (recall step) x precision.

    Thresholds are the distinct scores, as in scikit-learn's `average_precision_score`; 0 without a true row.
    """
    order = np.flatnonzero(known_N)
    order = order[np.argsort(-scores_N[order], kind="stable")]
    if not true_N[order].any():
        return lambda weights_NR: np.zeros(weights_NR.shape[1])
    # The precision counts only at thresholds that a true row reaches, so the rows between two of them are one sum.
    ties = np.flatnonzero(np.diff(scores_N[order], prepend=np.inf))
    reached = np.logical_or.reduceat(true_N[order], ties)
    ends = np.append(ties[1:], len(order))[reached]
    order = order[: ends[-1]]
    segment = np.searchsorted(ends, np.arange(len(order)), side="right")
    among_true = true_N[order]
    above = _row_sums(segment, order, len(ends), len(scores_N))
    true = _row_sums(segment[among_true], order[among_true], len(ends), len(scores_N))

    def precision(weights_NR: Weights) -> Array:
        true_SR, above_SR = true(weights_NR), above(weights_NR).cumsum(axis=0)
        # Without any row above a threshold there is none at it either: 0 / 1.
        precision_SR = true_SR.cumsum(axis=0) / np.maximum(above_SR, 1)
        return ratio((true_SR * precision_SR).sum(axis=0), true_SR.sum(axis=0))

    return precision


def _row_sums(
    segment_M: npt.NDArray[np.int64], row_M: npt.NDArray[np.int64], segments: int, rows: int
) -> Callable[[Weights], Array]:
    """A function from weights (rows, R) to their sums (segments, R) over the rows of each segment."""
    from scipy.sparse import csr_array  # slow to import, and needed by this type of target only

    picked = csr_array((np.ones(len(row_M)), (segment_M, row_M)), shape=(segments, rows))
    return lambda weights_NR: np.asarray(picked @ weights_NR)
