"""`classwise compare`: does it find differences where there are none, and those that there are?

The learners of `learners.py` are equally good by construction, so every difference that is called significant is a
false one. Rows are split by the package's functions, scored by its macro F1, and judged by `compare.stats.summarize`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from classwise.compare.stats import ALPHA, Design, Difference, Runs, Summary, summarize
from classwise.metrics.bootstrap import resampled_weights
from classwise.metrics.scores import label_scores
from simulations.claim import Claim, at_most, for_information, within
from simulations.learners import (
    CLASSES,
    COUNTS,
    Array,
    Numbers,
    Population,
    drawn_splits,
    long_tailed,
    macro_f1,
    population,
    trained,
)
from simulations.selected_epochs import FEW, MANY, mean_differences

SEEDS = (3, 5, 10)
VARIANTS = 3
LIMIT = 5.5  # % of the data sets
AT_ONCE = 25  # data sets
RESAMPLES = 200
GAINS = (0.03, 0.06, 0.15)  # how much farther apart the classes are for the better learner


@dataclass(frozen=True)
class Setting:
    """Where the rows of a comparison come from. `scored`: nested (a share of the rows is the test), valid (the
    validation share, at a fixed epoch) or table (a test table of its own). `new`: the number of new rows on which true
    scores are measured, in multiples of a data set's."""

    name: str
    population: Population
    scored: str
    counts: tuple[int, ...] = COUNTS
    new: int = 0


@dataclass(frozen=True)
class Simulated:
    """The scores (D, V, J) of many data sets, for a table those on resamples (D, V, J, R), and how they came about.
    `truth` (D, V): the expected score of each variant's models on new rows."""

    scores: Array
    resampled: Array | None
    truth: Array
    design: Design

    def under(self, before: str) -> "Simulated":
        """The same scores, judged by a test that takes less into account: `student`, the seeds alone; `nadeau_bengio`,
        without the noise of the training rows that seeds have in common."""
        if before == "nadeau_bengio":
            return replace(self, design=replace(self.design, trained=self.design.scored))
        resampled = None if self.resampled is None else np.zeros_like(self.resampled)
        return replace(self, design=replace(self.design, scored=1e-9), resampled=resampled)

    def summaries(
        self, seeds: int, variants: Sequence[int], margin: float | None = None
    ) -> Iterator[list[Summary]]:
        """What `compare` makes of the first `seeds` seeds of each data set."""
        for index, scores_VJ in enumerate(self.scores):
            runs = {}
            for v in variants:
                resampled = {} if self.resampled is None else self.resampled[index, v, :seeds]
                runs[f"variant {v}"] = Runs(
                    scores=dict(enumerate(scores_VJ[v, :seeds].tolist())),
                    resampled=dict(enumerate(resampled)) if len(resampled) else {},
                )
            yield summarize(runs, self.design, margin)


def simulate(quick: bool) -> list[Claim]:
    """The claims; `quick`: fewer data sets, and limits as much wider."""
    sets = 50 if quick else 2000
    limit = 10.0 if quick else LIMIT
    claims = []
    for setting in _settings(quick):
        claims += _no_difference(setting, _simulated(setting, sets, seed=1), limit)
    claims += _real_differences(GAINS[-1:] if quick else GAINS, sets=50 if quick else 500, limit=limit)
    claims += _selected_epochs(quick)
    return claims


def _settings(quick: bool) -> list[Setting]:
    clear = population(VARIANTS, signal=0.5, noise=0.3)
    settings = [
        Setting("500 rows, a fifth is the test", clear, "nested"),
        Setting("500 rows and a test table of 125", clear, "table"),
    ]
    if quick:
        return settings
    near_chance = population(VARIANTS, signal=0.25, noise=0.0)
    separate = population(VARIANTS, signal=1.0, noise=0.3)
    large = tuple(4 * count for count in COUNTS)
    return [
        *settings,
        Setting("500 rows, a fifth is the test, classes far apart", separate, "nested"),
        Setting("500 rows, a fifth is the test, near chance", near_chance, "nested"),
        Setting("2,000 rows, a fifth is the test", clear, "nested", large),
        Setting("500 rows, a fixed epoch: validation rows", clear, "valid"),
        Setting("500 rows and a test table, near chance", near_chance, "table"),
    ]


def _simulated(setting: Setting, sets: int, seed: int) -> Simulated:
    """Many data sets; each AT_ONCE have random numbers of their own."""
    parts = [_some_sets(setting, start, seed) for start in range(0, sets, AT_ONCE)]
    resampled = [part.resampled for part in parts if part.resampled is not None]
    return Simulated(
        scores=np.concatenate([part.scores for part in parts]),
        resampled=np.concatenate(resampled) if resampled else None,
        truth=np.concatenate([part.truth for part in parts]),
        design=parts[0].design,
    )


