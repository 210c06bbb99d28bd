"""The part of the page on decisions: which rule each target answers by, what the others gained out of fold, the
calibration at the fitted temperature, and how wrong the surest answers are."""

from dataclasses import dataclass

from markupsafe import Markup

from classwise.report.charts import risk_chart
from classwise.report.read import Json, RunFiles, ends, listing, mapping, number

RULES = {
    "none": "as the models answer",
    "half_prior": "half the log prior",
    "expected_cost": "lowest expected cost",
    "tuned": "tuned",
}


@dataclass(frozen=True)
class RuleRow:
    """A rule that was tried: its score nested beside the plain one, what it gains and whether it is adopted."""

    target: str
    rule: str
    score: str
    plain: str
    nested: str
    gain: str
    verdict: str


@dataclass(frozen=True)
class CalibrationRow:
    """Log loss and calibration error on some rows, as they are and at a temperature."""

    target: str
    rows: str
    temperature: str
    log_loss: tuple[str, str]
    error: tuple[str, str]


@dataclass(frozen=True)
class RiskCurve:
    """The curve of one target."""

    title: str
    chart: Markup


@dataclass(frozen=True)
class DecisionSection:
    """All that the part shows; `reason`: why nothing is tuned, empty if it may be."""

    reason: str
    left_out: list[tuple[str, str]]
    rules: list[RuleRow]
    calibrations: list[CalibrationRow]
    abstain: float
    curves: list[RiskCurve]


def decision_section(run: RunFiles) -> DecisionSection | None:
    """None where the folder has no decision.json."""
    targets = {name: mapping(entry) for name, entry in mapping(run.decision.get("targets")).items()}
    if not targets:
        return None
    found = DecisionSection(
        reason=str(run.decision.get("reason") or ""),
        left_out=[],
        rules=[],
        calibrations=[],
        abstain=number(run.decision.get("abstain")) or 0.0,
        curves=[],
    )
    for name, entry in targets.items():
        tried = [mapping(one) for one in listing(entry.get("candidates"))]
        shown = _shown(tried)
        found.rules.extend(_rule_row(name, entry, one, is_shown=one is shown) for one in tried)
        if not tried and not found.reason:
            found.left_out.append((name, str(entry.get("reason") or "")))
        found.calibrations.extend(_calibrations(name, mapping(entry.get("temperature"))))
        points = [_point(mapping(one)) for one in listing(mapping(entry.get("abstain")).get("curve"))]
        if points:
            title = f"Share of wrong answers of {name} against the share of rows that are answered"
            found.curves.append(RiskCurve(name, risk_chart(points, title)))
    return found


def _point(entry: Json) -> tuple[float, float, float]:
    threshold, coverage, risk = (number(entry.get(key)) or 0.0 for key in ("threshold", "coverage", "risk"))
    return threshold, coverage, risk


def _shown(tried: list[Json]) -> Json | None:
    """The candidate that the reason of the target is about: the adopted one, else the one with the largest gain."""
    adopted = (one for one in tried if one.get("adopted") is True)
    gains = {at: number(mapping(one.get("nested")).get("gain")) or 0.0 for at, one in enumerate(tried)}
    return next(adopted, tried[max(gains, key=lambda at: gains[at])] if tried else None)


def _rule_row(name: str, entry: Json, tried: Json, is_shown: bool) -> RuleRow:
    nested = mapping(tried.get("nested"))
    interval = ends(nested.get("interval"))
    gain = f"{number(nested.get('gain')) or 0.0:+.3f}"
    if interval is not None:
        gain += f" [{interval[0]:.3f}, {interval[1]:.3f}]"
    rule = str(tried.get("name"))
    verdict = "adopted" if tried.get("adopted") is True else "left out"
    reason = str((is_shown and entry.get("reason")) or nested.get("reason") or "")
    return RuleRow(
        target=name,
        rule=RULES.get(rule, rule),
        score=str(entry.get("judged_by") or ""),
        plain=_digits(nested.get("plain")),
        nested=_digits(nested.get("value")),
        gain=gain,
        verdict=f"{verdict}: {reason}" if reason else verdict,
    )


def _calibrations(name: str, entry: Json) -> list[CalibrationRow]:
    """Out of fold, and of the ensemble on the test rows."""
    found = []
    at = number(entry.get("out_of_fold")) or number(entry.get("ensemble"))
    test = mapping(entry.get("ensemble_on_test"))
    for rows, values in (("out of fold, single models", entry), ("test rows, all models together", test)):
        before, after = mapping(values.get("before")), mapping(values.get("after"))
        if before and after and at is not None:
            found.append(
                CalibrationRow(
                    target=name,
                    rows=rows,
                    temperature=f"{at:.3g}",
                    log_loss=(_digits(before.get("log_loss")), _digits(after.get("log_loss"))),
                    error=(_digits(before.get("calibration_error")), _digits(after.get("calibration_error"))),
                )
            )
    return found


def _digits(value: object) -> str:
    found = number(value)
    return "–" if found is None else f"{found:.3f}"
