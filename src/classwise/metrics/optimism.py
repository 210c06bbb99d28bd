"""How much too high the score of a selected epoch is, as an estimate of its score on as many fresh rows.

The highest of several scores on the same rows is partly luck. The luck is estimated by choosing again under noise of
the same kind: resample the rows, add to every epoch's score what the resample changes in it, choose, and see how much
the change favours the chosen epoch (the optimism of Efron 1983, 'Estimating the error rate of a prediction rule',
section 7, of a choice instead of a fit). In a resample the noise counts twice, since the scores that it is added to
have theirs already, so the choice is made among scores of twice the variance; among equally good epochs it favours one
by 1 / sqrt(2) of the true optimism, by which the estimate is therefore divided. Where one epoch is clearly ahead, both
are near 0.

Rows of rare classes are resampled within their class, n - 1 of its n rows (Rao and Wu 1988, 'Resampling inference with
complex survey data', section 2): drawing n of n would show (n - 1) / n of the variance, and none of a single row. What
would happen to another row (or group) of a class with a single one is seen in those of other classes (`donors.py`).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from classwise.metrics.bootstrap import Groups, summed_by
from classwise.metrics.donors import MIN_DONORS, find_donors
from classwise.metrics.regression import regression_scores
from classwise.metrics.rows import marginal_sums
from classwise.metrics.scores import LABEL_SCORES, Array, label_scores, level_scores, ratio
from classwise.randomness import BOOTSTRAP, generator

Numbers = npt.NDArray[np.int64]
_CHUNK = 2**19  # weights at a time

LEVEL_SCORES = ("mae_levels", "quadratic_kappa")
REGRESSION_SCORES = ("mae", "mse", "rmse", "r2")
ROW_MEANS = ("top3_accuracy", "top5_accuracy", "log_loss")

FEWEST_UNITS = 40
"""Rows, or groups of rows, from which an optimism is estimated: from 10 to 30 it can be off by 0.01 to 0.02."""


def optimism(
    scores_E: Array, resampled_RE: Array, choose: Callable[[Array], Numbers], higher_is_better: bool = True
) -> float:
    """By how much the chosen epoch's score is too good, on average over such choices; never negative.

    `scores_E`: the scores of E epochs that the choice was made from. `resampled_RE`: the same scores on R resamples of
    their rows. `choose`: from scores (R, E), higher is better, to epochs (R,).
    """
    sign = 1.0 if higher_is_better else -1.0
    noise_RE = sign * (resampled_RE - resampled_RE.mean(axis=0))
    chosen_R = choose(sign * scores_E + noise_RE)
    favour = noise_RE[np.arange(len(noise_RE)), chosen_R].mean()
    return max(0.0, math.sqrt(2) * float(favour))


def too_few_units(name: str, true_N: npt.NDArray[Any], classes: int, groups: Groups | None) -> str:
    """Why an optimism of the score `name` on these rows could not be trusted; empty if it can. `true_N`: class numbers,
    or values where `classes` is 0."""
    unit_N = _units(len(true_N), groups)
    units = len(np.unique(unit_N))
    what = "rows" if groups is None else "groups of rows"
    if units < FEWEST_UNITS:
        return f"{units} validation {what}, and at least {FEWEST_UNITS} are needed"
    if not classes or name not in LABEL_SCORES:
        return ""
    for k in _strata(true_N, classes, groups)[2]:
        donors = find_donors(k, true_N, unit_N, np.random.default_rng(0))
        if len(donors) < MIN_DONORS:
            rows = int((true_N == k).sum())
            return (
                f"a class has a single group of {rows} validation rows, and {len(donors)} groups of other classes"
                f" can stand for it; at least {MIN_DONORS} are needed"
            )
    return ""


def best_epoch(scores_RE: Array) -> Numbers:
    """The first of the highest scores (R,), as an epoch is the best only if it is better than all before it."""
    best: Numbers = scores_RE.argmax(axis=1)
    return best


def resampled_class_scores(
    name: str,
    true_N: Numbers,
    predicted_EN: Numbers,
    classes: int,
    groups: Groups | None,
    seed: int,
    resamples: int,
    shares: Sequence[float] | None = None,
) -> Array:
    """The score `name`, of `LABEL_SCORES` or `LEVEL_SCORES`, of each epoch on each resample: (R, E).

    `true_N`, `predicted_EN`: class numbers. Units are rows, or whole `groups` (one for each row). A unit is resampled
    within its class, a group within the rarest class that it holds. `shares` (K,): class shares to which each resample
    is weighted, as in `scores_at_prior`.
    """
    unit_N, stratum_U, single = _strata(true_N, classes, groups)
    sum_by_class = summed_by(true_N, classes)
    marginals_of = [marginal_sums(true_N, predicted_N, classes) for predicted_N in predicted_EN]
    rng = generator(seed, BOOTSTRAP, 1)

    # Without donors a class keeps its own hits, and `too_few_units` says so.
    donors_of = {k: find_donors(k, true_N, unit_N, rng) for k in single} if name in LABEL_SCORES else {}
    rates_of = {k: donors.hit_rates(predicted_EN == true_N) for k, donors in donors_of.items() if donors}
    chunks = []
    for weights_UR in _stratified_weights(stratum_U, resamples, rows=len(true_N), rng=rng):
        weights_NR = weights_UR.take(unit_N, axis=0)
        drawn_of = {k: donors_of[k].draw(weights_UR.shape[1], rng) for k in rates_of}
        if shares is not None:
            factor_KR = ratio(np.asarray(shares)[:, None], sum_by_class(weights_NR))
            weights_NR *= factor_KR[true_N]
        columns = []
        for epoch, marginals in enumerate(marginals_of):
            hits_RK, support_RK, predicted_RK = marginals(weights_NR)
            if name in LABEL_SCORES:
                for k, rate_EC in rates_of.items():
                    own_hits_R = hits_RK[:, k].copy()
                    hits_RK[:, k] = support_RK[:, k] * rate_EC[epoch, drawn_of[k]]
                    shift_R = hits_RK[:, k] - own_hits_R
                    predicted_RK += shift_R[:, None] * _miss_shares(k, true_N, predicted_EN[epoch], classes)
                scores = label_scores(hits_RK, support_RK, predicted_RK)
            else:
                steps_N = np.abs(true_N - predicted_EN[epoch]).astype(np.float64)
                sums = _weighted_sum(steps_N, weights_NR), _weighted_sum(steps_N**2, weights_NR)
                scores = level_scores(support_RK, predicted_RK, distance=sums[0], square=sums[1])
            columns.append(scores[name])
        chunks.append(np.stack(columns, axis=1))
    return np.concatenate(chunks)


def resampled_regression_scores(
    name: str, true_N: Array, error_EN: Array, groups: Groups | None, seed: int, resamples: int
) -> Array:
    """The score `name`, of `REGRESSION_SCORES`, of each epoch on each resample: (R, E), from the errors of each row."""
    mean = float(true_N.mean())
    deviation_N = true_N - mean
    columns: list[Array] = []
    for weights_NR in _unstratified_weights(len(true_N), groups, seed, resamples):
        count_R = weights_NR.sum(axis=0)
        spread = [_weighted_sum(deviation_N, weights_NR), _weighted_sum(deviation_N**2, weights_NR)]
        of_epochs = []
        for error_N in error_EN:
            size, square = np.abs(error_N), error_N**2
            errors = [_weighted_sum(size, weights_NR), _weighted_sum(square, weights_NR)]
            sums = np.stack([count_R, *errors, *spread])
            of_epochs.append(regression_scores(sums, mean)[name])
        columns.append(np.stack(of_epochs, axis=1))
    return np.concatenate(columns)


def resampled_means(value_EN: Array, groups: Groups | None, seed: int, resamples: int) -> Array:
    """The mean of each epoch's values (E, N) on each resample: (R, E)."""
    chunks = []
    for weights_NR in _unstratified_weights(value_EN.shape[1], groups, seed, resamples):
        count_R = weights_NR.sum(axis=0)
        means = [_weighted_sum(value_N, weights_NR) / count_R for value_N in value_EN]
        chunks.append(np.stack(means, axis=1))
    return np.concatenate(chunks)


