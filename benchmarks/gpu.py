"""What a GPU makes of it: one script for a machine with PyTorch, timm and a CUDA device.

    python benchmarks/gpu.py [--json FILE]
    python benchmarks/gpu.py --device cpu --tiny      # the same code at tiny sizes, to see that it runs

1. ResNet-50 at 224, batches of 256 uint8 pictures that lie on the device, bf16, channels_last, compiled: images a
   second of classwise's `train_one_epoch`, and its ratio to a bare compiled loop over the same batches.
2. ResNet-18 at 32, batches of 512: eager, compiled, and compiled with CUDA graphs, by the bare loop.
3. No synchronisation in forward, loss and backward: a micro-batch under `torch.cuda.set_sync_debug_mode("error")`.
4. Drawn JPEG files fed by all cores through classwise's Loader, from the store of decoded pictures: the share of the
   time that the GPU is busy, by CUDA events around each update, in the epochs after the first.

Prints a table and writes JSON. On a CPU every figure is 'not measured'.
"""

import argparse
import json
import math
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parent))

GOALS = {
    "ResNet-50 at 224, images/s (H200)": 7000.0,
    "ResNet-50, classwise / bare compiled loop": 1.0,
    "small ResNet at 32, CUDA graphs or compiled / eager": 4.0,
    "micro-batch without synchronisation": 1.0,
    "GPU busy, share, fed from the store": 0.9,
}


@dataclass(frozen=True)
class Sizes:
    """Batch, side of the picture, batches an epoch, and blocks."""

    batch: int
    side: int
    batches: int
    blocks: int


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


class Data:
    """uint8 batches that lie on the device, as classwise's loop wants them."""

    def __init__(self, sizes: Sizes, classes: int, device: torch.device) -> None:
        from classwise.data.loader import Batch

        draw = torch.Generator().manual_seed(0)
        shape = (sizes.batch, 3, sizes.side, sizes.side)
        self.batches = [
            Batch(
                torch.randint(0, 256, shape, dtype=torch.uint8, generator=draw)
                .contiguous(memory_format=torch.channels_last)
                .to(device),
                {"it": torch.randint(0, classes, (sizes.batch,), generator=draw).to(device)},
                np.arange(sizes.batch),
                complete=True,
            )
            for _ in range(4)
        ]
        self.count = self.updates_per_epoch = sizes.batches
        self.first_place = self.frozen_epochs = 0

    def windows(self) -> Iterator[list[Any]]:
        return ([self.batches[i % len(self.batches)]] for i in range(self.count))

    def mixing(self, window: list[Any], update: int) -> list[Any]:
        return window

    def names(self, rows: Any) -> list[str]:
        return [str(row) for row in rows]


def new_model(backbone: str, side: int, classes: int, device: torch.device) -> Any:
    from classwise.model.classifier import build_classifier

    model = build_classifier(backbone, "none", (side, side), "squash", 0.0, {"it": classes}, 0)
    return model.to(device).train()


def new_optimizer(model: Any) -> Any:
    from classwise.optim.groups import parameter_groups
    from classwise.optim.optimizers import build_optimizer

    groups = parameter_groups(model.backbone, model.heads, 0.1, 5e-5, 1.0)
    return build_optimizer("sgd", groups, 0.1, 5e-5)


def bare_epoch(
    model: Any, run: Any, optimizer: Any, data: Data, dtype: torch.dtype, device: torch.device
) -> None:
    """By hand, over the same batches: no check, no log."""
    for (batch,) in data.windows():
        optimizer.zero_grad()
        with torch.autocast(device.type, dtype=dtype):
            outputs = run(batch.images)
        loss = F.cross_entropy(outputs["it"], batch.targets["it"])
        loss.backward()
        optimizer.step()


