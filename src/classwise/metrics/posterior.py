"""Intervals of scores that follow from a confusion matrix: which scores the true one may be, given so few rows.

A bootstrap only draws rows again that are there. A class whose three rows are all correct is then correct in every
resample, and a class without a wrong row among few has no variance: its percentile intervals hold in far fewer than 95
of 100 cases. Here the recalls of the classes are drawn from a hierarchical model (Gelman et al. 2013, 'Bayesian data
analysis', section 5.3), in which classes with few rows borrow from the others:

    hits of class k ~ Binomial(rows of class k, recall_k),   recall_k ~ Beta(s a, s (1 - a)),

with the mean recall a (Jeffreys' prior) and the similarity of the classes s on a grid. The misses of a class go to the
other classes by a Dirichlet distribution of the observed misses, smoothed by half a miss per class. The class shares
vary less than in a random draw of rows and more than in a stratified one, so that the intervals hold for both.

Rows of one group are worth fewer independent ones: all counts are divided by design effects (Rao and Scott 1992, 'A
simple method for the analysis of clustered binary data').
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from classwise.metrics.confusion import Confusion
from classwise.metrics.scores import Array
from classwise.randomness import BOOTSTRAP, generator

Ints = npt.NDArray[np.int64]

# The grid of the hierarchical model. Equal weights on this grid of means are Jeffreys' prior Beta(0.5, 0.5).
_MEANS = 0.5 - 0.5 * np.cos(np.pi * (np.arange(200) + 0.5) / 200)
_SIMILARITIES = 2.0 ** np.arange(6)

_SMOOTHING = 0.5  # misses added per class
_SHARE_VARIANCE = 0.6  # of class counts, where rows are either stratified or not
_TINY = 1e-9  # in place of a shape of 0, which the gamma distribution does not have
_CHUNK = 2**19  # numbers at a time

# Until groups show how similar their rows are: a correlation of 0.5, with the weight of 6 groups.
_PRIOR_CORRELATION = 0.5
_PRIOR_GROUPS = 6.0


@dataclass(frozen=True)
class DesignEffects:
    """How many rows are worth one independent row, for each class (K,).

    `within`: for what concerns the rows of one class, the recall. `whole`: for what concerns rows of several classes,
    where the rows of a group may be of several. `shares`: for the number of rows of the class.
    """

    within: Array
    whole: Array
    shares: Array


@dataclass(frozen=True)
class Drawn:
    """Confusion matrices drawn from the model, by what the scores need of them.

    Hits, true rows and predicted rows (R, K) of each class; the sums (R,) over rows of |true - predicted| and its
    square.
    """

    hits: Array
    support: Array
    predicted: Array
    distance: Array
    square: Array


def independent(classes: int) -> DesignEffects:
    """The design effects of rows without groups. That of the class counts is between 0, where stratification fixes
    them, and 1, of a random draw of rows."""
    ones = np.ones(classes)
    return DesignEffects(ones, ones, _SHARE_VARIANCE * ones)


def design_effects(
    true_N: Ints, is_hit_N: npt.NDArray[np.bool_], unit_N: Ints, classes: int
) -> DesignEffects:
    """The design effects of rows of the classes `true_N` in the groups `unit_N`.

    1 + (m - 1) r: m is the mean number of rows of a row's group, r the correlation of hits within groups.
    """
    count_K = np.bincount(true_N, minlength=classes)
    cells, cell_N = np.unique(true_N * (unit_N.max(initial=0) + 1) + unit_N, return_inverse=True)
    groups_K = np.bincount(cells // (unit_N.max(initial=0) + 1), minlength=classes)

    # Deviations from the recall of the class, which is that of all rows as long as few groups have the class.
    hits_K = np.bincount(true_N, is_hit_N, minlength=classes)
    overall = (hits_K.sum() + 0.5) / (count_K.sum() + 1)
    center_K = (groups_K * hits_K / np.maximum(count_K, 1) + 2 * overall) / (groups_K + 2)
    correlation = _correlation(is_hit_N - center_K[true_N], unit_N)

    def rows_beside(group_N: Ints) -> Array:
        size_N = np.bincount(group_N)[group_N].astype(np.float64)
        return np.maximum(np.bincount(true_N, size_N, minlength=classes) / np.maximum(count_K, 1) - 1, 0.0)

    return DesignEffects(
        within=1 + rows_beside(cell_N) * correlation,
        whole=1 + rows_beside(unit_N) * correlation,
        shares=_share_effects(true_N, unit_N, count_K),
    )


def share_design_effect(is_hit_N: npt.NDArray[np.bool_], unit_N: Ints) -> float:
    """The design effect of a share of all rows."""
    size_U = np.bincount(unit_N).astype(np.float64)
    center = (is_hit_N.sum() + 0.5) / (len(is_hit_N) + 1)
    size = float((size_U**2).sum() / max(size_U.sum(), 1))
    return 1 + max(size - 1, 0.0) * _correlation(is_hit_N - center, unit_N)


def _correlation(deviation_N: Array, unit_N: Ints) -> float:
    """The mean correlation of two rows of one group, in [0, 1], pulled towards that assumed without groups."""
    size_U = np.bincount(unit_N).astype(np.float64)
    pairs_U = size_U * (size_U - 1)
    if not pairs_U.any():
        return 0.0
    variance = float((deviation_N**2).mean())
    if not variance:
        return _PRIOR_CORRELATION
    products_U = np.bincount(unit_N, deviation_N) ** 2 - np.bincount(unit_N, deviation_N**2)
    found = products_U.sum() / pairs_U.sum() / variance
    groups = pairs_U.sum() ** 2 / (pairs_U**2).sum()  # as many of equal size
    pulled = (groups * found + _PRIOR_GROUPS * _PRIOR_CORRELATION) / (groups + _PRIOR_GROUPS)
    return float(np.clip(pulled, 0, 1))


def _share_effects(true_N: Ints, unit_N: Ints, count_K: Ints) -> Array:
    """The variance (K,) of the number of rows of each class over groups, divided by that over independent rows."""
    classes = len(count_K)
    rows = max(count_K.sum(), 1)
    share_K = count_K / rows
    size_U = np.bincount(unit_N).astype(np.float64)
    cells, counts_C = np.unique(unit_N * classes + true_N, return_counts=True)
    unit_C, class_C = divmod(cells, classes)

    # sum over groups of (count - size share)^2, written by the cells that are not empty.
    squares_K = np.bincount(
        class_C, counts_C**2 - 2 * counts_C * size_U[unit_C] * share_K[class_C], minlength=classes
    )
    squares_K = squares_K + (size_U**2).sum() * share_K**2
    return np.asarray(np.maximum(squares_K, 0) / np.maximum(rows * share_K * (1 - share_K), _TINY))


def draw_shares(hits: float, rows: float, seed: int, draws: int) -> Array:
    """A share of rows (R,), from Jeffreys' posterior Beta(hits + 0.5, misses + 0.5)."""
    return generator(seed, BOOTSTRAP).beta(hits + 0.5, rows - hits + 0.5, size=draws)


