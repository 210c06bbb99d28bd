"""What happened epoch by epoch, read off `history.jsonl`: loss, the selected metric, the learning rate, and the
weights between the targets where they are learnt."""

import statistics
from dataclasses import dataclass

from markupsafe import Markup

from classwise.report.charts import Series, line_chart
from classwise.report.headline import Best
from classwise.report.names import metric_name
from classwise.report.read import RunFiles, joint_title, mapping, number
from classwise.report.svg import Point

OTHER_LINES = 5  # beside the selected metric; more cannot be told apart


@dataclass(frozen=True)
class Curve:
    """One figure, and what its lines are: (style, name) pairs, empty for a single line."""

    title: str
    svg: Markup
    legend: list[tuple[int, str]]


def curves(run: RunFiles, best: Best) -> list[Curve]:
    """The figures that have at least one point."""
    found = [_loss(run), _metric(run, best), _learning_rate(run), _target_weights(run)]
    return [curve for curve in found if curve.svg]


def pace(run: RunFiles) -> str:
    """Seconds per epoch and images per second, in the median over the epochs."""
    seconds = _median(run, "seconds")
    speed = _median(run, "images_per_second")
    parts = [f"{seconds:.3g} s an epoch"] if seconds is not None else []
    parts += [f"{speed:,.0f} images a second in training"] if speed is not None else []
    return ", ".join(parts)


def frozen_epochs(run: RunFiles) -> str:
    """The epochs that trained the heads alone, such as `1 to 3`; empty where there are none."""
    spans: list[list[int]] = []
    for line in run.history:
        epoch = number(line.get("epoch"))
        if epoch is None or line.get("frozen") is not True:
            continue
        if spans and spans[-1][1] == epoch - 1:
            spans[-1][1] = int(epoch)
        else:
            spans.append([int(epoch), int(epoch)])
    return ", ".join(f"{first} to {last}" if last > first else f"{first}" for first, last in spans)


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


def _target_weights(run: RunFiles) -> Curve:
    """The first targets where there are very many."""
    names = list(dict.fromkeys(name for line in run.history for name in mapping(line.get("target_weights"))))
    shown = names[: OTHER_LINES + 1]
    lines = [Series(name, _points(run, name, "target_weights"), k) for k, name in enumerate(shown)]
    svg = line_chart(lines, "Learnt target weights per epoch", "epoch", zero=True)
    title = "Learnt target weights" + (f", {len(shown)} of {len(names)}" if len(names) > len(shown) else "")
    return Curve(title, svg, [(line.style, line.name) for line in lines])


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
