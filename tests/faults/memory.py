"""A long run needs no more memory at its end than after its first updates."""

import mmap
import os
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults import trials
from tests.faults.counting import Count, Figure

BLOCKS = 20


def _plain(values: list[float]) -> float:
    """The slope of the medians of blocks, by Theil and Sen: steps of the allocator do not count as growth."""
    size = max(1, len(values) // BLOCKS)
    medians = [statistics.median(values[at : at + size]) for at in range(0, len(values) - size + 1, size)]
    pairs = [
        (b - a) / ((j - i) * size) for i, a in enumerate(medians) for j, b in enumerate(medians) if i < j
    ]
    return statistics.median(pairs)


def long_run(updates: int, epochs: int, workers: int, leak: bool = False) -> dict[str, Any]:
    """Train so many updates in so many epochs, each with a validation and a checkpoint; what grew, by update."""
    from classwise.run.api import train
    from classwise.training.state import Progress

    folder = trials.scratch_folder()
    try:
        from tests.helpers.scenes import plain_table, write_config

        plain_table(folder, 16)
        rows = (folder / "samples.csv").read_text().splitlines()
        # The same few images many times over, under other ids: one update is one image.
        per_epoch = updates // epochs
        tables = {
            "samples.csv": [f"{i},{rows[5 + i % 12]}" for i in range(per_epoch * 2)],
            "valid.csv": [f"v{i},{row}" for i, row in enumerate(rows[1:5])],
        }
        for name, lines in tables.items():
            (folder / name).write_text("\n".join([f"id,{rows[0]}", *lines]) + "\n")
        config = write_config(
            folder,
            data__valid="valid.csv",
            data__id="id",
            data__workers=workers,
            training={"epochs": epochs, "batch_size": 2, "precision": "fp32", "device": "cpu", "threads": 1},
            report={"baselines": False, "resamples": 0},
            model={"backbone": "small_cnn", "image_size": [8, 8]},
        )
        samples: list[tuple[float, int, int]] = []
        end_update = Progress.end_update
        kept: list[Any] = []

        def ended(progress: Progress, loss: float, samples_: int) -> None:
            end_update(progress, loss, samples_)
            samples.append((_resident(), len(os.listdir("/proc/self/fd")), _shared()))
            if leak:
                # A page of its own: what the allocator has left over would hide some of them.
                kept.append(mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
                kept[-1][0] = 1

        Progress.end_update = ended  # type: ignore[method-assign]
        try:
            train(config, folder / "run", quiet=True)
        finally:
            Progress.end_update = end_update  # type: ignore[method-assign]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    warm = samples[len(samples) // 5 :]
    resident, handles, shared = zip(*warm, strict=True)
    return {
        "updates": len(samples),
        "slope": _plain(list(resident)),
        "handles": [_middle(handles[: len(handles) // 4]), _middle(handles[-len(handles) // 4 :])],
        "shared": [_middle(shared[: len(shared) // 4]), _middle(shared[-len(shared) // 4 :])],
    }


def _middle(values: tuple[int, ...]) -> int:
    return int(statistics.median(values))


def _resident() -> float:
    """Bytes of this process that are its own: without what it shares with files."""
    with open("/proc/self/statm", encoding="ascii") as file:
        fields = file.read().split()
    return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")


def _shared() -> int:
    """Stretches of shared memory that this process has mapped."""
    return sum("/dev/shm/" in line for line in Path("/proc/self/maps").read_text().splitlines())


def grown(updates: int, epochs: int) -> Count:
    """Both with and without loader workers."""
    count = Count()
    for workers in (0, 2):
        found = trials.in_a_fresh_process("memory", "long_run", updates, epochs, workers)
        checks: dict[str, Callable[[], bool]] = {
            "slope under 1 KB an update": lambda f=found: f["slope"] < 1024,
            "file descriptors flat": lambda f=found: f["handles"][1] <= f["handles"][0],
            "shared memory flat": lambda f=found: f["shared"][1] <= f["shared"][0],
            "all updates made": lambda f=found: f["updates"] >= updates,
        }
        for name, check in checks.items():
            count.add(check(), f"{workers} workers", f"{name}: {found}")
        count.notes[f"bytes an update, {workers} workers"] = round(found["slope"], 1)
    return count


FIGURES = [
    Figure(
        17,
        "memory",
        "10,000 updates in 20 epochs with validations and checkpoints: memory, file descriptors, shared memory",
        lambda: grown(10_000, 20),
    )
]