def our_state(model: Any, optimizer: Any, data: Data, compute: Any) -> Any:
    from classwise.losses.criterion import Criterion
    from classwise.losses.cross_entropy import CrossEntropy
    from classwise.model.average import NoAverage
    from classwise.optim.schedules import build_schedule
    from classwise.train.state import Progress, TrainState

    bases = [group["lr"] for group in optimizer.param_groups]
    schedule = build_schedule("constant", bases, data.updates_per_epoch, 10**6, 0.0)
    device = next(model.parameters()).device
    criterion = Criterion({"it": CrossEntropy()}, {"it": 1.0}).to(device)
    scaler = torch.amp.GradScaler(device.type, enabled=False)
    return TrainState(model, criterion, optimizer, schedule, scaler, NoAverage(model), Progress(), compute)


def settings_of(device: torch.device) -> Any:
    from classwise.train.loop import Settings

    return Settings(0, 10**6, "macro_f1", True, 1, None, math.inf, "bf16", device)


def training_speed(
    backbone: str, sizes: Sizes, device: torch.device, compile_: bool
) -> tuple[float, list[float]]:
    """Images a second of classwise's loop, and its paired ratios to the bare loop."""
    from classwise.train.loop import train_one_epoch

    data = Data(sizes, 1000, device)
    bare, ours = (new_model(backbone, sizes.side, 1000, device) for _ in range(2))
    bare_run, our_run = (torch.compile(model) if compile_ else model for model in (bare, ours))
    bare_optimizer = new_optimizer(bare)
    state, settings = our_state(ours, new_optimizer(ours), data, our_run), settings_of(device)

    def one(epoch: Callable[[], None]) -> float:
        wait(device)
        started = time.perf_counter()
        epoch()
        wait(device)
        return sizes.batch * sizes.batches / (time.perf_counter() - started)

    def by_hand() -> None:
        bare_epoch(bare, bare_run, bare_optimizer, data, torch.bfloat16, device)

    def by_classwise() -> None:
        train_one_epoch(state, data.windows(), data, settings)  # type: ignore[arg-type]

    one(by_hand), one(by_classwise)
    pairs = [(one(by_hand), one(by_classwise)) for _ in range(sizes.blocks)]
    return statistics.median(speed for _, speed in pairs), sorted(speed / bare for bare, speed in pairs)


def small_model(sizes: Sizes, device: torch.device, compile_: bool) -> dict[str, float]:
    """Images a second of the bare loop: eager, compiled, with CUDA graphs."""
    data = Data(sizes, 10, device)
    ways: dict[str, Any] = {"eager": lambda model: model}
    if compile_:
        ways["compiled"] = torch.compile
        if device.type == "cuda":
            ways["CUDA graphs"] = lambda model: torch.compile(model, mode="reduce-overhead")
    speeds = {}
    for name, way in ways.items():
        model = new_model("resnet18", sizes.side, 10, device)
        run, optimizer = way(model), new_optimizer(model)
        found = []
        for _ in range(sizes.blocks + 1):
            wait(device)
            started = time.perf_counter()
            bare_epoch(model, run, optimizer, data, torch.bfloat16, device)
            wait(device)
            found.append(sizes.batch * sizes.batches / (time.perf_counter() - started))
        speeds[name] = statistics.median(found[1:])
    return speeds


def never_waits(sizes: Sizes, device: torch.device) -> bool:
    """Whether forward, loss and backward of a micro-batch run under the debug mode that refuses synchronisation."""
    data = Data(sizes, 10, device)
    model = new_model("resnet18", sizes.side, 10, device)
    state, settings = our_state(model, new_optimizer(model), data, None), settings_of(device)
    (batch,) = data.batches[:1]
    mass = state.criterion.window_mass([batch.targets])
    for careful in (False, True):  # the first chooses kernels
        if careful and device.type == "cuda":
            torch.cuda.set_sync_debug_mode("error")
        try:
            with settings.autocast():
                outputs = state.outputs(batch.images)
            state.criterion(outputs, batch.targets, mass).backward()
        finally:
            if device.type == "cuda":
                torch.cuda.set_sync_debug_mode("default")
    return True


