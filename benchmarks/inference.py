"""Is `--engine auto` as fast as the fastest other way to run the same model on this machine?

    python benchmarks/inference.py [--models NAME ...] [--batches N ...] [--size PX] [--blocks N] [--json FILE]

For each model and size of batch, all in one process and in alternating blocks, from a uint8 batch on the host to
float32 outputs on the host. The peers are written as a user would write them:

    eager     the model in float32, channels_last, torch.inference_mode
    bf16      the same under autocast: other numbers, so it is shown and does not compete
    compile   torch.compile(model) with its defaults
    onnx      ONNX Runtime with its defaults, on the file that `classwise export` writes

and beside them what `--engine auto` has chosen for a run in float32, twice: the second stands for the noise. Prints
medians of milliseconds a batch, and medians (and quartiles) over the blocks of the paired ratios `best peer / auto`
(1.0 or more: auto is at least as fast; the goal is 0.97) and `auto again / auto`.
"""

import argparse
import itertools
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from classwise.infer.engines import Engine, engine_of
from classwise.infer.export import onnx_bytes
from classwise.model.classifier import Classifier, build_classifier

CPU = torch.device("cpu")
MODELS = ("resnet18", "mobilenetv3_large_100", "tf_efficientnet_lite0")
PEERS = ("eager", "compile", "onnx")
SHOWN = ("eager", "bf16", "compile", "onnx", "auto")
Run = Callable[[Tensor], Any]


def eager(model: Classifier, dtype: torch.dtype) -> Run:
    @torch.inference_mode()
    def run(images: Tensor) -> Any:
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            return {name: raw.float() for name, raw in model(images).items()}

    return run


def compiled(model: Classifier) -> Run:
    function = torch.compile(model)

    def run(images: Tensor) -> Any:
        with torch.no_grad():
            return function(images)

    return run


def onnx_runtime(model: Classifier) -> Run:
    session = onnxruntime.InferenceSession(onnx_bytes(model), providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": np.ascontiguousarray(images.numpy())})


def trained(name: str, size: int) -> Classifier:
    """Statistics of batch norm as after some training: with those of the start, activations may vanish."""
    model = build_classifier(name, "none", (size, size), "squash", 0.0, {"label": 18}, seed=0)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _ in range(4):
            model.train()(torch.randint(0, 256, (8, 3, size, size), dtype=torch.uint8, generator=draw))
    return model.eval()


def seconds(run: Run, images: Tensor, least: float) -> float:
    """Of one batch, over as many as take `least` seconds."""
    started, count = time.perf_counter(), 0
    while (passed := time.perf_counter() - started) < least or not count:
        run(images)
        count += 1
    return passed / count


def measure(name: str, batch: int, options: argparse.Namespace) -> dict[str, Any]:
    """One row of the table."""
    model, said = trained(name, options.size), []
    draw = torch.Generator().manual_seed(1)
    shape = (batch, 3, options.size, options.size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=draw)
    images = images.contiguous(memory_format=torch.channels_last)  # as the loader's
    auto: Engine = engine_of("auto", model, CPU, torch.float32, 10**9, said.append)
    auto(images)  # chooses; what it compiles is dropped by no peer, since it comes first
    runs: dict[str, Run] = {
        "eager": eager(model, torch.float32),
        "bf16": eager(model, torch.bfloat16),
        "compile": compiled(model),
        "onnx": onnx_runtime(model),
        "auto": auto,
        "auto again": auto,
    }
    times: dict[str, list[float]] = {kind: [] for kind in runs}
    for run in runs.values():
        seconds(run, images, options.seconds)
    for block in range(options.blocks):
        order = list(runs)[:: 1 if block % 2 else -1]
        for kind in order:
            times[kind].append(seconds(runs[kind], images, options.seconds))
    medians = {kind: statistics.median(found) for kind, found in times.items()}
    best = min(PEERS, key=lambda kind: medians[kind])
    ratios = {
        "best peer / auto": paired(times[best], times["auto"]),
        "auto again / auto": paired(times["auto again"], times["auto"]),
    }
    milliseconds = {kind: 1000 * median for kind, median in medians.items()}
    return {"model": name, "batch": batch, "ms": milliseconds, "best": best, "said": said, **ratios}


def paired(first: list[float], second: list[float]) -> dict[str, float]:
    """Median and quartiles of the blocks' ratios."""
    ratios = sorted(a / b for a, b in zip(first, second, strict=True))
    low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return {"median": statistics.median(ratios), "low": low, "high": high}


def text(row: dict[str, Any]) -> str:
    ms = " ".join(f"{row['ms'][kind]:8.2f}" for kind in SHOWN)
    ratio, null = row["best peer / auto"], row["auto again / auto"]
    return (
        f"{row['model']:<24} {row['batch']:>5} {ms}  {row['best']:<8}"
        f" {ratio['median']:.3f} ({ratio['low']:.2f} to {ratio['high']:.2f})"
        f"  {null['median']:.3f} ({null['low']:.2f} to {null['high']:.2f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--blocks", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each block")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(
        f"{'ms a batch':<24} {'batch':>5} {' '.join(f'{kind:>8}' for kind in SHOWN)}  best     best peer / auto, null"
    )
    rows = []
    for name, batch in itertools.product(options.models, options.batches):
        rows.append(measure(name, batch, options))
        print(text(rows[-1]), *rows[-1]["said"], sep="\n    ", flush=True)
    machine = {
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "size": options.size,
    }
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
