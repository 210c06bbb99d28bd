"""Charts of the epochs in `history.jsonl`: loss, the selected metric, the learning rate, and the weights between the
targets where they are learned."""

import statistics
from dataclasses import dataclass

from markupsafe import Markup

from classwise.metrics.main_scores import MAIN_SCORES
from classwise.metrics.names import is_combined, is_sum, split_metric, terms_of
from classwise.metrics.scores import AT_PRIOR
from classwise.report.charts import Series, line_chart
from classwise.report.headline import Best
from classwise.report.names import metric_name
from classwise.report.read import RunFiles, joint_title, kind_of, mapping, number
from classwise.report.svg import Point

OTHER_LINES = 5  # beside the selected metric; more could not be told apart


@dataclass(frozen=True)
class Curve:
    """One chart; `legend` has a (style, name) pair for each line, and is empty for a single line."""

    title: str
    svg: Markup
    legend: list[tuple[int, str]]


def curves(run: RunFiles, best: Best) -> list[Curve]:
    """The charts that have at least one point."""
    candidates = [_loss(run), _metric(run, best), _learning_rate(run), _target_weights(run)]
    return [curve for curve in candidates if curve.svg]


def pace(run: RunFiles) -> str:
    """The median seconds per epoch and images per second over the epochs, as a sentence; empty if not recorded."""
    parts = []
    seconds = _median(run, "seconds")
    if seconds is not None:
        parts.append(f"{seconds:.3g} s per epoch")
    images = _median(run, "images_per_second")
    if images is not None:
        parts.append(f"{images:,.0f} images per second in training")
    return f"Median: {', '.join(parts)}" if parts else ""


def frozen_epochs(run: RunFiles) -> str:
    """The epochs with a frozen backbone, such as `1 to 3`; empty where there are none."""
    # Consecutive epochs are joined to [first, last] ranges.
    ranges: list[list[int]] = []
    for line in run.history:
        epoch = number(line.get("epoch"))
        if epoch is None or line.get("frozen") is not True:
            continue
        if ranges and ranges[-1][1] == epoch - 1:
            ranges[-1][1] = int(epoch)
        else:
            ranges.append([int(epoch), int(epoch)])
    return ", ".join(f"{first} to {last}" if last > first else f"{first}" for first, last in ranges)


def _median(run: RunFiles, key: str) -> float | None:
    values = [value for line in run.history if (value := number(line.get(key))) is not None]
    return statistics.median(values) if values else None


def _points(run: RunFiles, key: str, part: str = "") -> list[Point]:
    """(epoch, value) where both are finite numbers; `part` names an object inside each line that holds `key`."""
    points = []
    for line in run.history:
        epoch = number(line.get("epoch"))
        values = mapping(line.get(part)) if part else line
        value = number(values.get(key))
        if epoch is not None and value is not None:
            points.append((epoch, value))
    return points


def _legend(lines: list[Series]) -> list[tuple[int, str]]:
    return [(line.style, line.name) for line in lines]


def _loss(run: RunFiles) -> Curve:
    lines = [
        Series("training", _points(run, "train_loss"), style=0),
        Series("validation", _points(run, "loss", part="valid"), style=1),
    ]
    lines = [line for line in lines if line.points]
    return Curve(
        "Loss", svg=line_chart(lines, "Loss per epoch", "epoch", has_values=True), legend=_legend(lines)
    )


def _learning_rate(run: RunFiles) -> Curve:
    line = Series("learning rate", _points(run, "lr"))
    chart = line_chart([line], "Learning rate per epoch", "epoch", zero=True, has_values=True)
    return Curve("Learning rate", svg=chart, legend=[])


def _target_weights(run: RunFiles) -> Curve:
    """With very many targets only the first ones."""
    names = list(dict.fromkeys(name for line in run.history for name in mapping(line.get("target_weights"))))
    drawn = names[: OTHER_LINES + 1]
    lines = [
        Series(name, _points(run, name, part="target_weights"), style=style)
        for style, name in enumerate(drawn)
    ]
    chart = line_chart(lines, "Learned target weights per epoch", "epoch", zero=True, has_values=True)
    title = "Learned target weights"
    if len(names) > len(drawn):
        title += f", {len(drawn)} of {len(names)}"
    return Curve(title, svg=chart, legend=_legend(lines))


def _metric(run: RunFiles, best: Best) -> Curve:
    """The selected metric, and the same metric of other targets; beside a mean what each target enters it with."""
    names = list(dict.fromkeys(name for line in run.history for name in mapping(line.get("valid"))))
    selected = history_key(best.metric, names)
    lines: list[Series] = []
    if selected:
        lines.append(Series(_line_name(run, selected), _points(run, selected, part="valid")))
    for name in names:
        points = _points(run, name, part="valid")
        belongs = (
            _is_part(run, name, best.key) if is_combined(best.key) else split_metric(name)[1] == best.key
        )
        # `macro_f1` and `joint.macro_f1` may be the same numbers under two names.
        if lines and belongs and name != selected and points != lines[0].points and len(lines) <= OTHER_LINES:
            # Terms of shares may be scores of one target.
            title = metric_name(name) if is_sum(best.key) else _line_name(run, name)
            lines.append(Series(title, points, style=len(lines)))

    mark = next((point for point in lines[0].points if point[0] == best.epoch), None) if lines else None
    chart = line_chart(lines, f"{best.name} per epoch", "epoch", mark=mark, has_values=True)
    return Curve(f"Validation {best.name}", svg=chart, legend=_legend(lines) if len(lines) > 1 else [])


def _is_part(run: RunFiles, name: str, metric: str) -> bool:
    """Whether a score is a term of shares, or what its target enters the mean of all targets with, at the class shares
    that are selected by."""
    if is_sum(metric):
        return name in [term for _, term in terms_of(metric)]
    target, key = split_metric(name)
    configured = mapping(mapping(run.config.get("targets")).get(target))
    if not configured:
        return False
    prior = mapping(run.config.get("selection")).get("prior")
    main = MAIN_SCORES.get(kind_of(run, target), "")
    has_shares = prior == "balanced" and kind_of(run, target) == "class"
    return key == (f"{main}{AT_PRIOR}" if has_shares else main)


def history_key(metric: str, names: list[str]) -> str | None:
    """The history's name for the selected metric, which the config may give without its `joint.`."""
    candidates = [metric, f"joint.{metric}", *(name for name in names if name.endswith(f".{metric}"))]
    return next((name for name in candidates if name in names), None)


def _line_name(run: RunFiles, name: str) -> str:
    target, _ = split_metric(name)
    if target == "joint" or (not target and run.config.get("joint")):
        return joint_title(run)
    return target or metric_name(name)
