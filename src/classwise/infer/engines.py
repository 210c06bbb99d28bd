"""Ways to run a trained model over images: eager torch, torch.compile, ONNX Runtime.

Eager torch, in the run's own precision, is what training and evaluation use: its outputs are the model's outputs.
Another engine is compared with it on the first batch before its outputs are used; one that differs is refused where it
was asked for, and passed over (and said) where `auto` was to find the fastest.
"""

import itertools
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from classwise.errors import ConfigError, ModelError
from classwise.infer.export import first_line, onnx_bytes, require_packages
from classwise.model.classifier import Classifier
from classwise.model.oom import OOMFallback

Outputs = dict[str, Tensor]
# images_BCHW (uint8, on the host) in; raw outputs (B, outputs) by target out, float32 on the host.
Engine = Callable[[Tensor], Outputs]
ENGINES = ("auto", "torch", "compile", "onnx")

# How far outputs may be from eager torch's, as a share of the largest output (of 1, where that is less). Another order
# of the same sums moves the last digits; of bf16 and fp16 there are 8 and 11 bits.
TOLERANCES = {torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 5e-2}
# Seconds that an engine takes before its first batch, on two cores. `auto` tries it where eager torch would take
# longer than that for all the batches.
SETUP_SECONDS = {"onnx": 10.0, "compile": 60.0}
# `auto` runs its candidates in turns: at least so often, then up to so often while seconds are left.
LEAST_TURNS, MOST_TURNS, TURN_SECONDS = 5, 40, 4.0


def check_engine(name: str) -> None:
    """Raises ConfigError for an engine that there is not, ModelError where its packages are missing."""
    if name not in ENGINES:
        raise ConfigError(f"--engine: found {name!r}, allowed: {', '.join(ENGINES)}")
    if name == "onnx":
        require_packages("--engine onnx", "onnxruntime", "onnx", "onnxscript")


def engine_of(
    name: str,
    model: Classifier,
    device: torch.device,
    dtype: torch.dtype,
    batches: int,
    say: Callable[[str], None] = lambda text: None,
) -> Engine:
    """The engine of that name. One other than `torch` is made, compared and, for `auto`, chosen with the first batch
    that it is given, which has to be the largest; `batches` is how many will come, `say` is told what was chosen.

    Raises ConfigError, and ModelError (with the first batch, too) where the engine cannot be had or its outputs differ.
    """
    check_engine(name)
    eager = torch_engine(model, device, dtype)
    if name == "torch":
        return eager
    makers: dict[str, Callable[[Tensor], Engine]] = {
        "onnx": lambda images: onnx_engine(model, torch.get_num_threads()),
        "compile": lambda images: compiled_engine(model, device, dtype, len(images)),
    }
    chosen: list[Engine] = []

    def run(images: Tensor) -> Outputs:
        if not chosen:
            started = time.perf_counter()
            expected = eager(images)
            seconds = time.perf_counter() - started
            if not all(bool(raw.isfinite().all()) for raw in expected.values()):
                return expected  # nothing to compare with; whoever gathers them refuses them
            if name == "auto":
                chosen.append(_fastest(makers, eager, images, expected, device, dtype, batches, say, seconds))
            else:
                chosen.append(_checked(name, makers[name], images, expected, dtype))
            if chosen[0] is eager:
                return expected
        return chosen[0](images)

    return run


def torch_engine(model: Classifier, device: torch.device, dtype: torch.dtype) -> Engine:
    """Eager torch: what the others are compared with."""
    model.eval()
    fitting = OOMFallback(model)

    def run(images: Tensor) -> Outputs:
        with torch.no_grad(), _autocast(device, dtype):
            outputs = fitting(images.to(device, non_blocking=True))
        return {name: raw.float().cpu() for name, raw in outputs.items()}

    return run


def compiled_engine(model: Classifier, device: torch.device, dtype: torch.dtype, size: int) -> Engine:
    """torch.compile for batches of `size`: smaller ones are filled up, since a fixed shape is faster than any shape
    and is compiled once. Raises ModelError, with the first batch."""
    model.eval()
    # What was compiled before in this process counts against a limit, beyond which torch would refuse.
    torch.compiler.reset()
    # Frozen weights are laid out as the CPU's kernels want them, with batch norm folded in.
    options: dict[str, Any] = {"freezing": True} if device.type == "cpu" else {}
    compiled = torch.compile(model, fullgraph=True, dynamic=False, options=options)

    def run(images: Tensor) -> Outputs:
        rows = len(images)
        if rows < size:
            images = torch.cat([images, images[-1:].expand(size - rows, -1, -1, -1)])
        try:
            with warnings.catch_warnings(), torch.no_grad(), _autocast(device, dtype):
                warnings.simplefilter("ignore")  # torch's own, while it compiles
                outputs = compiled(images.to(device, non_blocking=True))
        except Exception as error:
            raise ModelError(f"--engine compile: torch.compile fails here: {first_line(error)}") from error
        return {name: raw[:rows].float().cpu() for name, raw in outputs.items()}

    return run