def _weighted_sum(value_N: Array, weights_NR: Array) -> Array:
    """(R,). Not by BLAS, whose last digits depend on where its operands lie in memory."""
    total_R: Array = (value_N[:, None] * weights_NR).sum(axis=0)
    return total_R


def _units(rows: int, groups: Groups | None) -> Numbers:
    """The number of each row's unit (N,): the row itself, or its group."""
    if groups is None:
        return np.arange(rows)
    unit_N: Numbers = np.unique(np.asarray(groups), return_inverse=True)[1]
    return unit_N


def _strata(true_N: Numbers, classes: int, groups: Groups | None) -> tuple[Numbers, Numbers, list[int]]:
    """The unit of each row (N,), the stratum of each unit (U,), and the classes that a single unit holds. A unit's
    stratum is the class that fewest units hold, of those that it holds itself."""
    unit_N = _units(len(true_N), groups)
    held = np.unique(np.stack([unit_N, true_N]), axis=1)
    units_K = np.bincount(held[1], minlength=classes)

    # Of each unit's classes the rarest comes first.
    order = np.lexsort((held[1], units_K[held[1]], held[0]))
    _, first = np.unique(held[0][order], return_index=True)
    return unit_N, held[1][order][first], np.flatnonzero(units_K == 1).tolist()


