"""What a GPU makes of it: one script for a machine with PyTorch, timm and a CUDA device.

    python benchmarks/gpu.py [--json FILE] [--only TEXT ...]
    python benchmarks/gpu.py --device cpu --tiny --no-compile      # the same code at tiny sizes, to see that it runs

1. ResNet-50 at 224, batches of 256 uint8 images that lie on the device, bf16, channels_last, compiled, SGD: images a
   second of a bare loop, and of classwise's `train_one_epoch` as their ratio, in alternating blocks of one process.
2. ResNet-18 at 32, batches of 128: a bare loop, eager against torch.compile(mode="reduce-overhead"), which replays
   CUDA graphs.
3. Drawn JPEG files of 500 x 375, read and augmented by all cores through classwise's Loader, the model of 1: the share
   of an epoch after the first in which some kernel or copy runs on the GPU, by torch's profiler, which slows the host
   down a little; and, without it, the share between the first and the last kernel of an update, by CUDA events.
4. An epoch of classwise's loop, checks and steps and all, under torch.cuda.set_sync_debug_mode("error"): an operation
   that makes the host wait for all that the device has to do is an error. The loop does wait for an event, that of the
   update before the one under way, which this mode does not look at: how often that had not come yet is counted.

What needs classwise is skipped, and that is said, where it or a package of its is not installed; a row that fails
leaves the others alone. Prints one table and writes JSON. On a CPU, and at tiny sizes, no figure is one: all of them
are 'not measured'. Exit code 1 if a row failed.
"""

import argparse
import contextlib
import importlib
import itertools
import json
import math
import os
import platform
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

# In a checkout that is not installed, too.
with contextlib.suppress(IndexError):
    sys.path.append(str(Path(__file__).resolve().parents[1] / "src"))

NEEDED = (
    "classwise.training.loop",
    "classwise.data.loader",
    "classwise.data.cache",
    "classwise.optim.optimizers",
)
LR, DECAY = 0.1, 5e-5


@dataclass(frozen=True)
class Sizes:
    """Of one row: model, batch, side of the image, classes, updates an epoch and paired blocks."""

    model: str
    batch: int
    side: int
    classes: int
    updates: int
    blocks: int


@dataclass(frozen=True)
class Job:
    """Where and how: `large` and `small` are the two models' sizes, `files` the drawn JPEG files."""

    device: torch.device
    compile: bool
    large: Sizes
    small: Sizes
    files: int
    workers: int

    @property
    def on_gpu(self) -> bool:
        """Whether there are events, graphs and synchronization at all."""
        return self.device.type == "cuda"

    def wait(self) -> None:
        """Until the device has done all that it was given."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def compiled(self, model: nn.Module, **how: Any) -> Callable[[Tensor], Any]:
        """The model's forward pass, compiled unless told not to."""
        return torch.compile(model, **how) if self.compile else model


@dataclass(frozen=True)
class Row:
    """One line of the table: `goal` None is for information; `why` says why there is no value."""

    name: str
    unit: str = ""
    goal: float | None = None
    value: float | None = None
    spread: tuple[float, float] | None = None
    why: str = ""


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def full_job(device: torch.device, compile_: bool) -> Job:
    """What the goals are about."""
    large = Sizes("resnet50", 256, 224, 1000, 60, 7)
    return Job(device, compile_, large, Sizes("resnet18", 128, 32, 10, 100, 7), 40 * large.batch, cores())


def tiny_job(device: torch.device, compile_: bool) -> Job:
    """The same code in seconds."""
    return Job(
        device, compile_, Sizes("resnet10t", 4, 32, 10, 2, 1), Sizes("resnet10t", 4, 32, 10, 2, 1), 12, 0
    )


# 1 and 2: bare loops


class Net(nn.Module):
    """A network of timm's that takes uint8, as a careful user would write it."""

    mean: Tensor
    std: Tensor

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.body = timm.create_model(sizes.model, num_classes=sizes.classes)
        config = self.body.pretrained_cfg
        for name in ("mean", "std"):
            value = 255 * torch.tensor(config[name]).view(1, 3, 1, 1)
            self.register_buffer(name, value, persistent=False)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        logits_BK: Tensor = self.body((images_BCHW - self.mean) / self.std)
        return logits_BK


