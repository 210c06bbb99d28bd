"""decision.json: what is decided on the rows out of fold, for every target, and the ensemble that answers so."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from classwise.config.schema import Config
from classwise.decision.nested import Gain, gain_of
from classwise.decision.rules import HALF_PRIOR, NONE, PLAIN, TUNED, Answers, Rule, answers
from classwise.decision.temperature import calibration_of
from classwise.errors import CheckpointError, ConfigError
from classwise.infer.decided import decided_heads
from classwise.kfold.chosen_on import reason_against_tuning, reason_own_rows_choose
from classwise.kfold.decided_target import (
    DECIDED_TYPES,
    DecidedTarget,
    decide_target,
    nested_json,
    rows_of,
    settings_of,
    target_json,
)
from classwise.kfold.folder import FoldsFolder
from classwise.kfold.members import Gathered
from classwise.metrics.formatting import score_text
from classwise.model.heads import Head
from classwise.run.predictor import Predictor

JOINT = "joint."
SAME_VIEWS = (
    "inference.tta = 'auto' took the views of each image"
    " by these rows, too; both sides of every gain have these views"
)


@dataclass(frozen=True)
class Decisions:
    """What is decided for each target that has classes, levels or labels; `json` is decision.json, and `nested` the
    entry of metrics.json, None where nothing is adopted."""

    targets: dict[str, DecidedTarget]
    json: dict[str, Any]
    nested: dict[str, Any] | None


def refuse_costs_of_other_size(config: Config, labels: Mapping[str, Sequence[str]]) -> None:
    """Raise ConfigError for a cost matrix that does not fit the label list of its target."""
    for name, matrix in (settings_of(config).costs or {}).items():
        if len(matrix) != len(labels[name]):
            raise ConfigError(
                f"decision.costs: found {len(matrix)} rows for {name!r}, which has {len(labels[name])} labels:"
                f" {', '.join(labels[name][:20])}; allowed: one row and one column for each, in this order"
            )


def refuse_nothing_to_decide(config: Config) -> None:
    """Raise ConfigError for a key of [decision] that no target can follow."""
    types = sorted({target.type for target in config.targets.values()})
    if set(types) & set(DECIDED_TYPES):
        return
    settings = settings_of(config)
    asked = {
        "abstain": (settings.abstain > 0, "0"),
        "offsets": (settings.offsets in (HALF_PRIOR, TUNED), "auto, none"),
        "temperature": (isinstance(settings.temperature, float), "auto, none"),
    }
    for key, (is_asked, allowed) in asked.items():
        if is_asked:
            raise ConfigError(
                f"decision.{key}: found {getattr(settings, key)!r}, but no target has probabilities (types:"
                f" {', '.join(types)}); allowed: {allowed}"
            )


def decide(config: Config, gathered: Gathered, inference: Mapping[str, Any]) -> Decisions:
    """Fit and estimate the decisions of all targets on the rows out of fold. `inference`: as in metrics.json, how these
    were predicted."""
    rows, predictor = gathered.rows, gathered.predictor
    against = reason_against_tuning(config)
    targets = {
        target.name: decide_target(config, rows_of(config, rows, predictor, target), against)
        for target in predictor.targets
        if target.type in DECIDED_TYPES
    }
    targets, together = _together(config, targets)
    entries = {name: target_json(config, decided, against) for name, decided in targets.items()}
    for name, entry in entries.items():
        if gathered.test is not None and "temperature" in entry:
            entry["temperature"] |= _on_test(gathered, name, entry["temperature"])
    decision = {
        "rows": "out of fold",
        "tuned": not against,
        "reason": against,
        "own_rows_chose": bool(reason_own_rows_choose(config)),
        "inference": {key: inference[key] for key in ("tta", "ensemble")},
        "abstain": settings_of(config).abstain,
        "targets": entries,
    }
    if inference.get("asked") == "auto" and not against:
        decision["note"] = SAME_VIEWS
    nested = {name: nested_json(config, decided) for name, decided in targets.items()}
    nested = {name: entry for name, entry in nested.items() if entry is not None}
    joint = {} if together is None else {"joint": _joint_json(targets, together)}
    return Decisions(targets, decision, {"targets": nested} | joint if nested else None)


def _joint_json(targets: Mapping[str, DecidedTarget], gain: Gain) -> dict[str, Any]:
    """The entry `joint` of `nested` in metrics.json: the joint class with the rules of several of its targets."""
    rows = [one.rows for one in targets.values() if one.adopted and one.rows.judged_by.startswith(JOINT)]
    return {
        "score": rows[0].judged_by,
        "targets": [one.target.name for one in rows],
        "value": gain.value,
        "plain": gain.plain,
        "gain": gain.gain,
        "gain_interval": gain.interval,
        "samples": len(rows[0].row_numbers),
    }


def _together(
    config: Config, targets: dict[str, DecidedTarget]
) -> tuple[dict[str, DecidedTarget], Gain | None]:
    """Of several targets of the joint class with a rule, all if they gain for certain together, with that gain, else
    the one that gains most: each was judged with the others as they are without one."""
    chosen = {
        name: one for name, one in targets.items() if one.adopted and one.rows.judged_by.startswith(JOINT)
    }
    if len(chosen) < 2:
        return targets, None
    together = _gain_together(config, chosen)
    if together.is_certain:
        return targets, together
    gains = {name: one.adopted.gain.gain for name, one in chosen.items() if one.adopted is not None}
    kept = max(gains, key=lambda name: gains[name])
    reason = f"together with the rule of {kept!r} it does not gain for certain"
    left_out = {
        name: dataclasses.replace(one, adopted=None, reason=reason)
        for name, one in chosen.items()
        if name != kept
    }
    return targets | left_out, None


def _gain_together(config: Config, chosen: Mapping[str, DecidedTarget]) -> Gain:
    """The gain in the score of the joint class of the nested answers of several of its targets."""
    first = next(iter(chosen.values()))
    judge = first.rows.judge
    assert judge is not None

    # The number of a joint class is a sum over its targets, so the steps of each add up.
    plain = {name: answers(one.rows.data.type, one.rows.data.log_p, PLAIN) for name, one in chosen.items()}
    joint = _joint_number(first, plain[next(iter(chosen))])
    moved = joint + sum(
        _joint_number(one, one.nested) - _joint_number(one, plain[name]) for name, one in chosen.items()
    )
    whole = dataclasses.replace(judge, of=None)
    return gain_of(first.rows.data, whole, joint, moved, config.seed, config.report.resamples)


def _joint_number(decided: DecidedTarget, given: Answers) -> Answers:
    judge = decided.rows.judge
    assert judge is not None
    assert judge.of is not None
    return judge.of(given)


def _on_test(gathered: Gathered, name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """The calibration of the ensemble on the test rows: as it is, and at the temperature that was fitted elsewhere."""
    test, outputs = gathered.splits.test, gathered.test
    assert test is not None
    assert outputs is not None
    target = next(target for target in gathered.predictor.targets if target.name == name)
    head = gathered.predictor.heads[name]
    rows = np.flatnonzero(target.is_labeled(test.labels[name]))
    if not len(rows):
        return {}
    decoded = head.decode(outputs[name]).double()[rows]
    true = np.asarray(test.labels[name])[rows]
    predicted = None if target.type == "multilabel" else head.predicted(decoded).numpy()
    temperature = float(entry.get("out_of_fold", entry["ensemble"]))
    before, after = (
        dataclasses.asdict(calibration_of(decoded.numpy(), true, predicted, t)) for t in (1.0, temperature)
    )
    return {"ensemble_on_test": {"before": before, "after": after, "at": temperature, "rows": len(rows)}}


def with_decision(predictor: Predictor, decision: Mapping[str, Any], where: str) -> Predictor:
    """The ensemble with what decision.json says. Raises CheckpointError where it does not fit the models."""
    try:
        decided = {
            name: {
                "temperature": _ensemble_temperature(entry),
                "rule": _rule_from_json(entry["rule"]),
                "abstain": float(decision["abstain"]),
            }
            for name, entry in decision["targets"].items()
        }
        for name, entry in decision["targets"].items():
            if (
                tuple(entry["labels"]) != predictor.labels[name]
                or entry["type"] != predictor.heads[name].type
            ):
                raise ValueError(f"{name!r} has other labels")
        return dataclasses.replace(predictor, heads=decided_heads(predictor.heads, decided))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{where} is damaged, or of other folds: {error}") from None


def marking_heads(predictor: Predictor, decision: Mapping[str, Any]) -> dict[str, Head]:
    """Heads that mark the answers out of fold, which are those of the models themselves, below decision.abstain."""
    marks = {
        name: {"abstain": float(decision["abstain"]), "temperature": _ensemble_temperature(entry)}
        for name, entry in decision["targets"].items()
    }
    return decided_heads(predictor.heads, marks)


def _ensemble_temperature(entry: Mapping[str, Any]) -> float:
    return float(entry.get("temperature", {}).get("ensemble", 1.0))


def _rule_from_json(entry: Mapping[str, Any]) -> Rule:
    return Rule(
        name=str(entry["name"]),
        offsets=tuple(float(value) for value in entry["offsets"]),
        costs=tuple(tuple(float(cost) for cost in row) for row in entry.get("costs", ())),
    )


def decided(folder: FoldsFolder, predictor: Predictor) -> Predictor:
    """The ensemble with the decision of its folder; as it is where there is none."""
    decision = folder.decision()
    return predictor if decision is None else with_decision(predictor, decision, str(folder.decision_json))


def decision_lines(decision: Mapping[str, Any]) -> list[str]:
    """What is decided, in a line for each target, for the terminal; in one for all where nothing may be tuned."""
    if reason := decision.get("reason"):
        return [f"decisions: none; {reason}"]
    return [_line(name, entry) for name, entry in decision["targets"].items()]


def _line(name: str, entry: Mapping[str, Any]) -> str:
    rule = entry["rule"]["name"]
    tried = entry["candidates"]
    if not tried:
        return f"decision for {name}: none; {entry['reason']}"
    # The reason is that of the candidate with the largest gain.
    best = next((one for one in tried if one["adopted"]), max(tried, key=lambda one: one["nested"]["gain"]))
    gain = best["nested"]
    score = entry["judged_by"]
    text = f"{score} {gain['plain']:.4f} to {gain['value']:.4f} nested, gain {_gain_text(gain)}"
    if rule == NONE:
        return f"decision for {name}: none; {best['name']}: {text}: {entry['reason']}"
    return f"decision for {name}: {rule}, {text}"


def _gain_text(gain: Mapping[str, Any]) -> str:
    return score_text("gain", gain["gain"], gain["interval"])


def other_inference_line(decision: Mapping[str, Any], tta: str, ensemble: str) -> str:
    """That rules were fitted to predictions of other views or means than they are applied to; empty if not."""
    now = {"tta": tta, "ensemble": ensemble}
    fitted = decision.get("inference", now)
    has_rule = any(entry["rule"]["name"] != NONE for entry in decision["targets"].values())
    if fitted == now or not has_rule:
        return ""
    return (
        f"note: the decision of decision.json is applied as it is, although it was fitted with tta = {fitted['tta']},"
        f" ensemble = {fitted['ensemble']}, and these predictions have tta = {tta}, ensemble = {ensemble}"
    )


def applied_lines(decision: Mapping[str, Any]) -> list[str]:
    """What `predict` and the others say of a decision that changes what they write; empty if it changes nothing."""
    lines = []
    for name, entry in decision["targets"].items():
        parts = [] if entry["rule"]["name"] == NONE else [entry["rule"]["name"]]
        temperature = _ensemble_temperature(entry)
        parts += [] if temperature == 1 else [f"temperature {temperature:g}"]
        parts += [f"abstains below {decision['abstain']:g}"] if decision["abstain"] else []
        lines += [f"decision for {name} (decision.json): {', '.join(parts)}"] if parts else []
    return lines
