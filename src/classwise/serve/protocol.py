"""Connections that nobody can hold open for nothing."""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from classwise.serve.limits import HEADER_SECONDS


class TimedProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, where a client that sends its headers, or the rest of a body that has been refused, or reads
    its answer byte by byte is cut off. uvicorn itself only ends connections on which nothing comes after an answer.

    `request_seconds`: the longest that a request may take from its headers to the end of its answer."""

    request_seconds: float
    _deadline: asyncio.TimerHandle | None = None
    _timed_cycle: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._end_in(HEADER_SECONDS)

    def handle_events(self) -> None:
        try:
            super().handle_events()
        except ValueError:  # h11's, of a Content-Length with more digits than Python converts
            self.send_400_response("Invalid HTTP request received.")

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._time_request()
        # Headers in the making, or a body without a reader: more bytes do not buy more time.
        if self._deadline is None:
            self._end_in(HEADER_SECONDS)

    def on_response_complete(self) -> None:
        self._cancel()
        super().on_response_complete()  # waits for the next request, or begins with one that has come already
        self._time_request()

    def _time_request(self) -> None:
        """Give a request that has just begun its time."""
        is_running = self.cycle is not None and not self.cycle.response_complete
        if is_running and self.cycle is not self._timed_cycle:
            self._timed_cycle = self.cycle
            self._end_in(self.request_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel()
        super().connection_lost(exc)

    def _end_in(self, seconds: float) -> None:
        self._cancel()
        self._deadline = self.loop.call_later(seconds, self.transport.abort)

    def _cancel(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
