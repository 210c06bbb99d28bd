"""Which process reads which images before a run."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from classwise.compose import image_check
from classwise.console import Console
from classwise.distributed import Processes
from tests.helpers.noisy_images import KIND, Scene


def test_the_processes_of_each_machine_read_all_images(
    scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two machines with two processes each need not share a disk: those of one machine read every image, once."""
    s = scene({"kind": KIND})
    samples = s.splits.train.samples
    read: list[Path] = []

    def record(paths: Sequence[Path], **options: Any) -> None:
        read.extend(paths)
        raise KeyboardInterrupt  # what the processes would send each other comes after that

    monkeypatch.setattr(image_check, "check_with_progress", record)
    for local_rank in (0, 1):
        processes = Processes(rank=2 + local_rank, world_size=4, local_rank=local_rank, local_world_size=2)
        with pytest.raises(KeyboardInterrupt):
            image_check.usable_rows(samples, s.config, Console(quiet=True), processes, None, {})
    assert sorted(read) == sorted(samples.paths)
