"""The service from start to end: the socket, the model, the threads, the signals."""

import asyncio
import contextlib
import ipaddress
import logging
import os
import socket
import sys
from collections.abc import Callable, Generator
from dataclasses import dataclass

import cv2
import uvicorn

from classwise.console import Console
from classwise.errors import ConfigError
from classwise.kfold.api import Folds
from classwise.run.api import Run
from classwise.serve.app import service_app
from classwise.serve.batcher import Batcher
from classwise.serve.engine import check_engine
from classwise.serve.figures import Figures
from classwise.serve.guard import Guard
from classwise.serve.limits import CONNECTIONS, HEADER_BYTES, Limits
from classwise.serve.model import ServedModel, served_model
from classwise.serve.protocol import TimedProtocol
from classwise.serve.quota import Quota

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
KEEP_ALIVE_SECONDS = 20
ENDING_SECONDS = 5
"""More than a request may take, after which the service ends whatever is still open."""


@dataclass(frozen=True)
class Address:
    """Where the service listens. `host`: as given; `port`: the real one, also for 0."""

    host: str
    port: int
    is_local: bool

    def __str__(self) -> str:
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def serve(
    opened: Run | Folds,
    host: str,
    port: int,
    engine: str,
    limits: Limits,
    max_pixels: int | None,
    allowed_hosts: tuple[str, ...],
    logs: bool,
) -> None:
    """Serve a run, or folds, until SIGINT or SIGTERM; requests that have begun are answered then.

    `max_pixels`: of an image (default: data.max_pixels of the run). Raises ConfigError where the address cannot be
    used, and whatever is wrong with the run; prints the address once it answers.
    """
    check_engine(engine)
    console = Console(quiet=False)
    with contextlib.closing(bound_socket(host, port)) as bound:
        address = _address(host, bound)
        if not address.is_local:
            print(
                f"note: {address} can be reached from other machines, and there is no authentication: put a proxy with"
                " one in front of it, or leave out --host",
                file=sys.stderr,
            )
        cv2.setNumThreads(1)  # images are resized in the decode threads
        # It warns of every bad form, whose sender is told so.
        logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
        model = served_model(opened, engine, max_pixels, console)
        service = Service(model, limits, address, allowed_hosts, logs)
        try:
            asyncio.run(service.run(bound, lambda: print(f"serving {opened.path} at {address}", flush=True)))
        except OSError as error:  # two that have bound the same port: the first to listen has it
            raise _unusable(host, port, error) from None


def bound_socket(host: str, port: int) -> socket.socket:
    """A socket at the address, which does not listen yet. Raises ConfigError."""
    if not 0 <= port <= 65535:
        raise ConfigError(f"--port: found {port}, allowed: 0 (any that is free) to 65535")
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError):
        raise ConfigError(f"--host: found {host!r}, allowed: an address or a name of this machine") from None
    bound = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # a port can be used again at once; on Windows this would share it
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(where)
    except OSError as error:
        bound.close()
        raise _unusable(host, port, error) from None
    return bound


def _unusable(host: str, port: int, error: OSError) -> ConfigError:
    reason = error.strerror or str(error)
    return ConfigError(
        f"--port: {port} at {host} cannot be used: {reason}; allowed: another one, or 0 for any that is free"
    )


def _address(host: str, bound: socket.socket) -> Address:
    where, port = bound.getsockname()[:2]
    return Address(host, port, ipaddress.ip_address(where.partition("%")[0]).is_loopback)


class Service:
    """One service with its threads, to be run once."""

    def __init__(
        self,
        model: ServedModel,
        limits: Limits,
        address: Address,
        allowed_hosts: tuple[str, ...] = (),
        logs: bool = False,
    ) -> None:
        """`allowed_hosts`: further names in the requests' Host; `logs`: whether each request is a line on stderr."""
        images, held_bytes = Quota(limits.queue), Quota(limits.max_held_bytes)
        figures = Figures(lambda: images.now, lambda: held_bytes.now)
        self._batcher = Batcher(model, limits, figures, images, decode_threads=_cores(), say=_print_line)
        app = service_app(model, limits, self._batcher, figures, held_bytes, say=_print_line)
        hosts = None
        if address.is_local:
            hosts = frozenset(name.lower() for name in (*LOCAL_NAMES, address.host, *allowed_hosts))
        guarded = Guard(app, figures, hosts, log=_print_line if logs else lambda line: None)
        self.server = _Server(_uvicorn_config(guarded, limits))

    async def run(self, bound: socket.socket, on_ready: Callable[[], None]) -> None:
        """Listen at the socket until a signal, or until `server.should_exit` is set."""
        self.server.on_ready = on_ready
        try:
            await self.server.serve(sockets=[bound])
        finally:
            self._batcher.close()


class _Server(uvicorn.Server):
    """uvicorn's server, which says when it listens, and after a signal returns, so that the process ends with 0."""

    on_ready: Callable[[], None]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.on_ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        with super().capture_signals():
            yield
            self._captured_signals.clear()  # else they are raised again


def _uvicorn_config(app: Guard, limits: Limits) -> uvicorn.Config:
    class Protocol(TimedProtocol):
        request_seconds = 2 * limits.timeout + ENDING_SECONDS

    return uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=HEADER_BYTES,
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=int(2 * limits.timeout + ENDING_SECONDS),
    )


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _print_line(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