def _some_sets(setting: Setting, start: int, seed: int) -> Simulated:
    """Draw AT_ONCE data sets, train every variant with every seed, and score the models."""
    rng = np.random.default_rng([seed, start])
    labels_N = long_tailed(setting.counts)
    table_M = long_tailed(tuple(count // 4 for count in setting.counts))
    features = setting.population.features(rng, AT_ONCE, labels_N)
    test = 0.2 if setting.scored == "nested" else 0.0
    splits = [
        [drawn_splits(labels_N, test, seed=1000 * (start + i) + j) for j in range(max(SEEDS))]
        for i in range(AT_ONCE)
    ]
    train_DJN = np.array([[train_N for train_N, _ in of_set] for of_set in splits])
    predict = trained(features, labels_N, train_DJN, setting.population.noise, rng)

    # On the rows that the comparison scores, and on many new ones.
    resampled = None
    if setting.scored == "table":
        predicted = predict(setting.population.features(rng, AT_ONCE, table_M))
        scores = macro_f1(predicted, table_M, np.ones(len(table_M), dtype=bool))
        resampled = np.array([_on_resamples(found, table_M, start) for found in predicted])
    else:
        test_DJN = np.array([[test_N for _, test_N in of_set] for of_set in splits])
        scores = macro_f1(predict(features), labels_N, test_DJN[:, None])
    new_M = np.repeat(labels_N, setting.new)
    new = predict(setting.population.features(rng, AT_ONCE, new_M))
    scored = len(table_M) if setting.scored == "table" else int(splits[0][0][1].sum())
    return Simulated(
        scores=scores,
        resampled=resampled,
        truth=macro_f1(new, new_M, np.ones(len(new_M), dtype=bool)).mean(axis=-1),
        design=Design(
            scored=scored,
            trained=int(splits[0][0][0].sum()),
            rows=len(labels_N),
            units=scored,
            redrawn=setting.scored != "table",
        ),
    )


def _on_resamples(predicted_VJM: Numbers, labels_M: Numbers, seed: int) -> Array:
    """Macro F1 (V, J, R) on resamples of the rows, the same ones for all models."""
    (weights_MR,) = resampled_weights(len(labels_M), seed, RESAMPLES)
    hits = [((predicted_VJM == k) & (labels_M == k)) @ weights_MR for k in range(CLASSES)]
    guessed = [(predicted_VJM == k) @ weights_MR for k in range(CLASSES)]
    support = [np.broadcast_to((labels_M == k) @ weights_MR, hits[0].shape) for k in range(CLASSES)]
    counts = (np.stack(columns, axis=-1) for columns in (hits, support, guessed))
    return label_scores(*counts)["macro_f1"]


def _no_difference(setting: Setting, simulated: Simulated, limit: float) -> list[Claim]:
    """How often equally good variants are called different: one pair, and any of two differences after Holm."""
    claims = []
    count = len(simulated.scores)
    for seeds in SEEDS:
        name = f"{setting.name}, {seeds} seeds: called different"
        wrong = _called_different(simulated, seeds, variants=(0, 1))
        any_wrong = _called_different(simulated, seeds, variants=(0, 1, 2))
        claims.append(at_most(f"{name}, 2 variants", wrong, limit, count, " %"))
        claims.append(at_most(f"{name}, 3 variants", any_wrong, limit, count, " %"))

        # What the tests of before would have said.
        student = _called_different(simulated.under("student"), seeds, variants=(0, 1))
        claims.append(for_information("... by Student's t over the seeds, 2 variants", student, count, " %"))
        if simulated.design.redrawn:
            other = _called_different(simulated.under("nadeau_bengio"), seeds, variants=(0, 1))
            claims.append(
                for_information(
                    "... with the original r of Nadeau and Bengio, 2 variants", other, count, " %"
                )
            )
    return claims


def _called_different(simulated: Simulated, seeds: int, variants: Sequence[int]) -> float:
    """The share of the data sets, in %, in which any of the variants is called better or worse than the first."""
    wrong = sum(
        any(row.difference is not None and row.difference.verdict in ("better", "worse") for row in summary)
        for summary in simulated.summaries(seeds, variants)
    )
    return 100 * wrong / len(simulated.scores)


def _real_differences(gains: Sequence[float], sets: int, limit: float) -> list[Claim]:
    """How often the interval misses a difference that there is, and how often it is found; and how often the largest of
    the differences is called equivalent where it is the margin. The variants agree on most rows."""
    claims = []
    for gain in gains:
        two = population(2, signal=0.5, noise=0.3, gain=gain, agreement=0.9)
        setting = Setting("", two, "nested", tuple(4 * count for count in COUNTS), new=1)
        simulated = _simulated(setting, sets, seed=2)
        truth = float((simulated.truth[:, 1] - simulated.truth[:, 0]).mean())
        for seeds in SEEDS:
            name = f"2,000 rows, a true difference of {truth:.3f}, {seeds} seeds"
            found = [
                summary[1].difference
                for summary in simulated.summaries(seeds, variants=(0, 1), margin=truth)
                if summary[1].difference
            ]
            claims += _one_difference(name, found, truth, limit=limit, with_margin=gain == GAINS[-1])
    return claims


def _one_difference(
    name: str, found: Sequence[Difference], truth: float, limit: float, with_margin: bool
) -> list[Claim]:
    count = len(found)
    intervals = [one.interval for one in found if one.interval]
    missed = sum(not low <= truth <= high for low, high in intervals) + count - len(intervals)
    seen = sum(one.p is not None and one.p < ALPHA and one.mean > 0 for one in found)
    told = float(np.mean([one.detectable for one in found if one.detectable is not None]))
    claims = [
        at_most(f"{name}: outside of the interval", 100 * missed / count, limit, count, " %"),
        for_information(
            f"{name}: found (said to be detectable: {told:.3f} on average)", 100 * seen / count, count, " %"
        ),
    ]
    if with_margin:
        equivalent = sum(one.verdict == "equivalent" for one in found)
        claims.append(
            at_most(f"{name}, the margin: called equivalent", 100 * equivalent / count, limit, count, " %")
        )
    return claims


def _selected_epochs(quick: bool) -> list[Claim]:
    """A learner of 40 epochs against one of 2, on random labels: no epoch of any of them is better than another."""
    sets = 100 if quick else 2000
    old, nested = mean_differences(sets)
    limit = 0.015 if quick else 0.003
    return [
        within(
            f"random labels, {MANY} epochs against {FEW}: how much too far ahead", nested, -limit, limit, sets
        ),
        for_information("the same, scored on the rows that chose the epochs", old, sets),
    ]
