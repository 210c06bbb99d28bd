"""Whatever is sent, the answer is a 4xx, 413 or 503, and the service still answers everybody else."""

import dataclasses
import re
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from classwise.data.images import MAX_PIXELS
from classwise.serve.limits import HEADER_BYTES
from classwise.serve.model import ServedModel
from tests.helpers.served import (
    LIMITS,
    SECONDS,
    Running,
    command_running,
    drawn,
    exchange,
    form,
    read_all,
    request,
    running,
    slowed,
    status_of,
    wait_until,
)

FORM = {"Content-Type": "multipart/form-data; boundary=xyz"}
RAW = {"Content-Type": "image/png"}
PART = 'form-data; name="file"; filename="a.png"'
GOOD = drawn()
REFUSED = {400, 404, 405, 408, 413, 415, 421, 422, 431, 503}
GROWTH_MEGABYTES = 50
"""Within which the memory of a service stays under 10,000 hostile requests. What it holds at the most: bodies of four
requests, the images of two decode threads, and what the allocator keeps of them."""


def claims_pixels(width: int, height: int) -> bytes:
    """A PNG whose header claims so many pixels, with the data of one row."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    row = zlib.compress(bytes(1 + 3 * 100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", row) + chunk(b"IEND", b"")


def still_answers(service: Running) -> None:
    """A good image among all this has its answer, and nothing is held that belongs to nobody."""
    response = service.predict(("good.png", GOOD))
    assert response.status_code == 200
    assert "targets" in response.json()["images"][0]


BODIES: dict[str, tuple[bytes, dict[str, str], int]] = {
    "cut short": (GOOD[:-40], RAW, 422),
    "a header alone": (GOOD[:33], RAW, 422),
    "no image": (b"GIF89a" + bytes(100), RAW, 422),
    "a page": (b"<html><script>alert(1)</script></html>", RAW, 422),
    "empty": (b"", RAW, 400),
    "a bomb of pixels": (claims_pixels(100_000, 100_000), RAW, 422),
    "a bomb of one row": (claims_pixels(2**31 - 1, 1), RAW, 422),
    "no type": (GOOD, {}, 415),
    "another type": (GOOD, {"Content-Type": "text/html"}, 415),
    "JSON with a path": (b'{"path": "/etc/passwd"}', {"Content-Type": "application/json"}, 415),
    "a URL": (b"url=http://127.0.0.1/", {"Content-Type": "application/x-www-form-urlencoded"}, 415),
    "compressed": (zlib.compress(GOOD), RAW | {"Content-Encoding": "deflate"}, 415),
    "no boundary": (form([(PART, GOOD)]), {"Content-Type": "multipart/form-data"}, 400),
    "another boundary": (form([(PART, GOOD)], "abc"), FORM, 400),
    "a long boundary": (
        form([(PART, GOOD)]),
        {"Content-Type": f"multipart/form-data; boundary={'x' * 300}"},
        400,
    ),
    "no closing boundary": (form([(PART, GOOD)])[:-9], FORM, 400),
    "no part": (b"--xyz--\r\n", FORM, 400),
    "another field": (form([('form-data; name="path"', b"/etc/passwd")]), FORM, 400),
    "no disposition": (b"--xyz\r\nX: y\r\n\r\nabc\r\n--xyz--\r\n", FORM, 400),
    "many parts": (form([(PART, b"")] * 2000), FORM, 413),
    "a part with many headers": (b"--xyz\r\n" + b"A: b\r\n" * 500 + b"\r\n\r\n--xyz--\r\n", FORM, 400),
    "a part with a long header": (b"--xyz\r\nA: " + b"b" * 50_000 + b"\r\n\r\n--xyz--\r\n", FORM, 400),
    "too long a body": (bytes(LIMITS.max_bytes + 1), RAW, 413),
    "a link as a name": (form([('form-data; name="file"; filename="http://x/a.png"', b"x")]), FORM, 422),
}


@pytest.fixture(scope="module")
def service(model: ServedModel) -> Any:
    with running(model) as found:
        yield found


@pytest.mark.parametrize("name", BODIES)
def test_bad_bodies_are_refused(service: Running, name: str) -> None:
    body, headers, status = BODIES[name]
    answer = exchange(service.port, request(body, headers))
    assert status_of(answer) == status, answer[:500]
    assert b"\r\nx-content-type-options: nosniff\r\n" in answer
    assert b"Traceback" not in answer
    still_answers(service)


def test_an_image_of_too_many_pixels_is_not_decoded(service: Running) -> None:
    """100,000 x 100,000 pixels would take 30 GB."""
    answer = exchange(service.port, request(claims_pixels(100_000, 100_000), RAW))
    assert f"{MAX_PIXELS:,}".encode() in answer


def test_a_promised_length_too_large_is_refused_before_a_byte_of_it_is_sent(service: Running) -> None:
    head = request(b"", RAW | {"Content-Length": "10000000000"})
    with socket.create_connection(("127.0.0.1", service.port), SECONDS) as connection:
        connection.sendall(head)
        assert status_of(connection.recv(65536)) == 413


def test_a_body_without_a_length_is_refused_as_soon_as_it_is_too_long(service: Running) -> None:
    """Chunks of a body that never ends: the service stops reading, not the client."""
    head = request(b"", RAW | {"Transfer-Encoding": "chunked"}).replace(b"Content-Length: 0\r\n", b"")
    chunk = b"10000\r\n" + bytes(65536) + b"\r\n"
    with socket.create_connection(("127.0.0.1", service.port), SECONDS) as connection:
        connection.sendall(head)
        sent = 0
        connection.setblocking(False)
        answer = b""
        deadline = time.monotonic() + SECONDS
        while not answer and time.monotonic() < deadline and sent < 200:
            try:
                connection.sendall(chunk)
                sent += 1
            except (BlockingIOError, ConnectionError):  # full, or closed already, behind an answer to be read
                time.sleep(0.01)
            try:
                answer = connection.recv(65536)
            except BlockingIOError:
                continue
    assert status_of(answer) == 413
    still_answers(service)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "BREW"])
def test_other_methods_are_refused(service: Running, method: str) -> None:
    answer = exchange(service.port, request(GOOD, RAW, method))
    assert status_of(answer) == 405
    assert b"access-control-allow" not in answer.lower()


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "/../../etc/passwd", "/page.js/..%2f..%2fetc", "/static/x", "/docs", "/redoc", "//"],
)
def test_other_paths_are_not_found(service: Running, path: str) -> None:
    answer = exchange(
        service.port, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    )
    assert status_of(answer) == 404
    assert b'{"error":' in answer


def test_huge_headers_are_refused(service: Running) -> None:
    for head in (
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 10 * HEADER_BYTES,
        b"GET /" + b"a" * 10 * HEADER_BYTES,
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * HEADER_BYTES,
    ):
        assert status_of(exchange(service.port, head + b"\r\n\r\n")) in (0, 400, 431)
    still_answers(service)


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300),  # TLS
        b"GET\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: localhost\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused(service: Running, sent: bytes) -> None:
    assert status_of(exchange(service.port, sent)) in (400, 421)
    still_answers(service)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_damaged_bodies_never_fail_the_service(service: Running, data: st.DataObject) -> None:
    """A good form or image with bytes cut off, changed or put in: an answer or a refusal, never a failure."""
    is_form = data.draw(st.booleans())
    body = bytearray(form([(PART, GOOD), (PART, GOOD)]) if is_form else GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, max(0, len(body) - 1)))
        kind = data.draw(st.sampled_from(["cut", "change", "insert", "repeat"]))
        noise = data.draw(st.binary(min_size=1, max_size=30))
        if kind == "cut":
            del body[place:]
        elif kind == "change":
            body[place : place + len(noise)] = noise
        elif kind == "insert":
            body[place:place] = noise
        else:
            body[place:place] = body[max(0, place - 200) : place]
    headers = FORM if is_form else RAW
    response = service.client.post("/predict", content=bytes(body), headers=headers)
    assert response.status_code in REFUSED | {200}


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(st.characters(exclude_characters='"\\\r\n', exclude_categories=["Cs"]), max_size=300))
def test_names_are_echoed_as_they_are(service: Running, name: str) -> None:
    body = form([(f'form-data; name="file"; filename="{name}"', GOOD)])
    answer = service.client.post("/predict", content=body, headers=FORM).json()["images"][0]
    expected = name.split("\\")[-1]
    assert answer["name"] == expected[:255]


def test_clients_that_send_byte_by_byte_hold_up_nobody(model: ServedModel) -> None:
    """Their bodies are refused after the time allowed; meanwhile others have answers."""
    limits = dataclasses.replace(LIMITS, timeout=3.0)
    with running(model, limits) as service:
        slow = [socket.create_connection(("127.0.0.1", service.port), SECONDS) for _ in range(20)]
        for connection in slow:
            connection.sendall(request(GOOD, RAW)[:-100])
        still_answers(service)
        answers = [read_all(connection) for connection in slow]
        for connection in slow:
            connection.close()
        assert {status_of(answer) for answer in answers} == {408}
        assert service.metric("classwise_held_bytes") == 0


def test_headers_that_never_end_are_cut_off(model: ServedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("classwise.serve.protocol.HEADER_SECONDS", 0.5)
    with running(model) as service, socket.create_connection(("127.0.0.1", service.port), SECONDS) as slow:
        slow.sendall(b"GE")
        assert read_all(slow) == b""  # returns since the service closes the connection
        still_answers(service)


def test_more_bytes_do_not_buy_more_time(model: ServedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A header byte each tenth of a second; a minute of them would be far beyond what is allowed."""
    monkeypatch.setattr("classwise.serve.protocol.HEADER_SECONDS", 0.5)
    with running(model) as service, socket.create_connection(("127.0.0.1", service.port), SECONDS) as slow:

        def dribble() -> int:
            for sent in range(600):
                try:
                    slow.sendall(b"G")
                except ConnectionError:
                    return sent
                time.sleep(0.1)
            return 600

        assert dribble() < 600
        still_answers(service)


