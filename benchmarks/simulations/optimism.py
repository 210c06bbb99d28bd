"""Is the estimated optimism of a selected epoch right, and does the default rule choose good epochs?

Trainings whose every epoch is known on 6,000 unseen rows (`epochs.py`); validation sets of natural shares are drawn
from these. The optimism of one set is the selected epoch's score on it minus that epoch's mean score over other sets of
the same size; the estimate sees the one set only, as a run does.
"""

from collections.abc import Callable

import numpy as np

from classwise.config.load import make_config
from classwise.metrics.outcomes import reason_against_optimism, selection_optimism
from classwise.metrics.rows import marginal_sums
from classwise.metrics.scores import label_scores
from classwise.training.state import Progress
from simulations.claim import Claim, at_most, within
from simulations.epochs import CLASSES, EVEN, TAIL, Training, draw, generated, perceptron, validation_counts

METRICS = ("macro_f1", "accuracy")
TRUE_SETS = 300  # from which the truth is known, twice: scores on them, and scores on others
RESAMPLES = 200
RULES: dict[str, int | float] = {
    "all epochs": 1,
    "the last third": 0.67,
    "the last fifth": 0.8,
    "the last epoch": 1.0,
}
"""By name: selection.first_epoch; 1.0 stands for the last epoch."""
DEFAULT = "the last fifth"


def simulate(quick: bool) -> list[Claim]:
    """The claims about the estimate, then those about the rule."""
    claims: list[Claim] = []
    trainings = _quick_trainings() if quick else _trainings() | _generated()
    sizes = (100,) if quick else (100, 300, 1000)
    sets = 20 if quick else 30
    limit = 0.012 if quick else 0.01
    for name, of_seeds in trainings.items():
        for rows in sizes if of_seeds[0].group_rows == 1 else (200, *sizes[1:]):
            for rule in ("all epochs", DEFAULT):
                for metric in METRICS:
                    true, estimated = _errors(of_seeds, metric, rows, rule, sets)
                    setting = (
                        f"{name}, {rows} rows, {metric}, {rule}: estimate minus true optimism ({true:.3f})"
                    )
                    claims.append(within(setting, estimated - true, -limit, limit, len(of_seeds) * sets))
    if not quick:
        claims += _rule_claims(_trained(trainings), sizes)
    return claims


def _trained(trainings: dict[str, list[Training]]) -> dict[str, list[Training]]:
    """The real trainings with the default schedule; generated ones say nothing about which epochs are good."""
    return {
        name: found for name, found in trainings.items() if "generated" not in name and "constant" not in name
    }


def _trainings() -> dict[str, list[Training]]:
    kinds: dict[str, Callable[[int], Training]] = {
        "even classes": lambda seed: perceptron("even", EVEN, seed, balanced=False),
        "long tail": lambda seed: perceptron("tail", TAIL, seed),
        "long tail, cross entropy": lambda seed: perceptron("tail, CE", TAIL, seed, balanced=False),
        "long tail, constant rate": lambda seed: perceptron(
            "tail, constant", TAIL, seed, constant=True, lr=1e-3
        ),
        "long tail, 12 epochs": lambda seed: perceptron("tail, 12", TAIL, seed, epochs=12),
    }
    return {name: [train(seed) for seed in range(3)] for name, train in kinds.items()}


def _quick_trainings() -> dict[str, list[Training]]:
    return {
        "generated, long tail": [generated("tail", TAIL, seed, epochs=20) for seed in range(2)],
        "generated, long tail, groups of 5": [_grouped(seed, epochs=20) for seed in range(2)],
    }


def _generated() -> dict[str, list[Training]]:
    return {
        "generated, even classes": [generated("even", EVEN, seed) for seed in range(3)],
        "generated, long tail": [generated("tail", TAIL, seed) for seed in range(3)],
        "generated, long tail, groups of 5": [_grouped(seed, epochs=30) for seed in range(3)],
    }


def _grouped(seed: int, epochs: int) -> Training:
    """Rows in groups of five whose difficulties and noise are correlated by 1/2: 200 rows are 40 groups, and five
    classes have a single one."""
    return generated("tail, groups", TAIL, seed, epochs=epochs, group_rows=5)


def first_epoch(rule: str, epochs: int) -> int:
    """The first epoch that the rule may select, as the config resolves it."""
    if rule == "the last epoch":
        return epochs
    tree = {"data": {"source": "x.csv"}, "targets": {"x": {"column": "x"}}, "training": {"epochs": epochs}}
    selection = {} if rule == DEFAULT else {"selection": {"first_epoch": RULES[rule]}}
    return make_config({**tree, **selection}).first_epoch


