"""Batches in memory that is used again: never while anybody still looks at them."""

import copy
import gc
import hashlib
import multiprocessing
import os
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

from classwise.data import slots as module
from classwise.data.collate import Collate
from classwise.data.dataset import ImageDataset
from classwise.data.fit import fit_image
from classwise.data.images import read_image
from classwise.data.loader import Loader
from classwise.data.slots import SLOTS_PER_WORKER, Slots

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
CONTEXT = multiprocessing.get_context()
SIZE = (12, 10)


@pytest.fixture
def paths(tmp_path: Path, make_images: Any) -> list[Path]:
    """Forty small images."""
    return [tmp_path / name for name in make_images(tmp_path, {"a": 40})]


def loader(paths: list[Path], workers: int, start: str = "fork", batch_size: int = 4) -> Loader:
    return Loader(
        ImageDataset(paths, SIZE, "squash", 10_000),
        {"row": np.arange(len(paths))},
        batch_size,
        workers,
        False,
        start,
    )


def parts(count: int, size: int = 4) -> list[np.ndarray]:
    return [np.arange(at, min(at + size, count)) for at in range(0, count, size)]


def images(count: int, value: int) -> list[np.ndarray]:
    return [np.full((*SIZE, 3), value + i, np.uint8) for i in range(count)]


def opened(slot_ref: module.SlotRef) -> torch.Tensor:
    """As the queue to the parent does it."""
    make, arguments = slot_ref.__reduce__()
    tensor: torch.Tensor = make(*arguments)
    return tensor


def made(workers: int = 1, size: int = 4 * 360) -> Slots:
    found = Slots.allocate(CONTEXT, workers, size)
    assert found is not None
    return found


def test_a_slot_is_free_once_nothing_looks_at_it() -> None:
    """Not before: a part, a permuted view, a numpy array of it keep it."""
    slots = made()
    for keep in (
        lambda x: x,
        lambda x: x.permute(0, 3, 1, 2),
        lambda x: x[1:2, 0],
        lambda x: x.numpy(),
        lambda x: torch.tensor_split(x, 2)[1],
        lambda x: x.numpy()[2:],
    ):
        kept = keep(opened(slots.put(0, images(4, 7))))
        assert list(slots.taken) == [1, 0, 0, 0]
        value = np.asarray(kept).copy()
        second = opened(slots.put(0, images(4, 99)))
        np.testing.assert_array_equal(np.asarray(kept), value)
        del second
        assert list(slots.taken) == [1, 0, 0, 0]
        del kept
        assert list(slots.taken) == [0, 0, 0, 0]


def test_a_batch_that_nobody_opens_is_given_back() -> None:
    """What is left of an epoch that was given up arrives, and is dropped."""
    slots = made()
    opened(slots.put(0, images(2, 1)))
    assert list(slots.taken) == [0] * SLOTS_PER_WORKER


def test_where_there_is_no_room_the_usual_way_is_taken() -> None:
    slots = made(workers=2)
    held = [slots.put(1, images(4, 0)) for _ in range(SLOTS_PER_WORKER)]
    assert None not in held
    assert slots.put(1, images(1, 0)) is None
    assert slots.put(0, images(5, 0)) is None  # more than the batch that it was made for
    assert slots.put(0, images(4, 0)) is not None


def test_memory_that_cannot_be_spared_is_not_taken() -> None:
    free = shutil.disk_usage("/dev/shm").free
    assert Slots.allocate(CONTEXT, 1, free) is None
    assert Slots.allocate(CONTEXT, 2, 0) is None
    with mock.patch.object(torch.Tensor, "share_memory_", side_effect=RuntimeError("no memory")):
        assert Slots.allocate(CONTEXT, 1, 1000) is None


def test_a_forked_process_gives_nothing_back() -> None:
    """It has copies of the parent's objects, and drops them at some time."""
    slots = made()
    held = opened(slots.put(0, images(4, 5)))
    pid = os.fork()
    if not pid:
        try:
            del held
            gc.collect()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert list(slots.taken) == [1, 0, 0, 0]
    assert int(held[0, 0, 0, 0]) == 5


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_kept_batches_stay_as_they_are(paths: list[Path], start: str) -> None:
    """All of three epochs, and some that are dropped at once."""
    expected = [fit_image(read_image(path), SIZE, "squash") for path in paths]
    reading, kept = loader(paths, 2, start), []
    try:
        for epoch in range(3):
            for i, batch in enumerate(reading.batches(parts(40), epoch)):
                if i % 3 != epoch:
                    kept.append(batch)
        for batch in kept:
            for image, row in zip(batch.images.permute(0, 2, 3, 1), batch.rows, strict=True):
                np.testing.assert_array_equal(image.numpy(), expected[row])
    finally:
        reading.close()


def test_slots_are_used_again_and_again(paths: list[Path]) -> None:
    """A loop that looks at one batch at a time never needs new memory; epochs that are given up lose no slot."""
    reading = loader(paths, 2)
    try:
        used: set[int] = set()
        for epoch in range(6):
            for i, batch in enumerate(reading.batches(parts(40), epoch)):
                used.add(batch.images.data_ptr())
                if epoch % 2 and i == 3:
                    break
        assert len(used) <= 2 * SLOTS_PER_WORKER
        collate = reading._loader.collate_fn
        assert isinstance(collate, Collate)
        assert collate.slots is not None
        assert sum(collate.slots.taken) <= 2 * SLOTS_PER_WORKER
        del batch
        list(reading.batches(parts(40), 9))
        gc.collect()
        assert not any(collate.slots.taken)
    finally:
        reading.close()


def test_new_workers_have_new_slots(paths: list[Path]) -> None:
    """Those that were killed may have taken some for batches that never arrived."""
    reading = loader(paths, 2)
    first = next(reading.batches(parts(40)))
    before = first.images.clone()
    reading.close()
    digests = [hashlib.sha256(b.images.numpy().tobytes()).hexdigest() for b in reading.batches(parts(40))]
    reading.close()
    assert torch.equal(first.images, before)
    alone = [
        hashlib.sha256(b.images.numpy().tobytes()).hexdigest() for b in loader(paths, 0).batches(parts(40))
    ]
    assert digests == alone


def test_a_sabotage_that_gives_slots_back_at_once_is_seen(paths: list[Path]) -> None:
    """Without the count of who looks at a batch, kept ones change under their owner's eyes."""
    reading = loader(paths, 2)
    batch = Slots.batch

    def careless(self: Slots, slot: int, shape: tuple[int, ...]) -> torch.Tensor:
        found = batch(self, slot, shape)
        self.taken[slot] = 0
        return found

    try:
        with mock.patch.object(Slots, "batch", careless):
            kept = [(b, copy.deepcopy(b.images)) for b in reading.batches(parts(40))]
        assert not all(torch.equal(b.images, images) for b, images in kept)
    finally:
        reading.close()
