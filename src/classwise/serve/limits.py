"""What the service takes, and how much of it at a time."""

import math
from dataclasses import dataclass

from classwise.errors import ConfigError

HEADER_BYTES = 16 * 1024
"""Of the request line and all headers together."""
HEADER_SECONDS = 10.0
"""In which a client has to send them, and the rest of a body that nobody reads any more."""
BODIES_HELD = 4
"""Bodies of the largest size that are held in memory at once."""
CONNECTIONS = 1000
"""Open at once; with more, each is answered 503."""


@dataclass(frozen=True)
class Limits:
    """`max_images`: of one request; `max_bytes`: of its body; `queue`: images that have
    been taken and are not answered yet; `batch`: images that go through the model at once; `timeout`: seconds for the
    body to come, and for the answer after it."""

    max_images: int
    max_bytes: int
    queue: int
    batch: int
    timeout: float

    def __post_init__(self) -> None:
        """Raises ConfigError for what nothing could be served with."""
        least = {
            "--max-images": self.max_images,
            "--max-megabytes": self.max_bytes,
            "--batch": self.batch,
            "--timeout": self.timeout,
        }
        for option, value in least.items():
            if not 0 < value < math.inf:
                raise ConfigError(f"{option}: found {value:g}, allowed: more than 0")
        if self.queue < self.max_images:
            raise ConfigError(
                f"--queue: found {self.queue}, allowed: --max-images ({self.max_images}) or more, so that each request"
                " can be taken when nothing else waits"
            )

    @property
    def max_held_bytes(self) -> int:
        """Of the bodies of all requests together."""
        return BODIES_HELD * self.max_bytes