def select(scores_E: np.ndarray, first: int) -> int:
    """The epoch, from 0, that a run with these scores keeps."""
    progress = Progress()
    for score in scores_E:
        progress.end_epoch(float(score), {}, first_epoch=first)
    return progress.best_epoch - 1


def scores_of(predicted_EN: np.ndarray, true_N: np.ndarray, weights_NR: np.ndarray) -> dict[str, np.ndarray]:
    """The scores of each epoch on sets in which each row counts so often: (R, E) by metric."""
    found = [
        label_scores(*marginal_sums(true_N, predicted_N, CLASSES)(weights_NR)) for predicted_N in predicted_EN
    ]
    return {metric: np.stack([scores[metric] for scores in found], axis=1) for metric in METRICS}


_drawn: dict[tuple[int, int, int, int], dict[str, np.ndarray]] = {}


def drawn_scores(
    training: Training, predicted_EN: np.ndarray, rows: int, sets: int, seed: int
) -> dict[str, np.ndarray]:
    """The scores (sets, E) on that many validation sets; those of a training are computed once."""
    key = (id(predicted_EN), rows, sets, seed)
    if key not in _drawn:
        rng = np.random.default_rng([seed, rows])
        counts_K = validation_counts(training, rows)
        weights_NR = np.zeros((len(training.true), sets))
        for number in range(sets):
            np.add.at(weights_NR[:, number], draw(training, counts_K, rng), 1)
        _drawn[key] = scores_of(predicted_EN, training.true, weights_NR)
    return _drawn[key]


def _errors(trainings: list[Training], metric: str, rows: int, rule: str, sets: int) -> tuple[float, float]:
    """The true optimism and the mean estimate of it, over the trainings."""
    true, estimates = [], []
    for number, training in enumerate(trainings):
        first = first_epoch(rule, len(training.predicted))
        fresh_E = drawn_scores(training, training.predicted, rows, TRUE_SETS, seed=1)[metric].mean(axis=0)
        for scores_E in drawn_scores(training, training.predicted, rows, TRUE_SETS, seed=2)[metric]:
            chosen = select(scores_E, first)
            true.append(scores_E[chosen] - fresh_E[chosen])
        estimates += [
            estimated_optimism(training, metric, rows, first, seed=100 * number + run) for run in range(sets)
        ]
    return float(np.mean(true)), float(np.mean(estimates))


def estimated_optimism(training: Training, metric: str, rows: int, first: int, seed: int) -> float:
    """As a run estimates it, from one validation set."""
    rng = np.random.default_rng([seed, rows, 3])
    chosen = draw(training, validation_counts(training, rows), rng)
    true_N = training.true[chosen]
    predicted_EN = training.predicted[first - 1 :, chosen]
    scores_E = scores_of(predicted_EN, true_N, np.ones((rows, 1)))[metric][0]
    groups_N = np.arange(rows) // training.group_rows if training.group_rows > 1 else None
    if reason := reason_against_optimism(metric, true_N, CLASSES, groups_N):
        raise ValueError(f"{training.name}, {rows} rows: not estimated ({reason})")
    return selection_optimism(
        metric,
        true_N,
        predicted_EN.astype(np.uint8),
        scores_E,
        classes=CLASSES,
        groups=groups_N,
        seed=seed,
        resamples=RESAMPLES,
        higher_is_better=True,
    )


def _rule_claims(trainings: dict[str, list[Training]], sizes: tuple[int, ...]) -> list[Claim]:
    """How much better than the default's the epochs of the other rules are on fresh rows, on average over trainings,
    sizes and validation sets."""
    gains: dict[str, list[float]] = {rule: [] for rule in RULES}
    gains |= {f"averaged weights, {rule}": [] for rule in RULES}
    for of_seeds in trainings.values():
        for training in of_seeds:
            for rows in sizes:
                for prefix, predicted_EN in (
                    ("", training.predicted),
                    ("averaged weights, ", training.averaged),
                ):
                    fresh_E = drawn_scores(training, predicted_EN, rows, TRUE_SETS, seed=1)["macro_f1"].mean(
                        axis=0
                    )
                    scores = drawn_scores(training, predicted_EN, rows, TRUE_SETS, seed=2)["macro_f1"]
                    for rule in RULES:
                        first = first_epoch(rule, len(predicted_EN))
                        picked = [fresh_E[select(scores_E, first)] for scores_E in scores]
                        gains[prefix + rule].append(float(np.mean(picked)))
    default = np.array(gains[DEFAULT])
    claims = []
    for rule, values in gains.items():
        if rule != DEFAULT:
            lead = float((np.array(values) - default).mean())
            claims.append(
                at_most(
                    f"fresh macro F1 of {rule} minus that of the default ({DEFAULT})",
                    lead,
                    0.001,
                    len(values),
                )
            )
    return claims
