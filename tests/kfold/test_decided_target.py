"""The decision for one target, and why there is none."""

import numpy as np
import pytest

from classwise.config.load import make_config
from classwise.config.schema import Config
from classwise.data.targets import ClassTarget
from classwise.decision.goals import Goal
from classwise.decision.nested import Judge, OutOfFoldTarget
from classwise.kfold import decided_target
from classwise.kfold.decided_target import LEFT_OUT, TargetRows, decide_target
from classwise.kfold.decisions import decision_lines

ROWS = 200
LABELS = ("a", "b", "c")


def config_of() -> Config:
    return make_config(
        {"data": {"source": "t.csv"}, "targets": {"kind": {"column": "kind"}}, "report": {"resamples": 100}}
    )


def rows_of(shift: float, share: float = 1 / 3, seed: int = 0) -> TargetRows:
    """Rows of three classes, the first of which has logits that are too high by `shift`."""
    rng = np.random.default_rng(seed)
    true = rng.choice(3, ROWS, p=[share, share, 1 - 2 * share])
    logits = rng.normal(size=(ROWS, 3)) + np.array([shift, 0, 0])
    logits[np.arange(ROWS), true] += 2
    log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    data = OutOfFoldTarget("class", log_p, true, np.arange(ROWS) % 5, None)
    target = ClassTarget(name="kind", type="class", labels=LABELS, column="kind")
    goal = Goal("macro_f1", 3)
    judge = Judge(goal, true, "class")
    return TargetRows(target, np.arange(ROWS), data, goal, judge, "kind.macro_f1", "")


def test_the_reason_is_that_of_the_candidate_with_the_largest_gain() -> None:
    """Of equal shares half the log prior changes nothing, and has no interval; it is `tuned` that is shown."""
    decided = decide_target(config_of(), rows_of(shift=0.6), "")
    simple, tuned = (one.gain for one in decided.candidates)
    assert decided.adopted is None
    assert simple.reason
    assert tuned.gain > simple.gain
    assert decided.reason == (tuned.reason or LEFT_OUT) != simple.reason


def test_the_line_shows_the_candidate_that_its_reason_is_of() -> None:
    config, rows = config_of(), rows_of(shift=0.6)
    decided = decide_target(config, rows, "")
    entry = decided_target.target_json(config, decided, "")
    (line,) = decision_lines({"targets": {"kind": entry}})
    assert line.startswith("decision for kind: none; tuned: ")
    assert line.endswith(decided.reason)


def test_too_many_classes_to_tune_stay_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside that of the candidate that was tried."""
    monkeypatch.setattr(decided_target, "MOST_WORK", 1)
    decided = decide_target(config_of(), rows_of(shift=0), "")
    assert decided.adopted is None
    assert decided.reason.endswith("; 3 classes of 200 rows are too many to tune offsets for")
    assert len(decided.candidates) == 1
