"""Which way to train is the fastest on this machine, measured on the model itself because it depends on both.

On one and the same CPU, bf16 is faster than fp32 for one network and slower for another. On few cores it is often
better to train in one thread while another process reads images than to do both in turn with all cores. Memory format,
compilation and a fused optimizer help or do not, depending on the shape of the model. So a few updates of each
candidate are timed. How the candidates are narrowed down: docs/decisions/0023-measuring.md.
"""

import copy
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim import Optimizer

from classwise.model.classifier import Classifier
from classwise.training.loop import PRECISIONS

# Without fp16, which needs a loss scale to be safe.
CANDIDATES = ("fp32", "bf16")
FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
LONG = 0.3  # seconds: an update of 16 images that takes longer is not measured with more of them


@dataclass(frozen=True)
class TuningResult:
    """A way to train, and the seconds that it takes for one image (infinite until it is measured).

    `threads` compute, `workers` are the processes that read images beside them; `memory_format` is that of images and
    weights; `fused` is None where the optimizer has no fused version.
    """

    precision: str
    threads: int
    workers: int
    seconds: float = float("inf")
    memory_format: str = "channels_last"
    compile: bool = False
    fused: bool | None = None

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        workers = f"{self.workers} worker{'s' if self.workers != 1 else ''}"
        compiled = ", compiled" if self.compile else ""
        fused = ", not fused" if self.fused is False else ""
        return (
            f"{self.precision}, {threads}, {workers}, {self.memory_format}{compiled}{fused}:"
            f" {1000 * self.seconds:.2f} ms an image"
        )


@dataclass(frozen=True)
class SearchSpace:
    """The candidates, at least one of each kind. `layouts` are pairs of (threads, workers)."""

    layouts: Sequence[tuple[int, int]]
    precisions: Sequence[str] = CANDIDATES
    formats: Sequence[str] = ("channels_last",)
    compiled: Sequence[bool] = (False,)
    fused: Sequence[bool | None] = (None,)


def tune(
    model: Classifier,
    optimizer_of: Callable[[Classifier, bool | None], Optimizer],
    batch_size: int,
    device: torch.device,
    read_seconds: float,
    space: SearchSpace,
) -> list[TuningResult]:
    """Every candidate that was measured, the fastest first: all precisions in all layouts; then, for the fastest of
    these, in turn the other memory formats, compilation, and optimizers that are not fused.

    A candidate trains a copy of the model on noise for a few updates; the model, its statistics and torch's generators
    stay as they were. `read_seconds` is what one process needs to read and augment one image: without workers it adds
    to the time of training, with workers the slower of the two sets the pace. What does not fit the memory or cannot be
    compiled is left out. Raises what the model raises where nothing can be measured.
    """
    start = TuningResult(
        precision="",
        threads=0,
        workers=0,
        memory_format=space.formats[0],
        compile=space.compiled[0],
        fused=space.fused[0],
    )
    grid = [
        dataclasses.replace(start, precision=precision, threads=threads, workers=workers)
        for threads, workers in space.layouts
        for precision in space.precisions
    ]
    results: list[TuningResult] = []
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        # The whole grid of what depends on each other.
        trial = _Trial(model, optimizer_of, batch_size, device, read_seconds)
        for candidate in grid:
            result = trial.measure(candidate, tolerant=False)
            results += [result] if result else []

        # Then one change at a time, each on top of the fastest so far.
        changes: list[list[dict[str, Any]]] = [
            [{"memory_format": value} for value in space.formats[1:]],
            [{"compile": value} for value in space.compiled[1:]],
            [{"fused": value} for value in space.fused[1:]],
        ]
        for alternatives in changes if results else []:
            fastest = min(results, key=lambda result: result.seconds)
            for change in alternatives:
                result = trial.measure(dataclasses.replace(fastest, **change), tolerant=True)
                results += [result] if result else []
    return sorted(results, key=lambda result: result.seconds)


