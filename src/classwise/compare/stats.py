"""The statistics of a comparison: each variant's mean, and its difference from the first one, paired by seed.

The scores of several seeds are not independent: their runs share training rows, and scored rows as well. Student's
t-test over the seeds takes them for independent, and finds differences between equal variants far too often. `Design`
says what the runs share, and the variance of a mean over seeds follows from that:

- Every seed draws its own scored rows: the corrected resampled t-test of Nadeau and Bengio (2003), 'Inference for the
  generalization error', Machine Learning 52, section 3: s^2 (1 / J + r / (1 - r)) for J seeds, J - 1 degrees of
  freedom, where r is the correlation between two seeds, see `Design.correlation`.
- All seeds are scored on the same rows, a table: the seeds show the noise of training only. What other rows would have
  changed follows from resampling these rows, for all runs at once, see `_fixed_error`.

How often this is right is simulated in benchmarks/simulations/compare.py.

Letters in names: J seeds, R resamples.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

Values = npt.NDArray[np.float64]
Verdict = Literal["better", "worse", "equivalent", "undecided"]
CONFIDENCE = 0.95
ALPHA = 0.05  # level of significance
POWER = 0.8  # of the smallest detectable difference

# How much a score varies with the training rows, as a multiple of its variance over as many scored rows. Nadeau and
# Bengio leave it out; with 1, the tests hold their level for all simulated learners, also near chance.
TRAINING_NOISE = 1.0


@dataclass(frozen=True)
class Design:
    """What the runs have in common. Numbers of rows (of one run, or on average): those that are scored, those that
    the weights are fitted to, and all that these are drawn from, validation rows included.

    units: the groups that the scored rows come in, or these rows. redrawn: every seed draws its scored rows; otherwise
    these are the same for all seeds.
    """

    scored: float
    trained: float
    rows: float
    units: float
    redrawn: bool

    @property
    def correlation(self) -> float:
        """The correlation between the scores of two seeds that draw their rows.

        A score varies with the scored rows, n_s of n, in proportion to 1 / n_s, and with the n_t training rows in
        proportion to TRAINING_NOISE / n_t. Of both kinds, two seeds have a share n_s / n and n_t / n in common.
        Without the second part this is the n_s / (n_s + n_t) of Nadeau and Bengio, whose n has no validation rows.
        """
        scored_share = self.scored / self.rows
        return scored_share * (1 + TRAINING_NOISE) / (1 + TRAINING_NOISE * self.scored / self.trained)


@dataclass(frozen=True)
class Runs:
    """The runs of a variant: `scores` by seed, and for scored rows that are the same for all runs `resampled` by seed,
    the scores (R,) on resamples of these rows, which are the same resamples for all variants and seeds."""

    scores: Mapping[int, float]
    resampled: Mapping[int, Values]


@dataclass(frozen=True)
class Estimate:
    """The mean of `n` numbers, their standard deviation (n - 1 degrees of freedom), and the mean's 95% confidence
    interval. `sd` is None for a single number, `interval` where nothing shows how far the mean may be off."""

    n: int
    mean: float
    sd: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Difference:
    """A variant minus the first one, over the seeds that both have.

    mean, its standard error and degrees of freedom, and 95% confidence interval; p: of the two-sided test for a
    difference of 0; p_equivalent: of the two one-sided tests for a difference of at least the margin in either
    direction (Schuirmann 1987, J. Pharmacokinet. Biopharm. 15); `p_holm` and `p_equivalent_holm` are adjusted for all
    differences of the comparison. detectable: the true difference that such a comparison finds with probability POWER.

    A single pair has no p-values, and its interval holds for the two trained models, not for the variants. All are None
    where nothing shows how far the mean may be off.
    """

    pairs: int
    mean: float
    error: float | None = None
    freedom: float | None = None
    interval: tuple[float, float] | None = None
    p: float | None = None
    p_holm: float | None = None
    p_equivalent: float | None = None
    p_equivalent_holm: float | None = None
    detectable: float | None = None
    verdict: Verdict = "undecided"


@dataclass(frozen=True)
class Summary:
    """One variant: its score over the seeds (None where no run is done), and its difference from the first variant."""

    variant: str
    score: Estimate | None
    difference: Difference | None


def summarize(
    variants: Mapping[str, Runs], design: Design | None, margin: float | None = None, higher: bool = True
) -> list[Summary]:
    """The first variant is the baseline of the differences. `design`: None where it is unknown, and with it every
    interval. `margin`: smaller differences do not matter; None: there is no such. `higher`: whether higher is better.
    """
    baseline = next(iter(variants.values()), Runs({}, {}))
    summaries = [
        Summary(
            name,
            score=estimate(runs, design),
            difference=difference(runs, baseline, design, margin) if runs is not baseline else None,
        )
        for name, runs in variants.items()
    ]

    # Holm's method needs all p-values at once.
    tested = [row.difference for row in summaries if row.difference and row.difference.p is not None]
    adjusted = iter(holm([found.p for found in tested if found.p is not None]))
    equivalent = iter(holm([found.p_equivalent for found in tested if found.p_equivalent is not None]))
    judged: Iterator[Difference] = (
        _judged(
            found,
            p_holm=next(adjusted),
            p_equivalent_holm=None if found.p_equivalent is None else next(equivalent),
            tests=len(tested),
            higher=higher,
        )
        for found in tested
    )
    return [
        replace(row, difference=next(judged))
        if row.difference is not None and row.difference.p is not None
        else row
        for row in summaries
    ]


def estimate(runs: Runs, design: Design | None) -> Estimate | None:
    """Mean, standard deviation and the mean's interval, from Student's t; None without any run."""
    if not runs.scores:
        return None
    scores_J = np.array(list(runs.scores.values()), dtype=np.float64)
    resampled_JR = _resampled(runs, list(runs.scores))
    sd = float(scores_J.std(ddof=1)) if len(scores_J) > 1 else None
    mean = float(scores_J.mean())
    error, freedom = _error(scores_J, resampled_JR, design)
    return Estimate(len(scores_J), mean, sd=sd, interval=_interval(mean, error, freedom))


def difference(
    runs: Runs, baseline: Runs, design: Design | None, margin: float | None = None
) -> Difference | None:
    """The mean difference over the seeds that both have, and its tests; None where they share no seed."""
    seeds = [seed for seed in runs.scores if seed in baseline.scores]
    if not seeds:
        return None
    scores_J = np.array([runs.scores[seed] for seed in seeds], dtype=np.float64)
    baseline_J = np.array([baseline.scores[seed] for seed in seeds], dtype=np.float64)
    resampled_JR = _resampled(runs, seeds)
    baseline_JR = _resampled(baseline, seeds)
    paired_JR = None if resampled_JR is None or baseline_JR is None else resampled_JR - baseline_JR

    mean = float((scores_J - baseline_J).mean())
    error, freedom = _error(scores_J - baseline_J, paired_JR, design)
    # Differences that vary by rounding errors only do not vary.
    if error is None or freedom is None or error <= 1e-12 * float(np.abs([scores_J, baseline_J]).max()):
        return Difference(len(seeds), mean)
    found = Difference(
        pairs=len(seeds),
        mean=mean,
        error=error,
        freedom=freedom,
        interval=_interval(mean, error, freedom),
    )
    if len(seeds) < 2:
        return found
    return replace(
        found,
        p=float(2 * stats.t.sf(abs(mean) / error, freedom)),
        p_equivalent=None if margin is None else float(stats.t.sf((margin - abs(mean)) / error, freedom)),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm (1979), Scand. J. Statist. 6: the i-th smallest of m p-values times m - i + 1, never decreasing, at most 1.

    Rejecting where these are below 0.05 keeps the probability of any false rejection among all m below 5%.
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def detectable_difference(error: float, freedom: float, tests: int = 1) -> float:
    """The true difference that a two-sided t-test finds with probability POWER, where one of `tests` differences has
    to pass the level ALPHA / tests, as the smallest p-value has to by Holm's method. From the noncentral t."""
    return error * _detectable_errors(freedom, tests)