def draw_rates(hits_K: Array, misses_K: Array, rng: np.random.Generator, draws: int) -> Array:
    """The rates (R, K) of the hierarchical model; the counts may be fractions."""
    from scipy.special import betaln  # slow to import, and not needed before the first update

    mean_M11 = _MEANS[:, None, None]
    similarity_S1 = _SIMILARITIES[:, None]
    alpha_MS1 = mean_M11 * similarity_S1
    beta_MS1 = (1 - mean_M11) * similarity_S1

    # The posterior of the grid, each class with its beta-binomial likelihood.
    log_likelihood_MS = np.zeros(alpha_MS1.shape[:2])
    for hits, misses in zip(hits_K, misses_K, strict=True):
        if hits + misses > 0:
            log_likelihood_MS += (betaln(hits + alpha_MS1, misses + beta_MS1) - betaln(alpha_MS1, beta_MS1))[
                ..., 0
            ]
    posterior = np.exp(log_likelihood_MS - log_likelihood_MS.max()).ravel()
    cell_R = rng.choice(len(posterior), p=posterior / posterior.sum(), size=draws)
    alpha_R = alpha_MS1.ravel()[cell_R]
    beta_R = beta_MS1.ravel()[cell_R]
    return rng.beta(hits_K + alpha_R[:, None], misses_K + beta_R[:, None])


