"""What runs fastest here: precision and threads, measured on the real model, since it depends on both.

bf16 is faster than fp32 for one network and slower for another on the same CPU; and on few cores it is often
better to train in one thread while another process reads pictures than to do either in turn with all cores.
"""

import copy
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from classwise.model.classifier import Classifier
from classwise.train.loop import PRECISIONS

# fp16 is no candidate: it needs a loss scale to be safe.
CANDIDATES = ("fp32", "bf16")


@dataclass(frozen=True)
class Plan:
    """A way to train: the precision, threads for training, processes that read, and the expected seconds for
    one picture."""

    precision: str
    threads: int
    workers: int
    seconds: float

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        workers = f"{self.workers} worker{'s' if self.workers != 1 else ''}"
        return f"{self.precision}, {threads}, {workers}: {1000 * self.seconds:.2f} ms a picture"


def fastest_plan(
    model: Classifier,
    batch_size: int,
    device: torch.device,
    read_seconds: float,
    layouts: Sequence[tuple[int, int]],
    precisions: Sequence[str] = CANDIDATES,
) -> list[Plan]:
    """Every combination of precision and layout (threads, workers), the fastest first.

    A few forward and backward passes of a copy on noise; the model, its statistics and torch's generators stay
    as they were. `read_seconds` is what one process needs to read and change one picture: without workers it
    adds to the training, with workers the slower of the two sets the pace.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        trial = copy.deepcopy(model).to(device).train()
        size = (min(batch_size, 16), 3, *model.facts.image_size)
        images = torch.randint(0, 256, size, dtype=torch.uint8, device=device)
        images = images.contiguous(memory_format=torch.channels_last)
        plans = []
        for threads, workers in layouts:
            with torch_threads(threads):
                for precision in precisions:
                    passes = [_one_pass(trial, images, precision, device) for _ in range(4)]
                    # The first pass chooses kernels and fills caches. The median: others may use the machine.
                    computing = sorted(passes[1:])[1] / len(images)
                    pace = max(computing, read_seconds / workers) if workers else computing + read_seconds
                    plans.append(Plan(precision, threads, workers, pace))
    return sorted(plans, key=lambda plan: plan.seconds)


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """torch's number of threads while inside; afterwards it is what it was."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _one_pass(model: Classifier, images_BCHW: torch.Tensor, precision: str, device: torch.device) -> float:
    _wait(device)
    started = time.perf_counter()
    dtype = PRECISIONS[precision]
    with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        outputs = model(images_BCHW)
    torch.autograd.backward([logits.sum() for logits in outputs.values()])
    _wait(device)
    model.zero_grad()
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
