"""Engines that run a trained model over images: eager torch, torch.compile, ONNX Runtime.

Training and evaluation use eager torch in the run's own precision, so its outputs are the reference. Any other engine
is compared with it on the first batch. One that differs raises an error where it was requested; `auto`, which looks
for the fastest, reports and skips it.
"""

import contextlib
import itertools
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from classwise.errors import ConfigError, ModelError, first_line
from classwise.infer.export import onnx_bytes
from classwise.infer.quick_export import quick_model_bytes
from classwise.model.classifier import Classifier
from classwise.model.oom import OOMFallback
from classwise.own_parts.reference import short
from classwise.packages import require_packages

Outputs = dict[str, Tensor]
# images_BCHW (uint8, on the host) in; raw outputs (B, outputs) by target out, float32 on the host.
Engine = Callable[[Tensor], Outputs]
ENGINES = ("auto", "torch", "compile", "onnx")

# The largest difference allowed from eager torch, relative to the largest output (to 1, where that is smaller). Summing
# in another order changes the last digits; bf16 and fp16 have 8 and 11 significant bits.
TOLERANCES = {torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 5e-2}
# Seconds to set up an engine on two cores. `auto` tries one where eager torch would take longer for all batches.
SETUP_SECONDS = {"onnx": 4.0, "compile": 60.0}
# `auto` times its candidates in rounds: at least so many, and up to so many while seconds are left.
MIN_ROUNDS = 5
MAX_ROUNDS = 40
TIMING_SECONDS = 4.0
# Timed on so many images of a batch: what a larger one takes is nearly proportional.
TIMED_IMAGES = 16


def check_engine(name: str) -> None:
    """Raises ConfigError for an unknown engine, ModelError where its packages are missing."""
    if name not in ENGINES:
        raise ConfigError(f"--engine: found {name!r}, allowed: {', '.join(ENGINES)}")
    if name == "onnx":
        require_packages("--engine onnx", "onnx", "onnxruntime", "onnx", "onnxscript")


def engine_of(
    name: str,
    model: Classifier,
    device: torch.device,
    dtype: torch.dtype,
    batches: int,
    say: Callable[[str], None] = lambda text: None,
) -> Engine:
    """The engine called `name`.

    An engine other than `torch` is built, checked and, for `auto`, chosen when it is given its first batch, which must
    be the largest. `batches`: how many will come; `say` prints what was chosen. Raises ConfigError, and ModelError
    (also with the first batch) where the engine is not available or its outputs differ.
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
                return expected  # nothing to compare with; `predict_outputs` refuses them
            if name == "auto":
                # Only ONNX Runtime on the CPU is supported.
                usable = {key: make for key, make in makers.items() if key != "onnx" or device.type == "cpu"}
                engine = _fastest(
                    usable,
                    eager=eager,
                    images=images,
                    expected=expected,
                    dtype=dtype,
                    batches=batches,
                    say=say,
                    first_seconds=seconds,
                )
            else:
                engine = _checked(name, make=makers[name], images=images, expected=expected, dtype=dtype)
            chosen.append(engine)
            if chosen[0] is eager:
                return expected
        return chosen[0](images)

    return run


def torch_engine(model: Classifier, device: torch.device, dtype: torch.dtype) -> Engine:
    """Eager torch, the reference for the other engines."""
    model.eval()
    forward = OOMFallback(model)

    def run(images: Tensor) -> Outputs:
        with torch.no_grad(), _autocast(device, dtype):
            outputs = forward(images.to(device, non_blocking=True))
        return {name: raw.float().cpu() for name, raw in outputs.items()}

    return run


def compiled_engine(model: Classifier, device: torch.device, dtype: torch.dtype, size: int) -> Engine:
    """torch.compile for batches of `size`; smaller ones are padded, since a fixed shape is faster than a dynamic one
    and is compiled once. Its first batch raises ModelError where compilation fails."""
    model.eval()
    # Earlier compilations in this process count against a limit of torch's.
    torch.compiler.reset()
    # Freezing lays out the weights for the CPU's kernels and folds batch norm into them.
    options: dict[str, Any] = {"freezing": True} if device.type == "cpu" else {}
    compiled = torch.compile(model, fullgraph=True, dynamic=False, options=options)

    def run(images: Tensor) -> Outputs:
        rows = len(images)
        if rows < size:
            images = torch.cat([images, images[-1:].expand(size - rows, -1, -1, -1)])
        try:
            with warnings.catch_warnings(), torch.no_grad(), _autocast(device, dtype):
                warnings.simplefilter("ignore")  # those that torch itself causes while it compiles
                outputs = compiled(images.to(device, non_blocking=True))
        except Exception as error:
            raise ModelError(f"--engine compile: torch.compile fails here: {first_line(error)}") from error
        return {name: raw[:rows].float().cpu() for name, raw in outputs.items()}

    return run


def onnx_engine(model: Classifier, threads: int) -> Engine:
    """ONNX Runtime on the CPU, in float32, whatever device and precision the run has. Raises ModelError."""
    require_packages("--engine onnx", "onnx", "onnxruntime", "onnx", "onnxscript")
    names = list(model.metadata.heads)
    # The exporter that takes a second; where it cannot trace the model, or ONNX Runtime cannot load what it has traced,
    # the one that takes ten. Either's outputs are compared with eager torch's.
    with contextlib.suppress(Exception):
        return session_engine(quick_model_bytes(model), names, threads)
    try:
        data = onnx_bytes(model)
    except ModelError as error:
        raise ModelError(f"--engine onnx: {error}") from error
    try:
        return session_engine(data, names, threads)
    except Exception as error:
        raise ModelError(
            f"--engine onnx: ONNX Runtime cannot load {short(model.metadata.backbone)}: {first_line(error)}"
        ) from error


def session_engine(network: bytes, heads: Sequence[str], threads: int, spins: bool = True) -> Engine:
    """ONNX Runtime on the CPU for a file of `onnx_bytes` with outputs for these heads. `spins`: whether its threads do
    while they wait, which is faster, and takes the time of whatever else the machine does. Raises what ONNX Runtime
    raises for a file that it cannot load."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors only
    if not spins:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Outputs:
        outputs = session.run(None, {"images": np.ascontiguousarray(images.numpy())})
        return {name: torch.from_numpy(raw) for name, raw in zip(heads, outputs, strict=True)}

    return run