@lru_cache(maxsize=1024)
def _detectable_errors(freedom: float, tests: int) -> float:
    """`detectable_difference` in standard errors."""
    critical = float(stats.t.isf(ALPHA / tests / 2, freedom))

    def missing_power(shift: float) -> float:
        return float(stats.nct.sf(critical, freedom, shift)) - POWER

    return float(optimize.brentq(missing_power, 0.0, 10 * critical + 10, xtol=1e-4))


def _judged(
    found: Difference, p_holm: float, p_equivalent_holm: float | None, tests: int, higher: bool
) -> Difference:
    """`found` with its adjusted p-values, the detectable difference and the verdict.

    A difference that is certainly there and certainly within the margin is called equivalent: by the margin's meaning
    it does not matter.
    """
    assert found.error is not None
    assert found.freedom is not None
    verdict: Verdict = "undecided"
    if p_equivalent_holm is not None and p_equivalent_holm < ALPHA:
        verdict = "equivalent"
    elif p_holm < ALPHA:
        verdict = "better" if (found.mean > 0) == higher else "worse"
    return replace(
        found,
        p_holm=p_holm,
        p_equivalent_holm=p_equivalent_holm,
        detectable=detectable_difference(found.error, found.freedom, tests),
        verdict=verdict,
    )


def _interval(mean: float, error: float | None, freedom: float | None) -> tuple[float, float] | None:
    if error is None or freedom is None:
        return None
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * error
    return mean - half, mean + half


