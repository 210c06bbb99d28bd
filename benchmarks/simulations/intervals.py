"""How often the 95 % intervals contain the score of the same classifier on the whole population.

Classifiers are drawn at random: recalls of 0.3 to 0.99 that differ by class, misses that prefer common or neighbouring
classes. Their confusion matrix over the population gives the true scores. Validation rows are then drawn from it, n
rows (or groups) in the rarest class, and their intervals come from the package's metrics.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from classwise.metrics.bootstrap import mean_intervals, resampled_scores
from classwise.metrics.classification import ClassMetric
from classwise.metrics.intervals import MIN_MEAN_UNITS, Intervals
from classwise.metrics.multilabel import MultilabelMetric
from classwise.metrics.scores import (
    Array,
    confusion_marginals,
    label_scores,
    level_scores,
    precision_recall_f1,
)
from simulations.claim import Claim, within

SCORES = ("macro F1", "F1 of the rarest class", "accuracy", "quadratic kappa")
ROWS = (1, 2, 3, 5, 10, 30)
ACCURACIES = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
CORRELATIONS = (0.05, 0.2, 0.5, 0.8)
MOST_ROWS = 4000  # a long tail is cut so that no set has more

Intervaller = Callable[[ClassMetric, "np.ndarray | None", int], Intervals]


@dataclass(frozen=True)
class Setting:
    """`classes`: their number. `tail`: the commonest class has 5 to 100 times the rows of the rarest; else all have as
    many. `draw`: `fixed` class counts, as of a stratified split, or `random` ones. `groups`: None, `one class` in each
    group, or `all classes` in each."""

    classes: int
    tail: bool
    draw: str
    ordinal: bool = False
    groups: str | None = None


SETTINGS = [
    Setting(3, False, "fixed"),
    Setting(3, True, "random"),
    Setting(8, True, "fixed"),
    Setting(8, False, "random"),
    Setting(18, True, "random"),
    Setting(18, False, "fixed"),
    Setting(5, True, "fixed", ordinal=True),
    Setting(5, False, "random", ordinal=True),
]
GROUPED = [
    Setting(3, False, "fixed", groups="one class"),
    Setting(8, True, "random", groups="one class"),
    Setting(5, False, "fixed", ordinal=True, groups="one class"),
    Setting(5, True, "fixed", ordinal=True, groups="all classes"),
    Setting(3, False, "fixed", groups="all classes"),
]


def simulate(quick: bool) -> list[Claim]:
    """Scores of classes by n, over rows and groups, the same by the percentile bootstrap; then means and labels."""
    margin = 3.0 if quick else 0.0
    claims = []
    for what, settings in (("rows", SETTINGS), ("groups", GROUPED)):
        sets = 40 if quick else -(-1000 // len(settings))
        for n in (3, 10) if quick else ROWS:
            claims += coverage_claims(what, n, settings, sets, margin)
            if not quick and n in (1, 3, 10):
                claims += compared(
                    coverage_claims(what, n, settings, sets // 4, margin, percentile_intervals)
                )
    return claims + mean_claims(quick)


def compared(claims: list[Claim]) -> list[Claim]:
    """Claims of another method, which need not hold."""
    return [
        Claim(
            f"(percentile bootstrap: {claim.setting})", claim.found, "for comparison", claim.count, holds=None
        )
        for claim in claims
        if claim.found != "no interval"
    ]


def percentile_intervals(metric: ClassMetric, groups: "np.ndarray | None", seed: int) -> Intervals:
    """The central 95 % of the scores on resampled rows or groups."""
    resampled = resampled_scores(metric.resampling(groups), seed=seed, resamples=500)
    ends = {name: np.percentile(values_R, (2.5, 97.5)).tolist() for name, values_R in resampled.items()}
    return Intervals(ends, classes=[Intervals()] * metric.classes)


def coverage_claims(
    what: str,
    n: int,
    settings: list[Setting],
    sets: int,
    margin: float = 0.0,
    intervaller: Intervaller | None = None,
) -> list[Claim]:
    """Of each score: in how many of 100 sets the interval contains the truth. `sets`: of each setting."""
    by_setting = [covered_sets(setting, n, sets, intervaller) for setting in settings]
    claims = []
    for score in SCORES:
        # Scores that few sets have an interval of are counted as without.
        covered = [found[score] for found in by_setting if len(found[score]) >= sets / 5]
        name = f"{score}, {n} {what if n > 1 else what.removesuffix('s')} in the rarest class"
        if not covered:
            claims.append(Claim(name, "no interval", "none, or 93 to 97 %", sets * len(settings), holds=True))
            continue
        shares = [100 * float(np.mean(each)) for each in covered]
        mean = float(np.mean(shares))
        found = f"{mean:.1f} % ({min(shares):.1f} to {max(shares):.1f})"
        holds = 93 - margin <= mean <= 97 + margin
        claims.append(Claim(name, found, "93 to 97 %", sum(map(len, covered)), holds=holds))
    return claims


def covered_sets(
    setting: Setting, n: int, sets: int, intervaller: Intervaller | None = None
) -> dict[str, list[bool]]:
    """Whether each set's interval contains the truth, by score; sets without the interval are left out."""
    rng = np.random.default_rng([n, setting.classes, setting.tail, setting.draw == "fixed", setting.ordinal])
    covered: dict[str, list[bool]] = defaultdict(list)
    for number in range(sets):
        true_by_score, metric, groups_N = drawn_set(setting, n, rng)
        find = intervaller or (lambda metric, groups, seed: metric.intervals(groups, seed))
        intervals = find(metric, groups_N, number)
        ends = {
            "macro F1": intervals.scores.get("macro_f1"),
            "accuracy": intervals.scores.get("accuracy"),
            "quadratic kappa": intervals.scores.get("quadratic_kappa"),
            "F1 of the rarest class": intervals.classes[0].scores.get("f1"),
        }
        for score, interval in ends.items():
            if interval is not None:
                low, high = interval
                covered[score].append(low - 1e-9 <= true_by_score[score] <= high + 1e-9)
    return covered


