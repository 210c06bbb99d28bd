"""Rules of several targets of one joint class."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from classwise.config.load import make_config
from classwise.data.targets import ClassTarget
from classwise.decision.goals import Goal
from classwise.decision.nested import Judge, OutOfFoldTarget
from classwise.decision.rules import PLAIN, Answers, answers
from classwise.kfold import decisions
from classwise.kfold.decided_target import DecidedTarget, TargetRows, decide_target
from classwise.metrics.joint import joint_number

ROWS, CLASSES = 300, 2
CONFIG = make_config(
    {
        "data": {"source": "t.csv"},
        "targets": {"a": {"column": "a"}, "b": {"column": "b"}},
        "report": {"resamples": 100},
        "decision": {"offsets": "tuned"},
    }
)


def drawn(name: str, seed: int) -> tuple[OutOfFoldTarget, ClassTarget]:
    """Two classes, the first of which is said too often."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, CLASSES, ROWS)
    logits = rng.normal(size=(ROWS, CLASSES)) + np.array([2.5, 0])
    logits[np.arange(ROWS), true] += 2
    log_p = torch.from_numpy(logits).log_softmax(dim=1).numpy()
    target = ClassTarget(name=name, type="class", labels=("n", "y"), column=name)
    return OutOfFoldTarget("class", log_p, true, np.arange(ROWS) % 5, None), target


def decided() -> dict[str, DecidedTarget]:
    """Both targets, each judged by the joint class with the other as it is."""
    parts = [drawn("a", 0), drawn("b", 1)]
    plain = [answers("class", data.log_p, PLAIN).astype(np.int64) for data, _ in parts]
    true = joint_number([data.true for data, _ in parts], [CLASSES, CLASSES])
    found = {}
    for place, (data, target) in enumerate(parts):

        def of(given: Answers, place: int = place) -> Answers:
            both = [*plain]
            both[place] = given.astype(np.int64)
            return joint_number(both, [CLASSES, CLASSES])

        judge = Judge(Goal("macro_f1", CLASSES**2), true, "class", of)
        goal = Goal("macro_f1", CLASSES)
        rows = TargetRows(target, np.arange(ROWS), data, goal, judge, "joint.macro_f1", "")
        found[target.name] = decide_target(CONFIG, rows, "")
    assert all(one.adopted for one in found.values())
    return found


def test_rules_that_gain_together_are_all_kept_with_that_gain() -> None:
    """The score of the joint class with both rules, as scikit-learn has it of their nested answers."""
    targets = decided()
    kept, gain = decisions._together(CONFIG, targets)
    assert kept == targets
    assert gain is not None
    entry: dict[str, Any] = decisions._joint_json(kept, gain)
    judge = targets["a"].rows.judge
    assert judge is not None
    both = joint_number([one.nested.astype(np.int64) for one in targets.values()], [CLASSES, CLASSES])
    expected = f1_score(judge.true, both, average="macro", zero_division=0)
    assert entry["value"] == pytest.approx(expected)
    assert entry["value"] > max(one.adopted.gain.value for one in targets.values() if one.adopted)
    assert entry["targets"] == ["a", "b"]


def test_of_rules_that_do_not_gain_together_the_best_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    targets = decided()
    gains = {name: one.adopted.gain.gain for name, one in targets.items() if one.adopted}
    best = max(gains, key=lambda name: gains[name])
    other = next(name for name in targets if name != best)
    adopted = targets[best].adopted
    assert adopted is not None

    def uncertain(*_: Any) -> Any:
        return adopted.gain.__class__(0.5, 0.5, 0.0, [-0.1, 0.1], "", 20)

    monkeypatch.setattr(decisions, "_gain_together", uncertain)
    kept, gain = decisions._together(CONFIG, targets)
    assert gain is None
    assert kept[best] == targets[best]
    assert kept[other].adopted is None
    assert kept[other].reason == f"together with the rule of {best!r} it does not gain for certain"


def test_a_single_rule_has_no_gain_together() -> None:
    targets = {"a": decided()["a"]}
    assert decisions._together(CONFIG, targets) == (targets, None)
