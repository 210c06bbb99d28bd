"""What folds promise, measured: the tables of docs/results/folds.md.

    python benchmarks/folds.py decisions [--repetitions 200] [--write]

`decisions`: probabilities are drawn of which the truth is known, rules are fitted and estimated on them as
`classwise folds` does, and then scored on many new rows. With `--write` the table goes into docs/results/folds.md.
"""

import argparse
import time
from collections.abc import Callable
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
from classwise.decision.rules import HALF_PRIOR, PLAIN, TUNED, answers
from imbalance import replace_between

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
    200,000 rows, so that no other offsets can gain."""

    name: str
    rows: int
    classes: int
    imbalance: float
    separation: float
    group: int = 1
    is_null: bool = False

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
    """Of one repetition: the adopted rule, its nested gain and its true one; and of the rule that one would look at
    (the adopted one, else `tuned`) whether the nested interval has the later score."""

    rule: str
    nested_gain: float
    later_gain: float
    tuned_gain: float
    is_covered: bool


def repetition(setting: Setting, seed: int, moved: Array) -> Outcome:
    """Draw rows, decide as `classwise folds` does, and score the rule on new rows."""
    rng = np.random.default_rng([seed, setting.rows, setting.group])
    log_p, true_N = drawn(setting, setting.rows, rng, moved)
    group_N = np.arange(setting.rows) // setting.group
    groups = None if setting.group == 1 else group_N
    rows = OutOfFoldTarget("class", log_p, true_N, group_N % FOLDS, groups)
    goal = Goal("macro_f1", setting.classes)
    judge = Judge(goal, true_N, "class")
    found = candidates(rows, [HALF_PRIOR, TUNED], goal, judge, seed, RESAMPLES)
    chosen = adopted(rows, found, judge, seed, RESAMPLES)

    new_p, new_N = drawn(setting, NEW_ROWS, rng, moved)
    plain = goal.value(new_N, answers("class", new_p, PLAIN))

    def later(candidate: Candidate) -> float:
        return goal.value(new_N, answers("class", new_p, candidate.rule))

    looked_at = chosen or found[-1]
    interval = value_interval(rows, judge, looked_at.nested, seed, RESAMPLES)
    assert interval is not None
    return Outcome(
        rule="none" if chosen is None else chosen.rule.name,
        nested_gain=looked_at.gain.gain,
        later_gain=later(looked_at) - plain,
        tuned_gain=later(found[-1]) - plain,
        is_covered=interval[0] <= later(looked_at) <= interval[1],
    )


def best_offsets(setting: Setting) -> Array:
    """The offsets with the highest macro F1 on 200,000 rows; none where there is something to gain."""
    none = np.zeros(setting.classes)
    if not setting.is_null:
        return none
    log_p, true_N = drawn(setting, 200_000, np.random.default_rng(7), none)
    return fit_offsets(log_p, true_N, Goal("macro_f1", setting.classes))


def line(setting: Setting, outcomes: list[Outcome]) -> str:
    """A row of the table."""
    count = len(outcomes)
    share: Callable[[str], float] = lambda rule: sum(one.rule == rule for one in outcomes) / count  # noqa: E731
    nested = np.mean([one.nested_gain for one in outcomes])
    later = np.mean([one.later_gain for one in outcomes])
    tuned = np.mean([one.tuned_gain for one in outcomes])
    covered = np.mean([one.is_covered for one in outcomes])
    rarest = setting.rows * setting.prior.min()
    cells = (
        *(setting.name, f"{setting.rows}, {rarest:.0f}"),
        *(f"{share(HALF_PRIOR):.1%}", f"{share(TUNED):.1%}"),
        *(f"{nested:+.3f}", f"{later:+.3f}", f"{tuned:+.3f}", f"{covered:.1%}"),
    )
    return f"| {' | '.join(cells)} |"


HEAD = (
    "| | rows, of the rarest class | half the log prior adopted | tuned offsets adopted | nested gain | later gain |"
    " later gain of tuned offsets | interval has the later score |\n|---|---|---|---|---|---|---|---|"
)


def decisions(repetitions: int) -> str:
    """The table of all settings."""
    lines = [HEAD]
    for setting in SETTINGS:
        started = time.monotonic()
        moved = best_offsets(setting)
        outcomes = [repetition(setting, seed, moved) for seed in range(repetitions)]
        lines.append(line(setting, outcomes))
        print(lines[-1], f"({time.monotonic() - started:.0f} s)", flush=True)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("part", choices=("decisions",))
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--write", action="store_true", help="put the table into docs/results/folds.md")
    options = parser.parse_args()
    table = decisions(options.repetitions)
    if options.write:
        replace_between("folds.md", "decisions", f"{options.repetitions} repetitions each.\n\n{table}")


if __name__ == "__main__":
    main()