def drawn_batches(sizes: Sizes, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """Four batches of uint8 images and labels that lie on the device."""
    draw = torch.Generator().manual_seed(0)
    shape = (sizes.batch, 3, sizes.side, sizes.side)
    found = []
    for _ in range(4):
        images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=draw)
        labels = torch.randint(0, sizes.classes, (sizes.batch,), generator=draw)
        found.append((images.contiguous(memory_format=torch.channels_last).to(device), labels.to(device)))
    return found


def bare_loop(sizes: Sizes, job: Job, compile_: Callable[[nn.Module], Any]) -> Callable[[], None]:
    """An epoch by hand: no check, no log, nothing that waits."""
    torch.manual_seed(0)
    model = Net(sizes).to(job.device).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(
        model.parameters(), LR, momentum=0.9, nesterov=True, weight_decay=DECAY, fused=True
    )
    run, batches = compile_(model), drawn_batches(sizes, job.device)

    def epoch() -> None:
        for images, labels in itertools.islice(itertools.cycle(batches), sizes.updates):
            optimizer.zero_grad()
            with torch.autocast(job.device.type, dtype=torch.bfloat16):
                outputs = run(images)
            F.cross_entropy(outputs.float(), labels).backward()
            optimizer.step()

    return epoch


def in_turns(epochs: Sequence[Callable[[], None]], sizes: Sizes, job: Job) -> list[list[float]]:
    """Images a second of each, block by block, after two that warm up (the second records graphs)."""
    speeds: list[list[float]] = [[] for _ in epochs]
    for block in range(-2, sizes.blocks):
        turn = list(zip(epochs, speeds, strict=True))
        for epoch, found in turn[:: -1 if block % 2 else 1]:
            job.wait()
            started = time.perf_counter()
            epoch()
            job.wait()
            if block >= 0:
                found.append(sizes.batch * sizes.updates / (time.perf_counter() - started))
    return speeds


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Block by block."""
    return [a / b for a, b in zip(above, below, strict=True)]


def filled(row: Row, values: Sequence[float]) -> Row:
    """With the median, and the least and the largest."""
    found = asdict(row) | {"value": statistics.median(values), "spread": (min(values), max(values))}
    return Row(**found)


LARGE = (
    Row("ResNet-50 at 224, compiled, bare loop", "images/s", 7000.0),
    Row("ResNet-50 at 224, classwise / bare loop", "x", 1.0),
    Row("ResNet-50 at 224, bare loop / the same again", "x"),
)
SMALL = (
    Row("ResNet-18 at 32, eager, bare loop", "images/s"),
    Row("ResNet-18 at 32, CUDA graphs / eager", "x", 4.0),
)
BUSY = (
    Row("GPU busy with JPEG files, after the first epoch", "share", 0.9),
    Row("... within an update, from first to last kernel", "share"),
)
SYNC = (
    Row("the loop's host waits for all of the queue", "times", 0.0),
    Row("... for the update before, an update", "times"),
)


def large_rows(job: Job, without: str) -> Iterator[Row]:
    """Row group 1; `without` says why classwise cannot be measured."""
    epochs = [bare_loop(job.large, job, job.compiled) for _ in range(2)]
    epochs += [] if without else [our_loop(job.large, job)]
    bare, again, *ours = in_turns(epochs, job.large, job)
    yield filled(LARGE[0], bare)
    if not without:
        yield filled(LARGE[1], ratios(ours[0], bare))
    yield filled(LARGE[2], ratios(again, bare))


def small_rows(job: Job, without: str) -> Iterator[Row]:
    """Row group 2."""
    eager = bare_loop(job.small, job, lambda model: model)
    graphs = bare_loop(job.small, job, lambda model: job.compiled(model, mode="reduce-overhead"))
    speeds = in_turns([eager, graphs], job.small, job)
    yield filled(SMALL[0], speeds[0])
    yield filled(SMALL[1], ratios(speeds[1], speeds[0]))


# What needs classwise


def missing() -> str:
    """Why classwise cannot be imported; empty if it can."""
    for name in NEEDED:
        try:
            importlib.import_module(name)
        except ImportError as error:
            return f"classwise cannot be imported: {error}"
    return ""


def our_state(sizes: Sizes, job: Job, updates: int) -> Any:
    """classwise's model, criterion and optimizer, as a run on a GPU has them."""
    from classwise.losses.criterion import Criterion
    from classwise.losses.cross_entropy import CrossEntropy
    from classwise.model.average import NoAverage
    from classwise.model.classifier import build_classifier
    from classwise.optim.groups import parameter_groups
    from classwise.optim.optimizers import build_optimizer
    from classwise.optim.schedules import build_schedule
    from classwise.training.state import Progress, TrainState

    size, heads = (sizes.side, sizes.side), {"label": sizes.classes}
    model = build_classifier(sizes.model, "none", size, "squash", 0.0, heads, 0).to(job.device).train()
    groups = parameter_groups(model.backbone, model.heads, LR, DECAY, 1.0)
    optimizer = build_optimizer("sgd", groups, LR, DECAY, {"fused": True}, momentum=0.9, nesterov=True)
    schedule = build_schedule("constant", [group["lr"] for group in optimizer.param_groups], updates, 10**6)
    criterion = Criterion({"label": CrossEntropy()}, {"label": 1.0}).to(job.device)
    scaler = torch.amp.GradScaler(job.device.type, enabled=False)
    return TrainState(
        *(model, criterion, optimizer, schedule, scaler, NoAverage(model), Progress()),
        compute=job.compiled(model),
    )