def busy_share(sizes: Sizes, device: torch.device, files: int, workers: int) -> float:
    """The share of the time that the GPU works on updates, fed by the Loader from the store."""
    from classwise.data.augment import PRESETS
    from classwise.data.cache import PictureStore
    from classwise.data.images import check_images, least_size
    from classwise.data.loader import Loader, Pictures, TrainingData
    from classwise.train.loop import train_one_epoch
    from reading import draw_pictures

    with tempfile.TemporaryDirectory() as name:
        paths = draw_pictures(Path(name), files)
        store = PictureStore(Path(name) / "store", 10**12, 0)
        size = (sizes.side, sizes.side)
        assert not check_images(paths, least=least_size(size), store=store)
        store.flush()
        changes = PRESETS["standard"]
        pictures = Pictures(paths, size, "squash", 10**8, 0, changes, stored=store.of(paths))
        labels = {"it": np.arange(files) % 10}
        loader = Loader(pictures, labels, sizes.batch, workers, pin_memory=device.type == "cuda")
        data = TrainingData(loader, [str(path) for path in paths], None, "shuffle", 0, 1)
        model = new_model("resnet50" if device.type == "cuda" else "resnet18", sizes.side, 10, device)
        state, settings = (
            our_state(model, new_optimizer(model), Data(sizes, 10, device), None),
            settings_of(device),
        )
        spans: list[Any] = []

        def timed(windows: Any) -> Iterator[Any]:
            for window in windows:
                events = (
                    [torch.cuda.Event(enable_timing=True) for _ in range(2)] if device.type == "cuda" else []
                )
                if events:
                    events[0].record()
                yield window
                if events:
                    events[1].record()
                spans.append(events)

        shares = []
        for epoch in range(3):
            spans.clear()
            wait(device)
            started = time.perf_counter()
            train_one_epoch(state, timed(data.windows(epoch)), data, settings)
            wait(device)
            passed = time.perf_counter() - started
            busy = (
                sum(first.elapsed_time(last) for first, last in spans) / 1000
                if device.type == "cuda"
                else 0.0
            )
            shares.append(busy / passed)
        loader.close()
        store.close()
    return max(shares[1:])


def measure(device: torch.device, tiny: bool, compile_: bool) -> dict[str, Any]:
    """All figures by the name of their goal."""
    large = Sizes(4, 32, 2, 1) if tiny else Sizes(256, 224, 40, 5)
    small = Sizes(4, 32, 2, 1) if tiny else Sizes(512, 32, 60, 5)
    speed, ratios = training_speed("resnet18" if tiny else "resnet50", large, device, compile_)
    speeds = small_model(small, device, compile_)
    names = iter(GOALS)
    return {
        next(names): speed,
        next(names): statistics.median(ratios),
        next(names): max(speeds.values()) / speeds["eager"],
        next(names): float(never_waits(small, device)),
        next(names): busy_share(
            Sizes(4, 32, 2, 1) if tiny else Sizes(128, 224, 0, 1),
            device,
            12 if tiny else 8000,
            0 if tiny else os.cpu_count() or 1,
        ),
        "ratios of ResNet-50": ratios,
        "small ResNet, images/s": speeds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    on_gpu = device.type == "cuda"
    found = measure(device, arguments.tiny, not arguments.no_compile)
    machine = torch.cuda.get_device_name() if on_gpu else platform.processor() or platform.machine()
    print(f"{machine}, torch {torch.__version__}")
    for name, goal in GOALS.items():
        figure = f"{found[name]:10,.3f}" if on_gpu and not arguments.tiny else "not measured"
        print(f"{name:<54} goal {goal:>8,.2f}   {figure}")
    if arguments.json:
        whole = {
            "machine": machine,
            "torch": torch.__version__,
            "measured": on_gpu and not arguments.tiny,
            **found,
        }
        Path(arguments.json).write_text(json.dumps(whole, indent=1))


if __name__ == "__main__":
    main()
