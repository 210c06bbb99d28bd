"""Training in one thread beside a reading process, or in turn with all threads: `python benchmarks/threads.py`.

Prints milliseconds an image of the small network's forward and backward pass for each number of threads and
each precision, in alternating blocks of one run, and the ratio of the medians to one thread in fp32.
"""

import statistics
import time

import torch

from classwise.model.classifier import build_classifier
from classwise.training.loop import PRECISIONS
from classwise.training.tuning import torch_threads

SIZES = ((28, 28), (96, 72), (128, 96))
BLOCKS, BATCH = 9, 32


def main() -> None:
    layouts = [(threads, name) for threads in (1, torch.get_num_threads()) for name in ("fp32", "bf16")]
    for size in SIZES:
        model = build_classifier("small_cnn", "none", size, "squash", 0.0, {"label": 10}, seed=0)
        images = torch.randint(0, 256, (BATCH, 3, *size), dtype=torch.uint8)
        images = images.contiguous(memory_format=torch.channels_last)
        times: dict[tuple[int, str], list[float]] = {layout: [] for layout in layouts}
        for block in range(BLOCKS + 1):
            for layout in layouts:
                milliseconds = one_pass(model, images, *layout)
                if block:  # the first one fills caches
                    times[layout].append(milliseconds)
        base = statistics.median(times[layouts[0]])
        for (threads, name), found in times.items():
            median = statistics.median(found)
            shown = f"{size[0]}x{size[1]} {name}, {threads} threads"
            print(f"{shown:<28} {median:7.2f} ms an image, ratio {median / base:.2f}")


def one_pass(model: torch.nn.Module, images: torch.Tensor, threads: int, precision: str) -> float:
    dtype = PRECISIONS[precision]
    with torch_threads(threads):
        started = time.perf_counter()
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            outputs = model(images)
        outputs["label"].sum().backward()
        return 1000 * (time.perf_counter() - started) / len(images)


if __name__ == "__main__":
    main()
