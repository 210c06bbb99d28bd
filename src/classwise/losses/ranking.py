"""Losses of a ranking: only the order of the rows within each query counts, never the scores themselves.

Targets are integers (B, 2): the graded relevance (0, 1, 2, ..; -1 unknown) and the number of the query. Outputs are
scores (B, 1). Both losses add up over queries and so over micro-batches, as long as no query is split: rows of one
query in two micro-batches would never be compared.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classwise.losses.checks import check_column
from classwise.losses.labels import IGNORED, at_least_float32
from classwise.losses.normalizer import Normalizer


class PairwiseLogistic(nn.Module):
    """log(1 + exp(s_j - s_i)) over the pairs (i, j) of rows of one query where i is more relevant than j.

    Burges et al. 2005, 'Learning to rank using gradient descent' (RankNet), equation 3 with a target probability of 1.
    Divided by the number of such pairs, so the weight of a query is its number of comparisons.
    """

    additive: bool = True
    terms: int = 1
    soft_targets: bool = False
    likelihood_scale: float = 1.0

    def normalizer(self, targets_B2: Tensor, complete: bool = False) -> Normalizer:
        """The number of pairs."""
        # Pairs of one query, minus those of equal relevance: (sum n^2 - sum n_r^2) / 2. Validation asks for the
        # normalizer of a whole set, which is too large to compare every row with every other.
        query_size_B = _group_sizes(targets_B2[:, 1:], targets_B2[:, 0])
        equal_relevance_B = _group_sizes(targets_B2.flip(1), targets_B2[:, 0])
        return Normalizer(((query_size_B**2).sum() - (equal_relevance_B**2).sum()).reshape(1) / 2)

    def forward(self, scores_B1: Tensor, targets_B2: Tensor, normalizer: Normalizer | None = None) -> Tensor:
        """The sum over the pairs, divided by `normalizer` (default: that of this batch); a scalar.

        Raises ValueError for shapes that do not fit.
        """
        scores_B = _checked_scores(scores_B1, targets_B2)
        # Entry (i, j) is s_j - s_i.
        total = (F.softplus(scores_B - scores_B.unsqueeze(1)) * _pairs(targets_B2)).sum()
        normalizer = self.normalizer(targets_B2) if normalizer is None else normalizer
        return normalizer.divide(total)


class ListNet(nn.Module):
    """The cross entropy between softmax(relevance) and softmax(score) over the rows of each query.

    Cao et al. 2007, 'Learning to rank: from pairwise approach to listwise approach', section 4: the top-one
    probabilities. Divided by the number of queries with at least two labeled rows; with one there is no order.
    """

    additive: bool = True
    terms: int = 1
    soft_targets: bool = False
    likelihood_scale: float = 1.0

    def normalizer(self, targets_B2: Tensor, complete: bool = False) -> Normalizer:
        """The number of queries with at least two labeled rows."""
        is_orderable_B = _group_sizes(targets_B2[:, 1:], targets_B2[:, 0]) > 1
        return Normalizer(is_orderable_B.sum(dtype=torch.float64).reshape(1))

    def forward(self, scores_B1: Tensor, targets_B2: Tensor, normalizer: Normalizer | None = None) -> Tensor:
        """The sum over the queries, divided by `normalizer` (default: that of this batch); a scalar.

        Raises ValueError for shapes that do not fit.
        """
        scores_B = _checked_scores(scores_B1, targets_B2)
        same_query_BB = _same_query(targets_B2)
        target_B = _log_softmax(targets_B2[:, 0].to(scores_B.dtype), same_query_BB).exp()
        loss_B = -target_B * _log_softmax(scores_B, same_query_BB)

        # A query of one labeled row has nothing to order, and counts in neither the sum nor the normalizer.
        is_orderable_B = same_query_BB.sum(dim=1) > 1
        normalizer = self.normalizer(targets_B2) if normalizer is None else normalizer
        return normalizer.divide(torch.where(is_orderable_B, loss_B, 0).sum())


def _checked_scores(scores_B1: Tensor, targets_B2: Tensor) -> Tensor:
    """The scores (B,), in float32 or wider. Raises ValueError for shapes that do not fit."""
    check_column(
        scores_B1,
        targets_B2,
        expected_shape=(len(targets_B2), 2),
        allowed_targets="targets (B, 2) of integers: relevance, -1 where unknown, and query",
        floating=False,
    )
    return at_least_float32(scores_B1).squeeze(1)


def _group_sizes(keys_BC: Tensor, relevance_B: Tensor) -> Tensor:
    """The number of labeled rows of each group of rows with equal keys: float64 (B,), padded with 0.

    Groups are ordered by the columns of their keys, the first column first.
    """
    # By sorting, since the number of groups would have to be read from the device.
    order_B = torch.arange(len(keys_BC), device=keys_BC.device)
    for column_B in keys_BC.flip(1).unbind(1):
        order_B = order_B[column_B[order_B].argsort(stable=True)]

    # Equal keys are now next to each other: a group starts where the key changes.
    sorted_BC = keys_BC[order_B]
    starts_B = torch.ones(len(order_B), dtype=torch.int64, device=keys_BC.device)
    starts_B[1:] = (sorted_BC[1:] != sorted_BC[:-1]).any(dim=1)
    labeled_B = (relevance_B[order_B] != IGNORED).double()
    return torch.zeros_like(labeled_B).scatter_add(0, starts_B.cumsum(0) - 1, labeled_B)


def _same_query(targets_B2: Tensor) -> Tensor:
    """Which pairs of rows (B, B) are labeled and of one query."""
    labeled_B = targets_B2[:, 0] != IGNORED
    query_B = targets_B2[:, 1]
    return (query_B == query_B.unsqueeze(1)) & labeled_B & labeled_B.unsqueeze(1)


def _pairs(targets_B2: Tensor) -> Tensor:
    """Which pairs (i, j) of rows of one query have i more relevant than j (B, B)."""
    relevance_B = targets_B2[:, 0]
    return _same_query(targets_B2) & (relevance_B.unsqueeze(1) > relevance_B)


def _log_softmax(values_B: Tensor, same_query_BB: Tensor) -> Tensor:
    """The log-softmax of each row among the labeled rows of its query; 0 for an unlabeled row."""
    # An unlabeled row is a group of its own: a sum over nothing would make its gradient NaN, although it is masked.
    among_BB = same_query_BB | torch.eye(len(values_B), dtype=torch.bool, device=values_B.device)
    lowest = torch.finfo(values_B.dtype).min
    return values_B - torch.where(among_BB, values_B, lowest).logsumexp(dim=1)
