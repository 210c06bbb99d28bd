"""How much is held in memory at once, by all requests together."""

import contextlib
from collections.abc import Iterator

from classwise.serve.refusals import busy


class Held:
    """How much of something is held, at the most `limit`. Used from the event loop alone."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.now = 0

    def take(self, amount: int) -> None:
        """Raises a Refusal with status 503 where that would be too much."""
        if self.now + amount > self.limit:
            raise busy()
        self.now += amount

    def give_back(self, amount: int) -> None:
        """The inverse of `take`."""
        self.now -= amount

    @contextlib.contextmanager
    def share(self) -> Iterator["Held"]:
        """A part of its own, which takes from this one and gives all back at the end of the block."""
        part = _Part(self)
        try:
            yield part
        finally:
            self.give_back(part.now)


class _Part(Held):
    """What one request takes of the whole."""

    def __init__(self, whole: Held) -> None:
        super().__init__(whole.limit)
        self._whole = whole

    def take(self, amount: int) -> None:
        self._whole.take(amount)
        self.now += amount
