"""Losses of a ranking: only the order of the rows of one query counts, never the scores themselves.

Targets are whole numbers (B, 2): the graded relevance (0, 1, 2, ..; -1 unknown) and the number of the query.
Outputs are scores (B, 1). Both losses add up over queries and so over micro-batches, as long as no query is cut:
the rows of one query that stand in two micro-batches would never be compared.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classwise.losses.checks import check_column
from classwise.losses.labels import IGNORED, at_least_float32
from classwise.losses.normalizer import Normalizer


class PairwiseLogistic(nn.Module):
    """log(1 + exp(s_j - s_i)) over the pairs (i, j) of one query of which i is the more relevant.

    Burges et al. 2005, 'Learning to rank using gradient descent' (RankNet), equation 3 with a certain order.
    Divided by the number of such pairs, so a query counts by how many comparisons it holds.
    """

    additive: bool = True
    terms: int = 1
    soft_targets: bool = False
    likelihood_scale: float = 1.0

    def normalizer(self, targets_B2: Tensor, complete: bool = False) -> Normalizer:
        """The number of pairs."""
        # Pairs of one query, less those of equal relevance: (sum n^2 - sum n_r^2) / 2. Validation asks for the
        # normalizer of a whole set, whose rows cannot be compared each with each.
        of_query_B = _run_lengths(targets_B2[:, 1:], targets_B2[:, 0])
        alike_B = _run_lengths(targets_B2.flip(1), targets_B2[:, 0])
        return Normalizer(((of_query_B**2).sum() - (alike_B**2).sum()).reshape(1) / 2)

    def forward(self, scores_B1: Tensor, targets_B2: Tensor, normalizer: Normalizer | None = None) -> Tensor:
        """The sum over the pairs, divided by `normalizer` (1,)."""
        scores_B = _checked(scores_B1, targets_B2)
        # Entry (i, j) is s_j - s_i.
        total = (F.softplus(scores_B - scores_B.unsqueeze(1)) * _pairs(targets_B2)).sum()
        normalizer = self.normalizer(targets_B2) if normalizer is None else normalizer
        return normalizer.divide(total)


class ListNet(nn.Module):
    """The cross entropy between softmax(relevance) and softmax(score) over the rows of each query.

    Cao et al. 2007, 'Learning to rank: from pairwise approach to listwise approach', section 4: the
    probabilities of standing first. Divided by the number of queries with two known rows or more; with one there
    is nothing to order.
    """

    additive: bool = True
    terms: int = 1
    soft_targets: bool = False
    likelihood_scale: float = 1.0

    def normalizer(self, targets_B2: Tensor, complete: bool = False) -> Normalizer:
        """The number of queries with two known rows or more."""
        orderable_Q = _run_lengths(targets_B2[:, 1:], targets_B2[:, 0]) > 1
        return Normalizer(orderable_Q.sum(dtype=torch.float64).reshape(1))

    def forward(self, scores_B1: Tensor, targets_B2: Tensor, normalizer: Normalizer | None = None) -> Tensor:
        """The sum over the queries, divided by `normalizer` (1,)."""
        scores_B = _checked(scores_B1, targets_B2)
        together_BB = _together(targets_B2)
        counts_B = together_BB.sum(dim=1) > 1
        wanted_B = _log_softmax(targets_B2[:, 0].to(scores_B.dtype), together_BB).exp()
        loss_B = -wanted_B * _log_softmax(scores_B, together_BB)
        normalizer = self.normalizer(targets_B2) if normalizer is None else normalizer
        return normalizer.divide(torch.where(counts_B, loss_B, 0).sum())


def _checked(scores_B1: Tensor, targets_B2: Tensor) -> Tensor:
    """The scores (B,), at least in float32."""
    what = "targets (B, 2) of whole numbers: relevance, -1 where unknown, and query"
    check_column(scores_B1, targets_B2, (len(targets_B2), 2), what, floating=False)
    return at_least_float32(scores_B1).squeeze(1)


def _run_lengths(keys_BC: Tensor, relevance_B: Tensor) -> Tensor:
    """How many known rows share each key (columns, the first counts most): float64 (B,), 0 where there are no more
    keys. By sorting, and without asking the device how many keys there are."""
    order_B = torch.arange(len(keys_BC), device=keys_BC.device)
    for column_B in keys_BC.flip(1).unbind(1):
        order_B = order_B[column_B[order_B].argsort(stable=True)]
    sorted_BC = keys_BC[order_B]
    starts_B = torch.ones(len(order_B), dtype=torch.int64, device=keys_BC.device)
    starts_B[1:] = (sorted_BC[1:] != sorted_BC[:-1]).any(dim=1)
    known_B = (relevance_B[order_B] != IGNORED).double()
    return torch.zeros_like(known_B).scatter_add(0, starts_B.cumsum(0) - 1, known_B)


def _together(targets_B2: Tensor) -> Tensor:
    """Which rows (B, B) are both known and of one query."""
    known_B = targets_B2[:, 0] != IGNORED
    query_B = targets_B2[:, 1]
    return (query_B == query_B.unsqueeze(1)) & known_B & known_B.unsqueeze(1)


def _pairs(targets_B2: Tensor) -> Tensor:
    """Which pairs (i, j) of one query have i more relevant than j (B, B)."""
    relevance_B = targets_B2[:, 0]
    return _together(targets_B2) & (relevance_B.unsqueeze(1) > relevance_B)


def _log_softmax(values_B: Tensor, together_BB: Tensor) -> Tensor:
    """The log-softmax of each row among the rows that it stands together with; 0 for an unknown row."""
    # An unknown row stands with itself: a sum over nothing would poison the gradient, although it is left out.
    among_BB = together_BB | torch.eye(len(values_B), dtype=torch.bool, device=values_B.device)
    lowest = torch.finfo(values_B.dtype).min
    return values_B - torch.where(among_BB, values_B, lowest).logsumexp(dim=1)
