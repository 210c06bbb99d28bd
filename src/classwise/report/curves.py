"""What happened epoch by epoch, read off `history.jsonl`: loss, the selected metric, the learning rate."""

import statistics
from dataclasses import dataclass

from markupsafe import Markup

from classwise.report.figures import Point, Series, line_chart
from classwise.report.read import RunFiles, mapping, number
from classwise.report.scores import joint_title, metric_name

OTHER_LINES = 5  # beside the selected metric; more cannot be told apart


@dataclass(frozen=True)
class Curve:
    """One figure, and what its lines are: (style, name) pairs, empty for a single line."""

    title: str
    svg: Markup
    legend: list[tuple[int, str]]


@dataclass(frozen=True)
class Best:
    """The selected metric at its best epoch: `metric` as the config names it, `value` None if unknown."""

    metric: str
    value: float | None
    epoch: int | None

    @property
    def name(self) -> str:
        return metric_name(self.metric.rpartition(".")[2])

    @property
    def target(self) -> str:
        return self.metric.rpartition(".")[0]


def best_of(run: RunFiles) -> Best:
    """From metrics.json, which belongs to the best checkpoint; before there is one, from status.json."""
    status = mapping(run.status.get("best"))
    configured = mapping(run.config.get("selection")).get("metric")
    metric = run.metrics.get("metric") or status.get("metric") or configured or "macro_f1"
    source = run.metrics if number(run.metrics.get("value")) is not None else status
    epoch = number(source.get("epoch"))
    return Best(str(metric), number(source.get("value")), None if epoch is None else int(epoch))


def subject(run: RunFiles, best: Best) -> str:
    """What the selected metric is taken over: the joint class, or a target. Empty if there is one target only."""
    has_joint = bool(run.config.get("joint") or run.metrics.get("joint"))
    if best.target and best.target != "joint":
        return best.target
    return joint_title(run) if has_joint else ""


def curves(run: RunFiles, best: Best) -> list[Curve]:
    """The figures that have at least one point."""
    found = [_loss(run), _metric(run, best), _learning_rate(run)]
    return [curve for curve in found if curve.svg]


def pace(run: RunFiles) -> str:
    """Seconds per epoch and pictures per second, in the median over the epochs."""
    seconds = _median(run, "seconds")
    speed = _median(run, "images_per_second")
    parts = [f"{seconds:.3g} s an epoch"] if seconds is not None else []
    parts += [f"{speed:,.0f} pictures a second in training"] if speed is not None else []
    return ", ".join(parts)


def _median(run: RunFiles, key: str) -> float | None:
    values = [value for epoch in run.history if (value := number(epoch.get(key))) is not None]
    return statistics.median(values) if values else None


def _points(run: RunFiles, key: str, part: str = "") -> list[Point]:
    """(epoch, value) for the epochs where both are finite numbers; `part` is an object inside the line."""
    found = []
    for line in run.history:
        epoch, value = number(line.get("epoch")), number((mapping(line.get(part)) if part else line).get(key))
        if epoch is not None and value is not None:
            found.append((epoch, value))
    return found


def _loss(run: RunFiles) -> Curve:
    lines = [
        Series("training", _points(run, "train_loss"), 0),
        Series("validation", _points(run, "loss", "valid"), 1),
    ]
    lines = [line for line in lines if line.points]
    return Curve(
        "Loss", line_chart(lines, "Loss per epoch", "epoch"), [(line.style, line.name) for line in lines]
    )


def _learning_rate(run: RunFiles) -> Curve:
    lines = [Series("learning rate", _points(run, "lr"), 0)]
    return Curve("Learning rate", line_chart(lines, "Learning rate per epoch", "epoch", zero=True), [])


def _metric(run: RunFiles, best: Best) -> Curve:
    names = list(dict.fromkeys(name for line in run.history for name in mapping(line.get("valid"))))
    selected = _key_of(best.metric, names)
    lines = [Series(_line_name(run, selected), _points(run, selected, "valid"), 0)] if selected else []
    for name in names:
        points = _points(run, name, "valid")
        same = name.rpartition(".")[2] == best.metric.rpartition(".")[2] and name != selected
        # `macro_f1` and `joint.macro_f1` may be the same numbers under two names.
        if lines and same and points != lines[0].points and len(lines) <= OTHER_LINES:
            lines.append(Series(_line_name(run, name), points, len(lines)))
    mark = next(((x, y) for x, y in lines[0].points if x == best.epoch), None) if lines else None
    svg = line_chart(lines, f"{best.name} per epoch", "epoch", mark=mark)
    title = f"Validation {best.name}"
    return Curve(title, svg, [(line.style, line.name) for line in lines] if len(lines) > 1 else [])


def _key_of(metric: str, names: list[str]) -> str | None:
    """The history's name for the selected metric, which the config may give without its `joint.`."""
    candidates = [metric, f"joint.{metric}", *(name for name in names if name.endswith(f".{metric}"))]
    return next((name for name in candidates if name in names), None)


def _line_name(run: RunFiles, name: str) -> str:
    target = name.rpartition(".")[0]
    if target == "joint" or (not target and run.config.get("joint")):
        return joint_title(run)
    return target or metric_name(name)