def draw_confusions(
    confusion: Confusion | npt.NDArray[np.int64],
    row_effect_K: Array,
    share_effect_K: Array,
    seed: int,
    draws: int,
    ordinal: bool = False,
    shares: Sequence[float] | None = None,
    part: int = 0,
) -> Drawn:
    """Confusion matrices that may be the true one, from counts (rows true, columns predicted, or their cells) and
    design effects.

    `ordinal`: misses of a distance as observed, whatever the class, are likelier than others. `shares` (K,): class
    shares that are given rather than drawn. `part`: which of several lots of draws. Depends on nothing but the
    arguments.
    """
    rng = generator(seed, BOOTSTRAP, 0, part)
    if not isinstance(confusion, Confusion):
        confusion = Confusion.of(confusion)
    classes = confusion.classes
    hits_K, total_K, _ = confusion.marginals(1 / row_effect_K)
    misses_K = np.maximum(total_K - hits_K, 0.0)
    rates_RK = draw_rates(hits_K, misses_K, rng, draws)

    # The number of rows of each class; none where there is none.
    rows_K = confusion.support.astype(np.float64)
    if shares is not None:
        support_RK = np.tile(np.asarray(shares, dtype=np.float64), (draws, 1))
    else:
        effect_K = np.clip(share_effect_K, 0.01, None)
        support_RK = (
            rng.standard_gamma(np.maximum(rows_K / effect_K, _TINY), size=(draws, classes)) * effect_K
        )
    support_RK[:, rows_K == 0] = 0.0

    # A single class cannot be missed.
    missed_RK = support_RK * (1 - rates_RK) * (classes > 1)
    hits_RK = support_RK - missed_RK
    wrong_RK, distance_R, square_R = _draw_misses(confusion, row_effect_K, rows_K, missed_RK, rng, ordinal)
    return Drawn(hits_RK, support_RK, hits_RK + wrong_RK, distance_R, square_R)


def draw_labels(
    counts_2L2: Array, row_effects_2L: Array, share_effect_L: Array, seed: int, draws: int
) -> tuple[Array, Array, Array]:
    """Hits, true and predicted cells (R, L) of the labels of a multilabel target, from the same model.

    `counts_2L2`: the cells that are false, then those that are true, of each label: not predicted, then predicted. The
    recalls of the labels are alike, and so are their rates of false positives and their shares. `row_effects_2L`,
    `share_effect_L`: design effects of the false and of the true cells, and of the number of true ones.
    """
    rng = generator(seed, BOOTSTRAP)
    worth_2L2 = counts_2L2 / row_effects_2L[..., None]
    recall_RL = draw_rates(worth_2L2[1, :, 1], worth_2L2[1, :, 0], rng, draws)
    false_rate_RL = draw_rates(worth_2L2[0, :, 1], worth_2L2[0, :, 0], rng, draws)

    # The true and the other cells of each label add up to its labeled cells. The shares of the labels are alike, too.
    false_L, true_L = counts_2L2.sum(axis=2)
    effect_L = np.clip(share_effect_L, 0.01, None)
    true_share_RL = draw_rates(true_L / effect_L, false_L / effect_L, rng, draws)
    support_RL = true_share_RL * (true_L + false_L)
    hits_RL = support_RL * recall_RL
    return hits_RL, support_RL, hits_RL + (true_L + false_L - support_RL) * false_rate_RL


