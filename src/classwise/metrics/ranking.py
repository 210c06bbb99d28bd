"""How well scores order the rows of each query."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from classwise.data.split import merge_groups
from classwise.metrics.bootstrap import Groups, Weights, bootstrap_intervals, sampling_units
from classwise.metrics.classification import Device, gathered, require_rows
from classwise.metrics.scores import SCORES, Array, plain, ratio

Ints = npt.NDArray[np.int64]


class RankingMetric:
    """Scores, relevance and query of every row, since a query's scores are about its rows together.

    An update waits for nothing. Rows whose relevance is -1 count nowhere. Known rows whose score is not finite
    stand in `invalid` and in no query. A relevance below -1 makes every count raise ValueError.
    """

    def __init__(self, device: Device = "cpu", keep_rows: bool = False) -> None:
        self.keep_rows = keep_rows
        self._scores: list[Tensor] = []
        self._targets: list[Tensor] = []
        self._bad = torch.zeros(2, dtype=torch.int64, device=device)  # invalid rows, stray rows

    def update(self, scores_B: Tensor, targets_B2: Tensor) -> None:
        """Count one batch: scores (B,) against relevance (0, 1, 2, ..; -1 unknown) and query number (B, 2)."""
        if scores_B.ndim != 1 or targets_B2.shape != (len(scores_B), 2):
            shapes = f"scores {tuple(scores_B.shape)}, targets {tuple(targets_B2.shape)}"
            raise ValueError(f"found {shapes}; allowed: (B,) and (B, 2)")
        relevance_B = targets_B2[:, 0]
        self._bad[0] += ((relevance_B != -1) & ~scores_B.isfinite()).sum()
        self._bad[1] += (relevance_B < -1).sum()
        self._scores.append(scores_B.detach())
        self._targets.append(targets_B2)

    def reset(self) -> None:
        """Start again from zero."""
        self._bad.zero_()
        self._scores.clear()
        self._targets.clear()

    @property
    def invalid(self) -> int:
        """Known rows without a finite score."""
        return int(self._bad[0])

    def compute(self) -> dict[str, Any]:
        """As in metrics.json: means over the queries with a relevant row, see `query_scores`; 0 without any."""
        scores_N, targets_N2, counted_N = self._rows()
        values_QS, relevant_Q, _ = query_scores(scores_N[counted_N], *targets_N2[counted_N].T)
        means = ratio(values_QS[relevant_Q].sum(axis=0), relevant_Q.sum())
        return {
            "type": "ranking",
            **plain(dict(zip(SCORES["ranking"], means, strict=True))),
            "queries": int(relevant_Q.sum()),
            "queries_without_relevant": int((~relevant_Q).sum()),
            "samples": int(counted_N.sum()),
        }

    def intervals(
        self, groups: Groups | None = None, seed: int = 0, resamples: int = 1000
    ) -> dict[str, list[float]]:
        """The 95 % interval of every score: see `bootstrap_intervals`. What is drawn are queries, or groups of them.

        `groups`: one for each row counted. Where queries and groups cross, all that hang together are drawn together.
        """
        require_rows(self.keep_rows)
        scores_N, targets_N2, counted_N = self._rows()
        values_QS, relevant_Q, first_Q = query_scores(scores_N[counted_N], *targets_N2[counted_N].T)
        group_Q = None
        if groups is not None:
            number_N = _group_numbers(groups, targets_N2[:, 1])
            group_Q = number_N[counted_N][first_Q]
        units, unit_Q = sampling_units(group_Q, relevant_Q)
        values_QS = np.concatenate([values_QS, np.ones_like(values_QS[:, :1])], axis=1)[relevant_Q]

        def scorer(weights_QR: Weights) -> dict[str, Array]:
            sums_RS = weights_QR.T @ values_QS
            means_RS = ratio(sums_RS[:, :-1], sums_RS[:, -1:])
            return dict(zip(SCORES["ranking"], means_RS.T, strict=True))

        return bootstrap_intervals(scorer, units, unit_Q, seed, resamples)

    def _rows(self) -> tuple[Array, Ints, npt.NDArray[np.bool_]]:
        """Scores (N,), relevance and query (N, 2) of all rows, and which of them count (N,)."""
        if stray := int(self._bad[1]):
            raise ValueError(f"{stray} rows have a relevance below 0 other than -1 for unknown")
        scores_N = gathered(self._scores, torch.float64)
        targets_N2 = gathered(self._targets, torch.int64, (2,))
        return scores_N, targets_N2, (targets_N2[:, 0] >= 0) & np.isfinite(scores_N)


def query_scores(
    scores_N: Array, relevance_N: Ints, query_N: Ints
) -> tuple[Array, npt.NDArray[np.bool_], Ints]:
    """The scores (Q, 5) of each query in the order of `SCORES["ranking"]`, whether it has a relevant row (Q,), and
    its first row (Q,).

    Rows are ordered by score, the highest first; r is the relevance at place i = 1, 2, .. The order of the table
    says nothing: for ndcg, rows of equal scores share the mean of their places' discounts, as scikit-learn has it;
    for mrr and map the relevant ones among them stand last. A row is relevant where r > 0.

    mrr: 1 / (first relevant place). map: the mean over relevant places of the share of relevant rows down to there.
    ndcg: sum r / log2(i + 1), over all places or the first 5 or 10, divided by the same of the best order (Järvelin
    and Kekäläinen 2002, section 2.2, with the discount of Burges et al. 2005; scikit-learn's `ndcg_score`).
    """
    queries, first_Q, number_N = np.unique(query_N, return_index=True, return_inverse=True)
    count = len(queries)

    def by_query(values_N: npt.NDArray[Any]) -> Array:
        return np.bincount(number_N, weights=values_N, minlength=count).astype(np.float64)

    place_N = _places(scores_N, number_N, relevance_N)
    relevant_N = relevance_N > 0
    best_N = _places(relevance_N, number_N, relevance_N)
    tied_N = np.unique(np.stack([number_N, scores_N], axis=1), axis=0, return_inverse=True)[1].reshape(-1)
    ties_T = np.maximum(np.bincount(tied_N), 1)
    # Of rows in order: how many relevant ones down to each, less those of the queries before.
    order = np.lexsort((place_N, number_N))
    running_N = np.empty(len(order))
    running_N[order] = np.cumsum(relevant_N[order])
    totals_Q = by_query(relevant_N)
    running_N -= (totals_Q.cumsum() - totals_Q)[number_N]
    reciprocal_N = np.where(relevant_N & (running_N == 1), 1 / place_N, 0.0)
    precision_N = np.where(relevant_N, running_N / place_N, 0.0)

    def ndcg(k: float) -> Array:
        discount_N, best_discount_N = (
            np.where(at_N <= k, 1 / np.log2(at_N + 1), 0.0) for at_N in (place_N, best_N)
        )
        shared_N = (np.bincount(tied_N, weights=discount_N) / ties_T)[tied_N]
        return ratio(by_query(relevance_N * shared_N), by_query(relevance_N * best_discount_N))

    average_Q = ratio(by_query(precision_N), totals_Q)
    columns = (by_query(reciprocal_N), ndcg(np.inf), average_Q, ndcg(5), ndcg(10))
    return np.stack(columns, axis=1), totals_Q > 0, first_Q


def _places(values_N: npt.NDArray[Any], number_N: Ints, relevance_N: Ints) -> Ints:
    """The place (N,), from 1, of each row in its query, the highest value first, of equal ones the most relevant
    last."""
    order = np.lexsort((relevance_N, -values_N, number_N))
    starts = np.flatnonzero(np.diff(number_N[order], prepend=-1))
    lengths = np.diff(starts, append=len(order))
    place_N = np.empty(len(order), dtype=np.int64)
    place_N[order] = np.arange(len(order)) - np.repeat(starts, lengths) + 1
    return place_N


def _group_numbers(groups: Groups, query_N: Ints) -> Ints:
    """What is drawn, as a number for each row (N,): groups and queries that share rows, directly or through others,
    are one."""
    if len(groups) != len(query_N):
        raise ValueError(f"found {len(groups)} groups for {len(query_N)} rows; allowed: one for each row")
    number_N = np.unique(np.asarray(groups), return_inverse=True)[1].astype(np.int64)
    together = merge_groups([str(number) for number in number_N], [str(query) for query in query_N])
    part_N = np.unique(np.asarray(together), return_inverse=True)[1]
    first_P = np.full(int(part_N.max(initial=-1)) + 1, len(number_N))
    np.minimum.at(first_P, part_N, number_N)
    return first_P[part_N]