def _resampled(runs: Runs, seeds: Sequence[int]) -> Values | None:
    """The scores (J, R) on the resamples; None where a seed has none."""
    if not all(seed in runs.resampled for seed in seeds):
        return None
    return np.stack([runs.resampled[seed] for seed in seeds])


def _error(
    values_J: Values, resampled_JR: Values | None, design: Design | None
) -> tuple[float, float] | tuple[None, None]:
    """The standard error of the mean of `values_J`, and its degrees of freedom."""
    if design is None:
        return None, None
    seeds = len(values_J)
    if design.redrawn and seeds > 1:
        correlation = design.correlation
        factor = 1 / seeds + correlation / (1 - correlation)
        return math.sqrt(float(values_J.var(ddof=1)) * factor), seeds - 1
    # The rows of a single seed are the same for all its runs.
    return (None, None) if resampled_JR is None else _fixed_error(values_J, resampled_JR, design)


def _fixed_error(values_J: Values, resampled_JR: Values, design: Design) -> tuple[float, float]:
    """The standard error of a mean over seeds that are scored on the same rows, and its degrees of freedom.

    Two sources of noise are added. That of the seeds: s^2 / J. That of the rows: the variance V of the mean over the
    resamples, which whole groups make up where there are groups, times 1 + TRAINING_NOISE * n_s / n_t for the training
    rows, see `Design.correlation`. Both contain what rows and seeds do together (a seed gets other rows wrong than the
    next one), which is therefore taken off once: with the variance V_j of each seed, it is (mean V_j - V) / (J - 1).
    Degrees of freedom by Satterthwaite (1946), Biometrics Bulletin 2; those of the rows are as many as there are
    units, and fewer because their variance is estimated from R resamples.
    """
    seeds, resamples = resampled_JR.shape
    rows = float(resampled_JR.mean(axis=0).var(ddof=1))
    row_part = rows * (1 + TRAINING_NOISE * design.scored / design.trained)
    row_freedom = 1 / (1 / max(design.units - 1, 1) + 1 / (resamples - 1))
    if seeds < 2:
        return math.sqrt(row_part), row_freedom

    seed_part = float(values_J.var(ddof=1)) / seeds
    single_rows = float(resampled_JR.var(axis=1, ddof=1).mean())
    seed_part = max(seed_part - max(single_rows - rows, 0.0) / (seeds - 1), 0.0)
    variance = row_part + seed_part
    if not variance:
        return 0.0, 1.0
    freedom = variance**2 / (row_part**2 / row_freedom + seed_part**2 / (seeds - 1))
    return math.sqrt(variance), freedom
