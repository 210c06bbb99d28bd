"""Why a request is not answered, as an error with the status and the headers of HTTP."""

from collections.abc import Mapping

RETRY_SECONDS = 1


class Refusal(Exception):  # noqa: N818 - the request's mistake, or nobody's
    """`status`: of the answer; the message is for whoever sent the request."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})


def busy() -> Refusal:
    """Too much waits already."""
    return Refusal(503, "too many images wait; try again", {"Retry-After": str(RETRY_SECONDS)})


def too_late(seconds: float) -> Refusal:
    """No answer within the time allowed."""
    return Refusal(503, f"no answer within {seconds:g} s; try again", {"Retry-After": str(RETRY_SECONDS)})
