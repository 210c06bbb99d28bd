"""The statistics against formulas written out and SciPy's distributions."""

import math
import random
import statistics
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from scipy import stats

from classwise.compare import stats as compare_stats
from classwise.compare.stats import Design, Runs, detectable_difference, difference, estimate, holm, summarize

# Of 1,000 rows, 200 are scored and 600 train.
REDRAWN = Design(scored=200, trained=600, rows=1000, units=200, redrawn=True)
FIXED = Design(scored=200, trained=800, rows=1000, units=50, redrawn=False)


def runs_of(scores: Mapping[int, float]) -> Runs:
    """Runs whose scored rows are not resampled."""
    return Runs(scores, {})


def random_scores(rng: random.Random, seeds: Sequence[int], mean: float = 0.7) -> dict[int, float]:
    return {seed: rng.gauss(mean, 0.1) for seed in seeds}


def corrected_error(numbers: Sequence[float], correlation: float) -> float:
    """Nadeau and Bengio's standard error of the mean of resampled scores, written out."""
    return math.sqrt(statistics.variance(numbers) * (1 / len(numbers) + correlation / (1 - correlation)))


def test_without_training_noise_the_correlation_is_that_of_nadeau_and_bengio(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """n_scored / (n_scored + n_trained) where all other rows train; the noise of the training rows makes it larger."""
    plain = Design(scored=200, trained=800, rows=1000, units=200, redrawn=True)
    larger = plain.correlation
    monkeypatch.setattr(compare_stats, "TRAINING_NOISE", 0.0)
    assert plain.correlation == pytest.approx(0.2)
    assert larger == pytest.approx(0.2 * 2 / (1 + 0.25))


def test_the_interval_of_a_mean_is_corrected_for_shared_rows() -> None:
    """200 random samples of 2 to 12: mean and sd as in `statistics`, the interval from Student's t and Nadeau and
    Bengio's error."""
    rng = random.Random(1)
    for _ in range(200):
        scores = random_scores(rng, range(rng.randint(2, 12)))
        numbers = list(scores.values())
        found = estimate(runs_of(scores), REDRAWN)
        assert found is not None
        assert found.n == len(numbers)
        assert found.mean == pytest.approx(statistics.fmean(numbers), rel=1e-12)
        assert found.sd == pytest.approx(statistics.stdev(numbers), rel=1e-12)
        error = corrected_error(numbers, REDRAWN.correlation)
        wanted = stats.t.interval(0.95, len(numbers) - 1, loc=statistics.fmean(numbers), scale=error)
        assert found.interval == pytest.approx(wanted, rel=1e-10)


def test_the_difference_is_the_corrected_t_test_over_common_seeds() -> None:
    """200 random pairs with seeds missing on either side: t, p and equivalence by hand from the differences alone."""
    rng = random.Random(2)
    for _ in range(200):
        seeds = range(rng.randint(3, 12))
        one = random_scores(rng, [seed for seed in seeds if seed < 2 or rng.random() < 0.8])
        other = random_scores(rng, [seed for seed in reversed(seeds) if seed < 2 or rng.random() < 0.8])
        steps = [one[seed] - other[seed] for seed in one if seed in other]
        found = difference(runs_of(one), runs_of(other), REDRAWN, margin=0.2)
        assert found is not None
        assert found.pairs == len(steps)
        assert found.mean == pytest.approx(statistics.fmean(steps), rel=1e-9)
        error = corrected_error(steps, REDRAWN.correlation)
        freedom = len(steps) - 1
        assert found.p == pytest.approx(2 * stats.t.sf(abs(found.mean) / error, freedom), rel=1e-9)
        half = stats.t.ppf(0.975, freedom) * error
        assert found.interval == pytest.approx((found.mean - half, found.mean + half), rel=1e-9, abs=1e-12)

        # Both one-sided tests have to reject.
        one_sided = [
            stats.t.sf((found.mean + 0.2) / error, freedom),
            stats.t.cdf((found.mean - 0.2) / error, freedom),
        ]
        assert found.p_equivalent == pytest.approx(max(one_sided), rel=1e-9)
        narrow = stats.t.interval(0.9, freedom, loc=found.mean, scale=error)
        assert (found.p_equivalent < 0.05) == (narrow[0] > -0.2 and narrow[1] < 0.2)


def test_equal_rows_show_the_noise_of_training_and_of_the_rows() -> None:
    """Scores that are row effects plus seed effects plus both together, of which the true variances are known: the
    error's square is, on average, that of the mean."""
    rng = np.random.default_rng(5)
    rows, seeds, sets = 200, 4, 800
    squares = []
    means = []
    for _ in range(sets):
        effects_JN = (
            rng.normal(0, 0.5, rows) + rng.normal(0, 0.7, (seeds, rows)) + rng.normal(0, 0.04, (seeds, 1))
        )
        scores_J = effects_JN.mean(axis=1)
        weights_NR = rng.multinomial(rows, np.full(rows, 1 / rows), size=200).T / rows
        runs = Runs(dict(enumerate(scores_J.tolist())), dict(enumerate(effects_JN @ weights_NR)))
        zeros = Runs(dict.fromkeys(range(seeds), 0.0), dict.fromkeys(range(seeds), np.zeros(200)))
        found = difference(runs, zeros, Design(rows, trained=1e9, rows=1e9, units=rows, redrawn=False))
        assert found is not None
        assert found.error is not None
        squares.append(found.error**2)
        means.append(found.mean)
    true = 0.5**2 / rows + 0.7**2 / rows / seeds + 0.04**2 / seeds
    assert np.var(means) == pytest.approx(true, rel=0.15)
    assert np.mean(squares) == pytest.approx(true, rel=0.08)


def test_the_training_rows_add_to_the_noise_of_equal_rows() -> None:
    """The variance over rows is multiplied by 1 + TRAINING_NOISE * scored / trained; the degrees of freedom are those
    of 50 groups and 1,000 resamples where the rows alone vary."""
    resampled = np.random.default_rng(6).normal(0.5, 0.02, 1000)
    one = Runs({1: 0.5}, {1: resampled})
    zero = Runs({1: 0.0}, {1: np.zeros(1000)})
    found = difference(one, zero, FIXED)
    assert found is not None
    assert found.error == pytest.approx(resampled.std(ddof=1) * math.sqrt(1 + 200 / 800), rel=1e-12)
    assert found.freedom == pytest.approx(1 / (1 / 49 + 1 / 999))


def step_down(p_values: Sequence[float], level: float) -> set[int]:
    """Holm's procedure as the paper states it: the hypotheses that are rejected at `level`."""
    rejected: set[int] = set()
    left = list(range(len(p_values)))
    while left:
        smallest = min(left, key=lambda index: p_values[index])
        if p_values[smallest] > level / len(left):
            break
        rejected.add(smallest)
        left.remove(smallest)
    return rejected


def test_holm_rejects_what_the_step_down_procedure_rejects() -> None:
    """200 random families at 20 levels each: adjusted p <= level exactly for what the procedure rejects."""
    rng = random.Random(3)
    for _ in range(200):
        p_values = [rng.random() ** 4 for _ in range(rng.randint(1, 8))]
        if rng.random() < 0.3:
            p_values[-1] = p_values[0]
        adjusted = holm(p_values)
        assert all(a >= p for a, p in zip(adjusted, p_values, strict=True))
        assert max(adjusted) <= 1
        for level in (rng.random() ** 3 for _ in range(20)):
            assert {i for i, a in enumerate(adjusted) if a <= level} == step_down(p_values, level)
    assert holm([]) == []


def test_summaries_are_against_the_first_variant() -> None:
    """The first has no difference; the others' adjusted p-values are Holm's over all of them, for both tests."""
    rng = random.Random(4)
    values = {name: random_scores(rng, range(6), 0.5) for name in "abcd"}
    variants = {name: runs_of(scores) for name, scores in values.items()}
    first, *others = summarize(variants, REDRAWN, margin=0.3)
    assert first.variant == "a"
    assert first.difference is None
    singles = [difference(variants[row.variant], variants["a"], REDRAWN, margin=0.3) for row in others]
    for key, adjusted in (("p", "p_holm"), ("p_equivalent", "p_equivalent_holm")):
        assert [getattr(row.difference, adjusted) for row in others] == pytest.approx(
            holm([getattr(single, key) for single in singles])
        )


@pytest.mark.parametrize(
    ("steps", "margin", "higher", "verdict"),
    [
        ([0.050, 0.051, 0.049, 0.050, 0.052], 0.01, True, "better"),
        ([0.050, 0.051, 0.049, 0.050, 0.052], 0.01, False, "worse"),
        ([-0.050, -0.051, -0.049, -0.050, -0.052], 0.01, True, "worse"),
        ([0.050, 0.051, 0.049, 0.050, 0.052], None, True, "better"),
        ([0.0005, -0.0004, 0.0002, 0.0001, -0.0003], 0.01, True, "equivalent"),
        ([0.0050, 0.0051, 0.0049, 0.0050, 0.0052], 0.01, True, "equivalent"),
        ([0.0050, 0.0051, 0.0049, 0.0050, 0.0052], None, True, "better"),
        ([0.05, -0.04, 0.03, -0.06, 0.02], 0.01, True, "undecided"),
    ],
)
def test_the_verdict(steps: list[float], margin: float | None, higher: bool, verdict: str) -> None:
    """Better or worse by the metric's direction; equivalent within the margin, also where the difference is
    significant; undecided where neither was shown."""
    variants = {
        "a": runs_of(dict.fromkeys(range(5), 0.5)),
        "b": runs_of({s: 0.5 + x for s, x in enumerate(steps)}),
    }
    found = summarize(variants, REDRAWN, margin, higher)[1].difference
    assert found is not None
    assert found.verdict == verdict


@pytest.mark.parametrize("freedom", [2, 4, 9])
def test_the_detectable_difference_is_found_in_four_of_five_tests(freedom: int) -> None:
    """100,000 t-statistics with that true difference; with several tests a larger one is needed."""
    rng = np.random.default_rng(freedom)
    size = detectable_difference(1.0, freedom)
    errors = np.sqrt(rng.chisquare(freedom, 100_000) / freedom)
    t = (rng.normal(size, 1.0, 100_000)) / errors
    assert (t > stats.t.ppf(0.975, freedom)).mean() == pytest.approx(0.8, abs=0.005)
    assert detectable_difference(2.0, freedom) == pytest.approx(2 * size)
    assert detectable_difference(1.0, freedom, tests=2) > 1.1 * size


def test_without_spread_nothing_is_claimed() -> None:
    """One seed gives a mean only; equal differences give no p-value; no common seed gives no difference."""
    alone = estimate(runs_of({1: 0.5}), REDRAWN)
    assert alone is not None
    assert (alone.n, alone.mean, alone.sd, alone.interval) == (1, 0.5, None, None)
    assert estimate(runs_of({}), REDRAWN) is None
    for one, other in (({1: 0.6}, {1: 0.5}), ({1: 0.6, 2: 0.4}, {1: 0.5, 2: 0.3}), ({1: 0.5, 2: 0.6},) * 2):
        found = difference(runs_of(one), runs_of(other), REDRAWN, margin=0.1)
        assert found is not None
        assert (found.interval, found.p, found.p_equivalent, found.verdict) == (None, None, None, "undecided")
        assert found.mean == pytest.approx(one[1] - other[1])
    assert difference(runs_of({1: 0.5}), runs_of({2: 0.5}), REDRAWN) is None
    (_, empty) = summarize({"a": runs_of({1: 0.5}), "b": runs_of({})}, REDRAWN)
    assert (empty.score, empty.difference) == (None, None)


def test_a_single_seed_has_an_interval_over_rows_and_no_verdict() -> None:
    """The interval holds for the two models; a p-value would be taken for one of the variants."""
    rng = np.random.default_rng(7)
    variants = {
        name: Runs({1: mean}, {1: rng.normal(mean, 0.01, 1000)}) for name, mean in (("a", 0.5), ("b", 0.9))
    }
    found = summarize(variants, REDRAWN, margin=0.01)[1].difference
    assert found is not None
    assert found.interval is not None
    assert 0.3 < found.interval[0] < 0.4 < found.interval[1] < 0.5
    assert (found.p, found.detectable, found.verdict) == (None, None, "undecided")


def test_equal_rows_without_resamples_show_nothing() -> None:
    """The seeds alone would say nothing about other rows."""
    rng = random.Random(8)
    found = summarize({name: runs_of(random_scores(rng, range(5))) for name in "ab"}, FIXED)
    assert found[1].difference is not None
    assert found[1].difference.interval is None
    assert found[0].score is not None
    assert found[0].score.interval is None
