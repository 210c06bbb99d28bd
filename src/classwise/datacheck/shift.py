"""Whether one set looks like another, such as the test images like the training images: a classifier two-sample test.

A classifier learns to tell rows of the two sets apart by their features; on rows that it has not seen it can only do so
where the sets differ (Lopez-Paz and Oquab, 'Revisiting classifier two-sample tests', ICLR 2017). Ours is regularized
least squares on whitened principal components, which is Fisher's linear discriminant. Its scores are linear in the
labels, so a thousand permutations, with all fits anew, are one product of matrices: the p-value is exact, also with the
dependence between folds, and between rows of a group, that a test of Mann and Whitney on out-of-fold scores ignores.

Letters in names: N rows of both sets, A and B rows of each, F features, D components, P permutations.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.stats import rankdata

from classwise.datacheck.components import principal_components
from classwise.errors import DataError
from classwise.randomness import CHECK, generator

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

FOLDS = 5
COMPONENTS = 64
MOST_ROWS = 2000
"""Rows of a set that are compared; of more, whole groups are drawn."""
PERMUTATIONS = 499
RIDGE = 0.1
"""Added to the variance of each component, which is 1, for the number of rows that is fitted."""
LEAST_UNITS = 10
"""Rows, or groups of them, that each set needs."""
ALPHA = 0.01
NOTABLE_AUC, STRONG_AUC = 0.6, 0.8
Z = 1.959964
"""Of an interval of 95 %."""


@dataclass(frozen=True)
class Shift:
    """How well rows of B can be told from rows of A.

    auc: the probability that a row of B looks more like B than a row of A does: 0.5 where the sets are alike. interval:
    95 %, of other rows or groups. p_value: of an auc this large without a difference. rows_A, rows_B: those compared,
    from the one that tells most, which are the rows of A most unlike B, and of B most unlike A; scores_A, scores_B:
    theirs, higher for B.
    """

    auc: float
    interval: tuple[float, float]
    p_value: float
    rows_A: Ints  # noqa: N815 - shape suffixes
    rows_B: Ints  # noqa: N815
    scores_A: Floats  # noqa: N815
    scores_B: Floats  # noqa: N815

    @property
    def is_notable(self) -> bool:
        """Significant, and more than a trifle."""
        return self.p_value <= ALPHA and self.auc >= NOTABLE_AUC

    @property
    def is_strong(self) -> bool:
        return self.p_value <= ALPHA and self.auc >= STRONG_AUC


def compare_sets(
    features_AF: npt.ArrayLike,
    features_BF: npt.ArrayLike,
    groups_A: Sequence[Any] | None = None,
    groups_B: Sequence[Any] | None = None,
    *,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> Shift:
    """Compare two sets by the features of their rows. Rows of a group, also of one that is in both sets, are on one
    side of each fold, and change sets together when these are permuted.

    Raises DataError for fewer than LEAST_UNITS rows (or groups) in a set, and for features that are not finite;
    ValueError for different numbers of features, and for groups of one set only.
    """
    parts = [np.asarray(features, dtype=np.float64) for features in (features_AF, features_BF)]
    if parts[0].shape[1:] != parts[1].shape[1:] or parts[0].ndim != 2:
        raise ValueError(
            f"found features of shapes {parts[0].shape} and {parts[1].shape}; allowed: (A, F) and (B, F)"
        )
    if not all(np.isfinite(part).all() for part in parts):
        raise DataError("shift: found features that are not finite numbers; leave out their rows")
    rng = generator(seed, CHECK)
    group_N = _group_numbers(groups_A, groups_B, [len(part) for part in parts])
    in_B_N = np.repeat([False, True], [len(part) for part in parts])
    kept_N = np.sort(
        np.concatenate([_drawn(np.flatnonzero(in_B_N == side), group_N, rng) for side in (False, True)])
    )
    in_B_K, group_K = in_B_N[kept_N], group_N[kept_N]

    # A unit is what changes sets as a whole: the rows that a group has in one of them.
    unit_K = np.unique(group_K * 2 + in_B_K, return_inverse=True)[1].reshape(-1)
    units = [len(np.unique(unit_K[in_B_K == side])) for side in (False, True)]
    if min(units) < LEAST_UNITS:
        what = "rows" if groups_A is None else "groups"
        raise DataError(
            f"shift: found {units[0]} and {units[1]} {what} in the two sets; at least {LEAST_UNITS} each are needed"
        )
    components_KD = _whitened(np.concatenate(parts)[kept_N])
    side_of_unit = np.zeros(sum(units), dtype=bool)
    side_of_unit[unit_K] = in_B_K
    sides_KP = np.stack(
        [in_B_K, *(rng.permutation(side_of_unit)[unit_K] for _ in range(permutations))], axis=1
    )
    fold_K = _folds(group_K, rng)
    scores_KP = _out_of_fold(components_KD, sides_KP, fold_K)
    auc_P = _auc(scores_KP, sides_KP, fold_K)
    return _result(scores_KP[:, 0], in_B_K, kept_N, auc_P, units, rows_A=len(parts[0]))


def auc_interval(auc: float, units_A: int, units_B: int) -> tuple[float, float]:
    """The 95 % interval of an AUC of two samples, method 5 of Newcombe, 'Confidence intervals for an effect size
    measure based on the Mann–Whitney statistic, part 2', Statistics in Medicine 25 (2006): it does not shrink to
    nothing at 1."""
    half = (units_A + units_B) / 2 - 1

    def distance(true: float) -> float:
        variance = true * (1 - true) * (1 + half * ((1 - true) / (2 - true) + true / (1 + true)))
        return float((true - auc) ** 2 - Z**2 * variance / (units_A * units_B))

    # 0 and 1 themselves are at no distance from an AUC of 0 or 1, but not the ends that are looked for.
    low = brentq(distance, 0, min(auc, 1 - 1e-9)) if auc > 0 else 0.0
    high = brentq(distance, max(auc, 1e-9), 1) if auc < 1 else 1.0
    return float(low), float(high)


def _group_numbers(groups_A: Sequence[Any] | None, groups_B: Sequence[Any] | None, counts: list[int]) -> Ints:
    if (groups_A is None) != (groups_B is None):
        raise ValueError("found groups of one set; allowed: of both, or of none")
    if groups_A is None or groups_B is None:
        return np.arange(sum(counts))
    names_N = np.array([str(group) for group in (*groups_A, *groups_B)])
    if [len(groups_A), len(groups_B)] != counts:
        raise ValueError(
            f"found {len(groups_A)} and {len(groups_B)} groups of {counts[0]} and {counts[1]} rows"
        )
    return np.unique(names_N, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _drawn(rows: Ints, group_N: Ints, rng: np.random.Generator) -> Ints:
    """Rows of whole groups, MOST_ROWS of them or a group more."""
    if len(rows) <= MOST_ROWS:
        return rows
    rank_G = rng.permutation(int(group_N.max()) + 1)
    ordered = rows[np.argsort(rank_G[group_N[rows]], kind="stable")]
    last_group = group_N[ordered[MOST_ROWS - 1]]
    return np.asarray(ordered[rank_G[group_N[ordered]] <= rank_G[last_group]])


def _whitened(features_KF: Floats) -> Floats:
    """(K, D) principal components of variance 1. They do not know the sets, so permutations leave them as they are."""
    components_KD = principal_components(features_KF, COMPONENTS)
    return np.asarray(components_KD / components_KD.std(axis=0))


def _folds(group_K: Ints, rng: np.random.Generator) -> Ints:
    """The fold of each row, by its group and not by its set."""
    names, number_K = np.unique(group_K, return_inverse=True)
    fold_G = np.empty(len(names), dtype=np.int64)
    fold_G[rng.permutation(len(names))] = np.arange(len(names)) % FOLDS
    return np.asarray(fold_G[number_K.reshape(-1)])


def _out_of_fold(components_KD: Floats, sides_KP: npt.NDArray[np.bool_], fold_K: Ints) -> Floats:
    """(K, P) scores of each row by least squares on the other folds, for each assignment of rows to sets."""
    scores_KP = np.zeros(sides_KP.shape)
    for fold in range(FOLDS):
        rest_K = fold_K != fold
        mean_D = components_KD[rest_K].mean(axis=0)
        fitted_KD = components_KD[rest_K] - mean_D
        targets_KP = sides_KP[rest_K] - sides_KP[rest_K].mean(axis=0)
        gram_DD = fitted_KD.T @ fitted_KD + RIDGE * rest_K.sum() * np.eye(fitted_KD.shape[1])
        weights_DP = np.linalg.solve(gram_DD, fitted_KD.T @ targets_KP)
        scores_KP[~rest_K] = (components_KD[~rest_K] - mean_D) @ weights_DP
    return scores_KP


def _auc(scores_KP: Floats, sides_KP: npt.NDArray[np.bool_], fold_K: Ints) -> Floats:
    """(P,) the share of pairs of a fold that are in order, over all folds: scores of two models are not compared."""
    ordered_P, pairs_P = np.zeros(sides_KP.shape[1]), np.zeros(sides_KP.shape[1])
    for fold in range(FOLDS):
        in_B_KP = sides_KP[fold_K == fold]
        ranks_KP = rankdata(scores_KP[fold_K == fold], axis=0)
        count_P = in_B_KP.sum(axis=0)
        ordered_P += (ranks_KP * in_B_KP).sum(axis=0) - count_P * (count_P + 1) / 2
        pairs_P += count_P * (len(in_B_KP) - count_P)
    auc_P: Floats = np.divide(ordered_P, pairs_P, out=np.full(len(pairs_P), 0.5), where=pairs_P > 0)
    return auc_P


def _result(
    score_K: Floats, in_B_K: npt.NDArray[np.bool_], kept_N: Ints, auc_P: Floats, units: list[int], rows_A: int
) -> Shift:
    order_A, order_B = (
        np.argsort(score_K[~in_B_K], kind="stable"),
        np.argsort(-score_K[in_B_K], kind="stable"),
    )
    auc = float(auc_P[0])
    return Shift(
        auc=auc,
        interval=auc_interval(auc, *units),
        p_value=float((auc_P >= auc - 1e-12).mean()),
        rows_A=kept_N[~in_B_K][order_A],
        rows_B=kept_N[in_B_K][order_B] - rows_A,
        scores_A=score_K[~in_B_K][order_A],
        scores_B=score_K[in_B_K][order_B],
    )