def our_settings(job: Job, **options: Any) -> Any:
    """classwise's loop in bf16, without clipping, as the bare one."""
    from classwise.training.loop import Settings

    return Settings(0, 10**6, "macro_f1", True, 1, None, math.inf, "bf16", job.device, **options)


class OnDevice:
    """The batches of the bare loop, as classwise's loop wants its data."""

    first_micro_batch_idx = frozen_epochs = 0

    def __init__(self, sizes: Sizes, device: torch.device) -> None:
        import numpy as np

        from classwise.data.batch import Batch

        rows = np.arange(sizes.batch)
        drawn = drawn_batches(sizes, device)
        self.batches = [Batch(images, {"label": labels}, rows, complete=True) for images, labels in drawn]
        self.updates_per_epoch = sizes.updates

    def updates(self, epoch: int = 0) -> Iterator[list[Any]]:
        """One batch an update."""
        batches = itertools.islice(itertools.cycle(self.batches), self.updates_per_epoch)
        return ([batch] for batch in batches)

    def mixing(self, window: list[Any], update: int) -> list[Any]:
        """Nothing is mixed."""
        return window

    def names(self, rows: Iterable[int]) -> list[str]:
        """For a message."""
        return [str(row) for row in rows]


def our_loop(sizes: Sizes, job: Job) -> Callable[[], None]:
    """An epoch of classwise's loop over the same batches."""
    from classwise.training.loop import train_one_epoch

    data, settings = OnDevice(sizes, job.device), our_settings(job)
    state = our_state(sizes, job, sizes.updates)
    return lambda: train_one_epoch(state, data.updates(), data, settings)  # type: ignore[arg-type]


def busy_rows(job: Job, without: str) -> Iterator[Row]:
    """Row group 3: the epochs after the first; those with a profiler for one value, those without for the other."""
    from classwise.training.loop import train_one_epoch

    with contextlib.ExitStack() as stack:
        data = stack.enter_context(jpeg_data(job))
        state, settings = our_state(job.large, job, data.updates_per_epoch), our_settings(job)
        kernels, spans = [], []
        for epoch in range(5 if job.on_gpu else 3):
            busy, profiler = Busy(job), kernel_times(job) if epoch % 2 else None
            job.wait()
            with profiler or contextlib.nullcontext():
                started = time.perf_counter()
                train_one_epoch(state, busy.timed(data.updates(epoch)), data, settings)
                job.wait()
                seconds = time.perf_counter() - started
            if profiler:
                kernels.append(covered(device_spans(profiler)) / seconds)
            elif epoch:
                spans.append(busy.seconds() / seconds)
    yield filled(BUSY[0], kernels)
    yield filled(BUSY[1], spans)


def kernel_times(job: Job) -> Any:
    """torch's profiler of all that runs on the device."""
    kind = torch.profiler.ProfilerActivity
    return torch.profiler.profile(activities=[kind.CUDA if job.on_gpu else kind.CPU])


