"""Decisions of folds on real images: long-tailed draws of scikit-learn's digits, a probe on the pixels for each fold,
and the digits that were not drawn for the later score. `python benchmarks/folds.py digits` runs it.
"""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from classwise.decision.goals import Goal
from classwise.decision.nested import Candidate, Judge, OutOfFoldTarget, adopted, candidates, value_interval
from classwise.decision.rules import HALF_PRIOR, PLAIN, TUNED, Answers, Rule, answers
from simulations.decisions import share

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
CLASSES = 10
FOLDS = 5
RESAMPLES = 500


@dataclass(frozen=True)
class Setting:
    """`largest` images of the most frequent digit, which has `imbalance` times those of the rarest; there are 174 to
    183 of each digit, and the others are for the later score. `balanced`: a probe with class weights."""

    name: str
    largest: int
    imbalance: float
    balanced: bool

    @property
    def counts(self) -> Ints:
        """Images of each digit that are drawn, the most frequent one first."""
        shares = self.imbalance ** (-np.arange(CLASSES) / (CLASSES - 1))
        return np.round(self.largest * shares).astype(np.int64)


SETTINGS = (
    Setting("equal classes, nothing to gain", 40, 1, balanced=False),
    Setting("long-tailed, balanced probe", 120, 15, balanced=True),
    Setting("long-tailed, plain probe", 120, 15, balanced=False),
)


@dataclass(frozen=True)
class Outcome:
    """Of one draw: the adopted `rule`; its gain nested, later by single models (None where nothing is adopted), and
    later by the mean of all; the nested and the later gain of tuned offsets; whether the interval has the later
    score."""

    rule: str
    gain: float
    ensemble_gain: float
    tuned_nested: float
    tuned_gain: float
    is_covered: bool | None


def drawn(setting: Setting, labels_N: Ints, rng: np.random.Generator) -> tuple[Ints, Ints, Array]:
    """Row numbers of a long-tailed draw and of the others, and the weights of the others, by which their classes have
    the shares of the draw."""
    order = rng.permutation(CLASSES)  # another digit is the rarest in each draw
    chosen = []
    for place, digit in enumerate(order):
        chosen.append(rng.permutation(np.flatnonzero(labels_N == digit))[: setting.counts[place]])
    rows = np.sort(np.concatenate(chosen))
    later = np.setdiff1d(np.arange(len(labels_N)), rows)
    shares = np.bincount(labels_N[rows], minlength=CLASSES) / len(rows)
    weights = shares[labels_N[later]] / np.bincount(labels_N[later], minlength=CLASSES)[labels_N[later]]
    return rows, later, weights


def probes(images_NF: Array, labels_N: Ints, fold_N: Ints, balanced: bool) -> list[Any]:
    """A model for each fold, of the rows of the others."""
    weight = "balanced" if balanced else None
    models = [
        make_pipeline(StandardScaler(), LogisticRegression(C=0.1, class_weight=weight, max_iter=1000))
        for _ in range(FOLDS)
    ]
    return [
        model.fit(images_NF[fold_N != fold], labels_N[fold_N != fold]) for fold, model in enumerate(models)
    ]


def repetition(setting: Setting, seed: int, images_NF: Array, labels_N: Ints) -> Outcome:
    """Draw, fit the folds, decide as `classwise folds` does, and score on the digits that were not drawn."""
    rng = np.random.default_rng([seed, int(setting.imbalance), setting.balanced])
    rows, later, weight_L = drawn(setting, labels_N, rng)
    images, true_N = images_NF[rows], labels_N[rows]
    splitter = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    fold_N = np.empty(len(rows), dtype=np.int64)
    for fold, (_, held_out) in enumerate(splitter.split(images, true_N)):
        fold_N[held_out] = fold
    models = probes(images, true_N, fold_N, setting.balanced)
    log_p = np.empty((len(rows), CLASSES))
    for fold, model in enumerate(models):
        log_p[fold_N == fold] = model.predict_log_proba(images[fold_N == fold])

    # What is adopted, by the code of the command.
    data = OutOfFoldTarget("class", log_p, true_N, fold_N, None)
    goal = Goal("macro_f1", CLASSES)
    judge = Judge(goal, true_N, "class")
    half_prior, tuned = candidates(data, [HALF_PRIOR, TUNED], goal, judge, seed, RESAMPLES)
    chosen = adopted(data, [half_prior, tuned], judge, seed, RESAMPLES)
    used = Candidate(PLAIN, answers("class", log_p, PLAIN), tuned.gain) if chosen is None else chosen

    # The later score: of single models, which the nested one is an estimate of, and of their mean.
    later_p = [model.predict_log_proba(images_NF[later]) for model in models]
    mean_p = np.logaddexp.reduce(later_p, axis=0) - np.log(FOLDS)

    def scored(given: Answers) -> float:
        return float(
            f1_score(labels_N[later], given, average="macro", sample_weight=weight_L, zero_division=0)
        )

    def single(rule: Rule) -> float:
        return float(np.mean([scored(answers("class", one, rule)) for one in later_p]))

    interval = value_interval(data, judge, used.nested, seed, RESAMPLES)
    return Outcome(
        rule=used.rule.name,
        gain=single(used.rule) - single(PLAIN),
        ensemble_gain=scored(answers("class", mean_p, used.rule)) - scored(answers("class", mean_p, PLAIN)),
        tuned_nested=tuned.gain.gain,
        tuned_gain=single(tuned.rule) - single(PLAIN),
        is_covered=None if interval is None else interval[0] <= single(used.rule) <= interval[1],
    )


HEAD = (
    "| | rows, of the rarest digit | half the log prior adopted | tuned offsets adopted |"
    " later gain of what is adopted | of the mean of the models | interval has its later score |"
    " tuned offsets: nested gain | later gain |\n|---|---|---|---|---|---|---|---|---|"
)


def line(setting: Setting, outcomes: list[Outcome]) -> str:
    """A row of the table."""
    cells = (
        setting.name,
        f"{setting.counts.sum()}, {setting.counts.min()}",
        share([one.rule == HALF_PRIOR for one in outcomes]),
        share([one.rule == TUNED for one in outcomes]),
        f"{np.mean([one.gain for one in outcomes]):+.3f}",
        f"{np.mean([one.ensemble_gain for one in outcomes]):+.3f}",
        share([one.is_covered for one in outcomes]),
        f"{np.mean([one.tuned_nested for one in outcomes]):+.3f}",
        f"{np.mean([one.tuned_gain for one in outcomes]):+.3f}",
    )
    return f"| {' | '.join(cells)} |"


def digits(repetitions: int) -> str:
    """The table of all settings."""
    images_NF, labels_N = load_digits(return_X_y=True)
    lines = [HEAD]
    for setting in SETTINGS:
        started = time.monotonic()
        outcomes = [
            repetition(setting, seed, images_NF / 16, labels_N.astype(np.int64))
            for seed in range(repetitions)
        ]
        lines.append(line(setting, outcomes))
        print(lines[-1], f"({time.monotonic() - started:.0f} s)", flush=True)
    return "\n".join(lines)