def drawn_set(
    setting: Setting, n: int, rng: np.random.Generator
) -> tuple[dict[str, float], ClassMetric, "np.ndarray | None"]:
    """A classifier's true scores, and a metric of the validation rows drawn from it, with their groups."""
    classes = setting.classes
    ratio = np.exp(rng.uniform(np.log(5), np.log(100))) if setting.tail else 1.0
    rising_K = ratio ** (np.arange(classes) / (classes - 1))
    units_K = np.round(n * rising_K).astype(int)
    if setting.groups == "all classes":  # the rows of each group
        units_K = np.round(2 * rising_K).clip(max=12).astype(int)
    elif setting.groups == "one class":
        units_K = units_K.clip(max=max(n, MOST_ROWS // (8 * classes)))
    else:
        units_K = units_K.clip(max=max(n, MOST_ROWS // classes))
    share_K = units_K / units_K.sum()
    chance_KK = drawn_classifier(share_K, setting.ordinal, rng)
    true_by_score = scores_of(chance_KK * share_K[:, None])

    # A set without a row of the rarest class has no score of it to be wrong about.
    if setting.draw == "random":
        drawn_K = np.zeros(classes, dtype=int)
        while not drawn_K[0]:
            drawn_K = rng.multinomial(units_K.sum(), share_K)
        units_K = drawn_K
    true_N, predicted_N, groups_N = drawn_rows(chance_KK, units_K, n, setting, rng)

    # The predictions as logits, which are the same in every row: only the predicted class matters here.
    metric = ClassMetric(classes, keep_rows=True, ordinal=setting.ordinal)
    metric.update(torch.eye(classes)[torch.from_numpy(predicted_N)], torch.from_numpy(true_N))
    return true_by_score, metric, groups_N


def drawn_classifier(share_K: Array, ordinal: bool, rng: np.random.Generator) -> Array:
    """The probability (K, K) that a row of each class is predicted as each class."""
    classes = len(share_K)
    accuracy = rng.choice(ACCURACIES)
    logit_K = np.log(accuracy / (1 - accuracy)) + rng.normal(0, 0.8, classes)
    logit_K += (
        0.3 * rng.uniform() * (np.log(share_K) - np.log(share_K).mean())
    )  # common classes are learned better
    recall_K = 1 / (1 + np.exp(-logit_K))
    if ordinal:
        distance_KK = np.abs(np.subtract.outer(np.arange(classes), np.arange(classes)))
        miss_KK = np.exp(-distance_KK * rng.uniform(0.5, 2.5) + rng.normal(0, 0.4, (classes, classes)))
    else:
        miss_KK = share_K[None] ** rng.uniform(0.6, 1) * np.exp(rng.normal(0, 1, (classes, classes)))
    np.fill_diagonal(miss_KK, 0)
    chance_KK = miss_KK / miss_KK.sum(axis=1, keepdims=True) * (1 - recall_K)[:, None]
    np.fill_diagonal(chance_KK, recall_K)
    return np.asarray(chance_KK)


def drawn_rows(
    chance_KK: Array, units_K: "np.ndarray", n: int, setting: Setting, rng: np.random.Generator
) -> tuple["np.ndarray", "np.ndarray", "np.ndarray | None"]:
    """True and predicted classes (N,), and the groups if there are any. `units_K`: the rows or groups of each class, or
    the rows of each class in each of `n` groups.

    The rows of a group have the same probabilities, drawn around the classifier's: a Dirichlet distribution, so that
    their correlation is one of CORRELATIONS. Where groups have all classes, they are as difficult in each.
    """
    classes = setting.classes
    if setting.groups is None:
        true_N = np.repeat(np.arange(classes), units_K)
        chosen = rng.random(len(true_N))[:, None]
        return true_N, (chance_KK[true_N].cumsum(axis=1) < chosen).sum(axis=1).clip(0, classes - 1), None

    correlation = rng.choice(CORRELATIONS)
    size = rng.integers(2, 13)
    if setting.groups == "one class":
        class_C = np.repeat(np.arange(classes), units_K)
        group_C = np.arange(len(class_C))
        rows_C = np.maximum(1, rng.poisson(size, len(class_C)))
        alpha_CK = np.maximum(chance_KK[class_C] * (1 / correlation - 1), 1e-9)
        gamma_CK = np.maximum(rng.standard_gamma(alpha_CK), 1e-300)
        chance_CK = gamma_CK / gamma_CK.sum(axis=1, keepdims=True)
    else:
        class_C = np.tile(np.arange(classes), n)
        group_C = np.repeat(np.arange(n), classes)
        rows_C = units_K[class_C]
        chance_CK = difficult_groups(chance_KK, class_C, group_C, correlation, rng)
    true_N = class_C.repeat(rows_C)
    chosen = rng.random(len(true_N))[:, None]
    predicted_N = (chance_CK.repeat(rows_C, axis=0).cumsum(axis=1) < chosen).sum(axis=1).clip(0, classes - 1)
    return true_N, predicted_N, group_C.repeat(rows_C)


def difficult_groups(
    chance_KK: Array,
    class_C: "np.ndarray",
    group_C: "np.ndarray",
    correlation: float,
    rng: np.random.Generator,
) -> Array:
    """The probabilities (C, K) of cells of a class and a group: the recall at the group's quantile of a beta
    distribution, the misses in the classifier's proportions."""
    from scipy.stats import beta

    quantile_C = rng.random(group_C.max() + 1)[group_C]
    recall_C = np.diagonal(chance_KK)[class_C]
    scale = 1 / correlation - 1
    drawn_C = beta.ppf(quantile_C, recall_C * scale, (1 - recall_C) * scale).clip(0, 1)
    chance_CK = chance_KK[class_C] * ((1 - drawn_C) / np.maximum(1 - recall_C, 1e-12))[:, None]
    chance_CK[np.arange(len(class_C)), class_C] = drawn_C
    return np.asarray(chance_CK / chance_CK.sum(axis=1, keepdims=True))


def scores_of(confusion_KK: Array) -> dict[str, float]:
    """The scores of a population."""
    hits_K, support_K, predicted_K = confusion_marginals(confusion_KK)
    steps_KK = np.abs(np.subtract.outer(np.arange(len(hits_K)), np.arange(len(hits_K))))
    distances = ((confusion_KK * steps_KK**power).sum() for power in (1, 2))
    scores = label_scores(hits_K, support_K, predicted_K)
    kappa = level_scores(support_K, predicted_K, *distances)["quadratic_kappa"]
    return {
        "macro F1": float(scores["macro_f1"]),
        "accuracy": float(scores["accuracy"]),
        "quadratic kappa": float(kappa),
        "F1 of the rarest class": float(precision_recall_f1(hits_K, support_K, predicted_K)[2][0]),
    }


def mean_claims(quick: bool) -> list[Claim]:
    """The studentized bootstrap of means, over rows and over groups, and the scores of labels."""
    sets = 200 if quick else 500
    margin = 3.0 if quick else 0.0
    claims = []
    for units in (20,) if quick else (MIN_MEAN_UNITS, 30, 100):
        shares = [100 * mean_coverage(name, units, sets) for name in VALUES]
        found = f"{np.mean(shares):.1f} % ({min(shares):.1f} to {max(shares):.1f})"
        holds = 93 - margin <= np.mean(shares) <= 97 + margin
        names = f"{', '.join(VALUES)}: {units} rows, queries or groups"
        claims.append(Claim(names, found, "93 to 97 %", sets * len(VALUES), holds=bool(holds)))
    for rows in (30,) if quick else (10, 30, 100):
        for score, share in label_coverage(rows, sets).items():
            name = f"{score} of 6 labels, {rows} rows"
            claims.append(within(name, 100 * share, 93 - margin, 97 + margin, sets, " %"))
    return claims


# Values of rows by score: how they are drawn, their mean, and how they are spread over groups.
LOSS_SHAPE = 3.0, 0.6
VALUES: dict[str, tuple[Callable[[np.random.Generator, int], Array], float]] = {
    "log loss": (lambda rng, rows: -np.log(rng.beta(*LOSS_SHAPE, rows).clip(1e-15)), 0.0),
    "MAE": (lambda rng, rows: np.abs(rng.normal(size=rows)), (2 / np.pi) ** 0.5),
    "MSE": (lambda rng, rows: rng.normal(size=rows) ** 2, 1.0),
    "MRR": (lambda rng, rows: 1 / rng.geometric(0.5, rows), float(np.log(2))),
}


def mean_coverage(name: str, units: int, sets: int) -> float:
    """In which share of sets, half of them in groups of similar rows, the interval contains the mean."""
    from scipy.special import digamma

    draw, mean = VALUES[name]
    mean = mean or float(digamma(sum(LOSS_SHAPE)) - digamma(LOSS_SHAPE[0]))
    rng = np.random.default_rng([units, len(name), sets])
    covered = 0
    for number in range(sets):
        rows_U = rng.poisson(4, units) + 1 if number % 2 else np.ones(units, dtype=int)
        unit_N = np.arange(units).repeat(rows_U)
        values_N = draw(rng, len(unit_N))
        if number % 2:
            values_N = values_N * np.exp(0.5 * rng.normal(size=units) - 0.125)[unit_N]
        found = mean_intervals({name: values_N}, np.ones(len(unit_N)), units, unit_N, seed=number)
        low, high = found.get(name, [np.nan, np.nan])
        covered += low <= mean <= high
    return covered / sets


def label_coverage(rows: int, sets: int) -> dict[str, float]:
    """In which share of sets the intervals of a multilabel target contain the truth; a difficult row is difficult for
    all of its labels."""
    from scipy.special import ndtr

    rng = np.random.default_rng([rows, sets])
    covered: dict[str, list[bool]] = defaultdict(list)
    for number in range(sets):
        share_L = np.exp(rng.uniform(np.log(0.1), np.log(0.6), 6))
        ease_2L = rng.normal(1.2, 0.5, (2, 6))  # of the false cells, of the true ones
        true_NL = rng.random((rows, 6)) < share_L
        shared_N1 = rng.normal(size=(rows, 1)) * 0.3**0.5
        is_hit_NL = (
            np.where(true_NL, ease_2L[1], ease_2L[0]) + shared_N1 + rng.normal(size=(rows, 6)) * 0.7**0.5 > 0
        )
        metric = MultilabelMetric([str(k) for k in range(6)], keep_rows=True)
        metric.update(
            torch.from_numpy(np.where(true_NL == is_hit_NL, 1.0, -1.0)), torch.from_numpy(true_NL * 1.0)
        )
        intervals = metric.intervals(seed=number)

        hits_L = share_L * ndtr(ease_2L[1])
        predicted_L = hits_L + (1 - share_L) * ndtr(-ease_2L[0])
        f1_L = precision_recall_f1(hits_L, share_L, predicted_L)[2]
        micro = float(2 * hits_L.sum() / (share_L.sum() + predicted_L.sum()))
        for name, interval, truth in (
            ("macro F1", intervals.scores.get("macro_f1"), float(f1_L.mean())),
            ("micro F1", intervals.scores.get("micro_f1"), micro),
            ("F1", intervals.classes[0].scores.get("f1"), float(f1_L[0])),
        ):
            if interval is not None:
                covered[name].append(interval[0] <= truth <= interval[1])
    return {name: float(np.mean(each)) for name, each in covered.items()}
