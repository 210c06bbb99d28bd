"""Metrics of a ranking target: how well scores order the rows of each query."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from classwise.data.split import merge_groups
from classwise.metrics.bootstrap import Groups, Resampling, Weights, mean_intervals, sampling_units, within
from classwise.metrics.classification import Device
from classwise.metrics.intervals import EQUAL, MIN_MEAN_UNITS, Intervals, too_few, withheld_all
from classwise.metrics.rows import concat_rows, require_rows
from classwise.metrics.scores import SCORES, Array, as_floats, ratio

Ints = npt.NDArray[np.int64]


class RankingMetric:
    """Scores, relevance and query of every row, since a query is scored by all of its rows together.

    An update never waits for the device. Rows whose relevance is -1 are unlabeled and not counted. Labeled rows whose
    score is not finite count in `invalid` and in no query. After a relevance below -1, every result raises ValueError.

    `keep_rows`: allow `intervals`.
    """

    def __init__(self, device: Device = "cpu", keep_rows: bool = False) -> None:
        self.keep_rows = keep_rows
        self._scores: list[Tensor] = []
        self._targets: list[Tensor] = []
        # Invalid rows, rows with an invalid relevance.
        self._invalid_counts = torch.zeros(2, dtype=torch.int64, device=device)

    def update(self, scores_B: Tensor, targets_B2: Tensor) -> None:
        """Count one batch: scores (B,), and (B, 2) of relevance (0, 1, 2, ..; -1 where unknown) and query number.

        Raises ValueError for other shapes.
        """
        if scores_B.ndim != 1 or targets_B2.shape != (len(scores_B), 2):
            shapes = f"scores {tuple(scores_B.shape)}, targets {tuple(targets_B2.shape)}"
            raise ValueError(f"found {shapes}; allowed: (B,) and (B, 2)")
        relevance_B = targets_B2[:, 0]
        self._invalid_counts[0] += ((relevance_B != -1) & ~scores_B.isfinite()).sum()
        self._invalid_counts[1] += (relevance_B < -1).sum()
        self._scores.append(scores_B.detach())
        self._targets.append(targets_B2)

    def reset(self) -> None:
        """Start again from zero."""
        self._invalid_counts.zero_()
        self._scores.clear()
        self._targets.clear()

    @property
    def invalid(self) -> int:
        """The number of labeled rows without a finite score."""
        return int(self._invalid_counts[0])

    def compute(self) -> dict[str, Any]:
        """The scores as in metrics.json: means over the queries with a relevant row, see `query_scores`; 0 without any.

        Raises ValueError after a relevance below -1.
        """
        scores_N, targets_N2, counted_N = self._rows()
        values_QS, relevant_Q, _ = query_scores(scores_N[counted_N], *targets_N2[counted_N].T)
        means = ratio(values_QS[relevant_Q].sum(axis=0), relevant_Q.sum())
        return {
            "type": "ranking",
            **as_floats(dict(zip(SCORES["ranking"], means, strict=True))),
            "queries": int(relevant_Q.sum()),
            "queries_without_relevant": int((~relevant_Q).sum()),
            "samples": int(counted_N.sum()),
        }

    def intervals(self, groups: Groups | None = None, seed: int = 0, resamples: int = 1000) -> Intervals:
        """The 95 % interval of every score that has one: see `mean_intervals`. Units are queries or groups of queries.

        `groups`: one for each row of the updates. Groups that share a query form one unit. Raises ValueError if the
        rows were not kept.
        """
        require_rows(self.keep_rows)
        values_QS, units, unit_Q = self._queries(groups)

        names = SCORES["ranking"]
        if reason := too_few(units, MIN_MEAN_UNITS, "queries" if unit_Q is None else "groups"):
            return withheld_all(names, reason)
        values = dict(zip(names, values_QS.T, strict=True))
        ones_Q = np.ones(len(values_QS))
        means = mean_intervals(values, ones_Q, units, unit_Q, seed=seed, resamples=resamples)
        return Intervals(
            {name: within(interval, 0, 1) for name, interval in means.items()},
            {name: EQUAL for name in names if name not in means},
        )

    def resampling(self, groups: Groups | None = None) -> Resampling:
        """The scores of any weights of the counted rows, and the units that a bootstrap draws: for the differences of
        several models on the same rows. Arguments and errors as of `intervals`."""
        require_rows(self.keep_rows)
        values_QS, units, unit_Q = self._queries(groups)

        # A column of ones gives the number of queries of each resample.
        values_QS = np.concatenate([values_QS, np.ones_like(values_QS[:, :1])], axis=1)

        def scorer(weights_QR: Weights) -> dict[str, Array]:
            sums_RS = weights_QR.T @ values_QS
            means_RS = ratio(sums_RS[:, :-1], sums_RS[:, -1:])
            return dict(zip(SCORES["ranking"], means_RS.T, strict=True))

        return scorer, units, unit_Q

    def counted_rows(self) -> npt.NDArray[np.bool_]:
        """Which rows of the updates (N,) are in the scores. Raises ValueError if the rows were not kept."""
        require_rows(self.keep_rows)
        return self._rows()[2]

    def _queries(self, groups: Groups | None) -> tuple[Array, int, Ints | None]:
        """The scores (Q, 5) of the queries with a relevant row, and their sampling units as of `sampling_units`."""
        scores_N, targets_N2, counted_N = self._rows()
        values_QS, relevant_Q, first_Q = query_scores(scores_N[counted_N], *targets_N2[counted_N].T)

        # A query belongs to the group of its first row: groups that share a query are one.
        group_Q = None
        if groups is not None:
            number_N = _group_numbers(groups, targets_N2[:, 1])
            group_Q = number_N[counted_N][first_Q]
        return values_QS[relevant_Q], *sampling_units(group_Q, relevant_Q)

    def _rows(self) -> tuple[Array, Ints, npt.NDArray[np.bool_]]:
        """Scores (N,), relevance and query (N, 2) of all rows, and which of them count (N,)."""
        if invalid_relevances := int(self._invalid_counts[1]):
            raise ValueError(f"{invalid_relevances} rows have a relevance below 0 other than -1 for unknown")
        scores_N = concat_rows(self._scores, torch.float64)
        targets_N2 = concat_rows(self._targets, torch.int64, (2,))
        return scores_N, targets_N2, (targets_N2[:, 0] >= 0) & np.isfinite(scores_N)


def query_scores(
    scores_N: Array, relevance_N: Ints, query_N: Ints
) -> tuple[Array, npt.NDArray[np.bool_], Ints]:
    """The scores (Q, 5) of each query in the order of `SCORES["ranking"]`, whether it has a relevant row (Q,), and the
    index of its first row (Q,).

    Rows are ordered by score, the highest first; r is the relevance at rank i = 1, 2, .. The order of the table has no
    influence: for ndcg, rows of equal scores share the mean of their ranks' discounts, as in scikit-learn; for mrr and
    map, the relevant ones among them come last. A row is relevant where r > 0.

    mrr: 1 / (rank of the first relevant row). map: the mean over relevant rows of the share of relevant rows down to
    their rank. ndcg: sum r / log2(i + 1), over all ranks or the first 5 or 10, divided by the same of the best order
    (Järvelin and Kekäläinen 2002, section 2.2, with the discount of Burges et al. 2005; scikit-learn's `ndcg_score`).
    """
    queries, first_Q, number_N = np.unique(query_N, return_index=True, return_inverse=True)
    count = len(queries)

    def by_query(values_N: npt.NDArray[Any]) -> Array:
        return np.bincount(number_N, weights=values_N, minlength=count).astype(np.float64)

    rank_N = _ranks(scores_N, number_N, relevance_N)
    best_rank_N = _ranks(relevance_N, number_N, relevance_N)

    # The rows of one query with equal scores, numbered, and the number of rows of each tie.
    tied_N = np.unique(np.stack([number_N, scores_N], axis=1), axis=0, return_inverse=True)[1].reshape(-1)
    ties_T = np.maximum(np.bincount(tied_N), 1)

    # The number of relevant rows down to each row: a running count over all queries, minus that of the queries before.
    relevant_N = relevance_N > 0
    order = np.lexsort((rank_N, number_N))
    running_N = np.empty(len(order))
    running_N[order] = np.cumsum(relevant_N[order])
    totals_Q = by_query(relevant_N)
    running_N -= (totals_Q.cumsum() - totals_Q)[number_N]
    reciprocal_N = np.where(relevant_N & (running_N == 1), 1 / rank_N, 0.0)
    precision_N = np.where(relevant_N, running_N / rank_N, 0.0)

    def ndcg(k: float) -> Array:
        discount_N, best_discount_N = (
            np.where(at_N <= k, 1 / np.log2(at_N + 1), 0.0) for at_N in (rank_N, best_rank_N)
        )
        shared_N = (np.bincount(tied_N, weights=discount_N) / ties_T)[tied_N]
        return ratio(by_query(relevance_N * shared_N), by_query(relevance_N * best_discount_N))

    average_Q = ratio(by_query(precision_N), totals_Q)
    columns = (by_query(reciprocal_N), ndcg(np.inf), average_Q, ndcg(5), ndcg(10))
    return np.stack(columns, axis=1), totals_Q > 0, first_Q


def _ranks(values_N: npt.NDArray[Any], number_N: Ints, relevance_N: Ints) -> Ints:
    """The rank (N,), from 1, of each row in its query: highest value first, of equal ones the most relevant last."""
    order = np.lexsort((relevance_N, -values_N, number_N))
    starts = np.flatnonzero(np.diff(number_N[order], prepend=-1))
    lengths = np.diff(starts, append=len(order))
    rank_N = np.empty(len(order), dtype=np.int64)
    rank_N[order] = np.arange(len(order)) - np.repeat(starts, lengths) + 1
    return rank_N


def _group_numbers(groups: Groups, query_N: Ints) -> Ints:
    """The sampling unit of each row (N,): groups and queries that share rows, directly or through others, are one.

    Raises ValueError for another number of groups than rows.
    """
    if len(groups) != len(query_N):
        raise ValueError(f"found {len(groups)} groups for {len(query_N)} rows; allowed: one for each row")
    number_N = np.unique(np.asarray(groups), return_inverse=True)[1].astype(np.int64)
    merged = merge_groups([str(number) for number in number_N], [str(query) for query in query_N])

    # Numbered by the smallest group number in each unit, so that the draws do not depend on the order of the rows.
    unit_N = np.unique(np.asarray(merged), return_inverse=True)[1]
    smallest_U = np.full(int(unit_N.max(initial=-1)) + 1, len(number_N))
    np.minimum.at(smallest_U, unit_N, number_N)
    return smallest_U[unit_N]
