"""Counting predictions against labels, batch by batch: every score comes from counts over the whole set."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from classwise.metrics.bootstrap import (
    Groups,
    Scorer,
    Weights,
    bootstrap_intervals,
    sampling_units,
    summed_by,
)
from classwise.metrics.scores import (
    BINS,
    LOSS_LIMIT,
    TOP,
    Array,
    class_scores,
    label_scores,
    level_scores,
    plain,
    probability_scores,
)
from classwise.model.heads import ClassHead

Device = torch.device | str


class LabelMetric:
    """A confusion matrix that grows: rows are the true class, columns the predicted one.

    An update waits for nothing: the counts stay in `cells` on `device`, which has to be that of the tensors counted,
    and only reading them copies to the host. `cells` (int64) may be summed over processes as it is.

    Rows with label -1 count nowhere but in `masked`. Rows whose prediction is -1 (no finite answer, see
    `Head.predicted`) are in no column: they stand in `invalid` and not in `confusion`, so a caller must look at
    `invalid` before it trusts a score. A label or prediction that is no class at all makes every count raise
    ValueError.

    `labels`: the classes' names, else their numbers. `keep_rows`: remember every row's cell, for `intervals`.
    """

    def __init__(
        self, classes: int, device: Device = "cpu", keep_rows: bool = False, labels: Sequence[str] = ()
    ) -> None:
        if classes < 1:
            raise ValueError(f"classes: found {classes}, allowed: 1 or more")
        self.classes = classes
        self.keep_rows = keep_rows
        self.labels = list(labels) or [str(k) for k in range(classes)]
        # Three more than K on both sides, so that nothing can be counted in another's cell: below -1, -1,
        # then 0 to K - 1, then K and above.
        self._side = classes + 3
        self.cells = torch.zeros(self._side**2, dtype=torch.int64, device=device)
        self._rows: list[Tensor] = []

    def update(self, predicted_B: Tensor, labels_B: Tensor) -> None:
        """Count one batch: predicted classes (B,), -1 for none, against labels (B,), -1 where unknown."""
        if predicted_B.ndim != 1 or predicted_B.shape != labels_B.shape or labels_B.is_floating_point():
            shapes = (
                f"predictions {tuple(predicted_B.shape)}, labels {tuple(labels_B.shape)}, {labels_B.dtype}"
            )
            raise ValueError(f"found {shapes}; allowed: (B,) both, whole numbers")
        # Whatever is no class goes to the outer rows and columns, and so into nobody else's cell.
        row_B = labels_B.long().clamp(-2, self.classes)
        column_B = predicted_B.long().clamp(-2, self.classes)
        cell_B = torch.add(column_B, row_B, alpha=self._side).add_(2 * (self._side + 1))
        self.cells.scatter_add_(0, cell_B, torch.ones_like(cell_B))
        if self.keep_rows:
            self._rows.append(cell_B)

    def merge(self, other: "LabelMetric") -> None:
        """Add the counts, and the rows kept, of another metric of the same classes."""
        if other.classes != self.classes:
            raise ValueError(f"found a metric of {other.classes} classes; this one has {self.classes}")
        self.cells = self.cells + other.cells.to(self.cells.device)
        self._rows += other._rows

    def reset(self) -> None:
        """Start again from zero."""
        self.cells.zero_()
        self._rows.clear()

    @property
    def confusion(self) -> npt.NDArray[np.int64]:
        """Counts (K, K): rows true, columns predicted. Labeled rows with a prediction only."""
        return self._table()[2:-1, 2:-1].copy()

    @property
    def invalid(self) -> int:
        """Labeled rows without a prediction: the model's answer was not finite."""
        return int(self._table()[2:-1, 1].sum())

    @property
    def masked(self) -> int:
        """Rows without a label."""
        return int(self._table()[1].sum())

    def compute(self) -> dict[str, Any]:
        """As in metrics.json: see `class_scores`."""
        return class_scores(self.confusion, self.labels)

    def intervals(
        self, groups: Groups | None = None, seed: int = 0, resamples: int = 1000
    ) -> dict[str, list[float]]:
        """The 95 % interval of every score: see `bootstrap_intervals`. `groups`: one for each row counted."""
        true_N, predicted_N, counted_N = self.rows()
        marginals = marginal_sums(true_N[counted_N], predicted_N[counted_N], self.classes)
        units, unit_N = sampling_units(groups, counted_N)
        return bootstrap_intervals(lambda w: label_scores(*marginals(w)), units, unit_N, seed, resamples)

    def rows(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Of every row: the true class, the predicted class, whether it stands in `confusion`; each (N,)."""
        require_rows(self.keep_rows)
        self._table()
        true_N, predicted_N = (part - 2 for part in divmod(gathered(self._rows, torch.int64), self._side))
        return true_N, predicted_N, (true_N >= 0) & (predicted_N >= 0)

    def _table(self) -> npt.NDArray[np.int64]:
        table: npt.NDArray[Any] = self.cells.cpu().numpy().reshape(self._side, self._side)
        stray = int(table.sum() - table[1:-1, 1:-1].sum())
        if stray:
            raise ValueError(f"{stray} rows have a label or prediction outside -1 to {self.classes - 1}")
        return table


class ClassMetric:
    """All counts of a class or ordinal target: a `LabelMetric`, and sums over what the probabilities say.

    `predicted`: from what the head decodes (B, K) to classes (B,), -1 for none; the largest logit unless given.
    `ordinal`: the classes are levels in order, and the scores have `mae_levels` and `quadratic_kappa` too.
    """

    def __init__(
        self,
        classes: int,
        device: Device = "cpu",
        keep_rows: bool = False,
        labels: Sequence[str] = (),
        predicted: Callable[[Tensor], Tensor] | None = None,
        ordinal: bool = False,
    ) -> None:
        self._counts = LabelMetric(classes, device, keep_rows, labels)
        self._predicted = predicted or ClassHead(classes).predicted
        self._ordinal = ordinal
        self.classes = classes
        self.sums = torch.zeros(len(TOP) + 1 + BINS, dtype=torch.float64, device=device)
        self._rows: list[Tensor] = []

    def update(self, logits_BK: Tensor, labels_B: Tensor) -> None:
        """Count one batch: logits or log-probabilities (B, K) against labels (B,), -1 where unknown."""
        if logits_BK.ndim != 2 or logits_BK.shape[1] != self.classes:
            raise ValueError(f"found logits {tuple(logits_BK.shape)}; allowed: (B, {self.classes})")
        predicted_B = self._predicted(logits_BK)
        self._counts.update(predicted_B, labels_B)
        counted_B = (labels_B >= 0) & (labels_B < self.classes) & (predicted_B >= 0)
        if self._counts.keep_rows:
            statistics_BS = probability_statistics(logits_BK, predicted_B, labels_B, counted_B)
            self._rows.append(statistics_BS)
            self.sums += statistics_BS.sum(dim=0)
        else:
            self.sums += probability_sums(logits_BK, predicted_B, labels_B, counted_B)

    def merge(self, other: "ClassMetric") -> None:
        """Add the counts, and the rows kept, of another metric of the same classes."""
        self._counts.merge(other._counts)
        self.sums += other.sums.to(self.sums.device)
        self._rows += other._rows

    def reset(self) -> None:
        """Start again from zero."""
        self._counts.reset()
        self.sums.zero_()
        self._rows.clear()

    @property
    def confusion(self) -> npt.NDArray[np.int64]:
        """Counts (K, K): rows true, columns predicted. Labeled rows with a prediction only."""
        return self._counts.confusion

    @property
    def invalid(self) -> int:
        """Labeled rows without a prediction: the model's answer was not finite."""
        return self._counts.invalid

    @property
    def masked(self) -> int:
        """Rows without a label."""
        return self._counts.masked

    def compute(self) -> dict[str, Any]:
        """As in metrics.json: see `label_scores`, `probability_scores` and, of levels, `level_scores`."""
        confusion = self.confusion
        more = probability_scores(self.sums.cpu().numpy(), np.asarray(confusion.sum()), self.classes)
        if self._ordinal:
            steps_KK = np.abs(np.subtract.outer(range(self.classes), range(self.classes)))
            sums = [np.asarray((confusion * steps_KK**power).sum()) for power in (1, 2)]
            more |= level_scores(confusion.sum(axis=1), confusion.sum(axis=0), *sums)
        type_ = "ordinal" if self._ordinal else "class"
        return class_scores(confusion, self._counts.labels, plain(more), type_)

    def intervals(
        self, groups: Groups | None = None, seed: int = 0, resamples: int = 1000
    ) -> dict[str, list[float]]:
        """The 95 % interval of every score: see `bootstrap_intervals`. `groups`: one for each row counted."""
        units, unit_N = sampling_units(groups, self._counts.rows()[2])
        return bootstrap_intervals(self._scorer(), units, unit_N, seed, resamples)

    def _scorer(self) -> Scorer:
        true_N, predicted_N, counted_N = self._counts.rows()
        true_N, predicted_N = true_N[counted_N], predicted_N[counted_N]
        marginals = marginal_sums(true_N, predicted_N, self.classes)
        steps_N = np.abs(true_N - predicted_N)[:, None]
        statistics_NS = gathered(self._rows, torch.float64, self.sums.shape)[counted_N]
        columns_NS = np.concatenate([statistics_NS, steps_N, steps_N**2], axis=1)

        def scorer(weights_NR: Weights) -> dict[str, Array]:
            hits_RK, support_RK, predicted_RK = marginals(weights_NR)
            sums_RS = weights_NR.T @ columns_NS
            scores = label_scores(hits_RK, support_RK, predicted_RK)
            scores |= probability_scores(sums_RS[:, :-2], support_RK.sum(axis=1), self.classes)
            if self._ordinal:
                scores |= level_scores(support_RK, predicted_RK, sums_RS[:, -2], sums_RS[:, -1])
            return scores

        return scorer


def probability_statistics(
    logits_BK: Tensor, predicted_B: Tensor, labels_B: Tensor, counted_B: Tensor
) -> Tensor:
    """What `probability_scores` needs of each row: float64 (B, 3 + BINS), zeros for rows that do not count.

    Columns: 1 where the label is among the 3, then the 5, largest logits (of equal ones the first); -log p(label),
    at most LOSS_LIMIT; and in the column of its bin ((b - 1) / BINS, b / BINS] the confidence, p(predicted), less
    1 for a hit (Guo et al. 2017, section 2).
    """
    rank_B, loss_B, bin_B, gap_B = _parts(logits_BK, predicted_B, labels_B)
    gaps_BN = torch.zeros(len(gap_B), BINS, dtype=torch.float64, device=gap_B.device)
    gaps_BN.scatter_(1, bin_B[:, None], gap_B[:, None])
    hits_BT = torch.stack([(rank_B < k).double() for k in TOP.values()], dim=1)
    return torch.where(counted_B[:, None], torch.cat([hits_BT, loss_B[:, None], gaps_BN], dim=1), 0.0)


def probability_sums(logits_BK: Tensor, predicted_B: Tensor, labels_B: Tensor, counted_B: Tensor) -> Tensor:
    """The sums of `probability_statistics` over the rows, (3 + BINS,), in half of the time."""
    rank_B, loss_B, bin_B, gap_B = _parts(logits_BK, predicted_B, labels_B)
    hits = [((rank_B < k) & counted_B).sum(dim=0, keepdim=True, dtype=torch.float64) for k in TOP.values()]
    gaps_N = torch.zeros(BINS, dtype=torch.float64, device=gap_B.device)
    gaps_N.scatter_add_(0, bin_B, torch.where(counted_B, gap_B, 0.0))
    return torch.cat([*hits, torch.where(counted_B, loss_B, 0.0).sum(dim=0, keepdim=True), gaps_N])


def _parts(logits_BK: Tensor, predicted_B: Tensor, labels_B: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """By row: how many logits stand before the label's, -log p(label), the bin of the confidence, and its gap."""
    classes = logits_BK.shape[1]
    label_B1 = labels_B.long().clamp(0, classes - 1)[:, None]
    predicted_B1 = predicted_B.clamp(0, classes - 1)[:, None]
    own_B1 = logits_BK.gather(1, label_B1)
    before_BK = torch.arange(classes, device=logits_BK.device) < label_B1
    rank_B = torch.where(before_BK, logits_BK >= own_B1, logits_BK > own_B1).sum(dim=1)
    whole_B1 = logits_BK.double().logsumexp(dim=1, keepdim=True)
    loss_B1 = (whole_B1 - own_B1).clamp(max=LOSS_LIMIT)
    confidence_B1 = (logits_BK.gather(1, predicted_B1) - whole_B1).exp()
    bin_B1 = (confidence_B1.nan_to_num() * BINS).ceil().long().clamp(1, BINS) - 1
    gap_B1 = confidence_B1 - (predicted_B1 == label_B1).double()
    return rank_B, loss_B1.squeeze(1), bin_B1.squeeze(1), gap_B1.squeeze(1)


def marginal_sums(
    true_N: npt.NDArray[np.int64], predicted_N: npt.NDArray[np.int64], classes: int
) -> Callable[[Weights], tuple[Array, Array, Array]]:
    """A function from weights (N, R) of the rows to hits, true rows and predicted rows (R, K) of each class.

    By way of the cells that occur, which are far fewer than rows, and never of (R, K, K).
    """
    cells, cell_N = np.unique(true_N * classes + predicted_N, return_inverse=True)
    row_C, column_C = divmod(cells, classes)
    in_cells = summed_by(cell_N, len(cells))
    in_rows, in_columns = summed_by(row_C, classes), summed_by(column_C, classes)

    def marginals(weights_NR: Weights) -> tuple[Array, Array, Array]:
        counts_CR = in_cells(weights_NR)
        hits_CR = counts_CR * (row_C == column_C)[:, None]
        return in_rows(hits_CR).T, in_rows(counts_CR).T, in_columns(counts_CR).T

    return marginals


def gathered(parts: Sequence[Tensor], dtype: torch.dtype, shape: Sequence[int] = ()) -> npt.NDArray[Any]:
    """Batches (B, *shape) joined on the host as one array (N, *shape)."""
    joined = torch.cat(list(parts)) if parts else torch.zeros(0, *shape)
    rows: npt.NDArray[Any] = joined.detach().to(dtype).cpu().numpy()
    return rows


def require_rows(keep_rows: bool) -> None:
    """Raise ValueError where there is nothing to resample."""
    if not keep_rows:
        raise ValueError("intervals: the rows were not kept; allowed: a metric made with keep_rows=True")
