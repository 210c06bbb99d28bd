"""The decision for one target: which rule, with which offsets; its temperature; how sure its answers are."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from classwise.compose.contents import resampling_groups
from classwise.compose.settings import selection_metric
from classwise.config.decision import Decision
from classwise.config.schema import Config
from classwise.data.targets import Target
from classwise.decision.abstain import confidence_of_class, confidence_of_labels, risk_at, risk_curve
from classwise.decision.cut_points import cuts_of
from classwise.decision.goals import MEAN_COST, Goal, Ints, can_be_decided
from classwise.decision.nested import Candidate, Judge, OutOfFoldTarget, adopted, candidates, value_interval
from classwise.decision.rules import (
    EXPECTED_COST,
    HALF_PRIOR,
    MOST_WORK,
    PLAIN,
    TUNED,
    Answers,
    Rule,
    answers,
)
from classwise.decision.temperature import calibration_of, nested_temperature
from classwise.kfold.out_of_fold import OutOfFold
from classwise.metrics.joint import joint_number
from classwise.metrics.main_scores import MAIN_SCORES
from classwise.metrics.mean import is_mean
from classwise.metrics.names import is_sum, split_metric
from classwise.metrics.scores import AT_PRIOR, Array
from classwise.run.predictor import Predictor

DECIDED_TYPES = ("class", "ordinal", "multilabel")
LEFT_OUT = "the interval of the nested gain is not above 0"
ENSEMBLE = (
    "not applied: it is that of single models, and their mean is less certain already; no row is left that some model"
    " of the ensemble was not trained on"
)


@dataclass(frozen=True)
class TargetRows:
    """The labeled rows of a target: their numbers among all rows out of fold, what is said and true of them, and what
    gains are measured in, or the `reason` why none can be."""

    target: Target
    row_numbers: Ints
    data: OutOfFoldTarget
    goal: Goal | None
    judge: Judge | None
    judged_by: str
    reason: str


@dataclass(frozen=True)
class DecidedTarget:
    """A target with its candidates, the one that is adopted, if any, and why there are none, or none is."""

    rows: TargetRows
    candidates: list[Candidate]
    adopted: Candidate | None
    reason: str

    @property
    def rule(self) -> Rule:
        return PLAIN if self.adopted is None else self.adopted.rule

    @property
    def nested(self) -> Answers:
        """The answers out of fold: nested ones where a rule is adopted, else the plain ones."""
        data = self.rows.data
        return answers(data.type, data.log_p, PLAIN) if self.adopted is None else self.adopted.nested


def settings_of(config: Config) -> Decision:
    """[decision], or its defaults."""
    return config.decision or Decision()


def rows_of(config: Config, rows: OutOfFold, predictor: Predictor, target: Target) -> TargetRows:
    """The labeled rows of a target of one of DECIDED_TYPES."""
    name = target.name
    costs = (settings_of(config).costs or {}).get(name, ())
    score, reason, is_joint = _score_of(config, predictor, target)
    if costs:
        score, reason, is_joint = MEAN_COST, "", False
    is_used_N = target.is_labeled(rows.labels[name])
    joint_N = _joint_true(rows, predictor) if is_joint else None
    if joint_N is not None:
        is_used_N = is_used_N & (joint_N >= 0)

    # Decoded outputs are logits up to a constant of each row.
    row_numbers = np.flatnonzero(is_used_N)
    decoded = predictor.heads[name].decode(rows.outputs[name]).double()
    log_p = decoded if target.type == "multilabel" else decoded.log_softmax(dim=1)
    true = np.asarray(rows.labels[name])[row_numbers]
    groups = resampling_groups(rows.samples, predictor.targets)
    data = OutOfFoldTarget(
        type=target.type,
        log_p=log_p.numpy()[row_numbers],
        true=true.astype(np.float64) if target.type == "multilabel" else true.astype(np.int64),
        folds=rows.folds[row_numbers],
        groups=None if groups is None else np.asarray(groups)[row_numbers],
    )
    if reason:
        return TargetRows(target, row_numbers, data, None, None, "", reason)
    goal = Goal(score, len(target.labels), costs)
    judge, judged_by = Judge(goal, data.true, target.type), f"{name}.{score}"
    if joint_N is not None:
        judge, judged_by = _joint_judge(rows, predictor, name, row_numbers, joint_N, score), f"joint.{score}"
    return TargetRows(target, row_numbers, data, goal, judge, judged_by, "")


def _score_of(config: Config, predictor: Predictor, target: Target) -> tuple[str, str, bool]:
    """The score that the target is decided for, why it is not decided (empty if it is), and whether it is judged by the
    joint class: the selection metric where it is of this target or of the joint class, else its main score."""
    metric = selection_metric(config)
    if metric.endswith(AT_PRIOR):
        return "", "selection.prior has moved the predictions to other class shares already", False
    if is_sum(metric):
        return "", f"selection.metric: {metric!r} is made of several scores", False
    of, score = split_metric(metric)
    if is_mean(metric) or (
        of not in ("", target.name) and not (of == "joint" and target.name in predictor.joint)
    ):
        return MAIN_SCORES[target.type], "", False
    if not can_be_decided(score, "joint" if of == "joint" else target.type):
        return (
            "",
            f"selection.metric: {metric!r} is no score of the predicted labels that offsets are fitted to",
            False,
        )
    return score, "", of == "joint"


def _joint_true(rows: OutOfFold, predictor: Predictor) -> Ints:
    by_name = {target.name: target for target in predictor.targets}
    numbers = [by_name[part].class_numbers(rows.labels[part]) for part in predictor.joint]
    return joint_number(numbers, _sizes(predictor))


def _sizes(predictor: Predictor) -> list[int]:
    return [predictor.heads[part].classes for part in predictor.joint]


def _joint_predicted(rows: OutOfFold, predictor: Predictor) -> list[Ints]:
    """The plain answers (N,) of the targets of the joint class."""
    heads = {part: predictor.heads[part] for part in predictor.joint}
    return [
        np.asarray(head.predicted(head.decode(rows.outputs[part])).numpy(), dtype=np.int64)
        for part, head in heads.items()
    ]


def _joint_judge(
    rows: OutOfFold, predictor: Predictor, name: str, row_numbers: Ints, joint_N: Ints, score: str
) -> Judge:
    """A score of the joint class, in which the other targets answer as they do without a decision."""
    others = [answer_N[row_numbers] for answer_N in _joint_predicted(rows, predictor)]
    sizes, place = _sizes(predictor), predictor.joint.index(name)

    def of(given: Answers) -> Answers:
        return joint_number([*others[:place], given.astype(np.int64), *others[place + 1 :]], sizes)

    return Judge(Goal(score, math.prod(sizes)), joint_N[row_numbers], "class", of)


def decide_target(config: Config, rows: TargetRows, against: str) -> DecidedTarget:
    """The rule of a target. `against`: why nothing may be tuned on these rows; empty if it may."""
    settings = settings_of(config)
    if settings.offsets == "none":
        return DecidedTarget(rows, [], None, "decision.offsets = 'none'")
    reason = against or rows.reason
    if reason or rows.goal is None or rows.judge is None:
        return DecidedTarget(rows, [], None, reason)

    # Tuning takes longest, by far: it is left out where it would take minutes.
    seed, resamples = config.seed, config.report.resamples
    names = _names(settings, rows.goal)
    work = len(rows.row_numbers) * rows.goal.classes**2
    if work > MOST_WORK and TUNED in names:
        names.remove(TUNED)
        reason = f"{rows.goal.classes:,} classes of {len(rows.row_numbers):,} rows are too many to tune offsets for"

    # The candidate that is shown is the one with the largest gain.
    tried = candidates(rows.data, names, rows.goal, rows.judge, seed, resamples)
    chosen = adopted(rows.data, tried, rows.judge, seed, resamples)
    if chosen is None and tried:
        shown = max(tried, key=lambda one: one.gain.gain)
        reason = "; ".join(filter(None, (shown.gain.reason or LEFT_OUT, reason)))
    return DecidedTarget(rows, tried, chosen, reason)


def _names(settings: Decision, goal: Goal) -> list[str]:
    """The rules that are tried, the simplest first."""
    simple = EXPECTED_COST if goal.costs else HALF_PRIOR
    if settings.offsets == "half_prior":
        return [simple]
    return [TUNED] if settings.offsets == "tuned" else [simple, TUNED]


def target_json(config: Config, decided: DecidedTarget, against: str) -> dict[str, Any]:
    """The entry of a target in decision.json."""
    target, settings = decided.rows.target, settings_of(config)
    entry: dict[str, Any] = {
        "type": target.type,
        "labels": list(target.labels),
        "rows": len(decided.rows.row_numbers),
        "judged_by": decided.rows.judged_by,
        "rule": _rule_json(decided.rule, target.type),
        "reason": decided.reason,
        "candidates": [_candidate_json(one, decided, target.type) for one in decided.candidates],
    }
    if settings.temperature != "none":
        entry["temperature"] = _temperature_json(config, decided, against)
    return entry | {"abstain": _abstain_json(settings, decided)}


def _candidate_json(candidate: Candidate, decided: DecidedTarget, type: str) -> dict[str, Any]:
    return {
        **_rule_json(candidate.rule, type),
        "adopted": candidate is decided.adopted,
        "nested": asdict(candidate.gain),
    }


def _rule_json(rule: Rule, type: str) -> dict[str, Any]:
    """`thresholds` are what offsets come to as probabilities, for levels and labels."""
    entry: dict[str, Any] = {"name": rule.name, "offsets": list(rule.offsets)}
    if rule.costs:
        entry["costs"] = [list(row) for row in rule.costs]
    if rule.offsets and type != "class":
        entry["thresholds"] = cuts_of(np.array(rule.offsets)).tolist()
    return entry


def _temperature_json(config: Config, decided: DecidedTarget, against: str) -> dict[str, Any]:
    """`ensemble`: what its logits are divided by; `out_of_fold`: the fitted one, and the calibration before and after
    it, nested."""
    data, settings = decided.rows.data, settings_of(config)
    predicted = None if data.type == "multilabel" else answers(data.type, data.log_p, PLAIN).astype(np.int64)
    if isinstance(settings.temperature, float):
        given = settings.temperature
        before, after = (calibration_of(data.log_p, data.true, predicted, t) for t in (1.0, given))
        return {"ensemble": given, "how": "given", "before": asdict(before), "after": asdict(after)}
    if against:
        return {"ensemble": 1.0, "how": "not fitted", "reason": against}
    if len(np.unique(data.folds)) < 2:
        return {"ensemble": 1.0, "how": "not fitted", "reason": "only one fold has labels"}
    nested = nested_temperature(
        data.log_p, data.true, predicted, data.folds, data.groups, config.seed, config.report.resamples
    )
    fitted = nested.as_json()
    return {
        "ensemble": 1.0,
        "how": "out of fold",
        "reason": ENSEMBLE,
        "out_of_fold": fitted.pop("temperature"),
    } | fitted


def confidences(data: OutOfFoldTarget, given: Answers, temperature: float) -> Array:
    """The probability (N,) of each answer."""
    if data.type == "multilabel":
        return confidence_of_labels(data.log_p / temperature, given.astype(bool))
    return confidence_of_class(data.log_p / temperature, given.astype(np.int64))


def _abstain_json(settings: Decision, decided: DecidedTarget) -> dict[str, Any]:
    """The curve of coverage against risk over the rows out of fold, and the point of decision.abstain on it."""
    data = decided.rows.data
    if not len(data.log_p):
        return {"threshold": settings.abstain, "curve": []}
    temperature = settings.temperature if isinstance(settings.temperature, float) else 1.0
    confidence_N = confidences(data, decided.nested, temperature)
    wrong_N = _wrong(data, decided.nested)
    at = asdict(risk_at(confidence_N, wrong_N, settings.abstain))
    return at | {"curve": [asdict(point) for point in risk_curve(confidence_N, wrong_N)]}


def _wrong(data: OutOfFoldTarget, given: Answers) -> Array:
    """1 for a wrong class, or the share of wrong labels (N,)."""
    if data.type != "multilabel":
        wrong_N: Array = (given != data.true).astype(np.float64)
        return wrong_N
    known_NL = ~np.isnan(data.true)
    wrong_NL = (given != (data.true == 1)) & known_NL
    shares: Array = wrong_NL.sum(axis=1) / known_NL.sum(axis=1)
    return shares


def nested_json(config: Config, decided: DecidedTarget) -> dict[str, Any] | None:
    """The entry of a target in `nested` of metrics.json; None where nothing is adopted."""
    chosen, judge, data = decided.adopted, decided.rows.judge, decided.rows.data
    if chosen is None or judge is None:
        return None
    gain = chosen.gain
    return {
        "score": decided.rows.judged_by,
        "rule": chosen.rule.name,
        "value": gain.value,
        "interval": value_interval(data, judge, chosen.nested, config.seed, config.report.resamples),
        "plain": gain.plain,
        "gain": gain.gain,
        "gain_interval": gain.interval,
        "samples": len(decided.rows.row_numbers),
    }
