"""Decisions of folds on probabilities of which the truth is known: rules are fitted and estimated on them as
`classwise folds` does, and then scored on many new rows. `python benchmarks/folds.py decisions` runs it.
"""

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from classwise.decision.goals import Goal
from classwise.decision.nested import (
    Candidate,
    Judge,
    OutOfFoldTarget,
    adopted,
    candidates,
    value_interval,
)
from classwise.decision.offsets import fit_offsets
from classwise.decision.rules import HALF_PRIOR, PLAIN, TUNED, Answers, Rule, answers

Array = npt.NDArray[np.float64]
FOLDS = 5
RESAMPLES = 500
NEW_ROWS = 20_000
"""On which a rule is scored in the end."""


@dataclass(frozen=True)
class Setting:
    """`rows` of `classes` classes, of which the most frequent one has `imbalance` times the rows of the rarest. A row's
    image shows its class through noise, `separation` standard deviations apart; rows of a group of `group` have the
    same class and half of the noise in common. `is_null`: the probabilities are moved by the offsets that are best on
    50,000 rows, so that no other offsets can gain. `too_often`: added to the log
    probabilities of the most frequent class."""

    name: str
    rows: int
    classes: int
    imbalance: float
    separation: float
    group: int = 1
    is_null: bool = False
    too_often: float = 0.0

    @property
    def prior(self) -> Array:
        shares = self.imbalance ** (-np.arange(self.classes) / (self.classes - 1))
        return np.asarray(shares / shares.sum())


SETTINGS = (
    Setting("balanced, nothing to gain", 300, 5, 1, 1.5, is_null=True),
    Setting("long-tailed, nothing to gain", 400, 6, 20, 1.5, is_null=True),
    Setting("long-tailed in groups of 4, nothing to gain", 800, 6, 20, 1.5, group=4, is_null=True),
    Setting("long-tailed", 400, 6, 20, 1.5),
    Setting("long-tailed, more rows", 1200, 6, 20, 1.5),
    Setting("one class said too often", 400, 6, 20, 1.5, too_often=2.0),
)


def drawn(
    setting: Setting, rows: int, rng: np.random.Generator, moved: Array
) -> tuple[Array, npt.NDArray[np.int64]]:
    """Log probabilities (N, K), exact but for the offsets `moved`, and classes (N,)."""
    groups = -(-rows // setting.group)
    prior = setting.prior
    true_N = rng.choice(setting.classes, groups, p=prior).repeat(setting.group)[:rows]
    shared = rng.normal(size=(groups, setting.classes)).repeat(setting.group, axis=0)[:rows]
    own = rng.normal(size=(rows, setting.classes))
    seen = own if setting.group == 1 else (shared + own) / np.sqrt(2)
    seen[np.arange(rows), true_N] += setting.separation
    logits = setting.separation * seen + np.log(prior) + moved
    return np.asarray(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)), true_N


@dataclass(frozen=True)
class Outcome:
    """Of one repetition: the adopted `rule`, and what it gains on new rows; the gain of the tuned offsets, nested and
    on new rows; and whether the interval has the later score, of what is adopted (else of the plain answers) and of the
    tuned offsets. None without an interval, where no row of a class was drawn."""

    rule: str
    gain: float
    tuned_nested: float
    tuned_gain: float
    is_covered: bool | None
    is_tuned_covered: bool | None


def repetition(setting: Setting, seed: int, moved: Array) -> Outcome:
    """Draw rows, decide as `classwise folds` does, and score the rule on new rows."""
    rng = np.random.default_rng([seed, setting.rows, setting.group])
    log_p, true_N = drawn(setting, setting.rows, rng, moved)
    group_N = np.arange(setting.rows) // setting.group
    groups = None if setting.group == 1 else group_N
    rows = OutOfFoldTarget("class", log_p, true_N, group_N % FOLDS, groups)
    goal = Goal("macro_f1", setting.classes)
    judge = Judge(goal, true_N, "class")
    half_prior, tuned = candidates(rows, [HALF_PRIOR, TUNED], goal, judge, seed, RESAMPLES)
    chosen = adopted(rows, [half_prior, tuned], judge, seed, RESAMPLES)
    new_p, new_N = drawn(setting, NEW_ROWS, rng, moved)

    def later(rule: Rule) -> float:
        return goal.value(new_N, answers("class", new_p, rule))

    def covered(given: Answers, rule: Rule) -> bool | None:
        interval = value_interval(rows, judge, given, seed, RESAMPLES)
        return None if interval is None else interval[0] <= later(rule) <= interval[1]

    used = Candidate(PLAIN, answers("class", log_p, PLAIN), tuned.gain) if chosen is None else chosen
    return Outcome(
        rule=used.rule.name,
        gain=later(used.rule) - later(PLAIN),
        tuned_nested=tuned.gain.gain,
        tuned_gain=later(tuned.rule) - later(PLAIN),
        is_covered=covered(used.nested, used.rule),
        is_tuned_covered=covered(tuned.nested, tuned.rule),
    )


def moved_by(setting: Setting) -> Array:
    """What the exact log probabilities are moved by: the offsets with the highest macro F1 on 50,000 rows where nothing
    is to be gained."""
    none = np.zeros(setting.classes)
    if not setting.is_null:
        return setting.too_often * np.eye(setting.classes)[0]
    log_p, true_N = drawn(setting, 50_000, np.random.default_rng(7), none)
    return fit_offsets(log_p, true_N, Goal("macro_f1", setting.classes))


def share(values: list[bool | None]) -> str:
    """The share of what is true, of those that are known."""
    return f"{np.mean([value for value in values if value is not None]):.1%}"


def line(setting: Setting, outcomes: list[Outcome]) -> str:
    """A row of the table."""
    cells = (
        setting.name,
        f"{setting.rows}, {setting.rows * setting.prior.min():.0f}",
        share([one.rule == HALF_PRIOR for one in outcomes]),
        share([one.rule == TUNED for one in outcomes]),
        f"{np.mean([one.gain for one in outcomes]):+.3f}",
        share([one.is_covered for one in outcomes]),
        f"{np.mean([one.tuned_nested for one in outcomes]):+.3f}",
        f"{np.mean([one.tuned_gain for one in outcomes]):+.3f}",
        share([one.is_tuned_covered for one in outcomes]),
    )
    return f"| {' | '.join(cells)} |"


HEAD = (
    "| | rows, of the rarest class | half the log prior adopted | tuned offsets adopted |"
    " later gain of what is adopted | interval has its later score | tuned offsets: nested gain |"
    " later gain | interval has the later score |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def decisions(repetitions: int) -> str:
    """The table of all settings."""
    lines = [HEAD]
    for setting in SETTINGS:
        started = time.monotonic()
        moved = moved_by(setting)
        outcomes = [repetition(setting, seed, moved) for seed in range(repetitions)]
        lines.append(line(setting, outcomes))
        print(lines[-1], f"({time.monotonic() - started:.0f} s)", flush=True)
    return "\n".join(lines)