def _stratified_weights(
    stratum_U: Numbers, resamples: int, rows: int, rng: np.random.Generator
) -> Iterator[Array]:
    """Chunks (U, R): in each stratum of n units, n - 1 draws that weigh n / (n - 1); a single unit weighs 1."""
    members = [np.flatnonzero(stratum_U == stratum) for stratum in np.unique(stratum_U)]
    chunk_size = max(1, _CHUNK // rows)
    for start in range(0, resamples, chunk_size):
        columns = min(chunk_size, resamples - start)
        weights_UR = np.ones((len(stratum_U), columns))
        for units in members:
            size = len(units)
            if size > 1:
                drawn = (
                    rng.integers(0, size, size=(columns, size - 1)) * columns + np.arange(columns)[:, None]
                )
                counts = np.bincount(drawn.ravel(), minlength=size * columns).reshape(size, columns)
                weights_UR[units] = counts * (size / (size - 1))
        yield weights_UR


def _unstratified_weights(rows: int, groups: Groups | None, seed: int, resamples: int) -> Iterator[Array]:
    """Chunks (N, R): all units in one stratum."""
    unit_N = _units(rows, groups)
    one_stratum_U = np.zeros(int(unit_N.max()) + 1, dtype=np.int64)
    rng = generator(seed, BOOTSTRAP, 1)
    for weights_UR in _stratified_weights(one_stratum_U, resamples, rows=rows, rng=rng):
        yield weights_UR.take(unit_N, axis=0)


def _miss_shares(label: int, true_N: Numbers, predicted_N: Numbers, classes: int) -> Array:
    """(K,): what one hit more of a class adds to the predicted rows of each: 1 to its own, and to the others as much
    less as they have of its misses, or all the same where it has none."""
    misses_K = np.bincount(predicted_N[true_N == label], minlength=classes).astype(np.float64)
    misses_K[label] = 0
    if not misses_K.any():
        misses_K[np.arange(classes) != label] = 1
    shares_K: Array = -misses_K / max(misses_K.sum(), 1)
    shares_K[label] = 1
    return shares_K