def _draw_misses(
    confusion: Confusion,
    row_effect_K: Array,
    rows_K: Array,
    missed_RK: Array,
    rng: np.random.Generator,
    ordinal: bool,
) -> tuple[Array, Array, Array]:
    """How often each class is predicted for rows of others (R, K), the sums of the distances and of their squares (R,).

    `missed_RK`: the rows of each true class that are missed, to be divided among the others.
    """
    draws, classes = missed_RK.shape
    wrong_RK = np.zeros_like(missed_RK)
    distance_R = np.zeros(draws)
    square_R = np.zeros(draws)
    if classes == 1:
        return wrong_RK, distance_R, square_R

    is_miss_C = confusion.true != confusion.predicted
    true_C, predicted_C = confusion.true[is_miss_C], confusion.predicted[is_miss_C]
    count_C = confusion.count[is_miss_C] / row_effect_K[true_C]
    # Levels are few.
    counts_KK = confusion.dense() / row_effect_K[:, None] if ordinal else None
    step = max(1, _CHUNK // (len(count_C) + 2 * classes + ordinal * 2 * classes**2))
    for start in range(0, draws, step):
        part = slice(start, min(draws, start + step))
        size = part.stop - start

        # Half a miss per class, of a row drawn by the misses that there are; and a trace of one for each class, so
        # that none is without.
        misses_K = np.bincount(true_C, count_C, minlength=classes) + rows_K / max(rows_K.sum(), 1)
        extra_true = rng.choice(classes, p=misses_K / misses_K.sum(), size=(size, classes))
        extra_true = np.concatenate([extra_true, np.tile(np.arange(classes), (size, 1))], axis=1)
        extra_predicted = _other_classes(extra_true, classes, counts_KK, rng)
        weight = np.concatenate(
            [rng.standard_gamma(_SMOOTHING, size=(size, classes)), np.full((size, classes), _TINY)], axis=1
        )
        weight = np.concatenate([rng.standard_gamma(count_C, size=(size, len(count_C))), weight], axis=1)
        true = np.concatenate([np.broadcast_to(true_C, (size, len(true_C))), extra_true], axis=1)
        predicted = np.concatenate(
            [np.broadcast_to(predicted_C, (size, len(true_C))), extra_predicted], axis=1
        )

        # Each true class divides its missed rows in proportion to the weights.
        draw = np.arange(size)[:, None] * classes
        total = np.bincount((draw + true).ravel(), weight.ravel(), minlength=size * classes)
        share = weight / total[draw + true] * missed_RK[part].ravel()[draw + true]
        wrong = np.bincount((draw + predicted).ravel(), share.ravel(), minlength=size * classes)
        wrong_RK[part] = wrong.reshape(size, classes)
        if ordinal:
            steps = np.abs(true - predicted)
            distance_R[part] = (share * steps).sum(axis=1)
            square_R[part] = (share * steps**2).sum(axis=1)
    return wrong_RK, distance_R, square_R


def _other_classes(true: Ints, classes: int, counts_KK: Array | None, rng: np.random.Generator) -> Ints:
    """A class other than `true` (R, M) for each: any with the same probability or, where there are counts of levels, by
    their distance."""
    if counts_KK is None:
        return np.asarray((true + rng.integers(1, classes, size=true.shape)) % classes)

    # The misses by distance, and one in all of which each distance has half of the one before.
    distance_KK = np.abs(np.subtract.outer(np.arange(classes), np.arange(classes)))
    misses_D = np.bincount(distance_KK.ravel(), counts_KK.ravel(), minlength=classes)[1:]
    weight_RD = rng.standard_gamma(misses_D + 0.5 ** np.arange(1, classes), size=(len(true), classes - 1))

    # Inverse transform of the distances that the class has on either side.
    weight_RK = np.concatenate([np.zeros((len(true), 1)), weight_RD], axis=1)
    by_class_RKK = weight_RK[:, distance_KK]
    cumulated_RKK = by_class_RKK.cumsum(axis=2)
    draw = np.arange(len(true))[:, None]
    cumulated = cumulated_RKK[draw, true]
    chosen = rng.random(true.shape) * cumulated[..., -1]
    return np.asarray((cumulated <= chosen[..., None]).sum(axis=2).clip(0, classes - 1))
