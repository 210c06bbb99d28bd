"""How much is held in memory at once, by all requests together."""

import contextlib
from collections.abc import Iterator

from classwise.serve.refusals import busy


class Quota:
    """How much of something is held, at the most `limit`. Used from the event loop alone."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.now = 0

    def acquire(self, amount: int) -> None:
        """Raises a Refusal with status 503 where that would be too much."""
        if self.now + amount > self.limit:
            raise busy()
        self.now += amount

    def release(self, amount: int) -> None:
        """The inverse of `acquire`."""
        self.now -= amount

    @contextlib.contextmanager
    def share(self) -> Iterator["Quota"]:
        """A part of its own, which takes from this one and gives all back at the end of the block."""
        part = _Part(self)
        try:
            yield part
        finally:
            self.release(part.now)


class _Part(Quota):
    """What one request takes of the whole."""

    def __init__(self, whole: Quota) -> None:
        super().__init__(whole.limit)
        self._whole = whole

    def acquire(self, amount: int) -> None:
        self._whole.acquire(amount)
        self.now += amount
