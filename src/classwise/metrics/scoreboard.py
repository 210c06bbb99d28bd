"""All tallies of a model with several targets, and the numbers that come out of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from classwise.errors import ConfigError, nearest
from classwise.metrics.joint import joint_number
from classwise.metrics.scores import HIGHER_IS_BETTER, class_scores
from classwise.metrics.tally import ClassTally, predicted_labels

SELECTABLE = tuple(name for name, higher in HIGHER_IS_BETTER.items() if higher)


class Scoreboard:
    """Counts for every class target and for the joint class, over a whole set.

    `labels`: label list by target. `joint`: the targets read as one class, the first most significant.
    """

    def __init__(
        self,
        labels: Mapping[str, Sequence[str]],
        joint: Sequence[str] = (),
        device: torch.device | str = "cpu",
    ) -> None:
        self.labels = {name: list(list_) for name, list_ in labels.items()}
        self.joint = tuple(joint)
        self._sizes = [len(self.labels[name]) for name in self.joint]
        sizes = {name: len(list_) for name, list_ in self.labels.items()}
        self._tallies = {name: ClassTally(size, device) for name, size in sizes.items()}
        self._joint_tally = ClassTally(len(joint_labels(self.labels, self.joint)), device) if joint else None

    def reset(self) -> None:
        """Start again from zero."""
        for tally in [*self._tallies.values(), *([self._joint_tally] if self._joint_tally else [])]:
            tally.reset()

    def update(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> None:
        """Count one batch: logits_BK and labels_B by target."""
        predicted = {name: predicted_labels(outputs[name]) for name in self._tallies}
        for name, tally in self._tallies.items():
            tally.update_labels(predicted[name], targets[name])
        if self._joint_tally is not None:
            self._joint_tally.update_labels(
                joint_number([predicted[name] for name in self.joint], self._sizes),
                joint_number([targets[name] for name in self.joint], self._sizes),
            )

    @property
    def invalid(self) -> int:
        """Rows that some target has no finite prediction for; they are in no score."""
        return max(tally.invalid for tally in self._tallies.values())

    def results(self) -> dict[str, Any]:
        """`targets` by name and, where there is one, `joint`: each as in metrics.json."""
        found: dict[str, Any] = {
            "targets": {
                name: class_scores(t.confusion, self.labels[name]) for name, t in self._tallies.items()
            }
        }
        if self._joint_tally is not None:
            labels = joint_labels(self.labels, self.joint)
            found["joint"] = class_scores(self._joint_tally.confusion, labels)
        return found


def joint_labels(labels: Mapping[str, Sequence[str]], joint: Sequence[str]) -> list[str]:
    """Readable names of the joint classes in the order of their numbers: `wear / male / <30`."""
    names = [""]
    for target in joint:
        names = [f"{name} / {label}" if name else label for name in names for label in labels[target]]
    return names


def flat_scores(results: Mapping[str, Any]) -> dict[str, float]:
    """Every selectable number by name: `macro_f1` for the only target, else `age.macro_f1`, `joint.macro_f1`."""
    targets = results["targets"]
    flat = {f"joint.{name}": results["joint"][name] for name in SELECTABLE if "joint" in results}
    for target, scores in targets.items():
        prefix = "" if len(targets) == 1 else f"{target}."
        flat |= {f"{prefix}{name}": scores[name] for name in SELECTABLE}
    return flat


def resolve_metric(metric: str, targets: Sequence[str], joint: bool) -> str:
    """The name in `flat_scores` that `selection.metric` means. Raises ConfigError."""
    target, _, name = metric.rpartition(".")
    if name not in SELECTABLE:
        raise ConfigError(f"selection.metric: found {metric!r}; {nearest(name, SELECTABLE)}")
    if target and target not in (*targets, *(["joint"] if joint else [])):
        allowed = [f"{known}.{name}" for known in (*targets, *(["joint"] if joint else []))]
        raise ConfigError(f"selection.metric: no target {target!r}; {nearest(metric, allowed)}")
    if not target and joint:
        return f"joint.{name}"
    if not target and len(targets) > 1:
        allowed = [f"{known}.{name}" for known in targets]
        raise ConfigError(
            f"selection.metric: {metric!r} of which target? There are several and no [joint]; allowed:"
            f" {', '.join(allowed)}"
        )
    return name if len(targets) == 1 and target != "joint" else metric
