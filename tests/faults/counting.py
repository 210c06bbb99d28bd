"""How the figures of docs/results/reliability.md are counted: tried, held, and what did not hold."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Count:
    """One promise put to the test. A try that was skipped counts as one that failed."""

    tried: int = 0
    held: int = 0
    by: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)

    def add(self, held: bool, kind: str = "", failure: str = "") -> None:
        """Count one try: `kind` says which sort of try it was, `failure` what was found where it did not hold."""
        self.tried += 1
        self.held += bool(held)
        if kind:
            self.by[kind] += 1
        if not held:
            self.failures.append(f"{kind}: {failure}" if kind else failure)

    def check(self) -> None:
        """AssertionError with the first failures, or where nothing was tried."""
        assert self.tried, "nothing was tried"
        assert not self.failures, f"{len(self.failures)} of {self.tried} failed: " + "; ".join(
            self.failures[:5]
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "tried": self.tried,
            "held": self.held,
            "by": dict(sorted(self.by.items())),
            "failures": self.failures[:20],
            "notes": self.notes,
        }


@dataclass(frozen=True)
class Figure:
    """One line of the table: the row of the promise, what is tried, and how it is counted in full."""

    row: int
    name: str
    what: str
    count: Callable[[], Count]


def timed(figure: Figure) -> dict[str, Any]:
    """Run a figure in full; an error of the test itself is a failure too."""
    started = time.perf_counter()
    try:
        count = figure.count()
    except Exception as error:
        count = Count(1, 0, failures=[f"{type(error).__name__}: {error}"])
    found = count.as_dict()
    return {
        "row": figure.row,
        "what": figure.what,
        **found,
        "seconds": round(time.perf_counter() - started, 1),
    }
