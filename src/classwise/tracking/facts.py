"""What trackers are told about a run: at its start, at points of its way, and at its end."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class RunFacts:
    """A run at its start.

    `folder`: its run directory, absolute. `name` and `group`: what the tools show; the group is that of the folds or
    of the comparison that it belongs to, empty otherwise. `parameters`: the config, flat. `files`: paths of what is
    kept with it from the start. `metric`: the score that selects the best epoch. `step`: the updates that are done
    already; more than 0 where it is resumed.
    """

    folder: str
    name: str
    group: str
    parameters: dict[str, str | int | float | bool]
    files: list[str]
    tags: dict[str, str]
    metric: str
    step: int


@dataclass(frozen=True)
class Point:
    """Numbers by name, after `step` updates; `time` in seconds since 1970. `ends_epoch`: those of a whole epoch, which
    are never left out where there are too many."""

    step: int
    time: float
    values: dict[str, float]
    ends_epoch: bool = False


@dataclass(frozen=True)
class Ending:
    """A run at its end.

    `state`: finished, early_stopped, interrupted, failed, or killed where nothing said that it ended. `scores`: those
    of the best checkpoint. `files`: the report, the scores. `confusion_images`: PNG files by name. `model`: the
    files of the best checkpoint that inference needs; empty unless the run is finished.
    """

    state: str
    step: int = 0
    time: float = 0.0
    scores: dict[str, float] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    confusion_images: dict[str, str] = field(default_factory=dict)
    model: list[str] = field(default_factory=list)

    @property
    def is_done(self) -> bool:
        """Whether the run has come to its own end."""
        return self.state in ("finished", "early_stopped")


Message = RunFacts | Point | Ending
_KINDS: dict[str, type[Message]] = {"facts": RunFacts, "point": Point, "ending": Ending}


def to_line(message: Message) -> bytes:
    """The message as one line of JSON; a number of NumPy's or torch's becomes Python's."""
    kind = next(name for name, kind in _KINDS.items() if isinstance(message, kind))
    return json.dumps({kind: asdict(message)}, default=float).encode() + b"\n"


def from_line(line: bytes) -> Message:
    """What `to_line` gave."""
    ((kind, values),) = json.loads(line).items()
    return _KINDS[kind](**values)


def flat_parameters(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str | int | float | bool]:
    """A nested config as `section.key`: value. Lists are JSON, so that each key has one plain value; keys without a
    value are left out, as in config.toml."""
    flat: dict[str, str | int | float | bool] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flat_parameters(value, f"{name}.")
        elif isinstance(value, str | int | float):
            flat[name] = value
        elif value is not None:
            flat[name] = json.dumps(value, ensure_ascii=False)
    return flat


def epoch_values(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of an epoch's line in history.jsonl, named as TensorBoard groups them: by what stands before the
    slash."""
    values: dict[str, float] = {
        "epoch": row["epoch"],
        "train/epoch_loss": row["train_loss"],
        "train/lr": row["lr"],
        "time/epoch_seconds": row["seconds"],
        "time/images_per_second": row["images_per_second"],
    }
    for name in ("micro_batch", "skipped_updates"):
        if name in row:
            values[f"train/{name}"] = row[name]
    values |= {f"train/weight.{name}": weight for name, weight in row.get("target_weights", {}).items()}
    return values | {f"valid/{name}": score for name, score in row["valid"].items()}


def final_scores(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of metrics.json: those of the validation rows as `final/...`, of the test rows as `test/...`."""
    scores = _scores_of(metrics, "final/")
    return scores | (_scores_of(metrics["test"], "test/") if metrics.get("test") else {})


def _scores_of(metrics: Mapping[str, Any], prefix: str) -> dict[str, float]:
    targets = metrics["targets"]
    parts = {f"{name}." if len(targets) > 1 else "": scores for name, scores in targets.items()}
    if metrics.get("joint"):
        parts["joint."] = metrics["joint"]
    found = {
        f"{prefix}{part}{name}": float(score)
        for part, scores in parts.items()
        for name, score in scores.items()
        if isinstance(score, int | float) and not isinstance(score, bool) and name != "samples"
    }
    if metrics.get("value") is not None:
        found[f"{prefix}{metrics['metric']}"] = metrics["value"]
    return found
