"""What runs fastest here, measured on the real model, since it depends on both.

bf16 is faster than fp32 for one network and slower for another on the same CPU; on few cores it is often better to
train in one thread while another process reads images than to do either in turn with all cores; and memory format,
compilation and a fused optimizer are worth something or nothing by the model's shape. So a few updates of each are
timed. How the candidates are narrowed down: docs/decisions/0023-measuring.md.
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

# fp16 is no candidate: it needs a loss scale to be safe.
CANDIDATES = ("fp32", "bf16")
FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
LONG = 0.3  # seconds: an update of 16 images that takes longer is not measured with more of them


@dataclass(frozen=True)
class Plan:
    """A way to train: the precision, threads for training, processes that read, how images and weights are laid
    out, whether the model is compiled and the optimizer fused (None: it cannot be), and the expected seconds for one
    image."""

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
    """What may be chosen from, at least one of each. `layouts` are (threads, workers)."""

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
    choices: SearchSpace,
) -> list[Plan]:
    """All plans that were measured, the fastest first: every precision in every layout; then, for the fastest of
    these, in turn the other memory formats, compilation, and optimizers that are not fused.

    A few updates of a copy on noise; the model, its statistics and torch's generators stay as they were.
    `read_seconds` is what one process needs to read and change one image: without workers it adds to the training,
    with workers the slower of the two sets the pace. What does not fit the memory or cannot be compiled is not
    measured. Raises what the model raises where nothing can be.
    """
    first = Plan("", 0, 0, float("inf"), choices.formats[0], choices.compiled[0], choices.fused[0])
    grid = [
        dataclasses.replace(first, precision=precision, threads=threads, workers=workers)
        for threads, workers in choices.layouts
        for precision in choices.precisions
    ]
    plans: list[Plan] = []
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        trial = _Trial(model, optimizer_of, batch_size, device, read_seconds)
        plans += [found for plan in grid if (found := trial.measured(plan, tolerant=False))]
        others: list[list[dict[str, Any]]] = [
            [{"memory_format": value} for value in choices.formats[1:]],
            [{"compile": value} for value in choices.compiled[1:]],
            [{"fused": value} for value in choices.fused[1:]],
        ]
        for changes in others if plans else []:
            best = min(plans, key=lambda plan: plan.seconds)
            for change in changes:
                found = trial.measured(dataclasses.replace(best, **change), tolerant=True)
                plans += [found] if found else []
    return sorted(plans, key=lambda plan: plan.seconds)


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
        self.model, self.optimizer_of, self.device = model, optimizer_of, device
        self.batch_size, self.read_seconds = batch_size, read_seconds
        self._size = min(batch_size, 16)
        self._best = float("inf")  # seconds of computing for an image
        self._kept: tuple[tuple[str, bool, bool | None], Classifier, Optimizer] | None = None

    def measured(self, plan: Plan, tolerant: bool) -> Plan | None:
        """The plan with its seconds; None where it cannot be carried out, if that is to be tolerated."""
        passes: list[float] = []
        with torch_threads(plan.threads):
            while not passes and self._size:
                try:
                    passes = self._passes(plan)
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
        # The first pass chooses kernels, compiles and fills caches. The median: others may use the machine.
        computing = sorted(passes[1:])[(len(passes) - 1) // 2] / self._size
        self._best = min(self._best, computing)
        pace = (
            max(computing, self.read_seconds / plan.workers)
            if plan.workers
            else computing + self.read_seconds
        )
        return dataclasses.replace(plan, seconds=pace)

    def _passes(self, plan: Plan) -> list[float]:
        model, optimizer = self._parts(plan)
        size = (self._size, 3, *model.metadata.image_size)
        images = torch.randint(0, 256, size, dtype=torch.uint8, device=self.device)
        images = images.contiguous(memory_format=torch.channels_last)  # as a loader gives them
        passes: list[float] = []
        while len(passes) < 4 and not self._is_slow(passes):
            passes.append(_one_update(model, optimizer, images, plan.precision, self.device))
        if self._size < self.batch_size and passes[1] < LONG:
            self._size = self.batch_size
            return self._passes(plan)
        return passes

    def _is_slow(self, passes: list[float]) -> bool:
        """After its third pass: so much slower than another that no more are needed."""
        return len(passes) > 2 and min(passes[1:]) > 1.5 * self._best * self._size

    def _parts(self, plan: Plan) -> tuple[Classifier, Optimizer]:
        key = plan.memory_format, plan.compile, plan.fused
        if self._kept is None or self._kept[0] != key:
            self._kept = None  # before the next copy: they need not fit together
            model = copy.deepcopy(self.model).to(self.device).train()
            model.arrange(FORMATS[plan.memory_format])
            optimizer = self.optimizer_of(model, plan.fused)
            if plan.compile:
                model.compile(dynamic=False)  # as it will be trained
            self._kept = key, model, optimizer
        return self._kept[1:]


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """torch's number of threads while inside; afterwards it is what it was."""
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
