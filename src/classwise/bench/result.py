"""What `classwise bench` finds, and what follows from its numbers."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from classwise.training.tuning import TuningResult

READING = ("reading", "decoding", "augmenting", "joining")
"""What a reader does: in loader workers beside the model, or in turn with it."""
COMPUTING = ("transfer", "mixing", "forward", "loss", "backward", "update")
"""What the training process does. `metrics`, the last stage, is of validation and in no sum."""


@dataclass(frozen=True)
class Stage:
    """Milliseconds that an image takes in one stage."""

    name: str
    milliseconds: float
    what: str = ""


@dataclass(frozen=True)
class Bench:
    """The stages of a run, `batch` images at a time; `whole`: milliseconds an image of real updates, with the
    readers at work beside them. `plans`: the ways to train that were measured, the fastest first; without any,
    `other` is another precision and what forward and backward take in it."""

    stages: tuple[Stage, ...]
    whole: float
    workers: int
    threads: int
    cores: int
    device: str
    precision: str
    batch: int
    plans: tuple[TuningResult, ...] = ()
    other: tuple[str, float] | None = None
    hints: tuple[str, ...] = ()

    def milliseconds(self, *names: str) -> float:
        """The sum of some stages."""
        return sum(stage.milliseconds for stage in self.stages if stage.name in names)

    @property
    def reading(self) -> float:
        """What one reader needs for an image."""
        return self.milliseconds(*READING)

    @property
    def computing(self) -> float:
        """What the training process needs for an image that has been read."""
        return self.milliseconds(*COMPUTING)

    @property
    def pace(self) -> float:
        """What all readers together need for an image; without workers that is the training process."""
        return self.reading / max(1, self.workers)

    @property
    def expected(self) -> float:
        """What an image takes by its stages: with workers the slower side, without them both in turn."""
        return max(self.pace, self.computing) if self.workers else self.reading + self.computing

    @property
    def explained(self) -> float:
        """The share of the whole updates' time that the stages explain."""
        return self.expected / self.whole if self.whole else 0.0

    def share(self, stage: Stage) -> float | None:
        """A stage's share of the work on a training image; None for what is not part of an update."""
        work = self.reading + self.computing
        return stage.milliseconds / work if stage.name in (*READING, *COMPUTING) and work else None

    @property
    def bound(self) -> str:
        """What the run waits for: the stages that take at least a quarter of the side that sets the pace."""
        names: tuple[str, ...] = (*READING, *COMPUTING)
        if self.workers:
            names = READING if self.pace > self.computing else COMPUTING
        total = self.milliseconds(*names)
        large = [s.name for s in self.stages if s.name in names and s.milliseconds >= total / 4 > 0]
        return " and ".join([", ".join(large[:-1]), *large[-1:]] if len(large) > 1 else large)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        found = dataclasses.asdict(self)
        for stage, values in zip(self.stages, found["stages"], strict=True):
            values["share"] = self.share(stage)
        sums = ("reading", "computing", "expected", "explained", "bound")
        return found | {name: getattr(self, name) for name in sums}
