"""What a planted fault is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """A change in `file` (below src/classwise): `old`, which occurs once there, becomes `new`. `what` says what that
    breaks; `tests` (below tests/) should notice it."""

    name: str
    file: str
    old: str
    new: str
    what: str
    tests: tuple[str, ...]