def device_spans(profiler: Any) -> list[tuple[float, float]]:
    """(begin, end) in seconds of every kernel and copy; on a CPU of every operation."""
    kinds = torch.autograd.DeviceType
    wanted = kinds.CUDA if torch.cuda.is_available() else kinds.CPU
    events = (
        event
        for event in profiler.events()
        # Not what a program calls a part of it, which spans gaps.
        if event.device_type == wanted and not getattr(event, "is_user_annotation", False)
    )
    return [(1e-6 * event.time_range.start, 1e-6 * event.time_range.end) for event in events]


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Seconds that lie in at least one span: kernels of several streams run at once."""
    total, reached = 0.0, -math.inf
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


class Busy:
    """The time between two marks in the device's own queue, around each update; on a CPU by its clock."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.spans: list[tuple[Any, Any]] = []

    def mark(self) -> Any:
        """Here, as the device comes to it."""
        if not self.job.on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def timed(self, windows: Iterable[Any]) -> Iterator[Any]:
        """The windows; an update is what happens until the next one is asked for."""
        for window in windows:
            begun = self.mark()
            yield window
            self.spans.append((begun, self.mark()))

    def seconds(self) -> float:
        """Once the device has been waited for."""
        if self.job.on_gpu:
            return float(sum(begun.elapsed_time(end) for begun, end in self.spans)) / 1000
        return float(sum(end - begun for begun, end in self.spans))


@contextlib.contextmanager
def jpeg_data(job: Job) -> Iterator[Any]:
    """Drawn files, checked and decoded once as before a run, with the Loader that reads them."""
    import numpy as np

    from classwise.data.augment import PRESETS
    from classwise.data.cache import ImageCache
    from classwise.data.checking import check_images
    from classwise.data.dataset import ImageDataset
    from classwise.data.epochs import TrainingData
    from classwise.data.images import min_image_size
    from classwise.data.loader import Loader

    size, labels = (job.large.side, job.large.side), np.arange(job.files) % job.large.classes
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        paths = draw_files(Path(name), job.files)
        cache = stack.enter_context(contextlib.closing(ImageCache(Path(name) / "store", 10**12, 0)))
        checked = check_images(paths, min_size=min_image_size(size), cache=cache)
        if checked.bad:
            raise checked.bad[0]
        cache.flush()
        changed = ImageDataset(
            *(paths, size, "squash", 10**8, 0, PRESETS["standard"]),
            cached=cache.locate(checked.files),
            augments_on_host=not job.on_gpu,
        )
        loader = Loader(changed, {"label": labels}, job.large.batch, job.workers, pin_memory=job.on_gpu)
        stack.enter_context(contextlib.closing(loader))
        yield TrainingData(loader, [str(path) for path in paths], None, "shuffle", 0, 1)