class _Trial:
    """A copy of the model, and noise for it to learn."""

    def __init__(
        self,
        model: Classifier,
        optimizer_of: Callable[[Classifier, bool | None], Optimizer],
        batch_size: int,
        device: torch.device,
        read_seconds: float,
    ) -> None:
        self.model = model
        self.optimizer_of = optimizer_of
        self.device = device
        self.batch_size = batch_size
        self.read_seconds = read_seconds
        self._size = min(batch_size, 16)
        self._fastest = float("inf")  # seconds of computing for an image
        self._cached: tuple[tuple[str, bool, bool | None], Classifier, Optimizer] | None = None

    def measure(self, candidate: TuningResult, tolerant: bool) -> TuningResult | None:
        """The candidate with its seconds; None where it cannot be carried out, if that is to be tolerated."""
        # With half as many images each time that memory runs out.
        passes: list[float] = []
        with torch_threads(candidate.threads):
            while not passes and self._size:
                try:
                    passes = self._time_passes(candidate)
                except torch.OutOfMemoryError:
                    pass  # while it is handled, its frames hold what did not fit
                except Exception:
                    if not tolerant:
                        raise
                    return None
                if not passes:
                    self._size = self.batch_size = self._size // 2
                    if self.device.type == "cuda":
                        torch.cuda.empty_cache()
        if not passes:
            return None

        # The first pass chooses kernels, compiles and fills caches. The median, as others may use the machine.
        computing = sorted(passes[1:])[(len(passes) - 1) // 2] / self._size
        self._fastest = min(self._fastest, computing)
        if candidate.workers:
            seconds = max(computing, self.read_seconds / candidate.workers)
        else:
            seconds = computing + self.read_seconds
        return dataclasses.replace(candidate, seconds=seconds)

    def _time_passes(self, candidate: TuningResult) -> list[float]:
        """Seconds of up to four updates; again with the run's own batch, where a small one is quick."""
        model, optimizer = self._build(candidate)
        size = (self._size, model.metadata.channels, *model.metadata.image_size)
        images = torch.randint(0, 256, size, dtype=torch.uint8, device=self.device)
        images = images.contiguous(memory_format=torch.channels_last)  # as a loader gives them
        passes: list[float] = []
        while len(passes) < 4 and not self._is_slow(passes):
            passes.append(_one_update(model, optimizer, images, candidate.precision, self.device))
            if len(passes) == 2 and passes[1] < LONG and self._size < self.batch_size:
                self._size = self.batch_size
                return self._time_passes(candidate)
        return passes

    def _is_slow(self, passes: list[float]) -> bool:
        """After the third pass: so much slower than another candidate that no more passes are needed."""
        return len(passes) > 2 and min(passes[1:]) > 1.5 * self._fastest * self._size

    def _build(self, candidate: TuningResult) -> tuple[Classifier, Optimizer]:
        """A copy of the model and its optimizer; those of the candidate before, where they are the same."""
        key = candidate.memory_format, candidate.compile, candidate.fused
        if self._cached is None or self._cached[0] != key:
            self._cached = None  # freed before the next copy is made: the two need not fit together
            model = copy.deepcopy(self.model).to(self.device).train()
            model.arrange(FORMATS[candidate.memory_format])
            optimizer = self.optimizer_of(model, candidate.fused)
            if candidate.compile:
                model.compile(dynamic=False)  # as it will be trained
            self._cached = key, model, optimizer
        return self._cached[1:]


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """A block with so many threads of torch; afterwards there are as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _one_update(
    model: Classifier, optimizer: Optimizer, images_BCHW: torch.Tensor, precision: str, device: torch.device
) -> float:
    _wait(device)
    started = time.perf_counter()
    dtype = PRECISIONS[precision]
    optimizer.zero_grad()
    with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        outputs = model(images_BCHW)
    torch.autograd.backward([logits.sum() for logits in outputs.values()])
    optimizer.step()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
