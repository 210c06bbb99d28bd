"""Clients of a service, in a process of their own: a raw HTTP/1.1 client, since a real one takes the time of the server
that it measures where both share two cores.

    python load.py PORT CLIENTS SECONDS FOLDER

Each client sends one image after the other over a connection of its own for so many seconds, after a tenth of them that
does not count. Prints JSON: images a second, and the latencies in milliseconds.
"""

import asyncio
import json
import sys
import time
from pathlib import Path

BOUNDARY = "classwise-benchmark"


def request_of(path: Path) -> bytes:
    """A form with one image."""
    part = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{path.name}"\r\n'
        "Content-Type: image/jpeg\r\n\r\n"
    ).encode()
    body = part + path.read_bytes() + f"\r\n--{BOUNDARY}--\r\n".encode()
    head = (
        "POST /predict HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    return head + body


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
    """One request and its whole answer, which has to be 200."""
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    lines = head.lower().split(b"\r\n")
    length = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:"))
    await reader.readexactly(length)


async def client(
    port: int, requests: list[bytes], first: int, starts: float, ends: float, latencies: list[float]
) -> None:
    """Ask until `ends`; what began after `starts` counts."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
    number = first
    while (began := time.perf_counter()) < ends:
        await ask(reader, writer, requests[number % len(requests)])
        number += 1
        if began >= starts:
            latencies.append(time.perf_counter() - began)
    writer.close()


async def load(port: int, clients: int, seconds: float, requests: list[bytes]) -> dict[str, object]:
    """All clients at once."""
    latencies: list[float] = []
    began = time.perf_counter()
    starts, ends = began + 0.1 * seconds, began + 1.1 * seconds
    await asyncio.gather(
        *(client(port, requests, 7 * number, starts, ends, latencies) for number in range(clients))
    )
    passed = time.perf_counter() - starts
    return {"images_per_second": len(latencies) / passed, "ms": [1000 * one for one in latencies]}


def main() -> None:
    port, clients, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    requests = [request_of(path) for path in sorted(Path(sys.argv[4]).glob("*.jpg"))]
    print(json.dumps(asyncio.run(load(port, clients, seconds, requests))))


if __name__ == "__main__":
    main()