def test_a_full_queue_is_said_at_once(model: ServedModel) -> None:
    """What would not fit is answered 503 with the time to wait; what was taken is answered."""
    gate = threading.Event()
    with running(slowed(model, gate)) as service, ThreadPoolExecutor(3) as pool:
        full = [("a.png", GOOD)] * LIMITS.max_images
        taken = [pool.submit(service.predict, *full) for _ in range(LIMITS.queue // LIMITS.max_images)]
        wait_until(lambda: service.metric("classwise_queue_images") >= LIMITS.queue)
        refused = service.predict(("b.png", GOOD))
        assert refused.status_code == 503
        assert int(refused.headers["Retry-After"]) >= 1
        assert service.client.get("/health").status_code == 200
        gate.set()
        assert [future.result().status_code for future in taken] == [200, 200]
        still_answers(service)


def test_bodies_of_all_requests_together_are_bounded(model: ServedModel) -> None:
    """Four bodies of the largest size wait for their last byte; the fifth is not taken."""
    body = bytes(LIMITS.max_bytes)
    with running(model) as service:
        held = [socket.create_connection(("127.0.0.1", service.port), SECONDS) for _ in range(4)]
        for connection in held:
            connection.sendall(request(body, RAW)[:-1])
        wait_until(lambda: service.metric("classwise_held_bytes") >= 4 * (LIMITS.max_bytes - 1))
        assert service.predict(("b.png", GOOD)).status_code == 503
        for connection in held:
            connection.sendall(b"\0")
        assert {status_of(read_all(connection)) for connection in held} == {422}
        for connection in held:
            connection.close()
        still_answers(service)


def test_an_answer_that_takes_too_long_is_given_up(model: ServedModel) -> None:
    gate = threading.Event()
    limits = dataclasses.replace(LIMITS, timeout=1.0)
    with running(slowed(model, gate), limits) as service:
        response = service.predict(("a.png", GOOD))
        assert response.status_code == 503
        assert "Retry-After" in response.headers
        assert service.metric("classwise_queue_images") == 1  # until nothing works on it any more
        gate.set()
        wait_until(lambda: not service.metric("classwise_queue_images"))
        still_answers(service)


def test_a_model_that_fails_is_said_and_goes_on(
    model: ServedModel, capfd: pytest.CaptureFixture[str]
) -> None:
    failures = iter([True])

    def engine(images_BCHW: Any) -> Any:
        if next(failures, False):
            raise MemoryError("no memory for this batch")
        return model.engine(images_BCHW)

    with running(dataclasses.replace(model, engine=engine)) as service:
        response = service.predict(("a.png", GOOD))
        assert response.status_code == 500
        assert "no memory" not in response.text
        still_answers(service)
    lines = capfd.readouterr().err.splitlines()
    assert lines == ["error: the model failed with MemoryError: no memory for this batch"]


def test_a_failure_of_the_service_itself_is_said(
    model: ServedModel, capfd: pytest.CaptureFixture[str]
) -> None:
    """In the form of all refusals, without its text; the text is on stderr."""

    class Failing(ServedModel):
        def health(self, max_images: int, max_bytes: int) -> Any:
            raise KeyError("a bug")

    values = {field.name: getattr(model, field.name) for field in dataclasses.fields(model)}
    with running(Failing(**values)) as service:
        response = service.client.get("/health")
        assert (response.status_code, list(response.json())) == (500, ["error"])
        assert "a bug" not in response.text
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert (
            response.headers["Connection"] == "close"
        )  # so that no client sends its next request into the end
        still_answers(service)
    assert capfd.readouterr().err.splitlines() == ["error: a request failed with KeyError: 'a bug'"]


HOSTILE: Sequence[Callable[[int], bytes]] = (
    *(
        lambda seed, name=name: request(BODIES[name][0], BODIES[name][1])
        for name in BODIES
        if name != "a page"
    ),
    lambda seed: request(GOOD[: 8 + seed % (len(GOOD) - 8)], RAW),
    lambda seed: request(np.random.default_rng(seed).bytes(seed % 3000 + 1), RAW),
    lambda seed: request(np.random.default_rng(seed).bytes(seed % 3000 + 1), FORM),
    lambda seed: b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 3 * HEADER_BYTES + b"\r\n\r\n",
    lambda seed: request(GOOD, RAW, "BREW"),
    lambda seed: f"GET /{seed} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode(),
    lambda seed: request(GOOD, RAW | {"Host": f"{seed}.example"}),
)


@pytest.mark.full
def test_ten_thousand_hostile_requests(trained: Path) -> None:
    """From 16 clients, every tenth request good: the good ones are answered, all others refused, and the memory of the
    process, as the kernel has it, grows by less than GROWTH_MEGABYTES."""
    options = ("--max-megabytes", "0.3", "--max-images", "8")
    with command_running(trained / "run", *options) as (process, port):
        good = request(form([(PART, GOOD)]), FORM)

        def ask(number: int) -> tuple[bool, int]:
            is_good = number % 10 == 0
            while True:
                sent = good if is_good else HOSTILE[number % len(HOSTILE)](number)
                status = status_of(exchange(port, sent))
                if not (is_good and status == 503):
                    return is_good, status
                time.sleep(0.02)  # other bodies hold all the bytes for a moment

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(ask, range(500)))
            before = resident_megabytes(process.pid)
            found = list(pool.map(ask, range(10_000)))
        after = resident_megabytes(process.pid)
        assert {status for is_good, status in found if is_good} == {200}
        statuses = [status for is_good, status in found if not is_good]
        counts = {status: statuses.count(status) for status in sorted(set(statuses))}
        print(f"statuses {counts}; memory {before:.0f} MB before, {after:.0f} MB after")
        # 0: the connection was closed while the client was still sending what nobody reads.
        assert set(counts) <= REFUSED | {0}
        assert counts.get(0, 0) < 0.05 * len(statuses)
        assert after - before < GROWTH_MEGABYTES
        response = httpx.post(
            f"http://127.0.0.1:{port}/predict", files={"file": GOOD}, trust_env=False, timeout=SECONDS
        )
        assert response.status_code == 200
        process.terminate()
        assert process.wait(SECONDS) == 0


def resident_megabytes(process: int) -> float:
    """What the process has in memory."""
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found
    return int(found[1]) / 1000