def draw_files(folder: Path, count: int, distinct: int = 200) -> list[Path]:
    """JPEG files with the detail of photographs, about 1.5 bits a pixel, no two alike."""
    import cv2
    import numpy as np

    rng = np.random.default_rng(0)
    images: list[Any] = []
    for _ in range(min(count, distinct)):
        image = np.zeros((375, 500, 3), np.float32)
        for cells, strength in ((4, 90), (16, 40), (64, 18), (256, 9)):
            grid = rng.normal(0, strength, (cells * 3 // 4, cells, 3)).astype(np.float32)
            image += cv2.resize(grid, (500, 375), interpolation=cv2.INTER_CUBIC)
        images.append((image + 128).clip(0, 255).astype(np.uint8))

    def write(i: int) -> Path:
        # A store keeps one image for equal files: each gets a place of its own.
        shifted = np.roll(images[i % distinct], i // distinct, axis=1)
        path = folder / f"{i:05}.jpg"
        path.write_bytes(cv2.imencode(".jpg", shifted, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
        return path

    with ThreadPoolExecutor(cores()) as pool:
        return list(pool.map(write, range(count)))


def sync_rows(job: Job, without: str) -> Iterator[Row]:
    """Row group 4, after an epoch that chooses kernels and compiles, which may wait."""
    from classwise.training.loop import train_one_epoch

    sizes = job.small
    data, state, settings = (
        OnDevice(sizes, job.device),
        our_state(sizes, job, sizes.updates),
        our_settings(job),
    )
    train_one_epoch(state, data.updates(), data, settings)  # type: ignore[arg-type]
    with refused_waiting(job.on_gpu), counted_events() as waits:
        train_one_epoch(state, data.updates(), data, settings)  # type: ignore[arg-type]
    if state.progress.update != 2 * sizes.updates:
        raise RuntimeError(f"{state.progress.update} updates of {2 * sizes.updates}")
    yield filled(SYNC[0], [0.0])
    yield filled(SYNC[1], [sum(waits) / sizes.updates])


@contextlib.contextmanager
def counted_events() -> Iterator[list[bool]]:
    """For every event that the host asks for: whether it had to wait."""
    found: list[bool] = []
    before = torch.cuda.Event.synchronize

    def synchronize(event: torch.cuda.Event) -> None:
        found.append(not event.query())
        before(event)

    torch.cuda.Event.synchronize = synchronize  # type: ignore[method-assign]
    try:
        yield found
    finally:
        torch.cuda.Event.synchronize = before  # type: ignore[method-assign]


@contextlib.contextmanager
def refused_waiting(on: bool) -> Iterator[None]:
    """An operation that waits for the device raises RuntimeError."""
    if not on:
        yield
        return
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


# All of it


@dataclass(frozen=True)
class Group:
    """Rows that are measured together."""

    rows: tuple[Row, ...]
    measure: Callable[[Job, str], Iterator[Row]]
    whole: bool = False  # every one of the rows needs classwise


GROUPS = (
    Group(LARGE, large_rows),
    Group(SMALL, small_rows),
    Group(BUSY, busy_rows, whole=True),
    Group(SYNC, sync_rows, whole=True),
)


def measured(job: Job, without: str, only: Sequence[str], real: bool) -> Iterator[Row]:
    """All rows, each with a value or with why there is none. Unless they are `real`, values are left out."""
    for group in GROUPS:
        if only and not any(text.lower() in row.name.lower() for text in only for row in group.rows):
            continue
        found: dict[str, Row] = {}
        why = without
        if not (group.whole and without):
            try:
                for row in group.measure(job, without):
                    found[row.name] = row if real else Row(row.name, row.unit, row.goal)
            except Exception as error:  # a GPU is rare: the other rows are worth having
                traceback.print_exc()
                why = f"failed: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        for row in group.rows:
            yield found.get(row.name) or Row(row.name, row.unit, row.goal, why=why)


def facts(job: Job) -> dict[str, Any]:
    """Where the figures are from."""
    cpu = platform.processor() or platform.machine()
    return {
        "device": torch.cuda.get_device_name(job.device) if job.on_gpu else cpu,
        "cores": cores(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if job.on_gpu else None,
        "timm": timm.__version__,
        "python": platform.python_version(),
    }


def line(row: Row) -> str:
    """A row of the table."""
    goal = "" if row.goal is None else f"{'<=' if row.goal == 0 else '>='} {number(row.goal)}"
    figure = "skipped" if row.why.startswith("classwise") else "failed" if row.why else "not measured"
    spread = ""
    if row.value is not None:
        figure = number(row.value)
        spread = f"{number(row.spread[0])} to {number(row.spread[1])}" if row.spread else ""
        reached = row.goal is None or (row.value <= 0 if row.goal == 0 else row.value >= row.goal)
        spread += "" if reached else "  not reached"
    return f"{row.name:<48} {row.unit:<8} {goal:>9} {figure:>12}  {spread}".rstrip()


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """0: every row that could be measured was; 1: one of them failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="sizes that no figure comes out of")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument(
        "--cudnn-benchmark", action="store_true", help="let cuDNN try its kernels, for all sides"
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="TEXT", help="rows with TEXT in their name")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    torch.backends.cudnn.benchmark = options.cudnn_benchmark
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no CUDA device; --device cpu --tiny shows that the script runs")
    job = (tiny_job if options.tiny else full_job)(device, not options.no_compile)
    real, without = job.on_gpu and not options.tiny, missing()
    print(", ".join(f"{key} {value}" for key, value in facts(job).items() if value is not None), flush=True)
    print(f"{'':<48} {'':<8} {'goal':>9} {'measured':>12}  least to most", flush=True)
    rows = []
    for row in measured(job, without, options.only, real):
        rows.append(row)
        print(line(row), flush=True)
    for why in dict.fromkeys(row.why for row in rows if row.why):
        print(why)
    if options.json:
        whole = {
            "measured": real,
            "compiled": job.compile,
            "cudnn_benchmark": options.cudnn_benchmark,
            **facts(job),
            "rows": [asdict(row) for row in rows],
        }
        options.json.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    return int(any(row.why.startswith("failed") for row in rows))


if __name__ == "__main__":
    sys.exit(main())
