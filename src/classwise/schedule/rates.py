"""The learning rate of every update of a run, computed as the training loop will: by its own `Schedule`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from classwise.compose.settings import selection_metric
from classwise.config.schema import Config
from classwise.errors import ConfigError
from classwise.metrics.names import higher_is_better
from classwise.optim.schedules import build_schedule
from classwise.report.curves import history_key

Point = tuple[float, float]
"""(epoch, learning rate); epoch 1.5 is in the middle of the second."""
IMPROVING = 0.5
"""Where nothing is recorded, the metric is assumed to improve in this share of the epochs, and never after."""


@dataclass(frozen=True)
class Rates:
    """The learning rate of a part of the model over a run. `config`: its name; `part`: "heads" or "backbone", or empty
    where all parts have the same rate; `schedule`: its name; `note`: what was assumed, or empty."""

    config: str
    part: str
    schedule: str
    points: tuple[Point, ...]
    note: str = ""

    @property
    def name(self) -> str:
        return f"{self.config}, {self.part}" if self.part else self.config

    @property
    def highest(self) -> float:
        return max(lr for _, lr in self.points)


def rates_of(
    config: Config, name: str, updates_per_epoch: int, scores: Sequence[float] | None = None
) -> list[Rates]:
    """The rates of the heads and then, where they are others, of the backbone: of its last layer with `layer_decay`.

    `scores`: the validation result of each epoch, which only `plateau` looks at; None for an assumed one. Raises
    ConfigError for a schedule that does not fit into the epochs, and for fewer scores than epochs.
    """
    optimizer, training, schedule = config.optimizer, config.training, config.schedule
    note = ""
    if schedule.name == "plateau":
        scores, note = _scores(config, scores)

    # One rate for each part, as the optimizer's groups have it.
    backbone = optimizer.lr * optimizer.backbone_lr_factor * optimizer.layer_decay
    bases = {"": optimizer.lr}
    if backbone not in (0, optimizer.lr):
        bases = {"heads": optimizer.lr, "backbone": backbone}
    options: dict[str, Any] = schedule.model_dump()
    if schedule.name == "onecycle":
        options["lr"] = optimizer.lr
    computed = build_schedule(
        bases=list(bases.values()),
        updates_per_epoch=updates_per_epoch,
        epochs=training.epochs,
        higher_is_better=higher_is_better(selection_metric(config)),
        frozen_updates=training.freeze_epochs * updates_per_epoch,
        **options,
    )

    # As the loop does it: each update asks for its rates, and each epoch reports its result.
    points: list[list[Point]] = [[] for _ in bases]
    for update in range(training.epochs * updates_per_epoch):
        for line, lr in zip(points, computed.lrs(update), strict=True):
            line.append((update / updates_per_epoch, lr))
        if scores is not None and (update + 1) % updates_per_epoch == 0:
            computed.end_epoch(scores[update // updates_per_epoch], update + 1)
    return [
        Rates(name, part, schedule.name, tuple(line), note) for part, line in zip(bases, points, strict=True)
    ]


def recorded_scores(run: Path, metric: str) -> list[float]:
    """The values of selection.metric by epoch, from the history.jsonl of a run directory. Raises ConfigError."""
    path = run / "history.jsonl"
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        epochs = [row["valid"] for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"--metric: found {str(run)!r}, which has no readable {path.name} ({error})"
        ) from None
    known = sorted(set.intersection(*map(set, epochs))) if epochs else []
    key = history_key(metric, known)
    if key is None:
        raise ConfigError(
            f"--metric: {path} has no {metric} of every epoch; it has {', '.join(known) or 'nothing'}"
        )
    return [float(scores[key]) for scores in epochs]


def _scores(config: Config, scores: Sequence[float] | None) -> tuple[Sequence[float], str]:
    """The result of each epoch, and what has been assumed about it."""
    epochs, metric = config.training.epochs, config.selection.metric
    if scores is None:
        improving = max(1, round(epochs * IMPROVING))
        sign = 1 if higher_is_better(metric) else -1
        assumed = [sign * float(min(epoch, improving - 1)) for epoch in range(epochs)]
        return assumed, f"assumed: {metric} improves up to epoch {improving}, not after"
    if len(scores) < epochs:
        raise ConfigError(f"--metric: found {len(scores)} epochs, but training.epochs is {epochs}")
    return scores, f"{metric} as recorded"