def _autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    return torch.autocast(device.type, dtype=dtype, enabled=dtype.itemsize < 4)


def _fastest(
    makers: Mapping[str, Callable[[Tensor], Engine]],
    eager: Engine,
    images: Tensor,
    expected: Outputs,
    dtype: torch.dtype,
    batches: int,
    say: Callable[[str], None],
    first_seconds: float,
) -> Engine:
    """The engine that takes the least time for a batch like this one, or its first TIMED_IMAGES images; only those are
    tried whose setup takes less time than the best engine so far needs for all batches.

    `first_seconds`: what eager torch took for its first batch, which is slower than the others."""
    # An estimate that looks long enough for another engine is measured properly.
    seconds = first_seconds * batches
    timed = images[:TIMED_IMAGES]
    timed_batches = batches * len(images) / len(timed)
    if seconds >= min(SETUP_SECONDS[name] for name in makers):
        seconds = median_seconds({"torch": eager}, timed)["torch"] * timed_batches

    # An engine that is not available here is a note, since nobody has asked for it by name.
    candidates = {"torch": eager}
    failed = False
    for name, make in makers.items():
        if seconds < SETUP_SECONDS[name]:
            continue
        try:
            candidates[name] = _checked(name, make=make, images=images, expected=expected, dtype=dtype)
        except ModelError as error:
            say(f"note: {error}")
            failed = True
        else:
            # A slower setup is worth no more than what this engine leaves of the work.
            started = time.perf_counter()
            candidates[name](timed)
            seconds = min(seconds, (time.perf_counter() - started) * timed_batches)
    # Nothing to choose from: say why.
    if len(candidates) == 1:
        if failed:
            reason = "no other engine is available"
        else:
            reason = f"{seconds:.1f} s of work are not worth setting up another engine"
        say(f"--engine auto: using torch, since {reason}")
        return eager

    medians = median_seconds(candidates, timed)
    fastest = min(medians, key=lambda name: medians[name])
    shown = ", ".join(f"{name} {1000 * median:.1f} ms" for name, median in medians.items())
    say(f"--engine auto: {fastest} is the fastest for batches of {len(timed)} ({shown})")
    return candidates[fastest]


def _checked(
    name: str, make: Callable[[Tensor], Engine], images: Tensor, expected: Outputs, dtype: torch.dtype
) -> Engine:
    """A new engine whose outputs for `images` equal `expected`, eager torch's, within the tolerance. Raises
    ModelError."""
    engine = make(images)
    for target, difference in relative_differences(engine(images), expected).items():
        if not difference <= TOLERANCES[dtype]:  # `not <=`, since NaN is not larger either
            raise ModelError(
                f"--engine {name}: on the first batch the outputs of target {target!r} differ from eager torch's by"
                f" {difference:.2g} of the largest; allowed: {TOLERANCES[dtype]:g}. Use --engine torch"
            )
    return engine


def relative_differences(outputs: Outputs, expected: Outputs) -> dict[str, float]:
    """By target the largest difference of the outputs, divided by the largest expected one (by 1, where that is
    smaller); NaN where one is."""
    return {
        target: float((outputs[target] - raw).abs().max()) / max(1.0, float(raw.abs().max()))
        for target, raw in expected.items()
    }


def median_seconds(engines: Mapping[str, Engine], images: Tensor) -> dict[str, float]:
    """The median seconds of each engine for a batch like `images`.

    The engines take turns, so that other work on the machine affects all of them alike. The first pass of a turn does
    not count: the threads of the previous engine may still be spinning."""
    times: dict[str, list[float]] = {name: [] for name in engines}
    started = time.perf_counter()
    for rounds in itertools.count(start=1):
        for name, engine in engines.items():
            engine(images)
            before = time.perf_counter()
            engine(images)
            times[name].append(time.perf_counter() - before)
        out_of_time = time.perf_counter() - started > TIMING_SECONDS
        if rounds >= (MIN_ROUNDS if out_of_time else MAX_ROUNDS):
            break
    return {name: statistics.median(seconds) for name, seconds in times.items()}
