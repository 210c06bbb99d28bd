"""What holds for every request and every answer: the host's name, the headers, the figures, the log."""

import time
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from classwise.serve.figures import Figures
from classwise.serve.limits import HEADER_BYTES
from classwise.serve.schemas import Problem

# Nothing but the page's own files is loaded, and nobody else may show it in a frame.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob: data:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]
PATHS = ("/", "/page.js", "/page.css", "/predict", "/health", "/metrics", "/openapi.json")
"""Those that are counted by name: a client must not make the figures grow."""
OTHER_PATH = "other"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class Guard:
    """An ASGI application around the service's."""

    def __init__(
        self, app: ASGIApp, figures: Figures, hosts: frozenset[str] | None, log: Callable[[str], None]
    ) -> None:
        """`hosts`: the names that requests may give in Host, so that a web page cannot reach a service on loopback
        under a name of its own (DNS rebinding); None allows all. `log`: prints a line for each request."""
        self._app = app
        self._figures = figures
        self._hosts = hosts
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 0

        async def send_guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], *HEADERS]}
            await send(message)

        try:
            if _header_bytes(scope) > HEADER_BYTES:  # h11 counts only what does not come in one piece
                await _refuse(431, f"the headers have more than {HEADER_BYTES:,} bytes", send_guarded)
            elif self._hosts is None or _host_of(scope) in self._hosts:
                await self._app(scope, receive, send_guarded)
            else:
                await _refuse(421, "Host: found another name; see classwise serve --allow-host", send_guarded)
        finally:
            seconds = time.perf_counter() - started
            path = scope["path"] if scope["path"] in PATHS else OTHER_PATH
            self._figures.requests.labels(path, str(status)).inc()
            self._figures.seconds.labels(path).observe(seconds)
            # Of a path or a method that a client makes up, nothing reaches the terminal.
            method = scope["method"] if scope["method"] in METHODS else "other"
            client = (scope.get("client") or ("-",))[0]
            self._log(f"{client} {method} {path} {status} {1000 * seconds:.1f} ms")


def _host_of(scope: Scope) -> str:
    """The name in the request's Host header, without port and brackets; empty where it is none."""
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    if len(hosts) != 1:
        return ""
    try:
        return urlsplit(f"//{hosts[0].decode('latin-1')}").hostname or ""
    except ValueError:
        return ""


def _header_bytes(scope: Scope) -> int:
    """Of the request's target and all its headers."""
    headers = sum(len(name) + len(value) + 4 for name, value in scope["headers"])
    return headers + len(scope["raw_path"]) + len(scope["query_string"])


async def _refuse(status: int, message: str, send: Send) -> None:
    """Answer without asking the application."""
    body = Problem(error=message).model_dump_json().encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
