"""What a tracker is: something that is opened, takes points, and is finished."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from classwise.tracking.facts import Ending, Point, RunFacts


class Tracker(Protocol):
    """One run in one tool. Any method may raise anything: see lane.py."""

    where: str
    """Where people find it, for the log."""

    def log(self, points: Sequence[Point]) -> None:
        """Add points, in the order of their steps."""

    def finish(self, ending: Ending) -> None:
        """Add what the run ended with, and close."""


@dataclass(frozen=True)
class Kind:
    """How a tracker is opened: with the facts, what it has remembered of this run, the step after which its points are
    to be erased, and a function that remembers something. `can_erase`: whether points can be taken back at all; if not,
    they are not sent again after a resume, which computes the same."""

    open: Callable[[RunFacts, dict[str, Any], int, Callable[..., None]], Tracker]
    can_erase: bool