def onnx_engine(model: Classifier, threads: int) -> Engine:
    """ONNX Runtime on the CPU, in float32, whatever device and precision the run has. Raises ModelError."""
    require_packages("--engine onnx", "onnxruntime", "onnx", "onnxscript")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors only
    try:
        session = onnxruntime.InferenceSession(onnx_bytes(model), options, providers=["CPUExecutionProvider"])
    except ModelError as error:
        raise ModelError(f"--engine onnx: {error}") from error
    except Exception as error:
        raise ModelError(
            f"--engine onnx: ONNX Runtime refuses {model.metadata.backbone}: {first_line(error)}"
        ) from error

    def run(images: Tensor) -> Outputs:
        found = session.run(None, {"images": np.ascontiguousarray(images.numpy())})
        return {name: torch.from_numpy(raw) for name, raw in zip(model.metadata.heads, found, strict=True)}

    return run


def _autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    return torch.autocast(device.type, dtype=dtype, enabled=dtype.itemsize < 4)


def _fastest(
    makers: Mapping[str, Callable[[Tensor], Engine]],
    eager: Engine,
    images: Tensor,
    expected: Outputs,
    device: torch.device,
    dtype: torch.dtype,
    batches: int,
    say: Callable[[str], None],
    first_seconds: float,
) -> Engine:
    """That which takes the least time for a batch like this one, of those whose setup the batches to come can pay.
    `first_seconds`: what eager torch took for its first batch, which is never its fastest."""
    makers = {name: maker for name, maker in makers.items() if name != "onnx" or device.type == "cpu"}
    seconds = first_seconds * batches
    if seconds >= min(SETUP_SECONDS[name] for name in makers):
        seconds = median_seconds({"torch": eager}, images)["torch"] * batches
    candidates, refused = {"torch": eager}, False
    for name, maker in makers.items():
        if seconds < SETUP_SECONDS[name]:
            continue
        try:
            candidates[name] = _checked(name, maker, images, expected, dtype)
        except ModelError as error:
            say(f"note: {error}")
            refused = True
    if len(candidates) == 1:
        why = (
            "nothing else can be had" if refused else f"{seconds:.1f} s of work are not worth another's start"
        )
        say(f"--engine auto: torch is taken, since {why}")
        return eager
    medians = median_seconds(candidates, images)
    fastest = min(medians, key=lambda name: medians[name])
    shown = ", ".join(f"{name} {1000 * found:.1f} ms" for name, found in medians.items())
    say(f"--engine auto: {fastest} is the fastest for batches of {len(images)} ({shown})")
    return candidates[fastest]


def _checked(
    name: str, maker: Callable[[Tensor], Engine], images: Tensor, expected: Outputs, dtype: torch.dtype
) -> Engine:
    """A new engine, if its outputs for these images are those of eager torch within the tolerance."""
    engine = maker(images)
    found = engine(images)
    for target, raw in expected.items():
        scale = max(1.0, float(raw.abs().max()))
        difference = float((found[target] - raw).abs().max()) / scale
        if not difference <= TOLERANCES[dtype]:  # not a number is neither
            raise ModelError(
                f"--engine {name}: on the first batch the outputs of target {target!r} differ from eager torch's by"
                f" {difference:.2g} of the largest; allowed: {TOLERANCES[dtype]:g}. Use --engine torch"
            )
    return engine


def median_seconds(engines: Mapping[str, Engine], images: Tensor) -> dict[str, float]:
    """Of batches like this one, in turns, so that what else the machine does falls on all alike. The first pass of a
    turn does not count: the threads of the one before may still be waiting for work."""
    times: dict[str, list[float]] = {name: [] for name in engines}
    started = time.perf_counter()
    for turn in itertools.count():
        for name, engine in engines.items():
            engine(images)
            before = time.perf_counter()
            engine(images)
            times[name].append(time.perf_counter() - before)
        late = time.perf_counter() - started > TURN_SECONDS
        if turn + 1 >= (LEAST_TURNS if late else MOST_TURNS):
            break
    return {name: statistics.median(found) for name, found in times.items()}
