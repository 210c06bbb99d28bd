"""A service in a thread of the tests, and as a command; raw connections to both."""

import asyncio
import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np

from classwise.serve.limits import Limits
from classwise.serve.model import ServedModel
from classwise.serve.server import Address, Service, bound_socket
from tests.helpers.children import child_environment

LIMITS = Limits(max_images=8, max_bytes=300_000, queue=16, batch=4, timeout=20.0)
SECONDS = 60.0
"""More than anything here takes, on however busy a machine."""


@dataclass(frozen=True)
class Running:
    """A service that listens at `port`."""

    port: int
    client: httpx.Client

    def predict(self, *files: tuple[str, bytes]) -> httpx.Response:
        """POST /predict with these files of a form."""
        return self.client.post("/predict", files=[("file", (name, data)) for name, data in files])

    def metric(self, name: str) -> float:
        """One line of /metrics, 0 where it is missing."""
        lines = self.client.get("/metrics").text.splitlines()
        return next((float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{name} ")), 0.0)


@contextlib.contextmanager
def running(model: ServedModel, limits: Limits = LIMITS, **options: Any) -> Iterator[Running]:
    """A service while the block runs. `options`: further arguments of `Service`."""
    with bound_socket("127.0.0.1", 0) as bound:
        port = bound.getsockname()[1]
        service = Service(model, limits, Address("127.0.0.1", port, is_local=True), **options)
        is_ready = threading.Event()
        failures: list[BaseException] = []

        def run() -> None:
            try:
                asyncio.run(service.run(bound, is_ready.set))
            except BaseException as error:
                failures.append(error)
                is_ready.set()

        thread = threading.Thread(target=run)
        thread.start()
        assert is_ready.wait(SECONDS)
        assert not failures, failures
        try:
            with httpx.Client(
                base_url=f"http://127.0.0.1:{port}", timeout=SECONDS, trust_env=False
            ) as client:
                yield Running(port, client)
        finally:
            service.server.should_exit = True
            thread.join(SECONDS)
            assert not thread.is_alive()


def slowed(model: ServedModel, gate: threading.Event) -> ServedModel:
    """The model, which answers nothing before the gate is open."""

    def engine(images_BCHW: Any) -> Any:
        assert gate.wait(SECONDS)
        return model.engine(images_BCHW)

    return replace(model, engine=engine)


@contextlib.contextmanager
def command_running(run: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """`classwise serve RUN --port 0`, once it is ready; the process, and its port."""
    command = [sys.executable, "-m", "classwise", "serve", str(run), "--port", "0", *options]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=child_environment()
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("serving "), line
        yield process, int(line.rsplit(":", 1)[1])
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_until(condition: Callable[[], bool]) -> None:
    """Return once the condition is true; fail where it never is."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def exchange(port: int, *pieces: bytes) -> bytes:
    """Send pieces over a connection of its own, and read until the service closes it."""
    with socket.create_connection(("127.0.0.1", port), SECONDS) as connection:
        with contextlib.suppress(ConnectionError):  # what was sent may have been refused by then
            for piece in pieces:
                connection.sendall(piece)
        return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    """What comes until the service closes the connection."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(65536):
            received += piece
    return received


def status_of(received: bytes) -> int:
    """The status of an answer; 0 for none."""
    return int(received.split(b" ", 2)[1]) if received.startswith(b"HTTP/1.1 ") else 0


def request(body: bytes, headers: Mapping[str, str] | None = None, method: str = "POST") -> bytes:
    """A request to /predict as bytes, after which the connection is closed."""
    lines = {"Host": "localhost", "Content-Length": str(len(body)), "Connection": "close"} | dict(
        headers or {}
    )
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} /predict HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body


def form(parts: Sequence[tuple[str, bytes]], boundary: str = "xyz") -> bytes:
    """The body of a form: (Content-Disposition, content) of each part."""
    body = b"".join(
        f"--{boundary}\r\nContent-Disposition: {disposition}\r\n\r\n".encode() + data + b"\r\n"
        for disposition, data in parts
    )
    return body + f"--{boundary}--\r\n".encode()


def drawn(seed: int = 0, size: tuple[int, int] = (40, 30), suffix: str = ".png") -> bytes:
    """The bytes of a file with noise."""
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    encoded, data = cv2.imencode(suffix, image)
    assert encoded
    return data.tobytes()
