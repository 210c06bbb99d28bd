"""Which precision is the faster one for this model on this machine: measured, since it depends on both."""

import copy
import time

import torch

from classwise.model.classifier import Classifier

CANDIDATES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def fastest_precision(
    model: Classifier, batch_size: int, device: torch.device
) -> tuple[str, dict[str, float]]:
    """The faster of fp32 and bf16 for a forward and backward pass, and the milliseconds of each.

    A few passes of a copy on one batch of noise; the model, its statistics and torch's generators stay as
    they were. fp16 is no candidate, since it needs a loss scale to be safe.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        trial = copy.deepcopy(model).train()
        size = (batch_size, 3, *model.facts.image_size)
        images = torch.randint(0, 256, size, dtype=torch.uint8, device=device)
        images = images.contiguous(memory_format=torch.channels_last)
        times: dict[str, list[float]] = {name: [] for name in CANDIDATES}
        for turn in range(4):
            for name, dtype in CANDIDATES.items():
                seconds = _one_pass(trial, images, dtype, device)
                if turn > 0:  # the first pass of each chooses kernels and fills caches
                    times[name].append(seconds)
    best = {name: 1000 * min(found) for name, found in times.items()}
    return min(best, key=lambda name: best[name]), best


def _one_pass(
    model: Classifier, images_BCHW: torch.Tensor, dtype: torch.dtype, device: torch.device
) -> float:
    _wait(device)
    started = time.perf_counter()
    with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        outputs = model(images_BCHW)
    torch.autograd.backward([logits.sum() for logits in outputs.values()])
    _wait(device)
    model.zero_grad()
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
